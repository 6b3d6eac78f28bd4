//! The application's side of a WebSocket connection, and what it shares with the connection's.
//!
//! ```text
//!   application                    Shared                       Session
//!   ───────────                    ──────                       ───────
//!   poll_message ◄── Message ───── inbox ◄───────────────────── frames; stops reading at its limit
//!        ▲  Event::Body when it was Pending
//!   send ─────────► Ready / Full ► outbox ────────────────────► frames, written
//!        ▲  Event::Writable when it was Full
//!   close ────────────────────────► closing ──────────────────► close frame after what was sent
//!   Event::Gone ◄── ended ◄───────────────────────────────────── the peer's close, failure, loss
//! ```
//!
//! Loop's thread only. The state is never borrowed while the service is notified.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderValue};

use super::{Close, Gate, Offer, Tunnel};
use crate::conn::Link;
use crate::exchange::Exchange;
use crate::outcome::{Flow, SendError};
use crate::service::Event;

/// A whole message. Text that comes in is UTF-8; of text that is sent the caller knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Text(Bytes),
    Binary(Bytes),
}

impl Message {
    #[must_use]
    pub fn data(&self) -> &Bytes {
        match self {
            Message::Text(data) | Message::Binary(data) => data,
        }
    }
}

/// What [`WebSocket::poll_message`] has.
#[derive(Debug, PartialEq, Eq)]
pub enum WsPoll {
    Message(Message),
    /// Nothing yet; [`Event::Body`] follows, or [`Event::Gone`].
    Pending,
    /// All messages were handed out, and no more will come.
    Closed(Close),
}

#[derive(Default)]
pub(super) struct State {
    pub(super) inbox: VecDeque<Message>,
    /// Bytes of the messages in `inbox`.
    pub(super) waiting: usize,
    /// `poll_message` was `Pending`.
    wanted: bool,
    /// The session has stopped reading as the inbox is full.
    pub(super) paused: bool,
    pub(super) outbox: VecDeque<Message>,
    /// Bytes of the messages in `outbox`.
    queued: usize,
    /// Bytes that were encoded and not written.
    pub(super) unwritten: usize,
    /// `Full` was told.
    full: bool,
    /// What the application wants the peer to be told after what it sent.
    pub(super) closing: Option<Close>,
    /// How it ended for the application; nothing comes any more, and nothing is sent.
    ended: Option<Close>,
}

/// What both sides of a connection share.
pub(crate) struct Shared {
    link: Rc<Link>,
    /// Set where it is one stream of several.
    gate: Option<Rc<Gate>>,
    /// Names the connection in [`crate::Service::notify`]; 0 once nobody listens.
    tag: Cell<u64>,
    pub(super) deflate: Option<sockudo_ws::deflate::DeflateConfig>,
    pub(super) state: RefCell<State>,
}

impl Shared {
    /// Has the session polled.
    pub(crate) fn wake(&self) {
        match &self.gate {
            None => self.link.wake(),
            Some(gate) => gate.wake_tunnel(),
        }
    }

    fn notify(&self, event: Event) {
        let tag = self.tag.get();
        if tag != 0 {
            self.link.service().notify(tag, event);
        }
    }

    /// Whether the inbox can take one more message.
    pub(super) fn has_room(&self, max_queue: usize, high_water: usize) -> bool {
        let state = self.state.borrow();
        state.inbox.len() < max_queue && state.waiting < high_water
    }

    /// Hands the application a message; nobody sees it once the application has closed.
    pub(super) fn deliver(&self, message: Message) {
        let mut state = self.state.borrow_mut();
        if state.closing.is_some() || state.ended.is_some() {
            return;
        }
        state.waiting += message.data().len();
        state.inbox.push_back(message);
        let wanted = std::mem::take(&mut state.wanted);
        drop(state);
        if wanted {
            self.notify(Event::Body);
        }
    }

    pub(super) fn next_out(&self) -> Option<Message> {
        let mut state = self.state.borrow_mut();
        let message = state.outbox.pop_front()?;
        state.queued -= message.data().len();
        Some(message)
    }

    /// So much of what was encoded is not written.
    pub(super) fn set_unwritten(&self, bytes: usize) {
        let mut state = self.state.borrow_mut();
        state.unwritten = bytes;
        let low = self.link.limits().low_water;
        if state.full && state.queued + bytes <= low && state.ended.is_none() {
            state.full = false;
            drop(state);
            self.notify(Event::Writable);
        }
    }

