//! The transport of a stream socket (TCP or Unix) under a protocol, with asyncio's semantics.
//!
//! [`TcpTransport`] is the payload of `_rondel.TcpTransportBase`. The Python class over it
//! (`rondel.transports`) does what happens once per connection; what happens per packet is here:
//! `read` (receiving), `write` (sending), `methods` (the rest of the Python interface). Its life, its end
//! and its flow control are those of every transport (`net::transport`).
//!
//! ```text
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
//! * Readability while reading is paused is kept in [`Missed`]. So is that of a native stream whose
//!   reader is waited for: the task is woken, and receives when it runs (`read::pull`).
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

mod birth;
mod descriptor;
mod methods;
mod names;
mod open;
mod read;
mod table;
mod write;

pub(crate) use birth::{accept_many, definition};
pub(crate) use methods::build;
pub(crate) use open::{connected, has_extra};
pub(crate) use read::{pull, put_back};
pub(crate) use table::Transports;
pub(crate) use write::{write, writelines};

use crate::event_loop::{IoEvent, LoopBase, Ready};
use crate::future::{self, Future};
use crate::net::expected::Expected;
use crate::net::sock;
use crate::net::streams::Reader;
use crate::net::transport::{self, Life, Queue, Reading, Rest, State, Transport};
use rondel_ffi::class::{ObjCell, OwnCell, Visit, Weak, peek};
use rondel_ffi::prefetch::Trace;
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Ref, call, value};
use std::cell::Cell;
use std::ops::Deref;

/// How the protocol takes data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Kind {
    #[default]
    Plain,
    /// A `BufferedProtocol`.
    Buffered,
    /// A layer of TLS of ours.
    Tls,
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

impl Missed {
    fn of(closed: bool) -> Missed {
        if closed { Missed::End } else { Missed::Data }
    }
}

/// What each packet needs comes first: a thousand connections take turns, so that every line of cache
/// is fetched anew.
#[derive(Default)]
#[repr(C)]
pub(crate) struct TcpTransport {
    state: State,
    missed: Cell<Missed>,
    /// The protocol is a native stream's: its reader is fed without a call.
    stream: Cell<bool>,
    kind: Cell<Kind>,
    /// `write_eof()` was called.
    eof_written: Cell<bool>,
    /// The native protocol's reader, while it is alive and this is its transport; it sees to that.
    reader: Cell<Option<Weak<Reader>>>,
    /// Waits for the queue to empty; while it is there, `sendfile` has the socket to itself.
    empty_waiter: OwnCell<Future>,
    expected: Cell<Expected>,
    writer: Cell<Trace>,
    read_context: ObjCell,
    queue: Queue,
    /// The registration with the loop, if any.
    token: Cell<Option<u32>>,
    write_context: ObjCell,
    /// The `asyncio.Server` that accepted the connection.
    server: ObjCell,
    /// The socket, until it is shown in `extra` ([`open::extra`]); longer than `file`, as it may be asked
    /// for later.
    described: ObjCell,
    /// Its addresses, likewise.
    ends: Cell<Option<open::Ends>>,
    /// What the next hop calls: the protocol's factory, `connection_made` (see `birth`).
    next_call: ObjCell,
    /// What the last hop tells the protocol.
    last_exc: ObjCell,
    rest: Rest,
}

static CELL: ClassCell = ClassCell::new();

impl Class for TcpTransport {
    /// Behind the fields of asyncio.Transport, which is written in Python.
    const PLACE: Option<usize> = None;

    fn cell() -> &'static ClassCell {
        &CELL
    }

    fn traverse(&self, visit: &mut Visit) {
        self.state.traverse(visit);
        visit.own(&self.empty_waiter);
        for cell in self.cells() {
            visit.cell(cell);
        }
        self.queue.traverse(visit);
    }

    fn clear(&self) {
        self.drop_queue();
        self.empty_waiter.set(None);
        for cell in self.cells() {
            cell.set(None);
        }
        self.state.clear();
    }
}

impl Deref for TcpTransport {
    type Target = State;
    #[inline(always)]
    fn deref(&self) -> &State {
        &self.state
    }
}

impl Transport for TcpTransport {
    const NAME: &'static str = "SocketTransport";

    fn rest(&self) -> &Rest {
        &self.rest
    }

    fn drop_queue(&self) {
        self.queued.set(0);
        self.queue.clear();
    }

    fn polls(&self) -> bool {
        self.life.get() == Life::Open
            && self.reading.get() == Reading::Flowing
            && self.token.get().is_some()
    }

    fn deregister(home: Inst<'_, LoopBase>, slf: Inst<'_, Self>) -> PyRes<()> {
        deregister(home, slf)
    }

