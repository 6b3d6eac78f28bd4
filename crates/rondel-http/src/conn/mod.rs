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
//!
//! `link` is that, `dispatch` what hyper calls with a request; `deadline` is the diagram's downward arrows,
//! `end` what comes behind them. Loop's thread only.

mod deadline;
mod dispatch;
mod end;
mod link;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::server::conn::http1;
use rondel_core::clock;
use rondel_core::sleep::Sleep;

pub(crate) use dispatch::{Answer, Dispatch};
pub(crate) use end::LINGER;
pub(crate) use link::{Command, Link, SLACK};

use self::deadline::{Waiting, after};
use crate::http2::Http2;
use crate::service::{Deadline, Problem, Versions};
use crate::tls::stream::TlsStream;
use crate::wire::Wire;
use crate::ws::Session;

/// To a client that does not begin with TLS where it has to.
const PLAIN_RESPONSE: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\
    content-type: text/plain\r\ncontent-length: 24\r\n\r\nThis port speaks HTTPS.\n";

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
