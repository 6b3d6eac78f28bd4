//! The loop's default executor: `run_in_executor(None, …)` and `to_thread`, one hop there and one back.
//!
//! ```text
//!   loop's thread                              a pool's thread
//!   ─────────────                              ───────────────
//!   run_in_executor ─► Call, a job ──────────► worker.next()         takes the GIL, enters the context
//!   the future ◄── Hop::Called ◄── ready queue ── func(…)            in Python code of `_executor`
//!                                               worker.done(value)   still with the GIL
//! ```
//!
//! * **The hops are asyncio's.** The outcome enters the ready queue where asyncio has
//!   `call_soon_threadsafe(_set_state)`; the future is done when the loop gets there, so no code on the
//!   loop sees a future change under its hands.
//! * **Nobody is woken for a lock that another holds.** The thread is woken when the loop gives the GIL
//!   up (or goes on to the next entry of its queue, see `LoopBase::keep_late`), the loop when the thread
//!   has given it up. Both matter: a call has six changes of threads otherwise, with them two.
//! * **No native frame lies beneath the program's function.** The interpreter ends threads that outlive
//!   it by unwinding them, which Rust frames do not survive. So the thread's loop is Python's, and asks
//!   for one call after the other.
//!
//! A cancelled future's call is not made if no thread has taken it yet; one that has begun goes on, and
//! nobody hears of it. Everything here is used with the GIL held, except while a thread waits in `next`.

use crate::event_loop::{LoopBase, Ready};
use crate::future::{self, Future, State};
use crate::inspect::record;
use crate::inspect::requests::Trip;
use crate::primitives::hops::Hop;
use rondel_core::pool::{Job, Pool, Refused, Turn};
use rondel_ffi::class::{ObjCell, OwnCell, TypeBuilder, Visit, alloc, alloc_with};
use rondel_ffi::context::{self, ContextCell};
use rondel_ffi::err::Builtin;
use rondel_ffi::freelist::FreeList;
use rondel_ffi::gil::{self, GilStatic, Parked};
use rondel_ffi::method::{self, Args, MethodDef};
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Raised, Ref, call, value};
use std::cell::{Cell, OnceCell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::ThreadPool;

// ------------------------------------------------------------------------------------------ Call

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum End {
    #[default]
    Value,
    Failed,
    Cancelled,
}

/// One call of the default executor.
#[derive(Default)]
pub(crate) struct Call {
    /// Both are empty for a call of `submit`, which has a future of `concurrent.futures`.
    home: OwnCell<LoopBase>,
    future: OwnCell<Future>,
    pub(crate) func: ObjCell,
    /// A tuple.
    args: ObjCell,
    /// A dict, if there are any.
    kwargs: ObjCell,
    /// Entered for the call, if it has one of its own.
    context: ContextCell,
    outcome: ObjCell,
    end: Cell<End>,
    trip: Trip,
}

static CELL: ClassCell = ClassCell::new();
static FREE: FreeList = FreeList::new();

impl Class for Call {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.home);
        visit.own(&self.future);
        visit.cell(&self.func);
        visit.cell(&self.args);
        visit.cell(&self.kwargs);
        visit.cell(&self.context);
        visit.cell(&self.outcome);
    }
    fn clear(&self) {
        self.home.set(None);
        self.future.set(None);
        self.func.set(None);
        self.args.set(None);
        self.kwargs.set(None);
        self.context.set(None);
        self.outcome.set(None);
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&FREE)
    }
}

/// What is to be called, and in which context.
pub(crate) struct Work {
    pub(crate) func: Obj,
    pub(crate) args: Obj,
    pub(crate) kwargs: Option<Obj>,
    pub(crate) context: Option<Obj>,
}

/// The job's end of a call. Dropped unused (no thread could be started), it fails the call.
struct Order(Option<Parked>);

