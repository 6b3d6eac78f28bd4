//! From safe Rust functions to C slots.
//!
//! Each constructor takes a function *item* (its type is zero-sized) and yields a C function that
//! conjures it up again: no table, no boxed closure, nothing to look up at call time. Every
//! trampoline catches panics and turns them into Python exceptions.
//!
//! # Where things are
//! `function` (methods and functions), `property`, `slots` (repr, init, comparison …), `resume` (the
//! slots of a coroutine-like object), `stop` (the exception that carries its value), `args` (a call's
//! arguments).
//!
//! # Invariants
//! CPython calls a trampoline with the GIL held, with a `self` of the type that the definition was
//! added to, and with arguments that live for the call. No panic leaves a trampoline.

mod args;
mod function;
mod property;
mod resume;
mod slots;
mod stop;

pub use args::Args;
pub use function::{
    BoundDef, add_functions, bind, class_fast, class_method, fast, function, noargs, onearg,
};
pub use property::{getter, property};
pub use resume::{
    SelfAwait, awaits_itself, raise_stop, resume, resume_quickly, send, sent_to_result,
};
pub use slots::{Comparison, Unary, compare, hash, init, unary};
pub use stop::Reuse;

use crate::err::{PyRes, panic_to_exception};
use crate::obj::Obj;
use pyo3::ffi;
use std::ffi::{CStr, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

pub struct MethodDef(pub(crate) ffi::PyMethodDef);

impl MethodDef {
    /// The C function's address, by which [`crate::call::native_self`] knows bound methods of it.
    pub fn code(&self) -> usize {
        // SAFETY: every member of the union is a function pointer.
        unsafe { self.0.ml_meth.PyCFunction as usize }
    }
}

impl MethodDef {
    /// Stands in the type's dict instead of a slot's wrapper of that name.
    pub fn before_slot(mut self) -> MethodDef {
        self.0.ml_flags |= ffi::METH_COEXIST;
        self
    }
}

pub struct PropertyDef(pub(crate) ffi::PyGetSetDef);
pub struct SlotDef {
    pub(crate) slot: c_int,
    pub(crate) function: *mut c_void,
}

/// The value of a zero-sized function item type.
#[inline(always)]
pub(crate) fn item<F: Copy>() -> F {
    const {
        assert!(
            size_of::<F>() == 0,
            "pass a function item or a closure that captures nothing"
        )
    };
    // SAFETY: a zero-sized Copy value has one representation, and F is inhabited: the caller of the
    // constructor held one.
    unsafe { std::mem::zeroed() }
}

#[inline(always)]
pub(crate) fn guard(work: impl FnOnce() -> PyRes<Obj>) -> *mut ffi::PyObject {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(obj)) => obj.into_ptr(),
        Ok(Err(_raised)) => std::ptr::null_mut(),
        Err(panic) => {
            let _raised = panic_to_exception(panic);
            std::ptr::null_mut()
        }
    }
}

fn guard_status(work: impl FnOnce() -> PyRes<()>) -> c_int {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => 0,
        Ok(Err(_raised)) => -1,
        Err(panic) => {
            let _raised = panic_to_exception(panic);
            -1
        }
    }
}

fn def(
    name: &'static CStr,
    doc: &'static CStr,
    meth: ffi::PyMethodDefPointer,
    flags: c_int,
) -> MethodDef {
    MethodDef(ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: meth,
        ml_flags: flags,
        ml_doc: doc.as_ptr(),
    })
}
