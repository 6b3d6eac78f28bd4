//! The body of a request on a stream.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;

/// What a stream brings. Whether it is as long as its head says, h2 sees to.
pub(crate) struct Upload {
    stream: RecvStream,
    length: Option<u64>,
}

impl Upload {
    /// `length`: that of the whole, if the request's head says so.
    pub(super) fn new(stream: RecvStream, length: Option<u64>) -> Self {
        Upload { stream, length }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next bytes, of which the client may send as many more. Trailers are left where they are.
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, h2::Error>>> {
        poll_data(&mut self.stream, cx)
    }
}

/// The same of any stream; never empty.
pub(crate) fn poll_data(
    stream: &mut RecvStream,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Bytes, h2::Error>>> {
    loop {
        let Some(data) = ready!(stream.poll_data(cx)) else {
            return Poll::Ready(None);
        };
        let data = match data {
            Ok(data) => data,
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        if let Err(error) = stream.flow_control().release_capacity(data.len()) {
            return Poll::Ready(Some(Err(error)));
        }
        if !data.is_empty() {
            return Poll::Ready(Some(Ok(data)));
        }
    }
}
