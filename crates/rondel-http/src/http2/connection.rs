//! A connection of HTTP/2: its preface, the requests that come, its pings, its end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, Handshake, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use hyper::Method;
use hyper::header::{CONTENT_LENGTH, EXPECT, HeaderMap};
use hyper::http::Request;
use rondel_core::clock;
use rondel_core::driver::Handle;
use rondel_core::sleep::Sleep;

use super::io::Primed;
use super::reply::{Out, Reply};
use super::{Failure, Settings, Upload};
use crate::conn::Dispatch;
use crate::exchange::{RequestBody, parse_length};
use crate::wire::Wire;

enum Stage {
    /// The client's preface has not come whole.
    Preface(Handshake<Primed, Out>),
    Open(Connection<Primed, Out>),
}

/// A connection that speaks HTTP/2.
pub(crate) struct Http2 {
    stage: Stage,
    dispatch: Dispatch,
    /// Set where clients are pinged, once the connection is open.
    pings: Option<Pings>,
    leaving: bool,
    /// A ping was not answered: it ends with that.
    silent: bool,
}

impl Http2 {
    /// `read` is what was read of it before.
    pub(crate) fn new(
        builder: &h2::server::Builder,
        wire: Wire,
        read: Bytes,
        dispatch: Dispatch,
    ) -> Self {
        let primed = Primed::new(read, wire, dispatch.streams().clone());
        Http2 {
            stage: Stage::Preface(builder.handshake(primed)),
            dispatch,
            pings: None,
            leaving: false,
            silent: false,
        }
    }

    /// Refuses further streams; ends with those that are open.
    pub(crate) fn graceful_shutdown(&mut self) {
        self.leaving = true;
        if let Stage::Open(connection) = &mut self.stage {
            connection.graceful_shutdown();
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if let Stage::Preface(handshake) = &mut self.stage {
            let mut connection = ready!(Pin::new(handshake).poll(cx)).map_err(Failure::Protocol)?;
            let (handle, settings) = (self.dispatch.handle(), self.dispatch.settings());
            self.pings = connection
                .ping_pong()
                .and_then(|pings| Pings::new(pings, handle, settings));
            if self.leaving {
                connection.graceful_shutdown();
            }
            self.stage = Stage::Open(connection);
        }
        let Stage::Open(connection) = &mut self.stage else {
            return Poll::Pending;
        };
        loop {
            if let Some(pings) = &mut self.pings
                && pings.poll(cx, self.dispatch.bytes()).is_ready()
                && !std::mem::replace(&mut self.silent, true)
            {
                connection.abrupt_shutdown(Reason::NO_ERROR);
            }
            match ready!(connection.poll_accept(cx)) {
                Some(Ok((request, respond))) => take_up(&self.dispatch, request, respond),
                Some(Err(error)) => return Poll::Ready(Err(Failure::Protocol(error))),
                None if self.silent => return Poll::Ready(Err(Failure::Silent)),
                None => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// A request has come: its answer is a future of its own.
fn take_up(dispatch: &Dispatch, request: Request<RecvStream>, mut respond: SendResponse<Out>) {
    let (head, stream) = request.into_parts();
    let length = length(&head.headers);
    let (body, tunnel) = if head.method == Method::CONNECT {
        if length.is_some_and(|length| length > 0) {
            // RFC 9110, 9.3.6: such a request has no content.
            respond.send_reset(Reason::PROTOCOL_ERROR);
            return;
        }
        (RequestBody::None, Some(stream))
    } else {
        (RequestBody::Stream(Upload::new(stream, length)), None)
    };
    let expects = head.headers.get(EXPECT);
    let expects = expects.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let answer = dispatch.take_up(head, body, expects);
    dispatch.handle().spawn(Reply::new(answer, respond, tunnel));
}

/// The length that a request's head gives its body. One that is no number, h2 has refused.
fn length(headers: &HeaderMap) -> Option<u64> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = parse_length(lengths.next()?);
    lengths.next().map_or(length, |_second| None)
}

/// Whether the client is still there: it is asked when nothing was heard of it for long.
struct Pings {
    pings: PingPong,
    interval: u64,
    timeout: u64,
    timer: Sleep,
    /// Bytes that had come when news were last looked for, and when those had come.
    heard: (u64, u64),
    /// Since when an answer is waited for.
    asked: Option<u64>,
    /// A ping has not been answered, whatever else has come: there is one at a time.
    open: bool,
}

impl Pings {
    /// `None`: no client is pinged.
    fn new(pings: PingPong, handle: &Handle, settings: &Settings) -> Option<Pings> {
        let interval = nanoseconds(settings.ping_interval?);
        let now = clock::now();
        Some(Pings {
            pings,
            interval,
            timeout: nanoseconds(settings.ping_timeout),
            timer: handle.sleep_until(now.saturating_add(interval)),
            heard: (0, now),
            asked: None,
            open: false,
        })
    }

    /// Ready when the client has gone; `bytes` have come of it so far.
    fn poll(&mut self, cx: &mut Context<'_>, bytes: u64) -> Poll<()> {
        if self.heard.0 != bytes {
            self.heard = (bytes, clock::coarse());
            self.asked = None;
        }
        if self.open && self.pings.poll_pong(cx).is_ready() {
            self.open = false;
        }
        while Pin::new(&mut self.timer).poll(cx).is_ready() {
            let now = clock::now();
            let due = match self.asked {
                Some(asked) => asked.saturating_add(self.timeout),
                None => self.heard.1.saturating_add(self.interval),
            };
            if due > now {
                self.timer.reset(due);
            } else if self.asked.is_some() {
                return Poll::Ready(());
            } else {
                self.open |= self.pings.send_ping(Ping::opaque()).is_ok();
                self.asked = Some(now);
                self.timer.reset(now.saturating_add(self.timeout));
            }
        }
        Poll::Pending
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn a_body_has_the_length_that_one_line_gives() {
        let cases: [(&[&str], Option<u64>); 5] = [
            (&[], None),
            (&["7"], Some(7)),
            (&["0"], Some(0)),
            (&["7", "7"], None),
            (&["x"], None),
        ];
        for (lines, expected) in cases {
            let mut headers = HeaderMap::new();
            for line in lines {
                let value = HeaderValue::from_str(line).expect("a value");
                headers.append(CONTENT_LENGTH, value);
            }
            assert_eq!(length(&headers), expected, "{lines:?}");
        }
    }
}
