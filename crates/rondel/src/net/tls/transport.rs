//! `_rondel.TlsTransportBase`: what the application's protocol gets. The rest of its interface is
//! asyncio's `_SSLProtocolTransport`, over the properties here.

use super::{Tls, TlsTransport, names, read, write};
use rondel_ffi::class::TypeBuilder;
use rondel_ffi::err::Builtin;
use rondel_ffi::method;
use rondel_ffi::{Inst, Obj, PyRes, Ref, call, value};

type T = TlsTransport;

/// `transport.writelines(list)`.
fn writelines(slf: Inst<'_, T>, list: Ref<'_>) -> PyRes<Obj> {
    match slf.tls.get() {
        Some(tls) => write::write_list(tls.inst(), list),
        None => Ok(Obj::none()),
    }
}

/// `transport.is_closing()`: asked with every `drain()` of a stream.
fn is_closing(slf: Inst<'_, T>) -> PyRes<Obj> {
    if slf.closed.get() || !names::own().closing_asks_below {
        return Ok(Obj::bool(slf.closed.get()));
    }
    match slf.tls.get().and_then(|tls| tls.lower.get()) {
        Some(lower) => call::method(names::own().is_closing.borrow(), [lower.borrow()]),
        None => Ok(Obj::bool(false)),
    }
}

fn is_reading(slf: Inst<'_, T>) -> PyRes<Obj> {
    Ok(Obj::bool(
        slf.tls
            .peek()
            .is_some_and(|tls| !tls.app_reading_paused.get()),
    ))
}

fn pause_reading(slf: Inst<'_, T>) -> PyRes<Obj> {
    if let Some(tls) = slf.tls.peek() {
        tls.app_reading_paused.set(true);
    }
    Ok(Obj::none())
}

fn resume_reading(slf: Inst<'_, T>) -> PyRes<Obj> {
    match slf.tls.get() {
        Some(tls) => read::resume_reading(tls.inst()),
        None => Ok(Obj::none()),
    }
}

fn get_write_buffer_size(slf: Inst<'_, T>) -> PyRes<Obj> {
    let size = match slf.tls.get() {
        Some(tls) => {
            write::flush(tls.inst())?;
            write::buffered(tls.inst())?
        }
        None => 0,
    };
    value::int(i64::try_from(size).unwrap_or(i64::MAX))
}

fn set_ssl_protocol(slf: Inst<'_, T>, protocol: Option<Ref<'_>>) -> PyRes<()> {
    match protocol.and_then(Ref::not_none) {
        None => slf.tls.set(None),
        Some(protocol) => match protocol.cast::<Tls>() {
            Some(tls) => slf.tls.set(Some(tls.own())),
            None => return Err(Builtin::Type.raise("a TLS protocol of Rondel's was expected")),
        },
    }
    Ok(())
}

/// `_rondel.TlsTransportBase`. As for TCP, properties shadow the slots of asyncio's
/// `_FlowControlMixin`, so that they stay empty.
pub(super) fn build() -> PyRes<Obj> {
    let transports = call::import(c"asyncio.transports")?;
    let base = call::getattr(
        transports.borrow(),
        value::intern(c"_FlowControlMixin")?.borrow(),
    )?;
    TypeBuilder::<T>::new(c"rondel._rondel.TlsTransportBase")
        .over_python_class(base)
        .subclassable()
        .methods([
            method::onearg::<T, _>(c"write", c"Send bytes.", write::write),
            method::onearg::<T, _>(c"writelines", c"Send a list of bytes objects.", writelines),
            method::noargs::<T, _>(
                c"is_closing",
                c"Whether it is closing or closed.",
                is_closing,
            ),
            method::noargs::<T, _>(
                c"is_reading",
                c"Whether data goes to the protocol.",
                is_reading,
            ),
            method::noargs::<T, _>(
                c"pause_reading",
                c"Stop calling the protocol with data.",
                pause_reading,
            ),
            method::noargs::<T, _>(c"resume_reading", c"Undo pause_reading().", resume_reading),
            method::noargs::<T, _>(
                c"get_write_buffer_size",
                c"How many bytes wait to be sent.",
                get_write_buffer_size,
            ),
        ])
        .properties([
            method::property::<T, _, _>(
                c"_ssl_protocol",
                |slf: Inst<'_, T>| {
                    Ok(slf
                        .tls
                        .get()
                        .map_or_else(Obj::none, rondel_ffi::Own::into_obj))
                },
                set_ssl_protocol,
            ),
            method::property::<T, _, _>(
                c"_closed",
                |slf: Inst<'_, T>| Ok(Obj::bool(slf.closed.get())),
                |slf: Inst<'_, T>, value: Option<Ref<'_>>| {
                    slf.closed.set(value.map_or(Ok(false), Ref::truthy)?);
                    Ok(())
                },
            ),
            method::getter::<T, _>(c"_loop", |slf: Inst<'_, T>| {
                Ok(slf
                    .tls
                    .get()
                    .and_then(|tls| tls.home.get())
                    .map_or_else(Obj::none, rondel_ffi::Own::into_obj))
            }),
            method::getter::<T, _>(c"_protocol_paused", |slf: Inst<'_, T>| {
                Ok(Obj::bool(
                    slf.tls
                        .peek()
                        .is_some_and(|tls| tls.app_writing_paused.get()),
                ))
            }),
        ])
        .build()
}
