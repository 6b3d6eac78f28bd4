//! The ways a transport ends, and where errors go.
//!
//! As under asyncio, an exception of the protocol or of a system call is *fatal*: it is reported
//! (OSError in debug mode only: peers that vanish are everyday) and the transport aborted.
//! KeyboardInterrupt and SystemExit pass through to whoever runs the loop.
//!
//! What is reported is being handled meanwhile: asyncio reports within the `except` clause that has
//! caught it, so that an exception handler may log with `exc_info=True`.

use super::{Life, Transport, names};
use crate::consts::names;
use crate::event_loop::{LoopBase, Ready};
use crate::future::call_handler_in_except;
use crate::handle::{self, ends_loop};
use rondel_ffi::{Inst, Obj, PyRes, Raised, Ref, call, err, value};

/// Writes to a lost transport before asyncio's logger hears of them
/// (`LOG_THRESHOLD_FOR_CONNLOST_WRITES`).
const LOST_WRITES: u32 = 5;

/// `transport.close()`: sends what is queued first.
pub(in crate::net) fn close<T: Transport>(slf: Inst<'_, T>) -> PyRes<Obj> {
    close_now(slf)?;
    Ok(Obj::none())
}

pub(in crate::net) fn close_now<T: Transport>(slf: Inst<'_, T>) -> PyRes<()> {
    if slf.life.get() != Life::Open {
        return Ok(());
    }
    slf.life.set(Life::Draining);
    if slf.queued.get() > 0 {
        Ok(())
    } else {
        lose(slf, None)
    }
}

/// `transport.abort()`.
pub(in crate::net) fn abort<T: Transport>(slf: Inst<'_, T>) -> PyRes<Obj> {
    force(slf, None)?;
    Ok(Obj::none())
}

/// `transport._force_close(exc)`.
pub(in crate::net) fn force_close<T: Transport>(slf: Inst<'_, T>, exc: Ref<'_>) -> PyRes<Obj> {
    force(slf, exc.not_none())?;
    Ok(Obj::none())
}

pub(in crate::net) fn force<T: Transport>(slf: Inst<'_, T>, exc: Option<Ref<'_>>) -> PyRes<()> {
    if slf.is_lost() {
        return Ok(());
    }
    slf.drop_queue();
    lose(slf, exc)
}

/// Ends all traffic and schedules `connection_lost(exc)`.
pub(in crate::net) fn lose<T: Transport>(slf: Inst<'_, T>, exc: Option<Ref<'_>>) -> PyRes<()> {
    let Some(home) = slf.home.get() else {
        return Ok(());
    };
    slf.life.set(Life::Lost);
    let lost_count = &slf.rest().lost_count;
    lost_count.set(lost_count.get().max(T::LOST));
    // The caller's reference may be the loop's own.
    let slf_kept = slf.own();
    T::deregister_for_good(home.inst(), slf)?;
    let exc = exc.unwrap_or_else(|| names::own().none.borrow());
    if home.is_debug() {
        return call_end_soon(home.inst(), slf_kept.inst(), exc);
    }
    T::end_soon(home.inst(), slf_kept.inst(), exc)
}

/// `loop.call_soon(slf._call_connection_lost, exc)`.
pub(in crate::net) fn call_end_soon<T: Transport>(
    home: Inst<'_, LoopBase>,
    slf: Inst<'_, T>,
    exc: Ref<'_>,
) -> PyRes<()> {
    let callback = call::getattr(slf.obj(), names::own().call_connection_lost.borrow())?;
    soon(home, callback.borrow(), &[exc])
}

