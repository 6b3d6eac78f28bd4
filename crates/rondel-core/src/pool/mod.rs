//! A pool of long-lived threads for blocking calls, made for threads that share one interpreter lock.
//!
//! ```text
//!   any thread                    the pool                              a pool's thread
//!   ──────────                    ────────                              ───────────────
//!   submit(job) ──────► free thread, if fewer run than wanted ────────► work(): runs it
//!                  └──► queue ──── the next thread to finish takes it ─►
//!   submit_to(pin, job) ► the inbox of the pin's thread ──────────────►
//! ```
//!
//! * **Few threads at once.** Python threads that compute hand one lock to and fro, which costs more
//!   than it gives. So a further thread is used only when those at work are blocked, or one of them
//!   has been at it for long: [`pacer`] watches that, and sets how many are *wanted*.
//! * **Last in, first out.** The thread that went idle last runs next: its memory is in the caches,
//!   and a database connection of its is the freshest.
//! * **Pins.** Calls that belong together (those of one request) share a [`Pin`] and run on one
//!   thread. It is chosen for the first of them: one that is idle, or else, when there can be no
//!   more, whichever is free first. A pin does not own its thread: others may use it in between,
//!   unless the pin *holds* it (a transaction is open), in which case they wait.
//! * **Turns.** Jobs of pins are paced, too: a thread that gets one while as many are at work as are wanted
//!   waits for its turn. Who is at work has a run of jobs before it makes room.
//! * **Told late.** Who submits a job as its last act before it gives the interpreter's lock up may keep
//!   the wake-up until then ([`Pool::submit_late`]), and who has finished one has its loop woken when it
//!   has gone idle ([`Turn::tell`]): a thread that is woken for a lock that another holds sleeps twice.
//! * **Quick jobs in one go.** Where jobs take some microseconds, waking somebody costs as much as a job.
//!   So no second thread is woken for them before the first is seen to wait, a loop may be told of
//!   several at once ([`Turn::tell_soon`]), and a thread that is alone at work need not give the
//!   interpreter's lock up between two ([`Pool::next_at_once`]). Whatever is put off by that, because the
//!   next job turns out to wait for something, is seen to by the pacer's next look, within [`TICK`].
//!
//! The threads are the caller's: `spawn` starts one, which calls [`Pool::work`] (or [`Pool::next`] for
//! job after job, and runs each itself) and returns when the pool is closed. Any method may be called
//! from any thread. Jobs run without a lock held. A job that panics ends nothing but itself.

mod pacer;
mod seats;
mod totals;
mod turn;
mod work;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::clock;
use crate::wake::LoopWaker;
use pacer::Pace;
pub use pacer::TICK;
use seats::{NOWHERE, PinTag, Pinned, Queued, Start, State};
pub use totals::{Totals, forget, totals};
pub use turn::Turn;

/// Something to run on a thread of the pool.
pub type Job = Box<dyn FnOnce(&mut Turn) + Send>;

/// A wake-up of a thread that the caller is to make, by dropping it; soon, and not in vain if late.
#[derive(Debug)]
pub struct Late(Arc<Condvar>);

impl Drop for Late {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Why a job was refused; it is given back.
pub struct Refused(pub Job);

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Refused: the pool is closed")
    }
}

/// Counts, for statistics and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Threads at most.
    pub limit: usize,
    /// Threads that were started.
    pub threads: usize,
    /// Threads that run a job.
    pub busy: usize,
    /// Jobs without a pin that wait.
    pub queued: usize,
    /// How many threads may take jobs without a pin, as the pacer has it.
    pub wanted: usize,
}

struct Shared {
    limit: usize,
    state: Mutex<State>,
    /// Starts thread number N, which calls `work(N)`. False: it could not be started.
    spawn: Box<dyn Fn(usize) -> bool + Send + Sync>,
    /// Asks for a [`Pool::tick`] in [`TICK`] nanoseconds.
    alarm: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
}

/// A handle of the pool; clones are the same pool's.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

/// Jobs of one pin run on one thread, in their order.
pub struct Pin {
    pool: Pool,
    tag: Arc<PinTag>,
}

impl Pool {
    /// A pool of at most `limit` threads (at least one), none of them started yet.
    pub fn new(limit: usize, spawn: impl Fn(usize) -> bool + Send + Sync + 'static) -> Pool {
        let pool = Pool(Arc::new(Shared {
            limit: limit.max(1),
            state: Mutex::new(State {
                seats: Vec::new(),
                idle: Vec::new(),
                queue: VecDeque::new(),
                unseated: VecDeque::new(),
                waiting: VecDeque::new(),
                bell: None,
                running: 0,
                pace: Pace::new(),
                closed: false,
                next_pin: 0,
                spent: totals::Spent::default(),
                made_by: std::process::id(),
            }),
            spawn: Box::new(spawn),
            alarm: Mutex::new(None),
        }));
        totals::count_in(&pool.0);
        pool
    }

