//! Responses that are files: every byte is the file's, and no more of them than were promised.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rondel_http::{Config, FilePart, Limits};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use support::{Client, Host, PATIENCE};

/// More than the buffers of two sockets hold.
const LARGE: usize = 24 * 1024 * 1024;

/// Bytes that tell their place, none of them zero: what stands for a file within hyper is zeros.
fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| 1 + ((i.wrapping_mul(31) ^ (i >> 8) ^ (i >> 16)) % 255) as u8)
        .collect()
}

/// A file that is gone with the test.
struct Sample {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Sample {
    fn new(name: &str, len: usize) -> Sample {
        let unique = format!("rondel-http-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(unique);
        let bytes = pattern(len);
        std::fs::write(&path, &bytes).unwrap();
        Sample { path, bytes }
    }

    fn target(&self, more: &str) -> String {
        format!("/file?path={}{more}", self.path.display())
    }

    fn writer(&self) -> File {
        OpenOptions::new().write(true).open(&self.path).unwrap()
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).unwrap();
    }
}

/// How many of this process's descriptors lead to the file.
fn descriptors(path: &Path) -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    links
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter(|link| link == path)
        .count()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not within the time: {what}");
        std::thread::yield_now();
    }
}

fn still_serves(client: &mut Client) {
    assert_eq!(client.get("/hello").text(), "Hello, World!");
}

#[test]
fn files_of_every_size_arrive_to_the_byte() {
    let host = Host::new();
    let mut client = host.client();
    // Around what goes out together with the head, what hyper is shown at once, and a burst.
    for len in [1, 4096, 16_000, 16_384, 16_385, 65_537, 600_000, 3_000_001] {
        let file = Sample::new(&format!("size-{len}"), len);
        let reply = client.get(&file.target(""));
        assert_eq!(reply.header("content-length"), Some(&*len.to_string()));
        assert!(reply.body == file.bytes, "{len} bytes differ");
        still_serves(&mut client);
        assert_eq!(descriptors(&file.path), 0);
    }
}

#[test]
fn an_empty_file_is_an_empty_body() {
    let host = Host::new();
    let mut client = host.client();
    let file = Sample::new("empty", 0);
    assert_eq!(
        client.get(&file.target("")).header("content-length"),
        Some("0")
    );
    still_serves(&mut client);
}

#[test]
fn a_part_is_sent_from_its_offset_on() {
    let host = Host::new();
    let mut client = host.client();
    let file = Sample::new("part", 1_000_000);
    let reply = client.get(&file.target("&offset=123457&count=700000"));
    assert!(reply.body == file.bytes[123_457..823_457]);
    let reply = client.get(&file.target("&offset=999990&count=5"));
    assert_eq!(reply.body, &file.bytes[999_990..999_995]);
    // What a file does not have is not sent.
    let reply = client.get(&file.target("&offset=999990&count=500"));
    assert_eq!(reply.body, &file.bytes[999_990..]);
    assert_eq!(client.get(&file.target("&offset=2000000")).body, b"");
}

#[test]
fn a_slow_reader_gets_all_of_it_and_holds_nobody_up() {
    let host = Host::new();
    let file = Sample::new("slow", LARGE);
    let mut slow = host.client();
    slow.request("GET", &file.target(""), "");
    assert_eq!(
        slow.head().header("content-length"),
        Some(&*LARGE.to_string())
    );
    still_serves(&mut host.client());
    let mut body = vec![0; LARGE];
    for piece in body.chunks_mut(100_003) {
        slow.0.read_exact(piece).unwrap();
    }
    assert!(body == file.bytes);
    still_serves(&mut slow);
}

#[test]
fn head_and_304_send_no_byte_of_it() {
    let host = Host::new();
    let mut client = host.client();
    let file = Sample::new("head", 100_000);
    client.request("HEAD", &file.target(""), "");
    assert_eq!(client.head().header("content-length"), Some("100000"));
    still_serves(&mut client);
    client.request("GET", &file.target("&status=304"), "");
    assert_eq!(client.head().status, 304);
    still_serves(&mut client);
    assert_eq!(descriptors(&file.path), 0);
}

