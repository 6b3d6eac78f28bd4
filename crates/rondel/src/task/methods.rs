//! The Python face of a task.

use super::{Task, Waiter, cancel, check_coroutine, given_name, number_for, register, step};
use crate::consts::{names, stock};
use crate::event_loop::Ready;
use crate::future::{
    self, AsFuture, Future, Kind, Placement, STOCK_STATE, State, future_methods, future_properties,
};
use crate::inspect::record;
use crate::watch;
use rondel_ffi::class::{TypeBuilder, share_init};
use rondel_ffi::err::Builtin;
use rondel_ffi::method::{self, Args, BoundDef, Unary};
use rondel_ffi::{Class, Inst, Obj, Own, PyRes, Ref, call, context, value};
use std::sync::OnceLock;

/// `Task(coro, *, loop=None, name=None, context=None, eager_start=False)`.
fn init(slf: Inst<'_, Task>, args: Args<'_>) -> PyRes<()> {
    let n = names();
    let params = [
        n.coro.borrow(),
        n.loop_.borrow(),
        n.name.borrow(),
        n.context.borrow(),
        n.eager_start.borrow(),
    ];
    let [coro, loop_, name, ctx, eager] = args.bind("Task", params, 1, 1)?;
    let Some(coro) = coro else {
        return Err(Builtin::Type.raise("Task() needs a coroutine"));
    };
    // A second `__init__` may name another loop: the first one's list must forget the task.
    super::unregister(slf.fut());
    future::methods_init_on(slf.up(), loop_.and_then(Ref::not_none))?;
    slf.fut().kind.set(Kind::Task);
    if let Err(raised) = check_coroutine(coro) {
        slf.log_destroy_pending.set(false);
        return Err(raised);
    }
    let context = match ctx.and_then(Ref::not_none) {
        Some(ctx) => ctx.own(),
        None => context::copy_current()?,
    };
    slf.coro.set(Some(coro.own()));
    slf.context.set(Some(context));
    let mut name = given_name(name.and_then(Ref::not_none))?;
    slf.fut().number.set(number_for(&mut name)?);
    slf.name.set(name);
    slf.waiter.set(Waiter::Nothing);
    slf.cancels.set(0);
    slf.must_cancel.set(false);
    slf.log_destroy_pending.set(true);
    slf.armed.set(true);
    let eager = eager.map_or(Ok(false), Ref::truthy)?;
    let home = slf.fut().home.get();
    if let Some(home) = &home {
        slf.fut().id.set(super::next_id());
        register(home.inst(), slf);
    }
    if watch::hears_of_tasks() {
        watch::task_made(slf)?;
    }
    match home {
        Some(home) => {
            if eager && home.is_running() {
                return super::start_eagerly(home.inst(), slf);
            }
            home.check_open()?;
            home.push(Ready::Step(slf.own()));
            Ok(())
        }
        None => {
            if eager && super::foreign::start_eagerly(slf)? {
                return Ok(());
            }
            super::foreign::register(slf)?;
            call_soon_step(slf.own(), None)
        }
    }
}

/// On a loop that is not Rondel's: `loop.call_soon(task_step, context=task_context)`.
pub(super) fn call_soon_step(task: Own<Task>, thrown: Option<Obj>) -> PyRes<()> {
    let Some(loop_) = task.fut().loop_obj() else {
        return Ok(());
    };
    let step = method::bind(step_def(), task.obj())?;
    let context = task.context.get().unwrap_or_else(Obj::none);
    let thrown = thrown.unwrap_or_else(Obj::none);
    call::method_kw(
        names().call_soon.borrow(),
        &[
            loop_.borrow(),
            step.borrow(),
            thrown.borrow(),
            context.borrow(),
        ],
        stock().kw_context.borrow(),
    )?;
    Ok(())
}

fn step_def() -> &'static BoundDef {
    static DEF: OnceLock<BoundDef> = OnceLock::new();
    DEF.get_or_init(|| {
        BoundDef::new(method::onearg::<Task, _>(
            c"task_step",
            c"Take a step.",
            step_call,
        ))
    })
}

fn step_call(slf: Inst<'_, Task>, thrown: Ref<'_>) -> PyRes<Obj> {
    step::step_foreign(slf.own(), thrown.not_none().map(Ref::own))?;
    Ok(Obj::none())
}

fn wakeup_def() -> &'static BoundDef {
    static DEF: OnceLock<BoundDef> = OnceLock::new();
    DEF.get_or_init(|| {
        BoundDef::new(method::onearg::<Task, _>(
            c"task_wakeup",
            c"Take a step: the future is done.",
            wakeup_call,
        ))
    })
}

/// The callback that a foreign future gets: `task.task_wakeup`, named as asyncio's.
pub(crate) fn bound_wakeup(task: Inst<'_, Task>) -> PyRes<Obj> {
    method::bind(wakeup_def(), task.obj())
}

