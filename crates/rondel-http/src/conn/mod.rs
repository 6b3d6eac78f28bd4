//! A connection: the future that drives hyper, its deadlines, and its end.
//!
//! ```text
//!            ┌────────────── request's head complete ──────────────┐
//!            │                                                      ▼
//!   accept ─► Head ◄── first byte ── Idle ◄── response handed over ── Busy
//!              │ header_deadline       │ idle_deadline                 │ body is waited for:
//!              ▼ 408, close            ▼ close           body_deadline ▼ or a write is stuck:
//!                                                           408, close      write_deadline, close
//! ```
//!
//! hyper has no notion of idle connections, and its header deadline costs a boxed timer a request.
//! Here a connection has one timer that is left alone while requests come and go: it is looked at
//! when it fires, and only then set anew. The deadline itself is a number, from the coarse clock.
//!
//! `Link` is what the parts of a connection share: the future, its socket, and the exchange in
//! progress (HTTP/1 has one at a time). It is the whole interface that [`crate::exchange`] needs,
//! so that another protocol only has to bring a link and a future like [`Connection`].

mod dispatch;
mod link;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::server::conn::http1;
use rondel_core::clock;
use rondel_core::sleep::Sleep;

pub(crate) use dispatch::Dispatch;
pub(crate) use link::{Command, Link, SLACK};

use crate::http2::Http2;
use crate::service::{Deadline, Problem, Versions};
use crate::tls::stream::TlsStream;
use crate::wire::Wire;
use crate::ws::{End, Session};

/// How long a connection is read on after the server closed it: a client that still sends would
/// otherwise get a reset before it has read the response.
pub(crate) const LINGER: u64 = clock::SECOND;
/// With a request's body under way, which nobody wants any more: for so long without a byte, and in
/// all. Clients send it to its end before they look at the response, browsers among them.
const LINGER_SILENT: u64 = 5 * clock::SECOND;
const LINGER_BODY: u64 = 30 * clock::SECOND;
/// What is read of it at a time.
const LINGER_BYTES: usize = 256 * 1024;
/// To a client that does not begin with TLS where it has to.
const PLAIN_RESPONSE: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\
    content-type: text/plain\r\ncontent-length: 24\r\n\r\nThis port speaks HTTPS.\n";
/// Around the line that names the server.
const TIMEOUT_RESPONSE: [&[u8]; 2] = [
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n",
    b"content-length: 0\r\n\r\n",
];

/// What may time out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// Nothing: a request is being answered.
    Nothing,
    For(Deadline, Duration),
}

impl Waiting {
    fn for_(what: Deadline, limit: Option<Duration>) -> Waiting {
        limit.map_or(Waiting::Nothing, |limit| Waiting::For(what, limit))
    }
}

#[allow(
    clippy::large_enum_variant,
    reason = "a connection is in the large one for all but its last moments"
)]
enum Stage {
    /// TLS is not agreed on yet.
    Handshake(Box<TlsStream>),
    Http(http1::Connection<Wire, Dispatch>),
    Http2(Box<Http2>),
    WebSocket(Box<Session>, Wire),
    /// Closed for writing; reads on until the client has noticed, or is silent for the first time, or
    /// until the second, a point in time.
    Linger(Wire, u64, u64),
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
    /// `Link::activity` and `Link::writes`, when `deadline` was set.
    activity: (u64, u64),
    /// `Link::bytes` then.
    bytes: u64,
    /// `Link::body_waited` then.
    waited: u64,
    /// Of `waiting`.
    deadline: u64,
    /// Until when a client may take leave of a connection that ends while nothing is in progress.
    leave: Option<u64>,
}

