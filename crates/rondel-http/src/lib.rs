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
//! | `conn` | the future of a connection, its deadlines |
//! | `listener`, `stream` | accepting; a socket as hyper sees it |
//!
//! Everything belongs to the loop's thread and none of it needs the GIL.

#![forbid(unsafe_code)]

mod conn;
pub mod exchange;
mod listener;
mod outcome;
mod response;
pub mod server;
pub mod service;
mod stream;
pub mod target;

pub use exchange::Exchange;
pub use hyper::{self, http};
pub use outcome::{BodyPoll, Flow, SendError};
pub use server::{Drained, Server};
pub use service::{Address, Config, ConnInfo, Deadline, Event, Limits, Problem, Request, Service};
