//! `Sleep`: a future that ends at a deadline of [`crate::clock::now`].

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::clock;
use crate::driver::Handle;
use crate::timers::TimerKey;

/// Completes once the clock has reached its deadline. Enters the timers when first polled.
pub struct Sleep {
    handle: Handle,
    deadline: u64,
    key: Option<TimerKey>,
}

impl Sleep {
    pub(crate) fn new(handle: Handle, deadline: u64) -> Self {
        Sleep {
            handle,
            deadline,
            key: None,
        }
    }

    #[must_use]
    pub fn deadline(&self) -> u64 {
        self.deadline
    }

    /// Moves the deadline; takes effect at the next poll, also after completion.
    pub fn reset(&mut self, deadline: u64) {
        self.cancel();
        self.deadline = deadline;
    }

    fn cancel(&mut self) {
        if let Some(key) = self.key.take() {
            let waker = self.handle.timers().cancel(key);
            drop(waker);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Some(key) = this.key {
            // Still among the timers: not due as far as the loop has looked.
            if let Some(waker) = this.handle.timers().get_mut(key) {
                waker.clone_from(cx.waker());
                return Poll::Pending;
            }
            this.key = None;
            return Poll::Ready(());
        }
        if clock::now() >= this.deadline {
            return Poll::Ready(());
        }
        let key = this
            .handle
            .timers()
            .insert(this.deadline, cx.waker().clone());
        this.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.cancel();
    }
}
