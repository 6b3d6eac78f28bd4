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

mod foreign;
mod methods;
mod step;

pub(crate) use methods::{bound_wakeup, build};
pub(crate) use step::{awake, step, step_recorded};

use crate::consts::{names, stock};
use crate::event_loop::{LoopBase, Ready};
use crate::future::{self, AsFuture, Future, Kind};
use crate::inspect::record;
use crate::packed::WaiterCell;
use crate::watch;
use rondel_core::inspect::counters::COUNTING;
use rondel_core::inspect::requests::Key;
use rondel_core::timers::TimerKey;
use rondel_ffi::class::{ObjCell, Visit, Weak, alloc_extended, track};
use rondel_ffi::context::ContextCell;
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::method::Args;
use rondel_ffi::{
    Class, ClassCell, Extends, Inst, Obj, Own, PyRes, Ref, call, context, prefetch, value,
};
use std::cell::Cell;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

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

const UNREGISTERED: u32 = u32::MAX;

/// What a task has besides its [`Future`]. The first fields lie on C's `TaskObj`, with the same
/// meaning: what `asyncio.Task.get_coro(task)` and the like find there is right, or nothing (see
/// `future`). Before 3.13 C's ints come behind its references, from then on before.
#[repr(C)]
pub(crate) struct Task {
    /// `cancelling()`; C's `task_num_cancels_requested`.
    #[cfg(Py_3_13)]
    pub(crate) cancels: Cell<u32>,
    #[cfg(Py_3_13)]
    pub(crate) must_cancel: Cell<bool>,
    #[cfg(Py_3_13)]
    pub(crate) log_destroy_pending: Cell<bool>,
    /// It was started and has not been torn down: a pending end is worth a report.
    #[cfg(Py_3_13)]
    armed: Cell<bool>,
    /// It takes its first step right now, inside its creator's.
    #[cfg(Py_3_13)]
    pub(crate) eager: Cell<bool>,
    /// C's `task_fut_waiter`: null for ever.
    stock_waiter: Cell<usize>,
    /// Never null, nor is the context: before 3.12.2 C's `get_coro` and `get_context` don't check.
    pub(crate) coro: ObjCell,
    /// A str; nothing while it is `Task-N` and nobody has asked.
    pub(crate) name: ObjCell,
    pub(crate) context: ContextCell,
    /// C's `task_must_cancel` and `task_log_destroy_pending`: only C sets them. (3.13 has these bits
    /// in the future's ints.)
    #[cfg(not(Py_3_13))]
    stock_flags: Cell<[u32; 2]>,
    /// `cancelling()`; C's `task_num_cancels_requested`.
    #[cfg(not(Py_3_13))]
    pub(crate) cancels: Cell<u32>,
    #[cfg(not(Py_3_13))]
    pub(crate) must_cancel: Cell<bool>,
    #[cfg(not(Py_3_13))]
    pub(crate) log_destroy_pending: Cell<bool>,
    /// It was started and has not been torn down: a pending end is worth a report.
    #[cfg(not(Py_3_13))]
    armed: Cell<bool>,
    /// It takes its first step right now, inside its creator's.
    #[cfg(not(Py_3_13))]
    pub(crate) eager: Cell<bool>,
    pub(crate) waiter: WaiterCell,
}

/// A task on its loop's list, and what only the inspector asks for: kept here as long as it may, as a word
/// more in each task is one more of the allocator's steps.
pub(crate) struct Listed {
    pub(crate) task: Weak<Task>,
    /// One; none in a build that counts nothing.
    origin: [Origin; COUNTING as usize],
}

/// Where a task comes from.
#[derive(Clone, Copy)]
struct Origin {
    /// The number of the task that created it, 0 for none.
    parent: u32,
    /// The request in whose course it was created, which it may outlive.
    request: Key,
}

impl Origin {
    const NOWHERE: Origin = Origin {
        parent: 0,
        request: Key::NONE,
    };
}

