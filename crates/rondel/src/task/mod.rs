//! The native Task: a subclass of `_asyncio.Task` that the loop steps directly.
//!
//! ```text
//!  create ──► Ready::Step ──► step: send(None) or throw(exc) ──► returned / raised ──► done
//!                 ▲                      │ yielded
//!                 │                      ▼
//!                 │      None            the next turn                     (sleep(0))
//!                 ├───── Sleep           a timer, then Awake, then a step  (sleep(n))
//!                 ├───── our Future      Callback::Wake on it
//!                 └───── any other       its add_done_callback(task_wakeup)
//! ```
//!
//! No Handle and no Python-level call is made per step. What the task waits for is [`Waiter`]; it is
//! what `cancel()` cancels.
//!
//! Tasks start untracked by the garbage collector and are tracked when they first suspend, or when
//! they finish while somebody still refers to them: most short tasks never meet it.
//!
//! On a loop that is not Rondel's the same task goes through that loop's `call_soon`.

mod methods;
mod step;

pub(crate) use methods::{bound_wakeup, build};
pub(crate) use step::{awake, step};

use crate::consts::{names, stock};
use crate::event_loop::{LoopBase, Ready};
use crate::future::{self, Future, Kind, State};
use rondel_core::timers::TimerKey;
use rondel_ffi::class::{ObjCell, Visit, Weak, alloc, peek, track};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::method::Args;
use rondel_ffi::{Class, ClassCell, Extends, Inst, Obj, Own, PyRes, Ref, call, context, value};
use std::cell::Cell;

/// What a suspended task waits for.
#[derive(Default)]
pub(crate) enum Waiter {
    /// Nothing: it is on the ready queue, or has not started.
    #[default]
    Nothing,
    Future(Own<Future>),
    /// A timer of the native `sleep`.
    Sleep(TimerKey),
    /// Its sleep is over and its step is scheduled; asyncio shows a finished future here.
    Rested,
    /// Its sleep was cancelled with this message; the step is scheduled.
    CancelledSleep(Option<Obj>),
    /// Some other object with asyncio's future protocol.
    Other(Obj),
}

pub(crate) enum Name {
    /// `Task-N`, made a str when somebody asks.
    Number(u64),
    Given(Obj),
}

impl Default for Name {
    fn default() -> Self {
        Name::Number(0)
    }
}

const UNREGISTERED: u32 = u32::MAX;

#[derive(Default)]
#[repr(C)]
pub(crate) struct Task {
    pub(crate) future: Future,
    pub(crate) coro: ObjCell,
    pub(crate) context: ObjCell,
    name: Cell<Name>,
    pub(crate) waiter: Cell<Waiter>,
    /// Its place in the loop's list of tasks, plus one; 0 when it is not there.
    index: Cell<u32>,
    /// `cancelling()`.
    pub(crate) cancels: Cell<u32>,
    pub(crate) must_cancel: Cell<bool>,
    pub(crate) log_destroy_pending: Cell<bool>,
    /// It was started and has not been torn down: a pending end is worth a report.
    armed: Cell<bool>,
}

static CELL: ClassCell = ClassCell::new();
static FREE: FreeList = FreeList::new();

// SAFETY: repr(C) with a Future first; both types are built with one offset (see `lib.rs`).
unsafe impl Extends<Future> for Task {}

