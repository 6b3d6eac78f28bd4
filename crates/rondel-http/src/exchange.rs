//! One request and its response, between the application and the connection.
//!
//! ```text
//!   application                      Exchange                        connection (hyper)
//!   ───────────                      ────────                        ──────────────────
//!   poll_body  ◄──── Chunk / Pending ─── Body ◄───────────────────── Incoming (one chunk at most)
//!        ▲  Event::Body when it was Pending
//!   start ─────────► Stage::Head
//!   send_chunk ────► queue, complete ──── taken at the next poll ──► head, frames
//!        ▲  Full at high water, Event::Writable at low water
//!   Event::Gone ◄─── the connection dropped its side before the response was complete
//! ```
//!
//! Stages of the response: `Waiting` ─start→ `Head` ─connection takes it→ `Flowing` ─→ `Over`.
//! A response that is complete when the connection takes its head goes out as one body of known
//! length, hence with `content-length` and in one write, and is over there and then.
//!
//! Discipline: loop's thread only; the state is never borrowed while the service is notified, so
//! that it may call back.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, SERVER, TRANSFER_ENCODING,
};
use hyper::{Response, StatusCode, Version};

use crate::conn::Link;
use crate::outcome::{BodyPoll, Flow, SendError};
use crate::response::{Aborted, ResponseBody};
use crate::service::Event;

/// The request's body.
enum Body {
    /// There is none, and its end was not handed out yet.
    Empty,
    Open(Incoming),
    Done,
}

/// The response; see the module's picture.
enum Stage {
    Waiting,
    Head(StatusCode, HeaderMap),
    Flowing,
    Over,
}

struct State {
    body: Body,
    /// Bytes of the body handed out.
    received: u64,
    /// Poll of the body was `Pending`.
    body_wanted: bool,
    stage: Stage,
    /// The response's first chunk while no other is queued: most responses need no deque.
    first: Option<Bytes>,
    queue: VecDeque<Bytes>,
    /// Bytes in `first` and `queue`.
    queued: usize,
    /// Body bytes accepted from the application.
    sent: u64,
    /// The response's length, if its head says so.
    length: Option<u64>,
    /// The status or the method rules a body out.
    bodyless: bool,
    /// The first body message came, so the head can go.
    begun: bool,
    /// The application sent all.
    complete: bool,
    /// `Full` was told.
    full: bool,
    /// Cut off by the application or by a broken promise.
    aborted: bool,
    /// The client has gone, or was turned away.
    gone: bool,
}

pub(crate) struct Inner {
    link: Rc<Link>,
    tag: Cell<u64>,
    /// The application's `Exchange` values; at 0 nobody can answer any more.
    handles: Cell<usize>,
    head_request: bool,
    version: Version,
    state: RefCell<State>,
}

/// The application's side of one request and its response. Clones are the same exchange; when the
/// last one is dropped before the response is complete, the request fails.
pub struct Exchange(Rc<Inner>);

impl Exchange {
    pub(crate) fn new(
        link: Rc<Link>,
        head_request: bool,
        version: Version,
        body: Incoming,
    ) -> Self {
        let body = if body.is_end_stream() {
            Body::Empty
        } else {
            Body::Open(body)
        };
        Exchange(Rc::new(Inner {
            link,
            tag: Cell::new(0),
            handles: Cell::new(1),
            head_request,
            version,
            state: RefCell::new(State {
                body,
                received: 0,
                body_wanted: false,
                stage: Stage::Waiting,
                first: None,
                queue: VecDeque::new(),
                queued: 0,
                sent: 0,
                length: None,
                bodyless: false,
                begun: false,
                complete: false,
                full: false,
                aborted: false,
                gone: false,
            }),
        }))
    }

    pub(crate) fn inner(&self) -> Rc<Inner> {
        Rc::clone(&self.0)
    }

    pub(crate) fn has_body(&self) -> bool {
        matches!(self.0.state.borrow().body, Body::Open(_))
    }

    /// The body's length, if the request's head says so.
    pub(crate) fn body_length(&self) -> Option<u64> {
        match &self.0.state.borrow().body {
            Body::Open(incoming) => incoming.size_hint().exact(),
            _ => None,
        }
    }

