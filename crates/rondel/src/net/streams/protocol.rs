//! `StreamReaderProtocol`: between a transport and a reader. A native transport passes data on without
//! calling it (`TcpTransport::serve`); here is what happens once per connection.
//!
//! What the class itself does for a native loop is done here, over asyncio's fields; a subclass, a loop in
//! debug mode, a foreign loop and the begin of a server's connection are asyncio's own methods
//! ([`by_asyncio`]). The future `_closed` is made when somebody asks for it: most connections end before.
//!
//! GIL held throughout.

use super::{is_plain, needed, own, reader};
use crate::consts::{names, stock};
use crate::event_loop::LoopBase;
use crate::future::{self, State};
use crate::net::tcp::{self, TcpTransport};
use crate::sync::fields::{self, Given, given, set_obj, show};
use crate::sync::waiters;
use rondel_ffi::class::{ObjCell, TypeBuilder, Visit};
use rondel_ffi::err::Builtin;
use rondel_ffi::method::{self, Args};
use rondel_ffi::weak::WeakRef;
use rondel_ffi::{Class, ClassCell, Inst, Obj, PyRes, Ref, call, value};
use std::cell::Cell;
use std::ffi::CStr;

#[derive(Default)]
pub(crate) struct StreamProtocol {
    /// asyncio's weak reference to the reader: one that nobody reads from any more is let go.
    reader: ObjCell,
    /// The transport has told it to pause writing.
    pub(super) paused: Cell<bool>,
    pub(super) connection_lost: Cell<bool>,
    reject_connection: Cell<bool>,
    over_ssl: Cell<bool>,
    loop_: ObjCell,
    transport: ObjCell,
    /// A server's, until its connection is made.
    strong_reader: ObjCell,
    connected_callback: ObjCell,
    writer: ObjCell,
    task: ObjCell,
    /// A deque, once somebody asks for it.
    drain_waiters: ObjCell,
    closed: Cell<Closed>,
    /// asyncio's `_closed`, once it is [`Closed::Asked`]; before, what it is to fail with.
    close_waiter: ObjCell,
}

/// What there is of the future that is done when the connection is lost.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Closed {
    /// The constructor has not run.
    #[default]
    Nothing,
    /// Nobody has asked for it yet.
    Unasked,
    /// Nor until the connection was lost.
    Over,
    /// It is there.
    Asked,
}

static CELL: ClassCell = ClassCell::new();

impl Class for StreamProtocol {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        for cell in self.cells() {
            visit.cell(cell);
        }
    }
    fn clear(&self) {
        for cell in self.cells() {
            cell.set(None);
        }
    }
}

impl StreamProtocol {
    fn cells(&self) -> [&ObjCell; 9] {
        [
            &self.reader,
            &self.loop_,
            &self.transport,
            &self.strong_reader,
            &self.connected_callback,
            &self.writer,
            &self.task,
            &self.drain_waiters,
            &self.close_waiter,
        ]
    }
}

type Slf<'a> = Inst<'a, StreamProtocol>;

/// Whether data for this protocol may go to its reader directly.
pub(crate) fn is_native(protocol: Ref<'_>) -> bool {
    is_plain(protocol, |plain| &plain.protocol)
}

/// The reader of a protocol that [`is_native`].
pub(super) fn reader_of(protocol: Ref<'_>) -> PyRes<Option<Obj>> {
    match protocol
        .cast::<StreamProtocol>()
        .and_then(|slf| slf.data().reader.get())
    {
        Some(weak) => call::call0(weak.borrow()).map(Some),
        None => Ok(None),
    }
}

/// The reader, if it is alive.
#[inline(always)]
fn living_reader(slf: Slf<'_>) -> PyRes<Option<Obj>> {
    match slf.reader.get() {
        Some(weak) => {
            call::call0(weak.borrow()).map(|reader| (!reader.is_none()).then_some(reader))
        }
        None => Ok(None),
    }
}

