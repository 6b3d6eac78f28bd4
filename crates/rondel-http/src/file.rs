//! Parts of responses that are files, sent by `sendfile(2)`: their bytes never enter this process.
//!
//! hyper frames a response and knows only bytes. So it is given a stand-in, [`Piece::File`], which is
//! as long as the file's part and shows memory of one static page, the blank. Where hyper writes the
//! blank, `stream` sends what the file has instead, and tells hyper how much that was.
//!
//! ```text
//!   exchange            hyper                        stream               Lane
//!   ────────            ─────                        ──────               ────
//!   Piece::File ──────► queue of buffers                                  Sending joins the lane
//!                       [head][blank][blank]… ─────► head: written
//!                                            ─────► blank? by its address
//!                                                    sendfile ──────────► Sending.left -= n
//!                       advance(n) ◄──────────────── n
//!                       Piece.left -= n ────────────────────────────────► left == Sending.left?
//! ```
//!
//! Why no byte of the blank can go out: it is known by its address, which nothing else has. That
//! holds as long as hyper keeps buffers where they are, as its *queue* strategy does, which it takes
//! for a stream that says [`hyper::rt::Write::is_write_vectored`]. Should it copy one after all
//! (*flatten*: `writev(false)`, `pipeline_flush(true)`), it advances the piece before the stream has
//! sent any of it: the two counts differ, the lane breaks, and from then on nothing is written. The
//! copy is made before the write, so that comes in time.
//!
//! A file that ends before its part does breaks the connection off: the length was promised. One that
//! grows changes nothing. Who gave the descriptor may close it at once: the part has its own.
//!
//! `sendfile` to a client that has gone raises SIGPIPE, for which it has no flag: Python and Rust
//! programs ignore that signal from their start.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use bytes::{Buf, Bytes};
use rustix::fs::{Advice, FileType, OFlags, fadvise, fcntl_getfl, fstat, sendfile};
use rustix::io::{Errno, pread};

/// Bytes of files that a connection sends in a row before the loop looks at its other connections.
pub(crate) const BURST: usize = 512 * 1024;

/// How far ahead the system is asked to read a file, so that the loop seldom waits for a disk.
const AHEAD: u64 = 1024 * 1024;

/// Bytes read at once of a file whose bytes are needed.
const READ: usize = 32 * 1024;

/// hyper shows at most 64 buffers at once: a burst's worth of these.
const BLANK: usize = 16 * 1024;

static THE_BLANK: [u8; BLANK] = [0; BLANK];

/// Whether these bytes stand for a file's.
pub(crate) fn is_blank(buf: &[u8]) -> bool {
    !buf.is_empty() && THE_BLANK.as_ptr_range().contains(&buf.as_ptr())
}

/// A part of a regular file, to be sent; has a descriptor of its own.
#[derive(Debug)]
pub struct FilePart {
    file: File,
    offset: u64,
    len: u64,
}

