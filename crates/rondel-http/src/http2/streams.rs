//! What the streams of a connection share, and what an exchange has of its own on one.
//!
//! Loop's thread only, but for [`Note`], which h2 wakes from wherever it is; it never leaves the thread
//! either.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use hyper::header::{HeaderMap, HeaderValue, LINK};
use hyper::{Response, StatusCode};
use rondel_core::driver::Handle;

use super::{BURST, TAKEN_BACK};
use crate::exchange::{Inner, MOST_INTERIM};
use crate::service::Limits;
use crate::waker::keep;
use crate::ws::{Gate, Shared as Socket};

/// The exchanges that are open on a connection, and the WebSocket connections that some have become.
pub(crate) struct Streams {
    handle: Handle,
    open: RefCell<Vec<Rc<Inner>>>,
    sockets: RefCell<Vec<Rc<Socket>>>,
    news: Arc<News>,
    /// Bytes that may still be read in this poll.
    burst: Cell<usize>,
    /// Exchanges that have ended, and those of them that were broken off by the client.
    ended: Cell<u64>,
    lost: Cell<u64>,
}

/// What the notes of a connection's bodies share.
#[derive(Default)]
struct News {
    /// A body has come.
    any: AtomicBool,
    /// The connection is being polled, and looks afterwards.
    polled: AtomicBool,
    /// The connection's future.
    waker: Mutex<Option<Waker>>,
}

