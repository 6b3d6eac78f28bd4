//! The loop's native half: [`LoopBase`], which `rondel.EventLoop` derives from.
//!
//! Two kinds of state live here. What Python code can reach (ready queue, timers, tasks, watchers)
//! is guarded by the GIL: any thread that holds it may touch it, so a stray `call_soon` from a wrong
//! thread is as harmless as under asyncio. The [`Driver`] (epoll, Rust futures) belongs to the thread
//! that runs the loop and is used without the GIL while it waits; its `RefCell` is borrowed and
//! released with the GIL held, so a wrong thread finds it borrowed and gets a RuntimeError.
//!
//! No `RefCell` of the loop is borrowed while Python code can run (dropping a reference included).
//!
//! * `turn`: running the loop, by turns of a `poll`, timers and a `batch`. `current`: the current task.
//! * `methods`: `call_soon` and its kin. `fds`: descriptors' watchers.
//! * `registrations`: those of native transports.
//! * `time`: the loop's clock, which tests make virtual.

mod attention;
mod batch;
mod courtesy;
mod current;
mod fds;
mod methods;
mod poll;
mod registrations;
mod time;
mod turn;

pub(crate) use current::{begin_step, end_step, publish};
pub(crate) use fds::{Side, descriptor, unwatch, watch};
pub(crate) use methods::{add_deadline, build, create_task_with, debug_checks};
pub(crate) use time::{ahead, now, now_seconds};
pub(crate) use turn::forked;

use crate::future::Future;
use crate::handle::Handle;
use crate::net::claims::Claims;
use crate::net::sock::Socks;
use crate::net::tcp::{TcpTransport, Transports};
use crate::net::tls::Tls;
use crate::net::udp::UdpTransport;
use crate::packed::{Entry, Lent, Ring};
use crate::pool::ThreadPool;
use crate::primitives::gather::Gather;
use crate::primitives::hops::{Alarm, Hop};
use crate::primitives::task_group::TaskGroup;
use crate::primitives::timeout::Timeout;
use crate::server::{Cycle, Door};
use crate::task::{Listed, Task, Waiter};
use attention::{Attention, reason};
use courtesy::Courtesy;
use rondel_core::driver::Driver;
use rondel_core::inspect::counters::Counters;
use rondel_core::pool::Late;
use rondel_core::timers::{TimerKey, Timers};
use rondel_core::wake::LoopWaker;
use rondel_ffi::class::{ObjCell, OwnCell, Visit, track};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Raised, Ref, context, thread};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A timer this near (nanoseconds) on the coarse clock may be due: the precise one decides. More
/// than the coarse clock's tick.
const NEAR: u64 = 20_000_000;

/// An entry of the ready queue. Each is one of asyncio's `call_soon` hops.
pub(crate) enum Ready {
    /// A task takes a step: its first, or the awaited future is done.
    Step(Own<Task>),
    /// A task takes a step by an exception thrown into it.
    Throw(Own<Task>, Obj),
    /// A handle's callback.
    Run(Own<Handle>),
    /// A `sleep` is over: the task's step follows in the next turn, as after a future's result.
    Awake(Own<Task>),
    /// A timeout's time has come.
    Expire(Own<Timeout>),
    /// A child of a gather is done.
    GatherChild(Own<Gather>, Own<Future>),
    /// A task of a group is done.
    GroupChild(Own<TaskGroup>, Own<Future>),
    /// The task of a request is done.
    RequestDone(Own<Cycle>, Own<Future>),
    /// A future is done that `wait`, `shield` or their kin watch.
    Hop(Hop, Own<Future>),
    /// A timer of `wait`, `wait_for` or `as_completed` is due.
    Alarm(Alarm),
    /// Readiness of a native transport's socket.
    Io(Own<TcpTransport>, IoEvent),
    /// Readiness of a datagram transport's socket.
    Datagrams(Own<UdpTransport>, IoEvent),
}

/// What epoll said about a transport's socket.
#[derive(Clone, Copy)]
pub(crate) struct IoEvent {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The peer will send no more; what it sent may still be unread.
    pub(crate) read_closed: bool,
}