impl Order {
    fn take(&mut self) -> Option<Own<Call>> {
        self.0.take()?.take()?.into_exact::<Call>().ok()
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        if self.0.is_none() {
            return;
        }
        gil::attached(|| {
            if let Some(call) = self.take() {
                call.trip.dropped();
                let raised = Builtin::Runtime.raise("no thread could be started for the call");
                call.outcome.set(Some(raised.fetch()));
                call.end.set(End::Failed);
                arrive(call, None);
            }
        });
    }
}

thread_local! {
    /// What the job that was run last has handed over; its caller takes it at once.
    static HANDED: RefCell<Option<Own<Call>>> = const { RefCell::new(None) };
}

fn job(call: &Own<Call>) -> Job {
    let mut order = Order(Some(Parked::new(call.obj().own())));
    Box::new(move |_turn: &mut Turn| {
        gil::attached(|| HANDED.with(|handed| handed.replace(order.take())));
    })
}

/// The call of a job that [`job`] has made. With the GIL held.
fn unpack(job: Job, turn: &mut Turn) -> Option<Own<Call>> {
    job(turn);
    HANDED.with(RefCell::take)
}

/// The outcome is there: it goes to the loop, which is woken by `turn`, or at once.
fn arrive(call: Own<Call>, turn: Option<&mut Turn>) {
    let (Some(home), Some(future)) = (call.home.take(), call.future.take()) else {
        return;
    };
    // Nobody is left to hear of it.
    if home.check_open().map_err(Raised::clear).is_err() {
        return;
    }
    home.push(Ready::Hop(Hop::Called(call), future));
    match (turn, home.announce()) {
        (Some(turn), Some(waker)) => turn.tell(&waker),
        (None, Some(waker)) => waker.wake(),
        (_, None) => {}
    }
}

/// asyncio's `_set_state`, on the loop.
pub(crate) fn deliver(call: Own<Call>, fut: Inst<'_, Future>) -> PyRes<()> {
    if fut.done() {
        return Ok(());
    }
    let outcome = call.outcome.take().unwrap_or_else(Obj::none);
    match call.end.get() {
        End::Value => future::finish(fut, State::Finished, Some(outcome)),
        End::Cancelled => future::cancel_plain(fut, None).map(|_cancelled| ()),
        End::Failed => {
            let convert = &stock()?.convert;
            let exc = call::call1(convert.borrow(), outcome.borrow())?;
            let set = crate::consts::names().set_exception.borrow();
            match call::method(set, [fut.obj(), exc.borrow()]) {
                Ok(_none) => Ok(()),
                // StopIteration on 3.11, where asyncio reports this and leaves the future pending.
                Err(raised) => future::fail(fut, raised.fetch()),
            }
        }
    }
}

// --------------------------------------------------------------------------------- asyncio's own

/// What is asked of asyncio where it is seldom needed.
struct Stock {
    /// `BaseEventLoop.run_in_executor`, for executors that are not ours.
    run_in_executor: Obj,
    /// `_convert_future_exc`.
    convert: Obj,
}

static STOCK: GilStatic<Stock> = GilStatic::new();

fn stock() -> PyRes<&'static Stock> {
    if STOCK.get().is_none() {
        let base = call::import(c"asyncio.base_events")?;
        let class = call::getattr(base.borrow(), value::intern(c"BaseEventLoop")?.borrow())?;
        let futures = call::import(c"asyncio.futures")?;
        let convert = value::intern(c"_convert_future_exc")?;
        STOCK.set(Stock {
            run_in_executor: call::getattr(
                class.borrow(),
                crate::consts::names().run_in_executor.borrow(),
            )?,
            convert: call::getattr(futures.borrow(), convert.borrow())?,
        });
    }
    let set = STOCK.get();
    set.ok_or_else(|| Builtin::Runtime.raise("asyncio's functions could not be had"))
}

// -------------------------------------------------------------------------------- the loop's side

/// The loop's own executor: made at its first use, None if the program has set another.
fn own_pool(slf: Inst<'_, LoopBase>) -> PyRes<Option<Own<ThreadPool>>> {
    if slf.default_pool.is_none() && slf.default_executor.is_none() {
        let make = value::intern(c"_make_default_executor")?;
        let executor = call::method(make.borrow(), [slf.obj()])?;
        set_default_executor(slf, Some(executor.borrow()))?;
    }
    Ok(slf.default_pool.get())
}

