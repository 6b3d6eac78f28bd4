//! A socket as hyper reads and writes it.
//!
//! Edge-triggered: a read that comes back short has emptied the socket, so the next one waits for
//! an edge instead of a system call that says `EAGAIN`. Large bodies are written from where they
//! lie (`writev`); small responses are gathered first. Reads go through one buffer per server and
//! are copied from there: `ReadBufCursor` would otherwise have to be zeroed for each read, which
//! costs more than copying what came.

use std::cell::RefCell;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use rondel_core::driver::Handle;
use rondel_core::io::Registration;

use crate::conn::Link;

/// As large as hyper's read buffer can get with the default limits.
pub(crate) const SCRATCH: usize = 64 * 1024;

/// Up to this many bytes, head and body are put together and sent by `send`, which costs the
/// kernel less than `writev` of the parts.
const GATHER: usize = 4096;

pub(crate) type Scratch = Rc<RefCell<Box<[u8]>>>;

/// An accepted socket.
pub(crate) enum Socket {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

impl Socket {
    fn register(&mut self, handle: &Handle) -> io::Result<Registration> {
        match self {
            Socket::Tcp(s) => handle.register(s),
            Socket::Unix(s) => handle.register(s),
        }
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(s) => s.read(buf),
            Socket::Unix(s) => s.read(buf),
        }
    }

    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(s) => s.write(buf),
            Socket::Unix(s) => s.write(buf),
        }
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Socket::Tcp(s) => s.write_vectored(bufs),
            Socket::Unix(s) => s.write_vectored(bufs),
        }
    }

    fn shutdown(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(s) => s.shutdown(Shutdown::Write),
            Socket::Unix(s) => s.shutdown(Shutdown::Write),
        }
    }
}

pub(crate) struct Stream {
    socket: Socket,
    registration: Registration,
    scratch: Scratch,
    link: Rc<Link>,
    /// The peer has sent its end.
    eof: bool,
}

impl Stream {
    pub(crate) fn new(
        mut socket: Socket,
        handle: &Handle,
        scratch: Scratch,
        link: Rc<Link>,
    ) -> io::Result<Self> {
        let registration = socket.register(handle)?;
        Ok(Stream {
            socket,
            registration,
            scratch,
            link,
            eof: false,
        })
    }

    pub(crate) fn is_eof(&self) -> bool {
        self.eof
    }

    /// One try to send a few bytes before the connection is closed anyway.
    pub(crate) fn last_words(&mut self, words: &[u8]) {
        // Best effort: a full socket or a peer that has gone makes no difference any more.
        let _unsent = self.socket.write(words);
        let _closed = self.socket.shutdown();
    }

    /// Makes the close a reset.
    pub(crate) fn reset_on_close(&self) {
        if let Socket::Tcp(s) = &self.socket {
            // Without it the close is in good order: a pity, not a failure.
            let _set = socket2::SockRef::from(s).set_linger(Some(Duration::ZERO));
        }
    }

    /// Reads and drops what comes until the end, at most `budget` bytes.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>, budget: &mut usize) -> Poll<()> {
        while !self.eof && *budget > 0 {
            match ready!(self.poll_recv(cx, SCRATCH, |_| ())) {
                Ok(0) | Err(_) => break,
                Ok(n) => *budget = budget.saturating_sub(n),
            }
        }
        Poll::Ready(())
    }

    /// One read of at most `most` bytes, shown to `take`.
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        take: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.registration.poll_read_ready(cx));
            let mut scratch = self.scratch.borrow_mut();
            let most = most.min(scratch.len());
            match self.socket.read(&mut scratch[..most]) {
                Ok(n) => {
                    if n == 0 {
                        self.eof = most > 0;
                    } else if n < most {
                        self.registration.clear_read_ready();
                    }
                    take(&scratch[..n]);
                    return Poll::Ready(Ok(n));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.registration.clear_read_ready();
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.eof = true;
                    return Poll::Ready(Err(e));
                }
            }
        }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&mut Socket) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.registration.poll_write_ready(cx));
            match write(&mut self.socket) {
                Ok(n) => {
                    self.link.wrote();
                    return Poll::Ready(Ok(n));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.registration.clear_write_ready();
                    self.link.write_blocked();
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let room = buf.remaining();
        let n = ready!(this.poll_recv(cx, room, |data| buf.put_slice(data)))?;
        if n > 0 {
            this.link.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, |socket| socket.write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let [one] = bufs {
            return this.poll_send(cx, |socket| socket.write(one));
        }
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total > GATHER {
            return this.poll_send(cx, |socket| socket.write_vectored(bufs));
        }
        let scratch = Rc::clone(&this.scratch);
        let mut scratch = scratch.borrow_mut();
        let mut end = 0;
        for buf in bufs {
            scratch[end..end + buf.len()].copy_from_slice(buf);
            end += buf.len();
        }
        this.poll_send(cx, |socket| socket.write(&scratch[..end]))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.socket.shutdown() {
            // The peer was faster.
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }
}
