//! Hand-written heap types: a Rust payload inside a Python object.
//!
//! ```text
//!  plain type                      type based on a C type (asyncio's Task, Future)
//!  ┌────────────┬───────────┐      ┌────────────┬──────────────────┬───────────┐
//!  │ PyObject   │ payload T │      │ PyObject   │ the base's fields│ payload T │
//!  └────────────┴───────────┘      └────────────┴─ (all zero) ─────┴───────────┘
//!               ^ offset                                           ^ offset
//! ```
//!
//! The payload uses interior mutability (`Cell`, `RefCell`, [`ObjCell`]); the GIL serialises it.
//!
//! # Life of an instance
//! * `alloc` (native code) or `tp_new` (Python) writes `T::default()` as the payload.
//! * The collector sees it through [`Class::traverse`] and breaks cycles by [`Class::clear`].
//! * Deallocation: [`Class::finalize`] if [`Class::needs_finalize`], then [`Class::retire`], then the
//!   payload is dropped, then the memory goes to the free list, or to the base's own deallocator, which frees weakrefs and `__dict__`.
//!   [`Class::needs_finalize`] reads plain flags only: a base's deallocator may still ask for it
//!   when the payload has been dropped.

use crate::err::{Builtin, PyRes, Raised};
use crate::freelist::FreeList;
use crate::obj::{Obj, Ref};
use crate::private::_PyObject_GC_New;
use pyo3::ffi;
use std::cell::{Cell, UnsafeCell};
use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Where a class keeps its type object and its payload's offset, filled at import.
pub struct ClassCell {
    ty: AtomicPtr<ffi::PyTypeObject>,
    offset: AtomicUsize,
    base_dealloc: AtomicUsize,
    /// Bytes behind the payload (the list of weak references).
    tail: AtomicUsize,
}

impl ClassCell {
    #[expect(clippy::new_without_default, reason = "a static's constructor")]
    pub const fn new() -> ClassCell {
        ClassCell {
            ty: AtomicPtr::new(std::ptr::null_mut()),
            offset: AtomicUsize::new(0),
            base_dealloc: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
        }
    }

    #[inline(always)]
    pub(crate) fn type_ptr(&self) -> *mut ffi::PyTypeObject {
        self.ty.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn offset(&self) -> usize {
        self.offset.load(Ordering::Relaxed)
    }
}

/// A payload type: what a class of ours keeps in its instances.
pub trait Class: Default + 'static {
    /// The class's cell; one static per class.
    fn cell() -> &'static ClassCell;
    /// Shows the collector every reference held.
    fn traverse(&self, visit: &mut Visit);
    /// Releases every reference held, leaving a valid, empty payload.
    fn clear(&self);
    /// Called when an instance is about to be freed, before its fields are dropped: leaves the
    /// registries that know it without a reference, and lowers the flags of `needs_finalize`.
    fn retire(&self) {}
    /// Whether [`Class::finalize`] has something to say about this instance. Must be cheap.
    fn needs_finalize(&self) -> bool {
        false
    }
    /// Reports on an object that is going away (its exception was never retrieved, say).
    fn finalize(_slf: Inst<'_, Self>) {}
    /// Recycled blocks, for classes whose instances come and go all the time.
    fn freelist() -> Option<&'static FreeList> {
        None
    }

    /// The type object.
    fn type_object() -> Ref<'static> {
        // SAFETY: set at import and never freed.
        unsafe { Ref::from_ptr(Self::cell().type_ptr().cast()) }
    }
}

/// Says that a class's payload starts with its base's payload, at the same offset.
///
/// # Safety
/// `Self` is `repr(C)` with a `B` as its first field, its Python type derives from (or is laid out
/// as) B's, and both cells were given the same offset.
pub unsafe trait Extends<B: Class>: Class {}

// ------------------------------------------------------------------------------- references

/// A borrowed instance of class `T`. Dereferences to the payload.
#[repr(transparent)]
pub struct Inst<'a, T: Class>(Ref<'a>, PhantomData<&'a T>);

