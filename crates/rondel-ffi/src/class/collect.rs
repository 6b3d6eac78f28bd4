//! The collector's side of a class: traverse and clear, for the payloads and for `__dict__`.
//!
//! `__dict__` is a field of the instance or, from 3.12 on, managed by the interpreter in front of it.
//! Only the dict of our own type is ours: a Python subclass that adds one looks after it itself. The
//! collector runs with the GIL held, in whatever thread allocates; traversing runs no Python code,
//! clearing can.

use super::payload::Rest;
use super::{Class, Inst, ObjCell, OwnCell};
use crate::obj::Ref;
use crate::refs;
use pyo3::ffi;
use std::ffi::{c_int, c_void};

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

pub(super) unsafe extern "C" fn traverse_slot<T: Class, R: Rest>(
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
pub(super) const MANAGED_DICT: std::ffi::c_ulong = 1 << 4;

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
pub(super) unsafe fn dict_slot(
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

pub(super) unsafe fn clear_dict(slf: *mut ffi::PyObject, ty: *mut ffi::PyTypeObject) {
    // SAFETY: a live object of ours, the GIL is held.
    unsafe {
        let dict = dict_slot(slf, ty);
        if !dict.is_null() && !(*dict).is_null() {
            let old = std::mem::replace(&mut *dict, std::ptr::null_mut());
            refs::down(old);
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

pub(super) unsafe extern "C" fn clear_slot<T: Class, R: Rest>(slf: *mut ffi::PyObject) -> c_int {
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
