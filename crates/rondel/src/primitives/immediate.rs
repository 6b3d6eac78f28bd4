//! An awaitable that is done: what a native coroutine method returns when it need not wait.

use rondel_ffi::call::Sent;
use rondel_ffi::class::{ObjCell, TypeBuilder, Visit, alloc};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::method::{self, Args, Unary};
use rondel_ffi::{Class, ClassCell, Inst, Obj, PyRes, Ref};

#[derive(Default)]
pub(crate) struct Immediate {
    value: ObjCell,
}

static CELL: ClassCell = ClassCell::new();
static FREE: FreeList = FreeList::new();

impl Class for Immediate {
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
    Ok(alloc(Immediate { value: ObjCell::new(Some(value)) }, false)?.into_obj())
}

fn resume(slf: Inst<'_, Immediate>, _value: Ref<'_>) -> Sent {
    Sent::Returned(slf.value.take().unwrap_or_else(Obj::none))
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
        .method(method::onearg::<Immediate, _>(c"send", c"Finish the await.", send))
        .method(method::fast::<Immediate, _>(c"throw", c"Raise inside the await.", throw))
        .method(method::noargs::<Immediate, _>(c"close", c"Give the await up.", close))
        .build()
}
