//! What happens once per connection: taking the socket over, announcing the transport, and its
//! description (`get_extra_info()`).
//!
//! What is told of the socket is made when somebody asks for it; most connections end without. Its own
//! address is gone with it: if that was not asked for by then, it is kept for whoever still has the
//! transport ([`keep_local`]).

use super::{Life, TcpTransport, birth, descriptor, names};
use crate::event_loop::{LoopBase, Ready};
use crate::future::Future;
use crate::net::transport::close::soon;
use crate::net::transport::{limits, raise_errno};
use crate::net::{address, transport};
use crate::primitives::hops::Alarm;
use rondel_ffi::err::Builtin;
use rondel_ffi::method::Args;
use rondel_ffi::{Inst, Obj, PyRes, Ref, call, fd, value};
use rustix::net::{getpeername, getsockname, sockopt};
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, RawFd};

const TCP: i64 = 6;

/// A socket's addresses of IPv4 or IPv6, for as long as they are not tuples in `extra`.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    local: Local,
    peer: Option<SocketAddr>,
    /// `extra` had the peer's from the start.
    peer_given: bool,
}

/// The socket's own address.
#[derive(Clone, Copy)]
enum Local {
    Unasked,
    Known(Option<SocketAddr>),
}

impl Ends {
    /// Those of a connection that was accepted from `peer`.
    pub(super) fn of_accepted(peer: Option<SocketAddr>) -> Ends {
        Ends {
            local: Local::Unasked,
            peer,
            peer_given: false,
        }
    }
}

fn ask_local(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    SocketAddr::try_from(getsockname(socket).ok()?).ok()
}

/// The socket is about to be closed: keeps what is asked of it later, if anybody can ask.
pub(super) fn keep_local(slf: Inst<'_, TcpTransport>) {
    // The loop's entry and the caller of this have a reference each.
    if slf.obj().refcount() > 2
        && let Some(ends) = slf.ends.get()
        && let Local::Unasked = ends.local
    {
        let local = slf.descriptor().ok().and_then(ask_local);
        slf.ends.set(Some(Ends {
            local: Local::Known(local),
            ..ends
        }));
    }
}

/// `_open(loop, sock, protocol, waiter, extra, server, connected)`: what `SocketTransport.__init__` was
/// given. `connected`: it is known as a TCP socket, connected to the `peername` that is in `extra`.
pub(super) fn open(slf: Inst<'_, TcpTransport>, args: Args<'_>) -> PyRes<Obj> {
    let [home, sock, protocol, waiter, extra, server, connected] = args.positional() else {
        return Err(Builtin::Type.raise(
            "_open() takes a loop, a socket, a protocol, a waiter, extra, a server and a flag",
        ));
    };
    let Some(home) = home.cast::<LoopBase>() else {
        let text = value::repr(*home)?;
        return Err(Builtin::Type.raise(&format!("a rondel.EventLoop was expected, got {text}")));
    };
    let connected = connected.truthy()?;
    take_over(
        home,
        slf,
        [*sock, *protocol, *waiter, *extra, *server],
        connected,
    )?;
    Ok(Obj::none())
}

/// `loop._connected(sock, protocol, waiter, extra, server, connected)`: a transport, opened as by [`open`].
pub(crate) fn connected(home: Inst<'_, LoopBase>, args: Args<'_>) -> PyRes<Obj> {
    let [sock, protocol, waiter, extra, server, connected] = args.positional() else {
        return Err(Builtin::Type.raise(
            "_connected() takes a socket, a protocol, a waiter, extra, a server and a flag",
        ));
    };
    let connected = connected.truthy()?;
    let transport = birth::blank()?;
    let given = [*sock, *protocol, *waiter, *extra, *server];
    take_over(home, transport.inst(), given, connected)?;
    Ok(transport.into_obj())
}

