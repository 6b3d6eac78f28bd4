//! Properties of our types. Descriptors check `self`'s type and call with the GIL held.

use super::{PropertyDef, guard, guard_status, item};
use crate::class::{Class, Inst};
use crate::err::PyRes;
use crate::obj::{Obj, Ref};
use pyo3::ffi;
use std::ffi::{CStr, c_int, c_void};

/// A read-only property.
pub fn getter<T: Class, G>(name: &'static CStr, _get: G) -> PropertyDef
where
    G: for<'a> Fn(Inst<'a, T>) -> PyRes<Obj> + Copy + 'static,
{
    PropertyDef(ffi::PyGetSetDef {
        name: name.as_ptr(),
        get: Some(get_tramp::<T, G>),
        ..Default::default()
    })
}

/// A property that can be set (`None` as the value means deletion).
pub fn property<T: Class, G, S>(name: &'static CStr, _get: G, _set: S) -> PropertyDef
where
    G: for<'a> Fn(Inst<'a, T>) -> PyRes<Obj> + Copy + 'static,
    S: for<'a> Fn(Inst<'a, T>, Option<Ref<'a>>) -> PyRes<()> + Copy + 'static,
{
    unsafe extern "C" fn set_tramp<T: Class, S>(
        slf: *mut ffi::PyObject,
        value: *mut ffi::PyObject,
        _: *mut c_void,
    ) -> c_int
    where
        S: for<'a> Fn(Inst<'a, T>, Option<Ref<'a>>) -> PyRes<()> + Copy + 'static,
    {
        // SAFETY: descriptors check self's type; the value is null for a deletion.
        guard_status(|| unsafe {
            let value = if value.is_null() {
                None
            } else {
                Some(Ref::from_ptr(value))
            };
            item::<S>()(Inst::from_ptr(slf), value)
        })
    }
    PropertyDef(ffi::PyGetSetDef {
        name: name.as_ptr(),
        get: Some(get_tramp::<T, G>),
        set: Some(set_tramp::<T, S>),
        ..Default::default()
    })
}

unsafe extern "C" fn get_tramp<T: Class, G>(
    slf: *mut ffi::PyObject,
    _: *mut c_void,
) -> *mut ffi::PyObject
where
    G: for<'a> Fn(Inst<'a, T>) -> PyRes<Obj> + Copy + 'static,
{
    // SAFETY: descriptors check self's type.
    guard(|| item::<G>()(unsafe { Inst::from_ptr(slf) }))
}
