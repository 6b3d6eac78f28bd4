//! A WebSocket connection on a stream of HTTP/2 (RFC 8441).
//!
//! ```text
//!   CONNECT, `:protocol: websocket` ──► Exchange ──accept──► 200, by the stream's future
//!                                                              │
//!   Tunnel (a future of its own) ────── Gate ◄──── the stream ─┘
//!     Opening ─► Open: Session over Channel ─► Ending: END_STREAM both ways, or a reset
//!         ▲                                │ bytes, into h2's queue
//!         └──── Gate: wakes ◄──────────────┘ h2 has written them
//! ```
//!
//! The session, its messages and its deadlines are those of HTTP/1.1; only the bytes take another
//! way. The stream's flow control is HTTP/2's: what the application does not receive holds the
//! stream back, and what the client does not take stays with the session, but for [`PART`] bytes: h2's queue
//! gets more once those are written, and only then does the session count them as sent.
//!
//! A stream that is over for us keeps its place until the client ends it, too, or has had [`LINGER`] to
//! do so; then it is reset. A reset by the client ends the session, whether that reads or not.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use rondel_core::clock;
use rondel_core::driver::Handle;
use rondel_core::sleep::Sleep;

use super::{Session, Shared, Transport, WebSockets};
use crate::conn::{LINGER, Link};
use crate::http2::{Out, poll_data};
use crate::waker::keep;

/// Bytes that are in h2's queue at most; it has frames of 16 KiB made of them, and writes them in one go.
const PART: usize = 64 * 1024;

/// Bytes that a client may still send once all is said.
const DISCARDED: usize = 1024 * 1024;

/// What a tunnel is given its stream by, and hears by of what became of its bytes.
#[derive(Default)]
pub(crate) struct Gate {
    tunnel: RefCell<Option<Waker>>,
    stream: RefCell<Option<(SendStream<Out>, RecvStream)>>,
    /// There is no stream to come.
    shut: Cell<bool>,
    /// Bytes that h2 has and has not written.
    unwritten: Cell<usize>,
    /// The tunnel waits for that to be none.
    wanted: Cell<bool>,
}

impl Gate {
    /// Has the tunnel polled.
    pub(crate) fn wake_tunnel(&self) {
        if let Some(waker) = &*self.tunnel.borrow() {
            waker.wake_by_ref();
        }
    }

    /// The stream was accepted: it is the tunnel's.
    pub(crate) fn open(&self, send: SendStream<Out>, receive: RecvStream) {
        self.stream.replace(Some((send, receive)));
        self.wake_tunnel();
    }

    /// The stream was reset before that.
    pub(crate) fn shut(&self) {
        self.shut.set(true);
        self.wake_tunnel();
    }

    /// h2 gets so many bytes.
    pub(crate) fn count(&self, n: usize) {
        self.unwritten.set(self.unwritten.get() + n);
    }

    /// So many of them are written, or never will be.
    pub(crate) fn written(&self, n: usize) {
        let left = self.unwritten.get().saturating_sub(n);
        self.unwritten.set(left);
        if left == 0 && self.wanted.take() {
            self.wake_tunnel();
        }
    }

    /// Ready when h2 has written all that it has.
    fn poll_written(&self) -> Poll<()> {
        if self.unwritten.get() == 0 {
            return Poll::Ready(());
        }
        self.wanted.set(true);
        Poll::Pending
    }

    fn keep(&self, cx: &Context<'_>) {
        keep(&mut self.tunnel.borrow_mut(), cx.waker());
    }
}

/// The stream's bytes.
struct Channel {
    send: SendStream<Out>,
    receive: RecvStream,
    gate: Rc<Gate>,
    handle: Handle,
    /// What the client has reset it with.
    reset: Option<Reason>,
}

impl Channel {
    /// Looks whether the client has reset the stream, and is to hear of it.
    fn look(&mut self, cx: &mut Context<'_>) {
        if self.reset.is_none()
            && let Poll::Ready(reset) = self.send.poll_reset(cx)
        {
            self.reset = Some(reset.unwrap_or(Reason::CANCEL));
        }
    }

