//! `wait`: until the first, the first failed, or all of some futures are done, or time is over.
//!
//! ```text
//!  start ── checks, set(fs), a waiter, a timer, a callback on each ──► waiter ──► (done, pending)
//!                                                                        ▲
//!                      Hop::Tally on each child; Alarm::Release ─────────┘
//! ```
//!
//! The semantics are those of `asyncio.tasks.wait` (Python docs, *Waiting Primitives*), which has been
//! the same from 3.11 to 3.13. What the children refer to is the [`Tally`], never the coroutine: one
//! that is dropped while it waits takes its callbacks back. On a loop that is not Rondel's the coroutine
//! drives asyncio's own.

use super::coroutine::{self, Coroutine, Machine, Next};
use super::hops::{self, Alarm, Hop};
use crate::consts::{names, stock};
use crate::event_loop::{self, LoopBase};
use crate::future::{self, Future, State};
use rondel_core::timers::TimerKey;
use rondel_ffi::class::{ObjCell, OwnCell, TypeBuilder, Visit, alloc};
use rondel_ffi::err::Builtin;
use rondel_ffi::freelist::FreeList;
use rondel_ffi::method::{self, Args, BoundDef};
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Ref, call, value};
use std::cell::Cell;
use std::sync::OnceLock;

/// `return_when`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Until {
    #[default]
    AllCompleted,
    FirstCompleted,
    FirstException,
}

/// What the children's callbacks share.
#[derive(Default)]
pub(crate) struct Tally {
    waiter: OwnCell<Future>,
    left: Cell<usize>,
    until: Cell<Until>,
    alarm: Cell<Option<TimerKey>>,
}

static TALLY: ClassCell = ClassCell::new();
static TALLIES: FreeList = FreeList::new();

impl Class for Tally {
    fn cell() -> &'static ClassCell {
        &TALLY
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.waiter);
    }
    fn clear(&self) {
        self.waiter.set(None);
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&TALLIES)
    }
}

#[derive(Default)]
pub(crate) struct Wait {
    /// The argument; once started, our own set of it.
    fs: ObjCell,
    timeout: ObjCell,
    return_when: ObjCell,
    tally: OwnCell<Tally>,
    /// It is asyncio's own coroutine that waits.
    delegated: Cell<bool>,
}

static CELL: ClassCell = ClassCell::new();
static FREE: FreeList = FreeList::new();

/// `wait(fs, *, timeout=None, return_when=ALL_COMPLETED)`.
pub(super) fn wait(args: Args<'_>) -> PyRes<Obj> {
    let n = names();
    let params = [n.fs.borrow(), n.timeout.borrow(), n.return_when.borrow()];
    let [fs, timeout, return_when] = args.bind("wait", params, 1, 1)?;
    coroutine::new(|| Wait {
        fs: ObjCell::new(fs.map(Ref::own)),
        timeout: ObjCell::new(timeout.and_then(Ref::not_none).map(Ref::own)),
        return_when: ObjCell::new(return_when.map(Ref::own)),
        tally: OwnCell::new(None),
        delegated: Cell::new(false),
    })
}

impl Machine for Wait {
    const NAME: &'static str = "wait";
    const TYPE: &'static std::ffi::CStr = c"rondel.wait_coroutine";

    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&FREE)
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.fs);
        visit.cell(&self.timeout);
        visit.cell(&self.return_when);
        visit.own(&self.tally);
    }
    fn clear(&self) {
        self.fs.set(None);
        self.timeout.set(None);
        self.return_when.set(None);
        self.tally.set(None);
    }

    fn start(slf: Inst<'_, Coroutine<Self>>) -> Next {
        let body = &slf.data().body;
        let Some(fs) = body.fs.get() else {
            return Next::Return(Obj::none());
        };
        let begun = match event_loop::running() {
            Some(home) => begin(body, home.inst(), fs.borrow()).map(Next::Wait),
            None => {
                body.delegated.set(true);
                by_asyncio(body, fs.borrow()).map(Next::Await)
            }
        };
        begun.unwrap_or_else(Next::Raise)
    }

    fn resume(slf: Inst<'_, Coroutine<Self>>, outcome: Result<Obj, Obj>) -> Next {
        let body = &slf.data().body;
        if body.delegated.get() {
            return match outcome {
                Ok(value) => Next::Return(value),
                Err(exc) => Next::raise(exc),
            };
        }
        match (end(body), outcome) {
            (Err(raised), _) => Next::Raise(raised),
            (Ok(_), Err(exc)) => Next::raise(exc),
            (Ok(all_done), Ok(_none)) => Next::from_result(sets(body, all_done)),
        }
    }
}

#[cold]
fn by_asyncio(body: &Wait, fs: Ref<'_>) -> PyRes<Obj> {
    let none = Obj::none();
    let timeout = body.timeout.get();
    let return_when = body.return_when.get();
    let keywords = value::tuple([names().timeout.clone(), names().return_when.clone()])?;
    call::call_kw(
        stock().wait.borrow(),
        &[
            fs,
            timeout.as_ref().unwrap_or(&none).borrow(),
            return_when
                .as_ref()
                .unwrap_or(&stock().all_completed)
                .borrow(),
        ],
        keywords.borrow(),
    )
}

/// Raises for a single future or coroutine where a collection is meant.
fn check_collection(fs: Ref<'_>) -> PyRes<()> {
    if value::is_plain_collection(fs) {
        return Ok(());
    }
    let single = call::call1(stock().isfuture.borrow(), fs)?
        .borrow()
        .truthy()?
        || is_coroutine(fs)?;
    if single {
        let name = value::type_name(fs);
        return Err(Builtin::Type.raise(&format!("expect a list of futures, not {name}")));
    }
    Ok(())
}