    /// It is over for the application.
    pub(crate) fn end(&self, close: Close) {
        let mut state = self.state.borrow_mut();
        if state.ended.is_some() {
            return;
        }
        state.ended = Some(close);
        let unsent = std::mem::take(&mut state.outbox);
        (state.queued, state.full) = (0, false);
        drop(state);
        drop(unsent);
        self.notify(Event::Gone);
    }

    /// The connection was lost, unless it had ended before.
    pub(crate) fn lost(&self) {
        self.end(Close::new(Close::ABNORMAL, ""));
    }
}

/// The application's side of an accepted connection; when it is dropped the connection is closed.
pub struct WebSocket(Rc<Shared>);

impl WebSocket {
    /// The next message. Not asking for it holds the peer back.
    #[must_use]
    pub fn poll_message(&self) -> WsPoll {
        let mut state = self.0.state.borrow_mut();
        if let Some(message) = state.inbox.pop_front() {
            state.waiting -= message.data().len();
            let go_on = state.paused && state.inbox.is_empty();
            if go_on {
                state.paused = false;
                drop(state);
                self.0.wake();
            }
            return WsPoll::Message(message);
        }
        match &state.ended {
            Some(close) => WsPoll::Closed(close.clone()),
            None => {
                state.wanted = true;
                WsPoll::Pending
            }
        }
    }

    /// Sends a message; it is not copied if it is large.
    ///
    /// # Errors
    /// `Gone` once the connection has ended, `AfterEnd` after [`WebSocket::close`].
    pub fn send(&self, message: Message) -> Result<Flow, SendError> {
        let mut state = self.0.state.borrow_mut();
        if state.ended.is_some() {
            return Err(SendError::Gone);
        }
        if state.closing.is_some() {
            return Err(SendError::AfterEnd);
        }
        state.queued += message.data().len();
        state.outbox.push_back(message);
        state.full = state.queued + state.unwritten >= self.0.link.limits().high_water;
        let flow = if state.full { Flow::Full } else { Flow::Ready };
        drop(state);
        self.0.wake();
        Ok(flow)
    }

    /// Begins the closing handshake, after what was sent before. What the peer still sends is
    /// dropped; nothing happens if it has closed already.
    pub fn close(&self, close: Close) {
        let mut state = self.0.state.borrow_mut();
        if state.ended.is_some() || state.closing.is_some() {
            return;
        }
        state.closing = Some(close);
        let unread = std::mem::take(&mut state.inbox);
        (state.waiting, state.paused) = (0, false);
        drop(state);
        drop(unread);
        self.0.wake();
    }

    /// The service is notified no more.
    pub fn detach(&self) {
        self.0.tag.set(0);
    }

    /// Whether nothing can be sent any more: the peer has closed, or is gone.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.0.state.borrow().ended.is_some()
    }

    /// Whether [`WebSocket::close`] was called in time.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.0.state.borrow().closing.is_some()
    }
}

impl Drop for WebSocket {
    fn drop(&mut self) {
        // The tag may name another from now on.
        self.detach();
        self.close(Close::new(Close::INTERNAL, ""));
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket")
            .field("tag", &self.0.tag.get())
            .field("ended", &self.is_ended())
            .finish_non_exhaustive()
    }
}

impl Exchange {
    /// Accepts the WebSocket connection that the request asks for; the exchange is over with that.
    ///
    /// # Errors
    /// If a response was begun, or the client has gone.
    pub fn accept(
        &self,
        offer: &Offer,
        mut headers: HeaderMap,
        subprotocol: Option<HeaderValue>,
    ) -> Result<WebSocket, SendError> {
        offer.complete(&mut headers, subprotocol);
        let gate = offer.on_stream.then(Rc::<Gate>::default);
        self.switch_protocols(offer.status(), headers, gate.clone())?;
        let link = self.link();
        let shared = Rc::new(Shared {
            gate: gate.clone(),
            tag: Cell::new(self.tag()),
            deflate: offer.deflate.as_ref().map(|agreed| agreed.config.clone()),
            state: RefCell::default(),
            link: Rc::clone(link),
        });
        match gate {
            Some(gate) => {
                let (link, shared) = (Rc::clone(link), Rc::clone(&shared));
                let tunnel = Tunnel::new(link, shared, gate, offer.config);
                self.link().handle().spawn(tunnel);
            }
            None => link.set_upgrade(Rc::clone(&shared)),
        }
        self.inner().wake();
        Ok(WebSocket(shared))
    }
}
