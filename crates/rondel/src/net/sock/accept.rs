//! `sock_accept`.

use super::call::{At, Attempt, Op, raise_errno};
use super::table::Side;
use super::{names, table};
use crate::event_loop::LoopBase;
use crate::net::address;
use rondel_ffi::class::Visit;
use rondel_ffi::err::Builtin;
use rondel_ffi::{ClassCell, Inst, Obj, PyRes, Ref, call, value};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};

#[derive(Default)]
pub(super) struct Accept;

static ACCEPT: ClassCell = ClassCell::new();

impl Op for Accept {
    const NAME: &'static str = "BaseSelectorEventLoop.sock_accept";
    const TYPE: &'static CStr = c"rondel.sock_accept_coroutine";
    const SIDE: Side = Side::Read;

    fn cell() -> &'static ClassCell {
        &ACCEPT
    }
    fn traverse(&self, _visit: &mut Visit) {}
    fn clear(&self) {}

    fn attempt(&self, at: At<'_>) -> Attempt {
        match accept(at) {
            Ok(attempt) => attempt,
            Err(raised) => Attempt::Failed(raised),
        }
    }

    fn delegate(&self, at: At<'_>) -> PyRes<Obj> {
        call::call(
            names::stock(c"sock_accept")?.borrow(),
            &[at.home.obj(), at.sock],
        )
    }
}

fn accept(at: At<'_>) -> PyRes<Attempt> {
    let own = names::own();
    if !table::is_internet(at.home, at.sock, at.fd)? {
        return by_method(at.sock);
    }
    let parts = table::parts(at.home, at.sock, at.fd)?;
    let listener = at.lent().map_err(raise_errno)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (conn, peer) = loop {
        match acceptfrom_with(listener, flags) {
            Ok(accepted) => break accepted,
            Err(Errno::INTR) => {}
            Err(errno) => return Ok(Attempt::from_errno(errno)),
        }
    };
    let part = |at| value::item(parts.borrow(), at).unwrap_or_else(Obj::none);
    let (family, kind, proto) = (part(0), part(1), part(2));
    let number = value::int(i64::from(conn.as_raw_fd()))?;
    let sock = call::call(
        own.socket.borrow(),
        &[
            family.borrow(),
            kind.borrow(),
            proto.borrow(),
            number.borrow(),
        ],
    )?;
    // The Python socket's from here on.
    let _descriptor = conn.into_raw_fd();
    let peer = address::optional(peer.as_ref())?;
    Ok(Attempt::Done(value::tuple([sock, peer])?))
}

/// `loop._accept_one(sock)`: `(socket, address)` of a connection that waits at a listening socket, or None.
///
/// # Errors
/// Those of `accept4`, a connection that was reset meanwhile apart.
pub(super) fn accept_one(home: Inst<'_, LoopBase>, sock: Ref<'_>) -> PyRes<Obj> {
    let number = call::method(names::own().fileno.borrow(), [sock])?;
    let fd = RawFd::try_from(value::as_i64(number.borrow())?).unwrap_or(-1);
    let attempt = if names::is_plain_socket(sock) {
        accept(At { home, sock, fd })?
    } else {
        by_method(sock)?
    };
    match attempt {
        Attempt::Done(pair) => Ok(pair),
        Attempt::Again | Attempt::GiveWay => {
            home.with_driver(|driver| {
                driver.drained(fd);
                Ok(())
            })?;
            Ok(Obj::none())
        }
        Attempt::Failed(raised) if raised.matches(Builtin::ConnectionAborted.class()) => {
            raised.clear();
            Ok(Obj::none())
        }
        Attempt::Failed(raised) => Err(raised),
    }
}

/// `sock.accept()`, for every family and subclass.
fn by_method(sock: Ref<'_>) -> PyRes<Attempt> {
    let accepted = call::method(names::own().accept.borrow(), [sock]);
    Ok(match Attempt::from_call(accepted) {
        Attempt::Done(pair) => {
            let conn = value::first(pair.borrow())?;
            unblock(&conn)?;
            Attempt::Done(pair)
        }
        other => other,
    })
}

/// Tells the Python socket that it does not block.
fn unblock(sock: &Obj) -> PyRes<()> {
    let no = Obj::bool(false);
    let args = [sock.borrow(), no.borrow()];
    call::method(names::own().setblocking.borrow(), args).map(|_none| ())
}
