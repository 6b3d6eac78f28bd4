//! Descriptors that Python watches: level-triggered watches and edge registrations.
//!
//! mio only speaks edge-triggered epoll. A level-triggered watch is had by re-arming (an
//! `EPOLL_CTL_MOD` with the same interest) each reported descriptor before the next wait: the
//! kernel then looks at its present state and reports it again if it is still ready.
//!
//! A descriptor may be closed behind our back and its number used anew. epoll drops the closed
//! one by itself, so a change of a known watch that meets `ENOENT` adds it again.

use std::io;
use std::os::fd::RawFd;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, event::Source};

use crate::driver::{GENERATION_BITS, KIND_EDGE, KIND_FD, token};
use crate::slots::{Key, Slots};

/// A watched descriptor is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdEvent {
    pub fd: RawFd,
    /// Watched for reading, and readable, closed or in error.
    pub readable: bool,
    /// Watched for writing, and writable, closed or in error.
    pub writable: bool,
    /// Closed by the peer in both directions, or in error.
    pub hup_or_error: bool,
}

/// An edge registration changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeEvent {
    pub token: u32,
    pub readable: bool,
    pub writable: bool,
    /// The peer will send no more; data may be left to read.
    pub read_closed: bool,
    pub error: bool,
    /// There are urgent data, which end a read where they stand.
    pub urgent: bool,
}

/// Fits every possible descriptor (`fs.nr_open` is 2^20 by default).
const EDGE_SLOT_BITS: u32 = 20;
const EDGE_GENERATION_BITS: u32 = 32 - EDGE_SLOT_BITS;

/// The slot within a token: small and dense, to index a table of owners. Compare the whole token
/// with the owner's to tell successive owners apart.
#[inline]
#[must_use]
pub const fn edge_slot(token: u32) -> usize {
    (token & ((1 << EDGE_SLOT_BITS) - 1)) as usize
}

fn edge_key(token: u32) -> Key {
    Key {
        index: edge_slot(token) as u32,
        generation: token >> EDGE_SLOT_BITS,
    }
}

fn is(error: &io::Error, code: rustix::io::Errno) -> bool {
    error.raw_os_error() == Some(code.raw_os_error())
}

/// Errors that tell that epoll no longer has the descriptor.
fn is_gone(error: &io::Error) -> bool {
    is(error, rustix::io::Errno::NOENT) || is(error, rustix::io::Errno::BADF)
}

#[derive(Clone, Copy, Default)]
struct Watch {
    readable: bool,
    writable: bool,
    /// Whether epoll is thought to have it.
    known: bool,
    /// Whether it was reported and not armed again since.
    spent: bool,
    /// Its last event told of the peer's end, which has no edge to come.
    ended: bool,
    /// Of this number's successive watches.
    generation: u32,
}

impl Watch {
    fn next_generation(&mut self) {
        self.generation = (self.generation + 1) & ((1 << GENERATION_BITS) - 1);
    }

    fn interest(&self) -> Option<Interest> {
        match (self.readable, self.writable) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        }
    }
}

/// Level-triggered watches by descriptor number.
#[derive(Default)]
pub(crate) struct Watches {
    by_fd: Vec<Watch>,
    /// Descriptors whose watch is `spent`; may hold some that were armed since.
    spent: Vec<RawFd>,
}

impl Watches {
    pub(crate) fn set(
        &mut self,
        registry: &Registry,
        fd: RawFd,
        readable: bool,
        writable: bool,
    ) -> io::Result<()> {
        let Ok(index) = usize::try_from(fd) else {
            return Err(rustix::io::Errno::BADF.into());
        };
        if index >= self.by_fd.len() {
            if !readable && !writable {
                return Ok(());
            }
            self.by_fd.resize(index + 1, Watch::default());
        }
        let watch = &mut self.by_fd[index];
        watch.spent = false;
        (watch.readable, watch.writable) = (readable, writable);
        let Some(interest) = watch.interest() else {
            // Events of this watch that are on their way are no one's.
            watch.next_generation();
            if !std::mem::take(&mut watch.known) {
                return Ok(());
            }
            return match registry.deregister(&mut SourceFd(&fd)) {
                Err(e) if !is_gone(&e) => Err(e),
                _ => Ok(()),
            };
        };
        let done = arm(registry, fd, watch, interest);
        if done.is_err() {
            (watch.readable, watch.writable) = (false, false);
        }
        watch.known = done.is_ok();
        done
    }

