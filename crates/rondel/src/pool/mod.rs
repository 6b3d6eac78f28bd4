//! Threads for blocking calls, as Python has them: `ThreadPool`, `Pin`, `Hop` over
//! [`rondel_core::pool`]; and `Gate`, for a thread that waits for async code.
//!
//! The threads are Python's own (`threading.Thread`), so that they have names, thread-local data and
//! a debugger's attention for as long as they live; in between they wait in [`Pool::work`] without the
//! GIL. A job takes the GIL for its call; where one waits behind it and no other thread is at work, the
//! GIL is kept until then.
//!
//! `call` is the loop's default executor. `pace(loop)` lets the loop's driver judge how many threads should run at once. It needs no GIL.

pub(crate) mod call;
mod gate;
mod hop;

use crate::event_loop::{self, LoopBase};
use rondel_core::clock;
use rondel_core::driver::Handle;
use rondel_core::pool::{self, Pool, TICK, Turn};
use rondel_ffi::class::{ObjCell, TypeBuilder, Visit, alloc};
use rondel_ffi::err::Builtin;
use rondel_ffi::gil::{self, Parked};
use rondel_ffi::method::{self, Args, MethodDef};
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Ref, value};
use std::cell::OnceCell;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

// ------------------------------------------------------------------------------------ ThreadPool

/// `_rondel.ThreadPool`
#[derive(Default)]
pub(crate) struct ThreadPool {
    pool: OnceCell<Pool>,
}

static CELL: ClassCell = ClassCell::new();

impl Class for ThreadPool {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, _visit: &mut Visit) {}
    fn clear(&self) {}
}

impl ThreadPool {
    pub(crate) fn pool(&self) -> PyRes<&Pool> {
        let made = self.pool.get();
        made.ok_or_else(|| Builtin::Runtime.raise("the pool was not made by thread_pool()"))
    }
}

/// `thread_pool(limit, start)`: `start(n)` starts a thread that calls `pool.work(n)`.
fn thread_pool(args: Args<'_>) -> PyRes<Obj> {
    let names = [value::intern(c"limit")?, value::intern(c"start")?];
    let [limit, start] = args.bind("thread_pool", names.each_ref().map(Obj::borrow), 2, 2)?;
    let (Some(limit), Some(start)) = (limit, start) else {
        return Err(Builtin::Type.raise("thread_pool() needs a limit and a function"));
    };
    let limit = usize::try_from(value::as_i64(limit)?).unwrap_or(0);
    if limit == 0 {
        return Err(Builtin::Value.raise("a pool needs room for one thread at least"));
    }
    let start = Parked::new(start.own());
    let made = Pool::new(limit, move |seat| {
        gil::attached(|| start_thread(&start, seat))
    });
    // Until a loop paces it, every thread may run.
    made.set_alarm(None);
    let pool = OnceCell::new();
    let _fresh = pool.set(made);
    Ok(alloc(ThreadPool { pool }, true)?.into_obj())
}

fn start_thread(start: &Parked, seat: usize) -> bool {
    let Some(start) = start.get() else {
        return false;
    };
    let started =
        value::int(seat as i64).and_then(|n| rondel_ffi::call::call1(start.borrow(), n.borrow()));
    match started {
        Ok(_none) => true,
        Err(raised) => {
            raised.unraisable(Some(start.borrow()));
            false
        }
    }
}

/// `work(n)`: what a thread of the pool does until the pool is closed.
fn work(slf: Inst<'_, ThreadPool>, seat: Ref<'_>) -> PyRes<Obj> {
    let seat = usize::try_from(value::as_i64(seat)?).unwrap_or(usize::MAX);
    let pool = slf.pool()?.clone();
    if !pool.has_thread(seat) {
        return Err(Builtin::Value.raise("the pool has no such thread"));
    }
    pool.work(seat, |next| gil::detached(next));
    Ok(Obj::none())
}

fn closed(_refused: pool::Refused) -> rondel_ffi::Raised {
    // Dropped here, the job tells its hop as well.
    Builtin::Runtime.raise("cannot schedule new calls after the pool was closed")
}

fn home() -> PyRes<Own<LoopBase>> {
    event_loop::running()
        .ok_or_else(|| Builtin::Runtime.raise("no Rondel event loop runs in this thread"))
}

/// What `call` is given: a function, and what the inspector shows as called, if that is another one.
fn call_args(args: &Args<'_>) -> PyRes<(Obj, Option<Obj>)> {
    match args.positional() {
        [func] => Ok((func.own(), None)),
        [func, about] => Ok((func.own(), about.not_none().map(Ref::own))),
        _ => Err(Builtin::Type.raise("call() takes a function, and what it stands for")),
    }
}

