//! `StreamReader`: what transports feed it, and its state under asyncio's names.
//!
//! A waiter is a native future on a Rondel loop, and whatever `loop.create_future()` gives on another.
//! `reading` has the coroutines.
//!
//! A native transport with data for a reader that is waited for does not receive it: it wakes the task,
//! whose coroutine pulls it. A hop later and no earlier than asyncio's, the data is used while it is
//! warm. Where nobody waits the data is fed, so that its end is seen.

use super::protocol::reader_of;
use super::store::Store;
use super::{Names, is_plain, needed, own, reading};
use crate::consts::names;
use crate::event_loop::LoopBase;
use crate::future::{self, Future};
use crate::net::tcp::{self, TcpTransport};
use crate::sync::fields::{self, Given, given, set_obj, show};
use crate::sync::waiters;
use crate::task::Task;
use rondel_ffi::class::{ObjCell, OwnCell, TypeBuilder, Visit};
use rondel_ffi::err::Builtin;
use rondel_ffi::method::{self, Args};
use rondel_ffi::prefetch::Trace;
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Ref, call, callable, prefetch, value};
use std::cell::Cell;
use std::ffi::CStr;

/// What each message needs comes first, as in `TcpTransport`.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Reader {
    pub(super) waiter: ObjCell,
    transport: ObjCell,
    pub(super) exception: ObjCell,
    pub(super) eof: Cell<bool>,
    paused: Cell<bool>,
    /// Bytes; the given object stands beside it, as it may be no int.
    pub(super) limit: Cell<usize>,
    /// The loop, if it is Rondel's.
    home: OwnCell<LoopBase>,
    pub(super) store: Store,
    loop_: ObjCell,
    limit_given: ObjCell,
    /// The coroutine that has waited last.
    pub(super) waits: Cell<Trace>,
}

/// Bytes of a future that waking its task needs.
const FUTURE: usize = 80;
/// The same of the coroutine that waits for it.
const COROUTINE: usize = 112;

static CELL: ClassCell = ClassCell::new();

impl Class for Reader {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        self.store.traverse(visit);
        visit.own(&self.home);
        for cell in self.cells() {
            visit.cell(cell);
        }
    }
    fn retire(&self) {
        self.leave_transport();
    }
    fn clear(&self) {
        self.leave_transport();
        self.store.reset();
        self.home.set(None);
        for cell in self.cells() {
            cell.set(None);
        }
    }
}

impl Reader {
    /// The transport knows this reader without holding it.
    fn leave_transport(&self) {
        if let Some(transport) = self.native_transport() {
            transport.forget(self);
        }
    }

    /// Has what waits for data fetched into the cache.
    #[inline(always)]
    pub(crate) fn fetch_waiter(&self) {
        if let Some(waiter) = self.waiter.peek() {
            prefetch::object(waiter, FUTURE);
            self.waits.get().fetch(COROUTINE);
        }
    }

