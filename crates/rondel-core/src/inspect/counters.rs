//! What a loop counts about itself, in words that any thread may read without the GIL.
//!
//! Each word is written by the loop's thread alone, relaxed (but that it is awake, which comes behind
//! since when): a reader sees each value late by some nanoseconds, and not all of one instant. No clock is
//! read for them that the loop does not read anyway, but for the coarse one around a wait that gives the
//! GIL up.
//!
//! The list of running loops is behind a mutex that is held for a push, a removal or a copy, never
//! while anybody waits.
//!
//! Built with `--cfg rondel_no_counters` nothing is counted ([`COUNTING`]): what `make bench-inspect
//! --without-wheel` measures the rest against. Such a build has no watchdog, and figures that stand still.

use super::bell;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Whether loops count.
pub const COUNTING: bool = !cfg!(rondel_no_counters);

/// Buckets of the histogram of late timers: up to 2^n microseconds for the n-th.
pub const LAG_BUCKETS: usize = 24;

/// What a loop's thread is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Phase {
    /// The loop does not run.
    Off = 0,
    /// It runs callbacks, or wants the GIL to do so.
    Awake = 1,
    /// It waits for something to happen.
    Idle = 2,
    /// Its thread runs what may block: a WSGI application.
    Lent = 3,
}

/// A loop's counters.
#[derive(Debug)]
pub struct Counters {
    /// A number of the loop's in this process.
    pub id: u32,
    phase: AtomicU8,
    /// Entries of the ready queue that have been taken out: steps of tasks, and callbacks.
    pub steps: AtomicU64,
    /// Turns, as of the last poll.
    pub turns: AtomicU64,
    pub polls: AtomicU64,
    /// Nanoseconds in waits that are over.
    pub idle: AtomicU64,
    /// The coarse clock when the present phase began.
    pub since: AtomicU64,
    /// The coarse clock when the present run began.
    pub began: AtomicU64,
    /// Idle nanoseconds of earlier runs, which are no part of the present one's share.
    idle_before: AtomicU64,
    /// Entries of the ready queue, timers and tasks, as of the last poll.
    pub ready: AtomicU32,
    pub timers: AtomicU32,
    pub tasks: AtomicU32,
    lag: [AtomicU32; LAG_BUCKETS],
    /// The running thread, as Python's `threading.get_ident()` has it.
    pub thread: AtomicU64,
}

static RUNNING: Mutex<Vec<Arc<Counters>>> = Mutex::new(Vec::new());
static NEXT: AtomicU32 = AtomicU32::new(1);

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            phase: AtomicU8::new(Phase::Off as u8),
            steps: AtomicU64::new(0),
            turns: AtomicU64::new(0),
            polls: AtomicU64::new(0),
            idle: AtomicU64::new(0),
            since: AtomicU64::new(0),
            began: AtomicU64::new(0),
            idle_before: AtomicU64::new(0),
            ready: AtomicU32::new(0),
            timers: AtomicU32::new(0),
            tasks: AtomicU32::new(0),
            lag: [const { AtomicU32::new(0) }; LAG_BUCKETS],
            thread: AtomicU64::new(0),
        }
    }
}

/// Adds to a word that one thread alone writes: a load and a store, not a locked addition.
#[inline(always)]
fn add(word: &AtomicU64, n: u64) {
    word.store(
        word.load(Ordering::Relaxed).wrapping_add(n),
        Ordering::Relaxed,
    );
}

impl Counters {
    /// An entry is taken out of the ready queue.
    #[inline(always)]
    pub fn step(&self) {
        if COUNTING {
            add(&self.steps, 1);
        }
    }

