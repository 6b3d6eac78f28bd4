//! Native coroutines: what asyncio defines with `async def`, without a frame.
//!
//! A [`Machine`] says what happens at its start and after each wait; [`Coroutine`] is the Python object
//! around it, which behaves as a coroutine object: it acts only when it is driven, warns when it never
//! was, runs its clean-up when it is closed or dropped while it waits, and refuses a second run.
//!
//! ```text
//!  Created ── send ──► Running ── Wait/Await ──► Suspended ── send, throw, close ──► Running …
//!     │ dropped: warns    └──────── Return/Raise ────► Over         │ dropped: closed
//! ```
//!
//! A machine runs Python code only where it says so and holds no borrow meanwhile. It runs with the
//! GIL held, in the thread of whoever drives it; under a stock task or on a stock loop it works as
//! well, since a native future follows asyncio's protocol there.

use crate::consts::names;
use crate::future::{self, Future};
use crate::watch;
use rondel_ffi::call::{self, Sent};
use rondel_ffi::class::{TypeBuilder, Visit, alloc_with, peek};
use rondel_ffi::err::{self, Builtin, Raised};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::gil::GilStatic;
use rondel_ffi::method::{self, Args, Unary};
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Ref, value};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CStr;

/// What a machine does next.
pub(crate) enum Next {
    /// Waits for a native future; `resume` is given its outcome (at once if it is done).
    Wait(Own<Future>),
    /// Awaits any awaitable, as `await` does; `resume` is given its outcome.
    Await(Obj),
    Return(Obj),
    Raise(Raised),
}

impl Next {
    /// Raises an exception instance.
    pub(crate) fn raise(exc: Obj) -> Next {
        Next::Raise(err::raise_instance(exc.borrow()))
    }

    /// Returns the value, or raises.
    pub(crate) fn from_result(result: PyRes<Obj>) -> Next {
        match result {
            Ok(value) => Next::Return(value),
            Err(raised) => Next::Raise(raised),
        }
    }
}

/// The body of a native coroutine.
pub(crate) trait Machine: Default + 'static {
    /// Its `__qualname__`: `Lock.acquire`.
    const NAME: &'static str;
    /// The type's dotted name: `rondel.Lock_acquire`.
    const TYPE: &'static CStr;

    fn cell() -> &'static ClassCell;
    fn freelist() -> Option<&'static FreeList> {
        None
    }
    /// Shows the collector every reference held.
    fn traverse(&self, visit: &mut Visit);
    /// Releases every reference held.
    fn clear(&self);
    /// Runs from the beginning to the first wait.
    fn start(slf: Inst<'_, Coroutine<Self>>) -> Next;
    /// Goes on after a wait: with the value, or with an exception (what was waited for failed, or
    /// somebody threw it in; a close throws GeneratorExit).
    fn resume(slf: Inst<'_, Coroutine<Self>>, outcome: Result<Obj, Obj>) -> Next;
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Created,
    Running,
    Suspended,
    Over,
}

#[derive(Default)]
enum Waiting {
    #[default]
    Nothing,
    Future(Own<Future>),
    /// The iterator of an awaitable.
    Inner(Obj),
    /// Nothing yet, and where it was created, if that was asked for.
    Origin(Obj),
}

#[derive(Default)]
pub(crate) struct Coroutine<M: Machine> {
    pub(crate) body: M,
    stage: Cell<Stage>,
    waiting: Cell<Waiting>,
}

impl<M: Machine> Class for Coroutine<M> {
    fn cell() -> &'static ClassCell {
        M::cell()
    }
    fn traverse(&self, visit: &mut Visit) {
        self.body.traverse(visit);
        peek(&self.waiting, |waiting| match waiting {
            Waiting::Nothing => {}
            Waiting::Future(future) => visit.obj(future.obj()),
            Waiting::Inner(obj) | Waiting::Origin(obj) => visit.obj(obj.borrow()),
        });
    }
    fn clear(&self) {
        self.stage.set(Stage::Over);
        drop(self.waiting.take());
        self.body.clear();
    }
    fn retire(&self) {
        self.stage.set(Stage::Over);
    }
    fn needs_finalize(slf: Inst<'_, Self>) -> bool {
        matches!(slf.stage.get(), Stage::Created | Stage::Suspended)
    }
    fn finalize(slf: Inst<'_, Self>) {
        if slf.stage.get() == Stage::Created {
            slf.stage.set(Stage::Over);
            watch::never_awaited(slf.obj());
        } else if let Err(raised) = close(slf) {
            raised.unraisable(Some(slf.obj()));
        }
    }
    fn freelist() -> Option<&'static FreeList> {
        M::freelist()
    }
}

