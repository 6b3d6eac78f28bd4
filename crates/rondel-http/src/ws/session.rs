//! The connection's side of a WebSocket connection: what hyper was before the 101.
//!
//! ```text
//!            ┌── our close frame queued ──► Closing ──peer's close, or close_timeout──┐
//!   Open ────┤                                                                        ▼
//!            └── the peer's close (echoed), a failure (told), a lost peer ───────► Finishing ─► over
//!                                                                     what is queued is written first
//! ```
//!
//! Nothing is read while the inbox is full, or while more than the high-water mark waits to be
//! written: a peer that floods with pings and reads nothing fills its own socket, not our memory.
//!
//! **Keep-alive.** A ping each `ping_interval`; then `ping_timeout` for the peer to say anything at
//! all: its pong may stand behind a large message on a slow line. It does not run while the peer is
//! held back by us. The timer is the connection's one timer, left alone while frames come and go: it
//! is looked at when it fires.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rondel_core::clock;
use rondel_core::sleep::Sleep;

use super::codec::{Decoder, Encoder, Failure, Incoming, Output};
use super::{Close, Shared, WebSockets};
use crate::service::Limits;

/// Reads of one poll; then it is others' turn.
const READS: usize = 8;

/// Room that is made at once for a frame that has begun; what is beyond comes as its bytes do.
const RESERVE: usize = 256 * 1024;

/// Frames that are larger are read to where they stay; smaller ones through the server's buffer,
/// which asks for no memory before it is known how much came.
const LARGE: usize = 16 * 1024;

/// The longest head of a frame, which may have been taken from the input before its payload.
const HEAD: usize = 14;

/// Room that an idle connection keeps for what it reads.
const KEPT: usize = 4096;

/// What a session reads from and writes to.
pub(crate) trait Transport {
    /// One read, shown to `take`; 0 is the end.
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<usize>>;

    /// One read, put behind what `into` has; it has room.
    fn poll_recv_into(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>>;

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// Ready when all that was sent is with the system.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Has the future polled again once others have had their turn.
    fn give_way(&self, cx: &mut Context<'_>);
}

/// How the socket is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing is left to say or to hear.
    Quiet,
    /// The peer may still be sending: a close at once could take our last words from it.
    Linger,
}

enum Phase {
    Open,
    /// Our close frame is on its way; the peer's has not come.
    Closing,
    Finishing(End),
}

/// Times of [`clock::now`]; 0 is none.
#[derive(Default)]
struct Times {
    /// The next ping.
    ping: u64,
    /// Something must have come by then.
    heard: u64,
    /// The peer's close must have come by then.
    close: u64,
    /// Something must have been written by then.
    write: u64,
}

impl Times {
    fn next(&self) -> u64 {
        let all = [self.ping, self.heard, self.close, self.write];
        let set = all.into_iter().filter(|time| *time != 0);
        set.min().unwrap_or(0)
    }
}

pub(crate) struct Session {
    shared: Rc<Shared>,
    decoder: Decoder,
    encoder: Encoder,
    input: BytesMut,
    /// Bytes that the last frame needed, if it was large: the next may well be like it.
    expected: usize,
    output: Output,
    phase: Phase,
    times: Times,
    /// Whether the connection's timer runs for `times`.
    armed: bool,
    /// The last ping's payload: pongs need not match it, but people who look at traffic like to see.
    pings: u32,
    config: WebSockets,
    /// For a peer that reads nothing.
    write_timeout: Duration,
    high_water: usize,
}

impl Session {
    /// `rest` is what was read behind the request's head.
    pub(crate) fn new(
        shared: Rc<Shared>,
        rest: &Bytes,
        config: WebSockets,
        limits: &Limits,
    ) -> Self {
        let times = Times {
            ping: config.ping_interval.map_or(0, later),
            ..Times::default()
        };
        Session {
            decoder: Decoder::new(config.max_size, shared.deflate.clone()),
            encoder: Encoder::new(shared.deflate.clone()),
            input: BytesMut::from(&rest[..]),
            expected: 0,
            output: Output::default(),
            phase: Phase::Open,
            times,
            armed: false,
            pings: 0,
            config,
            write_timeout: limits.idle_deadline,
            high_water: limits.high_water,
            shared,
        }
    }