    /// The loop is about to ask the system for events. `lengths`: of its ready queue, its timers and its
    /// tasks.
    #[inline]
    pub fn poll(&self, turns: u32, lengths: impl FnOnce() -> [usize; 3]) {
        if !COUNTING {
            return;
        }
        add(&self.turns, u64::from(turns));
        add(&self.polls, 1);
        for (word, n) in [&self.ready, &self.timers, &self.tasks]
            .into_iter()
            .zip(lengths())
        {
            word.store(u32::try_from(n).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
    }

    /// It gives the GIL up and waits. `now`: the coarse clock.
    #[inline]
    pub fn sleeps(&self, now: impl FnOnce() -> u64) {
        if COUNTING {
            self.since.store(now(), Ordering::Relaxed);
            self.phase.store(Phase::Idle as u8, Ordering::Relaxed);
        }
    }

    /// There is something to do. Call it without the GIL: a watchdog that sleeps is woken.
    #[inline]
    pub fn wakes(&self, now: impl FnOnce() -> u64) {
        if !COUNTING {
            return;
        }
        let now = now();
        let slept = now.saturating_sub(self.since.load(Ordering::Relaxed));
        add(&self.idle, slept);
        self.since.store(now, Ordering::Relaxed);
        // Who sees it awake sees since when.
        self.phase.store(Phase::Awake as u8, Ordering::Release);
        bell::touch();
    }

    /// From here on its thread runs what may block, or does so no longer.
    #[inline]
    pub fn lend(&self, lent: bool) {
        let phase = if lent { Phase::Lent } else { Phase::Awake };
        if COUNTING {
            self.phase.store(phase as u8, Ordering::Relaxed);
        }
    }

    /// A timer was due so many nanoseconds ago.
    #[inline]
    pub fn late(&self, nanoseconds: u64) {
        if !COUNTING {
            return;
        }
        let micros = nanoseconds / 1000;
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        let word = &self.lag[bucket.min(LAG_BUCKETS - 1)];
        word.store(
            word.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Relaxed,
        );
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            1 => Phase::Awake,
            2 => Phase::Idle,
            3 => Phase::Lent,
            _ => Phase::Off,
        }
    }

    /// How many timers were late by less than 1 µs, 2 µs, 4 µs …
    #[must_use]
    pub fn lag(&self) -> [u32; LAG_BUCKETS] {
        std::array::from_fn(|i| self.lag[i].load(Ordering::Relaxed))
    }

    /// The share of its present run that the loop was awake for, 0 to 1. `now`: the coarse clock.
    #[must_use]
    pub fn busy(&self, now: u64) -> f64 {
        let took = now.saturating_sub(self.began.load(Ordering::Relaxed));
        let mut idle = self.idle.load(Ordering::Relaxed);
        idle = idle.saturating_sub(self.idle_before.load(Ordering::Relaxed));
        if self.phase() == Phase::Idle {
            idle += now.saturating_sub(self.since.load(Ordering::Relaxed));
        }
        if took == 0 {
            return 1.0;
        }
        1.0 - idle.min(took) as f64 / took as f64
    }
}

/// The loop of these counters runs in this thread from now on. `now`: the coarse clock.
pub fn enter(counters: &Arc<Counters>, now: u64, thread: u64) {
    counters.began.store(now, Ordering::Relaxed);
    counters.since.store(now, Ordering::Relaxed);
    let idle = counters.idle.load(Ordering::Relaxed);
    counters.idle_before.store(idle, Ordering::Relaxed);
    counters.thread.store(thread, Ordering::Relaxed);
    counters.phase.store(Phase::Awake as u8, Ordering::Relaxed);
    if let Ok(mut running) = RUNNING.lock() {
        running.push(counters.clone());
    }
    bell::touch();
}

/// The run is over.
pub fn leave(counters: &Arc<Counters>) {
    counters.phase.store(Phase::Off as u8, Ordering::Relaxed);
    if let Ok(mut running) = RUNNING.lock() {
        running.retain(|one| !Arc::ptr_eq(one, counters));
    }
}

/// The counters of the loops that run.
#[must_use]
pub fn running() -> Vec<Arc<Counters>> {
    RUNNING.lock().map(|list| list.clone()).unwrap_or_default()
}

/// In a forked child: none of the loops runs here.
pub fn forget() {
    if let Ok(mut running) = RUNNING.try_lock() {
        for one in running.drain(..) {
            one.phase.store(Phase::Off as u8, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(rondel_no_counters)))]
mod tests {
    use super::*;

    #[test]
    fn busy_is_what_is_not_idle() {
        let counters = Arc::new(Counters::default());
        enter(&counters, 1000, 1);
        counters.sleeps(|| 1100);
        counters.wakes(|| 1400);
        assert!((counters.busy(2000) - 0.7).abs() < 1e-9);
        counters.sleeps(|| 2000);
        assert!((counters.busy(3000) - 0.35).abs() < 1e-9);
        leave(&counters);
        assert!(!running().iter().any(|one| Arc::ptr_eq(one, &counters)));
    }

    #[test]
    fn lateness_goes_by_powers_of_two() {
        let counters = Counters::default();
        for nanoseconds in [0, 999, 1000, 1999, 2000, 4_000_000, u64::MAX] {
            counters.late(nanoseconds);
        }
        let lag = counters.lag();
        assert_eq!(lag[..4], [2, 2, 1, 0]);
        assert_eq!((lag[12], lag[LAG_BUCKETS - 1]), (1, 1));
    }
}
