//! What a stream transport has to send: `bytes` objects as they were given, uncopied.
//!
//! Of that very type: the end of a subclass's instance may run any code, which would then find its
//! transport in the midst of counting what was sent. Such a chunk's content is copied.

use rondel_ffi::class::Visit;
use rondel_ffi::{Obj, PyRes, value};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::IoSlice;

/// How many chunks of the queue one system call sends.
const IOVECS: usize = 64;

#[derive(Default)]
pub(in crate::net) struct Queue {
    /// `bytes` objects, in order.
    chunks: RefCell<VecDeque<Obj>>,
    /// Bytes of the first one that were sent.
    sent: Cell<usize>,
}

impl Queue {
    /// Queues all of `chunk` but its first `sent` bytes, which only the first chunk may have; returns how
    /// many bytes that is.
    ///
    /// # Errors
    /// MemoryError, for an instance of a subclass of `bytes`.
    pub(in crate::net) fn push(&self, chunk: Obj, sent: usize) -> PyRes<usize> {
        let bytes = value::bytes_of(chunk.borrow()).unwrap_or_default();
        let len = bytes.len() - sent;
        let (chunk, sent) = if value::is_bytes_exact(chunk.borrow()) {
            (chunk, sent)
        } else {
            (value::bytes(&bytes[sent..])?, 0)
        };
        if len > 0 {
            if sent > 0 {
                self.sent.set(sent);
            }
            self.chunks.borrow_mut().push_back(chunk);
        }
        Ok(len)
    }

    /// Calls `send` with what comes next, and takes off the queue what it sent: returns how many bytes
    /// that was, and how many were offered.
    pub(in crate::net) fn send<E>(
        &self,
        send: impl FnOnce(&[IoSlice<'_>]) -> Result<usize, E>,
    ) -> Result<(usize, usize), E> {
        let mut offered = 0;
        let sent = {
            let chunks = self.chunks.borrow();
            let mut vectors = [IoSlice::new(&[]); IOVECS];
            let mut skip = self.sent.get();
            for (vector, chunk) in vectors.iter_mut().zip(chunks.iter()) {
                let bytes = value::bytes_of(chunk.borrow()).unwrap_or_default();
                *vector = IoSlice::new(&bytes[std::mem::take(&mut skip)..]);
                offered += vector.len();
            }
            send(&vectors[..chunks.len().min(IOVECS)])?
        };
        self.consume(sent);
        Ok((sent, offered))
    }

    /// Takes `sent` bytes off the front.
    fn consume(&self, sent: usize) {
        let mut past = self.sent.get() + sent;
        let mut done = Vec::new();
        {
            let mut chunks = self.chunks.borrow_mut();
            while let Some(chunk) = chunks.pop_front() {
                let len = value::bytes_of(chunk.borrow()).map_or(0, <[u8]>::len);
                if past < len {
                    chunks.push_front(chunk);
                    break;
                }
                past -= len;
                done.push(chunk);
            }
        }
        self.sent.set(past);
        drop(done);
    }

    pub(in crate::net) fn clear(&self) {
        let chunks = self.chunks.take();
        self.sent.set(0);
        drop(chunks);
    }

    pub(in crate::net) fn traverse(&self, visit: &mut Visit) {
        if let Ok(chunks) = self.chunks.try_borrow() {
            for chunk in chunks.iter() {
                visit.obj(chunk.borrow());
            }
        }
    }

    /// A copy of what is left, for asyncio's `_buffer`.
    pub(in crate::net) fn to_vec(&self) -> Vec<u8> {
        let chunks = self.chunks.borrow();
        let bytes = chunks
            .iter()
            .filter_map(|chunk| value::bytes_of(chunk.borrow()));
        bytes.flatten().skip(self.sent.get()).copied().collect()
    }
}