    /// Looks at the task that waits for data, if it is a native one.
    #[inline(always)]
    pub(crate) fn waiting_task(&self, look: impl FnOnce(Inst<'_, Task>)) {
        if let Some(waiter) = self.waiter.peek()
            && let Some(future) = waiter.exact::<Future>()
        {
            future.first.peek_wake(look);
        }
    }

    fn cells(&self) -> [&ObjCell; 5] {
        [
            &self.limit_given,
            &self.loop_,
            &self.waiter,
            &self.exception,
            &self.transport,
        ]
    }
}

pub(super) type Slf<'a> = Inst<'a, Reader>;

/// `__init__(limit=2**16, loop=None)`.
fn init(slf: Slf<'_>, args: Args<'_>) -> PyRes<()> {
    let [limit, loop_] = args.bind(
        "StreamReader.__init__",
        [names().limit.borrow(), names().loop_.borrow()],
        0,
        2,
    )?;
    slf.eof.set(false);
    slf.paused.set(false);
    slf.data().leave_transport();
    for cell in [&slf.waiter, &slf.exception, &slf.transport] {
        cell.set(None);
    }
    if let Some(home) = loop_.and_then(|loop_| loop_.cast::<LoopBase>())
        && !home.is_debug()
    {
        set_limit(slf, Some(limit.unwrap_or(own().default_limit.borrow())))?;
        if slf.limit.get() == 0 {
            return Err(Builtin::Value.raise("Limit cannot be <= 0"));
        }
        slf.loop_.set(Some(home.obj().own()));
        slf.home.set(Some(home.own()));
    } else {
        // asyncio's knows which loop is meant, and what debug mode remembers.
        let stock = &own().stock_reader;
        let init = call::getattr(stock.borrow(), value::intern(c"__init__")?.borrow())?;
        let limit = limit.unwrap_or(own().default_limit.borrow());
        let none = Obj::none();
        let loop_ = loop_.unwrap_or(none.borrow());
        let _none = call::call(init.borrow(), &[slf.obj(), limit, loop_])?;
    }
    slf.store.reset();
    Ok(())
}

fn set_limit(slf: Slf<'_>, value: Given<'_>) -> PyRes<()> {
    let value = given(value)?;
    // An int of any size, or a float.
    let number = value::as_f64(value)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and what is lost of a fraction is no byte"
    )]
    slf.limit.set(if number > 0.0 {
        (number as usize).max(1)
    } else {
        0
    });
    slf.limit_given.set(Some(value.own()));
    Ok(())
}

fn set_loop(slf: Slf<'_>, value: Given<'_>) -> PyRes<()> {
    let loop_ = given(value)?;
    slf.home.set(loop_.cast::<LoopBase>().map(Inst::own));
    slf.loop_.set(Some(loop_.own()));
    Ok(())
}

// ------------------------------------------------------------------------------- what feeds it

/// `feed_data(data)`.
#[inline(always)]
pub(crate) fn feed(slf: Slf<'_>, data: Ref<'_>) -> PyRes<()> {
    if slf.eof.get() {
        return Err(Builtin::Assertion.raise("feed_data after feed_eof"));
    }
    let empty = match value::bytes_of(data) {
        Some(bytes) => bytes.is_empty(),
        None => !data.truthy()?,
    };
    if empty {
        return Ok(());
    }
    slf.store.feed(data)?;
    wake(slf)?;
    if slf.transport.is_some()
        && !slf.paused.get()
        && slf.store.len()? > slf.limit.get().saturating_mul(2)
    {
        pause(slf)?;
    }
    Ok(())
}

/// Its transport has data: wakes who waits for it, who will then pull. False if nobody does.
#[inline(always)]
pub(crate) fn announce(slf: Slf<'_>) -> PyRes<bool> {
    match slf.waiter.take() {
        Some(waiter) => waiters::wake(waiter.borrow(), Obj::none()),
        None => Ok(false),
    }
}

impl Reader {
    #[inline(always)]
    fn native_transport(&self) -> Option<Own<TcpTransport>> {
        let transport = self.transport.peek()?;
        if is_plain(transport, |plain| &plain.transport) {
            transport.cast::<TcpTransport>().map(Inst::own)
        } else {
            None
        }
    }
}

/// Changes the transport; one that is native passes its data on to the reader of its protocol.
fn set_transport(slf: Slf<'_>, value: Given<'_>) -> PyRes<()> {
    slf.data().leave_transport();
    set_obj(&slf.transport, value)?;
    if let Some(transport) = slf.data().native_transport()
        && is_plain(slf.obj(), |plain| &plain.reader)
        && let Some(protocol) = transport.stream_protocol()
        && let Some(reader) = reader_of(protocol.borrow())?
        && reader.borrow().is(slf.obj())
    {
        transport.serve(slf);
    }
    Ok(())
}

/// asyncio's `set_transport(transport)`.
pub(super) fn use_transport(slf: Slf<'_>, transport: Ref<'_>) -> PyRes<()> {
    if slf.transport.is_some() {
        return Err(Builtin::Assertion.raise("Transport already set"));
    }
    set_transport(slf, Some(transport))
}

/// Receives what this reader was told of; whether there was anything.
#[inline(always)]
pub(super) fn pull(slf: Slf<'_>) -> PyRes<bool> {
    match slf.data().native_transport() {
        Some(transport) => tcp::pull(transport.inst()),
        None => Ok(false),
    }
}

