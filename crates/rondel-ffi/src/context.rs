//! `contextvars.Context`: copies, and entering and leaving them.
//!
//! A task's or a handle's whole life may take 100 ns, and a copy of the context that CPython makes,
//! enters, leaves and frees for it is a tenth of that. So where the interpreter's own fields are known
//! ([`prepare`] finds them out at import and trusts none that it has not seen to work), they are used
//! as its C code uses them:
//!
//! * entering and leaving are a few stores into the context and the thread's state;
//! * a context that nobody refers to any more is kept, emptied, for the next copy ([`release`]).
//!
//! Anything unusual (another thread state's layout, a context that is entered, weakly referred to, or
//! no context at all) goes through the C API, which also words the errors. All of it runs with the GIL
//! held.

use crate::class::ObjCell;
use crate::err::{PyRes, Raised};
use crate::obj::{Obj, Ref};
use crate::private::is_garbage;
use crate::refs;
use pyo3::ffi;
use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// CPython's `struct _pycontextobject`, 3.11 to 3.13.
#[repr(C)]
struct Fields {
    head: ffi::PyObject,
    /// What was current when it was entered; owned.
    prev: *mut ffi::PyObject,
    /// Its variables: an immutable mapping, shared by copies. Null once the collector has cleared it.
    vars: *mut ffi::PyObject,
    weakrefs: *mut ffi::PyObject,
    entered: c_int,
}

/// Two neighbours in CPython's `PyThreadState`.
#[repr(C)]
struct Current {
    /// The current context; owned; null before the first use.
    context: *mut ffi::PyObject,
    /// Counts changes, for the variables' caches.
    version: u64,
}

/// Where [`Current`] lies in a thread's state; 0 where that is not known.
static CURRENT_AT: AtomicUsize = AtomicUsize::new(0);
/// The mapping without variables, which every empty context shares.
static EMPTY: AtomicPtr<ffi::PyObject> = AtomicPtr::new(std::ptr::null_mut());

/// As far into a thread's state as we look; all of the supported versions have more.
const SEARCHED: usize = 256;

/// Contexts kept for the next copies.
const SPARES: usize = 512;

struct Spares(UnsafeCell<(usize, [*mut ffi::PyObject; SPARES])>);
// SAFETY: reached with the GIL held only (crate invariant).
unsafe impl Sync for Spares {}
static KEPT: Spares = Spares(UnsafeCell::new((0, [std::ptr::null_mut(); SPARES])));

/// `contextvars.copy_context()`.
#[inline(always)]
pub fn copy_current() -> PyRes<Obj> {
    // SAFETY: a spare context is ours alone until it is given out; the current one's mapping is not
    // null, and the empty one that is given up for it has a reference of `prepare`'s.
    unsafe {
        if let Some(current) = current()
            && !(*current).context.is_null()
            && let Some(spare) = take_spare()
        {
            let vars = (*(*current).context.cast::<Fields>()).vars;
            refs::up(vars);
            let empty = std::mem::replace(&mut (*spare.cast::<Fields>()).vars, vars);
            refs::down(empty);
            return Ok(Obj::from_ptr(spare));
        }
        Obj::from_owned(ffi::PyContext_CopyCurrent())
    }
}

/// What `contextvars.copy_context()` would hold now, for [`thaw`]: the variables alone, where the fields
/// are known. A callback of another thread's is then spared the context's way from one cache to the other.
#[inline(always)]
pub fn freeze_current() -> PyRes<Obj> {
    // SAFETY: the current context is alive, and so is its mapping, which is not null.
    unsafe {
        if let Some(current) = current()
            && !(*current).context.is_null()
        {
            let vars = (*(*current).context.cast::<Fields>()).vars;
            if !vars.is_null() {
                return Ok(Obj::from_borrowed(vars));
            }
        }
        Obj::from_owned(ffi::PyContext_CopyCurrent())
    }
}

