//! `as_completed`: the results of some awaitables in the order in which they are done.
//!
//! ```text
//!  child done ── Hop::Completed ──► done queue ──► who waits longest in a coroutine that was handed out
//!  time over ─── Alarm::Completed ─► one None for each child that is missing: TimeoutError
//! ```
//!
//! As `asyncio.tasks.as_completed` of the Python that runs (Python docs, *Waiting Primitives*): before
//! 3.13 a generator, which starts at its first `next()`; from then on an iterator, asynchronous too,
//! which starts when it is made. The queue between them follows `asyncio.Queue` hop for hop: a getter
//! that is woken looks again, since another may have been quicker, and one that is cancelled after it
//! was woken wakes the next.
//!
//! No borrow of the queues is held while Python code can run.

use super::coroutine::{self, Coroutine, Machine, Next};
use super::functions;
use super::hops::{self, Alarm, Hop};
use crate::consts::{names, stock};
use crate::event_loop::{self, LoopBase};
use crate::future::{self, Future, State};
use rondel_core::timers::TimerKey;
use rondel_ffi::call::{self, Sent};
use rondel_ffi::class::{ObjCell, OwnCell, TypeBuilder, Visit, alloc};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::method::{self, Args, BoundDef, Unary};
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Ref, value};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::CStr;
use std::sync::OnceLock;

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Created,
    Running,
    /// A generator that has ended.
    Over,
}

#[derive(Default)]
pub(crate) struct AsCompleted {
    stage: Cell<Stage>,
    /// The arguments, until it starts.
    awaitables: ObjCell,
    timeout: ObjCell,
    home: OwnCell<LoopBase>,
    /// A set of the futures that are not done; none when time was over.
    todo: ObjCell,
    /// How many coroutines are still to be handed out.
    left: Cell<usize>,
    /// Futures that are done and not handed out; None where time was over.
    done: RefCell<VecDeque<Option<Obj>>>,
    getters: RefCell<VecDeque<Own<Future>>>,
    alarm: Cell<Option<TimerKey>>,
    /// asyncio's own generator, where it was started on a loop that is not Rondel's.
    stock: ObjCell,
}

static CELL: ClassCell = ClassCell::new();

impl Class for AsCompleted {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.home);
        for cell in [&self.awaitables, &self.timeout, &self.todo, &self.stock] {
            visit.cell(cell);
        }
        if let Ok(done) = self.done.try_borrow() {
            for future in done.iter().flatten() {
                visit.obj(future.borrow());
            }
        }
        if let Ok(getters) = self.getters.try_borrow() {
            for getter in getters.iter() {
                visit.obj(getter.obj());
            }
        }
    }
    fn clear(&self) {
        self.awaitables.set(None);
        self.timeout.set(None);
        self.todo.set(None);
        self.stock.set(None);
        let done = self.done.take();
        drop(done);
        let getters = self.getters.take();
        drop(getters);
        self.home.set(None);
    }
}

/// `as_completed(fs, *, timeout=None)`.
pub(super) fn as_completed(args: Args<'_>) -> PyRes<Obj> {
    let Some(home) = event_loop::running() else {
        return call::call_args(stock().as_completed.borrow(), &args);
    };
    let params = [names().fs.borrow(), names().timeout.borrow()];
    let [fs, timeout] = args.bind("as_completed", params, 1, 1)?;
    let made = alloc(
        AsCompleted {
            awaitables: ObjCell::new(fs.map(Ref::own)),
            timeout: ObjCell::new(timeout.and_then(Ref::not_none).map(Ref::own)),
            ..AsCompleted::default()
        },
        true,
    )?;
    if cfg!(Py_3_13) {
        begin(made.inst(), home.inst())?;
    }
    Ok(made.into_obj())
}

/// Raises for a single awaitable where an iterable of them is meant, in each version's words.
fn check_iterable(fs: Ref<'_>) -> PyRes<()> {
    if value::is_plain_collection(fs) {
        return Ok(());
    }
    let is = |test: &Obj| call::call1(test.borrow(), fs)?.borrow().truthy();
    let known = stock();
    let (single, what) = if cfg!(Py_3_13) {
        (is(&known.isawaitable)?, "expects an iterable of awaitables")
    } else {
        let single = is(&known.isfuture)? || is(&known.iscoroutine)?;
        (single, "expect an iterable of futures")
    };
    if single {
        let name = value::type_name(fs);
        return Err(Builtin::Type.raise(&format!("{what}, not {name}")));
    }
    Ok(())
}

