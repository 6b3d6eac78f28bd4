//! Methods, class methods and module functions; native callables bound to an object.
//!
//! A definition that CPython keeps pointing at is leaked or static. The trampolines run with the GIL
//! held, like all of the module.

use super::{Args, MethodDef, def, guard, item};
use crate::class::{Class, Inst};
use crate::err::{PyRes, Raised};
use crate::obj::{Obj, Ref};
use pyo3::ffi;
use std::ffi::{CStr, CString};

/// A method without arguments.
pub fn noargs<T: Class, F>(name: &'static CStr, doc: &'static CStr, _f: F) -> MethodDef
where
    F: for<'a> Fn(Inst<'a, T>) -> PyRes<Obj> + Copy + 'static,
{
    unsafe extern "C" fn tramp<T: Class, F>(
        slf: *mut ffi::PyObject,
        _: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject
    where
        F: for<'a> Fn(Inst<'a, T>) -> PyRes<Obj> + Copy + 'static,
    {
        // SAFETY: method descriptors check self's type before they call.
        guard(|| item::<F>()(unsafe { Inst::from_ptr(slf) }))
    }
    def(
        name,
        signed(name, doc),
        ffi::PyMethodDefPointer {
            PyCFunction: tramp::<T, F>,
        },
        ffi::METH_NOARGS,
    )
}

