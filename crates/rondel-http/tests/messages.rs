//! Requests and responses: framing, bodies, and the rules of RFC 9110 and 9112.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use rondel_http::{Config, Limits};
use support::Host;

#[test]
fn a_connection_is_kept_and_the_length_is_known() {
    let host = Host::new();
    let mut client = host.client();
    for _ in 0..3 {
        let reply = client.get("/hello");
        assert_eq!((reply.status, reply.text()), (200, "Hello, World!"));
        assert_eq!(reply.header("content-length"), Some("13"));
        assert_eq!(reply.header("server"), Some("rondel"));
        assert!(reply.header("date").is_some() && reply.header("connection").is_none());
    }
    assert_eq!(client.get("/empty").header("content-length"), Some("0"));
    assert_eq!(
        host.ask(|_, s| (s.connections(), s.requests(), s.served())),
        (1, 0, 4)
    );
}

#[test]
fn a_status_may_have_words_of_the_applications_own() {
    let host = Host::new();
    let mut client = host.client();
    let line = |reply: &support::Reply| reply.head.lines().next().unwrap().to_owned();
    let reply = client.get("/reason");
    assert_eq!(
        (line(&reply).as_str(), reply.text()),
        ("HTTP/1.1 299 Quite \u{e9}", "body")
    );
    assert_eq!(line(&client.get("/hello")), "HTTP/1.1 200 OK");
    // They are gone with the response that they were given for.
    let refused = client.get("/reason?5");
    assert_eq!(line(&refused), "HTTP/1.1 500 Internal Server Error");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let host = Host::new();
    let mut client = host.client();
    let one = "GET /hello HTTP/1.1\r\nHost: t\r\n\r\n";
    let echo = "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nping";
    client.send([one, echo, one, "GET /stat"].concat());
    assert_eq!(client.reply().text(), "Hello, World!");
    assert_eq!(client.reply().text(), "ping");
    assert_eq!(client.reply().text(), "Hello, World!");
    client.send("us/201 HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(client.reply().status, 201);
}

#[test]
fn a_burst_of_pipelined_requests_is_answered_whole() {
    let host = Host::new();
    let mut client = host.client();
    client.send("GET /hello HTTP/1.1\r\nHost: t\r\n\r\n".repeat(500));
    for _ in 0..500 {
        assert_eq!(client.reply().text(), "Hello, World!");
    }
}

#[test]
fn what_comes_early_behind_an_upgrade_ends_the_connection_with_its_answer_not_before() {
    let host = Host::new();
    let mut client = host.client();
    let one = "GET /hello HTTP/1.1\r\nHost: t\r\n\r\n";
    let echo = "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nping";
    let upgrade = "GET /hello HTTP/1.1\r\nHost: t\r\nUpgrade: h2c\r\n\r\n";
    client.send([echo, one, upgrade, one].concat());
    for text in ["ping", "Hello, World!"] {
        let reply = client.reply();
        assert_eq!((reply.text(), reply.header("connection")), (text, None));
    }
    let last = client.reply();
    assert_eq!(last.text(), "Hello, World!");
    assert_eq!(last.header("connection"), Some("close"));
    assert_eq!(client.rest(), b"");
    // Nothing behind it: the next request may follow.
    let mut client = host.client();
    client.send([one, upgrade].concat());
    for _ in 0..2 {
        assert_eq!(client.reply().header("connection"), None);
    }
    assert_eq!(client.get("/hello").text(), "Hello, World!");
}

#[test]
fn a_large_body_arrives_whole() {
    let host = Host::new();
    let reply = host.client().get("/large");
    assert!(reply.body.len() == 1024 * 1024 && reply.body.iter().all(|b| *b == b'L'));
}

#[test]
fn bodies_are_chunked_both_ways_as_they_come() {
    let host = Host::new();
    let mut client = host.client();
    client.request("POST", "/echo", "Transfer-Encoding: chunked\r\n");
    client.send("3\r\nabc\r\n");
    assert_eq!(client.head().header("transfer-encoding"), Some("chunked"));
    assert_eq!(client.chunk().unwrap().unwrap(), b"abc");
    client.send("4;ext=1\r\ndefg\r\n");
    assert_eq!(client.chunk().unwrap().unwrap(), b"defg");
    client.send("0\r\nx-trailer: 1\r\n\r\n");
    assert_eq!(client.chunk().unwrap(), None);
    assert_eq!(client.get("/hello").status, 200);
}

#[test]
fn a_large_upload_is_read_to_its_end() {
    let host = Host::new();
    let mut client = host.client();
    let size = 3_000_000;
    client.request("POST", "/count", &format!("Content-Length: {size}\r\n"));
    client.send(vec![b'u'; size]);
    assert_eq!(client.reply().text(), size.to_string());
    assert_eq!(client.get("/hello").status, 200);
}

#[test]
fn continue_is_sent_when_the_body_is_asked_for() {
    let host = Host::new();
    let mut client = host.client();
    let expect = "Content-Length: 2\r\nExpect: 100-continue\r\n";
    client.request("POST", "/count", expect);
    assert_eq!(client.head().status, 100);
    client.send("hi");
    assert_eq!(client.reply().text(), "2");
    client.request("POST", "/hello", expect);
    assert_eq!(client.head().status, 200, "nobody asks for this body");
}

#[test]
fn head_and_bodyless_statuses_have_no_body() {
    let host = Host::new();
    let mut client = host.client();
    for (path, length) in [
        ("/hello", Some("13")),
        ("/sized", Some("5")),
        ("/empty", Some("0")),
    ] {
        client.request("HEAD", path, "");
        let reply = client.head();
        assert_eq!(
            (reply.status, reply.header("content-length")),
            (200, length),
            "{path}"
        );
    }
    client.request("HEAD", "/stream", "");
    assert_eq!(client.head().header("transfer-encoding"), None);
    for status in [204, 304] {
        let reply = client.get(&format!("/status/{status}"));
        assert_eq!((reply.status, reply.body.len()), (status, 0));
        assert_eq!(reply.header("content-length"), None);
        assert_eq!(reply.header("transfer-encoding"), None);
    }
    // The connection is still in step.
    assert_eq!(client.get("/hello").text(), "Hello, World!");
}

#[test]
fn a_given_length_is_kept() {
    let host = Host::new();
    let reply = host.client().get("/sized");
    assert_eq!(
        (reply.text(), reply.header("content-length")),
        ("abcde", Some("5"))
    );
    assert_eq!(reply.header("x-kept"), Some("yes"));
}

#[test]
fn a_broken_promise_of_length_is_a_500_while_nothing_has_gone_out() {
    let host = Host::new();
    for (path, why) in [("/short", "shorter"), ("/long", "longer")] {
        let mut client = host.client();
        client.request("GET", path, "");
        let rest = client.rest();
        assert!(rest.starts_with(b"HTTP/1.1 500 "), "{path}: {rest:?}");
        host.expect(&format!("response body {why} than its content-length"));
    }
}

#[test]
fn misuse_is_refused() {
    let host = Host::new();
    let reply = host.client().get("/misuse");
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    host.expect("call /misuse");
    let expected = [
        "Err(NotStarted)",
        "Err(BadStatus)",
        "Err(BadLength)",
        "Ok(())",
        "Err(AlreadyStarted)",
        "Ok(())",
        "Err(AfterEnd)",
    ];
    for it in expected {
        assert_eq!(host.told(), it);
    }
}

#[test]
fn close_is_honoured_from_both_sides() {
    let host = Host::new();
    let mut client = host.client();
    client.request("GET", "/hello", "Connection: close\r\n");
    let reply = client.reply();
    assert_eq!(
        (reply.text(), reply.header("connection")),
        ("Hello, World!", Some("close"))
    );
    assert_eq!(client.rest(), b"");
    let mut client = host.client();
    assert_eq!(client.get("/close").text(), "bye");
    assert_eq!(client.rest(), b"");
}

#[test]
fn http_1_0_gets_its_own_framing() {
    let host = Host::new();
    let mut client = host.client();
    client.send("POST /stream HTTP/1.0\r\nContent-Length: 3\r\n\r\nend");
    let reply = client.head();
    assert_eq!(reply.header("transfer-encoding"), None);
    assert_eq!(client.rest(), b"onetwoend");
    let mut client = host.client();
    client.send("GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.reply().header("connection"), Some("keep-alive"));
    client.send("GET /hello HTTP/1.0\r\n\r\n");
    assert_eq!(client.reply().text(), "Hello, World!");
    assert_eq!(client.rest(), b"");
}

#[test]
fn malformed_requests_get_400_and_the_service_never_sees_them() {
    let host = Host::new();
    let bad = [
        "nonsense\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: t\r\nbad header\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: t\r\nContent-Length: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip\r\n\r\n",
        "GET /hello HTTP/1.1\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ];
    for request in bad {
        let mut client = host.client();
        client.send(request);
        assert_eq!(client.reply().status, 400, "{request:?}");
        assert_eq!(client.rest(), b"");
    }
    assert_eq!(host.client().get("/hello").status, 200);
    let called = std::iter::from_fn(|| Some(host.told())).find(|it| it.starts_with("call"));
    assert_eq!(called.unwrap(), "call /hello");
}

#[test]
fn a_malformed_body_gets_400() {
    let host = Host::new();
    let mut client = host.client();
    client.request("POST", "/count", "Transfer-Encoding: chunked\r\n");
    client.send("zz\r\n");
    let reply = client.reply();
    assert_eq!(
        (reply.status, reply.header("connection")),
        (400, Some("close"))
    );
    host.expect("gone while reading");
}

#[test]
fn oversize_heads_get_431_even_while_the_client_still_sends() {
    let host = Host::new();
    let long = format!("x-long: {}\r\n", "y".repeat(200_000));
    let many: String = (0..101).map(|i| format!("x-{i}: 1\r\n")).collect();
    for rest in [long, many] {
        let mut client = host.client();
        client.request("GET", "/hello", &rest);
        assert_eq!(client.reply().status, 431);
    }
    let fits = format!("x-long: {}\r\n", "y".repeat(60_000));
    let mut client = host.client();
    client.request("GET", "/hello", &fits);
    assert_eq!(client.reply().status, 200);
}

#[test]
fn oversize_bodies_get_413() {
    let limits = Limits {
        body_bytes: Some(1000),
        ..Limits::default()
    };
    let host = Host::with(Config {
        limits,
        ..Config::default()
    });
    let mut client = host.client();
    client.request("POST", "/count", "Content-Length: 500000\r\n");
    client.send(vec![b'u'; 500_000]);
    assert_eq!(client.reply().status, 413);
    let mut client = host.client();
    client.request("POST", "/count", "Transfer-Encoding: chunked\r\n");
    client.send(
        [
            b"1f4\r\n",
            &[b'x'; 500][..],
            b"\r\n",
            b"1f5\r\n",
            &[b'x'; 501],
            b"\r\n",
        ]
        .concat(),
    );
    assert_eq!(client.reply().status, 413);
    host.expect("gone while reading");
    let mut client = host.client();
    client.request("POST", "/count", "Content-Length: 1000\r\n");
    client.send([b'u'; 1000]);
    assert_eq!(client.reply().text(), "1000");
}

#[test]
fn an_unread_body_does_not_disturb_the_next_request() {
    let host = Host::new();
    let mut client = host.client();
    client.request("POST", "/hello", "Content-Length: 5\r\n");
    client.send("abcde");
    assert_eq!(client.reply().status, 200);
    let mut client = host.client();
    // Too much to drain: the response arrives all the same, and the connection ends.
    client.request("POST", "/hello", "Content-Length: 900000\r\n");
    client.send(vec![b'u'; 900_000]);
    assert_eq!(client.reply().text(), "Hello, World!");
    assert_eq!(client.rest(), b"");
}
