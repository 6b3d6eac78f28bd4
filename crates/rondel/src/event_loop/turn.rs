//! Running the loop: turns of poll, timers and one batch of callbacks.
//!
//! ```text
//!  ┌─► signals, what other threads left
//!  │   poll        not at all while callbacks are ready and the last poll is young;
//!  │               else with timeout 0, or until the next timer with the GIL released
//!  │   due timers  join the ready queue in (when, sequence) order
//!  │   batch       exactly what is ready now; what it schedules waits for the next turn
//!  └── stop()?     checked after the batch, never inside
//! ```
//!
//! The order is asyncio's `_run_once`: select, timers, batch.
//!
//! The current task is published lazily. Stock `asyncio.current_task()` looks it up in a dictionary
//! keyed by the loop; to look there it asks for the loop's hash, and that is when we write the entry.

use super::attention::reason;
use super::{CURRENT, Due, IoEvent, LoopBase, NEAR, Ready, closed_error};
use crate::consts::{names, stock};
use crate::inspect::record;
use crate::net::tls;
use crate::packed::Entry;
use crate::server::Door;
use crate::{future, handle, inspect, meter, task};
use rondel_core::clock;
use rondel_core::driver::{self, Driver};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::{Inst, Obj, PyRes, Raised, Ref, gil, local, thread, value};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// While callbacks are ready, the system is asked for events (and Python for signals) after this many
/// turns (after one, if it had more than one poll takes), or when the coarse clock has ticked since the
/// last time (1 to 4 ms), whichever is first. A poll costs 120 to 170 ns, reading the precise clock 25 to
/// 40, the coarse one 5.
const TURNS_PER_POLL: u32 = 64;

/// As many at most: each poll in a row that finds nothing doubles the turns until the next.
const QUIET_TURNS_PER_POLL: u32 = 256;

/// The coarse clock is read so many times between two polls; every turn while turns are found to be
/// long, that is when it has ticked since the last poll.
const LOOKS_PER_POLL: u32 = 16;

/// A batch of more entries than this has its room given back when it is over: some 30 bytes for each
/// of 100 000 tasks that were started at once and now wait.
const CROWD: usize = 8192;

/// How often this process's ancestors have forked since the module was loaded.
static FORKS: AtomicU32 = AtomicU32::new(0);

fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// In a forked child: no loop runs here, and one that goes on running says that it must not.
pub(crate) fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    thread::forget();
    inspect::forked();
    let inherited = CURRENT.take();
    drop(inherited);
}

/// Pops the loop from the thread's stack of running loops, however the run ends.
struct Running<'a>(Inst<'a, LoopBase>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.set(false);
        let popped = CURRENT.with_borrow_mut(Vec::pop);
        drop(popped);
    }
}

/// `loop._run()`: turns until `stop()`.
pub(super) fn run(slf: Inst<'_, LoopBase>) -> PyRes<Obj> {
    slf.check_open()?;
    if slf.running.replace(true) {
        return Err(Builtin::Runtime.raise("This event loop is already running"));
    }
    slf.forks.set(forks());
    slf.attention.set(reason::RECORD, record::on());
    // A callback that ended the run before this may not have been over.
    slf.in_callback.set(false);
    // The first turn polls: what has arrived since the last run is seen by the shortest run.
    slf.polled.set(0);
    slf.next_look.set(1);
    slf.per_poll.set(TURNS_PER_POLL);
    CURRENT.with_borrow_mut(|stack| stack.push(slf.own()));
    let _running = Running(slf);
    let _shown = inspect::runs(slf)?;
    let result = thread::during(slf, |mark| turns(slf, mark));
    slf.stopping.set(false);
    slf.wake_late();
    slf.show_left();
    match result {
        Ok(()) => slf.leave().map(|()| Obj::none()),
        Err(raised) => {
            let exc = raised.fetch();
            tls::end_of_batch(slf)?;
            slf.leave()?;
            Err(err::raise_instance(exc.borrow()))
        }
    }
}

fn turns(slf: Inst<'_, LoopBase>, mark: &thread::Mark<'_>) -> PyRes<()> {
    let mut ready = driver::Ready::default();
    loop {
        // Another thread's loop may have run since, or one within a callback of this.
        mark.again();
        turn(slf, &mut ready)?;
        if slf.stopping.get() {
            return Ok(());
        }
        if slf.closed.get() {
            return Err(closed_error());
        }
    }
}

