//! The Python interface of `_rondel.TcpTransportBase`: opening, state, limits, and the type itself.

use super::{Life, Reading, TcpTransport, close, names, read, write};
use crate::event_loop::LoopBase;
use rondel_ffi::class::TypeBuilder;
use rondel_ffi::err::Builtin;
use rondel_ffi::method::{self, Args};
use rondel_ffi::{Inst, Obj, PyRes, Ref, call, value};
use std::os::fd::RawFd;

const DEFAULT_HIGH_WATER: usize = 64 * 1024;

/// `_open(loop, sock, fd, protocol, extra, server)`: what `SocketTransport.__init__` hands over.
fn open(slf: Inst<'_, TcpTransport>, args: Args<'_>) -> PyRes<Obj> {
    let [home, sock, fd, protocol, extra, server] = args.positional() else {
        return Err(Builtin::Type.raise(
            "_open() takes a loop, a socket, its descriptor, a protocol, extra and a server",
        ));
    };
    if slf.life.get() != Life::Gone || slf.extra.is_some() {
        return Err(Builtin::Runtime.raise("the transport was opened already"));
    }
    let Some(home) = home.cast::<LoopBase>() else {
        let text = value::repr(*home)?;
        return Err(Builtin::Type.raise(&format!("a rondel.EventLoop was expected, got {text}")));
    };
    let number = match RawFd::try_from(value::as_i64(*fd)?) {
        Ok(number) if number >= 0 => number,
        _ => {
            return Err(Builtin::Value.raise("the socket is closed: a transport needs an open one"));
        }
    };
    // May run Python code (`__instancecheck__`), hence before the fields.
    set_protocol(slf, *protocol)?;
    slf.fd.set(number);
    slf.high_water.set(DEFAULT_HIGH_WATER);
    slf.low_water.set(DEFAULT_HIGH_WATER / 4);
    slf.extra.set(Some(extra.own()));
    slf.server.set(server.not_none().map(Ref::own));
    slf.sock.set(Some(sock.own()));
    slf.home.set(Some(home.own()));
    slf.life.set(Life::Open);
    Ok(Obj::none())
}

/// `transport.set_protocol(protocol)`.
fn set_protocol(slf: Inst<'_, TcpTransport>, protocol: Ref<'_>) -> PyRes<Obj> {
    let buffered = protocol.is_instance(names::own().buffered_protocol.borrow())?;
    slf.buffered.set(buffered);
    slf.protocol.set(Some(protocol.own()));
    Ok(Obj::none())
}

fn get_protocol(slf: Inst<'_, TcpTransport>) -> PyRes<Obj> {
    Ok(slf.protocol.get().unwrap_or_else(Obj::none))
}

fn get_extra_info(slf: Inst<'_, TcpTransport>, args: Args<'_>) -> PyRes<Obj> {
    let own = names::own();
    let [name, default] = args.bind(
        "get_extra_info",
        [own.name.borrow(), own.default.borrow()],
        1,
        2,
    )?;
    if let (Some(extra), Some(name)) = (slf.extra.get(), name)
        && let Some(found) = value::dict_get(extra.borrow(), name)?
    {
        return Ok(found.own());
    }
    Ok(default.map_or_else(Obj::none, Ref::own))
}

fn is_closing(slf: Inst<'_, TcpTransport>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.life.get() != Life::Open))
}

fn is_reading(slf: Inst<'_, TcpTransport>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.is_reading()))
}

/// `_polling()`: whether the loop would call on readability and on writability, for the repr.
fn polling(slf: Inst<'_, TcpTransport>) -> PyRes<Obj> {
    let reads = slf.life.get() == Life::Open
        && slf.reading.get() == Reading::Flowing
        && slf.token.get().is_some();
    value::tuple([Obj::bool(reads), Obj::bool(slf.has_queued())])
}

