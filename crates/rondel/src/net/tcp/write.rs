//! Sending: `write()` tries at once, what the socket does not take is queued, and the protocol is
//! told to pause above the high-water mark and to resume at the low one.
//!
//! The queue holds `bytes` objects as they were given, uncopied; other buffers are copied when they
//! have to wait, since their owner may change them.

use super::{
    Life, TcpTransport, again, close, deregister, deregister_idle, names, os_error, raise_errno,
    register,
};
use crate::consts::names;
use crate::event_loop::{IoEvent, LoopBase};
use crate::future::{self, State};
use rondel_ffi::err::Builtin;
use rondel_ffi::{Inst, Obj, PyRes, Ref, buffer, call, context, fd, value};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown, send, sendmsg, shutdown};
use std::io::IoSlice;
use std::os::fd::BorrowedFd;

/// How many chunks of the queue one system call sends.
const IOVECS: usize = 64;
/// Writes to a lost connection before asyncio's logger hears of them
/// (`LOG_THRESHOLD_FOR_CONNLOST_WRITES`).
const LOST_WRITES: u32 = 5;
/// A peer that is gone is an error to report, not a SIGPIPE; and a socket that somebody made
/// blocking must not stop the loop.
const FLAGS: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

const WRITE_FAILED: &str = "Fatal write error on socket transport";

fn socket<'a>(slf: Inst<'a, TcpTransport>) -> Result<BorrowedFd<'a>, Errno> {
    slf.data()
        .sock
        .peek()
        .and_then(|sock| fd::lend(sock, slf.fd.get()))
        .ok_or(Errno::BADF)
}

/// `transport.write(data)`.
pub(super) fn write(slf: Inst<'_, TcpTransport>, data: Ref<'_>) -> PyRes<Obj> {
    match value::bytes_of(data) {
        Some(bytes) => {
            if admit(slf, "write", "write", bytes.is_empty())? {
                if slf.has_queued() {
                    enqueue(slf, data.own(), 0)?;
                } else {
                    match send_now(slf, bytes) {
                        Ok(sent) if sent == bytes.len() => {}
                        Ok(sent) => enqueue(slf, data.own(), sent)?,
                        Err(errno) => close::fatal(slf, os_error(errno), WRITE_FAILED)?,
                    }
                }
            }
        }
        None => write_buffer(slf, data)?,
    }
    Ok(Obj::none())
}

/// A bytearray or a memoryview.
fn write_buffer(slf: Inst<'_, TcpTransport>, data: Ref<'_>) -> PyRes<()> {
    let own = names::own();
    if !data.is_instance(own.bytearray.borrow())? && !data.is_instance(own.memoryview.borrow())? {
        let name = value::repr(call::getattr(data.type_of(), own.type_name.borrow())?.borrow())?;
        return Err(Builtin::Type.raise(&format!(
            "data argument must be a bytes-like object, not {name}"
        )));
    }
    if !admit(slf, "write", "write", !data.truthy()?)? {
        return Ok(());
    }
    let try_now = !slf.has_queued();
    let attempt = buffer::with_bytes(data, |bytes| {
        let sent = if try_now { send_now(slf, bytes)? } else { 0 };
        Ok(if sent == bytes.len() {
            None
        } else {
            Some(value::bytes(&bytes[sent..]))
        })
    });
    match attempt {
        Ok(Ok(None)) => Ok(()),
        Ok(Ok(Some(rest))) => enqueue(slf, rest?, 0),
        Ok(Err(errno)) => close::fatal(slf, os_error(errno), WRITE_FAILED),
        Err(raised) => close::failed(slf, raised, WRITE_FAILED),
    }
}

/// asyncio's checks ahead of every write, in its order; `false` when there is nothing to do.
#[inline(always)]
fn admit(slf: Inst<'_, TcpTransport>, func: &str, verb: &str, empty: bool) -> PyRes<bool> {
    if slf.eof_written.get() {
        return Err(Builtin::Runtime.raise(&format!("Cannot call {func}() after write_eof()")));
    }
    if !slf.empty_waiter.is_none() {
        return Err(Builtin::Runtime.raise(&format!("unable to {verb}; sendfile is in progress")));
    }
    if empty {
        return Ok(false);
    }
    if slf.is_lost() {
        count_lost(slf)?;
        return Ok(false);
    }
    Ok(true)
}

#[cold]
fn count_lost(slf: Inst<'_, TcpTransport>) -> PyRes<()> {
    let count = slf.lost_count.get();
    slf.lost_count.set(count.saturating_add(1));
    if count >= LOST_WRITES {
        let own = names::own();
        let text = value::str("socket.send() raised exception.")?;
        let _none = call::method(own.warning.borrow(), [own.logger.borrow(), text.borrow()])?;
    }
    Ok(())
}

