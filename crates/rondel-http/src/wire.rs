//! What hyper reads and writes: a socket, or TLS over one. Plain connections pay a branch.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};

use crate::conn::Link;
use crate::stream::{SCRATCH, Stream};
use crate::tls::stream::TlsStream;
use crate::ws::Transport;

pub(crate) enum Wire {
    Plain(Stream),
    Tls(Box<TlsStream>),
}

impl Wire {
    /// The socket itself.
    fn stream(&self) -> &Stream {
        match self {
            Wire::Plain(stream) => stream,
            Wire::Tls(tls) => tls.stream(),
        }
    }

    /// What goes out before the response: heads of 103.
    #[cold]
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let link = self.stream().share_link();
        ready!(link.interim.poll_write(cx, |cx, bytes| match self {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Tls(tls) => Pin::new(&mut **tls).poll_write(cx, bytes),
        }))?;
        // The response may go now.
        link.wake();
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn link(&self) -> &Link {
        self.stream().link()
    }

    pub(crate) fn is_eof(&self) -> bool {
        self.stream().is_eof()
    }

    /// Makes the close a reset.
    pub(crate) fn reset_on_close(&self) {
        self.stream().reset_on_close();
    }

    /// One try to send a few bytes before the connection is closed anyway.
    pub(crate) fn last_words(&mut self, words: &[u8]) {
        match self {
            Wire::Plain(stream) => stream.last_words(words),
            Wire::Tls(tls) => tls.last_words(words),
        }
    }

    /// The same, past TLS.
    pub(crate) fn last_plain_words(&mut self, words: &[u8]) {
        match self {
            Wire::Plain(stream) => stream.last_words(words),
            Wire::Tls(tls) => tls.stream_mut().last_words(words),
        }
    }

    /// Ends the sending side.
    pub(crate) fn end(&mut self) {
        match self {
            Wire::Plain(stream) => stream.end(),
            Wire::Tls(tls) => tls.last_words(b""),
        }
    }

    /// One read of at most `most` bytes, shown to `take`; 0 is the end.
    pub(crate) fn poll_recv_most(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        take: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<usize>> {
        match self {
            Wire::Plain(stream) => {
                let n = ready!(stream.poll_recv(cx, most, take))?;
                if n > 0 {
                    stream.link().read(n);
                }
                Poll::Ready(Ok(n))
            }
            Wire::Tls(tls) => tls.poll_recv(cx, most, take),
        }
    }

    /// Reads and drops what comes until the end, at most `budget` bytes.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>, budget: &mut usize) -> Poll<()> {
        match self {
            Wire::Plain(stream) => stream.poll_discard(cx, budget),
            Wire::Tls(tls) => tls.stream_mut().poll_discard(cx, budget),
        }
    }
}

impl Transport for Wire {
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<usize>> {
        match self {
            Wire::Plain(stream) => stream.poll_recv(cx, SCRATCH, take),
            Wire::Tls(tls) => tls.poll_recv(cx, SCRATCH, take),
        }
    }

    fn poll_recv_into(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        match self {
            Wire::Plain(stream) => stream.poll_recv_into(cx, into),
            Wire::Tls(tls) => tls.poll_recv(cx, SCRATCH, |data| into.extend_from_slice(data)),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write_vectored(cx, data)
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_flush(cx)
    }

    fn give_way(&self, cx: &mut Context<'_>) {
        self.stream().give_way(cx);
    }
}

impl Read for Wire {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Tls(tls) => Pin::new(&mut **tls).poll_read(cx, buf),
        }
    }
}

impl Write for Wire {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.link().interim.is_cut() {
            ready!(this.poll_interim(cx))?;
        }
        match this {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Wire::Tls(tls) => Pin::new(&mut **tls).poll_write_vectored(cx, bufs),
        }
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.link().interim.is_due() {
            ready!(this.poll_interim(cx))?;
        }
        match this {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
        }
    }
}
