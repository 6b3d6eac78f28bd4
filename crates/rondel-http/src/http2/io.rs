//! A connection's bytes as h2 reads and writes them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::rt::Write as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Streams;
use crate::wire::Wire;

/// A wire of which something was read already.
pub(super) struct Primed {
    read: Bytes,
    wire: Wire,
    streams: Rc<Streams>,
}

impl Primed {
    pub(super) fn new(read: Bytes, wire: Wire, streams: Rc<Streams>) -> Self {
        Primed {
            read,
            wire,
            streams,
        }
    }
}

impl AsyncRead for Primed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let room = buf.remaining();
        if !this.read.is_empty() {
            let n = room.min(this.read.len());
            buf.put_slice(&this.read.split_to(n));
            return Poll::Ready(Ok(()));
        }
        // What is asked for, which is no more than what comes.
        if !this.streams.may_read(room, cx.waker()) {
            return Poll::Pending;
        }
        ready!(
            this.wire
                .poll_recv_most(cx, room, |data| buf.put_slice(data))
        )?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Primed {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().wire).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().wire).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_shutdown(cx)
    }
}