/// What a timer does when it is due.
pub(crate) enum Due {
    Run(Own<Handle>),
    Awake(Own<Task>),
    Expire(Own<Timeout>),
    Alarm(Alarm),
}

impl Due {
    fn into_ready(self) -> Ready {
        match self {
            Due::Run(handle) => Ready::Run(handle),
            Due::Awake(task) => Ready::Awake(task),
            Due::Expire(timeout) => Ready::Expire(timeout),
            Due::Alarm(alarm) => Ready::Alarm(alarm),
        }
    }

    fn obj(&self) -> Ref<'_> {
        match self {
            Due::Run(handle) => handle.obj(),
            Due::Awake(task) => task.obj(),
            Due::Expire(timeout) => timeout.obj(),
            Due::Alarm(alarm) => alarm.obj(),
        }
    }
}

/// The callbacks of a watched descriptor.
#[derive(Default)]
pub(crate) struct Watch {
    pub(crate) reader: Option<Own<Handle>>,
    pub(crate) writer: Option<Own<Handle>>,
    /// The file object, if it was given by one: it names the watch even after it was closed.
    pub(crate) file: Option<Obj>,
}

#[derive(Default)]
pub(crate) struct LoopBase {
    /// What is scheduled, in order; [`LoopBase::empty`] drops what is left.
    ready: Ring,
    timers: RefCell<Timers<Due>>,
    /// Every task that is not done, for `all_tasks()`.
    pub(crate) tasks: RefCell<Vec<Listed>>,
    watches: RefCell<HashMap<RawFd, Watch>>,
    /// Native transports by edge token.
    transports: RefCell<Transports>,
    /// TLS connections that were written to since the last batch was over.
    flushes: RefCell<VecDeque<Own<Tls>>>,
    datagrams: RefCell<HashMap<u32, Own<UdpTransport>>>,
    /// Which transport has which descriptor.
    pub(crate) claims: Claims,
    /// Sockets that `sock_*` operations wait for.
    pub(crate) socks: RefCell<Socks>,
    /// The HTTP servers of this loop: what they queue is dealt with after each poll.
    doors: RefCell<Vec<Rc<Door>>>,
    /// None before `_setup` and after `close`.
    driver: RefCell<Option<Driver>>,
    waker: RefCell<Option<Arc<LoopWaker>>>,
    /// Another thread has scheduled something since the wait began: the GIL is to be taken.
    called: AtomicBool,
    /// A thread has woken the loop since then, and the ready queue will be looked at.
    woken: Cell<bool>,
    /// The task that is taking a step; the step keeps it alive.
    current: Lent,
    /// `asyncio.tasks._current_tasks` holds an entry for this loop.
    current_published: Cell<bool>,
    /// The context entered for the callbacks of this turn.
    entered: ObjCell,
    /// User code runs in it.
    in_callback: Cell<bool>,
    pub(crate) task_factory: ObjCell,
    stopping: Cell<bool>,
    running: Cell<bool>,
    closed: Cell<bool>,
    /// The coarse clock when the loop last polled, in nanoseconds.
    polled: Cell<u64>,
    attention: Attention,
    /// Turns since then.
    turns: Cell<u32>,
    /// The turn in which the coarse clock is read next.
    next_look: Cell<u32>,
    /// The turns until the next poll, if nothing else brings it on.
    per_poll: Cell<u32>,
    /// The process's forks when the run began.
    forks: Cell<u32>,
    /// The virtual clock's nanoseconds, if the loop has one (see `time`).
    virtual_now: Cell<Option<u64>>,
    /// Seconds; debug mode reports callbacks that take longer.
    slow_callback: Cell<f64>,
    /// `_default_executor`, and its threads if it is one of ours (see `pool::call`).
    pub(crate) default_executor: ObjCell,
    pub(crate) default_pool: OwnCell<ThreadPool>,
    /// `_executor_shutdown_called`
    pub(crate) executor_ended: Cell<bool>,
    /// Whom the loop lets have the GIL first.
    pub(crate) courtesy: Courtesy,
    /// A thread that is woken once the GIL is free, or the next entry is due.
    late: RefCell<Option<Late>>,
    /// What other threads may read of the loop at any time.
    pub(crate) counters: Arc<Counters>,
}