impl Class for Task {
    fn cell() -> &'static ClassCell {
        &CELL
    }

    fn traverse(&self, visit: &mut Visit) {
        self.future.traverse(visit);
        visit.cell(&self.coro);
        visit.cell(&self.context);
        peek(&self.name, |name| {
            if let Name::Given(name) = name {
                visit.obj(name.borrow());
            }
        });
        peek(&self.waiter, |waiter| match waiter {
            Waiter::Future(future) => visit.obj(future.obj()),
            Waiter::Other(obj) | Waiter::CancelledSleep(Some(obj)) => visit.obj(obj.borrow()),
            _ => {}
        });
    }

    fn clear(&self) {
        self.armed.set(false);
        unregister(self);
        drop(self.waiter.take());
        self.coro.set(None);
        self.context.set(None);
        drop(self.name.take());
        self.future.clear();
    }

    fn retire(&self) {
        self.armed.set(false);
        unregister(self);
        self.future.retire();
    }

    fn freelist() -> Option<&'static FreeList> {
        Some(&FREE)
    }

    fn needs_finalize(&self) -> bool {
        self.future.log_traceback.get()
            || (self.armed.get() && self.log_destroy_pending.get() && !self.future.done())
    }

    fn finalize(slf: Inst<'_, Self>) {
        if slf.armed.get() && slf.log_destroy_pending.get() && !slf.future.done() {
            methods::destroyed_pending(slf);
        }
        if slf.future.log_traceback.get() {
            Future::finalize(slf.up());
        }
    }
}

/// What `create_task` takes besides the coroutine.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options<'a> {
    pub(crate) name: Option<Ref<'a>>,
    pub(crate) context: Option<Ref<'a>>,
    pub(crate) eager_start: bool,
}