/// Makes the coroutine, its body in place. The collector sees it from the start: whoever keeps one without awaiting it
/// may be what it holds (`queue.pending = queue.get()`).
#[inline(always)]
pub(crate) fn new<M: Machine>(body: impl FnOnce() -> M) -> PyRes<Obj> {
    let origin = if watch::traces_origins() {
        watch::coroutine_origin()?
    } else {
        None
    };
    let coroutine = || Coroutine {
        body: body(),
        stage: Cell::new(Stage::Created),
        waiting: Cell::new(origin.map_or(Waiting::Nothing, Waiting::Origin)),
    };
    Ok(alloc_with(coroutine, true)?.into_obj())
}

/// Resumes with a value sent in.
#[inline(always)]
fn resume<M: Machine>(slf: Inst<'_, Coroutine<M>>, sent: Ref<'_>) -> Sent {
    match slf.stage.get() {
        Stage::Created => {
            slf.stage.set(Stage::Running);
            advance(slf, M::start(slf))
        }
        Stage::Suspended => {
            slf.stage.set(Stage::Running);
            match slf.waiting.take() {
                Waiting::Nothing | Waiting::Origin(_) => {
                    advance(slf, M::resume(slf, Ok(Obj::none())))
                }
                Waiting::Future(waited) => {
                    if waited.done() {
                        after_future(slf, &waited)
                    } else {
                        // Whoever drives this has not taken the future for what it is.
                        let misuse = Builtin::Runtime.raise("await wasn't used with future");
                        advance(slf, M::resume(slf, Err(misuse.fetch())))
                    }
                }
                Waiting::Inner(inner) => {
                    let out = if sent.is_none() {
                        call::send_none(inner.borrow())
                    } else {
                        match call::method(names().send.borrow(), [inner.borrow(), sent]) {
                            Ok(value) => Sent::Yielded(value),
                            Err(raised) => call::stop_value(raised),
                        }
                    };
                    after_inner(slf, inner, out)
                }
            }
        }
        stage => refuse(stage),
    }
}

#[cold]
fn refuse(stage: Stage) -> Sent {
    Sent::Raised(if stage == Stage::Running {
        Builtin::Value.raise("coroutine already executing")
    } else {
        Builtin::Runtime.raise("cannot reuse already awaited coroutine")
    })
}

#[inline(always)]
fn after_future<M: Machine>(slf: Inst<'_, Coroutine<M>>, waited: &Own<Future>) -> Sent {
    match future::outcome(waited.inst()) {
        Ok(outcome) => advance(slf, M::resume(slf, outcome)),
        Err(raised) => advance(slf, M::resume(slf, Err(raised.fetch()))),
    }
}

/// What the inner iterator gave: passed on, or the outcome of the wait.
fn after_inner<M: Machine>(slf: Inst<'_, Coroutine<M>>, inner: Obj, out: Sent) -> Sent {
    match out {
        Sent::Yielded(value) => {
            slf.waiting.set(Waiting::Inner(inner));
            suspend(slf);
            Sent::Yielded(value)
        }
        Sent::Returned(value) => advance(slf, M::resume(slf, Ok(value))),
        Sent::Raised(raised) => advance(slf, M::resume(slf, Err(raised.fetch()))),
    }
}

#[inline(always)]
fn suspend<M: Machine>(slf: Inst<'_, Coroutine<M>>) {
    slf.stage.set(Stage::Suspended);
}

#[inline(always)]
fn advance<M: Machine>(slf: Inst<'_, Coroutine<M>>, mut next: Next) -> Sent {
    loop {
        next = match next {
            Next::Return(value) => {
                slf.stage.set(Stage::Over);
                return Sent::Returned(value);
            }
            Next::Raise(raised) => {
                slf.stage.set(Stage::Over);
                return Sent::Raised(raised);
            }
            Next::Wait(waited) => {
                if waited.done() {
                    match future::outcome(waited.inst()) {
                        Ok(outcome) => M::resume(slf, outcome),
                        Err(raised) => M::resume(slf, Err(raised.fetch())),
                    }
                } else {
                    waited.blocking.set(true);
                    slf.waiting.set(Waiting::Future(waited.clone()));
                    suspend(slf);
                    return Sent::Yielded(waited.into_obj());
                }
            }
            Next::Await(awaitable) => match call::awaitable_iter(awaitable.borrow()) {
                Ok(inner) => match call::send_none(inner.borrow()) {
                    Sent::Yielded(value) => {
                        slf.waiting.set(Waiting::Inner(inner));
                        suspend(slf);
                        return Sent::Yielded(value);
                    }
                    Sent::Returned(value) => M::resume(slf, Ok(value)),
                    Sent::Raised(raised) => M::resume(slf, Err(raised.fetch())),
                },
                Err(raised) => M::resume(slf, Err(raised.fetch())),
            },
        };
    }
}

