//! A server without Python: what the loop and hyper cost by themselves.
//!
//! `cargo run --release -p rondel-http --example bare -- PORT` serves `GET /` (Hello, World!),
//! `GET /100k` and `POST /echo` on 127.0.0.1 until it is killed; the limit for the benchmarks.
//! `GET /later` is answered after the turn, as by an application that runs beside the connection.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use rondel_core::driver::{Driver, Ready};
use rondel_http::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use rondel_http::{BodyPoll, Config, Event, Exchange, Request, SendError, Server, Service};

/// An echo that waits for more of its body.
struct Echo {
    exchange: Exchange,
    body: BytesMut,
}

struct Bare {
    large: Bytes,
    echoes: RefCell<HashMap<u64, Echo>>,
    tags: Cell<u64>,
    later: RefCell<Vec<Exchange>>,
}

fn respond(exchange: &Exchange, status: u16, body: Bytes) -> Result<(), SendError> {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    exchange.start(status, headers)?;
    exchange.send_chunk(body, false).map(|_| ())
}

impl Bare {
    /// Reads on; keeps the echo for later if more is to come.
    fn echo(&self, mut echo: Echo) -> Result<(), SendError> {
        loop {
            match echo.exchange.poll_body() {
                BodyPoll::Chunk { data, more: true } => echo.body.extend_from_slice(&data),
                BodyPoll::Chunk { data, more: false } => {
                    let body = if echo.body.is_empty() {
                        data
                    } else {
                        echo.body.extend_from_slice(&data);
                        echo.body.freeze()
                    };
                    return respond(&echo.exchange, 200, body);
                }
                BodyPoll::Pending => {
                    let tag = self.tags.get() + 1;
                    self.tags.set(tag);
                    echo.exchange.set_tag(tag);
                    self.echoes.borrow_mut().insert(tag, echo);
                    return Ok(());
                }
                BodyPoll::End | BodyPoll::Gone => return Ok(()),
            }
        }
    }
}

impl Service for Bare {
    fn call(&self, request: Request, exchange: Exchange) {
        let sent = match (request.head.method.as_str(), request.head.uri.path()) {
            ("GET", "/") => respond(&exchange, 200, Bytes::from_static(b"Hello, World!")),
            ("GET", "/100k") => respond(&exchange, 200, self.large.clone()),
            ("GET", "/later") => {
                self.later.borrow_mut().push(exchange);
                Ok(())
            }
            ("POST", "/echo") => self.echo(Echo {
                exchange,
                body: BytesMut::new(),
            }),
            _ => respond(&exchange, 404, Bytes::from_static(b"Not Found")),
        };
        if let Err(error) = sent {
            eprintln!("{}: {error}", request.head.uri);
        }
    }

    fn notify(&self, tag: u64, event: Event) {
        let echo = self.echoes.borrow_mut().remove(&tag);
        if let (Some(echo), Event::Body) = (echo, event) {
            if let Err(error) = self.echo(echo) {
                eprintln!("echo: {error}");
            }
        }
    }
}

fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).and_then(|arg| arg.parse().ok());
    let Some(port) = port else {
        return Err(io::Error::other("usage: bare PORT"));
    };
    let mut driver = Driver::new()?;
    let service = Bare {
        large: Bytes::from(vec![b'x'; 100 * 1024]),
        echoes: RefCell::default(),
        tags: Cell::new(0),
        later: RefCell::default(),
    };
    let service = Rc::new(service);
    let as_service = Rc::clone(&service) as Rc<dyn Service>;
    let server = Server::new(driver.handle(), as_service, Config::default());
    server.listen_tcp(TcpListener::bind(("127.0.0.1", port))?)?;
    let mut ready = Ready::default();
    loop {
        driver.turn(None, &mut ready)?;
        for exchange in service.later.borrow_mut().drain(..) {
            if let Err(error) = respond(&exchange, 200, Bytes::from_static(b"Hello, World!")) {
                eprintln!("later: {error}");
            }
        }
        driver.run_futures();
    }
}
