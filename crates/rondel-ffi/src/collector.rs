//! Showing an object to the collector and taking it away, without the call.
//!
//! The collector knows its objects by a ring of two words each, which stand before the object. An
//! instance that lives for 100 ns (a bound method, a Timeout) goes in and out of it, and the calls for
//! that, with their search for the interpreter by thread-local variables, take longer than the eight
//! stores. So the youngest generation's head is found out at import ([`prepare`], which trusts nothing
//! that it has not seen to work), and the ring is written as CPython's `_PyObject_GC_TRACK` and
//! `_PyObject_GC_UNTRACK` write it. Where anything is not as expected (3.14's collector is another) the
//! C API stays in use. All of it runs with the GIL held.

use crate::err::PyRes;
use crate::obj::Obj;
use pyo3::ffi;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What stands before an object: `PyGC_Head`, 3.11 to 3.13.
#[repr(C)]
struct Head {
    /// Null while the collector doesn't know the object.
    next: *mut Head,
    /// With two flags in its lowest bits.
    prev: *mut Head,
}

/// The flags: finalized, and in the collector's hands.
const FLAGS: usize = 3;
const FINALIZED: usize = 1;

/// The youngest generation's head, in the interpreter's state; null where it is not known.
static YOUNGEST: AtomicPtr<Head> = AtomicPtr::new(std::ptr::null_mut());

#[inline(always)]
unsafe fn head(obj: *mut ffi::PyObject) -> *mut Head {
    // SAFETY: the caller's word that the object has one.
    unsafe { obj.cast::<Head>().sub(1) }
}

/// `PyObject_GC_Track`.
///
/// # Safety
/// `obj` is alive, of a type with `Py_TPFLAGS_HAVE_GC`, and not tracked; `tp_traverse` can visit it.
#[inline(always)]
pub(crate) unsafe fn track(obj: *mut ffi::PyObject) {
    let youngest = YOUNGEST.load(Ordering::Relaxed);
    // SAFETY: the ring's neighbours are heads of live objects, or the generation's own; GIL held.
    unsafe {
        if youngest.is_null() {
            ffi::PyObject_GC_Track(obj.cast());
            return;
        }
        let this = head(obj);
        let last = (*youngest).prev;
        (*last).next = this;
        (*this).prev = last.map_addr(|last| last | ((*this).prev.addr() & FLAGS));
        (*this).next = youngest;
        (*youngest).prev = this;
    }
}

/// `PyObject_GC_UnTrack` of an object that is tracked.
///
/// # Safety
/// `obj` is of a type with `Py_TPFLAGS_HAVE_GC`, and tracked.
#[inline(always)]
pub(crate) unsafe fn untrack(obj: *mut ffi::PyObject) {
    // SAFETY: as above; the object may be in any generation's ring, all of which are alike.
    unsafe {
        if YOUNGEST.load(Ordering::Relaxed).is_null() {
            ffi::PyObject_GC_UnTrack(obj.cast());
            return;
        }
        let this = head(obj);
        let prev = (*this).prev.map_addr(|prev| prev & !FLAGS);
        let next = (*this).next;
        (*prev).next = next;
        (*next).prev = prev.map_addr(|prev| prev | ((*next).prev.addr() & FLAGS));
        (*this).next = std::ptr::null_mut();
        (*this).prev = std::ptr::without_provenance_mut((*this).prev.addr() & FINALIZED);
    }
}

/// Finds the head out, at import.
pub fn prepare() -> PyRes<()> {
    if cfg!(any(Py_3_14, Py_GIL_DISABLED)) || !YOUNGEST.load(Ordering::Relaxed).is_null() {
        return Ok(());
    }
    // SAFETY: two lists of our own, which have heads. Words of their neighbours are read, and of what
    // turns out to be the generation's head.
    unsafe {
        let first = Obj::from_owned(ffi::PyList_New(0))?;
        let last = Obj::from_owned(ffi::PyList_New(0))?;
        let (a, b) = (head(first.as_ptr()), head(last.as_ptr()));
        let tracked = !(*a).next.is_null() && !(*b).next.is_null();
        if !tracked {
            return Ok(());
        }
        let found = (*b).next;
        let is_last = |this: *mut Head| {
            std::ptr::eq((*this).next, found) && std::ptr::eq((*found).prev, this)
        };
        let at_first = is_last(b);
        ffi::PyObject_GC_UnTrack(last.as_ptr().cast());
        let left = (*b).next.is_null() && (*b).prev.is_null() && !std::ptr::eq((*found).prev, b);
        // Another one is last now, then the other list, then again the one.
        ffi::PyObject_GC_UnTrack(first.as_ptr().cast());
        ffi::PyObject_GC_Track(first.as_ptr().cast());
        let moved = is_last(a);
        ffi::PyObject_GC_Track(last.as_ptr().cast());
        let back = is_last(b) && std::ptr::eq((*a).next, b) && std::ptr::eq((*b).prev, a);
        if at_first && left && moved && back {
            YOUNGEST.store(found, Ordering::Relaxed);
        }
    }
    Ok(())
}
