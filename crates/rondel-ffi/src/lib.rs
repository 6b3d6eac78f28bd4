//! Every `unsafe` touch of CPython lives in this crate.
//!
//! It gives the `rondel` crate a small, safe object layer that costs what the raw C calls cost:
//! owned and borrowed references ([`Obj`], [`Ref`]), typed instances of hand-written heap types
//! ([`Own`], [`Inst`], [`Class`]), calls, coroutine sends, contexts and exceptions.
//!
//! # Invariant: the GIL
//!
//! Every value of this crate that stands for a Python object is created, cloned, used and dropped
//! with the GIL held. The types are neither `Send` nor `Sync`. They enter the program in one of two
//! ways only: as arguments of a trampoline (CPython calls us with the GIL held) or inside
//! [`gil::attached`]. Code that gives the GIL up does so through [`gil::detached`], whose closure
//! must be handed nothing that holds a reference; what has to cross (a body buffer, say) goes
//! through [`gil::Parked`], which drops its content only once the GIL is held again.
//!
//! # Invariant: re-entrancy
//!
//! Dropping an [`Obj`] can run arbitrary Python (`__del__`, weakref callbacks). Callers therefore
//! never drop one while they hold a `RefCell` borrow or in the middle of an update: take it out,
//! finish the update, then let it go.

mod bound;
pub mod buffer;
pub mod call;
pub mod callable;
pub mod class;
mod collector;
pub mod context;
pub mod counters;
mod entry;
pub mod err;
pub mod fd;
pub mod frame;
pub mod freelist;
pub mod gil;
pub mod listener;
pub mod local;
pub mod memory;
pub mod method;
pub mod module;
pub mod obj;
pub mod peek;
pub mod prefetch;
pub mod private;
mod refs;
pub mod ssl;
pub mod thread;
pub mod ticks;
pub mod value;
pub mod weak;
mod window;

pub use class::{Class, ClassCell, Extends, Inst, Own};
pub use err::{PyRes, Raised};
pub use obj::{Obj, Ref};