fn begin(slf: Inst<'_, AsCompleted>, home: Inst<'_, LoopBase>) -> PyRes<()> {
    slf.stage.set(Stage::Running);
    let Some(fs) = slf.awaitables.take() else {
        return Ok(());
    };
    check_iterable(fs.borrow())?;
    slf.home.set(Some(home.own()));
    let distinct = value::set_of(fs.borrow())?;
    let todo = value::set()?;
    value::for_each(distinct.borrow(), |awaitable| {
        let future = functions::ensure_on(home, awaitable.borrow())?;
        value::set_add(todo.borrow(), future.borrow())
    })?;
    let own = slf.own();
    slf.todo.set(Some(todo.clone()));
    value::for_each(todo.borrow(), |future| {
        hops::add(future.borrow(), Hop::Completed(own.clone()))
    })?;
    let count = value::set_len(todo.borrow());
    slf.left.set(count);
    if count > 0
        && let Some(delay) = slf.timeout.take()
    {
        let delay = value::as_f64(delay.borrow())?;
        let key = hops::alarm_after(home, delay, Alarm::Completed(own));
        slf.alarm.set(Some(key));
    }
    Ok(())
}

/// A future is done (asyncio's `_on_completion`).
pub(super) fn child_done(slf: Inst<'_, AsCompleted>, child: Ref<'_>) -> PyRes<()> {
    let Some(todo) = slf.todo.get() else {
        return Ok(());
    };
    if value::set_len(todo.borrow()) == 0 {
        return Ok(());
    }
    value::set_discard(todo.borrow(), child)?;
    put(slf, Some(child.own()))?;
    if value::set_len(todo.borrow()) == 0 {
        hops::stop_alarm(slf.home.get(), &slf.alarm);
    }
    Ok(())
}

/// Time is over (asyncio's `_on_timeout`).
pub(super) fn timed_out(slf: Inst<'_, AsCompleted>) -> PyRes<()> {
    slf.alarm.set(None);
    let Some(todo) = slf.todo.get() else {
        return Ok(());
    };
    let hop = Hop::Completed(slf.own());
    value::for_each(todo.borrow(), |future| {
        hops::remove(future.borrow(), &hop)?;
        put(slf, None)
    })?;
    slf.todo.set(None);
    Ok(())
}

pub(super) fn done_def() -> &'static BoundDef {
    static DEF: OnceLock<BoundDef> = OnceLock::new();
    DEF.get_or_init(|| {
        BoundDef::new(method::onearg::<AsCompleted, _>(
            c"_on_completion",
            c"Hand a future out.",
            |slf: Inst<'_, AsCompleted>, child: Ref<'_>| {
                child_done(slf, child).map(|()| Obj::none())
            },
        ))
    })
}

// ------------------------------------------------------------------------------------- the queue

/// `queue.put_nowait(item)`.
#[inline(always)]
fn put(slf: Inst<'_, AsCompleted>, item: Option<Obj>) -> PyRes<()> {
    slf.done.borrow_mut().push_back(item);
    wake_next(slf)
}

/// `queue._wakeup_next(getters)`.
#[inline(always)]
fn wake_next(slf: Inst<'_, AsCompleted>) -> PyRes<()> {
    loop {
        let getter = slf.getters.borrow_mut().pop_front();
        let Some(getter) = getter else { return Ok(()) };
        if !getter.done() {
            return future::finish(getter.inst(), State::Finished, Some(Obj::none()));
        }
    }
}

/// One `await queue.get()`.
#[derive(Default)]
struct Get {
    source: OwnCell<AsCompleted>,
    getter: OwnCell<Future>,
}

enum Got {
    Item(Option<Obj>),
    Later(Next),
}

