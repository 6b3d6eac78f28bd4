//! A connection's first hops and its last: accepted, made, reading; lost.
//!
//! ```text
//!  listener readable ──► accept_many ──► [`accepted`] ──► [`made`] ──► events
//!                        accept4          the factory,      connection_made(),
//!                                         the transport     reading starts
//!  close(), abort() ───► [`lost`]: connection_lost(), the end
//! ```
//! An arrow into brackets is one hop of the loop, as asyncio makes it: its task of an accepted connection
//! is `accepted`; its two `call_soon`s of a new transport, which nothing can come between, are `made`.
//! They are entries of the ready queue with an [`IoEvent`] that epoll never gives; what they need is in the
//! transport. In debug mode everything goes through `call_soon()`.

use super::descriptor::{self, Descriptor};
use super::{TcpTransport, names, open, read};
use crate::event_loop::{IoEvent, LoopBase, Ready};
use crate::future::call_handler_in_except;
use crate::handle::{self, ends_loop};
use crate::net::sock;
use crate::net::transport::{Life, close, raise_errno};
use rondel_ffi::context::{self, Held};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::gil::GilStatic;
use rondel_ffi::method::{self, Args, MethodDef};
use rondel_ffi::{Class, Inst, Obj, Own, PyRes, Raised, Ref, call, fd, value};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

/// Accepted, or made: the transport's life tells.
const BIRTH: IoEvent = IoEvent {
    readable: false,
    writable: true,
    read_closed: true,
};
const LOST: IoEvent = IoEvent {
    readable: false,
    writable: false,
    read_closed: true,
};

/// Whether it is one of the two: an end that epoll sees is readable.
#[inline(always)]
pub(super) fn is_hop(event: IoEvent) -> bool {
    event.read_closed && !event.readable
}

#[inline(never)]
pub(super) fn on_hop(
    home: Inst<'_, LoopBase>,
    slf: Inst<'_, TcpTransport>,
    event: IoEvent,
) -> PyRes<()> {
    if !event.writable {
        lost(home, slf)
    } else if slf.life.get() == Life::Gone {
        accepted(home, slf)
    } else {
        made(home, slf)
    }
}

// ------------------------------------------------------------------------------- accepting

/// `SocketTransport`.
static ADOPTED: GilStatic<Obj> = GilStatic::new();

pub(crate) fn definition() -> MethodDef {
    method::function(
        c"_adopt_transport",
        c"Tell which class accepted connections' transports are of.",
        adopt,
    )
}

/// `_adopt_transport(SocketTransport)`: called once, by the module that defines it.
fn adopt(args: Args<'_>) -> PyRes<Obj> {
    let [class] = args.positional() else {
        return Err(Builtin::Type.raise("_adopt_transport() takes a class"));
    };
    if ADOPTED.get().is_none() {
        ADOPTED.set(class.own());
    }
    Ok(Obj::none())
}

/// A `SocketTransport` that was not opened.
pub(super) fn blank() -> PyRes<Own<TcpTransport>> {
    let class = ADOPTED.get();
    let class = class.ok_or_else(|| Builtin::Runtime.raise("no class was adopted"))?;
    let made = call::blank(class.borrow())?;
    made.into_cast::<TcpTransport>()
        .map_err(|_| Builtin::Type.raise("SocketTransport is no transport"))
}

/// `loop._accept_many(factory, sock, server, count)`: accepts up to `count` connections that wait at a
/// listening socket. False: it is not one of IPv4 or IPv6, or of a class of its own.
///
/// # Errors
/// Those of `accept4`, a connection that was reset meanwhile apart.
pub(crate) fn accept_many(home: Inst<'_, LoopBase>, args: Args<'_>) -> PyRes<Obj> {
    let [factory, listener, server, count] = args.positional() else {
        return Err(
            Builtin::Type.raise("_accept_many() takes a factory, a socket, a server, a number")
        );
    };
    let number = call::method(names::own().fileno.borrow(), [*listener])?;
    let raw = RawFd::try_from(value::as_i64(number.borrow())?).unwrap_or(-1);
    if !sock::is_plain_socket(*listener) || !sock::is_internet(home, *listener, raw)? {
        return Ok(Obj::bool(false));
    }
    let Some(lent) = fd::lend(*listener, raw) else {
        return Err(raise_errno(Errno::BADF));
    };
    let parts = sock::parts(home, *listener, raw)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    for _ in 0..value::as_i64(*count)? {
        let (conn, peer) = match acceptfrom_with(lent, flags) {
            Ok(accepted) => accepted,
            Err(Errno::AGAIN) => {
                home.with_driver(|driver| {
                    driver.drained(raw);
                    Ok(())
                })?;
                break;
            }
            Err(Errno::CONNABORTED | Errno::INTR) => break,
            Err(errno) => return Err(raise_errno(errno)),
        };
        let peer = peer.and_then(|any| SocketAddr::try_from(any).ok());
        let transport = blank()?;
        let slf = transport.inst();
        slf.fd.set(conn.as_raw_fd());
        let held = Descriptor::make(conn, &parts)?.into_obj();
        slf.described.set(Some(held.clone()));
        slf.file.set(Some(held));
        slf.ends.set(Some(open::Ends::of_accepted(peer)));
        slf.server.set(server.not_none().map(Ref::own));
        slf.next_call.set(Some(factory.own()));
        slf.write_context.set(Some(context::copy_current()?));
        home.push(Ready::Io(transport, BIRTH));
    }
    Ok(Obj::bool(true))
}

