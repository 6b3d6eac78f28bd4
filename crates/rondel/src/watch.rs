//! Lost work: tasks that fail while nobody waits for them, and coroutines that nobody awaits.
//!
//! Off by default, and then a task pays one test of a flag when it is created and none in its steps;
//! a failing task pays one more. On (`rondel.watch_tasks()`), each task remembers the line that
//! created it, and each failing one is looked at:
//!
//! ```text
//! the coroutine raised ── somebody waits ────────────────────────────► nothing
//!                     ├── nobody does ───────────────────────────────► reported, at once
//!                     └── in an eager first step, inside `create_task` ► two turns later, if the
//!                         exception has not been taken by then
//! ```
//!
//! To wait is to have a callback on the task: an `await`, `gather`, `TaskGroup`, `wait` … or a function
//! of the user's. A built-in method of a set, dict or list does not count: `tasks.discard`, which keeps
//! the books in a well-known idiom, looks at no exception. A failure is reported once: the report
//! stands for asyncio's "exception was never retrieved", and a later `await` raises as ever.
//!
//! For `rondel run --hints` tasks remember their line as well, and nothing is reported (`ORIGINS`).
//!
//! The flags are process-wide and only hints, read without ordering; everything else happens with the
//! GIL held. Reports run Python code: nothing of a task is borrowed meanwhile.

use crate::consts::names;
use crate::future::{self, AsFuture, Callback, Future, State};
use crate::inspect::record;
use crate::task::Task;
use rondel_ffi::err::Builtin;
use rondel_ffi::frame::{self, Frame};
use rondel_ffi::method::{self, Args, BoundDef, MethodDef};
use rondel_ffi::{Inst, Obj, PyRes, Ref, call, value};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Who hears of new tasks, or-ed together.
static HEARS: AtomicU8 = AtomicU8::new(0);
const WATCH: u8 = 1;
const RECORDER: u8 = 2;
/// Tasks remember the line that created them, and nothing is reported.
const ORIGINS: u8 = 4;
/// How many frames a native coroutine remembers of the stack that created it.
static DEPTH: AtomicU32 = AtomicU32::new(0);

/// Whether tasks are watched.
#[inline(always)]
pub(crate) fn on() -> bool {
    HEARS.load(Ordering::Relaxed) & WATCH != 0
}

/// Whether anybody is to hear of a new task.
#[inline(always)]
pub(crate) fn hears_of_tasks() -> bool {
    HEARS.load(Ordering::Relaxed) != 0
}

/// Whether the recorder is to hear of them.
pub(crate) fn set_recorded(on: bool) {
    hear(RECORDER, on);
}

fn hear(who: u8, on: bool) -> bool {
    let before = if on {
        HEARS.fetch_or(who, Ordering::Relaxed)
    } else {
        HEARS.fetch_and(!who, Ordering::Relaxed)
    };
    before & who != 0
}

/// Tells of a new task, which has its number.
#[inline(never)]
pub(crate) fn task_made(task: Inst<'_, Task>) -> PyRes<()> {
    if HEARS.load(Ordering::Relaxed) & (WATCH | ORIGINS) != 0 {
        created(task.up())?;
    }
    if record::on() {
        record::created(task);
    }
    Ok(())
}

/// Whether native coroutines remember where they were created.
#[inline(always)]
pub(crate) fn traces_origins() -> bool {
    DEPTH.load(Ordering::Relaxed) != 0
}

// ------------------------------------------------------------------------------------ tasks

/// Remembers the line that creates a task: the innermost one outside asyncio and Rondel.
fn created(fut: Inst<'_, Future>) -> PyRes<()> {
    if let Some(here) = innermost() {
        fut.rare().created_at.set(Some(place(&here)?));
    }
    Ok(())
}

/// The innermost frame of the running thread that is neither asyncio's nor Rondel's.
pub(crate) fn innermost() -> Option<Frame> {
    let mut frame = Frame::current();
    while let Some(here) = frame {
        if !is_ours(&here) {
            return Some(here);
        }
        frame = here.back();
    }
    None
}

/// Whether a frame runs code of asyncio's or Rondel's.
pub(crate) fn is_ours(frame: &Frame) -> bool {
    frame.is_in(&["asyncio", "rondel"])
}

/// A place in the code as it is kept, `(code, line)`: words are found when somebody asks.
fn place(frame: &Frame) -> PyRes<Obj> {
    value::tuple([frame.code(), value::int(i64::from(frame.line()))?])
}

