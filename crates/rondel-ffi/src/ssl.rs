//! Python's `_ssl` objects, called with memory of ours: a `MemoryBIO` and the session that an
//! `ssl.SSLObject` wraps.
//!
//! Both are made by a checked cast, as only C code known to release its views may be lent memory
//! ([`crate::window`]): `_ssl`'s types allow no subclasses. A call may run Python code (a context's
//! message callback, the cyclic collector) and gives the GIL up while OpenSSL works; so what is lent
//! must be nobody else's for that long. The GIL is held otherwise.

use crate::buffer::Writable;
use crate::call;
use crate::err::{PyRes, Raised};
use crate::gil::GilStatic;
use crate::obj::{Obj, Ref};
use crate::value;
use crate::window;
use std::mem::MaybeUninit;

struct Names {
    sslobj: Obj,
    /// The methods as the types have them: called with `self` they need no look-up.
    bio_read: Obj,
    bio_write: Obj,
    session_read: Obj,
    session_write: Obj,
    session_pending: Obj,
    /// `MemoryBIO.pending`, a property.
    bio_pending: Obj,
    /// `_ssl.MemoryBIO`.
    bio: Obj,
    /// `_ssl._SSLSocket`.
    session: Obj,
    /// `ssl.SSLObject`.
    object: Obj,
    /// `ssl.SSLWantReadError`, `ssl.SSLSyscallError`: asyncio's "not now".
    want_read: Obj,
    syscall: Obj,
}

static NAMES: GilStatic<Names> = GilStatic::new();

/// Makes the type of what is lent; once, at import.
pub fn prepare() -> PyRes<()> {
    window::build()
}

/// Looks `ssl` up; needed before anything else here is used.
///
/// # Errors
/// ImportError, where Python was built without OpenSSL.
pub fn load() -> PyRes<()> {
    if NAMES.get().is_some() {
        return Ok(());
    }
    let ssl = call::import(c"ssl")?;
    let native = call::import(c"_ssl")?;
    let attr = |module: &Obj, name| call::getattr(module.borrow(), value::intern(name)?.borrow());
    let (bio, session) = (attr(&native, c"MemoryBIO")?, attr(&native, c"_SSLSocket")?);
    NAMES.set(Names {
        sslobj: value::intern(c"_sslobj")?,
        bio_read: attr(&bio, c"read")?,
        bio_write: attr(&bio, c"write")?,
        session_read: attr(&session, c"read")?,
        session_write: attr(&session, c"write")?,
        session_pending: attr(&session, c"pending")?,
        bio_pending: attr(&bio, c"pending")?,
        bio,
        session,
        object: attr(&ssl, c"SSLObject")?,
        want_read: attr(&ssl, c"SSLWantReadError")?,
        syscall: attr(&ssl, c"SSLSyscallError")?,
    });
    Ok(())
}

#[inline(always)]
fn names() -> &'static Names {
    NAMES
        .get()
        .expect("loaded by whoever made the object that is asked")
}

/// Whether the exception says that OpenSSL wants more from the peer first (asyncio's
/// `SSLAgainErrors`).
pub fn wants_more(raised: &Raised) -> bool {
    raised.matches(names().want_read.borrow()) || raised.matches(names().syscall.borrow())
}

/// `OpenSSL`'s queue of bytes on one side of a session.
#[derive(Clone, Copy)]
pub struct Bio<'a>(Ref<'a>);