/// Whether it is of [`freeze_current`], and no context yet.
#[inline(always)]
#[must_use]
pub fn is_frozen(context: Ref<'_>) -> bool {
    // SAFETY: alive; the empty mapping, if there is one, is of the type of all.
    unsafe {
        let empty = EMPTY.load(Ordering::Relaxed);
        !empty.is_null() && std::ptr::eq(ffi::Py_TYPE(empty), ffi::Py_TYPE(context.as_ptr()))
    }
}

/// A context of its own with the frozen variables; anything else is given back as it is.
#[inline(always)]
pub fn thaw(frozen: Obj) -> PyRes<Obj> {
    if !is_frozen(frozen.borrow()) {
        return Ok(frozen);
    }
    // SAFETY: a spare context, or a new one, is ours alone until it is given out; it takes the reference
    // to the variables over, and the empty mapping that is given up for them has one of `prepare`'s.
    unsafe {
        let made = match take_spare() {
            Some(spare) => Obj::from_ptr(spare),
            None => Obj::from_owned(ffi::PyContext_New())?,
        };
        let vars = &mut (*made.as_ptr().cast::<Fields>()).vars;
        refs::down(std::mem::replace(vars, frozen.into_ptr()));
        Ok(made)
    }
}

/// Enters `context`; each successful call is paired with one [`exit`].
#[inline(always)]
pub fn enter(context: Ref<'_>) -> PyRes<()> {
    let ptr = context.as_ptr();
    // SAFETY: a context that is not entered, whose fields are where `prepare` has seen them; the thread
    // state takes a reference over for its field, and gives its old one to `prev`.
    unsafe {
        if let Some(current) = current()
            && is_context(ptr)
            && (*ptr.cast::<Fields>()).entered == 0
        {
            let fields = ptr.cast::<Fields>();
            refs::up(ptr);
            (*fields).prev = (*current).context;
            (*fields).entered = 1;
            (*current).context = ptr;
            (*current).version += 1;
            return Ok(());
        }
        if ffi::PyContext_Enter(ptr) < 0 {
            return Err(Raised::assert_set());
        }
    }
    Ok(())
}

/// Leaves `context`, which must be the current one.
#[inline(always)]
pub fn exit(context: Ref<'_>) -> PyRes<()> {
    let ptr = context.as_ptr();
    // SAFETY: undoes what `enter` does, for the context that is current. `context` is a reference of the
    // caller's, so that giving the thread state's up frees nothing.
    unsafe {
        if let Some(current) = current()
            && std::ptr::eq((*current).context, ptr)
            && is_context(ptr)
            && (*ptr.cast::<Fields>()).entered != 0
        {
            let fields = ptr.cast::<Fields>();
            (*current).context = std::mem::replace(&mut (*fields).prev, std::ptr::null_mut());
            (*current).version += 1;
            (*fields).entered = 0;
            refs::down(ptr);
            return Ok(());
        }
        if ffi::PyContext_Exit(ptr) < 0 {
            return Err(Raised::assert_set());
        }
    }
    Ok(())
}

/// Leaves the context that `slot` has a reference to, which must be the current one, for `to`, which the
/// slot then has. False where the short way can't be taken: nothing has been done then.
#[inline(always)]
#[must_use]
pub fn switch(slot: &ObjCell, to: Ref<'_>) -> bool {
    let new = to.as_ptr();
    // SAFETY: as in `exit` and `enter`, in one: what was current before the one is so before the other. The
    // slot and the thread state have a reference each, to the old one and then to the new one.
    unsafe {
        let (Some(old), Some(current)) = (slot.peek().map(Ref::as_ptr), current()) else {
            return false;
        };
        // The first says that it is a context, and entered.
        if !std::ptr::eq((*current).context, old)
            || !is_context(new)
            || (*new.cast::<Fields>()).entered != 0
        {
            return false;
        }
        let (left, entered) = (old.cast::<Fields>(), new.cast::<Fields>());
        (*entered).prev = std::mem::replace(&mut (*left).prev, std::ptr::null_mut());
        (*entered).entered = 1;
        (*left).entered = 0;
        (*current).context = new;
        (*current).version += 1;
        refs::up_two(new);
        std::mem::forget(slot.replace(Some(Obj::from_ptr(new))));
        if !refs::down_two(old) {
            give_back(old);
        }
        true
    }
}

