//! Receiving: from the transport below to the application's protocol.

use super::{Kind, State, Tls, bio, failed, names, session, write};
use crate::consts::names;
use crate::handle;
use crate::net::transport::switches;
use rondel_ffi::buffer::{self, Writable};
use rondel_ffi::err::Builtin;
use rondel_ffi::ssl::{self, Bio, Session};
use rondel_ffi::{Inst, Obj, PyRes, Raised, Ref, call, value};
use std::mem::MaybeUninit;

/// The most that one `bytes` object is made for; more is joined.
const MAX_ROOM: usize = 256 * 1024;
/// The most plaintext in a record.
const RECORD: usize = 16 * 1024;

/// Encrypted bytes came in: puts them where OpenSSL finds them. Runs no Python code.
pub(crate) fn take_in(slf: Inst<'_, Tls>, data: &[u8]) -> PyRes<()> {
    let alone = slf.dry.replace(false) && is_one_record(data);
    slf.lone.set(if alone { data.len() } else { 0 });
    bio(&slf.incoming.get())?.put(data)
}

/// A header says how long its record is (RFC 8446, 5.1).
fn is_one_record(data: &[u8]) -> bool {
    match data {
        [_, _, _, high, low, body @ ..] => {
            body.len() == usize::from(u16::from_be_bytes([*high, *low]))
        }
        _ => false,
    }
}

/// Goes on with what has come in.
pub(crate) fn advance(slf: Inst<'_, Tls>) -> PyRes<()> {
    let name = match slf.state.get() {
        State::Wrapped => return read(slf),
        State::Unwrapped => return Ok(()),
        State::Handshake => &names::own().do_handshake,
        State::Flushing => &names::own().do_flush,
        State::Shutdown => &names::own().do_shutdown,
    };
    let _none = call::method(name.borrow(), [slf.obj()])?;
    Ok(())
}

/// `_do_read()`: delivers what has come in, then sends what the protocol wrote meanwhile.
pub(super) fn read(slf: Inst<'_, Tls>) -> PyRes<()> {
    if !matches!(slf.state.get(), State::Wrapped | State::Flushing) {
        return Ok(());
    }
    let kept = slf.own();
    let outer = slf.delivering.replace(true);
    let outcome = deliver_all(kept.inst());
    slf.delivering.set(outer);
    match outcome {
        Ok(()) => Ok(()),
        Err(raised) => {
            // Under asyncio it went out when it was written, before the error.
            let exc = raised.fetch();
            if slf.has_backlog() && slf.state.get() == State::Wrapped {
                write::flush(slf)?;
            }
            failed(slf, rondel_ffi::err::raise_instance(exc.borrow()))
        }
    }
}

fn deliver_all(slf: Inst<'_, Tls>) -> PyRes<()> {
    let reads = !slf.app_reading_paused.get();
    if reads {
        let inner = slf.session.get();
        match (session(&inner), slf.kind.get()) {
            (Some(session), Kind::Buffered) => to_buffer(slf, session)?,
            (Some(session), _) => to_bytes(slf, session)?,
            (None, _) => foreign(slf)?,
        }
    }
    if slf.has_backlog() {
        write::encrypt(slf)?;
    } else {
        // OpenSSL may have answered the peer by itself. So it goes out while reading is paused, too:
        // the end of a handshake after which the protocol paused at once, say.
        write::send_pending(slf)?;
    }
    if reads && !slf.lower_reading_paused.get() && slf.incoming_high.get() > MAX_ROOM / 2 {
        return Ok(()); // at most what one `recv` brings can be left
    }
    control_lower(slf)
}

/// How a run of reads ended.
enum End {
    /// There is nothing more, for now.
    Dry,
    /// The memory is full: OpenSSL may have more.
    Full,
    /// The peer has sent its close_notify.
    Closed,
}

/// Reads until nothing is left, or no room. `next` reads once to an offset; `filled` is that of the
/// end.
fn drain(
    slf: Inst<'_, Tls>,
    incoming: Bio<'_>,
    room: usize,
    filled: &mut usize,
    mut next: impl FnMut(usize) -> PyRes<usize>,
) -> PyRes<End> {
    loop {
        match next(*filled) {
            Ok(0) => {
                slf.lone.set(0);
                return Ok(End::Closed);
            }
            Ok(count) => *filled += count,
            Err(raised) if ssl::wants_more(&raised) => {
                raised.clear();
                slf.lone.set(0);
                slf.mid_record.set(true);
                return Ok(End::Dry);
            }
            Err(raised) => return Err(raised),
        }
        slf.mid_record.set(false);
        let alone = slf.lone.replace(0) > 0;
        if *filled >= room {
            return Ok(End::Full);
        }
        if alone || incoming.pending()? == 0 {
            // A read ends with its record, and leaves none of it behind while there is room.
            slf.dry.set(true);
            return Ok(End::Dry);
        }
    }
}