/// `loop._default_executor`
pub(crate) fn get_default_executor(slf: Inst<'_, LoopBase>) -> PyRes<Obj> {
    Ok(slf.default_executor.get().unwrap_or_else(Obj::none))
}

/// `loop._default_executor = …`: one of ours is used without its `submit`.
pub(crate) fn set_default_executor(
    slf: Inst<'_, LoopBase>,
    executor: Option<Ref<'_>>,
) -> PyRes<()> {
    let executor = executor.and_then(Ref::not_none);
    let pool = match executor {
        None => None,
        Some(executor) => call::getattr_opt(executor, value::intern(c"_native_pool")?.borrow())?
            .and_then(|pool| pool.into_exact::<ThreadPool>().ok()),
    };
    slf.default_pool.set(pool);
    slf.default_executor.set(executor.map(Ref::own));
    Ok(())
}

/// `loop.run_in_executor(executor, func, *args)`
pub(crate) fn run_in_executor(slf: Inst<'_, LoopBase>, args: Args<'_>) -> PyRes<Obj> {
    if let [executor, func, rest @ ..] = args.positional()
        && executor.is_none()
        && args.keyword_count() == 0
    {
        slf.check_open()?;
        if slf.is_debug() {
            crate::event_loop::debug_checks(slf, Some(func), "run_in_executor", false)?;
        }
        let work = || {
            Ok(Work {
                func: func.own(),
                args: value::tuple_of(rest)?,
                kwargs: None,
                context: None,
            })
        };
        if let Some(future) = hand_out(slf, work)? {
            return Ok(future);
        }
    }
    let made = stock_run_in_executor(slf, &args)?;
    if let ([_, func, ..], Some(future)) = (args.positional(), future::native(made.borrow())) {
        future.stands_for(&func.own());
    }
    Ok(made)
}

/// With any executor, as asyncio does it.
#[cold]
fn stock_run_in_executor(slf: Inst<'_, LoopBase>, args: &Args<'_>) -> PyRes<Obj> {
    let mut positional = vec![slf.obj()];
    positional.extend_from_slice(args.positional());
    let positional = value::tuple_of(&positional)?;
    let named = value::dict()?;
    for i in 0..args.keyword_count() {
        let (name, value) = args.keyword(i);
        value::dict_set(named.borrow(), name, value)?;
    }
    let run = stock()?.run_in_executor.borrow();
    call::call_tuple(run, positional.borrow(), Some(named.borrow()))
}

static RUN_IN_EXECUTOR: AtomicUsize = AtomicUsize::new(0);

/// The definition of the loop's method.
pub(crate) fn run_in_executor_def() -> MethodDef {
    let def = method::fast::<LoopBase, _>(
        c"run_in_executor",
        c"Have a thread of the executor (None: the loop's own) call a function; a future.",
        run_in_executor,
    );
    RUN_IN_EXECUTOR.store(def.code(), Ordering::Relaxed);
    def
}

/// `to_thread`'s short way: None if this loop's `run_in_executor` is another one than ours, or its
/// executor is.
pub(crate) fn to_thread(
    slf: Inst<'_, LoopBase>,
    work: impl FnOnce() -> PyRes<Work>,
) -> PyRes<Option<Obj>> {
    let name = crate::consts::names().run_in_executor.borrow();
    let bound = call::getattr(slf.obj(), name)?;
    if call::native_self(bound.borrow(), RUN_IN_EXECUTOR.load(Ordering::Relaxed)).is_none() {
        return Ok(None);
    }
    slf.check_open()?;
    hand_out(slf, work)
}

