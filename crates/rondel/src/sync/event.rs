//! `Event`: asyncio's, whose set, clear and wait are native.
//!
//! `set()` resolves every waiter, in order; each returns True even if the flag is cleared before it
//! takes its step (Python docs, *Synchronization Primitives*; `asyncio.locks.Event`).

use super::fields;
use super::waiters::{self, Waiters};
use super::{Plain, is_plain};
use crate::consts::stock;
use crate::primitives::coroutine::{self, Coroutine, Machine, Next};
use rondel_ffi::class::{ObjCell, OwnCell, TypeBuilder, Visit};
use rondel_ffi::err::Builtin;
use rondel_ffi::freelist::FreeList;
use rondel_ffi::method::{self, Args};
use rondel_ffi::{Class, ClassCell, Inst, Obj, PyRes, Ref, call, callable, value};
use std::cell::Cell;
use std::ffi::CStr;

#[derive(Default)]
pub(crate) struct Event {
    waiters: Waiters,
    value: Cell<bool>,
}

static CELL: ClassCell = ClassCell::new();

impl Class for Event {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        self.waiters.traverse(visit);
    }
    fn clear(&self) {
        self.waiters.clear();
    }
}

/// The coroutine of `wait()`.
#[derive(Default)]
pub(crate) struct Wait {
    event: OwnCell<Event>,
    waiter: ObjCell,
}

static WAIT: ClassCell = ClassCell::new();
static WAIT_FREE: FreeList = FreeList::new();

fn wait(slf: Inst<'_, Event>, args: Args<'_>) -> PyRes<Obj> {
    if !args.is_empty() || args.keyword_count() > 0 {
        return Err(Builtin::Type.raise("wait() takes no arguments"));
    }
    coroutine::new(|| Wait {
        event: OwnCell::new(Some(slf.own())),
        waiter: ObjCell::default(),
    })
}

impl Machine for Wait {
    const NAME: &'static str = "Event.wait";
    const TYPE: &'static CStr = c"rondel.Event_wait";

    fn cell() -> &'static ClassCell {
        &WAIT
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&WAIT_FREE)
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.event);
        visit.cell(&self.waiter);
    }
    fn clear(&self) {
        self.event.set(None);
        self.waiter.set(None);
    }

    #[inline(always)]
    fn start(slf: Inst<'_, Coroutine<Self>>) -> Next {
        let body = &slf.data().body;
        let Some(event) = body.event.peek() else {
            return Next::Return(Obj::none());
        };
        if event.value.get() {
            return Next::Return(Obj::bool(true));
        }
        match event.waiters.join(event.obj()) {
            Ok(waiter) => {
                body.waiter.set(Some(waiter.clone()));
                waiters::wait_for(waiter)
            }
            Err(raised) => Next::Raise(raised),
        }
    }

    #[inline(always)]
    fn resume(slf: Inst<'_, Coroutine<Self>>, outcome: Result<Obj, Obj>) -> Next {
        let body = &slf.data().body;
        if let (Some(event), Some(waiter)) = (body.event.get(), body.waiter.take())
            && let Err(raised) = event.waiters.leave(waiter.borrow())
        {
            return Next::Raise(raised);
        }
        match outcome {
            Ok(_true) => Next::Return(Obj::bool(true)),
            Err(exc) => Next::raise(exc),
        }
    }
}

fn set(slf: Inst<'_, Event>) -> PyRes<Obj> {
    if !slf.value.replace(true) {
        slf.waiters.wake_all()?;
    }
    Ok(Obj::none())
}

fn clear(slf: Inst<'_, Event>) -> PyRes<Obj> {
    slf.value.set(false);
    Ok(Obj::none())
}

fn is_set(slf: Inst<'_, Event>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.value.get()))
}

/// `event.set()` and `event.clear()` of an event that a queue keeps.
pub(crate) fn change(event: Ref<'_>, value: bool) -> PyRes<()> {
    match event.cast::<Event>() {
        Some(native) if is_plain(event, plain) => {
            if value {
                set(native)?;
            } else {
                native.value.set(false);
            }
            Ok(())
        }
        _ => {
            let name = value::intern(if value { c"set" } else { c"clear" })?;
            call::method(name.borrow(), [event]).map(|_none| ())
        }
    }
}

fn plain(plain: &Plain) -> &Obj {
    &plain.event
}

pub(super) fn build() -> PyRes<Obj> {
    coroutine::build::<Wait>()?;
    let class = TypeBuilder::<Event>::new(c"rondel._rondel.EventBase")
        .subclassable()
        .method(method::noargs::<Event, _>(
            c"set",
            c"set($self, /)\n--\n\nSet the flag and wake all that wait for it.",
            set,
        ))
        .method(method::noargs::<Event, _>(
            c"clear",
            c"clear($self, /)\n--\n\nReset the flag.",
            clear,
        ))
        .method(method::noargs::<Event, _>(
            c"is_set",
            c"is_set($self, /)\n--\n\nReturn True if the flag is set.",
            is_set,
        ))
        .properties([
            fields::flag(c"_value", |s: &Event| &s.value),
            fields::object(c"_waiters", |s: &Event| &s.waiters.deque),
            fields::object(c"_loop", |s: &Event| &s.waiters.loop_),
        ])
        .build()?;
    let like = call::getattr(stock().event.borrow(), value::intern(c"wait")?.borrow())?;
    let wait = callable::coroutine_method::<Event, _>(wait, like.borrow())?;
    call::setattr(
        class.borrow(),
        value::intern(c"wait")?.borrow(),
        wait.borrow(),
    )?;
    Ok(class)
}
