//! The writing end: `write()` tries at once, what the pipe does not take is queued.
//!
//! It watches for readability too, which means that the reader is gone: of pipes and sockets, as
//! devices say no such thing.

use super::room::Room;
use super::{Roomy, close_pipe, names};
use crate::event_loop::{LoopBase, Side, unwatch, watch};
use crate::net::transport::limits::{self, maybe_pause, maybe_resume};
use crate::net::transport::{self, Life, Queue, Reading, Rest, State, Transport, close, os_error};
use rondel_ffi::class::{TypeBuilder, Visit};
use rondel_ffi::err::Builtin;
use rondel_ffi::method::{self, Args};
use rondel_ffi::{Class, ClassCell, Inst, Obj, PyRes, Ref, buffer, call, value};
use rustix::io::Errno;
use std::cell::Cell;
use std::ops::Deref;

const WRITE_FAILED: &str = "Fatal write error on pipe transport";

/// Its `reading` is that of the reader's end: `Flowing` while that is watched for.
#[derive(Default)]
#[repr(C)]
pub(crate) struct WritePipe {
    state: State,
    /// The loop watches for room.
    waits: Cell<bool>,
    queue: Queue,
    room: Room,
    rest: Rest,
}

static CELL: ClassCell = ClassCell::new();

impl Class for WritePipe {
    /// Behind the fields of asyncio's class, which is written in Python.
    const PLACE: Option<usize> = None;

    fn cell() -> &'static ClassCell {
        &CELL
    }

    fn traverse(&self, visit: &mut Visit) {
        self.state.traverse(visit);
        self.queue.traverse(visit);
        visit.cell(&self.rest.extra);
    }

    fn clear(&self) {
        self.drop_queue();
        self.rest.extra.set(None);
        self.state.clear();
    }
}

impl Deref for WritePipe {
    type Target = State;
    #[inline(always)]
    fn deref(&self) -> &State {
        &self.state
    }
}

impl Transport for WritePipe {
    const NAME: &'static str = "_UnixWritePipeTransport";
    const LOST_WARNING: &'static str =
        "pipe closed by peer or os.write(pipe, data) raised exception.";
    const LOST: u32 = 0;

    fn rest(&self) -> &Rest {
        &self.rest
    }

    fn drop_queue(&self) {
        self.queued.set(0);
        self.queue.clear();
    }

    fn polls(&self) -> bool {
        self.reading.get() == Reading::Flowing
    }

    fn deregister(home: Inst<'_, LoopBase>, slf: Inst<'_, Self>) -> PyRes<()> {
        let room = if slf.waits.take() {
            unwatch(home, slf.fd.get(), Side::Writer)
        } else {
            Ok(())
        };
        let end = if slf.reading.replace(Reading::Ended) == Reading::Flowing {
            unwatch(home, slf.fd.get(), Side::Reader)
        } else {
            Ok(())
        };
        room.and(end)
    }

    fn close_file(file: Ref<'_>) -> PyRes<()> {
        close_pipe(file)
    }

    fn let_go(slf: Inst<'_, Self>) -> PyRes<()> {
        slf.drop_queue();
        slf.room.end();
        Ok(())
    }
}

impl Roomy for WritePipe {
    fn room(&self) -> &Room {
        &self.room
    }
}

/// `_open(loop, pipe, fd, protocol, extra)`
fn open(slf: Inst<'_, WritePipe>, args: Args<'_>) -> PyRes<Obj> {
    super::open(slf, args)?;
    limits::set_default(slf);
    Ok(Obj::none())
}

/// `_watch_end()`: the callback after `connection_made`, for what tells of the reader's end.
fn watch_end(slf: Inst<'_, WritePipe>) -> PyRes<Obj> {
    if matches!(slf.life.get(), Life::Open | Life::Draining)
        && slf.reading.get() == Reading::Waiting
        && let Some(home) = slf.home.get()
    {
        let callback = call::getattr(slf.obj(), names::own().read_ready.borrow())?;
        watch(home.inst(), slf.fd.get(), Side::Reader, callback.borrow())?;
        slf.reading.set(Reading::Flowing);
    }
    Ok(Obj::none())
}

/// `_read_ready()`: the reader is gone.
fn read_ready(slf: Inst<'_, WritePipe>) -> PyRes<Obj> {
    let Some(home) = slf.home.get() else {
        return Ok(Obj::none());
    };
    super::log_closed(home.inst(), slf)?;
    let exc = if slf.queued.get() > 0 {
        Some(call::call0(names::own().broken_pipe.borrow())?)
    } else {
        None
    };
    close::force(slf, exc.as_ref().map(Obj::borrow))?;
    Ok(Obj::none())
}

/// `transport.write(data)`.
fn write(slf: Inst<'_, WritePipe>, data: Ref<'_>) -> PyRes<Obj> {
    match value::bytes_of(data) {
        Some(bytes) => {
            if !admit(slf, bytes.is_empty())? {
                return Ok(Obj::none());
            }
            let sent = if slf.queued.get() > 0 {
                0
            } else {
                match write_now(slf, bytes) {
                    Ok(sent) if sent == bytes.len() => return Ok(Obj::none()),
                    Ok(sent) => sent,
                    Err(errno) => return write_failed(slf, errno),
                }
            };
            enqueue(slf, data.own(), sent)?;
        }
        None => write_buffer(slf, data)?,
    }
    Ok(Obj::none())
}