/// The future of a call on the loop's own pool; None if it has another executor.
fn hand_out(slf: Inst<'_, LoopBase>, work: impl FnOnce() -> PyRes<Work>) -> PyRes<Option<Obj>> {
    if slf.executor_ended.get() {
        return Err(Builtin::Runtime.raise("Executor shutdown has been called"));
    }
    let Some(own) = own_pool(slf)? else {
        return Ok(None);
    };
    // The loop may be a subclass with futures of its own.
    let made = call::method(crate::consts::names().create_future.borrow(), [slf.obj()])?;
    let Some(future) = future::native(made.borrow()) else {
        return Ok(None);
    };
    let Work {
        func,
        args,
        kwargs,
        context,
    } = work()?;
    future.stands_for(&func);
    let call = alloc_with(
        || Call {
            home: OwnCell::new(Some(slf.own())),
            future: OwnCell::new(Some(future.own())),
            func: ObjCell::new(Some(func)),
            args: ObjCell::new(Some(args)),
            kwargs: ObjCell::new(kwargs),
            context: ContextCell::new(context),
            outcome: ObjCell::new(None),
            end: Cell::new(End::Value),
            trip: Trip::default(),
        },
        true,
    )?;
    call.trip.sets_off(slf);
    if record::on() {
        record::call_made(call.obj(), call.func.get(), Some(made.borrow()));
    }
    match own.pool()?.submit_late(job(&call)) {
        Ok(None) => {}
        Ok(Some(late)) => slf.keep_late(late),
        Err(refused) => return Err(refuse(&call, refused)),
    }
    Ok(Some(made))
}

fn refuse(call: &Own<Call>, refused: Refused) -> Raised {
    // Nobody is told but the caller.
    call.future.set(None);
    drop(refused);
    Builtin::Runtime.raise("cannot schedule new futures after shutdown")
}

// ------------------------------------------------------------------------------ the executor's side

/// `pool.submit(func, args)`: has some thread call `func(*args)`, which tells whom it concerns itself.
fn submit(slf: Inst<'_, ThreadPool>, args: Args<'_>) -> PyRes<Obj> {
    let [func, arguments] = args.positional() else {
        return Err(Builtin::Type.raise("submit() needs a function and a tuple"));
    };
    let call = alloc(
        Call {
            func: ObjCell::new(Some(func.own())),
            args: ObjCell::new(Some(arguments.own())),
            ..Call::default()
        },
        true,
    )?;
    match slf.pool()?.submit(job(&call)) {
        Ok(()) => Ok(Obj::none()),
        Err(refused) => Err(refuse(&call, refused)),
    }
}

/// `pool.withdraw()`: cancels what no thread has taken; the `(func, args)` of calls without a loop.
fn withdraw(slf: Inst<'_, ThreadPool>) -> PyRes<Obj> {
    let mut turn = Turn::outside();
    let mut without = Vec::new();
    for job in slf.pool()?.withdraw() {
        let Some(call) = unpack(job, &mut turn) else {
            continue;
        };
        if !call.home.is_none() {
            call.trip.dropped();
            call.end.set(End::Cancelled);
            arrive(call, None);
        } else if let (Some(func), Some(args)) = (call.func.take(), call.args.take()) {
            without.push(value::tuple([func, args])?);
        }
    }
    let without: Vec<Ref<'_>> = without.iter().map(Obj::borrow).collect();
    value::tuple_of(&without)
}

/// `pool.worker(n)`: thread number n of the pool, which asks it for calls.
fn worker(slf: Inst<'_, ThreadPool>, seat: Ref<'_>) -> PyRes<Obj> {
    let seat = usize::try_from(value::as_i64(seat)?).unwrap_or(usize::MAX);
    let pool = slf.pool()?.clone();
    if !pool.has_thread(seat) {
        return Err(Builtin::Value.raise("the pool has no such thread"));
    }
    let made = Worker {
        pool: OnceCell::from(pool),
        turn: RefCell::new(Some(Turn::new(seat))),
        call: OwnCell::new(None),
    };
    Ok(alloc(made, true)?.into_obj())
}

/// `_rondel.Worker`: a thread of the default executor.
#[derive(Default)]
struct Worker {
    pool: OnceCell<Pool>,
    /// None while it waits for a call, and before it was made by a pool.
    turn: RefCell<Option<Turn>>,
    /// What it is at.
    call: OwnCell<Call>,
}

