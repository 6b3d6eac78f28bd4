//! Python weak references: telling whether an object is the one that was seen before.
//!
//! An address alone does not tell, as a new object may lie where an old one was. Used with the GIL
//! held, as everything here.

use crate::err::{PyRes, Raised};
use crate::obj::{Obj, Ref};
use pyo3::ffi;

/// A `weakref.ref` without a callback.
pub struct WeakRef(Obj);

impl WeakRef {
    /// # Errors
    /// TypeError for an object that can't be referred to weakly.
    pub fn new(obj: Ref<'_>) -> PyRes<WeakRef> {
        // SAFETY: alive; a null callback asks for none; a new reference or null with an error.
        unsafe {
            Obj::from_owned(ffi::PyWeakref_NewRef(obj.as_ptr(), std::ptr::null_mut())).map(WeakRef)
        }
    }

    /// The reference as Python has it.
    #[must_use]
    pub fn into_obj(self) -> Obj {
        self.0
    }

    /// The object, if it is alive.
    #[inline]
    pub fn get(&self) -> Option<Obj> {
        #[cfg(Py_3_13)]
        // SAFETY: a weak reference, alive; `found` gets a new reference or null.
        unsafe {
            let mut found = std::ptr::null_mut();
            if ffi::PyWeakref_GetRef(self.0.as_ptr(), &raw mut found) < 0 {
                Raised::assert_set().clear();
                return None;
            }
            Obj::from_owned_opt(found)
        }
        #[cfg(not(Py_3_13))]
        // SAFETY: a weak reference, alive; gives a borrowed reference, None for an object that is gone.
        // One that is just being deallocated counts as gone: a reference taken then would free it twice.
        unsafe {
            let found = ffi::PyWeakref_GetObject(self.0.as_ptr());
            if found.is_null() {
                Raised::assert_set().clear();
                return None;
            }
            if std::ptr::eq(found, ffi::Py_None()) || ffi::Py_REFCNT(found) == 0 {
                return None;
            }
            Some(Obj::from_borrowed(found))
        }
    }

    /// Whether it refers to `obj`, which is alive.
    #[inline]
    pub fn is(&self, obj: Ref<'_>) -> bool {
        self.get().is_some_and(|found| found.borrow().is(obj))
    }
}
