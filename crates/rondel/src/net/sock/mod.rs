//! `loop.sock_recv()` and its kin: operations on a program's own sockets.
//!
//! Each is a native coroutine ([`call::Call`]) that tries the system call at once, waits for readiness
//! when there is nothing to do, and tries again when its task steps. So what was received is never in a
//! future that a cancelled task leaves behind, as it may be under asyncio.
//!
//! ```text
//!   start ──► attempt ──done──► return              `table`: who waits for which descriptor
//!               ▲  │ would block
//!               │  └──► table::wait ──► future ── edge ──► one hop releases it ──► the task steps
//!               └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! asyncio's hops are the same: the selector's callback sets the future, the task steps one turn later.
//!
//! | module | what |
//! |---|---|
//! | `table` | registrations of sockets that lasted for more than one operation, and who waits |
//! | `call` | the machine around an operation: checks, waits, cancellation, hand-over to asyncio |
//! | `recv`, `send`, `sendfile`, `accept`, `connect` | the operations |
//! | `methods` | the coroutine methods of the loop |
//!
//! Only `socket.socket` itself is served here. Subclasses may have methods of their own, so asyncio's
//! coroutines serve them, as they do when the program itself watches the descriptor (`add_reader`).
//!
//! All of it runs with the GIL held, system calls never block. What leaves a `RefCell` is dropped
//! after the borrow.

mod accept;
mod call;
mod connect;
mod methods;
mod names;
mod recv;
mod send;
mod sendfile;
mod table;

pub(crate) use methods::{accept_one, add_to, build};
pub(crate) use names::{is_plain_socket, own as names};
pub(crate) use sendfile::send_file;
pub(crate) use table::{Socks, is_internet, on_edge, parts, vacate};