/// `(file, line, function)` of a place.
fn described(place: Ref<'_>) -> PyRes<Obj> {
    let none = Obj::none();
    let (code, line) = (value::item(place, 0), value::item(place, 1));
    let code = code.as_ref().unwrap_or(&none).borrow();
    value::tuple([
        call::getattr(code, value::intern(c"co_filename")?.borrow())?,
        line.unwrap_or_else(Obj::none),
        call::getattr(code, value::intern(c"co_name")?.borrow())?,
    ])
}

/// Adds the line that created a task to what an exception handler gets, if it is known.
pub(crate) fn add_origin(context: Ref<'_>, fut: &Future) -> PyRes<()> {
    let heard = HEARS.load(Ordering::Relaxed);
    if heard & ORIGINS != 0 && heard & WATCH == 0 {
        // Reports stay asyncio's to the letter.
        return Ok(());
    }
    let Some(place) = fut.rare_opt().and_then(|rare| rare.created_at.get()) else {
        return Ok(());
    };
    let format = value::str("{}:{}, in {}")?;
    let format = call::getattr(format.borrow(), value::intern(c"format")?.borrow())?;
    let origin = call::call_tuple(format.borrow(), described(place.borrow())?.borrow(), None)?;
    let key = value::intern(c"created_at")?;
    value::dict_set(context, key.borrow(), origin.borrow())
}

/// Whether nobody waits for a pending task.
pub(crate) fn nobody_waits(fut: &Future) -> bool {
    // Types are compared here, nothing more: no Python code runs in the borrow.
    let observes = |callback: &Callback| match callback {
        Callback::Python { function, .. } => !frame::is_container_method(function.borrow()),
        _ => true,
    };
    if fut.first.peek(|first| first.is_some_and(observes)) {
        return false;
    }
    fut.rare_opt()
        .is_none_or(|rare| !rare.callbacks.borrow().iter().any(observes))
}

/// A task has failed, and nobody waited for it.
#[cold]
pub(crate) fn failed_alone(task: Inst<'_, Task>) -> PyRes<()> {
    if task.eager.get() {
        // Whoever creates it has had no chance to wait for it yet.
        return look_later(task, false);
    }
    if task.fut().home.is_none() {
        // Another loop's handle has entered the task's context for this step, and from 3.12 on its
        // exception handler is to run in that very context.
        return look_later(task, true);
    }
    report(task)
}

fn look_later(task: Inst<'_, Task>, seen_before: bool) -> PyRes<()> {
    static DEF: OnceLock<BoundDef> = OnceLock::new();
    let def = DEF.get_or_init(|| {
        BoundDef::new(method::onearg::<Task, _>(
            c"task_watch",
            c"Report the task if its exception has not been taken.",
            look,
        ))
    });
    let Some(loop_) = task.fut().loop_obj() else {
        return Ok(());
    };
    let look = method::bind(def, task.obj())?;
    call::method(
        names().call_soon.borrow(),
        [
            loop_.borrow(),
            look.borrow(),
            Obj::bool(seen_before).borrow(),
        ],
    )?;
    Ok(())
}

/// Twice, as the callbacks of what its creator waits by (`gather`) come behind the first look.
fn look(task: Inst<'_, Task>, seen_before: Ref<'_>) -> PyRes<Obj> {
    if task.fut().state.get() == State::Failed && task.fut().log_traceback.get() {
        if seen_before.truthy()? {
            report(task)?;
        } else {
            look_later(task, true)?;
        }
    }
    Ok(Obj::none())
}

fn report(task: Inst<'_, Task>) -> PyRes<()> {
    let fut = task.fut();
    let (Some(exc), Some(loop_)) = (fut.result.get(), fut.loop_obj()) else {
        return Ok(());
    };
    fut.log_traceback.set(false);
    let context = value::dict()?;
    let name = call::method(value::intern(c"get_name")?.borrow(), [task.obj()])?;
    let message = value::str(&format!(
        "Task {} failed while nobody waited for it (whoever awaits it later still gets the \
         exception)",
        value::repr(name.borrow())?
    ))?;
    value::dict_set(context.borrow(), names().message.borrow(), message.borrow())?;
    value::dict_set(context.borrow(), names().exception.borrow(), exc.borrow())?;
    value::dict_set(context.borrow(), names().task.borrow(), task.obj())?;
    add_origin(context.borrow(), fut)?;
    if let Some(source) = fut.rare_opt().and_then(|rare| rare.source_traceback.get()) {
        value::dict_set(
            context.borrow(),
            names().source_traceback.borrow(),
            source.borrow(),
        )?;
    }
    future::call_handler(loop_.borrow(), context.borrow())
}

