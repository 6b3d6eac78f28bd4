//! `sock_recv`, `sock_recv_into`, `sock_recvfrom`, `sock_recvfrom_into`.

use super::call::{At, Attempt, Op, raise_errno};
use super::names;
use super::table::{self, Outlook, Side};
use crate::net::address;
use crate::net::expected::{Expected, LARGEST};
use crate::net::transport::receive::{MAX_SIZE, with_scratch};
use rondel_ffi::class::{ObjCell, Visit};
use rondel_ffi::err::Builtin;
use rondel_ffi::freelist::FreeList;
use rondel_ffi::{ClassCell, Obj, PyRes, Ref, buffer, call, value};
use rustix::buffer::Buffer;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketAddrAny};
use std::cell::Cell;
use std::ffi::CStr;
use std::os::fd::BorrowedFd;

/// Requests of this size go straight into a new `bytes`.
const SMALL: usize = 512;

thread_local! {
    /// Of a socket that nothing is known of.
    static LAST: Cell<Expected> = const { Cell::new(Expected::NOTHING) };
}

pub(super) fn retried<T>(mut operation: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match operation() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// A new `bytes` of at most `room` bytes, which `direct` or `scratch` fills; and what else it gave. `fits`: a
/// read is likely to bring about as much.
fn received<X>(
    room: usize,
    fits: bool,
    mut direct: impl FnMut(&mut [std::mem::MaybeUninit<u8>]) -> Result<(usize, X), Errno>,
    mut scratch: impl FnMut(&mut [u8]) -> Result<(usize, X), Errno>,
) -> PyRes<Result<(Obj, X), Errno>> {
    let straight = fits
        || room <= SMALL
        || room > MAX_SIZE
        || (room <= LARGEST && LAST.get().room().is_some());
    let mut extra = None;
    let made = if straight {
        buffer::new_bytes(room, |memory| {
            let (count, x) = retried(|| direct(memory))?;
            extra = Some(x);
            Ok(count)
        })?
    } else {
        with_scratch(|memory| match retried(|| scratch(&mut memory[..room])) {
            Ok((count, x)) => {
                extra = Some(x);
                value::bytes(&memory[..count]).map(Ok)
            }
            Err(errno) => Ok(Err(errno)),
        })?
    };
    Ok(match (made, extra) {
        (Ok(data), Some(extra)) => {
            let count = value::bytes_of(data.borrow()).map_or(0, <[u8]>::len);
            LAST.set(LAST.get().after(count));
            Ok((data, extra))
        }
        (Err(errno), _) => Err(errno),
        (Ok(_), None) => Err(Errno::AGAIN),
    })
}

fn size(obj: Option<Ref<'_>>, func: &str) -> PyRes<usize> {
    let size = obj.map_or(Ok(0), value::as_i64)?;
    usize::try_from(size)
        .map_err(|_negative| Builtin::Value.raise(&format!("negative buffersize in {func}")))
}

// ------------------------------------------------------------------------------------- sock_recv

#[derive(Default)]
pub(super) struct Recv {
    pub(super) n: ObjCell,
}

static RECV: ClassCell = ClassCell::new();
static RECV_FREE: FreeList = FreeList::new();

impl Op for Recv {
    const NAME: &'static str = "BaseSelectorEventLoop.sock_recv";
    const TYPE: &'static CStr = c"rondel.sock_recv_coroutine";
    const SIDE: Side = Side::Read;

    fn cell() -> &'static ClassCell {
        &RECV
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&RECV_FREE)
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.n);
    }
    fn clear(&self) {
        self.n.set(None);
    }

    #[inline(always)]
    fn attempt(&self, at: At<'_>) -> Attempt {
        let room = match size(self.n.peek(), "recv") {
            Ok(room) => room,
            Err(raised) => return Attempt::Failed(raised),
        };
        let socket = match at.lent() {
            Ok(socket) => socket,
            Err(errno) => return Attempt::from_errno(errno),
        };
        if room == 0 {
            return Attempt::from_result(value::bytes(b""));
        }
        let likely = match table::outlook(at.home, at.sock, at.fd) {
            Outlook::Dry => return Attempt::Again,
            Outlook::Some(expected) => expected.room(),
            Outlook::Unknown => None,
        };
        let room = likely.map_or(room, |likely| room.min(likely));
        let got = received(
            room,
            likely.is_some(),
            |memory| {
                Ok((
                    rustix::net::recv(socket, memory, RecvFlags::DONTWAIT)?.1,
                    (),
                ))
            },
            |memory| {
                Ok((
                    rustix::net::recv(socket, memory, RecvFlags::DONTWAIT)?.1,
                    (),
                ))
            },
        );
        match got {
            Ok(Ok((data, ()))) => {
                let count = value::bytes_of(data.borrow()).map_or(0, <[u8]>::len);
                let short = count > 0 && count < room;
                table::note_read(at.home, at.sock, at.fd, count, short);
                Attempt::Done(data)
            }
            Ok(Err(errno)) => Attempt::from_errno(errno),
            Err(no_memory) => Attempt::Failed(no_memory),
        }
    }

    fn delegate(&self, at: At<'_>) -> PyRes<Obj> {
        let n = self.n.get().unwrap_or_else(Obj::none);
        call::call(
            names::stock(c"sock_recv")?.borrow(),
            &[at.home.obj(), at.sock, n.borrow()],
        )
    }
}

