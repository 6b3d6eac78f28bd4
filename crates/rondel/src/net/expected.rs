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

/// How much more than was expected fits when reads are alike: enough to see that a read was not cut short,
/// too little for the C library to split off, so that the memory of one message is just right for the next.
/// With more, each takes a piece of fresh memory and leaves a gap behind that is too small for another.
const SLACK: usize = 16;

#[derive(Clone, Copy, Default)]
pub(crate) struct Expected {
    /// Bytes that the last read brought.
    last: u32,
    /// The one before it, if there was one, brought as many.
    alike: bool,
}

impl Expected {
    pub(crate) const NOTHING: Expected = Expected {
        last: 0,
        alike: false,
    };

    /// After another read, of so many bytes.
    #[inline(always)]
    pub(crate) fn after(self, count: usize) -> Expected {
        let last = u32::try_from(count).unwrap_or(u32::MAX);
        Expected {
            last,
            alike: last == self.last || self.last == 0,
        }
    }

    /// Room for the next read in memory of its own, if that is worth it.
    #[inline(always)]
    pub(crate) fn room(self) -> Option<usize> {
        let last = self.last as usize;
        (LARGE..LARGEST).contains(&last).then(|| {
            if self.alike {
                last + SLACK
            } else {
                (last + last / 4).next_multiple_of(4096).min(LARGEST)
            }
        })
    }
}
