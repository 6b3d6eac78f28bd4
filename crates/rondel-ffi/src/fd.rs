//! Descriptors that belong to Python objects, lent to Rust's I/O-safe functions.

use crate::obj::Ref;
use std::os::fd::{BorrowedFd, RawFd};

/// Lends `fd`, which the Python object `owner` (a socket) holds open. `None` for a negative number.
#[inline(always)]
pub fn lend(owner: Ref<'_>, fd: RawFd) -> Option<BorrowedFd<'_>> {
    let _held_for_as_long_as_the_borrow = owner;
    if fd < 0 {
        return None;
    }
    // SAFETY: not -1. The owner, alive for the borrow's lifetime, keeps the descriptor open; if a
    // program closes it behind the owner's back, calls fail with EBADF or reach a successor of the
    // same number, as they would from Python: memory safety does not depend on it.
    Some(unsafe { BorrowedFd::borrow_raw(fd) })
}
