//! The transport of a datagram socket (UDP or Unix) under a protocol, with asyncio's semantics.
//!
//! [`UdpTransport`] is the payload of `_rondel.UdpTransportBase`; the Python class over it
//! (`rondel._datagrams`) does what happens once per endpoint. Per datagram: `read` (receiving), `write`
//! (sending), `methods` (the rest). Its life, its end and its flow control are those of every transport
//! (`net::transport`).
//!
//! # Readiness
//! Edge-triggered, for reading; for writing only while datagrams are queued, since the kernel reports
//! room after each one sent. One event receives up to [`read::BURST`] datagrams, then others have their
//! turn and the rest is taken up in the next one. Whoever does not use an edge up (reading paused, an
//! error that passes through) queues another event or keeps [`UdpTransport::missed`].
//!
//! # Contexts
//! As under asyncio: the protocol is given datagrams in a copy of the context in which reading was
//! started, and is told of room in a copy of that in which the blocked `sendto()` was made.
//!
//! All of it runs with the GIL held; system calls never block. No `RefCell` is borrowed while Python
//! code can run.

mod methods;
mod names;
mod read;
mod write;

pub(crate) use methods::build;

use crate::event_loop::{IoEvent, LoopBase, Ready};
use crate::net::transport::{Life, Reading, Rest, State, Transport, close};
use rondel_ffi::class::{ObjCell, Visit};
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Deref;

/// Which addresses are made and read natively.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Family {
    V4,
    V6,
    /// By the socket's own methods.
    #[default]
    Other,
}

/// A peer's address, and the tuple that stands for it.
type Peer = (SocketAddr, Obj);

/// Peers whose tuples are kept, a power of two. Most of a tuple's cost is the host's text.
const PEERS: usize = 64;

#[derive(Default)]
pub(crate) struct UdpTransport {
    /// Its `queued` is asyncio's `_buffer_size`: from 3.13 on with 8 bytes for each datagram.
    state: State,
    /// The remote address of an endpoint that has one.
    address: ObjCell,
    read_context: ObjCell,
    write_context: ObjCell,
    /// Datagrams to send, in order: `bytes`, and the address or None.
    queue: RefCell<VecDeque<(Obj, Obj)>>,
    /// By a hash of the address; the last sender is `last` as well.
    peers: RefCell<Vec<Option<Peer>>>,
    last: RefCell<Option<Peer>>,
    /// The registration with the loop, if any, and whether it is for writing as well.
    token: Cell<Option<u32>>,
    watches_room: Cell<bool>,
    family: Cell<Family>,
    /// The socket is connected: datagrams are sent without an address.
    connected: Cell<bool>,
    /// Readability was reported while nobody read.
    missed: Cell<bool>,
    rest: Rest,
}

static CELL: ClassCell = ClassCell::new();

impl Class for UdpTransport {
    /// Behind the fields of asyncio.Transport, which is written in Python.
    const PLACE: Option<usize> = None;

    fn cell() -> &'static ClassCell {
        &CELL
    }

    fn traverse(&self, visit: &mut Visit) {
        self.state.traverse(visit);
        for cell in self.cells() {
            visit.cell(cell);
        }
        if let Ok(queue) = self.queue.try_borrow() {
            for (data, address) in queue.iter() {
                visit.obj(data.borrow());
                visit.obj(address.borrow());
            }
        }
    }

    fn clear(&self) {
        self.drop_queue();
        for cell in self.cells() {
            cell.set(None);
        }
        self.state.clear();
    }
}

impl Deref for UdpTransport {
    type Target = State;
    #[inline(always)]
    fn deref(&self) -> &State {
        &self.state
    }
}

impl Transport for UdpTransport {
    const NAME: &'static str = "DatagramTransport";

    fn rest(&self) -> &Rest {
        &self.rest
    }

    fn drop_queue(&self) {
        let queue = self.queue.take();
        self.queued.set(0);
        drop(queue);
    }

    fn polls(&self) -> bool {
        self.life.get() == Life::Open
            && self.reading.get() == Reading::Flowing
            && self.token.get().is_some()
    }

    fn deregister(home: Inst<'_, LoopBase>, slf: Inst<'_, Self>) -> PyRes<()> {
        slf.watches_room.set(false);
        match slf.token.take() {
            Some(token) => home.deregister_datagrams(slf.fd.get(), token),
            None => Ok(()),
        }
    }

    fn let_go(slf: Inst<'_, Self>) -> PyRes<()> {
        slf.read_context.set(None);
        slf.write_context.set(None);
        slf.drop_queue();
        slf.drop_peers();
        Ok(())
    }
}

impl UdpTransport {
    fn cells(&self) -> [&ObjCell; 4] {
        [
            &self.rest.extra,
            &self.address,
            &self.read_context,
            &self.write_context,
        ]
    }

    fn has_queued(&self) -> bool {
        !self.queue.borrow().is_empty()
    }

    /// Forgets the tuples of its peers.
    fn drop_peers(&self) {
        let peers = (self.peers.take(), self.last.take());
        drop(peers);
    }
}

/// Acts on what epoll said about the socket, or on what the transport asked of a later turn. An
/// error ends the loop (KeyboardInterrupt, SystemExit).
pub(crate) fn on_event(
    home: Inst<'_, LoopBase>,
    transport: Own<UdpTransport>,
    event: IoEvent,
) -> PyRes<()> {
    let slf = transport.inst();
    if event.readable {
        read::ready(home, slf)?;
    }
    if event.writable
        && slf.has_queued()
        && let Err(raised) = write::ready(home, slf)
    {
        close::report(home, slf, "_sendto_ready", raised)?;
    }
    Ok(())
}

/// Asks epoll for readability, and for room if datagrams are queued; what is ready is reported anew.
fn register(home: Inst<'_, LoopBase>, slf: Inst<'_, UdpTransport>) -> PyRes<()> {
    let (fd, room) = (slf.fd.get(), slf.has_queued());
    match slf.token.get() {
        None => {
            let token = home.register_datagrams(fd, room, slf.own())?;
            slf.token.set(Some(token));
        }
        Some(token) if slf.watches_room.get() != room => {
            home.with_driver(|driver| driver.change_edge(fd, token, true, room))?;
        }
        Some(_) => {}
    }
    slf.watches_room.set(room);
    Ok(())
}

/// Comes back to the socket in the next turn.
fn again(home: Inst<'_, LoopBase>, slf: Inst<'_, UdpTransport>, writable: bool) {
    let event = IoEvent {
        readable: !writable,
        writable,
        read_closed: false,
    };
    home.push(Ready::Datagrams(slf.own(), event));
}