    /// Who is told that [`Pool::tick`] should be called soon. Without one the pool lets every thread
    /// run that there is work for.
    pub fn set_alarm(&self, alarm: Option<Arc<dyn Fn() + Send + Sync>>) {
        let paced = alarm.is_some();
        let old = {
            let mut slot = self.0.alarm.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *slot, alarm)
        };
        drop(old);
        let starts = {
            let mut state = self.lock();
            state.pace.set_paced(paced, self.0.limit);
            self.all_that_may_run(&mut state, true)
        };
        starts.into_iter().for_each(|start| self.start(start));
    }

    /// Runs the job on some thread.
    ///
    /// # Errors
    /// Gives it back if the pool is closed.
    pub fn submit(&self, job: Job) -> Result<(), Refused> {
        self.submit_late(job).map(drop)
    }

    /// The same, but the thread may be told when the [`Late`] is dropped. It looks for itself within
    /// 2 ms in any case, so that one who blocks meanwhile waits for that at most.
    ///
    /// # Errors
    /// Gives the job back if the pool is closed.
    pub fn submit_late(&self, job: Job) -> Result<Option<Late>, Refused> {
        let at = clock::now();
        let (started, watch) = {
            let mut state = self.lock();
            if state.closed {
                return Err(Refused(job));
            }
            state.queue.push_back(Queued { job, at });
            let started = if state.is_enough() {
                Start::Nothing
            } else {
                self.more(&mut state)
            };
            (started, state.needs_watch())
        };
        let late = self.start_late(started);
        if watch {
            self.ring();
        }
        Ok(late)
    }

    /// Takes what waits for a thread and has no pin out of the pool.
    #[must_use]
    pub fn withdraw(&self) -> Vec<Job> {
        let queue = std::mem::take(&mut self.lock().queue);
        queue.into_iter().map(|queued| queued.job).collect()
    }

    /// A pin for calls that belong together.
    #[must_use]
    pub fn pin(&self) -> Pin {
        self.pin_beside(None)
    }

    /// The same, on another thread than this one if there is another.
    #[must_use]
    pub fn pin_beside(&self, other: Option<usize>) -> Pin {
        let mut state = self.lock();
        state.next_pin += 1;
        Pin {
            pool: self.clone(),
            tag: Arc::new(PinTag {
                id: state.next_pin,
                alive: AtomicBool::new(true),
                seat: AtomicUsize::new(NOWHERE),
                waits: AtomicBool::new(false),
                beside: other,
            }),
        }
    }

    /// Looks whether those at work are blocked, and lets further threads run or fewer. Says in how many
    /// nanoseconds it wants to be called again, if it does: [`TICK`] or some of them.
    pub fn tick(&self) -> Option<u64> {
        let (starts, next) = {
            let mut state = self.lock();
            state.judge(clock::now(), self.0.limit);
            let free = !state.is_enough();
            let starts = self.all_that_may_run(&mut state, free);
            (starts, state.next_look())
        };
        starts.into_iter().for_each(|start| self.start(start));
        next
    }

    /// Whether a thread is at a job that it has begun a short while ago. If so, this loop is woken when none
    /// is at work any more, and hears of no jobs before ([`Turn::tell`]): it looks for itself.
    pub fn tell_when_idle(&self, waker: impl FnOnce() -> Arc<LoopWaker>, now: u64) -> bool {
        let mut state = self.lock();
        let found = state.is_at_short_job(now);
        if found {
            state.bell = Some(Arc::downgrade(&waker()));
        }
        found
    }

    /// The loop looks for itself no longer.
    pub fn tell_no_more(&self) {
        self.lock().bell = None;
    }

    /// Refuses further jobs. What was taken in is still run; then the threads return.
    pub fn close(&self) {
        let wakes: Vec<_> = {
            let mut state = self.lock();
            state.closed = true;
            // Nothing comes any more: what is left may use every thread.
            state.pace.open(self.0.limit);
            state.seats.iter().map(|s| Arc::clone(&s.wake)).collect()
        };
        wakes.iter().for_each(|wake| wake.notify_all());
    }

    /// Whether there is a thread of that number, or one that is being started.
    #[must_use]
    pub fn has_thread(&self, seat: usize) -> bool {
        let state = self.lock();
        state.seats.get(seat).is_some_and(|s| !s.vacant)
    }

    #[must_use]
    pub fn stats(&self) -> Stats {
        let state = self.lock();
        Stats {
            limit: self.0.limit,
            threads: state.seats.iter().filter(|s| !s.vacant).count(),
            busy: state.seats.iter().filter(|s| s.since.is_some()).count(),
            queued: state.queue.len(),
            wanted: state.pace.wanted(),
        }
    }

    fn submit_to(&self, pin: &Pin, job: Job) -> Result<Option<Late>, Refused> {
        let at = clock::now();
        let (start, watch) = {
            let mut state = self.lock();
            if state.closed {
                return Err(Refused(job));
            }
            let tag = &pin.tag;
            let (seat, mut start) = match tag.seat() {
                Some(seat) => (Some(seat), Start::Nothing),
                None if tag.waits.load(Ordering::Relaxed) => (None, Start::Nothing),
                None => state.choose(self.0.limit, tag.beside),
            };
            state.put(seat, tag, Queued { job, at });
            if let (Some(seat), Start::Nothing) = (seat, &start) {
                start = state.call_up(seat);
            }
            (start, state.needs_watch())
        };
        let late = self.start_late(start);
        if watch {
            self.ring();
        }
        Ok(late)
    }

    /// Every thread whose turn has come, and one more for jobs without a pin if `free`.
    fn all_that_may_run(&self, state: &mut State, mut free: bool) -> Vec<Start> {
        std::iter::from_fn(|| {
            let mut start = state.call_next(0);
            if matches!(start, Start::Nothing) && std::mem::take(&mut free) {
                start = self.more(state);
            }
            (!matches!(start, Start::Nothing)).then_some(start)
        })
        .collect()
    }

    /// Lets one more thread run, if there is work for it and one is wanted.
    fn more(&self, state: &mut State) -> Start {
        // Idle threads that were woken before count already: `running` is raised here.
        if state.queue.is_empty() || state.running >= state.pace.wanted() {
            return Start::Nothing;
        }
        let free = state.find_idle(|_, s| s.held.is_none());
        let Some((seat, start)) = free.or_else(|| state.new_seat(self.0.limit)) else {
            return Start::Nothing;
        };
        state.running += 1;
        state.seats[seat].counted = true;
        start
    }

    /// As `start`, but leaves a wake-up that may come late to the caller.
    fn start_late(&self, start: Start) -> Option<Late> {
        if let Start::Wake(wake, true) = start {
            return Some(Late(wake));
        }
        self.start(start);
        None
    }

    fn start(&self, start: Start) {
        match start {
            Start::Nothing => {}
            Start::Wake(wake, _late) => wake.notify_one(),
            Start::Spawn(seat) => {
                if !(self.0.spawn)(seat) {
                    self.not_started(seat);
                }
            }
        }
    }

    /// A thread could not be started: whoever runs does its work, and a later job tries anew. If
    /// nobody runs, the jobs are dropped.
    #[cold]
    fn not_started(&self, seat: usize) {
        let mut lost = (VecDeque::new(), VecDeque::new());
        let start = {
            let mut state = self.lock();
            state.uncount(seat);
            let place = &mut state.seats[seat];
            (place.vacant, place.pins) = (true, 0);
            let inbox = std::mem::take(&mut place.inbox);
            for Pinned { pin, queued } in inbox {
                pin.seat.store(NOWHERE, Ordering::Relaxed);
                state.put(None, &pin, queued);
            }
            if state.seats.iter().all(|s| s.vacant) {
                for waiting in &state.unseated {
                    waiting.pin.waits.store(false, Ordering::Relaxed);
                }
                lost.0 = std::mem::take(&mut state.queue);
                lost.1 = std::mem::take(&mut state.unseated);
            }
            state.help(self.0.limit)
        };
        self.start(start);
        // Without the lock: a job that is dropped may tell others.
        drop(lost);
    }

    fn ring(&self) {
        let alarm = {
            let slot = self.0.alarm.lock().unwrap_or_else(PoisonError::into_inner);
            slot.clone()
        };
        if let Some(alarm) = alarm {
            alarm();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Jobs run without the lock, so a poisoned state is still whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pin {
    /// Runs the job on the pin's thread, after its jobs before.
    ///
    /// # Errors
    /// Gives it back if the pool is closed.
    pub fn submit(&self, job: Job) -> Result<(), Refused> {
        self.submit_late(job).map(drop)
    }

    /// The same, with the thread told late: see [`Pool::submit_late`].
    ///
    /// # Errors
    /// Gives the job back if the pool is closed.
    pub fn submit_late(&self, job: Job) -> Result<Option<Late>, Refused> {
        self.pool.submit_to(self, job)
    }

    /// The number of its thread, once a job was submitted.
    #[must_use]
    pub fn thread(&self) -> Option<usize> {
        self.tag.seat()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let (start, watch) = {
            let mut state = self.pool.lock();
            self.tag.alive.store(false, Ordering::Relaxed);
            let Some(seat) = self.tag.seat() else { return };
            let place = &mut state.seats[seat];
            place.pins -= 1;
            if place.held == Some(self.tag.id) && place.since.is_none() {
                place.held = None;
            }
            // Others may have waited for it to let go.
            let start = if !place.inbox.is_empty() {
                state.call_up(seat)
            } else if !state.unseated.is_empty() {
                state.help(self.pool.0.limit)
            } else {
                self.pool.more(&mut state)
            };
            (start, state.needs_watch())
        };
        self.pool.start(start);
        if watch {
            self.pool.ring();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().fmt(f)
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pin")
            .field("id", &self.tag.id)
            .finish_non_exhaustive()
    }
}
