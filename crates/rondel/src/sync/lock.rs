//! `Lock`: asyncio's, whose acquire, release and `async with` are native.
//!
//! ```text
//!  acquire ── free, nobody waits ──► True
//!     │ else: a waiter at the end of the deque
//!     ▼
//!  released: first in the deque woken ──► takes the lock ──► True
//!  cancelled: if the lock is free now, the next in line is woken
//! ```
//! The lock is free between the wake-up and the woken one's step; who comes meanwhile sees that
//! somebody waits, and queues (Python docs, *Synchronization Primitives*; `asyncio.locks.Lock`).

use super::exit::{Exit, Release};
use super::fields;
use super::waiters::{self, Waiters};
use super::{Plain, is_plain};
use crate::consts::{names, stock};
use crate::primitives::coroutine::{self, Coroutine, Machine, Next};
use crate::task::is_cancelled;
use rondel_ffi::class::{ObjCell, OwnCell, TypeBuilder, Visit};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::method::{self, Args};
use rondel_ffi::{Class, ClassCell, Inst, Obj, PyRes, Raised, Ref, call, callable, value};
use std::cell::Cell;
use std::ffi::CStr;

#[derive(Default)]
pub(crate) struct Lock {
    waiters: Waiters,
    pub(super) locked: Cell<bool>,
}

static CELL: ClassCell = ClassCell::new();

impl Class for Lock {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        self.waiters.traverse(visit);
    }
    fn clear(&self) {
        self.waiters.clear();
    }
}

fn plain(plain: &Plain) -> &Obj {
    &plain.lock
}

/// The coroutine of `acquire()` and, with `ENTER`, of `__aenter__()`.
#[derive(Default)]
pub(crate) struct Acquire<const ENTER: bool> {
    lock: OwnCell<Lock>,
    waiter: ObjCell,
}

static ACQUIRE: ClassCell = ClassCell::new();
static ACQUIRE_FREE: FreeList = FreeList::new();
static ENTER: ClassCell = ClassCell::new();
static ENTER_FREE: FreeList = FreeList::new();

fn acquire<const ENTER: bool>(slf: Inst<'_, Lock>, args: Args<'_>) -> PyRes<Obj> {
    if !args.is_empty() || args.keyword_count() > 0 {
        return Err(Builtin::Type.raise("acquire() takes no arguments"));
    }
    coroutine::new(|| Acquire::<ENTER> {
        lock: OwnCell::new(Some(slf.own())),
        waiter: ObjCell::default(),
    })
}

impl<const E: bool> Machine for Acquire<E> {
    const NAME: &'static str = if E {
        "_ContextManagerMixin.__aenter__"
    } else {
        "Lock.acquire"
    };
    const TYPE: &'static CStr = if E {
        c"rondel.Lock_aenter"
    } else {
        c"rondel.Lock_acquire"
    };

    fn cell() -> &'static ClassCell {
        if E { &ENTER } else { &ACQUIRE }
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(if E { &ENTER_FREE } else { &ACQUIRE_FREE })
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.lock);
        visit.cell(&self.waiter);
    }
    fn clear(&self) {
        self.lock.set(None);
        self.waiter.set(None);
    }

    #[inline(always)]
    fn start(slf: Inst<'_, Coroutine<Self>>) -> Next {
        let body = &slf.data().body;
        let Some(lock) = body.lock.peek() else {
            return Next::Return(Obj::none());
        };
        if E && !is_plain(lock.obj(), plain) {
            return match call::method(names().acquire.borrow(), [lock.obj()]) {
                Ok(acquisition) => Next::Await(acquisition),
                Err(raised) => Next::Raise(raised),
            };
        }
        match begin(lock) {
            Ok(None) => Next::Return(acquired::<E>()),
            Ok(Some(waiter)) => {
                body.waiter.set(Some(waiter.clone()));
                waiters::wait_for(waiter)
            }
            Err(raised) => Next::Raise(raised),
        }
    }

    #[inline(always)]
    fn resume(slf: Inst<'_, Coroutine<Self>>, outcome: Result<Obj, Obj>) -> Next {
        let body = &slf.data().body;
        let (Some(lock), Some(waiter)) = (body.lock.get(), body.waiter.take()) else {
            // A subclass's own acquire() is over.
            return match outcome {
                Ok(_value) => Next::Return(Obj::none()),
                Err(exc) => Next::raise(exc),
            };
        };
        match end(lock.inst(), &waiter, outcome) {
            Ok(()) => Next::Return(acquired::<E>()),
            Err(raised) => Next::Raise(raised),
        }
    }
}

