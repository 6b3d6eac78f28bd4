//! Names and objects of asyncio that all transports use; filled before their types are built.

use rondel_ffi::gil::GilStatic;
use rondel_ffi::{Obj, PyRes, call, value};

pub(super) struct Names {
    pub(super) call_connection_lost: Obj,
    pub(super) default: Obj,
    pub(super) fatal_error: Obj,
    pub(super) high: Obj,
    pub(super) log_debug: Obj,
    pub(super) low: Obj,
    pub(super) name: Obj,
    pub(super) protocol: Obj,
    pub(super) transport: Obj,
    pub(super) warning: Obj,
    /// asyncio's logger.
    pub(super) logger: Obj,
    pub(super) none: Obj,
}

static NAMES: GilStatic<Names> = GilStatic::new();

pub(crate) fn load() -> PyRes<()> {
    let log = call::import(c"asyncio.log")?;
    NAMES.set(Names {
        call_connection_lost: value::intern(c"_call_connection_lost")?,
        default: value::intern(c"default")?,
        fatal_error: value::intern(c"_fatal_error")?,
        high: value::intern(c"high")?,
        log_debug: value::intern(c"_log_debug")?,
        low: value::intern(c"low")?,
        name: value::intern(c"name")?,
        protocol: value::intern(c"protocol")?,
        transport: value::intern(c"transport")?,
        warning: value::intern(c"warning")?,
        logger: call::getattr(log.borrow(), value::intern(c"logger")?.borrow())?,
        none: Obj::none(),
    });
    Ok(())
}

#[inline(always)]
pub(super) fn own() -> &'static Names {
    NAMES
        .get()
        .expect("filled before any transport's type is built")
}
