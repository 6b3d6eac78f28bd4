//! `Window`: an object that lends memory of ours to one call of a C function.
//!
//! A `memoryview` over foreign memory costs two objects per call; a window is a recycled block whose
//! fields are set. It exports its memory while the call lasts and refuses to before and after.
//!
//! # Invariant
//! The callee must be C code known to release its view before it returns: the memory is the lender's
//! again then. So lending is this crate's alone; [`crate::ssl`] is who does it. GIL held throughout
//! (the callee may give it up inside; the memory is the call's own for that long).

use crate::class::{self, Class, ClassCell, Inst, TypeBuilder, Visit};
use crate::err::{Builtin, PyRes};
use crate::freelist::FreeList;
use crate::obj::Ref;
use pyo3::ffi;
use std::cell::Cell;
use std::ffi::{c_int, c_void};

pub(crate) struct Window {
    /// Null when nothing is lent.
    start: Cell<*mut u8>,
    len: Cell<isize>,
    read_only: Cell<bool>,
}

impl Default for Window {
    fn default() -> Window {
        Window {
            start: Cell::new(std::ptr::null_mut()),
            len: Cell::new(0),
            read_only: Cell::new(true),
        }
    }
}

static CELL: ClassCell = ClassCell::new();
static FREE: FreeList = FreeList::new();

impl Class for Window {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, _visit: &mut Visit) {}
    fn clear(&self) {}
    fn freelist() -> Option<&'static FreeList> {
        Some(&FREE)
    }
}

unsafe extern "C" fn get_buffer(
    slf: *mut ffi::PyObject,
    view: *mut ffi::Py_buffer,
    flags: c_int,
) -> c_int {
    // SAFETY: slots are called with an instance of their type; the view is the caller's to fill.
    unsafe {
        let window = Inst::<Window>::from_ptr(slf);
        if window.start.get().is_null() {
            (*view).obj = std::ptr::null_mut();
            let _set = Builtin::Buffer.raise("nothing is lent by this object any more");
            return -1;
        }
        ffi::PyBuffer_FillInfo(
            view,
            slf,
            window.start.get().cast::<c_void>(),
            window.len.get(),
            c_int::from(window.read_only.get()),
            flags,
        )
    }
}

pub(crate) fn build() -> PyRes<()> {
    let _type = TypeBuilder::<Window>::new(c"rondel._rondel.Window")
        .slot(ffi::Py_bf_getbuffer, get_buffer as *mut c_void)
        .build()?;
    Ok(())
}

/// Calls `work` with an object that exports `len` bytes at `start`.
///
/// # Safety
/// The memory is valid for the call (for writes, unless `read_only`), and whatever `work` hands the
/// object to releases its view, and drops the object, before it returns.
pub(crate) unsafe fn lend<R>(
    start: *mut u8,
    len: usize,
    read_only: bool,
    work: impl FnOnce(Ref<'_>) -> PyRes<R>,
) -> PyRes<R> {
    let window = class::alloc(
        Window {
            start: Cell::new(start),
            len: Cell::new(isize::try_from(len).unwrap_or(isize::MAX)),
            read_only: Cell::new(read_only),
        },
        false,
    )?;
    let result = work(window.obj());
    window.start.set(std::ptr::null_mut());
    result
}
