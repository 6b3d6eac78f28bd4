//! Names and objects of asyncio that pipe transports alone use; filled when their types are built.

use rondel_ffi::gil::GilStatic;
use rondel_ffi::{Obj, PyRes, call, value};

pub(super) struct Names {
    pub(super) broken_pipe: Obj,
    pub(super) bytearray: Obj,
    pub(super) close: Obj,
    /// The format of what debug mode says at the peer's end.
    pub(super) closed_by_peer: Obj,
    pub(super) exc: Obj,
    pub(super) info: Obj,
    /// asyncio's logger.
    pub(super) logger: Obj,
    pub(super) memoryview: Obj,
    pub(super) read_ready: Obj,
    pub(super) write_ready: Obj,
}

static NAMES: GilStatic<Names> = GilStatic::new();

pub(super) fn load() -> PyRes<()> {
    let builtins = call::import(c"builtins")?;
    let builtin = |name| call::getattr(builtins.borrow(), value::intern(name)?.borrow());
    let log = call::import(c"asyncio.log")?;
    NAMES.set(Names {
        broken_pipe: builtin(c"BrokenPipeError")?,
        bytearray: builtin(c"bytearray")?,
        close: value::intern(c"close")?,
        closed_by_peer: value::intern(c"%r was closed by peer")?,
        exc: value::intern(c"exc")?,
        info: value::intern(c"info")?,
        logger: call::getattr(log.borrow(), value::intern(c"logger")?.borrow())?,
        memoryview: builtin(c"memoryview")?,
        read_ready: value::intern(c"_read_ready")?,
        write_ready: value::intern(c"_write_ready")?,
    });
    Ok(())
}

#[inline(always)]
pub(super) fn own() -> &'static Names {
    NAMES
        .get()
        .expect("filled when the types are built, before any transport exists")
}
