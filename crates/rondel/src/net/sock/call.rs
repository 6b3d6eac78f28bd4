//! The coroutine of one operation: checks, attempts, waits.
//!
//! The checks are asyncio's, made when the coroutine first runs. A cancelled wait leaves the table and
//! has consumed nothing.

use super::names;
use super::table::{self, Side};
use crate::event_loop::{LoopBase, Ready};
use crate::future::{self, Future};
use crate::primitives::coroutine::{Coroutine, Machine, Next};
use crate::primitives::hops::Alarm;
use rondel_ffi::class::{ObjCell, OwnCell, Visit};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::{ClassCell, Inst, Obj, Own, PyRes, Raised, Ref, call, fd, value};
use rustix::io::Errno;
use std::cell::Cell;
use std::ffi::CStr;
use std::os::fd::{BorrowedFd, RawFd};

/// What one attempt gave.
pub(super) enum Attempt {
    Done(Obj),
    /// It would block.
    Again,
    /// There is more to do at once, after others had their turn.
    GiveWay,
    Failed(Raised),
}

impl Attempt {
    pub(super) fn from_errno(errno: Errno) -> Attempt {
        if errno == Errno::AGAIN {
            Attempt::Again
        } else {
            Attempt::Failed(raise_errno(errno))
        }
    }

    pub(super) fn from_result(result: PyRes<Obj>) -> Attempt {
        match result {
            Ok(value) => Attempt::Done(value),
            Err(raised) => Attempt::Failed(raised),
        }
    }

    /// Of a method of the socket, which says by an exception that it would block.
    pub(super) fn from_call(result: PyRes<Obj>) -> Attempt {
        match result {
            Ok(value) => Attempt::Done(value),
            Err(raised)
                if raised.matches(Builtin::BlockingIO.class())
                    || raised.matches(Builtin::Interrupted.class()) =>
            {
                raised.clear();
                Attempt::Again
            }
            Err(raised) => Attempt::Failed(raised),
        }
    }
}

#[cold]
pub(super) fn raise_errno(errno: Errno) -> Raised {
    err::raise_io(&errno.into())
}

/// What an attempt works on.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) home: Inst<'a, LoopBase>,
    pub(super) sock: Ref<'a>,
    pub(super) fd: RawFd,
}

impl<'a> At<'a> {
    /// The descriptor, if the socket is open.
    #[inline(always)]
    pub(super) fn lent(&self) -> Result<BorrowedFd<'a>, Errno> {
        fd::lend(self.sock, self.fd).ok_or(Errno::BADF)
    }

    /// The same where somebody else may have closed the socket since the operation began.
    pub(super) fn still_lent(&self) -> PyRes<Option<BorrowedFd<'a>>> {
        let number = call::method(names::own().fileno.borrow(), [self.sock])?;
        let same = value::as_i64(number.borrow())? == i64::from(self.fd);
        Ok(fd::lend(self.sock, self.fd).filter(|_lent| same))
    }
}

