//! `wait`, `wait_for` and `async with` of a condition, as state machines; and their parts, of which
//! a barrier's `wait` consists too.
//!
//! ```text
//!  Waiting:  begin ── release the lock ──► Notified ── woken, or an exception ──► Lock ──► over
//!                                                       cancelled in Lock: noted ──┘ (again)
//! ```
//! Whatever ends the wait, the lock is taken back first. What is raised then: the exception that
//! ended the wait, or, if the taking was cancelled too, a CancelledError: a new one before 3.13, the
//! last one since. Since 3.13 a wait that fails notifies another, as it may have swallowed a
//! notification (`Stock::condition_passes_on`); there the waiter is also made before the lock is
//! released, so that a wrong loop is no reason to give it up.

use super::{Condition, direct, is_locked, is_plain, lock, plain, release};
use crate::consts::{cancelled_class, names, stock};
use crate::primitives::coroutine::{self, Coroutine, Machine, Next};
use crate::sync::lock::Lock;
use crate::sync::{by_asyncio, raise_while, waiters};
use crate::task::is_cancelled;
use rondel_ffi::class::{ObjCell, OwnCell, Visit};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::method::Args;
use rondel_ffi::{ClassCell, Inst, Obj, PyRes, Raised, call};
use std::cell::Cell;
use std::ffi::CStr;

/// Where a part of a machine has got to.
pub(in crate::sync) enum Step {
    /// It waits for one of a deque's waiters.
    Wait(Obj),
    /// It awaits what somebody else's `acquire()` gave.
    Await(Obj),
    Done,
}

/// A part's step as its machine's, unless it is done.
#[inline(always)]
pub(in crate::sync) fn suspended(step: Step) -> Option<Next> {
    match step {
        Step::Wait(waiter) => Some(waiters::wait_for(waiter)),
        Step::Await(awaitable) => Some(Next::Await(awaitable)),
        Step::Done => None,
    }
}

/// One acquisition of a condition's lock.
#[derive(Default)]
pub(in crate::sync) struct Taking {
    /// The native lock in whose queue `waiter` is; neither while another acquisition is awaited.
    lock: OwnCell<Lock>,
    waiter: ObjCell,
}

impl Taking {
    pub(in crate::sync) fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.lock);
        visit.cell(&self.waiter);
    }

    pub(in crate::sync) fn clear(&self) {
        self.lock.set(None);
        self.waiter.set(None);
    }

    #[inline(always)]
    pub(in crate::sync) fn begin(&self, condition: Inst<'_, Condition>) -> PyRes<Step> {
        let Some(lock) = direct(condition) else {
            return call::method(names().acquire.borrow(), [condition.obj()]).map(Step::Await);
        };
        match lock::begin(lock.inst())? {
            None => Ok(Step::Done),
            Some(waiter) => {
                self.lock.set(Some(lock));
                self.waiter.set(Some(waiter.clone()));
                Ok(Step::Wait(waiter))
            }
        }
    }

    #[inline(always)]
    pub(in crate::sync) fn end(&self, outcome: Result<Obj, Obj>) -> PyRes<()> {
        match (self.lock.take(), self.waiter.take(), outcome) {
            (Some(lock), Some(waiter), outcome) => lock::end(lock.inst(), &waiter, outcome),
            (_, _, Ok(_true)) => Ok(()),
            (_, _, Err(exc)) => Err(err::raise_instance(exc.borrow())),
        }
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Notified,
    Lock,
}

/// One `wait()`.
#[derive(Default)]
pub(in crate::sync) struct Waiting {
    stage: Cell<Stage>,
    /// Who is in the condition's queue.
    waiter: ObjCell,
    taking: Taking,
    /// The exception that ended the wait.
    failed: ObjCell,
    /// The last CancelledError that came while the lock was being taken back.
    cancelled: ObjCell,
}