    /// Names the exchange in [`crate::Service::notify`].
    pub fn set_tag(&self, tag: u64) {
        self.0.tag.set(tag);
    }

    #[must_use]
    pub fn tag(&self) -> u64 {
        self.0.tag.get()
    }

    /// Whether the client has gone (or was turned away for a bad or too large body).
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.0.state.borrow().gone
    }

    /// Whether the head was given.
    #[must_use]
    pub fn is_started(&self) -> bool {
        !matches!(self.0.state.borrow().stage, Stage::Waiting)
    }

    /// Whether the application has sent all, or has aborted.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let state = self.0.state.borrow();
        state.complete || state.aborted
    }

    /// The request body's next part. Not asking for it holds the client back.
    pub fn poll_body(&self) -> BodyPoll {
        let inner = &*self.0;
        let mut guard = inner.state.borrow_mut();
        let state = &mut *guard;
        if state.gone {
            return BodyPoll::Gone;
        }
        let incoming = match &mut state.body {
            Body::Open(incoming) => incoming,
            Body::Done => return BodyPoll::End,
            Body::Empty => {
                state.body = Body::Done;
                return last(Bytes::new());
            }
        };
        let mut cx = Context::from_waker(inner.link.body_waker());
        let data = loop {
            match Pin::new(&mut *incoming).poll_frame(&mut cx) {
                Poll::Pending => {
                    state.body_wanted = true;
                    return BodyPoll::Pending;
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => break data,
                    // Trailers; ASGI has no place for them. The end follows.
                    Err(_) => {}
                },
                Poll::Ready(None) => {
                    state.body = Body::Done;
                    return last(Bytes::new());
                }
                Poll::Ready(Some(Err(_))) => {
                    // Broken off or malformed: if somebody is still there, 400 tells.
                    drop(guard);
                    inner.reject(StatusCode::BAD_REQUEST);
                    return BodyPoll::Gone;
                }
            }
        };
        state.received += data.len() as u64;
        if (inner.link.limits().body_bytes).is_some_and(|most| state.received > most) {
            drop(guard);
            inner.reject(StatusCode::PAYLOAD_TOO_LARGE);
            return BodyPoll::Gone;
        }
        if incoming.is_end_stream() {
            state.body = Body::Done;
            return last(data);
        }
        BodyPoll::Chunk { data, more: true }
    }

    /// Gives the response's head; it is sent along with the first part of the body.
    ///
    /// # Errors
    /// See [`SendError`]; the exchange is as before.
    pub fn start(&self, status: u16, mut headers: HeaderMap) -> Result<(), SendError> {
        let inner = &*self.0;
        let mut state = inner.state.borrow_mut();
        if state.gone {
            return Err(SendError::Gone);
        }
        if !matches!(state.stage, Stage::Waiting) {
            return Err(SendError::AlreadyStarted);
        }
        let status = match StatusCode::from_u16(status) {
            Ok(code) if status >= 200 => code,
            _ => return Err(SendError::BadStatus),
        };
        let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
        let length = match (lengths.next(), lengths.next()) {
            (None, _) => None,
            (Some(one), None) => Some(parse_length(one).ok_or(SendError::BadLength)?),
            _ => return Err(SendError::BadLength),
        };
        // Framing is the connection's business.
        headers.remove(TRANSFER_ENCODING);
        if let Some(server) = inner.link.server_header() {
            headers.entry(SERVER).or_insert_with(|| server.clone());
        }
        state.bodyless = inner.head_request
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED;
        state.length = length;
        state.stage = Stage::Head(status, headers);
        Ok(())
    }

    /// Gives a part of the response's body, the last one with `more` false; it is not copied.
    /// What a response without a body is given anyway (`HEAD`, 204, 304) is dropped.
    ///
    /// # Errors
    /// See [`SendError`]. After `TooLong` and `TooShort` the exchange is over.
    pub fn send_chunk(&self, data: Bytes, more: bool) -> Result<Flow, SendError> {
        let inner = &*self.0;
        let mut guard = inner.state.borrow_mut();
        let state = &mut *guard;
        if state.gone {
            return Err(SendError::Gone);
        }
        if state.complete || state.aborted {
            return Err(SendError::AfterEnd);
        }
        if matches!(state.stage, Stage::Waiting) {
            return Err(SendError::NotStarted);
        }
        state.sent += data.len() as u64;
        if let (Some(length), false) = (state.length, state.bodyless) {
            let broken = if state.sent > length {
                Some(SendError::TooLong)
            } else if !more && state.sent < length {
                Some(SendError::TooShort)
            } else {
                None
            };
            if let Some(error) = broken {
                let unanswered = !state.begun;
                drop(guard);
                if unanswered {
                    // Nothing has gone out: the client gets a clean answer instead of a cut.
                    inner.reject(StatusCode::INTERNAL_SERVER_ERROR);
                } else {
                    inner.abort();
                }
                return Err(error);
            }
        }
        state.begun = true;
        state.complete = !more;
        if !state.bodyless && !data.is_empty() {
            state.queued += data.len();
            if state.first.is_none() && state.queue.is_empty() {
                state.first = Some(data);
            } else {
                state.queue.push_back(data);
            }
        }
        let body = if more {
            Body::Done
        } else {
            // The rest of the request's body is of no use now: hyper drains or closes.
            inner.close_body(state)
        };
        state.full = more && state.queued >= inner.link.limits().high_water;
        let flow = if state.full { Flow::Full } else { Flow::Ready };
        drop(guard);
        drop(body);
        inner.link.wake();
        Ok(flow)
    }

    /// Ends the response; the same as an empty last chunk.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn finish(&self) -> Result<(), SendError> {
        self.send_chunk(Bytes::new(), false).map(|_| ())
    }

    /// Breaks the response off: the connection is closed, so that the client can tell that
    /// something is missing. Nothing happens once the response is complete.
    pub fn abort(&self) {
        self.0.abort();
    }
}

