//! Fair shares among processes that accept from the same sockets.
//!
//! The kernel wakes the process that has waited longest ([`rondel_core::sharing`]), but on a busy machine
//! whoever happens to run takes what there is. So each process counts what it took, where the others
//! can see it, and gives way for a moment when it is ahead of one that is still taking part.
//!
//! One that does not take what is left to it (its loop is blocked) holds nobody up: once it was waited for
//! in vain it is not waited for again until it takes something.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Connections ahead that are nothing to mind.
const SLACK: u64 = 16;

/// Where the processes count: a number each, 0 for none.
pub trait Ledger: Send + Sync {
    fn counts(&self) -> &[AtomicU64];
}

/// A process's place: where it counts, and which number is its own.
#[derive(Clone)]
pub struct Seat {
    pub ledger: Arc<dyn Ledger>,
    pub number: usize,
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Seat").field(&self.number).finish()
    }
}

/// One process's part.
pub(crate) struct Turns {
    seat: Seat,
    /// Counts of others with which they were waited for in vain.
    absent: RefCell<Vec<u64>>,
    /// Whom it is waiting for, and with which count.
    awaited: RefCell<Vec<(usize, u64)>>,
}

impl Turns {
    /// Joins, level with the one that has taken most. Nothing if there is no such place.
    pub(crate) fn join(seat: Seat) -> Option<Self> {
        let counts = seat.ledger.counts();
        let loaded = counts.iter().map(|count| count.load(Ordering::Relaxed));
        let most = loaded.max()?;
        counts
            .get(seat.number)?
            .store(most.max(1), Ordering::Relaxed);
        let absent = RefCell::new(vec![0; counts.len()]);
        Some(Turns {
            seat,
            absent,
            awaited: RefCell::default(),
        })
    }

    /// A connection was taken.
    pub(crate) fn took(&self) {
        self.seat.ledger.counts()[self.seat.number].fetch_add(1, Ordering::Relaxed);
    }

    /// Whether somebody else should go first. If so, wait for a moment and say [`Turns::waited`].
    pub(crate) fn gives_way(&self) -> bool {
        let counts = self.seat.ledger.counts();
        let mine = counts[self.seat.number].load(Ordering::Relaxed);
        let absent = self.absent.borrow();
        let mut awaited = self.awaited.borrow_mut();
        awaited.clear();
        for (who, count) in counts.iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            if count != 0 && count + SLACK < mine && absent[who] != count {
                awaited.push((who, count));
            }
        }
        !awaited.is_empty()
    }

    /// The moment is over.
    pub(crate) fn waited(&self) {
        let counts = self.seat.ledger.counts();
        let mut absent = self.absent.borrow_mut();
        for (who, count) in self.awaited.borrow_mut().drain(..) {
            if counts[who].load(Ordering::Relaxed) == count {
                absent[who] = count;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ledger, SLACK, Seat, Turns};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Page([AtomicU64; 4]);

    impl Ledger for Page {
        fn counts(&self) -> &[AtomicU64] {
            &self.0
        }
    }

    fn page() -> Arc<Page> {
        Arc::new(Page(Default::default()))
    }

    fn join(page: &Arc<Page>, mine: usize) -> Option<Turns> {
        Turns::join(Seat {
            ledger: Arc::clone(page) as Arc<dyn Ledger>,
            number: mine,
        })
    }

    #[test]
    fn alone_nobody_is_waited_for() {
        let page = page();
        let only = join(&page, 0).expect("a place");
        for _ in 0..1000 {
            only.took();
            assert!(!only.gives_way());
        }
    }

    #[test]
    fn one_that_is_ahead_gives_way_until_the_other_has_caught_up() {
        let page = page();
        let (first, second) = (
            join(&page, 0).expect("a place"),
            join(&page, 1).expect("a place"),
        );
        for _ in 0..SLACK {
            first.took();
        }
        assert!(!first.gives_way());
        first.took();
        assert!(first.gives_way());
        assert!(!second.gives_way());
        second.took();
        first.waited();
        assert!(!first.gives_way());
    }

    #[test]
    fn one_that_takes_nothing_is_waited_for_once() {
        let page = page();
        let (first, second) = (
            join(&page, 0).expect("a place"),
            join(&page, 3).expect("a place"),
        );
        for _ in 0..=SLACK {
            first.took();
        }
        assert!(first.gives_way());
        first.waited();
        assert!(!first.gives_way());
        // It takes part again.
        second.took();
        for _ in 0..3 {
            first.took();
        }
        assert!(first.gives_way());
    }

    #[test]
    fn a_new_one_joins_level_with_the_rest() {
        let page = page();
        let first = join(&page, 0).expect("a place");
        for _ in 0..1000 {
            first.took();
        }
        let _second = join(&page, 1).expect("a place");
        assert!(!first.gives_way());
        assert_eq!(page.0[1].load(Ordering::Relaxed), 1001);
    }

    #[test]
    fn there_are_only_so_many_places() {
        assert!(join(&page(), 4).is_none());
    }
}
