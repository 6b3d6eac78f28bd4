//! The reading end.

use super::room::{Room, USUAL};
use super::{Roomy, close_pipe, names};
use crate::consts::names;
use crate::event_loop::{LoopBase, Side, unwatch, watch};
use crate::net::expected::Expected;
use crate::net::transport::close::{self, soon};
use crate::net::transport::receive::{self, Got, Source};
use crate::net::transport::switches::{self, Reads};
use crate::net::transport::{self, Life, Reading, Rest, State, Transport, os_error};
use rondel_ffi::class::{TypeBuilder, Visit};
use rondel_ffi::method::{self, Args};
use rondel_ffi::{Class, ClassCell, Inst, Obj, PyRes, call, value};
use rustix::io::{Errno, read};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Deref;

/// The largest packet of a pipe in packet mode, a page: a short read of more has emptied the pipe.
const PACKET: usize = if cfg!(target_arch = "x86_64") {
    4096
} else {
    64 * 1024
};

const READ_FAILED: &str = "Fatal read error on pipe transport";

#[derive(Default)]
#[repr(C)]
pub(crate) struct ReadPipe {
    state: State,
    expected: Cell<Expected>,
    /// A pipe, not a socket or a device.
    fifo: Cell<bool>,
    room: Room,
    rest: Rest,
}

static CELL: ClassCell = ClassCell::new();

impl Class for ReadPipe {
    /// Behind the fields of asyncio's class, which is written in Python.
    const PLACE: Option<usize> = None;

    fn cell() -> &'static ClassCell {
        &CELL
    }

    fn traverse(&self, visit: &mut Visit) {
        self.state.traverse(visit);
        visit.cell(&self.rest.extra);
    }

    fn clear(&self) {
        self.rest.extra.set(None);
        self.state.clear();
    }
}

impl Deref for ReadPipe {
    type Target = State;
    #[inline(always)]
    fn deref(&self) -> &State {
        &self.state
    }
}

impl Transport for ReadPipe {
    const NAME: &'static str = "_UnixReadPipeTransport";

    fn rest(&self) -> &Rest {
        &self.rest
    }

    fn drop_queue(&self) {}

    fn polls(&self) -> bool {
        self.life.get() == Life::Open && self.reading.get() == Reading::Flowing
    }

    fn deregister(home: Inst<'_, LoopBase>, slf: Inst<'_, Self>) -> PyRes<()> {
        if slf.reading.replace(Reading::Ended) == Reading::Flowing {
            unwatch(home, slf.fd.get(), Side::Reader)
        } else {
            Ok(())
        }
    }

    fn close_file(file: rondel_ffi::Ref<'_>) -> PyRes<()> {
        close_pipe(file)
    }

    fn let_go(slf: Inst<'_, Self>) -> PyRes<()> {
        slf.room.end();
        Ok(())
    }
}

impl Roomy for ReadPipe {
    fn room(&self) -> &Room {
        &self.room
    }
}

impl Source for Inst<'_, ReadPipe> {
    fn receive(&self, memory: &mut [u8]) -> Result<Got<usize>, Errno> {
        let room = memory.len();
        got(read(self.descriptor()?, memory), room)
    }

    fn receive_new(&self, memory: &mut [MaybeUninit<u8>]) -> Result<Got<usize>, Errno> {
        let room = memory.len();
        let read = read(self.descriptor()?, memory);
        got(read.map(|(read, _rest)| read.len()), room)
    }
}

fn got(read: Result<usize, Errno>, room: usize) -> Result<Got<usize>, Errno> {
    match read {
        Ok(0) => Ok(Got::End),
        Ok(count) => Ok(Got::Data {
            data: count,
            full: count == room,
        }),
        Err(Errno::AGAIN | Errno::INTR) => Ok(Got::Nothing),
        Err(errno) => Err(errno),
    }
}

/// `_open(loop, pipe, fd, protocol, extra)`
fn open(slf: Inst<'_, ReadPipe>, args: Args<'_>) -> PyRes<Obj> {
    super::open(slf, args)?;
    let kind = slf.descriptor().and_then(rustix::fs::fstat);
    let kind = kind.map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode));
    slf.fifo.set(kind == Ok(rustix::fs::FileType::Fifo));
    Ok(Obj::none())
}

/// `_read_ready()`: reads once, as asyncio does in one turn.
fn read_ready(slf: Inst<'_, ReadPipe>) -> PyRes<Obj> {
    let (Some(home), Some(protocol)) = (slf.home.get(), slf.protocol.get()) else {
        return Ok(Obj::none());
    };
    match receive::to_bytes(&slf, &slf.expected)? {
        Ok(Got::Data { data, full }) => {
            let count = value::bytes_of(data.borrow()).map_or(0, <[u8]>::len);
            if !full && slf.fifo.get() && count > PACKET {
                home.with_driver(|driver| {
                    driver.drained(slf.fd.get());
                    Ok(())
                })?;
            }
            if count >= USUAL {
                slf.room.was_full(slf.descriptor());
            }
            let args = [protocol.borrow(), data.borrow()];
            let _none = call::method(names().data_received.borrow(), args)?;
        }
        Ok(Got::End) => {
            super::log_closed(home.inst(), slf)?;
            slf.life.set(Life::Draining);
            Transport::deregister(home.inst(), slf)?;
            let eof = call::getattr(protocol.borrow(), names().eof_received.borrow())?;
            soon(home.inst(), eof.borrow(), &[])?;
            close::lose(slf, None)?;
        }
        Ok(Got::Nothing) => {}
        Err(errno) => close::fatal(slf, os_error(errno), READ_FAILED)?,
    }
    Ok(Obj::none())
}

impl Reads for ReadPipe {
    fn flow(home: Inst<'_, LoopBase>, slf: Inst<'_, Self>) -> PyRes<()> {
        let callback = call::getattr(slf.obj(), names::own().read_ready.borrow())?;
        watch(home, slf.fd.get(), Side::Reader, callback.borrow())?;
        slf.reading.set(Reading::Flowing);
        Ok(())
    }

    fn paused(home: Inst<'_, LoopBase>, slf: Inst<'_, Self>) -> PyRes<()> {
        unwatch(home, slf.fd.get(), Side::Reader)?;
        Ok(())
    }
}

type T = ReadPipe;

pub(super) fn build() -> PyRes<Obj> {
    TypeBuilder::<T>::new(c"rondel._rondel.ReadPipeBase")
        .over_python_class(super::asyncio_class(c"_UnixReadPipeTransport")?)
        .subclassable()
        .methods(transport::methods::<T>())
        .methods(switches::reading::<T>())
        .methods(super::methods::<T>())
        .methods([
            method::fast::<T, _>(c"_open", c"Take over the pipe.", open),
            method::noargs::<T, _>(
                c"_read_ready",
                c"Read once: there is something, or the end.",
                read_ready,
            ),
        ])
        .properties(transport::properties::<T>())
        .properties(super::properties::<T>())
        .properties([method::getter::<T, _>(c"_paused", transport::paused)])
        .build()
}
