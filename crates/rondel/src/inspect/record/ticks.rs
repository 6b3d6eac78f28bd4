//! The recorder's clock: the processor's own counter where the kernel trusts it (`rondel_ffi::ticks`). Both
//! clocks are read when a recording begins and when it ends, and what lies between is in proportion.

use rondel_core::clock;
use rondel_ffi::ticks;

/// Which counter is read. All ticks of a recording are of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Counter {
    /// Nanoseconds of the loops' clock.
    System,
    Processor,
}

impl Counter {
    /// The best that this machine has.
    pub(super) fn choose() -> Counter {
        if ticks::trusted() {
            Counter::Processor
        } else {
            Counter::System
        }
    }

    #[inline(always)]
    pub(super) fn read(self) -> u64 {
        match self {
            Counter::System => clock::now(),
            Counter::Processor => ticks::read(),
        }
    }
}

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    ticks: u64,
    nanoseconds: u64,
}

/// How often both are read for one moment.
const TRIES: usize = 5;

impl Moment {
    pub(super) fn now(counter: Counter) -> Moment {
        let mut best = Moment::once(counter);
        for _ in 1..TRIES {
            let next = Moment::once(counter);
            if next.0 < best.0 {
                best = next;
            }
        }
        best.1
    }

    /// Both, and the ticks between: a thread may be put aside there, so the closest pair counts.
    fn once(counter: Counter) -> (u64, Moment) {
        let before = counter.read();
        let nanoseconds = clock::now();
        let apart = counter.read().saturating_sub(before);
        let ticks = before + apart / 2;
        (apart, Moment { ticks, nanoseconds })
    }

    pub(super) fn ticks(self) -> u64 {
        self.ticks
    }
}

/// Tells nanoseconds by ticks.
pub(super) struct Scale {
    from: Moment,
    ratio: f64,
}

impl Scale {
    pub(super) fn new(counter: Counter, from: Moment, to: Moment) -> Scale {
        let ticks = to.ticks.saturating_sub(from.ticks);
        let ratio = match counter {
            Counter::System => 1.0,
            _ if ticks == 0 => 1.0,
            Counter::Processor => {
                to.nanoseconds.saturating_sub(from.nanoseconds) as f64 / ticks as f64
            }
        };
        Scale { from, ratio }
    }

    /// Nanoseconds of the loops' clock, for ticks since `from`.
    pub(super) fn at(&self, since: u64) -> u64 {
        self.from
            .nanoseconds
            .saturating_add((since as f64 * self.ratio) as u64)
    }
}
