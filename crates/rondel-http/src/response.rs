//! A response's body as hyper takes it: whole, or part by part from the exchange.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http_body::{Frame, SizeHint};

use crate::exchange::Inner;
use crate::file::Piece;

/// The application ended the response in the middle; closes the connection within hyper.
#[derive(Debug)]
pub(crate) struct Aborted;

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the application aborted the response")
    }
}

impl std::error::Error for Aborted {}

/// The response's body as hyper takes it.
pub(crate) enum ResponseBody {
    /// All there is.
    Full(Piece),
    /// As it comes.
    Stream(Rc<Inner>),
}

impl http_body::Body for ResponseBody {
    type Data = Piece;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Aborted>>> {
        match &mut *self {
            ResponseBody::Full(data) if data.is_empty() => Poll::Ready(None),
            ResponseBody::Full(data) => {
                let data = std::mem::replace(data, Piece::empty()).handed_over();
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            ResponseBody::Stream(inner) => {
                inner.asked_by(cx);
                inner.poll_chunk()
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Full(data) => data.is_empty(),
            ResponseBody::Stream(inner) => inner.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Full(data) => SizeHint::with_exact(data.len()),
            ResponseBody::Stream(inner) => match inner.length() {
                Some(length) => SizeHint::with_exact(length),
                None => SizeHint::new(),
            },
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let ResponseBody::Stream(inner) = self {
            inner.released();
        }
    }
}