/// `call(func, about=None)`: has some thread call it; the `Hop` to wait for.
fn call_on_any(slf: Inst<'_, ThreadPool>, args: Args<'_>) -> PyRes<Obj> {
    let home = home()?;
    let (func, about) = call_args(&args)?;
    let (hop, job) = hop::new(home.clone(), func, None, about)?;
    if let Some(late) = slf.pool()?.submit_late(job).map_err(closed)? {
        home.keep_late(late);
    }
    Ok(hop.into_obj())
}

/// A job nobody waits for: what it raises is reported as unraisable.
fn errand(func: Obj, hold: Option<Obj>) -> pool::Job {
    let (func, hold) = (Parked::new(func), hold.map(Parked::new));
    Box::new(move |turn: &mut Turn| {
        gil::attached(|| {
            if let Some(func) = func.take()
                && let Err(raised) = rondel_ffi::call::call0(func.borrow())
            {
                raised.unraisable(Some(func.borrow()));
            }
            ask_hold(turn, hold);
        });
    })
}

/// After a pin's call: whether it has its thread to itself.
fn ask_hold(turn: &mut Turn, hold: Option<Parked>) {
    if let Some(hold) = hold.and_then(Parked::take) {
        let holds =
            rondel_ffi::call::call0(hold.borrow()).and_then(|holds| holds.borrow().truthy());
        match holds {
            Ok(holds) => turn.hold(holds),
            Err(raised) => raised.unraisable(Some(hold.borrow())),
        }
    }
}

/// `post(func)`: has some thread call it.
fn post_to_any(slf: Inst<'_, ThreadPool>, func: Ref<'_>) -> PyRes<Obj> {
    posted(slf.pool()?.submit_late(errand(func.own(), None)))
}

/// An errand was submitted: on a loop's thread its own is woken when the GIL is free.
fn posted(submitted: Result<Option<pool::Late>, pool::Refused>) -> PyRes<Obj> {
    if let Some(late) = submitted.map_err(closed)?
        && let Some(home) = event_loop::running()
    {
        home.keep_late(late);
    }
    Ok(Obj::none())
}

/// `pin(hold=None, beside=None)`: for calls that belong on one thread, and on another one than `beside`.
fn make_pin(slf: Inst<'_, ThreadPool>, args: Args<'_>) -> PyRes<Obj> {
    let names = [value::intern(c"hold")?, value::intern(c"beside")?];
    let [hold, beside] = args.bind("pin", names.each_ref().map(Obj::borrow), 0, 2)?;
    let beside = match beside.and_then(Ref::cast::<Pin>) {
        Some(other) => other.pin()?.thread(),
        None => None,
    };
    let cell = OnceCell::new();
    let _fresh = cell.set(slf.pool()?.pin_beside(beside));
    let hold = ObjCell::new(hold.and_then(Ref::not_none).map(Ref::own));
    Ok(alloc(Pin { pin: cell, hold }, true)?.into_obj())
}

fn close(slf: Inst<'_, ThreadPool>) -> PyRes<Obj> {
    slf.pool()?.close();
    Ok(Obj::none())
}

/// `stats()`: `{"limit": …, "threads": …, "busy": …, "queued": …, "wanted": …}`
fn stats(slf: Inst<'_, ThreadPool>) -> PyRes<Obj> {
    let stats = slf.pool()?.stats();
    let counts = value::dict()?;
    for (name, count) in [
        (c"limit", stats.limit),
        (c"threads", stats.threads),
        (c"busy", stats.busy),
        (c"queued", stats.queued),
        (c"wanted", stats.wanted),
    ] {
        let count = value::int(i64::try_from(count).unwrap_or(i64::MAX))?;
        value::dict_set(
            counts.borrow(),
            value::intern(name)?.borrow(),
            count.borrow(),
        )?;
    }
    Ok(counts)
}

/// `pace(loop)`: the loop judges from now on how many threads should run at once.
fn pace(slf: Inst<'_, ThreadPool>, loop_: Ref<'_>) -> PyRes<Obj> {
    let Some(home) = loop_.cast::<LoopBase>() else {
        return Err(Builtin::Type.raise("pace() needs a Rondel event loop"));
    };
    let driver = home.with_driver(|driver| Ok(driver.handle()))?;
    keep_pace(slf.pool()?.clone(), &driver);
    home.courtesy.set_pool(slf.pool()?.clone());
    Ok(Obj::none())
}

/// Rung by whoever finds that the pool should be looked at; answered by the loop's driver.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    listener: Mutex<Option<Waker>>,
}

