//! A C base's `__init__`, called by hand on an instance of ours.
//!
//! `asyncio.Future.__init__(future)` passes the type check of any subclass's instance, and begins
//! with releasing every field of the C struct: our payload, for a class *over* the C type. So the
//! `__init__` in the base's `__dict__` is replaced, once, by one of the same kind that hands instances
//! of ours to their own class. Nothing changes for others: the C type's slot stays as it is, and
//! its new Python subclasses inherit the function below, which costs one comparison of types.

use super::{Class, ClassCell};
use crate::err::{PyRes, Raised};
use crate::obj::{Obj, Ref};
use pyo3::ffi::{self, PyObject};
use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering;

unsafe extern "C" {
    fn PyDescr_NewWrapper(
        ty: *mut ffi::PyTypeObject,
        base: *mut ffi::wrapperbase,
        wrapped: *mut c_void,
    ) -> *mut PyObject;
}

unsafe extern "C" fn init<T: Class>(
    slf: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> c_int {
    let cell: &ClassCell = T::cell();
    let own = cell.type_ptr();
    // SAFETY: a slot wrapper has checked that `slf` is an instance of the base; the address is that
    // of the base's own `tp_init`, stored before this function could be reached.
    unsafe {
        let ours = std::ptr::eq(ffi::Py_TYPE(slf), own)
            || ffi::PyType_IsSubtype(ffi::Py_TYPE(slf), own) != 0;
        let stock = std::mem::transmute::<usize, Option<ffi::initproc>>(
            cell.base_init.load(Ordering::Relaxed),
        );
        match if ours { (*own).tp_init } else { stock } {
            Some(init) => init(slf, args, kwargs),
            None => 0,
        }
    }
}

/// Hands `base.__init__(instance)` to T's own `__init__` where the instance is a T. Once per base.
/// A base whose `__init__` is no slot's wrapper (somebody has replaced it) is left as it is.
pub fn share_init<T: Class>(base: Ref<'_>) -> PyRes<()> {
    let ty = base.as_ptr().cast::<ffi::PyTypeObject>();
    // SAFETY: a type object; its dict is read and written with the GIL held, and its cached
    // attributes are invalidated after. The descriptor's type is checked before its fields are read.
    unsafe {
        let dict = (*ty).tp_dict;
        if dict.is_null() {
            return Ok(());
        }
        let name = crate::value::intern(c"__init__")?;
        let Some(old) = crate::value::dict_get(Ref::from_ptr(dict), name.borrow())? else {
            return Ok(());
        };
        if !std::ptr::eq(old.type_ptr(), &raw const ffi::PyWrapperDescr_Type) {
            return Ok(());
        }
        let descr = old.as_ptr().cast::<ffi::PyWrapperDescrObject>();
        if (*descr).d_wrapped == init::<T> as *mut c_void {
            return Ok(());
        }
        T::cell()
            .base_init
            .store((*descr).d_wrapped as usize, Ordering::Relaxed);
        let new = Obj::from_owned(PyDescr_NewWrapper(
            ty,
            (*descr).d_base,
            init::<T> as *mut c_void,
        ))?;
        if ffi::PyDict_SetItem(dict, name.as_ptr(), new.as_ptr()) < 0 {
            return Err(Raised::assert_set());
        }
        ffi::PyType_Modified(ty);
    }
    Ok(())
}
