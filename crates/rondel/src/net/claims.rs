//! Which transport has which descriptor: asyncio's `_transports`.
//!
//! A program that gives a transport's descriptor to `add_reader()` or `sock_recv()` is told so. The
//! table knows transports weakly; what it knows of one that is gone stays until the number is claimed
//! again. Used with the GIL held.

use crate::event_loop::LoopBase;
use rondel_ffi::err::Builtin;
use rondel_ffi::weak::WeakRef;
use rondel_ffi::{Inst, Obj, PyRes, Ref, call, value};
use std::cell::RefCell;
use std::os::fd::RawFd;

/// Transports by descriptor.
#[derive(Default)]
pub(crate) struct Claims(RefCell<Vec<Option<WeakRef>>>);

impl Claims {
    /// From now on the descriptor is the transport's.
    pub(crate) fn claim(&self, fd: RawFd, transport: Ref<'_>) -> PyRes<()> {
        let Ok(at) = usize::try_from(fd) else {
            return Ok(());
        };
        let claim = WeakRef::new(transport)?;
        let former = {
            let mut claims = self.0.borrow_mut();
            if at >= claims.len() {
                claims.resize_with(at + 1, || None);
            }
            claims[at].replace(claim)
        };
        drop(former);
        Ok(())
    }

    fn give_up(&self, fd: RawFd) -> bool {
        let former = usize::try_from(fd)
            .ok()
            .and_then(|at| self.0.borrow_mut().get_mut(at)?.take());
        former.is_some()
    }

    /// The descriptor's transport, if it is alive.
    fn of(&self, fd: RawFd) -> Option<Obj> {
        let at = usize::try_from(fd).ok()?;
        self.0.borrow().get(at)?.as_ref()?.get()
    }

    pub(crate) fn clear(&self) {
        let claims = self.0.take();
        drop(claims);
    }
}

/// Refuses a descriptor that an open transport has.
///
/// # Errors
/// RuntimeError that names both; whatever the transport's `is_closing()` raises.
pub(crate) fn check(home: Inst<'_, LoopBase>, fd: RawFd, named: Ref<'_>) -> PyRes<()> {
    let Some(transport) = home.claims.of(fd) else {
        return Ok(());
    };
    let closing = call::method(value::intern(c"is_closing")?.borrow(), [transport.borrow()])?;
    if closing.borrow().truthy()? {
        return Ok(());
    }
    let (named, transport) = (value::repr(named)?, value::repr(transport.borrow())?);
    Err(Builtin::Runtime.raise(&format!(
        "File descriptor {named} is used by transport {transport}"
    )))
}

/// `loop._ensure_fd_no_transport(fd)`, a number or an object with `fileno()`.
pub(crate) fn ensure_fd_no_transport(slf: Inst<'_, LoopBase>, fd: Ref<'_>) -> PyRes<Obj> {
    check(slf, number(fd)?, fd)?;
    Ok(Obj::none())
}

fn number(fd: Ref<'_>) -> PyRes<RawFd> {
    let asked = if value::is_int(fd) {
        value::as_i64(fd)
    } else {
        call::method(value::intern(c"fileno")?.borrow(), [fd])
            .and_then(|number| value::as_i64(number.borrow()))
    };
    match asked {
        Ok(number) => Ok(RawFd::try_from(number).unwrap_or(-1)),
        Err(raised)
            if !value::is_int(fd)
                && (raised.matches(Builtin::Attribute.class())
                    || raised.matches(Builtin::Type.class())
                    || raised.matches(Builtin::Value.class())) =>
        {
            raised.clear();
            let text = value::repr(fd)?;
            Err(Builtin::Value.raise(&format!("Invalid file object: {text}")))
        }
        Err(raised) => Err(raised),
    }
}

/// `loop._claim(fd, transport)`; None gives the descriptor up, and says whether it was claimed.
pub(crate) fn claim(slf: Inst<'_, LoopBase>, args: rondel_ffi::method::Args<'_>) -> PyRes<Obj> {
    let [fd, transport] = args.positional() else {
        return Err(Builtin::Type.raise("_claim() takes a descriptor and a transport or None"));
    };
    let fd = number(*fd)?;
    match transport.not_none() {
        Some(transport) => slf.claims.claim(fd, transport).map(|()| Obj::bool(true)),
        None => Ok(Obj::bool(slf.claims.give_up(fd))),
    }
}

/// `loop._claimed(fd)`: the transport that has the descriptor, or None.
pub(crate) fn claimed(slf: Inst<'_, LoopBase>, fd: Ref<'_>) -> PyRes<Obj> {
    Ok(slf.claims.of(number(fd)?).unwrap_or_else(Obj::none))
}

/// `loop._claims()`: every claimed descriptor is below this number.
pub(crate) fn bound(slf: Inst<'_, LoopBase>) -> PyRes<Obj> {
    let bound = slf.claims.0.borrow().len();
    value::int(i64::try_from(bound).unwrap_or(i64::MAX))
}