#[inline(always)]
fn turn(slf: Inst<'_, LoopBase>, ready: &mut driver::Ready) -> PyRes<()> {
    let idle = slf.ready.is_empty() && !slf.stopping.get();
    let turns = slf.turns.get() + 1;
    slf.turns.set(turns);
    if idle || turns >= slf.next_look.get() {
        look(slf, idle, turns, ready)?;
    }
    if slf.attention.has(reason::TIMER) {
        due_timers(slf);
    }
    batch(slf)?;
    if slf.attention.has(reason::FLUSH) {
        tls::end_of_batch(slf)?;
    }
    Ok(())
}

/// Polls, if it is time to.
#[inline(never)]
fn look(slf: Inst<'_, LoopBase>, idle: bool, turns: u32, ready: &mut driver::Ready) -> PyRes<()> {
    let per_poll = slf.per_poll.get();
    let ticked = clock::coarse() != slf.polled.get();
    if !idle && !ticked && !ready.full && turns < per_poll {
        slf.next_look.set(turns + per_poll / LOOKS_PER_POLL);
        return Ok(());
    }
    // Python code sees signals by itself; this is for turns that ran none.
    err::check_signals()?;
    tls::end_of_batch(slf)?; // what a signal's handler wrote
    // A signal's handler may have scheduled something.
    let idle = idle && slf.ready.is_empty() && !slf.stopping.get();
    let before = slf.ready.len();
    slf.counters.poll(turns, || {
        [before, slf.timers.borrow().len(), slf.tasks.borrow().len()]
    });
    poll(slf, idle, ready)?;
    slf.turns.set(0);
    slf.polled.set(clock::coarse());
    let near = slf.is_virtual() || !slf.timers.borrow().none_until(slf.near());
    slf.attention.set(reason::TIMER, near);
    let quiet = !idle && slf.ready.len() == before && slf.doors.borrow().is_empty();
    let next = if quiet {
        (per_poll * 2).min(QUIET_TURNS_PER_POLL)
    } else {
        TURNS_PER_POLL
    };
    slf.per_poll.set(next);
    let long = ticked && !idle && turns < per_poll;
    slf.next_look.set(if long || ready.full {
        1
    } else {
        next / LOOKS_PER_POLL
    });
    Ok(())
}

/// Asks the system for events; blocks only when `idle`.
fn poll(slf: Inst<'_, LoopBase>, idle: bool, ready: &mut driver::Ready) -> PyRes<()> {
    if slf.forks.get() != forks() {
        return Err(Builtin::Runtime.raise(
            "this event loop was running when the process forked, and the child shares its \
             descriptors with the parent: make a new loop in the child",
        ));
    }
    gil::release_orphans();
    if idle {
        slf.leave()?;
    }
    // What was freed by these may have scheduled something.
    let idle = idle && slf.ready.is_empty() && !slf.stopping.get();
    let timeout = if idle {
        let next = slf.timers.borrow_mut().next_deadline();
        if slf.is_virtual() {
            next.map(|_| Duration::ZERO)
        } else {
            next.map(|deadline| Duration::from_nanos(deadline.saturating_sub(clock::now())))
        }
    } else {
        Some(Duration::ZERO)
    };
    let Ok(mut driver) = slf.driver.try_borrow_mut() else {
        return Err(Builtin::Runtime.raise("the loop polls in another thread"));
    };
    let Some(active) = driver.as_mut() else {
        return Err(closed_error());
    };
    let doors = slf.doors.borrow();
    // Short polls keep the GIL: giving it up and taking it back costs more than the call.
    let short = timeout == Some(Duration::ZERO) && !active.has_woken();
    let polled = if short {
        let polled = active.turn(timeout, ready);
        take_answers(&doors);
        polled
    } else {
        slf.leave()?;
        // The GIL is not given up between the look at the ready queue and these.
        slf.called.store(false, Ordering::Relaxed);
        slf.woken.set(false);
        let called = &slf.called;
        let counters = &*slf.counters;
        counters.sleeps(clock::coarse);
        let late = slf.take_late();
        let recorded = record::on();
        if recorded {
            record::polls(false);
        }
        let polled = gil::detached(|| {
            drop(late);
            let polled = wait(active, &doors, called, timeout, ready);
            counters.wakes(clock::coarse);
            polled
        });
        if recorded {
            record::polls(true);
        }
        polled
    };
    slf.attention.set(reason::RECORD, record::on());
    if slf.attention.has(reason::RECORD) {
        record::looks();
    }
    drop(driver);
    drop(doors);
    local::bury();
    polled.map_err(|e| err::raise_io(&e))?;
    enter_doors(slf)?;
    for event in &ready.fds {
        queue_watchers(slf, event);
    }
    slf.transports.borrow().fetch_ahead(&ready.edges);
    for event in &ready.edges {
        let transport = slf.transports.borrow().get(event.token).cloned();
        if let Some(transport) = transport {
            let read_closed = event.read_closed || event.error;
            let event = IoEvent {
                readable: event.readable || read_closed,
                writable: event.writable || event.error,
                read_closed,
            };
            slf.push(Ready::Io(transport, event));
        } else if !crate::net::sock::on_edge(slf, event)? {
            queue_datagrams(slf, event);
        }
    }
    if idle && slf.is_virtual() && slf.ready.is_empty() {
        slf.skip_to_next_timer();
    }
    err::check_signals()
}

