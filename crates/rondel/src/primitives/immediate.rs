//! An awaitable that finishes at once: what a native coroutine method returns when it need not wait.

use rondel_ffi::call::Sent;
use rondel_ffi::class::{ObjCell, TypeBuilder, Visit, alloc_with};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::method::{self, Args, Unary};
use rondel_ffi::{Class, ClassCell, Inst, Obj, PyRes, Ref};
use std::cell::Cell;

/// Given the value, does what is left to do when it is awaited.
type Work = fn(Ref<'_>) -> PyRes<Obj>;

#[derive(Default)]
pub(crate) struct Immediate {
    value: ObjCell,
    work: Cell<Option<Work>>,
}

static CELL: ClassCell = ClassCell::new();
static FREE: FreeList = FreeList::new();

impl Class for Immediate {
    // What is deferred is `async with timeout()`, whose block has the Timeout's `__aexit__`.
    const VALUES_LAST: bool = true;

    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.value);
    }
    fn clear(&self) {
        self.value.set(None);
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&FREE)
    }
}

/// `await` of it gives `value` without suspending.
#[inline(always)]
pub(crate) fn immediate(value: Obj) -> PyRes<Obj> {
    Ok(alloc_with(
        || Immediate {
            value: ObjCell::new(Some(value)),
            work: Cell::new(None),
        },
        false,
    )?
    .into_obj())
}

/// `await` of it runs `work` on `value` and gives the result without suspending.
#[inline(always)]
pub(crate) fn deferred(value: Obj, work: Work) -> PyRes<Obj> {
    Ok(alloc_with(
        || Immediate {
            value: ObjCell::new(Some(value)),
            work: Cell::new(Some(work)),
        },
        false,
    )?
    .into_obj())
}

fn resume(slf: Inst<'_, Immediate>, _value: Ref<'_>) -> Sent {
    let value = slf.value.take().unwrap_or_else(Obj::none);
    match slf.work.take() {
        None => Sent::Returned(value),
        Some(work) => match work(value.borrow()) {
            Ok(result) => Sent::Returned(result),
            Err(raised) => Sent::Raised(raised),
        },
    }
}

fn send(slf: Inst<'_, Immediate>, value: Ref<'_>) -> PyRes<Obj> {
    method::sent_to_result(resume(slf, value))
}

fn throw(slf: Inst<'_, Immediate>, args: Args<'_>) -> PyRes<Obj> {
    slf.value.set(None);
    Err(crate::future::raise_thrown(args))
}

fn close(slf: Inst<'_, Immediate>) -> PyRes<Obj> {
    slf.value.set(None);
    Ok(Obj::none())
}

fn itself(slf: Inst<'_, Immediate>) -> PyRes<Obj> {
    Ok(slf.obj().own())
}

pub(crate) fn build() -> PyRes<Obj> {
    let [next, send_slot] = method::resume::<Immediate, _>(resume);
    TypeBuilder::<Immediate>::new(c"rondel._rondel.Immediate")
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
        .build()
}
