//! The native half of asyncio's streams: `StreamReader`, `StreamWriter`, `StreamReaderProtocol`.
//!
//! ```text
//!  transport ── data ──► protocol's reader ── wakes ──► the task in `await reader.read()`
//!  transport ◄── bytes ── StreamWriter.write()          `await writer.drain()`: over at once
//! ```
//! The classes (Python, `rondel._streams`) derive from a base here and from asyncio's class. The fields
//! are properties under asyncio's names, so asyncio's methods and ours work on one state: what happens
//! per message is native, a connection's begin and end are asyncio's own methods. A subclass may
//! override anything: asyncio's coroutines serve it.
//!
//! All of it runs with the GIL held.

mod protocol;
mod reader;
mod reading;
mod store;
mod writer;

pub(crate) use protocol::is_native;
pub(crate) use reader::{Reader, announce, feed};

use rondel_ffi::gil::GilStatic;
use rondel_ffi::method::{self, Args, MethodDef};
use rondel_ffi::{Obj, PyRes, Ref, call, err::Builtin, value};
use std::ffi::CStr;

/// The classes that add nothing to the native ones.
struct Plain {
    reader: Obj,
    protocol: Obj,
    transport: Obj,
    /// asyncio's `StreamReaderProtocol.connection_made`, which makes writers of ours.
    connection_made: Obj,
}

static PLAIN: GilStatic<Plain> = GilStatic::new();

/// Names and objects of asyncio that streams alone use; filled when their types are built.
struct Names {
    bytearray: Obj,
    client_connected: Obj,
    connection_reset: Obj,
    data: Obj,
    default_limit: Obj,
    drain_helper: Obj,
    exc: Obj,
    feed_data: Obj,
    flow_control: Obj,
    get_close_waiter: Obj,
    get_extra_info: Obj,
    incomplete_read: Obj,
    is_closing: Obj,
    limit_overrun: Obj,
    newline: Obj,
    protocol: Obj,
    reader: Obj,
    separator: Obj,
    source_traceback: Obj,
    sslcontext: Obj,
    stock_protocol: Obj,
    stock_reader: Obj,
    stock_writer: Obj,
    stream_reader: Obj,
    transport: Obj,
    write: Obj,
    writelines: Obj,
}

static NAMES: GilStatic<Names> = GilStatic::new();

fn load() -> PyRes<()> {
    let attr = |module: &CStr, name: &CStr| {
        call::getattr(
            call::import(module)?.borrow(),
            value::intern(name)?.borrow(),
        )
    };
    NAMES.set(Names {
        bytearray: attr(c"builtins", c"bytearray")?,
        client_connected: value::intern(c"client_connected_cb")?,
        connection_reset: attr(c"builtins", c"ConnectionResetError")?,
        data: value::intern(c"data")?,
        default_limit: attr(c"asyncio.streams", c"_DEFAULT_LIMIT")?,
        drain_helper: value::intern(c"_drain_helper")?,
        exc: value::intern(c"exc")?,
        feed_data: value::intern(c"feed_data")?,
        flow_control: attr(c"asyncio.streams", c"FlowControlMixin")?,
        get_close_waiter: value::intern(c"_get_close_waiter")?,
        get_extra_info: value::intern(c"get_extra_info")?,
        incomplete_read: attr(c"asyncio.exceptions", c"IncompleteReadError")?,
        is_closing: value::intern(c"is_closing")?,
        limit_overrun: attr(c"asyncio.exceptions", c"LimitOverrunError")?,
        newline: value::bytes(b"\n")?,
        protocol: value::intern(c"protocol")?,
        reader: value::intern(c"reader")?,
        separator: value::intern(c"separator")?,
        source_traceback: value::intern(c"_source_traceback")?,
        sslcontext: value::intern(c"sslcontext")?,
        stock_protocol: attr(c"asyncio.streams", c"StreamReaderProtocol")?,
        stock_reader: attr(c"asyncio.streams", c"StreamReader")?,
        stock_writer: attr(c"asyncio.streams", c"StreamWriter")?,
        stream_reader: value::intern(c"stream_reader")?,
        transport: value::intern(c"transport")?,
        write: value::intern(c"write")?,
        writelines: value::intern(c"writelines")?,
    });
    Ok(())
}

#[inline(always)]
fn own() -> &'static Names {
    NAMES
        .get()
        .expect("filled when the types are built, before any stream exists")
}

/// The one argument of a method, by position or by its name.
#[inline(always)]
fn one<'a>(
    args: Args<'a>,
    function: &str,
    name: Ref<'_>,
    required: usize,
) -> PyRes<Option<Ref<'a>>> {
    match args.positional() {
        [given] if args.keyword_count() == 0 => Ok(Some(*given)),
        _ => Ok(args.bind(function, [name], required, 1)?[0]),
    }
}

/// The same of a method that needs it.
#[inline(always)]
fn needed<'a>(args: Args<'a>, function: &str, name: Ref<'_>) -> PyRes<Ref<'a>> {
    match one(args, function, name, 1)? {
        Some(given) => Ok(given),
        None => Err(Builtin::Type.raise(&format!("{function}() takes one argument"))),
    }
}

#[inline(always)]
fn is_plain(obj: Ref<'_>, which: impl Fn(&Plain) -> &Obj) -> bool {
    PLAIN
        .get()
        .is_some_and(|plain| obj.type_of().is(which(plain).borrow()))
}

/// `StreamReaderProtocol.connection_made` as asyncio has it.
fn serve_by_asyncio(protocol: Ref<'_>, transport: Ref<'_>) -> PyRes<Obj> {
    let plain = PLAIN.get();
    let plain = plain.ok_or_else(|| Builtin::Runtime.raise("no class was adopted"))?;
    call::call(plain.connection_made.borrow(), &[protocol, transport])
}

/// `_adopt_streams(StreamReader, StreamReaderProtocol, SocketTransport, connection_made)`: called once, by
/// the module that defines them.
fn adopt(args: Args<'_>) -> PyRes<Obj> {
    let [reader, protocol, transport, made] = args.positional() else {
        return Err(Builtin::Type.raise("_adopt_streams() takes three classes and a function"));
    };
    if PLAIN.get().is_none() {
        PLAIN.set(Plain {
            reader: reader.own(),
            protocol: protocol.own(),
            transport: transport.own(),
            connection_made: made.own(),
        });
    }
    Ok(Obj::none())
}

pub(crate) fn definitions() -> Vec<MethodDef> {
    vec![method::function(
        c"_adopt_streams",
        c"Tell which classes add nothing to the native ones.",
        adopt,
    )]
}

/// Builds the types.
pub(crate) fn build() -> PyRes<[(&'static CStr, Obj); 3]> {
    load()?;
    Ok([
        (c"StreamReaderBase", reader::build()?),
        (c"StreamWriterBase", writer::build()?),
        (c"StreamProtocolBase", protocol::build()?),
    ])
}
