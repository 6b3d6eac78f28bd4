//! Notices a loop that has been in one step for too long, while it is.
//!
//! A loop stalls when it is awake and has taken nothing from its ready queue for the threshold. The
//! watchdog looks at the counters every half of it, 250 ms at most, without the GIL; so a stall is noticed between one
//! and one and a half thresholds after it began, and the loop pays for it the one word it counts in.
//!
//! What is no stall: a process that was suspended (the watchdog's own sleep took far too long: it
//! starts afresh), and a loop that waits. While all loops sleep so does the watchdog: the first that has
//! something to do wakes it ([`bell`]).

use super::bell;
use super::counters::{self, COUNTING, Counters, Phase};
use crate::clock;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two looks while every loop sleeps.
const SLOW: Duration = Duration::from_secs(1);

/// Between two looks at most while a loop does something: tasks' ages are known by these.
const FAST: Duration = Duration::from_millis(250);

/// Looks in a row that find that no loop has done anything before it looks slowly. Two at least: the bell
/// is set at the one before the last.
const QUIET: u32 = 2;

/// A sleep of its own that takes longer than it was to by this much, and two thresholds, was no sleep.
const LATE: Duration = Duration::from_millis(500);

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
    /// Until the next look, as it was told last.
    asked: Duration,
    quiet: u32,
    over: Vec<Over>,
}

impl Watchdog {
    /// A threshold of zero: it notices nothing.
    pub(super) fn new(threshold: Duration) -> Watchdog {
        Watchdog {
            threshold: if COUNTING { threshold } else { Duration::ZERO },
            seen: Vec::new(),
            looked: clock::now(),
            asked: SLOW,
            quiet: 0,
            over: Vec::new(),
        }
    }

    /// What is over since the last question.
    pub(super) fn over(&mut self) -> Vec<Over> {
        std::mem::take(&mut self.over)
    }

    /// How long until the next look.
    pub(super) fn next(&mut self, busy: bool) -> Duration {
        let period = (self.threshold / 2).clamp(Duration::from_millis(1), FAST);
        self.asked = match (self.threshold.is_zero(), busy) {
            (true, true) => FAST,
            (true, false) => SLOW,
            (false, true) => period.min(GIL_PATIENCE / 2),
            (false, false) if self.quiet >= QUIET => SLOW,
            (false, false) => period,
        };
        self.asked
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
        let fresh = slept > self.asked + 2 * self.threshold + LATE;
        let running = counters::running();
        self.seen
            .retain(|seen| running.iter().any(|one| one.id == seen.id));
        let mut quiet = true;
        let mut found = None;
        for one in running {
            let phase = one.phase();
            let awake = phase == Phase::Awake;
            let steps = one.steps.load(Ordering::Relaxed);
            let polls = one.polls.load(Ordering::Relaxed);
            let seen = match self.seen.iter_mut().find(|seen| seen.id == one.id) {
                Some(seen) => seen,
                None => {
                    quiet = false;
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
            let same = (seen.steps, seen.polls) == (steps, polls);
            quiet &= same && phase == Phase::Idle;
            if fresh || !awake || !same {
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
            // It was seen asleep last, by these numbers: its step is no older than its waking up.
            seen.since = seen.since.max(one.since.load(Ordering::Relaxed));
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
        self.quiet = if quiet {
            self.quiet.saturating_add(1)
        } else {
            0
        };
        bell::set(self.quiet + 1 >= QUIET);
        found
    }
}

#[cfg(all(test, not(rondel_no_counters)))]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};
    use std::os::fd::OwnedFd;

    /// Looks until the next look is to be a slow one. Loops of other tests may be awake meanwhile.
    fn falls_asleep(watchdog: &mut Watchdog) {
        let begin = clock::now();
        while watchdog.next(false) != SLOW {
            let _stall = watchdog.look();
            assert!(clock::now() - begin < 10 * clock::SECOND);
        }
    }

    fn rang(bell: &OwnedFd) -> bool {
        rustix::io::read(bell, &mut [0; 8]).is_ok()
    }

    #[test]
    fn a_loop_that_wakes_ends_the_long_sleep_and_rings_once() {
        let bell = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        bell::hang(Some(bell.clone()));
        let counters = Arc::new(Counters::default());
        counters::enter(&counters, clock::coarse(), 1);
        counters.sleeps(clock::coarse);
        let mut watchdog = Watchdog::new(Duration::from_millis(100));
        falls_asleep(&mut watchdog);
        assert!(!rang(&bell));
        counters.wakes(clock::coarse);
        assert!(rang(&bell));
        counters.sleeps(clock::coarse);
        counters.wakes(clock::coarse);
        assert!(!rang(&bell));
        let _stall = watchdog.look();
        assert_eq!(watchdog.next(false), Duration::from_millis(50));
        counters.sleeps(clock::coarse);
        falls_asleep(&mut watchdog);
        let other = Arc::new(Counters::default());
        counters::enter(&other, clock::coarse(), 2);
        assert!(rang(&bell));
        counters::leave(&other);
        counters::leave(&counters);
        bell::hang(None);
    }

    #[test]
    fn a_loop_that_does_something_between_two_looks_is_looked_at_often() {
        let counters = Arc::new(Counters::default());
        counters::enter(&counters, clock::coarse(), 1);
        let mut watchdog = Watchdog::new(Duration::from_millis(100));
        for _ in 0..2 * QUIET {
            counters.wakes(clock::coarse);
            counters.step();
            counters.sleeps(clock::coarse);
            let _stall = watchdog.look();
            assert_eq!(watchdog.next(false), Duration::from_millis(50));
        }
        counters::leave(&counters);
    }

    #[test]
    fn a_loop_that_has_just_woken_is_in_no_step_since_it_fell_asleep() {
        const LONG: u64 = 20 * clock::SECOND;
        let counters = Arc::new(Counters::default());
        counters::enter(&counters, clock::now(), 1);
        counters.sleeps(clock::now);
        let mut watchdog = Watchdog::new(Duration::from_secs(10));
        assert!(watchdog.look().is_none());
        // It was looked at 20 s ago, as it slept; the bell has the watchdog look before the loop takes a step.
        let ages = |watchdog: &mut Watchdog| {
            for seen in &mut watchdog.seen {
                seen.since -= LONG;
            }
        };
        ages(&mut watchdog);
        counters.wakes(clock::now);
        assert!(watchdog.look().is_none());
        // It has been awake for 20 s, and in no step before that.
        let woke = clock::now() - LONG;
        counters.since.store(woke, Ordering::Relaxed);
        ages(&mut watchdog);
        ages(&mut watchdog);
        assert_eq!(watchdog.look().map(|stall| stall.since), Some(woke));
        counters.step();
        assert!(watchdog.look().is_none());
        let [over] = watchdog.over()[..] else {
            panic!("one stall is over");
        };
        assert!((LONG..LONG + 10 * clock::SECOND).contains(&over.length));
        counters::leave(&counters);
    }

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
        counters.sleeps(clock::coarse);
        std::thread::sleep(Duration::from_millis(2));
        assert!(!ours(&watchdog.look()));
        counters::leave(&counters);
    }
}
