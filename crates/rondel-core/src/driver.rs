//! The driver: epoll, watched descriptors, and the loop's Rust futures with their timers.
//!
//! One turn, all of it on the loop's thread and none of it in need of Python:
//!
//! ```text
//!   turn(timeout, ready)
//!     wake the futures that had enough in the last turn
//!     re-arm the watched fds reported last time       (edge-triggered epoll made level-triggered)
//!     timeout = 0 if a future is woken, else the nearer of the caller's and the next Rust timer
//!     prepare_sleep ─► epoll_wait ─► awake            (wake.rs: no wake-up is lost)
//!     events: watched fd → ready.fds    edge → ready.edges    Rust source → its future is woken
//!     due Rust timers wake their futures
//!     woken futures are polled, on a budget
//! ```
//!
//! The driver and its handles are not `Send`, as the futures need not be. Tokens given to epoll
//! hold kind, generation and slot: an event that was already on its way when its owner left is
//! recognised and dropped.

use std::cell::{RefCell, RefMut};
use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use mio::event::Source;
use mio::{Interest, Poll, Registry, Token};

use crate::clock;
use crate::executor::{Executor, PanicHook};
use crate::fds::{Edges, Watches};
use crate::io::{IoState, Registration};
use crate::sleep::Sleep;
use crate::slots::{Key, Slots};
use crate::timers::Timers;
use crate::wake::LoopWaker;

pub use crate::fds::{EdgeEvent, FdEvent, edge_slot};

/// Futures polled per turn or call of [`Driver::run_futures`] before the rest has to wait.
const POLL_BUDGET: usize = 256;
/// Events taken by one poll. What a crowd of connections refers to is then still in the processor's
/// cache when its turn comes: with a thousand that echo by streams, 128 instead of 1024 save a seventh of
/// all CPU time, 64 another 2 %.
const EVENTS: usize = 64;

pub(crate) const KIND_WAKER: usize = 0;
pub(crate) const KIND_FD: usize = 1;
pub(crate) const KIND_EDGE: usize = 2;
pub(crate) const KIND_IO: usize = 3;
/// Bits of a generation in a token: 2 kind, 30 generation, 32 slot.
pub(crate) const GENERATION_BITS: u32 = 30;

pub(crate) fn token(kind: usize, key: Key) -> Token {
    Token(kind << 62 | (key.generation as usize) << 32 | key.index as usize)
}

fn untoken(Token(token): Token) -> (usize, Key) {
    let key = Key {
        index: token as u32,
        generation: (token >> 32) as u32 & ((1 << GENERATION_BITS) - 1),
    };
    (token >> 62, key)
}

/// Hang-ups and errors are reported whatever is asked for.
fn directions(readable: bool, writable: bool) -> Interest {
    const READ: Interest = Interest::READABLE.add(Interest::PRIORITY);
    match (readable, writable) {
        (true, true) => READ | Interest::WRITABLE,
        (false, true) => Interest::WRITABLE,
        (_, false) => READ,
    }
}

/// What a turn has for the caller. Each turn clears it first.
#[derive(Debug, Default)]
pub struct Ready {
    /// Watched descriptors, level-triggered: reported again each turn until dealt with.
    pub fds: Vec<FdEvent>,
    /// Edge registrations.
    pub edges: Vec<EdgeEvent>,
    /// A signal ended the wait.
    pub interrupted: bool,
    /// The poll took as many events as it can: there may be more, so poll again in the next turn.
    pub full: bool,
}

impl Ready {
    /// Whether the turn had nothing for the caller.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fds.is_empty() && self.edges.is_empty() && !self.interrupted
    }
}

struct Shared {
    registry: Registry,
    executor: Executor,
    timers: RefCell<Timers<Waker>>,
    io: RefCell<Slots<Rc<IoState>, GENERATION_BITS>>,
    /// To be woken when the next turn begins.
    later: RefCell<Vec<Waker>>,
}

impl Shared {
    #[inline]
    fn has_woken(&self) -> bool {
        self.executor.has_woken() || !self.later.borrow().is_empty()
    }
}

/// Spawns futures and registers their sources and timers; clones are the same driver's.
#[derive(Clone)]
pub struct Handle(Rc<Shared>);