/// No plaintext will be longer than this; 0 when there is nothing to read.
fn expected(slf: Inst<'_, Tls>, incoming: Bio<'_>, session: Session<'_>) -> PyRes<usize> {
    let lone = slf.lone.get();
    if lone > 0 {
        return Ok(lone);
    }
    let pending = incoming.pending()?;
    Ok(match pending {
        0 => session.pending()?,
        _ if slf.mid_record.get() => pending + RECORD,
        _ => pending,
    }
    .min(MAX_ROOM))
}

fn to_bytes(slf: Inst<'_, Tls>, session: Session<'_>) -> PyRes<()> {
    let incoming = slf.incoming.get();
    let incoming = bio(&incoming)?;
    let mut first = None;
    let mut more: Vec<Obj> = Vec::new();
    let mut closed = false;
    loop {
        let room = expected(slf, incoming, session)?;
        if room == 0 {
            break;
        }
        let mut end = End::Dry;
        let part = buffer::new_bytes(room, |memory: &mut [MaybeUninit<u8>]| {
            let mut filled = 0;
            end = drain(slf, incoming, room, &mut filled, |at| {
                session.read(&mut memory[at..])
            })?;
            Ok::<usize, Raised>(filled)
        })??;
        match first {
            None => first = Some(part),
            Some(_) => more.push(part),
        }
        match end {
            End::Full => {}
            End::Dry => break,
            End::Closed => {
                closed = true;
                break;
            }
        }
    }
    let data = match first {
        Some(first) if !more.is_empty() => Some(join(&first, &more)?),
        first => first,
    };
    if let Some(data) = data
        && value::bytes_of(data.borrow()).is_some_and(|data| !data.is_empty())
    {
        hand_over(slf, data)?;
    }
    if closed { peer_closed(slf) } else { Ok(()) }
}

fn join(first: &Obj, more: &[Obj]) -> PyRes<Obj> {
    let parts = || std::iter::once(first).chain(more);
    let slices = || parts().filter_map(|part| value::bytes_of(part.borrow()));
    let total = slices().map(<[u8]>::len).sum();
    let mut all = Vec::with_capacity(total);
    slices().for_each(|slice| all.extend_from_slice(slice));
    value::bytes(&all)
}

/// Gives data to the application's protocol.
fn hand_over(slf: Inst<'_, Tls>, data: Obj) -> PyRes<()> {
    let Some(protocol) = slf.app_protocol.get() else {
        return Ok(());
    };
    if slf.kind.get() == Kind::Nested
        && let Some(inner) = protocol.borrow().cast::<Tls>()
    {
        take_in(inner, value::bytes_of(data.borrow()).unwrap_or_default())?;
        return advance(inner);
    }
    let _none = call::method(
        names().data_received.borrow(),
        [protocol.borrow(), data.borrow()],
    )?;
    Ok(())
}

fn to_buffer(slf: Inst<'_, Tls>, session: Session<'_>) -> PyRes<()> {
    let incoming = slf.incoming.get();
    let incoming = bio(&incoming)?;
    let expected = expected(slf, incoming, session)?;
    if expected == 0 {
        return Ok(());
    }
    let Some(protocol) = slf.app_protocol.get() else {
        return Ok(());
    };
    // asyncio's hint, or a little more: what is encrypted here.
    let hint = int(expected)?;
    let space = call::method(
        names().get_buffer.borrow(),
        [protocol.borrow(), hint.borrow()],
    )?;
    let mut filled = 0;
    let end = {
        let target = Writable::new(space.borrow())?;
        if target.is_empty() {
            return Err(Builtin::Runtime.raise("get_buffer() returned an empty buffer"));
        }
        drain(slf, incoming, target.len(), &mut filled, |at| {
            session.read_into(&target, at)
        })?
    };
    drop(space);
    if matches!(end, End::Full) {
        soon(slf, names::own().do_read.borrow())?;
    }
    if filled > 0 {
        let protocol = slf.app_protocol.get().unwrap_or(protocol); // get_buffer() may have switched it
        let count = int(filled)?;
        let _none = call::method(
            names().buffer_updated.borrow(),
            [protocol.borrow(), count.borrow()],
        )?;
    }
    if matches!(end, End::Closed) {
        peer_closed(slf)
    } else {
        Ok(())
    }
}