/// The doc with the signature that `inspect` reads off it; CPython adds it itself from 3.13 on.
fn signed(name: &CStr, doc: &'static CStr) -> &'static CStr {
    let (name, text) = (name.to_string_lossy(), doc.to_string_lossy());
    if text.contains("\n--\n\n") {
        return doc;
    }
    match CString::new(format!("{name}($self, /)\n--\n\n{text}")) {
        Ok(signed) => Box::leak(signed.into_boxed_c_str()),
        Err(_) => doc,
    }
}

/// A method with one positional argument.
pub fn onearg<T: Class, F>(name: &'static CStr, doc: &'static CStr, _f: F) -> MethodDef
where
    F: for<'a> Fn(Inst<'a, T>, Ref<'a>) -> PyRes<Obj> + Copy + 'static,
{
    unsafe extern "C" fn tramp<T: Class, F>(
        slf: *mut ffi::PyObject,
        arg: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject
    where
        F: for<'a> Fn(Inst<'a, T>, Ref<'a>) -> PyRes<Obj> + Copy + 'static,
    {
        // SAFETY: as in `noargs`; the argument is alive for the call.
        guard(|| unsafe { item::<F>()(Inst::from_ptr(slf), Ref::from_ptr(arg)) })
    }
    def(
        name,
        doc,
        ffi::PyMethodDefPointer {
            PyCFunction: tramp::<T, F>,
        },
        ffi::METH_O,
    )
}

/// A method with positional and keyword arguments.
pub fn fast<T: Class, F>(name: &'static CStr, doc: &'static CStr, _f: F) -> MethodDef
where
    F: for<'a> Fn(Inst<'a, T>, Args<'a>) -> PyRes<Obj> + Copy + 'static,
{
    unsafe extern "C" fn tramp<T: Class, F>(
        slf: *mut ffi::PyObject,
        args: *const *mut ffi::PyObject,
        nargs: ffi::Py_ssize_t,
        names: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject
    where
        F: for<'a> Fn(Inst<'a, T>, Args<'a>) -> PyRes<Obj> + Copy + 'static,
    {
        // SAFETY: as in `noargs`; the vector is CPython's for this call.
        guard(|| unsafe {
            item::<F>()(Inst::from_ptr(slf), Args::new(args, nargs as usize, names))
        })
    }
    def(
        name,
        doc,
        ffi::PyMethodDefPointer {
            PyCFunctionFastWithKeywords: tramp::<T, F>,
        },
        ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
    )
}

/// A module function with positional and keyword arguments.
pub fn function<F>(name: &'static CStr, doc: &'static CStr, _f: F) -> MethodDef
where
    F: for<'a> Fn(Args<'a>) -> PyRes<Obj> + Copy + 'static,
{
    unsafe extern "C" fn tramp<F>(
        _module: *mut ffi::PyObject,
        args: *const *mut ffi::PyObject,
        nargs: ffi::Py_ssize_t,
        names: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject
    where
        F: for<'a> Fn(Args<'a>) -> PyRes<Obj> + Copy + 'static,
    {
        // SAFETY: the vector is CPython's for this call.
        guard(|| unsafe { item::<F>()(Args::new(args, nargs as usize, names)) })
    }
    def(
        name,
        doc,
        ffi::PyMethodDefPointer {
            PyCFunctionFastWithKeywords: tramp::<F>,
        },
        ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
    )
}

/// A class method with one argument: `f(cls, arg)`.
pub fn class_method<F>(name: &'static CStr, doc: &'static CStr, _f: F) -> MethodDef
where
    F: for<'a> Fn(Ref<'a>, Ref<'a>) -> PyRes<Obj> + Copy + 'static,
{
    unsafe extern "C" fn tramp<F>(
        cls: *mut ffi::PyObject,
        arg: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject
    where
        F: for<'a> Fn(Ref<'a>, Ref<'a>) -> PyRes<Obj> + Copy + 'static,
    {
        // SAFETY: CPython passes the class and the argument, both alive for the call.
        guard(|| unsafe { item::<F>()(Ref::from_ptr(cls), Ref::from_ptr(arg)) })
    }
    def(
        name,
        doc,
        ffi::PyMethodDefPointer {
            PyCFunction: tramp::<F>,
        },
        ffi::METH_O | ffi::METH_CLASS,
    )
}

/// A class method with positional and keyword arguments: `f(cls, args)`.
pub fn class_fast<F>(name: &'static CStr, doc: &'static CStr, _f: F) -> MethodDef
where
    F: for<'a> Fn(Ref<'a>, Args<'a>) -> PyRes<Obj> + Copy + 'static,
{
    unsafe extern "C" fn tramp<F>(
        cls: *mut ffi::PyObject,
        args: *const *mut ffi::PyObject,
        nargs: ffi::Py_ssize_t,
        names: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject
    where
        F: for<'a> Fn(Ref<'a>, Args<'a>) -> PyRes<Obj> + Copy + 'static,
    {
        // SAFETY: CPython passes the class and its vector, alive for the call.
        guard(|| unsafe { item::<F>()(Ref::from_ptr(cls), Args::new(args, nargs as usize, names)) })
    }
    def(
        name,
        doc,
        ffi::PyMethodDefPointer {
            PyCFunctionFastWithKeywords: tramp::<F>,
        },
        ffi::METH_FASTCALL | ffi::METH_KEYWORDS | ffi::METH_CLASS,
    )
}

/// Adds functions to a module.
pub fn add_functions(module: Ref<'_>, defs: Vec<MethodDef>) -> PyRes<()> {
    let mut defs: Vec<ffi::PyMethodDef> = defs.into_iter().map(|d| d.0).collect();
    defs.push(ffi::PyMethodDef::zeroed());
    let defs = Box::leak(defs.into_boxed_slice());
    // SAFETY: a module, alive; the definitions are leaked because functions point at them.
    if unsafe { ffi::PyModule_AddFunctions(module.as_ptr(), defs.as_mut_ptr()) } < 0 {
        return Err(Raised::assert_set());
    }
    Ok(())
}

/// Makes a bound native callable: a builtin function whose `self` is `slf`.
/// `def` must be leaked or static.
pub fn bind(def: &'static BoundDef, slf: Ref<'_>) -> PyRes<Obj> {
    // SAFETY: CPython reads the definition only; it lives for ever.
    unsafe {
        Obj::from_owned(ffi::PyCFunction_NewEx(
            std::ptr::from_ref(&def.0.0).cast_mut(),
            slf.as_ptr(),
            std::ptr::null_mut(),
        ))
    }
}

/// A method definition that bound callables share.
pub struct BoundDef(MethodDef);
// SAFETY: immutable after creation.
unsafe impl Sync for BoundDef {}
// SAFETY: as above.
unsafe impl Send for BoundDef {}

impl BoundDef {
    pub fn new(def: MethodDef) -> BoundDef {
        BoundDef(def)
    }
}