    fn deregister_for_good(home: Inst<'_, LoopBase>, slf: Inst<'_, Self>) -> PyRes<()> {
        retire_registration(home, slf)?;
        if !slf.empty_waiter.is_none() {
            // `sendfile` waits for the descriptor, whose number is free from now on.
            sock::vacate(&home, slf.fd.get())?;
            let number = value::int(i64::from(slf.fd.get()))?;
            let args = [home.obj(), number.borrow()];
            let _removed = call::method(names::own().remove_writer.borrow(), args)?;
        }
        Ok(())
    }

    fn end_soon(home: Inst<'_, LoopBase>, slf: Inst<'_, Self>, exc: Ref<'_>) -> PyRes<()> {
        birth::end_soon(home, slf, exc)
    }

    fn before_close(slf: Inst<'_, Self>) {
        open::keep_local(slf);
        birth::close_unseen(slf);
    }

    fn close_file(file: Ref<'_>) -> PyRes<()> {
        birth::close_file(file)
    }

    fn let_go(slf: Inst<'_, Self>) -> PyRes<()> {
        slf.read_context.set(None);
        slf.write_context.set(None);
        let Some(server) = slf.server.take() else {
            return Ok(());
        };
        let detach = names::own().detach.borrow();
        // From 3.13 on a server knows its transports.
        let detached = if cfg!(Py_3_13) {
            call::method(detach, [server.borrow(), slf.obj()])
        } else {
            call::method(detach, [server.borrow()])
        };
        detached.map(drop)
    }

    fn gone(slf: Inst<'_, Self>) -> PyRes<()> {
        match slf.empty_waiter.get() {
            Some(waiter) if !waiter.done() => {
                let text = value::str("Connection is closed by peer")?;
                let exc = call::call1(names::own().connection_error.borrow(), text.borrow())?;
                future::fail(waiter.inst(), exc)
            }
            _ => Ok(()),
        }
    }
}

impl TcpTransport {
    /// The reader of a native stream, unless its end has begun.
    #[inline(always)]
    fn reader(&self) -> Option<Own<Reader>> {
        peek(&self.reader, |reader| reader.as_ref().and_then(Weak::own))
    }

    #[inline(always)]
    fn has_reader(&self) -> bool {
        peek(&self.reader, Option::is_some)
    }

    /// Data of this transport is `reader`'s from now on, until [`TcpTransport::forget`].
    pub(crate) fn serve(&self, reader: Inst<'_, Reader>) {
        if self.stream.get() {
            self.reader.set(Some(Weak::new(reader)));
        }
    }

    /// Undoes [`TcpTransport::serve`] for that reader.
    pub(crate) fn forget(&self, reader: &Reader) {
        let served = peek(&self.reader, |served| {
            served
                .as_ref()
                .is_some_and(|served| std::ptr::eq(served.get().data(), reader))
        });
        if served {
            self.reader.set(None);
        }
    }

    /// The protocol as a native stream's.
    pub(crate) fn stream_protocol(&self) -> Option<Obj> {
        if self.stream.get() {
            self.protocol.get()
        } else {
            None
        }
    }

    fn cells(&self) -> [&ObjCell; 7] {
        [
            &self.server,
            &self.rest.extra,
            &self.described,
            &self.read_context,
            &self.write_context,
            &self.next_call,
            &self.last_exc,
        ]
    }

    /// Nobody else has the socket: its two references are the transport's own, and it was never shown.
    fn is_private(&self) -> bool {
        self.described.is_some() && self.file.peek().is_some_and(|file| file.refcount() == 2)
    }

    fn has_queued(&self) -> bool {
        self.queued.get() > 0
    }

    fn miss(&self, missed: Missed) {
        self.missed.set(self.missed.get().max(missed));
    }
}

/// asyncio's `is_closing()`.
#[inline(always)]
pub(crate) fn is_closing(slf: Inst<'_, TcpTransport>) -> bool {
    slf.life.get() != Life::Open
}

/// Acts on what epoll said about the socket, or on what the transport asked of a later turn. An
/// error ends the loop (KeyboardInterrupt, SystemExit).
pub(crate) fn on_event(
    home: Inst<'_, LoopBase>,
    transport: Own<TcpTransport>,
    event: IoEvent,
) -> PyRes<()> {
    let slf = transport.inst();
    if birth::is_hop(event) {
        return birth::on_hop(home, slf, event);
    }
    if event.readable
        && let Err(raised) = read::ready(home, slf, event.read_closed)
    {
        transport::close::report(home, slf, "_read_ready", raised)?;
    }
    if event.writable
        && slf.has_queued()
        && let Err(raised) = write::ready(home, slf)
    {
        transport::close::report(home, slf, "_write_ready", raised)?;
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

/// Ends it for good: the socket is about to be closed. That ends the kernel's side as well if nobody
/// else can have a duplicate of the descriptor.
fn retire_registration(home: Inst<'_, LoopBase>, slf: Inst<'_, TcpTransport>) -> PyRes<()> {
    match slf.token.get() {
        Some(token) if slf.is_private() => {
            slf.token.set(None);
            home.forget_transport(token)
        }
        _ => deregister(home, slf),
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
