//! Names and objects of asyncio that TLS alone uses; filled when its types are built.

use super::State;
use rondel_ffi::gil::GilStatic;
use rondel_ffi::{Obj, PyRes, call, value};
use std::ffi::CStr;

pub(super) struct Names {
    pub(super) call_eof_received: Obj,
    pub(super) do_flush: Obj,
    pub(super) do_handshake: Obj,
    pub(super) do_read: Obj,
    pub(super) do_shutdown: Obj,
    pub(super) fatal_error: Obj,
    pub(super) is_closing: Obj,
    pub(super) pause_reading: Obj,
    pub(super) protocol: Obj,
    pub(super) read: Obj,
    pub(super) resume_reading: Obj,
    pub(super) resumed: Obj,
    pub(super) start_shutdown: Obj,
    pub(super) transport: Obj,
    pub(super) type_name: Obj,
    pub(super) write: Obj,
    pub(super) deque: Obj,
    pub(super) buffered_protocol: Obj,
    pub(super) bytearray: Obj,
    pub(super) memoryview: Obj,
    /// asyncio's `SSLProtocol._write_appdata`: what it does when writing is over.
    pub(super) stock_write: Obj,
    /// asyncio's transport asks the one below as well whether it is closing (later releases).
    pub(super) closing_asks_below: bool,
    /// The members of asyncio's `SSLProtocolState`, in the order of [`State`].
    pub(super) states: [Obj; 5],
}

static NAMES: GilStatic<Names> = GilStatic::new();

pub(super) fn load() -> PyRes<()> {
    let protocol = call::import_from(c"asyncio.sslproto", c"SSLProtocol")?;
    let states = call::import_from(c"asyncio.sslproto", c"SSLProtocolState")?;
    let state = |name: &CStr| call::getattr(states.borrow(), value::intern(name)?.borrow());
    let asks_below = value::intern(c"_is_transport_closing")?;
    NAMES.set(Names {
        call_eof_received: value::intern(c"_call_eof_received")?,
        do_flush: value::intern(c"_do_flush")?,
        do_handshake: value::intern(c"_do_handshake")?,
        do_read: value::intern(c"_do_read")?,
        do_shutdown: value::intern(c"_do_shutdown")?,
        fatal_error: value::intern(c"_fatal_error")?,
        is_closing: value::intern(c"is_closing")?,
        pause_reading: value::intern(c"pause_reading")?,
        protocol: value::intern(c"protocol")?,
        read: value::intern(c"read")?,
        resume_reading: value::intern(c"resume_reading")?,
        resumed: value::intern(c"_resumed")?,
        start_shutdown: value::intern(c"_start_shutdown")?,
        transport: value::intern(c"transport")?,
        type_name: value::intern(c"__name__")?,
        write: value::intern(c"write")?,
        deque: call::import_from(c"collections", c"deque")?,
        buffered_protocol: call::import_from(c"asyncio.protocols", c"BufferedProtocol")?,
        bytearray: call::import_from(c"builtins", c"bytearray")?,
        memoryview: call::import_from(c"builtins", c"memoryview")?,
        stock_write: call::getattr(
            protocol.borrow(),
            value::intern(c"_write_appdata")?.borrow(),
        )?,
        closing_asks_below: call::getattr_opt(protocol.borrow(), asks_below.borrow())?.is_some(),
        states: [
            state(c"UNWRAPPED")?,
            state(c"DO_HANDSHAKE")?,
            state(c"WRAPPED")?,
            state(c"FLUSHING")?,
            state(c"SHUTDOWN")?,
        ],
    });
    Ok(())
}

#[inline(always)]
pub(super) fn own() -> &'static Names {
    NAMES
        .get()
        .expect("filled when the types are built, before any connection exists")
}

impl State {
    /// asyncio's name for it.
    pub(super) fn member(self) -> &'static Obj {
        &own().states[self as usize]
    }
}
