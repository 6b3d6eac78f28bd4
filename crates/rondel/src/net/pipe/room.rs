//! How much the pipes to and from a child hold.
//!
//! A pipe holds 64 KiB, and a larger message goes through it in parts, each of which wakes up both sides:
//! most of what 100 KB through `cat` cost. So a pipe that was seen full is made to hold [`ROOMY`], once;
//! one that no large message goes through stays as it is. Only pipes made for a child: what a program
//! connects itself is its own to size.
//!
//! The kernel counts the pages of all of a user's pipes (`fs.pipe-user-pages-soft`, 16384 unless set
//! otherwise) and gives new ones less room when there are more, so a process enlarges [`AT_MOST`] at a time.
//! Loops of several threads share the count.

use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;
use std::cell::Cell;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that a pipe holds from the beginning: sixteen pages (pipe(7)).
pub(super) const USUAL: usize = 64 * 1024;

const ROOMY: usize = 256 * 1024;

const AT_MOST: usize = 16;

static ENLARGED: AtomicUsize = AtomicUsize::new(0);

/// The share of an enlarged pipe in [`AT_MOST`].
struct Share;

impl Share {
    fn take() -> Option<Share> {
        let more = |count| (count < AT_MOST).then_some(count + 1);
        let taken = ENLARGED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.ok().map(|_before| Share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        ENLARGED.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What may be done about a pipe's size.
#[derive(Default)]
enum Stage {
    /// Nothing, or nothing more.
    #[default]
    Fixed,
    MayGrow,
    Grown(Share),
}

#[derive(Default)]
pub(super) struct Room(Cell<Stage>);

impl Room {
    pub(super) fn may_grow(&self) {
        self.0.set(Stage::MayGrow);
    }

    /// The pipe was full: whether it holds more from now on.
    #[inline]
    pub(super) fn was_full(&self, pipe: Result<BorrowedFd<'_>, Errno>) -> bool {
        match self.0.take() {
            Stage::MayGrow => self.grow(pipe),
            stage => {
                self.0.set(stage);
                false
            }
        }
    }

    #[cold]
    fn grow(&self, pipe: Result<BorrowedFd<'_>, Errno>) -> bool {
        let Some(share) = Share::take() else {
            // Others may end before this one is full again.
            self.0.set(Stage::MayGrow);
            return false;
        };
        // Refused where the user's pipes have too many pages already, and by what is no pipe.
        let grown = pipe.and_then(|pipe| fcntl_setpipe_size(pipe, ROOMY));
        if grown.is_ok() {
            self.0.set(Stage::Grown(share));
        }
        grown.is_ok()
    }

    /// The pipe is closed.
    pub(super) fn end(&self) {
        self.0.set(Stage::Fixed);
    }
}
