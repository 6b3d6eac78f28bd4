//! The ways a connection ends, and where errors go.
//!
//! As under asyncio, an exception of the protocol or of a system call is *fatal*: it is reported
//! (OSError in debug mode only: peers that vanish are everyday) and the connection aborted.
//! KeyboardInterrupt and SystemExit pass through to whoever runs the loop.

use super::{Life, TcpTransport, deregister, names};
use crate::consts::names;
use crate::event_loop::{LoopBase, Ready};
use crate::future::{self, call_handler};
use crate::handle::{self, ends_loop};
use rondel_ffi::{Inst, Obj, PyRes, Raised, Ref, call, err, value};

/// `transport.close()`: sends what is queued first.
pub(super) fn close(slf: Inst<'_, TcpTransport>) -> PyRes<Obj> {
    close_now(slf)?;
    Ok(Obj::none())
}

pub(super) fn close_now(slf: Inst<'_, TcpTransport>) -> PyRes<()> {
    if slf.life.get() != Life::Open {
        return Ok(());
    }
    slf.life.set(Life::Draining);
    if slf.has_queued() {
        Ok(())
    } else {
        lose(slf, None)
    }
}

/// `transport.abort()`.
pub(super) fn abort(slf: Inst<'_, TcpTransport>) -> PyRes<Obj> {
    force(slf, None)?;
    Ok(Obj::none())
}

/// `transport._force_close(exc)`.
pub(super) fn force_close(slf: Inst<'_, TcpTransport>, exc: Ref<'_>) -> PyRes<Obj> {
    force(slf, exc.not_none())?;
    Ok(Obj::none())
}

fn force(slf: Inst<'_, TcpTransport>, exc: Option<Ref<'_>>) -> PyRes<()> {
    if slf.is_lost() {
        return Ok(());
    }
    slf.drop_queue();
    lose(slf, exc)
}

/// Ends all traffic and schedules `connection_lost(exc)`.
fn lose(slf: Inst<'_, TcpTransport>, exc: Option<Ref<'_>>) -> PyRes<()> {
    let Some(home) = slf.home.get() else {
        return Ok(());
    };
    slf.life.set(Life::Lost);
    slf.lost_count.set(1);
    // The caller's reference may be the loop's own.
    let slf_kept = slf.own();
    deregister(home.inst(), slf)?;
    if !slf.empty_waiter.is_none() {
        // `sendfile` has watched the descriptor, whose number is free from now on.
        let number = value::int(i64::from(slf.fd.get()))?;
        let _removed = call::method(
            names::own().remove_writer.borrow(),
            [home.obj(), number.borrow()],
        )?;
    }
    let callback = call::getattr(slf_kept.obj(), names::own().call_connection_lost.borrow())?;
    let exc = exc.unwrap_or_else(|| names::own().none.borrow());
    if home.debug.get() {
        // asyncio's own method has the checks of debug mode.
        let _handle = call::method(
            names().call_soon.borrow(),
            [home.obj(), callback.borrow(), exc],
        )?;
        return Ok(());
    }
    home.check_open()?;
    let handle = handle::new(home.inst(), callback.borrow(), &[exc], None)?;
    home.push(Ready::Run(handle));
    Ok(())
}

/// `transport._call_connection_lost(exc)`.
pub(super) fn call_connection_lost(slf: Inst<'_, TcpTransport>, exc: Ref<'_>) -> PyRes<Obj> {
    connection_lost(slf, exc.not_none())?;
    Ok(Obj::none())
}