static CELL: ClassCell = ClassCell::new();

impl Class for LoopBase {
    fn cell() -> &'static ClassCell {
        &CELL
    }

    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.entered);
        visit.cell(&self.task_factory);
        visit.cell(&self.default_executor);
        visit.own(&self.default_pool);
        self.ready.for_each(|entry| entry.traverse(visit));
        if let Ok(timers) = self.timers.try_borrow() {
            timers.for_each(|due| visit.obj(due.obj()));
        }
        if let Ok(watches) = self.watches.try_borrow() {
            for file in watches.values().filter_map(|w| w.file.as_ref()) {
                visit.obj(file.borrow());
            }
        }
        if let Ok(watches) = self.watches.try_borrow() {
            for handle in watches
                .values()
                .flat_map(|w| [&w.reader, &w.writer])
                .flatten()
            {
                visit.obj(handle.obj());
            }
        }
        if let Ok(datagrams) = self.datagrams.try_borrow() {
            for transport in datagrams.values() {
                visit.obj(transport.obj());
            }
        }
        if let Ok(socks) = self.socks.try_borrow() {
            socks.traverse(visit);
        }
        if let Ok(transports) = self.transports.try_borrow() {
            for transport in transports.values() {
                visit.obj(transport.obj());
            }
        }
        if let Ok(flushes) = self.flushes.try_borrow() {
            for tls in flushes.iter() {
                visit.obj(tls.obj());
            }
        }
    }

    fn clear(&self) {
        self.empty();
        self.entered.set(None);
        self.task_factory.set(None);
        self.default_executor.set(None);
        self.default_pool.set(None);
    }
}

impl Drop for LoopBase {
    fn drop(&mut self) {
        self.empty();
    }
}

impl LoopBase {
    /// Puts an entry at the end of the ready queue.
    #[inline(always)]
    pub(crate) fn push(&self, entry: Ready) {
        self.ready.push(Entry::pack(entry));
    }

    pub(crate) fn add_timer(&self, deadline: u64, due: Due) -> TimerKey {
        if deadline <= self.near() {
            self.attention.set(reason::TIMER, true);
        }
        self.timers.borrow_mut().insert(deadline, due)
    }

    /// Takes a timer out; what it held is dropped by the caller, after the borrow.
    pub(crate) fn cancel_timer(&self, key: TimerKey) -> Option<Due> {
        self.timers.borrow_mut().cancel(key)
    }

    /// Makes `context` the current one for the callbacks that follow. Consecutive callbacks in one
    /// context (a task that goes on stepping) pay for it once; [`LoopBase::leave`] ends it.
    #[inline(always)]
    pub(crate) fn enter(&self, context: Ref<'_>) -> PyRes<()> {
        // First: the end of the context that is left may run Python code.
        self.in_callback.set(true);
        let same = self.entered.peek().is_some_and(|one| one.is(context));
        if same || context::switch(&self.entered, context) {
            return Ok(());
        }
        self.enter_anew(context)
    }

    #[inline(never)]
    fn enter_anew(&self, context: Ref<'_>) -> PyRes<()> {
        let context = context.own();
        // It goes last.
        let left = self.entered.take().map(context::Held::new);
        let entered = match &left {
            None => context::enter(context.borrow()),
            Some(left) => context::exit(left.obj()).and_then(|()| context::enter(context.borrow())),
        };
        if entered.is_ok() {
            self.entered.set(Some(context));
        } else {
            self.in_callback.set(false);
        }
        drop(left);
        entered
    }

    /// The callback that was entered for has returned; its context may serve the next one.
    #[inline(always)]
    pub(crate) fn callback_over(&self) {
        self.in_callback.set(false);
    }

    /// Leaves the entered context unless user code runs in it right now. In another thread (a
    /// future's last reference may go anywhere) there is nothing to leave: it is entered in the
    /// loop's.
    pub(crate) fn leave_between_callbacks(&self) -> PyRes<()> {
        if self.runs_here() && !self.in_callback.get() {
            self.leave()
        } else {
            Ok(())
        }
    }

