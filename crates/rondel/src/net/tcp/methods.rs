//! The Python interface of `_rondel.TcpTransportBase`, and the type itself.

use super::{Kind, TcpTransport, descriptor, names, open, write};
use crate::net::tls::Tls;
use crate::net::transport::{Life, close, switches};
use crate::net::{streams, transport};
use rondel_ffi::class::TypeBuilder;
use rondel_ffi::method::{self, Args};
use rondel_ffi::{Inst, Obj, PyRes, Ref, call, value};

/// `transport.set_protocol(protocol)`.
pub(super) fn set_protocol(slf: Inst<'_, TcpTransport>, protocol: Ref<'_>) -> PyRes<Obj> {
    let kind = if protocol.cast::<Tls>().is_some() {
        Kind::Tls
    } else if protocol.is_instance(names::own().buffered_protocol.borrow())? {
        Kind::Buffered
    } else {
        Kind::Plain
    };
    slf.kind.set(kind);
    slf.stream.set(streams::is_native(protocol));
    slf.reader.set(None);
    slf.protocol.set(Some(protocol.own()));
    Ok(Obj::none())
}

fn get_empty_waiter(slf: Inst<'_, TcpTransport>) -> PyRes<Obj> {
    Ok(slf
        .empty_waiter
        .peek()
        .map_or_else(Obj::none, |waiter| waiter.obj().own()))
}

/// `__del__(_warn=warnings.warn)`.
fn finish(slf: Inst<'_, TcpTransport>, args: Args<'_>) -> PyRes<Obj> {
    if slf.file.is_none() {
        return Ok(Obj::none());
    }
    if slf.life.get() == Life::Gone {
        slf.file.set(None); // accepted, and the loop ended before it was opened
        return Ok(Obj::none());
    }
    let forgotten = call::getattr(slf.obj(), value::intern(c"_forgotten")?.borrow())?;
    call::call_args(forgotten.borrow(), &args)
}

type T = TcpTransport;

/// `_rondel.TcpTransportBase`. It derives from asyncio's `_FlowControlMixin` (a `Transport`), as
/// asyncio's `sendfile` asks for one; properties shadow all of its slots, so that they stay empty.
pub(crate) fn build() -> PyRes<Obj> {
    names::load()?;
    descriptor::build()?;
    let transports = call::import(c"asyncio.transports")?;
    let base = call::getattr(
        transports.borrow(),
        value::intern(c"_FlowControlMixin")?.borrow(),
    )?;
    TypeBuilder::<T>::new(c"rondel._rondel.TcpTransportBase")
        .over_python_class(base)
        .subclassable()
        .methods(transport::methods::<T>())
        .methods(transport::writing::<T>())
        .methods(switches::reading::<T>())
        .methods([
            method::fast::<T, _>(c"_open", c"Take over the connection.", open::open),
            method::fast::<T, _>(
                c"_finish",
                c"The finalizer: complains of a connection that was not closed.",
                finish,
            ),
            method::onearg::<T, _>(
                c"write",
                c"Send bytes, at once if the socket takes them.",
                write::write,
            ),
            method::onearg::<T, _>(
                c"writelines",
                c"Send a list of bytes objects.",
                write::writelines,
            ),
            method::noargs::<T, _>(
                c"write_eof",
                c"Close the write end after what is queued.",
                write::write_eof,
            ),
            method::noargs::<T, _>(c"can_write_eof", c"Return True.", |_: Inst<'_, T>| {
                Ok(Obj::bool(true))
            }),
            method::onearg::<T, _>(
                c"_force_close",
                c"Close at once, because of an exception.",
                close::force_close,
            ),
            method::onearg::<T, _>(
                c"set_protocol",
                c"Switch to another protocol.",
                set_protocol,
            ),
            method::fast::<T, _>(
                c"get_extra_info",
                c"Information about the connection, by name.",
                open::get_extra_info,
            ),
            method::noargs::<T, _>(
                c"_make_empty_waiter",
                c"Wait until all is sent.",
                write::make_empty_waiter,
            ),
            method::noargs::<T, _>(
                c"_reset_empty_waiter",
                c"Allow writing again.",
                write::reset_empty_waiter,
            ),
        ])
        .properties(transport::properties::<T>())
        .properties(transport::writing_properties::<T>())
        .properties([
            method::getter::<T, _>(c"_paused", transport::paused),
            method::getter::<T, _>(c"_sock", descriptor::socket),
            method::getter::<T, _>(c"_sock_fd", |slf: Inst<'_, T>| {
                value::int(i64::from(slf.fd.get()))
            }),
            method::getter::<T, _>(c"_server", |slf: Inst<'_, T>| {
                Ok(slf.server.get().unwrap_or_else(Obj::none))
            }),
            method::getter::<T, _>(c"_extra", open::extra),
            method::getter::<T, _>(c"_eof", |slf: Inst<'_, T>| {
                Ok(Obj::bool(slf.eof_written.get()))
            }),
            method::getter::<T, _>(c"_empty_waiter", get_empty_waiter),
        ])
        .build()
}