/// Tells the protocol, closes the socket and lets go of everything. The first error is raised, when
/// all is done.
pub(super) fn connection_lost(slf: Inst<'_, TcpTransport>, exc: Option<Ref<'_>>) -> PyRes<()> {
    if slf.life.get() == Life::Gone {
        return Ok(());
    }
    slf.life.set(Life::Lost);
    let kept = slf.own();
    let slf = kept.inst();
    let mut first_error: Option<Obj> = None;
    let mut note = |result: PyRes<Obj>| {
        if let Err(raised) = result {
            let exc = raised.fetch();
            first_error.get_or_insert(exc);
        }
    };
    if let Some(home) = slf.home.get() {
        note(deregister(home.inst(), slf).map(|()| Obj::none()));
    }
    if let Some(protocol) = slf.protocol.get() {
        let exc = exc.unwrap_or_else(|| names::own().none.borrow());
        note(call::method(
            names().connection_lost.borrow(),
            [protocol.borrow(), exc],
        ));
    }
    slf.life.set(Life::Gone);
    slf.lost_count.set(slf.lost_count.get().max(1));
    if let Some(sock) = slf.sock.take() {
        note(call::method(names().close.borrow(), [sock.borrow()]));
    }
    slf.protocol.set(None);
    slf.read_context.set(None);
    slf.write_context.set(None);
    if let Some(server) = slf.server.take() {
        let detach = names::own().detach.borrow();
        // From 3.13 on a server knows its transports.
        note(if cfg!(Py_3_13) {
            call::method(detach, [server.borrow(), slf.obj()])
        } else {
            call::method(detach, [server.borrow()])
        });
    }
    slf.home.set(None);
    if let Some(exc) = first_error {
        return Err(err::raise_instance(exc.borrow()));
    }
    match slf.empty_waiter.get() {
        Some(waiter) if !waiter.done() => {
            let text = value::str("Connection is closed by peer")?;
            let exc = call::call1(names::own().connection_error.borrow(), text.borrow())?;
            future::fail(waiter.inst(), exc)
        }
        _ => Ok(()),
    }
}

// ------------------------------------------------------------------------------- errors

/// Reports an exception and aborts the connection: `self._fatal_error(exc, message)`.
#[cold]
pub(super) fn fatal(slf: Inst<'_, TcpTransport>, exc: Obj, message: &str) -> PyRes<()> {
    let message = value::str(message)?;
    let args = [slf.obj(), exc.borrow(), message.borrow()];
    let _none = call::method(names::own().fatal_error.borrow(), args)?;
    Ok(())
}

/// An exception of the protocol is fatal for the connection, or for the loop.
#[cold]
pub(super) fn failed(slf: Inst<'_, TcpTransport>, raised: Raised, message: &str) -> PyRes<()> {
    let exc = passing(raised)?;
    fatal(slf, exc, message)
}

/// Takes the exception, unless it is one that ends the loop.
fn passing(raised: Raised) -> PyRes<Obj> {
    let exc = raised.fetch();
    if ends_loop(exc.borrow()) {
        Err(err::raise_instance(exc.borrow()))
    } else {
        Ok(exc)
    }
}

/// Reports an exception that does not end the connection.
#[cold]
pub(super) fn to_handler(slf: Inst<'_, TcpTransport>, raised: Raised, message: &str) -> PyRes<()> {
    let exc = passing(raised)?;
    match slf.home.get() {
        Some(home) => handle_exception(home.inst(), slf, exc, message),
        None => Err(err::raise_instance(exc.borrow())),
    }
}

/// What came out of a readiness callback: asyncio's handles report it the same way.
#[cold]
pub(super) fn report(
    home: Inst<'_, LoopBase>,
    slf: Inst<'_, TcpTransport>,
    callback: &str,
    raised: Raised,
) -> PyRes<()> {
    let exc = passing(raised)?;
    home.leave()?; // asyncio reports outside the callback's context
    handle_exception(
        home,
        slf,
        exc,
        &format!("Exception in callback SocketTransport.{callback}()"),
    )
}

fn handle_exception(
    home: Inst<'_, LoopBase>,
    slf: Inst<'_, TcpTransport>,
    exc: Obj,
    message: &str,
) -> PyRes<()> {
    let context = value::dict()?;
    let protocol = slf.protocol.get().unwrap_or_else(Obj::none);
    let message = value::str(message)?;
    let own = names::own();
    value::dict_set(context.borrow(), names().message.borrow(), message.borrow())?;
    value::dict_set(context.borrow(), names().exception.borrow(), exc.borrow())?;
    value::dict_set(context.borrow(), own.transport.borrow(), slf.obj())?;
    value::dict_set(context.borrow(), own.protocol.borrow(), protocol.borrow())?;
    call_handler(home.obj(), context.borrow())
}

/// Debug mode: `"<transport> text"` to asyncio's logger.
#[inline(always)]
pub(super) fn log_debug(
    home: Inst<'_, LoopBase>,
    slf: Inst<'_, TcpTransport>,
    text: &str,
) -> PyRes<()> {
    if home.debug.get() {
        let text = value::str(text)?;
        let _none = call::method(names::own().log_debug.borrow(), [slf.obj(), text.borrow()])?;
    }
    Ok(())
}
