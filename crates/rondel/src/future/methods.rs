//! The Python face of a future: methods, properties, slots.

use super::{
    Callback, Future, Placement, STOCK_STATE, State, add_callback, cancel_plain, fail, finish,
    iter, outcome,
};
use crate::consts::{invalid_state, names, stock};
use crate::event_loop::LoopBase;
use crate::task::Task;
use rondel_ffi::class::{self, TypeBuilder};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::method::{self, Args, MethodDef, PropertyDef, Unary};
use rondel_ffi::{Class, Inst, Obj, Own, PyRes, Raised, Ref, call, context, value};
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

#[cold]
pub(crate) fn uninitialised() -> Raised {
    Builtin::Runtime.raise("Future object is not initialized.")
}

fn check(slf: Inst<'_, Future>) -> PyRes<()> {
    if slf.initialised() {
        Ok(())
    } else {
        Err(uninitialised())
    }
}

/// `Future(*, loop=None)`; also the first half of every subclass's `__init__`.
fn init(slf: Inst<'_, Future>, args: Args<'_>) -> PyRes<()> {
    let [loop_] = args.bind("Future", [names().loop_.borrow()], 0, 0)?;
    init_on(slf, loop_.and_then(Ref::not_none))
}

/// Puts a fresh or re-initialised future on `loop_` (the current one by default).
pub(crate) fn init_on(slf: Inst<'_, Future>, loop_: Option<Ref<'_>>) -> PyRes<()> {
    let loop_ = match loop_ {
        Some(loop_) => loop_.own(),
        None => call::call0(stock().get_event_loop.borrow())?,
    };
    // The native code below us in the stack may have borrowed the old loop from this future: a
    // finalizer can re-initialise any. It lives until a loop polls.
    let old = slf.home.get();
    slf.clear();
    rondel_ffi::gil::release_later(old.map(rondel_ffi::Own::into_obj));
    slf.state.set(State::Pending);
    slf.blocking.set(false);
    let debug = match loop_.borrow().cast::<LoopBase>() {
        Some(home) => {
            slf.home.set(Some(home.own()));
            home.is_debug()
        }
        None => {
            let debug = call::method(names().get_debug.borrow(), [loop_.borrow()])?
                .borrow()
                .truthy()?;
            slf.rare().foreign_loop.set(Some(loop_));
            debug
        }
    };
    if debug {
        super::remember_source(slf)
    } else {
        Ok(())
    }
}

/// Reading the outcome of a future whose `__init__` never ran: the wrong state, as asyncio has it.
fn check_readable(slf: Inst<'_, Future>) -> PyRes<()> {
    if slf.initialised() {
        Ok(())
    } else {
        Err(invalid_state("Future object is not initialized."))
    }
}

fn result(slf: Inst<'_, Future>) -> PyRes<Obj> {
    check_readable(slf)?;
    super::result(slf)
}

fn exception(slf: Inst<'_, Future>) -> PyRes<Obj> {
    check_readable(slf)?;
    match slf.state.get() {
        State::Pending => Err(invalid_state("Exception is not set.")),
        State::Finished => Ok(Obj::none()),
        State::Failed => {
            slf.log_traceback.set(false);
            Ok(slf.result.get().unwrap_or_else(Obj::none))
        }
        State::Cancelled => match outcome(slf)? {
            Ok(_) => Ok(Obj::none()),
            Err(exc) => Err(err::raise_instance(exc.borrow())),
        },
    }
}

fn set_result(slf: Inst<'_, Future>, result: Ref<'_>) -> PyRes<Obj> {
    check(slf)?;
    if slf.done() {
        return Err(invalid_state("invalid state"));
    }
    finish(slf, State::Finished, Some(result.own()))?;
    Ok(Obj::none())
}

/// The C function of [`set_result`].
static SET_RESULT: AtomicUsize = AtomicUsize::new(0);

