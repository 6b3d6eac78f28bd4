//! A socket as hyper reads and writes it.
//!
//! Edge-triggered: a read that comes back short has emptied the socket, so the next one waits for
//! an edge instead of a system call that says `EAGAIN`. Large bodies are written from where they
//! lie (`writev`); small responses are gathered first. Reads go through one buffer per server and
//! are copied from there: `ReadBufCursor` would otherwise have to be zeroed for each read, which
//! costs more than copying what came.
//!
//! Where hyper writes the stand-in of a file's part (`file`), the file's bytes are sent instead: a
//! small one together with the head, a larger one by `sendfile`.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use rondel_core::driver::Handle;
use rondel_core::io::Registration;
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, writev};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::conn::{Link, SLACK};
use crate::file::{Lane, Sending, is_blank};

/// As large as hyper's read buffer can get with the default limits.
pub(crate) const SCRATCH: usize = 64 * 1024;

/// Up to this many bytes, head and body are put together and sent by `send`, which costs the
/// kernel less than `writev` of the parts.
const GATHER: usize = 4096;

/// Up to this many bytes, head and file go out together: one packet less for a small file.
const GATHER_FILE: usize = 16 * 1024;

pub(crate) type Scratch = Rc<RefCell<Box<[u8]>>>;

/// An accepted socket.
pub(crate) enum Socket {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

impl Socket {
    pub(crate) fn register(&mut self, handle: &Handle) -> io::Result<Registration> {
        match self {
            Socket::Tcp(s) => handle.register(s),
            Socket::Unix(s) => handle.register(s),
        }
    }

    pub(crate) fn deregister(&mut self, registration: Registration) -> io::Result<()> {
        match self {
            Socket::Tcp(s) => registration.deregister(s),
            Socket::Unix(s) => registration.deregister(s),
        }
    }

