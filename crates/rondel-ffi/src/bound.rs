//! What `async with` looks up: `__aenter__` and `__aexit__`, bound to the object that it enters.
//!
//! The interpreter looks both up as attributes of the object's type and binds them, so that each block
//! makes two bound methods for one call each. CPython has no recycled memory for those, and their making
//! and unmaking is a quarter of what `async with timeout()` takes. A [`Bound`] comes from a list of our
//! own and calls the function without its arguments being shifted.
//!
//! Everything else that is done to it is done to the `types.MethodType` that it stands for, which is
//! made for the purpose: attributes (`__class__` too, so that `isinstance` and `inspect` take it for
//! one), comparison, hash and repr. All of it runs with the GIL held.

use crate::call;
use crate::class::{Class, ClassCell, Inst, ObjCell, TypeBuilder, Visit, alloc_with};
use crate::err::{Builtin, PyRes};
use crate::freelist::FreeList;
use crate::method::guard;
use crate::obj::{Obj, Ref};
use pyo3::ffi;
use std::cell::Cell;
use std::ffi::{c_int, c_void};

#[repr(C)]
#[derive(Default)]
pub(crate) struct Bound {
    /// First: the type's `__vectorcalloffset__` points here.
    vectorcall: Cell<Option<ffi::vectorcallfunc>>,
    /// The callable in the class. Empty, as the next, when the collector has cleared it.
    function: ObjCell,
    instance: ObjCell,
}

static CELL: ClassCell = ClassCell::new();
static FREE: FreeList = FreeList::new();

impl Class for Bound {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.function);
        visit.cell(&self.instance);
    }
    fn clear(&self) {
        self.function.set(None);
        self.instance.set(None);
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&FREE)
    }
}

/// Binds a callable, which is called by `vectorcall` with the [`Bound`] for its callable.
#[inline(always)]
pub(crate) fn bind(
    vectorcall: ffi::vectorcallfunc,
    function: Ref<'_>,
    instance: Ref<'_>,
) -> PyRes<Obj> {
    let made = alloc_with(
        || Bound {
            vectorcall: Cell::new(Some(vectorcall)),
            function: ObjCell::new(Some(function.own())),
            instance: ObjCell::new(Some(instance.own())),
        },
        // A suspended block keeps it, and it the block's object.
        true,
    )?;
    Ok(made.into_obj())
}

/// The `types.MethodType` that it stands for.
fn method(slf: Inst<'_, Bound>) -> PyRes<Obj> {
    let (Some(function), Some(instance)) = (slf.function.get(), slf.instance.get()) else {
        return Err(Builtin::Runtime.raise("the collector has taken this method apart"));
    };
    // SAFETY: two live objects.
    unsafe {
        Obj::from_owned(crate::private::PyMethod_New(
            function.as_ptr(),
            instance.as_ptr(),
        ))
    }
}

unsafe extern "C" fn getattro(
    slf: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: slots are called with an instance of their type; the name is alive.
    guard(|| unsafe { call::getattr(method(Inst::from_ptr(slf))?.borrow(), Ref::from_ptr(name)) })
}

unsafe extern "C" fn repr(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: as above.
    guard(|| unsafe { Obj::from_owned(ffi::PyObject_Repr(method(Inst::from_ptr(slf))?.as_ptr())) })
}

unsafe extern "C" fn hash(slf: *mut ffi::PyObject) -> ffi::Py_hash_t {
    // SAFETY: as above.
    match unsafe { method(Inst::from_ptr(slf)) } {
        // SAFETY: a live object.
        Ok(method) => unsafe { ffi::PyObject_Hash(method.as_ptr()) },
        Err(_raised) => -1,
    }
}

unsafe extern "C" fn compare(
    slf: *mut ffi::PyObject,
    other: *mut ffi::PyObject,
    op: c_int,
) -> *mut ffi::PyObject {
    // SAFETY: as above; `other` is any live object.
    guard(|| unsafe {
        let mine = method(Inst::from_ptr(slf))?;
        let other = Ref::from_ptr(other);
        let theirs = match other.exact::<Bound>() {
            Some(bound) => method(bound)?,
            None => other.own(),
        };
        Obj::from_owned(ffi::PyObject_RichCompare(
            mine.as_ptr(),
            theirs.as_ptr(),
            op,
        ))
    })
}

/// Builds the type. Once, at import.
pub(crate) fn build() -> PyRes<Obj> {
    let at = size_of::<ffi::PyObject>() + std::mem::offset_of!(Bound, vectorcall);
    TypeBuilder::<Bound>::new(c"rondel.bound_coroutine_method")
        .vectorcall_at(at)
        .weakrefs()
        .slot(ffi::Py_tp_getattro, getattro as *mut c_void)
        .slot(ffi::Py_tp_repr, repr as *mut c_void)
        .slot(ffi::Py_tp_hash, hash as *mut c_void)
        .slot(ffi::Py_tp_richcompare, compare as *mut c_void)
        .build()
}

/// What the [`Bound`] that is called is bound to.
///
/// # Safety
/// `callable` is a `Bound`, alive.
#[inline(always)]
pub(crate) unsafe fn instance(callable: *mut ffi::PyObject) -> Option<Obj> {
    // SAFETY: the caller's word.
    unsafe { Inst::<Bound>::from_ptr(callable).data().instance.get() }
}
