//! What the extension looks up once: interned names and the stock asyncio objects it stands beside.
//!
//! Filled at import, kept for the interpreter's life, read with the GIL held.

use rondel_ffi::gil::GilStatic;
use rondel_ffi::{Obj, PyRes, Ref, call, value};

macro_rules! names {
    ($($field:ident = $text:literal),* $(,)?) => {
        /// Interned attribute, method and keyword names.
        pub(crate) struct Names { $(pub(crate) $field: Obj),* }
        impl Names {
            fn load() -> PyRes<Names> {
                Ok(Names { $($field: value::intern($text)?),* })
            }
        }
    };
}

names! {
    acquire = c"acquire",
    add_done_callback = c"add_done_callback",
    append = c"append",
    asyncio_future_blocking = c"_asyncio_future_blocking",
    buffer_updated = c"buffer_updated",
    call_exception_handler = c"call_exception_handler",
    call_soon = c"call_soon",
    cancel = c"cancel",
    close = c"close",
    connection_lost = c"connection_lost",
    context = c"context",
    co_filename = c"co_filename",
    co_qualname = c"co_qualname",
    coro = c"coro",
    create_future = c"create_future",
    create_task = c"create_task",
    data_received = c"data_received",
    debug = c"debug",
    delay = c"delay",
    arg = c"arg",
    args = c"args",
    call_soon_threadsafe = c"call_soon_threadsafe",
    cancelled = c"cancelled",
    done = c"done",
    dunder_code = c"__code__",
    dunder_func = c"__func__",
    dunder_name = c"__name__",
    dunder_qualname = c"__qualname__",
    eager_start = c"eager_start",
    eof_received = c"eof_received",
    exception = c"exception",
    filename = c"filename",
    fs = c"fs",
    func = c"func",
    fut = c"fut",
    future = c"future",
    get_buffer = c"get_buffer",
    get_debug = c"get_debug",
    get_loop = c"get_loop",
    get_loop_bound = c"_get_loop",
    handle = c"handle",
    item = c"item",
    limit = c"limit",
    lineno = c"lineno",
    locked = c"locked",
    loop_ = c"loop",
    maxsize = c"maxsize",
    message = c"message",
    msg = c"msg",
    n = c"n",
    name = c"name",
    pause_writing = c"pause_writing",
    pop = c"pop",
    popleft = c"popleft",
    predicate = c"predicate",
    release = c"release",
    remove = c"remove",
    remove_done_callback = c"remove_done_callback",
    result = c"result",
    resume_writing = c"resume_writing",
    return_exceptions = c"return_exceptions",
    return_when = c"return_when",
    run = c"run",
    run_in_executor = c"run_in_executor",
    set_exception = c"set_exception",
    set_result = c"set_result",
    set_running_or_notify_cancel = c"set_running_or_notify_cancel",
    send = c"send",
    source_traceback = c"source_traceback",
    task = c"task",
    throw = c"throw",
    timeout = c"timeout",
    when = c"when",
}

/// asyncio's own objects.
pub(crate) struct Stock {
    pub(crate) future: Obj,
    pub(crate) task: Obj,
    pub(crate) cancelled_error: Obj,
    pub(crate) invalid_state_error: Obj,
    pub(crate) get_event_loop: Obj,
    pub(crate) iscoroutine: Obj,
    /// `asyncio.tasks._current_tasks`: what stock `current_task()` reads before 3.14.
    pub(crate) current_tasks: Option<Obj>,
    /// 3.14+: `_asyncio._swap_current_task(loop, task)`.
    pub(crate) swap_current_task: Option<Obj>,
    pub(crate) future_repr: Obj,
    pub(crate) task_repr: Obj,
    pub(crate) task_get_stack: Obj,
    pub(crate) task_print_stack: Obj,
    /// asyncio's, for handles: ten frames, their lines read when asked for.
    pub(crate) extract_stack: Obj,
    /// `traceback`'s, for futures.
    pub(crate) whole_stack: Obj,
    pub(crate) generic_alias: Obj,
    /// The stock functions that native ones hand over to on a loop that is not Rondel's.
    pub(crate) sleep: Obj,
    pub(crate) gather: Obj,
    pub(crate) create_task: Obj,
    pub(crate) ensure_future: Obj,
    pub(crate) current_task: Obj,
    pub(crate) timeout: Obj,
    pub(crate) timeout_at: Obj,
    pub(crate) timeout_class: Obj,
    /// asyncio's `Timeout` compares with the cancel requests that were there on entry, and says what
    /// the TimeoutError comes from.
    pub(crate) timeout_compares: bool,
    pub(crate) isfuture: Obj,
    pub(crate) get_running_loop: Obj,
    pub(crate) stop_async_iteration: Obj,
    pub(crate) wait: Obj,
    pub(crate) wait_for: Obj,
    pub(crate) as_completed: Obj,
    pub(crate) shield: Obj,
    /// asyncio's `shield` tells the exception handler what a cancelled one's inner future raises.
    pub(crate) shield_reports: bool,
    pub(crate) to_thread: Obj,
    pub(crate) run_coroutine_threadsafe: Obj,
    pub(crate) wrap_future: Obj,
    /// 3.12+.
    pub(crate) eager_task_factory: Option<Obj>,
    /// What the native locks and queues stand beside.
    pub(crate) deque: Obj,
    pub(crate) lock: Obj,
    pub(crate) event: Obj,
    pub(crate) semaphore: Obj,
    pub(crate) condition: Obj,
    pub(crate) barrier: Obj,
    pub(crate) queue: Obj,
    /// asyncio's semaphore wakes as many as it has room for when one of them goes on.
    pub(crate) semaphore_fills_up: bool,
    /// asyncio's condition passes a notification on when the wait that got it fails (3.13, and later
    /// patches of 3.12).
    pub(crate) condition_passes_on: bool,
    /// `asyncio.futures`' private functions, which know each version's conversions.
    pub(crate) chain_future: Obj,
    pub(crate) copy_future_state: Obj,
    pub(crate) set_concurrent_future_state: Obj,
    pub(crate) concurrent_future: Obj,
    pub(crate) partial: Obj,
    pub(crate) isawaitable: Obj,
    /// The values of `return_when`.
    pub(crate) first_completed: Obj,
    pub(crate) first_exception: Obj,
    pub(crate) all_completed: Obj,
    pub(crate) kw_context: Obj,
    pub(crate) kw_loop: Obj,
    pub(crate) empty_bytes: Obj,
}