/// The last two references to a context that was left. It may run Python code: nothing comes after it.
unsafe fn give_back(context: *mut ffi::PyObject) {
    // SAFETY: the caller's references.
    unsafe {
        refs::down(context);
        release(Obj::from_ptr(context));
    }
}

/// Gives a context up. The last reference keeps it for the next [`copy_current`], without variables:
/// their values go when they would have gone.
#[inline(always)]
pub fn release(context: Obj) {
    let ptr = context.as_ptr();
    // SAFETY: nobody else refers to it, so its fields are ours to write; dropping the variables, which
    // may run Python code, comes last.
    unsafe {
        let kept = KEPT.0.get();
        if cfg!(rondel_no_freelists)
            || context.refcount() != 1
            || (*kept).0 == SPARES
            || CURRENT_AT.load(Ordering::Relaxed) == 0
            || !is_plain(ptr)
        {
            return;
        }
        let empty = EMPTY.load(Ordering::Relaxed);
        refs::up(empty);
        let vars = std::mem::replace(&mut (*ptr.cast::<Fields>()).vars, empty);
        (&mut (*kept).1)[(*kept).0] = context.into_ptr();
        (*kept).0 += 1;
        refs::down(vars);
    }
}

/// A context's reference that is given up by [`release`].
pub struct Held(ManuallyDrop<Obj>);

impl Held {
    #[inline(always)]
    pub fn new(context: Obj) -> Held {
        Held(ManuallyDrop::new(context))
    }

    #[inline(always)]
    pub fn obj(&self) -> Ref<'_> {
        self.0.borrow()
    }
}

impl Drop for Held {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: taken once, at the end.
        release(unsafe { ManuallyDrop::take(&mut self.0) });
    }
}

/// A payload's field for its context, which is given up by [`release`].
#[repr(transparent)]
pub struct ContextCell(ObjCell);

impl ContextCell {
    #[inline(always)]
    pub fn new(context: Option<Obj>) -> ContextCell {
        ContextCell(ObjCell::new(context))
    }
}

impl Default for ContextCell {
    fn default() -> ContextCell {
        ContextCell::new(None)
    }
}

impl Deref for ContextCell {
    type Target = ObjCell;
    #[inline(always)]
    fn deref(&self) -> &ObjCell {
        &self.0
    }
}

impl Drop for ContextCell {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(context) = self.0.take() {
            release(context);
        }
    }
}

#[inline(always)]
unsafe fn is_context(ptr: *mut ffi::PyObject) -> bool {
    // SAFETY: alive; the type object is static.
    unsafe { std::ptr::eq(ffi::Py_TYPE(ptr), &raw const ffi::PyContext_Type) }
}

/// Whether this is a whole context that nothing else knows of: not entered, no weak references.
#[inline(always)]
unsafe fn is_plain(ptr: *mut ffi::PyObject) -> bool {
    // SAFETY: alive; a context has these fields.
    unsafe {
        let fields = ptr.cast::<Fields>();
        is_context(ptr)
            && (*fields).entered == 0
            && (*fields).prev.is_null()
            && (*fields).weakrefs.is_null()
            // What the collector takes apart stays in its list, to be cleared (again).
            && !(*fields).vars.is_null()
            && !is_garbage(ptr)
    }
}