impl Handle {
    /// Adds a future, to be polled on the loop's thread. A panic in it is caught and reported to
    /// the hook. Once the driver is gone, the future is dropped at once.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.0.executor.spawn(Box::pin(future));
    }

    /// A future that ends when [`clock::now`] reaches `deadline`.
    #[must_use]
    pub fn sleep_until(&self, deadline: u64) -> Sleep {
        Sleep::new(self.clone(), deadline)
    }

    /// Registers a non-blocking source of a Rust future.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub fn register(&self, source: &mut impl Source) -> io::Result<Registration> {
        let state = Rc::new(IoState::new());
        let key = (self.0.io.borrow_mut()).insert_with(|_| Rc::clone(&state));
        let registration = Registration::new(state, key, self.clone());
        let interest = Interest::READABLE | Interest::WRITABLE;
        source.register(&self.0.registry, token(KIND_IO, key), interest)?;
        Ok(registration)
    }

    /// A registration whose source epoll is told of by the caller, under this token.
    pub(crate) fn unregistered(&self) -> (Registration, Token) {
        let state = Rc::new(IoState::new());
        let key = (self.0.io.borrow_mut()).insert_with(|_| Rc::clone(&state));
        (
            Registration::new(state, key, self.clone()),
            token(KIND_IO, key),
        )
    }

    pub(crate) fn registry(&self) -> BorrowedFd<'_> {
        self.0.registry.as_fd()
    }

    /// Wakes a future when the next turn begins, which does not wait for anything then. A future
    /// that wakes itself at once is polled again within the same turn, before anybody else's news
    /// are looked at: one that could go on for long gives way by this instead.
    pub fn wake_next_turn(&self, waker: &Waker) {
        self.0.later.borrow_mut().push(waker.clone());
    }

    /// Called with the payload of each panic of a future, on the loop's thread.
    pub fn set_panic_hook(&self, hook: PanicHook) {
        self.0.executor.set_panic_hook(hook);
    }

    /// Futures that have not ended.
    #[must_use]
    pub fn futures(&self) -> usize {
        self.0.executor.len()
    }

    /// Whether a future waits to be polled.
    #[inline]
    #[must_use]
    pub fn has_woken(&self) -> bool {
        self.0.has_woken()
    }

    pub(crate) fn timers(&self) -> RefMut<'_, Timers<Waker>> {
        self.0.timers.borrow_mut()
    }

    pub(crate) fn deregister_source(&self, source: &mut impl Source) -> io::Result<()> {
        source.deregister(&self.0.registry)
    }

    pub(crate) fn forget_io(&self, key: Key) {
        let state = self.0.io.borrow_mut().remove(key);
        drop(state);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("futures", &self.futures())
            .finish_non_exhaustive()
    }
}

/// epoll and all that hangs on it; see the module's picture.
pub struct Driver {
    poll: Poll,
    events: mio::Events,
    waker: Arc<LoopWaker>,
    shared: Rc<Shared>,
    watches: Watches,
    edges: Edges,
}