/// A bytearray or a memoryview: what has to wait is copied, as its owner may change it.
fn write_buffer(slf: Inst<'_, WritePipe>, data: Ref<'_>) -> PyRes<()> {
    let own = names::own();
    if !data.is_instance(own.bytearray.borrow())? && !data.is_instance(own.memoryview.borrow())? {
        return Err(Builtin::Assertion.raise(&value::repr(data)?));
    }
    if !admit(slf, !data.truthy()?)? {
        return Ok(());
    }
    let try_now = slf.queued.get() == 0;
    let attempt = buffer::with_bytes(data, |bytes| {
        let sent = if try_now { write_now(slf, bytes)? } else { 0 };
        Ok(if sent == bytes.len() {
            None
        } else {
            Some(value::bytes(&bytes[sent..]))
        })
    });
    match attempt {
        Ok(Ok(None)) => Ok(()),
        Ok(Ok(Some(rest))) => enqueue(slf, rest?, 0),
        Ok(Err(errno)) => write_failed(slf, errno).map(drop),
        Err(raised) => close::failed(slf, raised, WRITE_FAILED),
    }
}

/// Whether there is something to write, and somewhere.
#[inline(always)]
fn admit(slf: Inst<'_, WritePipe>, empty: bool) -> PyRes<bool> {
    if empty {
        return Ok(false);
    }
    if slf.life.get() != Life::Open {
        close::count_lost(slf)?;
        return Ok(false);
    }
    Ok(true)
}

/// How much the pipe took; less than all when it is full.
fn write_now(slf: Inst<'_, WritePipe>, bytes: &[u8]) -> Result<usize, Errno> {
    let sent = write_once(slf, bytes)?;
    if sent == bytes.len() || !slf.room.was_full(slf.descriptor()) {
        return Ok(sent);
    }
    match write_once(slf, &bytes[sent..]) {
        Ok(more) => Ok(sent + more),
        Err(errno) if sent == 0 => Err(errno),
        // What is left is queued, and its write meets the error.
        Err(_) => Ok(sent),
    }
}

fn write_once(slf: Inst<'_, WritePipe>, bytes: &[u8]) -> Result<usize, Errno> {
    match rustix::io::write(slf.descriptor()?, bytes) {
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        result => result,
    }
}

#[cold]
fn write_failed(slf: Inst<'_, WritePipe>, errno: Errno) -> PyRes<Obj> {
    let lost_count = &slf.rest.lost_count;
    lost_count.set(lost_count.get().saturating_add(1));
    close::fatal(slf, os_error(errno), WRITE_FAILED)?;
    Ok(Obj::none())
}

/// Queues all of `chunk` but the first `sent` bytes.
fn enqueue(slf: Inst<'_, WritePipe>, chunk: Obj, sent: usize) -> PyRes<()> {
    let len = slf.queue.push(chunk, sent)?;
    slf.queued.set(slf.queued.get() + len);
    if !slf.waits.get()
        && let Some(home) = slf.home.get()
    {
        let callback = call::getattr(slf.obj(), names::own().write_ready.borrow())?;
        watch(home.inst(), slf.fd.get(), Side::Writer, callback.borrow())?;
        slf.waits.set(true);
    }
    maybe_pause(slf)
}

/// `_write_ready()`: there is room.
fn write_ready(slf: Inst<'_, WritePipe>) -> PyRes<Obj> {
    let Some(home) = slf.home.get() else {
        return Ok(Obj::none());
    };
    let written = slf
        .descriptor()
        .and_then(|pipe| slf.queue.send(|vectors| rustix::io::writev(pipe, vectors)));
    match written {
        Ok((sent, _offered)) => slf.queued.set(slf.queued.get() - sent),
        Err(Errno::AGAIN | Errno::INTR) => return Ok(Obj::none()),
        Err(errno) => {
            slf.drop_queue();
            return write_failed(slf, errno);
        }
    }
    if slf.queued.get() > 0 {
        return Ok(Obj::none());
    }
    if slf.waits.take() {
        unwatch(home.inst(), slf.fd.get(), Side::Writer)?;
    }
    maybe_resume(slf)?; // may write more, which is sent before the end
    if slf.life.get() == Life::Draining && slf.queued.get() == 0 {
        close::connection_lost(slf, None)?;
    }
    Ok(Obj::none())
}

type T = WritePipe;

pub(super) fn build() -> PyRes<Obj> {
    TypeBuilder::<T>::new(c"rondel._rondel.WritePipeBase")
        .over_python_class(super::asyncio_class(c"_UnixWritePipeTransport")?)
        .subclassable()
        .methods(transport::methods::<T>())
        .methods(super::methods::<T>())
        .methods(transport::writing::<T>())
        .methods([
            method::fast::<T, _>(c"_open", c"Take over the pipe.", open),
            method::noargs::<T, _>(
                c"_watch_end",
                c"Hear of it when the reader is gone.",
                watch_end,
            ),
            method::noargs::<T, _>(c"_read_ready", c"The reader is gone.", read_ready),
            method::noargs::<T, _>(
                c"_write_ready",
                c"Write what is queued: there is room.",
                write_ready,
            ),
            method::onearg::<T, _>(
                c"write",
                c"Write bytes, at once if the pipe takes them.",
                write,
            ),
            method::noargs::<T, _>(
                c"write_eof",
                c"Close after writing what is queued.",
                close::close,
            ),
        ])
        .properties(transport::properties::<T>())
        .properties(transport::writing_properties::<T>())
        .properties(super::properties::<T>())
        .properties([method::getter::<T, _>(c"_buffer", |slf: Inst<'_, T>| {
            let left = value::bytes(&slf.queue.to_vec())?;
            call::call1(names::own().bytearray.borrow(), left.borrow())
        })])
        .build()
}
