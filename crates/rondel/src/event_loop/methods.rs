//! The loop's native methods: scheduling, creation of futures and tasks, state.

use super::attention::reason;
use super::{CURRENT, Due, LoopBase, Ready, current, current_task, fds, seconds_to_ns, time, turn};
use crate::consts::{names, stock};
use crate::net::claims;
use crate::{future, handle, pool, task};
use rondel_core::driver::Driver;
use rondel_ffi::class::TypeBuilder;
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::method::{self, Args};
use rondel_ffi::{Inst, Obj, PyRes, Ref, call, gil, value};
use std::time::Duration;

/// `loop._setup()`: opens epoll. Called by `EventLoop.__init__`.
fn setup(slf: Inst<'_, LoopBase>) -> PyRes<Obj> {
    if slf.driver.borrow().is_some() || slf.closed.get() {
        return Err(Builtin::Runtime.raise("the loop is set up already"));
    }
    let driver = Driver::new().map_err(|e| err::raise_io(&e))?;
    *slf.waker.borrow_mut() = Some(driver.waker());
    *slf.driver.borrow_mut() = Some(driver);
    slf.slow_callback.set(0.1);
    Ok(Obj::none())
}

/// `loop._shutdown()`: the native half of `close()`.
fn shutdown(slf: Inst<'_, LoopBase>) -> PyRes<Obj> {
    if slf.running.get() {
        return Err(Builtin::Runtime.raise("Cannot close a running event loop"));
    }
    slf.closed.set(true);
    slf.empty();
    slf.courtesy.end();
    let driver = slf.driver.borrow_mut().take();
    drop(driver);
    let waker = slf.waker.borrow_mut().take();
    // A thread may just be waking this loop, and would keep its descriptor beyond the close.
    for _ in 0..100 {
        if !waker.as_ref().is_some_and(|waker| waker.is_visited()) {
            break;
        }
        gil::detached(|| std::thread::sleep(GIVE_WAY));
    }
    drop(waker);
    Ok(Obj::none())
}

fn check_callback(callback: Option<&Ref<'_>>, func: &str) -> PyRes<()> {
    let Some(callback) = callback else {
        return Err(Builtin::Type.raise(&format!(
            "{func}() missing 1 required positional argument: 'callback'"
        )));
    };
    // Native callables and functions are the common case; asking costs little, a TypeError here
    // names the culprit where a later one would not.
    if !callback.is_callable() {
        let text = value::repr(*callback)?;
        return Err(Builtin::Type.raise(&format!(
            "a callable object was expected by {func}(), got {text}"
        )));
    }
    Ok(())
}

/// Debug mode's checks, in asyncio's order and words.
#[cold]
pub(crate) fn debug_checks(
    slf: Inst<'_, LoopBase>,
    callback: Option<&Ref<'_>>,
    func: &str,
    thread: bool,
) -> PyRes<()> {
    if thread && slf.running.get() {
        let here = CURRENT.with_borrow(|stack| stack.iter().any(|l| l.obj().is(slf.obj())));
        if !here {
            return Err(Builtin::Runtime.raise(
                "Non-thread-safe operation invoked on an event loop other than the current one",
            ));
        }
    }
    if let Some(callback) = callback {
        let check = call::getattr(slf.obj(), value::intern(c"_check_callback")?.borrow())?;
        let _none = call::call(check.borrow(), &[*callback, value::str(func)?.borrow()])?;
    }
    Ok(())
}

#[inline(always)]
fn call_soon(slf: Inst<'_, LoopBase>, args: Args<'_>) -> PyRes<Obj> {
    soon(slf, args, "call_soon", true)
}

#[inline(always)]
fn soon(slf: Inst<'_, LoopBase>, args: Args<'_>, func: &str, thread: bool) -> PyRes<Obj> {
    let context = handle::context_keyword(func, &args)?;
    slf.check_open()?;
    if slf.is_debug() {
        debug_checks(slf, args.positional().first(), func, thread)?;
    }
    check_callback(args.positional().first(), func)?;
    let (callback, rest) = (args.positional()[0], &args.positional()[1..]);
    let handle = handle::new(slf, callback, rest, context)?;
    slf.push(Ready::Run(handle.clone()));
    Ok(handle.into_obj())
}

/// The caller holds the GIL, so the ready queue is safe to touch from any thread; what is left is to
/// wake a loop that sleeps.
fn call_soon_threadsafe(slf: Inst<'_, LoopBase>, args: Args<'_>) -> PyRes<Obj> {
    let handle = soon(slf, args, "call_soon_threadsafe", false)?;
    if slf.in_callback.get() && slf.runs_here() {
        // In the middle of a batch, after which the queue is looked at. (A signal's handler may run
        // between that look and the sleep, but then in no callback.)
        return Ok(handle);
    }
    slf.wake_to_ready();
    let waiting = slf.ready.len();
    if waiting >= FLOOD && waiting % AGAIN == 0 && slf.running.get() && !slf.runs_here() {
        gil::detached(|| std::thread::sleep(GIVE_WAY));
    }
    Ok(handle)
}

