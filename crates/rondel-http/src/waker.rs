//! Wakers that are kept from one poll to the next.

use std::task::Waker;

/// Keeps this one in the other's place; a clone is made only if it wakes something else.
#[inline]
pub(crate) fn keep(known: &mut Option<Waker>, waker: &Waker) {
    match known {
        Some(known) => known.clone_from(waker),
        none => *none = Some(waker.clone()),
    }
}
