//! The module's functions: `create_task`, `ensure_future`, `current_task`, `sleep`, `gather` …

use super::{as_completed, gather, shield, sleep, threads, timeout, wait, wait_for};
use crate::consts::{names, stock};
use crate::event_loop::{self, LoopBase};
use crate::future::{self, Future};
use crate::task::{self, Task};
use rondel_ffi::err::Builtin;
use rondel_ffi::method::{self, Args, MethodDef};
use rondel_ffi::{Class, Inst, Obj, PyRes, Ref, call, callable, value};
use std::ffi::CStr;

/// `create_task(coro, *, name=None, context=None)`.
#[inline(always)]
fn create_task(args: Args<'_>) -> PyRes<Obj> {
    event_loop::with_running(|home| match (home, args.get(0)) {
        (Some(home), Some(coro)) if args.len() == 1 && args.keyword_count() == 0 => {
            event_loop::create_task_with(home, coro, task::Options::default())
        }
        (home, _) => create_otherwise(home, &args),
    })
}

/// Apart: the usual call has no options to keep.
#[inline(never)]
fn create_otherwise(home: Option<Inst<'_, LoopBase>>, args: &Args<'_>) -> PyRes<Obj> {
    let Some(home) = home else {
        return call::call_args(stock().create_task.borrow(), args);
    };
    let Some(coro) = args.get(0).filter(|_| args.len() == 1) else {
        // `create_task(coro=…)`: the loop's own method sorts the arguments out.
        let method = call::getattr(home.obj(), names().create_task.borrow())?;
        return call::call_args(method.borrow(), args);
    };
    let options = task::Options::from_keywords("create_task", args, 0)?;
    event_loop::create_task_with(home, coro, options)
}

/// An awaitable as a future of `home`, as `ensure_future` without a loop argument.
#[inline(always)]
pub(super) fn ensure(home: Inst<'_, LoopBase>, awaitable: Ref<'_>) -> PyRes<Obj> {
    if awaitable.exact::<Task>().is_some()
        || awaitable.exact::<Future>().is_some()
        || awaitable.exact::<gather::Gather>().is_some()
    {
        return Ok(awaitable.own());
    }
    if call::is_coroutine(awaitable) || awaitable.exact::<sleep::Sleep>().is_some() {
        return event_loop::create_task_with(home, awaitable, task::Options::default());
    }
    call::call(stock().ensure_future.borrow(), &[awaitable])
}

/// `ensure_future(awaitable, loop=home)`: a future of another loop is an error.
#[inline(always)]
pub(super) fn ensure_on(home: Inst<'_, LoopBase>, awaitable: Ref<'_>) -> PyRes<Obj> {
    if let Some(native) = future::native(awaitable) {
        let here = native.home.peek().is_some_and(|h| h.obj().is(home.obj()));
        if here {
            return Ok(awaitable.own());
        }
    } else if call::is_coroutine(awaitable) || awaitable.exact::<sleep::Sleep>().is_some() {
        return event_loop::create_task_with(home, awaitable, task::Options::default());
    }
    call::call_kw(
        stock().ensure_future.borrow(),
        &[awaitable, home.obj()],
        stock().kw_loop.borrow(),
    )
}

/// `ensure_future(coro_or_future, *, loop=None)`.
fn ensure_future(args: Args<'_>) -> PyRes<Obj> {
    match event_loop::running() {
        Some(home) if args.len() == 1 && args.keyword_count() == 0 => {
            ensure(home.inst(), args.positional()[0])
        }
        _ => call::call_args(stock().ensure_future.borrow(), &args),
    }
}

/// `current_task(loop=None)`.
fn current_task(args: Args<'_>) -> PyRes<Obj> {
    if args.is_empty()
        && args.keyword_count() == 0
        && let Some(home) = event_loop::running()
    {
        return Ok(event_loop::current_task(home.inst())?.unwrap_or_else(Obj::none));
    }
    let [loop_] = args.bind("current_task", [names().loop_.borrow()], 0, 1)?;
    match loop_
        .and_then(Ref::not_none)
        .and_then(|l| l.cast::<LoopBase>())
    {
        Some(home) => Ok(event_loop::current_task(home)?.unwrap_or_else(Obj::none)),
        None => call::call_args(stock().current_task.borrow(), &args),
    }
}

/// `_running_loop()`: the Rondel loop that runs in this thread, or None.
fn running_loop(args: Args<'_>) -> PyRes<Obj> {
    if !args.is_empty() {
        return Err(Builtin::Type.raise("_running_loop() takes no arguments"));
    }
    Ok(event_loop::running().map_or_else(Obj::none, rondel_ffi::Own::into_obj))
}

/// `_forked()`: called in the child after a fork.
fn forked(_args: Args<'_>) -> PyRes<Obj> {
    event_loop::forked();
    Ok(Obj::none())
}

/// `_fill_holes()`: see `memory::fill_holes`.
fn fill_holes(_args: Args<'_>) -> PyRes<Obj> {
    value::int(i64::try_from(rondel_ffi::memory::fill_holes()).unwrap_or(i64::MAX))
}

/// `(loop, coro, *, name=None, context=None)`: what a task factory takes.
fn for_factory<'a>(args: Args<'a>) -> PyRes<[Option<Ref<'a>>; 4]> {
    let n = names();
    let params = [
        n.loop_.borrow(),
        n.coro.borrow(),
        n.name.borrow(),
        n.context.borrow(),
    ];
    args.bind("factory", params, 2, 2)
}