pub(crate) struct Consts {
    pub(crate) names: Names,
    pub(crate) stock: Stock,
}

static CONSTS: GilStatic<Consts> = GilStatic::new();

fn attr(module: &Obj, name: &std::ffi::CStr) -> PyRes<Obj> {
    call::getattr(module.borrow(), value::intern(name)?.borrow())
}

fn attr_opt(module: &Obj, name: &std::ffi::CStr) -> PyRes<Option<Obj>> {
    call::getattr_opt(module.borrow(), value::intern(name)?.borrow())
}

/// Whether a Python function defines an inner one of that name: how a release is known whose
/// behaviour has no other mark.
fn has_inner_function(function: &Obj, name: &str) -> PyRes<bool> {
    let code = attr(function, c"__code__")?;
    let constants = attr(&code, c"co_consts")?;
    let mut found = false;
    value::for_each(constants.borrow(), |constant| {
        if let Some(inner) = attr_opt(&constant, c"co_name")? {
            found |= value::str_text(inner.borrow())? == name;
        }
        Ok(())
    })?;
    Ok(found)
}

/// Whether a Python function has that object among its constants: `_wake_up_next` says False for
/// "nobody" in the releases that ask it.
fn has_constant(function: &Obj, constant: Ref<'_>) -> PyRes<bool> {
    let code = attr(function, c"__code__")?;
    let constants = attr(&code, c"co_consts")?;
    value::any(constants.borrow(), |found| Ok(found.is(constant)))
}

/// Whether a Python function uses a global or an attribute of that name.
fn names_attribute(function: &Obj, name: &str) -> PyRes<bool> {
    let code = attr(function, c"__code__")?;
    let used = attr(&code, c"co_names")?;
    value::any(used.borrow(), |found| Ok(value::str_text(found)? == name))
}

