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
//!   what the scopes of a connection's requests share.
//! * `control`: `serve_http` and the server object that Python stops.

mod awaitable;
mod control;
mod cycle;
mod door;
mod head;
mod known;
mod message;
mod scope;

pub(crate) use control::definitions;
pub(crate) use cycle::{Cycle, finished};
pub(crate) use door::Door;

use rondel_ffi::{Obj, PyRes};

/// The server's types: `[Server, Cycle, ReceiveCall, SendCall]`.
pub(crate) fn build() -> PyRes<[Obj; 4]> {
    let [receive, send] = awaitable::build()?;
    Ok([control::build()?, cycle::build()?, receive, send])
}
