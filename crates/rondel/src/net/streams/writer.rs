//! `StreamWriter`: writes go straight to a native transport; `drain` is over at once unless the
//! protocol is paused or the connection is closing.

use super::protocol::{self, StreamProtocol};
use super::{is_plain, needed, own, reader::Reader};
use crate::consts::{names, stock};
use crate::net::tcp::{self, TcpTransport};
use crate::primitives::coroutine::{self, Coroutine, Machine, Next};
use crate::sync::fields::{self, Given, set_obj, show};
use crate::sync::waiters;
use rondel_ffi::class::{ObjCell, OwnCell, TypeBuilder, Visit};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::method::{self, Args};
use rondel_ffi::{Class, ClassCell, Inst, Obj, PyRes, Ref, call, callable, value};
use std::cell::Cell;
use std::ffi::CStr;

#[derive(Default)]
pub(crate) struct Writer {
    transport: ObjCell,
    protocol: ObjCell,
    reader: ObjCell,
    loop_: ObjCell,
    /// asyncio's `_complete_fut`, made when somebody asks for it.
    complete: ObjCell,
}

static CELL: ClassCell = ClassCell::new();

impl Class for Writer {
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

impl Writer {
    fn cells(&self) -> [&ObjCell; 5] {
        [
            &self.transport,
            &self.protocol,
            &self.reader,
            &self.loop_,
            &self.complete,
        ]
    }

    /// The transport, if its methods are the native ones.
    #[inline(always)]
    fn native_transport(&self) -> Option<rondel_ffi::Own<TcpTransport>> {
        let transport = self.transport.peek()?;
        if is_plain(transport, |plain| &plain.transport) {
            transport.cast::<TcpTransport>().map(Inst::own)
        } else {
            None
        }
    }
}

type Slf<'a> = Inst<'a, Writer>;

/// `__init__(transport, protocol, reader, loop)`.
fn init(slf: Slf<'_>, args: Args<'_>) -> PyRes<()> {
    let own = own();
    let [transport, protocol, reader, loop_] = args.bind(
        "StreamWriter.__init__",
        [
            own.transport.borrow(),
            own.protocol.borrow(),
            own.reader.borrow(),
            names().loop_.borrow(),
        ],
        4,
        4,
    )?;
    if let Some(reader) = reader.and_then(Ref::not_none)
        && !reader.is_instance(own.stock_reader.borrow())?
    {
        return Err(Builtin::Assertion.raise("the reader is no StreamReader"));
    }
    let keep = |given: Option<Ref<'_>>| given.and_then(Ref::not_none).map(Ref::own);
    slf.transport.set(keep(transport));
    slf.protocol.set(keep(protocol));
    slf.reader.set(keep(reader));
    slf.loop_.set(keep(loop_));
    slf.complete.set(None);
    Ok(())
}

#[inline(always)]
fn write(slf: Slf<'_>, args: Args<'_>) -> PyRes<Obj> {
    let data = needed(args, "StreamWriter.write", own().data.borrow())?;
    if let Some(transport) = slf.native_transport() {
        transport.note_writer(slf.obj());
        return tcp::write(transport.inst(), data);
    }
    let transport = show(&slf.transport)?;
    let _none = call::method(own().write.borrow(), [transport.borrow(), data])?;
    Ok(Obj::none())
}

fn writelines(slf: Slf<'_>, args: Args<'_>) -> PyRes<Obj> {
    let data = needed(args, "StreamWriter.writelines", own().data.borrow())?;
    if let Some(transport) = slf.native_transport() {
        return tcp::writelines(transport.inst(), data);
    }
    let transport = show(&slf.transport)?;
    let _none = call::method(own().writelines.borrow(), [transport.borrow(), data])?;
    Ok(Obj::none())
}

fn close(slf: Slf<'_>) -> PyRes<Obj> {
    let transport = show(&slf.transport)?;
    call::method(names().close.borrow(), [transport.borrow()])
}

fn complete(slf: Slf<'_>) -> PyRes<Obj> {
    if let Some(made) = slf.complete.get() {
        return Ok(made);
    }
    let loop_ = show(&slf.loop_)?;
    let made = call::method(names().create_future.borrow(), [loop_.borrow()])?;
    let none = Obj::none();
    let _none = call::method(names().set_result.borrow(), [made.borrow(), none.borrow()])?;
    slf.complete.set(Some(made.clone()));
    Ok(made)
}

// ------------------------------------------------------------------------------- drain

/// The coroutine of `drain()`.
#[derive(Default)]
pub(crate) struct Drain {
    writer: OwnCell<Writer>,
    stage: Cell<Stage>,
}

#[derive(Clone, Copy, Default)]
enum Stage {
    #[default]
    Begun,
    /// Lets a connection that closes tell the protocol so.
    Yielded,
    /// The protocol's own coroutine runs.
    Helped,
}

static DRAIN: ClassCell = ClassCell::new();
static DRAIN_FREE: FreeList = FreeList::new();

fn drain(slf: Slf<'_>, args: Args<'_>) -> PyRes<Obj> {
    let [] = args.bind("StreamWriter.drain", [], 0, 0)?;
    coroutine::new(|| Drain {
        writer: OwnCell::new(Some(slf.own())),
        stage: Cell::new(Stage::Begun),
    })
}

impl Drain {
    #[inline(always)]
    fn begin(&self, writer: Slf<'_>) -> PyRes<Next> {
        if let Some(reader) = writer.reader.get() {
            let exc = match reader.borrow().cast::<Reader>() {
                Some(native) if is_plain(reader.borrow(), |plain| &plain.reader) => {
                    native.exception.get()
                }
                _ => {
                    let exc = call::method(names().exception.borrow(), [reader.borrow()])?;
                    (!exc.is_none()).then_some(exc)
                }
            };
            if let Some(exc) = exc {
                return Err(err::raise_instance(exc.borrow()));
            }
        }
        let closing = match writer.native_transport() {
            Some(native) => tcp::is_closing(native.inst()),
            None => {
                let transport = show(&writer.transport)?;
                let is_closing = own().is_closing.borrow();
                call::method(is_closing, [transport.borrow()])?
                    .borrow()
                    .truthy()?
            }
        };
        if closing {
            self.stage.set(Stage::Yielded);
            let zero = value::int(0)?;
            return call::call1(stock().sleep.borrow(), zero.borrow()).map(Next::Await);
        }
        self.help(writer)
    }