/// Resumes with an exception thrown in.
fn throw_in<M: Machine>(slf: Inst<'_, Coroutine<M>>, exc: Obj) -> Sent {
    match slf.stage.get() {
        Stage::Created => {
            slf.stage.set(Stage::Over);
            slf.body.clear();
            Sent::Raised(err::raise_instance(exc.borrow()))
        }
        Stage::Suspended => {
            slf.stage.set(Stage::Running);
            match slf.waiting.take() {
                Waiting::Inner(inner) => {
                    let closing = err::exception_is(exc.borrow(), Builtin::GeneratorExit.class());
                    let out = if closing {
                        close_inner(inner.borrow(), exc)
                    } else {
                        throw_inner(inner.borrow(), exc)
                    };
                    after_inner(slf, inner, out)
                }
                Waiting::Nothing | Waiting::Origin(_) | Waiting::Future(_) => {
                    advance(slf, M::resume(slf, Err(exc)))
                }
            }
        }
        stage => refuse(stage),
    }
}

/// An iterator without a `throw` method ends by the exception itself (PEP 380).
fn throw_inner(inner: Ref<'_>, exc: Obj) -> Sent {
    match call::getattr_opt(inner, names().throw.borrow()) {
        Ok(Some(throw)) => match call::call1(throw.borrow(), exc.borrow()) {
            Ok(value) => Sent::Yielded(value),
            Err(raised) => call::stop_value(raised),
        },
        Ok(None) => Sent::Raised(err::raise_instance(exc.borrow())),
        Err(raised) => Sent::Raised(raised),
    }
}

/// GeneratorExit closes the inner iterator, then goes on in this coroutine (PEP 380).
fn close_inner(inner: Ref<'_>, exc: Obj) -> Sent {
    match call::getattr_opt(inner, names().close.borrow()) {
        Ok(Some(close)) => match call::call0(close.borrow()) {
            Ok(_none) => Sent::Raised(err::raise_instance(exc.borrow())),
            Err(raised) => Sent::Raised(raised),
        },
        Ok(None) => Sent::Raised(err::raise_instance(exc.borrow())),
        Err(raised) => Sent::Raised(raised),
    }
}

fn send<M: Machine>(slf: Inst<'_, Coroutine<M>>, sent: Ref<'_>) -> PyRes<Obj> {
    if slf.stage.get() == Stage::Created && !sent.is_none() {
        return Err(Builtin::Type.raise("can't send non-None value to a just-started coroutine"));
    }
    method::sent_to_result(resume(slf, sent))
}

fn throw<M: Machine>(slf: Inst<'_, Coroutine<M>>, args: Args<'_>) -> PyRes<Obj> {
    let exc = future::raise_thrown(args).fetch();
    method::sent_to_result(throw_in(slf, exc))
}

fn close<M: Machine>(slf: Inst<'_, Coroutine<M>>) -> PyRes<Obj> {
    match slf.stage.get() {
        Stage::Created => {
            slf.stage.set(Stage::Over);
            slf.body.clear();
            Ok(Obj::none())
        }
        Stage::Over => Ok(Obj::none()),
        Stage::Running => Err(Builtin::Value.raise("coroutine already executing")),
        Stage::Suspended => {
            let exit = call::call0(Builtin::GeneratorExit.class())?;
            match throw_in(slf, exit) {
                Sent::Returned(_) => Ok(Obj::none()),
                Sent::Yielded(_) => Err(Builtin::Runtime.raise("coroutine ignored GeneratorExit")),
                Sent::Raised(raised)
                    if raised.matches(Builtin::GeneratorExit.class())
                        || raised.matches(Builtin::StopIteration.class()) =>
                {
                    raised.clear();
                    Ok(Obj::none())
                }
                Sent::Raised(raised) => Err(raised),
            }
        }
    }
}

fn itself<M: Machine>(slf: Inst<'_, Coroutine<M>>) -> PyRes<Obj> {
    Ok(slf.obj().own())
}

fn repr<M: Machine>(slf: Inst<'_, Coroutine<M>>) -> PyRes<Obj> {
    value::str(&format!(
        "<coroutine object {} at {:p}>",
        M::NAME,
        slf.obj().as_ptr()
    ))
}

fn qualname<M: Machine>(_slf: Inst<'_, Coroutine<M>>) -> PyRes<Obj> {
    value::str(M::NAME)
}

