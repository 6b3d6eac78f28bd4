//! `Barrier`: asyncio's, whose wait, reset and abort are native.
//!
//! ```text
//!  FILLING ── the last party comes ──► DRAINING ── the last party goes ──► FILLING
//!     │ reset() with parties inside ──► RESETTING ── the last party goes ──┘
//!     └ abort() ──► BROKEN, for ever or until reset() of an empty barrier
//! ```
//! Every change happens under the barrier's condition, and notifies all who wait for it: parties that
//! wait for the barrier to fill, and those who came while it drains. A `wait()` is one machine:
//!
//! ```text
//!  Enter (the lock) ──► Block (while draining or resetting) ──► Fill (while filling) ──► the lock goes
//! ```
//! Native are barriers whose class and condition add nothing; asyncio's own methods serve the others,
//! on the same fields (Python docs, *Synchronization Primitives*; `asyncio.locks.Barrier`).
//!
//! No borrow is held while Python code can run.

use super::condition::{self, Condition, Step, Taking, Waiting, suspended};
use super::fields::{self, Count};
use super::{Plain, by_asyncio, is_plain, raise_while};
use crate::consts::stock;
use crate::primitives::coroutine::{self, Coroutine, Machine, Next};
use rondel_ffi::class::{ObjCell, OwnCell, TypeBuilder, Visit};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::gil::GilStatic;
use rondel_ffi::method::Args;
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Raised, call, callable, value};
use std::cell::Cell;
use std::ffi::CStr;

#[derive(Default)]
pub(crate) struct Barrier {
    /// `_cond`.
    condition: ObjCell,
    parties: Count,
    /// `_state`: a member of asyncio's `_BarrierState`.
    state: ObjCell,
    /// How many are inside.
    count: Count,
}

static CELL: ClassCell = ClassCell::new();

impl Class for Barrier {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        for cell in self.cells() {
            visit.cell(cell);
        }
    }
    fn clear(&self) {
        for cell in self.cells() {
            cell.set(None);
        }
    }
}

impl Barrier {
    fn cells(&self) -> [&ObjCell; 4] {
        [
            &self.condition,
            self.parties.cell(),
            &self.state,
            self.count.cell(),
        ]
    }

    fn state(&self) -> State {
        let (Some(members), Some(state)) = (MEMBERS.get(), self.state.peek()) else {
            return State::Other;
        };
        STATES
            .into_iter()
            .find(|known| members[*known as usize].borrow().is(state))
            .unwrap_or(State::Other)
    }

    fn change(&self, state: State) {
        if let Some(members) = MEMBERS.get() {
            self.state.set(members.get(state as usize).cloned());
        }
    }

    fn add(&self, by: i64) -> i64 {
        let count = self.count.get().unwrap_or(0) + by;
        self.count.set(count);
        count
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Filling,
    Draining,
    Resetting,
    Broken,
    /// Somebody's own.
    Other,
}

const STATES: [State; 4] = [
    State::Filling,
    State::Draining,
    State::Resetting,
    State::Broken,
];

/// asyncio's members of `_BarrierState`, in the order of `STATES`.
static MEMBERS: GilStatic<[Obj; 4]> = GilStatic::new();

type Slf<'a> = Inst<'a, Barrier>;

fn plain(plain: &Plain) -> &Obj {
    &plain.barrier
}

/// The condition of a barrier that is native in every respect.
fn whole(slf: Slf<'_>) -> Option<Own<Condition>> {
    let counts = slf.parties.get().is_some() && slf.count.get().is_some();
    if !counts || slf.state() == State::Other || !is_plain(slf.obj(), plain) {
        return None;
    }
    let condition = condition::native(slf.condition.peek()?)?;
    condition::direct(condition).map(|_lock| condition.own())
}

/// `BrokenBarrierError(message)`.
#[cold]
fn broken(message: &str) -> Raised {
    let raise = || -> PyRes<Raised> {
        let exceptions = call::import(c"asyncio.exceptions")?;
        let name = value::intern(c"BrokenBarrierError")?;
        let class = call::getattr(exceptions.borrow(), name.borrow())?;
        Ok(err::raise_str(class.borrow(), message))
    };
    raise().unwrap_or_else(|raised| raised)
}

#[derive(Clone, Copy, Default)]
enum Stage {
    /// Takes the lock; or asyncio's own coroutine runs instead.
    #[default]
    Enter,
    Block,
    Fill,
}

/// The coroutine of `wait()` and, with `ENTER`, of `__aenter__()`.
#[derive(Default)]
pub(crate) struct Wait<const ENTER: bool> {
    barrier: OwnCell<Barrier>,
    condition: OwnCell<Condition>,
    stage: Cell<Stage>,
    taking: Taking,
    waiting: Waiting,
    /// The place of this party, from when it is inside.
    index: Cell<i64>,
}

static WAIT: ClassCell = ClassCell::new();
static WAIT_FREE: FreeList = FreeList::new();
static ENTER: ClassCell = ClassCell::new();
static ENTER_FREE: FreeList = FreeList::new();

fn no_arguments(name: &str, args: Args<'_>) -> PyRes<()> {
    if args.is_empty() && args.keyword_count() == 0 {
        return Ok(());
    }
    Err(Builtin::Type.raise(&format!("{name}() takes no arguments")))
}

fn wait<const ENTER: bool>(slf: Slf<'_>, args: Args<'_>) -> PyRes<Obj> {
    let name = if ENTER { "__aenter__" } else { "wait" };
    no_arguments(name, args)?;
    if whole(slf).is_none() {
        let name = if ENTER { c"__aenter__" } else { c"wait" };
        return by_asyncio(&stock().barrier, name, &[slf.obj()]);
    }
    coroutine::new(|| Wait::<ENTER> {
        barrier: OwnCell::new(Some(slf.own())),
        ..Wait::default()
    })
}

/// A barrier and its condition, while a machine works on them.
#[derive(Clone, Copy)]
struct Place<'a> {
    barrier: Slf<'a>,
    condition: Inst<'a, Condition>,
}