static WORKER_CELL: ClassCell = ClassCell::new();

impl Class for Worker {
    fn cell() -> &'static ClassCell {
        &WORKER_CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.call);
    }
    fn clear(&self) {
        self.call.set(None);
    }
}

/// `next()`: `(func, args, kwargs)` of the next call, in whose context it returns; None: it is over.
fn next(slf: Inst<'_, Worker>) -> PyRes<Obj> {
    let (Some(pool), Some(mut turn)) = (slf.pool.get(), slf.turn.take()) else {
        return Err(Builtin::Runtime.raise("a worker is for the one thread it was made for"));
    };
    let found = loop {
        let Some(job) = gil::detached(|| pool.next(&mut turn)) else {
            break None;
        };
        match unpack(job, &mut turn) {
            // Cancelled before it has begun.
            Some(call) if call.future.peek().is_some_and(|future| future.done()) => {
                call.trip.dropped();
            }
            Some(call) => break Some(call),
            None => {}
        }
    };
    slf.turn.replace(Some(turn));
    let Some(call) = found else {
        return Ok(Obj::none());
    };
    if let Some(context) = call.context.peek() {
        context::enter(context)?;
    }
    let part = |cell: &ObjCell| cell.take().unwrap_or_else(Obj::none);
    call.trip.begins();
    if record::on() {
        record::call_begins(call.obj());
    }
    let parts = [part(&call.func), part(&call.args), part(&call.kwargs)];
    slf.call.set(Some(call));
    value::tuple(parts)
}

/// `done(value)`
fn done(slf: Inst<'_, Worker>, value: Ref<'_>) -> PyRes<Obj> {
    over(slf, value, End::Value)
}

/// `failed(error)`
fn failed(slf: Inst<'_, Worker>, error: Ref<'_>) -> PyRes<Obj> {
    over(slf, error, End::Failed)
}

fn over(slf: Inst<'_, Worker>, outcome: Ref<'_>, end: End) -> PyRes<Obj> {
    let Some(call) = slf.call.take() else {
        return Err(Builtin::Runtime.raise("the worker has no call"));
    };
    call.trip.ends();
    let left = match call.context.take() {
        Some(context) => {
            let left = context::exit(context.borrow());
            context::release(context);
            left
        }
        None => Ok(()),
    };
    if record::on() {
        record::call_ends(call.obj());
    }
    call.outcome.set(Some(outcome.own()));
    call.end.set(end);
    let mut turn = slf.turn.take();
    arrive(call, turn.as_mut());
    slf.turn.replace(turn);
    left.map(|()| Obj::none())
}

/// The methods of `_rondel.ThreadPool` that the default executor uses.
pub(super) fn methods() -> [MethodDef; 3] {
    [
        method::fast::<ThreadPool, _>(
            c"submit",
            c"submit(func, args): have some thread call it; for threads that are workers.",
            submit,
        ),
        method::noargs::<ThreadPool, _>(
            c"withdraw",
            c"Cancel what no thread has taken; the (func, args) of what was submitted.",
            withdraw,
        ),
        method::onearg::<ThreadPool, _>(
            c"worker",
            c"The thread number n, which asks for one call after the other.",
            worker,
        ),
    ]
}

/// `[Worker]`; and the type of calls, which has no name.
pub(super) fn build() -> PyRes<Obj> {
    TypeBuilder::<Call>::new(c"rondel._rondel.Call").build()?;
    TypeBuilder::<Worker>::new(c"rondel._rondel.Worker")
        .doc(c"A thread of the loop's default executor.")
        .methods([
            method::noargs::<Worker, _>(
                c"next",
                c"The next call's function, tuple and dict, in its context; None: the pool is closed.",
                next,
            ),
            method::onearg::<Worker, _>(c"done", c"The call has returned this.", done),
            method::onearg::<Worker, _>(c"failed", c"The call has raised this.", failed),
        ])
        .build()
}
