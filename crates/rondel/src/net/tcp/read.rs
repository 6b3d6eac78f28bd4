//! Receiving: from readiness to the protocol, and the switches of `pause_reading()`.

use super::{
    Life, Missed, Reading, TcpTransport, again, close, deregister_idle, names, os_error, register,
};
use crate::consts::names;
use crate::event_loop::{IoEvent, LoopBase};
use rondel_ffi::err::Builtin;
use rondel_ffi::{Inst, Obj, PyRes, Raised, buffer, call, context, fd, value};
use rustix::buffer::Buffer;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::cell::RefCell;

/// asyncio's `max_size`: the most one `recv` takes.
const MAX_SIZE: usize = 256 * 1024;

/// After a read of this size the next is made straight into a new `bytes`: below, copying from the
/// scratch memory costs less than a second look at the size; above, the C library would map and
/// unmap memory for each (its threshold is 128 KiB), which costs several times the copy.
const DIRECT: std::ops::Range<usize> = 16 * 1024..DIRECT_ROOM;
const DIRECT_ROOM: usize = 124 * 1024;

thread_local! {
    /// Where data lands before its size is known. One per thread: nothing is kept in it.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_SIZE].into_boxed_slice());
}

/// What one `recv` gave.
enum Got<T> {
    Data {
        data: T,
        /// It filled the buffer: the socket may hold more.
        full: bool,
    },
    End,
    /// Nothing to read, after all.
    Nothing,
}

/// Reads once, if the protocol wants it. `closed`: epoll has seen the peer's end.
pub(super) fn ready(
    home: Inst<'_, LoopBase>,
    slf: Inst<'_, TcpTransport>,
    closed: bool,
) -> PyRes<()> {
    if slf.life.get() != Life::Open {
        return Ok(());
    }
    match slf.reading.get() {
        Reading::Flowing => {}
        Reading::Ended => return Ok(()),
        Reading::Waiting | Reading::Paused => {
            slf.miss(if closed { Missed::End } else { Missed::Data });
            return Ok(());
        }
    }
    if let Some(context) = slf.read_context.get() {
        home.enter(context.borrow())?;
    }
    let delivered = if slf.buffered.get() {
        to_buffer(slf)
    } else {
        to_data_received(slf)
    };
    let done = match delivered {
        Ok(Outcome::Delivered { full }) if full || closed => Ok(()),
        Ok(Outcome::Delivered { .. } | Outcome::Nothing) => return Ok(()),
        Ok(Outcome::Ended) => match end(home, slf) {
            Ok(()) => return Ok(()),
            Err(raised) => Err(raised),
        },
        // KeyboardInterrupt: the loop may well be run again, and the edge is used up.
        Err(raised) => Err(raised),
    };
    match (slf.life.get(), slf.reading.get()) {
        (Life::Open, Reading::Flowing) => {
            again(
                home,
                slf,
                IoEvent {
                    readable: true,
                    writable: false,
                    read_closed: closed,
                },
            );
        }
        (Life::Open, _) => slf.miss(if closed { Missed::End } else { Missed::Data }),
        _ => {}
    }
    done
}

enum Outcome {
    Delivered {
        full: bool,
    },
    Ended,
    /// There was nothing, or the transport failed.
    Nothing,
}

