//! Static files: which are sent, which are not, and what is said of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rondel_http::{Config, Mount, Statics};
use support::{Client, Host, Reply};

/// More than goes out with the head, and than a burst of `sendfile`.
const LARGE: usize = 3_000_001;

/// Long ago, so that a date tells states apart: Sun, 06 Nov 1994 08:49:37 GMT.
const THEN: u64 = 784_111_777;
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// A folder of files, and one beside it that must stay hidden; gone with the test.
struct Site {
    root: PathBuf,
}

impl Site {
    fn new(name: &str) -> Site {
        let unique = format!("rondel-statics-{}-{name}", std::process::id());
        let site = Site {
            root: std::env::temp_dir().join(unique),
        };
        fs::create_dir_all(site.root.join("public")).unwrap();
        fs::write(site.root.join("secret"), "secret").unwrap();
        site.put("hello.txt", b"hello, file");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join("public").join(name)
    }

    fn put(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        age(&path, Duration::from_secs(THEN));
    }

    fn host(&self, route: &str) -> Host {
        self.host_with(route, |statics| statics)
    }

    /// With files that are looked up by threads, as if nothing were in memory.
    fn slow_host(&self, route: &str) -> Host {
        self.host_with(route, Statics::all_by_threads)
    }

    fn host_with(
        &self,
        route: &str,
        set: impl FnOnce(Statics) -> Statics + Send + 'static,
    ) -> Host {
        let mount = Mount {
            route: route.to_owned(),
            folder: self.root.join("public"),
        };
        Host::with_files(Config::default(), vec![mount], set)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).unwrap();
    }
}

fn age(path: &Path, since: Duration) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + since).unwrap();
}

fn ask(client: &mut Client, method: &str, path: &str, headers: &str) -> Reply {
    client.request(method, path, headers);
    if method == "HEAD" {
        client.head()
    } else {
        client.reply()
    }
}

/// The application answers what is no file: with 404, in these tests.
fn is_the_applications(host: &Host, client: &mut Client, path: &str) {
    let reply = client.get(path);
    assert_eq!((reply.status, reply.text()), (404, "body"), "{path}");
    host.expect(&format!("call {}", path.split('?').next().unwrap()));
}

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
fn what_is_not_there_is_the_applications() {
    let site = Site::new("missing");
    site.put("folder/file", b"x");
    for host in [site.host("/static/"), site.slow_host("/static/")] {
        let mut client = host.client();
        for path in [
            "/static/nothing",
            "/static/hello.txt/",
            "/static/hello.txt/x",
            "/static/folder",
            "/static/folder/",
            "/static",
            "/static/",
            "/statics/hello.txt",
            "/hello.txt",
            "/static/nothing?q=1",
            "/static/HELLO.TXT",
        ] {
            is_the_applications(&host, &mut client, path);
        }
        let long = format!("/static/{}", "x".repeat(256));
        is_the_applications(&host, &mut client, &long);
    }
}

#[test]
fn nothing_leads_out_of_the_folder() {
    let site = Site::new("traversal");
    fs::create_dir(site.path("sub")).unwrap();
    symlink("../secret", site.path("up")).unwrap();
    symlink(site.root.join("secret"), site.path("absolute")).unwrap();
    symlink(site.path("hello.txt"), site.path("absolute-inside")).unwrap();
    symlink("..", site.path("parent")).unwrap();
    symlink("/proc/self/root", site.path("magic")).unwrap();
    symlink("loop", site.path("loop")).unwrap();
    for host in [site.host("/static"), site.slow_host("/static")] {
        let mut client = host.client();
        for rest in [
            "../secret",
            "%2e%2e/secret",
            "..%2fsecret",
            "%2e%2e%2fsecret",
            ".%2e/secret",
            "sub/../../secret",
            "sub/%2e%2e/%2e%2e/secret",
            "sub/..%2f..%2fsecret",
            "..%5csecret",
            "%5c..%5csecret",
            "%2fetc/passwd",
            "/etc/passwd",
            "//etc/passwd",
            "%00",
            "hello.txt%00",
            "hello.txt%00.png",
            "..%00/secret",
            "%252e%252e/secret",
            "..;/secret",
            "%c0%ae%c0%ae/secret",
            "%u002e./secret",
            "up",
            "absolute",
            "absolute-inside",
            "parent/secret",
            "parent",
            "magic/etc/passwd",
            "loop",
            "./hello.txt",
            "sub/../hello.txt",
            "%2e/hello.txt",
        ] {
            is_the_applications(&host, &mut client, &format!("/static/{rest}"));
        }
    }
}