impl<'a> Bio<'a> {
    /// The object as exactly a `MemoryBIO`.
    #[inline(always)]
    pub fn new(obj: Ref<'a>) -> Option<Bio<'a>> {
        obj.type_of().is(names().bio.borrow()).then_some(Bio(obj))
    }

    /// How many bytes are in it.
    #[inline]
    pub fn pending(self) -> PyRes<usize> {
        let count = call::property(names().bio_pending.borrow(), self.0)?;
        Ok(usize::try_from(value::as_i64(count.borrow())?).unwrap_or(0))
    }

    /// Puts a copy of the bytes in.
    ///
    /// # Errors
    /// MemoryError, or `ssl.SSLError` from `OpenSSL`.
    #[inline]
    pub fn put(self, data: &[u8]) -> PyRes<()> {
        if data.is_empty() {
            return Ok(());
        }
        let start = data.as_ptr().cast_mut();
        // SAFETY: alive for the call and lent for reading; the callee is `MemoryBIO.write`, which
        // copies and releases its view.
        unsafe {
            window::lend(start, data.len(), true, |lent| {
                call::call(names().bio_write.borrow(), &[self.0, lent])
            })?;
        }
        Ok(())
    }

    /// Takes all of it out, as a `bytes`.
    #[inline]
    pub fn take(self) -> PyRes<Obj> {
        call::call1(names().bio_read.borrow(), self.0)
    }
}

/// A TLS session in memory.
#[derive(Clone, Copy)]
pub struct Session<'a>(Ref<'a>);

impl<'a> Session<'a> {
    /// The object as exactly a `_ssl._SSLSocket`.
    #[inline(always)]
    pub fn new(obj: Ref<'a>) -> Option<Session<'a>> {
        obj.type_of()
            .is(names().session.borrow())
            .then_some(Session(obj))
    }

    /// What an `ssl.SSLObject` wraps; `None` for a subclass's instance, whose methods may be other
    /// ones.
    pub fn within(obj: Ref<'_>) -> PyRes<Option<Obj>> {
        if !obj.type_of().is(names().object.borrow()) {
            return Ok(None);
        }
        let inner = call::getattr(obj, names().sslobj.borrow())?;
        Ok(Session::new(inner.borrow()).is_some().then_some(inner))
    }

    /// Decrypted bytes that were not taken yet.
    pub fn pending(self) -> PyRes<usize> {
        let count = call::call1(names().session_pending.borrow(), self.0)?;
        Ok(usize::try_from(value::as_i64(count.borrow())?).unwrap_or(0))
    }

    /// Decrypts into `memory`: at most one record. 0 is the peer's close_notify, or no memory.
    ///
    /// # Errors
    /// `ssl.SSLWantReadError` without a whole record; `ssl.SSLError`.
    #[inline]
    pub fn read(self, memory: &mut [MaybeUninit<u8>]) -> PyRes<usize> {
        // SAFETY: the slice is the caller's alone.
        unsafe { self.read_at(memory.as_mut_ptr().cast(), memory.len()) }
    }

    /// As [`Session::read`], into a Python object's memory from `offset` on.
    #[inline]
    pub fn read_into(self, target: &Writable, offset: usize) -> PyRes<usize> {
        let (start, len) = target.span();
        let offset = offset.min(len);
        // SAFETY: exported to us, writable, within its bounds.
        unsafe { self.read_at(start.add(offset), len - offset) }
    }

    /// # Safety
    /// The memory may be written to for the length of the call.
    #[inline]
    unsafe fn read_at(self, start: *mut u8, len: usize) -> PyRes<usize> {
        if len == 0 {
            return Ok(0);
        }
        let room = value::int(i64::try_from(len).unwrap_or(i64::MAX))?;
        // SAFETY: the caller's word; the callee is `_SSLSocket.read`, which releases its view.
        let count = unsafe {
            window::lend(start, len, false, |lent| {
                let args = [self.0, room.borrow(), lent];
                call::call(names().session_read.borrow(), &args)
            })?
        };
        Ok(usize::try_from(value::as_i64(count.borrow())?).unwrap_or(0))
    }

    /// Encrypts; how much of `data` is in records now (all of it, over a `MemoryBIO`).
    ///
    /// # Errors
    /// As for [`Session::read`].
    #[inline]
    pub fn write(self, data: &[u8]) -> PyRes<usize> {
        let start = data.as_ptr().cast_mut();
        // SAFETY: alive for the call and lent for reading; the callee is `_SSLSocket.write`, which
        // releases its view.
        let count = unsafe {
            window::lend(start, data.len(), true, |lent| {
                call::call(names().session_write.borrow(), &[self.0, lent])
            })?
        };
        Ok(usize::try_from(value::as_i64(count.borrow())?).unwrap_or(0))
    }
}
