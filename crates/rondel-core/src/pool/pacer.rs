//! How many threads should run at once: as few as keep the processor busy.
//!
//! Threads of one interpreter compute one at a time. If the process uses (nearly) a whole processor,
//! the lock is taken all the time, and a further thread would only make them hand it over more often.
//! If it does not, those at work wait for something outside (a database, a sleep), and a further
//! thread can use the time. A thread that has been at one job for long would hold up all that is
//! queued behind it, so for that too another one starts: the interpreter then shares its time.
//!
//! A thread that could run but finds no processor free, on a machine that others use as well, does not
//! wait for anything that a further thread would help with: where jobs are quick, that time ([`Delay`])
//! counts as computed.
//!
//! The judgement is made every [`TICK`] while it matters: while jobs wait, or several threads run. Where
//! looks come to the same again and again they come at longer intervals, up to [`CALM`]: each wakes the
//! thread that looks, which on a busy machine costs more than the look.

use super::seats::{Seat, State};
use crate::clock;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Nanoseconds between two looks, at least.
pub const TICK: u64 = 1_000_000;

/// At most, while nothing changes.
const CALM: u64 = 4 * TICK;
/// And where there is one thread at most, so that only the jobs' being quick is of interest.
const ALONE: u64 = 16 * TICK;

/// A job that has run for so many nanoseconds does not keep others waiting.
const LONG: u64 = 10_000_000;

/// A job that ran for less neither computes much nor waits for anything, and a thread that is at one for
/// less is not known to.
pub(super) const SHORT: u64 = 100_000;

/// Of the time between two looks, in percent: below, those at work are blocked part of the time.
const SLACK: u64 = 75;
/// Below, they are blocked nearly always.
const IDLE: u64 = 30;
/// From here on the interpreter's lock is what they wait for.
const FULL: u64 = 90;

/// So many jobs in a tick for each thread: they are no calls that wait for long.
const QUICK: u64 = 8;
/// That holds for so many looks.
const REMEMBERED: u8 = 16;

/// How long a thread could run but had no processor, as Linux counts it (`schedstat`).
pub(super) struct Delay {
    file: File,
    seen: u64,
}

impl Delay {
    /// The calling thread's; None where the system does not tell.
    pub(super) fn mine() -> Option<Delay> {
        let file = File::open("/proc/thread-self/schedstat").ok()?;
        let mut delay = Delay { file, seen: 0 };
        delay.seen = delay.read()?;
        Some(delay)
    }

    /// Nanoseconds since the last question.
    fn more(&mut self) -> u64 {
        let now = self.read().unwrap_or(self.seen);
        now.saturating_sub(std::mem::replace(&mut self.seen, now))
    }

    /// The second of three numbers. The system has no file's position to keep for it.
    fn read(&self) -> Option<u64> {
        let mut text = [0; 64];
        let len = self.file.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(&text[..len]).ok()?;
        text.split_ascii_whitespace().nth(1)?.parse().ok()
    }
}

pub(super) struct Pace {
    wanted: usize,
    /// Somebody calls `tick`; else every thread may run.
    paced: bool,
    watching: bool,
    /// Nanoseconds from the last look to the next.
    interval: u64,
    wall: u64,
    cpu: u64,
    /// Jobs without a pin that were begun since the last look.
    pub(super) begun: u64,
    /// Looks for which jobs are still taken for quick ones.
    quick: u8,
    /// Of the thread that looks: what it hands out late is not begun.
    own: Option<Delay>,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace {
            wanted: usize::MAX,
            paced: false,
            watching: false,
            interval: TICK,
            wall: 0,
            cpu: 0,
            begun: 0,
            quick: 0,
            own: None,
        }
    }

    pub(super) fn set_paced(&mut self, paced: bool, limit: usize) {
        self.paced = paced;
        self.watching = false;
        self.own = None;
        self.wanted = if paced { 1 } else { limit };
    }

    /// Lets every thread run.
    pub(super) fn open(&mut self, limit: usize) {
        self.paced = false;
        self.wanted = limit;
    }

    pub(super) fn is_paced(&self) -> bool {
        self.paced
    }

    /// Whether somebody is to call `tick`, within [`TICK`].
    pub(super) fn is_watching_closely(&self) -> bool {
        self.watching && self.interval == TICK
    }

    pub(super) fn wanted(&self) -> usize {
        self.wanted
    }
}