fn plain_reader(reader: &Obj) -> Option<Inst<'_, reader::Reader>> {
    if is_plain(reader.borrow(), |plain| &plain.reader) {
        reader.borrow().cast::<reader::Reader>()
    } else {
        None
    }
}

/// asyncio's own method, on the same fields.
#[cold]
fn by_asyncio(slf: Slf<'_>, name: &CStr, rest: &[Ref<'_>]) -> PyRes<Obj> {
    let method = call::getattr(own().stock_protocol.borrow(), value::intern(name)?.borrow())?;
    let mut args = vec![slf.obj()];
    args.extend(rest);
    call::call(method.borrow(), &args)
}

// ------------------------------------------------------------------------------- the begin

/// `__init__(stream_reader, client_connected_cb=None, loop=None)`.
fn init(slf: Slf<'_>, args: Args<'_>) -> PyRes<()> {
    let names = own();
    let params = [
        names.stream_reader.borrow(),
        names.client_connected.borrow(),
        crate::consts::names().loop_.borrow(),
    ];
    let [reader, callback, loop_] = args.bind("StreamReaderProtocol.__init__", params, 1, 3)?;
    let none = Obj::none();
    let [reader, callback, loop_] =
        [reader, callback, loop_].map(|given| given.unwrap_or(none.borrow()));
    let usual = is_native(slf.obj())
        && (reader.is_none() || is_plain(reader, |plain| &plain.reader))
        && loop_
            .cast::<LoopBase>()
            .is_some_and(|home| !home.is_debug());
    if !usual {
        return by_asyncio(slf, c"__init__", &[reader, callback, loop_]).map(drop);
    }
    slf.loop_.set(Some(loop_.own()));
    slf.paused.set(false);
    slf.drain_waiters.set(None);
    slf.connection_lost.set(false);
    let (mut weak, mut strong) = (None, None);
    if reader.not_none().is_some() {
        weak = Some(WeakRef::new(reader)?.into_obj());
        // That of the class is None; debug mode may have been on when the reader was made.
        let source = names.source_traceback.borrow();
        let traceback = call::getattr(reader, source)?;
        if !traceback.is_none() {
            call::setattr(slf.obj(), source, traceback.borrow())?;
        }
        if !callback.is_none() {
            strong = Some(reader.own());
        }
    }
    slf.reader.set(weak);
    slf.strong_reader.set(strong);
    slf.reject_connection.set(false);
    for cell in [&slf.writer, &slf.task, &slf.transport] {
        cell.set(None);
    }
    slf.connected_callback
        .set(callback.not_none().map(Ref::own));
    slf.over_ssl.set(false);
    slf.close_waiter.set(None);
    slf.closed.set(Closed::Unasked);
    Ok(())
}

/// `connection_made(transport)`.
fn connection_made(slf: Slf<'_>, args: Args<'_>) -> PyRes<Obj> {
    let name = "StreamReaderProtocol.connection_made";
    let transport = needed(args, name, own().transport.borrow())?;
    if !is_native(slf.obj()) || slf.reject_connection.get() || slf.connected_callback.is_some() {
        return super::serve_by_asyncio(slf.obj(), transport);
    }
    slf.transport.set(transport.not_none().map(Ref::own));
    if let Some(reader) = living_reader(slf)? {
        match plain_reader(&reader) {
            Some(native) => reader::use_transport(native, transport)?,
            None => {
                let set = value::intern(c"set_transport")?;
                let _none = call::method(set.borrow(), [reader.borrow(), transport])?;
            }
        }
    }
    let context = own().sslcontext.borrow();
    let over_ssl = match transport.cast::<TcpTransport>() {
        Some(native) if is_plain(transport, |plain| &plain.transport) => {
            tcp::has_extra(native, context)?
        }
        _ => {
            let ask = own().get_extra_info.borrow();
            !call::method(ask, [transport, context])?.is_none()
        }
    };
    slf.over_ssl.set(over_ssl);
    Ok(Obj::none())
}

// ------------------------------------------------------------------------------- data