    /// The protocol's `_drain_helper`.
    #[inline(always)]
    fn help(&self, writer: Slf<'_>) -> PyRes<Next> {
        let protocol = show(&writer.protocol)?;
        if let Some(native) = protocol.borrow().cast::<StreamProtocol>()
            && is_plain(protocol.borrow(), |plain| &plain.protocol)
        {
            if native.connection_lost.get() {
                let class = own().connection_reset.borrow();
                return Err(err::raise_str(class, "Connection lost"));
            }
            if !native.paused.get() {
                return Ok(Next::Return(Obj::none()));
            }
        }
        self.stage.set(Stage::Helped);
        call::method(own().drain_helper.borrow(), [protocol.borrow()]).map(Next::Await)
    }
}

impl Machine for Drain {
    const NAME: &'static str = "StreamWriter.drain";
    const TYPE: &'static CStr = c"rondel.StreamWriter_drain";

    fn cell() -> &'static ClassCell {
        &DRAIN
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&DRAIN_FREE)
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.writer);
    }
    fn clear(&self) {
        self.writer.set(None);
    }
    #[inline(always)]
    fn start(slf: Inst<'_, Coroutine<Self>>) -> Next {
        let body = &slf.data().body;
        match body.writer.get() {
            Some(writer) => body.begin(writer.inst()).unwrap_or_else(Next::Raise),
            None => Next::Return(Obj::none()),
        }
    }
    fn resume(slf: Inst<'_, Coroutine<Self>>, outcome: Result<Obj, Obj>) -> Next {
        let body = &slf.data().body;
        match (outcome, body.stage.get(), body.writer.get()) {
            (Err(exc), _, _) => Next::raise(exc),
            (Ok(_none), Stage::Yielded, Some(writer)) => {
                body.help(writer.inst()).unwrap_or_else(Next::Raise)
            }
            (Ok(_none), _, _) => Next::Return(Obj::none()),
        }
    }
}

// ------------------------------------------------------------------------------- wait_closed

/// The coroutine of `wait_closed()`.
#[derive(Default)]
pub(crate) struct WaitClosed {
    writer: OwnCell<Writer>,
}

static WAIT_CLOSED: ClassCell = ClassCell::new();
static WAIT_CLOSED_FREE: FreeList = FreeList::new();

