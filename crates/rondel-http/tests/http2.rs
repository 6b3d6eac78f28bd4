//! HTTP/2 by prior knowledge, frame by frame: streams side by side, flow control, the end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rondel_http::{Config, Limits, Versions, http2};
use support::{FLOOD_TOTAL, Host, PATIENCE};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

#[derive(Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

struct H2(TcpStream);

impl H2 {
    fn new(host: &Host) -> H2 {
        let stream = TcpStream::connect(host.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut h2 = H2(stream);
        h2.0.write_all(PREFACE).unwrap();
        h2.send(SETTINGS, 0, 0, &[]);
        h2
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).unwrap();
    }

    /// A request by HPACK without its table: `GET` or `POST`, http, a path, `test`.
    fn request(&mut self, stream: u32, method: u8, path: &str, flags: u8) {
        let length = u8::try_from(path.len()).unwrap();
        let mut block = vec![0x80 | method, 0x86, 0x04, length];
        block.extend(path.as_bytes());
        block.extend(b"\x01\x04test");
        self.send(HEADERS, END_HEADERS | flags, stream, &block);
    }

    fn get(&mut self, stream: u32, path: &str) {
        self.request(stream, 2, path, END_STREAM);
    }

    /// The next frame; settings and pings are answered on the way.
    fn frame(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).ok()?;
            let (kind, flags) = (head[3], head[4]);
            match (kind, flags & ACK) {
                (SETTINGS | PING, 0) => {
                    self.send(kind, ACK, 0, if kind == PING { &payload } else { &[] })
                }
                (SETTINGS | WINDOW_UPDATE, _) => {}
                _ => {
                    let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
                    return Some(Frame {
                        kind,
                        flags,
                        stream,
                        payload,
                    });
                }
            }
        }
    }

    /// The next frame of that kind, passing over others.
    fn until(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.frame().expect("closed");
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// A response's body: its head, then data to the end of the stream.
    fn body(&mut self, stream: u32) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let frame = self.frame().expect("closed");
            assert_eq!(frame.stream, stream, "{frame:?}");
            match frame.kind {
                HEADERS => assert!(body.is_empty()),
                DATA => body.extend(frame.payload),
                other => panic!("frame {other}"),
            }
            if frame.flags & END_STREAM != 0 {
                return body;
            }
        }
    }
}

#[test]
fn streams_are_answered_beside_each_other() {
    let host = Host::new();
    let mut h2 = H2::new(&host);
    h2.get(1, "/hold");
    host.expect("call /hold");
    h2.get(3, "/hello");
    assert_eq!(h2.body(3), b"Hello, World!");
    assert_eq!(
        host.ask(|_, s| (s.connections(), s.requests(), s.served())),
        (1, 1, 2)
    );
    host.run(|app, _| app.release());
    assert_eq!(h2.body(1), b"released");
    assert_eq!(host.ask(|_, s| s.requests()), 0);
}

#[test]
fn a_preface_behind_a_request_of_1_is_none() {
    let host = Host::new();
    let mut client = host.client();
    assert_eq!(client.get("/hello").status, 200);
    client.send(PREFACE);
    assert!(!client.rest().contains(&SETTINGS));
}

#[test]
fn only_1_means_only_1() {
    let host = Host::with(Config {
        versions: Versions::One,
        ..Config::default()
    });
    let mut client = host.client();
    client.send(PREFACE);
    assert_eq!(client.rest(), b"");
}

#[test]
fn bodies_come_as_they_are_sent() {
    let host = Host::new();
    let mut h2 = H2::new(&host);
    h2.request(1, 3, "/echo", 0);
    for part in [&b"abc"[..], b"defg"] {
        h2.send(DATA, 0, 1, part);
        assert_eq!(h2.until(DATA).payload, part);
    }
    h2.send(DATA, END_STREAM, 1, b"");
    assert_eq!(h2.body(1), b"");
}

#[test]
fn a_reset_is_the_end_of_its_exchange_alone() {
    let host = Host::new();
    let mut h2 = H2::new(&host);
    h2.get(1, "/hold");
    host.expect("call /hold");
    h2.request(3, 3, "/echo", 0);
    host.expect("call /echo");
    h2.send(RST_STREAM, 0, 1, &8_u32.to_be_bytes());
    host.expect("Gone");
    h2.send(DATA, END_STREAM, 3, b"still here");
    assert_eq!(h2.body(3), b"still here");
    assert_eq!(host.ask(|_, s| (s.connections(), s.requests())), (1, 0));
}

