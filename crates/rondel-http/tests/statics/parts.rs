//! Conditions, ranges, precompressed files, dates: what of a file is sent.

use std::fs;
use std::time::{Duration, SystemTime};

use crate::site::{DATE, LARGE, Site, THEN, age, ask};

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
