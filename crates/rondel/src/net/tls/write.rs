//! Sending: from the application's writes to the transport below.

use super::{COALESCE, State, Tls, TlsTransport, bio, failed, names, session};
use crate::consts::names;
use crate::event_loop::LoopBase;
use crate::future::call_handler_in_except;
use crate::handle::ends_loop;
use crate::net::tcp;
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::{Inst, Obj, PyRes, Raised, Ref, call, ssl, value};

/// The most plaintext in a record: small writes are put together up to this.
const RECORD: usize = 16 * 1024;
/// What is encrypted between two sends of a large write. It bounds what OpenSSL's BIO keeps.
const STRETCH: usize = 64 * 1024;

/// `transport.write(data)`.
pub(super) fn write(slf: Inst<'_, TlsTransport>, data: Ref<'_>) -> PyRes<Obj> {
    let own = names::own();
    let empty = match value::bytes_of(data) {
        Some(bytes) => bytes.is_empty(),
        None => {
            if !data.is_instance(own.bytearray.borrow())?
                && !data.is_instance(own.memoryview.borrow())?
            {
                let name = call::getattr(data.type_of(), own.type_name.borrow())?;
                let name = value::str_text(name.borrow())?;
                return Err(Builtin::Type.raise(&format!(
                    "data: expecting a bytes-like instance, got {name}"
                )));
            }
            !data.truthy()?
        }
    };
    let Some(tls) = slf.tls.get() else {
        return Ok(Obj::none());
    };
    if empty {
        return Ok(Obj::none());
    }
    let tls = tls.inst();
    if is_over(tls) {
        let list = value::tuple([data.own()])?;
        return write_after_end(tls, list.borrow());
    }
    append(tls, data)?;
    written(tls)?;
    Ok(Obj::none())
}

/// `_write_appdata(list_of_data)`.
pub(super) fn write_list(slf: Inst<'_, Tls>, list: Ref<'_>) -> PyRes<Obj> {
    if is_over(slf) {
        return write_after_end(slf, list);
    }
    let mut chunks = Vec::new();
    value::for_each(list, |item| {
        chunks.push(item);
        Ok(())
    })?;
    // Under asyncio what is no bytes fails within OpenSSL, which is fatal for the connection.
    let added = chunks
        .iter()
        .try_for_each(|chunk| append(slf, chunk.borrow()));
    match added {
        Ok(()) => written(slf)?,
        Err(raised) => {
            flush(slf)?;
            failed(slf, raised)?;
        }
    }
    Ok(Obj::none())
}

/// Nothing can be written any more.
fn is_over(slf: Inst<'_, Tls>) -> bool {
    !matches!(slf.state.get(), State::Handshake | State::Wrapped)
}

/// asyncio counts such writes, and says so after some.
#[cold]
fn write_after_end(slf: Inst<'_, Tls>, list: Ref<'_>) -> PyRes<Obj> {
    call::call(names::own().stock_write.borrow(), &[slf.obj(), list])
}

/// Adds a chunk to the backlog: a `bytes` as it is, anything else as a copy, since it may change.
pub(super) fn append(slf: Inst<'_, Tls>, data: Ref<'_>) -> PyRes<()> {
    let chunk = match value::bytes_of(data) {
        Some(_) => data.own(),
        None => value::to_bytes(data)?,
    };
    let len = value::bytes_of(chunk.borrow()).map_or(0, <[u8]>::len);
    if len > 0 {
        slf.backlog.borrow_mut().push_back(chunk);
        slf.backlog_size.set(slf.backlog_size.get() + len);
    }
    Ok(())
}

/// Something was added: sends it, now or at the end of what the loop is at.
fn written(slf: Inst<'_, Tls>) -> PyRes<()> {
    if slf.state.get() != State::Wrapped || !slf.has_backlog() {
        return Ok(()); // the handshake comes first
    }
    if slf.backlog_size.get() >= COALESCE.min(slf.outgoing_high.get()) {
        return flush(slf);
    }
    if slf.delivering.get() || slf.to_flush.get() {
        return Ok(());
    }
    match slf.home.get() {
        Some(home) if home.runs_here() => {
            slf.to_flush.set(true);
            home.flush_later(slf.own());
            Ok(())
        }
        _ => flush(slf),
    }
}