/// Makes the protocol and opens the transport; whatever goes wrong ends this connection alone.
fn accepted(home: Inst<'_, LoopBase>, slf: Inst<'_, TcpTransport>) -> PyRes<()> {
    let (Some(factory), Some(context)) = (slf.next_call.take(), slf.write_context.take()) else {
        return Ok(());
    };
    let context = Held::new(context);
    let mut outcome = home
        .enter(context.obj())
        .and_then(|()| call::call0(factory.borrow()))
        .and_then(|protocol| open::open_accepted(home, slf, protocol.borrow()));
    if let Err(raised) = outcome {
        slf.data().clear(); // with the descriptor
        outcome = not_made(home, raised);
    }
    home.callback_over();
    let left = home.leave();
    outcome.and(left)
}

#[cold]
fn not_made(home: Inst<'_, LoopBase>, raised: Raised) -> PyRes<()> {
    let exc = raised.fetch();
    if ends_loop(exc.borrow()) {
        return Err(err::raise_instance(exc.borrow()));
    }
    let context = value::dict()?;
    let message = value::str("Error on transport creation for incoming connection")?;
    let names = crate::consts::names();
    value::dict_set(context.borrow(), names.message.borrow(), message.borrow())?;
    value::dict_set(context.borrow(), names.exception.borrow(), exc.borrow())?;
    call_handler_in_except(home.obj(), context.borrow(), exc.borrow())
}

// ------------------------------------------------------------------------------- made

/// Schedules `made(slf)`, the bound `connection_made`, and the start of reading.
pub(super) fn announce(
    home: Inst<'_, LoopBase>,
    slf: Inst<'_, TcpTransport>,
    made: Obj,
) -> PyRes<()> {
    home.check_open()?;
    slf.next_call.set(Some(made));
    // Neither sees what the other sets.
    slf.write_context.set(Some(context::copy_current()?));
    slf.read_context.set(Some(context::copy_current()?));
    home.push(Ready::Io(slf.own(), BIRTH));
    Ok(())
}

fn made(home: Inst<'_, LoopBase>, slf: Inst<'_, TcpTransport>) -> PyRes<()> {
    let (Some(made), Some(context)) = (slf.next_call.take(), slf.write_context.take()) else {
        return Ok(());
    };
    let context = Held::new(context);
    let told = home
        .enter(context.obj())
        .and_then(|()| call::callback(made.borrow(), [Some(slf.obj()), None]));
    home.callback_over();
    let left = home.leave();
    let outcome = match told {
        Ok(_none) => Ok(()),
        Err(raised) => {
            handle::failed_outside(home, made.borrow(), &[slf.obj()], context.obj(), raised)
        }
    };
    let reading = match read::begin(home, slf) {
        Ok(()) => Ok(()),
        Err(raised) => close::report(home, slf, "_start_reading", raised),
    };
    outcome.and(left).and(reading)
}

// ------------------------------------------------------------------------------- lost

/// Schedules `connection_lost(exc)`.
pub(super) fn end_soon(
    home: Inst<'_, LoopBase>,
    slf: Inst<'_, TcpTransport>,
    exc: Ref<'_>,
) -> PyRes<()> {
    home.check_open()?;
    slf.last_exc.set(exc.not_none().map(Ref::own));
    // Nothing is read any more.
    slf.read_context.set(Some(context::copy_current()?));
    home.push(Ready::Io(slf.own(), LOST));
    Ok(())
}

fn lost(home: Inst<'_, LoopBase>, slf: Inst<'_, TcpTransport>) -> PyRes<()> {
    let Some(context) = slf.read_context.take() else {
        return Ok(());
    };
    let context = Held::new(context);
    let exc = slf.last_exc.take();
    let told = home
        .enter(context.obj())
        .and_then(|()| close::connection_lost(slf, exc.as_ref().map(Obj::borrow)));
    home.callback_over();
    let left = home.leave();
    match told {
        Ok(()) => left,
        Err(raised) => {
            let exc = exc.unwrap_or_else(Obj::none);
            let outcome = end_failed(home, slf, exc.borrow(), context.obj(), raised);
            outcome.and(left)
        }
    }
}

#[cold]
fn end_failed(
    home: Inst<'_, LoopBase>,
    slf: Inst<'_, TcpTransport>,
    exc: Ref<'_>,
    context: Ref<'_>,
    raised: Raised,
) -> PyRes<()> {
    let pending = raised.fetch();
    let method = call::getattr(slf.obj(), value::intern(c"_call_connection_lost")?.borrow())?;
    let raised = err::raise_instance(pending.borrow());
    handle::failed_outside(home, method.borrow(), &[exc], context, raised)
}

/// Closes a Python socket that nobody has seen.
pub(super) fn close_unseen(slf: Inst<'_, TcpTransport>) {
    if slf.is_private()
        && slf.file.peek().is_some_and(sock::is_plain_socket)
        && let Some(file) = slf.file.take()
        && let Err(raised) = crate::net::close_unseen(file.borrow())
    {
        raised.unraisable(Some(file.borrow()));
    }
}

pub(super) fn close_file(file: Ref<'_>) -> PyRes<()> {
    match descriptor::of(file) {
        Some(held) => {
            held.close();
            Ok(())
        }
        None => crate::net::close_socket(file),
    }
}