fn wakeup_call(slf: Inst<'_, Task>, fut: Ref<'_>) -> PyRes<Obj> {
    let thrown = match call::method(names().result.borrow(), [fut]) {
        Ok(_value) => None,
        Err(raised) => Some(raised.fetch()),
    };
    match slf.fut().home.get() {
        Some(home) => step::woken(home.inst(), slf, thrown)?,
        None => step::step_foreign(slf.own(), thrown)?,
    }
    Ok(Obj::none())
}

/// `Task was destroyed but it is pending!`, through the loop's exception handler.
#[cold]
pub(super) fn destroyed_pending(slf: Inst<'_, Task>) {
    let report = || -> PyRes<()> {
        let Some(loop_) = slf.fut().loop_obj() else {
            return Ok(());
        };
        let context = value::dict()?;
        let message = value::str("Task was destroyed but it is pending!")?;
        value::dict_set(context.borrow(), names().task.borrow(), slf.obj())?;
        value::dict_set(context.borrow(), names().message.borrow(), message.borrow())?;
        if let Some(source) = slf.fut().rare_opt().and_then(|r| r.source_traceback.get()) {
            value::dict_set(
                context.borrow(),
                names().source_traceback.borrow(),
                source.borrow(),
            )?;
        }
        watch::add_origin(context.borrow(), slf.fut())?;
        future::call_handler(loop_.borrow(), context.borrow())
    };
    slf.armed.set(false);
    // As out of asyncio's WeakSet: nobody finds it by all_tasks() any more, whoever keeps it now.
    super::unregister(slf.fut());
    if let Err(raised) = report() {
        raised.unraisable(Some(slf.obj()));
    }
}

fn cancel_method(slf: Inst<'_, Task>, args: Args<'_>) -> PyRes<Obj> {
    let [message] = args.bind("cancel", [names().msg.borrow()], 0, 1)?;
    Ok(Obj::bool(cancel(
        slf,
        message.and_then(Ref::not_none).map(Ref::own),
    )?))
}

fn cancelling(slf: Inst<'_, Task>) -> PyRes<Obj> {
    value::int(i64::from(slf.cancels.get()))
}

fn uncancel(slf: Inst<'_, Task>) -> PyRes<Obj> {
    value::int(i64::from(super::uncancel_one(slf)))
}

fn get_coro(slf: Inst<'_, Task>) -> PyRes<Obj> {
    Ok(slf.coro.get().unwrap_or_else(Obj::none))
}

fn get_context(slf: Inst<'_, Task>) -> PyRes<Obj> {
    Ok(slf.context.get().unwrap_or_else(Obj::none))
}

fn get_name(slf: Inst<'_, Task>) -> PyRes<Obj> {
    if let Some(name) = slf.name.get() {
        return Ok(name);
    }
    let name = value::str(&format!("Task-{}", slf.fut().number.get()))?;
    slf.name.set(Some(name.clone()));
    Ok(name)
}

fn set_name(slf: Inst<'_, Task>, name: Ref<'_>) -> PyRes<Obj> {
    let name = if value::is_str_exact(name) {
        name.own()
    } else {
        value::to_str(name)?
    };
    slf.name.set(Some(name));
    if record::on() {
        record::named(slf);
    }
    Ok(Obj::none())
}

fn set_result(_slf: Inst<'_, Task>, _result: Ref<'_>) -> PyRes<Obj> {
    Err(Builtin::Runtime.raise("Task does not support set_result operation"))
}

fn set_exception(_slf: Inst<'_, Task>, _exc: Ref<'_>) -> PyRes<Obj> {
    Err(Builtin::Runtime.raise("Task does not support set_exception operation"))
}

fn get_stack(slf: Inst<'_, Task>, args: Args<'_>) -> PyRes<Obj> {
    let [limit] = args.bind("get_stack", [names().limit.borrow()], 0, 0)?;
    let none = Obj::none();
    call::call(
        stock().task_get_stack.borrow(),
        &[slf.obj(), limit.unwrap_or(none.borrow())],
    )
}

fn print_stack(slf: Inst<'_, Task>, args: Args<'_>) -> PyRes<Obj> {
    let file = value::intern(c"file")?;
    let [limit, file] = args.bind("print_stack", [names().limit.borrow(), file.borrow()], 0, 0)?;
    let none = Obj::none();
    let none = none.borrow();
    call::call(
        stock().task_print_stack.borrow(),
        &[slf.obj(), limit.unwrap_or(none), file.unwrap_or(none)],
    )
}

fn repr(slf: Inst<'_, Task>) -> PyRes<Obj> {
    if !slf.fut().initialised() {
        return Err(Builtin::Runtime.raise("Task object is not initialized."));
    }
    call::call1(stock().task_repr.borrow(), slf.obj())
}

// ------------------------------------------------------------------------------- properties

