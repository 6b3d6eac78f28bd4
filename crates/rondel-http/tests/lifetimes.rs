//! Connections over time: disconnects, backpressure, deadlines, shutdown.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rondel_http::{Config, Limits};
use support::{Client, FLOOD_CHUNK, FLOOD_TOTAL, Host};

fn with_limits(limits: Limits) -> Host {
    Host::with(Config {
        limits,
        ..Config::default()
    })
}

#[test]
fn a_disconnect_reaches_an_exchange_that_waits() {
    let host = Host::new();
    let mut client = host.client();
    client.request("GET", "/hold", "");
    host.expect("call /hold");
    drop(client);
    host.expect("Gone");
    // A body that was read to its end makes no difference.
    let mut client = host.client();
    client.request("POST", "/hold", "Content-Length: 2\r\n");
    client.send("hi");
    host.expect("call /hold");
    drop(client);
    host.expect("Gone");
}

#[test]
fn a_disconnect_within_the_body_reaches_its_reader() {
    let host = Host::new();
    for framing in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut client = host.client();
        client.request("POST", "/count", framing);
        client.send("5\r\nabcde\r\n");
        host.expect("call /count");
        drop(client);
        host.expect("gone while reading");
    }
    while host.ask(|_, s| s.connections()) > 0 {}
}

#[test]
fn a_disconnect_within_the_response_reaches_its_writer() {
    let host = Host::new();
    let mut client = host.client();
    client.request("GET", "/flood", "");
    host.expect("call /flood");
    client.head();
    drop(client);
    host.expect("Gone");
    while host.ask(|_, s| (s.connections(), s.requests())) != (0, 0) {}
}

#[test]
fn a_client_that_does_not_read_bounds_the_queue() {
    let host = Host::new();
    let mut client = host.client();
    client.request("GET", "/flood", "");
    host.expect("call /flood");
    // The kernel's buffers take some, then the writer is held: its marks cease while other
    // connections are served.
    let mut sent = 0;
    loop {
        let mut other = host.client();
        let (mut served, mut marks) = (0, 0);
        for _ in 0..20 {
            assert_eq!(other.get("/hello").status, 200);
        }
        while served < 20 {
            let told = host.told();
            served += usize::from(told == "call /hello");
            if let Some(mark) = told.strip_prefix("full ") {
                (sent, marks) = (mark.parse().unwrap(), marks + 1);
            }
        }
        if sent > 0 && marks == 0 {
            break;
        }
    }
    assert!(
        sent < FLOOD_TOTAL / 2,
        "{sent} bytes taken for a client that reads none"
    );
    // It reads: all arrives.
    let reply = client.head();
    assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
    let mut total = 0;
    while let Some(chunk) = client.chunk().unwrap() {
        total += chunk.len();
    }
    assert_eq!(total, FLOOD_TOTAL);
    assert_eq!(total % FLOOD_CHUNK, 0);
    host.expect("flood done");
}

#[test]
fn a_service_that_does_not_read_holds_the_client_back() {
    let host = Host::new();
    let mut client = host.client();
    client.request("POST", "/hold", "Content-Length: 100000000\r\n");
    host.expect("call /hold");
    let stream = client.0.get_mut();
    stream
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut sent = 0;
    let block = vec![b'u'; 1 << 16];
    while let Ok(n) = std::io::Write::write(stream, &block) {
        sent += n;
        assert!(sent < 50_000_000, "the server takes what nobody reads");
    }
    assert!(sent > 0);
}

