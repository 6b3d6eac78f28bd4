//! Names and objects of asyncio that datagram transports alone use; filled when their type is built.

use rondel_ffi::gil::GilStatic;
use rondel_ffi::{Obj, PyRes, call, value};

pub(super) struct Names {
    pub(super) addr: Obj,
    pub(super) data: Obj,
    pub(super) datagram_received: Obj,
    pub(super) error_received: Obj,
    pub(super) peername: Obj,
    pub(super) recvfrom: Obj,
    pub(super) sendto: Obj,
    pub(super) type_name: Obj,
    pub(super) bytearray: Obj,
    pub(super) memoryview: Obj,
    /// asyncio's `max_size`.
    pub(super) max_size: Obj,
    pub(super) none: Obj,
}

static NAMES: GilStatic<Names> = GilStatic::new();

pub(super) fn load() -> PyRes<()> {
    NAMES.set(Names {
        addr: value::intern(c"addr")?,
        data: value::intern(c"data")?,
        datagram_received: value::intern(c"datagram_received")?,
        error_received: value::intern(c"error_received")?,
        peername: value::intern(c"peername")?,
        recvfrom: value::intern(c"recvfrom")?,
        sendto: value::intern(c"sendto")?,
        type_name: value::intern(c"__name__")?,
        bytearray: call::import_from(c"builtins", c"bytearray")?,
        memoryview: call::import_from(c"builtins", c"memoryview")?,
        max_size: value::int(256 * 1024)?,
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
