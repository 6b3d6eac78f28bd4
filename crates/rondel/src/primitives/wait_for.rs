//! `wait_for`: one awaitable, with a time limit.
//!
//! The semantics are those of `asyncio.tasks.wait_for` (Python docs, *Timeouts*) of the Python that
//! runs. They differ:
//!
//! * 3.12 on: the awaitable is awaited in the calling task, inside a `timeout()`.
//! * 3.11: it becomes a task, and the caller waits on a waiter that the task's end or a timer
//!   releases; a result that is there wins over a cancel.
//! * A timeout that is not positive, in both: it becomes a future, which counts if it is done already
//!   and else is cancelled and waited for.
//!
//! ```text
//!  start ─► Inside     (3.12 on) the awaitable itself     ─► left by timeout()'s rules
//!        ─► Waiting    (3.11) waiter: end, timer          ─► result, or ▼
//!        ─► Cancelling waiter: end of the cancelled future ─► result, TimeoutError, CancelledError
//!        ─► Bare       asyncio's own, or 3.11 without a timeout
//! ```

use super::coroutine::{self, Coroutine, Machine, Next};
use super::functions;
use super::hops::{self, Alarm, Hop};
use super::timeout::{self, Timeout};
use crate::consts::{names, stock};
use crate::event_loop::{self, LoopBase};
use crate::future::{self, Future};
use crate::task::{Task, is_cancelled};
use rondel_core::timers::TimerKey;
use rondel_ffi::class::{ObjCell, OwnCell, Visit};
use rondel_ffi::err;
use rondel_ffi::freelist::FreeList;
use rondel_ffi::method::Args;
use rondel_ffi::{ClassCell, Inst, Obj, Own, PyRes, Ref, call, value};
use std::cell::Cell;

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Bare,
    Inside,
    Waiting,
    Cancelling,
}

#[derive(Default)]
pub(crate) struct WaitFor {
    /// The awaitable; the future that it became.
    fut: ObjCell,
    timeout: ObjCell,
    stage: Cell<Stage>,
    /// `Inside`: the deadline.
    guard: OwnCell<Timeout>,
    /// What the coroutine waits on, but for `Inside`.
    waiter: OwnCell<Future>,
    alarm: Cell<Option<TimerKey>>,
    /// `Cancelling`: the CancelledError that ended the wait; without one, time is over.
    cancelled: ObjCell,
}

static CELL: ClassCell = ClassCell::new();
static FREE: FreeList = FreeList::new();

/// `wait_for(fut, timeout)`.
#[inline(always)]
pub(super) fn wait_for(args: Args<'_>) -> PyRes<Obj> {
    let (fut, timeout) = match args.positional() {
        [fut, timeout] if args.keyword_count() == 0 => (Some(*fut), Some(*timeout)),
        _ => {
            let params = [names().fut.borrow(), names().timeout.borrow()];
            let [fut, timeout] = args.bind("wait_for", params, 2, 2)?;
            (fut, timeout)
        }
    };
    coroutine::new(|| WaitFor {
        fut: ObjCell::new(fut.map(Ref::own)),
        timeout: ObjCell::new(timeout.and_then(Ref::not_none).map(Ref::own)),
        ..WaitFor::default()
    })
}

impl Machine for WaitFor {
    const NAME: &'static str = "wait_for";
    const TYPE: &'static std::ffi::CStr = c"rondel.wait_for_coroutine";

    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&FREE)
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.fut);
        visit.cell(&self.timeout);
        visit.own(&self.guard);
        visit.own(&self.waiter);
        visit.cell(&self.cancelled);
    }
    fn clear(&self) {
        self.fut.set(None);
        self.timeout.set(None);
        self.guard.set(None);
        self.waiter.set(None);
        self.cancelled.set(None);
    }

    #[inline(always)]
    fn start(slf: Inst<'_, Coroutine<Self>>) -> Next {
        let body = &slf.data().body;
        let Some(fut) = body.fut.get() else {
            return Next::Return(Obj::none());
        };
        let seconds = match body.timeout.peek().map(value::as_f64) {
            None => None,
            Some(Ok(seconds)) => Some(seconds),
            Some(Err(raised)) => {
                // asyncio knows what to say about it.
                raised.clear();
                return by_asyncio(body, fut);
            }
        };
        let Some(home) = event_loop::running() else {
            return by_asyncio(body, fut);
        };
        match seconds {
            Some(seconds) if seconds <= 0.0 => no_time(body, home.inst(), fut),
            _ if cfg!(Py_3_12) => inside(body, home.inst(), seconds, fut),
            Some(seconds) => waiting(body, home.inst(), seconds, fut),
            None => {
                body.fut.set(None);
                Next::Await(fut)
            }
        }
    }

    #[inline(always)]
    fn resume(slf: Inst<'_, Coroutine<Self>>, outcome: Result<Obj, Obj>) -> Next {
        let body = &slf.data().body;
        match body.stage.get() {
            Stage::Inside => leave(body, outcome),
            Stage::Bare => bare(outcome),
            Stage::Waiting => {
                let next = waited(body, outcome);
                end_waiting(body, next)
            }
            Stage::Cancelling => {
                let next = after_cancel(body, outcome);
                end_waiting(body, next)
            }
        }
    }
}

