//! The slots of an awaitable's iterator: one function of ours serves `__next__`, `send` and `am_send`.
//!
//! `am_send` hands a returned value over without an exception; `tp_iternext` raises `StopIteration`
//! only for a value other than None. All of it runs with the GIL held.
//!
//! A class of [`awaits_itself`] is its own iterator when C awaits it, which spares an object for each
//! `await`, and no iterator for Python code: it has no `__next__`, and its `__await__` can give another.

use super::{MethodDef, SlotDef, def, guard, item, stop};
use crate::call::Sent;
use crate::class::{Class, Inst};
use crate::err::{Builtin, PyRes, Raised, panic_to_exception};
use crate::obj::{Obj, Ref};
use crate::refs;
use pyo3::ffi;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The pair `tp_iternext` and `am_send` of an awaitable's iterator, from one function that is given
/// the value sent in.
pub fn resume<T: Class, F>(_f: F) -> [SlotDef; 2]
where
    F: for<'a> Fn(Inst<'a, T>, Ref<'a>) -> Sent + Copy + 'static,
{
    [
        SlotDef {
            slot: ffi::Py_tp_iternext,
            function: next_slot::<T, F> as *mut c_void,
        },
        SlotDef {
            slot: ffi::Py_am_send,
            function: send_slot::<T, F> as *mut c_void,
        },
    ]
}

/// The same pair, from `quick`, which is asked first and must not panic (it is not guarded, which is half
/// of a resumption's price), and `full` where that has no answer.
pub fn resume_quickly<T: Class, Q, F>(_quick: Q, _full: F) -> [SlotDef; 2]
where
    Q: for<'a> Fn(Inst<'a, T>) -> Option<Sent> + Copy + 'static,
    F: for<'a> Fn(Inst<'a, T>, Ref<'a>) -> Sent + Copy + 'static,
{
    [
        SlotDef {
            slot: ffi::Py_tp_iternext,
            function: quick_next::<T, Q, F> as *mut c_void,
        },
        SlotDef {
            slot: ffi::Py_am_send,
            function: quick_send::<T, Q, F> as *mut c_void,
        },
    ]
}

/// What makes a class its own iterator for `await` in C: [`TypeBuilder::awaits_itself`] takes it.
///
/// [`TypeBuilder::awaits_itself`]: crate::class::TypeBuilder::awaits_itself
pub struct SelfAwait {
    pub(crate) awaits: ffi::unaryfunc,
    pub(crate) next: ffi::iternextfunc,
    pub(crate) send: ffi::sendfunc,
}

/// `am_await` that gives the object itself, and the functions that resume it, as of [`resume_quickly`].
pub fn awaits_itself<T: Class, Q, F>(_quick: Q, _full: F) -> SelfAwait
where
    Q: for<'a> Fn(Inst<'a, T>) -> Option<Sent> + Copy + 'static,
    F: for<'a> Fn(Inst<'a, T>, Ref<'a>) -> Sent + Copy + 'static,
{
    unsafe extern "C" fn itself(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
        // SAFETY: slots are called with a live object.
        unsafe { refs::up(slf) };
        slf
    }
    SelfAwait {
        awaits: itself,
        next: quick_next::<T, Q, F>,
        send: quick_send::<T, Q, F>,
    }
}

unsafe extern "C" fn quick_send<T: Class, Q, F>(
    slf: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    out: *mut *mut ffi::PyObject,
) -> ffi::PySendResult
where
    Q: for<'a> Fn(Inst<'a, T>) -> Option<Sent> + Copy + 'static,
    F: for<'a> Fn(Inst<'a, T>, Ref<'a>) -> Sent + Copy + 'static,
{
    // SAFETY: slots are called with an instance of their type; `out` is theirs to write.
    unsafe {
        match item::<Q>()(Inst::from_ptr(slf)) {
            Some(Sent::Yielded(obj)) => {
                *out = obj.into_ptr();
                ffi::PySendResult::PYGEN_NEXT
            }
            Some(Sent::Returned(obj)) => {
                *out = obj.into_ptr();
                ffi::PySendResult::PYGEN_RETURN
            }
            _ => send_slot::<T, F>(slf, value, out),
        }
    }
}

unsafe extern "C" fn quick_next<T: Class, Q, F>(slf: *mut ffi::PyObject) -> *mut ffi::PyObject
where
    Q: for<'a> Fn(Inst<'a, T>) -> Option<Sent> + Copy + 'static,
    F: for<'a> Fn(Inst<'a, T>, Ref<'a>) -> Sent + Copy + 'static,
{
    // SAFETY: as above.
    unsafe {
        match item::<Q>()(Inst::from_ptr(slf)) {
            Some(Sent::Yielded(obj)) => obj.into_ptr(),
            Some(Sent::Returned(obj)) if obj.is_none() => std::ptr::null_mut(),
            Some(Sent::Returned(obj)) => {
                give::<T>(obj);
                std::ptr::null_mut()
            }
            _ => next_slot::<T, F>(slf),
        }
    }
}

