//! Sockets: native transports, TLS and streams over them, and operations on a program's own sockets.

pub(crate) mod address;
pub(crate) mod claims;
mod expected;
pub(crate) mod pipe;
pub(crate) mod sock;
pub(crate) mod streams;
pub(crate) mod tcp;
pub(crate) mod tls;
pub(crate) mod transport;
pub(crate) mod udp;

use rondel_ffi::{Obj, PyRes, Ref, call, fd, value};

/// `sock.close()`. What `socket.close` does, without its two frames of Python: it closes unless a
/// file object of the socket is open.
pub(crate) fn close_socket(sock: Ref<'_>) -> PyRes<()> {
    let own = sock::names();
    if !sock::is_plain_socket(sock) {
        return call::method(own.close.borrow(), [sock]).map(|_none| ());
    }
    call::setattr(sock, own.closed.borrow(), Obj::bool(true).borrow())?;
    let files = call::getattr(sock, own.io_refs.borrow())?;
    if value::as_i64(files.borrow())? > 0 {
        return Ok(());
    }
    call::call1(own.close_descriptor.borrow(), sock).map(|_none| ())
}

/// The same of a plain socket that no program has got hold of: without giving the GIL up, as nobody can
/// have asked it to linger.
pub(crate) fn close_unseen(sock: Ref<'_>) -> PyRes<()> {
    let own = sock::names();
    call::setattr(sock, own.closed.borrow(), Obj::bool(true).borrow())?;
    let descriptor = fd::take(own.detach_descriptor.borrow(), sock)?;
    drop(descriptor);
    Ok(())
}
