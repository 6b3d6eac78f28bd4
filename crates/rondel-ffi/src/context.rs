//! `contextvars.Context`: copies, and entering and leaving them.

use crate::err::{PyRes, Raised};
use crate::obj::{Obj, Ref};
use pyo3::ffi;

/// `contextvars.copy_context()`.
#[inline(always)]
pub fn copy_current() -> PyRes<Obj> {
    // SAFETY: new reference or null with an error.
    unsafe { Obj::from_owned(ffi::PyContext_CopyCurrent()) }
}

/// Enters `context`; each successful call is paired with one [`exit`].
#[inline(always)]
pub fn enter(context: Ref<'_>) -> PyRes<()> {
    // SAFETY: PyContext_Enter checks the type and whether it is entered already.
    if unsafe { ffi::PyContext_Enter(context.as_ptr()) } < 0 {
        Err(Raised::assert_set())
    } else {
        Ok(())
    }
}

/// Leaves `context`, which must be the current one.
#[inline(always)]
pub fn exit(context: Ref<'_>) -> PyRes<()> {
    // SAFETY: PyContext_Exit checks that it is the current one.
    if unsafe { ffi::PyContext_Exit(context.as_ptr()) } < 0 {
        Err(Raised::assert_set())
    } else {
        Ok(())
    }
}
