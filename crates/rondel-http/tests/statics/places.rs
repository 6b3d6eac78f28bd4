//! Which file a path means, and which are not to be had.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use rondel_http::{Config, Mount};

use crate::site::{Site, ask, is_the_applications};
use crate::support::Host;

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
