//! Values that belong to one thread, kept inside Python objects that any thread may drop.
//!
//! The server's connections are `Rc`s that the loop's thread uses without the GIL. A Python object
//! that holds one can be reached, and its last reference dropped, by another thread. [`LoopLocal`]
//! gives its content to the owner's thread only; dropped elsewhere, the content is buried, and the
//! owner's thread drops it at its next [`bury`].

use std::any::Any;
use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Grave {
    owner: usize,
    content: Box<dyn Any>,
}
// SAFETY: only moved; the content is touched (dropped) by its owner's thread alone, in `bury`.
unsafe impl Send for Grave {}

static GRAVES: Mutex<Vec<Grave>> = Mutex::new(Vec::new());
/// Mirrors `GRAVES.len()`: one load says that there is nothing to do.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A number of this thread that no other living or dead thread has.
fn here() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(0) };
    }
    MINE.with(|mine| {
        if mine.get() == 0 {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        mine.get()
    })
}

pub struct LoopLocal<T: 'static> {
    owner: usize,
    content: ManuallyDrop<T>,
}

impl<T: 'static> LoopLocal<T> {
    pub fn new(content: T) -> LoopLocal<T> {
        LoopLocal {
            owner: here(),
            content: ManuallyDrop::new(content),
        }
    }

    /// The content, on its own thread; `None` on any other.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        if self.owner == here() {
            Some(&self.content)
        } else {
            None
        }
    }
}

impl<T: 'static> Drop for LoopLocal<T> {
    fn drop(&mut self) {
        // SAFETY: taken exactly once, here.
        let content = unsafe { ManuallyDrop::take(&mut self.content) };
        if self.owner == here() {
            drop(content);
            return;
        }
        let grave = Grave {
            owner: self.owner,
            content: Box::new(content),
        };
        match GRAVES.lock() {
            Ok(mut graves) => {
                graves.push(grave);
                COUNT.store(graves.len(), Ordering::Release);
            }
            // Poisoned: a leak is the harm that is left to choose.
            Err(_) => std::mem::forget(grave),
        }
    }
}

/// Drops what other threads buried for this one. The loop calls it once a poll.
#[inline]
pub fn bury() {
    if COUNT.load(Ordering::Acquire) != 0 {
        bury_now();
    }
}

#[cold]
fn bury_now() {
    let mine: Vec<Grave> = match GRAVES.lock() {
        Ok(mut graves) => {
            let (mine, others) = std::mem::take(&mut *graves)
                .into_iter()
                .partition(|g| g.owner == here());
            *graves = others;
            COUNT.store(graves.len(), Ordering::Release);
            mine
        }
        Err(_) => return,
    };
    for grave in mine {
        drop(grave.content);
    }
}