impl<T: Class> Clone for Inst<'_, T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<T: Class> Copy for Inst<'_, T> {}

impl<'a, T: Class> Inst<'a, T> {
    /// # Safety
    /// `ptr` is a live instance of T's type (or a subclass) for `'a`.
    #[inline(always)]
    pub(crate) unsafe fn from_ptr(ptr: *mut ffi::PyObject) -> Inst<'a, T> {
        // SAFETY: the caller's word.
        unsafe { Inst(Ref::from_ptr(ptr), PhantomData) }
    }

    #[inline(always)]
    pub fn obj(self) -> Ref<'a> {
        self.0
    }

    #[inline(always)]
    pub fn own(self) -> Own<T> {
        Own(self.0.own(), PhantomData)
    }

    /// The payload, for the whole lifetime of the borrow.
    #[inline(always)]
    pub fn data(self) -> &'a T {
        // SAFETY: an instance of T's type holds a T at the class's offset, written at creation.
        unsafe {
            &*self
                .0
                .as_ptr()
                .cast::<u8>()
                .add(T::cell().offset())
                .cast::<T>()
        }
    }

    /// The same object seen as its base class.
    #[inline(always)]
    pub fn up<B: Class>(self) -> Inst<'a, B>
    where
        T: Extends<B>,
    {
        Inst(self.0, PhantomData)
    }

    /// Whether this is exactly `T`, not a subclass written in Python.
    #[inline(always)]
    pub fn is_exact(self) -> bool {
        std::ptr::eq(self.0.type_ptr(), T::cell().type_ptr())
    }
}

impl<T: Class> Deref for Inst<'_, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        self.data()
    }
}

/// An owned instance of class `T`.
#[repr(transparent)]
pub struct Own<T: Class>(Obj, PhantomData<T>);

impl<T: Class> Own<T> {
    #[inline(always)]
    pub fn inst(&self) -> Inst<'_, T> {
        Inst(self.0.borrow(), PhantomData)
    }

    #[inline(always)]
    pub fn obj(&self) -> Ref<'_> {
        self.0.borrow()
    }

    #[inline(always)]
    pub fn into_obj(self) -> Obj {
        self.0
    }

    #[inline(always)]
    pub fn up<B: Class>(self) -> Own<B>
    where
        T: Extends<B>,
    {
        Own(self.0, PhantomData)
    }

    #[inline(always)]
    pub fn refcount(&self) -> isize {
        self.0.refcount()
    }
}

impl<T: Class> Clone for Own<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        Own(self.0.clone(), PhantomData)
    }
}

impl<T: Class> Deref for Own<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        self.inst().data()
    }
}

impl<'a> Ref<'a> {
    /// This object as exactly a `T`.
    #[inline(always)]
    pub fn exact<T: Class>(self) -> Option<Inst<'a, T>> {
        if std::ptr::eq(self.type_ptr(), T::cell().type_ptr()) {
            Some(Inst(self, PhantomData))
        } else {
            None
        }
    }

    /// This object as a `T` or an instance of a subclass.
    #[inline]
    pub fn cast<T: Class>(self) -> Option<Inst<'a, T>> {
        // SAFETY: both type objects are alive.
        if unsafe { ffi::PyType_IsSubtype(self.type_ptr(), T::cell().type_ptr()) } != 0 {
            Some(Inst(self, PhantomData))
        } else {
            None
        }
    }
}

impl Obj {
    /// This object as exactly a `T`; gives the object back otherwise.
    #[inline(always)]
    pub fn into_exact<T: Class>(self) -> Result<Own<T>, Obj> {
        if self.borrow().exact::<T>().is_some() {
            Ok(Own(self, PhantomData))
        } else {
            Err(self)
        }
    }

