//! A listening socket that several processes accept from, each by turns.
//!
//! Every process has the same socket in its epoll. Without more, each connection wakes all that wait, or
//! always the one that waited last. So it is registered with `EPOLLEXCLUSIVE`: the kernel walks the
//! socket's wait queue from its head, passes by those that are not in `epoll_wait` (busy with something
//! else), and stops at the first that is. Whoever has taken a connection goes to the end of the queue:
//! removed and added, as `EPOLL_CTL_MOD` is not for exclusive ones (epoll_ctl(2)). So idle processes take
//! turns, and a busy one is left out until it waits again.
//!
//! Level-triggered: what one process leaves is reported again, to itself as well. Hence one that will not
//! accept (it is full, it gives way) must [`SharedListener::pause`]: it would spin, and would be woken
//! in the place of one that does accept.
//!
//! Invariant: the socket is out of epoll before our descriptor of it is closed. The other processes keep the
//! socket open, so the kernel would not remove it by itself.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};

use mio::Token;
use rustix::event::epoll::{self, EventData, EventFlags};

use crate::driver::Handle;
use crate::io::Registration;

/// Interest in connections of a socket that other processes accept from, too.
pub struct SharedListener {
    registration: Registration,
    token: Token,
    /// Ours, so that it is open for as long as epoll has it.
    socket: OwnedFd,
    armed: Cell<bool>,
}

impl SharedListener {
    pub(crate) fn new(registration: Registration, token: Token, socket: OwnedFd) -> Self {
        // A fresh source counts as ready; this one is looked at when its turn comes.
        registration.clear_read_ready();
        SharedListener {
            registration,
            token,
            socket,
            armed: Cell::new(false),
        }
    }

    /// Ready if a connection may be waiting; otherwise wakes `cx` when it is our turn.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.registration.poll_read_ready(cx)
    }

    /// The connection was somebody else's: waits for the next.
    pub fn missed(&self) {
        self.registration.clear_read_ready();
    }

    /// To the end of the queue, after a connection was taken.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub fn next_turn(&self) -> io::Result<()> {
        self.pause()?;
        self.resume()
    }

    /// Leaves the queue.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub fn pause(&self) -> io::Result<()> {
        self.registration.clear_read_ready();
        if self.armed.replace(false) {
            epoll::delete(self.registry(), &self.socket)?;
        }
        Ok(())
    }

    /// Joins the queue. What waits already is reported.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub fn resume(&self) -> io::Result<()> {
        if !self.armed.get() {
            let flags = EventFlags::IN | EventFlags::EXCLUSIVE;
            let data = EventData::new_u64(self.token.0 as u64);
            epoll::add(self.registry(), &self.socket, data, flags)?;
            self.armed.set(true);
        }
        Ok(())
    }

    fn registry(&self) -> BorrowedFd<'_> {
        self.registration.handle().registry()
    }
}

impl Drop for SharedListener {
    fn drop(&mut self) {
        // Nobody is left to be told; the descriptor is closed next.
        let _gone = self.pause();
    }
}

impl Handle {
    /// Interest in a listening socket that other processes accept from. It joins the queue with
    /// [`SharedListener::resume`].
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn share(&self, listener: &impl AsFd) -> io::Result<SharedListener> {
        let socket = listener.as_fd().try_clone_to_owned()?;
        let (registration, token) = self.unregistered();
        Ok(SharedListener::new(registration, token, socket))
    }
}
