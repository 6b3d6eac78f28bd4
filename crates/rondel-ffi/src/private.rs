//! The few CPython entry points outside its documented API, in one place.
//!
//! Each has been stable from 3.11 to 3.14; each line says why nothing public serves.

use pyo3::ffi;

/// `PyObject_GC_IsTracked` without the call: the first word of the collector's header, which lies
/// before the object, is null for an object that it does not know. (Asked at every step of a task.)
///
/// # Safety
/// `obj` is alive and of a type with `Py_TPFLAGS_HAVE_GC`.
#[inline(always)]
pub(crate) unsafe fn is_tracked(obj: *mut ffi::PyObject) -> bool {
    // SAFETY: the header of two words stands before every such object.
    unsafe { *obj.cast::<usize>().sub(2) != 0 }
}

/// `PyObject_GC_IsFinalized` without the call: a bit of the header's second word.
///
/// # Safety
/// As for [`is_tracked`].
#[inline(always)]
pub(crate) unsafe fn is_finalized(obj: *mut ffi::PyObject) -> bool {
    // SAFETY: as above.
    unsafe { *obj.cast::<usize>().sub(1) & 1 != 0 }
}

/// Whether the collector is taking the object apart right now: a bit of the header's second word that
/// it sets on what it looks at, and leaves on what it has found to be garbage.
///
/// # Safety
/// As for [`is_tracked`].
#[inline(always)]
pub(crate) unsafe fn is_garbage(obj: *mut ffi::PyObject) -> bool {
    // SAFETY: as above.
    unsafe { *obj.cast::<usize>().sub(1) & 2 != 0 }
}

/// The address of a Python object, as a key of identity.
pub type RawObject = ffi::PyObject;

unsafe extern "C" {
    /// Allocates an instance without zeroing it and without tracking it. The public
    /// `PyType_GenericAlloc` does both, which is most of a future's price.
    pub(crate) fn _PyObject_GC_New(ty: *mut ffi::PyTypeObject) -> *mut ffi::PyObject;

    /// Starts the life of a recycled block (reference count 1; keeps `-X dev` builds' books).
    pub(crate) fn _Py_NewReference(op: *mut ffi::PyObject);

    /// A bound method. Documented C API; the bindings lack it.
    pub(crate) fn PyMethod_New(
        function: *mut ffi::PyObject,
        instance: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject;
}
