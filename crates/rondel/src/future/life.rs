//! A future's life: callbacks are added, it ends in one of three ways, its callbacks are scheduled, its
//! outcome is taken.
//!
//! Callbacks run in the order in which they were added: the first lies in the payload (`first`), the
//! others out of line, and none is there while `first` is empty. With the GIL held. Dropping a callback may
//! run Python code, so it is taken out of its cell before.

use super::{Callback, Future, Kind, State, methods};
use crate::consts::{names, stock};
use crate::event_loop::Ready;
use crate::primitives::gather::Gather;
use crate::primitives::hops::Hop;
use crate::task::Task;
use rondel_ffi::{Inst, Obj, PyRes, Ref, call, err, value};

/// Adds a callback to a pending future, or schedules it at once on a done one.
#[inline(always)]
pub(crate) fn add_callback(fut: Inst<'_, Future>, callback: Callback) -> PyRes<()> {
    if fut.done() {
        return schedule(fut, callback);
    }
    let empty = fut.first.is_none()
        && fut
            .rare_opt()
            .is_none_or(|r| r.callbacks.borrow().is_empty());
    if empty {
        fut.first.set(Some(callback));
    } else {
        fut.rare().callbacks.borrow_mut().push(callback);
    }
    Ok(())
}

/// Moves to a final state and schedules the callbacks.
#[inline(always)]
pub(crate) fn finish(fut: Inst<'_, Future>, state: State, result: Option<Obj>) -> PyRes<()> {
    debug_assert!(state != State::Pending);
    crate::task::unregister(fut.data());
    fut.state.set(state);
    fut.result.set(result);
    match fut.first.take_wake() {
        Some(task) => schedule(fut, Callback::Wake(task))?,
        None => {
            if let Some(callback) = fut.first.take() {
                schedule(fut, callback)?;
            }
        }
    }
    if let Some(rare) = fut.rare_opt() {
        let rest = rare.callbacks.take();
        for callback in rest {
            schedule(fut, callback)?;
        }
    }
    Ok(())
}

/// Sets the result of a future that may be done (cancelled) already.
pub(crate) fn resolve(fut: Ref<'_>, result: Obj) -> PyRes<()> {
    match fut.exact::<Future>() {
        Some(fut) if !fut.done() => finish(fut, State::Finished, Some(result)),
        _ => Ok(()),
    }
}

/// Fails the future with an exception instance.
pub(crate) fn fail(fut: Inst<'_, Future>, exc: Obj) -> PyRes<()> {
    if let Some(tb) = err::traceback_of(exc.borrow()) {
        fut.rare().traceback.set(Some(tb));
    }
    fut.log_traceback.set(true);
    finish(fut, State::Failed, Some(exc))
}

/// Cancels a plain future; `false` if it was done.
pub(crate) fn cancel_plain(fut: Inst<'_, Future>, message: Option<Obj>) -> PyRes<bool> {
    fut.log_traceback.set(false);
    if fut.done() {
        return Ok(false);
    }
    fut.set_cancel_message(message);
    finish(fut, State::Cancelled, None)?;
    Ok(true)
}

/// Takes the first native callback out that `is_it` finds; the caller drops it.
pub(crate) fn take_hop(fut: Inst<'_, Future>, is_it: impl Fn(&Hop) -> bool) -> Option<Callback> {
    let found = |callback: &Callback| matches!(callback, Callback::Hop(hop) if is_it(hop));
    let mut list = fut.rare_opt().map(|rare| rare.callbacks.borrow_mut());
    if fut.first.peek(|first| first.is_some_and(found)) {
        let next = list
            .as_mut()
            .filter(|list| !list.is_empty())
            .map(|list| list.remove(0));
        let taken = fut.first.take();
        fut.first.set(next);
        return taken;
    }
    let list = list.as_mut()?;
    let at = list.iter().position(found)?;
    Some(list.remove(at))
}

/// Cancels whatever kind of ours this is, natively unless a Python subclass has its own `cancel`.
pub(crate) fn cancel_any(fut: Inst<'_, Future>, message: Option<Obj>) -> PyRes<bool> {
    match fut.kind.get() {
        Kind::Future if fut.is_exact() => cancel_plain(fut, message),
        Kind::Task if fut.obj().exact::<Task>().is_some() => match fut.obj().exact::<Task>() {
            // A chain of tasks that await each other may be as long as it likes.
            Some(task) => call::nested(|| crate::task::cancel(task, message)),
            None => Ok(false),
        },
        Kind::Gather => match fut.obj().exact::<Gather>() {
            Some(gather) => call::nested(|| crate::primitives::gather::cancel(gather, message)),
            None => Ok(false),
        },
        _ => cancel_python(fut.obj(), message),
    }
}