/// How much the socket took; 0 when it is full.
#[inline(always)]
fn send_now(slf: Inst<'_, TcpTransport>, bytes: &[u8]) -> Result<usize, Errno> {
    let socket = socket(slf)?;
    loop {
        return match send(socket, bytes, FLAGS) {
            Err(Errno::AGAIN) => Ok(0),
            Err(Errno::INTR) => continue,
            result => result,
        };
    }
}

/// Queues what the socket did not take: all of `chunk` but the first `sent` bytes.
fn enqueue(slf: Inst<'_, TcpTransport>, chunk: Obj, sent: usize) -> PyRes<()> {
    let first = !slf.has_queued();
    push(slf, chunk, sent);
    if first {
        arm(slf)?;
    }
    maybe_pause(slf)
}

/// `sent` is for the first chunk only.
fn push(slf: Inst<'_, TcpTransport>, chunk: Obj, sent: usize) {
    let len = value::bytes_of(chunk.borrow()).map_or(0, <[u8]>::len) - sent;
    if len > 0 {
        if sent > 0 {
            slf.head_sent.set(sent);
        }
        slf.queue.borrow_mut().push_back(chunk);
        slf.queued.set(slf.queued.get() + len);
    }
}

/// Waits for room: the socket is full, so its next edge is the one.
fn arm(slf: Inst<'_, TcpTransport>) -> PyRes<()> {
    slf.write_context.set(Some(context::copy_current()?));
    match slf.home.get() {
        Some(home) => register(home.inst(), slf),
        None => Ok(()),
    }
}

/// `transport.writelines(list)`: one system call for up to [`IOVECS`] of them.
pub(super) fn writelines(slf: Inst<'_, TcpTransport>, list: Ref<'_>) -> PyRes<Obj> {
    // Before 3.12 asyncio joins the list and writes that.
    let (func, verb) = if cfg!(Py_3_12) {
        ("writelines", "writelines")
    } else {
        ("write", "write")
    };
    if !admit(slf, func, verb, !list.truthy()?)? {
        return Ok(Obj::none());
    }
    // Nothing is queued before all of it is known to be good.
    let mut chunks = Vec::new();
    value::for_each(list, |item| {
        chunks.push(if value::bytes_of(item.borrow()).is_some() {
            item
        } else {
            value::to_bytes(item.borrow())?
        });
        Ok(())
    })?;
    if slf.is_lost() {
        return Ok(Obj::none()); // the iterable has ended the connection
    }
    let first = !slf.has_queued();
    for chunk in chunks {
        push(slf, chunk, 0);
    }
    if first && slf.has_queued() {
        match flush(slf) {
            Ok(_all) if !slf.has_queued() => return Ok(Obj::none()),
            Ok(all_offered) => {
                arm(slf)?;
                if all_offered && let Some(home) = slf.home.get() {
                    again(home.inst(), slf, WRITABLE);
                }
            }
            Err(errno) => {
                slf.drop_queue();
                close::fatal(slf, os_error(errno), WRITE_FAILED)?;
                return Ok(Obj::none());
            }
        }
    }
    maybe_pause(slf)?;
    Ok(Obj::none())
}

const WRITABLE: IoEvent = IoEvent {
    readable: false,
    writable: true,
    read_closed: false,
};

