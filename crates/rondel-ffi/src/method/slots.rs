//! Type slots: `__repr__`, `__iter__`, `__await__`, their asynchronous kin, `__init__`, comparison and hash.
//!
//! A slot is called with an instance of its type and with the GIL held.

use super::{Args, SlotDef, guard, guard_status, item};
use crate::class::{Class, Inst};
use crate::err::PyRes;
use crate::obj::{Obj, Ref};
use pyo3::ffi;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Which unary slot a function fills.
#[derive(Clone, Copy)]
pub enum Unary {
    Repr,
    Iter,
    Await,
    AsyncIter,
    AsyncNext,
}

/// `__repr__`, `__iter__`, `__await__`, `__aiter__` or `__anext__`.
pub fn unary<T: Class, F>(which: Unary, _f: F) -> SlotDef
where
    F: for<'a> Fn(Inst<'a, T>) -> PyRes<Obj> + Copy + 'static,
{
    unsafe extern "C" fn tramp<T: Class, F>(slf: *mut ffi::PyObject) -> *mut ffi::PyObject
    where
        F: for<'a> Fn(Inst<'a, T>) -> PyRes<Obj> + Copy + 'static,
    {
        // SAFETY: slots are called with an instance of their type.
        guard(|| item::<F>()(unsafe { Inst::from_ptr(slf) }))
    }
    let slot = match which {
        Unary::Repr => ffi::Py_tp_repr,
        Unary::Iter => ffi::Py_tp_iter,
        Unary::Await => ffi::Py_am_await,
        Unary::AsyncIter => ffi::Py_am_aiter,
        Unary::AsyncNext => ffi::Py_am_anext,
    };
    SlotDef {
        slot,
        function: tramp::<T, F> as *mut c_void,
    }
}

/// `__init__`.
pub fn init<T: Class, F>(_f: F) -> SlotDef
where
    F: for<'a> Fn(Inst<'a, T>, Args<'a>) -> PyRes<()> + Copy + 'static,
{
    unsafe extern "C" fn tramp<T: Class, F>(
        slf: *mut ffi::PyObject,
        args: *mut ffi::PyObject,
        kwargs: *mut ffi::PyObject,
    ) -> c_int
    where
        F: for<'a> Fn(Inst<'a, T>, Args<'a>) -> PyRes<()> + Copy + 'static,
    {
        // SAFETY: `args` is a tuple, `kwargs` a dict or null, both alive for the call. The vectors own
        // their items: the dict may be somebody's, who changes it meanwhile; nothing that could run
        // other code (before 3.12 a tuple's allocation can) comes between its first and its last item.
        guard_status(|| unsafe {
            let count = ffi::PyTuple_Size(args) as usize;
            let mut vector: Vec<Obj> = (0..count)
                .map(|i| Obj::from_borrowed(ffi::PyTuple_GetItem(args, i as isize)))
                .collect();
            let mut names = None;
            if !kwargs.is_null() && ffi::PyDict_Size(kwargs) > 0 {
                let mut keys: Vec<Obj> = Vec::new();
                let (mut pos, mut key, mut value) = (0, std::ptr::null_mut(), std::ptr::null_mut());
                while ffi::PyDict_Next(kwargs, &mut pos, &mut key, &mut value) != 0 {
                    keys.push(Obj::from_borrowed(key));
                    vector.push(Obj::from_borrowed(value));
                }
                let borrowed: Vec<Ref<'_>> = keys.iter().map(Obj::borrow).collect();
                names = Some(crate::value::tuple_of(&borrowed)?);
            }
            let names_ptr = names.as_ref().map_or(std::ptr::null_mut(), Obj::as_ptr);
            item::<F>()(
                Inst::from_ptr(slf),
                Args::new(vector.as_ptr().cast(), count, names_ptr),
            )
        })
    }
    SlotDef {
        slot: ffi::Py_tp_init,
        function: tramp::<T, F> as *mut c_void,
    }
}

/// The six comparisons; `None` for NotImplemented.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Less,
    LessEqual,
    Equal,
    NotEqual,
    Greater,
    GreaterEqual,
}

/// `__lt__` and its kin.
pub fn compare<T: Class, F>(_f: F) -> SlotDef
where
    F: for<'a> Fn(Inst<'a, T>, Ref<'a>, Comparison) -> PyRes<Option<bool>> + Copy + 'static,
{
    unsafe extern "C" fn tramp<T: Class, F>(
        slf: *mut ffi::PyObject,
        other: *mut ffi::PyObject,
        op: c_int,
    ) -> *mut ffi::PyObject
    where
        F: for<'a> Fn(Inst<'a, T>, Ref<'a>, Comparison) -> PyRes<Option<bool>> + Copy + 'static,
    {
        let op = match op {
            ffi::Py_LT => Comparison::Less,
            ffi::Py_LE => Comparison::LessEqual,
            ffi::Py_EQ => Comparison::Equal,
            ffi::Py_NE => Comparison::NotEqual,
            ffi::Py_GT => Comparison::Greater,
            _ => Comparison::GreaterEqual,
        };
        // SAFETY: slots are called with an instance of their type and a live operand;
        // NotImplemented is a live singleton.
        guard(|| unsafe {
            Ok(
                match item::<F>()(Inst::from_ptr(slf), Ref::from_ptr(other), op)? {
                    Some(answer) => Obj::bool(answer),
                    None => Obj::from_borrowed(ffi::Py_NotImplemented()),
                },
            )
        })
    }
    SlotDef {
        slot: ffi::Py_tp_richcompare,
        function: tramp::<T, F> as *mut c_void,
    }
}

/// `__hash__`.
pub fn hash<T: Class, F>(_f: F) -> SlotDef
where
    F: for<'a> Fn(Inst<'a, T>) -> isize + Copy + 'static,
{
    unsafe extern "C" fn tramp<T: Class, F>(slf: *mut ffi::PyObject) -> ffi::Py_hash_t
    where
        F: for<'a> Fn(Inst<'a, T>) -> isize + Copy + 'static,
    {
        let value = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: slots are called with an instance of their type.
            item::<F>()(unsafe { Inst::from_ptr(slf) })
        }));
        match value.unwrap_or(-2) {
            -1 => -2,
            h => h,
        }
    }
    SlotDef {
        slot: ffi::Py_tp_hash,
        function: tramp::<T, F> as *mut c_void,
    }
}