/// `awaitable.cancel(msg=message)`.
pub(crate) fn cancel_python(obj: Ref<'_>, message: Option<Obj>) -> PyRes<bool> {
    let result = match &message {
        None => call::method(names().cancel.borrow(), [obj])?,
        Some(message) => {
            let kw = value::tuple([names().msg.clone()])?;
            call::method_kw(
                names().cancel.borrow(),
                &[obj, message.borrow()],
                kw.borrow(),
            )?
        }
    };
    result.borrow().truthy()
}

/// Puts a done future's callback on the ready queue of its loop.
#[inline(always)]
fn schedule(fut: Inst<'_, Future>, callback: Callback) -> PyRes<()> {
    match fut.home.peek() {
        Some(home) => {
            // One push for each: its words then stay in registers.
            match callback {
                Callback::Wake(task) => home.push(Ready::Step(task)),
                Callback::Gather(gather) => home.push(Ready::GatherChild(gather, fut.own())),
                Callback::Group(group) => home.push(Ready::GroupChild(group, fut.own())),
                Callback::Request(cycle) => home.push(Ready::RequestDone(cycle, fut.own())),
                Callback::Hop(hop) => home.push(Ready::Hop(hop, fut.own())),
                Callback::Python { function, context } => {
                    home.check_open()?;
                    home.push(Ready::Run(crate::handle::for_callback(
                        home,
                        function,
                        fut.obj().own(),
                        context,
                    )?));
                }
            }
            Ok(())
        }
        None => schedule_foreign(fut, callback),
    }
}

/// As asyncio: `loop.call_soon(callback, future, context=context)`.
#[cold]
fn schedule_foreign(fut: Inst<'_, Future>, callback: Callback) -> PyRes<()> {
    let Some(loop_) = fut.loop_obj() else {
        return Err(methods::uninitialised());
    };
    let (function, context) = match callback {
        Callback::Python { function, context } => (function, Some(context)),
        Callback::Wake(task) => (crate::task::bound_wakeup(task.inst())?, task.context.get()),
        // These wait on futures of their own Rondel loop only.
        Callback::Gather(_) | Callback::Group(_) | Callback::Request(_) | Callback::Hop(_) => {
            return Ok(());
        }
    };
    match context {
        Some(context) => call::method_kw(
            names().call_soon.borrow(),
            &[
                loop_.borrow(),
                function.borrow(),
                fut.obj(),
                context.borrow(),
            ],
            stock().kw_context.borrow(),
        )?,
        None => call::method(
            names().call_soon.borrow(),
            [loop_.borrow(), function.borrow(), fut.obj()],
        )?,
    };
    Ok(())
}

/// The CancelledError a cancelled future raises; a task's own is given out once, as asyncio does.
pub(crate) fn make_cancelled_error(fut: Inst<'_, Future>) -> PyRes<Obj> {
    if let Some(rare) = fut.rare_opt() {
        if let Some(exc) = rare.cancelled_error.take() {
            return Ok(exc);
        }
        if let Some(message) = rare.cancel_message.get().filter(|m| !m.is_none()) {
            return call::call1(crate::consts::cancelled_class(), message.borrow());
        }
    }
    call::call0(crate::consts::cancelled_class())
}

/// `future.result()`.
pub(crate) fn result(fut: Inst<'_, Future>) -> PyRes<Obj> {
    match outcome(fut)? {
        Ok(value) => Ok(value),
        Err(exc) => Err(err::raise_instance(exc.borrow())),
    }
}

/// A done future's value or exception instance; marks the exception as retrieved. Raises
/// InvalidStateError when it is pending.
pub(crate) fn outcome(fut: Inst<'_, Future>) -> PyRes<Result<Obj, Obj>> {
    match fut.state.get() {
        State::Finished => Ok(Ok(fut.result.get().unwrap_or_else(Obj::none))),
        State::Failed => {
            fut.log_traceback.set(false);
            let exc = fut.result.get().unwrap_or_else(Obj::none);
            let tb = fut.rare_opt().and_then(|r| r.traceback.get());
            // As asyncio: the same exception raised twice does not grow its traceback.
            err::set_traceback(exc.borrow(), tb.as_ref().map(Obj::borrow));
            Ok(Err(exc))
        }
        State::Cancelled => Ok(Err(make_cancelled_error(fut)?)),
        State::Pending => Err(crate::consts::invalid_state("Result is not set.")),
    }
}
