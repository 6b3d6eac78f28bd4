//! The loop's half that knows no Python: reactor, timers, inbox, executor, clock.
//!
//! ```text
//!   any thread                         the loop's thread
//!   ──────────                         ─────────────────────────────────────────────
//!   Inbox::push ─┐                     Driver::turn
//!   Waker::wake ─┼─► LoopWaker ──────►   epoll_wait      until ready, due, or woken
//!                │   (eventfd only       dispatch        fds and edges → the caller
//!                │    if it sleeps)                      sources → their futures
//!                │                       timers          due → their futures
//!                │                       executor        polls the woken futures
//!                └────────────────────► Inbox::take      by the caller, after each turn
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`clock`] | nanoseconds of `CLOCK_MONOTONIC`, Python's `time.monotonic()` |
//! | [`reckoning`] | the time between two readings of the clock, by a counter that is cheaper |
//! | [`timers`] | values in exact (deadline, insertion) order; the loop has one set for Python's timers, the driver another for its futures' |
//! | [`wake`] | the wake-up protocol and the proof that no wake-up is lost |
//! | [`inbox`] | lists of work from other threads |
//! | [`driver`] | one epoll instance: watched fds, edge registrations, the executor |
//! | [`pool`] | threads for blocking calls, and how many of them run at once |
//! | [`inspect`] | what loops count about themselves, for other threads and processes |
//! | [`sharing`] | a listening socket from which several processes accept by turns |
//! | [`io`], [`sleep`] | what a Rust future awaits: readiness and deadlines |
//!
//! Thread discipline: [`wake::LoopWaker`], [`inbox::Inbox`], [`pool::Pool`] and the futures' wakers are for all
//! threads; everything else belongs to the loop's thread and is neither `Send` nor locked.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod clock;
pub mod driver;
mod executor;
mod fds;
pub mod inbox;
pub mod inspect;
pub mod io;
pub mod pool;
pub mod reckoning;
pub mod sharing;
pub mod sleep;
mod slots;
pub mod timers;
pub mod wake;

pub use executor::PanicHook;
