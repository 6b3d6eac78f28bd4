//! The Python interface of `_rondel.UdpTransportBase`: opening, and the type itself.

use super::{Family, Life, UdpTransport, names, write};
use crate::event_loop::LoopBase;
use crate::net::transport::{self, close, limits, switches};
use rondel_ffi::class::TypeBuilder;
use rondel_ffi::err::Builtin;
use rondel_ffi::method::{self, Args};
use rondel_ffi::{Inst, Obj, PyRes, Ref, call, fd, value};
use rustix::net::{AddressFamily, sockopt};
use std::os::fd::RawFd;

/// `_open(loop, sock, fd, protocol, extra, address)`: what `DatagramTransport.__init__` hands over.
fn open(slf: Inst<'_, UdpTransport>, args: Args<'_>) -> PyRes<Obj> {
    let [home, sock, fd, protocol, extra, address] = args.positional() else {
        return Err(Builtin::Type.raise(
            "_open() takes a loop, a socket, its descriptor, a protocol, extra and an address",
        ));
    };
    if slf.life.get() != Life::Gone || slf.rest.extra.is_some() {
        return Err(Builtin::Runtime.raise("the transport was opened already"));
    }
    let Some(home) = home.cast::<LoopBase>() else {
        let text = value::repr(*home)?;
        return Err(Builtin::Type.raise(&format!("a rondel.EventLoop was expected, got {text}")));
    };
    let number = RawFd::try_from(value::as_i64(*fd)?).unwrap_or(-1);
    let Some(lent) = fd::lend(*sock, number) else {
        return Err(Builtin::Value.raise("the socket is closed: a transport needs an open one"));
    };
    slf.family.set(match sockopt::socket_domain(lent) {
        Ok(AddressFamily::INET) => Family::V4,
        Ok(AddressFamily::INET6) => Family::V6,
        _ => Family::Other,
    });
    let peer = value::dict_get(*extra, names::own().peername.borrow())?.map(Ref::own);
    slf.connected.set(match &peer {
        Some(peer) => peer.borrow().truthy()?,
        None => false,
    });
    // asyncio asks for the address's truth value.
    let remote = address.truthy()?;
    slf.address.set(remote.then(|| address.own()));
    slf.fd.set(number);
    limits::set_default(slf);
    slf.protocol.set(Some(protocol.own()));
    slf.rest.extra.set(Some(extra.own()));
    slf.file.set(Some(sock.own()));
    slf.home.set(Some(home.own()));
    slf.life.set(Life::Open);
    Ok(Obj::none())
}

fn set_protocol(slf: Inst<'_, UdpTransport>, protocol: Ref<'_>) -> PyRes<Obj> {
    slf.protocol.set(Some(protocol.own()));
    Ok(Obj::none())
}

type T = UdpTransport;
type Slf<'a> = Inst<'a, T>;

/// `_rondel.UdpTransportBase`. It derives from asyncio's `_FlowControlMixin` (a `Transport`), as asyncio's
/// datagram transports do; properties shadow all of its slots, so that they stay empty. The Python class
/// over it is a `DatagramTransport` as well.
pub(crate) fn build() -> PyRes<Obj> {
    names::load()?;
    let transports = call::import(c"asyncio.transports")?;
    let base = call::getattr(
        transports.borrow(),
        value::intern(c"_FlowControlMixin")?.borrow(),
    )?;
    let shown = |cell: Option<Obj>| Ok(cell.unwrap_or_else(Obj::none));
    TypeBuilder::<T>::new(c"rondel._rondel.UdpTransportBase")
        .over_python_class(base)
        .subclassable()
        .methods(transport::methods::<T>())
        .methods(transport::writing::<T>())
        .methods(switches::reading::<T>())
        .methods([
            method::fast::<T, _>(c"_open", c"Take over the socket.", open),
            method::fast::<T, _>(
                c"sendto",
                c"sendto($self, data, addr=None)\n--\n\nSend a datagram, at once if the socket has room.",
                write::sendto,
            ),
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
                c"Information about the endpoint, by name.",
                transport::get_extra_info,
            ),
        ])
        .properties(transport::properties::<T>())
        .properties(transport::writing_properties::<T>())
        .properties([
            method::getter::<T, _>(c"_paused", transport::paused),
            method::getter::<T, _>(c"_sock", move |slf: Slf<'_>| shown(slf.file.get())),
            method::getter::<T, _>(c"_sock_fd", |slf: Slf<'_>| {
                value::int(i64::from(slf.fd.get()))
            }),
            method::getter::<T, _>(c"_address", move |slf: Slf<'_>| shown(slf.address.get())),
            method::getter::<T, _>(c"_extra", move |slf: Slf<'_>| shown(slf.rest.extra.get())),
        ])
        .build()
}