#[inline(always)]
fn pass_on(slf: Slf<'_>, data: Ref<'_>) -> PyRes<()> {
    let Some(reader) = living_reader(slf)? else {
        return Ok(());
    };
    match plain_reader(&reader) {
        Some(native) => reader::feed(native, data),
        None => call::method(own().feed_data.borrow(), [reader.borrow(), data]).map(drop),
    }
}

fn data_received(slf: Slf<'_>, args: Args<'_>) -> PyRes<Obj> {
    let name = "StreamReaderProtocol.data_received";
    let data = needed(args, name, own().data.borrow())?;
    pass_on(slf, data)?;
    Ok(Obj::none())
}

fn feed_eof(reader: &Obj) -> PyRes<()> {
    match plain_reader(reader) {
        Some(native) => reader::end(native),
        None => {
            let feed = value::intern(c"feed_eof")?;
            call::method(feed.borrow(), [reader.borrow()]).map(drop)
        }
    }
}

fn eof_received(slf: Slf<'_>) -> PyRes<Obj> {
    if !is_native(slf.obj()) {
        return by_asyncio(slf, c"eof_received", &[]);
    }
    if let Some(reader) = living_reader(slf)? {
        feed_eof(&reader)?;
    }
    // Keeps the write end open, which TLS can't.
    Ok(Obj::bool(!slf.over_ssl.get()))
}

// ------------------------------------------------------------------------------- the end

/// `connection_lost(exc)`.
fn connection_lost(slf: Slf<'_>, args: Args<'_>) -> PyRes<Obj> {
    let name = "StreamReaderProtocol.connection_lost";
    let exc = needed(args, name, own().exc.borrow())?;
    if !is_native(slf.obj()) {
        return by_asyncio(slf, c"connection_lost", &[exc]);
    }
    if let Some(reader) = living_reader(slf)? {
        if exc.is_none() {
            feed_eof(&reader)?;
        } else {
            let set = names().set_exception.borrow();
            let _none = call::method(set, [reader.borrow(), exc])?;
        }
    }
    match (slf.closed.get(), slf.close_waiter.get()) {
        (Closed::Unasked, _) => {
            slf.closed.set(Closed::Over);
            slf.close_waiter.set(exc.not_none().map(Ref::own));
        }
        (Closed::Asked, Some(waiter)) => settle(&waiter, exc)?,
        _ => {}
    }
    slf.connection_lost.set(true);
    if slf.paused.get() {
        // Whoever drains is told.
        let mixin = own().flow_control.borrow();
        let lost = call::getattr(mixin, names().connection_lost.borrow())?;
        let _none = call::call(lost.borrow(), &[slf.obj(), exc])?;
    }
    for cell in [&slf.reader, &slf.writer, &slf.task, &slf.transport] {
        cell.set(None);
    }
    Ok(Obj::none())
}

/// The close waiter's outcome, unless it has one.
fn settle(waiter: &Obj, exc: Ref<'_>) -> PyRes<()> {
    let waiter = waiter.borrow();
    if exc.is_none() {
        return waiters::wake(waiter, Obj::none()).map(|_woken| ());
    }
    if !waiters::done(waiter)? {
        let _none = call::method(names().set_exception.borrow(), [waiter, exc])?;
    }
    Ok(())
}

/// asyncio's `_closed`.
pub(super) fn close_waiter(slf: Slf<'_>) -> PyRes<Obj> {
    let closed = slf.closed.get();
    match closed {
        Closed::Asked => return show(&slf.close_waiter),
        Closed::Nothing => return Err(Builtin::Attribute.raise("_closed")),
        Closed::Unasked | Closed::Over => {}
    }
    let loop_ = show(&slf.loop_)?;
    let made = call::method(names().create_future.borrow(), [loop_.borrow()])?;
    let exc = slf.close_waiter.take();
    slf.close_waiter.set(Some(made.clone()));
    slf.closed.set(Closed::Asked);
    if closed == Closed::Over {
        settle(&made, exc.unwrap_or_else(Obj::none).borrow())?;
    }
    Ok(made)
}

