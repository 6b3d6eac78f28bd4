//! `sock_sendall`, `sock_sendto`.

use super::call::{At, Attempt, Op};
use super::connect::{Literal, literal};
use super::names;
use super::recv::{count_of, retried};
use super::table::{self, Side};
use rondel_ffi::class::{ObjCell, Visit};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::{ClassCell, Obj, PyRes, Ref, buffer, call, err, value};
use rustix::io::Errno;
use rustix::net::{SendFlags, sendto};
use std::cell::Cell;
use std::ffi::CStr;
use std::os::fd::BorrowedFd;

/// A peer that is gone is an error to report, not a SIGPIPE.
const FLAGS: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

/// After so many bytes at once others have their turn, should the peer read as fast as we send.
const BURST: usize = 1024 * 1024;

#[derive(Default)]
pub(super) struct SendAll {
    /// `bytes`, or another buffer; a memoryview of that once it had to wait, so that it keeps its size.
    pub(super) data: ObjCell,
    sent: Cell<usize>,
}

static SENDALL: ClassCell = ClassCell::new();
static SENDALL_FREE: FreeList = FreeList::new();

impl SendAll {
    pub(super) fn new(data: Obj) -> SendAll {
        SendAll {
            data: ObjCell::new(Some(data)),
            sent: Cell::new(0),
        }
    }

    /// Sends until all is sent or the socket is full; true when all is.
    fn send(&self, socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<Option<bool>, Errno> {
        let start = self.sent.get();
        loop {
            let rest = bytes.get(self.sent.get()..).unwrap_or_default();
            match rustix::net::send(socket, rest, FLAGS) {
                Ok(count) => self.sent.set(self.sent.get() + count),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(Some(false)),
                Err(errno) => return Err(errno),
            }
            if self.sent.get() >= bytes.len() {
                return Ok(Some(true));
            }
            if self.sent.get() - start >= BURST {
                return Ok(None);
            }
        }
    }
}

impl Op for SendAll {
    const NAME: &'static str = "BaseSelectorEventLoop.sock_sendall";
    const TYPE: &'static CStr = c"rondel.sock_sendall_coroutine";
    const SIDE: Side = Side::Write;

    fn cell() -> &'static ClassCell {
        &SENDALL
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&SENDALL_FREE)
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.data);
    }
    fn clear(&self) {
        self.data.set(None);
    }

    #[inline(always)]
    fn attempt(&self, at: At<'_>) -> Attempt {
        let Some(data) = self.data.get() else {
            return Attempt::Done(Obj::none());
        };
        let socket = match at.lent() {
            Ok(socket) => socket,
            Err(errno) => return Attempt::from_errno(errno),
        };
        let sent = match value::bytes_of(data.borrow()) {
            Some(bytes) => self.send(socket, bytes),
            None => match buffer::with_bytes(data.borrow(), |bytes| self.send(socket, bytes)) {
                Ok(sent) => sent,
                Err(raised) => return Attempt::Failed(raised),
            },
        };
        match sent {
            Ok(Some(true)) => return Attempt::Done(Obj::none()),
            Err(errno) => return Attempt::from_errno(errno),
            Ok(_) => {}
        }
        if value::bytes_of(data.borrow()).is_none() {
            match buffer::view(data.borrow()) {
                Ok(view) => self.data.set(Some(view)),
                Err(raised) => return Attempt::Failed(raised),
            }
        }
        if sent == Ok(None) {
            Attempt::GiveWay
        } else {
            Attempt::Again
        }
    }

    fn delegate(&self, at: At<'_>) -> PyRes<Obj> {
        let data = self.data.get().unwrap_or_else(Obj::none);
        let rest = buffer::with_bytes(data.borrow(), |bytes| {
            value::bytes(bytes.get(self.sent.get()..).unwrap_or_default())
        })??;
        call::call(
            names::stock(c"sock_sendall")?.borrow(),
            &[at.home.obj(), at.sock, rest.borrow()],
        )
    }
}

#[derive(Default)]
pub(super) struct SendTo {
    pub(super) data: ObjCell,
    pub(super) address: ObjCell,
}

static SENDTO: ClassCell = ClassCell::new();
static SENDTO_FREE: FreeList = FreeList::new();

impl SendTo {
    fn given(&self) -> (Obj, Obj) {
        let given = |cell: &ObjCell| cell.get().unwrap_or_else(Obj::none);
        (given(&self.data), given(&self.address))
    }
}

impl Op for SendTo {
    const NAME: &'static str = "BaseSelectorEventLoop.sock_sendto";
    const TYPE: &'static CStr = c"rondel.sock_sendto_coroutine";
    const SIDE: Side = Side::Write;

    fn cell() -> &'static ClassCell {
        &SENDTO
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&SENDTO_FREE)
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.data);
        visit.cell(&self.address);
    }
    fn clear(&self) {
        self.data.set(None);
        self.address.set(None);
    }

    fn attempt(&self, at: At<'_>) -> Attempt {
        let (data, address) = self.given();
        match natively(at, data.borrow(), address.borrow()) {
            Ok(Some(attempt)) => attempt,
            Ok(None) => {
                let args = [at.sock, data.borrow(), address.borrow()];
                Attempt::from_call(call::method(names::own().sendto.borrow(), args))
            }
            Err(raised) => Attempt::Failed(raised),
        }
    }

    fn delegate(&self, at: At<'_>) -> PyRes<Obj> {
        let (data, address) = self.given();
        call::call(
            names::stock(c"sock_sendto")?.borrow(),
            &[at.home.obj(), at.sock, data.borrow(), address.borrow()],
        )
    }
}

/// To an address of IPv4 or IPv6 that is given by number. `None`: it is for the socket's method, which knows
/// every family and resolves names.
fn natively(at: At<'_>, data: Ref<'_>, address: Ref<'_>) -> PyRes<Option<Attempt>> {
    let own = names::own();
    let Some(family) = table::internet(at.home, at.sock, at.fd)? else {
        return Ok(None);
    };
    let Literal::Plain(target) = literal(address, family) else {
        return Ok(None);
    };
    // Tools that forbid sending put a function of theirs there.
    let sends = call::getattr(own.socket.borrow(), own.sendto.borrow())?;
    if !sends.borrow().is(own.stock_sendto.borrow()) {
        return Ok(None);
    }
    err::audit(c"socket.sendto", at.sock, address)?;
    // A hook may have closed it.
    let Some(socket) = at.still_lent()? else {
        return Ok(Some(Attempt::from_errno(Errno::BADF)));
    };
    let sent = buffer::with_bytes(data, |bytes| {
        retried(|| sendto(socket, bytes, FLAGS, &target))
    })?;
    Ok(Some(match sent {
        Ok(count) => count_of(count),
        Err(errno) => Attempt::from_errno(errno),
    }))
}