impl<'a> Options<'a> {
    /// Reads `name=`, `context=` and `eager_start=` from a call's keywords.
    #[inline(always)]
    pub(crate) fn from_keywords(func: &str, args: &Args<'a>, skip: usize) -> PyRes<Options<'a>> {
        let mut options = Options::default();
        for i in skip..args.keyword_count() {
            let (name, value) = args.keyword(i);
            if value::str_is(name, names().name.borrow()) {
                options.name = value.not_none();
            } else if value::str_is(name, names().context.borrow()) {
                options.context = value.not_none();
            } else if value::str_is(name, names().eager_start.borrow()) {
                options.eager_start = value.truthy()?;
            } else {
                let name = value::str_text(name)?;
                return Err(Builtin::Type.raise(&format!(
                    "{func}() got an unexpected keyword argument '{name}'"
                )));
            }
        }
        Ok(options)
    }
}

static NAMES: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

fn next_number() -> u64 {
    NAMES.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

fn given_name(name: Option<Ref<'_>>) -> PyRes<Name> {
    match name {
        None => Ok(Name::Number(next_number())),
        Some(name) if value::is_str_exact(name) => Ok(Name::Given(name.own())),
        Some(name) => Ok(Name::Given(value::to_str(name)?)),
    }
}

/// Raises what asyncio raises for something that is no coroutine.
#[inline(always)]
fn check_coroutine(coro: Ref<'_>) -> PyRes<()> {
    if call::is_coroutine(coro) || coro.exact::<crate::primitives::sleep::Sleep>().is_some() {
        return Ok(());
    }
    check_coroutine_slow(coro)
}

#[cold]
fn check_coroutine_slow(coro: Ref<'_>) -> PyRes<()> {
    if call::call1(stock().iscoroutine.borrow(), coro)?
        .borrow()
        .truthy()?
    {
        return Ok(());
    }
    let text = value::repr(coro)?;
    Err(Builtin::Type.raise(&format!("a coroutine was expected, got {text}")))
}

/// A native task on a Rondel loop, scheduled for its first step.
#[inline(always)]
pub(crate) fn create(
    home: Inst<'_, LoopBase>,
    coro: Ref<'_>,
    options: Options<'_>,
) -> PyRes<Own<Task>> {
    check_coroutine(coro)?;
    let context = match options.context {
        Some(context) => context.own(),
        None => context::copy_current()?,
    };
    let task = alloc(
        Task {
            future: Future::on(home, Kind::Task),
            coro: ObjCell::new(Some(coro.own())),
            context: ObjCell::new(Some(context)),
            name: Cell::new(given_name(options.name)?),
            waiter: Cell::new(Waiter::Nothing),
            index: Cell::new(0),
            cancels: Cell::new(0),
            must_cancel: Cell::new(false),
            log_destroy_pending: Cell::new(true),
            armed: Cell::new(true),
        },
        // Outside a running loop its first step may never come.
        !home.is_running(),
    )?;
    register(home, task.inst());
    if home.debug.get() {
        future::remember_source(task.inst().up())?;
    }
    if options.eager_start && home.is_running() {
        track(task.inst());
        step::eager(home, task.clone())?;
    } else {
        home.push(Ready::Step(task.clone()));
    }
    Ok(task)
}

/// Adds a task to its loop's list, once: a stale entry would outlive the task.
pub(crate) fn register(home: Inst<'_, LoopBase>, task: Inst<'_, Task>) {
    unregister(task.data());
    let mut tasks = home.tasks.borrow_mut();
    tasks.push(Weak::new(task));
    task.index
        .set(u32::try_from(tasks.len()).unwrap_or(UNREGISTERED));
}

/// Takes a task off its loop's list, if it is there.
#[inline(always)]
pub(crate) fn unregister(task: &Task) {
    let index = task.index.replace(0);
    if index == 0 {
        return;
    }
    let Some(home) = task.future.home.peek() else {
        return;
    };
    let mut tasks = home.tasks.borrow_mut();
    let at = index as usize - 1;
    tasks.swap_remove(at);
    if let Some(moved) = tasks.get(at) {
        moved.get().data().index.set(index);
    }
}

/// The loop's native tasks that are not done, as a list.
pub(crate) fn list(home: Inst<'_, LoopBase>) -> PyRes<Obj> {
    let tasks: Vec<Obj> = home
        .tasks
        .borrow()
        .iter()
        .map(|task| task.get().obj().own())
        .collect();
    let list = value::list_with(tasks.len())?;
    for (i, task) in tasks.into_iter().enumerate() {
        value::list_init(list.borrow(), i, task);
    }
    Ok(list)
}

/// `task.cancel(msg)`: cancels what it waits for, or makes its next step raise CancelledError.
pub(crate) fn cancel(task: Inst<'_, Task>, message: Option<Obj>) -> PyRes<bool> {
    task.future.log_traceback.set(false);
    if task.future.done() {
        return Ok(false);
    }
    task.cancels.set(task.cancels.get() + 1);
    match task.waiter.take() {
        Waiter::Nothing | Waiter::Rested => {}
        Waiter::Future(waited) => {
            // The task still waits for it while `cancel` runs: user code may look.
            task.waiter.set(Waiter::Future(waited.clone()));
            if future::cancel_any(waited.inst(), message.clone())? {
                return Ok(true);
            }
        }
        Waiter::Other(waited) => {
            task.waiter.set(Waiter::Other(waited.clone()));
            if future::cancel_python(waited.borrow(), message.clone())? {
                return Ok(true);
            }
        }
        Waiter::Sleep(key) => {
            task.waiter.set(Waiter::CancelledSleep(message));
            if let Some(home) = task.future.home.get() {
                let due = home.cancel_timer(key);
                home.push(Ready::Step(task.own()));
                drop(due);
            }
            return Ok(true);
        }
        Waiter::CancelledSleep(first) => task.waiter.set(Waiter::CancelledSleep(first)),
    }
    task.must_cancel.set(true);
    task.future.set_cancel_message(message);
    Ok(true)
}

/// Takes one cancel request back; how many are left.
pub(crate) fn uncancel_one(task: Inst<'_, Task>) -> u32 {
    if task.cancels.get() > 0 {
        task.cancels.set(task.cancels.get() - 1);
        // 3.13: a cancel that was taken back before it was delivered is not delivered.
        if cfg!(Py_3_13) && task.cancels.get() == 0 {
            task.must_cancel.set(false);
        }
    }
    task.cancels.get()
}

/// Ends a task: state, callbacks, registry.
#[inline(always)]
pub(crate) fn finish(task: Inst<'_, Task>, state: State, result: Option<Obj>) -> PyRes<()> {
    unregister(task.data());
    future::finish(task.up(), state, result)
}

/// Whether an exception instance is a CancelledError.
#[inline(always)]
pub(crate) fn is_cancelled(exc: Ref<'_>) -> bool {
    err::exception_is(exc, crate::consts::cancelled_class())
}