/// Sends what was written in this turn: the loop calls it when its batch is over.
pub(crate) fn end_of_batch(home: Inst<'_, LoopBase>) -> PyRes<()> {
    while let Some(tls) = home.next_flush() {
        tls.to_flush.set(false);
        flush(tls.inst())?;
    }
    Ok(())
}

/// Sends what is in the backlog, if the connection is up. A failure ends it.
pub(super) fn flush(slf: Inst<'_, Tls>) -> PyRes<()> {
    if slf.state.get() != State::Wrapped || !slf.has_backlog() {
        return Ok(());
    }
    encrypt(slf).or_else(|raised| failed(slf, raised))
}

/// `_do_write()`: encrypts the backlog and sends it.
pub(super) fn encrypt(slf: Inst<'_, Tls>) -> PyRes<()> {
    let mut unsent = 0;
    while slf.has_backlog() {
        // Held back as plaintext while there is no room below, unless the end is to follow.
        if slf.lower_paused.get() && slf.state.get() == State::Wrapped {
            break;
        }
        match encrypt_some(slf) {
            Ok(count) => unsent += count,
            Err(raised) if ssl::wants_more(&raised) => {
                raised.clear();
                break;
            }
            Err(raised) => {
                // What was encrypted before it is on its way under asyncio as well.
                return Err(raised);
            }
        }
        if unsent >= STRETCH {
            unsent = 0;
            send(slf)?;
            // The rest would be written in vain, each stretch of it to be counted and complained of.
            if slf.tcp.get().is_some_and(|transport| transport.is_lost()) {
                break;
            }
        }
    }
    send(slf)?;
    control_app(slf)
}

/// Encrypts from the backlog's front: small chunks together, a large one in stretches.
fn encrypt_some(slf: Inst<'_, Tls>) -> PyRes<usize> {
    let (first, skip, gathered) = {
        let backlog = slf.backlog.borrow();
        let Some(first) = backlog.front() else {
            return Ok(0);
        };
        let skip = slf.head_sent.get();
        let len = value::bytes_of(first.borrow()).map_or(0, <[u8]>::len) - skip;
        let gathered = if len < RECORD && backlog.len() > 1 {
            let mut together = Vec::with_capacity(RECORD.min(slf.backlog_size.get()));
            let mut from = skip;
            for chunk in backlog.iter() {
                let bytes = value::bytes_of(chunk.borrow()).unwrap_or_default();
                let bytes = &bytes[std::mem::take(&mut from)..];
                let room = RECORD - together.len();
                together.extend_from_slice(&bytes[..bytes.len().min(room)]);
                if bytes.len() >= room {
                    break;
                }
            }
            Some(together)
        } else {
            None
        };
        (first.clone(), skip, gathered)
    };
    let bytes = match &gathered {
        Some(together) => &together[..],
        None => {
            let bytes = &value::bytes_of(first.borrow()).unwrap_or_default()[skip..];
            &bytes[..bytes.len().min(STRETCH)]
        }
    };
    let inner = slf.session.get();
    let count = match session(&inner) {
        Some(session) => session.write(bytes)?,
        None => {
            let sslobj = slf.sslobj.get().unwrap_or_else(Obj::none);
            let data = value::bytes(bytes)?;
            let args = [sslobj.borrow(), data.borrow()];
            let count = call::method(names::own().write.borrow(), args)?;
            usize::try_from(value::as_i64(count.borrow())?).unwrap_or(0)
        }
    };
    consume(slf, count.min(bytes.len()));
    Ok(count)
}

/// Takes `count` bytes off the backlog's front.
fn consume(slf: Inst<'_, Tls>, count: usize) {
    let mut done = Vec::new();
    {
        let mut backlog = slf.backlog.borrow_mut();
        let mut past = slf.head_sent.get() + count;
        while let Some(chunk) = backlog.front() {
            let len = value::bytes_of(chunk.borrow()).map_or(0, <[u8]>::len);
            if past < len {
                break;
            }
            past -= len;
            done.extend(backlog.pop_front());
        }
        // A callback of the context may have lost the connection meanwhile: all is gone then.
        slf.head_sent.set(if backlog.is_empty() { 0 } else { past });
        let size = slf.backlog_size.get().saturating_sub(count);
        slf.backlog_size
            .set(if backlog.is_empty() { 0 } else { size });
    }
    drop(done);
}