impl FilePart {
    /// From `offset` on, `count` bytes or what the file has of them. Begins to read ahead.
    ///
    /// # Errors
    /// `InvalidInput` for what is not a regular file, `EBADF` if it is not open for reading, those of
    /// `dup` and `fstat`.
    pub fn new(fd: BorrowedFd<'_>, offset: u64, count: Option<u64>) -> io::Result<FilePart> {
        let stat = fstat(fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            let what = "only a regular file can be sent by its descriptor";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let flags = fcntl_getfl(fd)?;
        if flags.contains(OFlags::PATH) || (flags & OFlags::RWMODE) == OFlags::WRONLY {
            return Err(Errno::BADF.into());
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let there = size.saturating_sub(offset);
        let part = FilePart {
            file: File::from(fd.try_clone_to_owned()?),
            offset,
            len: count.map_or(there, |count| count.min(there)),
        };
        read_ahead(&part.file, offset, part.len.min(AHEAD));
        Ok(part)
    }

    /// This part of a file that is known to be one and to be open for reading.
    pub(crate) fn of(file: File, part: Range<u64>) -> FilePart {
        let len = part.end - part.start;
        read_ahead(&file, part.start, len.min(AHEAD));
        FilePart {
            file,
            offset: part.start,
            len,
        }
    }

    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

fn read_ahead(file: &File, offset: u64, len: u64) {
    if let Some(len) = NonZeroU64::new(len) {
        // An advice: without it the file is sent all the same.
        let _advised = fadvise(file, offset, Some(len), Advice::WillNeed);
    }
}

/// A file's part on its way: the stream's view.
pub(crate) struct Sending {
    file: File,
    offset: Cell<u64>,
    left: Cell<u64>,
    /// Up to here the system was asked to read.
    ahead: Cell<u64>,
    /// `sendfile` is not to be had for this file: it is read and written.
    copied: Cell<bool>,
    /// A close in the middle could be taken for the body's end.
    reset: bool,
}

impl Sending {
    pub(crate) fn left(&self) -> usize {
        usize::try_from(self.left.get()).unwrap_or(usize::MAX)
    }

    pub(crate) fn is_copied(&self) -> bool {
        self.copied.get()
    }

    pub(crate) fn needs_reset(&self) -> bool {
        self.reset
    }

    /// Sends at most `most` bytes to the socket; 0 means that the file has ended. With `Unsupported`
    /// it has to be read and written from then on.
    pub(crate) fn send(&self, socket: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        let mut offset = self.offset.get();
        match sendfile(socket, &self.file, Some(&mut offset), most) {
            Ok(n) => Ok(n),
            // A file system that cannot splice, or a socket.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                self.copied.set(true);
                Err(io::ErrorKind::Unsupported.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the next bytes into `buf`, as many as there are; they do not count as sent yet.
    pub(crate) fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut end = 0;
        while end < buf.len() {
            match pread(&self.file, &mut buf[end..], self.offset.get() + end as u64) {
                Ok(0) => break,
                Ok(n) => end += n,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(end)
    }

    fn sent(&self, n: u64) {
        let offset = self.offset.get() + n;
        let left = self.left.get() - n;
        self.offset.set(offset);
        self.left.set(left);
        let ahead = self.ahead.get();
        if left > 0 && ahead < offset + AHEAD / 2 {
            let from = ahead.max(offset);
            let end = (offset + AHEAD).min(offset + left);
            read_ahead(&self.file, from, end.saturating_sub(from));
            self.ahead.set(offset + AHEAD);
        }
    }
}

/// The files that hyper has been given on one connection, in order.
#[derive(Default)]
pub(crate) struct Lane {
    queue: RefCell<VecDeque<Rc<Sending>>>,
    /// hyper and the stream disagree about what was sent.
    broken: Cell<bool>,
    /// Bytes sent since the connection's poll began.
    burst: Cell<usize>,
}

impl Lane {
    /// The connection's future is polled.
    pub(crate) fn begin_poll(&self) {
        self.burst.set(0);
    }

    /// Whether all files were sent.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    /// What may be sent in this poll.
    pub(crate) fn allowance(&self) -> usize {
        BURST.saturating_sub(self.burst.get())
    }

    /// An error if nothing may be written any more.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.broken.get() {
            return Err(io::Error::other("a file's place in a response was lost"));
        }
        Ok(())
    }

    /// The file whose bytes are next.
    pub(crate) fn front(&self) -> io::Result<Rc<Sending>> {
        self.check()?;
        let front = self.queue.borrow().front().cloned();
        front.ok_or_else(|| io::Error::other("a file's place in a response has no file"))
    }

    /// So many bytes of the first file were sent.
    pub(crate) fn sent(&self, n: usize) {
        self.burst.set(self.burst.get().saturating_add(n));
        let mut queue = self.queue.borrow_mut();
        if let Some(front) = queue.front() {
            front.sent(n as u64);
            if front.left.get() == 0 {
                queue.pop_front();
            }
        }
    }

    fn give_up(&self) {
        self.broken.set(true);
        let files = self.queue.take();
        drop(files);
    }
}

/// A part of a response's body as hyper holds it.
pub(crate) enum Piece {
    Data(Bytes),
    File(FilePiece),
}

/// Stands for a file's part within hyper.
pub(crate) struct FilePiece {
    sending: Rc<Sending>,
    lane: Rc<Lane>,
    /// Bytes that hyper has not accounted for.
    left: u64,
    /// Whether it has joined the lane.
    joined: bool,
}

impl Piece {
    /// `reset`: whether a close in the middle could be taken for the body's end.
    pub(crate) fn file(part: FilePart, lane: Rc<Lane>, reset: bool) -> Piece {
        let FilePart { file, offset, len } = part;
        Piece::File(FilePiece {
            sending: Rc::new(Sending {
                file,
                offset: Cell::new(offset),
                left: Cell::new(len),
                ahead: Cell::new(offset + AHEAD.min(len)),
                copied: Cell::new(false),
                reset,
            }),
            lane,
            left: len,
            joined: false,
        })
    }

    pub(crate) fn empty() -> Piece {
        Piece::Data(Bytes::new())
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Piece::Data(data) => data.len() as u64,
            Piece::File(file) => file.left,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the next bytes of a file, where they are needed here (TLS, HTTP/2); they count as sent.
    ///
    /// # Errors
    /// Those of `pread`; `UnexpectedEof` if the file has become shorter.
    pub(crate) fn read_part(&mut self) -> io::Result<Piece> {
        let Piece::File(file) = self else {
            return Ok(std::mem::replace(self, Piece::empty()));
        };
        let most = usize::try_from(file.left).unwrap_or(usize::MAX).min(READ);
        let mut part = vec![0; most];
        let n = file.sending.read(&mut part)?;
        if n < most {
            let missing = file.left - n as u64;
            let text = format!(
                "a file that was being sent became shorter: {missing} bytes of the response are missing"
            );
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        file.sending.sent(n as u64);
        file.left -= n as u64;
        Ok(Piece::Data(part.into()))
    }

    /// Its bytes; those of a file are read here and now.
    pub(crate) fn into_bytes(self) -> io::Result<Bytes> {
        match self {
            Piece::Data(data) => Ok(data),
            Piece::File(file) => {
                let mut data = vec![0; file.sending.left()];
                match file.sending.read(&mut data)? {
                    read if read == data.len() => Ok(Bytes::from(data)),
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
        }
    }

    /// The same, on its way into hyper's queue.
    pub(crate) fn handed_over(mut self) -> Piece {
        if let Piece::File(file) = &mut self {
            file.joined = true;
            let sending = Rc::clone(&file.sending);
            file.lane.queue.borrow_mut().push_back(sending);
        }
        self
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        match self {
            Piece::Data(data) => data.len(),
            Piece::File(file) => usize::try_from(file.left).unwrap_or(usize::MAX),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Piece::Data(data) => data,
            Piece::File(_) => &THE_BLANK[..self.remaining().min(BLANK)],
        }
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        match self {
            Piece::Data(data) => data.chunks_vectored(dst),
            Piece::File(_) => {
                // All that is left, or all the room there is: what comes behind would else be taken
                // for what follows.
                let (mut left, mut used) = (self.remaining(), 0);
                for slot in dst {
                    if left == 0 {
                        break;
                    }
                    let shown = left.min(BLANK);
                    *slot = IoSlice::new(&THE_BLANK[..shown]);
                    (left, used) = (left - shown, used + 1);
                }
                used
            }
        }
    }

    fn advance(&mut self, n: usize) {
        match self {
            Piece::Data(data) => data.advance(n),
            Piece::File(file) => {
                assert!(n as u64 <= file.left, "advanced past a file's part");
                file.left -= n as u64;
                if file.sending.left.get() != file.left {
                    file.lane.give_up();
                }
            }
        }
    }
}

impl Drop for FilePiece {
    fn drop(&mut self) {
        if self.joined && self.left > 0 {
            self.lane.give_up();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::response::ResponseBody;
    use hyper::body::Incoming;
    use hyper::rt::{Read, ReadBufCursor, Write};
    use hyper::server::conn::http1::Builder;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use std::convert::Infallible;
    use std::future::Future as _;
    use std::os::fd::AsFd;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    const LEN: u64 = 100_000;

    fn part() -> FilePart {
        let file = File::open("/proc/self/exe").unwrap();
        let part = FilePart::new(file.as_fd(), 0, Some(LEN)).unwrap();
        assert_eq!(part.len(), LEN);
        part
    }

    /// Stands for the stream: takes note of blanks, and of bytes that would go out.
    struct Io {
        request: &'static [u8],
        vectored: bool,
        lane: Rc<Lane>,
        blank: Rc<Cell<usize>>,
        written: Rc<Cell<usize>>,
    }

    impl Read for Io {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            mut buf: ReadBufCursor<'_>,
        ) -> Poll<io::Result<()>> {
            if self.request.is_empty() {
                return Poll::Pending;
            }
            buf.put_slice(std::mem::take(&mut self.request));
            Poll::Ready(Ok(()))
        }
    }

    impl Write for Io {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(buf)])
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.lane.check()?;
            if is_blank(&bufs[0]) {
                let n = bufs[0].len();
                self.lane.sent(n);
                self.blank.set(self.blank.get() + n);
                return Poll::Ready(Ok(n));
            }
            self.written.set(self.written.get() + bufs[0].len());
            Poll::Ready(Ok(bufs[0].len()))
        }

        fn is_write_vectored(&self) -> bool {
            self.vectored
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Has hyper answer with a file; the bytes of blank that it showed, and those that it wrote.
    fn answer(builder: &Builder, vectored: bool) -> (bool, usize, usize) {
        let (blank, written) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let lane = Rc::new(Lane::default());
        let io = Io {
            request: b"GET / HTTP/1.1\r\nHost: t\r\n\r\n",
            vectored,
            lane: Rc::clone(&lane),
            blank: Rc::clone(&blank),
            written: Rc::clone(&written),
        };
        let ours = Rc::clone(&lane);
        let service = service_fn(move |_request: Request<Incoming>| {
            let piece = Piece::file(part(), Rc::clone(&ours), false);
            std::future::ready(Ok::<_, Infallible>(Response::new(ResponseBody::Full(
                piece,
            ))))
        });
        let connection = pin!(builder.serve_connection(io, service));
        let mut cx = Context::from_waker(Waker::noop());
        let failed = matches!(connection.poll(&mut cx), Poll::Ready(Err(_)));
        (failed, blank.get(), written.get())
    }

    #[test]
    fn hyper_shows_every_byte_of_the_stand_in_where_it_lies() {
        let (failed, blank, written) = answer(&Builder::new(), true);
        assert!(!failed && written < 500, "the head alone: {written}");
        assert_eq!(blank as u64, LEN);
    }

    #[test]
    fn a_copy_of_the_stand_in_is_found_out_before_it_is_written() {
        let mut flatten = Builder::new();
        flatten.writev(false);
        assert_eq!(answer(&flatten, true), (true, 0, 0));
        let mut pipeline = Builder::new();
        pipeline.pipeline_flush(true);
        assert_eq!(answer(&pipeline, true), (true, 0, 0));
        assert_eq!(answer(&Builder::new(), false), (true, 0, 0));
    }

    #[test]
    fn the_stand_in_shows_all_that_is_left_or_fills_the_room() {
        let lane = Rc::new(Lane::default());
        let piece = Piece::file(part(), Rc::clone(&lane), false);
        let mut room = [IoSlice::new(&[]); 64];
        let used = piece.chunks_vectored(&mut room);
        let shown: usize = room[..used].iter().map(|buf| buf.len()).sum();
        assert_eq!(shown as u64, LEN);
        assert!(room[..used].iter().all(|buf| is_blank(buf)));
        assert_eq!(piece.chunks_vectored(&mut room[..3]), 3);
        assert!(!is_blank(&[0; 16]) && !is_blank(&[]));
    }

    #[test]
    fn a_stand_in_that_is_dropped_half_sent_breaks_its_lane() {
        let lane = Rc::new(Lane::default());
        drop(Piece::file(part(), Rc::clone(&lane), false));
        assert!(lane.check().is_ok(), "hyper never had it");
        let piece = Piece::file(part(), Rc::clone(&lane), false).handed_over();
        lane.sent(10);
        drop(piece);
        assert!(lane.check().is_err() && lane.front().is_err());
    }
}