/// Does not receive it: somebody else may want it, or its end.
pub(super) fn put_back(slf: Slf<'_>) {
    if let Some(transport) = slf.data().native_transport() {
        tcp::put_back(transport.inst());
    }
}

#[inline(always)]
fn wake(slf: Slf<'_>) -> PyRes<()> {
    match slf.waiter.take() {
        Some(waiter) => waiters::wake(waiter.borrow(), Obj::none()).map(|_woken| ()),
        None => Ok(()),
    }
}

/// More than twice the limit is there.
#[cold]
fn pause(slf: Slf<'_>) -> PyRes<()> {
    let Some(transport) = slf.transport.get() else {
        return Ok(());
    };
    let pause = value::intern(c"pause_reading")?;
    match call::method(pause.borrow(), [transport.borrow()]) {
        Ok(_none) => slf.paused.set(true),
        Err(raised) if raised.matches(Builtin::NotImplemented.class()) => {
            // It can't be paused: all of it is kept, and it is not asked again.
            raised.clear();
            slf.data().leave_transport();
            slf.transport.set(None);
        }
        Err(raised) => return Err(raised),
    }
    Ok(())
}

#[cold]
fn resume(slf: Slf<'_>) -> PyRes<()> {
    slf.paused.set(false);
    let transport = show(&slf.transport)?;
    let resume = value::intern(c"resume_reading")?;
    call::method(resume.borrow(), [transport.borrow()]).map(drop)
}

/// Lets data flow again when enough of it was taken.
#[inline(always)]
pub(super) fn maybe_resume(slf: Slf<'_>) -> PyRes<()> {
    if slf.paused.get() && slf.store.len()? <= slf.limit.get() {
        resume(slf)?;
    }
    Ok(())
}

/// asyncio's `_wait_for_data`: a future that is done when there is data, or the end.
#[inline(always)]
pub(super) fn new_waiter(slf: Slf<'_>, function: &str) -> PyRes<Obj> {
    if slf.waiter.is_some() {
        return Err(Builtin::Runtime.raise(&format!(
            "{function}() called while another coroutine is already waiting for incoming data"
        )));
    }
    if slf.eof.get() {
        return Err(Builtin::Assertion.raise("_wait_for_data after EOF"));
    }
    // Waiting while paused would be for ever: what is asked for may be more than the limit.
    if slf.paused.get() {
        resume(slf)?;
    }
    let waiter = match slf.home.peek() {
        Some(home) => future::create(home)?.into_obj(),
        None => {
            let loop_ = show(&slf.loop_)?;
            call::method(names().create_future.borrow(), [loop_.borrow()])?
        }
    };
    slf.waiter.set(Some(waiter.clone()));
    Ok(waiter)
}

fn feed_data(slf: Slf<'_>, args: Args<'_>) -> PyRes<Obj> {
    let data = needed(args, "StreamReader.feed_data", own().data.borrow())?;
    feed(slf, data)?;
    Ok(Obj::none())
}

/// `feed_eof()`.
pub(super) fn end(slf: Slf<'_>) -> PyRes<()> {
    slf.eof.set(true);
    wake(slf)
}

fn feed_eof(slf: Slf<'_>) -> PyRes<Obj> {
    end(slf)?;
    Ok(Obj::none())
}

fn set_exception(slf: Slf<'_>, args: Args<'_>) -> PyRes<Obj> {
    let exc = needed(args, "StreamReader.set_exception", own().exc.borrow())?;
    slf.exception.set(exc.not_none().map(Ref::own));
    if let Some(waiter) = slf.waiter.take()
        && !waiters::cancelled(waiter.borrow())?
    {
        let _none = call::method(names().set_exception.borrow(), [waiter.borrow(), exc])?;
    }
    Ok(Obj::none())
}

fn exception(slf: Slf<'_>) -> PyRes<Obj> {
    show(&slf.exception)
}

