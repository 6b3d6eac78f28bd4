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
//! The order is asyncio's `_run_once`: select, timers, batch. When a poll is due is decided here; what
//! it does is `poll`, and the batch is `batch`. With the GIL held, by the thread that runs the loop.

use super::attention::reason;
use super::batch::batch;
use super::poll::poll;
use super::{CURRENT, Due, LoopBase, NEAR, closed_error};
use crate::inspect;
use crate::inspect::record;
use crate::net::tls;
use rondel_core::clock;
use rondel_core::driver;
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::{Inst, Obj, PyRes, thread};
use std::sync::atomic::{AtomicU32, Ordering};

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

/// How often this process's ancestors have forked since the module was loaded.
static FORKS: AtomicU32 = AtomicU32::new(0);

pub(super) fn forks() -> u32 {
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
