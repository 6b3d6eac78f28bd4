//! An instance's beginning and end: creation, finalizer, deallocation, recycled blocks.
//!
//! Nobody sees an instance before all of its payloads are written: native creation shows it to the
//! collector last; `tp_new`, whose memory is tracked from the start, lets nothing run in between. The
//! order of an instance's end is in the parent module's documentation. Creation needs the GIL; the end
//! comes with the GIL held, in whichever thread drops the last reference.

#[cfg(Py_3_12)]
use super::collect::MANAGED_DICT;
use super::collect::{clear_dict, dict_slot};
use super::nest::nested;
use super::payload::{Rest, payload};
use super::{Class, Extends, Inst, Own};
use crate::collector;
use crate::err::{PyRes, Raised, panic_to_exception};
use crate::freelist::FreeList;
use crate::obj::Obj;
use crate::private::{_PyObject_GC_New, is_finalized, is_tracked};
use crate::refs;
use pyo3::ffi;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

/// Makes an instance natively: no `__init__`, payload as given, tracked by the collector if `track`.
#[inline(always)]
pub fn alloc<T: Class>(body: T, track: bool) -> PyRes<Own<T>> {
    alloc_with(|| body, track)
}

/// As [`alloc`], with a payload that is put together in its place: one that exists before the block
/// does is written twice, and read in between by wide loads that its narrow stores hold up. `body`
/// runs no Python code.
#[inline(always)]
pub fn alloc_with<T: Class>(body: impl FnOnce() -> T, track: bool) -> PyRes<Own<T>> {
    // SAFETY: the block is exclusively ours; the payload is written before anybody sees it.
    unsafe {
        let ptr = block::<T>()?;
        payload::<T>(ptr).write(body());
        born(ptr, track)
    }
}

/// Makes an instance of a class that extends another of ours: one payload for each, put together in
/// its place as in [`alloc_with`].
#[inline(always)]
pub fn alloc_extended<T: Extends<B>, B: Class>(
    base: impl FnOnce() -> B,
    body: impl FnOnce() -> T,
    track: bool,
) -> PyRes<Own<T>> {
    // SAFETY: as in `alloc_with`; `Extends` says that there is a B, which lies beside the T.
    unsafe {
        let ptr = block::<T>()?;
        payload::<B>(ptr).write(base());
        payload::<T>(ptr).write(body());
        born(ptr, track)
    }
}

/// Memory for an instance, untracked: all zero but for what a recycled block's payloads were.
#[inline(always)]
unsafe fn block<T: Class>() -> PyRes<*mut ffi::PyObject> {
    if let Some(block) = T::freelist().and_then(FreeList::take) {
        return Ok(block);
    }
    // SAFETY: the type is built; its instances have `size` bytes.
    unsafe {
        let block = _PyObject_GC_New(T::cell().type_ptr());
        if block.is_null() {
            return Err(Raised::assert_set());
        }
        let head = size_of::<ffi::PyObject>();
        let size = T::cell().size.load(Ordering::Relaxed);
        std::ptr::write_bytes(block.cast::<u8>().add(head), 0, size - head);
        stamp::<T>(block);
        Ok(block)
    }
}

/// Writes the class's stamp into fresh memory. No payload lies there: a recycled block keeps it.
unsafe fn stamp<T: Class>(block: *mut ffi::PyObject) {
    let at = T::cell().stamp_at.load(Ordering::Relaxed);
    if at != 0 {
        // SAFETY: `TypeBuilder::build` has checked that it lies in the instance, and its alignment.
        unsafe {
            block
                .cast::<u8>()
                .add(at)
                .cast::<u32>()
                .write(T::cell().stamp.load(Ordering::Relaxed));
        }
    }
}

#[inline(always)]
unsafe fn born<T: Class>(ptr: *mut ffi::PyObject, track: bool) -> PyRes<Own<T>> {
    // SAFETY: a fresh instance whose payloads are written.
    unsafe {
        let own = Own::from_obj(Obj::from_owned(ptr)?);
        if track {
            collector::track(ptr);
        }
        Ok(own)
    }
}

