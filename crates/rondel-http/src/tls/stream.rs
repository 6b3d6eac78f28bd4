//! A connection's records: the handshake, then plain bytes for hyper on one side and records on the
//! socket on the other.
//!
//! ```text
//!   read:   socket ─► ahead, at most AHEAD ─► rustls: deframed, decrypted ─► hyper
//!   write:  hyper ─► rustls: encrypted ─► records, at most HELD ─► socket
//!   end:    close_notify, then the socket's own end
//! ```
//!
//! What hyper writes is taken at once while there is room for its records, and sent as far as the socket
//! takes it; `poll_flush` sends the rest.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};
use rustls::ServerConnection;

use super::{Presented, Tls, TlsInfo};
use crate::conn::SLACK;
use crate::stream::Stream;

/// Bytes of records that wait for the socket.
const HELD: usize = 64 * 1024;

/// Bytes read from the socket at once: some records of the largest kind.
const AHEAD: usize = 32 * 1024;

pub(crate) struct TlsStream {
    tls: ServerConnection,
    /// Which certificate was shown; during the handshake.
    presented: Arc<dyn Presented>,
    info: Option<TlsInfo>,
    stream: Stream,
    /// Records that were read from the socket and not looked into: rustls takes 4 KiB at a time, and
    /// no more than it has room for.
    ahead: Bytes,
    /// The very first byte that came.
    first: Option<u8>,
}

impl TlsStream {
    pub(crate) fn new(tls: &Tls, stream: Stream) -> io::Result<Self> {
        let (mut tls, presented) = tls.accept()?;
        tls.set_buffer_limit(Some(HELD));
        Ok(TlsStream {
            tls,
            presented,
            info: None,
            stream,
            ahead: Bytes::new(),
            first: None,
        })
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(crate) fn stream_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// Whether both sides have agreed on HTTP/2.
    pub(crate) fn is_h2(&self) -> Option<bool> {
        self.tls.alpn_protocol().map(|name| name == b"h2")
    }

    /// Whether the client has begun with a method, where TLS begins with a number.
    pub(crate) fn is_plain_http(&self) -> bool {
        self.first.is_some_and(|byte| byte.is_ascii_uppercase())
    }

    /// Moves the handshake on until it is over.
    ///
    /// Its failure is told to the client by an alert, as far as the socket takes it at once.
    pub(crate) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<TlsInfo>> {
        let mut certificate = None;
        loop {
            if self.tls.wants_write() {
                ready!(self.poll_send(cx))?;
                continue;
            }
            if !self.tls.is_handshaking() {
                break;
            }
            match ready!(self.poll_fill(cx)) {
                Ok(false) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(true) => {
                    if let Some(chosen) = self.presented.take_chosen() {
                        certificate = Some(chosen);
                    }
                    if certificate.is_some() {
                        let info = self.info.get_or_insert_with(TlsInfo::default);
                        info.certificate = certificate.take();
                    }
                }
                // Who speaks no TLS understands no alert.
                Err(error) if self.is_plain_http() => return Poll::Ready(Err(error)),
                Err(error) => {
                    // The alert: best effort, it makes no difference to us any more.
                    let _sent = self.poll_send(cx);
                    return Poll::Ready(Err(error));
                }
            }
        }
        let mut info = self.info.take().unwrap_or_default();
        info.version = self.tls.protocol_version().map_or(0, u16::from);
        let suite = self.tls.negotiated_cipher_suite();
        info.cipher_suite = suite.map_or(0, |suite| suite.suite().into());
        info.agreed_on_1 = self.is_h2() == Some(false);
        info.server_name = self.tls.server_name().map(str::to_owned);
        let chain = self.tls.peer_certificates().unwrap_or_default();
        info.client_chain = chain.iter().map(|one| one.clone().into_owned()).collect();
        Poll::Ready(Ok(info))
    }

    /// One try to send a few bytes before the connection is closed anyway.
    pub(crate) fn last_words(&mut self, words: &[u8]) {
        // Best effort, as the plain stream's.
        let _taken = self.tls.writer().write(words);
        self.tls.send_close_notify();
        let _sent = self.tls.write_tls(&mut Records(&mut self.stream));
        self.stream.end();
    }

    /// One read of at most `most` bytes, shown to `take`; 0 is the end.
    pub(crate) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        take: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<usize>> {
        loop {
            let scratch = self.stream.scratch();
            let mut scratch = scratch.borrow_mut();
            let most = most.min(scratch.len());
            match self.tls.reader().read(&mut scratch[..most]) {
                Ok(n) => {
                    if n > 0 {
                        self.stream.link().read(n);
                    }
                    take(&scratch[..n]);
                    return Poll::Ready(Ok(n));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // The socket has ended without a close_notify. Whether something is missing, the
                // message's own framing tells.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(0)),
                Err(e) => return Poll::Ready(Err(e)),
            }
            drop(scratch);
            let filled = ready!(self.poll_fill(cx));
            // Alerts, session tickets, key updates: what reading makes necessary to write.
            if self.tls.wants_write() {
                if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                    return Poll::Ready(Err(error));
                }
            }
            filled?;
        }
    }

    /// Reads records if none are there, and looks into some; false at the socket's end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if !self.ahead.is_empty() {
            let taken = self.tls.read_tls(&mut &self.ahead[..])?;
            self.ahead.advance(taken);
        } else {
            let scratch = self.stream.scratch();
            let mut scratch = scratch.borrow_mut();
            let most = scratch.len().min(AHEAD);
            let read = loop {
                ready!(self.stream.poll_read_ready(cx));
                match self.stream.try_read(&mut scratch[..most]) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    read => break read?,
                }
            };
            let mut data = &scratch[..read];
            self.first = self.first.or_else(|| data.first().copied());
            // With nothing to read it learns of the end.
            self.tls.read_tls(&mut data)?;
            if read == 0 {
                return Poll::Ready(Ok(false));
            }
            if !data.is_empty() {
                self.ahead = Bytes::copy_from_slice(data);
            }
        }
        self.tls.process_new_packets().map_err(invalid)?;
        Poll::Ready(Ok(true))
    }

    /// Sends records while there are some.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            ready!(self.stream.poll_write_ready(cx));
            match self.tls.write_tls(&mut Records(&mut self.stream)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The socket as rustls writes it.
struct Records<'a>(&'a mut Stream);

impl io::Write for Records<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let most = buf.remaining().saturating_sub(SLACK).max(1);
        let link = this.stream.shared_link();
        loop {
            let mut given = true;
            let n = ready!(this.poll_recv(cx, most, |data| given = link.give(data, &mut buf)))?;
            if n == 0 {
                link.give_rest(&mut buf);
            }
            if given || n == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl Write for TlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            let taken = this.tls.writer().write_vectored(bufs)?;
            let sent = this.poll_send(cx)?;
            if taken > 0 || bufs.iter().all(|buf| buf.is_empty()) {
                return Poll::Ready(Ok(taken));
            }
            ready!(sent);
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.tls.send_close_notify();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