impl Streams {
    pub(crate) fn new(handle: Handle) -> Rc<Self> {
        Rc::new(Streams {
            handle,
            open: RefCell::default(),
            sockets: RefCell::default(),
            news: Arc::default(),
            burst: Cell::new(0),
            ended: Cell::new(0),
            lost: Cell::new(0),
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.borrow().is_empty() && self.sockets.borrow().is_empty()
    }

    pub(crate) fn add_socket(&self, socket: Rc<Socket>) {
        self.sockets.borrow_mut().push(socket);
    }

    pub(crate) fn remove_socket(&self, socket: &Rc<Socket>) {
        let mut sockets = self.sockets.borrow_mut();
        let at = sockets.iter().position(|it| Rc::ptr_eq(it, socket));
        let removed = at.map(|at| sockets.swap_remove(at));
        drop(sockets);
        drop(removed);
    }

    pub(crate) fn wake_sockets(&self) {
        self.sockets.borrow().iter().for_each(|it| it.wake());
    }

    /// Exchanges whose clients have let the application wait for their bodies for `limit` nanoseconds, and
    /// how many the next one has left.
    pub(crate) fn late_bodies(&self, limit: u64) -> (Vec<Rc<Inner>>, Option<u64>) {
        let (mut late, mut next) = (Vec::new(), None);
        for inner in self.open.borrow().iter() {
            match inner.body_left(limit) {
                None => {}
                Some(0) => late.push(Rc::clone(inner)),
                Some(left) => next = Some(next.map_or(left, |next: u64| next.min(left))),
            }
        }
        (late, next)
    }

    pub(crate) fn add(&self, inner: Rc<Inner>) {
        self.open.borrow_mut().push(inner);
    }

    /// Whether it was there.
    pub(crate) fn remove(&self, inner: &Inner) -> bool {
        let mut open = self.open.borrow_mut();
        let Some(at) = open.iter().position(|it| it.same(inner)) else {
            return false;
        };
        let removed = open.swap_remove(at);
        drop(open);
        self.ended.set(self.ended.get() + 1);
        drop(removed);
        true
    }

    /// The client has broken an exchange off.
    pub(crate) fn lost_one(&self) {
        self.lost.set(self.lost.get() + 1);
    }

    /// Whether the client takes back most of what it asks for (CVE-2023-44487, at a slower pace).
    pub(crate) fn is_churning(&self) -> bool {
        let kept = self.ended.get().saturating_sub(self.lost.get());
        self.lost.get() > kept + TAKEN_BACK
    }

    /// Whether so many bytes more may be read in this poll; else the connection is polled again once others
    /// have had their turn.
    pub(super) fn may_read(&self, room: usize, waker: &Waker) -> bool {
        let left = self.burst.get();
        if left == 0 {
            self.handle.wake_next_turn(waker);
            return false;
        }
        self.burst.set(left.saturating_sub(room));
        true
    }

    /// The connection's future is about to be polled.
    pub(crate) fn begin_poll(&self, waker: &Waker) {
        self.burst.set(BURST);
        self.news.polled.store(true, Ordering::Relaxed);
        let known = self.news.waker.lock();
        keep(&mut known.unwrap_or_else(PoisonError::into_inner), waker);
    }

    /// It was polled: tells of the bodies that have come.
    pub(crate) fn end_poll(&self) {
        self.news.polled.store(false, Ordering::Relaxed);
        if self.news.any.swap(false, Ordering::Relaxed) {
            let open = self.open.borrow();
            let come: Vec<_> = open.iter().filter(|it| it.take_news()).cloned().collect();
            drop(open);
            come.iter().for_each(|it| it.body_arrived());
        }
    }

    /// The connection has gone: whoever still answers learns it.
    pub(crate) fn end_all(&self) {
        let open = std::mem::take(&mut *self.open.borrow_mut());
        // Back in place, so that each counts until it has ended.
        self.open.borrow_mut().extend(open.iter().cloned());
        open.iter().for_each(|it| it.released());
        let sockets = self.sockets.borrow().clone();
        sockets.iter().for_each(|it| it.lost());
    }
}

/// What an exchange has of its own on such a connection.
pub(crate) struct StreamSide {
    /// The stream's future.
    waker: RefCell<Option<Waker>>,
    /// Made with the first wait for the body.
    body: OnceCell<(Arc<Note>, Waker)>,
    news: Arc<News>,
    /// The request is a CONNECT.
    connect: Cell<bool>,
    /// Where the stream goes once it is answered.
    gate: RefCell<Option<Rc<Gate>>>,
    /// Heads that go out before the response, and their bytes.
    interim: RefCell<Vec<Response<()>>>,
    interim_bytes: Cell<usize>,
    /// The client sends the body when it is told to, or loses patience.
    expects: Cell<bool>,
    /// When the body's deadline began anew: bytes that had come, nanoseconds they were waited for.
    since: Cell<(u64, u64)>,
}

/// Woken by h2 when it has body for an exchange.
struct Note {
    arrived: AtomicBool,
    news: Arc<News>,
}

impl StreamSide {
    pub(crate) fn new(streams: &Streams) -> Self {
        StreamSide {
            waker: RefCell::default(),
            body: OnceCell::new(),
            news: Arc::clone(&streams.news),
            connect: Cell::new(false),
            gate: RefCell::default(),
            interim: RefCell::default(),
            interim_bytes: Cell::new(0),
            expects: Cell::new(false),
            since: Cell::default(),
        }
    }

    /// The request is a CONNECT; its client waits for 100 before it sends the body (RFC 9110, 10.1.1).
    pub(crate) fn begin(&self, connect: bool, expects: bool) {
        self.connect.set(connect);
        self.expects.set(expects);
    }

    pub(crate) fn is_connect(&self) -> bool {
        self.connect.get()
    }

    pub(crate) fn set_gate(&self, gate: Option<Rc<Gate>>) {
        self.gate.replace(gate);
    }

    pub(crate) fn take_gate(&self) -> Option<Rc<Gate>> {
        self.gate.take()
    }

    /// The body is asked for, and nothing of it is there.
    pub(crate) fn body_wanted(&self) {
        if self.expects.take() {
            self.say_before(StatusCode::CONTINUE, HeaderMap::new());
        }
    }

    /// Links that the client is to hear of before the response, in a head of so many bytes; left out if
    /// too many wait.
    pub(crate) fn hint(&self, links: &[HeaderValue], size: usize) {
        let bytes = self.interim_bytes.get() + size;
        if bytes > MOST_INTERIM {
            return;
        }
        self.interim_bytes.set(bytes);
        let mut headers = HeaderMap::with_capacity(links.len());
        for link in links {
            headers.append(LINK, link.clone());
        }
        self.say_before(StatusCode::EARLY_HINTS, headers);
    }

    fn say_before(&self, status: StatusCode, headers: HeaderMap) {
        let mut head = Response::new(());
        *head.status_mut() = status;
        *head.headers_mut() = headers;
        self.interim.borrow_mut().push(head);
        self.wake();
    }

    /// What goes out before the response.
    pub(crate) fn take_interim(&self) -> Vec<Response<()>> {
        self.interim_bytes.set(0);
        self.interim.take()
    }

    /// So much of the body has come, in all, and was waited for so long.
    pub(crate) fn body_came(&self, received: u64, waited: u64, limits: &Limits) {
        if received - self.since.get().0 >= limits.body_step.max(1) {
            self.since.set((received, waited));
        }
    }

    /// Nanoseconds that were waited for the body when its deadline last began anew.
    pub(crate) fn waited_before(&self) -> u64 {
        self.since.get().1
    }

    pub(crate) fn set_waker(&self, waker: &Waker) {
        keep(&mut self.waker.borrow_mut(), waker);
    }

    /// Has the stream polled.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    pub(crate) fn body_waker(&self) -> &Waker {
        let make = || {
            let note = Arc::new(Note {
                arrived: AtomicBool::new(false),
                news: Arc::clone(&self.news),
            });
            (Arc::clone(&note), Waker::from(note))
        };
        &self.body.get_or_init(make).1
    }

    pub(crate) fn take_news(&self) -> bool {
        let note = self.body.get();
        note.is_some_and(|(note, _)| note.arrived.swap(false, Ordering::Relaxed))
    }
}

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.arrived.store(true, Ordering::Relaxed);
        let first = !self.news.any.swap(true, Ordering::Relaxed);
        // Mostly the connection is being polled at that very time. Else it was a reset.
        if first && !self.news.polled.load(Ordering::Relaxed) {
            let waker = self
                .news
                .waker
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(waker) = &*waker {
                waker.wake_by_ref();
            }
        }
    }
}
