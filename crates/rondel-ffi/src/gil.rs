//! Giving up and taking the GIL, and carrying references across.

use crate::PyRes;
use crate::obj::Obj;
use pyo3::ffi;
use std::any::Any;
use std::mem::ManuallyDrop;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

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

/// `threading.get_ident()` of the calling thread.
#[inline]
pub fn thread_ident() -> u64 {
    // SAFETY: asks the system for the thread's own handle; needs no GIL.
    #[allow(clippy::useless_conversion, reason = "a long is shorter elsewhere")]
    u64::from(unsafe { ffi::PyThread_get_thread_ident() })
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

/// Bytes of memory that orphans hold, as far as that is known.
static ORPHANED: AtomicUsize = AtomicUsize::new(0);

/// From here on orphans are worth taking the GIL for.
const MANY: usize = 1 << 20;

/// Whether orphans hold so much memory that somebody should take the GIL and release them.
#[inline]
pub fn has_many_orphans() -> bool {
    ORPHANED.load(Ordering::Relaxed) >= MANY
}

struct OrphanPtr(*mut ffi::PyObject);
// SAFETY: only moved between threads; released under the GIL in `release_orphans`.
unsafe impl Send for OrphanPtr {}
// SAFETY: shared access only makes new references, with the GIL held (`Parked::get`).
unsafe impl Sync for OrphanPtr {}

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

/// Bytes of a Python `bytes` object, or of a text, that Rust code without the GIL may read.
pub struct ParkedBytes {
    owner: Parked,
    data: *const u8,
    len: usize,
}
// SAFETY: bytes and texts are immutable; the owner keeps them alive and is itself movable.
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
                owner: Parked::new(obj),
                data: data.cast_const(),
                len,
            })
        }
    }

    /// The same of a text's UTF-8: an ASCII text's own memory, a copy that another keeps.
    pub fn of_text(obj: Obj) -> PyRes<ParkedBytes> {
        let text = crate::value::utf8_of(obj.borrow())?;
        let (data, len) = (text.as_ptr(), text.len());
        Ok(ParkedBytes {
            owner: Parked::new(obj),
            data,
            len,
        })
    }
}

impl Drop for ParkedBytes {
    fn drop(&mut self) {
        // SAFETY: a query of the thread state only.
        let attached = unsafe { ffi::PyGILState_Check() } == 1;
        drop(Parked(self.owner.0.take()));
        if !attached {
            // Counted once it is on the list: who releases it sets the count back.
            ORPHANED.fetch_add(self.len, Ordering::Relaxed);
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

/// Something full of references that may be moved to, and dropped on, any thread with or without the
/// GIL. Its content is only used with the GIL held, by one thread at a time as the user sees to it.
pub struct Sheltered<T: 'static>(ManuallyDrop<Box<T>>);
// SAFETY: the content is used and dropped with the GIL held only.
unsafe impl<T> Send for Sheltered<T> {}
// SAFETY: as above; `RefCell`s in it find a second user by themselves.
unsafe impl<T> Sync for Sheltered<T> {}

impl<T> Sheltered<T> {
    pub fn new(content: T) -> Sheltered<T> {
        Sheltered(ManuallyDrop::new(Box::new(content)))
    }

    /// The content. Call with the GIL held.
    pub fn get(&self) -> &T {
        &self.0
    }
}

impl<T> Drop for Sheltered<T> {
    fn drop(&mut self) {
        // SAFETY: taken exactly once, here.
        let content = unsafe { ManuallyDrop::take(&mut self.0) };
        // SAFETY: a query of the thread state only.
        if unsafe { ffi::PyGILState_Check() } == 1 {
            drop(content);
        } else if let Ok(mut homeless) = HOMELESS.lock() {
            homeless.push(Homeless(content));
        }
    }
}

/// What was dropped without the GIL, waiting for somebody who holds it.
static HOMELESS: Mutex<Vec<Homeless>> = Mutex::new(Vec::new());

struct Homeless(#[expect(dead_code, reason = "kept to be dropped")] Box<dyn Any>);
// SAFETY: only moved between threads; dropped under the GIL in `release_orphans`.
unsafe impl Send for Homeless {}

/// Releases what was orphaned without the GIL. The loop calls it once a turn; cheap when empty.
pub fn release_orphans() {
    let homeless = match HOMELESS.try_lock() {
        Ok(mut homeless) if !homeless.is_empty() => std::mem::take(&mut *homeless),
        _ => Vec::new(),
    };
    drop(homeless);
    let list = match ORPHANS.try_lock() {
        Ok(mut list) if !list.is_empty() => std::mem::take(&mut *list),
        _ => return,
    };
    ORPHANED.store(0, Ordering::Relaxed);
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