/// `loop.call_soon(callback, *args)`.
pub(in crate::net) fn soon(
    home: Inst<'_, LoopBase>,
    callback: Ref<'_>,
    args: &[Ref<'_>],
) -> PyRes<()> {
    if home.is_debug() {
        // asyncio's own method has the checks of debug mode.
        let soon = call::getattr(home.obj(), names().call_soon.borrow())?;
        let mut vector = vec![callback];
        vector.extend(args);
        return call::call(soon.borrow(), &vector).map(|_handle| ());
    }
    home.check_open()?;
    let handle = handle::new(home, callback, args, None)?;
    home.push(Ready::Run(handle));
    Ok(())
}

/// `transport._call_connection_lost(exc)`.
pub(in crate::net) fn call_connection_lost<T: Transport>(
    slf: Inst<'_, T>,
    exc: Ref<'_>,
) -> PyRes<Obj> {
    connection_lost(slf, exc.not_none())?;
    Ok(Obj::none())
}

/// Tells the protocol, closes the file and lets go of everything. The first error is raised, when
/// all is done.
pub(in crate::net) fn connection_lost<T: Transport>(
    slf: Inst<'_, T>,
    exc: Option<Ref<'_>>,
) -> PyRes<()> {
    if slf.life.get() == Life::Gone {
        return Ok(());
    }
    slf.life.set(Life::Lost);
    let kept = slf.own();
    let slf = kept.inst();
    let mut first_error: Option<Obj> = None;
    let mut note = |result: PyRes<()>| {
        if let Err(raised) = result {
            let exc = raised.fetch();
            first_error.get_or_insert(exc);
        }
    };
    if let Some(home) = slf.home.get() {
        note(T::deregister(home.inst(), slf));
    }
    if let Some(protocol) = slf.protocol.get() {
        let exc = exc.unwrap_or_else(|| names::own().none.borrow());
        let args = [protocol.borrow(), exc];
        note(call::method(names().connection_lost.borrow(), args).map(drop));
    }
    slf.life.set(Life::Gone);
    let lost_count = &slf.rest().lost_count;
    lost_count.set(lost_count.get().max(T::LOST));
    slf.protocol.set(None);
    T::before_close(slf);
    if let Some(file) = slf.file.take() {
        note(T::close_file(file.borrow()));
    }
    note(T::let_go(slf));
    slf.home.set(None);
    match first_error {
        Some(exc) => Err(err::raise_instance(exc.borrow())),
        None => T::gone(slf),
    }
}

/// A write to a lost transport.
#[cold]
pub(in crate::net) fn count_lost<T: Transport>(slf: Inst<'_, T>) -> PyRes<()> {
    let lost_count = &slf.rest().lost_count;
    let count = lost_count.get();
    lost_count.set(count.saturating_add(1));
    if count >= LOST_WRITES {
        let own = names::own();
        let text = value::str(T::LOST_WARNING)?;
        let _none = call::method(own.warning.borrow(), [own.logger.borrow(), text.borrow()])?;
    }
    Ok(())
}

// ------------------------------------------------------------------------------- errors

/// Reports an exception and aborts: `self._fatal_error(exc, message)`.
#[cold]
pub(in crate::net) fn fatal<T: Transport>(slf: Inst<'_, T>, exc: Obj, message: &str) -> PyRes<()> {
    let message = value::str(message)?;
    let args = [slf.obj(), exc.borrow(), message.borrow()];
    err::while_handling(exc.borrow(), || {
        call::method(names::own().fatal_error.borrow(), args).map(drop)
    })
}

/// An exception of the protocol is fatal for the transport, or for the loop.
#[cold]
pub(in crate::net) fn failed<T: Transport>(
    slf: Inst<'_, T>,
    raised: Raised,
    message: &str,
) -> PyRes<()> {
    failed_with(slf, raised.fetch(), message)
}

#[cold]
pub(in crate::net) fn failed_with<T: Transport>(
    slf: Inst<'_, T>,
    exc: Obj,
    message: &str,
) -> PyRes<()> {
    if ends_loop(exc.borrow()) {
        return Err(err::raise_instance(exc.borrow()));
    }
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

/// Reports an exception that does not end the transport.
#[cold]
pub(in crate::net) fn to_handler<T: Transport>(
    slf: Inst<'_, T>,
    raised: Raised,
    message: &str,
) -> PyRes<()> {
    let exc = passing(raised)?;
    match slf.home.get() {
        Some(home) => handle_exception(home.inst(), slf, exc, message),
        None => Err(err::raise_instance(exc.borrow())),
    }
}

/// What came out of a readiness callback: asyncio's handles report it the same way.
#[cold]
pub(in crate::net) fn report<T: Transport>(
    home: Inst<'_, LoopBase>,
    slf: Inst<'_, T>,
    callback: &str,
    raised: Raised,
) -> PyRes<()> {
    let exc = passing(raised)?;
    home.leave()?; // asyncio reports outside the callback's context
    let message = format!("Exception in callback {}.{callback}()", T::NAME);
    handle_exception(home, slf, exc, &message)
}

fn handle_exception<T: Transport>(
    home: Inst<'_, LoopBase>,
    slf: Inst<'_, T>,
    exc: Obj,
    message: &str,
) -> PyRes<()> {
    let context = value::dict()?;
    let protocol = slf.protocol.get().unwrap_or_else(Obj::none);
    let message = value::str(message)?;
    let own = names::own();
    for (key, value) in [
        (&names().message, message.borrow()),
        (&names().exception, exc.borrow()),
        (&own.transport, slf.obj()),
        (&own.protocol, protocol.borrow()),
    ] {
        value::dict_set(context.borrow(), key.borrow(), value)?;
    }
    call_handler_in_except(home.obj(), context.borrow(), exc.borrow())
}

/// Debug mode: `"<transport> text"` to asyncio's logger.
#[inline(always)]
pub(in crate::net) fn log_debug<T: Transport>(
    home: Inst<'_, LoopBase>,
    slf: Inst<'_, T>,
    text: &str,
) -> PyRes<()> {
    if home.is_debug() {
        let text = value::str(text)?;
        let _none = call::method(names::own().log_debug.borrow(), [slf.obj(), text.borrow()])?;
    }
    Ok(())
}
