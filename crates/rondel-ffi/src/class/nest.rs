//! Deallocations within deallocations: bounded in C's stack.
//!
//! A future can be the result of another that is the result of a third, for as long as memory lasts.
//! Freeing the first frees the others one inside the other: C's stack would overflow. CPython's own
//! containers have its "trashcan" for that, whose functions are private and differ from version to
//! version; this is ours.
//!
//! The common case pays for one counter. It counts the deallocations that are under way in all
//! threads (the GIL can change hands inside of one, in a finalizer), so it is never too low. Only
//! beyond [`LIMIT`] does a thread look at its own stack: the deallocation that finds itself there first is
//! its *floor*; [`ROOM`] bytes further an object is put off, and the floor frees what was put off,
//! one after the other.
//!
//! An object that is put off has no references and is untracked: neither the collector nor anybody
//! else can see it, except for registries of bare pointers (see [`Weak`](super::Weak)).

use pyo3::ffi;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU32, Ordering};

/// Deallocations within each other before a thread looks at its stack; CPython's own limit is 50.
const LIMIT: u32 = 50;

/// Bytes of stack above the floor. Threads have megabytes, the smallest common ones 128 KiB.
const ROOM: usize = 64 << 10;

/// Guarded by the GIL: an atomic only to be a static.
static UNDER_WAY: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// The address of the floor's frame; 0 without one.
    static FLOOR: Cell<usize> = const { Cell::new(0) };
    static PUT_OFF: RefCell<Vec<PutOff>> = const { RefCell::new(Vec::new()) };
}

struct PutOff {
    slf: *mut ffi::PyObject,
    dealloc: ffi::destructor,
    tracked: bool,
}

/// Runs `free(slf)`, now or, by way of the slot `dealloc`, later.
///
/// # Safety
/// `slf` has just lost its last reference; `dealloc` is the slot that was called for it, and `free`
/// what that slot does.
#[inline(always)]
pub(super) unsafe fn nested(
    slf: *mut ffi::PyObject,
    dealloc: ffi::destructor,
    free: unsafe fn(*mut ffi::PyObject),
) {
    let level = UNDER_WAY.load(Ordering::Relaxed);
    UNDER_WAY.store(level + 1, Ordering::Relaxed);
    // SAFETY: the caller's word.
    unsafe {
        if level < LIMIT {
            free(slf);
        } else {
            deep(slf, dealloc, free);
        }
    }
    // Not `level`: another thread may have begun or ended one meanwhile.
    UNDER_WAY.store(
        UNDER_WAY.load(Ordering::Relaxed).wrapping_sub(1),
        Ordering::Relaxed,
    );
}

#[cold]
#[inline(never)]
unsafe fn deep(
    slf: *mut ffi::PyObject,
    dealloc: ffi::destructor,
    free: unsafe fn(*mut ffi::PyObject),
) {
    let marker = 0u8;
    let here = (&raw const marker).addr();
    let floor = FLOOR.get();
    if floor != 0 && floor.abs_diff(here) > ROOM {
        // SAFETY: the caller's word.
        return unsafe { put_off(slf, dealloc) };
    }
    if floor == 0 {
        FLOOR.set(here);
    }
    // SAFETY: as above; what is in the list was put off, once, with what its deallocation found.
    unsafe {
        free(slf);
        if floor != 0 {
            return;
        }
        while let Ok(Some(item)) = PUT_OFF.try_with(|list| list.borrow_mut().pop()) {
            if item.tracked {
                ffi::PyObject_GC_Track(item.slf.cast());
            }
            (item.dealloc)(item.slf);
        }
    }
    FLOOR.set(0);
}

unsafe fn put_off(slf: *mut ffi::PyObject, dealloc: ffi::destructor) {
    // SAFETY: an object of a GC type with no references; untracked, no collection meets it.
    let tracked = unsafe {
        let tracked = crate::private::is_tracked(slf);
        ffi::PyObject_GC_UnTrack(slf.cast());
        tracked
    };
    let item = PutOff {
        slf,
        dealloc,
        tracked,
    };
    // A thread that is ending has no list any more; it leaks what it can't free.
    let _ended = PUT_OFF.try_with(|list| list.borrow_mut().push(item));
}