fn name<M: Machine>(_slf: Inst<'_, Coroutine<M>>) -> PyRes<Obj> {
    value::str(M::NAME.rsplit('.').next().unwrap_or(M::NAME))
}

fn running<M: Machine>(slf: Inst<'_, Coroutine<M>>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.stage.get() == Stage::Running))
}

fn suspended<M: Machine>(slf: Inst<'_, Coroutine<M>>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.stage.get() == Stage::Suspended))
}

fn awaited<M: Machine>(slf: Inst<'_, Coroutine<M>>) -> PyRes<Obj> {
    Ok(peek(&slf.waiting, |waiting| match waiting {
        Waiting::Nothing | Waiting::Origin(_) => Obj::none(),
        Waiting::Future(future) => future.obj().own(),
        Waiting::Inner(inner) => inner.clone(),
    }))
}

fn created_at<M: Machine>(slf: Inst<'_, Coroutine<M>>) -> Option<Obj> {
    peek(&slf.waiting, |waiting| match waiting {
        Waiting::Origin(origin) => Some(origin.clone()),
        _ => None,
    })
}

/// Where it was created, until it waits for the first time.
fn origin<M: Machine>(slf: Inst<'_, Coroutine<M>>) -> PyRes<Obj> {
    watch::cr_origin(created_at(slf))
}

fn nothing<M: Machine>(_slf: Inst<'_, Coroutine<M>>) -> PyRes<Obj> {
    Ok(Obj::none())
}

/// A native coroutine as the inspector sees it.
pub(crate) struct View {
    /// Its `__qualname__`.
    pub(crate) name: &'static str,
    /// What it is suspended in.
    pub(crate) awaited: Option<Obj>,
}

type Look = fn(Ref<'_>) -> Option<View>;

/// The classes of native coroutines, by their type's address.
static LOOKS: GilStatic<RefCell<HashMap<usize, Look>>> = GilStatic::new();

/// What the object is, if it is a native coroutine. Runs no Python code.
pub(crate) fn view(obj: Ref<'_>) -> Option<View> {
    let looks = LOOKS.get()?.borrow();
    looks.get(&(obj.type_ptr() as usize))?(obj)
}

fn look<M: Machine>(obj: Ref<'_>) -> Option<View> {
    let slf = obj.exact::<Coroutine<M>>()?;
    Some(View {
        name: M::NAME,
        awaited: awaited(slf).ok().filter(|awaited| !awaited.is_none()),
    })
}

/// Builds the type of one machine's coroutines.
pub(crate) fn build<M: Machine>() -> PyRes<Obj> {
    let ty = build_type::<M>()?;
    if LOOKS.get().is_none() {
        LOOKS.set(RefCell::default());
    }
    if let Some(looks) = LOOKS.get() {
        let mut looks = looks.borrow_mut();
        looks.insert(ty.as_ptr() as usize, look::<M>);
    }
    Ok(ty)
}

fn build_type<M: Machine>() -> PyRes<Obj> {
    let [next, send_slot] = method::resume::<Coroutine<M>, _>(resume::<M>);
    TypeBuilder::<Coroutine<M>>::new(M::TYPE)
        .with(method::unary::<Coroutine<M>, _>(Unary::Iter, itself::<M>))
        .with(method::unary::<Coroutine<M>, _>(Unary::Await, itself::<M>))
        .with(method::unary::<Coroutine<M>, _>(Unary::Repr, repr::<M>))
        .with(next)
        .with(send_slot)
        .method(method::onearg::<Coroutine<M>, _>(
            c"send",
            c"Resume the coroutine.",
            send::<M>,
        ))
        .method(method::fast::<Coroutine<M>, _>(
            c"throw",
            c"Raise inside the coroutine.",
            throw::<M>,
        ))
        .method(method::noargs::<Coroutine<M>, _>(
            c"close",
            c"Close the coroutine.",
            close::<M>,
        ))
        .property(method::getter::<Coroutine<M>, _>(c"__name__", name::<M>))
        .property(method::getter::<Coroutine<M>, _>(
            c"__qualname__",
            qualname::<M>,
        ))
        .property(method::getter::<Coroutine<M>, _>(
            c"cr_running",
            running::<M>,
        ))
        .property(method::getter::<Coroutine<M>, _>(
            c"cr_suspended",
            suspended::<M>,
        ))
        .property(method::getter::<Coroutine<M>, _>(c"cr_await", awaited::<M>))
        .property(method::getter::<Coroutine<M>, _>(c"cr_frame", nothing::<M>))
        .property(method::getter::<Coroutine<M>, _>(c"cr_origin", origin::<M>))
        .weakrefs()
        .build()
}