impl State {
    /// Whether a look is worth while.
    fn matters(&self) -> bool {
        self.pace.paced && (self.at_work() > 1 || self.waits())
    }

    /// Whether a job waits that no thread was woken for.
    fn waits(&self) -> bool {
        if !self.waiting.is_empty() {
            return true;
        }
        if self.queue.is_empty() {
            return false;
        }
        let woken = |s: &&Seat| s.counted && s.since.is_none();
        self.queue.len() > self.seats.iter().filter(woken).count()
    }

    /// Whether a further thread is not needed yet, though one is wanted: jobs are quick, and one of those
    /// at work is about to take one, or has just done so. It has most of those that wait soon, and a
    /// second thread would only take turns with it.
    pub(super) fn is_enough(&self) -> bool {
        if !self.pace.paced || self.pace.quick == 0 || self.running == 0 {
            return false;
        }
        let now = clock::now();
        let fresh = |since: u64| now.saturating_sub(since) < SHORT;
        (self.seats.iter()).any(|seat| seat.counted && seat.since.is_none_or(fresh))
    }

    /// Whether somebody should be asked to call `tick` from now on.
    pub(super) fn needs_watch(&mut self) -> bool {
        if self.pace.watching || !self.matters() {
            return false;
        }
        self.pace.watching = true;
        self.pace.interval = TICK;
        self.pace.wall = clock::now();
        self.pace.cpu = clock::process_cpu();
        self.pace.begun = 0;
        if self.pace.quick > 0 {
            self.delayed();
        }
        true
    }

    /// The longest time that one of those at work, or who looks after them, could run and did not, since
    /// the last question.
    fn delayed(&mut self) -> u64 {
        let own = self.pace.own.as_mut().map_or(0, Delay::more);
        let running = self.seats.iter_mut().filter(|seat| seat.counted);
        let delays = running.filter_map(|seat| seat.delay.as_mut());
        delays.map(Delay::more).fold(own, u64::max)
    }

    /// In how many nanoseconds `tick` is to be called again, if it is.
    pub(super) fn next_look(&mut self) -> Option<u64> {
        self.pace.watching = self.matters();
        self.pace.watching.then_some(self.pace.interval)
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
        for (number, seat) in self.seats.iter().enumerate() {
            match seat.since {
                Some(since) if now.saturating_sub(since) >= LONG => long += 1,
                Some(_) => short += 1,
                // It has been woken, or comes from the job before.
                None if !seat.vacant && !self.idle.contains(&number) => short += 1,
                None => {}
            }
        }
        let running = self.at_work().max(1);
        let begun = std::mem::take(&mut self.pace.begun);
        let ticks = self.pace.interval / TICK;
        if begun >= QUICK.saturating_mul(running as u64).saturating_mul(ticks) {
            if self.pace.quick == 0 {
                self.pace.own = Delay::mine();
                self.delayed();
            }
            self.pace.quick = REMEMBERED;
        } else {
            self.pace.quick = self.pace.quick.saturating_sub(1);
        }
        // Of what the process could have, if others left it the processor.
        let full = if self.pace.quick > 0 {
            busy + self.delayed().saturating_mul(100) / wall
        } else {
            busy
        };
        let wanted = if self.waits() && (full < SLACK || short == 0) {
            // At once if nobody computes, else one by one.
            let more = if full < IDLE { running } else { 1 };
            self.pace.wanted.max(running + more)
        } else if full >= FULL && running > 1 && long == 0 {
            self.pace.wanted.min(running) - 1
        } else {
            self.pace.wanted
        };
        let wanted = wanted.clamp(1, limit);
        // Who is told of quick jobs late relies on a look within a tick.
        let calm = self.pace.wanted == wanted && self.pace.quick == 0;
        self.pace.interval = match (calm, limit) {
            (false, _) => TICK,
            (true, 1) => (self.pace.interval * 2).min(ALONE),
            (true, _) => (self.pace.interval * 2).min(CALM),
        };
        self.pace.wanted = wanted;
    }
}