/// By the methods of an `SSLObject` of somebody else's making.
#[cold]
fn foreign(slf: Inst<'_, Tls>) -> PyRes<()> {
    let Some(sslobj) = slf.sslobj.get() else {
        return Ok(());
    };
    let size = int(MAX_ROOM)?;
    let mut all = Vec::new();
    let mut closed = false;
    loop {
        let args = [sslobj.borrow(), size.borrow()];
        match call::method(names::own().read.borrow(), args) {
            Ok(chunk) => match value::bytes_of(chunk.borrow()) {
                Some(data) if !data.is_empty() => all.extend_from_slice(data),
                _ => {
                    closed = true;
                    break;
                }
            },
            Err(raised) if ssl::wants_more(&raised) => {
                raised.clear();
                break;
            }
            Err(raised) => return Err(raised),
        }
    }
    if slf.kind.get() == Kind::Buffered {
        let mut rest = &all[..];
        while !rest.is_empty() {
            rest = &rest[copy_to_buffer(slf, rest)?..];
        }
    } else if !all.is_empty() {
        hand_over(slf, value::bytes(&all)?)?;
    }
    if closed { peer_closed(slf) } else { Ok(()) }
}

fn copy_to_buffer(slf: Inst<'_, Tls>, data: &[u8]) -> PyRes<usize> {
    let Some(protocol) = slf.app_protocol.get() else {
        return Ok(data.len());
    };
    let hint = int(data.len())?;
    let space = call::method(
        names().get_buffer.borrow(),
        [protocol.borrow(), hint.borrow()],
    )?;
    let count = buffer::with_bytes_mut(space.borrow(), |memory| {
        let count = memory.len().min(data.len());
        memory[..count].copy_from_slice(&data[..count]);
        count
    })?;
    if count == 0 {
        return Err(Builtin::Runtime.raise("get_buffer() returned an empty buffer"));
    }
    let filled = int(count)?;
    let _none = call::method(
        names().buffer_updated.borrow(),
        [protocol.borrow(), filled.borrow()],
    )?;
    Ok(count)
}

fn peer_closed(slf: Inst<'_, Tls>) -> PyRes<()> {
    let _none = call::method(names::own().call_eof_received.borrow(), [slf.obj()])?;
    let _none = call::method(names::own().start_shutdown.borrow(), [slf.obj()])?;
    Ok(())
}

fn int(number: usize) -> PyRes<Obj> {
    value::int(i64::try_from(number).unwrap_or(i64::MAX))
}

/// `call_soon(self.name)`.
fn soon(slf: Inst<'_, Tls>, name: Ref<'_>) -> PyRes<()> {
    let Some(home) = slf.home.get() else {
        return Ok(());
    };
    let callback = call::getattr(slf.obj(), name)?;
    if home.is_debug() {
        // asyncio's own method has the checks of debug mode.
        let args = [home.obj(), callback.borrow()];
        let _handle = call::method(names().call_soon.borrow(), args)?;
        return Ok(());
    }
    home.check_open()?;
    let handle = handle::new(home.inst(), callback.borrow(), &[], None)?;
    home.push(crate::event_loop::Ready::Run(handle));
    Ok(())
}

// ------------------------------------------------------------------------------- flow control

pub(super) fn resume_reading(slf: Inst<'_, Tls>) -> PyRes<Obj> {
    if slf.app_reading_paused.replace(false) {
        soon(slf, names::own().resumed.borrow())?;
    }
    Ok(Obj::none())
}

/// The callback of `resume_reading()`.
pub(super) fn resumed(slf: Inst<'_, Tls>) -> PyRes<Obj> {
    if slf.state.get() != State::Handshake {
        advance(slf)?;
    }
    Ok(Obj::none())
}

/// `_control_ssl_reading()`: pauses and resumes the transport below.
pub(super) fn control_lower(slf: Inst<'_, Tls>) -> PyRes<()> {
    let size = bio(&slf.incoming.get())?.pending()?;
    let paused = slf.lower_reading_paused.get();
    if size >= slf.incoming_high.get() && !paused {
        slf.lower_reading_paused.set(true);
        if let Some(transport) = slf.tcp.get() {
            let _none = switches::pause_reading(transport.inst())?;
        } else if let Some(lower) = slf.lower.get() {
            let _none = call::method(names::own().pause_reading.borrow(), [lower.borrow()])?;
        }
    } else if size <= slf.incoming_low.get() && paused {
        slf.lower_reading_paused.set(false);
        if let Some(transport) = slf.tcp.get() {
            let _none = switches::resume_reading(transport.inst())?;
        } else if let Some(lower) = slf.lower.get() {
            let _none = call::method(names::own().resume_reading.borrow(), [lower.borrow()])?;
        }
    }
    Ok(())
}
