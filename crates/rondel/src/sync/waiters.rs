//! Who waits for a lock: asyncio's `_LoopBoundMixin` and its deque of futures.
//!
//! On a Rondel loop a waiter is a native future and is resolved without a call into Python; any other
//! (a stock loop's, a mock of a test) is treated by asyncio's protocol.

use crate::consts::{names, stock};
use crate::event_loop::{self, LoopBase};
use crate::future::{self, Future, State};
use crate::primitives::coroutine::Next;
use rondel_ffi::class::{ObjCell, Visit};
use rondel_ffi::err::Builtin;
use rondel_ffi::{Inst, Obj, PyRes, Ref, call, value};

#[derive(Default)]
pub(crate) struct Waiters {
    /// The loop that the first wait happened on.
    pub(crate) loop_: ObjCell,
    /// A deque of futures; none before the first wait where asyncio has none.
    pub(crate) deque: ObjCell,
}

impl Waiters {
    pub(crate) fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.loop_);
        visit.cell(&self.deque);
    }

    pub(crate) fn clear(&self) {
        self.loop_.set(None);
        self.deque.set(None);
    }

    /// A new waiter of `owner` at the end of the queue.
    pub(crate) fn join(&self, owner: Ref<'_>) -> PyRes<Obj> {
        let deque = self.queue()?;
        let waiter = new_waiter(owner, &self.loop_)?;
        append(deque.borrow(), waiter.borrow())?;
        Ok(waiter)
    }

    /// The deque; a new one if there is none yet.
    #[inline(always)]
    pub(crate) fn queue(&self) -> PyRes<Obj> {
        if let Some(deque) = self.deque.get() {
            return Ok(deque);
        }
        let deque = call::call0(stock().deque.borrow())?;
        self.deque.set(Some(deque.clone()));
        Ok(deque)
    }

    /// Takes a waiter out; ValueError if somebody else has.
    pub(crate) fn leave(&self, waiter: Ref<'_>) -> PyRes<()> {
        match self.deque.get() {
            Some(deque) => remove(deque.borrow(), waiter),
            None => Err(Builtin::Attribute.raise("'NoneType' object has no attribute 'remove'")),
        }
    }

    /// Whether each waiter, if there are any, is cancelled.
    #[inline(always)]
    pub(crate) fn all_cancelled(&self) -> PyRes<bool> {
        match self.deque.get() {
            None => Ok(true),
            Some(deque) if value::len(deque.borrow())? == 0 => Ok(true),
            Some(deque) => {
                let living = value::any(deque.borrow(), |waiter| Ok(!cancelled(waiter)?))?;
                Ok(!living)
            }
        }
    }

    /// The first waiter in the queue.
    pub(crate) fn first(&self) -> PyRes<Option<Obj>> {
        match self.deque.get() {
            None => Ok(None),
            Some(deque) if value::len(deque.borrow())? == 0 => Ok(None),
            Some(deque) => value::first(deque.borrow()).map(Some),
        }
    }

    /// Resolves the first `most` that are not done with `result`.
    pub(crate) fn wake(&self, most: i64, result: bool) -> PyRes<()> {
        let Some(deque) = self.deque.get() else {
            return Ok(());
        };
        if most <= 0 || value::len(deque.borrow())? == 0 {
            return Ok(());
        }
        let mut left = most;
        value::any(deque.borrow(), |waiter| {
            if left == 0 {
                return Ok(true);
            }
            if wake(waiter, Obj::bool(result))? {
                left -= 1;
            }
            Ok(false)
        })
        .map(|_enough| ())
    }

    /// Resolves each waiter with True.
    pub(crate) fn wake_all(&self) -> PyRes<()> {
        let Some(deque) = self.deque.get() else {
            return Ok(());
        };
        if value::len(deque.borrow())? == 0 {
            return Ok(());
        }
        value::for_each(deque.borrow(), |waiter| {
            wake(waiter.borrow(), Obj::bool(true)).map(|_woken| ())
        })
    }
}

/// asyncio's `self._get_loop().create_future()`, with `loop_` as `self._loop`.
pub(crate) fn new_waiter(owner: Ref<'_>, loop_: &ObjCell) -> PyRes<Obj> {
    let Some(home) = event_loop::running() else {
        let loop_ = call::method(names().get_loop_bound.borrow(), [owner])?;
        return call::method(names().create_future.borrow(), [loop_.borrow()]);
    };
    bind(owner, loop_, home.inst())?;
    Ok(future::create(home.inst())?.into_obj())
}

fn bind(owner: Ref<'_>, loop_: &ObjCell, home: Inst<'_, LoopBase>) -> PyRes<()> {
    match loop_.peek() {
        Some(bound) if bound.is(home.obj()) => Ok(()),
        None => {
            loop_.set(Some(home.obj().own()));
            Ok(())
        }
        Some(_) => {
            let owner = value::repr(owner)?;
            Err(Builtin::Runtime.raise(&format!("{owner} is bound to a different event loop")))
        }
    }
}

/// How a coroutine waits for a waiter.
#[inline(always)]
pub(crate) fn wait_for(waiter: Obj) -> Next {
    match future::native(waiter.borrow()).map(Inst::own) {
        Some(native) => Next::Wait(native),
        None => Next::Await(waiter),
    }
}

pub(crate) fn append(deque: Ref<'_>, item: Ref<'_>) -> PyRes<()> {
    call::method(names().append.borrow(), [deque, item]).map(|_none| ())
}

/// `deque.remove(item)`; the first is the usual one.
pub(crate) fn remove(deque: Ref<'_>, item: Ref<'_>) -> PyRes<()> {
    if value::len(deque)? > 0 && value::first(deque)?.borrow().is(item) {
        let _first = popleft(deque)?;
        return Ok(());
    }
    call::method(names().remove.borrow(), [deque, item]).map(|_none| ())
}

pub(crate) fn popleft(deque: Ref<'_>) -> PyRes<Obj> {
    call::method(names().popleft.borrow(), [deque])
}

#[inline(always)]
fn plain(waiter: Ref<'_>) -> Option<Inst<'_, Future>> {
    waiter.exact::<Future>()
}

/// `waiter.done()`.
pub(crate) fn done(waiter: Ref<'_>) -> PyRes<bool> {
    match plain(waiter) {
        Some(fut) => Ok(fut.done()),
        None => call::method(names().done.borrow(), [waiter])?
            .borrow()
            .truthy(),
    }
}

/// `waiter.cancelled()`.
pub(crate) fn cancelled(waiter: Ref<'_>) -> PyRes<bool> {
    match plain(waiter) {
        Some(fut) => Ok(fut.state.get() == State::Cancelled),
        None => call::method(names().cancelled.borrow(), [waiter])?
            .borrow()
            .truthy(),
    }
}

/// `waiter.cancel()`.
pub(crate) fn cancel(waiter: Ref<'_>) -> PyRes<()> {
    match plain(waiter) {
        Some(fut) => future::cancel_plain(fut, None).map(|_cancelled| ()),
        None => call::method(names().cancel.borrow(), [waiter]).map(|_cancelled| ()),
    }
}

/// `waiter.set_result(result)` unless it is done; whether it was not.
#[inline(always)]
pub(crate) fn wake(waiter: Ref<'_>, result: Obj) -> PyRes<bool> {
    if let Some(fut) = plain(waiter) {
        if fut.done() {
            return Ok(false);
        }
        future::finish(fut, State::Finished, Some(result))?;
        return Ok(true);
    }
    if done(waiter)? {
        return Ok(false);
    }
    let _none = call::method(names().set_result.borrow(), [waiter, result.borrow()])?;
    Ok(true)
}
