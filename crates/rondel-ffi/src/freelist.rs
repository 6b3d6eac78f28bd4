//! Recycled memory blocks for the objects that come and go with every callback.
//!
//! A block in the list keeps its header, its type pointer and its reference to the type; taking it
//! out starts a new life with a reference count of one. Only the GIL's holder touches the list.
//!
//! Built with `--cfg rondel_no_freelists` nothing is recycled: memory checkers (valgrind, CPython's
//! debug allocator) then see the use of a dead object, which the list would hide from them.

use crate::private::_Py_NewReference;
use pyo3::ffi;
use std::cell::UnsafeCell;

const CAPACITY: usize = 512;

pub struct FreeList(UnsafeCell<Blocks>);

struct Blocks {
    blocks: [*mut ffi::PyObject; CAPACITY],
    len: usize,
}

// SAFETY: reached with the GIL held only (crate invariant); free-threaded builds are refused.
unsafe impl Sync for FreeList {}

impl FreeList {
    #[expect(clippy::new_without_default, reason = "a static's constructor")]
    pub const fn new() -> FreeList {
        FreeList(UnsafeCell::new(Blocks {
            blocks: [std::ptr::null_mut(); CAPACITY],
            len: 0,
        }))
    }

    #[inline(always)]
    pub(crate) fn take(&self) -> Option<*mut ffi::PyObject> {
        // SAFETY: the GIL serialises access and nothing below re-enters.
        let list = unsafe { &mut *self.0.get() };
        if list.len == 0 {
            return None;
        }
        list.len -= 1;
        let block = list.blocks[list.len];
        // SAFETY: the block is an exclusively owned, dead object with an intact header.
        unsafe { _Py_NewReference(block) };
        Some(block)
    }

    /// Takes a dead object's block; `false` when full (free it then).
    #[inline(always)]
    pub(crate) fn put(&self, block: *mut ffi::PyObject) -> bool {
        // SAFETY: as in `take`.
        let list = unsafe { &mut *self.0.get() };
        if list.len == CAPACITY || cfg!(rondel_no_freelists) {
            return false;
        }
        list.blocks[list.len] = block;
        list.len += 1;
        true
    }
}
