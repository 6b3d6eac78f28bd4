//! Which sockets are registered for `sock_*` operations, and who waits for them.
//!
//! A socket is registered (edge-triggered) when an operation first has to wait, and stays so: an echo
//! then needs no `epoll_ctl` per message. That is sound because every operation tries before it waits:
//! an edge that nobody waits for can be forgotten.
//!
//! A registration belongs to a Python socket object, known by a weak reference, and its descriptor's
//! number. When the socket was closed and the number is another's, the object is another one: the old
//! registration is replaced. After [`IDLE_EDGES`] edges that nobody waited for the registration ends,
//! so that a socket which the program uses by other means does not go on waking the loop.
//!
//! epoll takes a descriptor once. Whoever else wants it (a transport, `add_reader`) calls [`vacate`]:
//! those that wait are released, try again, and find it taken.

use super::names;
use crate::event_loop::{LoopBase, Ready};
use crate::future::{self, Future};
use crate::net::claims;
use crate::net::expected::Expected;
use crate::primitives::hops::Alarm;
use rondel_core::driver::{EdgeEvent, edge_slot};
use rondel_ffi::class::Visit;
use rondel_ffi::weak::WeakRef;
use rondel_ffi::{Inst, Obj, Own, PyRes, Ref, call, fd, value};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, ipproto, sockopt};
use std::os::fd::RawFd;

/// Edges in a row that nobody waited for, before a registration is given up.
const IDLE_EDGES: u8 = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Read,
    Write,
}

/// What is known of a Python socket.
struct Spot {
    sock: WeakRef,
    /// The registration, if there is one.
    token: Option<u32>,
    /// What it is registered for.
    readable: bool,
    writable: bool,
    idle: u8,
    /// Data are known to be used up: it is a TCP socket whose last read was short, and there was no edge
    /// since. The next read need not be tried before it waits.
    dry: bool,
    /// It can be `dry`: a TCP socket that has seen neither its peer's end (whose edge may have come along
    /// with the data) nor urgent data (which end a read before the data do).
    dries: bool,
    /// A TCP socket, which may be read in any pieces.
    tcp: bool,
    expected: Expected,
    /// Its family, if that is IPv4 or IPv6, whose addresses are made natively; asked for when first needed.
    internet: Option<Option<AddressFamily>>,
    /// `(family, type, proto)` as the socket has them, for those that it accepts.
    parts: Option<Obj>,
    readers: Vec<Own<Future>>,
    writers: Vec<Own<Future>>,
}

/// A loop's sockets, by descriptor.
#[derive(Default)]
pub(crate) struct Socks {
    spots: Vec<Option<Box<Spot>>>,
    /// The descriptor of each registration, by its token's slot, and the whole token.
    slots: Vec<Option<(u32, RawFd)>>,
}

impl Socks {
    pub(crate) fn traverse(&self, visit: &mut Visit) {
        for spot in self.spots.iter().flatten() {
            for waiter in spot.readers.iter().chain(&spot.writers) {
                visit.obj(waiter.obj());
            }
        }
    }

    fn spot(&mut self, fd: RawFd) -> Option<&mut Box<Spot>> {
        self.spots.get_mut(usize::try_from(fd).ok()?)?.as_mut()
    }

    /// The socket's spot, unless the descriptor's is another's.
    fn of(&mut self, sock: Ref<'_>, fd: RawFd) -> Option<&mut Box<Spot>> {
        self.spot(fd).filter(|spot| spot.sock.is(sock))
    }

    fn take(&mut self, fd: RawFd) -> Option<Box<Spot>> {
        self.spots.get_mut(usize::try_from(fd).ok()?)?.take()
    }

    fn by_token(&mut self, token: u32) -> Option<(RawFd, &mut Box<Spot>)> {
        let (whole, fd) = (*self.slots.get(edge_slot(token))?)?;
        if whole != token {
            return None;
        }
        self.spot(fd)
            .filter(|spot| spot.token == Some(token))
            .map(|spot| (fd, spot))
    }

    fn note_token(&mut self, token: u32, fd: RawFd) {
        let slot = edge_slot(token);
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, None);
        }
        self.slots[slot] = Some((token, fd));
    }
}

impl Spot {
    fn side(&mut self, side: Side) -> &mut Vec<Own<Future>> {
        match side {
            Side::Read => &mut self.readers,
            Side::Write => &mut self.writers,
        }
    }

    fn is_registered(&self, side: Side) -> bool {
        self.token.is_some()
            && match side {
                Side::Read => self.readable,
                Side::Write => self.writable,
            }
    }

    fn waiters(self) -> impl Iterator<Item = Own<Future>> {
        self.readers.into_iter().chain(self.writers)
    }
}

/// One hop later the waiters' tasks are woken, as after a selector's callback under asyncio. Whether
/// there was one. Nothing of Python's runs here, so that the table may be borrowed.
fn release(home: &LoopBase, waiters: impl IntoIterator<Item = Own<Future>>) -> bool {
    let mut some = false;
    for waiter in waiters {
        home.push(Ready::Alarm(Alarm::Release(waiter)));
        some = true;
    }
    some
}