/// An eager native task, if the loop is a Rondel loop.
fn eager_task(given: [Option<Ref<'_>>; 4]) -> PyRes<Option<Obj>> {
    let [Some(loop_), Some(coro), name, context] = given else {
        return Ok(None);
    };
    let Some(home) = loop_.cast::<LoopBase>() else {
        return Ok(None);
    };
    let options = task::Options {
        name: name.and_then(Ref::not_none),
        context: context.and_then(Ref::not_none),
        eager_start: true,
    };
    Ok(Some(task::create(home, coro, options)?.into_obj()))
}

/// `eager_task_factory(loop, coro, *, name=None, context=None)` (3.12 on).
fn eager_task_factory(args: Args<'_>) -> PyRes<Obj> {
    match (eager_task(for_factory(args)?)?, &stock().eager_task_factory) {
        (Some(task), _) => Ok(task),
        (None, Some(stock)) => call::call_args(stock.borrow(), &args),
        (None, None) => Err(Builtin::Type.raise("eager tasks need Python 3.12")),
    }
}

/// The factory that `create_eager_task_factory` makes of `rondel.Task`: native on any loop (3.12 on).
fn eager_native_task(args: Args<'_>) -> PyRes<Obj> {
    let given = for_factory(args)?;
    if let Some(task) = eager_task(given)? {
        return Ok(task);
    }
    let n = names();
    let keywords = value::tuple([
        n.loop_.clone(),
        n.name.clone(),
        n.context.clone(),
        n.eager_start.clone(),
    ])?;
    let (none, eager) = (Obj::none(), Obj::bool(true));
    let [loop_, coro, name, context] = given.map(|arg| arg.unwrap_or(none.borrow()));
    let values = [coro, loop_, name, context, eager.borrow()];
    call::call_kw(Task::type_object(), &values, keywords.borrow())
}

/// The functions that asyncio has as `async def`, by name. Builds what they return, too.
pub(crate) fn coroutine_functions() -> PyRes<[(&'static CStr, Obj); 5]> {
    wait::build()?;
    wait_for::build()?;
    threads::build()?;
    Ok([
        (c"as_completed_iterator", as_completed::build()?),
        (
            c"sleep",
            callable::coroutine_function(sleep::sleep, stock().sleep.borrow())?,
        ),
        (
            c"wait",
            callable::coroutine_function(wait::wait, stock().wait.borrow())?,
        ),
        (
            c"wait_for",
            callable::coroutine_function(wait_for::wait_for, stock().wait_for.borrow())?,
        ),
        (
            c"to_thread",
            callable::coroutine_function(threads::to_thread, stock().to_thread.borrow())?,
        ),
    ])
}

pub(crate) fn definitions() -> Vec<MethodDef> {
    let mut all = vec![
        method::function(
            c"gather",
            c"gather($module, /, *coros_or_futures, return_exceptions=False)\n--\n\nReturn a future aggregating results from the given coroutines or futures.",
            gather::gather,
        ),
        method::function(
            c"create_task",
            c"create_task($module, /, coro, *, name=None, context=None)\n--\n\nSchedule the execution of a coroutine object in a task.",
            create_task,
        ),
        method::function(
            c"ensure_future",
            c"ensure_future($module, /, coro_or_future, *, loop=None)\n--\n\nWrap a coroutine or an awaitable in a future.",
            ensure_future,
        ),
        method::function(
            c"current_task",
            c"current_task($module, /, loop=None)\n--\n\nReturn the currently running task or None.",
            current_task,
        ),
        method::function(
            c"timeout",
            c"timeout($module, /, delay)\n--\n\nTimeout async context manager.",
            timeout::timeout,
        ),
        method::function(
            c"timeout_at",
            c"timeout_at($module, /, when)\n--\n\nSchedule the timeout at absolute time.",
            timeout::timeout_at,
        ),
        method::function(c"_running_loop", c"The Rondel loop that runs in this thread, or None.", running_loop),
        method::function(c"_forked", c"Called in the child after a fork.", forked),
        method::function(
            c"_fill_holes",
            c"Take what is free between allocations of the heap, before a fork; the bytes taken.",
            fill_holes,
        ),
        method::function(
            c"as_completed",
            c"as_completed($module, /, fs, *, timeout=None)\n--\n\nIterate over awaitables in the order in which they complete.",
            as_completed::as_completed,
        ),
        method::function(
            c"shield",
            c"shield($module, /, arg)\n--\n\nWait for a future, shielding it from cancellation.",
            shield::shield,
        ),
        method::function(
            c"wrap_future",
            c"wrap_future($module, /, future, *, loop=None)\n--\n\nWrap a concurrent.futures.Future object.",
            threads::wrap_future,
        ),
        method::function(
            c"run_coroutine_threadsafe",
            c"run_coroutine_threadsafe($module, /, coro, loop)\n--\n\nSubmit a coroutine object to a given event loop.",
            threads::run_coroutine_threadsafe,
        ),
    ];
    if cfg!(Py_3_12) {
        all.push(method::function(
            // As asyncio's, which a function of functions makes.
            c"factory",
            c"factory($module, /, loop, coro, *, name=None, context=None)\n--\n\nMake a task that takes its first step at once.",
            eager_task_factory,
        ));
        all.push(method::function(
            c"_eager_native_task",
            c"_eager_native_task($module, /, loop, coro, *, name=None, context=None)\n--\n\nMake a native task that takes its first step at once.",
            eager_native_task,
        ));
    }
    all
}
