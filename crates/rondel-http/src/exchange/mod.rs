//! One request and its response, between the application and the connection.
//!
//! ```text
//!   application                      Exchange                        connection (hyper)
//!   ───────────                      ────────                        ──────────────────
//!   poll_body  ◄──── Chunk / Pending ─── Body ◄───────────────────── Incoming (one chunk at most)
//!        ▲  Event::Body when it was Pending
//!   start ─────────► Stage::Head
//!   send_chunk, send_file ► queue, complete ─ taken at the next poll ► head, frames
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

mod body;
mod coding;
mod connection;
mod interim;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::ext::ReasonPhrase;
use hyper::header::{
    CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, SERVER, TRANSFER_ENCODING,
};
use hyper::{StatusCode, Version};
use rondel_core::clock;

use body::Broken;
pub(crate) use body::{RequestBody, parse_length};
use coding::Offer;
pub(crate) use interim::{Interim, MOST_INTERIM};

use crate::compress::{Coding, Encoder};
use crate::conn::Link;
use crate::file::{FilePart, Piece};
use crate::http2::StreamSide;
use crate::outcome::{BodyPoll, Flow, SendError};

/// The request's body.
enum Body {
    /// There is none, and its end was not handed out yet.
    Empty,
    Open(RequestBody),
    Done,
}

/// The response; see the module's picture.
enum Stage {
    Waiting,
    Head(StatusCode, Option<Box<ReasonPhrase>>, HeaderMap),
    Flowing,
    Over,
}

/// What follows the response's body.
enum Trailers {
    None,
    /// Some were promised, and the body goes on.
    Promised,
    /// The body is over.
    Due,
    Given(HeaderMap),
}

struct State {
    body: Body,
    /// Bytes of the body handed out.
    received: u64,
    /// Poll of the body was `Pending`.
    body_wanted: bool,
    /// Since when.
    body_wanted_since: u64,
    /// Nanoseconds for which the application has waited for body before that.
    body_waited: u64,
    stage: Stage,
    /// The response's first chunk while no other is queued: most responses need no deque.
    first: Option<Piece>,
    queue: VecDeque<Piece>,
    /// Bytes in `first` and `queue`.
    queued: u64,
    /// Body bytes accepted from the application.
    sent: u64,
    /// The response's length, if its head says so.
    length: Option<u64>,
    /// The status or the method rules a body out.
    bodyless: bool,
    /// The first body message came, so the head can go.
    begun: bool,
    trailers: Trailers,
    /// The application sent all.
    complete: bool,
    /// `Full` was told.
    full: bool,
    /// Cut off by the application or by a broken promise.
    aborted: bool,
    /// Since it was cut off, hyper has had a chance to write what it was given before.
    flushed: bool,
    /// The client has gone, or was turned away.
    gone: bool,
    /// What it was turned away with, in the application's stead.
    instead: Option<StatusCode>,
    /// Set where the server compresses.
    coding: Option<Offer>,
    /// The head says that the body is in a coding: its length on the wire is not that given.
    coded: bool,
    encoder: Option<Encoder>,
    /// A header for the response, unless the application gives one of that name.
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

impl State {
    /// Nanoseconds for which the application has waited for body.
    fn waited(&self) -> u64 {
        let now = if self.body_wanted {
            clock::coarse().saturating_sub(self.body_wanted_since)
        } else {
            0
        };
        self.body_waited + now
    }

    fn add_header(&self, headers: &mut HeaderMap) {
        if let Some(header) = &self.header {
            let (name, value) = &**header;
            headers.entry(name).or_insert_with(|| value.clone());
        }
    }
}

pub(crate) struct Inner {
    link: Rc<Link>,
    tag: Cell<u64>,
    /// The application's `Exchange` values; at 0 nobody can answer any more.
    handles: Cell<usize>,
    head_request: bool,
    version: Version,
    /// Set where the connection has others beside it.
    stream: Option<Box<StreamSide>>,
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
        body: RequestBody,
    ) -> Self {
        let body = if body.is_over() {
            Body::Empty
        } else {
            Body::Open(body)
        };
        let stream = link.streams().map(|all| Box::new(StreamSide::new(all)));
        Exchange(Rc::new(Inner {
            link,
            stream,
            tag: Cell::new(0),
            handles: Cell::new(1),
            head_request,
            version,
            state: RefCell::new(State {
                body,
                received: 0,
                body_wanted: false,
                body_wanted_since: 0,
                body_waited: 0,
                stage: Stage::Waiting,
                first: None,
                queue: VecDeque::new(),
                queued: 0,
                sent: 0,
                length: None,
                bodyless: false,
                begun: false,
                trailers: Trailers::None,
                complete: false,
                full: false,
                aborted: false,
                flushed: false,
                gone: false,
                instead: None,
                coding: None,
                coded: false,
                encoder: None,
                header: None,
            }),
        }))
    }

