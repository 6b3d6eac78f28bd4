//! A connection's end: what follows when hyper or a WebSocket's session is done with it.
//!
//! What the client still sends is read for a while and dropped (`Stage::Linger`), or a reset would take
//! the response from it. Loop's thread only.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::StatusCode;
use rondel_core::clock;

use super::dispatch::Dispatch;
use super::link::Command;
use super::{Connection, Stage};
use crate::http2::Http2;
use crate::service::Problem;
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

impl Connection {
    /// Ends hyper's part; the stage that follows.
    pub(super) fn finished(&mut self, result: &hyper::Result<()>) -> Stage {
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

    pub(super) fn linger(&mut self, stream: Wire, silent: u64, whole: u64) -> Stage {
        let now = clock::now();
        self.timer.reset(now + silent);
        Stage::Linger(stream, silent, now + whole)
    }

    /// Reads on and drops what comes; ready when that is over.
    pub(super) fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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

    pub(super) fn websocket_finished(&mut self, end: End) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let Stage::WebSocket(_, mut stream) = stage else {
            return;
        };
        stream.end();
        if end == End::Linger && !stream.is_eof() {
            self.stage = self.linger(stream, LINGER, LINGER);
        }
    }
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
