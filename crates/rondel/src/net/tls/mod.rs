//! TLS between a transport and a protocol, by Python's own `ssl`: asyncio takes any `SSLContext`.
//!
//! Two objects, as under asyncio: [`Tls`] is the protocol of the transport below and has the session;
//! [`TlsTransport`] is what the application's protocol gets. `rondel._tls` completes both with
//! asyncio's own classes (`sslproto.SSLProtocol`, `_SSLProtocolTransport`): what happens once per
//! connection (handshake, shutdown, timeouts, errors, debugging) is asyncio's Python code of the
//! version that runs. What happens per record is here: `read`, `write`; `methods` has the rest of the
//! Python interface.
//!
//! ```text
//!  socket ──recv──► scratch ──► incoming BIO ──SSL_read──► the very `bytes` that the protocol gets
//!                                                          (or its own buffer)
//!  transport.write ──► backlog ──SSL_write──► outgoing BIO ──► `bytes` ──send──► socket
//! ```
//!
//! # Why memory BIOs
//! A BIO over the socket would cost two reads per record (header, body) and one write per record;
//! over memory a turn's records are one `recv` and one `send`, for a copy each way that is 3 % of the
//! encryption.
//!
//! # What is spared
//! * Python frames: `SSLObject`'s methods only call those of the `_ssl` object inside; so do we.
//! * The exception by which OpenSSL says that it wants more: 1.4 µs, as much as a record of 1 KB.
//!   When the incoming BIO is empty after a read that left room, nothing is left.
//! * Buffers of 256 KiB per read: what is decrypted is never longer than what came in.
//! * Records: what a turn writes is encrypted together when the turn ends (or when the protocol's
//!   `data_received` returns, as far as it wrote there), or as soon as it is [`COALESCE`] bytes.
//!   Whoever could tell the difference (a buffer's size, closing, aborting) flushes first.
//!
//! # Invariants
//! * GIL held throughout; OpenSSL gives it up inside. No `RefCell` is borrowed while Python code can
//!   run, which includes every call of the session: contexts have callbacks.
//! * A record that OpenSSL could not write (it wanted to read first) stays at the backlog's front:
//!   the next try offers the same bytes, perhaps with more behind them.
//! * The backlog is only held back while the transport below has paused us and the connection is
//!   neither flushing nor shutting down: close_notify comes after everything.

mod methods;
mod names;
mod read;
mod transport;
mod write;

pub(crate) use read::{advance, take_in};
pub(crate) use write::end_of_batch;

use crate::event_loop::LoopBase;
use crate::net::tcp::TcpTransport;
use rondel_ffi::class::{ObjCell, OwnCell, Visit};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::ssl::{Bio, Session};
use rondel_ffi::{Class, ClassCell, Inst, Obj, PyRes, Raised, call, value};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// Writes of one turn are kept together up to this many bytes.
const COALESCE: usize = 64 * 1024;

/// asyncio's `SSLProtocolState`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
enum State {
    #[default]
    Unwrapped,
    Handshake,
    Wrapped,
    /// Closing: what was written goes out, what came in is delivered.
    Flushing,
    /// close_notify was sent.
    Shutdown,
}

/// How the application's protocol takes data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Kind {
    #[default]
    Plain,
    Buffered,
    /// Another layer of TLS.
    Nested,
}

/// The payload of `_rondel.TlsProtocolBase`.
#[derive(Default)]
pub(crate) struct Tls {
    /// None before `_open`.
    home: OwnCell<LoopBase>,
    /// The transport below; None before the connection is made and after it was lost.
    lower: ObjCell,
    /// The same, if it is ours.
    tcp: OwnCell<TcpTransport>,
    /// None after the connection was lost, as is the next.
    app_transport: ObjCell,
    app_protocol: ObjCell,
    kind: Cell<Kind>,
    /// The `ssl.SSLObject`.
    sslobj: ObjCell,
    /// The `_ssl` object in it; None for a subclass of `SSLObject`, whose methods are called then.
    session: ObjCell,
    /// Both exactly `_ssl.MemoryBIO`.
    incoming: ObjCell,
    outgoing: ObjCell,
    state: Cell<State>,
    /// `bytes` objects to encrypt, in order.
    backlog: RefCell<VecDeque<Obj>>,
    /// Bytes of the backlog's first object that were encrypted.
    head_sent: Cell<usize>,
    /// Bytes of the backlog that were not.
    backlog_size: Cell<usize>,
    /// In the loop's list of those to flush at the turn's end.
    to_flush: Cell<bool>,
    /// `read` is delivering data, and flushes when that is over.
    delivering: Cell<bool>,
    /// Nothing is in the incoming BIO, nor in OpenSSL.
    dry: Cell<bool>,
    /// What has come since is one whole record of so many bytes; 0 when it may be anything else.
    lone: Cell<usize>,
    /// The last read found only a part of a record: it is within OpenSSL.
    mid_record: Cell<bool>,
    /// The transport below has told us to pause writing.
    lower_paused: Cell<bool>,
    /// We have told the transport below to pause reading.
    lower_reading_paused: Cell<bool>,
    app_reading_paused: Cell<bool>,
    app_writing_paused: Cell<bool>,
    /// Bytes; at or above the first the other side is paused, at or below the second resumed.
    outgoing_high: Cell<usize>,
    outgoing_low: Cell<usize>,
    incoming_high: Cell<usize>,
    incoming_low: Cell<usize>,
}

