//! Between the loop and other threads: `to_thread`, `run_coroutine_threadsafe`, `wrap_future`.
//!
//! A `concurrent.futures.Future` is chained to a native one by hops on the loop's ready queue, each of
//! them where asyncio's `_chain_future` has a `call_soon` or a `call_soon_threadsafe`. What copies an
//! outcome from one to the other is asyncio's own, exact for each version.
//!
//! The callbacks of a thread's future run in whatever thread ends it, with the GIL held; they only push
//! an entry and wake the loop.

use super::coroutine::{self, Coroutine, Machine, Next};
use super::functions;
use super::hops::Hop;
use crate::consts::{names, stock};
use crate::event_loop::{self, LoopBase, Ready};
use crate::future::{self, Callback, Future, State};
use crate::handle::ends_loop;
use crate::pool::{self, call::Work};
use rondel_ffi::class::{ObjCell, TypeBuilder, Visit, alloc};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::method::{self, Args, BoundDef};
use rondel_ffi::{Class, ClassCell, Inst, Obj, PyRes, Ref, call, context, value};
use std::ffi::CStr;
use std::sync::OnceLock;

// --------------------------------------------------------------------------- the hops of a chain

/// asyncio's `_set_concurrent_future_state(concurrent, source)`.
pub(super) fn to_thread_future(thread: Ref<'_>, source: Inst<'_, Future>) -> PyRes<()> {
    let copy = stock().set_concurrent_future_state.borrow();
    call::call(copy, &[thread, source.obj()]).map(|_none| ())
}

/// The future on the loop is done: by a cancel, which goes on to the thread's.
pub(super) fn cancel_thread_future(thread: Ref<'_>, dest: Inst<'_, Future>) -> PyRes<()> {
    if dest.state.get() == State::Cancelled {
        let _requested = call::method(names().cancel.borrow(), [thread])?;
    }
    Ok(())
}

/// asyncio's `_copy_future_state(source, dest)`.
pub(super) fn from_thread_future(thread: Ref<'_>, dest: Inst<'_, Future>) -> PyRes<()> {
    let copy = stock().copy_future_state.borrow();
    call::call(copy, &[thread, dest.obj()]).map(|_none| ())
}

fn cancelled(thread: Ref<'_>) -> PyRes<bool> {
    call::method(names().cancelled.borrow(), [thread])?
        .borrow()
        .truthy()
}

/// The thread's future that a loop's future waits for is done; called in its thread.
fn arrived(dest: Inst<'_, Future>, thread: Ref<'_>) -> PyRes<Obj> {
    let Some(home) = dest.home.get() else {
        return Ok(Obj::none());
    };
    // Nobody is left to hear of it.
    if home
        .check_open()
        .map_err(rondel_ffi::Raised::clear)
        .is_err()
    {
        return Ok(Obj::none());
    }
    home.push(Ready::Hop(Hop::FromThread(thread.own()), dest.own()));
    home.wake();
    Ok(Obj::none())
}

fn arrived_def() -> &'static BoundDef {
    static DEF: OnceLock<BoundDef> = OnceLock::new();
    DEF.get_or_init(|| {
        BoundDef::new(method::onearg::<Future, _>(
            c"_call_set_state",
            c"Take the outcome of a thread's future over.",
            arrived,
        ))
    })
}

/// The thread's future that stands for a task is done: by a cancel, which goes on to the task.
fn abandoned(task: Inst<'_, Future>, thread: Ref<'_>) -> PyRes<Obj> {
    if cancelled(thread)?
        && let Some(loop_) = task.loop_obj()
    {
        let cancel = call::getattr(task.obj(), names().cancel.borrow())?;
        let soon = names().call_soon_threadsafe.borrow();
        let _handle = call::method(soon, [loop_.borrow(), cancel.borrow()])?;
    }
    Ok(Obj::none())
}

fn abandoned_def() -> &'static BoundDef {
    static DEF: OnceLock<BoundDef> = OnceLock::new();
    DEF.get_or_init(|| {
        BoundDef::new(method::onearg::<Future, _>(
            c"_call_check_cancel",
            c"Cancel the task if the thread's future was cancelled.",
            abandoned,
        ))
    })
}

// ------------------------------------------------------------------------------------ wrap_future

