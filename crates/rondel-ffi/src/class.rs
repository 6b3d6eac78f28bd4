//! Hand-written heap types: Rust payloads inside a Python object.
//!
//! ```text
//!  plain                     over a C type                         behind a C type
//!  ┌──────────┬─────────┐    ┌──────────┬───────────┬───────┐      ┌──────────┬────────┬─────────┐
//!  │ PyObject │payload T│    │ PyObject │ payload T │ dict… │      │ PyObject │ C base │payload T│
//!  └──────────┴─────────┘    └──────────┴───────────┴───────┘      └──────────┴─ zero ─┴─────────┘
//!             ^ offset                  ^ offset: on top of the               ^ offset
//!                                         base's unused fields
//! ```
//!
//! The payload uses interior mutability (`Cell`, `RefCell`, [`ObjCell`]); the GIL serialises it.
//!
//! A class that [`TypeBuilder::extends`] another of ours holds two payloads, each at its own class's
//! offset: a task is a `Future` and a `Task`.
//!
//! *Over* a C type: the base's constructor, destructor and methods never see the instance, but its
//! methods called by hand (`asyncio.Task.get_name(task)`) do. The payload's author lays it out so
//! that those find nothing (see `future` in the crate above); `is_laid_out` refuses Python classes that
//! would be allocated by the C base.
//!
//! # Life of an instance
//! * `alloc` (native code) writes the payloads given, `tp_new` (Python) the default ones.
//! * The collector sees them through [`Class::traverse`] and breaks cycles by [`Class::clear`].
//! * Deallocation: [`Class::finalize`] if [`Class::needs_finalize`], then weak references are cleared,
//!   then [`Class::retire`], then `__dict__` goes, then the payloads are dropped, then the memory goes
//!   to the free list or back. Behind a C type the base's own deallocator does what it knows.
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
    /// `tp_basicsize`.
    size: AtomicUsize,
}