impl Waiting {
    pub(in crate::sync) fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.waiter);
        self.taking.traverse(visit);
        visit.cell(&self.failed);
        visit.cell(&self.cancelled);
    }

    pub(in crate::sync) fn clear(&self) {
        self.waiter.set(None);
        self.taking.clear();
        self.failed.set(None);
        self.cancelled.set(None);
    }

    #[inline(always)]
    pub(in crate::sync) fn begin(&self, condition: Inst<'_, Condition>) -> PyRes<Step> {
        if !is_locked(condition)? {
            return Err(Builtin::Runtime.raise("cannot wait on un-acquired lock"));
        }
        let new = || waiters::new_waiter(condition.obj(), &condition.waiters.loop_);
        let early = if stock().condition_passes_on {
            Some(new()?)
        } else {
            None
        };
        release(condition)?;
        let queued = || -> PyRes<Obj> {
            let waiter = match early {
                Some(waiter) => waiter,
                None => new()?,
            };
            let queue = condition.waiters.queue()?;
            waiters::append(queue.borrow(), waiter.borrow())?;
            Ok(waiter)
        };
        match queued() {
            Ok(waiter) => {
                self.stage.set(Stage::Notified);
                self.waiter.set(Some(waiter.clone()));
                Ok(Step::Wait(waiter))
            }
            Err(raised) => {
                self.failed.set(Some(raised.fetch()));
                self.take_back(condition)
            }
        }
    }

    #[inline(always)]
    pub(in crate::sync) fn resume(
        &self,
        condition: Inst<'_, Condition>,
        outcome: Result<Obj, Obj>,
    ) -> PyRes<Step> {
        if self.stage.get() == Stage::Notified {
            let left = match self.waiter.take() {
                Some(waiter) => condition.waiters.leave(waiter.borrow()),
                None => Ok(()),
            };
            match (left, outcome) {
                (Ok(()), Ok(_false)) => {}
                (Ok(()), Err(exc)) => self.failed.set(Some(exc)),
                (Err(raised), outcome) => {
                    let exc = raised.fetch();
                    if let Err(handled) = outcome {
                        err::set_context(exc.borrow(), handled);
                    }
                    self.failed.set(Some(exc));
                }
            }
            return self.take_back(condition);
        }
        match self.taking.end(outcome) {
            Ok(()) => self.finish(condition),
            Err(raised) => match self.note(raised) {
                Ok(()) => self.take_back(condition),
                Err(raised) => Err(pass_on(condition, raised)),
            },
        }
    }

    /// Takes the lock back, for as long as that is cancelled.
    #[inline(always)]
    fn take_back(&self, condition: Inst<'_, Condition>) -> PyRes<Step> {
        self.stage.set(Stage::Lock);
        loop {
            match self.taking.begin(condition) {
                Ok(Step::Done) => return self.finish(condition),
                Ok(step) => return Ok(step),
                Err(raised) => {
                    if let Err(raised) = self.note(raised) {
                        return Err(pass_on(condition, raised));
                    }
                }
            }
        }
    }

    /// Keeps a CancelledError that came instead of the lock; any other exception ends the wait.
    #[cold]
    fn note(&self, raised: Raised) -> PyRes<()> {
        let exc = raised.fetch();
        if !is_cancelled(exc.borrow()) {
            return Err(raise_while(exc, self.failed.take()));
        }
        if let Some(handled) = self.failed.get() {
            err::set_context(exc.borrow(), handled);
        }
        self.cancelled.set(Some(exc));
        Ok(())
    }

    /// The lock is held again.
    #[inline(always)]
    fn finish(&self, condition: Inst<'_, Condition>) -> PyRes<Step> {
        if self.failed.is_none() && self.cancelled.is_none() {
            return Ok(Step::Done);
        }
        Err(self.fail(condition))
    }

    #[cold]
    fn fail(&self, condition: Inst<'_, Condition>) -> Raised {
        let failed = self.failed.take();
        let raised = match (self.cancelled.take(), failed) {
            (Some(last), failed) => {
                if stock().condition_passes_on {
                    raise_while(last, failed)
                } else {
                    match call::call0(cancelled_class()) {
                        Ok(fresh) => raise_while(fresh, failed),
                        Err(raised) => raised,
                    }
                }
            }
            (None, Some(failed)) => err::raise_instance(failed.borrow()),
            (None, None) => Builtin::Runtime.raise("a wait failed without an error"),
        };
        pass_on(condition, raised)
    }
}

