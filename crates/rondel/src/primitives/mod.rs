//! The native halves of asyncio's ways to wait and to combine.
//!
//! Each function works on the Rondel loop that runs in the calling thread; without one it hands over
//! to asyncio's own, so a native name never behaves differently on a stock loop.

pub(crate) mod as_completed;
pub(crate) mod coroutine;
pub(crate) mod functions;
pub(crate) mod gather;
pub(crate) mod hops;
pub(crate) mod immediate;
pub(crate) mod shield;
pub(crate) mod sleep;
pub(crate) mod task_group;
pub(crate) mod threads;
pub(crate) mod timeout;
pub(crate) mod wait;
pub(crate) mod wait_for;
