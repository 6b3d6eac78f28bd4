//! Which payloads an instance holds and where: its class's own, and what [`Rest`] stands for.
//!
//! A type's slots are generic over both, so that each sees all of an instance without a table. All of
//! it runs with the GIL held.

use super::{Class, Inst, Visit};
use pyo3::ffi;
use std::marker::PhantomData;

/// What an instance holds besides its class's own payload. Every function takes a live instance
/// (`write`: fresh memory of one) whose type was built with this `Rest`.
pub(super) trait Rest: 'static {
    /// The payload on its own, before there is memory for it.
    type Made;
    fn make() -> Self::Made;
    unsafe fn write(slf: *mut ffi::PyObject, made: Self::Made);
    unsafe fn traverse(slf: *mut ffi::PyObject, visit: &mut Visit);
    unsafe fn retire(slf: *mut ffi::PyObject);
    unsafe fn clear(slf: *mut ffi::PyObject);
    unsafe fn drop(slf: *mut ffi::PyObject);
}

/// Nothing else.
pub(super) struct Nothing;

impl Rest for Nothing {
    type Made = ();
    fn make() {}
    unsafe fn write(_slf: *mut ffi::PyObject, (): ()) {}
    unsafe fn traverse(_slf: *mut ffi::PyObject, _visit: &mut Visit) {}
    unsafe fn retire(_slf: *mut ffi::PyObject) {}
    unsafe fn clear(_slf: *mut ffi::PyObject) {}
    unsafe fn drop(_slf: *mut ffi::PyObject) {}
}

/// The payload of a base of ours.
pub(super) struct Payload<B: Class>(PhantomData<B>);

impl<B: Class> Rest for Payload<B> {
    type Made = B;
    fn make() -> B {
        B::default()
    }
    unsafe fn write(slf: *mut ffi::PyObject, made: B) {
        // SAFETY: the trait's contract, here and below; nothing is overwritten that needs a drop.
        unsafe { payload::<B>(slf).write(made) }
    }
    unsafe fn traverse(slf: *mut ffi::PyObject, visit: &mut Visit) {
        // SAFETY: as above.
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
}

/// Where the payload of class `T` lies in an instance.
#[inline(always)]
pub(super) unsafe fn payload<T: Class>(slf: *mut ffi::PyObject) -> *mut T {
    // SAFETY: the caller's word that the instance has one.
    unsafe { slf.cast::<u8>().add(T::place()).cast() }
}