impl Bell {
    fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listener) = &*listener {
            listener.wake_by_ref();
        }
    }

    async fn wait(&self) {
        poll_fn(|cx| {
            {
                let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
                *listener = Some(cx.waker().clone());
            }
            if self.rung.swap(false, Ordering::AcqRel) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

/// Takes the bell away when the loop is closed: every thread may run then.
struct Unhang(Pool);

impl Drop for Unhang {
    fn drop(&mut self) {
        self.0.set_alarm(None);
    }
}

fn keep_pace(pool: Pool, driver: &Handle) {
    let bell = Arc::new(Bell::default());
    let theirs = Arc::clone(&bell);
    pool.set_alarm(Some(Arc::new(move || theirs.ring())));
    let (unhang, clock_of) = (Unhang(pool), driver.clone());
    driver.spawn(async move {
        loop {
            bell.wait().await;
            let mut next = Some(TICK);
            while let Some(interval) = next {
                clock_of.sleep_until(clock::now() + interval).await;
                next = unhang.0.tick();
            }
        }
    });
}

// ------------------------------------------------------------------------------------------- Pin

/// `_rondel.Pin`
#[derive(Default)]
struct Pin {
    pin: OnceCell<pool::Pin>,
    /// Called after each of its calls, on its thread: whether it has the thread to itself.
    hold: ObjCell,
}

static PIN_CELL: ClassCell = ClassCell::new();

impl Class for Pin {
    fn cell() -> &'static ClassCell {
        &PIN_CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.hold);
    }
    fn clear(&self) {
        self.hold.set(None);
    }
}

impl Pin {
    fn pin(&self) -> PyRes<&pool::Pin> {
        let made = self.pin.get();
        made.ok_or_else(|| Builtin::Runtime.raise("the pin was not made by a pool"))
    }
}

/// `call(func, about=None)`: has the pin's thread call it; the `Hop` to wait for.
fn call_pinned(slf: Inst<'_, Pin>, args: Args<'_>) -> PyRes<Obj> {
    let home = home()?;
    let (func, about) = call_args(&args)?;
    let (hop, job) = hop::new(home.clone(), func, slf.hold.get(), about)?;
    if let Some(late) = slf.pin()?.submit_late(job).map_err(closed)? {
        home.keep_late(late);
    }
    Ok(hop.into_obj())
}

/// `post(func)`: has the pin's thread call it.
fn post_pinned(slf: Inst<'_, Pin>, func: Ref<'_>) -> PyRes<Obj> {
    let pin = slf.pin()?;
    posted(pin.submit_late(errand(func.own(), slf.hold.get())))
}

/// The number of the pin's thread; None before its first call.
fn thread(slf: Inst<'_, Pin>) -> PyRes<Obj> {
    match slf.pin()?.thread() {
        Some(seat) => value::int(seat as i64),
        None => Ok(Obj::none()),
    }
}

// ------------------------------------------------------------------------------------------------

/// The pool's types: `[ThreadPool, Pin, Hop, Gate, Worker]`.
pub(crate) fn build() -> PyRes<[Obj; 5]> {
    let pool = TypeBuilder::<ThreadPool>::new(c"rondel._rondel.ThreadPool")
        .doc(c"Long-lived threads for blocking calls.")
        .methods([
            method::onearg::<ThreadPool, _>(
                c"work",
                c"Run calls as thread number n until the pool is closed.",
                work,
            ),
            method::fast::<ThreadPool, _>(
                c"call",
                c"Have some thread call a function; the Hop to wait for.",
                call_on_any,
            ),
            method::onearg::<ThreadPool, _>(
                c"post",
                c"Have some thread call a function; nobody waits for it.",
                post_to_any,
            ),
            method::fast::<ThreadPool, _>(
                c"pin",
                c"For calls that belong on one thread.",
                make_pin,
            ),
            method::onearg::<ThreadPool, _>(
                c"pace",
                c"Let a loop judge how many threads should run at once.",
                pace,
            ),
            method::noargs::<ThreadPool, _>(
                c"close",
                c"Refuse further calls; the threads end when all are made.",
                close,
            ),
            method::noargs::<ThreadPool, _>(c"stats", c"Counts of threads and calls.", stats),
        ])
        .methods(self::call::methods())
        .weakrefs()
        .build()?;
    let pin = TypeBuilder::<Pin>::new(c"rondel._rondel.Pin")
        .doc(c"Calls that run on one thread of a pool, in their order.")
        .methods([
            method::fast::<Pin, _>(
                c"call",
                c"Have the pin's thread call a function; the Hop to wait for.",
                call_pinned,
            ),
            method::onearg::<Pin, _>(
                c"post",
                c"Have the pin's thread call a function; nobody waits for it.",
                post_pinned,
            ),
        ])
        .property(method::getter::<Pin, _>(c"thread", thread))
        .weakrefs()
        .build()?;
    Ok([
        pool,
        pin,
        hop::build()?,
        gate::build()?,
        self::call::build()?,
    ])
}

pub(crate) fn definitions() -> Vec<MethodDef> {
    let mut all = gate::definitions();
    all.push(method::function(
        c"thread_pool",
        c"A pool of threads: thread_pool(limit, start), start(n) starts one that calls work(n).",
        thread_pool,
    ));
    all
}