    pub(crate) fn inner(&self) -> Rc<Inner> {
        Rc::clone(&self.0)
    }

    pub(crate) fn link(&self) -> &Rc<Link> {
        &self.0.link
    }

    pub(crate) fn has_body(&self) -> bool {
        matches!(self.0.state.borrow().body, Body::Open(_))
    }

    /// The body's length, if the request's head says so.
    pub(crate) fn body_length(&self) -> Option<u64> {
        match &self.0.state.borrow().body {
            Body::Open(body) => body.length(),
            _ => None,
        }
    }

    /// Names the exchange in [`crate::Service::notify`].
    pub fn set_tag(&self, tag: u64) {
        self.0.tag.set(tag);
    }

    /// Puts a header into the response, whoever gives it, unless that has one of the same name.
    pub fn set_header(&self, name: HeaderName, value: HeaderValue) {
        self.0.state.borrow_mut().header = Some(Box::new((name, value)));
    }

    /// The response goes out in the coding that it is given in.
    pub(crate) fn keep_coding(&self) {
        self.0.state.borrow_mut().coding = None;
    }

    /// The response may go out in this coding, or in none although the server has some.
    pub(crate) fn offer(&self, coding: Option<Coding>) {
        self.0.state.borrow_mut().coding = Some(Offer(coding));
    }

    /// Bytes of the response's body that were accepted; none where it has no body (`HEAD`, 204, 304).
    #[must_use]
    pub fn sent(&self) -> u64 {
        let state = self.0.state.borrow();
        if state.bodyless { 0 } else { state.sent }
    }

    #[must_use]
    pub fn tag(&self) -> u64 {
        self.0.tag.get()
    }

    /// The request's.
    #[must_use]
    pub fn version(&self) -> Version {
        self.0.version
    }

