//! The loop's clock: `CLOCK_MONOTONIC` in whole nanoseconds.
//!
//! It is the clock of Python's `time.monotonic()` and of `loop.time()`, so that deadlines can
//! cross between the two sides without conversion. `std::time::Instant` reads the same clock but
//! cannot be turned into a number.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// The present instant in nanoseconds. Wraps after 584 years of uptime.
#[inline]
#[must_use]
pub fn now() -> u64 {
    read(ClockId::Monotonic)
}

/// [`now`] as of the kernel's last tick, up to some milliseconds ago, for a third of the cost:
/// good for deadlines of seconds.
#[inline]
#[must_use]
pub fn coarse() -> u64 {
    read(ClockId::MonotonicCoarse)
}

/// CPU time that the calling thread has used, in nanoseconds: Python's `time.thread_time_ns()`.
#[inline]
#[must_use]
pub fn thread_cpu() -> u64 {
    read(ClockId::ThreadCPUTime)
}

/// CPU time that all threads of the process have used, in nanoseconds.
#[must_use]
pub fn process_cpu() -> u64 {
    read(ClockId::ProcessCPUTime)
}

#[inline]
fn read(clock: ClockId) -> u64 {
    let t = clock_gettime(clock);
    // Both fields of these clocks are non-negative, so the casts keep their value.
    (t.tv_sec as u64)
        .wrapping_mul(SECOND)
        .wrapping_add(t.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_goes_backwards() {
        let mut last = now();
        for _ in 0..10_000 {
            let t = now();
            assert!(t >= last);
            last = t;
        }
    }

    #[test]
    fn the_coarse_clock_lags_by_little() {
        let (coarse, exact) = (coarse(), now());
        assert!(coarse <= exact && exact - coarse < SECOND);
    }

    #[test]
    fn a_sleeping_thread_uses_no_cpu() {
        let (cpu, start) = (thread_cpu(), now());
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(thread_cpu() - cpu < (now() - start) / 2);
        let cpu = thread_cpu();
        while thread_cpu() - cpu < 2_000_000 {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn advances_with_instant() {
        let (t0, i0) = (now(), std::time::Instant::now());
        while i0.elapsed().as_millis() < 2 {
            std::hint::spin_loop();
        }
        let (ours, theirs) = (now() - t0, i0.elapsed().as_nanos() as u64);
        assert!(ours >= 2_000_000);
        // Both read the same clock: what separates them is the time between two calls.
        assert!(ours.abs_diff(theirs) < SECOND, "{ours} against {theirs}");
    }
}