    // By system calls of their own: the C library's are points of cancellation, which each of them
    // enters and leaves where there is more than one thread.
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self.as_fd(), buf, RecvFlags::empty())?.1)
    }

    /// Reads as much as `into` has room for, behind what it has.
    fn read_into(&self, into: &mut Vec<u8>) -> io::Result<usize> {
        Ok(rustix::io::read(self.as_fd(), spare_capacity(into))?)
    }

    fn write(&self, buf: &[u8]) -> io::Result<usize> {
        Ok(send(self.as_fd(), buf, SendFlags::NOSIGNAL)?)
    }

    fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(writev(self.as_fd(), bufs)?)
    }

    /// The same as `write`, with more to follow at once.
    fn write_more(&self, buf: &[u8]) -> io::Result<usize> {
        Ok(send(
            self.as_fd(),
            buf,
            SendFlags::MORE | SendFlags::NOSIGNAL,
        )?)
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(s) => s.as_fd(),
            Socket::Unix(s) => s.as_fd(),
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

    /// No more is sent; the peer reads the end behind what was.
    pub(crate) fn end(&self) {
        // Best effort: the peer may have been faster.
        let _closed = self.socket.shutdown();
    }

    /// One try to send a few bytes before the connection is closed anyway.
    pub(crate) fn last_words(&mut self, words: &[u8]) {
        // Best effort: a full socket or a peer that has gone makes no difference any more.
        let _unsent = self.socket.write(words);
        self.end();
    }

    /// For whoever needs it while the stream is borrowed.
    pub(crate) fn share_link(&self) -> Rc<Link> {
        Rc::clone(&self.link)
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    pub(crate) fn shared_link(&self) -> Rc<Link> {
        Rc::clone(&self.link)
    }

    /// The server's buffer, of use to whoever is being polled.
    pub(crate) fn scratch(&self) -> Scratch {
        Rc::clone(&self.scratch)
    }

    /// Has the future polled again once others have had their turn.
    pub(crate) fn give_way(&self, cx: &mut Context<'_>) {
        self.registration.handle().wake_next_turn(cx.waker());
    }

    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.registration.poll_read_ready(cx)
    }

    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.registration.poll_write_ready(cx)
    }

    /// One read, for a layer above; after `WouldBlock` ask `poll_read_ready`.
    pub(crate) fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = loop {
            match self.socket.read(buf) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        match &read {
            Ok(0) => self.eof = !buf.is_empty(),
            Ok(n) if *n < buf.len() => self.registration.clear_read_ready(),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.registration.clear_read_ready(),
            Err(_) => self.eof = true,
        }
        read
    }

    /// One write, likewise.
    pub(crate) fn try_write(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = loop {
            let written = match bufs {
                [one] => self.socket.write(one),
                more => self.socket.write_vectored(more),
            };
            match written {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                written => break written,
            }
        };
        match &written {
            Ok(_) => self.link.wrote(),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.registration.clear_write_ready();
                self.link.write_blocked();
            }
            Err(_) => {}
        }
        written
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
    pub(crate) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        take: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<usize>> {
        let mut scratch = self.scratch.borrow_mut();
        let most = most.min(scratch.len());
        let buf = &mut scratch[..most];
        let (socket, eof) = (&mut self.socket, &mut self.eof);
        let n = ready!(poll_read_with(&self.registration, cx, most, eof, || socket.read(buf)))?;
        take(&buf[..n]);
        Poll::Ready(Ok(n))
    }

    /// One read into the room that `into` has behind what it holds: nothing is copied.
    pub(crate) fn poll_recv_into(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        let most = into.capacity() - into.len();
        let (socket, eof) = (&self.socket, &mut self.eof);
        poll_read_with(&self.registration, cx, most, eof, || socket.read_into(into))
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

    /// Writes data from where it lies, or the next part of a file, or the data before that.
    fn poll_write_all_kinds(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(files) = self.link.files() {
            files.check()?;
        }
        match bufs.iter().position(|buf| is_blank(buf)) {
            None => self.poll_write_data(cx, bufs),
            Some(at) => {
                let (data, rest) = bufs.split_at(at);
                let blank = rest.iter().take_while(|buf| is_blank(buf));
                let shown = blank.map(|buf| buf.len()).sum();
                if data.is_empty() {
                    self.poll_send_file(cx, shown)
                } else {
                    self.poll_write_before_file(cx, data, shown)
                }
            }
        }
    }

    fn poll_write_data(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [one] = bufs {
            return self.poll_send(cx, |socket| socket.write(one));
        }
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total > GATHER {
            return self.poll_send(cx, |socket| socket.write_vectored(bufs));
        }
        let scratch = Rc::clone(&self.scratch);
        let mut scratch = scratch.borrow_mut();
        let end = gather(&mut scratch, bufs);
        self.poll_send(cx, |socket| socket.write(&scratch[..end]))
    }

    /// Data (the response's head), and a file's part behind it of which hyper shows `shown` bytes.
    fn poll_write_before_file(
        &mut self,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
        shown: usize,
    ) -> Poll<io::Result<usize>> {
        let file = self.front_file()?;
        let total: usize = data.iter().map(|buf| buf.len()).sum();
        let scratch = Rc::clone(&self.scratch);
        let mut scratch = scratch.borrow_mut();
        if total > scratch.len() {
            return self.poll_send(cx, |socket| socket.write_vectored(data));
        }
        let end = gather(&mut scratch, data);
        let left = file.left();
        if left > shown || total + left > GATHER_FILE {
            return self.poll_send(cx, |socket| socket.write_more(&scratch[..end]));
        }
        let end = end + left;
        if self.read_file(&file, &mut scratch[total..end])? < left {
            return Poll::Ready(Err(self.cut_short(&file)));
        }
        let sent = ready!(self.poll_send(cx, |socket| socket.write(&scratch[..end])))?;
        self.sent_of_file(sent.saturating_sub(total));
        Poll::Ready(Ok(sent))
    }

    /// The next bytes of a file's part, at most `shown`.
    fn poll_send_file(&mut self, cx: &mut Context<'_>, shown: usize) -> Poll<io::Result<usize>> {
        let file = self.front_file()?;
        let allowed = self.link.files().map_or(0, Lane::allowance);
        if allowed == 0 {
            // Others' turn. A socket that is emptied as fast as it is filled would never block.
            self.registration.handle().wake_next_turn(cx.waker());
            return Poll::Pending;
        }
        let most = file.left().min(shown).min(allowed);
        let sent = if file.is_copied() {
            ready!(self.poll_copy_file(cx, &file, most))?
        } else {
            match ready!(self.poll_send(cx, |socket| file.send(socket.as_fd(), most))) {
                Ok(0) => return Poll::Ready(Err(self.cut_short(&file))),
                Ok(n) => n,
                Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                    self.link.file_failed(&error);
                    return Poll::Ready(Err(error));
                }
                // Found out just now that it has to be copied.
                Err(_) if file.is_copied() => ready!(self.poll_copy_file(cx, &file, most))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        };
        self.sent_of_file(sent);
        Poll::Ready(Ok(sent))
    }

    /// The same for a file that `sendfile` does not take.
    fn poll_copy_file(
        &mut self,
        cx: &mut Context<'_>,
        file: &Sending,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        ready!(self.registration.poll_write_ready(cx));
        let scratch = Rc::clone(&self.scratch);
        let mut scratch = scratch.borrow_mut();
        let most = most.min(scratch.len());
        let n = self.read_file(file, &mut scratch[..most])?;
        if n == 0 {
            return Poll::Ready(Err(self.cut_short(file)));
        }
        self.poll_send(cx, |socket| socket.write(&scratch[..n]))
    }

    fn front_file(&self) -> io::Result<Rc<Sending>> {
        match self.link.files() {
            Some(files) => files.front(),
            None => Err(io::Error::other("a file's place in a response has no file")),
        }
    }

    fn sent_of_file(&self, n: usize) {
        if let Some(files) = self.link.files().filter(|_| n > 0) {
            files.sent(n);
        }
    }

    fn read_file(&self, file: &Sending, buf: &mut [u8]) -> io::Result<usize> {
        file.read(buf)
            .inspect_err(|error| self.link.file_failed(error))
    }

    /// The file has ended before its part did: what was promised cannot be kept.
    fn cut_short(&self, file: &Sending) -> io::Error {
        if file.needs_reset() {
            self.link.set_reset();
        }
        let text = format!(
            "a file that was being sent became shorter: {} bytes of the response are missing",
            file.left()
        );
        let error = io::Error::new(io::ErrorKind::UnexpectedEof, text);
        self.link.file_failed(&error);
        error
    }
}

