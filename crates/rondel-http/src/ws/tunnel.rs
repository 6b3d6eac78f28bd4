//! A WebSocket connection on a stream of HTTP/2 (RFC 8441).
//!
//! ```text
//!   CONNECT, `:protocol: websocket` ──► Exchange ──accept──► 200, hyper upgrades the stream
//!                                                              │
//!   Tunnel (a future of its own) ──OnUpgrade──► Channel ◄──────┘
//!     Opening ─► Open: Session over Channel ─► Ending: END_STREAM both ways, or a reset
//!         ▲                                │ bytes, by hyper's own channel of two places
//!         └──── Pump: wakes, cuts ◄──── hyper's future that sends them (`LoopExecutor` spawns it)
//! ```
//!
//! The session, its messages and its deadlines are those of HTTP/1.1; only the bytes take another
//! way. The stream's flow control is HTTP/2's: what the application does not receive holds the
//! stream back, and what the client does not take stays with the session.
//!
//! hyper gives no way to reset a stream that it has upgraded. Its sending future would wait as long as
//! the connection lasts for a client that takes nothing; hence [`Pump`]: cut, it drops the stream,
//! which h2 then resets. It also tells the session of a reset by the client that it would only see by
//! reading, which it does not while the application is behind.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use hyper::rt::{Read, ReadBuf, Write};
use hyper::upgrade::{OnUpgrade, Upgraded};
use rondel_core::clock;
use rondel_core::driver::Handle;
use rondel_core::sleep::Sleep;

use super::{Session, Shared, Transport, WebSockets};
use crate::conn::{LINGER, Link};
use crate::stream::Scratch;

/// Bytes that are handed to hyper at once: it takes two such parts, holds one, and h2 another.
const PART: usize = 16 * 1024;

/// Bytes that a client may still send once all is said.
const DISCARDED: usize = 1024 * 1024;

/// What a tunnel and hyper's future that sends its bytes have of each other.
#[derive(Default)]
pub(crate) struct Pump {
    tunnel: RefCell<Option<Waker>>,
    sender: RefCell<Option<Waker>>,
    cut: Cell<bool>,
}

impl Pump {
    /// Has the tunnel polled.
    pub(crate) fn wake_tunnel(&self) {
        if let Some(waker) = &*self.tunnel.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Ends the sending future, whatever it still has.
    fn cut(&self) {
        self.cut.set(true);
        if let Some(waker) = &*self.sender.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Drives the sending future until it ends or is cut.
    pub(crate) async fn drive(self: Rc<Self>, sender: impl Future<Output = ()>) {
        let mut sender = pin!(sender);
        poll_fn(|cx| {
            if self.cut.get() {
                return Poll::Ready(());
            }
            keep(&self.sender, cx);
            sender.as_mut().poll(cx)
        })
        .await;
        // Which finds the channel closed.
        self.wake_tunnel();
    }
}

fn keep(place: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    let mut known = place.borrow_mut();
    match &mut *known {
        Some(known) => known.clone_from(cx.waker()),
        none => *none = Some(cx.waker().clone()),
    }
}

/// The stream's bytes.
struct Channel {
    io: Upgraded,
    scratch: Scratch,
    handle: Handle,
}

impl Transport for Channel {
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<usize>> {
        let mut scratch = self.scratch.borrow_mut();
        let mut buf = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut self.io).poll_read(cx, buf.unfilled()))?;
        take(buf.filled());
        Poll::Ready(Ok(buf.filled().len()))
    }

    fn poll_recv_into(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        self.poll_recv(cx, |data| into.extend_from_slice(data))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        // Before anything is copied: whether there is a place for it.
        ready!(self.poll_sent(cx))?;
        let mut scratch = self.scratch.borrow_mut();
        let mut end = 0;
        for slice in data {
            let n = slice.len().min(PART - end);
            scratch[end..end + n].copy_from_slice(&slice[..n]);
            end += n;
        }
        Pin::new(&mut self.io).poll_write(cx, &scratch[..end])
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn give_way(&self, cx: &mut Context<'_>) {
        self.handle.wake_next_turn(cx.waker());
    }
}

enum Stage {
    /// The 200 is on its way.
    Opening(OnUpgrade),
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
    fn new(channel: Channel) -> Self {
        Ending {
            channel,
            sent: false,
            heard: false,
            budget: DISCARDED,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.sent {
            // An error is an end as well.
            let io = Pin::new(&mut self.channel.io);
            self.sent = io.poll_shutdown(cx).is_ready();
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
    pump: Rc<Pump>,
    config: WebSockets,
    timer: Sleep,
    stage: Stage,
}

impl Tunnel {
    pub(crate) fn new(
        link: Rc<Link>,
        shared: Rc<Shared>,
        pump: Rc<Pump>,
        config: WebSockets,
        upgrade: OnUpgrade,
    ) -> Self {
        if let Some(streams) = link.streams() {
            streams.add_socket(Rc::clone(&shared));
        }
        Tunnel {
            timer: link.handle().sleep_until(clock::now()),
            link,
            shared,
            pump,
            config,
            stage: Stage::Opening(upgrade),
        }
    }

    fn open(&self, io: Upgraded) -> Stage {
        let limits = self.link.limits();
        let session = Session::new(Rc::clone(&self.shared), &Bytes::new(), self.config, limits);
        let channel = Channel {
            io,
            scratch: self.link.scratch(),
            handle: self.link.handle().clone(),
        };
        Stage::Open(Box::new(session), channel)
    }
}

impl Future for Tunnel {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        keep(&this.pump.tunnel, cx);
        loop {
            match &mut this.stage {
                Stage::Opening(upgrade) => match ready!(Pin::new(upgrade).poll(cx)) {
                    Ok(io) => this.stage = this.open(io),
                    // The stream was reset before the 200 could be sent.
                    Err(_) => this.stage = Stage::Over,
                },
                Stage::Open(session, channel) => {
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
                        this.pump.cut();
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