fn to_data_received(slf: Inst<'_, TcpTransport>) -> PyRes<Outcome> {
    let Some(protocol) = slf.protocol.get() else {
        return Ok(Outcome::Nothing);
    };
    let expected = slf.last_read.get();
    let got = if DIRECT.contains(&expected) {
        let room = (expected + expected / 4)
            .next_multiple_of(4096)
            .min(DIRECT_ROOM);
        buffer::new_bytes(room, |memory| match receive(slf, memory) {
            Ok(Got::Data { data, .. }) => Ok(data),
            other => Err(other),
        })
        .map(|made| match made {
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
        })
    } else {
        SCRATCH.with_borrow_mut(|scratch| match receive(slf, scratch) {
            Ok(Got::Data { data, full }) => {
                value::bytes(&scratch[..data]).map(|data| Ok(Got::Data { data, full }))
            }
            Ok(Got::End) => Ok(Ok(Got::End)),
            Ok(Got::Nothing) => Ok(Ok(Got::Nothing)),
            Err(errno) => Ok(Err(errno)),
        })
    };
    let (data, full) = match got {
        Ok(Ok(Got::Data { data, full })) => (data, full),
        Ok(Ok(Got::End)) => return Ok(Outcome::Ended),
        Ok(Ok(Got::Nothing)) => return Ok(Outcome::Nothing),
        Ok(Err(errno)) => return read_failed(slf, errno),
        Err(no_memory) => return failed(slf, no_memory, READ_FAILED),
    };
    slf.last_read
        .set(value::bytes_of(data.borrow()).map_or(0, <[u8]>::len));
    match call::method(
        names().data_received.borrow(),
        [protocol.borrow(), data.borrow()],
    ) {
        Ok(_none) => Ok(Outcome::Delivered { full }),
        Err(raised) => failed(
            slf,
            raised,
            "Fatal error: protocol.data_received() call failed.",
        ),
    }
}

fn to_buffer(slf: Inst<'_, TcpTransport>) -> PyRes<Outcome> {
    let Some(protocol) = slf.protocol.get() else {
        return Ok(Outcome::Nothing);
    };
    let hint = names::own().minus_one.borrow();
    let space = match call::method(names().get_buffer.borrow(), [protocol.borrow(), hint]) {
        Ok(space) => space,
        Err(raised) => return failed(slf, raised, GET_BUFFER_FAILED),
    };
    let got = buffer::with_bytes_mut(space.borrow(), |memory| {
        if memory.is_empty() {
            None
        } else {
            Some(receive(slf, memory))
        }
    });
    let (count, full) = match got {
        Ok(Some(Ok(Got::Data { data, full }))) => (data, full),
        Ok(Some(Ok(Got::End))) => return Ok(Outcome::Ended),
        Ok(Some(Ok(Got::Nothing))) => return Ok(Outcome::Nothing),
        Ok(Some(Err(errno))) => return read_failed(slf, errno),
        Ok(None) => return unusable(slf, &space),
        Err(raised) => {
            raised.clear();
            return unusable(slf, &space);
        }
    };
    drop(space);
    let protocol = slf.protocol.get().unwrap_or(protocol); // get_buffer() may have switched it
    let count = value::int(i64::try_from(count).unwrap_or(i64::MAX))?;
    match call::method(
        names().buffer_updated.borrow(),
        [protocol.borrow(), count.borrow()],
    ) {
        Ok(_none) => Ok(Outcome::Delivered { full }),
        Err(raised) => failed(
            slf,
            raised,
            "Fatal error: protocol.buffer_updated() call failed.",
        ),
    }
}

const GET_BUFFER_FAILED: &str = "Fatal error: protocol.get_buffer() call failed.";

/// What `get_buffer()` returned can't be received into; asyncio finds out in two steps.
#[cold]
fn unusable(slf: Inst<'_, TcpTransport>, space: &Obj) -> PyRes<Outcome> {
    match buffer::len(space.borrow()) {
        Err(raised) => failed(slf, raised, GET_BUFFER_FAILED),
        Ok(0) => {
            let raised = Builtin::Runtime.raise("get_buffer() returned an empty buffer");
            failed(slf, raised, GET_BUFFER_FAILED)
        }
        Ok(_) => {
            let name = call::getattr(space.borrow().type_of(), names::own().type_name.borrow())?;
            let name = value::str_text(name.borrow())?;
            let text =
                format!("get_buffer() must return a read-write bytes-like object, not {name}");
            failed(slf, Builtin::Type.raise(&text), READ_FAILED)
        }
    }
}

