//! Names and objects of asyncio that transports alone use; filled when their type is built.

use rondel_ffi::gil::GilStatic;
use rondel_ffi::{Obj, PyRes, call, value};
use std::ffi::CStr;

pub(super) struct Names {
    pub(super) call_connection_lost: Obj,
    pub(super) default: Obj,
    pub(super) detach: Obj,
    pub(super) fatal_error: Obj,
    pub(super) high: Obj,
    pub(super) log_debug: Obj,
    pub(super) low: Obj,
    pub(super) name: Obj,
    pub(super) protocol: Obj,
    pub(super) remove_writer: Obj,
    pub(super) transport: Obj,
    pub(super) type_name: Obj,
    pub(super) warning: Obj,
    /// asyncio's logger.
    pub(super) logger: Obj,
    pub(super) buffered_protocol: Obj,
    pub(super) bytearray: Obj,
    pub(super) memoryview: Obj,
    pub(super) connection_error: Obj,
    /// The argument of `get_buffer()`: no size hint.
    pub(super) minus_one: Obj,
    pub(super) none: Obj,
}

static NAMES: GilStatic<Names> = GilStatic::new();

fn attr(module: &CStr, name: &CStr) -> PyRes<Obj> {
    call::getattr(
        call::import(module)?.borrow(),
        value::intern(name)?.borrow(),
    )
}

pub(super) fn load() -> PyRes<()> {
    NAMES.set(Names {
        call_connection_lost: value::intern(c"_call_connection_lost")?,
        default: value::intern(c"default")?,
        detach: value::intern(c"_detach")?,
        fatal_error: value::intern(c"_fatal_error")?,
        high: value::intern(c"high")?,
        log_debug: value::intern(c"_log_debug")?,
        low: value::intern(c"low")?,
        name: value::intern(c"name")?,
        protocol: value::intern(c"protocol")?,
        remove_writer: value::intern(c"_remove_writer")?,
        transport: value::intern(c"transport")?,
        type_name: value::intern(c"__name__")?,
        warning: value::intern(c"warning")?,
        logger: attr(c"asyncio.log", c"logger")?,
        buffered_protocol: attr(c"asyncio.protocols", c"BufferedProtocol")?,
        bytearray: attr(c"builtins", c"bytearray")?,
        memoryview: attr(c"builtins", c"memoryview")?,
        connection_error: attr(c"builtins", c"ConnectionError")?,
        minus_one: value::int(-1)?,
        none: Obj::none(),
    });
    Ok(())
}

#[inline(always)]
pub(super) fn own() -> &'static Names {
    NAMES
        .get()
        .expect("filled when the transport's type is built, before any transport exists")
}