    fn check(&self) -> io::Result<()> {
        match self.reset {
            None => Ok(()),
            Some(_) => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
}

impl Transport for Channel {
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<usize>> {
        match ready!(poll_data(&mut self.receive, cx)) {
            None => Poll::Ready(Ok(0)),
            Some(Ok(data)) => {
                take(&data);
                Poll::Ready(Ok(data.len()))
            }
            Some(Err(error)) => Poll::Ready(Err(io::Error::other(error))),
        }
    }

    fn poll_recv_into(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        self.poll_recv(cx, |data| into.extend_from_slice(data))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_sent(cx))?;
        let size = data.iter().map(|slice| slice.len()).sum::<usize>();
        let mut part = Vec::with_capacity(size.min(PART));
        for slice in data {
            let room = PART - part.len();
            part.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        let n = part.len();
        let part = Out::counted(part.into(), &self.gate);
        self.send.send_data(part, false).map_err(io::Error::other)?;
        Poll::Ready(Ok(n))
    }

    fn poll_sent(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        // The gate has the tunnel's waker.
        self.gate.poll_written().map(Ok)
    }

    fn give_way(&self, cx: &mut Context<'_>) {
        self.handle.wake_next_turn(cx.waker());
    }
}

enum Stage {
    /// The 200 is on its way.
    Opening,
    Open(Box<Session>, Channel),
    Ending(Ending),
    Over,
}

/// All is said, and goes out; the client, too, may end in good order.
struct Ending {
    channel: Channel,
    sent: bool,
    heard: bool,
    /// Bytes that may still come.
    budget: usize,
}

impl Ending {
    fn new(mut channel: Channel) -> Self {
        // An error is an end as well.
        let _over = channel.send.send_data(Out::end(), true);
        Ending {
            channel,
            sent: false,
            heard: false,
            budget: DISCARDED,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.sent {
            self.sent = self.channel.poll_sent(cx).is_ready();
        }
        while !self.heard {
            match self.channel.poll_recv(cx, |_| ()) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    self.budget = self.budget.saturating_sub(n);
                    self.heard = self.budget == 0;
                }
                Poll::Ready(_) => self.heard = true,
                Poll::Pending => break,
            }
        }
        if self.sent && self.heard {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// The future of a connection on a stream.
pub(crate) struct Tunnel {
    link: Rc<Link>,
    shared: Rc<Shared>,
    gate: Rc<Gate>,
    config: WebSockets,
    timer: Sleep,
    stage: Stage,
}

impl Tunnel {
    pub(crate) fn new(
        link: Rc<Link>,
        shared: Rc<Shared>,
        gate: Rc<Gate>,
        config: WebSockets,
    ) -> Self {
        if let Some(streams) = link.streams() {
            streams.add_socket(Rc::clone(&shared));
        }
        Tunnel {
            timer: link.handle().sleep_until(clock::now()),
            link,
            shared,
            gate,
            config,
            stage: Stage::Opening,
        }
    }

    fn open(&self, (send, receive): (SendStream<Out>, RecvStream)) -> Stage {
        let limits = self.link.limits();
        let session = Session::new(Rc::clone(&self.shared), &Bytes::new(), self.config, limits);
        let channel = Channel {
            send,
            receive,
            gate: Rc::clone(&self.gate),
            handle: self.link.handle().clone(),
            reset: None,
        };
        Stage::Open(Box::new(session), channel)
    }
}

impl Future for Tunnel {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.gate.keep(cx);
        loop {
            match &mut this.stage {
                Stage::Opening => {
                    let stream = this.gate.stream.take();
                    match stream {
                        Some(stream) => this.stage = this.open(stream),
                        None if this.gate.shut.get() => this.stage = Stage::Over,
                        None => return Poll::Pending,
                    }
                }
                Stage::Open(session, channel) => {
                    channel.look(cx);
                    if this.link.is_leaving() {
                        session.go_away();
                    }
                    let _end = ready!(session.poll(cx, channel, &mut this.timer));
                    let stage = std::mem::replace(&mut this.stage, Stage::Over);
                    if let Stage::Open(_, channel) = stage {
                        this.timer.reset(clock::now().saturating_add(LINGER));
                        this.stage = Stage::Ending(Ending::new(channel));
                    }
                }
                Stage::Ending(ending) => {
                    let over = ending.poll(cx).is_ready();
                    if !over && Pin::new(&mut this.timer).poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    if !ending.sent {
                        // Else h2 would keep it for as long as the connection lasts.
                        ending.channel.send.send_reset(Reason::CANCEL);
                    }
                    this.stage = Stage::Over;
                }
                Stage::Over => return Poll::Ready(()),
            }
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.shared.lost();
        if let Some(streams) = self.link.streams() {
            streams.remove_socket(&self.shared);
        }
        // It may have become idle.
        self.link.wake();
    }
}
