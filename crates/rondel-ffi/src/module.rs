//! The door between PyO3's module initialisation and this crate's object layer.

use crate::err::{PyRes, Raised};
use crate::obj::{Obj, Ref};
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
}

/// Runs `fill` on the module; its Python exception becomes PyO3's.
pub fn initialise(
    m: &Bound<'_, PyModule>,
    fill: impl FnOnce(&Module) -> PyRes<()>,
) -> PyResult<()> {
    // SAFETY: a bound module is alive, and the GIL is held.
    let module = Module(unsafe { Obj::from_borrowed(m.as_ptr()) });
    fill(&module).map_err(|_raised| PyErr::fetch(m.py()))
}