fn wait_closed(slf: Slf<'_>, args: Args<'_>) -> PyRes<Obj> {
    let [] = args.bind("StreamWriter.wait_closed", [], 0, 0)?;
    coroutine::new(|| WaitClosed {
        writer: OwnCell::new(Some(slf.own())),
    })
}

/// The protocol's `_get_close_waiter(writer)`.
fn close_waiter(writer: Slf<'_>) -> PyRes<Obj> {
    let protocol = show(&writer.protocol)?;
    match protocol.borrow().cast::<StreamProtocol>() {
        Some(native) if protocol::is_native(protocol.borrow()) => protocol::close_waiter(native),
        _ => {
            let ask = own().get_close_waiter.borrow();
            call::method(ask, [protocol.borrow(), writer.obj()])
        }
    }
}

impl Machine for WaitClosed {
    const NAME: &'static str = "StreamWriter.wait_closed";
    const TYPE: &'static CStr = c"rondel.StreamWriter_wait_closed";

    fn cell() -> &'static ClassCell {
        &WAIT_CLOSED
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&WAIT_CLOSED_FREE)
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.writer);
    }
    fn clear(&self) {
        self.writer.set(None);
    }
    fn start(slf: Inst<'_, Coroutine<Self>>) -> Next {
        match slf.data().body.writer.get() {
            Some(writer) => match close_waiter(writer.inst()) {
                Ok(waiter) => waiters::wait_for(waiter),
                Err(raised) => Next::Raise(raised),
            },
            None => Next::Return(Obj::none()),
        }
    }
    fn resume(_slf: Inst<'_, Coroutine<Self>>, outcome: Result<Obj, Obj>) -> Next {
        match outcome {
            Ok(_closed) => Next::Return(Obj::none()),
            Err(exc) => Next::raise(exc),
        }
    }
}

// ------------------------------------------------------------------------------- the end

/// `__del__`, where asyncio has one: complains of a stream that was not closed.
fn finish(slf: Slf<'_>) -> PyRes<Obj> {
    match slf.native_transport() {
        Some(native) if tcp::is_closing(native.inst()) => Ok(Obj::none()),
        _ => {
            let stock = own().stock_writer.borrow();
            let finalizer = call::getattr(stock, value::intern(c"__del__")?.borrow())?;
            call::call1(finalizer.borrow(), slf.obj())
        }
    }
}

/// `_rondel.StreamWriterBase`.
pub(super) fn build() -> PyRes<Obj> {
    coroutine::build::<Drain>()?;
    coroutine::build::<WaitClosed>()?;
    let class = TypeBuilder::<Writer>::new(c"rondel._rondel.StreamWriterBase")
        .subclassable()
        .doc(c"StreamWriterBase(transport, protocol, reader, loop)\n--\n\nThe native half of a StreamWriter.")
        .with(method::init::<Writer, _>(init))
        .methods([
            method::fast::<Writer, _>(
                c"write",
                c"write($self, /, data)\n--\n\nSend bytes, at once if the socket takes them.",
                write,
            ),
            method::fast::<Writer, _>(
                c"writelines",
                c"writelines($self, /, data)\n--\n\nSend an iterable of bytes.",
                writelines,
            ),
            method::noargs::<Writer, _>(
                c"close",
                c"close($self, /)\n--\n\nClose the stream after what is queued.",
                close,
            ),
            method::noargs::<Writer, _>(c"_finish", c"The finalizer.", finish),
        ])
        .properties([
            fields::object(c"_transport", |s: &Writer| &s.transport),
            fields::object(c"_protocol", |s: &Writer| &s.protocol),
            fields::object(c"_reader", |s: &Writer| &s.reader),
            fields::object(c"_loop", |s: &Writer| &s.loop_),
            method::property::<Writer, _, _>(
                c"_complete_fut",
                complete,
                |s: Slf<'_>, v: Given<'_>| set_obj(&s.complete, v),
            ),
        ])
        .build()?;
    let stock = own().stock_writer.borrow();
    let like = |name| call::getattr(stock, value::intern(name)?.borrow());
    let drain = callable::coroutine_method::<Writer, _>(drain, like(c"drain")?.borrow())?;
    let closed = like(c"wait_closed")?;
    let wait_closed = callable::coroutine_method::<Writer, _>(wait_closed, closed.borrow())?;
    for (name, made) in [(c"drain", drain), (c"wait_closed", wait_closed)] {
        call::setattr(class.borrow(), value::intern(name)?.borrow(), made.borrow())?;
    }
    Ok(class)
}
