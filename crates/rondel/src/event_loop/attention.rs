//! What a turn has to see to besides its entries, as one word: a turn in which nothing is asked for looks
//! at it once, and once more per entry, instead of at a flag for each.

use std::cell::Cell;

/// The reasons, to be or-ed together.
pub(super) mod reason {
    /// A timer may be due before the next poll: the clock is looked at in every turn.
    pub(crate) const TIMER: u8 = 1;
    /// TLS connections were written to: they are flushed at the batch's end.
    pub(crate) const FLUSH: u8 = 2;
    /// A thread is to be woken before the next entry.
    pub(crate) const LATE: u8 = 4;
    /// Debug mode: entries are timed.
    pub(crate) const DEBUG: u8 = 8;
    /// Entries are recorded.
    pub(crate) const RECORD: u8 = 16;
    /// Seen to before each entry.
    pub(crate) const EACH: u8 = LATE | DEBUG | RECORD;
}

#[derive(Default)]
pub(super) struct Attention(Cell<u8>);

impl Attention {
    #[inline(always)]
    pub(super) fn has(&self, reasons: u8) -> bool {
        self.0.get() & reasons != 0
    }

    #[inline(always)]
    pub(super) fn set(&self, reasons: u8, wanted: bool) {
        let others = self.0.get() & !reasons;
        self.0.set(if wanted { others | reasons } else { others });
    }
}