fn int(number: usize) -> PyRes<Obj> {
    value::int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn get_write_buffer_size(slf: Inst<'_, TcpTransport>) -> PyRes<Obj> {
    int(slf.queued.get())
}

fn get_write_buffer_limits(slf: Inst<'_, TcpTransport>) -> PyRes<Obj> {
    value::tuple([int(slf.low_water.get())?, int(slf.high_water.get())?])
}

/// `set_write_buffer_limits(high=None, low=None)`, in bytes.
fn set_write_buffer_limits(slf: Inst<'_, TcpTransport>, args: Args<'_>) -> PyRes<Obj> {
    let own = names::own();
    let given = args.bind(
        "set_write_buffer_limits",
        [own.high.borrow(), own.low.borrow()],
        0,
        2,
    )?;
    let [high, low] = given.map(|limit| limit.and_then(Ref::not_none));
    let [high, low] = [
        high.map(value::as_i64).transpose()?,
        low.map(value::as_i64).transpose()?,
    ];
    let high = match (high, low) {
        (Some(high), _) => high,
        (None, Some(low)) => low.saturating_mul(4),
        (None, None) => DEFAULT_HIGH_WATER as i64,
    };
    // Rounded down, as Python divides; a negative `high` is refused below.
    let low = low.unwrap_or(high.div_euclid(4));
    let (Ok(high_water), Ok(low_water)) = (usize::try_from(high), usize::try_from(low)) else {
        return Err(limits_error(high, low));
    };
    if high_water < low_water {
        return Err(limits_error(high, low));
    }
    slf.high_water.set(high_water);
    slf.low_water.set(low_water);
    write::maybe_pause(slf)?;
    Ok(Obj::none())
}

#[cold]
fn limits_error(high: i64, low: i64) -> rondel_ffi::Raised {
    Builtin::Value.raise(&format!(
        "high ({high}) must be >= low ({low}) must be >= 0"
    ))
}

/// asyncio's `_conn_lost`.
fn conn_lost(slf: Inst<'_, TcpTransport>) -> PyRes<Obj> {
    value::int(if slf.is_lost() {
        i64::from(slf.lost_count.get())
    } else {
        0
    })
}

fn get_home(slf: Inst<'_, TcpTransport>) -> PyRes<Obj> {
    Ok(slf
        .home
        .peek()
        .map_or_else(Obj::none, |home| home.obj().own()))
}

fn get_empty_waiter(slf: Inst<'_, TcpTransport>) -> PyRes<Obj> {
    Ok(slf
        .empty_waiter
        .peek()
        .map_or_else(Obj::none, |waiter| waiter.obj().own()))
}

type T = TcpTransport;

/// `_rondel.TcpTransportBase`. It derives from asyncio's `_FlowControlMixin` (a `Transport`), as
/// asyncio's `sendfile` asks for one; properties shadow all of its slots, so that they stay empty.
pub(crate) fn build() -> PyRes<Obj> {
    names::load()?;
    let transports = call::import(c"asyncio.transports")?;
    let base = call::getattr(
        transports.borrow(),
        value::intern(c"_FlowControlMixin")?.borrow(),
    )?;
    TypeBuilder::<T>::new(c"rondel._rondel.TcpTransportBase")
        .over_python_class(base)
        .subclassable()
        .methods([
            method::fast::<T, _>(c"_open", c"Take over the connection.", open),
            method::noargs::<T, _>(
                c"_start_reading",
                c"Let data flow to the protocol.",
                read::start_reading,
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
            method::noargs::<T, _>(
                c"pause_reading",
                c"Stop calling the protocol with data.",
                read::pause_reading,
            ),
            method::noargs::<T, _>(
                c"resume_reading",
                c"Undo pause_reading().",
                read::resume_reading,
            ),
            method::noargs::<T, _>(
                c"is_reading",
                c"Whether data goes to the protocol.",
                is_reading,
            ),
            method::noargs::<T, _>(
                c"is_closing",
                c"Whether it is closing or closed.",
                is_closing,
            ),
            method::noargs::<T, _>(
                c"close",
                c"Close after sending what is queued.",
                close::close,
            ),
            method::noargs::<T, _>(c"abort", c"Close at once.", close::abort),
            method::onearg::<T, _>(
                c"_force_close",
                c"Close at once, because of an exception.",
                close::force_close,
            ),
            method::onearg::<T, _>(
                c"_call_connection_lost",
                c"Tell the protocol that the connection is lost.",
                close::call_connection_lost,
            ),
            method::onearg::<T, _>(
                c"set_protocol",
                c"Switch to another protocol.",
                set_protocol,
            ),
            method::noargs::<T, _>(c"get_protocol", c"The current protocol.", get_protocol),
            method::fast::<T, _>(
                c"get_extra_info",
                c"Information about the connection, by name.",
                get_extra_info,
            ),
            method::noargs::<T, _>(
                c"get_write_buffer_size",
                c"How many bytes wait to be sent.",
                get_write_buffer_size,
            ),
            method::noargs::<T, _>(
                c"get_write_buffer_limits",
                c"The low-water and high-water marks.",
                get_write_buffer_limits,
            ),
            method::fast::<T, _>(
                c"set_write_buffer_limits",
                c"Set the high-water and low-water marks.",
                set_write_buffer_limits,
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
            method::noargs::<T, _>(
                c"_polling",
                c"What the loop watches the socket for.",
                polling,
            ),
        ])
        .properties([
            method::getter::<T, _>(c"_loop", get_home),
            method::getter::<T, _>(c"_sock", |slf: Inst<'_, T>| {
                Ok(slf.sock.get().unwrap_or_else(Obj::none))
            }),
            method::getter::<T, _>(c"_sock_fd", |slf: Inst<'_, T>| {
                value::int(i64::from(slf.fd.get()))
            }),
            method::getter::<T, _>(c"_protocol", get_protocol),
            method::getter::<T, _>(c"_server", |slf: Inst<'_, T>| {
                Ok(slf.server.get().unwrap_or_else(Obj::none))
            }),
            method::getter::<T, _>(c"_extra", |slf: Inst<'_, T>| {
                Ok(slf.extra.get().unwrap_or_else(Obj::none))
            }),
            method::getter::<T, _>(c"_closing", is_closing),
            method::getter::<T, _>(c"_conn_lost", conn_lost),
            method::getter::<T, _>(c"_paused", |slf: Inst<'_, T>| {
                Ok(Obj::bool(slf.reading.get() == Reading::Paused))
            }),
            method::getter::<T, _>(c"_eof", |slf: Inst<'_, T>| {
                Ok(Obj::bool(slf.eof_written.get()))
            }),
            method::getter::<T, _>(c"_empty_waiter", get_empty_waiter),
            method::getter::<T, _>(c"_protocol_paused", |slf: Inst<'_, T>| {
                Ok(Obj::bool(slf.protocol_paused.get()))
            }),
            method::getter::<T, _>(c"_high_water", |slf: Inst<'_, T>| int(slf.high_water.get())),
            method::getter::<T, _>(c"_low_water", |slf: Inst<'_, T>| int(slf.low_water.get())),
        ])
        .build()
}