fn take_over(
    home: Inst<'_, LoopBase>,
    slf: Inst<'_, TcpTransport>,
    [sock, protocol, waiter, extra, server]: [Ref<'_>; 5],
    connected: bool,
) -> PyRes<()> {
    if slf.life.get() != Life::Gone || slf.rest.extra.is_some() {
        return Err(Builtin::Runtime.raise("the transport was opened already"));
    }
    let own = names::own();
    let number = call::method(own.fileno.borrow(), [sock])?;
    let raw = RawFd::try_from(value::as_i64(number.borrow())?).unwrap_or(-1);
    let Some(lent) = fd::lend(sock, raw) else {
        return Err(Builtin::Value.raise("the socket is closed: a transport needs an open one"));
    };
    let extra = match extra.not_none() {
        Some(extra) => extra.own(),
        None => value::dict()?,
    };
    let ends = if connected {
        Some(Ends {
            local: Local::Unasked,
            peer: None,
            peer_given: true,
        })
    } else {
        describe(sock, lent, extra.borrow())?
    };
    // May run Python code (`__instancecheck__`), hence before the fields.
    super::methods::set_protocol(slf, protocol)?;
    slf.fd.set(raw);
    limits::set_default(slf);
    slf.rest.extra.set(Some(extra));
    slf.ends.set(ends);
    slf.server.set(server.not_none().map(Ref::own));
    slf.described.set(Some(sock.own()));
    slf.file.set(Some(sock.own()));
    slf.home.set(Some(home.own()));
    slf.life.set(Life::Open);
    announce(home, slf, protocol, waiter)?;
    if connected || (ends.is_some() && is_tcp(sock)?) {
        // Small writes are sent without waiting for the peer's acknowledgement.
        sockopt::set_tcp_nodelay(lent, true).map_err(raise_errno)?;
    }
    Ok(())
}

fn is_tcp(sock: Ref<'_>) -> PyRes<bool> {
    let proto = call::getattr(sock, names::own().proto.borrow())?;
    Ok(value::as_i64(proto.borrow())? == TCP)
}

/// Opens the transport of an accepted connection, which has its descriptor and its server. (Its options
/// it has from the listening socket.)
pub(super) fn open_accepted(
    home: Inst<'_, LoopBase>,
    slf: Inst<'_, TcpTransport>,
    protocol: Ref<'_>,
) -> PyRes<()> {
    super::methods::set_protocol(slf, protocol)?;
    limits::set_default(slf);
    slf.home.set(Some(home.own()));
    slf.life.set(Life::Open);
    let none = names::own().none.borrow();
    announce(home, slf, protocol, none)
}

/// Tells server and loop, and schedules what comes first, as asyncio's transport does.
fn announce(
    home: Inst<'_, LoopBase>,
    slf: Inst<'_, TcpTransport>,
    protocol: Ref<'_>,
    waiter: Ref<'_>,
) -> PyRes<()> {
    let own = names::own();
    if let Some(server) = slf.server.get() {
        let attach = own.attach.borrow();
        // From 3.13 on a server knows its transports.
        let _none = if cfg!(Py_3_13) {
            call::method(attach, [server.borrow(), slf.obj()])?
        } else {
            call::method(attach, [server.borrow()])?
        };
    }
    home.claims.claim(slf.fd.get(), slf.obj())?;
    let made = call::getattr(protocol, own.connection_made.borrow())?;
    // Data, and whoever waits for the connection, come after connection_made().
    if home.is_debug() {
        soon(home, made.borrow(), &[slf.obj()])?;
        let start = call::getattr(slf.obj(), own.start_reading.borrow())?;
        soon(home, start.borrow(), &[])?;
    } else {
        birth::announce(home, slf, made)?;
    }
    if let Some(waiter) = waiter.cast::<Future>().filter(|_| !home.is_debug()) {
        home.push(Ready::Alarm(Alarm::Release(waiter.own())));
    } else if !waiter.is_none() {
        let none = own.none.borrow();
        soon(home, own.set_result.borrow(), &[waiter, none])?;
    }
    Ok(())
}

/// The addresses: natively, or in `extra` for a family whose addresses only `socket` knows.
fn describe(sock: Ref<'_>, lent: BorrowedFd<'_>, extra: Ref<'_>) -> PyRes<Option<Ends>> {
    let own = names::own();
    let peer_given = value::dict_get(extra, own.peername.borrow())?.is_some();
    let local = getsockname(lent);
    let Some(local) = local.ok().and_then(|any| SocketAddr::try_from(any).ok()) else {
        ask(sock, extra, &own.sockname, &own.getsockname)?;
        if !peer_given {
            ask(sock, extra, &own.peername, &own.getpeername)?;
        }
        return Ok(None);
    };
    let peer = if peer_given {
        None
    } else {
        let peer = getpeername(lent).ok().flatten();
        peer.and_then(|any| SocketAddr::try_from(any).ok())
    };
    Ok(Some(Ends {
        local: Local::Known(Some(local)),
        peer,
        peer_given,
    }))
}

/// `extra[key] = sock.method()`, None if that fails.
fn ask(sock: Ref<'_>, extra: Ref<'_>, key: &Obj, method: &Obj) -> PyRes<()> {
    let address = match call::method(method.borrow(), [sock]) {
        Ok(address) => address,
        Err(raised) if raised.matches(Builtin::OSError.class()) => {
            raised.clear();
            Obj::none()
        }
        Err(raised) => return Err(raised),
    };
    value::dict_set(extra, key.borrow(), address.borrow())
}

/// `extra`, with all that belongs into it.
pub(super) fn extra(slf: Inst<'_, TcpTransport>) -> PyRes<Obj> {
    show_socket(slf)?;
    show_ends(slf)?;
    Ok(slf.rest.extra.get().unwrap_or_else(Obj::none))
}

/// Whether it was given something of that name (none of the socket's own) beside None.
pub(crate) fn has_extra(slf: Inst<'_, TcpTransport>, name: Ref<'_>) -> PyRes<bool> {
    match slf.rest.extra.get() {
        Some(extra) => {
            let found = value::dict_get(extra.borrow(), name)?;
            Ok(found.is_some_and(|found| !found.is_none()))
        }
        None => Ok(false),
    }
}

/// The dict, made if it is not there.
fn dict_of(slf: Inst<'_, TcpTransport>) -> PyRes<Obj> {
    if let Some(extra) = slf.rest.extra.get() {
        return Ok(extra);
    }
    let extra = value::dict()?;
    slf.rest.extra.set(Some(extra.clone()));
    Ok(extra)
}

fn show_socket(slf: Inst<'_, TcpTransport>) -> PyRes<()> {
    let Some(described) = slf.described.get() else {
        return Ok(());
    };
    let sock = match descriptor::of(described.borrow()) {
        None => described,
        Some(held) => match descriptor::socket(slf)? {
            sock if sock.is_none() => descriptor::closed_socket(held)?,
            sock => sock,
        },
    };
    let own = names::own();
    let shown = call::call1(own.transport_socket.borrow(), sock.borrow())?;
    value::dict_set(dict_of(slf)?.borrow(), own.socket.borrow(), shown.borrow())?;
    slf.described.set(None);
    Ok(())
}

fn show_ends(slf: Inst<'_, TcpTransport>) -> PyRes<()> {
    let Some(ends) = slf.ends.take() else {
        return Ok(());
    };
    let own = names::own();
    let extra = dict_of(slf)?;
    let tuple = |address: Option<SocketAddr>| {
        address.map_or_else(|| Ok(Obj::none()), |address| address::tuple(&address))
    };
    let local = match ends.local {
        Local::Known(local) => local,
        Local::Unasked => slf.descriptor().ok().and_then(ask_local),
    };
    let local = tuple(local)?;
    value::dict_set(extra.borrow(), own.sockname.borrow(), local.borrow())?;
    if !ends.peer_given {
        let peer = tuple(ends.peer)?;
        value::dict_set(extra.borrow(), own.peername.borrow(), peer.borrow())?;
    }
    Ok(())
}

pub(super) fn get_extra_info(slf: Inst<'_, TcpTransport>, args: Args<'_>) -> PyRes<Obj> {
    // Others' names are in the dict, if anywhere.
    if let Some(name) = args.positional().first().copied() {
        let own = names::own();
        if slf.described.is_some() && name.equals(own.socket.borrow())? {
            show_socket(slf)?;
        } else if name.equals(own.sockname.borrow())? || name.equals(own.peername.borrow())? {
            show_ends(slf)?;
        }
    } else {
        let _complete = extra(slf)?;
    }
    transport::get_extra_info(slf, args)
}
