//! The Python interface of `_rondel.TlsProtocolBase`: opening, and asyncio's names for the state that
//! its inherited Python code reads and sets.

use super::{Kind, State, Tls, names, read, write};
use crate::event_loop::LoopBase;
use crate::net::tcp::TcpTransport;
use rondel_ffi::class::TypeBuilder;
use rondel_ffi::err::Builtin;
use rondel_ffi::method::{self, Args, PropertyDef};
use rondel_ffi::ssl::{self, Bio, Session};
use rondel_ffi::{Inst, Obj, PyRes, Ref, call, value};
use std::cell::Cell;

type T = Tls;

/// `_open(loop, incoming, outgoing, sslobj)`: the session and its BIOs.
fn open(slf: Inst<'_, T>, args: Args<'_>) -> PyRes<Obj> {
    let [home, incoming, outgoing, sslobj] = args.positional() else {
        return Err(Builtin::Type.raise("_open() takes a loop, two BIOs and an SSLObject"));
    };
    let Some(home) = home.cast::<LoopBase>() else {
        let text = value::repr(*home)?;
        return Err(Builtin::Type.raise(&format!("a rondel.EventLoop was expected, got {text}")));
    };
    if slf.incoming.is_some() {
        return Err(Builtin::Runtime.raise("the TLS layer was opened already"));
    }
    ssl::load()?;
    if Bio::new(*incoming).is_none() || Bio::new(*outgoing).is_none() {
        return Err(Builtin::Type.raise("ssl.MemoryBIO objects were expected"));
    }
    set_sslobj(slf, Some(*sslobj))?;
    slf.home.set(Some(home.own()));
    slf.incoming.set(Some(incoming.own()));
    slf.outgoing.set(Some(outgoing.own()));
    Ok(Obj::none())
}

fn set_sslobj(slf: Inst<'_, T>, sslobj: Option<Ref<'_>>) -> PyRes<()> {
    let sslobj = sslobj.and_then(Ref::not_none);
    let inner = sslobj.map_or(Ok(None), Session::within)?;
    slf.session.set(inner);
    slf.sslobj.set(sslobj.map(Ref::own));
    Ok(())
}

/// `_set_app_protocol(protocol)`.
fn set_app_protocol(slf: Inst<'_, T>, protocol: Ref<'_>) -> PyRes<Obj> {
    let kind = if protocol.cast::<Tls>().is_some() {
        Kind::Nested
    } else if protocol.is_instance(names::own().buffered_protocol.borrow())? {
        Kind::Buffered
    } else {
        Kind::Plain
    };
    slf.kind.set(kind);
    slf.app_protocol.set(Some(protocol.own()));
    Ok(Obj::none())
}

/// `_transport = transport`.
fn set_lower(slf: Inst<'_, T>, transport: Option<Ref<'_>>) -> PyRes<()> {
    let transport = transport.and_then(Ref::not_none);
    let tcp = transport.and_then(|transport| transport.cast::<TcpTransport>());
    slf.tcp.set(tcp.map(Inst::own));
    slf.lower.set(transport.map(Ref::own));
    Ok(())
}

fn set_state(slf: Inst<'_, T>, state: Option<Ref<'_>>) -> PyRes<()> {
    const STATES: [State; 5] = [
        State::Unwrapped,
        State::Handshake,
        State::Wrapped,
        State::Flushing,
        State::Shutdown,
    ];
    let found = state.and_then(|state| {
        STATES
            .into_iter()
            .find(|known| state.is(known.member().borrow()))
    });
    match found {
        Some(state) => {
            slf.state.set(state);
            Ok(())
        }
        None => Err(Builtin::Type.raise("an SSLProtocolState was expected")),
    }
}

/// `_feed(data)`: from a transport that is not ours.
fn feed(slf: Inst<'_, T>, data: Ref<'_>) -> PyRes<Obj> {
    let data = value::to_bytes(data)?;
    read::take_in(slf, value::bytes_of(data.borrow()).unwrap_or_default())?;
    read::advance(slf)?;
    Ok(Obj::none())
}