/// The socket's spot, made if it has none; a predecessor's is given up.
fn settle(home: Inst<'_, LoopBase>, sock: Ref<'_>, fd: RawFd) -> PyRes<()> {
    if home.socks.borrow_mut().of(sock, fd).is_some() {
        return Ok(());
    }
    vacate(&home, fd)?;
    let spot = Box::new(Spot {
        sock: WeakRef::new(sock)?,
        token: None,
        readable: false,
        writable: false,
        idle: 0,
        dry: false,
        dries: false,
        tcp: false,
        expected: Expected::default(),
        internet: None,
        parts: None,
        readers: Vec::new(),
        writers: Vec::new(),
    });
    let at = usize::try_from(fd).unwrap_or_default();
    let mut socks = home.socks.borrow_mut();
    if at >= socks.spots.len() {
        socks.spots.resize_with(at + 1, || None);
    }
    socks.spots[at] = Some(spot);
    Ok(())
}

/// A future that is released when the socket is ready, after an operation that would have blocked.
/// `None`: the program watches the descriptor itself.
///
/// # Errors
/// RuntimeError if a transport has the descriptor; those of `epoll_ctl`.
pub(super) fn wait(
    home: Inst<'_, LoopBase>,
    sock: Ref<'_>,
    fd: RawFd,
    side: Side,
) -> PyRes<Option<Own<Future>>> {
    let known = home
        .socks
        .borrow_mut()
        .of(sock, fd)
        .is_some_and(|spot| spot.is_registered(side));
    if !known {
        home.check_open()?;
        if home.is_watched(fd) {
            return Ok(None);
        }
        let number = value::int(i64::from(fd))?;
        claims::check(home, fd, number.borrow())?;
        register(home, sock, fd, side)?;
    }
    let waiter = future::create(home)?;
    if let Some(spot) = home.socks.borrow_mut().of(sock, fd) {
        spot.side(side).push(waiter.clone());
    }
    Ok(Some(waiter))
}

fn register(home: Inst<'_, LoopBase>, sock: Ref<'_>, fd: RawFd, side: Side) -> PyRes<()> {
    settle(home, sock, fd)?;
    let Some((token, readable, writable)) = home.socks.borrow_mut().of(sock, fd).map(|spot| {
        let (read, write) = (side == Side::Read, side == Side::Write);
        (spot.token, spot.readable || read, spot.writable || write)
    }) else {
        return Ok(());
    };
    let token = home.with_driver(|driver| {
        if let Some(token) = token {
            match driver.change_edge(fd, token, readable, writable) {
                Ok(()) => return Ok(token),
                // Another file was put in its place (`dup2`).
                Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {
                    driver.deregister_edge(fd, token)?;
                }
                Err(error) => return Err(error),
            }
        }
        driver.register_edge_for(fd, readable, writable)
    })?;
    // Not over MPTCP or Unix sockets, where a read ends for other reasons as well.
    let tcp =
        fd::lend(sock, fd).is_some_and(|fd| sockopt::socket_protocol(fd) == Ok(Some(ipproto::TCP)));
    let mut socks = home.socks.borrow_mut();
    socks.note_token(token, fd);
    if let Some(spot) = socks.of(sock, fd) {
        spot.token = Some(token);
        spot.dry = false;
        spot.dries = tcp;
        spot.tcp = tcp;
        (spot.readable, spot.writable) = (readable, writable);
        spot.idle = 0;
    }
    Ok(())
}

/// What is to be expected of a read.
#[derive(Clone, Copy)]
pub(super) enum Outlook {
    /// Surely nothing.
    Dry,
    /// So many bytes; it may be read in any pieces, as it is a TCP socket.
    Some(Expected),
    Unknown,
}

#[inline]
pub(super) fn outlook(home: Inst<'_, LoopBase>, sock: Ref<'_>, fd: RawFd) -> Outlook {
    match home.socks.borrow_mut().of(sock, fd) {
        Some(spot) if spot.dry => Outlook::Dry,
        Some(spot) if spot.tcp => Outlook::Some(spot.expected),
        _ => Outlook::Unknown,
    }
}

/// What a read brought. A short one has emptied the socket: what comes next has an edge of its own.
#[inline]
pub(super) fn note_read(
    home: Inst<'_, LoopBase>,
    sock: Ref<'_>,
    fd: RawFd,
    count: usize,
    short: bool,
) {
    if let Some(spot) = home.socks.borrow_mut().of(sock, fd) {
        spot.expected = spot.expected.after(count);
        if short && spot.dries && spot.is_registered(Side::Read) {
            spot.dry = true;
        }
    }
}