/// `wrap_future(future, *, loop=None)`.
pub(super) fn wrap_future(args: Args<'_>) -> PyRes<Obj> {
    let params = [names().future.borrow(), names().loop_.borrow()];
    let [future, loop_] = args.bind("wrap_future", params, 1, 1)?;
    let home = match loop_.and_then(Ref::not_none) {
        Some(loop_) => loop_.cast::<LoopBase>().map(Inst::own),
        None => event_loop::running(),
    };
    let (Some(future), Some(home)) = (future, home) else {
        return call::call_args(stock().wrap_future.borrow(), &args);
    };
    if future::native(future).is_some() {
        return Ok(future.own());
    }
    if !future.is_instance(stock().concurrent_future.borrow())? {
        return call::call_args(stock().wrap_future.borrow(), &args);
    }
    // The loop may be a subclass with futures of its own.
    let made = call::method(names().create_future.borrow(), [home.obj()])?;
    let Some(native) = future::native(made.borrow()) else {
        let chain = stock().chain_future.borrow();
        call::call(chain, &[future, made.borrow()])?;
        return Ok(made);
    };
    future::add_callback(native, Callback::Hop(Hop::CancelThread(future.own())))?;
    let arrived = method::bind(arrived_def(), native.obj())?;
    let add = names().add_done_callback.borrow();
    let _none = call::method(add, [future, arrived.borrow()])?;
    Ok(made)
}

// ----------------------------------------------------------------------- run_coroutine_threadsafe

/// A coroutine on its way to a loop.
#[derive(Default)]
struct Submission {
    coro: ObjCell,
    thread: ObjCell,
    loop_: ObjCell,
}

static SUBMISSION: ClassCell = ClassCell::new();

impl Class for Submission {
    fn cell() -> &'static ClassCell {
        &SUBMISSION
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.coro);
        visit.cell(&self.thread);
        visit.cell(&self.loop_);
    }
    fn clear(&self) {
        self.coro.set(None);
        self.thread.set(None);
        self.loop_.set(None);
    }
}

/// `run_coroutine_threadsafe(coro, loop)`.
pub(super) fn run_coroutine_threadsafe(args: Args<'_>) -> PyRes<Obj> {
    let params = [names().coro.borrow(), names().loop_.borrow()];
    let [coro, loop_] = args.bind("run_coroutine_threadsafe", params, 2, 2)?;
    let (Some(coro), Some(loop_)) = (coro, loop_.filter(|l| l.cast::<LoopBase>().is_some())) else {
        return call::call_args(stock().run_coroutine_threadsafe.borrow(), &args);
    };
    if !call::is_coroutine(coro)
        && !call::call1(stock().iscoroutine.borrow(), coro)?
            .borrow()
            .truthy()?
    {
        return Err(Builtin::Type.raise("A coroutine object is required"));
    }
    let thread = call::call0(stock().concurrent_future.borrow())?;
    let submission = alloc(
        Submission {
            coro: ObjCell::new(Some(coro.own())),
            thread: ObjCell::new(Some(thread.clone())),
            loop_: ObjCell::new(Some(loop_.own())),
        },
        true,
    )?;
    let callback = method::bind(submit_def(), submission.obj())?;
    let soon = names().call_soon_threadsafe.borrow();
    let _handle = call::method(soon, [loop_, callback.borrow()])?;
    Ok(thread)
}

fn submit_def() -> &'static BoundDef {
    static DEF: OnceLock<BoundDef> = OnceLock::new();
    DEF.get_or_init(|| {
        BoundDef::new(method::noargs::<Submission, _>(
            c"run_coroutine_threadsafe",
            c"Make the coroutine a task of the loop.",
            submit,
        ))
    })
}

/// On the loop: the task, chained to the thread's future.
fn submit(slf: Inst<'_, Submission>) -> PyRes<Obj> {
    let (Some(coro), Some(thread), Some(loop_)) =
        (slf.coro.take(), slf.thread.take(), slf.loop_.take())
    else {
        return Ok(Obj::none());
    };
    let Err(raised) = start_task(coro.borrow(), thread.borrow(), loop_.borrow()) else {
        return Ok(Obj::none());
    };
    let exc = raised.fetch();
    if !ends_loop(exc.borrow()) {
        let wanted = call::method(
            names().set_running_or_notify_cancel.borrow(),
            [thread.borrow()],
        )?;
        if wanted.borrow().truthy()? {
            let set = names().set_exception.borrow();
            let _none = call::method(set, [thread.borrow(), exc.borrow()])?;
        }
    }
    Err(err::raise_instance(exc.borrow()))
}

