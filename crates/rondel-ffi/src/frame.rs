//! Where Python code stands: the frames of the running thread, from the innermost out.

use crate::obj::{Obj, Ref};
use crate::value;
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

    /// The object as a frame.
    #[must_use]
    pub fn cast(obj: Obj) -> Option<Frame> {
        // SAFETY: alive; a check of its type.
        (unsafe { ffi::PyFrame_Check(obj.as_ptr()) } != 0).then_some(Frame(obj))
    }

    /// The instruction it is at, by which a code object tells the line.
    #[must_use]
    pub fn instruction(&self) -> i32 {
        // SAFETY: a frame object.
        unsafe { ffi::PyFrame_GetLasti(self.0.as_ptr().cast()) }
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

    /// Its code object.
    #[must_use]
    pub fn code(&self) -> Obj {
        // SAFETY: a frame object always has code; the result is a new reference.
        let code =
            unsafe { Obj::from_owned_opt(ffi::PyFrame_GetCode(self.0.as_ptr().cast()).cast()) };
        code.unwrap_or_else(Obj::none)
    }

    /// Whether the code is that of a module in one of these packages, by its globals' `__name__`.
    #[must_use]
    pub fn is_in(&self, packages: &[&str]) -> bool {
        // SAFETY: a frame object; the result is a new reference to its globals, or null.
        let globals =
            unsafe { Obj::from_owned_opt(ffi::PyFrame_GetGlobals(self.0.as_ptr().cast())) };
        let (Some(globals), Some(key)) = (globals, cleared(value::intern(c"__name__"))) else {
            return false;
        };
        if !value::is_dict(globals.borrow()) {
            return false;
        }
        let name = cleared(value::dict_get(globals.borrow(), key.borrow())).flatten();
        name.and_then(text).is_some_and(|name| {
            packages.iter().any(|package| {
                name.strip_prefix(package)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        })
    }
}

/// What succeeded; an error (no memory) is as good as no answer here.
fn cleared<T>(result: crate::err::PyRes<T>) -> Option<T> {
    result.map_err(crate::err::Raised::clear).ok()
}

/// The text of a str, without a copy; none for anything else and for a lone surrogate.
fn text(obj: Ref<'_>) -> Option<&str> {
    if !value::is_str_exact(obj) {
        return None;
    }
    let mut len = 0;
    // SAFETY: a str, which owns the UTF-8 that it hands out; the reference keeps it alive.
    unsafe {
        let data = ffi::PyUnicode_AsUTF8AndSize(obj.as_ptr(), &raw mut len);
        if data.is_null() {
            ffi::PyErr_Clear();
            return None;
        }
        std::str::from_utf8(std::slice::from_raw_parts(data.cast(), len as usize)).ok()
    }
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
