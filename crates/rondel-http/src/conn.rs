//! A connection: the future that drives hyper, its deadlines, and its end.
//!
//! ```text
//!            ┌────────────── request's head complete ──────────────┐
//!            │                                                      ▼
//!   accept ─► Head ◄── first byte ── Idle ◄── response handed over ── Busy
//!              │ header_deadline       │ idle_deadline                 │ none, unless a write
//!              ▼ 408, close            ▼ close                         ▼ is stuck: idle_deadline
//! ```
//!
//! hyper has no notion of idle connections, and its header deadline costs a boxed timer a request.
//! Here a connection has one timer that is left alone while requests come and go: it is looked at
//! when it fires, and only then set anew. The deadline itself is a number, from the coarse clock.
//!
//! `Link` is what the parts of a connection share: the future, its socket, and the exchange in
//! progress (HTTP/1 has one at a time). It is the whole interface that [`crate::exchange`] needs,
//! so that another protocol only has to bring a link and a future like [`Connection`].

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue};
use hyper::server::conn::http1;
use hyper::{Method, Response, StatusCode, Version};
use rondel_core::clock;
use rondel_core::sleep::Sleep;

use crate::exchange::{Exchange, Inner};
use crate::response::{Aborted, ResponseBody};
use crate::server::Shared;
use crate::service::{ConnInfo, Deadline, Limits, Problem, Request, Service};
use crate::stream::Stream;

/// How long and how much a connection is read on after the server closed it: a client that still
/// sends would otherwise get a reset before it has read the response.
const LINGER: u64 = clock::SECOND;
const LINGER_BYTES: usize = 1024 * 1024;
const TIMEOUT_RESPONSE: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What a server asks of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    None,
    /// Finish what is in progress, then close.
    Drain,
    /// Close now.
    Kill,
}

/// Woken by hyper when it has body for an exchange: a note for the connection, which is being
/// polled at that very time and looks at it afterwards. Waking it would cost another poll.
struct BodyArrived(AtomicBool);

impl Wake for BodyArrived {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the parts of a connection share.
pub(crate) struct Link {
    server: Rc<Shared>,
    info: Rc<ConnInfo>,
    /// The connection's future.
    waker: RefCell<Option<Waker>>,
    /// Made with the first body that is asked for.
    body: OnceCell<(Arc<BodyArrived>, Waker)>,
    /// The exchange whose response hyper has not taken to its end.
    current: RefCell<Option<Rc<Inner>>>,
    /// The service is being called: hyper looks for its answer right afterwards.
    calling: Cell<bool>,
    /// Bytes came that no exchange has accounted for: a head has begun.
    partial: Cell<bool>,
    /// The socket takes no more.
    stuck: Cell<bool>,
    /// Counts requests and writes: tells an idle or stuck connection from a live one.
    activity: Cell<u64>,
    /// A request's body was not read to its end.
    unread: Cell<bool>,
    /// The close must not look like a proper end.
    reset: Cell<bool>,
    command: Cell<Command>,
}

impl Link {
    pub(crate) fn new(server: Rc<Shared>, info: Rc<ConnInfo>) -> Self {
        Link {
            server,
            info,
            waker: RefCell::new(None),
            body: OnceCell::new(),
            current: RefCell::new(None),
            calling: Cell::new(false),
            partial: Cell::new(false),
            stuck: Cell::new(false),
            activity: Cell::new(0),
            unread: Cell::new(false),
            reset: Cell::new(false),
            command: Cell::new(Command::None),
        }
    }

    pub(crate) fn service(&self) -> &dyn Service {
        &*self.server.service
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.server.config.limits
    }

    pub(crate) fn server_header(&self) -> Option<&HeaderValue> {
        self.server.config.server_header.as_ref()
    }

    pub(crate) fn body_waker(&self) -> &Waker {
        let make = || {
            let arrived = Arc::new(BodyArrived(AtomicBool::new(false)));
            (Arc::clone(&arrived), Waker::from(arrived))
        };
        &self.body.get_or_init(make).1
    }