// ------------------------------------------------------------------------------- coroutines

/// Where a native coroutine is being created, the innermost frame first; for [`cr_origin`].
#[cold]
pub(crate) fn coroutine_origin() -> PyRes<Option<Obj>> {
    let depth = DEPTH.load(Ordering::Relaxed) as usize;
    let mut places = Vec::with_capacity(depth);
    let mut frame = Frame::current();
    while let Some(here) = frame.filter(|_| places.len() < depth) {
        places.push(place(&here)?);
        frame = here.back();
    }
    let places: Vec<Ref<'_>> = places.iter().map(Obj::borrow).collect();
    value::tuple_of(&places).map(Some)
}

/// What a native coroutine answers to `cr_origin`: None, or `((filename, line, function), …)` as
/// CPython has it (Python docs: `sys.set_coroutine_origin_tracking_depth`).
#[cold]
pub(crate) fn cr_origin(origin: Option<Obj>) -> PyRes<Obj> {
    let Some(origin) = origin else {
        return Ok(Obj::none());
    };
    let mut places = Vec::new();
    value::for_each(origin.borrow(), |place| {
        places.push(described(place.borrow())?);
        Ok(())
    })?;
    let places: Vec<Ref<'_>> = places.iter().map(Obj::borrow).collect();
    value::tuple_of(&places)
}

/// `coroutine 'name' was never awaited`, with the place of its creation if the coroutine's `cr_origin`
/// knows it: the interpreter's own warning, by the function that the interpreter calls.
#[cold]
pub(crate) fn never_awaited(coro: Ref<'_>) {
    let warned = call::import(c"warnings").and_then(|warnings| {
        let warn = value::intern(c"_warn_unawaited_coroutine")?;
        let _none = call::method(warn.borrow(), [warnings.borrow(), coro])?;
        Ok(())
    });
    if let Err(raised) = warned {
        raised.unraisable(Some(coro));
    }
}

// ------------------------------------------------------------------------------------ switches

/// `_watch_tasks(on)`: returns what it was.
fn watch_tasks(args: Args<'_>) -> PyRes<Obj> {
    let Some(on) = args.get(0) else {
        return Err(Builtin::Type.raise("_watch_tasks() takes one argument"));
    };
    let on = on.truthy()?;
    Ok(Obj::bool(hear(WATCH, on)))
}

/// `_remember_tasks(on)`: whether tasks remember the line that created them without being watched.
fn remember_tasks(args: Args<'_>) -> PyRes<Obj> {
    let Some(on) = args.get(0) else {
        return Err(Builtin::Type.raise("_remember_tasks() takes one argument"));
    };
    let on = on.truthy()?;
    Ok(Obj::bool(hear(ORIGINS, on)))
}

/// `_task_origin(task)`: `(file, line, function)` of the call that created it, None if unknown.
fn task_origin(args: Args<'_>) -> PyRes<Obj> {
    let Some(task) = args.get(0) else {
        return Err(Builtin::Type.raise("_task_origin() takes one argument"));
    };
    let place = task
        .cast::<Task>()
        .and_then(|task| task.fut().rare_opt()?.created_at.get());
    match place {
        Some(place) => described(place.borrow()),
        None => Ok(Obj::none()),
    }
}

/// `_trace_origins(depth)`: how many frames native coroutines remember, 0 for none.
fn trace_origins(args: Args<'_>) -> PyRes<Obj> {
    let Some(depth) = args.get(0) else {
        return Err(Builtin::Type.raise("_trace_origins() takes one argument"));
    };
    let depth = u32::try_from(value::as_i64(depth)?)
        .map_err(|_| Builtin::Value.raise("depth must be >= 0"))?;
    DEPTH.store(depth, Ordering::Relaxed);
    Ok(Obj::none())
}

pub(crate) fn definitions() -> Vec<MethodDef> {
    vec![
        method::function(
            c"_watch_tasks",
            c"Report tasks that fail while nobody waits for them, or stop; return what it was.",
            watch_tasks,
        ),
        method::function(
            c"_remember_tasks",
            c"Have tasks remember the line that creates them, or stop; return what it was.",
            remember_tasks,
        ),
        method::function(
            c"_task_origin",
            c"Return the file, line and function that created a task, None if they are unknown.",
            task_origin,
        ),
        method::function(
            c"_trace_origins",
            c"Set how many frames native coroutines remember of their creation.",
            trace_origins,
        ),
    ]
}
