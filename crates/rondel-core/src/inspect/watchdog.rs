//! Notices a loop that has been in one step for too long, while it is.
//!
//! A loop stalls when it is awake and has taken nothing from its ready queue for the threshold. The
//! watchdog looks at the counters every half of it, without the GIL; so a stall is noticed between one
//! and one and a half thresholds after it began, and the loop pays for it the one word it counts in.
//!
//! What is no stall: a process that was suspended (the watchdog's own sleep took far too long: it
//! starts afresh), and a loop that waits. While all loops sleep the watchdog looks less often, so the
//! first stall after that may be noticed [`SLOW`] later.

use super::counters::{self, Counters, Phase};
use crate::clock;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two looks while every loop sleeps.
const SLOW: Duration = Duration::from_millis(250);

/// Looks that find all loops asleep before it looks slowly.
const QUIET: u32 = 40;

/// How long the GIL is tried for before it is said that native code has it: longer than other threads
/// of Python may keep it (the switch interval is 5 ms).
pub(super) const GIL_PATIENCE: Duration = Duration::from_millis(50);

/// A loop in a step that is too long.
#[derive(Clone, Debug)]
pub struct Stall {
    pub counters: Arc<Counters>,
    /// The count of steps, which stands still.
    pub steps: u64,
    /// When that was first seen, on the loop's clock in nanoseconds.
    pub since: u64,
}

impl Stall {
    /// Whether it is not over.
    #[must_use]
    pub fn lasts(&self) -> bool {
        self.counters.phase() == Phase::Awake
            && self.counters.steps.load(Ordering::Relaxed) == self.steps
    }

    /// Nanoseconds until now.
    #[must_use]
    pub fn length(&self) -> u64 {
        clock::now().saturating_sub(self.since)
    }
}

struct Seen {
    id: u32,
    steps: u64,
    polls: u64,
    since: u64,
    told: bool,
}

/// A stall that was told of and is over.
#[derive(Clone, Copy, Debug)]
pub struct Over {
    pub id: u32,
    pub steps: u64,
    /// Nanoseconds, to within half a threshold.
    pub length: u64,
}

pub(super) struct Watchdog {
    threshold: Duration,
    seen: Vec<Seen>,
    looked: u64,
    quiet: u32,
    over: Vec<Over>,
}

impl Watchdog {
    /// A threshold of zero: it notices nothing.
    pub(super) fn new(threshold: Duration) -> Watchdog {
        Watchdog {
            threshold,
            seen: Vec::new(),
            looked: clock::now(),
            quiet: 0,
            over: Vec::new(),
        }
    }

    /// What is over since the last question.
    pub(super) fn over(&mut self) -> Vec<Over> {
        std::mem::take(&mut self.over)
    }

    /// How long until the next look.
    pub(super) fn next(&self, busy: bool) -> Duration {
        if self.threshold.is_zero() {
            return if busy { SLOW } else { 4 * SLOW };
        }
        let period = (self.threshold / 2).max(Duration::from_millis(1));
        if busy {
            return period.min(GIL_PATIENCE / 2);
        }
        if self.quiet >= QUIET {
            period.max(SLOW)
        } else {
            period
        }
    }

    /// Looks at all loops; one that stalls, told once.
    pub(super) fn look(&mut self) -> Option<Stall> {
        if self.threshold.is_zero() {
            return None;
        }
        let now = clock::now();
        let slept = Duration::from_nanos(now.saturating_sub(self.looked));
        self.looked = now;
        // Suspended, or short of processor time for long: what stood still need not be a step.
        let fresh = slept > 2 * self.threshold + 2 * SLOW;
        let running = counters::running();
        self.seen
            .retain(|seen| running.iter().any(|one| one.id == seen.id));
        let mut asleep = true;
        let mut found = None;
        for one in running {
            let awake = one.phase() == Phase::Awake;
            asleep &= !awake;
            let steps = one.steps.load(Ordering::Relaxed);
            let polls = one.polls.load(Ordering::Relaxed);
            let seen = match self.seen.iter_mut().find(|seen| seen.id == one.id) {
                Some(seen) => seen,
                None => {
                    self.seen.push(Seen {
                        id: one.id,
                        steps,
                        polls,
                        since: now,
                        told: false,
                    });
                    continue;
                }
            };
            if fresh || !awake || (seen.steps, seen.polls) != (steps, polls) {
                if seen.told {
                    self.over.push(Over {
                        id: seen.id,
                        steps: seen.steps,
                        length: now.saturating_sub(seen.since),
                    });
                }
                *seen = Seen {
                    id: one.id,
                    steps,
                    polls,
                    since: now,
                    told: false,
                };
                continue;
            }
            let length = Duration::from_nanos(now.saturating_sub(seen.since));
            if length >= self.threshold && !seen.told && found.is_none() {
                seen.told = true;
                found = Some(Stall {
                    steps,
                    since: seen.since,
                    counters: one,
                });
            }
        }
        self.quiet = if asleep {
            self.quiet.saturating_add(1)
        } else {
            0
        };
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_lasts_is_found_once_and_one_that_ends_is_not() {
        let counters = Arc::new(Counters::default());
        counters::enter(&counters, clock::coarse(), 1);
        let mut watchdog = Watchdog::new(Duration::from_millis(1));
        let ours = |stall: &Option<Stall>| {
            stall
                .as_ref()
                .is_some_and(|stall| Arc::ptr_eq(&stall.counters, &counters))
        };
        assert!(!ours(&watchdog.look()));
        std::thread::sleep(Duration::from_millis(2));
        let stall = watchdog.look();
        assert!(ours(&stall) && stall.unwrap().lasts());
        std::thread::sleep(Duration::from_millis(2));
        assert!(!ours(&watchdog.look()));
        counters.step();
        assert!(!ours(&watchdog.look()));
        counters.sleeps(clock::coarse());
        std::thread::sleep(Duration::from_millis(2));
        assert!(!ours(&watchdog.look()));
        counters::leave(&counters);
    }
}