    /// This object as a `T` or a subclass of it; gives the object back otherwise.
    #[inline]
    pub fn into_cast<T: Class>(self) -> Result<Own<T>, Obj> {
        if self.borrow().cast::<T>().is_some() {
            Ok(Own(self, PhantomData))
        } else {
            Err(self)
        }
    }
}

/// A pointer to an instance that holds no reference: for registries that the instance's own
/// deallocation removes it from.
pub struct Weak<T: Class>(*mut ffi::PyObject, PhantomData<T>);

impl<T: Class> Weak<T> {
    pub fn new(inst: Inst<'_, T>) -> Weak<T> {
        Weak(inst.obj().as_ptr(), PhantomData)
    }

    /// The instance. Sound because registries drop the pointer when the instance is deallocated.
    #[inline(always)]
    pub fn get(&self) -> Inst<'_, T> {
        // SAFETY: see above: each registered class removes itself in `retire`, which precedes its end.
        unsafe { Inst::from_ptr(self.0) }
    }
}

// ------------------------------------------------------------------------------- cells

/// A cell for an optional reference.
#[derive(Default)]
#[repr(transparent)]
pub struct ObjCell(UnsafeCell<Option<Obj>>);

impl ObjCell {
    #[inline(always)]
    pub fn new(value: Option<Obj>) -> ObjCell {
        ObjCell(UnsafeCell::new(value))
    }

    /// A new reference to the content.
    #[inline(always)]
    pub fn get(&self) -> Option<Obj> {
        // SAFETY: GIL held; cloning only increments a count and runs no other code.
        unsafe { (*self.0.get()).clone() }
    }

    /// The content, borrowed. Only for use before any Python code can run or the cell is set.
    #[inline(always)]
    pub fn peek(&self) -> Option<Ref<'_>> {
        // SAFETY: see the doc: the caller uses it at once.
        unsafe { (*self.0.get()).as_ref().map(Obj::borrow) }
    }

    #[inline(always)]
    pub fn take(&self) -> Option<Obj> {
        // SAFETY: GIL held; moves a pointer, runs no other code.
        unsafe { (*self.0.get()).take() }
    }

    /// Sets the content; the old one is dropped after the cell holds the new one.
    #[inline(always)]
    pub fn set(&self, value: Option<Obj>) {
        // SAFETY: GIL held; the old value leaves the cell before it is dropped (re-entrancy).
        let old = unsafe { std::mem::replace(&mut *self.0.get(), value) };
        drop(old);
    }

    #[inline(always)]
    pub fn is_none(&self) -> bool {
        // SAFETY: reads a pointer.
        unsafe { (*self.0.get()).is_none() }
    }

    #[inline(always)]
    pub fn is_some(&self) -> bool {
        !self.is_none()
    }
}

/// A cell for an optional typed instance.
#[repr(transparent)]
pub struct OwnCell<T: Class>(UnsafeCell<Option<Own<T>>>);

impl<T: Class> Default for OwnCell<T> {
    fn default() -> Self {
        OwnCell::new(None)
    }
}

impl<T: Class> OwnCell<T> {
    #[inline(always)]
    pub fn new(value: Option<Own<T>>) -> OwnCell<T> {
        OwnCell(UnsafeCell::new(value))
    }

    /// A new reference to the content.
    #[inline(always)]
    pub fn get(&self) -> Option<Own<T>> {
        // SAFETY: as in `ObjCell::get`.
        unsafe { (*self.0.get()).clone() }
    }

    /// The content, borrowed. Only for use before any Python code can run or the cell is set.
    #[inline(always)]
    pub fn peek(&self) -> Option<Inst<'_, T>> {
        // SAFETY: as in `ObjCell::peek`.
        unsafe { (*self.0.get()).as_ref().map(Own::inst) }
    }

    #[inline(always)]
    pub fn take(&self) -> Option<Own<T>> {
        // SAFETY: as in `ObjCell::take`.
        unsafe { (*self.0.get()).take() }
    }

    #[inline(always)]
    pub fn set(&self, value: Option<Own<T>>) {
        // SAFETY: as in `ObjCell::set`.
        let old = unsafe { std::mem::replace(&mut *self.0.get(), value) };
        drop(old);
    }

    #[inline(always)]
    pub fn is_none(&self) -> bool {
        // SAFETY: reads a pointer.
        unsafe { (*self.0.get()).is_none() }
    }
}

