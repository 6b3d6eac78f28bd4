//! The C functions through which Python code is run, made safe for the end of the process.
//!
//! Before 3.14 CPython ends a daemon thread that wants the GIL back during finalisation by
//! `pthread_exit`, which unwinds the thread's stack by force. Rust frames can't be unwound so: glibc
//! aborts the process ("exception not rethrown"). Here such a thread is parked for good instead,
//! which is what CPython itself does from 3.14 on; the process's exit ends it. `PyO3` does the same
//! for taking the GIL (`PyEval_RestoreThread`, `PyGILState_Ensure`).
//!
//! The functions are declared "C-unwind", so that the forced unwinding finds a landing pad; a call
//! that returns pays nothing for it.

#![expect(non_snake_case, reason = "each stands for the C function of that name")]

use pyo3::ffi::{self, PyObject, PySendResult};

mod raw {
    use super::{PyObject, PySendResult};
    unsafe extern "C-unwind" {
        pub(super) fn PyObject_CallNoArgs(callable: *mut PyObject) -> *mut PyObject;
        pub(super) fn PyObject_CallOneArg(
            callable: *mut PyObject,
            arg: *mut PyObject,
        ) -> *mut PyObject;
        pub(super) fn PyObject_Vectorcall(
            callable: *mut PyObject,
            args: *const *mut PyObject,
            nargsf: usize,
            names: *mut PyObject,
        ) -> *mut PyObject;
        pub(super) fn PyObject_VectorcallMethod(
            name: *mut PyObject,
            args: *const *mut PyObject,
            nargsf: usize,
            names: *mut PyObject,
        ) -> *mut PyObject;
        pub(super) fn PyObject_Call(
            callable: *mut PyObject,
            args: *mut PyObject,
            kwargs: *mut PyObject,
        ) -> *mut PyObject;
        pub(super) fn PyIter_Send(
            iter: *mut PyObject,
            value: *mut PyObject,
            out: *mut *mut PyObject,
        ) -> PySendResult;
    }
    pub(super) type Send = unsafe extern "C-unwind" fn(
        *mut PyObject,
        *mut PyObject,
        *mut *mut PyObject,
    ) -> PySendResult;
}

/// Dropped only by forced unwinding: the functions below forget it.
struct Parks;

impl Drop for Parks {
    fn drop(&mut self) {
        loop {
            std::thread::park();
        }
    }
}

macro_rules! entries {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $ret:ty;)*) => {$(
        /// # Safety
        /// As for the C function of that name.
        #[inline(always)]
        pub(crate) unsafe fn $name($($arg: $ty),*) -> $ret {
            let parks = Parks;
            // SAFETY: the caller's word.
            let result = unsafe { raw::$name($($arg),*) };
            std::mem::forget(parks);
            result
        }
    )*};
}

entries! {
    PyObject_CallNoArgs(callable: *mut PyObject) -> *mut PyObject;
    PyObject_CallOneArg(callable: *mut PyObject, arg: *mut PyObject) -> *mut PyObject;
    PyObject_Vectorcall(
        callable: *mut PyObject, args: *const *mut PyObject, nargsf: usize, names: *mut PyObject
    ) -> *mut PyObject;
    PyObject_VectorcallMethod(
        name: *mut PyObject, args: *const *mut PyObject, nargsf: usize, names: *mut PyObject
    ) -> *mut PyObject;
    PyObject_Call(callable: *mut PyObject, args: *mut PyObject, kwargs: *mut PyObject) -> *mut PyObject;
    PyIter_Send(iter: *mut PyObject, value: *mut PyObject, out: *mut *mut PyObject) -> PySendResult;
}

/// `send(coro, None, out)`, the `am_send` slot of a type.
///
/// # Safety
/// `send` is the slot of `coro`'s type; `out` may be written.
#[inline(always)]
pub(crate) unsafe fn send(
    send: ffi::sendfunc,
    coro: *mut PyObject,
    out: *mut *mut PyObject,
) -> PySendResult {
    let parks = Parks;
    // SAFETY: the same function by the ABI that says it may unwind; otherwise the caller's word.
    let result = unsafe {
        let send = std::mem::transmute::<ffi::sendfunc, raw::Send>(send);
        send(coro, ffi::Py_None(), out)
    };
    std::mem::forget(parks);
    result
}
