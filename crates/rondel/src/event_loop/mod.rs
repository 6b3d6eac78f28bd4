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
//! * `turn`: running the loop. `methods`: `call_soon` and its kin. `fds`: descriptors' watchers.
//! * `time`: the loop's clock, which tests make virtual.

mod fds;
mod methods;
mod time;
mod turn;

pub(crate) use methods::{add_deadline, build, create_task_with, debug_checks};
pub(crate) use time::{has_come, now, now_seconds};
pub(crate) use turn::{begin_step, end_step, forked, publish};

use crate::future::Future;
use crate::handle::Handle;
use crate::net::tcp::TcpTransport;
use crate::packed::{Entry, Lent, Ring};
use crate::primitives::gather::Gather;
use crate::primitives::hops::{Alarm, Hop};
use crate::primitives::task_group::TaskGroup;
use crate::primitives::timeout::Timeout;
use crate::server::{Cycle, Door};
use crate::task::{Task, Waiter};
use rondel_core::driver::Driver;
use rondel_core::timers::{TimerKey, Timers};
use rondel_core::wake::LoopWaker;
use rondel_ffi::class::{ObjCell, Visit, Weak, track};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Raised, Ref, context};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;

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
    pub(crate) tasks: RefCell<Vec<Weak<Task>>>,
    watches: RefCell<HashMap<RawFd, Watch>>,
    /// Native transports by edge token.
    transports: RefCell<HashMap<u32, Own<TcpTransport>>>,
    /// The HTTP servers of this loop: what they queue is dealt with after each poll.
    doors: RefCell<Vec<Rc<Door>>>,
    /// None before `_setup` and after `close`.
    driver: RefCell<Option<Driver>>,
    waker: RefCell<Option<Arc<LoopWaker>>>,
    /// The task that is taking a step; the step keeps it alive.
    current: Lent,
    /// `asyncio.tasks._current_tasks` holds an entry for this loop.
    current_published: Cell<bool>,
    /// The context entered for the callbacks of this turn.
    entered: ObjCell,
    /// User code runs in it.
    in_callback: Cell<bool>,
    pub(crate) task_factory: ObjCell,
    pub(crate) debug: Cell<bool>,
    stopping: Cell<bool>,
    running: Cell<bool>,
    closed: Cell<bool>,
    /// The coarse clock when the loop last polled, in nanoseconds.
    polled: Cell<u64>,
    /// A timer may be due before the next poll: the clock is looked at in every turn.
    hurry: Cell<bool>,
    /// Turns since then.
    turns: Cell<u32>,
    /// The turn in which the coarse clock is read next.
    next_look: Cell<u32>,
    /// The process's forks when the run began.
    forks: Cell<u32>,
    /// The virtual clock's nanoseconds, if the loop has one (see `time`).
    virtual_now: Cell<Option<u64>>,
    /// Seconds; debug mode reports callbacks that take longer.
    slow_callback: Cell<f64>,
}

static CELL: ClassCell = ClassCell::new();

impl Class for LoopBase {
    fn cell() -> &'static ClassCell {
        &CELL
    }

    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.entered);
        visit.cell(&self.task_factory);
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
        if let Ok(transports) = self.transports.try_borrow() {
            for transport in transports.values() {
                visit.obj(transport.obj());
            }
        }
    }

    fn clear(&self) {
        self.empty();
        self.entered.set(None);
        self.task_factory.set(None);
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
            self.hurry.set(true);
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
        if let Some(entered) = self.entered.peek() {
            if entered.is(context) {
                self.in_callback.set(true);
                return Ok(());
            }
        }
        // The one that is left goes last: its end may run Python code.
        let context = context.own();
        let left = self.entered.take().map(context::Held::new);
        match &left {
            None => context::enter(context.borrow())?,
            Some(left) => context::switch(left.obj(), context.borrow())?,
        }
        self.entered.set(Some(context));
        self.in_callback.set(true);
        drop(left);
        Ok(())
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

    pub(crate) fn set_stopping(&self) {
        self.stopping.set(true);
    }

    /// Wakes the loop from another thread, if it sleeps.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake();
        }
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

    pub(crate) fn add_door(&self, door: Rc<Door>) {
        self.doors.borrow_mut().push(door);
    }

    /// Registers a native transport's socket; events come as [`Ready::Io`].
    pub(crate) fn register_transport(&self, fd: RawFd, transport: Own<TcpTransport>) -> PyRes<u32> {
        let token = self.with_driver(|driver| driver.register_edge(fd))?;
        let old = self.transports.borrow_mut().insert(token, transport);
        drop(old);
        Ok(token)
    }

    pub(crate) fn deregister_transport(&self, fd: RawFd, token: u32) -> PyRes<()> {
        let old = self.transports.borrow_mut().remove(&token);
        drop(old);
        if self.closed.get() {
            return Ok(());
        }
        self.with_driver(|driver| driver.deregister_edge(fd, token))
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
    CURRENT.with_borrow(|stack| match stack.last() {
        None => Ok(false),
        Some(home) if home.current.is_none() => Ok(false),
        Some(home) if !home.current_published.get() => Ok(true),
        // A stock eager task may be running inside the native one.
        Some(home) => Ok(match (current_task(home.inst())?, home.current.peek()) {
            (Some(a), Some(b)) => a.borrow().is(b),
            _ => false,
        }),
    })
}