    #[inline(always)]
    pub(crate) fn leave(&self) -> PyRes<()> {
        match self.entered.take() {
            Some(entered) => {
                let left = context::exit(entered.borrow());
                context::release(entered);
                left
            }
            None => Ok(()),
        }
    }

    /// Puts the entered context aside while an eager task runs inside the present callback.
    pub(crate) fn suspend_context(&self) -> Option<Obj> {
        self.entered.take()
    }

    pub(crate) fn resume_context(&self, entered: Option<Obj>) {
        self.in_callback.set(true);
        self.entered.set(entered);
    }

    /// `get_debug()`
    #[inline(always)]
    pub(crate) fn is_debug(&self) -> bool {
        self.attention.has(reason::DEBUG)
    }

    /// The task that takes a step right now, for use at once.
    pub(crate) fn stepping(&self) -> Option<Ref<'_>> {
        self.current.peek()
    }

    /// Whether entries are recorded from the next one on.
    pub(crate) fn set_recorded(&self, on: bool) {
        self.attention.set(reason::RECORD, on);
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.get()
    }

    /// Whether this loop runs in this very thread.
    pub(crate) fn runs_here(&self) -> bool {
        running().is_some_and(|home| std::ptr::eq(home.inst().data(), self))
    }

    pub(crate) fn check_open(&self) -> PyRes<()> {
        if self.closed.get() {
            Err(closed_error())
        } else {
            Ok(())
        }
    }

    /// The native task that takes a step.
    #[inline(always)]
    pub(crate) fn stepping_task(&self) -> Option<Inst<'_, Task>> {
        self.current.peek().and_then(Ref::exact::<Task>)
    }

    pub(crate) fn set_stopping(&self) {
        self.stopping.set(true);
    }

    /// Wakes the loop from another thread, if it sleeps.
    pub(crate) fn wake(&self) {
        self.called.store(true, Ordering::Release);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake();
        }
    }

    /// As [`LoopBase::wake`], for what the ready queue has got with the GIL held: once is enough until the
    /// loop has looked there, which it does before it sleeps.
    pub(crate) fn wake_to_ready(&self) {
        if !self.woken.replace(true) {
            self.wake();
        }
    }

    /// As [`LoopBase::wake`], but the caller wakes it, when it has given the GIL up.
    pub(crate) fn announce(&self) -> Option<Arc<LoopWaker>> {
        self.called.store(true, Ordering::Release);
        self.waker.borrow().clone()
    }

    /// Wakes a thread when the loop gives the GIL up or goes on to its next entry; at once if the
    /// loop does not run here.
    pub(crate) fn keep_late(&self, late: Late) {
        if !self.runs_here() {
            return drop(late);
        }
        let before = self.late.replace(Some(late));
        self.attention.set(reason::LATE, true);
        drop(before);
    }

    #[inline(always)]
    fn wake_late(&self) {
        if self.attention.has(reason::LATE) {
            drop(self.take_late());
        }
    }

    #[cold]
    fn take_late(&self) -> Option<Late> {
        self.attention.set(reason::LATE, false);
        self.late.take()
    }

    /// Runs `work` with the driver. Fails when the loop is closed, or polls in another thread.
    pub(crate) fn with_driver<R>(
        &self,
        work: impl FnOnce(&mut Driver) -> std::io::Result<R>,
    ) -> PyRes<R> {
        let Ok(mut driver) = self.driver.try_borrow_mut() else {
            return Err(Builtin::Runtime.raise(
                "Non-thread-safe operation invoked on an event loop other than the current one: \
                 the loop is waiting for events in another thread; use call_soon_threadsafe()",
            ));
        };
        let Some(driver) = driver.as_mut() else {
            return Err(closed_error());
        };
        work(driver).map_err(|e| err::raise_io(&e))
    }

    /// The next turn asks the system for events, whatever is ready.
    pub(crate) fn poll_next_turn(&self) {
        self.polled.set(0);
        self.next_look.set(0);
    }

    /// Whether Python watches the descriptor (`add_reader`, `add_writer`).
    pub(crate) fn is_watched(&self, fd: RawFd) -> bool {
        self.watches.borrow().contains_key(&fd)
    }

    pub(crate) fn add_door(&self, door: Rc<Door>) {
        self.doors.borrow_mut().push(door);
    }

    /// Takes the first entry out of the ready queue.
    #[inline(always)]
    fn pop(&self) -> Option<Entry> {
        self.ready.pop()
    }

    /// The run is over: what is left of it may never be run, with the loop dropped as it is.
    fn show_left(&self) {
        self.ready.for_each(|entry| entry.peek(show));
    }

    /// Lets go of everything scheduled. Nothing of it runs any more.
    fn empty(&self) {
        // One entry at a time: dropping it may schedule others.
        while let Some(entry) = self.pop() {
            show(&entry.unpack());
        }
        let timers = self.timers.borrow_mut().drain();
        drop(timers);
        let watches = self.watches.take();
        drop(watches);
        let transports = self.transports.take();
        drop(transports);
        let flushes = self.flushes.take();
        drop(flushes);
        let sockets = (self.datagrams.take(), self.socks.take());
        drop(sockets);
        self.claims.clear();
        let doors = self.doors.take();
        drop(doors);
    }
}