impl Get {
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.source);
        visit.own(&self.getter);
    }

    fn clear(&self) {
        self.source.set(None);
        self.getter.set(None);
    }

    #[inline(always)]
    fn poll(&self) -> Got {
        let Some(source) = self.source.get() else {
            return Got::Item(None);
        };
        let item = source.done.borrow_mut().pop_front();
        if let Some(item) = item {
            return Got::Item(item);
        }
        match self.enqueue(source.inst()) {
            Ok(getter) => Got::Later(Next::Wait(getter)),
            Err(raised) => Got::Later(Next::Raise(raised)),
        }
    }

    fn enqueue(&self, source: Inst<'_, AsCompleted>) -> PyRes<Own<Future>> {
        let home = event_loop::running();
        let same = match (&home, source.home.peek()) {
            (Some(here), Some(home)) => here.obj().is(home.obj()),
            _ => false,
        };
        let Some(home) = home.filter(|_| same) else {
            return Err(Builtin::Runtime.raise("as_completed() is bound to a different event loop"));
        };
        let getter = future::create(home.inst())?;
        source.getters.borrow_mut().push_back(getter.clone());
        self.getter.set(Some(getter.clone()));
        Ok(getter)
    }

    /// The wait for an item has ended.
    #[inline(always)]
    fn resume(&self, outcome: Result<Obj, Obj>) -> Got {
        match outcome {
            Ok(_none) => {
                self.getter.set(None);
                self.poll()
            }
            Err(exc) => match self.give_up() {
                Ok(()) => Got::Later(Next::raise(exc)),
                Err(raised) => Got::Later(Next::Raise(raised)),
            },
        }
    }

    #[cold]
    fn give_up(&self) -> PyRes<()> {
        let (Some(getter), Some(source)) = (self.getter.take(), self.source.get()) else {
            return Ok(());
        };
        future::cancel_plain(getter.inst(), None)?;
        let mut getters = source.getters.borrow_mut();
        let at = getters.iter().position(|g| g.obj().is(getter.obj()));
        let removed = at.and_then(|at| getters.remove(at));
        drop(getters);
        drop(removed);
        let waits = !source.done.borrow().is_empty();
        if waits && getter.state.get() != State::Cancelled {
            wake_next(source.inst())?;
        }
        Ok(())
    }
}

fn timeout_error() -> Next {
    match call::call0(Builtin::Timeout.class()) {
        Ok(error) => Next::raise(error),
        Err(raised) => Next::Raise(raised),
    }
}

// ----------------------------------------------------------------------------- what is handed out

/// The coroutine that gives the next result.
#[derive(Default)]
pub(crate) struct NextResult(Get);

static RESULT: ClassCell = ClassCell::new();
static RESULTS: FreeList = FreeList::new();

impl Machine for NextResult {
    const NAME: &'static str = if cfg!(Py_3_13) {
        "_AsCompletedIterator._wait_for_one"
    } else {
        "as_completed.<locals>._wait_for_one"
    };
    const TYPE: &'static CStr = c"rondel.as_completed_coroutine";

    fn cell() -> &'static ClassCell {
        &RESULT
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&RESULTS)
    }
    fn traverse(&self, visit: &mut Visit) {
        self.0.traverse(visit);
    }
    fn clear(&self) {
        self.0.clear();
    }
    fn start(slf: Inst<'_, Coroutine<Self>>) -> Next {
        result_of(slf.data().body.0.poll())
    }
    fn resume(slf: Inst<'_, Coroutine<Self>>, outcome: Result<Obj, Obj>) -> Next {
        result_of(slf.data().body.0.resume(outcome))
    }
}

fn result_of(got: Got) -> Next {
    match got {
        Got::Later(next) => next,
        Got::Item(None) => timeout_error(),
        Got::Item(Some(future)) => match hops::outcome(future.borrow()) {
            Ok(value) => Next::Return(value),
            Err(exc) => Next::raise(exc),
        },
    }
}

/// The coroutine of `__anext__` (3.13 on): gives the next future itself.
#[derive(Default)]
pub(crate) struct NextFuture(Get);

static FUTURE: ClassCell = ClassCell::new();
static FUTURES: FreeList = FreeList::new();

impl Machine for NextFuture {
    const NAME: &'static str = "_AsCompletedIterator.__anext__";
    const TYPE: &'static CStr = c"rondel.as_completed_anext";

    fn cell() -> &'static ClassCell {
        &FUTURE
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&FUTURES)
    }
    fn traverse(&self, visit: &mut Visit) {
        self.0.traverse(visit);
    }
    fn clear(&self) {
        self.0.clear();
    }
    fn start(slf: Inst<'_, Coroutine<Self>>) -> Next {
        let get = &slf.data().body.0;
        let counted = get.source.peek().is_some_and(|source| take_turn(source));
        if !counted {
            return Next::Raise(err::raise_str(stock().stop_async_iteration.borrow(), ""));
        }
        future_of(get.poll())
    }
    fn resume(slf: Inst<'_, Coroutine<Self>>, outcome: Result<Obj, Obj>) -> Next {
        future_of(slf.data().body.0.resume(outcome))
    }
}

fn future_of(got: Got) -> Next {
    match got {
        Got::Later(next) => next,
        Got::Item(None) => timeout_error(),
        Got::Item(Some(future)) => Next::Return(future),
    }
}

