//! `add_reader` and its kin: level-triggered watchers of descriptors.

use super::LoopBase;
use crate::handle::{self, Handle};
use rondel_ffi::err::Builtin;
use rondel_ffi::method::Args;
use rondel_ffi::{Inst, Obj, Own, PyRes, Ref, call, value};
use std::os::fd::RawFd;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Side {
    Reader,
    Writer,
}

/// A descriptor from an int or from an object with `fileno()`, as selectors take them.
pub(crate) fn descriptor(obj: Ref<'_>) -> PyRes<RawFd> {
    let number = if value::is_int(obj) {
        obj.own()
    } else {
        match call::getattr_opt(obj, value::intern(c"fileno")?.borrow())? {
            Some(fileno) => call::call0(fileno.borrow())?,
            None => {
                let text = value::repr(obj)?;
                return Err(Builtin::Value.raise(&format!("Invalid file object: {text}")));
            }
        }
    };
    let fd = value::as_i64(number.borrow())?;
    match RawFd::try_from(fd) {
        Ok(fd) if fd >= 0 => Ok(fd),
        _ => Err(Builtin::Value.raise(&format!("Invalid file descriptor: {fd}"))),
    }
}

fn add(slf: Inst<'_, LoopBase>, args: Args<'_>, side: Side, func: &str) -> PyRes<Obj> {
    slf.check_open()?;
    let [fd, callback, rest @ ..] = args.positional() else {
        return Err(
            Builtin::Type.raise(&format!("{func}() needs a file descriptor and a callback"))
        );
    };
    let file = if value::is_int(*fd) {
        None
    } else {
        Some(fd.own())
    };
    let fd = descriptor(*fd)?;
    let watcher = handle::watcher(slf, *callback, rest)?;
    install(slf, fd, file, watcher.clone(), side)?;
    Ok(watcher.into_obj())
}

/// `add_reader` or `add_writer` of a native transport.
pub(crate) fn watch(
    home: Inst<'_, LoopBase>,
    fd: RawFd,
    side: Side,
    callback: Ref<'_>,
) -> PyRes<()> {
    home.check_open()?;
    let watcher = handle::watcher(home, callback, &[])?;
    install(home, fd, None, watcher, side)
}

/// Undoes [`watch`].
pub(crate) fn unwatch(home: Inst<'_, LoopBase>, fd: RawFd, side: Side) -> PyRes<()> {
    if home.closed.get() {
        return Ok(());
    }
    clear(home, fd, side).map(|_was_watched| ())
}

fn install(
    slf: Inst<'_, LoopBase>,
    fd: RawFd,
    file: Option<Obj>,
    watcher: Own<Handle>,
    side: Side,
) -> PyRes<()> {
    let (mut reader, mut writer) = {
        let watches = slf.watches.borrow();
        watches
            .get(&fd)
            .map_or((false, false), |w| (w.reader.is_some(), w.writer.is_some()))
    };
    let replaced = match side {
        Side::Reader => std::mem::replace(&mut reader, true),
        Side::Writer => std::mem::replace(&mut writer, true),
    };
    // Setting an interest that is set already would cost a system call and change nothing, unless
    // the descriptor was closed and its number reused: the driver finds that out.
    crate::net::sock::vacate(&slf, fd)?;
    slf.with_driver(|driver| driver.watch_fd(fd, reader, writer))?;
    let forgotten;
    let old = {
        let mut watches = slf.watches.borrow_mut();
        let watch = watches.entry(fd).or_default();
        forgotten = std::mem::replace(&mut watch.file, file);
        let place = match side {
            Side::Reader => &mut watch.reader,
            Side::Writer => &mut watch.writer,
        };
        place.replace(watcher)
    };
    debug_assert_eq!(old.is_some(), replaced);
    drop(forgotten);
    if let Some(old) = old {
        handle::cancel_handle(old.inst())?;
    }
    Ok(())
}

fn remove(slf: Inst<'_, LoopBase>, fd: Ref<'_>, side: Side) -> PyRes<Obj> {
    if slf.closed.get() {
        return Ok(Obj::bool(false));
    }
    let known = slf.watches.borrow().iter().find_map(|(number, watch)| {
        let same = watch.file.as_ref().is_some_and(|file| file.borrow().is(fd));
        same.then_some(*number)
    });
    let fd = match known {
        Some(number) if !value::is_int(fd) => number,
        _ => descriptor(fd)?,
    };
    clear(slf, fd, side).map(Obj::bool)
}

/// Whether it was watched.
fn clear(slf: Inst<'_, LoopBase>, fd: RawFd, side: Side) -> PyRes<bool> {
    // What leaves the table is dropped after the borrow: a socket's end may run Python code.
    let (old, reader, writer, _forgotten) = {
        let mut watches = slf.watches.borrow_mut();
        let Some(watch) = watches.get_mut(&fd) else {
            return Ok(false);
        };
        let old = match side {
            Side::Reader => watch.reader.take(),
            Side::Writer => watch.writer.take(),
        };
        let (reader, writer) = (watch.reader.is_some(), watch.writer.is_some());
        let forgotten = if reader || writer {
            None
        } else {
            watches.remove(&fd)
        };
        (old, reader, writer, forgotten)
    };
    let Some(old) = old else {
        return Ok(false);
    };
    slf.with_driver(|driver| driver.watch_fd(fd, reader, writer))?;
    handle::cancel_handle(old.inst())?;
    Ok(true)
}

pub(super) fn add_reader(slf: Inst<'_, LoopBase>, args: Args<'_>) -> PyRes<Obj> {
    add(slf, args, Side::Reader, "add_reader")
}

pub(super) fn add_writer(slf: Inst<'_, LoopBase>, args: Args<'_>) -> PyRes<Obj> {
    add(slf, args, Side::Writer, "add_writer")
}

pub(super) fn remove_reader(slf: Inst<'_, LoopBase>, fd: Ref<'_>) -> PyRes<Obj> {
    remove(slf, fd, Side::Reader)
}

pub(super) fn remove_writer(slf: Inst<'_, LoopBase>, fd: Ref<'_>) -> PyRes<Obj> {
    remove(slf, fd, Side::Writer)
}

/// `loop._watched()`: `{fd: (reader, writer)}`, for messages and tests.
pub(super) fn watched(slf: Inst<'_, LoopBase>) -> PyRes<Obj> {
    let rows: Vec<(RawFd, Obj, Obj)> = {
        let watches = slf.watches.borrow();
        let handle = |h: &Option<rondel_ffi::Own<handle::Handle>>| {
            h.as_ref().map_or_else(Obj::none, |h| h.obj().own())
        };
        watches
            .iter()
            .map(|(fd, w)| (*fd, handle(&w.reader), handle(&w.writer)))
            .collect()
    };
    let dict = value::dict()?;
    for (fd, reader, writer) in rows {
        let pair = value::tuple([reader, writer])?;
        value::dict_set(
            dict.borrow(),
            value::int(i64::from(fd))?.borrow(),
            pair.borrow(),
        )?;
    }
    Ok(dict)
}