/// What a failing wait does for the others.
#[cold]
fn pass_on(condition: Inst<'_, Condition>, raised: Raised) -> Raised {
    if !stock().condition_passes_on {
        return raised;
    }
    let exc = raised.fetch();
    match condition.waiters.wake(1, false) {
        Ok(()) => err::raise_instance(exc.borrow()),
        Err(raised) => raise_while(raised.fetch(), Some(exc)),
    }
}

/// The coroutine of `wait()`.
#[derive(Default)]
pub(super) struct Wait {
    condition: OwnCell<Condition>,
    waiting: Waiting,
}

static WAIT: ClassCell = ClassCell::new();
static WAIT_FREE: FreeList = FreeList::new();

/// `wait()`.
pub(super) fn wait(slf: Inst<'_, Condition>, args: Args<'_>) -> PyRes<Obj> {
    if !args.is_empty() || args.keyword_count() > 0 {
        return Err(Builtin::Type.raise("wait() takes no arguments"));
    }
    if !is_plain(slf.obj(), plain) {
        return by_asyncio(&stock().condition, c"wait", &[slf.obj()]);
    }
    coroutine::new(|| Wait {
        condition: OwnCell::new(Some(slf.own())),
        waiting: Waiting::default(),
    })
}

#[inline(always)]
fn woken(step: PyRes<Step>) -> Next {
    match step {
        Ok(step) => suspended(step).unwrap_or_else(|| Next::Return(Obj::bool(true))),
        Err(raised) => Next::Raise(raised),
    }
}

impl Machine for Wait {
    const NAME: &'static str = "Condition.wait";
    const TYPE: &'static CStr = c"rondel.Condition_wait";

    fn cell() -> &'static ClassCell {
        &WAIT
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&WAIT_FREE)
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.condition);
        self.waiting.traverse(visit);
    }
    fn clear(&self) {
        self.condition.set(None);
        self.waiting.clear();
    }
    #[inline(always)]
    fn start(slf: Inst<'_, Coroutine<Self>>) -> Next {
        let body = &slf.data().body;
        match body.condition.get() {
            Some(condition) => woken(body.waiting.begin(condition.inst())),
            None => Next::Return(Obj::none()),
        }
    }
    #[inline(always)]
    fn resume(slf: Inst<'_, Coroutine<Self>>, outcome: Result<Obj, Obj>) -> Next {
        let body = &slf.data().body;
        match body.condition.get() {
            Some(condition) => woken(body.waiting.resume(condition.inst(), outcome)),
            None => Next::Return(Obj::none()),
        }
    }
}

/// The coroutine of `wait_for(predicate)`.
#[derive(Default)]
pub(super) struct WaitFor {
    condition: OwnCell<Condition>,
    predicate: ObjCell,
    waiting: Waiting,
}

static WAIT_FOR: ClassCell = ClassCell::new();
static WAIT_FOR_FREE: FreeList = FreeList::new();

/// `wait_for(predicate)`.
pub(super) fn wait_for(slf: Inst<'_, Condition>, args: Args<'_>) -> PyRes<Obj> {
    let [predicate] = args.bind("Condition.wait_for", [names().predicate.borrow()], 1, 1)?;
    if !is_plain(slf.obj(), plain) {
        let predicate = predicate.unwrap_or_else(|| slf.obj());
        return by_asyncio(&stock().condition, c"wait_for", &[slf.obj(), predicate]);
    }
    coroutine::new(|| WaitFor {
        condition: OwnCell::new(Some(slf.own())),
        predicate: ObjCell::new(predicate.map(|predicate| predicate.own())),
        waiting: Waiting::default(),
    })
}

