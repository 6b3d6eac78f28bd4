//! Where the payloads of futures, tasks and gathers lie (see the module above for why).
//!
//! The numbers are those of CPython's `FutureObj` and `TaskObj`, checked against `tp_basicsize` at
//! import. From 3.14 on asyncio's C code writes into every subclass's fields: payloads lie behind.

use super::Future;
use crate::consts::Stock;
use rondel_ffi::err::Builtin;
use rondel_ffi::{PyRes, class};
use std::mem::offset_of;

/// The sizes of asyncio's C Future and Task.
#[cfg(not(Py_3_13))]
const KNOWN: (usize, usize) = (128, 176);
#[cfg(Py_3_13)]
const KNOWN: (usize, usize) = (104, 144);

/// Right behind `PyObject`.
const FUTURE: usize = 16;
const CANCEL_MESSAGE: usize = 80;

const _: () = assert!(
    FUTURE + offset_of!(Future, stock_loop) == 16,
    "fut_loop is C's first field"
);
const _: () = assert!(FUTURE + offset_of!(Future, stock_cancel_message) == CANCEL_MESSAGE);
const _: () = assert!(
    FUTURE + size_of::<Future>() == CANCEL_MESSAGE + 8,
    "not on C's ints and dict"
);

/// C's `fut_state` and its value for a finished future. C sees every one of ours as done: the few
/// calls that ask for the state before anything else (`asyncio.Task.cancel(task)`, and `__del__`,
/// which would report to the loop that it does not have) leave it alone.
pub(crate) const STOCK_STATE: (usize, u32) = if cfg!(Py_3_13) { (96, 2) } else { (88, 2) };
const _: () = assert!(FUTURE + size_of::<Future>() <= STOCK_STATE.0);

#[derive(Clone, Copy)]
pub(crate) struct Placement {
    /// On top of the C fields; behind them otherwise.
    pub(crate) over: bool,
    /// The `Future` of every instance.
    pub(crate) future: usize,
    /// The rest of a task or a gather.
    pub(crate) rest: usize,
}

/// The placement where it can be known when we are compiled, which spares every access a look-up.
pub(crate) const FIXED: Option<Placement> = if cfg!(all(not(Py_3_14), target_pointer_width = "64"))
{
    Some(Placement {
        over: true,
        future: FUTURE,
        rest: KNOWN.0,
    })
} else {
    None
};

/// A part of [`FIXED`], for [`rondel_ffi::Class::PLACE`].
pub(crate) const FUTURE_PLACE: Option<usize> = match FIXED {
    Some(place) => Some(place.future),
    None => None,
};
/// As [`FUTURE_PLACE`], for a task and a gather.
pub(crate) const REST_PLACE: Option<usize> = match FIXED {
    Some(place) => Some(place.rest),
    None => None,
};

impl Placement {
    pub(crate) fn choose(stock: &Stock) -> PyRes<Placement> {
        let future = class::basicsize(stock.future.borrow());
        let task = class::basicsize(stock.task.borrow());
        if let Some(place) = FIXED {
            if (future, task) == KNOWN {
                return Ok(place);
            }
            return Err(Builtin::Import.raise(&format!(
                "this Python's asyncio.Future and asyncio.Task have {future} and {task} bytes; \
                 rondel was compiled for one where they have {} and {}: build it with this Python",
                KNOWN.0, KNOWN.1
            )));
        }
        let behind = future.max(task).next_multiple_of(16);
        Ok(Placement {
            over: false,
            future: behind,
            rest: behind + size_of::<Future>(),
        })
    }
}