/// One `recv` that never blocks.
fn receive<T>(slf: Inst<'_, TcpTransport>, memory: &mut [T]) -> Result<Got<usize>, Errno>
where
    for<'a> &'a mut [T]: Buffer<u8>,
{
    let Some(socket) = slf
        .sock
        .peek()
        .and_then(|sock| fd::lend(sock, slf.fd.get()))
    else {
        return Err(Errno::BADF);
    };
    let room = memory.len();
    loop {
        return match recv(socket, &mut *memory, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Ok(Got::End),
            Ok((_, count)) => Ok(Got::Data {
                data: count,
                full: count == room,
            }),
            Err(Errno::AGAIN) => Ok(Got::Nothing),
            // The edge is used up: nobody would call again.
            Err(Errno::INTR) => continue,
            Err(errno) => Err(errno),
        };
    }
}

/// The peer's end.
fn end(home: Inst<'_, LoopBase>, slf: Inst<'_, TcpTransport>) -> PyRes<()> {
    close::log_debug(home, slf, "received EOF")?;
    let Some(protocol) = slf.protocol.get() else {
        return Ok(());
    };
    let keep_open = match call::method(names().eof_received.borrow(), [protocol.borrow()]) {
        Ok(answer) => answer.borrow().truthy()?,
        Err(raised) => {
            return close::failed(
                slf,
                raised,
                "Fatal error: protocol.eof_received() call failed.",
            );
        }
    };
    if !keep_open {
        return close::close_now(slf);
    }
    if slf.life.get() == Life::Open {
        // Under asyncio a later pause and resume reads the end once more; the memory serves that.
        slf.miss(Missed::End);
        if slf.reading.get() == Reading::Flowing {
            slf.reading.set(Reading::Ended);
        }
        deregister_idle(home, slf)?;
    }
    Ok(())
}

const READ_FAILED: &str = "Fatal read error on socket transport";

#[cold]
fn read_failed(slf: Inst<'_, TcpTransport>, errno: Errno) -> PyRes<Outcome> {
    close::fatal(slf, os_error(errno), READ_FAILED)?;
    Ok(Outcome::Nothing)
}

#[cold]
fn failed(slf: Inst<'_, TcpTransport>, raised: Raised, message: &str) -> PyRes<Outcome> {
    close::failed(slf, raised, message)?;
    Ok(Outcome::Nothing)
}

/// Lets data flow from now on: registers, or takes up what was missed.
fn flow(home: Inst<'_, LoopBase>, slf: Inst<'_, TcpTransport>) -> PyRes<()> {
    slf.reading.set(Reading::Flowing);
    slf.read_context.set(Some(context::copy_current()?));
    let missed = slf.missed.take();
    if slf.token.get().is_none() {
        // `sendfile` has the socket: it is registered again afterwards.
        return if slf.empty_waiter.is_none() {
            register(home, slf)
        } else {
            Ok(())
        };
    }
    if missed != Missed::Nothing {
        again(
            home,
            slf,
            IoEvent {
                readable: true,
                writable: false,
                read_closed: missed == Missed::End,
            },
        );
    }
    Ok(())
}

/// `_start_reading()`: the callback after `connection_made`.
pub(super) fn start_reading(slf: Inst<'_, TcpTransport>) -> PyRes<Obj> {
    if slf.life.get() == Life::Open
        && slf.reading.get() == Reading::Waiting
        && let Some(home) = slf.home.get()
    {
        flow(home.inst(), slf)?;
    }
    Ok(Obj::none())
}

pub(super) fn pause_reading(slf: Inst<'_, TcpTransport>) -> PyRes<Obj> {
    if slf.is_reading()
        && let Some(home) = slf.home.get()
    {
        slf.reading.set(Reading::Paused);
        close::log_debug(home.inst(), slf, "pauses reading")?;
    }
    Ok(Obj::none())
}

pub(super) fn resume_reading(slf: Inst<'_, TcpTransport>) -> PyRes<Obj> {
    if slf.life.get() == Life::Open
        && slf.reading.get() == Reading::Paused
        && let Some(home) = slf.home.get()
    {
        flow(home.inst(), slf)?;
        close::log_debug(home.inst(), slf, "resumes reading")?;
    }
    Ok(Obj::none())
}