impl Listed {
    #[inline(always)]
    fn origin(&self) -> Origin {
        self.origin.first().copied().unwrap_or(Origin::NOWHERE)
    }

    /// The number of the task that created it, 0 for none.
    pub(crate) fn parent(&self) -> u32 {
        self.origin().parent
    }
}

/// How many tasks of Rondel's loops this process has created, those with names too: the last one's
/// number. Wraps after 2³² of them.
static CREATED: AtomicU32 = AtomicU32::new(0);

/// The next task's number.
#[inline(always)]
fn next_id() -> u32 {
    if !COUNTING {
        return 0;
    }
    // As for names' numbers: the GIL is held.
    let id = CREATED.load(Ordering::Relaxed).wrapping_add(1).max(1);
    CREATED.store(id, Ordering::Relaxed);
    id
}

/// The number of the task that was created last.
pub(crate) fn last_created() -> u32 {
    CREATED.load(Ordering::Relaxed)
}

/// Where C has `task_num_cancels_requested` and `task_coro`, from its first field on.
const STOCK: (usize, usize) = if cfg!(Py_3_13) { (0, 16) } else { (40, 8) };
const _: () = assert!(offset_of!(Task, cancels) == STOCK.0 && offset_of!(Task, coro) == STOCK.1);
const _: () = assert!(offset_of!(Task, waiter) == if cfg!(Py_3_13) { 40 } else { 48 });

static CELL: ClassCell = ClassCell::new();
static FREE: FreeList = FreeList::new();

// SAFETY: built with `extends::<Future>`.
unsafe impl Extends<Future> for Task {}

/// A task whose `__init__` has not run.
impl Default for Task {
    fn default() -> Task {
        Task::new(Obj::none(), Obj::none(), None, false)
    }
}

/// Bytes of a task and of a coroutine with its frame that a step needs.
const TASK: usize = 256;
const FRAME: usize = 256;
const CONTEXT: usize = 64;

impl Task {
    /// Has it fetched into the cache, for a step that is to come.
    #[inline(always)]
    pub(crate) fn fetch(slf: Inst<'_, Task>) {
        prefetch::object(slf.obj(), TASK);
    }

    /// The same for what a step reaches through it.
    #[inline(always)]
    pub(crate) fn fetch_frame(slf: Inst<'_, Task>) {
        for (obj, len) in [(slf.coro.peek(), FRAME), (slf.context.peek(), CONTEXT)] {
            if let Some(obj) = obj {
                prefetch::object(obj, len);
            }
        }
    }

    #[inline(always)]
    fn new(coro: Obj, context: Obj, name: Option<Obj>, armed: bool) -> Task {
        Task {
            stock_waiter: Cell::new(0),
            coro: ObjCell::new(Some(coro)),
            name: ObjCell::new(name),
            context: ContextCell::new(Some(context)),
            #[cfg(not(Py_3_13))]
            stock_flags: Cell::default(),
            cancels: Cell::new(0),
            must_cancel: Cell::new(false),
            log_destroy_pending: Cell::new(armed),
            armed: Cell::new(armed),
            eager: Cell::new(false),
            waiter: WaiterCell::default(),
        }
    }

    /// The name, as `get_name()` gives it. Runs no Python code.
    pub(crate) fn shown_name(slf: Inst<'_, Task>) -> String {
        slf.name
            .peek()
            .and_then(rondel_ffi::peek::text)
            .unwrap_or_else(|| format!("Task-{}", slf.fut().number.get()))
    }
}

impl Class for Task {
    const PLACE: Option<usize> = future::REST_PLACE;

