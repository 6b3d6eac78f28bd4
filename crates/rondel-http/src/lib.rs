//! HTTP connections over hyper, driven by rondel-core; knows no Python.
//!
//! ```text
//!   listener ──accepts──► Connection (future) ──polls──► hyper http1 ──reads/writes──► Stream
//!                             │ deadlines, end              │ request
//!                             │                             ▼
//!                             └───────── Link ─────────► Exchange ◄──────► Service
//!                                                                     (ASGI, WSGI, tests)
//! ```
//!
//! A byte's way: the socket becomes readable, the driver wakes the connection's future, hyper
//! parses a head and calls [`Service::call`] with a [`Request`] and an [`Exchange`]. The service
//! takes the body from the exchange and gives it the response; that wakes the future again, hyper
//! frames the response and writes it.
//!
//! | module | holds |
//! |---|---|
//! | [`service`] | the trait to implement, requests, limits, configuration |
//! | [`exchange`] | one request and its response: body, queue, backpressure, disconnect |
//! | [`server`] | listeners, connections, graceful and forced end |
//! | `outcome`, `response` | what an exchange's operations give; its response as hyper takes it |
//! | [`target`] | percent-decoding of paths |
//! | [`gather`], [`routes`] | for requests that threads answer: a body until it is complete; which paths they are |
//! | `file` | parts of responses that are files, sent by `sendfile` |
//! | [`statics`] | files that are answered without the service |
//! | [`compress`] | responses in gzip, br, zstd |
//! | [`proxy`] | who a request comes from, if a trusted proxy says it |
//! | `conn` | the future of a connection, its deadlines |
//! | `framing` | what of HTTP/1.1's bytes is refused before hyper sees it |
//! | `turns` | fair shares among processes that accept from the same sockets |
//! | [`tls`], [`http2`] | TLS by rustls; several exchanges at once on one connection |
//! | `listener`, `wire`, `stream` | accepting; what hyper reads and writes: TLS, or a socket |
//! | [`ws`] | WebSocket connections: what follows a request that asks for one |
//!
//! Everything belongs to the loop's thread and none of it needs the GIL.

#![forbid(unsafe_code)]

pub mod compress;
mod conn;
pub mod exchange;
mod file;
mod framing;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod gather;
pub mod http2;
mod listener;
mod outcome;
pub mod proxy;
mod response;
pub mod routes;
pub mod server;
pub mod service;
pub mod statics;
mod stream;
pub mod target;
pub mod tls;
mod turns;
mod waker;
mod wire;
pub mod ws;

pub use exchange::Exchange;
pub use file::FilePart;
pub use hyper::{self, http};
pub use outcome::{BodyPoll, Flow, SendError};
pub use server::{Drained, Server};
pub use service::{
    Address, Config, ConnInfo, Deadline, Event, Limits, Problem, Request, Service, Versions,
};
pub use statics::{Mount, Statics};
pub use tls::{Tls, TlsInfo};
pub use turns::{Ledger, Seat};
