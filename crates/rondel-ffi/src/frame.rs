//! Where Python code stands: the frames of the running thread, from the innermost out.

use crate::obj::{Obj, Ref};
use crate::{call, value};
use pyo3::ffi;

/// A frame object of this thread's stack.
pub struct Frame(Obj);

impl Frame {
    /// The innermost frame of Python code; none when no Python code runs in this thread.
    #[must_use]
    pub fn current() -> Option<Frame> {
        // SAFETY: the GIL is held; the result is borrowed from the thread state, or null.
        let frame: *mut ffi::PyObject = unsafe { ffi::PyEval_GetFrame() }.cast();
        if frame.is_null() {
            return None;
        }
        // SAFETY: a live object, just read; we take a reference of our own.
        Some(Frame(unsafe { Obj::from_borrowed(frame) }))
    }

    /// The frame that called this one.
    #[must_use]
    pub fn back(&self) -> Option<Frame> {
        // SAFETY: a frame object; the result is a new reference, or null without an error.
        unsafe { Obj::from_owned_opt(ffi::PyFrame_GetBack(self.0.as_ptr().cast()).cast()) }
            .map(Frame)
    }

    /// The line it executes.
    #[must_use]
    pub fn line(&self) -> i32 {
        // SAFETY: a frame object.
        unsafe { ffi::PyFrame_GetLineNumber(self.0.as_ptr().cast()) }
    }

    /// An attribute of its code object (`co_filename`, `co_name`): these are plain members, so that
    /// reading one runs no Python code.
    #[must_use]
    pub fn of_code(&self, name: &std::ffi::CStr) -> Option<Obj> {
        // SAFETY: a frame object always has code; the result is a new reference.
        let code =
            unsafe { Obj::from_owned_opt(ffi::PyFrame_GetCode(self.0.as_ptr().cast()).cast()) }?;
        let name = cleared(value::intern(name))?;
        cleared(call::getattr(code.borrow(), name.borrow()))
    }

    /// The `__name__` of the module whose code this is, if that is a str.
    #[must_use]
    pub fn module(&self) -> Option<String> {
        // SAFETY: a frame object; the result is a new reference to its globals.
        let globals =
            unsafe { Obj::from_owned_opt(ffi::PyFrame_GetGlobals(self.0.as_ptr().cast())) }?;
        let key = cleared(value::intern(c"__name__"))?;
        if !value::is_dict(globals.borrow()) {
            return None;
        }
        let name = cleared(value::dict_get(globals.borrow(), key.borrow()))??;
        if !value::is_str_exact(name) {
            return None;
        }
        cleared(value::str_text(name))
    }
}

/// What succeeded; an error (no memory, a surrogate in a name) is as good as no answer here.
fn cleared<T>(result: crate::err::PyRes<T>) -> Option<T> {
    result.map_err(crate::err::Raised::clear).ok()
}

/// Whether this is a built-in method of a set, dict or list (`seen.discard`).
#[must_use]
pub fn is_container_method(obj: Ref<'_>) -> bool {
    // SAFETY: alive; checks of types alone, on a pointer that the method keeps alive.
    unsafe {
        if ffi::PyCFunction_CheckExact(obj.as_ptr()) == 0 {
            return false;
        }
        let owner = ffi::PyCFunction_GetSelf(obj.as_ptr());
        !owner.is_null()
            && (ffi::PySet_Check(owner) != 0
                || ffi::PyDict_Check(owner) != 0
                || ffi::PyList_Check(owner) != 0)
    }
}
