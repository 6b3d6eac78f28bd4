//! What the application side implements and configures.

use std::any::Any;
use std::cell::OnceCell;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::http::request::Parts;

use crate::exchange::Exchange;

/// The application. All its methods are called on the loop's thread, from within a connection's
/// poll, hence without the GIL: they note what to do and return.
pub trait Service: 'static {
    /// A request has come in. Its answer goes through the exchange, now or later.
    fn call(&self, request: Request, exchange: Exchange);

    /// Something happened to the exchange that was given this tag ([`Exchange::set_tag`]).
    fn notify(&self, tag: u64, event: Event);

    /// Trouble that no exchange stands for.
    fn report(&self, problem: Problem<'_>) {
        let _ = problem;
    }
}

/// News of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Body may have arrived after [`crate::BodyPoll::Pending`]: poll it again.
    Body,
    /// The response queue has drained after [`crate::Flow::Full`]: send on.
    Writable,
    /// The client has gone before the response was complete. Told once, and the last event.
    Gone,
}

/// Trouble outside of any exchange.
#[derive(Debug)]
pub enum Problem<'a> {
    /// Accepting fails; it is tried again after a pause.
    Accept(&'a io::Error),
    /// A connection was ended by what its client sent, or by an error of the socket.
    Connection(&'a ConnInfo, &'a hyper::Error),
    /// A connection was closed because a deadline passed.
    Deadline(&'a ConnInfo, Deadline),
}

/// Which deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// The request's head was not complete in time.
    Header,
    /// No request came on a kept-alive connection.
    Idle,
    /// The client read nothing of the response.
    Write,
}

/// A request's head and where it came from.
#[derive(Debug)]
pub struct Request {
    /// Method, target, version, headers.
    pub head: Parts,
    /// Whether a body may follow; if not, [`Exchange::poll_body`] gives its end at once.
    pub has_body: bool,
    pub conn: Rc<ConnInfo>,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    /// A Unix socket, by its path if it has one.
    Unix(Option<PathBuf>),
}

/// A connection as its requests see it.
#[derive(Debug)]
pub struct ConnInfo {
    pub peer: Address,
    pub local: Address,
    /// For the application to keep what it derives from the addresses.
    pub cache: OnceCell<Box<dyn Any>>,
}

/// Bounds on what one client can make the server hold. `None` is no bound.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request's head, the request line included; more is answered with 431.
    pub header_bytes: usize,
    /// Header lines; more is answered with 431.
    pub header_count: usize,
    /// From a request's first byte, or the connection's start, to the end of its head.
    pub header_deadline: Duration,
    /// Between requests of a connection, and for a client that reads nothing of its response.
    pub idle_deadline: Duration,
    /// Connections at once; further ones wait in the listener's backlog.
    pub connections: Option<usize>,
    /// Bytes of a request's body; more is answered with 413.
    pub body_bytes: Option<u64>,
    /// Response bytes queued from which on [`crate::Flow::Full`] is told.
    pub high_water: usize,
    /// Response bytes queued from which on [`Event::Writable`] is told.
    pub low_water: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            header_bytes: 64 * 1024,
            header_count: 100,
            header_deadline: Duration::from_secs(30),
            idle_deadline: Duration::from_secs(75),
            connections: None,
            body_bytes: None,
            high_water: 64 * 1024,
            low_water: 16 * 1024,
        }
    }
}

/// How a server behaves.
#[derive(Clone, Debug)]
pub struct Config {
    pub limits: Limits,
    /// Value of the `Server` header, unless the application sets its own; `None` sends none.
    pub server_header: Option<HeaderValue>,
    /// Whether `Date` is sent.
    pub date_header: bool,
    pub keep_alive: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            limits: Limits::default(),
            server_header: Some(HeaderValue::from_static("rondel")),
            date_header: true,
            keep_alive: true,
        }
    }
}
