//! Listening sockets handed over from Python by number.

use std::io;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A duplicate of a listening socket that Python code holds open; the original stays theirs.
pub fn duplicate(fd: RawFd) -> io::Result<Listener> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(9)); // EBADF
    }
    // SAFETY: not -1; borrowed for this one call, in which the caller's Python socket is alive. A
    // number that is not open makes the duplication fail with EBADF.
    let owned: OwnedFd = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
    let tcp = TcpListener::from(owned);
    if tcp.local_addr().is_ok() {
        return Ok(Listener::Tcp(tcp));
    }
    let unix = UnixListener::from(OwnedFd::from(tcp));
    unix.local_addr()?;
    Ok(Listener::Unix(unix))
}
