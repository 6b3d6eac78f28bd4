//! Names and objects that `sock_*` alone uses; filled when its types are built.

use rondel_ffi::gil::GilStatic;
use rondel_ffi::{Obj, PyRes, Ref, call, value};
use std::ffi::CStr;

macro_rules! names {
    ($($field:ident = $text:literal),* ; $($object:ident = $module:literal $path:expr),* $(,)?) => {
        pub(crate) struct Names { $(pub(crate) $field: Obj,)* $(pub(crate) $object: Obj,)* }

        pub(super) fn load() -> PyRes<()> {
            NAMES.set(Names {
                $($field: value::intern($text)?,)*
                $($object: attr($module, &$path)?,)*
            });
            Ok(())
        }
    };
}

static NAMES: GilStatic<Names> = GilStatic::new();

names! {
    address = c"address",
    buf = c"buf",
    bufsize = c"bufsize",
    connect = c"connect",
    data = c"data",
    ensure_resolved = c"_ensure_resolved",
    family = c"family",
    fileno = c"fileno",
    gettimeout = c"gettimeout",
    n = c"n",
    nbytes = c"nbytes",
    proto = c"proto",
    recv_into = c"recv_into",
    recvfrom = c"recvfrom",
    recvfrom_into = c"recvfrom_into",
    accept = c"accept",
    close = c"close",
    closed = c"_closed",
    io_refs = c"_io_refs",
    sendto = c"sendto",
    setblocking = c"setblocking",
    sock = c"sock",
    type_ = c"type";
    // The class that is served natively.
    socket = c"socket" ["socket"],
    // The family as a number: `socket.socket` makes an enumeration of it, in Python.
    family_of = c"_socket" ["socket", "family"],
    // What `socket.close` ends with.
    close_descriptor = c"_socket" ["socket", "close"],
    // `socket.socket.connect` unless somebody has put another in its place.
    stock_connect = c"_socket" ["socket", "connect"],
    // `socket.socket.sendto`, likewise.
    stock_sendto = c"_socket" ["socket", "sendto"],
    // What `socket.detach` ends with.
    detach_descriptor = c"_socket" ["socket", "detach"],
}

fn attr(module: &CStr, path: &[&str]) -> PyRes<Obj> {
    let mut found = call::import(module)?;
    for name in path {
        found = call::getattr(found.borrow(), value::str(name)?.borrow())?;
    }
    Ok(found)
}

#[inline(always)]
pub(crate) fn own() -> &'static Names {
    NAMES
        .get()
        .expect("filled when the types are built, before any loop exists")
}

/// A method of asyncio's selector loop, as a function.
pub(super) fn stock(name: &CStr) -> PyRes<Obj> {
    let module = call::import(c"asyncio.selector_events")?;
    let class = call::getattr(
        module.borrow(),
        value::intern(c"BaseSelectorEventLoop")?.borrow(),
    )?;
    call::getattr(class.borrow(), value::intern(name)?.borrow())
}

/// Whether it is a `socket.socket`, and of no subclass.
#[inline(always)]
pub(crate) fn is_plain_socket(sock: Ref<'_>) -> bool {
    std::ptr::eq(sock.type_ptr().cast(), own().socket.as_ptr())
}