// -------------------------------------------------------------------------------- sock_recv_into

#[derive(Default)]
pub(super) struct RecvInto {
    pub(super) buf: ObjCell,
}

static RECV_INTO: ClassCell = ClassCell::new();
static RECV_INTO_FREE: FreeList = FreeList::new();

impl Op for RecvInto {
    const NAME: &'static str = "BaseSelectorEventLoop.sock_recv_into";
    const TYPE: &'static CStr = c"rondel.sock_recv_into_coroutine";
    const SIDE: Side = Side::Read;

    fn cell() -> &'static ClassCell {
        &RECV_INTO
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&RECV_INTO_FREE)
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.buf);
    }
    fn clear(&self) {
        self.buf.set(None);
    }

    #[inline(always)]
    fn attempt(&self, at: At<'_>) -> Attempt {
        let Some(buf) = self.buf.get() else {
            return Attempt::Done(Obj::none());
        };
        let socket = match at.lent() {
            Ok(socket) => socket,
            Err(errno) => return Attempt::from_errno(errno),
        };
        let mut short = false;
        let got = buffer::with_bytes_mut(buf.borrow(), |memory| {
            if memory.is_empty() {
                return Ok(0);
            }
            if matches!(table::outlook(at.home, at.sock, at.fd), Outlook::Dry) {
                return Err(Errno::AGAIN);
            }
            let count =
                retried(|| Ok(rustix::net::recv(socket, &mut *memory, RecvFlags::DONTWAIT)?.1))?;
            short = count > 0 && count < memory.len();
            Ok(count)
        });
        if short && let Ok(Ok(count)) = got {
            table::note_read(at.home, at.sock, at.fd, count, short);
        }
        match got {
            Ok(Ok(count)) => count_of(count),
            Ok(Err(errno)) => Attempt::from_errno(errno),
            // The socket's own method has the words for what is wrong with the buffer.
            Err(raised) => {
                raised.clear();
                let name = names::own().recv_into.borrow();
                Attempt::from_call(call::method(name, [at.sock, buf.borrow()]))
            }
        }
    }

    fn delegate(&self, at: At<'_>) -> PyRes<Obj> {
        let buf = self.buf.get().unwrap_or_else(Obj::none);
        call::call(
            names::stock(c"sock_recv_into")?.borrow(),
            &[at.home.obj(), at.sock, buf.borrow()],
        )
    }
}

pub(super) fn count_of(count: usize) -> Attempt {
    Attempt::from_result(value::int(i64::try_from(count).unwrap_or(i64::MAX)))
}

// --------------------------------------------------------------------------------- sock_recvfrom

#[derive(Default)]
pub(super) struct RecvFrom {
    pub(super) bufsize: ObjCell,
}

static RECVFROM: ClassCell = ClassCell::new();
static RECVFROM_FREE: FreeList = FreeList::new();

fn from<B: Buffer<u8>>(
    socket: BorrowedFd<'_>,
    memory: B,
) -> Result<(usize, Option<SocketAddrAny>), Errno> {
    let (_memory, count, peer) = rustix::net::recvfrom(socket, memory, RecvFlags::DONTWAIT)?;
    Ok((count, peer))
}

impl Op for RecvFrom {
    const NAME: &'static str = "BaseSelectorEventLoop.sock_recvfrom";
    const TYPE: &'static CStr = c"rondel.sock_recvfrom_coroutine";
    const SIDE: Side = Side::Read;

    fn cell() -> &'static ClassCell {
        &RECVFROM
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&RECVFROM_FREE)
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.bufsize);
    }
    fn clear(&self) {
        self.bufsize.set(None);
    }

    fn attempt(&self, at: At<'_>) -> Attempt {
        match self.natively(at) {
            Ok(attempt) => attempt,
            Err(raised) => Attempt::Failed(raised),
        }
    }

    fn delegate(&self, at: At<'_>) -> PyRes<Obj> {
        let bufsize = self.bufsize.get().unwrap_or_else(Obj::none);
        call::call(
            names::stock(c"sock_recvfrom")?.borrow(),
            &[at.home.obj(), at.sock, bufsize.borrow()],
        )
    }
}