/// Starts collection of an instance that was made untracked; harmless when already tracked.
#[inline(always)]
pub fn track<T: Class>(inst: Inst<'_, T>) {
    // SAFETY: alive, of a GC type, payload initialised.
    unsafe {
        if !is_tracked(inst.obj().as_ptr()) {
            collector::track(inst.obj().as_ptr());
        }
    }
}

pub(super) unsafe extern "C" fn new_slot<T: Class, R: Rest>(
    ty: *mut ffi::PyTypeObject,
    _args: *mut ffi::PyObject,
    _kwargs: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // Before the memory: a payload may allocate, which can start a collection, and the collector sees
    // the instance from its allocation on.
    let (body, rest) = (T::default(), R::make());
    // SAFETY: GenericAlloc zeroes the block and tracks it (a collection that this starts comes before
    // the tracking); nothing allocates between that and the writing of the payloads.
    unsafe {
        let ptr = ffi::PyType_GenericAlloc(ty, 0);
        if !ptr.is_null() {
            stamp::<T>(ptr);
            payload::<T>(ptr).write(body);
            R::write(ptr, rest);
        }
        ptr
    }
}

pub(super) unsafe extern "C" fn finalize_slot<T: Class>(slf: *mut ffi::PyObject) {
    // SAFETY: called once per object, alive for the call.
    let inst = unsafe { Inst::<T>::from_ptr(slf) };
    if !T::needs_finalize(inst) {
        return;
    }
    // A finalizer runs wherever the last reference went: keep the caller's exception.
    // SAFETY: save and restore of the thread's error indicator, in pairs.
    unsafe {
        let saved = SavedError::take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| T::finalize(inst))) {
            panic_to_exception(panic).unraisable(Some(inst.obj()));
        }
        saved.restore();
    }
}

/// The thread's error indicator, put aside.
struct SavedError {
    #[cfg(Py_3_12)]
    exc: *mut ffi::PyObject,
    #[cfg(not(Py_3_12))]
    parts: (*mut ffi::PyObject, *mut ffi::PyObject, *mut ffi::PyObject),
}

impl SavedError {
    unsafe fn take() -> SavedError {
        #[cfg(Py_3_12)]
        // SAFETY: GIL held.
        unsafe {
            SavedError {
                exc: ffi::PyErr_GetRaisedException(),
            }
        }
        #[cfg(not(Py_3_12))]
        // SAFETY: GIL held.
        unsafe {
            let (mut t, mut v, mut b) = (
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            );
            ffi::PyErr_Fetch(&mut t, &mut v, &mut b);
            SavedError { parts: (t, v, b) }
        }
    }

    unsafe fn restore(self) {
        #[cfg(Py_3_12)]
        // SAFETY: gives back what `take` took.
        unsafe {
            ffi::PyErr_SetRaisedException(self.exc);
        }
        #[cfg(not(Py_3_12))]
        // SAFETY: gives back what `take` took.
        unsafe {
            ffi::PyErr_Restore(self.parts.0, self.parts.1, self.parts.2);
        }
    }
}

/// Frees an instance that no C base has a part in: a plain one, or one over a C type.
pub(super) unsafe extern "C" fn dealloc_whole<T: Class, R: Rest>(slf: *mut ffi::PyObject) {
    // SAFETY: the slot is called once, when the last reference has gone.
    unsafe { nested(slf, dealloc_whole::<T, R>, free_whole::<T, R>) }
}

