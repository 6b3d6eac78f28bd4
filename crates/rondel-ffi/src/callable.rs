//! A native callable that passes for a coroutine function.
//!
//! `asyncio.sleep` is an `async def` function: `inspect.iscoroutinefunction` says so by the code
//! object's flags (and, from 3.12 on, by a marker). A builtin function has neither. This type is
//! called by vectorcall, as a builtin is, and has a `__dict__` that holds what introspection reads
//! (`__code__`, `__defaults__`, …), taken over from the function it stands for.

use crate::class::{Class, ClassCell, ObjCell, Visit};
use crate::err::PyRes;
use crate::method::{Args, item};
use crate::obj::{Obj, Ref};
use pyo3::ffi;
use std::cell::Cell;
use std::ffi::c_void;

#[repr(C)]
#[derive(Default)]
pub struct Callable {
    /// First: the type's `__vectorcalloffset__` points here.
    vectorcall: Cell<Option<ffi::vectorcallfunc>>,
    /// Second: the type's `__dictoffset__` points here.
    dict: ObjCell,
}

static CELL: ClassCell = ClassCell::new();

impl Class for Callable {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    // The dict is the type's own (`__dictoffset__`): `class` visits and clears it, and a reference
    // visited twice would pass for garbage.
    fn traverse(&self, _visit: &mut Visit) {}
    fn clear(&self) {}
}

/// Builds the type. Once, at import.
pub fn build() -> PyRes<Obj> {
    let base = size_of::<ffi::PyObject>() as ffi::Py_ssize_t;
    let member = |name: &'static std::ffi::CStr, field: usize| ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code: ffi::Py_T_PYSSIZET,
        offset: base + field as ffi::Py_ssize_t,
        flags: ffi::Py_READONLY,
        doc: std::ptr::null(),
    };
    // SAFETY: an all-zero member definition ends the array.
    let end: ffi::PyMemberDef = unsafe { std::mem::zeroed() };
    let members = vec![
        member(
            c"__vectorcalloffset__",
            std::mem::offset_of!(Callable, vectorcall),
        ),
        member(c"__dictoffset__", std::mem::offset_of!(Callable, dict)),
        end,
    ];
    let members = Box::leak(members.into_boxed_slice());
    // SAFETY: the getter and setter of a `__dict__` at the type's dict offset.
    let getset = vec![
        ffi::PyGetSetDef {
            name: c"__dict__".as_ptr(),
            get: Some(ffi::PyObject_GenericGetDict),
            set: Some(ffi::PyObject_GenericSetDict),
            doc: std::ptr::null(),
            closure: std::ptr::null_mut(),
        },
        ffi::PyGetSetDef::default(),
    ];
    let getset = Box::leak(getset.into_boxed_slice());
    crate::class::TypeBuilder::<Callable>::new(c"rondel.coroutine_function")
        .slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void)
        .slot(ffi::Py_tp_members, members.as_mut_ptr().cast())
        .slot(ffi::Py_tp_getset, getset.as_mut_ptr().cast())
        .flag(ffi::Py_TPFLAGS_HAVE_VECTORCALL)
        .build()
}

/// Makes a callable of a function item; `like` is the Python function whose looks it takes.
pub fn coroutine_function<F>(_f: F, like: Ref<'_>) -> PyRes<Obj>
where
    F: for<'a> Fn(Args<'a>) -> PyRes<Obj> + Copy + 'static,
{
    unsafe extern "C" fn tramp<F>(
        _callable: *mut ffi::PyObject,
        args: *const *mut ffi::PyObject,
        nargsf: usize,
        names: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject
    where
        F: for<'a> Fn(Args<'a>) -> PyRes<Obj> + Copy + 'static,
    {
        let count = nargsf & !ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
        // SAFETY: the vector is CPython's for this call.
        crate::method::guard(|| unsafe { item::<F>()(Args::new(args, count, names)) })
    }
    let made = crate::class::alloc(
        Callable {
            vectorcall: Cell::new(Some(tramp::<F>)),
            dict: ObjCell::new(Some(crate::value::dict()?)),
        },
        true,
    )?;
    for name in [
        c"__name__",
        c"__qualname__",
        c"__doc__",
        c"__code__",
        c"__defaults__",
        c"__kwdefaults__",
        c"__annotations__",
        c"__module__",
    ] {
        let name = crate::value::intern(name)?;
        let looks = crate::call::getattr(like, name.borrow())?;
        crate::call::setattr(made.obj(), name.borrow(), looks.borrow())?;
    }
    // inspect.signature() takes what has a function's attributes for a function; from 3.12 on this
    // marker is what asyncio and inspect ask for.
    let inspect = crate::call::import(c"inspect")?;
    let marker = crate::value::intern(c"_is_coroutine_mark")?;
    if let Some(mark) = crate::call::getattr_opt(inspect.borrow(), marker.borrow())? {
        let attribute = crate::value::intern(c"_is_coroutine_marker")?;
        crate::call::setattr(made.obj(), attribute.borrow(), mark.borrow())?;
    }
    Ok(made.into_obj())
}
