//! The transport of a stream socket (TCP or Unix) under a protocol, with asyncio's semantics.
//!
//! [`TcpTransport`] is the payload of `_rondel.TcpTransportBase`. The Python class over it
//! (`rondel.transports`) does what happens once per connection; what happens per packet is here:
//! `read` (receiving), `write` (sending, flow control), `close` (all the ways to end), `methods`
//! (the rest of the Python interface).
//!
//! ```text
//!  Life     Open ──close()──► Draining ──all sent──► Gone
//!             │  └─close(), nothing queued─► Lost ──connection_lost()──► Gone
//!             └─────abort(), fatal error─────►┘        (the next turn)
//!
//!  Reading  Waiting ─────► Flowing ──EOF, protocol keeps it open──► Ended
//!             │ connection_made  │ ▲ resume_reading()                 │
//!             └──────────────► Paused ◄───────pause_reading()─────────┘
//! ```
//!
//! # Readiness
//! The socket is registered with epoll for both directions, edge-triggered: no system call is needed
//! to pause, to resume or to wait for room. An edge is reported once, so whoever does not use it up
//! has to remember it:
//! * One `recv` per event and turn, as in asyncio, for fairness. A short one has emptied the socket
//!   (epoll(7)); one that filled the buffer, or one that came with the peer's end, asks for another
//!   turn by queueing an event itself. (The kernel also ends a `recv` at TCP's urgent mark and behind
//!   a passed descriptor: what follows then waits for the next packet. Protocols over transports
//!   can receive neither, and every other read would pay for the second look.)
//! * Readability while reading is paused is kept in [`Missed`].
//! * Writability needs no memory: with nothing queued a write simply tries.
//!
//! The loop's table owns registered transports, as the handles in asyncio's selector do. One that
//! asyncio would not keep alive (peer's end seen, nothing to send) is deregistered.
//!
//! # Contexts
//! As under asyncio: the protocol reads in a copy of the context in which reading was started or
//! resumed, is told of room in a copy of that in which the blocked write was made.
//!
//! All of it runs with the GIL held; system calls here never block, which is cheaper than giving
//! the GIL up for their microseconds. No `RefCell` is borrowed while Python code can run.

mod close;
mod methods;
mod names;
mod read;
mod write;

pub(crate) use methods::build;

use crate::event_loop::{IoEvent, LoopBase, Ready};
use crate::future::Future;
use rondel_ffi::class::{ObjCell, OwnCell, Visit};
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Raised, err};
use rustix::io::Errno;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::RawFd;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Life {
    Open,
    /// Closed by its owner, with data still to send.
    Draining,
    /// Nothing is sent or received any more; `connection_lost` is scheduled.
    Lost,
    /// `connection_lost` was called and everything let go. Also what was never opened.
    #[default]
    Gone,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Reading {
    /// The protocol has not been told of the connection yet.
    #[default]
    Waiting,
    Flowing,
    Paused,
    /// The protocol was given the peer's end and keeps the connection for writing.
    Ended,
}

/// Readability reported while nobody read, the strongest report last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
enum Missed {
    #[default]
    Nothing,
    Data,
    /// The peer's end, perhaps with data before it: epoll will not report it again.
    End,
}

#[derive(Default)]
pub(crate) struct TcpTransport {
    /// None before `_open` and when gone.
    home: OwnCell<LoopBase>,
    /// The Python socket, which owns the descriptor. None before `_open` and when gone.
    sock: ObjCell,
    protocol: ObjCell,
    /// The `asyncio.Server` that accepted the connection.
    server: ObjCell,
    /// The dict behind `get_extra_info()`.
    extra: ObjCell,
    /// Waits for the queue to empty; while it is there, `sendfile` has the socket to itself.
    empty_waiter: OwnCell<Future>,
    read_context: ObjCell,
    write_context: ObjCell,
    /// `bytes` objects to send, in order.
    queue: RefCell<VecDeque<Obj>>,
    /// Bytes of the queue's first object that were sent.
    head_sent: Cell<usize>,
    /// Bytes in the queue that were not sent.
    queued: Cell<usize>,
    fd: Cell<RawFd>,
    /// The registration with the loop, if any.
    token: Cell<Option<u32>>,
    life: Cell<Life>,
    reading: Cell<Reading>,
    missed: Cell<Missed>,
    /// Bytes of the last read: a guess at the next.
    last_read: Cell<usize>,
    /// asyncio's `_conn_lost`: 1 when lost, plus the writes made since.
    lost_count: Cell<u32>,
    /// Bytes; above the first the protocol is paused, at or below the second resumed.
    high_water: Cell<usize>,
    low_water: Cell<usize>,
    /// The protocol was told to pause writing.
    protocol_paused: Cell<bool>,
    /// The protocol is a `BufferedProtocol`.
    buffered: Cell<bool>,
    /// `write_eof()` was called.
    eof_written: Cell<bool>,
}

static CELL: ClassCell = ClassCell::new();

impl Class for TcpTransport {
    /// Behind the fields of asyncio.Transport, which is written in Python.
    const PLACE: Option<usize> = None;

    fn cell() -> &'static ClassCell {
        &CELL
    }

    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.home);
        visit.own(&self.empty_waiter);
        for cell in self.cells() {
            visit.cell(cell);
        }
        if let Ok(queue) = self.queue.try_borrow() {
            for chunk in queue.iter() {
                visit.obj(chunk.borrow());
            }
        }
    }

    fn clear(&self) {
        self.life.set(Life::Gone);
        self.drop_queue();
        self.empty_waiter.set(None);
        for cell in self.cells() {
            cell.set(None);
        }
        self.home.set(None);
    }
}