impl Connection {
    pub(crate) fn new(link: Rc<Link>, wire: Wire, slot: usize) -> Self {
        let (stage, limit) = match wire {
            Wire::Tls(tls) => (Stage::Handshake(tls), link.limits().handshake_deadline),
            plain => {
                let may_be_2 = link.server.config.versions;
                let stage = begin(&link, plain, may_be_2 == Versions::Two);
                (stage, link.limits().header_deadline)
            }
        };
        let deadline = after(limit);
        Connection {
            timer: link.server.handle.sleep_until(deadline),
            link,
            stage,
            draining: false,
            slot,
            armed: true,
            waiting: Waiting::For(Deadline::Header, limit),
            activity: (0, 0),
            bytes: 0,
            waited: 0,
            deadline,
            leave: None,
        }
    }

    /// Moves the handshake on; ready when it is over, one way or the other.
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Stage::Handshake(tls) = &mut self.stage else {
            return Poll::Ready(());
        };
        let agreed = match tls.poll_handshake(cx) {
            Poll::Ready(agreed) => agreed,
            Poll::Pending => {
                if Pin::new(&mut self.timer).poll(cx).is_pending() {
                    return Poll::Pending;
                }
                let (service, info) = (self.link.service(), &self.link.info);
                service.report(Problem::Deadline(info, Deadline::Handshake));
                self.stage = Stage::Over;
                return Poll::Ready(());
            }
        };
        let Stage::Handshake(tls) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Poll::Ready(());
        };
        match agreed {
            Ok(info) => {
                let agreed_on_2 = tls.is_h2();
                let _first = self.link.info.tls.set(Arc::new(info));
                let only_2 = self.link.server.config.versions == Versions::Two;
                self.stage = begin(&self.link, Wire::Tls(tls), agreed_on_2.unwrap_or(only_2));
                self.deadline = after(self.link.limits().header_deadline);
                self.timer.reset(self.deadline);
            }
            Err(error) => {
                let info = &self.link.info;
                self.link.service().report(Problem::Handshake(info, &error));
                if tls.is_plain_http() {
                    let mut wire = Wire::Tls(tls);
                    wire.last_plain_words(PLAIN_RESPONSE);
                    self.stage = self.linger(wire, LINGER, LINGER);
                }
            }
        }
        Poll::Ready(())
    }

    /// Brings the deadline up to date; ready if it has passed.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Deadline> {
        let link = &self.link;
        let limits = link.limits();
        let waiting = if link.stuck.get() {
            Waiting::for_(Deadline::Write, limits.write_deadline)
        } else if link.streams().is_some() {
            match (link.is_quiet(), limits.body_deadline) {
                (true, _) => Waiting::For(Deadline::Idle, limits.idle_deadline),
                (false, None) => Waiting::Nothing,
                (false, Some(limit)) => {
                    link.idle.set(false);
                    return self.poll_bodies(cx, limit);
                }
            }
        } else if let Some(current) = &*link.current.borrow() {
            if current.has_open_body() {
                Waiting::for_(Deadline::Body, limits.body_deadline)
            } else {
                Waiting::Nothing
            }
        } else if link.partial.get() || link.activity.get() == 0 {
            Waiting::For(Deadline::Header, limits.header_deadline)
        } else {
            Waiting::For(Deadline::Idle, limits.idle_deadline)
        };
        let idle = matches!(waiting, Waiting::For(Deadline::Idle, _));
        if !link.idle.replace(idle) && idle {
            link.server.became_idle();
        }
        let Waiting::For(what, limit) = waiting else {
            // The timer may be running: should it fire, it is found out below, another time.
            self.waiting = waiting;
            self.leave = None;
            return Poll::Pending;
        };
        // On an idle connection of HTTP/2 a ping or its answer is all there is to write.
        let counts = what == Deadline::Write || link.streams().is_none();
        let writes = if counts { link.writes.get() } else { 0 };
        let activity = (link.activity.get(), writes);
        let bytes = link.bytes.get();
        let moved =
            what == Deadline::Body && bytes.wrapping_sub(self.bytes) >= limits.body_step.max(1);
        if self.waiting != waiting || self.activity != activity || moved {
            (self.waiting, self.activity, self.bytes) = (waiting, activity, bytes);
            self.deadline = after(limit);
            self.waited = link.body_waited();
        }
        let waits = !link.partial.get() && !self.draining && self.is_free();
        if waits && link.command.get() == Command::Drain {
            self.deadline = self.deadline.min(link.server.idle_until());
        }
        if self.draining && what == Deadline::Idle && matches!(self.stage, Stage::Http2(_)) {
            let leave = *self.leave.get_or_insert_with(|| clock::now() + LINGER);
            self.deadline = self.deadline.min(leave);
        }
        if !self.armed || self.timer.deadline() > self.deadline {
            self.timer.reset(self.deadline);
            self.armed = true;
        }
        while Pin::new(&mut self.timer).poll(cx).is_ready() {
            // The deadline may have moved on while the timer ran.
            let now = clock::now();
            if now >= self.deadline {
                // While the application has other things to do, the client need not send.
                let waited = link.body_waited().wrapping_sub(self.waited);
                let left = nanoseconds(limit).saturating_sub(waited);
                if what != Deadline::Body || left == 0 {
                    return Poll::Ready(what);
                }
                self.deadline = now.saturating_add(left);
            }
            self.timer.reset(self.deadline);
        }
        Poll::Pending
    }

    /// Has streams answered with 408 whose bodies lag. It is looked at as often as one may have become
    /// late, and not when anything happens: a wait that has begun since takes longer than that.
    fn poll_bodies<T>(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<T> {
        let waiting = Waiting::For(Deadline::Body, limit);
        if self.waiting != waiting {
            self.waiting = waiting;
            self.leave = None;
            self.deadline = after(limit);
        }
        if !self.armed || self.timer.deadline() > self.deadline {
            self.timer.reset(self.deadline);
            self.armed = true;
        }
        while Pin::new(&mut self.timer).poll(cx).is_ready() {
            let now = clock::now();
            if now >= self.deadline {
                let limit = nanoseconds(limit);
                let streams = self.link.streams();
                let (late, left) = streams.map_or((Vec::new(), None), |all| all.late_bodies(limit));
                for inner in late {
                    let (service, info) = (self.link.service(), &self.link.info);
                    service.report(Problem::Deadline(info, Deadline::Body));
                    inner.give_up(StatusCode::REQUEST_TIMEOUT);
                }
                self.deadline = now.saturating_add(left.unwrap_or(limit).min(limit));
            }
            self.timer.reset(self.deadline);
        }
        Poll::Pending
    }

    /// No request is being answered, and no answer is on its way.
    fn is_free(&self) -> bool {
        let link = &self.link;
        let sending = link.files().is_some_and(|files| !files.is_idle());
        link.is_quiet() && !link.stuck.get() && !sending
    }

    /// Whether the server drains but leaves this connection open for another request: told to drain now,
    /// hyper would close it, whatever of a head has been read.
    fn may_stay(&self) -> bool {
        if matches!(self.stage, Stage::Http2(_)) {
            // Which tells its clients, and they which requests it has not heard.
            return false;
        }
        let until = self.link.server.idle_until();
        // A head that has begun has its own deadline.
        let waits = self.link.partial.get() || clock::now() < until;
        !self.draining && until != 0 && self.is_free() && waits
    }

    /// No further requests after the present one.
    fn drain(&mut self) {
        if std::mem::replace(&mut self.draining, true) {
            return;
        }
        match &mut self.stage {
            Stage::Http(http) => Pin::new(http).graceful_shutdown(),
            Stage::Http2(http) => http.graceful_shutdown(),
            Stage::Handshake(_) => self.stage = Stage::Over,
            // A session is told whenever it is polled.
            Stage::WebSocket(..) | Stage::Linger(..) | Stage::Over => {}
        }
    }

    /// Ends hyper's part; the stage that follows.
    fn finished(&mut self, result: &hyper::Result<()>) -> Stage {
        let Stage::Http(http) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Stage::Over;
        };
        self.link.idle.set(false);
        // Drops what is left of an exchange, which tells the application.
        let parts = http.into_parts();
        let stream = parts.io;
        if result
            .as_ref()
            .is_err_and(hyper::Error::is_parse_version_h2)
            && self.may_become_2()
        {
            self.link.partial.set(false);
            let http = &self.link.server.http2;
            return Stage::Http2(Box::new(Http2::new(
                http,
                stream,
                parts.read_buf,
                Dispatch(Rc::clone(&self.link)),
            )));
        }
        let upgrade = self.link.upgrade.borrow_mut().take();
        if let Some(shared) = upgrade {
            // Should hyper not have been able to write all of the 101, its rest is lost with hyper.
            if let (Ok(()), false, Some(config)) = (
                result,
                self.link.stuck.get(),
                self.link.server.config.websockets,
            ) {
                let limits = self.link.limits();
                let session = Session::new(shared, &parts.read_buf, config, limits);
                return Stage::WebSocket(Box::new(session), stream);
            }
            shared.lost();
        }
        let refused = result.as_ref().is_err_and(hyper::Error::is_parse);
        if let (true, Err(error)) = (refused, result) {
            let link = &self.link;
            link.service().refused(&link.info, answer_to(error));
        }
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
        match refused {
            true => self.linger(stream, LINGER, LINGER),
            false => self.linger(stream, LINGER_SILENT, LINGER_BODY),
        }
    }

    fn linger(&mut self, stream: Wire, silent: u64, whole: u64) -> Stage {
        let now = clock::now();
        self.timer.reset(now + silent);
        Stage::Linger(stream, silent, now + whole)
    }

    /// Reads on and drops what comes; ready when that is over.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Stage::Linger(stream, silent, until) = &mut self.stage else {
            return Poll::Ready(());
        };
        let now = clock::now();
        if self.link.command.get() == Command::Drain {
            *until = (*until).min(now + LINGER);
            self.timer.reset(self.timer.deadline().min(*until));
        }
        let mut budget = LINGER_BYTES;
        let discarded = stream.poll_discard(cx, &mut budget);
        if budget < LINGER_BYTES {
            self.timer.reset((*until).min(now + *silent));
        }
        if budget == 0 && now < *until {
            // There is more: after the others' turn.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match discarded {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => Pin::new(&mut self.timer).poll(cx),
        }
    }

    /// Whether what has come may be HTTP/2's preface: at the very beginning, if nothing else was
    /// agreed on.
    fn may_become_2(&self) -> bool {
        let link = &self.link;
        let open = link.server.config.versions == Versions::Auto && link.activity.get() == 0;
        open && link.began_with_preface() && link.info.tls.get().is_none_or(|tls| !tls.agreed_on_1)
    }

    /// Moves a connection of HTTP/2 on; ready when it is over.
    fn poll_http2(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Stage::Http2(http) = &mut self.stage else {
                return Poll::Ready(());
            };
            let streams = self.link.streams.get().map(Rc::clone);
            let polled = match &streams {
                None => http.poll(cx),
                Some(streams) => {
                    streams.begin_poll(cx.waker());
                    let polled = http.poll(cx);
                    streams.end_poll();
                    polled
                }
            };
            if polled.is_pending() && !self.draining && streams.is_some_and(|all| all.is_churning())
            {
                self.drain();
                continue;
            }
            let (service, info) = (self.link.service(), &self.link.info);
            match polled {
                Poll::Ready(Ok(())) => self.stage = Stage::Over,
                Poll::Ready(Err(error)) => {
                    service.report(Problem::Connection(info, &error));
                    self.stage = Stage::Over;
                }
                Poll::Pending => match self.poll_deadline(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Deadline::Idle) if !self.draining => {
                        self.drain();
                        // For a moment, to take leave.
                        self.waiting = Waiting::Nothing;
                    }
                    Poll::Ready(deadline) => {
                        let (service, info) = (self.link.service(), &self.link.info);
                        service.report(Problem::Deadline(info, deadline));
                        self.stage = Stage::Over;
                    }
                },
            }
        }
    }

    fn websocket_finished(&mut self, end: End) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let Stage::WebSocket(_, mut stream) = stage else {
            return;
        };
        stream.end();
        if end == End::Linger && !stream.is_eof() {
            self.stage = self.linger(stream, LINGER, LINGER);
        }
    }

    fn timed_out(&mut self, deadline: Deadline) -> Stage {
        if deadline == Deadline::Body {
            // Its answer goes the way of all answers.
            self.waiting = Waiting::Nothing;
            let current = self.link.current.borrow().clone();
            (self.link.service()).report(Problem::Deadline(&self.link.info, deadline));
            if let Some(current) = current {
                current.give_up(StatusCode::REQUEST_TIMEOUT);
            }
            return std::mem::replace(&mut self.stage, Stage::Over);
        }
        let Stage::Http(http) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Stage::Over;
        };
        self.link
            .service()
            .report(Problem::Deadline(&self.link.info, deadline));
        let mut stream = http.into_parts().io;
        if deadline == Deadline::Header && self.link.partial.get() {
            let link = &self.link;
            link.service()
                .refused(&link.info, StatusCode::REQUEST_TIMEOUT);
            let server = link.server_header().map_or(&b""[..], |it| it.as_bytes());
            let line: &[&[u8]] = match server {
                [] => &[],
                server => &[b"server: ", server, b"\r\n"],
            };
            let [before, behind] = TIMEOUT_RESPONSE;
            stream.last_words(&[&[before], line, &[behind]].concat().concat());
        }
        Stage::Over
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.link.set_waker(cx.waker());
        if let Some(files) = this.link.files() {
            files.begin_poll();
        }
        match this.link.command.get() {
            Command::Kill => {
                this.stage = Stage::Over;
                return Poll::Ready(());
            }
            Command::Drain if !this.may_stay() => this.drain(),
            _ => {}
        }
        if let Stage::Handshake(_) = &this.stage {
            ready!(this.poll_handshake(cx));
        }
        if let Stage::Http(http) = &mut this.stage {
            let polled = Pin::new(http).poll(cx);
            this.link.deliver_body();
            if polled.is_pending() && this.link.command.get() == Command::Drain && !this.is_free() {
                // A request has come after all: the last.
                this.drain();
            }
            this.stage = match polled {
                Poll::Ready(result) => this.finished(&result),
                Poll::Pending => match this.poll_deadline(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(deadline) => this.timed_out(deadline),
                },
            };
            if let Stage::Http(_) = this.stage {
                // Polled again at once, as `give_up` has asked for.
                return Poll::Pending;
            }
        }
        if let Stage::Http2(_) = &this.stage {
            ready!(this.poll_http2(cx));
        }
        if let Stage::WebSocket(session, stream) = &mut this.stage {
            if this.link.command.get() == Command::Drain {
                session.go_away();
            }
            let Poll::Ready(end) = session.poll(cx, stream, &mut this.timer) else {
                return Poll::Pending;
            };
            this.websocket_finished(end);
        }
        ready!(this.poll_linger(cx));
        this.stage = Stage::Over;
        Poll::Ready(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // First hyper's state, so that exchanges end while the connection still counts.
        self.stage = Stage::Over;
        if let Some(streams) = self.link.streams() {
            // Their futures are the executor's.
            streams.end_all();
        }
        self.link.forget_upgrade();
        self.link.server.closed(self.slot);
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What hyper has answered a head with in which this was wrong.
fn answer_to(error: &hyper::Error) -> StatusCode {
    if error.is_parse_too_large() {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    } else if error.to_string().contains("URI too long") {
        StatusCode::URI_TOO_LONG
    } else {
        StatusCode::BAD_REQUEST
    }
}

/// The stage in which HTTP begins.
fn begin(link: &Rc<Link>, wire: Wire, is_2: bool) -> Stage {
    let (server, dispatch) = (&link.server, Dispatch(Rc::clone(link)));
    if is_2 {
        link.is_2();
        let http = Http2::new(&server.http2, wire, Bytes::new(), dispatch);
        return Stage::Http2(Box::new(http));
    }
    Stage::Http(server.http.serve_connection(wire, dispatch))
}

fn after(duration: Duration) -> u64 {
    clock::coarse().saturating_add(nanoseconds(duration))
}