/// One `read` of at most `most` bytes, once there is something to read.
#[inline]
fn poll_read_with(
    registration: &Registration,
    cx: &mut Context<'_>,
    most: usize,
    eof: &mut bool,
    mut read: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(registration.poll_read_ready(cx));
        match read() {
            Ok(n) => {
                if n == 0 {
                    *eof = most > 0;
                } else if n < most {
                    registration.clear_read_ready();
                }
                return Poll::Ready(Ok(n));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => registration.clear_read_ready(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => {
                *eof = true;
                return Poll::Ready(Err(e));
            }
        }
    }
}

/// Puts buffers together; they fit.
fn gather(into: &mut [u8], bufs: &[IoSlice<'_>]) -> usize {
    let mut end = 0;
    for buf in bufs {
        into[end..end + buf.len()].copy_from_slice(buf);
        end += buf.len();
    }
    end
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let most = buf.remaining().saturating_sub(SLACK).max(1);
        let link = Rc::clone(&this.link);
        loop {
            let mut given = true;
            let n = ready!(this.poll_recv(cx, most, |data| given = link.give(data, &mut buf)))?;
            if n == 0 {
                link.give_rest(&mut buf);
                return Poll::Ready(Ok(()));
            }
            link.read(n);
            if given {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl Write for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .poll_write_all_kinds(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_all_kinds(cx, bufs)
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
