//! The task that takes a step, as its loop knows it: without a reference, as the step has one.

use rondel_ffi::{Obj, Ref};
use std::cell::Cell;

/// A cell for an object that is lent for a while.
#[derive(Default)]
pub(crate) struct Lent(Cell<*mut ()>);

impl Lent {
    /// Shows an object until [`Lent::take_back`]. The caller keeps it alive till then, come what may.
    #[inline(always)]
    pub(crate) fn lend(&self, obj: Ref<'_>) {
        self.0.set(obj.as_ptr().cast());
    }

    #[inline(always)]
    pub(crate) fn take_back(&self) {
        self.0.set(std::ptr::null_mut());
    }

    #[inline(always)]
    pub(crate) fn is_none(&self) -> bool {
        self.0.get().is_null()
    }

    /// The object, for use at once.
    #[inline(always)]
    pub(crate) fn peek(&self) -> Option<Ref<'_>> {
        if self.is_none() {
            return None;
        }
        // SAFETY: whoever has lent it keeps it alive until it is taken back.
        Some(unsafe { Ref::from_ptr(self.0.get().cast()) })
    }

    /// A new reference to the object.
    #[inline(always)]
    pub(crate) fn get(&self) -> Option<Obj> {
        self.peek().map(Ref::own)
    }
}
