//! The awaitables of `async with timeout()`: they finish at once.
//!
//! That of `__aenter__()` enters the Timeout when it is awaited, as the coroutine that asyncio has there.
//! That of `__aexit__()` has nothing left to do; one serves all.

use super::timeout::{self, Timeout};
use rondel_ffi::call::Sent;
use rondel_ffi::class::{ObjCell, OwnCell, TypeBuilder, Visit, alloc_with};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::gil::GilStatic;
use rondel_ffi::method::{self, Args, Unary};
use rondel_ffi::{Class, ClassCell, Inst, Obj, PyRes, Ref};

#[derive(Default)]
pub(crate) struct Immediate {
    /// To be entered.
    timeout: OwnCell<Timeout>,
    /// To be given, where there is nothing to enter; None if empty.
    value: ObjCell,
}

static CELL: ClassCell = ClassCell::new();
static FREE: FreeList = FreeList::new();
/// Gives None, to everybody.
static DONE: GilStatic<Obj> = GilStatic::new();

impl Class for Immediate {
    // A Timeout that was entered: its block has the bound `__aexit__`.
    const VALUES_LAST: bool = true;

    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.timeout);
        visit.cell(&self.value);
    }
    fn clear(&self) {
        self.timeout.set(None);
        self.value.set(None);
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&FREE)
    }
}

fn make(timeout: Option<Inst<'_, Timeout>>, value: Option<Obj>) -> PyRes<Obj> {
    let payload = || Immediate {
        timeout: OwnCell::new(timeout.map(Inst::own)),
        value: ObjCell::new(value),
    };
    Ok(alloc_with(payload, false)?.into_obj())
}

/// `await` of it enters the Timeout and gives it.
#[inline(always)]
pub(super) fn entering(timeout: Inst<'_, Timeout>) -> PyRes<Obj> {
    make(Some(timeout), None)
}

/// `await` of it gives `value`.
pub(super) fn immediate(value: Obj) -> PyRes<Obj> {
    make(None, Some(value))
}

/// `await` of it gives None.
#[inline(always)]
pub(super) fn done() -> PyRes<Obj> {
    match DONE.get() {
        Some(done) => Ok(done.clone()),
        None => make(None, None),
    }
}

/// Where there is nothing to enter. Moves pointers, and no more: no panic.
#[inline(always)]
fn quickly(slf: Inst<'_, Immediate>) -> Option<Sent> {
    slf.timeout.is_none().then(|| given(slf))
}

#[inline(always)]
fn resume(slf: Inst<'_, Immediate>, _value: Ref<'_>) -> Sent {
    let Some(timeout) = slf.timeout.take() else {
        return given(slf);
    };
    match timeout::enter(timeout) {
        Ok(timeout) => Sent::Returned(timeout.into_obj()),
        Err(raised) => Sent::Raised(raised),
    }
}

#[inline(always)]
fn given(slf: Inst<'_, Immediate>) -> Sent {
    Sent::Returned(slf.value.take().unwrap_or_else(Obj::none))
}

fn send(slf: Inst<'_, Immediate>, value: Ref<'_>) -> PyRes<Obj> {
    method::sent_to_result(resume(slf, value))
}

fn throw(slf: Inst<'_, Immediate>, args: Args<'_>) -> PyRes<Obj> {
    slf.clear();
    Err(crate::future::raise_thrown(args))
}

fn close(slf: Inst<'_, Immediate>) -> PyRes<Obj> {
    slf.clear();
    Ok(Obj::none())
}

fn itself(slf: Inst<'_, Immediate>) -> PyRes<Obj> {
    Ok(slf.obj().own())
}

pub(crate) fn build() -> PyRes<Obj> {
    let [next, send_slot] = method::resume_quickly::<Immediate, _, _>(quickly, resume);
    let class = TypeBuilder::<Immediate>::new(c"rondel._rondel.Immediate")
        .with(method::unary::<Immediate, _>(Unary::Iter, itself))
        .with(method::unary::<Immediate, _>(Unary::Await, itself))
        .with(next)
        .with(send_slot)
        .method(method::onearg::<Immediate, _>(
            c"send",
            c"Finish the await.",
            send,
        ))
        .method(method::fast::<Immediate, _>(
            c"throw",
            c"Raise inside the await.",
            throw,
        ))
        .method(method::noargs::<Immediate, _>(
            c"close",
            c"Give the await up.",
            close,
        ))
        .build()?;
    if DONE.get().is_none() {
        DONE.set(make(None, None)?);
    }
    Ok(class)
}
