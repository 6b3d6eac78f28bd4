//! The connection's side of an exchange: hyper takes the response out of it, and says when the body has
//! come or the client has gone. The picture and the discipline are the parent's.

use super::{Body, Exchange, Inner, Stage, State, Trailers};
use crate::conn::Link;
use crate::file::Piece;
use crate::http2::StreamSide;
use crate::outcome::SendError;
use crate::response::{Aborted, ResponseBody};
use crate::service::Event;
use crate::ws::Gate;
use http_body::Frame;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION, SERVER, TRANSFER_ENCODING,
};
use hyper::{Response, StatusCode, Version};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

impl Inner {
    pub(crate) fn same(&self, other: &Inner) -> bool {
        std::ptr::eq(self, other)
    }

    /// Has whoever takes the response polled: the stream, or the connection.
    pub(crate) fn wake(&self) {
        match &self.stream {
            None => self.link.wake(),
            Some(stream) => stream.wake(),
        }
    }

    /// The stream's future asks; a connection of HTTP/1 is known to its link.
    pub(crate) fn asked_by(&self, cx: &Context<'_>) {
        if let Some(stream) = &self.stream {
            stream.set_waker(cx.waker());
        }
    }

    pub(super) fn body_waker(&self) -> &Waker {
        match &self.stream {
            None => self.link.body_waker(),
            Some(stream) => stream.body_waker(),
        }
    }

    /// What of this is a stream's.
    pub(crate) fn stream(&self) -> Option<&StreamSide> {
        self.stream.as_deref()
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Whether body has come since it was asked.
    pub(crate) fn take_news(&self) -> bool {
        (self.stream.as_ref()).is_some_and(|stream| stream.take_news())
    }

    /// Body that was waited for may be there.
    pub(crate) fn body_arrived(&self) {
        let wanted = {
            let mut state = self.state.borrow_mut();
            state.body_waited = state.waited();
            std::mem::take(&mut state.body_wanted)
        };
        if wanted {
            self.notify(Event::Body);
        }
    }

    /// Whether the request's body has not come to its end.
    pub(crate) fn has_open_body(&self) -> bool {
        matches!(self.state.borrow().body, Body::Open(_))
    }

    /// Nanoseconds for which the application has waited for parts of the body.
    pub(crate) fn body_waited(&self) -> u64 {
        self.state.borrow().waited()
    }

    /// Nanoseconds that a client has left whose body, on a stream of HTTP/2, the application waits for;
    /// `None` if it does not.
    pub(crate) fn body_left(&self, limit: u64) -> Option<u64> {
        let stream = self.stream.as_ref()?;
        let state = self.state.borrow();
        let waited = state.waited().saturating_sub(stream.waited_before());
        state.body_wanted.then(|| limit.saturating_sub(waited))
    }

    /// The client took too long: it is answered, or cut off, and the application told.
    pub(crate) fn give_up(&self, status: StatusCode) {
        self.reject(status);
        self.notify(Event::Gone);
    }

    pub(super) fn notify(&self, event: Event) {
        self.link.service().notify(self.tag.get(), event);
    }

    /// Takes the body out, to be dropped once the state is free again.
    pub(super) fn close_body(&self, state: &mut State) -> Body {
        state.body_wanted = false;
        let body = std::mem::replace(&mut state.body, Body::Done);
        if let Body::Open(_) = body {
            self.link.set_unread();
        }
        body
    }

    pub(super) fn abort(&self) {
        let mut state = self.state.borrow_mut();
        if state.complete || state.aborted || state.gone {
            return;
        }
        state.aborted = true;
        let body = self.close_body(&mut state);
        if self.version < Version::HTTP_11 && matches!(state.stage, Stage::Flowing) {
            // The close is the end of such a body, if it comes in good order.
            self.link.set_reset();
        }
        drop(state);
        drop(body);
        self.wake();
    }

    /// Answers in the application's stead, if it has not begun to.
    pub(crate) fn reject(&self, status: StatusCode) {
        self.answer_instead(status, HeaderMap::new());
    }

    /// Sends the client elsewhere.
    pub(crate) fn redirect(&self, location: HeaderValue) {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, location);
        self.answer_instead(StatusCode::PERMANENT_REDIRECT, headers);
    }

    pub(crate) fn answer_instead(&self, status: StatusCode, mut headers: HeaderMap) {
        let mut state = self.state.borrow_mut();
        if matches!(state.stage, Stage::Waiting | Stage::Head(..)) && !state.begun {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
            if let Some(server) = self.link.server_header() {
                headers.entry(SERVER).or_insert_with(|| server.clone());
            }
            state.add_header(&mut headers);
            state.instead = Some(status);
            state.stage = Stage::Head(status, None, headers);
            (state.begun, state.complete) = (true, true);
            (state.length, state.sent) = (None, 0);
        } else if !state.complete {
            state.aborted = true;
        }
        state.gone = true;
        let body = self.close_body(&mut state);
        drop(state);
        drop(body);
        self.wake();
    }