/// The beginning of an acquisition: it is done, or has a waiter in the queue to wait for.
#[inline(always)]
pub(super) fn begin(lock: Inst<'_, Lock>) -> PyRes<Option<Obj>> {
    if !lock.locked.get() && lock.waiters.all_cancelled()? {
        lock.locked.set(true);
        return Ok(None);
    }
    lock.waiters.join(lock.obj()).map(Some)
}

/// The end of an acquisition that waited.
#[inline(always)]
pub(super) fn end(lock: Inst<'_, Lock>, waiter: &Obj, outcome: Result<Obj, Obj>) -> PyRes<()> {
    lock.waiters.leave(waiter.borrow())?;
    match outcome {
        Ok(_true) => {
            lock.locked.set(true);
            Ok(())
        }
        Err(exc) => {
            if is_cancelled(exc.borrow()) && !lock.locked.get() {
                wake_first(lock)?;
            }
            Err(err::raise_instance(exc.borrow()))
        }
    }
}

/// The object as a lock whose class adds nothing to what is native.
#[inline(always)]
pub(super) fn native(obj: Ref<'_>) -> Option<Inst<'_, Lock>> {
    if is_plain(obj, plain) {
        obj.cast::<Lock>()
    } else {
        None
    }
}

fn acquired<const E: bool>() -> Obj {
    if E { Obj::none() } else { Obj::bool(true) }
}

fn wake_first(lock: Inst<'_, Lock>) -> PyRes<()> {
    match lock.waiters.first()? {
        Some(first) => waiters::wake(first.borrow(), Obj::bool(true)).map(|_woken| ()),
        None => Ok(()),
    }
}

pub(super) fn release(slf: Inst<'_, Lock>) -> PyRes<Obj> {
    if !slf.locked.get() {
        return Err(not_acquired());
    }
    slf.locked.set(false);
    wake_first(slf)?;
    Ok(Obj::none())
}

#[cold]
fn not_acquired() -> Raised {
    // The words differ between releases: asyncio's own.
    let words = || -> PyRes<Obj> {
        let fresh = call::call0(stock().lock.borrow())?;
        call::method(names().release.borrow(), [fresh.borrow()])
    };
    match words() {
        Err(raised) => raised,
        Ok(_none) => Builtin::Runtime.raise("Lock is not acquired."),
    }
}

fn locked(slf: Inst<'_, Lock>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.locked.get()))
}

impl Release for Lock {
    fn release(slf: Inst<'_, Self>) -> PyRes<()> {
        if is_plain(slf.obj(), plain) {
            release(slf)?;
        } else {
            let _none = call::method(names().release.borrow(), [slf.obj()])?;
        }
        Ok(())
    }
    fn exit_cell() -> (&'static ClassCell, &'static FreeList) {
        static CELL: ClassCell = ClassCell::new();
        static FREE: FreeList = FreeList::new();
        (&CELL, &FREE)
    }
    const EXIT_TYPE: &'static CStr = c"rondel.Lock_aexit";
}

pub(super) fn build() -> PyRes<Obj> {
    coroutine::build::<Acquire<false>>()?;
    coroutine::build::<Acquire<true>>()?;
    coroutine::build::<Exit<Lock>>()?;
    let class = TypeBuilder::<Lock>::new(c"rondel._rondel.LockBase")
        .subclassable()
        .method(method::noargs::<Lock, _>(
            c"release",
            c"release($self, /)\n--\n\nRelease the lock; RuntimeError if it is not locked.",
            release,
        ))
        .method(method::noargs::<Lock, _>(
            c"locked",
            c"locked($self, /)\n--\n\nReturn True if the lock is acquired.",
            locked,
        ))
        .properties([
            fields::flag(c"_locked", |s: &Lock| &s.locked),
            fields::object(c"_waiters", |s: &Lock| &s.waiters.deque),
            fields::object(c"_loop", |s: &Lock| &s.waiters.loop_),
        ])
        .build()?;
    let like = stock().lock.borrow();
    for (name, made) in [
        (
            c"acquire",
            callable::coroutine_method::<Lock, _>(
                acquire::<false>,
                attr(like, c"acquire")?.borrow(),
            )?,
        ),
        (
            c"__aenter__",
            callable::async_with_method::<Lock, _>(
                acquire::<true>,
                attr(like, c"__aenter__")?.borrow(),
            )?,
        ),
        (
            c"__aexit__",
            callable::async_with_method::<Lock, _>(
                super::exit::exit::<Lock>,
                attr(like, c"__aexit__")?.borrow(),
            )?,
        ),
    ] {
        call::setattr(class.borrow(), value::intern(name)?.borrow(), made.borrow())?;
    }
    Ok(class)
}

fn attr(class: Ref<'_>, name: &CStr) -> PyRes<Obj> {
    call::getattr(class, value::intern(name)?.borrow())
}
