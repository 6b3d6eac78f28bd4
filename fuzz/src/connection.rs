//! A whole server on a loop, one connection to which is a pair of sockets: bytes go in as they come from
//! a client, through the same code. The application remembers what it was called with, reads each body to
//! its end, and answers with what it has read; WebSocket connections get their messages back.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use rondel_core::driver::{Driver, Ready};
use rondel_http::http::header::HeaderMap;
use rondel_http::http::request::Parts;
use rondel_http::ws::{WebSocket, WsPoll};
use rondel_http::{BodyPoll, Config, Event, Exchange, Limits, Request, Server, Service, fuzzing};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

/// Turns of the loop within which a connection comes to rest.
const TURNS: usize = 10_000;

/// What the application was called with.
#[derive(Debug)]
pub struct Call {
    pub head: Parts,
    pub body: Vec<u8>,
    /// All of the body has come, and an answer was given.
    pub whole: bool,
    pub websocket: bool,
}

/// What one connection came to.
#[derive(Debug, Default)]
pub struct Seen {
    pub calls: Vec<Call>,
    /// What the server has sent.
    pub output: Vec<u8>,
    /// The server has closed, while the client had not.
    pub closed: bool,
}

enum Work {
    Body(Exchange, usize),
    Messages(WebSocket),
}

#[derive(Default)]
struct App {
    next: RefCell<u64>,
    works: RefCell<HashMap<u64, Work>>,
    calls: RefCell<Vec<Call>>,
}

impl App {
    fn go_on(&self, tag: u64, work: Work) {
        let more = match &work {
            Work::Body(exchange, call) => loop {
                match exchange.poll_body() {
                    BodyPoll::Chunk { data, more } => {
                        let mut calls = self.calls.borrow_mut();
                        let call = &mut calls[*call];
                        call.body.extend_from_slice(&data);
                        if more {
                            continue;
                        }
                        call.whole = true;
                        let text = format!("{} {}: ", call.head.method, call.body.len());
                        let answer = [text.as_bytes(), &call.body].concat();
                        drop(calls);
                        let begun = exchange.start(200, HeaderMap::new());
                        if begun.is_ok() {
                            // Its client may have gone.
                            let _flow = exchange.send_chunk(Bytes::from(answer), false);
                        }
                        break false;
                    }
                    BodyPoll::Pending => break true,
                    BodyPoll::End | BodyPoll::Gone => break false,
                }
            },
            Work::Messages(socket) => loop {
                match socket.poll_message() {
                    WsPoll::Message(message) => _ = socket.send(message),
                    WsPoll::Pending => break true,
                    WsPoll::Closed(_) => break false,
                }
            },
        };
        if more {
            self.works.borrow_mut().insert(tag, work);
        }
    }
}

impl Service for App {
    fn call(&self, request: Request, exchange: Exchange) {
        let tag = {
            let mut next = self.next.borrow_mut();
            *next += 1;
            *next
        };
        exchange.set_tag(tag);
        let call = self.calls.borrow().len();
        let Request {
            head,
            has_body,
            websocket,
            ..
        } = request;
        self.calls.borrow_mut().push(Call {
            head,
            body: Vec::new(),
            whole: false,
            websocket: websocket.is_some(),
        });
        let work = match websocket {
            None => Work::Body(exchange, call),
            Some(offer) => {
                assert!(!has_body);
                let first = offer.subprotocols.first();
                let first = first.and_then(|name| name.parse().ok());
                match exchange.accept(&offer, HeaderMap::new(), first) {
                    Ok(socket) => Work::Messages(socket),
                    Err(_) => return,
                }
            }
        };
        self.go_on(tag, work);
    }

    fn notify(&self, tag: u64, event: Event) {
        let work = self.works.borrow_mut().remove(&tag);
        match (work, event) {
            // A message may wait still, and a close: the socket tells.
            (Some(Work::Messages(socket)), _) => self.go_on(tag, Work::Messages(socket)),
            (Some(work), Event::Body | Event::Writable) => self.go_on(tag, work),
            (_, Event::Gone) | (None, _) => {}
        }
    }
}

/// A server; one for all inputs, as a process has it.
pub struct Host {
    driver: Driver,
    server: Server,
    app: Rc<App>,
}

impl Host {
    pub fn new() -> Host {
        let driver = Driver::new().expect("a loop");
        let app = Rc::new(App::default());
        let config = Config {
            date_header: false,
            server_header: None,
            limits: Limits {
                header_bytes: 8192,
                url_bytes: 1000,
                body_bytes: Some(3000),
                ..Limits::default()
            },
            ..Config::default()
        };
        let service = Rc::clone(&app) as Rc<dyn Service>;
        let server = Server::new(driver.handle(), service, config);
        Host {
            driver,
            server,
            app,
        }
    }

    /// One connection, to which these pieces come one by one.
    pub fn connection(&mut self, pieces: &[&[u8]]) -> Seen {
        let (client, socket) = UnixStream::pair().expect("two sockets");
        client.set_nonblocking(true).expect("a socket's mode");
        fuzzing::connect(&self.server, socket).expect("a connection");
        let mut seen = Seen::default();
        self.settle(&client, &mut seen);
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() && !seen.closed {
                match send(&client, rest, SendFlags::NOSIGNAL) {
                    Ok(n) => rest = &rest[n..],
                    Err(Errno::AGAIN) => {}
                    Err(_) => seen.closed = true,
                }
                let before = seen.output.len();
                self.settle(&client, &mut seen);
                if rest.len() == piece.len() && seen.output.len() == before {
                    // It takes nothing and says nothing: it waits for others.
                    break;
                }
            }
        }
        let closed = seen.closed;
        // The server may have been faster.
        let _ended = shutdown(&client, Shutdown::Write);
        self.settle(&client, &mut seen);
        seen.closed = closed;
        drop(client);
        self.settle_all();
        seen.calls = self.app.calls.take();
        assert!(
            self.app.works.borrow().is_empty(),
            "the application was not told of an end"
        );
        assert_eq!((self.server.connections(), self.server.requests()), (0, 0));
        seen
    }

    /// Has the server do what there is to do.
    fn settle(&mut self, client: &UnixStream, seen: &mut Seen) {
        let mut ready = Ready::default();
        for _ in 0..TURNS {
            self.driver
                .turn(Some(Duration::ZERO), &mut ready)
                .expect("a turn");
            let mut came = false;
            let mut buffer = [0; 16 * 1024];
            loop {
                match recv(client, &mut buffer[..], RecvFlags::empty()) {
                    Ok((_, 0)) => seen.closed = true,
                    Ok((_, n)) => {
                        seen.output.extend_from_slice(&buffer[..n]);
                        came = true;
                        continue;
                    }
                    Err(Errno::AGAIN) => {}
                    Err(_) => seen.closed = true,
                }
                break;
            }
            if !came && !self.driver.has_woken() {
                return;
            }
        }
        panic!("the connection does not come to rest");
    }

    /// Until the connection is over.
    fn settle_all(&mut self) {
        let mut ready = Ready::default();
        for _ in 0..TURNS {
            if self.server.connections() == 0 && !self.driver.has_woken() {
                return;
            }
            self.driver
                .turn(Some(Duration::ZERO), &mut ready)
                .expect("a turn");
        }
        panic!("a connection whose client has gone does not end");
    }
}

impl Default for Host {
    fn default() -> Self {
        Host::new()
    }
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::new(Host::new());
}

/// Runs with the process's server.
pub fn with<T>(run: impl FnOnce(&mut Host) -> T) -> T {
    HOST.with(|host| run(&mut host.borrow_mut()))
}