impl Place<'_> {
    /// The end of `async with self._cond`.
    fn leave(self, result: PyRes<Obj>) -> PyRes<Obj> {
        match result {
            Ok(value) => condition::release(self.condition).map(|()| value),
            Err(raised) => {
                let exc = raised.fetch();
                match condition::release(self.condition) {
                    Ok(()) => Err(err::raise_instance(exc.borrow())),
                    Err(raised) => Err(raise_while(raised.fetch(), Some(exc))),
                }
            }
        }
    }
}

impl<const E: bool> Wait<E> {
    /// The lock is held: waits until the barrier is ready for this party.
    fn block(&self, at: Place<'_>) -> Next {
        loop {
            match at.barrier.state() {
                State::Draining | State::Resetting => {
                    self.stage.set(Stage::Block);
                    match self.waiting.begin(at.condition).map(suspended) {
                        Ok(Some(next)) => return next,
                        Ok(None) => {}
                        Err(raised) => return Next::from_result(at.leave(Err(raised))),
                    }
                }
                State::Broken => {
                    return Next::from_result(at.leave(Err(broken("Barrier aborted"))));
                }
                State::Filling | State::Other => return self.arrive(at),
            }
        }
    }

    /// This party is inside; the last one lets all go.
    fn arrive(&self, at: Place<'_>) -> Next {
        let count = at.barrier.add(1);
        self.index.set(count - 1);
        if at.barrier.parties.get() != Some(count) {
            return self.fill(at);
        }
        at.barrier.change(State::Draining);
        self.depart(at, condition::wake_all(at.condition))
    }

    /// Waits for the last party.
    fn fill(&self, at: Place<'_>) -> Next {
        loop {
            match at.barrier.state() {
                State::Filling => {
                    self.stage.set(Stage::Fill);
                    match self.waiting.begin(at.condition).map(suspended) {
                        Ok(Some(next)) => return next,
                        Ok(None) => {}
                        Err(raised) => return self.depart(at, Err(raised)),
                    }
                }
                State::Broken | State::Resetting => {
                    return self.depart(at, Err(broken("Abort or reset of barrier")));
                }
                State::Draining | State::Other => return self.depart(at, Ok(())),
            }
        }
    }

    /// The party goes, and the last one makes the barrier ready again.
    fn depart(&self, at: Place<'_>, result: PyRes<()>) -> Next {
        let failed = result.err().map(Raised::fetch);
        let mut woken = Ok(());
        if at.barrier.add(-1) == 0 {
            if matches!(at.barrier.state(), State::Resetting | State::Draining) {
                at.barrier.change(State::Filling);
            }
            woken = condition::wake_all(at.condition);
        }
        let result = match (woken, failed) {
            (Ok(()), None) => value::int(self.index.get()),
            (Ok(()), Some(failed)) => Err(err::raise_instance(failed.borrow())),
            (Err(raised), failed) => Err(raise_while(raised.fetch(), failed)),
        };
        Next::from_result(at.leave(result))
    }
}