    /// The server stops: the peer is told to come again (1012), as is the application.
    pub(crate) fn go_away(&mut self) {
        if let Phase::Open = self.phase {
            let close = Close::new(Close::RESTART, "");
            self.take_outbox();
            self.begin_close(&close);
            self.shared.end(close);
        }
    }

    pub(crate) fn poll<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut T,
        timer: &mut Sleep,
    ) -> Poll<End> {
        let mut reads = 0;
        loop {
            self.take_outbox();
            let Ok(written) = self.write(cx, stream) else {
                return self.lose();
            };
            self.shared.set_unwritten(self.output.len());
            if let (Phase::Finishing(end), true) = (&self.phase, written) {
                return Poll::Ready(*end);
            }
            if self.digest() {
                // There is something to write, or the end has come.
                continue;
            }
            if !self.may_read() {
                break;
            }
            if reads == READS {
                stream.give_way(cx);
                break;
            }
            reads += 1;
            match self.read(cx, stream) {
                Poll::Pending => break,
                Poll::Ready(Ok(n)) if n > 0 => self.times.heard = 0,
                // The end without a close frame, or an error.
                Poll::Ready(_) => return self.lose(),
            }
        }
        if self.input.capacity() > KEPT && self.input.is_empty() {
            self.input = BytesMut::new();
        }
        self.poll_times(cx, timer)
    }