impl RecvFrom {
    fn natively(&self, at: At<'_>) -> PyRes<Attempt> {
        let room = size(self.bufsize.peek(), "recvfrom")?;
        let socket = at.lent().map_err(raise_errno)?;
        if !table::is_internet(at.home, at.sock, at.fd)? {
            let bufsize = self.bufsize.get().unwrap_or_else(Obj::none);
            let name = names::own().recvfrom.borrow();
            return Ok(Attempt::from_call(call::method(
                name,
                [at.sock, bufsize.borrow()],
            )));
        }
        let got = received(
            room,
            false,
            |memory| from(socket, memory),
            |memory| from(socket, memory),
        )?;
        Ok(match got {
            Ok((data, peer)) => {
                let peer = address::optional(peer.as_ref())?;
                Attempt::Done(value::tuple([data, peer])?)
            }
            Err(errno) => Attempt::from_errno(errno),
        })
    }
}

// ---------------------------------------------------------------------------- sock_recvfrom_into

#[derive(Default)]
pub(super) struct RecvFromInto {
    pub(super) buf: ObjCell,
    /// None or 0: the buffer's length.
    pub(super) nbytes: ObjCell,
}

static RECVFROM_INTO: ClassCell = ClassCell::new();
static RECVFROM_INTO_FREE: FreeList = FreeList::new();

impl Op for RecvFromInto {
    const NAME: &'static str = "BaseSelectorEventLoop.sock_recvfrom_into";
    const TYPE: &'static CStr = c"rondel.sock_recvfrom_into_coroutine";
    const SIDE: Side = Side::Read;

    fn cell() -> &'static ClassCell {
        &RECVFROM_INTO
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&RECVFROM_INTO_FREE)
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.buf);
        visit.cell(&self.nbytes);
    }
    fn clear(&self) {
        self.buf.set(None);
        self.nbytes.set(None);
    }

    fn attempt(&self, at: At<'_>) -> Attempt {
        match self.natively(at) {
            Ok(attempt) => attempt,
            Err(raised) => Attempt::Failed(raised),
        }
    }

    fn delegate(&self, at: At<'_>) -> PyRes<Obj> {
        let (buf, nbytes) = self.given();
        call::call(
            names::stock(c"sock_recvfrom_into")?.borrow(),
            &[at.home.obj(), at.sock, buf.borrow(), nbytes.borrow()],
        )
    }
}

impl RecvFromInto {
    fn given(&self) -> (Obj, Obj) {
        let given = |cell: &ObjCell| cell.get().unwrap_or_else(Obj::none);
        (given(&self.buf), given(&self.nbytes))
    }

    fn natively(&self, at: At<'_>) -> PyRes<Attempt> {
        let (buf, nbytes) = self.given();
        let wanted = if nbytes.borrow().truthy()? {
            Some(value::as_i64(nbytes.borrow())?)
        } else {
            None
        };
        let socket = at.lent().map_err(raise_errno)?;
        if table::is_internet(at.home, at.sock, at.fd)? {
            let got = buffer::with_bytes_mut(buf.borrow(), |memory| {
                let room = match wanted.map(usize::try_from) {
                    None => memory.len(),
                    Some(Ok(room)) if room <= memory.len() => room,
                    Some(_) => return None, // to be refused
                };
                Some(retried(|| from(socket, &mut memory[..room])))
            });
            match got {
                Ok(Some(Ok((count, peer)))) => {
                    let count = value::int(i64::try_from(count).unwrap_or(i64::MAX))?;
                    let pair = value::tuple([count, address::optional(peer.as_ref())?])?;
                    return Ok(Attempt::Done(pair));
                }
                Ok(Some(Err(errno))) => return Ok(Attempt::from_errno(errno)),
                Ok(None) => {}
                Err(raised) => raised.clear(),
            }
        }
        // Other addresses, and the words for what is wrong with the arguments.
        let nbytes = match wanted {
            Some(_) => nbytes,
            None => value::int(i64::try_from(value::len(buf.borrow())?).unwrap_or(i64::MAX))?,
        };
        let name = names::own().recvfrom_into.borrow();
        let args = [at.sock, buf.borrow(), nbytes.borrow()];
        Ok(Attempt::from_call(call::method(name, args)))
    }
}