/// `_get_close_waiter(stream)`.
fn get_close_waiter(slf: Slf<'_>, stream: Ref<'_>) -> PyRes<Obj> {
    if is_native(slf.obj()) {
        close_waiter(slf)
    } else {
        by_asyncio(slf, c"_get_close_waiter", &[stream])
    }
}

/// `__del__`: nobody is told of an exception that nobody asked for.
fn finish(slf: Slf<'_>) -> PyRes<Obj> {
    let Some(waiter) = slf.close_waiter.get() else {
        return Ok(Obj::none());
    };
    match (slf.closed.get(), future::native(waiter.borrow())) {
        (Closed::Asked, Some(native)) if native.state.get() != State::Failed => Ok(Obj::none()),
        (Closed::Asked, _) => by_asyncio(slf, c"__del__", &[]),
        _ => Ok(Obj::none()),
    }
}

fn show_drain_waiters(slf: Slf<'_>) -> PyRes<Obj> {
    if let Some(deque) = slf.drain_waiters.get() {
        return Ok(deque);
    }
    let deque = call::call0(stock().deque.borrow())?;
    slf.drain_waiters.set(Some(deque.clone()));
    Ok(deque)
}

fn set_close_waiter(slf: Slf<'_>, value: Given<'_>) -> PyRes<()> {
    let waiter = given(value)?.own();
    slf.close_waiter.set(Some(waiter));
    slf.closed.set(Closed::Asked);
    Ok(())
}

/// `_rondel.StreamProtocolBase`.
pub(super) fn build() -> PyRes<Obj> {
    type T = StreamProtocol;
    TypeBuilder::<T>::new(c"rondel._rondel.StreamProtocolBase")
        .subclassable()
        .doc(
            c"StreamProtocolBase(stream_reader, client_connected_cb=None, loop=None)\n--\n\n\
              The native half of a StreamReaderProtocol.",
        )
        .with(method::init::<T, _>(init))
        .methods([
            method::fast::<T, _>(
                c"connection_made",
                c"connection_made($self, /, transport)\n--\n\nTake the transport.",
                connection_made,
            ),
            method::fast::<T, _>(
                c"data_received",
                c"data_received($self, /, data)\n--\n\nPass data on to the reader.",
                data_received,
            ),
            method::noargs::<T, _>(
                c"eof_received",
                c"eof_received($self, /)\n--\n\nTell the reader that no more comes.",
                eof_received,
            ),
            method::fast::<T, _>(
                c"connection_lost",
                c"connection_lost($self, /, exc)\n--\n\nTell the reader and whoever waits.",
                connection_lost,
            ),
            method::onearg::<T, _>(
                c"_get_close_waiter",
                c"The future that is done when the connection is lost.",
                get_close_waiter,
            ),
            method::noargs::<T, _>(c"_finish", c"The finalizer.", finish),
        ])
        .properties([
            fields::object(c"_stream_reader_wr", |s: &T| &s.reader),
            fields::object(c"_strong_reader", |s: &T| &s.strong_reader),
            fields::object(c"_loop", |s: &T| &s.loop_),
            fields::object(c"_transport", |s: &T| &s.transport),
            fields::object(c"_client_connected_cb", |s: &T| &s.connected_callback),
            fields::object(c"_stream_writer", |s: &T| &s.writer),
            fields::object(c"_task", |s: &T| &s.task),
            fields::flag(c"_paused", |s: &T| &s.paused),
            fields::flag(c"_connection_lost", |s: &T| &s.connection_lost),
            fields::flag(c"_reject_connection", |s: &T| &s.reject_connection),
            fields::flag(c"_over_ssl", |s: &T| &s.over_ssl),
            method::property::<T, _, _>(
                c"_drain_waiters",
                show_drain_waiters,
                |s: Slf<'_>, v: Given<'_>| set_obj(&s.drain_waiters, v),
            ),
            method::property::<T, _, _>(c"_closed", close_waiter, set_close_waiter),
        ])
        .build()
}
