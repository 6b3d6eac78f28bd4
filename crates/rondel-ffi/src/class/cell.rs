//! Fields of a payload that hold a reference and can be set through `&self`.
//!
//! The GIL serialises access. An old value leaves its cell before it is dropped, as dropping it can
//! run Python code that comes back to the cell. What `peek` lends is for use at once.

use super::{Class, Inst, Own};
use crate::obj::{Obj, Ref};
use std::cell::{Cell, UnsafeCell};

/// A cell for an optional reference.
#[derive(Default)]
#[repr(transparent)]
pub struct ObjCell(UnsafeCell<Option<Obj>>);

impl ObjCell {
    #[inline(always)]
    pub fn new(value: Option<Obj>) -> ObjCell {
        ObjCell(UnsafeCell::new(value))
    }

    /// A new reference to the content.
    #[inline(always)]
    pub fn get(&self) -> Option<Obj> {
        // SAFETY: GIL held; cloning only increments a count and runs no other code.
        unsafe { (*self.0.get()).clone() }
    }

    /// The content, borrowed. Only for use before any Python code can run or the cell is set.
    #[inline(always)]
    pub fn peek(&self) -> Option<Ref<'_>> {
        // SAFETY: see the doc: the caller uses it at once.
        unsafe { (*self.0.get()).as_ref().map(Obj::borrow) }
    }

    #[inline(always)]
    pub fn take(&self) -> Option<Obj> {
        // SAFETY: GIL held; moves a pointer, runs no other code.
        unsafe { (*self.0.get()).take() }
    }

    #[inline(always)]
    pub(crate) fn replace(&self, value: Option<Obj>) -> Option<Obj> {
        // SAFETY: as in `take`.
        unsafe { std::mem::replace(&mut *self.0.get(), value) }
    }

    /// Sets the content; the old one is dropped after the cell holds the new one.
    #[inline(always)]
    pub fn set(&self, value: Option<Obj>) {
        drop(self.replace(value));
    }

    #[inline(always)]
    pub fn is_none(&self) -> bool {
        // SAFETY: reads a pointer.
        unsafe { (*self.0.get()).is_none() }
    }

    #[inline(always)]
    pub fn is_some(&self) -> bool {
        !self.is_none()
    }
}

/// A cell for an optional typed instance.
#[repr(transparent)]
pub struct OwnCell<T: Class>(UnsafeCell<Option<Own<T>>>);

impl<T: Class> Default for OwnCell<T> {
    fn default() -> Self {
        OwnCell::new(None)
    }
}

impl<T: Class> OwnCell<T> {
    #[inline(always)]
    pub fn new(value: Option<Own<T>>) -> OwnCell<T> {
        OwnCell(UnsafeCell::new(value))
    }

    /// A new reference to the content.
    #[inline(always)]
    pub fn get(&self) -> Option<Own<T>> {
        // SAFETY: as in `ObjCell::get`.
        unsafe { (*self.0.get()).clone() }
    }

    /// The content, borrowed. Only for use before any Python code can run or the cell is set.
    #[inline(always)]
    pub fn peek(&self) -> Option<Inst<'_, T>> {
        // SAFETY: as in `ObjCell::peek`.
        unsafe { (*self.0.get()).as_ref().map(Own::inst) }
    }

    #[inline(always)]
    pub fn take(&self) -> Option<Own<T>> {
        // SAFETY: as in `ObjCell::take`.
        unsafe { (*self.0.get()).take() }
    }

    #[inline(always)]
    pub fn set(&self, value: Option<Own<T>>) {
        // SAFETY: as in `ObjCell::set`.
        let old = unsafe { std::mem::replace(&mut *self.0.get(), value) };
        drop(old);
    }

    #[inline(always)]
    pub fn is_none(&self) -> bool {
        // SAFETY: reads a pointer.
        unsafe { (*self.0.get()).is_none() }
    }
}

/// Looks into a `Cell` without taking its value out. `look` must not touch the cell.
#[inline(always)]
pub fn peek<T, R>(cell: &Cell<T>, look: impl FnOnce(&T) -> R) -> R {
    // SAFETY: the GIL serialises access; `look` leaves the cell alone (its contract).
    unsafe { look(&*cell.as_ptr()) }
}