impl Driver {
    /// # Errors
    /// Those of creating an epoll instance and an eventfd.
    pub fn new() -> io::Result<Driver> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = Arc::new(LoopWaker::new(poll.registry(), Token(KIND_WAKER))?);
        Ok(Driver {
            poll,
            events: mio::Events::with_capacity(EVENTS),
            shared: Rc::new(Shared {
                registry,
                executor: Executor::new(Arc::clone(&waker)),
                timers: RefCell::new(Timers::new()),
                io: RefCell::new(Slots::new()),
                later: RefCell::default(),
            }),
            waker,
            watches: Watches::default(),
            edges: Edges::default(),
        })
    }

    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(Rc::clone(&self.shared))
    }

    #[must_use]
    pub fn waker(&self) -> Arc<LoopWaker> {
        Arc::clone(&self.waker)
    }

    /// One turn; `None` waits for ever. Returns early on a signal, so that the caller can run
    /// handlers. Afterwards take every inbox, before the next turn (see [`crate::wake`]).
    ///
    /// # Errors
    /// Those of `epoll_wait`, `EINTR` apart.
    pub fn turn(&mut self, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        ready.fds.clear();
        ready.edges.clear();
        ready.interrupted = false;
        ready.full = false;
        self.shared.executor.enter();
        self.wake_later();
        self.watches.rearm(self.poll.registry());

        let timeout = self.bounded(timeout);
        let blocks = timeout != Some(Duration::ZERO);
        let timeout = if blocks && !self.waker.prepare_sleep() {
            Some(Duration::ZERO)
        } else {
            timeout
        };
        let polled = self.poll.poll(&mut self.events, timeout);
        self.waker.awake();
        match polled {
            Ok(()) => {
                ready.full = self.events.iter().count() >= EVENTS;
                self.dispatch(ready);
            }
            // A failed wait leaves the previous events in place: do not look at them.
            Err(e) if e.kind() == io::ErrorKind::Interrupted => ready.interrupted = true,
            Err(e) => return Err(e),
        }
        self.fire_timers();
        self.shared.executor.run(POLL_BUDGET);
        Ok(())
    }

    /// Polls woken futures, no more than a budget of them; true if some still wait.
    pub fn run_futures(&mut self) -> bool {
        self.shared.executor.enter();
        self.shared.executor.run(POLL_BUDGET)
    }

    /// Whether a future waits to be polled.
    #[inline]
    #[must_use]
    pub fn has_woken(&self) -> bool {
        self.shared.has_woken()
    }

    /// Sets what a descriptor is watched for, level-triggered; neither ends the watch.
    ///
    /// # Errors
    /// Those of `epoll_ctl`: `EPERM` for a regular file, `EBADF` for a closed descriptor. Ending
    /// the watch of a closed one is no error.
    pub fn watch_fd(&mut self, fd: RawFd, readable: bool, writable: bool) -> io::Result<()> {
        self.watches
            .set(self.poll.registry(), fd, readable, writable)
    }

    /// A watched descriptor was read until it would block: what comes next has an edge of its own, so
    /// the watch need not be armed again.
    pub fn drained(&mut self, fd: RawFd) {
        self.watches.drained(fd);
    }

    /// Registers a descriptor for both directions, edge-triggered; the token names it in
    /// [`Ready::edges`] and is not reused soon.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub fn register_edge(&mut self, fd: RawFd) -> io::Result<u32> {
        let both = Interest::READABLE | Interest::WRITABLE;
        self.edges.register(self.poll.registry(), fd, both)
    }

    /// As [`Driver::register_edge`], for one direction or both; TCP's urgent data are reported as well. (A Unix or datagram socket reports
    /// room after everything sent: who never waits for room should not ask for it.)
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub fn register_edge_for(
        &mut self,
        fd: RawFd,
        readable: bool,
        writable: bool,
    ) -> io::Result<u32> {
        let interest = directions(readable, writable);
        self.edges.register(self.poll.registry(), fd, interest)
    }

    /// Changes the directions of an edge registration; whatever is ready then is reported anew.
    ///
    /// # Errors
    /// Those of `epoll_ctl`: `ENOENT` if the descriptor was closed since.
    pub fn change_edge(
        &self,
        fd: RawFd,
        token: u32,
        readable: bool,
        writable: bool,
    ) -> io::Result<()> {
        let interest = directions(readable, writable);
        self.edges.change(self.poll.registry(), fd, token, interest)
    }

    /// Ends an edge registration: its token is reported no more. Call it before closing `fd`.
    ///
    /// # Errors
    /// Those of `epoll_ctl`; a descriptor closed already is no error.
    pub fn deregister_edge(&mut self, fd: RawFd, token: u32) -> io::Result<()> {
        self.edges.deregister(self.poll.registry(), fd, token)
    }

    /// Ends an edge registration whose descriptor is about to be closed, and is known by that number alone
    /// (epoll then drops it by itself): its token is reported no more.
    pub fn forget_edge(&mut self, token: u32) {
        self.edges.forget(token);
    }

    /// The caller's timeout, cut short by woken futures and the next Rust timer.
    fn bounded(&self, timeout: Option<Duration>) -> Option<Duration> {
        if self.shared.executor.has_woken() {
            return Some(Duration::ZERO);
        }
        if timeout == Some(Duration::ZERO) {
            return timeout;
        }
        let deadline = self.shared.timers.borrow_mut().next_deadline();
        let ours = deadline.map(|d| Duration::from_nanos(d.saturating_sub(clock::now())));
        match (timeout, ours) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn wake_later(&self) {
        if self.shared.later.borrow().is_empty() {
            return;
        }
        let later = self.shared.later.take();
        later.into_iter().for_each(Waker::wake);
    }

    fn dispatch(&mut self, ready: &mut Ready) {
        for event in &self.events {
            let (kind, key) = untoken(event.token());
            match kind {
                KIND_FD => ready.fds.extend(self.watches.event(key, event)),
                KIND_EDGE => ready.edges.extend(self.edges.event(key, event)),
                KIND_IO => {
                    if let Some(state) = self.shared.io.borrow().get(key) {
                        state.dispatch(event);
                    }
                }
                // The eventfd has done its work by ending the wait.
                _ => {}
            }
        }
    }

    fn fire_timers(&self) {
        if self.shared.timers.borrow().is_empty() {
            return;
        }
        let now = clock::now();
        loop {
            let due = self.shared.timers.borrow_mut().pop_due(now);
            match due {
                Some(waker) => waker.wake(),
                None => break,
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The futures hold handles, hence `shared`: without this the cycle would live for ever.
        self.shared.executor.close();
        let wakers = self.shared.timers.borrow_mut().drain();
        drop(wakers);
        drop(self.shared.later.take());
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("waker", &self.waker)
            .finish_non_exhaustive()
    }
}