    pub(crate) fn drained(&mut self, fd: RawFd) {
        let watch = usize::try_from(fd)
            .ok()
            .and_then(|at| self.by_fd.get_mut(at));
        // Armed for both directions, the other one may be ready still; and after the data comes the end.
        if let Some(watch) = watch.filter(|watch| !watch.writable && !watch.ended) {
            watch.spent = false;
        }
    }

    /// Arms what was reported since the last call.
    pub(crate) fn rearm(&mut self, registry: &Registry) {
        for fd in self.spent.drain(..) {
            let watch = &mut self.by_fd[fd as usize];
            let (true, Some(interest)) = (watch.spent, watch.interest()) else {
                continue;
            };
            watch.spent = false;
            let key = Key {
                index: fd as u32,
                generation: watch.generation,
            };
            // Not `arm`: a number that was closed and reopened since is another file's, which
            // nobody has asked to watch. The watch then sleeps until it is set again.
            if SourceFd(&fd)
                .reregister(registry, token(KIND_FD, key), interest)
                .is_err()
            {
                watch.known = false;
            }
        }
    }

    pub(crate) fn event(&mut self, key: Key, event: &Event) -> Option<FdEvent> {
        let watch = self.by_fd.get_mut(key.index as usize)?;
        if watch.generation != key.generation || !watch.known {
            return None;
        }
        let fd = key.index as RawFd;
        watch.ended = event.is_read_closed() || event.is_error();
        if !watch.spent {
            watch.spent = true;
            self.spent.push(fd);
        }
        // Both directions learn of a hang-up or an error, as with Python's selectors.
        let broken = event.is_error() || (event.is_read_closed() && event.is_write_closed());
        Some(FdEvent {
            fd,
            readable: watch.readable && (event.is_readable() || broken),
            writable: watch.writable && (event.is_writable() || broken),
            hup_or_error: broken,
        })
    }
}

fn arm(registry: &Registry, fd: RawFd, watch: &mut Watch, interest: Interest) -> io::Result<()> {
    let mut source = SourceFd(&fd);
    let token_of = |watch: &Watch| {
        let (index, generation) = (fd as u32, watch.generation);
        token(KIND_FD, Key { index, generation })
    };
    if watch.known {
        match source.reregister(registry, token_of(watch), interest) {
            // Closed behind our back and the number used anew.
            Err(e) if is(&e, rustix::io::Errno::NOENT) => {}
            done => return done,
        }
    }
    // A duplicate may keep the former file alive within epoll: its events are no longer ours.
    watch.next_generation();
    source.register(registry, token_of(watch), interest)
}

/// Edge registrations by slot.
pub(crate) struct Edges(Slots<(), EDGE_GENERATION_BITS>);

impl Default for Edges {
    fn default() -> Self {
        Edges(Slots::new())
    }
}

impl Edges {
    pub(crate) fn register(
        &mut self,
        registry: &Registry,
        fd: RawFd,
        interest: Interest,
    ) -> io::Result<u32> {
        let key = self.0.insert_with(|_| ());
        if key.index >> EDGE_SLOT_BITS != 0 {
            self.0.remove(key);
            return Err(rustix::io::Errno::MFILE.into());
        }
        match SourceFd(&fd).register(registry, token(KIND_EDGE, key), interest) {
            Ok(()) => Ok(key.generation << EDGE_SLOT_BITS | key.index),
            Err(e) => {
                self.0.remove(key);
                Err(e)
            }
        }
    }

    /// Changes what is reported; the present state is reported anew.
    pub(crate) fn change(
        &self,
        registry: &Registry,
        fd: RawFd,
        edge: u32,
        interest: Interest,
    ) -> io::Result<()> {
        SourceFd(&fd).reregister(registry, token(KIND_EDGE, edge_key(edge)), interest)
    }

    pub(crate) fn deregister(
        &mut self,
        registry: &Registry,
        fd: RawFd,
        token: u32,
    ) -> io::Result<()> {
        let key = edge_key(token);
        if self.0.remove(key).is_none() {
            // A stale token: the descriptor may already be another owner's.
            return Ok(());
        }
        match SourceFd(&fd).deregister(registry) {
            Err(e) if !is_gone(&e) => Err(e),
            _ => Ok(()),
        }
    }

    pub(crate) fn forget(&mut self, token: u32) {
        self.0.remove(edge_key(token));
    }

    pub(crate) fn event(&self, key: Key, event: &Event) -> Option<EdgeEvent> {
        self.0.get(key)?;
        Some(EdgeEvent {
            token: key.generation << EDGE_SLOT_BITS | key.index,
            readable: event.is_readable(),
            writable: event.is_writable(),
            read_closed: event.is_read_closed(),
            error: event.is_error(),
            urgent: event.is_priority(),
        })
    }
}