fn start_task(coro: Ref<'_>, thread: Ref<'_>, loop_: Ref<'_>) -> PyRes<()> {
    let Some(home) = loop_.cast::<LoopBase>() else {
        return Ok(());
    };
    let task = functions::ensure_on(home, coro)?;
    let Some(native) = future::native(task.borrow()) else {
        let chain = stock().chain_future.borrow();
        return call::call(chain, &[task.borrow(), thread]).map(|_none| ());
    };
    let abandoned = method::bind(abandoned_def(), native.obj())?;
    let add = names().add_done_callback.borrow();
    let _none = call::method(add, [thread, abandoned.borrow()])?;
    future::add_callback(native, Callback::Hop(Hop::ToThread(thread.own())))
}

// -------------------------------------------------------------------------------------- to_thread

/// `to_thread(func, /, *args, **kwargs)`.
#[derive(Default)]
pub(crate) struct ToThread {
    func: ObjCell,
    /// A tuple.
    args: ObjCell,
    /// A dict, if there are any.
    kwargs: ObjCell,
}

static CELL: ClassCell = ClassCell::new();

/// `to_thread(func, /, *args, **kwargs)`.
pub(super) fn to_thread(args: Args<'_>) -> PyRes<Obj> {
    if args.is_empty() {
        return call::call_args(stock().to_thread.borrow(), &args);
    }
    let kwargs = if args.keyword_count() == 0 {
        None
    } else {
        let kwargs = value::dict()?;
        for i in 0..args.keyword_count() {
            let (name, value) = args.keyword(i);
            value::dict_set(kwargs.borrow(), name, value)?;
        }
        Some(kwargs)
    };
    let [func, rest @ ..] = args.positional() else {
        return call::call_args(stock().to_thread.borrow(), &args);
    };
    let rest = value::tuple_of(rest)?;
    coroutine::new(|| ToThread {
        func: ObjCell::new(Some(func.own())),
        args: ObjCell::new(Some(rest)),
        kwargs: ObjCell::new(kwargs),
    })
}

impl Machine for ToThread {
    const NAME: &'static str = "to_thread";
    const TYPE: &'static CStr = c"rondel.to_thread_coroutine";

    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.func);
        visit.cell(&self.args);
        visit.cell(&self.kwargs);
    }
    fn clear(&self) {
        self.func.set(None);
        self.args.set(None);
        self.kwargs.set(None);
    }
    fn start(slf: Inst<'_, Coroutine<Self>>) -> Next {
        match hand_out(&slf.data().body) {
            Ok(future) => Next::Await(future),
            Err(raised) => Next::Raise(raised),
        }
    }
    fn resume(_slf: Inst<'_, Coroutine<Self>>, outcome: Result<Obj, Obj>) -> Next {
        match outcome {
            Ok(value) => Next::Return(value),
            Err(exc) => Next::raise(exc),
        }
    }
}

/// `loop.run_in_executor(None, partial(context.run, func, *args, **kwargs))`; without the detours, where
/// the loop's own executor serves it.
fn hand_out(body: &ToThread) -> PyRes<Obj> {
    let home = event_loop::running();
    let func = body.func.take().unwrap_or_else(Obj::none);
    let args = body.args.take().map_or_else(|| value::tuple([]), Ok)?;
    let kwargs = body.kwargs.take();
    let context = context::copy_current()?;
    if let Some(home) = &home {
        let work = || {
            Ok(Work {
                func: func.clone(),
                args: args.clone(),
                kwargs: kwargs.clone(),
                context: Some(context.clone()),
            })
        };
        if let Some(future) = pool::call::to_thread(home.inst(), work)? {
            return Ok(future);
        }
    }
    let loop_ = match home {
        Some(home) => home.into_obj(),
        None => call::call0(stock().get_running_loop.borrow())?,
    };
    let mut vector = vec![call::getattr(context.borrow(), names().run.borrow())?, func];
    value::for_each(args.borrow(), |arg| {
        vector.push(arg);
        Ok(())
    })?;
    let vector: Vec<Ref<'_>> = vector.iter().map(Obj::borrow).collect();
    let args = value::tuple_of(&vector)?;
    let work = call::call_tuple(
        stock().partial.borrow(),
        args.borrow(),
        kwargs.as_ref().map(Obj::borrow),
    )?;
    let none = Obj::none();
    call::method(
        names().run_in_executor.borrow(),
        [loop_.borrow(), none.borrow(), work.borrow()],
    )
}

/// Builds the types.
pub(super) fn build() -> PyRes<()> {
    TypeBuilder::<Submission>::new(c"rondel.submission").build()?;
    coroutine::build::<ToThread>()?;
    Ok(())
}