fn bare(outcome: Result<Obj, Obj>) -> Next {
    match outcome {
        Ok(value) => Next::Return(value),
        Err(exc) => Next::raise(exc),
    }
}

#[cold]
fn by_asyncio(body: &WaitFor, fut: Obj) -> Next {
    let timeout = body.timeout.get().unwrap_or_else(Obj::none);
    body.clear();
    match call::call(stock().wait_for.borrow(), &[fut.borrow(), timeout.borrow()]) {
        Ok(coro) => Next::Await(coro),
        Err(raised) => Next::Raise(raised),
    }
}

// ------------------------------------------------------------------------ 3.12 on: inside a timeout

#[inline(always)]
fn inside(body: &WaitFor, home: Inst<'_, LoopBase>, seconds: Option<f64>, fut: Obj) -> Next {
    let task = match event_loop::current_task(home) {
        Ok(current) => current.and_then(|task| task.into_cast::<Task>().ok()),
        Err(raised) => return Next::Raise(raised),
    };
    let Some(task) = task else {
        return by_asyncio(body, fut);
    };
    let guard = match timeout::entered(home, task, seconds) {
        Ok(guard) => guard,
        Err(raised) => return Next::Raise(raised),
    };
    body.guard.set(Some(guard));
    body.stage.set(Stage::Inside);
    body.fut.set(None);
    await_it(fut)
}

/// What `await fut` does, without an iterator for a native future.
#[inline(always)]
fn await_it(fut: Obj) -> Next {
    match future::native(fut.borrow()).map(Inst::own) {
        Some(native) => Next::Wait(native),
        None => Next::Await(fut),
    }
}

#[inline(always)]
fn leave(body: &WaitFor, outcome: Result<Obj, Obj>) -> Next {
    let Some(guard) = body.guard.take() else {
        return bare(outcome);
    };
    let exc = outcome.as_ref().err().map(Obj::borrow);
    match timeout::left(guard.inst(), exc) {
        Ok(()) => bare(outcome),
        Err(raised) => Next::Raise(raised),
    }
}

// --------------------------------------------------------------------------- 3.11: wait on a waiter

#[inline(always)]
fn waiting(body: &WaitFor, home: Inst<'_, LoopBase>, seconds: f64, fut: Obj) -> Next {
    let begun = || -> PyRes<Own<Future>> {
        let waiter = future::create(home)?;
        body.waiter.set(Some(waiter.clone()));
        let alarm = Alarm::Release(waiter.clone());
        body.alarm
            .set(Some(hops::alarm_after(home, seconds, alarm)));
        let fut = functions::ensure_on(home, fut.borrow())?;
        hops::add(fut.borrow(), Hop::Release(waiter.clone()))?;
        body.fut.set(Some(fut));
        Ok(waiter)
    };
    match begun() {
        Ok(waiter) => {
            body.stage.set(Stage::Waiting);
            Next::Wait(waiter)
        }
        Err(raised) => end_waiting(body, Next::Raise(raised)),
    }
}