impl ClassCell {
    #[expect(clippy::new_without_default, reason = "a static's constructor")]
    pub const fn new() -> ClassCell {
        ClassCell {
            ty: AtomicPtr::new(std::ptr::null_mut()),
            offset: AtomicUsize::new(0),
            base_dealloc: AtomicUsize::new(0),
            size: AtomicUsize::new(0),
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
    fn needs_finalize(_slf: Inst<'_, Self>) -> bool {
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

/// Says that instances of this class hold a base's payload as well, at the base's offset.
///
/// # Safety
/// Every instance has a `B` at the offset in B's cell. Either the type is built with
/// [`TypeBuilder::extends`], which keeps that payload, or `Self` is `repr(C)`, has a `B` as its first
/// field, and both cells are given one offset.
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

/// What an instance holds besides its class's own payload. Every function takes a live instance
/// (`init`: fresh memory of one) whose type was built with this `Rest`.
trait Rest: 'static {
    unsafe fn traverse(slf: *mut ffi::PyObject, visit: &mut Visit);
    unsafe fn retire(slf: *mut ffi::PyObject);
    unsafe fn clear(slf: *mut ffi::PyObject);
    unsafe fn drop(slf: *mut ffi::PyObject);
    unsafe fn init(slf: *mut ffi::PyObject);
}

/// Nothing else.
struct Nothing;

impl Rest for Nothing {
    unsafe fn traverse(_slf: *mut ffi::PyObject, _visit: &mut Visit) {}
    unsafe fn retire(_slf: *mut ffi::PyObject) {}
    unsafe fn clear(_slf: *mut ffi::PyObject) {}
    unsafe fn drop(_slf: *mut ffi::PyObject) {}
    unsafe fn init(_slf: *mut ffi::PyObject) {}
}

/// The payload of a base of ours.
struct Payload<B: Class>(PhantomData<B>);

impl<B: Class> Rest for Payload<B> {
    unsafe fn traverse(slf: *mut ffi::PyObject, visit: &mut Visit) {
        // SAFETY: the trait's contract, here and below.
        unsafe { Inst::<B>::from_ptr(slf).data().traverse(visit) }
    }
    unsafe fn retire(slf: *mut ffi::PyObject) {
        // SAFETY: as above.
        unsafe { Inst::<B>::from_ptr(slf).data().retire() }
    }
    unsafe fn clear(slf: *mut ffi::PyObject) {
        // SAFETY: as above.
        unsafe { Inst::<B>::from_ptr(slf).data().clear() }
    }
    unsafe fn drop(slf: *mut ffi::PyObject) {
        // SAFETY: as above; called once, at the instance's end.
        unsafe { std::ptr::drop_in_place(payload::<B>(slf)) }
    }
    unsafe fn init(slf: *mut ffi::PyObject) {
        // SAFETY: as above; nothing is overwritten that would need a drop.
        unsafe { payload::<B>(slf).write(B::default()) }
    }
}

/// Where the payload of class `T` lies in an instance.
#[inline(always)]
unsafe fn payload<T: Class>(slf: *mut ffi::PyObject) -> *mut T {
    // SAFETY: the caller's word that the instance has one.
    unsafe { slf.cast::<u8>().add(T::cell().offset()).cast() }
}

unsafe extern "C" fn traverse_slot<T: Class, R: Rest>(
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
            R::traverse(slf, &mut v);
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

unsafe extern "C" fn clear_slot<T: Class, R: Rest>(slf: *mut ffi::PyObject) -> c_int {
    // SAFETY: called by the collector on an instance of T.
    unsafe {
        // Registries first: clearing runs Python code, which must not meet half an object there.
        R::retire(slf);
        Inst::<T>::from_ptr(slf).data().clear();
        R::clear(slf);
        clear_dict(slf, T::cell().type_ptr());
    }
    0
}

unsafe extern "C" fn finalize_slot<T: Class>(slf: *mut ffi::PyObject) {
    // SAFETY: called once per object, alive for the call.
    let inst = unsafe { Inst::<T>::from_ptr(slf) };
    if !T::needs_finalize(inst) {
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

/// Frees an instance that no C base has a part in: a plain one, or one over a C type.
unsafe extern "C" fn dealloc_whole<T: Class, R: Rest>(slf: *mut ffi::PyObject) {
    // SAFETY: the reference count is zero: nobody else can see the object, which is freed once. A
    // Python subclass's deallocator leaves weak references and the dict to us, as our type has them.
    unsafe {
        let ty = ffi::Py_TYPE(slf);
        let own = T::cell().type_ptr();
        let gc = (*ty).tp_flags & ffi::Py_TPFLAGS_HAVE_GC != 0;
        let inst = Inst::<T>::from_ptr(slf);
        if T::needs_finalize(inst) && ffi::PyObject_CallFinalizerFromDealloc(slf) < 0 {
            return; // resurrected
        }
        if gc {
            ffi::PyObject_GC_UnTrack(slf.cast());
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
        ffi::Py_DECREF(ty.cast());
    }
}

/// Whether this instance has nothing but its payloads: no dict, no weak references, no finalizer run
/// (a block that was finalized is marked so for good: its next life would go unreported). Its block
/// can then be used again as it is.
#[inline(always)]
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

/// Frees an instance behind a C base, whose deallocator frees weak references, dict and memory.
unsafe extern "C" fn dealloc_behind<T: Class, R: Rest>(slf: *mut ffi::PyObject) {
    // SAFETY: as in `dealloc_whole`; the base's fields are as the base's own code left them.
    unsafe {
        let inst = Inst::<T>::from_ptr(slf);
        if T::needs_finalize(inst) && ffi::PyObject_CallFinalizerFromDealloc(slf) < 0 {
            return; // resurrected
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
        ffi::Py_DECREF(ty.cast());
    }
}

// ------------------------------------------------------------------------------- creation

/// Makes an instance natively: no `__init__`, payload as given, tracked by the collector if `track`.
#[inline(always)]
pub fn alloc<T: Class>(body: T, track: bool) -> PyRes<Own<T>> {
    // SAFETY: the block is exclusively ours; the payload is written before anybody sees it.
    unsafe {
        let ptr = block::<T>()?;
        payload::<T>(ptr).write(body);
        born(ptr, track)
    }
}

/// Makes an instance of a class that extends another of ours: one payload for each.
#[inline(always)]
pub fn alloc_extended<T: Extends<B>, B: Class>(base: B, body: T, track: bool) -> PyRes<Own<T>> {
    // SAFETY: as in `alloc`; `Extends` says that there is a B, which lies beside the T.
    unsafe {
        let ptr = block::<T>()?;
        payload::<B>(ptr).write(base);
        payload::<T>(ptr).write(body);
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
        Ok(block)
    }
}

#[inline(always)]
unsafe fn born<T: Class>(ptr: *mut ffi::PyObject, track: bool) -> PyRes<Own<T>> {
    // SAFETY: a fresh instance whose payloads are written.
    unsafe {
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

unsafe extern "C" fn new_slot<T: Class, R: Rest>(
    ty: *mut ffi::PyTypeObject,
    _args: *mut ffi::PyObject,
    _kwargs: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: GenericAlloc zeroes the block and tracks it; the payload is written before Python code
    // can run (allocation may trigger a collection, but only before tracking).
    unsafe {
        let ptr = ffi::PyType_GenericAlloc(ty, 0);
        if !ptr.is_null() {
            payload::<T>(ptr).write(T::default());
            R::init(ptr);
        }
        ptr
    }
}

// ------------------------------------------------------------------------------- type objects

/// Whose memory an instance's is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Ours alone (a base written in Python adds fields that nothing writes).
    Plain,
    /// Ours, on top of a C base's fields.
    Over,
    /// Ours behind a C base's fields.
    Behind,
}

/// The slots that know all payloads.
#[derive(Clone, Copy)]
struct Life {
    new: ffi::newfunc,
    traverse: ffi::traverseproc,
    clear: ffi::inquiry,
    dealloc_whole: ffi::destructor,
    dealloc_behind: ffi::destructor,
}

impl Life {
    const fn of<T: Class, R: Rest>() -> Life {
        Life {
            new: new_slot::<T, R>,
            traverse: traverse_slot::<T, R>,
            clear: clear_slot::<T, R>,
            dealloc_whole: dealloc_whole::<T, R>,
            dealloc_behind: dealloc_behind::<T, R>,
        }
    }
}

/// Builds a heap type for the payload `T`.
pub struct TypeBuilder<T: Class> {
    name: &'static CStr,
    bases: Vec<Obj>,
    place: Place,
    life: Life,
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
            bases: Vec::new(),
            place: Place::Plain,
            life: Life::of::<T, Nothing>(),
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

    /// Derives from a C type, placing the payload behind it at `offset` (at least the base's size).
    pub fn behind(mut self, base: Obj, offset: usize) -> Self {
        self.bases = vec![base];
        self.offset = offset;
        self.place = Place::Behind;
        self
    }

    /// Derives from C types (and types of ours over them), placing the payload at `offset` on top of
    /// fields that only their own constructors would fill.
    pub fn over(mut self, bases: Vec<Obj>, offset: usize) -> Self {
        self.bases = bases;
        self.offset = offset;
        self.place = Place::Over;
        self
    }

    /// Instances hold a `B` too, where B's instances have it.
    pub fn extends<B: Class>(mut self) -> Self
    where
        T: Extends<B>,
    {
        self.life = Life::of::<T, Payload<B>>();
        self
    }

    /// Derives from a class written in Python whose instances have no dict (`asyncio.Transport`).
    /// Its slots must stay empty: nothing releases them.
    pub fn over_python_class(mut self, base: Obj) -> Self {
        self.offset = basicsize(base.borrow()).next_multiple_of(size_of::<usize>());
        self.bases = vec![base];
        self
    }

    /// Allows Python subclasses and calls from Python (`tp_new`).
    pub fn subclassable(mut self) -> Self {
        self.subclassable = true;
        self
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
        let dealloc = match self.place {
            Place::Behind => self.life.dealloc_behind,
            Place::Plain | Place::Over => self.life.dealloc_whole,
        };
        self.slots.extend([
            ffi::PyType_Slot {
                slot: ffi::Py_tp_dealloc,
                pfunc: dealloc as *mut c_void,
            },
            ffi::PyType_Slot {
                slot: ffi::Py_tp_traverse,
                pfunc: self.life.traverse as *mut c_void,
            },
            ffi::PyType_Slot {
                slot: ffi::Py_tp_clear,
                pfunc: self.life.clear as *mut c_void,
            },
            ffi::PyType_Slot {
                slot: ffi::Py_tp_finalize,
                pfunc: finalize_slot::<T> as *mut c_void,
            },
        ]);
        if self.subclassable {
            self.slots.push(ffi::PyType_Slot {
                slot: ffi::Py_tp_new,
                pfunc: self.life.new as *mut c_void,
            });
        }
        let inherited = self
            .bases
            .iter()
            .map(|base| basicsize(base.borrow()))
            .max()
            .unwrap_or(0);
        let mut size = (self.offset + size_of::<T>()).max(inherited);
        let mut members = Vec::new();
        if self.weakrefs && self.place == Place::Plain {
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
            if self.bases.is_empty() {
                Obj::from_owned(ffi::PyType_FromSpec(&mut spec))?
            } else {
                let bases: Vec<Ref<'_>> = self.bases.iter().map(Obj::borrow).collect();
                let bases = crate::value::tuple_of(&bases)?;
                Obj::from_owned(ffi::PyType_FromSpecWithBases(&mut spec, bases.as_ptr()))?
            }
        };
        let cell = T::cell();
        cell.offset.store(self.offset, Ordering::Relaxed);
        cell.size.store(size, Ordering::Relaxed);
        if let Some(base) = self.bases.first() {
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

/// Whether instances of the Python class `ty` are made and freed by T's slots: T's type stands in its
/// chain of *layout* bases (`tp_base`). A class can derive from T and yet be laid out as a C base
/// that comes first; its instances would have no payload.
pub fn is_laid_out<T: Class>(ty: Ref<'_>) -> bool {
    let own = T::cell().type_ptr();
    let mut at = ty.as_ptr().cast::<ffi::PyTypeObject>();
    // SAFETY: a type object's chain of bases is alive as long as it is.
    unsafe {
        while !at.is_null() && !std::ptr::eq(at, own) {
            at = (*at).tp_base;
        }
    }
    !at.is_null()
}

/// Whether the Python class `ty` derives from T's type.
pub fn derives_from<T: Class>(ty: Ref<'_>) -> bool {
    // SAFETY: callers pass a type object; T's is alive.
    unsafe { ffi::PyType_IsSubtype(ty.as_ptr().cast(), T::cell().type_ptr()) != 0 }
}
