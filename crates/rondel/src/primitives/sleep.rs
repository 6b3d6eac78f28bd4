//! `sleep`: a coroutine object without a frame, whose task waits on a timer instead of a future.
//!
//! The native task recognises it when it is yielded. Under any other driver (a stock task, another
//! loop) it runs asyncio's own `sleep` inside itself.

use crate::consts::{names, stock};
use crate::event_loop;
use crate::watch;
use rondel_ffi::call::{self, Sent};
use rondel_ffi::class::{ObjCell, TypeBuilder, Visit, alloc_with};
use rondel_ffi::err::Builtin;
use rondel_ffi::freelist::FreeList;
use rondel_ffi::method::{self, Args, Unary};
use rondel_ffi::{Class, ClassCell, Inst, Obj, PyRes, Ref, value};
use std::cell::Cell;

#[derive(Clone, Copy, Default, PartialEq)]
enum Stage {
    #[default]
    Created,
    /// Has yielded itself to its task, which takes the deadline for a timer.
    Offered,
    /// Suspended: in a timer, or for one turn.
    Waiting,
    /// asyncio's sleep runs in `inner`. (In the other stages `inner` is where it was created, if
    /// that was asked for.)
    Delegated,
    Over,
}

#[derive(Default)]
pub(crate) struct Sleep {
    /// Seconds, as given.
    delay: Cell<f64>,
    /// Nanoseconds on the loop's clock; set when the wait begins.
    deadline: Cell<u64>,
    result: ObjCell,
    inner: ObjCell,
    stage: Cell<Stage>,
}

impl Sleep {
    /// When a sleep that waits is over, in nanoseconds on the loop's clock.
    pub(crate) fn deadline(&self) -> u64 {
        self.deadline.get()
    }

    /// The deadline of a sleep that has just yielded itself, once. A sleep that reaches the task in
    /// another way (`yield sleep(1)` in somebody's `__await__`) is nothing that can be waited for.
    #[inline(always)]
    pub(crate) fn take_deadline(&self) -> Option<u64> {
        if self.stage.get() != Stage::Offered {
            return None;
        }
        self.stage.set(Stage::Waiting);
        Some(self.deadline.get())
    }
}

static CELL: ClassCell = ClassCell::new();
static FREE: FreeList = FreeList::new();

impl Class for Sleep {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.result);
        visit.cell(&self.inner);
    }
    fn clear(&self) {
        self.stage.set(Stage::Over);
        self.result.set(None);
        self.inner.set(None);
    }
    fn needs_finalize(slf: Inst<'_, Self>) -> bool {
        slf.stage.get() == Stage::Created
    }
    fn finalize(slf: Inst<'_, Self>) {
        slf.stage.set(Stage::Over);
        watch::never_awaited(slf.obj());
    }
    fn retire(&self) {
        self.stage.set(Stage::Over);
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&FREE)
    }
}

/// `sleep(delay, result=None)`.
#[inline(always)]
pub(super) fn sleep(args: Args<'_>) -> PyRes<Obj> {
    let (delay, result) = if args.len() == 1 && args.keyword_count() == 0 {
        (args.positional()[0], None)
    } else {
        let [delay, result] = args.bind(
            "sleep",
            [names().delay.borrow(), names().result.borrow()],
            1,
            2,
        )?;
        let Some(delay) = delay else {
            return Err(Builtin::Type.raise("sleep() needs a delay"));
        };
        (delay, result)
    };
    let seconds = match value::as_f64(delay) {
        Ok(seconds) if !seconds.is_nan() => seconds,
        Ok(_nan) => return call::call_args(stock().sleep.borrow(), &args),
        Err(raised) => {
            // asyncio finds out when it is awaited: let its own coroutine do so.
            raised.clear();
            return call::call_args(stock().sleep.borrow(), &args);
        }
    };
    let origin = if watch::traces_origins() {
        watch::coroutine_origin()?
    } else {
        None
    };
    let sleep = || Sleep {
        delay: Cell::new(seconds),
        deadline: Cell::new(0),
        result: ObjCell::new(result.map(Ref::own)),
        inner: ObjCell::new(origin),
        stage: Cell::new(Stage::Created),
    };
    // Only a result can be part of a cycle.
    let track = result.is_some_and(|result| !result.is_none());
    Ok(alloc_with(sleep, track)?.into_obj())
}

/// What most sleeps come to besides their timer. Reads and writes cells, and no more: no panic.
#[inline(always)]
fn quickly(slf: Inst<'_, Sleep>) -> Option<Sent> {
    match slf.stage.get() {
        Stage::Created if slf.delay.get() <= 0.0 => {
            slf.stage.set(Stage::Waiting);
            Some(Sent::Yielded(Obj::none()))
        }
        Stage::Offered | Stage::Waiting => {
            slf.stage.set(Stage::Over);
            let result = slf.result.take();
            Some(Sent::Returned(result.unwrap_or_else(Obj::none)))
        }
        _ => None,
    }
}

fn resume(slf: Inst<'_, Sleep>, sent: Ref<'_>) -> Sent {
    if let Some(sent) = quickly(slf) {
        return sent;
    }
    match slf.stage.get() {
        Stage::Delegated => delegate(slf, sent),
        Stage::Over => {
            Sent::Raised(Builtin::Runtime.raise("cannot reuse already awaited coroutine"))
        }
        // Created, and has a delay: `quickly` answers what is left.
        _ => begin(slf),
    }
}