    fn cell() -> &'static ClassCell {
        &CELL
    }

    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.coro);
        visit.cell(&self.context);
        visit.cell(&self.name);
        self.waiter.peek(|waiter| match waiter {
            Waiter::Future(future) => visit.obj(future.obj()),
            Waiter::Other(obj) | Waiter::CancelledSleep(Some(obj)) => visit.obj(obj.borrow()),
            _ => {}
        });
    }

    fn clear(&self) {
        self.armed.set(false);
        self.waiter.set(Waiter::Nothing);
        self.coro.set(Some(Obj::none()));
        self.context.set(Some(Obj::none()));
        self.name.set(None);
    }

    fn retire(&self) {
        self.armed.set(false);
    }

    fn freelist() -> Option<&'static FreeList> {
        Some(&FREE)
    }

    fn needs_finalize(slf: Inst<'_, Self>) -> bool {
        slf.fut().log_traceback.get() || is_left_pending(slf)
    }

    fn finalize(slf: Inst<'_, Self>) {
        if is_left_pending(slf) {
            methods::destroyed_pending(slf);
        }
        if slf.fut().log_traceback.get() {
            Future::finalize(slf.up());
        }
    }
}

/// Whether the task ends before its coroutine does, and somebody should hear of it.
fn is_left_pending(task: Inst<'_, Task>) -> bool {
    task.armed.get() && task.log_destroy_pending.get() && !task.fut().done()
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

/// A name given by the user, as a str.
fn given_name(name: Option<Ref<'_>>) -> PyRes<Option<Obj>> {
    match name {
        None => Ok(None),
        Some(name) if value::is_str_exact(name) => Ok(Some(name.own())),
        Some(name) => value::to_str(name).map(Some),
    }
}

/// The number of a task without a name.
#[inline(always)]
fn number_for(name: &mut Option<Obj>) -> PyRes<u32> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    if name.is_some() {
        return Ok(0);
    }
    // The GIL is held: nobody comes between, and an atomic addition would cost some 20 cycles.
    let number = NEXT.load(Ordering::Relaxed);
    NEXT.store(number + 1, Ordering::Relaxed);
    u32::try_from(number).or_else(|_| named_by(number, name))
}

/// The number does not fit into a task any more: its name is written out.
#[cold]
fn named_by(number: u64, name: &mut Option<Obj>) -> PyRes<u32> {
    *name = Some(value::str(&format!("Task-{number}"))?);
    Ok(0)
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
    let mut name = given_name(options.name)?;
    let ids = (number_for(&mut name)?, next_id());
    let task = alloc_extended(
        || Future::numbered(home, Kind::Task, ids),
        || Task::new(coro.own(), context, name, true),
        // Outside a running loop its first step may never come.
        !home.is_running(),
    )?;
    register_new(home, task.inst());
    if home.is_debug() {
        future::remember_source(task.inst().up())?;
    }
    if watch::hears_of_tasks() {
        watch::task_made(task.inst())?;
    }
    if options.eager_start && home.is_running() {
        track(task.inst());
        start_eagerly(home, task.inst())?;
    } else {
        home.push(Ready::Step(task.clone()));
    }
    Ok(task)
}

/// The first step of an eager task on a running loop: at once, but in the loop's thread. asyncio
/// would take it in the thread that asks, where the loop's current task and context are not.
pub(crate) fn start_eagerly(home: Inst<'_, LoopBase>, task: Inst<'_, Task>) -> PyRes<()> {
    if home.runs_here() {
        return step::eager(home, task.own());
    }
    home.push(Ready::Step(task.own()));
    home.wake();
    Ok(())
}

/// Adds a task to its loop's list, once: a stale entry would outlive the task.
pub(crate) fn register(home: Inst<'_, LoopBase>, task: Inst<'_, Task>) {
    unregister(task.fut());
    register_new(home, task);
}

