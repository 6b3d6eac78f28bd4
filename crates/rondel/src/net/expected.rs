//! How much the next read of a socket is likely to bring: as much as the last.
//!
//! A read of unknown size lands in scratch memory and is copied. A large one is better made straight into
//! a new `bytes`: with many connections neither of the two is in a cache, and the copy costs what the
//! read does. A guess costs less than asking (`FIONREAD`) and less than room for the largest of the last
//! reads: room that fits is memory that was just freed, and warm.

/// Below, copying costs less than a second look at the size.
const LARGE: usize = 16 * 1024;
/// The most that is read into new memory: for more the C library would map and unmap memory each time
/// (its threshold is 128 KiB), which costs several times the copy.
pub(crate) const LARGEST: usize = 124 * 1024;

/// Bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Expected(usize);

impl Expected {
    pub(crate) const NOTHING: Expected = Expected(0);

    /// After a read of so many bytes.
    #[inline(always)]
    pub(crate) fn after(count: usize) -> Expected {
        Expected(count)
    }

    /// Room for the next read in memory of its own, if that is worth it.
    #[inline(always)]
    pub(crate) fn room(self) -> Option<usize> {
        (LARGE..LARGEST)
            .contains(&self.0)
            .then(|| (self.0 + self.0 / 4).next_multiple_of(4096).min(LARGEST))
    }
}