#[test]
fn links_that_stay_inside_are_followed() {
    let site = Site::new("links");
    site.put("v2/app.js", b"two");
    symlink("v2", site.path("current")).unwrap();
    symlink("../hello.txt", site.path("v2/up.txt")).unwrap();
    for host in [site.host("/static"), site.slow_host("/static")] {
        let mut client = host.client();
        assert_eq!(client.get("/static/current/app.js").text(), "two");
        assert_eq!(client.get("/static/v2/up.txt").text(), "hello, file");
        assert_eq!(client.get("/static/current/up.txt").text(), "hello, file");
    }
}

#[test]
fn hidden_names_are_not_served_but_well_known_ones() {
    let site = Site::new("hidden");
    for name in [
        ".env",
        ".git/config",
        "sub/.htpasswd",
        ".well-known/security.txt",
    ] {
        site.put(name, b"hidden");
    }
    let host = site.host("/");
    let mut client = host.client();
    for path in [
        "/.env",
        "/%2eenv",
        "/.git/config",
        "/sub/.htpasswd",
        "/.well-known",
    ] {
        is_the_applications(&host, &mut client, path);
    }
    assert_eq!(client.get("/.well-known/security.txt").text(), "hidden");
}

#[test]
fn what_is_no_regular_file_is_not_served_and_nobody_waits_for_it() {
    let site = Site::new("special");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        site.path("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from(0o666),
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(site.path("socket")).unwrap();
    let host = site.host("/");
    let mut client = host.client();
    for path in ["/pipe", "/socket"] {
        is_the_applications(&host, &mut client, path);
    }
}

#[test]
fn a_directory_is_its_index_page() {
    let site = Site::new("index");
    site.put("index.html", b"front");
    site.put("docs/index.html", b"docs");
    site.put("odd/index.html/x", b"x");
    for host in [site.host("/static"), site.slow_host("/static")] {
        let mut client = host.client();
        for (path, text) in [
            ("/static/", "front"),
            ("/static/docs/", "docs"),
            ("/static/docs/index.html", "docs"),
        ] {
            let reply = client.get(path);
            assert_eq!((reply.status, reply.text()), (200, text));
            assert_eq!(
                reply.header("content-type"),
                Some("text/html; charset=utf-8")
            );
        }
        for (path, target) in [
            ("/static", "./static/"),
            ("/static/docs", "./docs/"),
            ("/static/docs?a=1&b=%20", "./docs/?a=1&b=%20"),
            ("/static/%64ocs", "./%64ocs/"),
        ] {
            let reply = client.get(path);
            assert_eq!(
                (reply.status, reply.header("location")),
                (301, Some(target))
            );
        }
        assert_eq!(
            ask(&mut client, "POST", "/static/docs", "Content-Length: 0\r\n").status,
            405
        );
        is_the_applications(&host, &mut client, "/static/odd/");
        is_the_applications(&host, &mut client, "/static//");
    }
}

#[test]
fn the_longest_route_counts() {
    let site = Site::new("routes");
    site.put("inner/hello.txt", b"inner");
    let mount = |route: &str, folder: PathBuf| Mount {
        route: route.into(),
        folder,
    };
    let mounts = vec![
        mount("/", site.root.join("public")),
        mount("/a", site.path("inner")),
        mount("/a/b/", site.root.join("public")),
    ];
    let host = Host::with_files(Config::default(), mounts, |statics| statics);
    let mut client = host.client();
    assert_eq!(client.get("/hello.txt").text(), "hello, file");
    assert_eq!(client.get("/a/hello.txt").text(), "inner");
    assert_eq!(client.get("/a/b/hello.txt").text(), "hello, file");
    assert_eq!(client.get("/inner/hello.txt").text(), "inner");
}

#[test]
fn conditions_are_kept() {
    let site = Site::new("conditions");
    let host = site.host("/");
    let mut client = host.client();
    let first = client.get("/hello.txt");
    assert_eq!(first.header("cache-control"), Some("public, max-age=3600"));
    let etag = first.header("etag").unwrap().to_owned();
    for method in ["GET", "HEAD"] {
        for (condition, status) in [
            (format!("If-None-Match: {etag}"), 304),
            (format!("If-None-Match: W/{etag}, \"x\""), 304),
            ("If-None-Match: *".into(), 304),
            (
                format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {DATE}"),
                200,
            ),
            (format!("If-Modified-Since: {DATE}"), 304),
            (
                "If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT".into(),
                200,
            ),
            (format!("If-Match: {etag}"), 200),
            ("If-Match: \"x\"".into(), 412),
            (format!("If-Unmodified-Since: {DATE}"), 200),
            (
                "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT".into(),
                412,
            ),
        ] {
            client.request(method, "/hello.txt", &format!("{condition}\r\n"));
            let reply = if status == 304 || method == "HEAD" {
                client.head()
            } else {
                client.reply()
            };
            assert_eq!(reply.status, status, "{condition}");
            if status != 412 {
                assert_eq!(reply.header("etag"), Some(&*etag));
                assert_eq!(reply.header("cache-control"), Some("public, max-age=3600"));
                assert_eq!(reply.header("content-type").is_none(), status == 304);
            }
        }
    }
    // Written anew with the same length and second, it is another.
    fs::write(site.path("hello.txt"), "HELLO, file").unwrap();
    age(&site.path("hello.txt"), Duration::new(THEN, 5));
    let again = ask(
        &mut client,
        "GET",
        "/hello.txt",
        &format!("If-None-Match: {etag}\r\n"),
    );
    assert_eq!((again.status, again.text()), (200, "HELLO, file"));
}

#[test]
fn a_range_is_a_part() {
    let site = Site::new("ranges");
    let content: Vec<u8> = (0..LARGE).map(|i| (i % 251) as u8 + 1).collect();
    site.put("large", &content);
    for host in [site.host("/"), site.slow_host("/")] {
        let mut client = host.client();
        let etag = client.get("/large").header("etag").unwrap().to_owned();
        for (range, part) in [
            ("0-0", 0..1),
            ("1000-1999", 1000..2000),
            ("-5", LARGE - 5..LARGE),
            ("2999999-", 2_999_999..LARGE),
            ("100000-2500000", 100_000..2_500_001),
            ("5-99999999999", 5..LARGE),
        ] {
            for condition in [
                "".to_owned(),
                format!("If-Range: {etag}\r\n"),
                format!("If-Range: {DATE}\r\n"),
            ] {
                let reply = ask(
                    &mut client,
                    "GET",
                    "/large",
                    &format!("Range: bytes={range}\r\n{condition}"),
                );
                let said = format!("bytes {}-{}/{LARGE}", part.start, part.end - 1);
                assert_eq!(
                    (reply.status, reply.header("content-range")),
                    (206, Some(&*said))
                );
                assert_eq!(
                    reply.header("content-length"),
                    Some(&*part.len().to_string())
                );
                assert!(reply.body == content[part.clone()], "{range}");
            }
        }
        let beyond = ask(&mut client, "GET", "/large", "Range: bytes=3000001-\r\n");
        assert_eq!(
            (beyond.status, beyond.header("content-range")),
            (416, Some("bytes */3000001"))
        );
        for ignored in ["bytes=0-1,5-6", "items=0-1", "bytes=5-1"] {
            let reply = ask(
                &mut client,
                "GET",
                "/large",
                &format!("Range: {ignored}\r\n"),
            );
            assert_eq!((reply.status, reply.body.len()), (200, LARGE));
        }
        let changed = ask(
            &mut client,
            "GET",
            "/large",
            "Range: bytes=0-1\r\nIf-Range: \"x\"\r\n",
        );
        assert_eq!((changed.status, changed.body.len()), (200, LARGE));
        // A condition comes before the range.
        client.request(
            "GET",
            "/large",
            &format!("Range: bytes=0-1\r\nIf-None-Match: {etag}\r\n"),
        );
        assert_eq!(client.head().status, 304);
    }
}

#[test]
fn a_precompressed_file_is_sent_to_who_takes_it() {
    let site = Site::new("codings");
    site.put("app.js", b"plain");
    site.put("app.js.gz", b"gzipped");
    site.put("app.js.br", b"brotli");
    site.put("page.html", b"page");
    site.put("page.html.zst", b"zstd");
    fs::create_dir(site.path("hello.txt.gz")).unwrap();
    let host = site.host("/");
    let mut client = host.client();
    let mut tags = Vec::new();
    for (accepted, coding, text) in [
        ("gzip, deflate, br, zstd", Some("br"), "brotli"),
        ("gzip", Some("gzip"), "gzipped"),
        ("br;q=0.5, gzip", Some("gzip"), "gzipped"),
        ("br;q=0, gzip;q=0", None, "plain"),
        ("zstd", None, "plain"),
        ("identity", None, "plain"),
    ] {
        let reply = ask(
            &mut client,
            "GET",
            "/app.js",
            &format!("Accept-Encoding: {accepted}\r\n"),
        );
        assert_eq!(
            (reply.header("content-encoding"), reply.text()),
            (coding, text),
            "{accepted}"
        );
        assert_eq!(reply.header("vary"), Some("accept-encoding"));
        assert_eq!(
            reply.header("content-type"),
            Some("text/javascript; charset=utf-8")
        );
        tags.push(reply.header("etag").unwrap().to_owned());
    }
    assert_eq!(client.get("/app.js").text(), "plain");
    assert!(tags[0] != tags[1] && tags[1] == tags[2] && tags[3] == tags[4] && tags[2] != tags[3]);
    let reply = ask(&mut client, "GET", "/page.html", "Accept-Encoding: *\r\n");
    assert_eq!(
        (reply.header("content-encoding"), reply.text()),
        (Some("zstd"), "zstd")
    );
    // A range is one of what is sent.
    let part = ask(
        &mut client,
        "GET",
        "/app.js",
        "Accept-Encoding: gzip\r\nRange: bytes=1-2\r\n",
    );
    assert_eq!(
        (part.header("content-encoding"), part.text()),
        (Some("gzip"), "zi")
    );
    // The file itself is what it is; a directory is no file; without a plain one there is none.
    let itself = ask(
        &mut client,
        "GET",
        "/app.js.gz",
        "Accept-Encoding: gzip\r\n",
    );
    assert_eq!(itself.header("content-type"), Some("application/gzip"));
    assert_eq!(
        (itself.header("content-encoding"), itself.text()),
        (None, "gzipped")
    );
    let reply = ask(
        &mut client,
        "GET",
        "/hello.txt",
        "Accept-Encoding: gzip\r\n",
    );
    assert_eq!((reply.header("vary"), reply.text()), (None, "hello, file"));
    fs::remove_file(site.path("app.js")).unwrap();
    let gone = ask(&mut client, "GET", "/app.js", "Accept-Encoding: gzip\r\n");
    assert_eq!(gone.status, 404);
}

#[test]
fn times_that_http_has_no_date_for() {
    let site = Site::new("times");
    let host = site.host("/");
    let mut client = host.client();
    let ahead = SystemTime::now() + Duration::from_secs(1_000_000);
    age(
        &site.path("hello.txt"),
        ahead.duration_since(SystemTime::UNIX_EPOCH).unwrap(),
    );
    let reply = client.get("/hello.txt");
    let said = httpdate::parse_http_date(reply.header("last-modified").unwrap()).unwrap();
    assert!(said <= SystemTime::now());
    let file = fs::File::options()
        .write(true)
        .open(site.path("hello.txt"))
        .unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH - Duration::from_secs(5))
        .unwrap();
    let reply = client.get("/hello.txt");
    assert_eq!(
        reply.header("last-modified"),
        Some("Thu, 01 Jan 1970 00:00:00 GMT")
    );
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