impl WaitFor {
    /// The predicate's value if it is true; else it waits once more.
    fn look(&self, condition: Inst<'_, Condition>) -> PyRes<Next> {
        let predicate = self.predicate.get().unwrap_or_else(Obj::none);
        loop {
            let value = call::call0(predicate.borrow())?;
            if value.borrow().truthy()? {
                return Ok(Next::Return(value));
            }
            if let Some(next) = suspended(self.waiting.begin(condition)?) {
                return Ok(next);
            }
        }
    }

    fn go_on(&self, condition: Inst<'_, Condition>, outcome: Result<Obj, Obj>) -> PyRes<Next> {
        match suspended(self.waiting.resume(condition, outcome)?) {
            Some(next) => Ok(next),
            None => self.look(condition),
        }
    }
}

impl Machine for WaitFor {
    const NAME: &'static str = "Condition.wait_for";
    const TYPE: &'static CStr = c"rondel.Condition_wait_for";

    fn cell() -> &'static ClassCell {
        &WAIT_FOR
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&WAIT_FOR_FREE)
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.condition);
        visit.cell(&self.predicate);
        self.waiting.traverse(visit);
    }
    fn clear(&self) {
        self.condition.set(None);
        self.predicate.set(None);
        self.waiting.clear();
    }
    fn start(slf: Inst<'_, Coroutine<Self>>) -> Next {
        let body = &slf.data().body;
        match body.condition.get() {
            Some(condition) => body.look(condition.inst()).unwrap_or_else(Next::Raise),
            None => Next::Return(Obj::none()),
        }
    }
    fn resume(slf: Inst<'_, Coroutine<Self>>, outcome: Result<Obj, Obj>) -> Next {
        let body = &slf.data().body;
        match body.condition.get() {
            Some(condition) => body
                .go_on(condition.inst(), outcome)
                .unwrap_or_else(Next::Raise),
            None => Next::Return(Obj::none()),
        }
    }
}

/// The coroutine of `__aenter__()`.
#[derive(Default)]
pub(super) struct Enter {
    condition: OwnCell<Condition>,
    taking: Taking,
}

static ENTER: ClassCell = ClassCell::new();
static ENTER_FREE: FreeList = FreeList::new();

/// `__aenter__()`.
pub(super) fn enter(slf: Inst<'_, Condition>, args: Args<'_>) -> PyRes<Obj> {
    if !args.is_empty() || args.keyword_count() > 0 {
        return Err(Builtin::Type.raise("__aenter__() takes no arguments"));
    }
    coroutine::new(|| Enter {
        condition: OwnCell::new(Some(slf.own())),
        taking: Taking::default(),
    })
}

impl Machine for Enter {
    const NAME: &'static str = "_ContextManagerMixin.__aenter__";
    const TYPE: &'static CStr = c"rondel.Condition_aenter";

    fn cell() -> &'static ClassCell {
        &ENTER
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&ENTER_FREE)
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.condition);
        self.taking.traverse(visit);
    }
    fn clear(&self) {
        self.condition.set(None);
        self.taking.clear();
    }
    #[inline(always)]
    fn start(slf: Inst<'_, Coroutine<Self>>) -> Next {
        let body = &slf.data().body;
        let Some(condition) = body.condition.get() else {
            return Next::Return(Obj::none());
        };
        match body.taking.begin(condition.inst()) {
            Ok(step) => suspended(step).unwrap_or_else(|| Next::Return(Obj::none())),
            Err(raised) => Next::Raise(raised),
        }
    }
    #[inline(always)]
    fn resume(slf: Inst<'_, Coroutine<Self>>, outcome: Result<Obj, Obj>) -> Next {
        Next::from_result(slf.data().body.taking.end(outcome).map(|()| Obj::none()))
    }
}

pub(super) fn build() -> PyRes<()> {
    coroutine::build::<Wait>()?;
    coroutine::build::<WaitFor>()?;
    coroutine::build::<Enter>()?;
    Ok(())
}
