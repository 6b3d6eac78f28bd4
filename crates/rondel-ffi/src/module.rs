//! The door between PyO3's module initialisation and this crate's object layer.
//!
//! The types and the interned names are statics of the process, made once. So a second import (of a
//! program that has emptied `sys.modules`) gets what the first has made, as types made anew would take
//! the place of those that living objects have; and another interpreter than the main one is refused.

use crate::err::{PyRes, Raised};
use crate::gil::GilStatic;
use crate::obj::{Obj, Ref};
use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;
use std::ffi::CStr;

/// The module that is being filled.
pub struct Module(Obj);

impl Module {
    pub fn obj(&self) -> Ref<'_> {
        self.0.borrow()
    }

    pub fn add(&self, name: &CStr, value: Obj) -> PyRes<()> {
        // SAFETY: a module and a live value; AddObjectRef takes its own reference.
        let status = unsafe {
            pyo3::ffi::PyModule_AddObjectRef(self.0.as_ptr(), name.as_ptr(), value.as_ptr())
        };
        if status < 0 {
            Err(Raised::assert_set())
        } else {
            Ok(())
        }
    }

    /// Adds what another module has and this one has not.
    fn take_over(&self, other: Ref<'_>) -> PyRes<()> {
        // SAFETY: two modules, alive; their dicts are borrowed from them.
        let status = unsafe {
            pyo3::ffi::PyDict_Merge(
                pyo3::ffi::PyModule_GetDict(self.0.as_ptr()),
                pyo3::ffi::PyModule_GetDict(other.as_ptr()),
                0,
            )
        };
        if status < 0 {
            Err(Raised::assert_set())
        } else {
            Ok(())
        }
    }
}

fn is_main_interpreter() -> bool {
    // SAFETY: the GIL is held; the main interpreter's number is 0.
    unsafe { pyo3::ffi::PyInterpreterState_GetID(pyo3::ffi::PyInterpreterState_Get()) == 0 }
}

/// The module that was filled.
static FIRST: GilStatic<Obj> = GilStatic::new();

/// Runs `fill` on the module, once in the process; its Python exception becomes PyO3's.
pub fn initialise(
    m: &Bound<'_, PyModule>,
    fill: impl FnOnce(&Module) -> PyRes<()>,
) -> PyResult<()> {
    // SAFETY: a bound module is alive, and the GIL is held.
    let module = Module(unsafe { Obj::from_borrowed(m.as_ptr()) });
    if !is_main_interpreter() {
        // CPython's words from 3.12 on, for interpreters that check.
        return Err(PyImportError::new_err(
            "module rondel._rondel does not support loading in subinterpreters",
        ));
    }
    let filled = match FIRST.get() {
        Some(first) => module.take_over(first.borrow()),
        None => fill(&module),
    };
    filled.map_err(|_raised| PyErr::fetch(m.py()))?;
    FIRST.set(module.0);
    Ok(())
}
