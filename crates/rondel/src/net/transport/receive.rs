//! Receiving into a new `bytes` object whose size is not known before.
//!
//! The memory where such data land is one per thread, for whatever receives: connections, pipes,
//! datagrams, `sock_recv()`. What has it borrowed runs no Python (it receives, and copies into a `bytes`,
//! whose making starts no collection, or into OpenSSL's memory), so that nobody asks for it twice; if
//! that ever fails to hold, whoever asks second gets memory of its own.

use crate::net::expected::Expected;
use rondel_ffi::{Obj, PyRes, buffer, value};
use rustix::io::Errno;
use std::cell::{Cell, RefCell};
use std::mem::MaybeUninit;

/// asyncio's `max_size`: the most one read takes.
pub(in crate::net) const MAX_SIZE: usize = 256 * 1024;

thread_local! {
    /// Nothing is kept in it.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_SIZE].into_boxed_slice());
}

/// What one read gave.
pub(in crate::net) enum Got<T> {
    Data {
        data: T,
        /// It filled the buffer: there may be more.
        full: bool,
    },
    End,
    /// Nothing to read, after all.
    Nothing,
}

/// What can be read from, once and without blocking.
pub(in crate::net) trait Source {
    fn receive(&self, memory: &mut [u8]) -> Result<Got<usize>, Errno>;
    fn receive_new(&self, memory: &mut [MaybeUninit<u8>]) -> Result<Got<usize>, Errno>;
}

/// Calls `work` with [`MAX_SIZE`] bytes of the thread's scratch memory.
#[inline(always)]
pub(in crate::net) fn with_scratch<R>(work: impl FnOnce(&mut [u8]) -> R) -> R {
    SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut scratch) => work(&mut scratch),
        Err(_taken) => work(&mut vec![0; MAX_SIZE]),
    })
}

/// Reads once into a `bytes`. `last` is the guess at how much that is, and becomes that at the next.
///
/// # Errors
/// MemoryError, as an exception; those of the read, within.
pub(in crate::net) fn to_bytes(
    source: &impl Source,
    last: &Cell<Expected>,
) -> PyRes<Result<Got<Obj>, Errno>> {
    let got = if let Some(room) = last.get().room() {
        let made = buffer::new_bytes(room, |memory| match source.receive_new(memory) {
            Ok(Got::Data { data, .. }) => Ok(data),
            other => Err(other),
        })?;
        match made {
            Ok(data) => {
                let count = value::bytes_of(data.borrow()).map_or(0, <[u8]>::len);
                Ok(Got::Data {
                    full: count == room,
                    data,
                })
            }
            Err(Ok(Got::End)) => Ok(Got::End),
            Err(Ok(_)) => Ok(Got::Nothing),
            Err(Err(errno)) => Err(errno),
        }
    } else {
        with_scratch(|scratch| match source.receive(scratch) {
            Ok(Got::Data { data, full }) => {
                value::bytes(&scratch[..data]).map(|data| Ok(Got::Data { data, full }))
            }
            Ok(Got::End) => Ok(Ok(Got::End)),
            Ok(Got::Nothing) => Ok(Ok(Got::Nothing)),
            Err(errno) => Ok(Err(errno)),
        })?
    };
    if let Ok(Got::Data { data, .. }) = &got {
        let count = value::bytes_of(data.borrow()).map_or(0, <[u8]>::len);
        last.set(last.get().after(count));
    }
    Ok(got)
}