impl TcpTransport {
    fn cells(&self) -> [&ObjCell; 6] {
        [
            &self.sock,
            &self.protocol,
            &self.server,
            &self.extra,
            &self.read_context,
            &self.write_context,
        ]
    }

    /// Closed for good, or never opened: writes are counted instead of sent.
    fn is_lost(&self) -> bool {
        matches!(self.life.get(), Life::Lost | Life::Gone)
    }

    /// asyncio's `is_reading()`.
    fn is_reading(&self) -> bool {
        self.life.get() == Life::Open && self.reading.get() != Reading::Paused
    }

    fn has_queued(&self) -> bool {
        self.queued.get() > 0
    }

    /// Forgets what is queued.
    fn drop_queue(&self) {
        let queue = self.queue.take();
        self.queued.set(0);
        self.head_sent.set(0);
        drop(queue);
    }

    fn miss(&self, missed: Missed) {
        self.missed.set(self.missed.get().max(missed));
    }
}

/// Acts on what epoll said about the socket, or on what the transport asked of a later turn. An
/// error ends the loop (KeyboardInterrupt, SystemExit).
pub(crate) fn on_event(
    home: Inst<'_, LoopBase>,
    transport: Own<TcpTransport>,
    event: IoEvent,
) -> PyRes<()> {
    let slf = transport.inst();
    if event.readable
        && let Err(raised) = read::ready(home, slf, event.read_closed)
    {
        close::report(home, slf, "_read_ready", raised)?;
    }
    if event.writable
        && slf.has_queued()
        && let Err(raised) = write::ready(home, slf)
    {
        close::report(home, slf, "_write_ready", raised)?;
    }
    Ok(())
}

/// Asks epoll for the socket's readiness; the present one is reported first.
fn register(home: Inst<'_, LoopBase>, slf: Inst<'_, TcpTransport>) -> PyRes<()> {
    if slf.token.get().is_none() {
        let token = home.register_transport(slf.fd.get(), slf.own())?;
        slf.token.set(Some(token));
    }
    Ok(())
}

/// Ends it. The caller holds a reference: the loop's may have been the last.
fn deregister(home: Inst<'_, LoopBase>, slf: Inst<'_, TcpTransport>) -> PyRes<()> {
    match slf.token.take() {
        Some(token) => home.deregister_transport(slf.fd.get(), token),
        None => Ok(()),
    }
}

/// Lets go of a registration that nothing needs; asyncio would have no handle in its selector.
fn deregister_idle(home: Inst<'_, LoopBase>, slf: Inst<'_, TcpTransport>) -> PyRes<()> {
    if slf.reading.get() == Reading::Ended && !slf.has_queued() {
        deregister(home, slf)
    } else {
        Ok(())
    }
}

/// Comes back to the socket in the next turn.
fn again(home: Inst<'_, LoopBase>, slf: Inst<'_, TcpTransport>, event: IoEvent) {
    home.push(Ready::Io(slf.own(), event));
}

/// An errno as an exception instance.
#[cold]
fn os_error(errno: Errno) -> Obj {
    raise_errno(errno).fetch()
}

#[cold]
fn raise_errno(errno: Errno) -> Raised {
    err::raise_io(&errno.into())
}