/// Looks into a `Cell` without taking its value out. `look` must not touch the cell.
#[inline(always)]
pub fn peek<T, R>(cell: &Cell<T>, look: impl FnOnce(&T) -> R) -> R {
    // SAFETY: the GIL serialises access; `look` leaves the cell alone (its contract).
    unsafe { look(&*cell.as_ptr()) }
}

// ------------------------------------------------------------------------------- collection

/// The collector's visitor. Stops visiting after the first non-zero answer.
pub struct Visit {
    visit: ffi::visitproc,
    arg: *mut c_void,
    status: c_int,
}

impl Visit {
    #[inline]
    pub fn obj(&mut self, obj: Ref<'_>) {
        if self.status == 0 {
            // SAFETY: called by the collector during traverse, with its own function and argument.
            self.status = unsafe { (self.visit)(obj.as_ptr(), self.arg) };
        }
    }

    #[inline]
    pub fn cell(&mut self, cell: &ObjCell) {
        if let Some(obj) = cell.peek() {
            self.obj(obj);
        }
    }

    #[inline]
    pub fn own<T: Class>(&mut self, cell: &OwnCell<T>) {
        if let Some(inst) = cell.peek() {
            self.obj(inst.obj());
        }
    }
}

unsafe extern "C" fn traverse_slot<T: Class>(
    slf: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: called by the collector on a tracked instance; the payload is initialised before
    // tracking starts.
    unsafe {
        let mut v = Visit {
            visit,
            arg,
            status: 0,
        };
        let inst = Inst::<T>::from_ptr(slf);
        v.obj(inst.obj().type_of());
        // The dict of our own type only: a Python subclass that adds one visits it itself.
        let own = T::cell().type_ptr();
        let dict = dict_slot(slf, own);
        if !dict.is_null() && !(*dict).is_null() {
            v.obj(Ref::from_ptr(*dict));
        }
        if v.status == 0 {
            inst.data().traverse(&mut v);
        }
        #[cfg(Py_3_13)]
        if v.status == 0 && (*own).tp_flags & MANAGED_DICT != 0 {
            v.status = PyObject_VisitManagedDict(slf, visit, arg);
        }
        #[cfg(all(Py_3_12, not(Py_3_13)))]
        if v.status == 0 && (*own).tp_flags & MANAGED_DICT != 0 {
            v.status = _PyObject_VisitManagedDict(slf, visit, arg);
        }
        v.status
    }
}

#[cfg(Py_3_12)]
const MANAGED_DICT: std::ffi::c_ulong = 1 << 4;

#[cfg(Py_3_13)]
unsafe extern "C" {
    fn PyObject_VisitManagedDict(o: *mut ffi::PyObject, v: ffi::visitproc, a: *mut c_void)
    -> c_int;
    fn PyObject_ClearManagedDict(o: *mut ffi::PyObject);
}
#[cfg(all(Py_3_12, not(Py_3_13)))]
unsafe extern "C" {
    fn _PyObject_VisitManagedDict(
        o: *mut ffi::PyObject,
        v: ffi::visitproc,
        a: *mut c_void,
    ) -> c_int;
    fn _PyObject_ClearManagedDict(o: *mut ffi::PyObject);
}

/// Where an unmanaged `__dict__` lives, if `ty` (the object's type or a base of it) has one.
unsafe fn dict_slot(
    slf: *mut ffi::PyObject,
    ty: *mut ffi::PyTypeObject,
) -> *mut *mut ffi::PyObject {
    // SAFETY: a live object; a positive tp_dictoffset is the field's place in it.
    unsafe {
        let offset = (*ty).tp_dictoffset;
        if offset > 0 {
            slf.cast::<u8>().offset(offset).cast()
        } else {
            std::ptr::null_mut()
        }
    }
}