/// Does what calling `callback` with `result` does, if it is `set_result` of a pending future of this
/// loop: no Python code runs in that, so nobody can tell that no context was entered for it.
#[inline(always)]
pub(crate) fn set_by(
    home: Inst<'_, LoopBase>,
    callback: Ref<'_>,
    result: Ref<'_>,
) -> Option<PyRes<()>> {
    let fut = call::native_self(callback, SET_RESULT.load(Ordering::Relaxed))
        .and_then(Ref::exact::<Future>)
        .filter(|fut| !fut.done() && fut.home.peek().is_some_and(|own| own.obj().is(home.obj())))?;
    // Debug mode looks at the stack for the handles of callbacks, by Python code.
    if home.is_debug() {
        return None;
    }
    Some(finish(fut, State::Finished, Some(result.own())))
}

fn set_exception(slf: Inst<'_, Future>, exc: Ref<'_>) -> PyRes<Obj> {
    check(slf)?;
    if slf.done() {
        return Err(invalid_state("invalid state"));
    }
    let exc = if exc.is_exception_class() {
        call::call0(exc)?
    } else {
        exc.own()
    };
    if !exc.borrow().is_exception() {
        return Err(Builtin::Type.raise("invalid exception object"));
    }
    let exc = if err::exception_is(exc.borrow(), Builtin::StopIteration.class()) {
        stop_iteration(slf, exc.borrow())?
    } else {
        exc
    };
    fail(slf, exc)?;
    Ok(Obj::none())
}

/// A StopIteration can't be raised into a coroutine. What becomes of it changed within the life of
/// 3.11 and 3.12 (gh-112182): it is refused with a TypeError, or replaced by a RuntimeError, and its
/// subclasses are kept or replaced. So the stock Future of this Python is asked.
#[cold]
fn stop_iteration(slf: Inst<'_, Future>, exc: Ref<'_>) -> PyRes<Obj> {
    let event_loop = slf.loop_obj().ok_or_else(uninitialised)?;
    let keyword = value::tuple([names().loop_.clone()])?;
    let asked = call::call_kw(
        stock().future.borrow(),
        &[event_loop.borrow()],
        keyword.borrow(),
    )?;
    call::method(names().set_exception.borrow(), [asked.borrow(), exc])?;
    call::method(names().exception.borrow(), [asked.borrow()])
}

fn done(slf: Inst<'_, Future>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.done()))
}

fn cancelled(slf: Inst<'_, Future>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.state.get() == State::Cancelled))
}

fn get_loop(slf: Inst<'_, Future>) -> PyRes<Obj> {
    slf.loop_obj().ok_or_else(uninitialised)
}

fn cancel(slf: Inst<'_, Future>, args: Args<'_>) -> PyRes<Obj> {
    let [message] = args.bind("cancel", [names().msg.borrow()], 0, 1)?;
    check(slf)?;
    Ok(Obj::bool(cancel_plain(
        slf,
        message.and_then(Ref::not_none).map(Ref::own),
    )?))
}

fn add_done_callback(slf: Inst<'_, Future>, args: Args<'_>) -> PyRes<Obj> {
    let (function, ctx) = if args.len() == 1 && args.keyword_count() == 0 {
        (args.positional()[0], None)
    } else {
        // asyncio names the parameter `fn` and takes it by position only.
        let Some(function) = args.get(0).filter(|_| args.len() == 1) else {
            return Err(
                Builtin::Type.raise("add_done_callback() takes exactly one positional argument")
            );
        };
        let mut ctx = None;
        for i in 0..args.keyword_count() {
            let (name, value) = args.keyword(i);
            if !value::str_is(name, names().context.borrow()) {
                let name = value::str_text(name)?;
                return Err(Builtin::Type.raise(&format!(
                    "add_done_callback() got an unexpected keyword argument '{name}'"
                )));
            }
            ctx = value.not_none();
        }
        (function, ctx)
    };
    check(slf)?;
    let context = match ctx {
        Some(ctx) => ctx.own(),
        None => context::copy_current()?,
    };
    add_callback(
        slf,
        Callback::Python {
            function: function.own(),
            context,
        },
    )?;
    Ok(Obj::none())
}

/// A callback as a user may know it, and whose place in the list it stands for.
enum Known {
    Function {
        function: Obj,
        context: Obj,
    },
    /// A task that waits: its `task_wakeup`.
    Wake(Own<Task>),
    /// One of ours that nobody else can name.
    Other(Obj),
}