/// A thread that fills the queue up to here lets the loop at it: it would keep the GIL for 5 ms
/// otherwise, and tens of thousands of handles would come from fresh memory. Each time two threads
/// change places, so not too often: 0.11 µs a call at 1024, 0.08 from 4096 to 8192, 0.09 at 16 384, 0.10
/// without.
const FLOOD: usize = 4096;
/// Others that go on filling it, or whom the loop was too slow for, do so at multiples of this.
const AGAIN: usize = 1024;
/// Long enough for the loop to have taken the GIL, which it keeps until it is through.
const GIVE_WAY: Duration = Duration::from_micros(50);

fn call_later(slf: Inst<'_, LoopBase>, args: Args<'_>) -> PyRes<Obj> {
    let context = handle::context_keyword("call_later", &args)?;
    let [delay, rest @ ..] = args.positional() else {
        return Err(Builtin::Type.raise(
            "call_later() missing 2 required positional arguments: 'delay' and 'callback'",
        ));
    };
    if delay.is_none() {
        return Err(Builtin::Type.raise("delay must not be None"));
    }
    let delay = value::as_f64(*delay)?;
    at(
        slf,
        time::in_seconds(slf.now()) + delay,
        rest,
        context,
        "call_later",
    )
}

fn call_at(slf: Inst<'_, LoopBase>, args: Args<'_>) -> PyRes<Obj> {
    let context = handle::context_keyword("call_at", &args)?;
    let [when, rest @ ..] = args.positional() else {
        return Err(Builtin::Type
            .raise("call_at() missing 2 required positional arguments: 'when' and 'callback'"));
    };
    if when.is_none() {
        return Err(Builtin::Type.raise("when cannot be None"));
    }
    let when = value::as_f64(*when)?;
    at(slf, when, rest, context, "call_at")
}

