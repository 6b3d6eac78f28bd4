//! Who watches a future natively: `wait`, `wait_for`, `as_completed`, `shield`, futures of threads.
//!
//! A [`Hop`] is asyncio's done callback, an [`Alarm`] its `call_later`: each is exactly one entry of
//! the ready queue where asyncio has one `call_soon`, so others see the outcome in the same order.
//! On a future that is not ours the same hop goes through `add_done_callback`, as a native callable
//! bound to whoever watches.
//!
//! Everything here runs with the GIL held. A hop runs in the thread of the loop that its future
//! belongs to.

use super::{as_completed, shield, threads, wait};
use crate::consts::names;
use crate::event_loop::{self, Due, LoopBase};
use crate::future::{self, Callback, Future, State};
use crate::pool::{self, call::Call};
use rondel_core::timers::TimerKey;
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::method::{self, BoundDef};
use rondel_ffi::{Inst, Obj, Own, PyRes, Ref, call};
use std::cell::Cell;
use std::sync::OnceLock;

/// What is to be done when a future is done.
pub(crate) enum Hop {
    /// This future gets None as its result, unless it is done (asyncio's `_release_waiter`).
    Release(Own<Future>),
    /// A `wait` counts it off.
    Tally(Own<wait::Tally>),
    /// An `as_completed` hands it out.
    Completed(Own<as_completed::AsCompleted>),
    /// It is the inner future of a `shield`; this is the outer one.
    ShieldInner(Own<Future>),
    /// It is the outer future of a `shield`; this is the inner one.
    ShieldOuter(Own<Future>),
    /// This future of a thread gets its outcome.
    ToThread(Obj),
    /// This future of a thread is cancelled if it was.
    CancelThread(Obj),
    /// It gets the outcome of this future of a thread. Pushed by that thread, not by a done future.
    FromThread(Obj),
    /// It gets the outcome of this call of the default executor. Pushed by the thread that made it.
    Called(Own<Call>),
}

/// What a timer does when it is due.
pub(crate) enum Alarm {
    /// As [`Hop::Release`].
    Release(Own<Future>),
    /// The time of an `as_completed` is over.
    Completed(Own<as_completed::AsCompleted>),
}

impl Hop {
    /// The object it refers to.
    pub(crate) fn obj(&self) -> Ref<'_> {
        match self {
            Hop::Release(future) | Hop::ShieldInner(future) | Hop::ShieldOuter(future) => {
                future.obj()
            }
            Hop::Tally(tally) => tally.obj(),
            Hop::Completed(source) => source.obj(),
            Hop::ToThread(future) | Hop::CancelThread(future) | Hop::FromThread(future) => {
                future.borrow()
            }
            Hop::Called(call) => call.obj(),
        }
    }

    fn same(&self, other: &Hop) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other) && self.obj().is(other.obj())
    }

    /// The same as a callable that takes the future. Equal each time it is made, as bound methods
    /// are, so that `remove_done_callback` finds it.
    fn bound(&self) -> PyRes<Obj> {
        match self {
            Hop::Release(waiter) => method::bind(release_def(), waiter.obj()),
            Hop::Tally(tally) => method::bind(wait::done_def(), tally.obj()),
            Hop::Completed(source) => method::bind(as_completed::done_def(), source.obj()),
            // These are for native futures alone: their users ask before.
            _ => Err(Builtin::Type.raise("a native future was expected")),
        }
    }
}

impl Alarm {
    pub(crate) fn obj(&self) -> Ref<'_> {
        match self {
            Alarm::Release(future) => future.obj(),
            Alarm::Completed(source) => source.obj(),
        }
    }
}

/// Runs a hop for its future.
pub(crate) fn run(hop: Hop, fut: Own<Future>) -> PyRes<()> {
    match hop {
        Hop::Release(waiter) => release(waiter.inst()),
        Hop::Tally(tally) => wait::child_done(tally.inst(), fut.obj()),
        Hop::Completed(source) => as_completed::child_done(source.inst(), fut.obj()),
        Hop::ShieldInner(outer) => shield::inner_done(outer.inst(), fut.inst()),
        Hop::ShieldOuter(inner) => shield::outer_done(inner.inst(), fut.inst()),
        Hop::ToThread(thread) => threads::to_thread_future(thread.borrow(), fut.inst()),
        Hop::CancelThread(thread) => threads::cancel_thread_future(thread.borrow(), fut.inst()),
        Hop::FromThread(thread) => threads::from_thread_future(thread.borrow(), fut.inst()),
        Hop::Called(call) => pool::call::deliver(call, fut.inst()),
    }
}

