//! Readiness of one source for a Rust future: bits set by epoll's edges, cleared by the future.
//!
//! ```text
//!   event ──► bits |= READABLE …  ──► wake the waiting side
//!   poll_read_ready:  bit set: Ready       not set: remember the waker, Pending
//!   the read would block, or came back short: clear_read_ready
//! ```
//!
//! A short read needs no second one to be sure: what arrives after it raises a new edge. But a
//! close that came along with the data has had its edge already, hence `READ_CLOSED` is never
//! cleared and keeps the source readable.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use mio::event::{Event, Source};

use crate::driver::Handle;
use crate::slots::Key;

const READABLE: u8 = 1;
const WRITABLE: u8 = 1 << 1;
/// The peer will send no more, or the connection is gone.
const READ_CLOSED: u8 = 1 << 2;
const WRITE_CLOSED: u8 = 1 << 3;
/// A reader waits; its waker is in `reader`.
const READ_WAITS: u8 = 1 << 4;
const WRITE_WAITS: u8 = 1 << 5;

pub(crate) struct IoState {
    bits: Cell<u8>,
    /// Kept after it was woken, as it is mostly the same one that waits again.
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

impl IoState {
    pub(crate) fn new() -> Self {
        IoState {
            // A fresh socket is tried before it is waited for.
            bits: Cell::new(READABLE | WRITABLE),
            reader: RefCell::new(None),
            writer: RefCell::new(None),
        }
    }

    pub(crate) fn dispatch(&self, event: &Event) {
        let mut bits = self.bits.get();
        if event.is_read_closed() {
            bits |= READ_CLOSED;
        }
        if event.is_write_closed() {
            bits |= WRITE_CLOSED;
        }
        if event.is_error() {
            // Not sticky: the next operation reports and consumes the error.
            bits |= READABLE | WRITABLE;
        }
        if event.is_readable() {
            bits |= READABLE;
        }
        if event.is_writable() {
            bits |= WRITABLE;
        }
        let read = bits & READ_WAITS != 0 && bits & (READABLE | READ_CLOSED) != 0;
        let write = bits & WRITE_WAITS != 0 && bits & (WRITABLE | WRITE_CLOSED) != 0;
        if read {
            bits &= !READ_WAITS;
        }
        if write {
            bits &= !WRITE_WAITS;
        }
        self.bits.set(bits);
        if read {
            wake(&self.reader);
        }
        if write {
            wake(&self.writer);
        }
    }

    #[inline]
    fn poll(&self, ready: u8, waits: u8, side: &RefCell<Option<Waker>>, cx: &Context) -> Poll<()> {
        let bits = self.bits.get();
        if bits & ready != 0 {
            return Poll::Ready(());
        }
        let mut waker = side.borrow_mut();
        match &mut *waker {
            Some(known) => known.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        self.bits.set(bits | waits);
        Poll::Pending
    }

    #[inline]
    fn clear(&self, bits: u8) {
        self.bits.set(self.bits.get() & !bits);
    }
}

fn wake(side: &RefCell<Option<Waker>>) {
    // The executor's wakers only push a key, so the borrow ends before anything can come back.
    if let Some(waker) = &*side.borrow() {
        waker.wake_by_ref();
    }
}

/// A Rust future's interest in one source, read and write, edge-triggered.
///
/// Dropping it ends the interest; closing the source ends the kernel's side. If the source lives
/// on, use [`Registration::deregister`].
pub struct Registration {
    state: Rc<IoState>,
    key: Key,
    handle: Handle,
}

impl Registration {
    pub(crate) fn new(state: Rc<IoState>, key: Key, handle: Handle) -> Self {
        Registration { state, key, handle }
    }

    /// Ready if a read is worth a try; otherwise wakes `cx` when it becomes so.
    #[inline]
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let s = &*self.state;
        s.poll(READABLE | READ_CLOSED, READ_WAITS, &s.reader, cx)
    }

    /// Ready if a write is worth a try; otherwise wakes `cx` when it becomes so.
    #[inline]
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let s = &*self.state;
        s.poll(WRITABLE | WRITE_CLOSED, WRITE_WAITS, &s.writer, cx)
    }

    /// To be called after a read that would block or came back short.
    #[inline]
    pub fn clear_read_ready(&self) {
        self.state.clear(READABLE);
    }

    /// To be called after a write that would block or was cut short.
    #[inline]
    pub fn clear_write_ready(&self) {
        self.state.clear(WRITABLE);
    }

    /// Whether the kernel said that the peer will send no more. There may be data left to read.
    #[inline]
    #[must_use]
    pub fn is_read_closed(&self) -> bool {
        self.state.bits.get() & READ_CLOSED != 0
    }

    /// The loop's handle.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends the interest in a source that stays open.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub fn deregister(self, source: &mut impl Source) -> std::io::Result<()> {
        self.handle.deregister_source(source)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.handle.forget_io(self.key);
    }
}
