//! How a loop wakes the watchdog out of its long sleep.
//!
//! While all loops sleep the watchdog need not look. Before it sleeps for long it sets the bell; the
//! first loop that has something to do then rings it: a write to the eventfd that the inspector's thread
//! waits for. A loop that finds the bell not set pays one relaxed load.
//!
//! The watchdog sets it a look ahead, and sleeps for long only if that next look finds all loops asleep
//! still. So no order between a loop's store (it is awake) and its load (is the bell set) is needed: what
//! wakes too early to see the bell is seen by that look.
//!
//! The lock is held for one write and is never waited for by a loop; who cannot have it does not ring, and
//! the watchdog then sleeps on.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

static SET: AtomicBool = AtomicBool::new(false);
static BELL: Mutex<Option<Arc<OwnedFd>>> = Mutex::new(None);

/// How often the lock is tried for: who has it has it for a moment, but for a forked child, where somebody who
/// is not there may have it for good.
const TRIES: u32 = 1000;

/// From now on it is this eventfd that is written to; none: nobody is to be woken.
pub(super) fn hang(bell: Option<Arc<OwnedFd>>) {
    set(false);
    for _ in 0..TRIES {
        if let Ok(mut hangs) = BELL.try_lock() {
            *hangs = bell;
            return;
        }
        std::thread::yield_now();
    }
}

/// Whether the next loop that wakes up is to ring.
pub(super) fn set(on: bool) {
    SET.store(on, Ordering::Relaxed);
}

/// A loop has something to do.
#[inline(always)]
pub(super) fn touch() {
    if SET.load(Ordering::Relaxed) {
        ring();
    }
}

#[cold]
fn ring() {
    if SET.swap(false, Ordering::Relaxed)
        && let Ok(bell) = BELL.try_lock()
        && let Some(bell) = &*bell
    {
        write(bell);
    }
}

/// Ends a wait for an eventfd.
pub(super) fn write(bell: &OwnedFd) {
    // A full counter wakes as well.
    let _written = rustix::io::write(bell, &1_u64.to_ne_bytes());
}