/// One of the operations.
pub(super) trait Op: Default + 'static {
    const NAME: &'static str;
    const TYPE: &'static CStr;
    const SIDE: Side;
    fn cell() -> &'static ClassCell;
    fn freelist() -> Option<&'static FreeList> {
        None
    }
    fn traverse(&self, visit: &mut Visit);
    fn clear(&self);
    /// Something to await before the first attempt; its value goes to [`Op::prepared`].
    fn prepare(&self, _at: At<'_>) -> PyRes<Option<Obj>> {
        Ok(None)
    }
    fn prepared(&self, _value: Obj) -> PyRes<()> {
        Ok(())
    }
    fn attempt(&self, at: At<'_>) -> Attempt;
    /// asyncio's coroutine for what is left to do.
    fn delegate(&self, at: At<'_>) -> PyRes<Obj>;
    /// It is over, or abandoned, after it has waited.
    fn waited(&self, _at: At<'_>) -> PyRes<()> {
        Ok(())
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Attempting,
    Preparing,
    /// asyncio's coroutine does it.
    Delegated,
}

#[derive(Default)]
pub(super) struct Call<O: Op> {
    home: OwnCell<LoopBase>,
    sock: ObjCell,
    fd: Cell<RawFd>,
    phase: Cell<Phase>,
    /// In the table.
    waiter: OwnCell<Future>,
    pub(super) op: O,
}

impl<O: Op> Call<O> {
    pub(super) fn new(home: Inst<'_, LoopBase>, sock: Ref<'_>, op: O) -> Call<O> {
        Call {
            home: OwnCell::new(Some(home.own())),
            sock: ObjCell::new(Some(sock.own())),
            fd: Cell::new(-1),
            phase: Cell::new(Phase::Attempting),
            waiter: OwnCell::new(None),
            op,
        }
    }
}

impl<O: Op> Machine for Call<O> {
    const NAME: &'static str = O::NAME;
    const TYPE: &'static CStr = O::TYPE;

    fn cell() -> &'static ClassCell {
        O::cell()
    }
    fn freelist() -> Option<&'static FreeList> {
        O::freelist()
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.home);
        visit.cell(&self.sock);
        visit.own(&self.waiter);
        self.op.traverse(visit);
    }
    fn clear(&self) {
        self.waiter.set(None);
        self.op.clear();
        self.sock.set(None);
        self.home.set(None);
    }

    #[inline(always)]
    fn start(slf: Inst<'_, Coroutine<Self>>) -> Next {
        let body = &slf.data().body;
        let Some((home, sock)) = body.home.get().zip(body.sock.get()) else {
            return Next::Return(Obj::none());
        };
        match begin(body, home.inst(), sock.borrow()) {
            Ok(None) => go_on(body),
            Ok(Some(awaitable)) => {
                body.phase.set(Phase::Preparing);
                Next::Await(awaitable)
            }
            Err(raised) => Next::Raise(raised),
        }
    }

    #[inline(always)]
    fn resume(slf: Inst<'_, Coroutine<Self>>, outcome: Result<Obj, Obj>) -> Next {
        let body = &slf.data().body;
        let waiter = body.waiter.take();
        match (outcome, body.phase.get()) {
            (Ok(_none), Phase::Attempting) => go_on(body),
            (Ok(value), Phase::Delegated) => Next::Return(value),
            (Ok(value), Phase::Preparing) => {
                body.phase.set(Phase::Attempting);
                match body.op.prepared(value) {
                    Ok(()) => go_on(body),
                    Err(raised) => Next::Raise(raised),
                }
            }
            (Err(exc), _) => {
                if let Some(waiter) = waiter
                    && let Err(raised) = abandon(body, &waiter)
                {
                    return Next::Raise(raised);
                }
                Next::raise(exc)
            }
        }
    }
}

#[inline(always)]
fn begin<O: Op>(body: &Call<O>, home: Inst<'_, LoopBase>, sock: Ref<'_>) -> PyRes<Option<Obj>> {
    if home.is_debug() {
        check_non_blocking(sock)?;
    }
    let number = call::method(names::own().fileno.borrow(), [sock])?;
    let fd = RawFd::try_from(value::as_i64(number.borrow())?).unwrap_or(-1);
    body.fd.set(fd);
    body.op.prepare(At { home, sock, fd })
}

#[cold]
fn check_non_blocking(sock: Ref<'_>) -> PyRes<()> {
    let timeout = call::method(names::own().gettimeout.borrow(), [sock])?;
    if timeout.is_none() || value::as_f64(timeout.borrow())? != 0.0 {
        return Err(Builtin::Value.raise("the socket must be non-blocking"));
    }
    Ok(())
}

/// Tries; waits if there is nothing to do.
#[inline(always)]
fn go_on<O: Op>(body: &Call<O>) -> Next {
    let Some((home, sock)) = body.home.get().zip(body.sock.get()) else {
        return Next::Return(Obj::none());
    };
    let at = At {
        home: home.inst(),
        sock: sock.borrow(),
        fd: body.fd.get(),
    };
    match body.op.attempt(at) {
        Attempt::Done(value) => Next::Return(value),
        Attempt::Failed(raised) => Next::Raise(raised),
        Attempt::Again => match pause(body, at) {
            Ok(next) => next,
            Err(raised) => Next::Raise(raised),
        },
        Attempt::GiveWay => match future::create(at.home) {
            Ok(turn) => {
                at.home.push(Ready::Alarm(Alarm::Release(turn.clone())));
                Next::Wait(turn)
            }
            Err(raised) => Next::Raise(raised),
        },
    }
}

fn pause<O: Op>(body: &Call<O>, at: At<'_>) -> PyRes<Next> {
    Ok(match table::wait(at.home, at.sock, at.fd, O::SIDE)? {
        Some(waiter) => {
            body.waiter.set(Some(waiter.clone()));
            Next::Wait(waiter)
        }
        None => {
            body.phase.set(Phase::Delegated);
            Next::Await(body.op.delegate(at)?)
        }
    })
}

#[cold]
fn abandon<O: Op>(body: &Call<O>, waiter: &Own<Future>) -> PyRes<()> {
    if let Some((home, sock)) = body.home.get().zip(body.sock.get()) {
        let at = At {
            home: home.inst(),
            sock: sock.borrow(),
            fd: body.fd.get(),
        };
        table::leave(at.home, at.sock, at.fd, waiter);
        body.op.waited(at)?;
    }
    Ok(())
}