    /// Has the connection polled.
    pub(crate) fn wake(&self) {
        if self.calling.get() {
            return;
        }
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    pub(crate) fn command(&self, command: Command) {
        self.command.set(command);
        self.wake();
    }

    pub(crate) fn set_unread(&self) {
        self.unread.set(true);
    }

    pub(crate) fn set_reset(&self) {
        self.reset.set(true);
    }

    pub(crate) fn read(&self) {
        self.partial.set(true);
    }

    pub(crate) fn wrote(&self) {
        self.stuck.set(false);
        self.activity.set(self.activity.get().wrapping_add(1));
    }

    pub(crate) fn write_blocked(&self) {
        self.stuck.set(true);
    }

    /// An exchange's response was taken to its end, or will never be.
    pub(crate) fn end(&self, inner: &Inner) {
        let ended = {
            let mut current = self.current.borrow_mut();
            match &*current {
                Some(it) if it.same(inner) => current.take(),
                _ => None,
            }
        };
        if ended.is_some() {
            self.partial.set(false);
            self.server.request_ended();
        }
    }

    fn set_waker(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        match &mut *known {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    fn deliver_body(&self) {
        let Some((arrived, _)) = self.body.get() else {
            return;
        };
        if arrived.0.load(Ordering::Relaxed) {
            arrived.0.store(false, Ordering::Relaxed);
            let current = self.current.borrow().clone();
            if let Some(current) = current {
                current.body_arrived();
            }
        }
    }
}

/// Turns hyper's requests into exchanges.
struct Dispatch(Rc<Link>);

impl hyper::service::Service<hyper::Request<Incoming>> for Dispatch {
    type Response = Response<ResponseBody>;
    type Error = Aborted;
    type Future = Answer;

    fn call(&self, request: hyper::Request<Incoming>) -> Answer {
        let link = &self.0;
        let (head, body) = request.into_parts();
        let exchange = Exchange::new(
            Rc::clone(link),
            head.method == Method::HEAD,
            head.version,
            body,
        );
        let inner = exchange.inner();
        link.partial.set(false);
        link.unread.set(false);
        link.activity.set(link.activity.get().wrapping_add(1));
        link.server.request_began();
        *link.current.borrow_mut() = Some(Rc::clone(&inner));
        link.calling.set(true);
        let has_body = exchange.has_body();
        match refusal(&head, exchange.body_length(), link.limits()) {
            Some(status) => inner.reject(status),
            None => {
                let conn = Rc::clone(&link.info);
                let request = Request {
                    head,
                    has_body,
                    conn,
                };
                link.service().call(request, exchange);
            }
        }
        link.calling.set(false);
        Answer(inner)
    }
}

/// What need not bother the application.
fn refusal(
    head: &hyper::http::request::Parts,
    body_length: Option<u64>,
    limits: &Limits,
) -> Option<StatusCode> {
    if head.version == Version::HTTP_11 {
        // RFC 9112, 3.2: exactly one Host.
        let mut hosts = head.headers.get_all(HOST).iter();
        if hosts.next().is_none() || hosts.next().is_some() {
            return Some(StatusCode::BAD_REQUEST);
        }
    }
    match (body_length, limits.body_bytes) {
        (Some(length), Some(most)) if length > most => Some(StatusCode::PAYLOAD_TOO_LARGE),
        _ => None,
    }
}

/// The response to come.
struct Answer(Rc<Inner>);

impl Future for Answer {
    type Output = Result<Response<ResponseBody>, Aborted>;

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The exchange wakes the connection through the link.
        self.0.poll_response()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.dropped_unanswered();
    }
}

/// What may time out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// Nothing: a request is being answered.
    Nothing,
    For(Deadline),
}

#[allow(
    clippy::large_enum_variant,
    reason = "a connection is in the large one for all but its last moments"
)]
enum Stage {
    Http(http1::Connection<Stream, Dispatch>),
    /// Closed for writing; reads on until the client has noticed, or the deadline.
    Linger(Stream, usize),
    Over,
}

/// The future of one connection; its output is of no interest.
pub(crate) struct Connection {
    link: Rc<Link>,
    stage: Stage,
    draining: bool,
    /// The slot in the server's table.
    slot: usize,
    timer: Sleep,
    /// Whether `timer` was set since it last fired.
    armed: bool,
    waiting: Waiting,
    /// `Link::activity` when `deadline` was set.
    activity: u64,
    /// Of `waiting`.
    deadline: u64,
}

