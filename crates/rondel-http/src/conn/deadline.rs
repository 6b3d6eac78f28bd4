//! A connection's deadlines: which one holds, and what is done when it has passed.
//!
//! One timer, left alone while requests come and go: it is looked at when it fires, and only then set
//! anew; the deadline itself is a number. Loop's thread only.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::StatusCode;
use rondel_core::clock;

use super::end::LINGER;
use super::link::Command;
use super::{Connection, Stage};
use crate::service::{Deadline, Problem};

/// Around the line that names the server.
const TIMEOUT_RESPONSE: [&[u8]; 2] = [
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n",
    b"content-length: 0\r\n\r\n",
];

/// What may time out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// Nothing: a request is being answered.
    Nothing,
    For(Deadline, Duration),
}

impl Waiting {
    fn for_(what: Deadline, limit: Option<Duration>) -> Waiting {
        limit.map_or(Waiting::Nothing, |limit| Waiting::For(what, limit))
    }
}

impl Connection {
    /// Brings the deadline up to date; ready if it has passed.
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Deadline> {
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

    pub(super) fn timed_out(&mut self, deadline: Deadline) -> Stage {
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

pub(super) fn after(duration: Duration) -> u64 {
    clock::coarse().saturating_add(nanoseconds(duration))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
