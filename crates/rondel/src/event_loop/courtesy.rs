//! Courtesy: the loop does not ask for the GIL while a thread of its pool is at a short call.
//!
//! ```text
//!   without    thread  ▓▓░▓░▓▓  each time that it lets the GIL go (around a system call of SQLite, say)
//!              loop    ░░▓░▓░░  the loop is woken for it, and the next time it is the thread's turn to wait
//!   with       thread  ▓▓▓▓▓▓░
//!              loop    ░░░░░░▓  it goes on with the network meanwhile, and finds more to do at once
//! ```
//!
//! Two threads that compute Python code on two processors in turns take twice the processor time of one
//! that does both: each change wakes a thread, and what it needs lies in the other's cache. So when Python
//! is wanted ([`super::poll`]) and a thread of the pool that the loop paces has begun its call less than a
//! moment ago, the loop waits until none is at work any more, for [`PATIENCE`] at most.
//!
//! That is of use only where threads hold the GIL, not where they wait for a database. Nothing tells that
//! directly, so it is tried out: each [`TRIAL`]th time the loop asks at once, and sees whether it has to
//! wait. It is not courteous unless it had to the last time.
//!
//! Used by the loop's thread alone.

use rondel_core::pool::Pool;
use rondel_core::wake::LoopWaker;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// Nanoseconds at most that Python waits for threads.
const PATIENCE: u64 = 1_000_000;

/// Of so many times once the loop asks for the GIL at once.
const TRIAL: u8 = 16;

/// Who has waited for so many nanoseconds for the GIL has not got it at once.
const WAITED: u64 = 20_000;

#[derive(Default)]
pub(crate) struct Courtesy {
    /// Of the threads that are given way to.
    pool: RefCell<Option<Pool>>,
    /// The last trial had to wait.
    contended: Cell<bool>,
    /// Times until the next trial.
    left: Cell<u8>,
    /// When this poll first wanted Python; 0 before.
    wanted: Cell<u64>,
    /// This poll gives way.
    gives_way: Cell<bool>,
    /// This poll tries whether the GIL is there.
    tries: Cell<bool>,
}

impl Courtesy {
    /// Gives way to the threads of this pool from now on.
    pub(crate) fn set_pool(&self, pool: Pool) {
        self.pool.replace(Some(pool));
    }

    /// The loop is closed.
    pub(super) fn end(&self) {
        self.pool.replace(None);
    }

    /// A poll begins.
    pub(super) fn begin(&self) {
        self.wanted.set(0);
        self.gives_way.set(false);
        self.tries.set(false);
    }

    /// Python is wanted: until when the loop had better wait, if it had.
    pub(super) fn until(&self, now: u64, waker: impl FnOnce() -> Arc<LoopWaker>) -> Option<u64> {
        let pool = self.pool.borrow();
        let pool = pool.as_ref()?;
        let first = self.wanted.get() == 0;
        if first {
            self.wanted.set(now);
        }
        let until = self.wanted.get() + PATIENCE;
        let before = self.gives_way.get();
        let found = now < until && (first || before) && pool.tell_when_idle(waker, now);
        let gives_way = found && !(first && self.is_trial());
        self.gives_way.set(gives_way);
        if !gives_way && (found || before) {
            pool.tell_no_more();
        }
        gives_way.then_some(until)
    }

    fn is_trial(&self) -> bool {
        let left = self.left.get();
        let trial = left == 0 || !self.contended.get();
        self.tries.set(trial);
        self.left.set(if trial { TRIAL } else { left - 1 });
        trial
    }

    /// The poll is over, for whatever reason.
    pub(super) fn over(&self) {
        if self.gives_way.replace(false)
            && let Some(pool) = &*self.pool.borrow()
        {
            pool.tell_no_more();
        }
    }

    /// The loop has the GIL, which it asked for at that time.
    pub(super) fn took(&self, asked: u64, now: impl FnOnce() -> u64) {
        if self.tries.get() {
            self.contended.set(now().saturating_sub(asked) > WAITED);
        }
    }

    /// Whether the time of asking is of interest.
    pub(super) fn tries(&self) -> bool {
        self.tries.get()
    }
}