impl<const E: bool> Machine for Wait<E> {
    const NAME: &'static str = if E {
        "Barrier.__aenter__"
    } else {
        "Barrier.wait"
    };
    const TYPE: &'static CStr = if E {
        c"rondel.Barrier_aenter"
    } else {
        c"rondel.Barrier_wait"
    };

    fn cell() -> &'static ClassCell {
        if E { &ENTER } else { &WAIT }
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(if E { &ENTER_FREE } else { &WAIT_FREE })
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.barrier);
        visit.own(&self.condition);
        self.taking.traverse(visit);
        self.waiting.traverse(visit);
    }
    fn clear(&self) {
        self.barrier.set(None);
        self.condition.set(None);
        self.taking.clear();
        self.waiting.clear();
    }

    fn start(slf: Inst<'_, Coroutine<Self>>) -> Next {
        let body = &slf.data().body;
        let Some(barrier) = body.barrier.get() else {
            return Next::Return(Obj::none());
        };
        // Somebody may have replaced a field since the call.
        let Some(condition) = whole(barrier.inst()) else {
            let name = if E { c"__aenter__" } else { c"wait" };
            return match by_asyncio(&stock().barrier, name, &[barrier.obj()]) {
                Ok(wait) => Next::Await(wait),
                Err(raised) => Next::Raise(raised),
            };
        };
        let at = Place {
            barrier: barrier.inst(),
            condition: condition.inst(),
        };
        match body.taking.begin(at.condition).map(suspended) {
            Ok(None) => {
                body.condition.set(Some(condition.clone()));
                body.block(at)
            }
            Ok(Some(next)) => {
                body.condition.set(Some(condition.clone()));
                next
            }
            Err(raised) => Next::Raise(raised),
        }
    }

    fn resume(slf: Inst<'_, Coroutine<Self>>, outcome: Result<Obj, Obj>) -> Next {
        let body = &slf.data().body;
        let (Some(barrier), Some(condition)) = (body.barrier.get(), body.condition.get()) else {
            // asyncio's own coroutine is over.
            return match outcome {
                Ok(value) => Next::Return(value),
                Err(exc) => Next::raise(exc),
            };
        };
        let at = Place {
            barrier: barrier.inst(),
            condition: condition.inst(),
        };
        match body.stage.get() {
            Stage::Enter => match body.taking.end(outcome) {
                Ok(()) => body.block(at),
                Err(raised) => Next::Raise(raised),
            },
            Stage::Block => match body.waiting.resume(at.condition, outcome).map(suspended) {
                Ok(Some(next)) => next,
                Ok(None) => body.block(at),
                Err(raised) => Next::from_result(at.leave(Err(raised))),
            },
            Stage::Fill => match body.waiting.resume(at.condition, outcome).map(suspended) {
                Ok(Some(next)) => next,
                Ok(None) => body.fill(at),
                Err(raised) => body.depart(at, Err(raised)),
            },
        }
    }
}

/// The coroutine of `abort()` and, with `RESET`, of `reset()`.
#[derive(Default)]
pub(crate) struct Change<const RESET: bool> {
    barrier: OwnCell<Barrier>,
    condition: OwnCell<Condition>,
    taking: Taking,
}

static RESET: ClassCell = ClassCell::new();
static ABORT: ClassCell = ClassCell::new();

fn change<const RESET: bool>(slf: Slf<'_>, args: Args<'_>) -> PyRes<Obj> {
    no_arguments(if RESET { "reset" } else { "abort" }, args)?;
    match whole(slf) {
        Some(condition) => coroutine::new(|| Change::<RESET> {
            barrier: OwnCell::new(Some(slf.own())),
            condition: OwnCell::new(Some(condition)),
            taking: Taking::default(),
        }),
        None => {
            let name = if RESET { c"reset" } else { c"abort" };
            by_asyncio(&stock().barrier, name, &[slf.obj()])
        }
    }
}

impl<const R: bool> Change<R> {
    fn at_last(at: Place<'_>) -> Next {
        let barrier = at.barrier;
        if !R {
            barrier.change(State::Broken);
        } else if barrier.count.get().is_some_and(|count| count > 0) {
            barrier.change(State::Resetting);
        } else {
            barrier.change(State::Filling);
        }
        let woken = condition::wake_all(at.condition).map(|()| Obj::none());
        Next::from_result(at.leave(woken))
    }

