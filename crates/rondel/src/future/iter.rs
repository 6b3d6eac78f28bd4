//! What `await future` iterates: yields the future once, then gives its outcome.
//!
//! C code that awaits (the interpreter above all) iterates the future itself, as no more state is
//! needed than the future has: `_asyncio_future_blocking` says that it was yielded. Whoever calls
//! `__await__()` or `iter()` gets a [`FutureIter`], which has a coroutine's methods and no more.

use super::{Future, State, outcome};
use rondel_ffi::call::Sent;
use rondel_ffi::class::{OwnCell, TypeBuilder, Visit, alloc_with};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::method::{self, Args, Unary};
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Ref, call, value};

#[derive(Default)]
pub(crate) struct FutureIter {
    /// Empty once the outcome was given, or after `throw` and `close`.
    future: OwnCell<Future>,
}

impl FutureIter {
    pub(crate) fn awaited(&self) -> Option<Own<Future>> {
        self.future.get()
    }
}

static CELL: ClassCell = ClassCell::new();
static FREE: FreeList = FreeList::new();

impl Class for FutureIter {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.future);
    }
    fn clear(&self) {
        self.future.set(None);
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&FREE)
    }
}

/// `iter(future)`, `future.__await__()`.
#[inline(always)]
pub(super) fn new(fut: Inst<'_, Future>) -> PyRes<Own<FutureIter>> {
    alloc_with(
        || FutureIter {
            future: OwnCell::new(Some(fut.own())),
        },
        // Not only when it suspends: the future may hold whoever keeps this.
        true,
    )
}

#[inline(always)]
fn resume(slf: Inst<'_, FutureIter>, value: Ref<'_>) -> Sent {
    let Some(fut) = slf.future.get() else {
        return Sent::Returned(Obj::none());
    };
    if fut.done() {
        slf.future.set(None);
    }
    resume_future(fut.inst(), value)
}

/// The two usual ways that [`resume_future`] goes. Reads and writes cells, and no more: no panic.
#[inline(always)]
pub(super) fn resume_quickly(fut: Inst<'_, Future>) -> Option<Sent> {
    match fut.state.get() {
        State::Finished => Some(Sent::Returned(fut.result.get().unwrap_or_else(Obj::none))),
        State::Pending if !fut.home.is_none() && !fut.blocking.get() => {
            fut.blocking.set(true);
            Some(Sent::Yielded(fut.obj().own()))
        }
        _ => None,
    }
}

/// Resumes an `await` of the future.
pub(super) fn resume_future(fut: Inst<'_, Future>, _value: Ref<'_>) -> Sent {
    if let Some(sent) = resume_quickly(fut) {
        return sent;
    }
    if fut.done() {
        return match outcome(fut) {
            Ok(Ok(value)) => Sent::Returned(value),
            Ok(Err(exc)) => Sent::Raised(err::raise_instance(exc.borrow())),
            Err(raised) => Sent::Raised(raised),
        };
    }
    if !fut.initialised() {
        return Sent::Raised(super::methods::uninitialised());
    }
    if fut.blocking.replace(true) {
        // Whoever drives this coroutine has not taken the future for what it is.
        return Sent::Raised(Builtin::Runtime.raise("await wasn't used with future"));
    }
    Sent::Yielded(fut.obj().own())
}

fn send(slf: Inst<'_, FutureIter>, value: Ref<'_>) -> PyRes<Obj> {
    method::sent_to_result(resume(slf, value))
}

/// `throw(type[, value[, traceback]])` or `throw(exception)`.
fn throw(slf: Inst<'_, FutureIter>, args: Args<'_>) -> PyRes<Obj> {
    slf.future.set(None);
    Err(raise_thrown(args))
}

/// Raises what a `throw` method was given.
pub(crate) fn raise_thrown(args: Args<'_>) -> rondel_ffi::Raised {
    let Some(first) = args.get(0) else {
        return Builtin::Type.raise("throw expected at least 1 argument, got 0");
    };
    if cfg!(Py_3_12) && args.len() > 1 {
        const TEXT: &str = "the (type, exc, tb) signature of throw() is deprecated, use the single-arg signature instead.";
        if let Err(raised) = err::warn(err::Warning::Deprecation, TEXT) {
            return raised;
        }
    }
    let traceback = args.get(2).and_then(Ref::not_none);
    if traceback.is_some_and(|tb| !value::is_traceback(tb)) {
        return Builtin::Type.raise("throw() third argument must be a traceback object");
    }
    let given = args.get(1).and_then(Ref::not_none);
    let exc = if first.is_exception() {
        if given.is_some() {
            return Builtin::Type.raise("instance exception may not have a separate value");
        }
        Ok(first.own())
    } else if first.is_exception_class() {
        match given {
            Some(value) if value.is_exception() => Ok(value.own()),
            Some(value) => call::call1(first, value),
            None => call::call0(first),
        }
    } else {
        return Builtin::Type
            .raise("exceptions must be classes or instances deriving from BaseException, not something else");
    };
    match exc {
        Ok(exc) => {
            if let Some(tb) = traceback {
                err::set_traceback(exc.borrow(), Some(tb));
            }
            err::raise_instance(exc.borrow())
        }
        Err(raised) => raised,
    }
}

fn close(slf: Inst<'_, FutureIter>) -> PyRes<Obj> {
    slf.future.set(None);
    Ok(Obj::none())
}

fn itself(slf: Inst<'_, FutureIter>) -> PyRes<Obj> {
    Ok(slf.obj().own())
}

pub(super) fn build() -> PyRes<Obj> {
    let [next, send_slot] = method::resume::<FutureIter, _>(resume);
    TypeBuilder::<FutureIter>::new(c"rondel.FutureIter")
        .with(method::unary::<FutureIter, _>(Unary::Iter, itself))
        .with(next)
        .with(send_slot)
        .method(method::onearg::<FutureIter, _>(
            c"send",
            c"Resume the await.",
            send,
        ))
        .method(method::fast::<FutureIter, _>(
            c"throw",
            c"Raise inside the await.",
            throw,
        ))
        .method(method::noargs::<FutureIter, _>(
            c"close",
            c"Give the await up.",
            close,
        ))
        .build()
}