    /// Whether the client has gone (or was turned away for a bad or too large body).
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.0.state.borrow().gone
    }

    /// The status that the client was answered with in the application's stead.
    #[must_use]
    pub fn answered_instead(&self) -> Option<u16> {
        let instead = self.0.state.borrow().instead;
        instead.map(|status| status.as_u16())
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
        let body = match &mut state.body {
            Body::Open(body) => body,
            Body::Done => return BodyPoll::End,
            Body::Empty => {
                state.body = Body::Done;
                return last(Bytes::new());
            }
        };
        let mut cx = Context::from_waker(inner.body_waker());
        let data = match body.poll_data(&mut cx) {
            Poll::Pending => {
                if !std::mem::replace(&mut state.body_wanted, true) {
                    state.body_wanted_since = clock::coarse();
                }
                if let Some(stream) = &inner.stream {
                    stream.body_wanted();
                }
                return BodyPoll::Pending;
            }
            Poll::Ready(Some(Ok(data))) => data,
            Poll::Ready(None) => {
                state.body = Body::Done;
                return last(Bytes::new());
            }
            Poll::Ready(Some(Err(Broken))) => {
                // If somebody is still there, 400 tells.
                drop(guard);
                inner.reject(StatusCode::BAD_REQUEST);
                return BodyPoll::Gone;
            }
        };
        state.received += data.len() as u64;
        if let Some(stream) = &inner.stream {
            stream.body_came(state.received, state.body_waited, inner.link.limits());
        }
        if (inner.link.limits().body_bytes).is_some_and(|most| state.received > most) {
            drop(guard);
            inner.reject(StatusCode::PAYLOAD_TOO_LARGE);
            return BodyPoll::Gone;
        }
        if body.is_over() {
            state.body = Body::Done;
            return last(data);
        }
        BodyPoll::Chunk { data, more: true }
    }

    /// Gives the response's head; it is sent along with the first part of the body.
    ///
    /// # Errors
    /// See [`SendError`]; the exchange is as before.
    pub fn start(&self, status: u16, headers: HeaderMap) -> Result<(), SendError> {
        self.start_as(status, None, headers)
    }

    /// The same, with words of the application's own for the status, which HTTP/1 has.
    ///
    /// # Errors
    /// See [`SendError`]; the exchange is as before.
    pub fn start_as(
        &self,
        status: u16,
        reason: Option<Box<ReasonPhrase>>,
        mut headers: HeaderMap,
    ) -> Result<(), SendError> {
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
        if inner.stream.as_ref().is_some_and(|it| it.is_connect()) && status.is_success() {
            return Err(SendError::Accepts);
        }
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
        state.add_header(&mut headers);
        state.bodyless = inner.head_request
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED;
        state.length = length;
        state.stage = Stage::Head(status, reason, headers);
        Ok(())
    }

    /// Gives a part of the response's body, the last one with `more` false; it is not copied.
    /// What a response without a body is given anyway (`HEAD`, 204, 304) is dropped.
    ///
    /// # Errors
    /// See [`SendError`]. After `TooLong` and `TooShort` the exchange is over.
    pub fn send_chunk(&self, data: Bytes, more: bool) -> Result<Flow, SendError> {
        self.send(Piece::Data(data), more)
    }

    /// Gives a part of a file as a part of the response's body; the system sends it from where it
    /// lies. Until the connection has taken it up, its bytes count as queued.
    ///
    /// # Errors
    /// See [`SendError`]. After `TooLong` and `TooShort` the exchange is over.
    pub fn send_file(&self, part: FilePart, more: bool) -> Result<Flow, SendError> {
        let link = &self.0.link;
        let reset = self.0.version < Version::HTTP_11;
        self.send(Piece::file(part, link.lane(), reset), more)
    }

    fn send(&self, data: Piece, more: bool) -> Result<Flow, SendError> {
        let inner = &*self.0;
        let mut guard = inner.state.borrow_mut();
        let state = &mut *guard;
        if state.gone {
            return Err(SendError::Gone);
        }
        if state.complete || state.aborted || matches!(state.trailers, Trailers::Due) {
            return Err(SendError::AfterEnd);
        }
        if matches!(state.stage, Stage::Waiting) {
            return Err(SendError::NotStarted);
        }
        state.sent += data.len();
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
        if !state.begun {
            state.settle_coding(&data, more, inner.link.least_compressed());
        }
        state.begun = true;
        let Ok(data) = state.encode(data, more) else {
            drop(guard);
            inner.abort();
            return Err(SendError::Unreadable);
        };
        let trailing = !more && matches!(state.trailers, Trailers::Promised);
        if trailing {
            state.trailers = Trailers::Due;
        }
        state.complete = !more && !trailing;
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
        state.full = more && state.queued >= inner.link.limits().high_water as u64;
        let flow = if state.full { Flow::Full } else { Flow::Ready };
        drop(guard);
        drop(body);
        inner.wake();
        Ok(flow)
    }

    /// Before the body: trailers will follow it, by `finish_with`. The response ends with those.
    pub fn promise_trailers(&self) {
        let mut state = self.0.state.borrow_mut();
        if !state.begun && !state.bodyless {
            state.trailers = Trailers::Promised;
        }
    }

    /// Whether trailers were promised and not given yet.
    #[must_use]
    pub fn owes_trailers(&self) -> bool {
        let state = self.0.state.borrow();
        matches!(state.trailers, Trailers::Promised | Trailers::Due)
    }

    /// Ends a response whose body is over with the trailers that were promised. A client of HTTP/1 gets
    /// those that the `trailer` header names, if it asked for any (`te: trailers`) and the length was
    /// not known; a client of HTTP/2 all of them.
    ///
    /// # Errors
    /// See [`SendError`]; `NotStarted` if the body is not over.
    pub fn finish_with(&self, trailers: HeaderMap) -> Result<(), SendError> {
        let inner = &*self.0;
        let mut state = inner.state.borrow_mut();
        if state.gone {
            return Err(SendError::Gone);
        }
        if state.complete || state.aborted {
            return Err(SendError::AfterEnd);
        }
        if !matches!(state.trailers, Trailers::Due) {
            return Err(SendError::NotStarted);
        }
        state.trailers = Trailers::Given(trailers);
        state.complete = true;
        let body = inner.close_body(&mut state);
        drop(state);
        drop(body);
        inner.wake();
        Ok(())
    }

    /// Ends the response; the same as an empty last chunk.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn finish(&self) -> Result<(), SendError> {
        self.send_chunk(Bytes::new(), false).map(|_| ())
    }

    /// Whether the application waits for the request's body, which is the client's to send.
    #[must_use]
    pub fn waits_for_body(&self) -> bool {
        self.0.state.borrow().body_wanted
    }

    /// Answers in the application's stead, or breaks off what that has begun; for the application
    /// the client has gone, which is not told to the service.
    pub fn refuse(&self, status: StatusCode) {
        if !self.is_complete() && !self.is_gone() {
            self.0.reject(status);
        }
    }

    /// Breaks the response off: what was given so far is sent, then the connection is closed, so
    /// that the client can tell that something is missing. Nothing happens once the response is
    /// complete.
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
