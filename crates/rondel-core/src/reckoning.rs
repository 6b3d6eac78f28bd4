//! The time between two readings of the clock, told by a counter that is cheaper to read (the
//! processor's: 9.6 ns where the system's clock takes 23).
//!
//! ```text
//!  clock    ●──────────────────●─────────────   read at most every WINDOW of use
//!  counter  ●····x··x·x······x·●···x·x···x···   the last reading, and the ticks since, at the measured rate
//! ```
//! The rate is measured from the readings themselves, over a time that doubles from 100 us to 20 ms or more,
//! and believed when two measurements in a row agree: a machine that slept, a counter that was reset, a
//! thread that was put aside between two readings show as a disagreement, and the clock is read until the
//! next two agree.
//!
//! # Invariants
//! What is told is never before the true time, as the counter is read before the clock, and after it by no
//! more than such a reading takes (60 ns; one that took longer is not used). It never goes backwards.
//! Methods take `&self` and relaxed atomics, so that it can be a static; callers see to it that one thread
//! at a time is in here (the GIL).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How long a reading is gone by at most, in nanoseconds.
const WINDOW: u64 = 1_000_000;
/// And which part of the time over which the rate was measured: some 50 ns that two readings are off by are
/// then some 12 at the window's end.
const PART: u64 = 4;
/// The first measurement is over this,
const FIRST: u64 = 100_000;
/// later ones are over this at least,
const SHORTEST: u64 = 20_000_000;
/// and none is over more: what has happened in a longer time, nobody knows.
const LONGEST: u64 = 2_000_000_000;
/// The rate: nanoseconds in a tick, in units of 2^-32.
const FRACTION: u32 = 32;
/// Two rates agree when they differ by less than the 2^-10th part, 0.1 %.
const AGREE: u32 = 10;
/// A reading whose two looks at the counter are further apart (ticks) was interrupted.
const APART: u64 = 600;

/// A reading of the clock, and of the counter before and after it.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The counter, before.
    pub before: u64,
    /// The clock, in nanoseconds.
    pub clock: u64,
    /// The counter, after.
    pub after: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Reckoning {
    /// For how many ticks since `ticks` the time can be told; 0 for never.
    limit: AtomicU64,
    ticks: AtomicU64,
    clock: AtomicU64,
    /// Believed; 0 for none.
    rate: AtomicU64,
    /// As it was measured last, whether or not it is believed.
    measured: AtomicU64,
    /// What was told last.
    told: AtomicU64,
    /// Where the measurement under way began; 0 for nowhere.
    from_ticks: AtomicU64,
    from_clock: AtomicU64,
    /// When it is to end, in nanoseconds after that.
    span: AtomicU64,
    /// How long the next readings are gone by, in nanoseconds.
    window: AtomicU64,
}

impl Reckoning {
    /// One that knows nothing yet.
    #[must_use]
    pub const fn new() -> Reckoning {
        Reckoning {
            limit: AtomicU64::new(0),
            ticks: AtomicU64::new(0),
            clock: AtomicU64::new(0),
            rate: AtomicU64::new(0),
            measured: AtomicU64::new(0),
            told: AtomicU64::new(0),
            from_ticks: AtomicU64::new(0),
            from_clock: AtomicU64::new(0),
            span: AtomicU64::new(0),
            window: AtomicU64::new(0),
        }
    }

    /// Whether [`at`](Reckoning::at) may have an answer: otherwise the counter need not be read.
    #[inline(always)]
    pub fn can_tell(&self) -> bool {
        self.limit.load(Relaxed) != 0
    }

    /// The time in nanoseconds when the counter was read as `ticks`, if the last reading is recent enough.
    #[inline(always)]
    pub fn at(&self, ticks: u64) -> Option<u64> {
        let since = ticks.wrapping_sub(self.ticks.load(Relaxed));
        // A counter that has gone backwards is far ahead, so.
        if since >= self.limit.load(Relaxed) {
            return None;
        }
        // WINDOW of nanoseconds in units of 2^-32 are 52 bits.
        let passed = (since * self.rate.load(Relaxed)) >> FRACTION;
        Some(self.tell(self.clock.load(Relaxed) + passed))
    }

    #[inline(always)]
    fn tell(&self, clock: u64) -> u64 {
        let told = clock.max(self.told.load(Relaxed));
        self.told.store(told, Relaxed);
        told
    }

    /// Takes a reading in, and tells the time by it.
    pub fn take(&self, reading: Reading) -> u64 {
        let Reading { before, clock, .. } = reading;
        self.limit.store(0, Relaxed);
        if clock.saturating_add(WINDOW) < self.told.load(Relaxed) {
            self.told.store(0, Relaxed); // a clock that was set back
        }
        if reading.after.wrapping_sub(before) <= APART {
            self.measure(before, clock);
            self.ticks.store(before, Relaxed);
            self.clock.store(clock, Relaxed);
            let window = self.window.load(Relaxed);
            if let Some(limit) = (window << FRACTION).checked_div(self.rate.load(Relaxed)) {
                self.limit.store(limit, Relaxed);
            }
        }
        self.tell(clock)
    }

    /// Measures the rate, if it is time to.
    fn measure(&self, ticks: u64, clock: u64) {
        let passed = clock.wrapping_sub(self.from_clock.load(Relaxed));
        if passed < self.span.load(Relaxed) {
            return;
        }
        let since = ticks.wrapping_sub(self.from_ticks.load(Relaxed));
        let measured = if passed > LONGEST {
            None
        } else {
            (passed << FRACTION).checked_div(since)
        };
        let rate = measured.unwrap_or(0);
        let last = self.measured.swap(rate, Relaxed);
        let agree = rate.abs_diff(last) < (last >> AGREE);
        self.rate.store(if agree { rate } else { 0 }, Relaxed);
        self.window.store(WINDOW.min(passed / PART), Relaxed);
        // What does not agree may have begun before whatever happened; the next does not.
        let first = last == 0 && rate != 0;
        let next = match (agree || first, passed >= SHORTEST) {
            (true, false) => return self.span.store(2 * passed, Relaxed),
            (true, true) => SHORTEST,
            (false, _) => FIRST,
        };
        self.from_ticks.store(ticks, Relaxed);
        self.from_clock.store(clock, Relaxed);
        self.span.store(next, Relaxed);
    }
}