impl Known {
    fn of(callback: &Callback) -> Known {
        match callback {
            Callback::Python { function, context } => Known::Function {
                function: function.clone(),
                context: context.clone(),
            },
            Callback::Wake(task) => Known::Wake(task.clone()),
            Callback::Gather(gather) => Known::Other(gather.obj().own()),
            Callback::Group(group) => Known::Other(group.obj().own()),
            Callback::Request(cycle) => Known::Other(cycle.obj().own()),
            Callback::Hop(hop) => Known::Other(hop.obj().own()),
        }
    }
}

/// The callbacks as they are now. Whatever is done with them may run Python code (an allocation may
/// collect garbage), which may change the future's own list.
fn known_callbacks(slf: Inst<'_, Future>) -> Vec<Known> {
    let mut known: Vec<Known> = Vec::new();
    known.extend(slf.first.peek(|first| first.map(Known::of)));
    if let Some(rare) = slf.rare_opt() {
        known.extend(rare.callbacks.borrow().iter().map(Known::of));
    }
    known
}

/// Takes every callback out for which `wanted` says so; the order of the rest stays. `wanted` runs
/// no Python code.
fn take_callbacks(slf: Inst<'_, Future>, wanted: impl Fn(&Callback) -> bool) -> Vec<Callback> {
    let mut rest = Vec::new();
    let mut taken = Vec::new();
    let first = slf.first.take();
    let more = slf.rare_opt().map(|rare| rare.callbacks.take());
    for callback in first.into_iter().chain(more.into_iter().flatten()) {
        if wanted(&callback) {
            taken.push(callback);
        } else {
            rest.push(callback);
        }
    }
    let mut rest = rest.into_iter();
    slf.first.set(rest.next());
    if let Some(rare) = slf.rare_opt() {
        rare.callbacks.borrow_mut().extend(rest);
    }
    taken
}

/// Removes every callback equal to `function`; gives their number.
fn remove_done_callback(slf: Inst<'_, Future>, function: Ref<'_>) -> PyRes<Obj> {
    check(slf)?;
    // Comparing runs Python code, which may change the list: first it is found out what is equal,
    // then what is equal and still there is taken out. Kept alive, an address names one object.
    let mut equal: HashSet<*mut rondel_ffi::private::RawObject> = HashSet::new();
    let known = known_callbacks(slf);
    for callback in &known {
        let (candidate, key) = match callback {
            Known::Function { function, .. } => (function.clone(), function.as_ptr()),
            Known::Wake(task) => (crate::task::bound_wakeup(task.inst())?, task.obj().as_ptr()),
            Known::Other(_) => continue,
        };
        if candidate.borrow().equals(function)? {
            equal.insert(key);
        }
    }
    if equal.is_empty() {
        return value::int(0);
    }
    let taken = take_callbacks(slf, |callback| match callback {
        Callback::Python { function, .. } => equal.contains(&function.as_ptr()),
        Callback::Wake(task) => equal.contains(&task.obj().as_ptr()),
        _ => false,
    });
    value::int(i64::try_from(taken.len()).unwrap_or(i64::MAX))
}

fn make_cancelled_error(slf: Inst<'_, Future>) -> PyRes<Obj> {
    super::make_cancelled_error(slf)
}

fn iterate(slf: Inst<'_, Future>) -> PyRes<Obj> {
    check(slf)?;
    Ok(iter::new(slf)?.into_obj())
}

fn repr(slf: Inst<'_, Future>) -> PyRes<Obj> {
    check(slf)?;
    call::call1(stock().future_repr.borrow(), slf.obj())
}

/// `Future[int]`, for annotations.
pub(crate) fn class_getitem(class: Ref<'_>, item: Ref<'_>) -> PyRes<Obj> {
    call::call(stock().generic_alias.borrow(), &[class, item])
}

// ------------------------------------------------------------------------------- properties

fn get_state(slf: Inst<'_, Future>) -> PyRes<Obj> {
    check(slf)?;
    value::str(match slf.state.get() {
        State::Pending => "PENDING",
        State::Finished | State::Failed => "FINISHED",
        State::Cancelled => "CANCELLED",
    })
}

fn get_blocking(slf: Inst<'_, Future>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.initialised() && slf.blocking.get()))
}