    /// The application can no longer answer.
    pub(super) fn forsaken(&self) {
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
            if let Some(streams) = self.link.streams() {
                streams.lost_one();
            }
            // Accepted for a peer that has gone.
            self.link.forget_upgrade();
            self.notify(Event::Gone);
        }
    }

    /// The response for hyper, once there is one.
    pub(crate) fn poll_response(self: &Rc<Self>) -> Poll<Result<Response<ResponseBody>, Aborted>> {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        if !state.begun || self.link.interim.is_due() {
            return if state.aborted && !state.begun {
                Poll::Ready(Err(Aborted))
            } else {
                Poll::Pending
            };
        }
        let Stage::Head(status, reason, mut headers) =
            std::mem::replace(&mut state.stage, Stage::Flowing)
        else {
            return Poll::Ready(Err(Aborted));
        };
        if self.link.came_early() && status != StatusCode::SWITCHING_PROTOCOLS {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let body = if state.bodyless {
            let unknown = state.length.is_none() && !state.coded;
            if self.head_request && state.complete && unknown {
                // What GET would say.
                headers.insert(CONTENT_LENGTH, HeaderValue::from(state.sent));
            }
            ResponseBody::Full(Piece::empty())
        } else if state.complete
            && state.queue.is_empty()
            && matches!(state.trailers, Trailers::None)
            && !self.reads(state.first.as_ref())
        {
            ResponseBody::Full(state.first.take().unwrap_or_else(Piece::empty))
        } else {
            if state.complete && !state.coded && matches!(state.trailers, Trailers::None) {
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
        if let Some(reason) = reason {
            response.extensions_mut().insert(*reason);
        }
        Poll::Ready(Ok(response))
    }

    /// Whether hyper has all of the response's body.
    pub(crate) fn is_end(&self) -> bool {
        let state = self.state.borrow();
        let trailing = matches!(state.trailers, Trailers::Given(_));
        state.complete && state.queued == 0 && !state.aborted && !trailing
    }

    /// The response's length, if it is known.
    pub(crate) fn length(&self) -> Option<u64> {
        let state = self.state.borrow();
        state.length.filter(|_| !state.coded)
    }

    pub(crate) fn poll_chunk(&self) -> Poll<Option<Result<Frame<Piece>, Aborted>>> {
        let mut state = self.state.borrow_mut();
        let first = state.first.take();
        let Some(mut data) = first.or_else(|| state.queue.pop_front()) else {
            if state.aborted {
                if state.flushed {
                    return Poll::Ready(Some(Err(Aborted)));
                }
                // An error makes hyper drop what it has not written: it writes before it asks again.
                state.flushed = true;
                drop(state);
                self.wake();
                return Poll::Pending;
            }
            return if state.complete {
                if let Trailers::Given(trailers) =
                    std::mem::replace(&mut state.trailers, Trailers::None)
                {
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Poll::Ready(None)
            } else {
                Poll::Pending
            };
        };
        if self.reads(Some(&data)) {
            match self.read(&mut data) {
                Some(part) => {
                    let rest = std::mem::replace(&mut data, part);
                    if !rest.is_empty() {
                        state.queue.push_front(rest);
                    }
                }
                None => {
                    state.aborted = true;
                    return Poll::Ready(Some(Err(Aborted)));
                }
            }
        }
        state.queued -= data.len();
        let writable = state.full && state.queued <= self.link.limits().low_water as u64;
        if writable {
            state.full = false;
            drop(state);
            self.notify(Event::Writable);
        }
        Poll::Ready(Some(Ok(Frame::data(data.handed_over()))))
    }

    /// Whether this is a file that has to be read: TLS and HTTP/2 need its bytes.
    fn reads(&self, piece: Option<&Piece>) -> bool {
        matches!(piece, Some(Piece::File(_))) && self.link.reads_files()
    }

    /// The next part of a file; `None` if it has none, which was reported.
    fn read(&self, file: &mut Piece) -> Option<Piece> {
        match file.read_part() {
            Ok(part) => Some(part),
            Err(error) => {
                self.link.file_failed(&error);
                None
            }
        }
    }
}

impl Exchange {
    /// Answers 101, with which hyper's part of the connection ends; or what a stream of HTTP/2, whose
    /// bytes then go through `gate`, is answered with.
    ///
    /// # Errors
    /// If a response was begun, or the client has gone.
    pub(crate) fn switch_protocols(
        &self,
        status: StatusCode,
        mut headers: HeaderMap,
        gate: Option<Rc<Gate>>,
    ) -> Result<(), SendError> {
        let inner = &*self.0;
        let mut state = inner.state.borrow_mut();
        if state.gone {
            return Err(SendError::Gone);
        }
        if !matches!(state.stage, Stage::Waiting) {
            return Err(SendError::AlreadyStarted);
        }
        headers.remove(CONTENT_LENGTH);
        headers.remove(TRANSFER_ENCODING);
        if let Some(server) = inner.link.server_header() {
            headers.entry(SERVER).or_insert_with(|| server.clone());
        }
        state.add_header(&mut headers);
        state.stage = Stage::Head(status, None, headers);
        if let Some(stream) = &inner.stream {
            stream.set_gate(gate);
        }
        (state.begun, state.complete, state.bodyless) = (true, true, true);
        Ok(())
    }
}
