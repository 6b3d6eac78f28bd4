//! What a request's body is read from: a message of HTTP/1, or a stream of HTTP/2. How long a body is said
//! to be.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::header::HeaderValue;

use crate::http2::Upload;

/// What a request's body is read from.
pub(crate) enum RequestBody {
    None,
    Message(Incoming),
    Stream(Upload),
}

impl RequestBody {
    pub(super) fn is_over(&self) -> bool {
        match self {
            RequestBody::None => true,
            RequestBody::Message(body) => body.is_end_stream(),
            RequestBody::Stream(body) => body.is_over(),
        }
    }

    pub(super) fn length(&self) -> Option<u64> {
        match self {
            RequestBody::None => Some(0),
            RequestBody::Message(body) => body.size_hint().exact(),
            RequestBody::Stream(body) => body.length(),
        }
    }

    /// The next bytes, if they are not its end; trailers are passed over, as ASGI has no place for them.
    pub(super) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Broken>>> {
        match self {
            RequestBody::None => Poll::Ready(None),
            RequestBody::Message(body) => loop {
                let frame = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                    Some(Ok(frame)) => frame,
                    Some(Err(_)) => return Poll::Ready(Some(Err(Broken))),
                    None => return Poll::Ready(None),
                };
                match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Poll::Ready(Some(Ok(data))),
                    _ => {}
                }
            },
            RequestBody::Stream(body) => {
                let data = ready!(body.poll_data(cx));
                Poll::Ready(data.map(|data| data.map_err(|_| Broken)))
            }
        }
    }
}

/// A body was broken off, or is malformed.
pub(super) struct Broken;

/// `content-length`: digits alone.
pub(crate) fn parse_length(value: &HeaderValue) -> Option<u64> {
    let text = value.as_bytes();
    // `str::parse` would take a leading plus sign.
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}