#[test]
fn pipelined_files_come_in_their_order() {
    let host = Host::new();
    let mut client = host.client();
    let files = [
        Sample::new("first", 300_000),
        Sample::new("second", 100),
        Sample::new("third", 2_000_000),
    ];
    let request = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n");
    let requests = files.each_ref().map(|file| request(&file.target("")));
    client.send([requests.concat(), request("/hello")].concat());
    for file in &files {
        assert!(client.reply().body == file.bytes);
    }
    assert_eq!(client.reply().text(), "Hello, World!");
}

#[test]
fn a_file_among_other_parts_is_framed_in_chunks_or_by_the_length() {
    let host = Host::new();
    let mut client = host.client();
    for len in [10, 700_001] {
        let file = Sample::new(&format!("among-{len}"), len);
        let whole = [b"edge", &*file.bytes, b"edge"].concat();
        let promised = format!("&around=edge&length={}", len + 8);
        for target in [file.target("&around=edge"), file.target(&promised)] {
            assert!(client.get(&target).body == whole, "{target}");
        }
    }
    still_serves(&mut client);
}

#[test]
fn http_1_0_gets_it_with_its_length() {
    let host = Host::new();
    let file = Sample::new("old", 500_000);
    let mut client = host.client();
    client.send(format!("GET {} HTTP/1.0\r\n\r\n", file.target("")));
    assert_eq!(client.head().header("content-length"), Some("500000"));
    assert!(client.rest() == file.bytes);
}

#[test]
fn a_file_that_grows_changes_nothing() {
    let host = Host::new();
    let mut client = host.client();
    let file = Sample::new("grows", LARGE);
    client.request("GET", &file.target(""), "");
    client.head();
    let mut more = OpenOptions::new().append(true).open(&file.path).unwrap();
    more.write_all(b"and more").unwrap();
    let mut body = vec![0; LARGE];
    client.0.read_exact(&mut body).unwrap();
    assert!(body == file.bytes);
    still_serves(&mut client);
}

#[test]
fn a_file_that_becomes_shorter_breaks_the_connection_off() {
    let host = Host::new();
    let file = Sample::new("shrinks", LARGE);
    let mut client = host.client();
    client.request("GET", &file.target(""), "");
    client.head();
    file.writer().set_len(1_000_000).unwrap();
    let came = client.rest();
    assert!(came.len() < LARGE, "{} bytes", came.len());
    let told = std::iter::repeat_with(|| host.told()).find(|it| it.starts_with("file: "));
    assert!(told.unwrap().contains("became shorter"));
    wait_until("the file is let go", || descriptors(&file.path) == 0);
    still_serves(&mut host.client());
}