    /// One read, put behind what is there.
    fn read<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut T,
    ) -> Poll<io::Result<usize>> {
        let input = &mut self.input;
        let missing = self.decoder.missing(input).min(RESERVE);
        let room = if input.is_empty() {
            self.expected
        } else {
            missing
        };
        if room < LARGE {
            if missing > 0 {
                input.reserve(missing);
            }
            return stream.poll_recv(cx, |data| input.extend_from_slice(data));
        }
        // Back and forth without a copy: the memory is nobody else's.
        let mut data = Vec::from(std::mem::take(input));
        data.reserve_exact(room);
        let read = stream.poll_recv_into(cx, &mut data);
        *input = BytesMut::from(Bytes::from(data));
        read
    }

    fn lose(&mut self) -> Poll<End> {
        self.shared.lost();
        Poll::Ready(End::Quiet)
    }

    /// Encodes what the application has given.
    fn take_outbox(&mut self) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        while let Some(message) = self.shared.next_out() {
            if let Err(failure) = self.encoder.message(message, &mut self.output) {
                self.fail(&failure);
                return;
            }
        }
        let closing = self.shared.state.borrow().closing.clone();
        if let Some(close) = closing {
            self.begin_close(&close);
            self.shared.end(close);
        }
    }

    fn begin_close(&mut self, close: &Close) {
        Encoder::close(&mut self.output, Some(close));
        self.phase = Phase::Closing;
        self.times = Times {
            close: later(self.config.close_timeout),
            ..Times::default()
        };
    }

    /// What came breaks the rules: the peer is told, and nothing more of it is looked at.
    fn fail(&mut self, failure: &Failure) {
        let close = Close::new(failure.code, failure.reason);
        if let Phase::Open = self.phase {
            Encoder::close(&mut self.output, Some(&close));
        }
        self.phase = Phase::Finishing(End::Linger);
        self.times = Times::default();
        self.shared.end(close);
    }

    /// Writes what there is; whether all of it has gone out.
    fn write<T: Transport>(&mut self, cx: &mut Context<'_>, stream: &mut T) -> io::Result<bool> {
        while !self.output.is_empty() {
            let sent = self
                .output
                .next_slices(|slices| stream.poll_send(cx, slices));
            match sent {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => {
                    self.output.written(n);
                    self.times.write = 0;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        let sent = match stream.poll_sent(cx) {
            Poll::Ready(sent) => sent.map(|()| self.output.is_empty())?,
            Poll::Pending => false,
        };
        if sent {
            self.times.write = 0;
        } else if self.times.write == 0 {
            self.times.write = later(self.write_timeout);
        }
        Ok(sent)
    }

    /// Deals with what was read, as far as there is room; whether there is something to write now.
    fn digest(&mut self) -> bool {
        let before = self.output.len();
        while !self.input.is_empty() && self.may_read() {
            let there = self.input.len();
            match self.decoder.next(&mut self.input) {
                Ok(None) => break,
                Ok(Some(Incoming::Data(message))) => {
                    let frame = there - self.input.len();
                    self.expected = if frame < LARGE {
                        0
                    } else {
                        (frame + HEAD).min(RESERVE)
                    };
                    if let Phase::Open = self.phase {
                        self.shared.deliver(message);
                    }
                }
                Ok(Some(Incoming::Ping(data))) => {
                    if let Phase::Open = self.phase {
                        Encoder::pong(&mut self.output, &data);
                    }
                }
                Ok(Some(Incoming::Pong)) => {}
                Ok(Some(Incoming::Close(close))) => {
                    self.closed_by_peer(close);
                    return true;
                }
                Err(failure) => {
                    self.fail(&failure);
                    return true;
                }
            }
        }
        self.output.len() > before
    }

    fn closed_by_peer(&mut self, close: Option<Close>) {
        if let Phase::Open = self.phase {
            Encoder::close(&mut self.output, close.as_ref());
            let none = || Close::new(Close::NO_STATUS, "");
            self.shared.end(close.unwrap_or_else(none));
        }
        self.phase = Phase::Finishing(End::Quiet);
        self.times = Times {
            // Should the echo not go out.
            close: later(self.config.close_timeout),
            ..Times::default()
        };
    }

    /// Whether to look at what comes; if not, notes who has to wake us.
    fn may_read(&self) -> bool {
        match self.phase {
            Phase::Finishing(_) => false,
            Phase::Closing => self.output.len() < self.high_water,
            Phase::Open => {
                if self.output.len() >= self.high_water {
                    return false;
                }
                let room = self.shared.has_room(self.config.max_queue, self.high_water);
                if !room {
                    self.shared.state.borrow_mut().paused = true;
                }
                room
            }
        }
    }

    fn poll_times(&mut self, cx: &mut Context<'_>, timer: &mut Sleep) -> Poll<End> {
        loop {
            let next = self.times.next();
            if next == 0 {
                return Poll::Pending;
            }
            // A timer that fires too early is looked at and set anew: cheaper than to move it.
            if !self.armed || timer.deadline() > next {
                timer.reset(next);
                self.armed = true;
            }
            if Pin::new(&mut *timer).poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.armed = false;
            let now = clock::now();
            if let Some(end) = self.elapsed(now) {
                return Poll::Ready(end);
            }
            if !self.output.is_empty() && self.times.write == 0 {
                // A ping is to be written.
                cx.waker().wake_by_ref();
            }
        }
    }

    /// Acts on the times that have come.
    fn elapsed(&mut self, now: u64) -> Option<End> {
        let due = |time: u64| time != 0 && time <= now;
        if due(self.times.close) || due(self.times.write) {
            self.shared.lost();
            return Some(End::Quiet);
        }
        if due(self.times.heard) {
            if self.shared.state.borrow().paused {
                // It cannot be heard: we do not listen.
                self.times.heard = self.config.ping_timeout.map_or(0, later);
            } else {
                let reason = "keepalive ping timeout";
                let close = Close::new(Close::INTERNAL, reason);
                Encoder::close(&mut self.output, Some(&close));
                self.shared.lost();
                self.phase = Phase::Finishing(End::Quiet);
                // One try to tell it: nobody is known to be there.
                self.times = Times {
                    close: now.saturating_add(clock::SECOND),
                    ..Times::default()
                };
            }
        }
        if due(self.times.ping) {
            self.times.ping = self.config.ping_interval.map_or(0, later);
            if self.output.len() < self.high_water {
                self.pings = self.pings.wrapping_add(1);
                Encoder::ping(&mut self.output, &self.pings.to_be_bytes());
            }
            if self.times.heard == 0 {
                self.times.heard = self.config.ping_timeout.map_or(0, later);
            }
        }
        None
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.lost();
    }
}

fn later(duration: Duration) -> u64 {
    let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    clock::now().saturating_add(ns)
}