/// The end, the timer, a cancel, or an exception from elsewhere.
fn waited(body: &WaitFor, outcome: Result<Obj, Obj>) -> Next {
    let Some(fut) = body.fut.get() else {
        return bare(outcome);
    };
    let cancelled = match outcome {
        Ok(_none) => None,
        Err(exc) if is_cancelled(exc.borrow()) => Some(exc),
        Err(exc) => return Next::raise(exc),
    };
    match hops::done(fut.borrow()) {
        Err(raised) => return Next::Raise(raised),
        Ok(true) => return result_while(fut.borrow(), cancelled),
        Ok(false) => {}
    }
    if let Some(waiter) = body.waiter.get()
        && let Err(raised) = hops::remove(fut.borrow(), &Hop::Release(waiter))
    {
        return Next::Raise(raised);
    }
    let Some(home) = body.waiter.peek().and_then(|waiter| waiter.home.get()) else {
        return Next::Return(Obj::none());
    };
    body.cancelled.set(cancelled);
    cancel_and_wait(body, home.inst(), fut.borrow())
}

/// `fut.result()`, inside `except CancelledError` if there is one.
fn result_while(fut: Ref<'_>, handled: Option<Obj>) -> Next {
    match hops::outcome(fut) {
        Ok(value) => Next::Return(value),
        Err(exc) => {
            if let Some(handled) = handled {
                err::set_context(exc.borrow(), handled);
            }
            Next::raise(exc)
        }
    }
}

/// The `finally` around 3.11's waits: no timer outlives them.
#[inline(always)]
fn end_waiting(body: &WaitFor, next: Next) -> Next {
    if matches!(next, Next::Return(_) | Next::Raise(_)) {
        let home = body.waiter.peek().and_then(|waiter| waiter.home.get());
        hops::stop_alarm(home, &body.alarm);
    }
    next
}

// ------------------------------------------------------------------------------ no time, or no more

fn no_time(body: &WaitFor, home: Inst<'_, LoopBase>, fut: Obj) -> Next {
    let ensured = if cfg!(Py_3_12) {
        functions::ensure(home, fut.borrow())
    } else {
        functions::ensure_on(home, fut.borrow())
    };
    let fut = match ensured {
        Ok(fut) => fut,
        Err(raised) => return Next::Raise(raised),
    };
    match hops::done(fut.borrow()) {
        Ok(true) => result_while(fut.borrow(), None),
        Ok(false) => {
            let next = cancel_and_wait(body, home, fut.borrow());
            body.fut.set(Some(fut));
            next
        }
        Err(raised) => Next::Raise(raised),
    }
}

/// asyncio's `_cancel_and_wait`: not on the future itself, so that this wait can be cancelled.
fn cancel_and_wait(body: &WaitFor, home: Inst<'_, LoopBase>, fut: Ref<'_>) -> Next {
    let begun = || -> PyRes<Own<Future>> {
        let waiter = future::create(home)?;
        hops::add(fut, Hop::Release(waiter.clone()))?;
        match hops::cancel(fut) {
            Ok(_requested) => Ok(waiter),
            Err(raised) => {
                let exc = raised.fetch();
                hops::remove(fut, &Hop::Release(waiter))?;
                Err(err::raise_instance(exc.borrow()))
            }
        }
    };
    match begun() {
        Ok(waiter) => {
            body.waiter.set(Some(waiter.clone()));
            body.stage.set(Stage::Cancelling);
            Next::Wait(waiter)
        }
        Err(raised) => Next::Raise(raised),
    }
}

fn after_cancel(body: &WaitFor, outcome: Result<Obj, Obj>) -> Next {
    let (Some(fut), Some(waiter)) = (body.fut.get(), body.waiter.get()) else {
        return bare(outcome);
    };
    let first = body.cancelled.take();
    if let Err(raised) = hops::remove(fut.borrow(), &Hop::Release(waiter)) {
        return Next::Raise(raised);
    }
    match (outcome, first) {
        (Err(exc), first) => {
            if let Some(first) = first {
                err::set_context(exc.borrow(), first);
            }
            Next::raise(exc)
        }
        (Ok(_none), Some(first)) => Next::raise(first),
        (Ok(_none), None) => match hops::outcome(fut.borrow()) {
            Ok(value) => Next::Return(value),
            Err(exc) if is_cancelled(exc.borrow()) => match hops::timeout_error_from(exc) {
                Ok(error) => Next::raise(error),
                Err(raised) => Next::Raise(raised),
            },
            Err(exc) => Next::raise(exc),
        },
    }
}

/// Builds the type.
pub(super) fn build() -> PyRes<()> {
    coroutine::build::<WaitFor>()?;
    Ok(())
}