unsafe fn clear_dict(slf: *mut ffi::PyObject, ty: *mut ffi::PyTypeObject) {
    // SAFETY: a live object of ours, the GIL is held.
    unsafe {
        let dict = dict_slot(slf, ty);
        if !dict.is_null() && !(*dict).is_null() {
            let old = std::mem::replace(&mut *dict, std::ptr::null_mut());
            ffi::Py_DECREF(old);
        }
        #[cfg(Py_3_12)]
        if (*ty).tp_flags & MANAGED_DICT != 0 {
            #[cfg(Py_3_13)]
            PyObject_ClearManagedDict(slf);
            #[cfg(not(Py_3_13))]
            _PyObject_ClearManagedDict(slf);
        }
    }
}

unsafe extern "C" fn clear_slot<T: Class>(slf: *mut ffi::PyObject) -> c_int {
    // SAFETY: called by the collector on an instance of T.
    unsafe {
        Inst::<T>::from_ptr(slf).data().clear();
        clear_dict(slf, T::cell().type_ptr());
    }
    0
}

unsafe extern "C" fn finalize_slot<T: Class>(slf: *mut ffi::PyObject) {
    // SAFETY: called once per object, alive for the call.
    let inst = unsafe { Inst::<T>::from_ptr(slf) };
    if !inst.needs_finalize() {
        return;
    }
    // A finalizer runs wherever the last reference went: keep the caller's exception.
    // SAFETY: save and restore of the thread's error indicator, in pairs.
    unsafe {
        let saved = SavedError::take();
        T::finalize(inst);
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

unsafe extern "C" fn dealloc_plain<T: Class>(slf: *mut ffi::PyObject) {
    // SAFETY: the reference count is zero: nobody else can see the object, which is freed once.
    unsafe {
        let ty = ffi::Py_TYPE(slf);
        let gc = (*ty).tp_flags & ffi::Py_TPFLAGS_HAVE_GC != 0;
        let inst = Inst::<T>::from_ptr(slf);
        let finalized = inst.needs_finalize();
        if finalized && ffi::PyObject_CallFinalizerFromDealloc(slf) < 0 {
            return; // resurrected
        }
        if gc {
            ffi::PyObject_GC_UnTrack(slf.cast());
        }
        let weak = (*T::cell().type_ptr()).tp_weaklistoffset;
        if weak > 0 && !(*slf.cast::<u8>().offset(weak).cast::<*mut ffi::PyObject>()).is_null() {
            ffi::PyObject_ClearWeakRefs(slf);
        }
        inst.data().retire();
        // First the dict, whose field may be part of the payload (`callable`): it is null after this.
        clear_dict(slf, T::cell().type_ptr());
        std::ptr::drop_in_place(std::ptr::from_ref(inst.data()).cast_mut());
        // A block that was finalized is marked so for good: its next life would go unreported.
        if !finalized
            && std::ptr::eq(ty, T::cell().type_ptr())
            && let Some(list) = T::freelist()
            && list.put(slf)
        {
            return;
        }
        match (*ty).tp_free {
            Some(free) => free(slf.cast()),
            None => ffi::PyObject_Free(slf.cast()),
        }
        ffi::Py_DECREF(ty.cast());
    }
}

/// Whether nothing but the payload has ever been put into this instance of a based type: no dict, no
/// weak references, no finalizer run. Its block can then be used again as it is.
unsafe fn is_bare(slf: *mut ffi::PyObject, ty: *mut ffi::PyTypeObject) -> bool {
    // SAFETY: a live object of that type; offsets and the words before the GC header are its own.
    unsafe {
        if ffi::PyObject_GC_IsFinalized(slf) != 0 {
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

unsafe extern "C" fn dealloc_based<T: Class>(slf: *mut ffi::PyObject) {
    // SAFETY: as in `dealloc_plain`; the base's fields are all zero, so its deallocator only frees
    // weakrefs, the dict and the memory.
    unsafe {
        let inst = Inst::<T>::from_ptr(slf);
        if inst.needs_finalize() && ffi::PyObject_CallFinalizerFromDealloc(slf) < 0 {
            return; // resurrected
        }
        ffi::PyObject_GC_UnTrack(slf.cast());
        inst.data().retire();
        std::ptr::drop_in_place(std::ptr::from_ref(inst.data()).cast_mut());
        // From 3.14 on, asyncio's C code writes into the base's fields of any Future: no recycling.
        if cfg!(not(Py_3_14))
            && let Some(list) = T::freelist()
            && std::ptr::eq(ffi::Py_TYPE(slf), T::cell().type_ptr())
            && is_bare(slf, T::cell().type_ptr())
            && list.put(slf)
        {
            return;
        }
        #[cfg(not(Py_3_12))]
        let ty = ffi::Py_TYPE(slf);
        let base: ffi::destructor = std::mem::transmute::<usize, ffi::destructor>(
            T::cell().base_dealloc.load(Ordering::Relaxed),
        );
        base(slf);
        // Before 3.12 the bases are static types, whose deallocator does not release a heap type.
        #[cfg(not(Py_3_12))]
        ffi::Py_DECREF(ty.cast());
    }
}

// ------------------------------------------------------------------------------- creation

/// Makes an instance natively: no `__init__`, payload as given, tracked by the collector if `track`.
#[inline(always)]
pub fn alloc<T: Class>(payload: T, track: bool) -> PyRes<Own<T>> {
    // SAFETY: the block is fresh (or recycled) and exclusively ours; the payload is written before
    // anybody sees it, the base's fields are zeroed for its deallocator.
    unsafe {
        let offset = T::cell().offset();
        let ptr = match T::freelist().and_then(FreeList::take) {
            // What lies before the payload is zero still: nobody writes there.
            Some(block) => block,
            None => {
                let block = _PyObject_GC_New(T::cell().type_ptr());
                if block.is_null() {
                    return Err(Raised::assert_set());
                }
                let head = size_of::<ffi::PyObject>();
                std::ptr::write_bytes(block.cast::<u8>().add(head), 0, offset - head);
                block
            }
        };
        let body = ptr.cast::<u8>().add(offset);
        body.cast::<T>().write(payload);
        let tail = T::cell().tail.load(Ordering::Relaxed);
        if tail != 0 {
            std::ptr::write_bytes(body.add(size_of::<T>()), 0, tail);
        }
        let own = Own(Obj::from_owned(ptr)?, PhantomData);
        if track {
            ffi::PyObject_GC_Track(ptr.cast());
        }
        Ok(own)
    }
}

/// Starts collection of an instance that was made untracked; harmless when already tracked.
#[inline(always)]
pub fn track<T: Class>(inst: Inst<'_, T>) {
    // SAFETY: alive, of a GC type, payload initialised.
    unsafe {
        if ffi::PyObject_GC_IsTracked(inst.obj().as_ptr()) == 0 {
            ffi::PyObject_GC_Track(inst.obj().as_ptr().cast());
        }
    }
}

unsafe extern "C" fn new_slot<T: Class>(
    ty: *mut ffi::PyTypeObject,
    _args: *mut ffi::PyObject,
    _kwargs: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: GenericAlloc zeroes the block and tracks it; the payload is written before Python code
    // can run (allocation may trigger a collection, but only before tracking).
    unsafe {
        let ptr = ffi::PyType_GenericAlloc(ty, 0);
        if !ptr.is_null() {
            ptr.cast::<u8>()
                .add(T::cell().offset())
                .cast::<T>()
                .write(T::default());
        }
        ptr
    }
}

// ------------------------------------------------------------------------------- type objects

/// Builds a heap type for the payload `T`.
pub struct TypeBuilder<T: Class> {
    name: &'static CStr,
    base: Option<Obj>,
    /// The base is a class written in Python: its deallocator is not ours to call.
    python_base: bool,
    offset: usize,
    flags: std::ffi::c_ulong,
    subclassable: bool,
    weakrefs: bool,
    slots: Vec<ffi::PyType_Slot>,
    methods: Vec<ffi::PyMethodDef>,
    getset: Vec<ffi::PyGetSetDef>,
    _payload: PhantomData<T>,
}

impl<T: Class> TypeBuilder<T> {
    /// `name` is the dotted name (`rondel.Task`).
    pub fn new(name: &'static CStr) -> Self {
        TypeBuilder {
            name,
            base: None,
            python_base: false,
            offset: size_of::<ffi::PyObject>(),
            flags: 0,
            subclassable: false,
            weakrefs: false,
            slots: Vec::new(),
            methods: Vec::new(),
            getset: Vec::new(),
            _payload: PhantomData,
        }
    }

    /// Derives from a C type, placing the payload at `offset` (at least the base's size).
    pub fn based_on(mut self, base: Obj, offset: usize) -> Self {
        self.base = Some(base);
        self.offset = offset;
        self
    }

    /// Derives from a class written in Python whose instances have no dict (`asyncio.Transport`).
    /// Its slots must stay empty: nothing releases them.
    pub fn over_python_class(mut self, base: Obj) -> Self {
        self.offset = basicsize(base.borrow()).next_multiple_of(size_of::<usize>());
        self.base = Some(base);
        self.python_base = true;
        self
    }

    /// Allows Python subclasses and calls from Python (`tp_new`).
    pub fn subclassable(mut self) -> Self {
        self.subclassable = true;
        self.slot(ffi::Py_tp_new, new_slot::<T> as *mut c_void)
    }

    pub(crate) fn slot(mut self, slot: c_int, function: *mut c_void) -> Self {
        self.slots.push(ffi::PyType_Slot {
            slot,
            pfunc: function,
        });
        self
    }

    pub fn method(mut self, def: crate::method::MethodDef) -> Self {
        self.methods.push(def.0);
        self
    }

    pub fn methods(mut self, defs: impl IntoIterator<Item = crate::method::MethodDef>) -> Self {
        self.methods.extend(defs.into_iter().map(|d| d.0));
        self
    }

    pub fn property(mut self, def: crate::method::PropertyDef) -> Self {
        self.getset.push(def.0);
        self
    }

    pub fn properties(
        mut self,
        defs: impl IntoIterator<Item = crate::method::PropertyDef>,
    ) -> Self {
        self.getset.extend(defs.into_iter().map(|d| d.0));
        self
    }

    pub fn with(self, slot: crate::method::SlotDef) -> Self {
        self.slot(slot.slot, slot.function)
    }

    /// The class's docstring.
    pub fn doc(self, text: &'static CStr) -> Self {
        self.slot(ffi::Py_tp_doc, text.as_ptr().cast_mut().cast())
    }

    /// A further type flag.
    pub(crate) fn flag(mut self, flag: std::ffi::c_ulong) -> Self {
        self.flags |= flag;
        self
    }

    /// Allows weak references to instances of a plain type.
    pub fn weakrefs(mut self) -> Self {
        self.weakrefs = true;
        self
    }

    /// Makes the type and fills the class's cell.
    pub fn build(mut self) -> PyRes<Obj> {
        let based = self.base.is_some() && !self.python_base;
        let dealloc: ffi::destructor = if based {
            dealloc_based::<T>
        } else {
            dealloc_plain::<T>
        };
        self.slots.extend([
            ffi::PyType_Slot {
                slot: ffi::Py_tp_dealloc,
                pfunc: dealloc as *mut c_void,
            },
            ffi::PyType_Slot {
                slot: ffi::Py_tp_traverse,
                pfunc: traverse_slot::<T> as *mut c_void,
            },
            ffi::PyType_Slot {
                slot: ffi::Py_tp_clear,
                pfunc: clear_slot::<T> as *mut c_void,
            },
            ffi::PyType_Slot {
                slot: ffi::Py_tp_finalize,
                pfunc: finalize_slot::<T> as *mut c_void,
            },
        ]);
        let mut size = self.offset + size_of::<T>();
        let mut members = Vec::new();
        if self.weakrefs && !based {
            let at = size.next_multiple_of(align_of::<*mut c_void>());
            size = at + size_of::<*mut c_void>();
            members.push(ffi::PyMemberDef {
                name: c"__weaklistoffset__".as_ptr(),
                type_code: ffi::Py_T_PYSSIZET,
                offset: at as ffi::Py_ssize_t,
                flags: ffi::Py_READONLY,
                doc: std::ptr::null(),
            });
        }
        if !members.is_empty() {
            // SAFETY: an all-zero member definition ends the array.
            members.push(unsafe { std::mem::zeroed() });
            let members = Box::leak(members.into_boxed_slice());
            self.slots.push(ffi::PyType_Slot {
                slot: ffi::Py_tp_members,
                pfunc: members.as_mut_ptr().cast(),
            });
        }
        if !self.methods.is_empty() {
            self.methods.push(ffi::PyMethodDef::zeroed());
            let methods = Box::leak(self.methods.into_boxed_slice());
            self.slots.push(ffi::PyType_Slot {
                slot: ffi::Py_tp_methods,
                pfunc: methods.as_mut_ptr().cast(),
            });
        }
        if !self.getset.is_empty() {
            self.getset.push(ffi::PyGetSetDef::default());
            let getset = Box::leak(self.getset.into_boxed_slice());
            self.slots.push(ffi::PyType_Slot {
                slot: ffi::Py_tp_getset,
                pfunc: getset.as_mut_ptr().cast(),
            });
        }
        self.slots.push(ffi::PyType_Slot {
            slot: 0,
            pfunc: std::ptr::null_mut(),
        });
        let mut flags = ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | self.flags;
        if self.subclassable {
            flags |= ffi::Py_TPFLAGS_BASETYPE;
        } else {
            flags |= ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
        }
        let basicsize =
            c_int::try_from(size).map_err(|_| Builtin::Overflow.raise("instance too large"))?;
        let mut spec = ffi::PyType_Spec {
            name: self.name.as_ptr(),
            basicsize,
            itemsize: 0,
            flags: flags as std::ffi::c_uint,
            slots: self.slots.as_mut_ptr(),
        };
        // SAFETY: the spec is well-formed, its arrays are leaked where CPython keeps them.
        let ty = unsafe {
            match &self.base {
                None => Obj::from_owned(ffi::PyType_FromSpec(&mut spec))?,
                Some(base) => {
                    let bases = crate::value::tuple([base.clone()])?;
                    Obj::from_owned(ffi::PyType_FromSpecWithBases(&mut spec, bases.as_ptr()))?
                }
            }
        };
        let cell = T::cell();
        cell.offset.store(self.offset, Ordering::Relaxed);
        cell.tail
            .store(size - self.offset - size_of::<T>(), Ordering::Relaxed);
        if let Some(base) = &self.base {
            // SAFETY: the base is a type object.
            let dealloc = unsafe { (*base.as_ptr().cast::<ffi::PyTypeObject>()).tp_dealloc };
            cell.base_dealloc
                .store(dealloc.map_or(0, |d| d as usize), Ordering::Relaxed);
        }
        // The cell keeps one reference for the life of the process.
        cell.ty
            .store(ty.clone().into_ptr().cast(), Ordering::Relaxed);
        Ok(ty)
    }
}

/// `tp_basicsize` of a type object.
pub fn basicsize(ty: Ref<'_>) -> usize {
    // SAFETY: callers pass type objects (checked at import, where they are looked up).
    unsafe {
        (*ty.as_ptr().cast::<ffi::PyTypeObject>())
            .tp_basicsize
            .max(0) as usize
    }
}