/// Whether there is one more to hand out; counts it.
fn take_turn(slf: Inst<'_, AsCompleted>) -> bool {
    match slf.left.get().checked_sub(1) {
        Some(left) => {
            slf.left.set(left);
            true
        }
        None => false,
    }
}

// ---------------------------------------------------------------------------------- the iterator

/// `next(iterator)`, `iterator.send(value)`.
fn resume(slf: Inst<'_, AsCompleted>, sent: Ref<'_>) -> Sent {
    if slf.stage.get() == Stage::Created
        && let Err(raised) = first(slf)
    {
        slf.stage.set(Stage::Over);
        return Sent::Raised(raised);
    }
    if let Some(inner) = slf.stock.get() {
        return match call::method(names().send.borrow(), [inner.borrow(), sent]) {
            Ok(coro) => Sent::Yielded(coro),
            Err(raised) => call::stop_value(raised),
        };
    }
    if slf.stage.get() == Stage::Over || !take_turn(slf) {
        return Sent::Returned(Obj::none());
    }
    let get = Get {
        source: OwnCell::new(Some(slf.own())),
        getter: OwnCell::new(None),
    };
    match coroutine::new(|| NextResult(get)) {
        Ok(coro) => Sent::Yielded(coro),
        Err(raised) => Sent::Raised(raised),
    }
}

/// Before 3.13: what the generator does at its first `next()`.
fn first(slf: Inst<'_, AsCompleted>) -> PyRes<()> {
    if let Some(home) = event_loop::running() {
        return begin(slf, home.inst());
    }
    slf.stage.set(Stage::Running);
    let (Some(fs), timeout) = (slf.awaitables.take(), slf.timeout.take()) else {
        return Ok(());
    };
    let timeout = timeout.unwrap_or_else(Obj::none);
    let keywords = value::tuple([names().timeout.clone()])?;
    let inner = call::call_kw(
        stock().as_completed.borrow(),
        &[fs.borrow(), timeout.borrow()],
        keywords.borrow(),
    )?;
    slf.stock.set(Some(inner));
    Ok(())
}

fn anext(slf: Inst<'_, AsCompleted>) -> PyRes<Obj> {
    coroutine::new(|| {
        NextFuture(Get {
            source: OwnCell::new(Some(slf.own())),
            getter: OwnCell::new(None),
        })
    })
}

fn itself(slf: Inst<'_, AsCompleted>) -> PyRes<Obj> {
    Ok(slf.obj().own())
}

fn send(slf: Inst<'_, AsCompleted>, sent: Ref<'_>) -> PyRes<Obj> {
    if slf.stage.get() == Stage::Created && !sent.is_none() {
        return Err(Builtin::Type.raise("can't send non-None value to a just-started generator"));
    }
    method::sent_to_result(resume(slf, sent))
}

/// A generator without a `try`: it ends.
fn end(slf: Inst<'_, AsCompleted>) {
    slf.stage.set(Stage::Over);
    slf.stock.set(None);
    slf.left.set(0);
}

fn throw(slf: Inst<'_, AsCompleted>, args: Args<'_>) -> PyRes<Obj> {
    end(slf);
    Err(future::raise_thrown(args))
}

fn close(slf: Inst<'_, AsCompleted>) -> PyRes<Obj> {
    end(slf);
    Ok(Obj::none())
}

/// Builds the types.
pub(super) fn build() -> PyRes<Obj> {
    coroutine::build::<NextResult>()?;
    let [next, send_slot] = method::resume::<AsCompleted, _>(resume);
    let builder = TypeBuilder::<AsCompleted>::new(c"rondel.as_completed_iterator")
        .with(method::unary::<AsCompleted, _>(Unary::Iter, itself))
        .with(next)
        .weakrefs();
    if cfg!(Py_3_13) {
        coroutine::build::<NextFuture>()?;
        return builder
            .with(method::unary::<AsCompleted, _>(Unary::AsyncIter, itself))
            .with(method::unary::<AsCompleted, _>(Unary::AsyncNext, anext))
            .build();
    }
    builder
        .with(send_slot)
        .method(method::onearg::<AsCompleted, _>(
            c"send",
            c"As next(); a generator's method.",
            send,
        ))
        .method(method::fast::<AsCompleted, _>(
            c"throw",
            c"End the iteration by an exception.",
            throw,
        ))
        .method(method::noargs::<AsCompleted, _>(
            c"close",
            c"End the iteration.",
            close,
        ))
        .build()
}