#[inline(always)]
fn begin(slf: Inst<'_, Sleep>) -> Sent {
    let delay = slf.delay.get();
    match event_loop::steps_native_task() {
        Ok(true) => {
            slf.stage.set(Stage::Offered);
            slf.deadline
                .set(event_loop::now().saturating_add((delay * 1e9) as u64));
            Sent::Yielded(slf.obj().own())
        }
        Ok(false) => {
            let started = value::float(delay).and_then(|delay| {
                let result = slf.result.get().unwrap_or_else(Obj::none);
                call::call(stock().sleep.borrow(), &[delay.borrow(), result.borrow()])
            });
            match started {
                Ok(inner) => {
                    slf.inner.set(Some(inner));
                    slf.stage.set(Stage::Delegated);
                    delegate(slf, Obj::none().borrow())
                }
                Err(raised) => Sent::Raised(raised),
            }
        }
        Err(raised) => Sent::Raised(raised),
    }
}

#[cold]
fn delegate(slf: Inst<'_, Sleep>, sent: Ref<'_>) -> Sent {
    let Some(inner) = slf.inner.get() else {
        return Sent::Returned(Obj::none());
    };
    let out = if sent.is_none() {
        call::send_none(inner.borrow())
    } else {
        match call::method(names().send.borrow(), [inner.borrow(), sent]) {
            Ok(value) => Sent::Yielded(value),
            Err(raised) => call::stop_value(raised),
        }
    };
    if !matches!(out, Sent::Yielded(_)) {
        slf.stage.set(Stage::Over);
        slf.inner.set(None);
    }
    out
}

fn send(slf: Inst<'_, Sleep>, value: Ref<'_>) -> PyRes<Obj> {
    if slf.stage.get() == Stage::Created && !value.is_none() {
        return Err(Builtin::Type.raise("can't send non-None value to a just-started coroutine"));
    }
    method::sent_to_result(resume(slf, value))
}

fn throw(slf: Inst<'_, Sleep>, args: Args<'_>) -> PyRes<Obj> {
    if slf.stage.get() == Stage::Delegated
        && let Some(inner) = slf.inner.get()
    {
        let throw = call::getattr(inner.borrow(), names().throw.borrow())?;
        let thrown = call::call_args(throw.borrow(), &args);
        if thrown.is_err() {
            slf.stage.set(Stage::Over);
            slf.inner.set(None);
        }
        return thrown;
    }
    slf.stage.set(Stage::Over);
    slf.result.set(None);
    Err(crate::future::raise_thrown(args))
}

fn close(slf: Inst<'_, Sleep>) -> PyRes<Obj> {
    let stage = slf.stage.replace(Stage::Over);
    slf.result.set(None);
    match slf.inner.take() {
        Some(inner) if stage == Stage::Delegated => {
            call::method(names().close.borrow(), [inner.borrow()])
        }
        _ => Ok(Obj::none()),
    }
}

/// `__await__`: one at a time, as for any coroutine.
fn awaited(slf: Inst<'_, Sleep>) -> PyRes<Obj> {
    match slf.stage.get() {
        Stage::Created | Stage::Over => Ok(slf.obj().own()),
        _ => Err(Builtin::Runtime.raise("coroutine is being awaited already")),
    }
}

fn itself(slf: Inst<'_, Sleep>) -> PyRes<Obj> {
    Ok(slf.obj().own())
}

fn repr(slf: Inst<'_, Sleep>) -> PyRes<Obj> {
    value::str(&format!(
        "<coroutine object sleep at {:p}>",
        slf.obj().as_ptr()
    ))
}

fn name(_slf: Inst<'_, Sleep>) -> PyRes<Obj> {
    value::str("sleep")
}

fn running(_slf: Inst<'_, Sleep>) -> PyRes<Obj> {
    Ok(Obj::bool(false))
}

fn suspended(slf: Inst<'_, Sleep>) -> PyRes<Obj> {
    Ok(Obj::bool(!matches!(
        slf.stage.get(),
        Stage::Created | Stage::Over
    )))
}

/// Where it was created, as long as it has not delegated.
fn origin(slf: Inst<'_, Sleep>) -> PyRes<Obj> {
    let origin = match slf.stage.get() {
        Stage::Delegated => None,
        _ => slf.inner.get(),
    };
    watch::cr_origin(origin)
}

fn nothing(_slf: Inst<'_, Sleep>) -> PyRes<Obj> {
    Ok(Obj::none())
}

pub(crate) fn build() -> PyRes<Obj> {
    let [next, send_slot] = method::resume_quickly::<Sleep, _, _>(quickly, resume);
    TypeBuilder::<Sleep>::new(c"rondel.sleep_coroutine")
        .with(method::unary::<Sleep, _>(Unary::Iter, itself))
        .with(method::unary::<Sleep, _>(Unary::Await, awaited))
        .with(method::unary::<Sleep, _>(Unary::Repr, repr))
        .with(next)
        .with(send_slot)
        .method(method::onearg::<Sleep, _>(
            c"send",
            c"Resume the coroutine.",
            send,
        ))
        .method(method::fast::<Sleep, _>(
            c"throw",
            c"Raise inside the coroutine.",
            throw,
        ))
        .method(method::noargs::<Sleep, _>(
            c"close",
            c"Close the coroutine.",
            close,
        ))
        .property(method::getter::<Sleep, _>(c"__name__", name))
        .property(method::getter::<Sleep, _>(c"__qualname__", name))
        .property(method::getter::<Sleep, _>(c"cr_running", running))
        .property(method::getter::<Sleep, _>(c"cr_suspended", suspended))
        .property(method::getter::<Sleep, _>(c"cr_frame", nothing))
        .property(method::getter::<Sleep, _>(c"cr_await", nothing))
        .property(method::getter::<Sleep, _>(c"cr_origin", origin))
        .weakrefs()
        .build()
}