/// What threads have answered goes out; whether there was something.
fn take_answers(doors: &[Rc<Door>]) -> bool {
    let mut some = false;
    for door in doors {
        some |= door.take_answers();
    }
    some
}

/// Waits, without the GIL, until there is something for Python: an event, a request for the
/// application, a call from another thread, the end of the timeout. Rust futures and what threads
/// answer are dealt with meanwhile, however often: for them the GIL is not taken, which threads full
/// of Python may hold for long. Only when much memory waits for the GIL to be released is it taken.
fn wait(
    driver: &mut Driver,
    doors: &[Rc<Door>],
    called: &AtomicBool,
    timeout: Option<Duration>,
    ready: &mut driver::Ready,
) -> io::Result<()> {
    let deadline = timeout.map(|timeout| clock::now().saturating_add(nanoseconds(timeout)));
    let arrived = || doors.iter().any(|door| door.has_arrivals());
    // Responses go out before the wait; what came in by that ends it.
    let woken = driver.has_woken() && driver.run_futures();
    let mut left = if woken || arrived() {
        Some(Duration::ZERO)
    } else {
        timeout
    };
    // Requests among what came in wait for no event.
    doors.iter().for_each(|door| door.send_off());
    loop {
        driver.turn(left, ready)?;
        while take_answers(doors) && driver.has_woken() {
            driver.run_futures();
        }
        let called = called.load(Ordering::Acquire) || gil::has_many_orphans();
        if !ready.is_empty() || arrived() || called {
            return Ok(());
        }
        left = match deadline {
            None => None,
            Some(deadline) => match deadline.saturating_sub(clock::now()) {
                0 => return Ok(()),
                left => Some(Duration::from_nanos(left)),
            },
        };
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Lets each server's requests in.
fn enter_doors(slf: Inst<'_, LoopBase>) -> PyRes<()> {
    if slf.doors.borrow().iter().any(|door| door.has_arrivals()) {
        // A short poll keeps the last callback's context entered; a request has no part in that.
        slf.leave()?;
    }
    let mut i = 0;
    loop {
        let door = slf.doors.borrow().get(i).cloned();
        match door {
            None => return Ok(()),
            Some(door) if door.is_finished() => {
                let finished = slf.doors.borrow_mut().remove(i);
                drop(finished);
            }
            Some(door) => {
                door.enter(slf)?;
                i += 1;
            }
        }
    }
}

fn queue_datagrams(slf: Inst<'_, LoopBase>, event: &driver::EdgeEvent) {
    let transport = slf.datagrams.borrow().get(&event.token).cloned();
    if let Some(transport) = transport {
        let event = IoEvent {
            readable: event.readable || event.error,
            writable: event.writable || event.error,
            read_closed: false,
        };
        slf.push(Ready::Datagrams(transport, event));
    }
}

fn queue_watchers(slf: Inst<'_, LoopBase>, event: &driver::FdEvent) {
    let (reader, writer) = {
        let watches = slf.watches.borrow();
        let Some(watch) = watches.get(&event.fd) else {
            return;
        };
        (
            if event.readable {
                watch.reader.clone()
            } else {
                None
            },
            if event.writable {
                watch.writer.clone()
            } else {
                None
            },
        )
    };
    for handle in [reader, writer].into_iter().flatten() {
        slf.push(Ready::Run(handle));
    }
}

impl LoopBase {
    /// A deadline up to this may come before the next poll.
    #[inline(always)]
    pub(super) fn near(&self) -> u64 {
        self.polled.get().saturating_add(NEAR)
    }
}

#[inline(never)]
fn due_timers(slf: Inst<'_, LoopBase>) {
    let next = slf.timers.borrow_mut().next_deadline();
    if !slf.is_virtual() && next.is_none_or(|deadline| deadline > slf.near()) {
        slf.attention.set(reason::TIMER, false);
        return;
    }
    if next.is_none() {
        return;
    }
    let now = slf.now();
    if let Some(late) = next.and_then(|deadline| now.checked_sub(deadline)) {
        slf.counters.late(late);
    }
    loop {
        let due = slf.timers.borrow_mut().pop_due(now);
        match due {
            Some(due) => slf.push(Due::into_ready(due)),
            None => return,
        }
    }
}

#[inline(always)]
fn batch(slf: Inst<'_, LoopBase>) -> PyRes<()> {
    let count = slf.ready.len();
    let counters = &*slf.counters;
    for _ in 0..count {
        counters.step();
        if slf.attention.has(reason::EACH) {
            watched(slf)?;
            continue;
        }
        let Some(entry) = slf.pop() else {
            return Ok(());
        };
        execute(slf, entry)?;
    }
    if count > CROWD {
        slf.ready.trim();
    }
    Ok(())
}

/// What a native entry could not do for an exception of user code (a repr, a property, a future's
/// method): to the exception handler, as from a Handle of asyncio's. Only what ends the loop is left.
#[cold]
fn failed(slf: Inst<'_, LoopBase>, raised: Raised) -> PyRes<()> {
    let exc = raised.fetch();
    slf.callback_over();
    if handle::ends_loop(exc.borrow()) {
        return Err(err::raise_instance(exc.borrow()));
    }
    let context = value::dict()?;
    let message = value::str("Exception in the event loop's handling of a task or a future")?;
    value::dict_set(context.borrow(), names().message.borrow(), message.borrow())?;
    value::dict_set(context.borrow(), names().exception.borrow(), exc.borrow())?;
    future::call_handler_in_except(slf.obj(), context.borrow(), exc.borrow())
}

#[inline(always)]
fn execute(slf: Inst<'_, LoopBase>, entry: Entry) -> PyRes<()> {
    match entry.into_step() {
        Ok(task) => task::step(slf, task, None).or_else(|raised| failed(slf, raised)),
        Err(entry) => other(slf, entry.moved()),
    }
}

/// Whatever is no plain step: apart, so that a step has the registers.
#[inline(never)]
fn other(slf: Inst<'_, LoopBase>, entry: Entry) -> PyRes<()> {
    let outcome = match entry.unpack() {
        Ready::Step(task) => task::step(slf, task, None),
        // It has told the handler itself.
        Ready::Run(handle) => return handle::run(slf, handle),
        Ready::Awake(task) => task::awake(slf, task),
        Ready::Throw(task, exc) => task::step(slf, task, Some(exc)),
        Ready::Expire(timeout) => crate::primitives::timeout::expire(timeout),
        Ready::GatherChild(gather, child) => crate::primitives::gather::child_done(gather, child),
        Ready::GroupChild(group, child) => crate::primitives::task_group::child_done(group, child),
        Ready::RequestDone(cycle, task) => crate::server::finished(cycle, task.obj()),
        Ready::Hop(hop, future) => crate::primitives::hops::run(hop, future),
        Ready::Alarm(alarm) => crate::primitives::hops::ring(alarm),
        Ready::Io(transport, event) => crate::net::tcp::on_event(slf, transport, event),
        Ready::Datagrams(transport, event) => crate::net::udp::on_event(slf, transport, event),
    };
    outcome.or_else(|raised| failed(slf, raised))
}

/// The next entry, with what is to be seen to before it and around it.
#[inline(never)]
fn watched(slf: Inst<'_, LoopBase>) -> PyRes<()> {
    slf.wake_late();
    let Some(entry) = slf.pop() else {
        return Ok(());
    };
    match (slf.attention.has(reason::RECORD), slf.is_debug()) {
        (true, false) => recorded(slf, entry),
        (false, false) => execute(slf, entry),
        (true, true) => timed(slf, entry, recorded),
        (false, true) => timed(slf, entry, execute),
    }
}

type Execute = fn(Inst<'_, LoopBase>, Entry) -> PyRes<()>;

/// Executes the entry and tells the recorder of it.
#[inline(always)]
fn recorded(slf: Inst<'_, LoopBase>, entry: Entry) -> PyRes<()> {
    match entry.into_step() {
        Ok(task) => task::step_recorded(slf, task, None).or_else(|raised| failed(slf, raised)),
        Err(entry) => other_recorded(slf, entry.moved()),
    }
}

#[inline(never)]
fn other_recorded(slf: Inst<'_, LoopBase>, entry: Entry) -> PyRes<()> {
    let entry = match entry.into_throw() {
        Ok((task, exc)) => {
            let stepped = task::step_recorded(slf, task, Some(exc));
            return stepped.or_else(|raised| failed(slf, raised));
        }
        Err(entry) => entry,
    };
    let known = record::callback_begins(slf, &entry);
    let outcome = other(slf, entry);
    record::callback_ends(slf, known);
    outcome
}

/// Debug mode: reports a callback that took too long, as asyncio words it.
#[cold]
fn timed(slf: Inst<'_, LoopBase>, entry: Entry, execute: Execute) -> PyRes<()> {
    let subject = entry.peek(|entry| match entry {
        Ready::Step(task) | Ready::Awake(task) => Some(task.obj().own()),
        Ready::Throw(task, _) => Some(task.obj().own()),
        Ready::Run(handle) => Some(handle.obj().own()),
        _ => None,
    });
    let start = clock::now();
    execute(slf, entry)?;
    let took = clock::now().saturating_sub(start) as f64 * 1e-9;
    let limit = slf.slow_callback.get();
    match subject {
        Some(subject) if limit > 0.0 && took >= limit => {
            let report =
                rondel_ffi::call::getattr(slf.obj(), value::intern(c"_report_slow")?.borrow())?;
            let _none = rondel_ffi::call::call(
                report.borrow(),
                &[subject.borrow(), value::float(took)?.borrow()],
            )?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Makes `task` the current one for the time of a step. The caller keeps it alive until [`end_step`],
/// which it calls however the step ends.
#[inline(always)]
pub(crate) fn begin_step(slf: Inst<'_, LoopBase>, task: Ref<'_>) -> PyRes<()> {
    if cfg!(Py_3_14)
        && let Some(swap) = &stock().swap_current_task
    {
        let _previous = rondel_ffi::call::call(swap.borrow(), &[slf.obj(), task])?;
    }
    slf.current.lend(task);
    Ok(())
}

#[inline(always)]
pub(crate) fn end_step(slf: Inst<'_, LoopBase>) {
    if slf.current_published.get() {
        let task = slf.current.get();
        // First: the look into asyncio's table asks for the loop's hash, which publishes what is there.
        slf.current.take_back();
        unpublish(slf);
        if meter::open()
            && let Some(task) = &task
        {
            meter::step_ends(task.borrow());
        }
    }
    slf.current.take_back();
    if cfg!(Py_3_14)
        && let Some(swap) = &stock().swap_current_task
    {
        let none = Obj::none();
        if let Err(raised) = rondel_ffi::call::call(swap.borrow(), &[slf.obj(), none.borrow()]) {
            raised.unraisable(None);
        }
    }
}

#[cold]
fn unpublish(slf: Inst<'_, LoopBase>) {
    slf.current_published.set(false);
    if let Some(table) = &stock().current_tasks
        && let Err(raised) = value::dict_discard(table.borrow(), slf.obj())
    {
        raised.unraisable(None);
    }
}

/// `hash(loop)`: by identity, publishing the current task first (see the module's doc).
pub(super) fn hash(slf: Inst<'_, LoopBase>) -> isize {
    publish(slf);
    // Objects are 16-byte aligned: rotate the dead bits away, as CPython does for pointers.
    (slf.obj().as_ptr() as usize).rotate_right(4) as isize
}

/// Writes the current task into asyncio's table, where the end of the step takes it out again.
pub(crate) fn publish(slf: Inst<'_, LoopBase>) {
    if !slf.current_published.get()
        && let (Some(task), Some(table)) = (slf.current.get(), &stock().current_tasks)
    {
        slf.current_published.set(true);
        if let Err(raised) = value::dict_set(table.borrow(), slf.obj(), task.borrow()) {
            raised.unraisable(Some(slf.obj()));
        }
    }
}