impl Default for Reckoning {
    fn default() -> Reckoning {
        Reckoning::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A machine whose counter makes three ticks a nanosecond.
    struct Machine {
        reckoning: Reckoning,
        clock: u64,
        ticks: u64,
    }

    impl Machine {
        fn new() -> Machine {
            let (clock, ticks) = (77 * MS, 1 << 60);
            Machine {
                reckoning: Reckoning::new(),
                clock,
                ticks,
            }
        }

        fn passes(&mut self, nanoseconds: u64) {
            self.clock += nanoseconds;
            self.ticks = self.ticks.wrapping_add(3 * nanoseconds);
        }

        /// What a caller gets, and whether without the clock.
        fn now(&mut self) -> (u64, bool) {
            match self.reckoning.at(self.ticks) {
                Some(told) => (told, true),
                None => (self.read(60), false),
            }
        }

        fn read(&mut self, takes: u64) -> u64 {
            let before = self.ticks;
            self.passes(takes / 2);
            let clock = self.clock;
            self.passes(takes / 2);
            let after = self.ticks;
            self.reckoning.take(Reading {
                before,
                clock,
                after,
            })
        }

        /// Until time is told without the clock.
        fn settled() -> Machine {
            let mut machine = Machine::new();
            for _ in 0..4 {
                machine.read(60);
                machine.passes(SHORTEST);
            }
            machine.read(60);
            assert!(machine.reckoning.can_tell());
            machine
        }
    }

    #[test]
    fn it_tells_nothing_before_two_measurements_agree() {
        let mut machine = Machine::new();
        let mut readings = 0;
        while !machine.reckoning.can_tell() {
            assert_eq!(machine.reckoning.at(machine.ticks), None);
            let clock = machine.clock + 30;
            assert_eq!(machine.read(60), clock);
            machine.passes(FIRST);
            readings += 1;
            assert!(readings < 100);
        }
        assert_eq!(readings, 3);
        // A short measurement is good for a short time.
        machine.read(60);
        machine.passes(FIRST / 8);
        assert!(machine.now().1);
        machine.passes(FIRST);
        assert!(!machine.now().1);
    }

    #[test]
    fn it_is_never_early_and_late_by_at_most_100_ns() {
        let mut machine = Machine::settled();
        let mut told_without = 0;
        let mut last = 0;
        for i in 0..100_000 {
            machine.passes(50 + i % 900);
            let true_time = machine.clock;
            let (now, told) = machine.now();
            let late = now.checked_sub(true_time).expect("early");
            assert!(late <= 100, "{late} ns late");
            assert!(now >= last);
            last = now;
            told_without += u32::from(told);
        }
        assert!(told_without > 99_000, "{told_without} of 100 000");
    }

    #[test]
    fn a_reading_is_gone_by_for_a_millisecond() {
        let mut machine = Machine::settled();
        machine.passes(MS - 1000);
        assert!(machine.now().1);
        machine.passes(1000);
        assert!(!machine.now().1);
    }

    #[test]
    fn a_thread_that_was_put_aside_while_it_read_is_believed_nothing_but_the_clock() {
        let mut machine = Machine::settled();
        let clock = machine.clock + 5 * MS;
        assert_eq!(machine.read(10 * MS), clock);
        assert!(!machine.reckoning.can_tell());
        machine.read(60);
        assert!(machine.reckoning.can_tell());
    }

    #[test]
    fn a_counter_that_was_reset_or_went_on_while_the_clock_stood_is_not_believed() {
        for jump in [0_u64.wrapping_sub(1 << 50), 1 << 36] {
            let mut machine = Machine::settled();
            machine.ticks = machine.ticks.wrapping_add(jump);
            for _ in 0..200 {
                machine.passes(MS);
                let true_time = machine.clock;
                let (now, _) = machine.now();
                assert!(now >= true_time && now - true_time <= 100);
                machine.passes(MS / 2);
                let true_time = machine.clock;
                let (now, _) = machine.now();
                assert!(now >= true_time && now - true_time <= 100);
            }
            assert!(machine.reckoning.can_tell());
        }
    }

    #[test]
    fn readings_that_take_their_time_differently_do_not_make_it_early() {
        let mut machine = Machine::new();
        let mut last = 0;
        for i in 0..20_000_u64 {
            machine.passes(100 + i * i % 777);
            let true_time = machine.clock;
            let (now, _) = match machine.reckoning.at(machine.ticks) {
                Some(told) => (told, true),
                None => (machine.read(30 + i * 7 % 90), false),
            };
            assert!(now >= last);
            last = now;
            let late = now.checked_sub(true_time).expect("early");
            assert!(late <= 150, "{late} ns late");
        }
    }

    #[test]
    fn a_long_time_without_readings_is_measured_anew() {
        let mut machine = Machine::settled();
        machine.passes(LONGEST + 1);
        machine.read(60);
        assert!(!machine.reckoning.can_tell());
    }

    #[test]
    fn a_clock_that_was_set_back_is_followed() {
        let mut machine = Machine::settled();
        machine.clock -= 50 * MS;
        let clock = machine.clock + 30;
        assert_eq!(machine.read(60), clock);
    }
}
