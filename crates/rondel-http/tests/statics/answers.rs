//! What is answered: the head, bodies of every size, HEAD, other methods; and connections.

use rondel_http::Mount;

use crate::site::{DATE, LARGE, Site, ask};
use crate::support::Host;

#[test]
fn a_file_is_sent_with_all_that_is_known_of_it() {
    let site = Site::new("whole");
    let host = site.host("/static");
    let mut client = host.client();
    for _ in 0..2 {
        let reply = client.get("/static/hello.txt?v=1");
        assert_eq!((reply.status, reply.text()), (200, "hello, file"));
        for (name, value) in [
            ("content-length", "11"),
            ("content-type", "text/plain; charset=utf-8"),
            ("last-modified", DATE),
            ("accept-ranges", "bytes"),
            ("server", "rondel"),
        ] {
            assert_eq!(reply.header(name), Some(value));
        }
        let etag = reply.header("etag").unwrap();
        assert!(etag.starts_with('"') && etag.ends_with("-b\""), "{etag}");
        for absent in ["vary", "content-encoding", "transfer-encoding"] {
            assert_eq!(reply.header(absent), None);
        }
        // And the service is told, for its log.
        assert_eq!(host.told(), "GET /static/hello.txt?v=1 200");
    }
    assert_eq!(client.get("/hello").text(), "Hello, World!");
    assert_eq!(host.told(), "call /hello");
}

#[test]
fn files_of_every_size_arrive_to_the_byte() {
    let site = Site::new("sizes");
    for host in [site.host("/"), site.slow_host("/")] {
        let mut client = host.client();
        for len in [0, 1, 4096, 16_384, 16_385, 262_145, LARGE] {
            let content: Vec<u8> = (0..len).map(|i| (i % 251) as u8 + 1).collect();
            site.put("file", &content);
            let reply = client.get("/file");
            assert_eq!(reply.header("content-length"), Some(&*len.to_string()));
            assert!(reply.body == content, "{len} bytes differ");
            assert_eq!(
                reply.header("content-type"),
                Some("application/octet-stream")
            );
        }
    }
}

#[test]
fn head_says_the_same_and_sends_nothing() {
    let site = Site::new("head");
    site.put("large.bin", &vec![b'x'; LARGE]);
    let host = site.host("/");
    let mut client = host.client();
    for path in ["/hello.txt", "/large.bin"] {
        let got = client.get(path);
        let head = ask(&mut client, "HEAD", path, "Range: bytes=0-1\r\n");
        assert_eq!(head.status, 200);
        for name in ["content-length", "content-type", "etag", "last-modified"] {
            assert_eq!(head.header(name), got.header(name), "{name}");
        }
    }
    assert_eq!(client.get("/hello").status, 200);
}

#[test]
fn other_methods_are_not_allowed_where_a_file_is() {
    let site = Site::new("methods");
    let host = site.host("/");
    let mut client = host.client();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"] {
        let reply = ask(&mut client, method, "/hello.txt", "Content-Length: 0\r\n");
        assert_eq!(
            (reply.status, reply.header("allow")),
            (405, Some("GET, HEAD"))
        );
    }
    // A body that nobody reads may end the connection, as ever.
    client.request("POST", "/hello.txt", "Content-Length: 5\r\n");
    client.send("hello");
    assert_eq!(client.reply().status, 405);
    let mut client = host.client();
    // Elsewhere they are the application's.
    client.request("POST", "/count", "Content-Length: 5\r\n");
    client.send("hello");
    assert_eq!(client.reply().text(), "5");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let site = Site::new("pipelined");
    site.put("large", &vec![b'L'; LARGE]);
    for host in [site.host("/"), site.slow_host("/")] {
        let mut client = host.client();
        let one = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n");
        let all = [
            one("/large"),
            one("/hello.txt"),
            one("/hello"),
            one("/nothing"),
            one("/hello.txt"),
        ];
        client.send(all.concat());
        assert_eq!(client.reply().body.len(), LARGE);
        assert_eq!(client.reply().text(), "hello, file");
        assert_eq!(client.reply().text(), "Hello, World!");
        assert_eq!(client.reply().status, 404);
        assert_eq!(client.reply().text(), "hello, file");
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_leaves_nothing() {
    let site = Site::new("leaves");
    site.put("large", &vec![b'L'; 24 * 1024 * 1024]);
    for host in [site.host("/"), site.slow_host("/")] {
        let mut client = host.client();
        client.request("GET", "/large", "");
        assert_eq!(client.head().status, 200);
        drop(client);
        let mut client = host.client();
        assert_eq!(client.get("/hello.txt").text(), "hello, file");
        // No word of it reaches the application.
        assert_eq!(host.told(), "GET /large 200");
        let told = host.told();
        let next = if told.starts_with("problem") {
            host.told()
        } else {
            told
        };
        assert_eq!(next, "GET /hello.txt 200");
    }
}

#[test]
fn a_folder_that_is_not_there_is_told() {
    let driver = rondel_core::driver::Driver::new().unwrap();
    let mount = Mount {
        route: "/".into(),
        folder: "/nowhere/at/all".into(),
    };
    let host = Host::new();
    drop(host);
    struct Nobody;
    impl rondel_http::Service for Nobody {
        fn call(&self, _: rondel_http::Request, _: rondel_http::Exchange) {}
        fn notify(&self, _: u64, _: rondel_http::Event) {}
    }
    let made = rondel_http::Statics::new(driver.handle(), std::rc::Rc::new(Nobody), &[mount], None);
    let error = made.err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert!(error.to_string().starts_with("/nowhere/at/all: "));
}