impl Clone for Exchange {
    fn clone(&self) -> Self {
        self.0.handles.set(self.0.handles.get() + 1);
        Exchange(Rc::clone(&self.0))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let left = self.0.handles.get() - 1;
        self.0.handles.set(left);
        if left == 0 {
            self.0.forsaken();
        }
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("tag", &self.tag())
            .field("started", &self.is_started())
            .field("complete", &self.is_complete())
            .field("gone", &self.is_gone())
            .finish_non_exhaustive()
    }
}

fn last(data: Bytes) -> BodyPoll {
    BodyPoll::Chunk { data, more: false }
}

fn parse_length(value: &HeaderValue) -> Option<u64> {
    let text = value.as_bytes();
    // `str::parse` would take a leading plus sign.
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

impl Inner {
    pub(crate) fn same(&self, other: &Inner) -> bool {
        std::ptr::eq(self, other)
    }

    /// Body that was waited for may be there.
    pub(crate) fn body_arrived(&self) {
        let wanted = std::mem::take(&mut self.state.borrow_mut().body_wanted);
        if wanted {
            self.notify(Event::Body);
        }
    }

    fn notify(&self, event: Event) {
        self.link.service().notify(self.tag.get(), event);
    }

    /// Takes the body out, to be dropped once the state is free again.
    fn close_body(&self, state: &mut State) -> Body {
        state.body_wanted = false;
        let body = std::mem::replace(&mut state.body, Body::Done);
        if let Body::Open(_) = body {
            self.link.set_unread();
        }
        body
    }

    fn abort(&self) {
        let mut state = self.state.borrow_mut();
        if state.complete || state.aborted || state.gone {
            return;
        }
        state.aborted = true;
        state.first = None;
        state.queue.clear();
        let body = self.close_body(&mut state);
        if self.version < Version::HTTP_11 && matches!(state.stage, Stage::Flowing) {
            // The close is the end of such a body, if it comes in good order.
            self.link.set_reset();
        }
        drop(state);
        drop(body);
        self.link.wake();
    }

    /// Answers in the application's stead, if it has not begun to.
    pub(crate) fn reject(&self, status: StatusCode) {
        let mut state = self.state.borrow_mut();
        if matches!(state.stage, Stage::Waiting | Stage::Head(..)) && !state.begun {
            let mut headers = HeaderMap::new();
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
            state.stage = Stage::Head(status, headers);
            (state.begun, state.complete) = (true, true);
            (state.length, state.sent) = (None, 0);
        } else if !state.complete {
            state.aborted = true;
        }
        state.gone = true;
        let body = self.close_body(&mut state);
        drop(state);
        drop(body);
        self.link.wake();
    }

    /// The application can no longer answer.
    fn forsaken(&self) {
        let (unanswered, open) = {
            let state = self.state.borrow();
            let open = !(state.complete || state.aborted || state.gone);
            (!state.begun, open)
        };
        match (open, unanswered) {
            (true, true) => self.reject(StatusCode::INTERNAL_SERVER_ERROR),
            (true, false) => self.abort(),
            _ => {}
        }
    }

    /// The connection has dropped the wait for the response; nothing is lost if it was taken.
    pub(crate) fn dropped_unanswered(&self) {
        let unanswered = {
            let state = self.state.borrow();
            matches!(state.stage, Stage::Waiting | Stage::Head(..))
        };
        if unanswered {
            self.released();
        }
    }

    /// The connection has dropped its side: all was taken, or the client has gone.
    pub(crate) fn released(&self) {
        let mut state = self.state.borrow_mut();
        if matches!(state.stage, Stage::Over) {
            return;
        }
        let taken = matches!(state.stage, Stage::Flowing) && state.queued == 0;
        let lost = !(state.aborted || state.gone || (state.complete && taken));
        state.stage = Stage::Over;
        state.gone |= lost;
        state.first = None;
        state.queue.clear();
        let body = self.close_body(&mut state);
        drop(state);
        drop(body);
        self.link.end(self);
        if lost {
            self.notify(Event::Gone);
        }
    }

    /// The response for hyper, once there is one.
    pub(crate) fn poll_response(self: &Rc<Self>) -> Poll<Result<Response<ResponseBody>, Aborted>> {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        if state.aborted {
            return Poll::Ready(Err(Aborted));
        }
        if !state.begun {
            return Poll::Pending;
        }
        let Stage::Head(status, mut headers) = std::mem::replace(&mut state.stage, Stage::Flowing)
        else {
            return Poll::Ready(Err(Aborted));
        };
        let body = if state.bodyless {
            if self.head_request && state.complete && state.length.is_none() {
                // What GET would say.
                headers.insert(CONTENT_LENGTH, HeaderValue::from(state.sent));
            }
            ResponseBody::Full(Bytes::new())
        } else if state.complete && state.queue.is_empty() {
            ResponseBody::Full(state.first.take().unwrap_or_default())
        } else {
            if state.complete {
                state.length = Some(state.sent);
            }
            ResponseBody::Stream(Rc::clone(self))
        };
        if let ResponseBody::Full(_) = body {
            state.queued = 0;
            state.stage = Stage::Over;
            let rest = self.close_body(state);
            drop(guard);
            drop(rest);
            self.link.end(self);
        } else {
            drop(guard);
        }
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Poll::Ready(Ok(response))
    }

    /// Whether hyper has all of the response's body.
    pub(crate) fn is_end(&self) -> bool {
        let state = self.state.borrow();
        state.complete && state.queued == 0 && !state.aborted
    }

    /// The response's length, if it is known.
    pub(crate) fn length(&self) -> Option<u64> {
        self.state.borrow().length
    }

    pub(crate) fn poll_chunk(&self) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let mut state = self.state.borrow_mut();
        if state.aborted {
            return Poll::Ready(Some(Err(Aborted)));
        }
        let first = state.first.take();
        let Some(data) = first.or_else(|| state.queue.pop_front()) else {
            return if state.complete {
                Poll::Ready(None)
            } else {
                Poll::Pending
            };
        };
        state.queued -= data.len();
        let writable = state.full && state.queued <= self.link.limits().low_water;
        if writable {
            state.full = false;
            drop(state);
            self.notify(Event::Writable);
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}
