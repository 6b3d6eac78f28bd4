//! The transports of pipes (and of sockets and character devices that are used as such), with the
//! semantics of asyncio's `_UnixReadPipeTransport` and `_UnixWritePipeTransport`.
//!
//! [`ReadPipe`] and [`WritePipe`] are the payloads of `_rondel.ReadPipeBase` and `WritePipeBase`, which
//! derive from those very classes; `rondel._pipes` does what happens once per pipe. Their life, their
//! end and their flow control are those of every transport (`net::transport`).
//!
//! # Readiness
//! By the loop's watches, as under asyncio: level-triggered, by descriptor number, a native method as
//! the callback. Two transports may share a descriptor (a terminal's), and what a program does with
//! `add_reader()` means what it means there. An edge would be lost where a read does not empty the
//! pipe: packets (`O_DIRECT`), lines of a terminal. Only where that is out of the question the watch is
//! not armed again ([`read`]).
//!
//! All of it runs with the GIL held. The descriptor is made non-blocking when it is taken over; whoever
//! shares its file description may undo that, as under asyncio.

mod names;
mod read;
mod room;
mod write;

use crate::event_loop::LoopBase;
use crate::net::transport::{self, Life, Transport, close};
use rondel_ffi::err::Builtin;
use rondel_ffi::method::{self, Args, MethodDef, PropertyDef};
use rondel_ffi::{Inst, Obj, PyRes, Ref, call, value};
use room::Room;
use std::os::fd::RawFd;

/// `[ReadPipeBase, WritePipeBase]`.
pub(crate) fn build() -> PyRes<[Obj; 2]> {
    names::load()?;
    Ok([read::build()?, write::build()?])
}

/// asyncio's class of that name.
fn asyncio_class(name: &std::ffi::CStr) -> PyRes<Obj> {
    let module = call::import(c"asyncio.unix_events")?;
    call::getattr(module.borrow(), value::intern(name)?.borrow())
}

/// `_open(loop, pipe, fd, protocol, extra)`: what both kinds keep.
fn open<T: Transport>(slf: Inst<'_, T>, args: Args<'_>) -> PyRes<()> {
    let [home, pipe, fd, protocol, extra] = args.positional() else {
        return Err(Builtin::Type
            .raise("_open() takes a loop, a pipe, its descriptor, a protocol and extra"));
    };
    if slf.life.get() != Life::Gone || slf.rest().extra.is_some() {
        return Err(Builtin::Runtime.raise("the transport was opened already"));
    }
    let Some(home) = home.cast::<LoopBase>() else {
        let text = value::repr(*home)?;
        return Err(Builtin::Type.raise(&format!("a rondel.EventLoop was expected, got {text}")));
    };
    let number = RawFd::try_from(value::as_i64(*fd)?).unwrap_or(-1);
    slf.fd.set(number);
    slf.protocol.set(Some(protocol.own()));
    slf.rest().extra.set(Some(extra.own()));
    slf.file.set(Some(pipe.own()));
    slf.home.set(Some(home.own()));
    slf.life.set(Life::Open);
    Ok(())
}

/// `pipe.close()`
fn close_pipe(pipe: Ref<'_>) -> PyRes<()> {
    call::method(names::own().close.borrow(), [pipe]).map(drop)
}

fn set_protocol<T: Transport>(slf: Inst<'_, T>, protocol: Ref<'_>) -> PyRes<Obj> {
    slf.protocol.set(Some(protocol.own()));
    Ok(Obj::none())
}

/// `_close(exc=None)`, asyncio's name for what sockets call `_force_close`.
fn close_for<T: Transport>(slf: Inst<'_, T>, args: Args<'_>) -> PyRes<Obj> {
    let exc = names::own().exc.borrow();
    let [exc] = args.bind("_close", [exc], 0, 1)?;
    close::force(slf, exc.and_then(Ref::not_none))?;
    Ok(Obj::none())
}

/// Debug mode: `"<transport> was closed by peer"` to asyncio's logger.
fn log_closed<T: Transport>(home: Inst<'_, LoopBase>, slf: Inst<'_, T>) -> PyRes<()> {
    if home.is_debug() {
        let own = names::own();
        let args = [own.logger.borrow(), own.closed_by_peer.borrow(), slf.obj()];
        let _none = call::method(own.info.borrow(), args)?;
    }
    Ok(())
}

/// What has a pipe that may be enlarged.
trait Roomy {
    fn room(&self) -> &Room;
}

/// What both ends have, by asyncio's names but for `_may_grow`.
fn methods<T: Transport + Roomy>() -> [MethodDef; 4] {
    [
        method::noargs::<T, _>(
            c"_may_grow",
            c"Let the pipe be enlarged when it is full: it was made for a child.",
            may_grow,
        ),
        method::fast::<T, _>(
            c"_close",
            c"Close at once, because of an exception.",
            close_for,
        ),
        method::onearg::<T, _>(
            c"set_protocol",
            c"Switch to another protocol.",
            set_protocol,
        ),
        method::fast::<T, _>(
            c"get_extra_info",
            c"Information about the pipe, by name.",
            transport::get_extra_info,
        ),
    ]
}

/// `_may_grow()`: the pipe is a child's.
fn may_grow<T: Transport + Roomy>(slf: Inst<'_, T>) -> PyRes<Obj> {
    slf.room().may_grow();
    Ok(Obj::none())
}

/// State by asyncio's private names.
fn properties<T: Transport>() -> [PropertyDef; 3] {
    let shown = |cell: Option<Obj>| Ok(cell.unwrap_or_else(Obj::none));
    [
        method::property::<T, _, _>(
            c"_pipe",
            move |slf: Inst<'_, T>| shown(slf.file.get()),
            |slf: Inst<'_, T>, pipe: Option<Ref<'_>>| {
                slf.file.set(pipe.and_then(Ref::not_none).map(Ref::own));
                Ok(())
            },
        ),
        method::getter::<T, _>(c"_fileno", |slf: Inst<'_, T>| {
            if slf.rest().extra.is_none() {
                return Ok(Obj::none()); // refused
            }
            value::int(i64::from(slf.fd.get()))
        }),
        method::getter::<T, _>(c"_extra", move |slf: Inst<'_, T>| {
            shown(slf.rest().extra.get())
        }),
    ]
}
