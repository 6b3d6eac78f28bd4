//! What the process's pools have done together: the inspector's figures. No GIL, any thread.
//!
//! Each pool counts under its own lock, which it takes anyway; a pool that goes leaves its counts behind.
//! The list of pools is locked to make one, and to look; no lock of a pool is taken meanwhile.

use super::seats::{Queued, State};
use super::{Job, Shared, Turn};
use crate::clock;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Jobs that a thread has taken, and nanoseconds that they have waited for that and run (those that are
/// over).
#[derive(Clone, Copy, Default)]
pub(super) struct Spent {
    pub(super) calls: u64,
    pub(super) waited: u64,
    pub(super) ran: u64,
}

/// Threads and jobs of all pools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Threads that were started, and those that run a job.
    pub threads: usize,
    pub busy: usize,
    /// Jobs that wait, those of pins included.
    pub queued: usize,
    /// Jobs that were taken by a thread, since the process began.
    pub calls: u64,
    /// Nanoseconds that these have waited for it, and have run (those that are over).
    pub waited: u64,
    pub ran: u64,
}

/// The pools, with the process in which they were made: a fork's child has none of its parent's threads.
static POOLS: Mutex<Vec<(u32, Weak<Shared>)>> = Mutex::new(Vec::new());

/// What pools that are gone have counted: calls, waited, ran.
static GONE: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

pub(super) fn count_in(pool: &Arc<Shared>) {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    pools.retain(|(_, pool)| pool.strong_count() > 0);
    pools.push((process::id(), Arc::downgrade(pool)));
}

/// The counts of all pools that were made in this process.
#[must_use]
pub fn totals() -> Totals {
    let pools: Vec<_> = {
        let pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        let own = pools.iter().filter(|(pid, _)| *pid == process::id());
        own.filter_map(|(_, pool)| pool.upgrade()).collect()
    };
    let [calls, waited, ran] = GONE.each_ref().map(|count| count.load(Relaxed));
    let mut sum = Totals {
        calls,
        waited,
        ran,
        ..Totals::default()
    };
    for pool in pools {
        let state = pool.state.lock().unwrap_or_else(PoisonError::into_inner);
        sum.threads += state.seats.iter().filter(|s| !s.vacant).count();
        sum.busy += state.seats.iter().filter(|s| s.since.is_some()).count();
        sum.queued += state.queue.len();
        sum.queued += state.seats.iter().map(|s| s.inbox.len()).sum::<usize>();
        sum.queued += state.unseated.iter().map(|u| u.jobs.len()).sum::<usize>();
        sum.calls += state.spent.calls;
        sum.waited += state.spent.waited;
        sum.ran += state.spent.ran;
    }
    sum
}

/// In a forked child: its parent's pools that were gone are none of its own.
pub fn forget() {
    GONE.iter().for_each(|count| count.store(0, Relaxed));
}

impl Drop for Shared {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.made_by == process::id() {
            let spent = state.spent;
            for (count, more) in GONE.iter().zip([spent.calls, spent.waited, spent.ran]) {
                count.fetch_add(more, Relaxed);
            }
        }
    }
}

impl State {
    /// The thread of this turn takes the job.
    pub(super) fn begin(&mut self, turn: &mut Turn, queued: Queued) -> Job {
        let now = clock::now();
        turn.waited = now.saturating_sub(queued.at);
        self.seats[turn.thread].since = Some(now);
        self.spent.calls += 1;
        self.spent.waited += turn.waited;
        queued.job
    }
}