fn set_blocking(slf: Inst<'_, Future>, value: Option<Ref<'_>>) -> PyRes<()> {
    check(slf)?;
    let Some(value) = value else {
        return Err(Builtin::Attribute.raise("cannot delete attribute"));
    };
    slf.blocking.set(value.truthy()?);
    Ok(())
}

fn get_loop_attr(slf: Inst<'_, Future>) -> PyRes<Obj> {
    Ok(slf.loop_obj().unwrap_or_else(Obj::none))
}

/// `[(callback, context), …]`, or `None` without any.
fn get_callbacks(slf: Inst<'_, Future>) -> PyRes<Obj> {
    check(slf)?;
    let known = known_callbacks(slf);
    if known.is_empty() {
        return Ok(Obj::none());
    }
    let list = value::list_with(0)?;
    for callback in known {
        let (function, context) = match callback {
            Known::Function { function, context } => (function, context),
            Known::Wake(task) => (
                crate::task::bound_wakeup(task.inst())?,
                task.context.get().unwrap_or_else(Obj::none),
            ),
            Known::Other(obj) => (obj, Obj::none()),
        };
        let pair = value::tuple([function, context])?;
        value::list_append(list.borrow(), pair.borrow())?;
    }
    Ok(list)
}

fn get_result_attr(slf: Inst<'_, Future>) -> PyRes<Obj> {
    check(slf)?;
    Ok(match slf.state.get() {
        State::Finished => slf.result.get().unwrap_or_else(Obj::none),
        _ => Obj::none(),
    })
}

fn get_exception_attr(slf: Inst<'_, Future>) -> PyRes<Obj> {
    check(slf)?;
    Ok(match slf.state.get() {
        State::Failed => slf.result.get().unwrap_or_else(Obj::none),
        _ => Obj::none(),
    })
}

fn get_log_traceback(slf: Inst<'_, Future>) -> PyRes<Obj> {
    check(slf)?;
    Ok(Obj::bool(slf.log_traceback.get()))
}

fn set_log_traceback(slf: Inst<'_, Future>, value: Option<Ref<'_>>) -> PyRes<()> {
    let Some(value) = value else {
        return Err(Builtin::Attribute.raise("cannot delete attribute"));
    };
    if value.truthy()? {
        return Err(Builtin::Value.raise("_log_traceback can only be set to False"));
    }
    slf.log_traceback.set(false);
    Ok(())
}

fn get_source_traceback(slf: Inst<'_, Future>) -> PyRes<Obj> {
    Ok(slf
        .rare_opt()
        .and_then(|r| r.source_traceback.get())
        .unwrap_or_else(Obj::none))
}

fn get_cancel_message(slf: Inst<'_, Future>) -> PyRes<Obj> {
    Ok(slf.cancel_message().unwrap_or_else(Obj::none))
}

fn set_cancel_message(slf: Inst<'_, Future>, value: Option<Ref<'_>>) -> PyRes<()> {
    slf.set_cancel_message(value.map(Ref::own));
    Ok(())
}

/// `class C(StockSubclass, rondel.Future)`: CPython would lay its instances out as the first base's.
fn init_subclass(class: Ref<'_>, args: Args<'_>) -> PyRes<Obj> {
    let native = if class::derives_from::<Task>(class) {
        class::is_laid_out::<Task>(class)
    } else {
        class::is_laid_out::<Future>(class)
    };
    if !native {
        return Err(Builtin::Type.raise(
            "this class would have the memory of asyncio's own Future or Task; \
             list rondel's class before those that derive from asyncio's",
        ));
    }
    let own = Future::type_object();
    let builtins = call::import(c"builtins")?;
    let find = call::getattr(builtins.borrow(), value::intern(c"super")?.borrow())?;
    let next = call::call(find.borrow(), &[own, class])?;
    let next = call::getattr(next.borrow(), value::intern(c"__init_subclass__")?.borrow())?;
    call::call_args(next.borrow(), &args)
}

pub(crate) fn class_getitem_def() -> MethodDef {
    method::class_method(c"__class_getitem__", c"See PEP 585.", class_getitem)
}