impl Connection {
    pub(crate) fn new(link: Rc<Link>, stream: Stream, slot: usize) -> Self {
        let server = &link.server;
        let http = server
            .http
            .serve_connection(stream, Dispatch(Rc::clone(&link)));
        let deadline = after(link.limits().header_deadline);
        Connection {
            timer: server.handle.sleep_until(deadline),
            link,
            stage: Stage::Http(http),
            draining: false,
            slot,
            armed: true,
            waiting: Waiting::For(Deadline::Header),
            activity: 0,
            deadline,
        }
    }

    /// Brings the deadline up to date; ready if it has passed.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Deadline> {
        let link = &self.link;
        let waiting = if link.stuck.get() {
            Waiting::For(Deadline::Write)
        } else if link.current.borrow().is_some() {
            Waiting::Nothing
        } else if link.partial.get() || link.activity.get() == 0 {
            Waiting::For(Deadline::Header)
        } else {
            Waiting::For(Deadline::Idle)
        };
        let Waiting::For(what) = waiting else {
            // The timer may be running: should it fire, it is found out below, another time.
            self.waiting = waiting;
            return Poll::Pending;
        };
        let activity = link.activity.get();
        if self.waiting != waiting || self.activity != activity {
            (self.waiting, self.activity) = (waiting, activity);
            self.deadline = after(match what {
                Deadline::Header => link.limits().header_deadline,
                Deadline::Idle | Deadline::Write => link.limits().idle_deadline,
            });
        }
        if !self.armed || self.timer.deadline() > self.deadline {
            self.timer.reset(self.deadline);
            self.armed = true;
        }
        while Pin::new(&mut self.timer).poll(cx).is_ready() {
            // The deadline may have moved on while the timer ran.
            if clock::now() >= self.deadline {
                return Poll::Ready(what);
            }
            self.timer.reset(self.deadline);
        }
        Poll::Pending
    }

    /// Ends hyper's part; the stage that follows.
    fn finished(&mut self, result: &hyper::Result<()>) -> Stage {
        let Stage::Http(http) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Stage::Over;
        };
        // Drops what is left of an exchange, which tells the application.
        let stream = http.into_parts().io;
        let refused = result.as_ref().is_err_and(hyper::Error::is_parse);
        if let Err(error) = result {
            if !error.is_user() {
                self.link
                    .service()
                    .report(Problem::Connection(&self.link.info, error));
            }
        }
        if self.link.reset.get() {
            stream.reset_on_close();
            return Stage::Over;
        }
        let more_may_come = refused || (self.link.unread.get() && result.is_ok());
        if stream.is_eof() || !more_may_come {
            return Stage::Over;
        }
        self.timer.reset(clock::now() + LINGER);
        Stage::Linger(stream, LINGER_BYTES)
    }

    fn timed_out(&mut self, deadline: Deadline) -> Stage {
        let Stage::Http(http) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Stage::Over;
        };
        self.link
            .service()
            .report(Problem::Deadline(&self.link.info, deadline));
        let mut stream = http.into_parts().io;
        if deadline == Deadline::Header && self.link.partial.get() {
            stream.last_words(TIMEOUT_RESPONSE);
        }
        Stage::Over
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.link.set_waker(cx.waker());
        match this.link.command.get() {
            Command::Kill => {
                this.stage = Stage::Over;
                return Poll::Ready(());
            }
            Command::Drain if !this.draining => {
                this.draining = true;
                if let Stage::Http(http) = &mut this.stage {
                    Pin::new(http).graceful_shutdown();
                }
            }
            _ => {}
        }
        if let Stage::Http(http) = &mut this.stage {
            let polled = Pin::new(http).poll(cx);
            this.link.deliver_body();
            this.stage = match polled {
                Poll::Ready(result) => this.finished(&result),
                Poll::Pending => match this.poll_deadline(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(deadline) => this.timed_out(deadline),
                },
            };
        }
        if let Stage::Linger(stream, budget) = &mut this.stage {
            let discarded = stream.poll_discard(cx, budget);
            if discarded.is_pending() && Pin::new(&mut this.timer).poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        this.stage = Stage::Over;
        Poll::Ready(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // First hyper's state, so that exchanges end while the connection still counts.
        self.stage = Stage::Over;
        self.link.server.closed(self.slot);
    }
}

fn after(duration: std::time::Duration) -> u64 {
    let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    clock::coarse().saturating_add(ns)
}