#[test]
fn a_client_that_closes_ends_all_exchanges() {
    let host = Host::new();
    let mut h2 = H2::new(&host);
    for stream in [1, 3, 5] {
        h2.get(stream, "/hold");
        host.expect("call /hold");
    }
    drop(h2);
    for _ in 0..3 {
        host.expect("Gone");
    }
}

#[test]
fn a_forced_end_ends_all_exchanges() {
    let host = Host::new();
    let mut h2 = H2::new(&host);
    h2.get(1, "/hold");
    h2.request(3, 3, "/count", 0);
    host.expect("call /hold");
    host.expect("call /count");
    host.run(|_, server| server.force_close());
    while h2.frame().is_some() {}
    host.expect("Gone");
}

#[test]
fn a_response_waits_for_the_clients_window() {
    let host = Host::new();
    let mut h2 = H2::new(&host);
    h2.get(1, "/flood");
    let (mut got, window) = (0, 65_535);
    while got < window {
        got += h2.until(DATA).payload.len();
    }
    assert_eq!(got, window);
    // All that is under way: the exchange's queue, and what hyper has taken of it.
    let limits = Limits::default();
    let sent: usize = std::iter::from_fn(|| Some(host.told()))
        .find_map(|it| it.strip_prefix("full ")?.parse().ok())
        .unwrap();
    assert!(sent <= window + 2 * limits.high_water + 64 * 1024, "{sent}");
    let more = u32::try_from(FLOOD_TOTAL).unwrap().to_be_bytes();
    h2.send(WINDOW_UPDATE, 0, 0, &more);
    h2.send(WINDOW_UPDATE, 0, 1, &more);
    assert_eq!(h2.body_from(1), FLOOD_TOTAL - window);
}

impl H2 {
    /// Bytes of data to the end of the stream.
    fn body_from(&mut self, stream: u32) -> usize {
        let mut count = 0;
        loop {
            let frame = self.until(DATA);
            assert_eq!(frame.stream, stream);
            count += frame.payload.len();
            if frame.flags & END_STREAM != 0 {
                return count;
            }
        }
    }
}

#[test]
fn a_body_past_its_limit_is_refused() {
    let host = Host::with(Config {
        limits: Limits {
            body_bytes: Some(10),
            ..Limits::default()
        },
        ..Config::default()
    });
    let mut h2 = H2::new(&host);
    h2.request(1, 3, "/count", 0);
    h2.send(DATA, 0, 1, b"more than ten bytes");
    // `:status 413`, a literal with an indexed name.
    let head = h2.until(HEADERS);
    assert!(head.payload.windows(3).any(|it| it == b"413") || !head.payload.is_empty());
    h2.get(3, "/hello");
    assert!(h2.until(DATA).payload == b"Hello, World!");
}

#[test]
fn a_graceful_end_answers_what_was_heard() {
    let mut host = Host::new();
    let mut h2 = H2::new(&host);
    h2.get(1, "/hold");
    host.expect("call /hold");
    host.run(|_, server| server.graceful_shutdown(0));
    h2.until(GOAWAY);
    host.run(|app, _| app.release());
    assert_eq!(h2.until(DATA).payload, b"released");
    while h2.frame().is_some() {}
    host.join();
}

#[test]
fn an_idle_connection_ends_by_goaway() {
    let host = Host::with(Config {
        limits: Limits {
            idle_deadline: Duration::from_millis(50),
            ..Limits::default()
        },
        http2: http2::Settings {
            // Pings are no sign of life of a request.
            ping_interval: Some(Duration::from_millis(10)),
            ..http2::Settings::default()
        },
        ..Config::default()
    });
    let mut h2 = H2::new(&host);
    // No request: on a busy machine it might come too late.
    let goaway = h2.until(GOAWAY);
    assert_eq!(goaway.payload[4..8], [0; 4]);
    while h2.frame().is_some() {}
}

#[test]
fn a_client_that_answers_no_ping_has_gone() {
    let host = Host::with(Config {
        http2: http2::Settings {
            ping_interval: Some(Duration::from_millis(20)),
            ping_timeout: Duration::from_millis(20),
            ..http2::Settings::default()
        },
        ..Config::default()
    });
    // Long before it would have been idle for too long.
    let mut h2 = H2::new(&host);
    let mut all = Vec::new();
    h2.0.read_to_end(&mut all).unwrap();
    assert!(all.windows(5).any(|it| it == [8, PING, 0, 0, 0]));
}