fn at(
    slf: Inst<'_, LoopBase>,
    when: f64,
    rest: &[Ref<'_>],
    context: Option<Ref<'_>>,
    func: &str,
) -> PyRes<Obj> {
    slf.check_open()?;
    if slf.is_debug() {
        debug_checks(slf, rest.first(), func, true)?;
    }
    check_callback(rest.first(), func)?;
    Ok(handle::timer(slf, when, rest[0], &rest[1..], context)?.into_obj())
}

fn loop_time(slf: Inst<'_, LoopBase>) -> PyRes<Obj> {
    value::float(time::in_seconds(slf.now()))
}

fn create_future(slf: Inst<'_, LoopBase>) -> PyRes<Obj> {
    Ok(future::create(slf)?.into_obj())
}

/// `loop.create_task(coro, *, name=None, context=None)`.
fn create_task(slf: Inst<'_, LoopBase>, args: Args<'_>) -> PyRes<Obj> {
    let Some(coro) = args.get(0).filter(|_| args.len() == 1) else {
        return create_task_by_keyword(slf, args);
    };
    let options = task::Options::from_keywords("create_task", &args, 0)?;
    create_task_with(slf, coro, options)
}

#[cold]
fn create_task_by_keyword(slf: Inst<'_, LoopBase>, args: Args<'_>) -> PyRes<Obj> {
    let params = [
        names().coro.borrow(),
        names().name.borrow(),
        names().context.borrow(),
        names().eager_start.borrow(),
    ];
    let [coro, name, context, eager] = args.bind("create_task", params, 1, 1)?;
    let Some(coro) = coro else {
        return Err(Builtin::Type.raise("create_task() needs a coroutine"));
    };
    let eager_start = eager.map_or(Ok(false), Ref::truthy)?;
    let options = task::Options {
        name: name.and_then(Ref::not_none),
        context: context.and_then(Ref::not_none),
        eager_start,
    };
    create_task_with(slf, coro, options)
}

#[inline(always)]
pub(crate) fn create_task_with(
    slf: Inst<'_, LoopBase>,
    coro: Ref<'_>,
    options: task::Options<'_>,
) -> PyRes<Obj> {
    slf.check_open()?;
    match slf.task_factory.get() {
        None => Ok(task::create(slf, coro, options)?.into_obj()),
        Some(factory) => from_factory(slf, factory.borrow(), coro, options),
    }
}

/// As asyncio's `BaseEventLoop.create_task` hands over to a task factory.
#[cold]
fn from_factory(
    slf: Inst<'_, LoopBase>,
    factory: Ref<'_>,
    coro: Ref<'_>,
    options: task::Options<'_>,
) -> PyRes<Obj> {
    let made = match options.context {
        None => call::call(factory, &[slf.obj(), coro])?,
        Some(context) => call::call_kw(
            factory,
            &[slf.obj(), coro, context],
            stock().kw_context.borrow(),
        )?,
    };
    if let Some(name) = options.name {
        let set_name = call::getattr_opt(made.borrow(), value::intern(c"set_name")?.borrow())?;
        if let Some(set_name) = set_name {
            let _none = call::call1(set_name.borrow(), name)?;
        }
    }
    Ok(made)
}

fn set_task_factory(slf: Inst<'_, LoopBase>, factory: Ref<'_>) -> PyRes<Obj> {
    if !factory.is_none() && !factory.is_callable() {
        return Err(Builtin::Type.raise("task factory must be a callable or None"));
    }
    slf.task_factory.set(factory.not_none().map(Ref::own));
    Ok(Obj::none())
}

fn get_task_factory(slf: Inst<'_, LoopBase>) -> PyRes<Obj> {
    Ok(slf.task_factory.get().unwrap_or_else(Obj::none))
}

fn stop(slf: Inst<'_, LoopBase>) -> PyRes<Obj> {
    slf.set_stopping();
    Ok(Obj::none())
}

fn is_running(slf: Inst<'_, LoopBase>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.running.get()))
}

fn is_closed(slf: Inst<'_, LoopBase>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.closed.get()))
}

fn get_debug(slf: Inst<'_, LoopBase>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.is_debug()))
}

fn set_debug_flag(slf: Inst<'_, LoopBase>, value: Option<Ref<'_>>) -> PyRes<()> {
    let debug = value.map_or(Ok(false), Ref::truthy)?;
    slf.attention.set(reason::DEBUG, debug);
    Ok(())
}

fn get_slow_callback(slf: Inst<'_, LoopBase>) -> PyRes<Obj> {
    value::float(slf.slow_callback.get())
}

fn set_slow_callback(slf: Inst<'_, LoopBase>, seconds: Option<Ref<'_>>) -> PyRes<()> {
    let Some(seconds) = seconds else {
        return Err(Builtin::Attribute.raise("cannot delete attribute"));
    };
    slf.slow_callback.set(value::as_f64(seconds)?);
    Ok(())
}

fn write_to_self(slf: Inst<'_, LoopBase>) -> PyRes<Obj> {
    slf.wake();
    Ok(Obj::none())
}

/// `loop._native_tasks()`: the native tasks of this loop that are not done.
fn native_tasks(slf: Inst<'_, LoopBase>) -> PyRes<Obj> {
    task::list(slf)
}

fn native_current_task(slf: Inst<'_, LoopBase>) -> PyRes<Obj> {
    Ok(current_task(slf)?.unwrap_or_else(Obj::none))
}

/// `loop._sleep_timers()`: how many timers wait (for tests and statistics).
fn timer_count(slf: Inst<'_, LoopBase>) -> PyRes<Obj> {
    let count = slf.timers.borrow().len();
    value::int(i64::try_from(count).unwrap_or(i64::MAX))
}

/// Starts a timer that is not a handle.
pub(crate) fn add_deadline(
    slf: Inst<'_, LoopBase>,
    seconds: f64,
    due: Due,
) -> rondel_core::timers::TimerKey {
    slf.add_timer(seconds_to_ns(seconds), due)
}

/// `_rondel.LoopBase`.
pub(crate) fn build() -> PyRes<Obj> {
    let class = TypeBuilder::<LoopBase>::new(c"rondel._rondel.LoopBase")
        .subclassable()
        .methods([
            method::noargs::<LoopBase, _>(c"_setup", c"Open the loop's epoll.", setup),
            method::noargs::<LoopBase, _>(
                c"_shutdown",
                c"Close the loop's epoll and drop what is scheduled.",
                shutdown,
            ),
            method::noargs::<LoopBase, _>(c"_run", c"Run turns until stop().", turn::run),
            method::fast::<LoopBase, _>(
                c"call_soon",
                c"Schedule a callback for the next turn.",
                call_soon,
            ),
            method::fast::<LoopBase, _>(
                c"call_soon_threadsafe",
                c"As call_soon(), from any thread.",
                call_soon_threadsafe,
            ),
            pool::call::run_in_executor_def(),
            method::fast::<LoopBase, _>(
                c"call_later",
                c"Schedule a callback after a delay in seconds.",
                call_later,
            ),
            method::fast::<LoopBase, _>(
                c"call_at",
                c"Schedule a callback at a time of the loop's clock.",
                call_at,
            ),
            method::noargs::<LoopBase, _>(c"time", c"The loop's clock, in seconds.", loop_time),
            method::noargs::<LoopBase, _>(
                c"create_future",
                c"Create a native Future on this loop.",
                create_future,
            ),
            method::fast::<LoopBase, _>(
                c"create_task",
                c"Schedule a coroutine as a Task.",
                create_task,
            ),
            method::onearg::<LoopBase, _>(
                c"set_task_factory",
                c"Set the factory of create_task().",
                set_task_factory,
            ),
            method::noargs::<LoopBase, _>(
                c"get_task_factory",
                c"The task factory, or None.",
                get_task_factory,
            ),
            method::noargs::<LoopBase, _>(c"stop", c"Stop running after the present turn.", stop),
            method::noargs::<LoopBase, _>(
                c"is_running",
                c"Whether the loop is running.",
                is_running,
            ),
            method::noargs::<LoopBase, _>(c"is_closed", c"Whether the loop was closed.", is_closed),
            method::noargs::<LoopBase, _>(c"get_debug", c"Whether debug mode is on.", get_debug),
            method::fast::<LoopBase, _>(
                c"_add_reader",
                c"Watch a descriptor for reading.",
                fds::add_reader,
            ),
            method::fast::<LoopBase, _>(
                c"_add_writer",
                c"Watch a descriptor for writing.",
                fds::add_writer,
            ),
            method::onearg::<LoopBase, _>(
                c"_remove_reader",
                c"Stop watching for reading.",
                fds::remove_reader,
            ),
            method::onearg::<LoopBase, _>(
                c"_remove_writer",
                c"Stop watching for writing.",
                fds::remove_writer,
            ),
            method::onearg::<LoopBase, _>(
                c"_ensure_fd_no_transport",
                c"Refuse a descriptor that an open transport has.",
                claims::ensure_fd_no_transport,
            ),
            method::fast::<LoopBase, _>(c"_claim", c"Note whose a descriptor is.", claims::claim),
            method::onearg::<LoopBase, _>(
                c"_claimed",
                c"The transport that has a descriptor, or None.",
                claims::claimed,
            ),
            method::noargs::<LoopBase, _>(
                c"_claims",
                c"Every claimed descriptor is below this number.",
                claims::bound,
            ),
            method::fast::<LoopBase, _>(
                c"_send_file",
                c"Send a file over a socket, by sendfile(2).",
                crate::net::sock::send_file,
            ),
            method::onearg::<LoopBase, _>(
                c"_accept_one",
                c"A connection that waits at a listening socket, and its address; or None.",
                crate::net::sock::accept_one,
            ),
            method::fast::<LoopBase, _>(
                c"_accept_many",
                c"Accept connections that wait at a listening socket, and make their transports.",
                crate::net::tcp::accept_many,
            ),
            method::fast::<LoopBase, _>(
                c"_connected",
                c"A transport of a connected socket.",
                crate::net::tcp::connected,
            ),
            method::noargs::<LoopBase, _>(
                c"_watched",
                c"The watched descriptors and their handles.",
                fds::watched,
            ),
            method::noargs::<LoopBase, _>(c"_write_to_self", c"Wake the loop.", write_to_self),
            method::noargs::<LoopBase, _>(
                c"_native_tasks",
                c"The native tasks that are not done.",
                native_tasks,
            ),
            method::noargs::<LoopBase, _>(
                c"_current_task",
                c"The task that is taking a step.",
                native_current_task,
            ),
            method::noargs::<LoopBase, _>(c"_timer_count", c"How many timers wait.", timer_count),
            method::noargs::<LoopBase, _>(
                c"_use_virtual_clock",
                c"Test aid: from now on the clock starts at 0 and jumps to the next timer.",
                time::use_virtual_clock,
            ),
        ])
        .properties([
            method::property::<LoopBase, _, _>(c"_debug", get_debug, set_debug_flag),
            method::property::<LoopBase, _, _>(
                c"_task_factory",
                get_task_factory,
                |slf: Inst<'_, LoopBase>, v: Option<Ref<'_>>| {
                    slf.task_factory
                        .set(v.and_then(Ref::not_none).map(Ref::own));
                    Ok(())
                },
            ),
            method::getter::<LoopBase, _>(c"_closed", is_closed),
            method::property::<LoopBase, _, _>(
                c"_default_executor",
                pool::call::get_default_executor,
                pool::call::set_default_executor,
            ),
            method::property::<LoopBase, _, _>(
                c"_executor_shutdown_called",
                |slf: Inst<'_, LoopBase>| Ok(Obj::bool(slf.executor_ended.get())),
                |slf: Inst<'_, LoopBase>, ended: Option<Ref<'_>>| {
                    slf.executor_ended
                        .set(ended.map_or(Ok(false), Ref::truthy)?);
                    Ok(())
                },
            ),
            method::property::<LoopBase, _, _>(
                c"slow_callback_duration",
                get_slow_callback,
                set_slow_callback,
            ),
        ])
        .with(method::hash::<LoopBase, _>(current::hash))
        .build()?;
    crate::net::sock::add_to(class.borrow())?;
    Ok(class)
}