#[test]
fn http_1_0_can_tell_the_end_of_a_file_from_a_break() {
    let host = Host::new();
    let file = Sample::new("shrinks-old", LARGE);
    // No length is known when the head goes out: the body ends with the connection.
    let mut client = host.client();
    client.send(format!(
        "GET {} HTTP/1.0\r\n\r\n",
        file.target("&begin=edge")
    ));
    assert_eq!(client.head().header("content-length"), None);
    let mut edge = [0; 4];
    client.0.read_exact(&mut edge).unwrap();
    host.run(|app, _| app.send_files());
    let mut body = vec![0; LARGE];
    client.0.read_exact(&mut body).unwrap();
    assert!(body == file.bytes && client.rest().is_empty());

    let mut client = host.client();
    client.send(format!(
        "GET {} HTTP/1.0\r\n\r\n",
        file.target("&begin=edge")
    ));
    client.head();
    client.0.read_exact(&mut edge).unwrap();
    file.writer().set_len(1_000_000).unwrap();
    host.run(|app, _| app.send_files());
    let cut = client.0.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(cut.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_promise_that_the_file_cannot_keep_is_refused_beforehand() {
    let host = Host::new();
    let mut client = host.client();
    let file = Sample::new("promise", 10);
    assert_eq!(client.get(&file.target("&length=11")).status, 500);
    host.expect("response body shorter than its content-length");
}

#[test]
fn a_client_that_leaves_in_the_middle_leaves_nothing_behind() {
    let host = Host::new();
    let file = Sample::new("leaves", LARGE);
    let mut client = host.client();
    client.request("GET", &file.target(""), "");
    client.head();
    drop(client);
    wait_until("the connection is over", || {
        host.ask(|_, server| server.connections()) == 0
    });
    assert_eq!(descriptors(&file.path), 0);
    still_serves(&mut host.client());
}

#[test]
fn a_graceful_shutdown_waits_for_a_file_on_its_way() {
    let mut host = Host::new();
    let file = Sample::new("drains", LARGE);
    let mut client = host.client();
    client.request("GET", &file.target(""), "");
    client.head();
    host.run(|_, server| server.graceful_shutdown(0));
    assert!(!host.ask(|_, server| server.is_drained()));
    assert!(client.rest() == file.bytes, "all of it, then the end");
    host.join();
}

#[test]
fn a_client_that_reads_nothing_of_a_file_is_let_go() {
    let host = Host::with(Config {
        limits: Limits {
            write_deadline: Some(Duration::from_millis(50)),
            ..Limits::default()
        },
        ..Config::default()
    });
    let file = Sample::new("stuck", LARGE);
    let mut client = host.client();
    client.request("GET", &file.target(""), "");
    host.expect("deadline Write");
    wait_until("the file is let go", || descriptors(&file.path) == 0);
}

/// The server's end of the client's connection.
fn with_server_end(client: &Client, act: impl Fn(BorrowedFd<'_>)) {
    let ours = client.0.get_ref().local_addr().unwrap();
    let mut found = 0;
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let number = entry
            .unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        // SAFETY: it was open a moment ago; another test's thread may have closed it, or opened
        // another in its place: then it is not a socket with this peer, and nothing happens to it.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        if rustix::net::getpeername(fd).ok().flatten() == Some(ours.into()) {
            found += 1;
            act(fd);
        }
    }
    assert_eq!(found, 1);
}

#[test]
fn a_socket_that_refuses_sendfile_is_written_to() {
    let host = Host::new();
    let mut client = host.client();
    still_serves(&mut client);
    // sendfile(2): EINVAL if the output has O_APPEND; writing to a socket does not mind it.
    with_server_end(&client, |fd| {
        let flags = fcntl_getfl(fd).unwrap();
        fcntl_setfl(fd, flags | OFlags::APPEND).unwrap();
        let file = File::open("/proc/self/exe").unwrap();
        let refused = rustix::fs::sendfile(fd, &file, Some(&mut 0), 1).unwrap_err();
        assert_eq!(refused, rustix::io::Errno::INVAL);
    });
    for len in [100, LARGE] {
        let file = Sample::new(&format!("copied-{len}"), len);
        assert!(client.get(&file.target("")).body == file.bytes);
        let whole = [b"edge", &*file.bytes, b"edge"].concat();
        assert!(client.get(&file.target("&around=edge")).body == whole);
    }
    let file = Sample::new("copied-shrinks", LARGE);
    client.request("GET", &file.target(""), "");
    client.head();
    file.writer().set_len(1_000_000).unwrap();
    assert!(client.rest().len() < LARGE);
}

#[test]
fn only_regular_files_that_can_be_read_are_taken() {
    let (pipe, _other_end) = rustix::pipe::pipe().unwrap();
    let refused = FilePart::new(pipe.as_fd(), 0, None).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    let folder = File::open("/").unwrap();
    let refused = FilePart::new(folder.as_fd(), 0, None).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    let sample = Sample::new("write-only", 10);
    let refused = FilePart::new(sample.writer().as_fd(), 0, None).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(9), "EBADF");
    let file = File::open(&sample.path).unwrap();
    let part = FilePart::new(file.as_fd(), 3, None).unwrap();
    assert_eq!((part.len(), part.is_empty()), (7, false));
}