#[inline(always)]
unsafe fn free_whole<T: Class, R: Rest>(slf: *mut ffi::PyObject) {
    // SAFETY: the reference count is zero: nobody else can see the object, which is freed once. A
    // Python subclass's deallocator leaves weak references and the dict to us, as our type has them.
    unsafe {
        let ty = ffi::Py_TYPE(slf);
        let own = T::cell().type_ptr();
        let gc = (*ty).tp_flags & ffi::Py_TPFLAGS_HAVE_GC != 0;
        let inst = Inst::<T>::from_ptr(slf);
        if T::needs_finalize(inst) && resurrected(inst) {
            return;
        }
        if gc && is_tracked(slf) {
            collector::untrack(slf);
        }
        let bare = is_bare(slf, own);
        if !bare && (*own).tp_weaklistoffset != 0 {
            ffi::PyObject_ClearWeakRefs(slf);
        }
        inst.data().retire();
        R::retire(slf);
        if !bare {
            // Before the payload, which may have the dict's field in it: it is null after this.
            clear_dict(slf, own);
        }
        std::ptr::drop_in_place(payload::<T>(slf));
        R::drop(slf);
        if bare
            && std::ptr::eq(ty, own)
            && let Some(list) = T::freelist()
            && list.put(slf)
        {
            return;
        }
        match (*ty).tp_free {
            Some(free) => free(slf.cast()),
            None => ffi::PyObject_Free(slf.cast()),
        }
        refs::down(ty.cast());
    }
}

/// Runs the finalizer; whether somebody has taken a new reference in it.
#[cold]
unsafe fn resurrected<T: Class>(inst: Inst<'_, T>) -> bool {
    // What lives on is to be collected one day, though it was not before: nobody saw it.
    track(inst);
    // SAFETY: called by the deallocation, once; the object is whole.
    unsafe { ffi::PyObject_CallFinalizerFromDealloc(inst.obj().as_ptr()) < 0 }
}

/// Whether this instance has nothing but its payloads: no dict, no weak references, no finalizer run
/// (a block that was finalized is marked so for good: its next life would go unreported). Its block
/// can then be used again as it is.
#[inline(always)]
unsafe fn is_bare(slf: *mut ffi::PyObject, ty: *mut ffi::PyTypeObject) -> bool {
    // SAFETY: a live object of that type; offsets and the words before the GC header are its own.
    unsafe {
        if is_finalized(slf) {
            return false;
        }
        let dict = dict_slot(slf, ty);
        if !dict.is_null() && !(*dict).is_null() {
            return false;
        }
        let weak = (*ty).tp_weaklistoffset;
        if weak > 0 && !(*slf.cast::<u8>().offset(weak).cast::<*mut ffi::PyObject>()).is_null() {
            return false;
        }
        // 3.12 and 3.13 keep a managed dict and managed weak references in two words that lie
        // before the two of the collector's header.
        #[cfg(Py_3_12)]
        {
            const MANAGED_WEAKREF: std::ffi::c_ulong = 1 << 3;
            let words = slf.cast::<*mut ffi::PyObject>();
            if (*ty).tp_flags & MANAGED_DICT != 0 && !(*words.sub(3)).is_null() {
                return false;
            }
            if (*ty).tp_flags & MANAGED_WEAKREF != 0 && !(*words.sub(4)).is_null() {
                return false;
            }
        }
        true
    }
}

/// Frees an instance behind a C base, whose deallocator frees weak references, dict and memory.
pub(super) unsafe extern "C" fn dealloc_behind<T: Class, R: Rest>(slf: *mut ffi::PyObject) {
    // SAFETY: the slot is called once, when the last reference has gone.
    unsafe { nested(slf, dealloc_behind::<T, R>, free_behind::<T, R>) }
}

unsafe fn free_behind<T: Class, R: Rest>(slf: *mut ffi::PyObject) {
    // SAFETY: as in `dealloc_whole`; the base's fields are as the base's own code left them.
    unsafe {
        let inst = Inst::<T>::from_ptr(slf);
        if T::needs_finalize(inst) && resurrected(inst) {
            return;
        }
        ffi::PyObject_GC_UnTrack(slf.cast());
        inst.data().retire();
        R::retire(slf);
        std::ptr::drop_in_place(payload::<T>(slf));
        R::drop(slf);
        // No recycling: asyncio's C code may have written into the base's fields.
        #[cfg(not(Py_3_12))]
        let ty = ffi::Py_TYPE(slf);
        let base: ffi::destructor = std::mem::transmute::<usize, ffi::destructor>(
            T::cell().base_dealloc.load(Ordering::Relaxed),
        );
        base(slf);
        // Before 3.12 the bases are static types, whose deallocator does not release a heap type.
        #[cfg(not(Py_3_12))]
        refs::down(ty.cast());
    }
}
