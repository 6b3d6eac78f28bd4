//! ASGI over `rondel-http`, on the loop that steps the application's coroutines.
//!
//! ```text
//!  driver.turn (GIL not needed)                   batch (GIL)
//!  ─────────────────────                         ──────────────────────────────────────────
//!  hyper reads a head ─► Service::call           Door::enter: scope, Cycle, app(scope, …)
//!                          └► Door (a queue) ──►   └► Task ──steps──► the application
//!  hyper writes       ◄── Exchange ◄───────────── send()          (message.rs, awaitable.rs)
//!  body, disconnect   ──► Service::notify ──────► receive() resumes
//! ```
//!
//! No thread and no wake-up lies between a request and its task: the queue is drained by the same
//! thread, in the turn that read the request.
//!
//! * `door`: the queue between the two halves, and the requests in progress.
//! * `head`: a request's head on its way through that queue.
//! * `cycle`: one request: its exchange, its task, who waits for its body.
//! * `awaitable`: what `receive()` and `send()` return. `scope`, `message`: the dictionaries; `known`:
//!   what the scopes of a connection's requests share. `files`: files that are sent by the system.
//! * `websocket`: what `receive()` and `send()` do on a WebSocket connection.
//! * `blocking`: requests that threads answer.
//! * `bounds`: how many requests at once, and for how long.
//! * `access`: what the logs are told. `ids`: request ids. `tally`:
//!   what is counted for metrics.
//! * `file_watch`: which files a developer changes.
//! * `secure`: TLS: what it is set up by, and what applications are told of it.
//! * `control`: `serve_http` and the server object that Python stops; `arguments`: what it is given.

mod access;
mod arguments;
mod awaitable;
mod blocking;
mod bounds;
mod control;
mod cycle;
mod door;
mod file_watch;
mod files;
mod head;
mod ids;
mod known;
mod message;
mod scope;
mod secure;
mod tally;
mod websocket;

pub(crate) use cycle::{Cycle, finished};
pub(crate) use door::Door;

use rondel_ffi::method::MethodDef;
use rondel_ffi::{Obj, PyRes};

/// The server's types: `[Server, Cycle, ReceiveCall, SendCall, Reply, Routes, WsgiResponse,
/// FileWatch, TlsContext]`.
pub(crate) fn build() -> PyRes<[Obj; 9]> {
    let [receive, send] = awaitable::build()?;
    let [reply, routes, response] = blocking::build()?;
    Ok([
        control::build()?,
        cycle::build()?,
        receive,
        send,
        reply,
        routes,
        response,
        file_watch::build()?,
        secure::build()?,
    ])
}

pub(crate) fn definitions() -> Vec<MethodDef> {
    let mut all = control::definitions();
    all.extend(blocking::definitions());
    all.extend(file_watch::definitions());
    all.extend(secure::definitions());
    all
}
