//! What the application side implements and configures.

use std::any::Any;
use std::cell::OnceCell;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;

use crate::compress::Compression;
use crate::exchange::Exchange;
use crate::http2;
use crate::proxy::Proxies;
use crate::tls::{Tls, TlsInfo};
use crate::turns::Seat;
use crate::ws::{Offer, WebSockets};

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

    /// A request is about to be answered in the service's stead ([`crate::Statics`]), refused, or sent
    /// elsewhere, with this status; it `began` then, on the loop's clock. The exchange may still be given
    /// headers.
    fn answering(&self, request: Request, exchange: &Exchange, status: u16, began: u64) {
        let _ = (request, exchange, status, began);
    }

    /// A client was answered with this status and let go, because what it sent is no request, or did not
    /// become one in time.
    fn refused(&self, conn: &Rc<ConnInfo>, status: StatusCode) {
        let _ = (conn, status);
    }

    /// Whether requests wait for something that other processes may have free.
    fn is_crowded(&self) -> bool {
        false
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
    Connection(&'a ConnInfo, &'a (dyn Error + 'static)),
    /// A file that is part of a response could not be sent as promised; the connection is closed.
    File(&'a ConnInfo, &'a io::Error),
    /// A connection was closed because a deadline passed.
    Deadline(&'a ConnInfo, Deadline),
    /// A handshake failed: a client that speaks no TLS, trusts us not, or is not trusted.
    Handshake(&'a ConnInfo, &'a io::Error),
}

/// Which deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// TLS was not agreed on in time.
    Handshake,
    /// The request's head was not complete in time.
    Header,
    /// No request came on a kept-alive connection.
    Idle,
    /// The application waits for the request's body, and too little of it came.
    Body,
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
    /// Set if a WebSocket connection is asked for: [`Exchange::accept`], or an ordinary response.
    pub websocket: Option<Box<Offer>>,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    /// A Unix socket, by its path if it has one.
    Unix(Option<PathBuf>),
}

/// A connection as its requests see it: where they come by a trusted proxy, the client's own.
#[derive(Debug)]
pub struct ConnInfo {
    pub peer: Address,
    pub local: Address,
    /// Set once TLS is agreed on, before the first request; never without TLS.
    pub tls: OnceCell<Arc<TlsInfo>>,
    /// Whether the client's connection is encrypted: `https`.
    pub secure: bool,
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
    /// Bytes of a request's target; more is answered with 414.
    pub url_bytes: usize,
    /// From a connection's start to the end of its TLS handshake.
    pub handshake_deadline: Duration,
    /// Between requests of a connection.
    pub idle_deadline: Duration,
    /// For a client whose body the application waits for; then it is answered with 408.
    pub body_deadline: Option<Duration>,
    /// Bytes that have to come within the body's deadline to begin it anew; at least one has to.
    pub body_step: u64,
    /// For a client that reads nothing of its response.
    pub write_deadline: Option<Duration>,
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
            url_bytes: 16 * 1024,
            handshake_deadline: Duration::from_secs(10),
            idle_deadline: Duration::from_secs(75),
            body_deadline: Some(Duration::from_secs(30)),
            body_step: 3000,
            write_deadline: Some(Duration::from_secs(75)),
            connections: None,
            body_bytes: None,
            high_water: 64 * 1024,
            low_water: 16 * 1024,
        }
    }
}

/// Which versions of HTTP are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versions {
    /// HTTP/2 with clients that ask for it: by ALPN, or by its preface (RFC 9113, 3.3).
    #[default]
    Auto,
    /// HTTP/1.1 and 1.0 only.
    One,
    /// HTTP/2 only.
    Two,
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
    pub versions: Versions,
    pub http2: http2::Settings,
    /// Set where connections begin with TLS.
    pub tls: Option<Tls>,
    /// Set where other processes accept from the same sockets: how they share.
    pub seat: Option<Seat>,
    /// `None`: requests for WebSocket connections are ordinary requests.
    pub websockets: Option<WebSockets>,
    /// Who may say on whose behalf a request comes.
    pub proxies: Proxies,
    /// Which responses are compressed.
    pub compression: Compression,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            limits: Limits::default(),
            server_header: Some(HeaderValue::from_static("rondel")),
            date_header: true,
            keep_alive: true,
            versions: Versions::Auto,
            http2: http2::Settings::default(),
            tls: None,
            seat: None,
            websockets: Some(WebSockets::default()),
            proxies: Proxies::default(),
            compression: Compression::default(),
        }
    }
}