/// `_flush()`: sends what the turn has written so far.
fn flush(slf: Inst<'_, T>) -> PyRes<Obj> {
    write::flush(slf)?;
    Ok(Obj::none())
}

/// `_append_backlog(data)`: adds to what is to be written, without writing it.
fn append_backlog(slf: Inst<'_, T>, data: Ref<'_>) -> PyRes<Obj> {
    write::append(slf, data)?;
    Ok(Obj::none())
}

fn drop_backlog(slf: Inst<'_, T>) -> PyRes<Obj> {
    slf.drop_backlog();
    Ok(Obj::none())
}

/// `_write_backlog`: a copy, for those who look.
fn backlog(slf: Inst<'_, T>) -> PyRes<Obj> {
    let chunks: Vec<Obj> = slf.backlog.borrow().iter().cloned().collect();
    let copy = call::call0(names::own().deque.borrow())?;
    for chunk in chunks {
        let _none = call::method(
            crate::consts::names().append.borrow(),
            [copy.borrow(), chunk.borrow()],
        )?;
    }
    Ok(copy)
}

fn int(number: usize) -> PyRes<Obj> {
    value::int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn optional(found: Option<Obj>) -> PyRes<Obj> {
    Ok(found.unwrap_or_else(Obj::none))
}

/// A flag of the state that inherited code reads and sets.
macro_rules! flag {
    ($name:literal, $field:ident) => {
        method::property::<T, _, _>(
            $name,
            |slf: Inst<'_, T>| Ok(Obj::bool(slf.$field.get())),
            |slf: Inst<'_, T>, value: Option<Ref<'_>>| {
                slf.$field.set(value.map_or(Ok(false), Ref::truthy)?);
                Ok(())
            },
        )
    };
}

/// A number of bytes.
macro_rules! size {
    ($name:literal, $field:ident) => {
        method::property::<T, _, _>(
            $name,
            |slf: Inst<'_, T>| int(slf.$field.get()),
            |slf: Inst<'_, T>, value: Option<Ref<'_>>| set_size(&slf.$field, value),
        )
    };
}

fn set_size(field: &Cell<usize>, value: Option<Ref<'_>>) -> PyRes<()> {
    let Some(value) = value else {
        return Err(Builtin::Attribute.raise("the limit can't be deleted"));
    };
    // A float is a limit under asyncio, too.
    field.set(value::as_f64(value)?.ceil() as usize);
    Ok(())
}

/// `_rondel.TlsProtocolBase`.
pub(super) fn build() -> PyRes<Obj> {
    TypeBuilder::<T>::new(c"rondel._rondel.TlsProtocolBase")
        .subclassable()
        .methods([
            method::fast::<T, _>(c"_open", c"Take over the session.", open),
            method::onearg::<T, _>(
                c"_set_app_protocol",
                c"Switch to another protocol.",
                set_app_protocol,
            ),
            method::onearg::<T, _>(c"_feed", c"Take in encrypted bytes.", feed),
            method::noargs::<T, _>(c"_do_read", c"Deliver what came in.", |slf: Inst<'_, T>| {
                read::read(slf)?;
                Ok(Obj::none())
            }),
            method::noargs::<T, _>(
                c"_resume_reading",
                c"Deliver data again.",
                read::resume_reading,
            ),
            method::noargs::<T, _>(c"_resumed", c"Go on after a pause.", read::resumed),
            method::noargs::<T, _>(
                c"_control_ssl_reading",
                c"Pause or resume the transport below.",
                |slf: Inst<'_, T>| {
                    read::control_lower(slf)?;
                    Ok(Obj::none())
                },
            ),
            method::onearg::<T, _>(
                c"_write_appdata",
                c"Send a list of data.",
                write::write_list,
            ),
            method::noargs::<T, _>(c"_do_write", c"Encrypt and send.", |slf: Inst<'_, T>| {
                write::encrypt(slf)?;
                Ok(Obj::none())
            }),
            method::noargs::<T, _>(
                c"_process_outgoing",
                c"Send what OpenSSL has made.",
                |slf: Inst<'_, T>| {
                    write::process_outgoing(slf)?;
                    Ok(Obj::none())
                },
            ),
            method::noargs::<T, _>(
                c"_control_app_writing",
                c"Pause or resume the protocol.",
                |slf: Inst<'_, T>| {
                    write::control_app(slf)?;
                    Ok(Obj::none())
                },
            ),
            method::noargs::<T, _>(c"_flush", c"Send what was written.", flush),
            method::onearg::<T, _>(c"_append_backlog", c"Add without writing.", append_backlog),
            method::noargs::<T, _>(c"_drop_backlog", c"Forget what was written.", drop_backlog),
            method::noargs::<T, _>(
                c"pause_writing",
                c"The transport below is full.",
                write::pause_writing,
            ),
            method::noargs::<T, _>(
                c"resume_writing",
                c"The transport below has room.",
                write::resume_writing,
            ),
            method::noargs::<T, _>(
                c"_get_write_buffer_size",
                c"How many bytes wait to be sent.",
                |slf: Inst<'_, T>| {
                    write::flush(slf)?;
                    int(write::buffered(slf)?)
                },
            ),
            method::noargs::<T, _>(
                c"_get_read_buffer_size",
                c"How many bytes wait to be decrypted.",
                |slf: Inst<'_, T>| int(super::bio(&slf.incoming.get())?.pending()?),
            ),
        ])
        .properties(objects())
        .properties([
            flag!(c"_app_reading_paused", app_reading_paused),
            flag!(c"_app_writing_paused", app_writing_paused),
            flag!(c"_ssl_reading_paused", lower_reading_paused),
            flag!(c"_ssl_writing_paused", lower_paused),
            size!(c"_outgoing_high_water", outgoing_high),
            size!(c"_outgoing_low_water", outgoing_low),
            size!(c"_incoming_high_water", incoming_high),
            size!(c"_incoming_low_water", incoming_low),
            method::getter::<T, _>(c"_write_buffer_size", |slf: Inst<'_, T>| {
                int(slf.backlog_size.get())
            }),
        ])
        .build()
}