    fn act(&self, taken: impl FnOnce(Place<'_>) -> PyRes<Step>) -> Next {
        let (Some(barrier), Some(condition)) = (self.barrier.get(), self.condition.get()) else {
            return Next::Return(Obj::none());
        };
        let at = Place {
            barrier: barrier.inst(),
            condition: condition.inst(),
        };
        match taken(at).map(suspended) {
            Ok(Some(next)) => next,
            Ok(None) => Self::at_last(at),
            Err(raised) => Next::Raise(raised),
        }
    }
}

impl<const R: bool> Machine for Change<R> {
    const NAME: &'static str = if R { "Barrier.reset" } else { "Barrier.abort" };
    const TYPE: &'static CStr = if R {
        c"rondel.Barrier_reset"
    } else {
        c"rondel.Barrier_abort"
    };

    fn cell() -> &'static ClassCell {
        if R { &RESET } else { &ABORT }
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.barrier);
        visit.own(&self.condition);
        self.taking.traverse(visit);
    }
    fn clear(&self) {
        self.barrier.set(None);
        self.condition.set(None);
        self.taking.clear();
    }
    fn start(slf: Inst<'_, Coroutine<Self>>) -> Next {
        let body = &slf.data().body;
        body.act(|at| body.taking.begin(at.condition))
    }
    fn resume(slf: Inst<'_, Coroutine<Self>>, outcome: Result<Obj, Obj>) -> Next {
        let body = &slf.data().body;
        body.act(|_at| body.taking.end(outcome).map(|()| Step::Done))
    }
}

/// The coroutine of `__aexit__()`, which does nothing.
#[derive(Default)]
pub(crate) struct Leave;

static LEAVE: ClassCell = ClassCell::new();
static LEAVE_FREE: FreeList = FreeList::new();

fn leave(_slf: Slf<'_>, _args: Args<'_>) -> PyRes<Obj> {
    coroutine::new(|| Leave)
}

impl Machine for Leave {
    const NAME: &'static str = "Barrier.__aexit__";
    const TYPE: &'static CStr = c"rondel.Barrier_aexit";

    fn cell() -> &'static ClassCell {
        &LEAVE
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&LEAVE_FREE)
    }
    fn traverse(&self, _visit: &mut Visit) {}
    fn clear(&self) {}
    fn start(_slf: Inst<'_, Coroutine<Self>>) -> Next {
        Next::Return(Obj::none())
    }
    fn resume(_slf: Inst<'_, Coroutine<Self>>, outcome: Result<Obj, Obj>) -> Next {
        // It never waits.
        match outcome {
            Ok(value) => Next::Return(value),
            Err(exc) => Next::raise(exc),
        }
    }
}

fn load_members() -> PyRes<()> {
    let locks = call::import(c"asyncio.locks")?;
    let of = |owner: &Obj, name| call::getattr(owner.borrow(), value::intern(name)?.borrow());
    let states = of(&locks, c"_BarrierState")?;
    if MEMBERS.get().is_none() {
        MEMBERS.set([
            of(&states, c"FILLING")?,
            of(&states, c"DRAINING")?,
            of(&states, c"RESETTING")?,
            of(&states, c"BROKEN")?,
        ]);
    }
    Ok(())
}

pub(super) fn build() -> PyRes<Obj> {
    load_members()?;
    coroutine::build::<Wait<false>>()?;
    coroutine::build::<Wait<true>>()?;
    coroutine::build::<Change<false>>()?;
    coroutine::build::<Change<true>>()?;
    coroutine::build::<Leave>()?;
    let class = TypeBuilder::<Barrier>::new(c"rondel._rondel.BarrierBase")
        .subclassable()
        .properties([
            fields::object(c"_cond", |s: &Barrier| &s.condition),
            fields::count(c"_parties", |s: &Barrier| &s.parties),
            fields::object(c"_state", |s: &Barrier| &s.state),
            fields::count(c"_count", |s: &Barrier| &s.count),
        ])
        .build()?;
    let like = |name| call::getattr(stock().barrier.borrow(), value::intern(name)?.borrow());
    for (name, made) in [
        (
            c"wait",
            callable::coroutine_method::<Barrier, _>(wait::<false>, like(c"wait")?.borrow())?,
        ),
        (
            c"__aenter__",
            callable::async_with_method::<Barrier, _>(wait::<true>, like(c"__aenter__")?.borrow())?,
        ),
        (
            c"__aexit__",
            callable::async_with_method::<Barrier, _>(leave, like(c"__aexit__")?.borrow())?,
        ),
        (
            c"reset",
            callable::coroutine_method::<Barrier, _>(change::<true>, like(c"reset")?.borrow())?,
        ),
        (
            c"abort",
            callable::coroutine_method::<Barrier, _>(change::<false>, like(c"abort")?.borrow())?,
        ),
    ] {
        call::setattr(class.borrow(), value::intern(name)?.borrow(), made.borrow())?;
    }
    Ok(class)
}
