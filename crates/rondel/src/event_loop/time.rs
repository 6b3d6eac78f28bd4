//! What time it is on a loop: `CLOCK_MONOTONIC`, or for tests a virtual clock.
//!
//! A loop on a virtual clock (`loop._use_virtual_clock()`) never waits for a timer: when nothing is
//! ready and nothing has arrived from outside, its clock jumps to the next deadline. Between jumps
//! it stands still, so that the order of what a program does depends on the program alone. Without
//! any timer the loop waits for the outside as ever; a program that waits for threads, processes or
//! sockets while a timer runs would see it expire at once, and has no use for such a clock. Rust
//! futures (the server's connections) go on by the real clock.
//!
//! What a loop without one pays: a load and a branch where the clock is read, and a branch where it
//! would wait. All of it runs with the GIL held.
//!
//! From what instant a delay counts (`timeout(10)`, `sleep(10)`) is told by the processor's counter between
//! two readings of the clock, where the kernel trusts it: `rondel_core::reckoning`. `loop.time()` and what
//! decides whether a timer is due read the clock itself.

use super::attention::reason;
use super::{CURRENT, LoopBase, NEAR, seconds_to_ns};
use rondel_core::clock;
use rondel_core::reckoning::{Reading, Reckoning};
use rondel_ffi::{Inst, Obj, PyRes, ticks};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a loop of this process has ever had a virtual clock.
static ANY_VIRTUAL: AtomicBool = AtomicBool::new(false);

/// Tells the time between two readings of the clock. Used with the GIL held.
static RECKONING: Reckoning = Reckoning::new();

/// The present instant of the running loop, in nanoseconds; up to 100 ns late, never early.
#[inline(always)]
pub(crate) fn now() -> u64 {
    if ANY_VIRTUAL.load(Ordering::Relaxed) {
        return now_of_running();
    }
    let told = RECKONING
        .can_tell()
        .then(|| RECKONING.at(ticks::read()))
        .flatten();
    told.unwrap_or_else(read)
}

/// The same, read from the clock.
#[inline(always)]
fn exact() -> u64 {
    if ANY_VIRTUAL.load(Ordering::Relaxed) {
        now_of_running()
    } else {
        clock::now()
    }
}

/// Reads the clock, so that the time after it can be told.
#[cold]
#[inline(never)]
fn read() -> u64 {
    if !ticks::trusted() {
        return clock::now();
    }
    let (before, clock, after) = (ticks::read(), clock::now(), ticks::read());
    RECKONING.take(Reading {
        before,
        clock,
        after,
    })
}

/// [`now`] in seconds.
#[inline(always)]
pub(crate) fn now_seconds() -> f64 {
    in_seconds(now())
}

/// That time (seconds on the running loop's clock) in nanoseconds, if it is after [`now`]. A deadline that
/// is far from the coarse clock, as most are, is known without the precise one, which costs five times as
/// much.
#[inline(always)]
pub(crate) fn ahead(when: f64) -> Option<u64> {
    let deadline = seconds_to_ns(when);
    let far =
        !ANY_VIRTUAL.load(Ordering::Relaxed) && deadline > clock::coarse().saturating_add(NEAR);
    let over = !far && when <= in_seconds(exact());
    (!over).then_some(deadline)
}

#[cold]
fn now_of_running() -> u64 {
    CURRENT.with_borrow(|stack| match stack.last() {
        Some(home) => home.now(),
        None => clock::now(),
    })
}

/// Nanoseconds as seconds.
#[inline(always)]
pub(super) fn in_seconds(ns: u64) -> f64 {
    // Divided, not multiplied by 1e-9, which is off by a bit for one value in six: `loop.time()` is
    // to be what `time.monotonic()` makes of the same instant.
    ns as f64 / 1e9
}

impl LoopBase {
    /// The present instant of this loop, in nanoseconds.
    #[inline(always)]
    pub(crate) fn now(&self) -> u64 {
        match self.virtual_now.get() {
            None => clock::now(),
            Some(now) => now,
        }
    }

    #[inline(always)]
    pub(super) fn is_virtual(&self) -> bool {
        self.virtual_now.get().is_some()
    }

    /// The loop would wait: a virtual clock jumps to the next deadline instead.
    #[cold]
    pub(super) fn skip_to_next_timer(&self) {
        let next = self.timers.borrow_mut().next_deadline();
        if let (Some(now), Some(next)) = (self.virtual_now.get(), next) {
            self.virtual_now.set(Some(now.max(next)));
        }
    }
}

/// `loop._use_virtual_clock()`: a test aid, see the module. The clock starts at 0, for good.
pub(super) fn use_virtual_clock(slf: Inst<'_, LoopBase>) -> PyRes<Obj> {
    ANY_VIRTUAL.store(true, Ordering::Relaxed);
    slf.virtual_now.set(Some(0));
    slf.attention.set(reason::TIMER, true);
    Ok(Obj::none())
}