/// Shows the collector what may be part of a cycle and will not run on and let go. What runs in a
/// moment is spared it.
#[cold]
fn show(entry: &Ready) {
    match entry {
        Ready::Step(task) | Ready::Awake(task) => {
            track(task.inst());
            task.waiter.peek(|waiter| {
                if let Waiter::Future(waited) = waiter {
                    track(waited.inst());
                }
            });
        }
        Ready::Run(handle) => track(handle.inst()),
        _ => {}
    }
}

#[cold]
pub(crate) fn closed_error() -> Raised {
    Builtin::Runtime.raise("Event loop is closed")
}

/// Seconds on the loop's clock as its nanoseconds. Saturates: a deadline too far away is "never".
#[inline(always)]
pub(crate) fn seconds_to_ns(seconds: f64) -> u64 {
    // `as` saturates, and maps NaN and negative values to 0: due at once.
    (seconds * 1e9) as u64
}

thread_local! {
    /// The Rondel loop that runs in this thread (a borrowed pointer: the run holds a reference).
    static CURRENT: RefCell<Vec<Own<LoopBase>>> = const { RefCell::new(Vec::new()) };
}

/// The Rondel loop running in this thread. `None` inside a stock loop, or outside any.
#[inline(always)]
pub(crate) fn running() -> Option<Own<LoopBase>> {
    thread::running().or_else(running_by_stack)
}

/// The same, lent to `work`.
#[inline(always)]
pub(crate) fn with_running<R>(work: impl FnOnce(Option<Inst<'_, LoopBase>>) -> R) -> R {
    thread::with_running(|running| match running {
        Some(home) => work(Some(home)),
        None => work(running_by_stack().as_ref().map(Own::inst)),
    })
}

fn running_by_stack() -> Option<Own<LoopBase>> {
    CURRENT.with_borrow(|stack| stack.last().cloned())
}

/// The task that is taking a step on this loop; asks asyncio's own table when it was published
/// there, since stock tasks (eager ones) may have changed it.
pub(crate) fn current_task(home: Inst<'_, LoopBase>) -> PyRes<Option<Obj>> {
    if home.current_published.get() || home.current.is_none() {
        if let Some(table) = &crate::consts::stock().current_tasks {
            return Ok(rondel_ffi::value::dict_get(table.borrow(), home.obj())?.map(Ref::own));
        }
    }
    Ok(home.current.get())
}

/// Whether a native task of a running Rondel loop is what takes a step right now.
#[inline(always)]
pub(crate) fn steps_native_task() -> PyRes<bool> {
    with_running(|running| {
        let Some(home) = running else {
            return Ok(false);
        };
        if home.current.is_none() || !home.current_published.get() {
            return Ok(!home.current.is_none());
        }
        // A stock eager task may be running inside the native one.
        Ok(match (current_task(home)?, home.current.peek()) {
            (Some(a), Some(b)) => a.borrow().is(b),
            _ => false,
        })
    })
}
