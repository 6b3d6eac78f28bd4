//! The StopIteration by which a native `await` gives its value, from CPython 3.12 on.
//!
//! There the interpreter resumes whatever is no coroutine by `tp_iternext`, for which a value is the
//! content of an exception: it is made, raised, taken apart and freed in one go, at the price of the
//! rest of the await. Nobody sees it but the interpreter. So one instance is kept and used again, under
//! these conditions:
//!
//! * within a step of a task on a Rondel loop ([`Reuse`]); at its end the instance is emptied;
//! * for a value whose end nobody can see delayed till then: an immortal one (True, a small int), some
//!   bytes, or one that its class says others keep ([`Class::VALUES_LAST`]);
//! * while nobody else refers to the instance, and if nothing has been written into it: whoever resumes
//!   by hand (`next(awaitable)`) may keep it, and then it is his.
//!
//! Before 3.12 `am_send` is asked, which needs no exception. All of it runs with the GIL held.
//!
//! [`Class::VALUES_LAST`]: crate::class::Class::VALUES_LAST

#[cfg(Py_3_12)]
use crate::err::Builtin;
use crate::obj::Obj;
use crate::refs;
use pyo3::ffi;
use std::cell::UnsafeCell;

/// Bytes: what may be held until a step's end without being missed.
#[cfg(Py_3_12)]
const SMALL: ffi::Py_ssize_t = 4096;

struct State {
    /// Owned; null until it is needed.
    kept: *mut ffi::PyStopIterationObject,
    /// A task takes a step.
    stepping: bool,
    /// The instance has somebody's value.
    loaded: bool,
}

struct Shared(UnsafeCell<State>);
// SAFETY: reached with the GIL held only (crate invariant).
unsafe impl Sync for Shared {}

static SHARED: Shared = Shared(UnsafeCell::new(State {
    kept: std::ptr::null_mut(),
    stepping: false,
    loaded: false,
}));

/// For the time of a task's step, values may be given by the instance that is kept.
pub struct Reuse(bool);

impl Reuse {
    #[inline(always)]
    pub fn begin() -> Reuse {
        if !cfg!(Py_3_12) {
            return Reuse(false);
        }
        // SAFETY: GIL held; one field is written.
        unsafe { Reuse(std::mem::replace(&mut (*SHARED.0.get()).stepping, true)) }
    }
}

impl Drop for Reuse {
    #[inline(always)]
    fn drop(&mut self) {
        if cfg!(Py_3_12) {
            // SAFETY: as above.
            unsafe {
                (*SHARED.0.get()).stepping = self.0;
                if (*SHARED.0.get()).loaded {
                    empty();
                }
            }
        }
    }
}

/// Lets go of the value.
#[cold]
fn empty() {
    // SAFETY: the instance is a StopIteration that `renew` has made; only its own words are written, and
    // what is dropped has left them before.
    unsafe {
        let state = SHARED.0.get();
        (*state).loaded = false;
        let kept = (*state).kept;
        if kept.is_null() {
            return;
        }
        if !is_ours(kept) {
            (*state).kept = std::ptr::null_mut();
            refs::down(kept.cast());
            return;
        }
        let value = std::mem::replace(&mut (*kept).value, Obj::none().into_ptr());
        let item = replace_item((*kept).args, Obj::none());
        refs::down(value);
        drop(item);
    }
}

/// Raises StopIteration with the value by the instance that is kept; gives the value back where that
/// can't be.
#[cfg(Py_3_12)]
#[inline]
pub(super) fn set(value: Obj, lasts: bool) -> Result<(), Obj> {
    // SAFETY: GIL held. The instance is whole and ours alone when it is written; it has a reference of
    // this call's before anything is dropped, so that what that runs finds it in use.
    unsafe {
        let state = SHARED.0.get();
        let end_unseen = value.is_immortal()
            || (lasts && value.refcount() > 1)
            || (crate::value::is_bytes_exact(value.borrow())
                && ffi::PyBytes_Size(value.as_ptr()) <= SMALL);
        if !(*state).stepping || !end_unseen {
            return Err(value);
        }
        if ((*state).kept.is_null() || !is_ours((*state).kept)) && !renew(state) {
            return Err(value);
        }
        let kept = (*state).kept;
        refs::up(kept.cast());
        (*state).loaded |= !value.is_immortal();
        let item = replace_item((*kept).args, value.clone());
        let old = std::mem::replace(&mut (*kept).value, value.into_ptr());
        refs::down(old);
        drop(item);
        ffi::PyErr_SetRaisedException(kept.cast());
        Ok(())
    }
}

/// Before 3.12 there is nothing to spare.
#[cfg(not(Py_3_12))]
#[inline(always)]
pub(super) fn set(value: Obj, _lasts: bool) -> Result<(), Obj> {
    Err(value)
}

/// Whether nobody else refers to the instance or to its arguments, and nothing was written into it.
#[inline(always)]
unsafe fn is_ours(kept: *mut ffi::PyStopIterationObject) -> bool {
    // SAFETY: alive; these are a StopIteration's fields, and its arguments a tuple.
    unsafe {
        refs::count(kept.cast()) == 1
            && refs::count((*kept).args) == 1
            && (*kept).traceback.is_null()
            && (*kept).context.is_null()
            && (*kept).cause.is_null()
            && (*kept).notes.is_null()
            && (*kept).dict.is_null()
    }
}

/// A new instance in place of one that has gone to somebody else. `false` if there is no memory.
#[cfg(Py_3_12)]
#[cold]
unsafe fn renew(state: *mut State) -> bool {
    // SAFETY: the old reference is given up after the state has lost it; the new instance has None as
    // its value and as its one argument.
    unsafe {
        let old = std::mem::replace(&mut (*state).kept, std::ptr::null_mut());
        if !old.is_null() {
            refs::down(old.cast());
        }
        match crate::call::call1(Builtin::StopIteration.class(), Obj::none().borrow()) {
            Ok(made) => {
                (*state).kept = made.into_ptr().cast();
                true
            }
            Err(raised) => {
                raised.clear();
                false
            }
        }
    }
}

/// Puts another object into a tuple of one, which nobody else has; gives the old one.
unsafe fn replace_item(tuple: *mut ffi::PyObject, item: Obj) -> Option<Obj> {
    // SAFETY: a tuple of one item (`renew`), written like a new one.
    unsafe {
        let slot =
            (&raw mut (*tuple.cast::<ffi::PyTupleObject>()).ob_item).cast::<*mut ffi::PyObject>();
        Obj::from_owned_opt(std::mem::replace(&mut *slot, item.into_ptr()))
    }
}
