//! The inspector's half that knows no Python.
//!
//! * `counters`: what each loop counts about itself. `watchdog`: who stands still; `bell` wakes it.
//!   `requests`: those that are being answered, and the last ones that were.
//! * `service`: the thread that answers on the process's socket, and the protocol; `door` is the
//!   socket, `client` one connection of it.

mod bell;
mod client;
pub mod counters;
mod door;
pub mod requests;
mod service;
mod watchdog;

pub use door::Door;
pub use service::{Service, Source};
pub use watchdog::{Over, Stall};