fn objects() -> [PropertyDef; 9] {
    [
        method::getter::<T, _>(c"_loop", |slf: Inst<'_, T>| {
            optional(slf.home.get().map(rondel_ffi::Own::into_obj))
        }),
        method::getter::<T, _>(c"_incoming", |slf: Inst<'_, T>| {
            optional(slf.incoming.get())
        }),
        method::getter::<T, _>(c"_outgoing", |slf: Inst<'_, T>| {
            optional(slf.outgoing.get())
        }),
        method::getter::<T, _>(c"_write_backlog", backlog),
        method::property::<T, _, _>(
            c"_sslobj",
            |slf: Inst<'_, T>| optional(slf.sslobj.get()),
            set_sslobj,
        ),
        method::property::<T, _, _>(
            c"_transport",
            |slf: Inst<'_, T>| optional(slf.lower.get()),
            set_lower,
        ),
        method::property::<T, _, _>(
            c"_app_transport",
            |slf: Inst<'_, T>| optional(slf.app_transport.get()),
            |slf: Inst<'_, T>, transport: Option<Ref<'_>>| {
                let transport = transport.and_then(Ref::not_none).map(Ref::own);
                slf.app_transport.set(transport);
                Ok(())
            },
        ),
        method::property::<T, _, _>(
            c"_app_protocol",
            |slf: Inst<'_, T>| optional(slf.app_protocol.get()),
            |slf: Inst<'_, T>, protocol: Option<Ref<'_>>| match protocol.and_then(Ref::not_none) {
                Some(protocol) => set_app_protocol(slf, protocol).map(|_none| ()),
                None => {
                    slf.app_protocol.set(None);
                    Ok(())
                }
            },
        ),
        method::property::<T, _, _>(
            c"_state",
            |slf: Inst<'_, T>| Ok(slf.state.get().member().clone()),
            set_state,
        ),
    ]
}