/// A waiter that was cancelled waits no more.
pub(super) fn leave(home: Inst<'_, LoopBase>, sock: Ref<'_>, fd: RawFd, waiter: &Own<Future>) {
    let mut left = Vec::new();
    if let Some(spot) = home.socks.borrow_mut().of(sock, fd) {
        for side in [Side::Read, Side::Write] {
            let waiters = spot.side(side);
            if let Some(at) = waiters.iter().position(|w| w.obj().is(waiter.obj())) {
                left.push(waiters.remove(at));
            }
        }
    }
    drop(left);
}

/// What epoll said about a registered socket; `false` if the token is not one of ours.
pub(crate) fn on_edge(home: Inst<'_, LoopBase>, event: &EdgeEvent) -> PyRes<bool> {
    let idle = {
        let mut socks = home.socks.borrow_mut();
        let Some((fd, spot)) = socks.by_token(event.token) else {
            return Ok(false);
        };
        spot.dry = false;
        spot.dries &= !(event.read_closed || event.error || event.urgent);
        let mut released = false;
        if event.readable || event.read_closed || event.error {
            released |= release(&home, spot.readers.drain(..));
        }
        if event.writable || event.error {
            released |= release(&home, spot.writers.drain(..));
        }
        spot.idle = if released {
            0
        } else {
            spot.idle.saturating_add(1)
        };
        let idle = spot.idle >= IDLE_EDGES && spot.readers.is_empty() && spot.writers.is_empty();
        idle.then_some(fd)
    };
    if let Some(fd) = idle {
        deregister(home, fd)?;
    }
    Ok(true)
}

/// Ends the registration of a socket that nobody waits for; what is known of it stays.
fn deregister(home: Inst<'_, LoopBase>, fd: RawFd) -> PyRes<()> {
    let token = home.socks.borrow_mut().spot(fd).and_then(|spot| {
        (spot.readable, spot.writable) = (false, false);
        spot.dry = false;
        spot.token.take()
    });
    match token {
        Some(token) => home.with_driver(|driver| driver.deregister_edge(fd, token)),
        None => Ok(()),
    }
}

/// After `connect`: whoever gets the socket next registers it in his own way.
pub(super) fn done_connecting(home: Inst<'_, LoopBase>, sock: Ref<'_>, fd: RawFd) -> PyRes<()> {
    let free = home
        .socks
        .borrow_mut()
        .of(sock, fd)
        .is_some_and(|spot| spot.readers.is_empty() && spot.writers.is_empty());
    if free { vacate(&home, fd) } else { Ok(()) }
}

/// Gives a descriptor up to somebody else.
pub(crate) fn vacate(home: &LoopBase, fd: RawFd) -> PyRes<()> {
    let Some(spot) = home.socks.borrow_mut().take(fd) else {
        return Ok(());
    };
    let token = spot.token;
    let _released = release(home, spot.waiters());
    match token {
        Some(token) => home.with_driver(|driver| driver.deregister_edge(fd, token)),
        None => Ok(()),
    }
}

/// Whether the socket's addresses are those of IPv4 or IPv6.
pub(crate) fn is_internet(home: Inst<'_, LoopBase>, sock: Ref<'_>, fd: RawFd) -> PyRes<bool> {
    Ok(internet(home, sock, fd)?.is_some())
}

/// Its family, if that is IPv4 or IPv6.
pub(super) fn internet(
    home: Inst<'_, LoopBase>,
    sock: Ref<'_>,
    fd: RawFd,
) -> PyRes<Option<AddressFamily>> {
    let known = home
        .socks
        .borrow_mut()
        .of(sock, fd)
        .and_then(|s| s.internet);
    if let Some(known) = known {
        return Ok(known);
    }
    let Some(lent) = fd::lend(sock, fd) else {
        return Ok(None);
    };
    let family = sockopt::socket_domain(lent).ok();
    let internet = family.filter(|it| matches!(*it, AddressFamily::INET | AddressFamily::INET6));
    settle(home, sock, fd)?;
    if let Some(spot) = home.socks.borrow_mut().of(sock, fd) {
        spot.internet = Some(internet);
    }
    Ok(internet)
}

/// A listening socket's `(family, type, proto)`, for the sockets that it accepts. The type says that they
/// do not block, which spares each a system call.
pub(crate) fn parts(home: Inst<'_, LoopBase>, sock: Ref<'_>, fd: RawFd) -> PyRes<Obj> {
    let known = home
        .socks
        .borrow_mut()
        .of(sock, fd)
        .and_then(|spot| spot.parts.clone());
    if let Some(parts) = known {
        return Ok(parts);
    }
    let own = names::own();
    let kind = call::getattr(sock, own.type_.borrow())?;
    let kind = value::as_i64(kind.borrow())?;
    let parts = value::tuple([
        call::getattr(sock, own.family.borrow())?,
        value::int(kind | i64::from(SocketFlags::NONBLOCK.bits()))?,
        call::getattr(sock, own.proto.borrow())?,
    ])?;
    settle(home, sock, fd)?;
    if let Some(spot) = home.socks.borrow_mut().of(sock, fd) {
        spot.parts = Some(parts.clone());
    }
    Ok(parts)
}