/// Looks everything up; called by the module's initialisation.
pub(crate) fn load() -> PyRes<()> {
    let names = Names::load()?;
    let accelerated = call::import(c"_asyncio")?;
    let tasks = call::import(c"asyncio.tasks")?;
    let events = call::import(c"asyncio.events")?;
    let exceptions = call::import(c"asyncio.exceptions")?;
    let futures = call::import(c"asyncio.futures")?;
    let base_futures = call::import(c"asyncio.base_futures")?;
    let base_tasks = call::import(c"asyncio.base_tasks")?;
    let format_helpers = call::import(c"asyncio.format_helpers")?;
    let timeouts = call::import(c"asyncio.timeouts")?;
    let coroutines = call::import(c"asyncio.coroutines")?;
    let types = call::import(c"types")?;
    let locks = call::import(c"asyncio.locks")?;
    let semaphore = attr(&locks, c"Semaphore")?;
    let condition = attr(&locks, c"Condition")?;
    let stock = Stock {
        future: attr(&accelerated, c"Future")?,
        task: attr(&accelerated, c"Task")?,
        cancelled_error: attr(&exceptions, c"CancelledError")?,
        invalid_state_error: attr(&exceptions, c"InvalidStateError")?,
        get_event_loop: attr(&events, c"get_event_loop")?,
        iscoroutine: attr(&coroutines, c"iscoroutine")?,
        current_tasks: if cfg!(Py_3_14) {
            None
        } else {
            attr_opt(&tasks, c"_current_tasks")?
        },
        swap_current_task: if cfg!(Py_3_14) {
            attr_opt(&accelerated, c"_swap_current_task")?
        } else {
            None
        },
        future_repr: attr(&base_futures, c"_future_repr")?,
        task_repr: attr(&base_tasks, c"_task_repr")?,
        task_get_stack: attr(&base_tasks, c"_task_get_stack")?,
        task_print_stack: attr(&base_tasks, c"_task_print_stack")?,
        extract_stack: attr(&format_helpers, c"extract_stack")?,
        whole_stack: attr(&call::import(c"traceback")?, c"extract_stack")?,
        generic_alias: attr(&types, c"GenericAlias")?,
        sleep: attr(&tasks, c"sleep")?,
        gather: attr(&tasks, c"gather")?,
        create_task: attr(&tasks, c"create_task")?,
        ensure_future: attr(&tasks, c"ensure_future")?,
        current_task: attr(&tasks, c"current_task")?,
        timeout: attr(&timeouts, c"timeout")?,
        timeout_at: attr(&timeouts, c"timeout_at")?,
        timeout_compares: names_attribute(
            &attr(&attr(&timeouts, c"Timeout")?, c"__aexit__")?,
            "_cancelling",
        )?,
        timeout_class: attr(&timeouts, c"Timeout")?,
        get_running_loop: attr(&events, c"get_running_loop")?,
        stop_async_iteration: attr(&call::import(c"builtins")?, c"StopAsyncIteration")?,
        isfuture: attr(&base_futures, c"isfuture")?,
        wait: attr(&tasks, c"wait")?,
        wait_for: attr(&tasks, c"wait_for")?,
        as_completed: attr(&tasks, c"as_completed")?,
        shield_reports: has_inner_function(&attr(&tasks, c"shield")?, "_log_on_exception")?,
        shield: attr(&tasks, c"shield")?,
        to_thread: attr(&call::import(c"asyncio.threads")?, c"to_thread")?,
        run_coroutine_threadsafe: attr(&tasks, c"run_coroutine_threadsafe")?,
        wrap_future: attr(&futures, c"wrap_future")?,
        eager_task_factory: attr_opt(&tasks, c"eager_task_factory")?,
        deque: attr(&call::import(c"collections")?, c"deque")?,
        queue: attr(&call::import(c"asyncio.queues")?, c"Queue")?,
        lock: attr(&locks, c"Lock")?,
        event: attr(&locks, c"Event")?,
        semaphore_fills_up: has_constant(
            &attr(&semaphore, c"_wake_up_next")?,
            Obj::bool(false).borrow(),
        )?,
        semaphore,
        condition_passes_on: attr_opt(&condition, c"_notify")?.is_some(),
        condition,
        barrier: attr(&locks, c"Barrier")?,
        chain_future: attr(&futures, c"_chain_future")?,
        copy_future_state: attr(&futures, c"_copy_future_state")?,
        set_concurrent_future_state: attr(&futures, c"_set_concurrent_future_state")?,
        concurrent_future: attr(&call::import(c"concurrent.futures")?, c"Future")?,
        partial: attr(&call::import(c"functools")?, c"partial")?,
        isawaitable: attr(&call::import(c"inspect")?, c"isawaitable")?,
        first_completed: attr(&tasks, c"FIRST_COMPLETED")?,
        first_exception: attr(&tasks, c"FIRST_EXCEPTION")?,
        all_completed: attr(&tasks, c"ALL_COMPLETED")?,
        kw_context: value::tuple([names.context.clone()])?,
        kw_loop: value::tuple([names.loop_.clone()])?,
        empty_bytes: value::bytes(b"")?,
    };
    CONSTS.set(Consts { names, stock });
    Ok(())
}

#[inline(always)]
fn consts() -> &'static Consts {
    CONSTS
        .get()
        .expect("filled by the module's initialisation, before any type exists")
}

#[inline(always)]
pub(crate) fn names() -> &'static Names {
    &consts().names
}

#[inline(always)]
pub(crate) fn stock() -> &'static Stock {
    &consts().stock
}

/// `asyncio.CancelledError`.
#[inline(always)]
pub(crate) fn cancelled_class() -> Ref<'static> {
    stock().cancelled_error.borrow()
}

/// Raises `asyncio.InvalidStateError`.
#[cold]
pub(crate) fn invalid_state(message: &str) -> rondel_ffi::Raised {
    rondel_ffi::err::raise_str(stock().invalid_state_error.borrow(), message)
}