fn is_coroutine(obj: Ref<'_>) -> PyRes<bool> {
    Ok(call::is_coroutine(obj)
        || call::call1(stock().iscoroutine.borrow(), obj)?
            .borrow()
            .truthy()?)
}

fn until(return_when: Option<&Obj>) -> PyRes<Until> {
    let Some(given) = return_when else {
        return Ok(Until::AllCompleted);
    };
    let known = stock();
    for (name, until) in [
        (&known.first_completed, Until::FirstCompleted),
        (&known.first_exception, Until::FirstException),
        (&known.all_completed, Until::AllCompleted),
    ] {
        if given.borrow().equals(name.borrow())? {
            return Ok(until);
        }
    }
    let text = value::to_str(given.borrow())?;
    let text = value::str_text(text.borrow())?;
    Err(Builtin::Value.raise(&format!("Invalid return_when value: {text}")))
}

fn begin(body: &Wait, home: Inst<'_, LoopBase>, fs: Ref<'_>) -> PyRes<Own<Future>> {
    check_collection(fs)?;
    if !fs.truthy()? {
        return Err(Builtin::Value.raise("Set of Tasks/Futures is empty."));
    }
    let until = until(body.return_when.get().as_ref())?;
    let set = value::set_of(fs)?;
    value::for_each(set.borrow(), |f| {
        if future::native(f.borrow()).is_none() && is_coroutine(f.borrow())? {
            return Err(
                Builtin::Type.raise("Passing coroutines is forbidden, use tasks explicitly.")
            );
        }
        Ok(())
    })?;
    let count = value::set_len(set.borrow());
    if count == 0 {
        // An iterator that is empty is true.
        return Err(Builtin::Assertion.raise("Set of Futures is empty."));
    }
    let waiter = future::create(home)?;
    let alarm = match body.timeout.get() {
        None => None,
        Some(delay) => {
            let delay = value::as_f64(delay.borrow())?;
            Some(hops::alarm_after(
                home,
                delay,
                Alarm::Release(waiter.clone()),
            ))
        }
    };
    let tally = alloc(
        Tally {
            waiter: OwnCell::new(Some(waiter.clone())),
            left: Cell::new(count),
            until: Cell::new(until),
            alarm: Cell::new(alarm),
        },
        true,
    )?;
    let added = value::for_each(set.borrow(), |f| {
        hops::add(f.borrow(), Hop::Tally(tally.clone()))
    });
    if let Err(raised) = added {
        stop(&tally);
        return Err(raised);
    }
    body.fs.set(Some(set));
    body.tally.set(Some(tally));
    Ok(waiter)
}

fn stop(tally: &Tally) {
    let home = tally.waiter.peek().and_then(|waiter| waiter.home.get());
    hops::stop_alarm(home, &tally.alarm);
}

/// The wait is over, one way or another: takes timer and callbacks back. Whether every future is done
/// and native.
fn end(body: &Wait) -> PyRes<bool> {
    let (Some(fs), Some(tally)) = (body.fs.get(), body.tally.take()) else {
        return Ok(false);
    };
    stop(&tally);
    let mut all_done = true;
    let hop = Hop::Tally(tally);
    value::for_each(fs.borrow(), |f| {
        if future::native(f.borrow()).is_some_and(|f| f.done()) {
            return Ok(());
        }
        all_done = false;
        hops::remove(f.borrow(), &hop)
    })?;
    Ok(all_done)
}

/// `(done, pending)`.
fn sets(body: &Wait, all_done: bool) -> PyRes<Obj> {
    let fs = match body.fs.take() {
        Some(fs) => fs,
        None => value::set()?,
    };
    if all_done {
        return value::tuple([fs, value::set()?]);
    }
    let (done, pending) = (value::set()?, value::set()?);
    value::for_each(fs.borrow(), |f| {
        let into = if hops::done(f.borrow())? {
            &done
        } else {
            &pending
        };
        value::set_add(into.borrow(), f.borrow())
    })?;
    value::tuple([done, pending])
}

/// `not f.cancelled() and f.exception() is not None`.
fn failed(child: Ref<'_>) -> PyRes<bool> {
    if let Some(native) = future::native(child) {
        let failed = native.state.get() == State::Failed;
        if failed {
            native.log_traceback.set(false);
        }
        return Ok(failed);
    }
    let cancelled = call::method(names().cancelled.borrow(), [child])?;
    if cancelled.borrow().truthy()? {
        return Ok(false);
    }
    Ok(!call::method(names().exception.borrow(), [child])?.is_none())
}

/// One of the futures is done (asyncio's `_on_completion`).
pub(super) fn child_done(tally: Inst<'_, Tally>, child: Ref<'_>) -> PyRes<()> {
    let left = tally.left.get().saturating_sub(1);
    tally.left.set(left);
    let over = left == 0
        || match tally.until.get() {
            Until::AllCompleted => false,
            Until::FirstCompleted => true,
            Until::FirstException => failed(child)?,
        };
    if !over {
        return Ok(());
    }
    stop(tally.data());
    match tally.waiter.get() {
        Some(waiter) => hops::release(waiter.inst()),
        None => Ok(()),
    }
}

pub(super) fn done_def() -> &'static BoundDef {
    static DEF: OnceLock<BoundDef> = OnceLock::new();
    DEF.get_or_init(|| {
        BoundDef::new(method::onearg::<Tally, _>(
            c"_on_completion",
            c"Count a future off.",
            |tally: Inst<'_, Tally>, child: Ref<'_>| child_done(tally, child).map(|()| Obj::none()),
        ))
    })
}

/// Builds the types.
pub(super) fn build() -> PyRes<()> {
    TypeBuilder::<Tally>::new(c"rondel.wait_tally").build()?;
    coroutine::build::<Wait>()?;
    Ok(())
}
