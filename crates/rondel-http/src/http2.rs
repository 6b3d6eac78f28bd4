//! HTTP/2: what hyper needs to serve it on the loop, and what a connection's streams share.
//!
//! ```text
//!   Connection (future) ──polls──► hyper http2 ──reads/writes──► Primed ──► Wire
//!        │ request on a stream ──► Dispatch ──► Exchange          (what was read of it as HTTP/1)
//!        │                         └► Answer, in a future per stream, spawned by LoopExecutor
//!        └ body came ── Note ──► Exchange::body_arrived
//! ```
//!
//! HTTP/1 has one exchange at a time, and the connection's future waits for it. Here each stream is a
//! future of its own on the loop's executor: an exchange wakes its own, and `Streams` knows those that
//! are open. Flow control is the protocol's: a body that is not read holds its stream back, a response
//! that the client does not take stays in the exchange's queue. A stream that has become a WebSocket
//! connection is `ws::tunnel`'s.
//!
//! What a client can make the server hold is bounded: streams, their windows and the connection's, the
//! bytes and lines of heads ([`Settings`], [`crate::Limits`]); h2 bounds what floods of CONTINUATION, of
//! PING, of SETTINGS and of reset streams can do, and ends the connection.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fragile::Fragile;
use hyper::rt::{Executor, Read, ReadBufCursor, Sleep as HyperSleep, Timer, Write};
use hyper::server::conn::http2;
use rondel_core::clock;
use rondel_core::driver::Handle;
use rondel_core::sleep::Sleep;

use crate::conn::Dispatch;
use crate::exchange::Inner;
use crate::service::{Config, Limits};
use crate::wire::Wire;
use crate::ws::{Pump, Shared as Socket};

/// Bytes that a connection reads in a row before the loop looks at its other connections.
const BURST: usize = 256 * 1024;

/// Requests that a client may take back, beyond those it let end, before it has to connect again.
/// h2 bounds those that were not even taken up; these have cost the application something.
const TAKEN_BACK: u64 = 500;

/// How HTTP/2 is spoken.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Streams at once on a connection; further ones are refused.
    pub streams: u32,
    /// Body bytes of a stream that the client may send before the application reads.
    pub stream_window: u32,
    /// The same for all streams of a connection.
    pub connection_window: u32,
    /// After so long without news of the client it is pinged; `None`: never.
    pub ping_interval: Option<Duration>,
    /// A client that does not answer a ping for so long has gone.
    pub ping_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            streams: 128,
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
            ping_interval: None,
            ping_timeout: Duration::from_secs(20),
        }
    }
}

/// What a server's connections are made by.
pub(crate) struct Builder {
    http: http2::Builder<LoopExecutor>,
    next: NextPump,
}

impl Builder {
    /// hyper's next future sends the bytes of a stream that it has upgraded: it makes it as soon as it has
    /// the response, before it does anything else. Should it not come so far, as the stream was reset,
    /// the tunnel is over, and to drive another future is all that the pump ever does.
    pub(crate) fn hand_over(&self, pump: Rc<Pump>) {
        self.next.replace(Some(pump));
    }
}

type NextPump = Rc<RefCell<Option<Rc<Pump>>>>;

pub(crate) fn builder(handle: &Handle, config: &Config) -> Builder {
    let settings = &config.http2;
    let limits = &config.limits;
    let next = NextPump::default();
    let mut http = http2::Builder::new(LoopExecutor {
        handle: handle.clone(),
        next: Rc::clone(&next),
    });
    http.timer(LoopTimer(Fragile::new(handle.clone())))
        .auto_date_header(config.date_header)
        .max_concurrent_streams(settings.streams)
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_send_buf_size(limits.high_water)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(settings.ping_interval)
        .keep_alive_timeout(settings.ping_timeout);
    if config.websockets.is_some() {
        http.enable_connect_protocol();
    }
    Builder { http, next }
}

