//! How many threads should run at once: as few as keep the processor busy.
//!
//! Threads of one interpreter compute one at a time. If the process uses (nearly) a whole processor,
//! the lock is taken all the time, and a further thread would only make them hand it over more often.
//! If it does not, those at work wait for something outside (a database, a sleep), and a further
//! thread can use the time. A thread that has been at one job for long would hold up all that is
//! queued behind it, so for that too another one starts: the interpreter then shares its time.
//!
//! The judgement is made every [`TICK`] while it matters: while jobs wait, or several threads run.

use super::seats::{Seat, State};
use crate::clock;

/// Nanoseconds between two looks.
pub const TICK: u64 = 1_000_000;

/// A job that has run for so many nanoseconds does not keep others waiting.
const LONG: u64 = 10_000_000;

/// Of the time between two looks, in percent: below, those at work are blocked part of the time.
const SLACK: u64 = 75;
/// Below, they are blocked nearly always.
const IDLE: u64 = 30;
/// From here on the interpreter's lock is what they wait for.
const FULL: u64 = 90;

pub(super) struct Pace {
    wanted: usize,
    /// Somebody calls `tick`; else every thread may run.
    paced: bool,
    watching: bool,
    wall: u64,
    cpu: u64,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace {
            wanted: usize::MAX,
            paced: false,
            watching: false,
            wall: 0,
            cpu: 0,
        }
    }

    pub(super) fn set_paced(&mut self, paced: bool, limit: usize) {
        self.paced = paced;
        self.watching = false;
        self.wanted = if paced { 1 } else { limit };
    }

    /// Lets every thread run.
    pub(super) fn open(&mut self, limit: usize) {
        self.paced = false;
        self.wanted = limit;
    }

    pub(super) fn wanted(&self) -> usize {
        self.wanted
    }
}

impl State {
    /// Whether a look is worth while.
    fn matters(&self) -> bool {
        self.pace.paced && (self.running > 1 || self.waits())
    }

    /// Whether a job waits that no thread was woken for.
    fn waits(&self) -> bool {
        if self.queue.is_empty() {
            return false;
        }
        let woken = |s: &&Seat| s.counted && s.since.is_none();
        self.queue.len() > self.seats.iter().filter(woken).count()
    }

    /// Whether somebody should be asked to call `tick` from now on.
    pub(super) fn needs_watch(&mut self) -> bool {
        if self.pace.watching || !self.matters() {
            return false;
        }
        self.pace.watching = true;
        self.pace.wall = clock::now();
        self.pace.cpu = clock::process_cpu();
        true
    }

    /// Whether `tick` is to be called again.
    pub(super) fn still_watched(&mut self) -> bool {
        self.pace.watching = self.matters();
        self.pace.watching
    }

    /// Sets how many threads are wanted, from what happened since the last look.
    pub(super) fn judge(&mut self, now: u64, limit: usize) {
        if !self.pace.paced {
            return;
        }
        let cpu = clock::process_cpu();
        let wall = now.saturating_sub(self.pace.wall).max(1);
        let busy = cpu.saturating_sub(self.pace.cpu).saturating_mul(100) / wall;
        (self.pace.wall, self.pace.cpu) = (now, cpu);
        let (mut long, mut short) = (0, 0);
        for seat in &self.seats {
            match seat.since {
                Some(since) if now.saturating_sub(since) >= LONG => long += 1,
                Some(_) => short += 1,
                None => {}
            }
        }
        let running = self.running.max(1);
        let wanted = if self.waits() && (busy < SLACK || short == 0) {
            // At once if nobody computes, else one by one.
            let more = if busy < IDLE { running } else { 1 };
            self.pace.wanted.max(running + more)
        } else if busy >= FULL && running > 1 && long == 0 {
            self.pace.wanted.min(running) - 1
        } else {
            self.pace.wanted
        };
        self.pace.wanted = wanted.clamp(1, limit);
    }
}