/// What the task waits for. A native sleep has no future: one is made when somebody looks, and it
/// takes the sleep's place.
fn get_waiter(slf: Inst<'_, Task>) -> PyRes<Obj> {
    enum Seen {
        Nothing,
        Obj(Obj),
        Sleep,
    }
    let seen = slf.waiter.peek(|waiter| match waiter {
        Waiter::Nothing => Seen::Nothing,
        Waiter::Future(future) => Seen::Obj(future.obj().own()),
        Waiter::Other(obj) => Seen::Obj(obj.clone()),
        Waiter::Sleep(_) | Waiter::Rested | Waiter::CancelledSleep(_) => Seen::Sleep,
    });
    match seen {
        Seen::Nothing => Ok(Obj::none()),
        Seen::Obj(obj) => Ok(obj),
        Seen::Sleep => sleep_as_future(slf),
    }
}

/// A stand-in for the future that asyncio's `sleep` would wait on: pending with this task's wake-up
/// as its callback, finished, or cancelled. It shows the state; cancelling the task is what ends the sleep.
fn sleep_as_future(slf: Inst<'_, Task>) -> PyRes<Obj> {
    let Some(home) = slf.fut().home.get() else {
        return Ok(Obj::none());
    };
    let shown = future::stand_in(home.inst())?;
    match slf
        .waiter
        .peek(|w| (matches!(w, Waiter::Sleep(_)), matches!(w, Waiter::Rested)))
    {
        (true, _) => shown.first.set(Some(future::Callback::Wake(slf.own()))),
        (_, true) => shown.state.set(State::Finished),
        _ => shown.state.set(State::Cancelled),
    }
    Ok(shown.into_obj())
}

fn get_must_cancel(slf: Inst<'_, Task>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.must_cancel.get()))
}

fn set_must_cancel(slf: Inst<'_, Task>, value: Option<Ref<'_>>) -> PyRes<()> {
    slf.must_cancel.set(value.map_or(Ok(false), Ref::truthy)?);
    Ok(())
}

fn get_log_destroy(slf: Inst<'_, Task>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.log_destroy_pending.get()))
}

fn set_log_destroy(slf: Inst<'_, Task>, value: Option<Ref<'_>>) -> PyRes<()> {
    let Some(value) = value else {
        return Err(Builtin::Attribute.raise("cannot delete attribute"));
    };
    slf.log_destroy_pending.set(value.truthy()?);
    Ok(())
}

/// `rondel.Task`.
pub(crate) fn build(place: Placement) -> PyRes<Obj> {
    let base = stock().task.clone();
    let builder = TypeBuilder::<Task>::new(c"rondel.Task").extends::<Future>();
    let mut builder = if place.over {
        builder
            .over(vec![Future::type_object().own(), base], place.rest)
            .stamp(STOCK_STATE.0, STOCK_STATE.1)
    } else {
        builder.behind(base, place.rest)
    };
    builder = builder
        .doc(c"A native asyncio.Task: a coroutine wrapped in a Future that runs it.")
        .subclassable()
        .methods(future_methods())
        .methods([
            method::fast::<Task, _>(
                c"cancel",
                c"cancel($self, /, msg=None)\n--\n\nRequest that the task cancel itself.",
                cancel_method,
            ),
            method::noargs::<Task, _>(
                c"cancelling",
                c"Return the number of pending cancel requests.",
                cancelling,
            ),
            method::noargs::<Task, _>(
                c"uncancel",
                c"Take one cancel request back; return how many are left.",
                uncancel,
            ),
            method::noargs::<Task, _>(c"get_coro", c"Return the coroutine.", get_coro),
            method::noargs::<Task, _>(
                c"get_context",
                c"Return the task's contextvars.Context.",
                get_context,
            ),
            method::noargs::<Task, _>(c"get_name", c"Return the task's name.", get_name),
            method::onearg::<Task, _>(c"set_name", c"set_name($self, value, /)\n--\n\nSet the task's name.", set_name),
            method::onearg::<Task, _>(c"set_result", c"set_result($self, result, /)\n--\n\nNot supported by tasks.", set_result),
            method::onearg::<Task, _>(c"set_exception", c"set_exception($self, exception, /)\n--\n\nNot supported by tasks.", set_exception),
            method::fast::<Task, _>(c"get_stack", c"get_stack($self, /, *, limit=None)\n--\n\nReturn the list of stack frames.", get_stack),
            method::fast::<Task, _>(
                c"print_stack",
                c"print_stack($self, /, *, limit=None, file=None)\n--\n\nPrint the stack or the traceback.",
                print_stack,
            ),
            future::class_getitem_def(),
        ])
        .properties(future_properties())
        .properties([
            method::getter::<Task, _>(c"_coro", get_coro),
            method::getter::<Task, _>(c"_fut_waiter", get_waiter),
            method::property::<Task, _, _>(c"_must_cancel", get_must_cancel, set_must_cancel),
            method::property::<Task, _, _>(
                c"_log_destroy_pending",
                get_log_destroy,
                set_log_destroy,
            ),
        ])
        .with(method::init::<Task, _>(init))
        .with(method::unary::<Task, _>(Unary::Repr, repr));
    let built = future::awaited(builder).build()?;
    share_init::<Task>(stock().task.borrow())?;
    Ok(built)
}
