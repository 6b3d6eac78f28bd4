//! Receiving: from readiness to the protocol, and what the switches of `pause_reading()` do.

use super::{Kind, Life, Missed, Reading, TcpTransport, again, deregister_idle, names, register};
use crate::consts::names;
use crate::event_loop::{IoEvent, LoopBase};
use crate::net::expected::LARGEST;
use crate::net::streams;
use crate::net::tls::{self, Tls};
use crate::net::transport::receive::{Got, Source, to_bytes, with_scratch};
use crate::net::transport::switches::Reads;
use crate::net::transport::{close, os_error};
use rondel_ffi::err::Builtin;
use rondel_ffi::{Inst, Obj, PyRes, Raised, buffer, call, context, value};
use rustix::buffer::Buffer;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::mem::MaybeUninit;

/// The most one `recv` takes for a layer of TLS: what it decrypts of that is a `bytes` below the same
/// threshold.
const TLS_ROOM: usize = LARGEST;

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
            slf.miss(Missed::of(closed));
            return Ok(());
        }
    }
    if slf.has_reader() && tell_reader(slf)? {
        // Whoever reads receives: the data is then used while it is warm, and no copy waits for it.
        slf.miss(Missed::of(closed));
        return Ok(());
    }
    deliver(home, slf, closed)
}

/// Wakes the task that waits for this stream's data, if there is one.
fn tell_reader(slf: Inst<'_, TcpTransport>) -> PyRes<bool> {
    match slf.reader() {
        Some(reader) => streams::announce(reader.inst()),
        None => Ok(false),
    }
}

/// Receives what a stream's reader was told of; whether there was any such thing.
#[inline(always)]
pub(crate) fn pull(slf: Inst<'_, TcpTransport>) -> PyRes<bool> {
    if slf.missed.get() == Missed::Nothing
        || slf.life.get() != Life::Open
        || slf.reading.get() != Reading::Flowing
    {
        return Ok(false);
    }
    let Some(home) = slf.home.get() else {
        return Ok(false);
    };
    let missed = slf.missed.take();
    deliver(home.inst(), slf, missed == Missed::End)?;
    Ok(true)
}

/// Takes back what a reader was told of: it does not read after all.
pub(crate) fn put_back(slf: Inst<'_, TcpTransport>) {
    if slf.missed.get() != Missed::Nothing
        && slf.life.get() == Life::Open
        && slf.reading.get() == Reading::Flowing
        && let Some(home) = slf.home.get()
    {
        let missed = slf.missed.take();
        let event = IoEvent {
            readable: true,
            writable: false,
            read_closed: missed == Missed::End,
        };
        again(home.inst(), slf, event);
    }
}

/// Receives once and hands the data over. `closed`: epoll has seen the peer's end.
fn deliver(home: Inst<'_, LoopBase>, slf: Inst<'_, TcpTransport>, closed: bool) -> PyRes<()> {
    // A native stream's reader runs nothing of the program's.
    if !slf.has_reader()
        && let Some(context) = slf.read_context.get()
    {
        home.enter(context.borrow())?;
    }
    let delivered = match slf.kind.get() {
        Kind::Plain => to_data_received(slf),
        Kind::Buffered => to_buffer(slf),
        Kind::Tls => to_tls(slf),
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
        (Life::Open, _) => slf.miss(Missed::of(closed)),
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
    let reader = slf.reader();
    let protocol = match reader {
        // A native stream's is not called, so that it need not be fetched into the cache.
        Some(_) => None,
        None => match slf.protocol.get() {
            Some(protocol) => Some(protocol),
            None => return Ok(Outcome::Nothing),
        },
    };
    let (data, full) = match to_bytes(&slf, &slf.expected) {
        Ok(Ok(Got::Data { data, full })) => (data, full),
        Ok(Ok(Got::End)) => return Ok(Outcome::Ended),
        Ok(Ok(Got::Nothing)) => return Ok(Outcome::Nothing),
        Ok(Err(errno)) => return read_failed(slf, errno),
        Err(no_memory) => return failed(slf, no_memory, READ_FAILED),
    };
    let received = match (&reader, &protocol) {
        (Some(reader), _) => streams::feed(reader.inst(), data.borrow()),
        (None, Some(protocol)) => {
            let args = [protocol.borrow(), data.borrow()];
            call::method(names().data_received.borrow(), args).map(drop)
        }
        (None, None) => Ok(()),
    };
    match received {
        Ok(()) => Ok(Outcome::Delivered { full }),
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
            Some(slf.receive(memory))
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
        Err(raised) => failed(slf, raised, BUFFER_UPDATED_FAILED),
    }
}

/// To a layer of TLS, which takes a copy.
fn to_tls(slf: Inst<'_, TcpTransport>) -> PyRes<Outcome> {
    let protocol = slf.protocol.get();
    let Some(tls) = protocol.as_ref().and_then(|obj| obj.borrow().cast::<Tls>()) else {
        return Ok(Outcome::Nothing);
    };
    let got = with_scratch(|scratch| match slf.receive(&mut scratch[..TLS_ROOM]) {
        Ok(Got::Data { data, full }) => {
            tls::take_in(tls, &scratch[..data]).map(|()| Ok(Got::Data { data, full }))
        }
        other => Ok(other),
    });
    let outcome = match got {
        Ok(Ok(Got::Data { full, .. })) => tls::advance(tls).map(|()| full),
        Ok(Ok(Got::End)) => return Ok(Outcome::Ended),
        Ok(Ok(Got::Nothing)) => return Ok(Outcome::Nothing),
        Ok(Err(errno)) => return read_failed(slf, errno),
        Err(raised) => Err(raised),
    };
    match outcome {
        Ok(full) => Ok(Outcome::Delivered { full }),
        Err(raised) => failed(slf, raised, BUFFER_UPDATED_FAILED),
    }
}

const BUFFER_UPDATED_FAILED: &str = "Fatal error: protocol.buffer_updated() call failed.";
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

impl Source for Inst<'_, TcpTransport> {
    fn receive(&self, memory: &mut [u8]) -> Result<Got<usize>, Errno> {
        receive(*self, memory)
    }
    fn receive_new(&self, memory: &mut [MaybeUninit<u8>]) -> Result<Got<usize>, Errno> {
        receive(*self, memory)
    }
}

/// One `recv` that never blocks.
fn receive<T>(slf: Inst<'_, TcpTransport>, memory: &mut [T]) -> Result<Got<usize>, Errno>
where
    for<'a> &'a mut [T]: Buffer<u8>,
{
    let socket = slf.descriptor()?;
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

/// Starts reading after `connection_made`, in the context that is there for it.
pub(super) fn begin(home: Inst<'_, LoopBase>, slf: Inst<'_, TcpTransport>) -> PyRes<()> {
    if slf.life.get() != Life::Open || slf.reading.get() != Reading::Waiting {
        return Ok(());
    }
    slf.reading.set(Reading::Flowing);
    if slf.empty_waiter.is_none() {
        register(home, slf)
    } else {
        Ok(())
    }
}

impl Reads for TcpTransport {
    fn flow(home: Inst<'_, LoopBase>, slf: Inst<'_, Self>) -> PyRes<()> {
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
}