/// Passes on what OpenSSL has made, as far as there is room below.
fn send(slf: Inst<'_, Tls>) -> PyRes<()> {
    if slf.lower_paused.get() {
        return Ok(());
    }
    let outgoing = slf.outgoing.get();
    let data = bio(&outgoing)?.take()?;
    if value::bytes_of(data.borrow()).is_some_and(|bytes| !bytes.is_empty()) {
        if let Some(transport) = slf.tcp.get() {
            let _none = tcp::write(transport.inst(), data.borrow())?;
        } else if let Some(lower) = slf.lower.get() {
            let args = [lower.borrow(), data.borrow()];
            let _none = call::method(names::own().write.borrow(), args)?;
        }
    }
    Ok(())
}

/// `_process_outgoing()`.
pub(super) fn process_outgoing(slf: Inst<'_, Tls>) -> PyRes<()> {
    send(slf)?;
    control_app(slf)
}

/// The same, after reading: there is seldom anything.
pub(super) fn send_pending(slf: Inst<'_, Tls>) -> PyRes<()> {
    if bio(&slf.outgoing.get())?.pending()? > 0 {
        send(slf)?;
    }
    control_app(slf)
}

// ------------------------------------------------------------------------------- flow control

/// `pause_writing()`: there is no room below.
pub(super) fn pause_writing(slf: Inst<'_, Tls>) -> PyRes<Obj> {
    slf.lower_paused.set(true);
    Ok(Obj::none())
}

/// `resume_writing()`: there is room again.
pub(super) fn resume_writing(slf: Inst<'_, Tls>) -> PyRes<Obj> {
    slf.lower_paused.set(false);
    process_outgoing(slf)?;
    flush(slf)?;
    Ok(Obj::none())
}

/// Bytes that were written and are not below yet.
pub(super) fn buffered(slf: Inst<'_, Tls>) -> PyRes<usize> {
    let outgoing = slf.outgoing.get();
    Ok(slf.backlog_size.get() + bio(&outgoing)?.pending()?)
}

/// `_control_app_writing()`: tells the application's protocol to pause and to go on.
pub(super) fn control_app(slf: Inst<'_, Tls>) -> PyRes<()> {
    let size = if slf.lower_paused.get() {
        buffered(slf)?
    } else {
        slf.backlog_size.get() // nothing stays in the BIO
    };
    let paused = slf.app_writing_paused.get();
    let (name, message) = if size >= slf.outgoing_high.get() && !paused {
        (&names().pause_writing, "protocol.pause_writing() failed")
    } else if size <= slf.outgoing_low.get() && paused {
        (&names().resume_writing, "protocol.resume_writing() failed")
    } else {
        return Ok(());
    };
    slf.app_writing_paused.set(!paused);
    let Some(protocol) = slf.app_protocol.get() else {
        return Ok(());
    };
    match call::method(name.borrow(), [protocol.borrow()]) {
        Ok(_none) => Ok(()),
        Err(raised) => report(slf, raised, message),
    }
}

#[cold]
fn report(slf: Inst<'_, Tls>, raised: Raised, message: &str) -> PyRes<()> {
    let exc = raised.fetch();
    let Some(home) = slf.home.get().filter(|_| !ends_loop(exc.borrow())) else {
        return Err(err::raise_instance(exc.borrow()));
    };
    let context = value::dict()?;
    let message = value::str(message)?;
    let transport = slf.app_transport.get().unwrap_or_else(Obj::none);
    let own = names::own();
    for (key, value) in [
        (&names().message, message.borrow()),
        (&names().exception, exc.borrow()),
        (&own.transport, transport.borrow()),
        (&own.protocol, slf.obj()),
    ] {
        value::dict_set(context.borrow(), key.borrow(), value)?;
    }
    call_handler_in_except(home.obj(), context.borrow(), exc.borrow())
}