/// An alarm's time has come.
pub(crate) fn ring(alarm: Alarm) -> PyRes<()> {
    match alarm {
        Alarm::Release(waiter) => release(waiter.inst()),
        Alarm::Completed(source) => as_completed::timed_out(source.inst()),
    }
}

/// asyncio's `_release_waiter`.
#[inline(always)]
pub(super) fn release(waiter: Inst<'_, Future>) -> PyRes<()> {
    if waiter.done() {
        return Ok(());
    }
    future::finish(waiter, State::Finished, Some(Obj::none()))
}

fn release_def() -> &'static BoundDef {
    static DEF: OnceLock<BoundDef> = OnceLock::new();
    DEF.get_or_init(|| {
        BoundDef::new(method::onearg::<Future, _>(
            c"_release_waiter",
            c"Let go who waits for a future.",
            |waiter: Inst<'_, Future>, _done: Ref<'_>| release(waiter).map(|()| Obj::none()),
        ))
    })
}

/// `fut.add_done_callback(hop)`.
#[inline(always)]
pub(super) fn add(fut: Ref<'_>, hop: Hop) -> PyRes<()> {
    match future::native(fut) {
        Some(native) => future::add_callback(native, Callback::Hop(hop)),
        None => {
            let callback = hop.bound()?;
            let name = names().add_done_callback.borrow();
            call::method(name, [fut, callback.borrow()]).map(|_none| ())
        }
    }
}

/// `fut.remove_done_callback(hop)`.
#[inline(always)]
pub(super) fn remove(fut: Ref<'_>, hop: &Hop) -> PyRes<()> {
    match future::native(fut) {
        Some(native) => {
            if !native.done() {
                let taken = future::take_hop(native, |found| found.same(hop));
                drop(taken);
            }
            Ok(())
        }
        None => {
            let callback = hop.bound()?;
            let name = names().remove_done_callback.borrow();
            call::method(name, [fut, callback.borrow()]).map(|_count| ())
        }
    }
}

/// `fut.done()`.
#[inline(always)]
pub(super) fn done(fut: Ref<'_>) -> PyRes<bool> {
    match future::native(fut) {
        Some(native) => Ok(native.done()),
        None => call::method(names().done.borrow(), [fut])?
            .borrow()
            .truthy(),
    }
}

/// `fut.cancel()`.
pub(super) fn cancel(fut: Ref<'_>) -> PyRes<bool> {
    match future::native(fut) {
        Some(native) => future::cancel_any(native, None),
        None => future::cancel_python(fut, None),
    }
}

/// `fut.result()`: the value, or the exception instance that it raises.
pub(super) fn outcome(fut: Ref<'_>) -> Result<Obj, Obj> {
    let result = match future::native(fut) {
        Some(native) => future::outcome(native),
        None => call::method(names().result.borrow(), [fut]).map(Ok),
    };
    match result {
        Ok(outcome) => outcome,
        Err(raised) => Err(raised.fetch()),
    }
}

/// Seconds of a timeout argument: `loop.call_later(delay, …)` with a native callback.
pub(super) fn alarm_after(home: Inst<'_, LoopBase>, delay: f64, alarm: Alarm) -> TimerKey {
    event_loop::add_deadline(home, event_loop::now_seconds() + delay, Due::Alarm(alarm))
}

/// `timeout_handle.cancel()`, as often as one likes. An alarm that is due already finds nothing to do.
#[inline(always)]
pub(super) fn stop_alarm(home: Option<Own<LoopBase>>, alarm: &Cell<Option<TimerKey>>) {
    if let Some(key) = alarm.take()
        && let Some(home) = home
    {
        drop(home.cancel_timer(key));
    }
}

/// `TimeoutError()`, raised while `exc` is handled.
#[cold]
pub(super) fn timeout_error_in(exc: Obj) -> PyRes<rondel_ffi::Raised> {
    let error = call::call0(Builtin::Timeout.class())?;
    err::set_context(error.borrow(), exc);
    Ok(err::raise_instance(error.borrow()))
}

/// `TimeoutError() from exc`, raised while `exc` is handled.
pub(super) fn timeout_error_from(exc: Obj) -> PyRes<Obj> {
    let error = call::call0(Builtin::Timeout.class())?;
    err::set_context(error.borrow(), exc.clone());
    err::set_cause(error.borrow(), Some(exc));
    Ok(error)
}