unsafe extern "C" fn send_slot<T: Class, F>(
    slf: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    out: *mut *mut ffi::PyObject,
) -> ffi::PySendResult
where
    F: for<'a> Fn(Inst<'a, T>, Ref<'a>) -> Sent + Copy + 'static,
{
    // SAFETY: slots are called with an instance of their type and a live value; `out` is theirs.
    unsafe {
        let value = if value.is_null() {
            ffi::Py_None()
        } else {
            value
        };
        match resume_guarded::<T, F>(Inst::from_ptr(slf), Ref::from_ptr(value)) {
            Sent::Yielded(obj) => {
                *out = obj.into_ptr();
                ffi::PySendResult::PYGEN_NEXT
            }
            Sent::Returned(obj) => {
                *out = obj.into_ptr();
                ffi::PySendResult::PYGEN_RETURN
            }
            Sent::Raised(_) => {
                *out = std::ptr::null_mut();
                ffi::PySendResult::PYGEN_ERROR
            }
        }
    }
}

unsafe extern "C" fn next_slot<T: Class, F>(slf: *mut ffi::PyObject) -> *mut ffi::PyObject
where
    F: for<'a> Fn(Inst<'a, T>, Ref<'a>) -> Sent + Copy + 'static,
{
    // SAFETY: as above.
    let sent =
        unsafe { resume_guarded::<T, F>(Inst::from_ptr(slf), Ref::from_ptr(ffi::Py_None())) };
    match sent {
        Sent::Yielded(obj) => obj.into_ptr(),
        Sent::Returned(obj) => {
            // A bare null means StopIteration(None): the usual case pays for no exception.
            if !obj.is_none() {
                give::<T>(obj);
            }
            std::ptr::null_mut()
        }
        Sent::Raised(_) => std::ptr::null_mut(),
    }
}

#[inline(always)]
fn resume_guarded<T: Class, F>(slf: Inst<'_, T>, value: Ref<'_>) -> Sent
where
    F: for<'a> Fn(Inst<'a, T>, Ref<'a>) -> Sent + Copy + 'static,
{
    // Both borrows end with the call; one lifetime serves.
    catch_unwind(AssertUnwindSafe(|| item::<F>()(slf, value)))
        .unwrap_or_else(|panic| Sent::Raised(panic_to_exception(panic)))
}

/// The value that `tp_iternext` gives by an exception.
#[inline(always)]
fn give<T: Class>(value: Obj) {
    if let Err(value) = stop::set(value, T::VALUES_LAST) {
        let _raised = raise_stop(value);
    }
}

/// Raises `StopIteration(value)`; a tuple or an exception as the value stays one value.
pub fn raise_stop(value: Obj) -> Raised {
    let class = Builtin::StopIteration.class();
    let needs_instance = crate::value::is_tuple(value.borrow()) || value.borrow().is_exception();
    if needs_instance {
        return match crate::call::call1(class, value.borrow()) {
            Ok(exc) => crate::err::raise_instance(exc.borrow()),
            Err(raised) => raised,
        };
    }
    crate::err::raise_value(class, value.borrow())
}

/// The end of a `send`/`throw` method: what an iterator method returns or raises.
pub fn sent_to_result(sent: Sent) -> PyRes<Obj> {
    match sent {
        Sent::Yielded(obj) => Ok(obj),
        Sent::Returned(obj) => Err(raise_stop(obj)),
        Sent::Raised(raised) => Err(raised),
    }
}

/// The `send(value)` method of a coroutine-like object, from the function of [`resume`].
pub fn send<T: Class, F>(_f: F) -> MethodDef
where
    F: for<'a> Fn(Inst<'a, T>, Ref<'a>) -> Sent + Copy + 'static,
{
    unsafe extern "C" fn tramp<T: Class, F>(
        slf: *mut ffi::PyObject,
        value: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject
    where
        F: for<'a> Fn(Inst<'a, T>, Ref<'a>) -> Sent + Copy + 'static,
    {
        // SAFETY: method descriptors check self's type; the value is alive for the call.
        guard(|| unsafe { sent_to_result(item::<F>()(Inst::from_ptr(slf), Ref::from_ptr(value))) })
    }
    def(
        c"send",
        c"Resume the coroutine.",
        ffi::PyMethodDefPointer {
            PyCFunction: tramp::<T, F>,
        },
        ffi::METH_O,
    )
}
