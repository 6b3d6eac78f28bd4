//! Names and objects of asyncio that stream transports alone use; filled when their type is built.

use rondel_ffi::gil::GilStatic;
use rondel_ffi::{Obj, PyRes, call, value};

pub(super) struct Names {
    pub(super) attach: Obj,
    pub(super) connection_made: Obj,
    pub(super) fileno: Obj,
    pub(super) getpeername: Obj,
    pub(super) getsockname: Obj,
    pub(super) peername: Obj,
    pub(super) proto: Obj,
    pub(super) socket: Obj,
    pub(super) sockname: Obj,
    pub(super) start_reading: Obj,
    /// `_set_result_unless_cancelled`
    pub(super) set_result: Obj,
    pub(super) transport_socket: Obj,
    pub(super) detach: Obj,
    pub(super) remove_writer: Obj,
    pub(super) type_name: Obj,
    pub(super) buffered_protocol: Obj,
    pub(super) bytearray: Obj,
    pub(super) memoryview: Obj,
    pub(super) connection_error: Obj,
    /// The argument of `get_buffer()`: no size hint.
    pub(super) minus_one: Obj,
    pub(super) none: Obj,
}

static NAMES: GilStatic<Names> = GilStatic::new();

pub(super) fn load() -> PyRes<()> {
    NAMES.set(Names {
        attach: value::intern(c"_attach")?,
        connection_made: value::intern(c"connection_made")?,
        fileno: value::intern(c"fileno")?,
        getpeername: value::intern(c"getpeername")?,
        getsockname: value::intern(c"getsockname")?,
        peername: value::intern(c"peername")?,
        proto: value::intern(c"proto")?,
        socket: value::intern(c"socket")?,
        sockname: value::intern(c"sockname")?,
        start_reading: value::intern(c"_start_reading")?,
        set_result: call::import_from(c"asyncio.futures", c"_set_result_unless_cancelled")?,
        transport_socket: call::import_from(c"asyncio.trsock", c"TransportSocket")?,
        detach: value::intern(c"_detach")?,
        remove_writer: value::intern(c"_remove_writer")?,
        type_name: value::intern(c"__name__")?,
        buffered_protocol: call::import_from(c"asyncio.protocols", c"BufferedProtocol")?,
        bytearray: call::import_from(c"builtins", c"bytearray")?,
        memoryview: call::import_from(c"builtins", c"memoryview")?,
        connection_error: call::import_from(c"builtins", c"ConnectionError")?,
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
