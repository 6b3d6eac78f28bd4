//! 103 Early Hints (RFC 8297): heads that go out before the response's own.
//!
//! hyper's servers send no informational response but `100 Continue`, so that these go past it:
//!
//! ```text
//!   Exchange::hint ──► Interim (of the link) ◄── Wire::poll_flush writes it
//!                            │ due                        ▲ hyper has nothing left to write
//!   Answer: the response waits for that ──────────────────┘
//! ```
//!
//! Why it stands where it belongs: hyper flushes its stream only once its own buffer is empty, so that
//! what it wrote before (earlier responses, `100 Continue`) is out; and it is not given the response
//! while a hint is due. HTTP/1.1 has one exchange at a time: the next request is taken up when this
//! response was. What the socket takes only in part is finished before anything else is written.
//!
//! On a stream of HTTP/2 such a head is a frame of its own, which its future sends before the response
//! (`http2::reply`).

use std::cell::{Cell, RefCell};
use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use hyper::Version;
use hyper::header::HeaderValue;

use super::Exchange;

const HEAD: &[u8] = b"HTTP/1.1 103 Early Hints\r\n";

/// Bytes that wait for a client that takes nothing; further hints are left out.
pub(crate) const MOST_INTERIM: usize = 16 * 1024;

/// What a connection has to write before the response.
#[derive(Default)]
pub(crate) struct Interim {
    bytes: RefCell<BytesMut>,
    due: Cell<bool>,
    /// Some of it is written already.
    cut: Cell<bool>,
}

impl Interim {
    /// Something is to be written before the response.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.due.get()
    }

    /// Something is to be written before anything else.
    #[inline]
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.get()
    }

    /// Writes it.
    #[cold]
    pub(crate) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&mut Context<'_>, &[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = self.bytes.borrow_mut();
        while !bytes.is_empty() {
            match ready!(write(cx, &bytes))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => bytes.advance(n),
            }
            self.cut.set(!bytes.is_empty());
        }
        self.due.set(false);
        Poll::Ready(Ok(()))
    }
}

impl Exchange {
    /// Tells the client of links before the response. Nothing happens where that is impossible (HTTP/1.0)
    /// or of no use (the response's head was given to the connection, the client has gone).
    pub fn hint(&self, links: &[HeaderValue]) {
        let inner = &*self.0;
        let open = {
            let state = inner.state.borrow();
            !(state.begun || state.aborted || state.gone)
        };
        if links.is_empty() || inner.version < Version::HTTP_11 || !open {
            return;
        }
        let size = links.iter().map(|link| link.len() + 8).sum::<usize>() + HEAD.len() + 2;
        if let Some(stream) = &inner.stream {
            return stream.hint(links, size);
        }
        let interim = &inner.link.interim;
        let mut bytes = interim.bytes.borrow_mut();
        if bytes.len() + size > MOST_INTERIM {
            return;
        }
        bytes.extend_from_slice(HEAD);
        for link in links {
            bytes.extend_from_slice(b"link: ");
            bytes.extend_from_slice(link.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        interim.due.set(true);
        inner.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn what_is_written_in_part_comes_before_all_else() {
        let mut cx = Context::from_waker(Waker::noop());
        let (interim, mut wire) = (Interim::default(), Vec::new());
        interim.bytes.borrow_mut().extend_from_slice(b"0123456789");
        interim.due.set(true);
        for (room, cut) in [(0, false), (4, true), (0, true), (5, true)] {
            let mut room = room;
            let polled = interim.poll_write(&mut cx, |_, bytes| {
                let n = bytes.len().min(room);
                room -= n;
                wire.extend_from_slice(&bytes[..n]);
                if n == 0 {
                    Poll::Pending
                } else {
                    Poll::Ready(Ok(n))
                }
            });
            assert!(polled.is_pending());
            assert_eq!((interim.is_due(), interim.is_cut()), (true, cut));
        }
        let polled = interim.poll_write(&mut cx, |_, bytes| {
            wire.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        });
        assert!(matches!(polled, Poll::Ready(Ok(()))));
        assert_eq!((interim.is_due(), interim.is_cut()), (false, false));
        assert_eq!(wire, b"0123456789");
    }

    #[test]
    fn a_wire_that_takes_nothing_is_an_error() {
        let mut cx = Context::from_waker(Waker::noop());
        let interim = Interim::default();
        interim.bytes.borrow_mut().extend_from_slice(b"0");
        let polled = interim.poll_write(&mut cx, |_, _| Poll::Ready(Ok(0)));
        assert!(matches!(polled, Poll::Ready(Err(_))));
    }
}