/// The same for a task that is in no list.
#[inline(always)]
fn register_new(home: Inst<'_, LoopBase>, task: Inst<'_, Task>) {
    let mut tasks = home.tasks.borrow_mut();
    let mut origin = Origin::NOWHERE;
    if COUNTING && let Some(creator) = home.stepping_task() {
        let creator = creator.fut();
        origin.parent = creator.id.get();
        if let Some(creator) = tasks.get((creator.index.get() as usize).wrapping_sub(1)) {
            origin.request = creator.origin().request;
        }
    }
    tasks.push(Listed {
        task: Weak::new(task),
        origin: [origin; COUNTING as usize],
    });
    task.fut()
        .index
        .set(u32::try_from(tasks.len()).unwrap_or(UNREGISTERED));
}

/// Takes a task off its loop's list, if it is there; for any other future there is nothing to do.
#[inline(always)]
pub(crate) fn unregister(fut: &Future) {
    let index = fut.index.replace(0);
    if index == 0 {
        return;
    }
    let Some(home) = fut.home.peek() else { return };
    let mut tasks = home.tasks.borrow_mut();
    let at = index as usize - 1;
    let last = tasks.pop();
    // Most tasks are awaited where they are made, and so are the last one themselves when they end.
    if let (Some(place), Some(last)) = (tasks.get_mut(at), last) {
        last.task.get().fut().index.set(index);
        *place = last;
    }
}

/// The loop's native tasks that are not done, as a list.
pub(crate) fn list(home: Inst<'_, LoopBase>) -> PyRes<Obj> {
    let tasks = all(home);
    let list = value::list_with(tasks.len())?;
    for (i, task) in tasks.into_iter().enumerate() {
        value::list_init(list.borrow(), i, task.into_obj());
    }
    Ok(list)
}

/// The same.
pub(crate) fn all(home: Inst<'_, LoopBase>) -> Vec<Own<Task>> {
    let tasks = home.tasks.borrow();
    tasks.iter().filter_map(|one| one.task.own()).collect()
}

/// Looks at a task's entry in its loop's list; None if it has none, as it is over or of another loop.
#[inline]
fn listed<T>(task: Inst<'_, Task>, look: impl FnOnce(&mut Listed) -> T) -> Option<T> {
    let at = (task.fut().index.get() as usize).checked_sub(1)?;
    task.fut()
        .home
        .peek()?
        .tasks
        .borrow_mut()
        .get_mut(at)
        .map(look)
}

/// The number of the task that created this one; 0 for none, or when it is over.
#[inline]
pub(crate) fn parent_of(task: Inst<'_, Task>) -> u32 {
    listed(task, |one| one.parent()).unwrap_or(0)
}

/// The request that a task is of; nobody's when it is over.
#[inline]
pub(crate) fn request_of(task: Inst<'_, Task>) -> Key {
    listed(task, |one| one.origin().request).unwrap_or(Key::NONE)
}

/// It is a task of this request, and so are those that it creates from now on.
pub(crate) fn belongs_to(task: Inst<'_, Task>, request: Key) {
    listed(task, |one| {
        if let Some(origin) = one.origin.first_mut() {
            origin.request = request;
        }
    });
}

/// `task.cancel(msg)`: cancels what it waits for, or makes its next step raise CancelledError.
pub(crate) fn cancel(task: Inst<'_, Task>, message: Option<Obj>) -> PyRes<bool> {
    task.fut().log_traceback.set(false);
    if task.fut().done() {
        return Ok(false);
    }
    task.cancels.set(task.cancels.get() + 1);
    if record::on() {
        record::cancelled(task);
    }
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
            if let Some(home) = task.fut().home.get() {
                let due = home.cancel_timer(key);
                home.push(Ready::Step(task.own()));
                drop(due);
            }
            return Ok(true);
        }
        Waiter::CancelledSleep(first) => task.waiter.set(Waiter::CancelledSleep(first)),
    }
    task.must_cancel.set(true);
    task.fut().set_cancel_message(message);
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

/// Whether an exception instance is a CancelledError.
#[inline(always)]
pub(crate) fn is_cancelled(exc: Ref<'_>) -> bool {
    err::exception_is(exc, crate::consts::cancelled_class())
}
