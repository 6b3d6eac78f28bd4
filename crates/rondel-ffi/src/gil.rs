//! Giving up and taking the GIL, and carrying references across.

use crate::obj::Obj;
use pyo3::ffi;
use std::sync::Mutex;

/// Runs `work` with the GIL held; fine to nest, callable from any thread of the process.
pub fn attached<R>(work: impl FnOnce() -> R) -> R {
    struct Guard(ffi::PyGILState_STATE);
    impl Drop for Guard {
        fn drop(&mut self) {
            // SAFETY: pairs with the Ensure below, on the same thread.
            unsafe { ffi::PyGILState_Release(self.0) }
        }
    }
    // SAFETY: the interpreter is initialised (we are an extension module of it).
    let _guard = Guard(unsafe { ffi::PyGILState_Ensure() });
    work()
}

/// Releases the GIL while `work` runs. `work` must not touch Python objects.
#[inline]
pub fn detached<R>(work: impl FnOnce() -> R) -> R {
    struct Guard(*mut ffi::PyThreadState);
    impl Drop for Guard {
        fn drop(&mut self) {
            // SAFETY: the state saved below, by this thread; runs on unwinding as well.
            unsafe { ffi::PyEval_RestoreThread(self.0) }
        }
    }
    // SAFETY: the GIL is held by this thread (crate invariant).
    let _guard = Guard(unsafe { ffi::PyEval_SaveThread() });
    work()
}

/// References whose owners were dropped without the GIL, waiting for somebody who holds it.
static ORPHANS: Mutex<Vec<OrphanPtr>> = Mutex::new(Vec::new());

struct OrphanPtr(*mut ffi::PyObject);
// SAFETY: only moved between threads; released under the GIL in `release_orphans`.
unsafe impl Send for OrphanPtr {}

/// An owned reference that may be moved to, and dropped on, any thread with or without the GIL.
/// Its content is only reachable with the GIL held.
pub struct Parked(Option<OrphanPtr>);

impl Parked {
    pub fn new(obj: Obj) -> Parked {
        Parked(Some(OrphanPtr(obj.into_ptr())))
    }

    /// A new reference to the content. Call with the GIL held.
    pub fn get(&self) -> Option<Obj> {
        // SAFETY: the parked reference keeps the object alive.
        self.0.as_ref().map(|p| unsafe { Obj::from_borrowed(p.0) })
    }

    /// Takes the reference back. Call with the GIL held.
    pub fn take(mut self) -> Option<Obj> {
        // SAFETY: the pointer was an owned reference when it was parked.
        self.0
            .take()
            .and_then(|p| unsafe { Obj::from_owned_opt(p.0) })
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        if let Some(ptr) = self.0.take() {
            // SAFETY: a query of the thread state only.
            if unsafe { ffi::PyGILState_Check() } == 1 {
                // SAFETY: owned, and the GIL is held.
                drop(unsafe { Obj::from_owned_opt(ptr.0) });
            } else if let Ok(mut list) = ORPHANS.lock() {
                list.push(ptr);
            }
        }
    }
}

/// Bytes of a Python `bytes` object that Rust code without the GIL may read.
pub struct ParkedBytes {
    _owner: Parked,
    data: *const u8,
    len: usize,
}
// SAFETY: bytes objects are immutable; the owner keeps them alive and is itself movable.
unsafe impl Send for ParkedBytes {}
// SAFETY: shared access only reads immutable memory.
unsafe impl Sync for ParkedBytes {}

impl ParkedBytes {
    /// `None` if `obj` is not a `bytes`.
    pub fn new(obj: Obj) -> Option<ParkedBytes> {
        // SAFETY: type-checked before the buffer is read; the buffer lives as long as the object.
        unsafe {
            if ffi::PyBytes_Check(obj.as_ptr()) == 0 {
                return None;
            }
            let data = ffi::PyBytes_AsString(obj.as_ptr()).cast::<u8>();
            let len = ffi::PyBytes_Size(obj.as_ptr()) as usize;
            Some(ParkedBytes {
                _owner: Parked::new(obj),
                data: data.cast_const(),
                len,
            })
        }
    }
}

impl AsRef<[u8]> for ParkedBytes {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: see the type: alive and immutable while the owner is held.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

/// Keeps a reference for a while: it is released by some loop's next poll.
pub fn release_later(obj: Option<Obj>) {
    if let (Some(obj), Ok(mut list)) = (obj, ORPHANS.lock()) {
        list.push(OrphanPtr(obj.into_ptr()));
    }
}

/// Releases what was orphaned without the GIL. The loop calls it once a turn; cheap when empty.
pub fn release_orphans() {
    let list = match ORPHANS.try_lock() {
        Ok(mut list) if !list.is_empty() => std::mem::take(&mut *list),
        _ => return,
    };
    for ptr in list {
        // SAFETY: each was an owned reference; the GIL is held by the caller.
        drop(unsafe { Obj::from_owned_opt(ptr.0) });
    }
}

/// Values kept for the interpreter's life and only used with the GIL held.
pub struct GilStatic<T>(std::sync::OnceLock<T>);
// SAFETY: the content is only reached with the GIL held (crate invariant), which serialises access.
unsafe impl<T> Sync for GilStatic<T> {}
// SAFETY: as above.
unsafe impl<T> Send for GilStatic<T> {}

impl<T> GilStatic<T> {
    #[expect(clippy::new_without_default, reason = "a static's constructor")]
    pub const fn new() -> Self {
        GilStatic(std::sync::OnceLock::new())
    }

    /// Sets the value once; later calls are ignored (a second import of the module).
    pub fn set(&self, value: T) {
        let _already_set = self.0.set(value);
    }

    #[inline(always)]
    pub fn get(&self) -> Option<&T> {
        self.0.get()
    }
}
