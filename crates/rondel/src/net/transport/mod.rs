//! What all transports have in common: the states of a life, its end, the limits of the write
//! buffer, and how errors are told.
//!
//! A transport's payload begins with a [`State`], which it dereferences to, and ends with a [`Rest`],
//! what its packets do not need; the trait [`Transport`] says what differs. Everything is generic over
//! it, so each kind of transport has code of its own and nothing is dispatched at run time.
//!
//! * `close`: the ways to end, and where errors go. `limits`: flow control of writing.
//! * `receive`: reading into new `bytes`. `queue`: what a stream transport has to send.
//! * `switches`: whether data goes to the protocol.
//! * `methods`: the part of the Python interface that is the same for all.
//!
//! ```text
//!  Life     Open ──close()──► Draining ──all sent──► Gone
//!             │  └─close(), nothing queued─► Lost ──connection_lost()──► Gone
//!             └─────abort(), fatal error─────►┘        (the next turn)
//! ```
//!
//! All of it runs with the GIL held. No `RefCell` is borrowed while Python code can run.

pub(super) mod close;
pub(super) mod limits;
mod methods;
mod names;
mod queue;
pub(super) mod receive;
pub(super) mod switches;

pub(super) use methods::{
    get_extra_info, methods, paused, properties, writing, writing_properties,
};
pub(crate) use names::load;
pub(super) use queue::Queue;

use crate::event_loop::LoopBase;
use rondel_ffi::class::{ObjCell, OwnCell, Visit};
use rondel_ffi::{Class, Inst, Obj, PyRes, Raised, Ref, err, fd};
use rustix::io::Errno;
use std::cell::Cell;
use std::ops::Deref;
use std::os::fd::{BorrowedFd, RawFd};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Life {
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
pub(super) enum Reading {
    /// The protocol has not been told of the transport yet.
    #[default]
    Waiting,
    Flowing,
    Paused,
    /// The protocol was given the peer's end and keeps the transport for writing.
    Ended,
}

/// What each packet needs.
#[derive(Default)]
#[repr(C)]
pub(crate) struct State {
    pub(super) life: Cell<Life>,
    pub(super) reading: Cell<Reading>,
    /// The protocol was told to pause writing.
    pub(super) protocol_paused: Cell<bool>,
    pub(super) fd: Cell<RawFd>,
    /// None before it is opened and when gone.
    pub(super) home: OwnCell<LoopBase>,
    /// The Python object that owns the descriptor: a socket, a pipe. None before it is opened and
    /// when gone.
    pub(super) file: ObjCell,
    pub(super) protocol: ObjCell,
    /// Bytes that wait to be sent: asyncio's `get_write_buffer_size()`.
    pub(super) queued: Cell<usize>,
}

/// What is looked at once in a while.
#[derive(Default)]
pub(crate) struct Rest {
    /// The dict behind `get_extra_info()`.
    pub(super) extra: ObjCell,
    /// asyncio's `_conn_lost`: [`Transport::LOST`] when lost, plus the writes made since.
    pub(super) lost_count: Cell<u32>,
    /// Bytes; above the first the protocol is paused, at or below the second resumed.
    pub(super) high_water: Cell<usize>,
    pub(super) low_water: Cell<usize>,
}

/// A transport's payload.
pub(super) trait Transport: Class + Deref<Target = State> {
    /// Its name in the report of an exception that came out of a callback.
    const NAME: &'static str;
    /// What is said of writes to a lost one.
    const LOST_WARNING: &'static str = "socket.send() raised exception.";
    /// The count of such writes begins with this one.
    const LOST: u32 = 1;

    fn rest(&self) -> &Rest;

    /// Forgets what waits to be sent.
    fn drop_queue(&self);

    /// Whether the loop watches for readability: for its repr.
    fn polls(&self) -> bool;

    /// Lets the loop watch for nothing. The caller holds a reference: the loop's may have been the
    /// last.
    fn deregister(home: Inst<'_, LoopBase>, slf: Inst<'_, Self>) -> PyRes<()>;

    /// The same when its end begins, for which there may be a shorter way.
    fn deregister_for_good(home: Inst<'_, LoopBase>, slf: Inst<'_, Self>) -> PyRes<()> {
        Self::deregister(home, slf)
    }

    /// Schedules `connection_lost(exc)`.
    fn end_soon(home: Inst<'_, LoopBase>, slf: Inst<'_, Self>, exc: Ref<'_>) -> PyRes<()> {
        close::call_end_soon(home, slf, exc)
    }

    /// The protocol was told and let go of; the file is closed next.
    fn before_close(_slf: Inst<'_, Self>) {}

    fn close_file(file: Ref<'_>) -> PyRes<()> {
        super::close_socket(file)
    }

    /// The protocol was told, the file is closed: lets go of what else it has.
    fn let_go(slf: Inst<'_, Self>) -> PyRes<()>;

    /// Everything is let go of, and nothing has failed.
    fn gone(_slf: Inst<'_, Self>) -> PyRes<()> {
        Ok(())
    }
}

impl State {
    /// Closed for good, or never opened: writes are counted instead of sent.
    #[inline(always)]
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.life.get(), Life::Lost | Life::Gone)
    }

    /// asyncio's `is_reading()`.
    #[inline(always)]
    pub(super) fn is_reading(&self) -> bool {
        self.life.get() == Life::Open && self.reading.get() != Reading::Paused
    }

    /// The descriptor, for a system call.
    ///
    /// # Errors
    /// `EBADF` when the transport has let go of it.
    #[inline(always)]
    pub(super) fn descriptor(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.file
            .peek()
            .and_then(|file| fd::lend(file, self.fd.get()))
            .ok_or(Errno::BADF)
    }

    pub(super) fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.home);
        visit.cell(&self.file);
        visit.cell(&self.protocol);
    }

    pub(super) fn clear(&self) {
        self.life.set(Life::Gone);
        self.file.set(None);
        self.protocol.set(None);
        self.home.set(None);
    }
}

/// An errno as an exception instance.
#[cold]
pub(super) fn os_error(errno: Errno) -> Obj {
    raise_errno(errno).fetch()
}

#[cold]
pub(super) fn raise_errno(errno: Errno) -> Raised {
    err::raise_io(&errno.into())
}
