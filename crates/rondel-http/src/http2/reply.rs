//! A stream's future: heads before the response, the response, its body.
//!
//! A part of the body is asked for only when the one before has a place in h2's queue, which takes as
//! many bytes as [`crate::Limits::high_water`]. A stream that the client resets ends here: dropping the
//! answer tells the application.

use std::future::Future;
use std::io::IoSlice;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http_body::Body as _;
use hyper::Response;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, DATE, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE,
};

use crate::conn::Answer;
use crate::file::Piece;
use crate::response::ResponseBody;
use crate::ws::Gate;

/// What of HTTP/1 is a connection's affair (RFC 9113, 8.2.2); besides what `Connection` names.
static CONNECTIONS: [HeaderName; 5] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
    UPGRADE,
    TE,
];

/// Bytes as h2 holds them: those of a response, or a tunnel's, which are counted until it has written them.
pub(crate) enum Out {
    Piece(Piece),
    Counted(Bytes, Rc<Gate>),
}

impl Out {
    /// A tunnel's bytes.
    pub(crate) fn counted(data: Bytes, gate: &Rc<Gate>) -> Out {
        gate.count(data.len());
        Out::Counted(data, Rc::clone(gate))
    }

    /// Nothing, for the end of a stream.
    pub(crate) fn end() -> Out {
        Out::Piece(Piece::empty())
    }
}

impl Buf for Out {
    fn remaining(&self) -> usize {
        match self {
            Out::Piece(piece) => piece.remaining(),
            Out::Counted(data, _) => data.len(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Out::Piece(piece) => piece.chunk(),
            Out::Counted(data, _) => data,
        }
    }

    fn advance(&mut self, n: usize) {
        match self {
            Out::Piece(piece) => piece.advance(n),
            Out::Counted(data, gate) => {
                data.advance(n);
                gate.written(n);
            }
        }
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        match self {
            Out::Piece(piece) => piece.chunks_vectored(dst),
            Out::Counted(data, _) => data.chunks_vectored(dst),
        }
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        if let Out::Counted(data, gate) = self {
            // Never to be written: the stream was reset.
            gate.written(data.len());
        }
    }
}

enum Stage {
    /// For a CONNECT, with what the tunnel would read.
    Waiting(Answer, Option<RecvStream>),
    Body(ResponseBody, SendStream<Out>, Option<(Piece, bool)>),
}

/// The future of a stream.
pub(super) struct Reply {
    respond: SendResponse<Out>,
    stage: Stage,
}

/// How a stream's future ended; what is to be told of it was told.
struct Over;

impl Reply {
    pub(super) fn new(
        answer: Answer,
        respond: SendResponse<Out>,
        tunnel: Option<RecvStream>,
    ) -> Self {
        Reply {
            respond,
            stage: Stage::Waiting(answer, tunnel),
        }
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        let Stage::Waiting(answer, tunnel) = &mut self.stage else {
            return Poll::Ready(Over);
        };
        let polled = Pin::new(&mut *answer).poll(cx);
        for head in answer.interim() {
            // The stream is over, which is seen below.
            let _ended = self.respond.send_informational(head);
        }
        let response = match polled {
            Poll::Ready(Ok(response)) => response,
            Poll::Ready(Err(_aborted)) => {
                self.respond.send_reset(Reason::INTERNAL_ERROR);
                return Poll::Ready(Over);
            }
            Poll::Pending => {
                ready!(self.respond.poll_reset(cx)).ok();
                return Poll::Ready(Over);
            }
        };
        let (mut head, body) = response.into_parts();
        strip(&mut head.headers);
        if let Some(date) = answer.date() {
            head.headers.entry(DATE).or_insert(date);
        }
        if let Some(gate) = answer.take_gate()
            && let Some(receive) = tunnel.take()
        {
            let sent = self
                .respond
                .send_response(Response::from_parts(head, ()), false);
            match sent {
                Ok(send) => gate.open(send, receive),
                Err(_) => gate.shut(),
            }
            return Poll::Ready(Over);
        }
        let end = body.is_end_stream();
        if !end && let Some(length) = body.size_hint().exact() {
            let length = || HeaderValue::from(length);
            head.headers.entry(CONTENT_LENGTH).or_insert_with(length);
        }
        match self
            .respond
            .send_response(Response::from_parts(head, ()), end)
        {
            Ok(stream) if !end => {
                self.stage = Stage::Body(body, stream, None);
                Poll::Pending
            }
            Ok(_) => Poll::Ready(Over),
            Err(_) => {
                self.respond.send_reset(Reason::INTERNAL_ERROR);
                Poll::Ready(Over)
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Over, h2::Error>> {
        let Stage::Body(body, stream, held) = &mut self.stage else {
            return Poll::Pending;
        };
        loop {
            if let Poll::Ready(reason) = stream.poll_reset(cx)? {
                return Poll::Ready(Err(reason.into()));
            }
            if let Some((piece, end)) = held.take() {
                while stream.capacity() == 0 {
                    let Poll::Ready(room) = stream.poll_capacity(cx) else {
                        *held = Some((piece, end));
                        return Poll::Pending;
                    };
                    if room.transpose()?.is_none() {
                        // Over, one way or the other.
                        return Poll::Ready(Ok(Over));
                    }
                }
                stream.send_data(Out::Piece(piece), end)?;
                if end {
                    return Poll::Ready(Ok(Over));
                }
            }
            match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => {
                        let end = body.is_end_stream();
                        if piece.is_empty() {
                            stream.send_data(Out::Piece(piece), end)?;
                            if end {
                                return Poll::Ready(Ok(Over));
                            }
                            continue;
                        }
                        // Of the connection's window no more than has to be: what one stream has
                        // reserved, others can't have, and h2 asks for the rest by itself.
                        stream.reserve_capacity(1);
                        *held = Some((piece, end));
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            stream.reserve_capacity(0);
                            stream.send_trailers(trailers)?;
                            return Poll::Ready(Ok(Over));
                        }
                    }
                },
                Some(Err(_aborted)) => {
                    stream.send_reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(Ok(Over));
                }
                None => {
                    stream.send_data(Out::end(), true)?;
                    return Poll::Ready(Ok(Over));
                }
            }
        }
    }
}

impl Future for Reply {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Stage::Waiting(..) = this.stage {
            let polled = this.poll_answer(cx);
            if polled.is_ready() {
                return Poll::Ready(());
            }
        }
        // What has failed, the client has reset, or the connection has ended: which is told otherwise.
        this.poll_body(cx).map(|_over| ())
    }
}

fn strip(headers: &mut HeaderMap) {
    for name in &CONNECTIONS {
        headers.remove(name);
    }
    if let Some(connection) = headers.remove(CONNECTION)
        && let Ok(names) = connection.to_str()
    {
        for name in names.split(',') {
            headers.remove(name.trim());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_a_connection_of_http_1_is_left_out() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Hop"),
            ("keep-alive", "timeout=5"),
            ("x-hop", "1"),
            ("upgrade", "h2c"),
            ("te", "trailers"),
            ("content-type", "text/plain"),
        ] {
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        strip(&mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers["content-type"], "text/plain");
    }
}