/// Sends from the queue, once; `true` if the socket took all that was offered to it.
fn flush(slf: Inst<'_, TcpTransport>) -> Result<bool, Errno> {
    let socket = socket(slf)?;
    let (sent, offered) = {
        let queue = slf.queue.borrow();
        let mut vectors = [IoSlice::new(&[]); IOVECS];
        let mut skip = slf.head_sent.get();
        let mut offered = 0;
        for (vector, chunk) in vectors.iter_mut().zip(queue.iter()) {
            let bytes = value::bytes_of(chunk.borrow()).unwrap_or_default();
            *vector = IoSlice::new(&bytes[std::mem::take(&mut skip)..]);
            offered += vector.len();
        }
        let vectors = &vectors[..queue.len().min(IOVECS)];
        loop {
            match sendmsg(socket, vectors, &mut SendAncillaryBuffer::default(), FLAGS) {
                Ok(sent) => break (sent, offered),
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    };
    consume(slf, sent);
    Ok(sent == offered)
}

/// Takes `sent` bytes off the queue's front.
fn consume(slf: Inst<'_, TcpTransport>, sent: usize) {
    slf.queued.set(slf.queued.get() - sent);
    let mut past = slf.head_sent.get() + sent;
    let mut done = Vec::new();
    {
        let mut queue = slf.queue.borrow_mut();
        while let Some(chunk) = queue.pop_front() {
            let len = value::bytes_of(chunk.borrow()).map_or(0, <[u8]>::len);
            if past < len {
                queue.push_front(chunk);
                break;
            }
            past -= len;
            done.push(chunk);
        }
    }
    slf.head_sent.set(past);
    drop(done);
}

/// There is room: sends from the queue, then does what waited for it to empty.
pub(super) fn ready(home: Inst<'_, LoopBase>, slf: Inst<'_, TcpTransport>) -> PyRes<()> {
    if let Some(context) = slf.write_context.get() {
        home.enter(context.borrow())?;
    }
    let all_offered = match flush(slf) {
        Ok(all_offered) => all_offered,
        Err(errno) => {
            slf.drop_queue();
            let exc = os_error(errno);
            let waiter = slf.empty_waiter.get();
            close::fatal(slf, exc.clone(), WRITE_FAILED)?;
            return match waiter {
                Some(waiter) if !waiter.done() => future::fail(waiter.inst(), exc),
                _ => Ok(()),
            };
        }
    };
    maybe_resume(slf)?; // may write more
    if slf.has_queued() {
        if all_offered {
            again(home, slf, WRITABLE);
        }
        return Ok(());
    }
    if let Some(waiter) = slf.empty_waiter.get() {
        lend_to_sendfile(home, slf, &waiter)?;
    }
    match slf.life.get() {
        Life::Draining => close::connection_lost(slf, None),
        Life::Open if slf.eof_written.get() => {
            shut_down(slf)?;
            deregister_idle(home, slf)
        }
        Life::Open => deregister_idle(home, slf),
        Life::Lost | Life::Gone => Ok(()),
    }
}

/// `sendfile` is about to watch the descriptor itself, which epoll takes only once.
fn lend_to_sendfile(
    home: Inst<'_, LoopBase>,
    slf: Inst<'_, TcpTransport>,
    waiter: &rondel_ffi::Own<future::Future>,
) -> PyRes<()> {
    deregister(home, slf)?;
    if waiter.done() {
        return Ok(());
    }
    future::finish(waiter.inst(), State::Finished, Some(Obj::none()))
}

/// `_make_empty_waiter()`: a future that is done when nothing is left to send.
pub(super) fn make_empty_waiter(slf: Inst<'_, TcpTransport>) -> PyRes<Obj> {
    if !slf.empty_waiter.is_none() {
        return Err(Builtin::Runtime.raise("Empty waiter is already set"));
    }
    let Some(home) = slf.home.get() else {
        return Err(Builtin::Runtime.raise("the transport is closed"));
    };
    let waiter = future::create(home.inst())?;
    slf.empty_waiter.set(Some(waiter.clone()));
    if !slf.has_queued() {
        lend_to_sendfile(home.inst(), slf, &waiter)?;
    }
    Ok(waiter.into_obj())
}

/// `_reset_empty_waiter()`: `sendfile` is over.
pub(super) fn reset_empty_waiter(slf: Inst<'_, TcpTransport>) -> PyRes<Obj> {
    slf.empty_waiter.set(None);
    if slf.life.get() == Life::Open
        && slf.reading.get() == super::Reading::Flowing
        && let Some(home) = slf.home.get()
    {
        register(home.inst(), slf)?; // reading was resumed meanwhile
    }
    Ok(Obj::none())
}

/// `transport.write_eof()`.
pub(super) fn write_eof(slf: Inst<'_, TcpTransport>) -> PyRes<Obj> {
    if slf.life.get() == Life::Open && !slf.eof_written.replace(true) && !slf.has_queued() {
        shut_down(slf)?;
    }
    Ok(Obj::none())
}

fn shut_down(slf: Inst<'_, TcpTransport>) -> PyRes<()> {
    socket(slf)
        .and_then(|socket| shutdown(socket, Shutdown::Write))
        .map_err(raise_errno)
}

// ------------------------------------------------------------------------------- flow control

/// Tells the protocol to pause when the queue has grown above the high-water mark.
pub(super) fn maybe_pause(slf: Inst<'_, TcpTransport>) -> PyRes<()> {
    if slf.queued.get() <= slf.high_water.get() || slf.protocol_paused.replace(true) {
        return Ok(());
    }
    let Some(protocol) = slf.protocol.get() else {
        return Ok(());
    };
    match call::method(names().pause_writing.borrow(), [protocol.borrow()]) {
        Ok(_none) => Ok(()),
        Err(raised) => close::to_handler(slf, raised, "protocol.pause_writing() failed"),
    }
}

fn maybe_resume(slf: Inst<'_, TcpTransport>) -> PyRes<()> {
    if !slf.protocol_paused.get() || slf.queued.get() > slf.low_water.get() {
        return Ok(());
    }
    slf.protocol_paused.set(false);
    let Some(protocol) = slf.protocol.get() else {
        return Ok(());
    };
    match call::method(names().resume_writing.borrow(), [protocol.borrow()]) {
        Ok(_none) => Ok(()),
        Err(raised) => close::to_handler(slf, raised, "protocol.resume_writing() failed"),
    }
}
