//! Waking the loop from another thread, with a system call only when it sleeps.
//!
//! ```text
//!   loop's thread                              any thread
//!   ─────────────                              ──────────
//!   turn: prepare_sleep()  AWAKE → ASLEEP      publish work (push to an inbox, a queue)
//!         epoll_wait                           wake():  swap NOTIFIED
//!         awake()          swap AWAKE                   was ASLEEP? write the eventfd
//!   take the inboxes
//! ```
//!
//! No wake-up is lost. All changes of the state are read-modify-writes of one atomic, so they are
//! totally ordered, and each reads the one before it. Let W be the swap in `wake`, made after its
//! work was published. The loop's changes around it are `prepare_sleep` (P), then `awake` (A):
//!
//! * W before P: P finds NOTIFIED and fails, so the turn does not block; A of that turn reads W's
//!   value (or a later one whose chain of RMWs includes W), which makes the work visible to the
//!   loop before it takes its inboxes.
//! * W between P and A: the first such W reads ASLEEP and writes the eventfd, so `epoll_wait`
//!   returns (the eventfd is registered for good, and a write before the wait still counts);
//!   A reads NOTIFIED and sees the work of every W before it.
//! * W after A: the state stays NOTIFIED until the next turn's P, which is the first case.
//!
//! The contract on the loop is therefore: after each turn, take every inbox before the next turn.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const NOTIFIED: u8 = 2;

/// Ends the loop's sleep; shared as `Arc<LoopWaker>` by all that hand it work.
pub struct LoopWaker {
    state: AtomicU8,
    eventfd: mio::Waker,
    /// How often the eventfd was written, for statistics and tests.
    writes: AtomicU64,
    /// Threads within [`LoopWaker::visit`].
    visitors: AtomicU32,
}

impl LoopWaker {
    pub(crate) fn new(registry: &mio::Registry, token: mio::Token) -> io::Result<Self> {
        Ok(LoopWaker {
            state: AtomicU8::new(AWAKE),
            eventfd: mio::Waker::new(registry, token)?,
            writes: AtomicU64::new(0),
            visitors: AtomicU32::new(0),
        })
    }

    /// Makes the loop return from its present or next sleep. Publish the work first.
    #[inline]
    pub fn wake(&self) {
        if self.state.swap(NOTIFIED, Ordering::AcqRel) == ASLEEP {
            self.write();
        }
    }

    /// As [`LoopWaker::wake`], for a thread that the loop may overtake: it is often interrupted by the very
    /// loop that it wakes, which may be closed before the thread goes on.
    pub fn visit(&self) {
        self.visitors.fetch_add(1, Ordering::AcqRel);
        self.wake();
        self.visitors.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether a thread is within `visit`, and keeps this alive for a moment.
    #[must_use]
    pub fn is_visited(&self) -> bool {
        self.visitors.load(Ordering::Acquire) > 0
    }

    #[cold]
    fn write(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        // An eventfd write fails only on a full counter, which mio handles by itself, or on a
        // closed descriptor, which this value owns.
        let written = self.eventfd.wake();
        debug_assert!(written.is_ok(), "{written:?}");
    }

    /// How many wake-ups cost a system call so far.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Announces that the loop is about to block; false if it must not.
    #[inline]
    pub(crate) fn prepare_sleep(&self) -> bool {
        self.state
            .compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Ends the announcement and acquires what was published before each `wake`.
    #[inline]
    pub(crate) fn awake(&self) {
        // The load spares the locked instruction in the common turn that nobody interrupted:
        // a `wake` that this load does not see is "W after A" above.
        if self.state.load(Ordering::Acquire) != AWAKE {
            self.state.swap(AWAKE, Ordering::AcqRel);
        }
    }
}

impl fmt::Debug for LoopWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopWaker")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    fn poll_and_waker() -> (mio::Poll, Arc<LoopWaker>) {
        let poll = mio::Poll::new().unwrap();
        let waker = LoopWaker::new(poll.registry(), mio::Token(0)).unwrap();
        (poll, Arc::new(waker))
    }

    #[test]
    fn an_awake_loop_costs_no_write() {
        let (_poll, waker) = poll_and_waker();
        waker.wake();
        waker.wake();
        assert_eq!(waker.writes(), 0);
        assert!(!waker.prepare_sleep(), "the wake-up is remembered");
        waker.awake();
        assert!(waker.prepare_sleep());
    }

    #[test]
    fn a_sleeping_loop_is_written_to_once() {
        let (_poll, waker) = poll_and_waker();
        assert!(waker.prepare_sleep());
        waker.wake();
        waker.wake();
        assert_eq!(waker.writes(), 1);
    }

    #[test]
    fn no_wake_up_is_lost_between_two_threads() {
        const ROUNDS: u32 = 20_000;
        let (mut poll, waker) = poll_and_waker();
        let (tx, rx) = std::sync::mpsc::channel();
        let (ack_tx, ack_rx) = std::sync::mpsc::channel();
        let theirs = Arc::clone(&waker);
        let producer = std::thread::spawn(move || {
            for i in 0..ROUNDS {
                tx.send(i).unwrap();
                theirs.wake();
                // The next item only after this one was seen: a lost wake-up is a hang.
                ack_rx.recv().unwrap();
            }
        });
        let mut events = mio::Events::with_capacity(8);
        let mut seen = 0;
        while seen < ROUNDS {
            let timeout = if waker.prepare_sleep() { 10 } else { 0 };
            poll.poll(&mut events, Some(Duration::from_secs(timeout)))
                .unwrap();
            assert!(timeout == 0 || !events.is_empty(), "a wake-up was lost");
            waker.awake();
            while let Ok(i) = rx.try_recv() {
                assert_eq!(i, seen);
                seen += 1;
                ack_tx.send(()).unwrap();
            }
        }
        producer.join().unwrap();
    }
}