/// Spawns the futures of streams.
#[derive(Clone)]
pub(crate) struct LoopExecutor {
    handle: Handle,
    next: NextPump,
}

impl<F: Future<Output = ()> + 'static> Executor<F> for LoopExecutor {
    fn execute(&self, future: F) {
        match self.next.take() {
            None => self.handle.spawn(future),
            Some(pump) => self.handle.spawn(pump.drive(future)),
        }
    }
}

/// The loop's timers for hyper, which wants to be able to send them elsewhere; it never does.
struct LoopTimer(Fragile<Handle>);

struct LoopSleep(Fragile<Sleep>);

impl LoopTimer {
    fn deadline(duration: Duration) -> u64 {
        clock::now().saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Timer for LoopTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn HyperSleep>> {
        let sleep = self.0.get().sleep_until(Self::deadline(duration));
        Box::pin(LoopSleep(Fragile::new(sleep)))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn HyperSleep>> {
        self.sleep(deadline.saturating_duration_since(Instant::now()))
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn HyperSleep>>, deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<LoopSleep>() {
            Some(ours) => {
                let left = deadline.saturating_duration_since(Instant::now());
                ours.get_mut().0.get_mut().reset(Self::deadline(left));
            }
            None => *sleep = self.sleep_until(deadline),
        }
    }
}

impl Future for LoopSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(self.get_mut().0.get_mut()).poll(cx)
    }
}

impl HyperSleep for LoopSleep {}

/// A connection that speaks HTTP/2.
pub(crate) struct Http2(http2::Connection<Primed, Dispatch, LoopExecutor>);

impl Http2 {
    /// `read` is what was read of it before.
    pub(crate) fn new(builder: &Builder, wire: Wire, read: Bytes, dispatch: Dispatch) -> Self {
        let primed = Primed {
            read,
            wire,
            streams: Rc::clone(dispatch.streams()),
        };
        Http2(builder.http.serve_connection(primed, dispatch))
    }

    /// Refuses further streams; ends with those that are open.
    pub(crate) fn graceful_shutdown(&mut self) {
        Pin::new(&mut self.0).graceful_shutdown();
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        Pin::new(&mut self.0).poll(cx)
    }
}

/// A wire of which something was read already.
struct Primed {
    read: Bytes,
    wire: Wire,
    streams: Rc<Streams>,
}

impl Read for Primed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.read.is_empty() {
            let n = buf.remaining().min(this.read.len());
            buf.put_slice(&this.read.split_to(n));
            return Poll::Ready(Ok(()));
        }
        let left = this.streams.burst.get();
        if left == 0 {
            this.streams.handle.wake_next_turn(cx.waker());
            return Poll::Pending;
        }
        // What is asked for, which is no more than what comes.
        this.streams.burst.set(left.saturating_sub(buf.remaining()));
        Pin::new(&mut this.wire).poll_read(cx, buf)
    }
}

impl Write for Primed {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().wire).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().wire).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_shutdown(cx)
    }
}

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

    /// The connection's future is about to be polled.
    pub(crate) fn begin_poll(&self, waker: &Waker) {
        self.burst.set(BURST);
        self.news.polled.store(true, Ordering::Relaxed);
        let mut known = self
            .news
            .waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &mut *known {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
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
    /// What the stream's bytes are to be sent through once it is answered.
    pump: RefCell<Option<Rc<Pump>>>,
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
            pump: RefCell::default(),
            since: Cell::default(),
        }
    }

    pub(crate) fn set_connect(&self) {
        self.connect.set(true);
    }

    pub(crate) fn is_connect(&self) -> bool {
        self.connect.get()
    }

    pub(crate) fn set_pump(&self, pump: Option<Rc<Pump>>) {
        self.pump.replace(pump);
    }

    pub(crate) fn take_pump(&self) -> Option<Rc<Pump>> {
        self.pump.take()
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
        let mut known = self.waker.borrow_mut();
        match &mut *known {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
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