/// A kept context that nobody has got hold of meanwhile (`gc.get_objects()` shows them).
#[inline(always)]
unsafe fn take_spare() -> Option<*mut ffi::PyObject> {
    // SAFETY: the GIL serialises access; nothing here runs Python code but the last line, which gives
    // away what is no longer in the list.
    unsafe {
        let kept = KEPT.0.get();
        let count = (*kept).0.checked_sub(1)?;
        (*kept).0 = count;
        let spare = (&(*kept).1)[count];
        if refs::count(spare) == 1 && is_plain(spare) {
            return Some(spare);
        }
        refs::down(spare);
        None
    }
}

/// This thread's current context, where its place is known.
#[inline(always)]
unsafe fn current() -> Option<*mut Current> {
    let at = CURRENT_AT.load(Ordering::Relaxed);
    if at == 0 {
        return None;
    }
    // SAFETY: GIL held, so there is a thread state; `prepare` has seen the fields there.
    unsafe { Some(crate::thread::state().byte_add(at).cast()) }
}

/// Finds the fields out, at import. Where anything is not as expected the C API stays in use.
pub fn prepare() -> PyRes<()> {
    if cfg!(any(Py_3_14, Py_GIL_DISABLED)) || CURRENT_AT.load(Ordering::Relaxed) != 0 {
        return Ok(());
    }
    // SAFETY: the type object is static; two contexts of our own are entered and left by the C API.
    unsafe {
        let ty = &raw const ffi::PyContext_Type;
        if (*ty).tp_basicsize as usize != size_of::<Fields>()
            || (*ty).tp_weaklistoffset as usize != std::mem::offset_of!(Fields, weakrefs)
        {
            return Ok(());
        }
        let [a, b] = [(); 2].map(|()| Obj::from_owned(ffi::PyContext_New()));
        let (a, b) = (a?, b?);
        let found = search(a.as_ptr(), b.as_ptr())?;
        let fields = a.as_ptr().cast::<Fields>();
        let copy = Obj::from_owned(ffi::PyContext_Copy(a.as_ptr()))?;
        let shares = std::ptr::eq((*copy.as_ptr().cast::<Fields>()).vars, (*fields).vars);
        if let Some(at) = found
            && shares
            && !(*fields).vars.is_null()
        {
            refs::up((*fields).vars);
            EMPTY.store((*fields).vars, Ordering::Relaxed);
            CURRENT_AT.store(at, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Enters `a`, then `b`, then leaves both: where the thread's state follows.
unsafe fn search(a: *mut ffi::PyObject, b: *mut ffi::PyObject) -> PyRes<Option<usize>> {
    // SAFETY: a thread state has more than `SEARCHED` bytes in every version that gets here, all of
    // them words; they are read only.
    unsafe {
        let state = ffi::PyThreadState_Get();
        let step = |done: c_int| {
            if done < 0 {
                Err(Raised::assert_set())
            } else {
                Ok(())
            }
        };
        step(ffi::PyContext_Enter(a))?;
        let word = size_of::<usize>();
        let found = (0..SEARCHED / word)
            .map(|i| i * word)
            .find(|at| std::ptr::eq(state.byte_add(*at).cast::<*mut ffi::PyObject>().read(), a));
        let look = || found.map(|at| state.byte_add(at).cast::<Current>().read());
        let first = look();
        step(ffi::PyContext_Enter(b))?;
        let second = look();
        let (fa, fb) = (a.cast::<Fields>(), b.cast::<Fields>());
        let marked = (*fa).entered == 1 && (*fb).entered == 1 && std::ptr::eq((*fb).prev, a);
        step(ffi::PyContext_Exit(b))?;
        let third = look();
        step(ffi::PyContext_Exit(a))?;
        let unmarked = (*fa).entered == 0 && (*fa).prev.is_null() && (*fb).prev.is_null();
        let (Some(first), Some(second), Some(third)) = (first, second, third) else {
            return Ok(None);
        };
        let followed = std::ptr::eq(second.context, b)
            && std::ptr::eq(third.context, a)
            && second.version == first.version + 1
            && third.version == second.version + 1;
        Ok(found.filter(|_| marked && unmarked && followed))
    }
}