#[test]
fn an_aborted_response_is_seen_to_be_cut() {
    let host = Host::new();
    let mut client = host.client();
    client.request("GET", "/abort", "");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.chunk().unwrap().unwrap(), b"part");
    host.run(|app, _| app.abort_all());
    assert!(client.chunk().is_err(), "no end of the body");
    // HTTP/1.0 ends a body by closing: only a reset can tell.
    let mut client = host.client();
    client.send("GET /abort HTTP/1.0\r\n\r\n");
    client.head();
    let mut part = [0; 4];
    client.0.read_exact(&mut part).unwrap();
    host.run(|app, _| app.abort_all());
    let cut = client.0.read(&mut part).unwrap_err();
    assert_eq!(cut.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_dropped_exchange_is_answered_with_500() {
    let host = Host::new();
    let mut client = host.client();
    let reply = client.get("/drop");
    assert_eq!(
        (reply.status, reply.header("connection")),
        (500, Some("close"))
    );
}

#[test]
fn a_slow_head_meets_its_deadline() {
    let host = with_limits(Limits {
        header_deadline: Duration::from_millis(100),
        ..Limits::default()
    });
    let mut client = host.client();
    let start = Instant::now();
    client.send("GET /hello HTTP/1.1\r\nHo");
    let reply = client.reply();
    assert_eq!(reply.status, 408);
    assert!(start.elapsed() >= Duration::from_millis(90));
    assert_eq!(client.rest(), b"");
    host.expect("deadline Header");
    // One that sends nothing at all is just closed.
    let mut client = host.client();
    assert_eq!(client.rest(), b"");
    // A second request's head has the same deadline, and the wait before it has not.
    let mut client = host.client();
    assert_eq!(client.get("/hello").status, 200);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(client.get("/hello").status, 200);
    client.send("GET");
    assert_eq!(client.reply().status, 408);
}

#[test]
fn dripping_bytes_do_not_move_the_deadline() {
    let host = with_limits(Limits {
        header_deadline: Duration::from_millis(200),
        ..Limits::default()
    });
    let mut client = host.client();
    let start = Instant::now();
    let mut writer = client.0.get_ref().try_clone().unwrap();
    let dripper = std::thread::spawn(move || {
        // Ends once the server has closed.
        while std::io::Write::write_all(&mut writer, b"G").is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    assert_eq!(client.reply().status, 408);
    assert!(start.elapsed() < Duration::from_secs(5));
    drop(client);
    dripper.join().unwrap();
}

#[test]
fn an_idle_connection_is_closed_but_a_busy_one_is_not() {
    let host = with_limits(Limits {
        idle_deadline: Duration::from_millis(150),
        ..Limits::default()
    });
    let mut client = host.client();
    let start = Instant::now();
    assert_eq!(client.get("/hello").status, 200);
    assert_eq!(client.rest(), b"");
    assert!(start.elapsed() >= Duration::from_millis(140));
    host.expect("deadline Idle");
    let mut client = host.client();
    client.request("GET", "/hold", "");
    host.expect("call /hold");
    std::thread::sleep(Duration::from_millis(400));
    host.run(|app, _| app.release());
    assert_eq!(client.reply().text(), "released");
}

#[test]
fn a_client_that_never_reads_is_closed_in_the_end() {
    let host = with_limits(Limits {
        write_deadline: Some(Duration::from_millis(200)),
        ..Limits::default()
    });
    let mut client = host.client();
    client.request("GET", "/flood", "");
    host.expect("deadline Write");
    host.expect("Gone");
}

#[test]
fn the_number_of_connections_is_bounded() {
    let host = with_limits(Limits {
        connections: Some(2),
        ..Limits::default()
    });
    let (mut a, mut b) = (host.client(), host.client());
    a.request("GET", "/hold", "");
    b.request("GET", "/hold", "");
    host.expect("call /hold");
    host.expect("call /hold");
    let mut waiting = host.client();
    waiting.request("GET", "/hello", "");
    assert_eq!(host.ask(|_, s| s.connections()), 2);
    drop(a);
    assert_eq!(waiting.reply().status, 200);
    host.run(|app, _| app.release());
    assert_eq!(b.reply().status, 200);
    assert_eq!(host.ask(|_, s| s.connections()), 2);
}

#[test]
fn a_full_server_closes_an_idle_connection_for_the_next_one() {
    let host = with_limits(Limits {
        connections: Some(2),
        ..Limits::default()
    });
    let (mut busy, mut idle) = (host.client(), host.client());
    assert_eq!(idle.get("/hello").status, 200);
    busy.request("GET", "/hold", "");
    host.expect("call /hold");
    // In its place, again and again; the one that is busy keeps its own.
    for _ in 0..3 {
        let mut next = host.client();
        assert_eq!(next.get("/hello").status, 200);
        assert_eq!(idle.rest(), b"");
        idle = next;
    }
    // One that waits gets the place of the first that becomes idle.
    drop(idle);
    let mut other = host.client();
    other.request("GET", "/hold", "");
    host.expect("call /hold");
    let mut waiting = host.client();
    waiting.request("GET", "/hello", "");
    host.run(|app, _| app.release());
    assert_eq!(waiting.reply().status, 200);
    assert_eq!(
        (busy.reply().text(), other.reply().text()),
        ("released", "released")
    );
}

#[test]
fn graceful_shutdown_finishes_requests_and_closes_idle_connections() {
    let mut host = Host::new();
    let (mut idle, mut fresh, mut busy) = (host.client(), host.client(), host.client());
    assert_eq!(idle.get("/hello").status, 200);
    busy.request("GET", "/hold", "");
    host.expect("call /hold");
    while host.ask(|_, s| s.connections()) < 3 {}
    host.run(|_, server| server.graceful_shutdown(0));
    assert_eq!(idle.rest(), b"");
    assert_eq!(fresh.rest(), b"");
    assert_eq!(host.ask(|_, s| (s.requests(), s.is_drained())), (1, false));
    assert!(
        TcpStream::connect(host.addr).is_err(),
        "the listener is closed"
    );
    host.run(|app, _| app.release());
    let reply = busy.reply();
    assert_eq!(
        (reply.text(), reply.header("connection")),
        ("released", Some("close"))
    );
    assert_eq!(busy.rest(), b"");
    // Drained: the thread ends by itself.
    host.join();
}

#[test]
fn force_close_ends_requests_in_progress() {
    let mut host = Host::new();
    let mut client = host.client();
    client.request("GET", "/hold", "");
    host.expect("call /hold");
    host.run(|_, server| server.force_close());
    host.expect("Gone");
    assert_eq!(client.rest(), b"");
    host.join();
}

#[test]
fn a_half_closed_client_counts_as_gone() {
    let host = Host::new();
    let mut client: Client = host.client();
    client.request("GET", "/hold", "");
    host.expect("call /hold");
    client.0.get_ref().shutdown(Shutdown::Write).unwrap();
    host.expect("Gone");
}

#[test]
fn a_client_that_stops_within_its_body_is_told_408() {
    let host = with_limits(Limits {
        body_deadline: Some(Duration::from_millis(100)),
        ..Limits::default()
    });
    for framing in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut client = host.client();
        client.request("POST", "/count", framing);
        host.expect("call /count");
        client.send("5\r\nabcde\r\n");
        assert_eq!(client.reply().status, 408);
        host.expect("deadline Body");
        host.expect("Gone");
        assert_eq!(client.rest(), b"");
    }
    // What has begun is cut off.
    let mut client = host.client();
    client.request("POST", "/echo", "Content-Length: 100\r\n");
    client.send("abcde");
    host.expect("deadline Body");
    host.expect("Gone");
    client.rest();
}

#[test]
fn dripping_bytes_do_not_move_the_deadline_of_a_body() {
    let host = with_limits(Limits {
        body_deadline: Some(Duration::from_millis(200)),
        body_step: 100_000,
        ..Limits::default()
    });
    let mut client = host.client();
    client.request("POST", "/count", "Content-Length: 10000000\r\n");
    let mut writer = client.0.get_ref().try_clone().unwrap();
    let dripper = std::thread::spawn(move || {
        // Ends once the server has closed.
        while std::io::Write::write_all(&mut writer, b"G").is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    assert_eq!(client.reply().status, 408);
    drop(client);
    dripper.join().unwrap();
}

#[test]
fn a_body_that_nobody_waits_for_has_no_deadline() {
    let host = with_limits(Limits {
        body_deadline: Some(Duration::from_millis(50)),
        ..Limits::default()
    });
    let mut client = host.client();
    client.request("POST", "/hold", "Content-Length: 5\r\n");
    host.expect("call /hold");
    std::thread::sleep(Duration::from_millis(300));
    host.run(|app, _| app.release());
    assert_eq!(client.reply().text(), "released");
}

#[test]
fn a_target_over_the_limit_is_refused() {
    let host = with_limits(Limits {
        url_bytes: 100,
        ..Limits::default()
    });
    let mut client = host.client();
    assert_eq!(client.get(&format!("/{}", "u".repeat(99))).status, 404);
    assert_eq!(client.get(&format!("/?{}", "q".repeat(99))).status, 414);
    assert_eq!(client.rest(), b"");
}
