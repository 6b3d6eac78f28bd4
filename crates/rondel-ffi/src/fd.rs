//! Descriptors that belong to Python objects, lent to Rust's I/O-safe functions.

use crate::err::PyRes;
use crate::obj::Ref;
use crate::{call, value};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

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

/// Takes the descriptor from a Python socket, which is closed by that. `detach`: `_socket.socket.detach`.
/// `None` if it had none.
///
/// # Errors
/// Those of `detach`.
pub fn take(detach: Ref<'_>, sock: Ref<'_>) -> PyRes<Option<OwnedFd>> {
    let number = call::call1(detach, sock)?;
    let fd = RawFd::try_from(value::as_i64(number.borrow())?).unwrap_or(-1);
    if fd < 0 {
        return Ok(None);
    }
    // SAFETY: not -1; the socket has given it up, so that it is ours.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}