static CELL: ClassCell = ClassCell::new();

impl Class for Tls {
    fn cell() -> &'static ClassCell {
        &CELL
    }

    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.home);
        visit.own(&self.tcp);
        for cell in self.cells() {
            visit.cell(cell);
        }
        if let Ok(backlog) = self.backlog.try_borrow() {
            for chunk in backlog.iter() {
                visit.obj(chunk.borrow());
            }
        }
    }

    fn clear(&self) {
        self.drop_backlog();
        self.tcp.set(None);
        for cell in self.cells() {
            cell.set(None);
        }
        self.home.set(None);
    }
}

impl Tls {
    fn cells(&self) -> [&ObjCell; 7] {
        [
            &self.lower,
            &self.app_transport,
            &self.app_protocol,
            &self.sslobj,
            &self.session,
            &self.incoming,
            &self.outgoing,
        ]
    }

    fn drop_backlog(&self) {
        let backlog = self.backlog.take();
        self.backlog_size.set(0);
        self.head_sent.set(0);
        drop(backlog);
    }

    fn has_backlog(&self) -> bool {
        self.backlog_size.get() > 0
    }
}

/// The payload of `_rondel.TlsTransportBase`.
#[derive(Default)]
pub(crate) struct TlsTransport {
    tls: OwnCell<Tls>,
    /// asyncio's `_closed`: closing, or forgotten without a complaint.
    closed: Cell<bool>,
}

static TRANSPORT: ClassCell = ClassCell::new();

impl Class for TlsTransport {
    /// Behind the fields of asyncio.Transport, which is written in Python.
    const PLACE: Option<usize> = None;

    fn cell() -> &'static ClassCell {
        &TRANSPORT
    }

    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.tls);
    }

    fn clear(&self) {
        self.tls.set(None);
    }
}

/// `_rondel.TlsProtocolBase` and `_rondel.TlsTransportBase`.
pub(crate) fn build() -> PyRes<[Obj; 2]> {
    names::load()?;
    rondel_ffi::ssl::prepare()?;
    Ok([methods::build()?, transport::build()?])
}

const FAILED: &str = "Fatal error on SSL protocol";

/// A BIO of an opened layer. The object is kept alive by `held` for the call.
fn bio(held: &Option<Obj>) -> PyRes<Bio<'_>> {
    held.as_ref()
        .and_then(|obj| Bio::new(obj.borrow()))
        .ok_or_else(|| Builtin::Runtime.raise("the TLS layer is not open"))
}

fn session(held: &Option<Obj>) -> Option<Session<'_>> {
    held.as_ref().and_then(|obj| Session::new(obj.borrow()))
}

/// Reports what went wrong and aborts the connection, by asyncio's `_fatal_error`; what is no
/// `Exception` passes on to whoever runs the loop.
#[cold]
fn failed(slf: Inst<'_, Tls>, raised: Raised) -> PyRes<()> {
    let exc = raised.fetch();
    if !err::exception_is(exc.borrow(), Builtin::Exception.class()) {
        return Err(err::raise_instance(exc.borrow()));
    }
    let message = value::str(FAILED)?;
    let args = [slf.obj(), exc.borrow(), message.borrow()];
    err::while_handling(exc.borrow(), || {
        call::method(names::own().fatal_error.borrow(), args).map(drop)
    })
}
