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
    add_done_callback = c"add_done_callback",
    asyncio_future_blocking = c"_asyncio_future_blocking",
    buffer_updated = c"buffer_updated",
    call_exception_handler = c"call_exception_handler",
    call_soon = c"call_soon",
    cancel = c"cancel",
    close = c"close",
    connection_lost = c"connection_lost",
    context = c"context",
    coro = c"coro",
    create_task = c"create_task",
    data_received = c"data_received",
    delay = c"delay",
    done = c"done",
    eager_start = c"eager_start",
    eof_received = c"eof_received",
    exception = c"exception",
    future = c"future",
    get_buffer = c"get_buffer",
    get_debug = c"get_debug",
    get_loop = c"get_loop",
    handle = c"handle",
    limit = c"limit",
    loop_ = c"loop",
    message = c"message",
    msg = c"msg",
    name = c"name",
    pause_writing = c"pause_writing",
    result = c"result",
    resume_writing = c"resume_writing",
    return_exceptions = c"return_exceptions",
    send = c"send",
    source_traceback = c"source_traceback",
    task = c"task",
    throw = c"throw",
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
    pub(crate) extract_stack: Obj,
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
    pub(crate) kw_context: Obj,
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

/// Looks everything up; called by the module's initialisation.
pub(crate) fn load() -> PyRes<()> {
    let names = Names::load()?;
    let accelerated = call::import(c"_asyncio")?;
    let tasks = call::import(c"asyncio.tasks")?;
    let events = call::import(c"asyncio.events")?;
    let exceptions = call::import(c"asyncio.exceptions")?;
    let base_futures = call::import(c"asyncio.base_futures")?;
    let base_tasks = call::import(c"asyncio.base_tasks")?;
    let format_helpers = call::import(c"asyncio.format_helpers")?;
    let timeouts = call::import(c"asyncio.timeouts")?;
    let coroutines = call::import(c"asyncio.coroutines")?;
    let types = call::import(c"types")?;
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
        generic_alias: attr(&types, c"GenericAlias")?,
        sleep: attr(&tasks, c"sleep")?,
        gather: attr(&tasks, c"gather")?,
        create_task: attr(&tasks, c"create_task")?,
        ensure_future: attr(&tasks, c"ensure_future")?,
        current_task: attr(&tasks, c"current_task")?,
        timeout: attr(&timeouts, c"timeout")?,
        timeout_at: attr(&timeouts, c"timeout_at")?,
        timeout_class: attr(&timeouts, c"Timeout")?,
        kw_context: value::tuple([names.context.clone()])?,
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
