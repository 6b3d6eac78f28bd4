//! A connection's descriptor without a Python socket.
//!
//! Of the connections that a server accepts few are ever asked for their socket, and to make one costs
//! a system call and a microsecond. So their transports have a [`Descriptor`] where others have the
//! socket; [`socket`] makes the socket when somebody wants it, and hands the descriptor over.

use super::TcpTransport;
use crate::net::sock;
use rondel_ffi::class::{ObjCell, TypeBuilder, Visit, alloc_with, peek};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Ref, call, value};
use std::cell::Cell;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

/// Owns a descriptor, until it is closed or a Python socket has it.
#[derive(Default)]
pub(super) struct Descriptor {
    fd: Cell<Option<OwnedFd>>,
    /// `(family, type, proto)`, as its socket is to be made.
    parts: ObjCell,
}

static CELL: ClassCell = ClassCell::new();
static FREE: FreeList = FreeList::new();

impl Class for Descriptor {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.parts);
    }
    fn clear(&self) {
        self.parts.set(None);
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&FREE)
    }
}

impl Descriptor {
    pub(super) fn make(fd: OwnedFd, parts: &Obj) -> PyRes<Own<Descriptor>> {
        // Numbers and None: no part of a cycle.
        alloc_with(
            || Descriptor {
                fd: Cell::new(Some(fd)),
                parts: ObjCell::new(Some(parts.clone())),
            },
            false,
        )
    }

    pub(super) fn close(&self) {
        drop(self.fd.take());
    }

    /// `socket.socket(family, type, proto, fileno)`.
    fn make_socket(&self, fileno: Option<i64>) -> PyRes<Obj> {
        let parts = self.parts.get().unwrap_or_else(Obj::none);
        let part = |at| value::item(parts.borrow(), at).unwrap_or_else(Obj::none);
        let (family, kind, proto) = (part(0), part(1), part(2));
        let fileno = fileno.map_or_else(|| Ok(Obj::none()), value::int)?;
        let args = [&family, &kind, &proto, &fileno].map(Obj::borrow);
        call::call(sock::names().socket.borrow(), &args)
    }
}

/// The object as a descriptor without a socket.
#[inline(always)]
pub(super) fn of(file: Ref<'_>) -> Option<Inst<'_, Descriptor>> {
    file.exact::<Descriptor>()
}

/// `transport._sock`: made if there is none yet, None if the connection is over.
pub(super) fn socket(slf: Inst<'_, TcpTransport>) -> PyRes<Obj> {
    let Some(file) = slf.file.get() else {
        return Ok(Obj::none());
    };
    let Some(held) = of(file.borrow()) else {
        return Ok(file);
    };
    let Some(number) = peek(&held.fd, |fd| fd.as_ref().map(AsRawFd::as_raw_fd)) else {
        return Ok(Obj::none());
    };
    let sock = held.make_socket(Some(i64::from(number)))?;
    match held.data().fd.take() {
        // The Python socket's from here on.
        Some(fd) => drop(fd.into_raw_fd()),
        // An audit hook has ended the connection meanwhile, or asked for the socket itself.
        None => {
            let _number = call::method(value::intern(c"detach")?.borrow(), [sock.borrow()])?;
            return socket(slf);
        }
    }
    slf.file.set(Some(sock.clone()));
    if slf.described.is_some() {
        slf.described.set(Some(sock.clone()));
    }
    Ok(sock)
}

/// The socket of a connection that ended before anybody asked for it: closed, as it would be.
#[cold]
pub(super) fn closed_socket(held: Inst<'_, Descriptor>) -> PyRes<Obj> {
    let sock = held.make_socket(None)?;
    crate::net::close_socket(sock.borrow())?;
    Ok(sock)
}

/// Builds the type, which is nowhere to be seen.
pub(super) fn build() -> PyRes<()> {
    TypeBuilder::<Descriptor>::new(c"rondel._rondel.Descriptor")
        .build()
        .map(drop)
}