fn at_eof(slf: Slf<'_>) -> PyRes<Obj> {
    pull(slf)?;
    Ok(Obj::bool(slf.eof.get() && slf.store.len()? == 0))
}

/// asyncio's own method, on the same fields: for subclasses, which may override what it calls.
#[cold]
pub(super) fn by_asyncio(slf: Slf<'_>, name: &CStr, rest: Option<Ref<'_>>) -> PyRes<Obj> {
    let Names { stock_reader, .. } = own();
    let method = call::getattr(stock_reader.borrow(), value::intern(name)?.borrow())?;
    match rest {
        Some(rest) => call::call(method.borrow(), &[slf.obj(), rest]),
        None => call::call1(method.borrow(), slf.obj()),
    }
}

/// `_rondel.StreamReaderBase`.
pub(super) fn build() -> PyRes<Obj> {
    reading::build()?;
    let class = TypeBuilder::<Reader>::new(c"rondel._rondel.StreamReaderBase")
        .subclassable()
        .doc(c"StreamReaderBase(limit=65536, loop=None)\n--\n\nThe native half of a StreamReader.")
        .with(method::init::<Reader, _>(init))
        .methods([
            method::fast::<Reader, _>(
                c"feed_data",
                c"feed_data($self, /, data)\n--\n\nAdd data to the buffer and wake who waits for it.",
                feed_data,
            ),
            method::noargs::<Reader, _>(
                c"feed_eof",
                c"feed_eof($self, /)\n--\n\nTell that no more data comes.",
                feed_eof,
            ),
            method::fast::<Reader, _>(
                c"set_exception",
                c"set_exception($self, /, exc)\n--\n\nLet who reads have this exception.",
                set_exception,
            ),
            method::noargs::<Reader, _>(
                c"exception",
                c"exception($self, /)\n--\n\nThe exception that was set, or None.",
                exception,
            ),
            method::noargs::<Reader, _>(
                c"at_eof",
                c"at_eof($self, /)\n--\n\nWhether the buffer is empty and no more comes.",
                at_eof,
            ),
        ])
        .properties([
            method::property::<Reader, _, _>(
                c"_limit",
                |s: Slf<'_>| show(&s.limit_given),
                set_limit,
            ),
            method::property::<Reader, _, _>(c"_loop", |s: Slf<'_>| show(&s.loop_), set_loop),
            method::property::<Reader, _, _>(
                c"_buffer",
                |s: Slf<'_>| {
                    pull(s)?;
                    s.store.show(own().bytearray.borrow())
                },
                |s: Slf<'_>, v: Given<'_>| {
                    s.store.assign(given(v)?);
                    Ok(())
                },
            ),
            fields::flag(c"_eof", |s: &Reader| &s.eof),
            fields::object(c"_waiter", |s: &Reader| &s.waiter),
            fields::object(c"_exception", |s: &Reader| &s.exception),
            method::property::<Reader, _, _>(
                c"_transport",
                |s: Slf<'_>| show(&s.transport),
                set_transport,
            ),
            fields::flag(c"_paused", |s: &Reader| &s.paused),
        ])
        .build()?;
    let stock = own().stock_reader.borrow();
    let like = |name| call::getattr(stock, value::intern(name)?.borrow());
    for (name, made) in [
        (
            c"read",
            callable::coroutine_method::<Reader, _>(reading::read, like(c"read")?.borrow())?,
        ),
        (
            c"readexactly",
            callable::coroutine_method::<Reader, _>(
                reading::readexactly,
                like(c"readexactly")?.borrow(),
            )?,
        ),
        (
            c"readuntil",
            callable::coroutine_method::<Reader, _>(
                reading::readuntil,
                like(c"readuntil")?.borrow(),
            )?,
        ),
        (
            c"readline",
            callable::coroutine_method::<Reader, _>(
                reading::readline,
                like(c"readline")?.borrow(),
            )?,
        ),
        (
            c"__anext__",
            callable::coroutine_method::<Reader, _>(reading::next, like(c"__anext__")?.borrow())?,
        ),
    ] {
        call::setattr(class.borrow(), value::intern(name)?.borrow(), made.borrow())?;
    }
    Ok(class)
}
