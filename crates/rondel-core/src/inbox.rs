//! Work for the loop from any thread: a closable list that wakes the loop.
//!
//! A mutex around a `Vec` that the loop swaps out whole: pushes are a few nanoseconds apart from
//! contention, order is that of the pushes, and the loop pays one atomic load when there is
//! nothing. The lock is never held while an item is dropped or the loop is woken.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::wake::LoopWaker;

struct State<T> {
    items: Vec<T>,
    closed: bool,
}

/// Items on their way to the loop's thread, in the order of their pushes.
pub struct Inbox<T> {
    /// Mirrors `!items.is_empty()`, changed under the lock: lets the loop skip it.
    filled: AtomicBool,
    state: Mutex<State<T>>,
    waker: Arc<LoopWaker>,
}

impl<T> Inbox<T> {
    #[must_use]
    pub fn new(waker: Arc<LoopWaker>) -> Self {
        Inbox {
            filled: AtomicBool::new(false),
            state: Mutex::new(State {
                items: Vec::new(),
                closed: false,
            }),
            waker,
        }
    }

    /// Adds an item and wakes the loop.
    ///
    /// # Errors
    /// Gives the item back if the inbox is closed.
    pub fn push(&self, item: T) -> Result<(), T> {
        self.leave(item)?;
        self.waker.wake();
        Ok(())
    }

    /// Adds an item; the caller has the loop woken for it, by its [`Inbox::waker`].
    ///
    /// # Errors
    /// Gives the item back if the inbox is closed.
    pub fn leave(&self, item: T) -> Result<(), T> {
        let mut state = self.lock();
        if state.closed {
            return Err(item);
        }
        state.items.push(item);
        self.filled.store(true, Ordering::Release);
        Ok(())
    }

    /// Wakes the loop that takes the items.
    #[must_use]
    pub fn waker(&self) -> &Arc<LoopWaker> {
        &self.waker
    }

    /// Moves everything to the end of `out`; for the loop's thread.
    pub fn take(&self, out: &mut Vec<T>) {
        if self.is_empty() {
            return;
        }
        let mut state = self.lock();
        self.filled.store(false, Ordering::Release);
        if out.is_empty() {
            // The caller's buffer becomes the next batch's: no allocation in the steady state.
            std::mem::swap(&mut state.items, out);
        } else {
            out.append(&mut state.items);
        }
    }

    /// Whether there is nothing to take. After a turn of the driver, it is true only if all that
    /// was pushed before the turn's wake-up was taken.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.filled.load(Ordering::Acquire)
    }

    /// Refuses further pushes; what is already inside can still be taken.
    pub fn close(&self) {
        self.lock().closed = true;
    }

    /// Whether pushes are refused.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code of the items runs under the lock, so a poisoned list is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Inbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("is_empty", &self.is_empty())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Driver, Ready};

    #[test]
    fn keeps_each_threads_order_and_loses_nothing() {
        const EACH: usize = 20_000;
        let mut driver = Driver::new().unwrap();
        let inbox = Arc::new(Inbox::new(driver.waker()));
        let threads: Vec<_> = (0..2)
            .map(|t| {
                let inbox = Arc::clone(&inbox);
                std::thread::spawn(move || {
                    for i in 0..EACH {
                        inbox.push((t, i)).unwrap();
                    }
                })
            })
            .collect();
        let (mut next, mut batch, mut ready) = ([0; 2], Vec::new(), Ready::default());
        while next != [EACH; 2] {
            // Forever: a lost wake-up would hang here.
            driver.turn(None, &mut ready).unwrap();
            inbox.take(&mut batch);
            for (t, i) in batch.drain(..) {
                assert_eq!(next[t], i);
                next[t] += 1;
            }
        }
        assert!(inbox.is_empty());
        threads.into_iter().for_each(|t| t.join().unwrap());
    }

    #[test]
    fn a_closed_inbox_gives_the_item_back() {
        let driver = Driver::new().unwrap();
        let inbox = Inbox::new(driver.waker());
        inbox.push(1).unwrap();
        inbox.close();
        assert_eq!(inbox.push(2), Err(2));
        assert!(inbox.is_closed());
        let mut out = vec![0];
        inbox.take(&mut out);
        assert_eq!(out, [0, 1]);
    }
}