/// The methods a future and a gather share with tasks. Each holds a `Future` at the same offset, which
/// is why one function serves them all.
pub(crate) fn future_methods() -> Vec<MethodDef> {
    vec![
        method::noargs::<Future, _>(
            c"result",
            c"Return the result this future represents.",
            result,
        ),
        method::noargs::<Future, _>(
            c"exception",
            c"Return the exception that was set, or None.",
            exception,
        ),
        method::noargs::<Future, _>(c"done", c"Return True if the future is done.", done),
        method::noargs::<Future, _>(
            c"cancelled",
            c"Return True if the future was cancelled.",
            cancelled,
        ),
        method::noargs::<Future, _>(
            c"get_loop",
            c"Return the event loop the future is bound to.",
            get_loop,
        ),
        method::fast::<Future, _>(
            c"add_done_callback",
            c"add_done_callback($self, fn, /, *, context=None)\n--\n\nAdd a callback to be run when the future is done.",
            add_done_callback,
        ),
        method::onearg::<Future, _>(
            c"remove_done_callback",
            c"remove_done_callback($self, fn, /)\n--\n\nRemove all instances of a callback; return how many.",
            remove_done_callback,
        ),
        method::noargs::<Future, _>(
            c"_make_cancelled_error",
            c"Create the CancelledError to raise if the future is cancelled.",
            make_cancelled_error,
        ),
    ]
}

pub(crate) fn future_properties() -> Vec<PropertyDef> {
    vec![
        method::getter::<Future, _>(c"_state", get_state),
        method::property::<Future, _, _>(c"_asyncio_future_blocking", get_blocking, set_blocking),
        method::getter::<Future, _>(c"_loop", get_loop_attr),
        method::getter::<Future, _>(c"_callbacks", get_callbacks),
        method::getter::<Future, _>(c"_result", get_result_attr),
        method::getter::<Future, _>(c"_exception", get_exception_attr),
        method::property::<Future, _, _>(c"_log_traceback", get_log_traceback, set_log_traceback),
        method::getter::<Future, _>(c"_source_traceback", get_source_traceback),
        method::property::<Future, _, _>(
            c"_cancel_message",
            get_cancel_message,
            set_cancel_message,
        ),
    ]
}

/// Iteration and `await` of a future, a task or a gather.
pub(crate) fn awaited<T: Class>(builder: TypeBuilder<T>) -> TypeBuilder<T> {
    builder
        .with(method::unary::<Future, _>(Unary::Iter, iterate))
        .awaits_itself(method::awaits_itself::<Future, _, _>(
            iter::resume_quickly,
            iter::resume_future,
        ))
        .method(
            method::noargs::<Future, _>(c"__await__", c"Return an iterator for await.", iterate)
                .before_slot(),
        )
}

/// `rondel.Future`, and the iterator of its `await`.
pub(crate) fn build(place: Placement) -> PyRes<Obj> {
    iter::build()?;
    let base = stock().future.clone();
    let builder = TypeBuilder::<Future>::new(c"rondel.Future");
    let set_result = method::onearg::<Future, _>(
        c"set_result",
        c"set_result($self, result, /)\n--\n\nMark the future done and set its result.",
        set_result,
    );
    SET_RESULT.store(set_result.code(), Ordering::Relaxed);
    let mut builder = if place.over {
        builder
            .over(vec![base], place.future)
            .stamp(STOCK_STATE.0, STOCK_STATE.1)
    } else {
        builder.behind(base, place.future)
    };
    builder = builder
        .doc(c"A native asyncio.Future: an eventual result of an asynchronous operation.")
        .subclassable()
        .method(method::class_fast(
            c"__init_subclass__",
            c"Refuse a class laid out as asyncio's.",
            init_subclass,
        ))
        .methods(future_methods())
        .methods([
            set_result,
            method::onearg::<Future, _>(
                c"set_exception",
                c"set_exception($self, exception, /)\n--\n\nMark the future done and set an exception.",
                set_exception,
            ),
            method::fast::<Future, _>(
                c"cancel",
                c"cancel($self, /, msg=None)\n--\n\nCancel the future and schedule callbacks; return False if it was done.",
                cancel,
            ),
            class_getitem_def(),
        ])
        .properties(future_properties())
        .with(method::init::<Future, _>(init))
        .with(method::unary::<Future, _>(Unary::Repr, repr));
    let built = awaited(builder).build()?;
    class::share_init::<Future>(stock().future.borrow())?;
    Ok(built)
}
