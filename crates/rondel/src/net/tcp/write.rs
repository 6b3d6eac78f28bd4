//! Sending: `write()` tries at once, what the socket does not take is queued.
//!
//! The queue holds `bytes` objects as they were given, uncopied; other buffers are copied when they
//! have to wait, since their owner may change them.

use super::{Life, TcpTransport, again, deregister, deregister_idle, names, register};
use crate::event_loop::{IoEvent, LoopBase};
use crate::future::{self, State};
use crate::net::transport::limits::{maybe_pause, maybe_resume};
use crate::net::transport::{Transport, close, os_error, raise_errno};
use rondel_ffi::err::Builtin;
use rondel_ffi::{Inst, Obj, PyRes, Ref, buffer, call, context, value};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown, send, sendmsg, shutdown};

/// A peer that is gone is an error to report, not a SIGPIPE; and a socket that somebody made
/// blocking must not stop the loop.
const FLAGS: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

const WRITE_FAILED: &str = "Fatal write error on socket transport";

/// `transport.write(data)`.
pub(crate) fn write(slf: Inst<'_, TcpTransport>, data: Ref<'_>) -> PyRes<Obj> {
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
        close::count_lost(slf)?;
        return Ok(false);
    }
    Ok(true)
}

/// How much the socket took; 0 when it is full.
#[inline(always)]
fn send_now(slf: Inst<'_, TcpTransport>, bytes: &[u8]) -> Result<usize, Errno> {
    let socket = slf.descriptor()?;
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
    push(slf, chunk, sent)?;
    if first {
        arm(slf)?;
    }
    maybe_pause(slf)
}

/// `sent` is for the first chunk only.
fn push(slf: Inst<'_, TcpTransport>, chunk: Obj, sent: usize) -> PyRes<()> {
    let len = slf.queue.push(chunk, sent)?;
    slf.queued.set(slf.queued.get() + len);
    Ok(())
}

/// Waits for room: the socket is full, so its next edge is the one.
fn arm(slf: Inst<'_, TcpTransport>) -> PyRes<()> {
    slf.write_context.set(Some(context::copy_current()?));
    match slf.home.get() {
        Some(home) => register(home.inst(), slf),
        None => Ok(()),
    }
}

/// `transport.writelines(list)`: as few system calls as there can be.
pub(crate) fn writelines(slf: Inst<'_, TcpTransport>, list: Ref<'_>) -> PyRes<Obj> {
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
        chunks.push(if value::is_bytes_exact(item.borrow()) {
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
        push(slf, chunk, 0)?;
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
    let socket = slf.descriptor()?;
    let outcome = slf.queue.send(|vectors| {
        loop {
            match sendmsg(socket, vectors, &mut SendAncillaryBuffer::default(), FLAGS) {
                Err(Errno::INTR) => {}
                result => return result,
            }
        }
    });
    match outcome {
        Ok((sent, offered)) => {
            slf.queued.set(slf.queued.get() - sent);
            Ok(sent == offered)
        }
        Err(Errno::AGAIN) => Ok(false),
        Err(errno) => Err(errno),
    }
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
    slf.descriptor()
        .and_then(|socket| shutdown(socket, Shutdown::Write))
        .map_err(raise_errno)
}
