//! `Semaphore`: asyncio's, whose acquire and release are native.
//!
//! Releases of asyncio differ in who is woken when (3.13, and later patches of older ones, let nobody
//! jump the queue and wake as many as there is room for): `Stock::semaphore_fills_up` tells them apart. A value that is
//! no plain int, as `Semaphore(math.inf)` has, is asyncio's own code's to count.

use super::exit::{Exit, Release};
use super::fields::{self, Count};
use super::waiters::{self, Waiters};
use super::{Plain, is_plain};
use crate::consts::{names, stock};
use crate::primitives::coroutine::{self, Coroutine, Machine, Next};
use crate::task::is_cancelled;
use rondel_ffi::class::{ObjCell, OwnCell, TypeBuilder, Visit};
use rondel_ffi::err::Builtin;
use rondel_ffi::freelist::FreeList;
use rondel_ffi::method::{self, Args};
use rondel_ffi::{Class, ClassCell, Inst, Obj, PyRes, Ref, call, callable, value};
use std::ffi::CStr;

#[derive(Default)]
pub(crate) struct Semaphore {
    waiters: Waiters,
    value: Count,
}

static CELL: ClassCell = ClassCell::new();

impl Class for Semaphore {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        self.waiters.traverse(visit);
        visit.cell(self.value.cell());
    }
    fn clear(&self) {
        self.waiters.clear();
        self.value.cell().set(None);
    }
}

fn plain(plain: &Plain) -> &Obj {
    &plain.semaphore
}

/// The coroutine of `acquire()` and, with `ENTER`, of `__aenter__()`.
#[derive(Default)]
pub(crate) struct Acquire<const ENTER: bool> {
    semaphore: OwnCell<Semaphore>,
    waiter: ObjCell,
}

static ACQUIRE: ClassCell = ClassCell::new();
static ACQUIRE_FREE: FreeList = FreeList::new();
static ENTER: ClassCell = ClassCell::new();
static ENTER_FREE: FreeList = FreeList::new();

fn acquire<const ENTER: bool>(slf: Inst<'_, Semaphore>, args: Args<'_>) -> PyRes<Obj> {
    if !args.is_empty() || args.keyword_count() > 0 {
        return Err(Builtin::Type.raise("acquire() takes no arguments"));
    }
    coroutine::new(|| Acquire::<ENTER> {
        semaphore: OwnCell::new(Some(slf.own())),
        waiter: ObjCell::default(),
    })
}

impl<const E: bool> Machine for Acquire<E> {
    const NAME: &'static str = if E {
        "_ContextManagerMixin.__aenter__"
    } else {
        "Semaphore.acquire"
    };
    const TYPE: &'static CStr = if E {
        c"rondel.Semaphore_aenter"
    } else {
        c"rondel.Semaphore_acquire"
    };

    fn cell() -> &'static ClassCell {
        if E { &ENTER } else { &ACQUIRE }
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(if E { &ENTER_FREE } else { &ACQUIRE_FREE })
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.semaphore);
        visit.cell(&self.waiter);
    }
    fn clear(&self) {
        self.semaphore.set(None);
        self.waiter.set(None);
    }

    #[inline(always)]
    fn start(slf: Inst<'_, Coroutine<Self>>) -> Next {
        let body = &slf.data().body;
        let Some(semaphore) = body.semaphore.get() else {
            return Next::Return(Obj::none());
        };
        match begin::<E>(semaphore.inst()) {
            Ok(Begun::Acquired) => Next::Return(acquired::<E>()),
            Ok(Begun::Queued(waiter)) => {
                body.waiter.set(Some(waiter.clone()));
                waiters::wait_for(waiter)
            }
            Ok(Begun::Elsewhere(acquisition)) => Next::Await(acquisition),
            Err(raised) => Next::Raise(raised),
        }
    }

    #[inline(always)]
    fn resume(slf: Inst<'_, Coroutine<Self>>, outcome: Result<Obj, Obj>) -> Next {
        let body = &slf.data().body;
        let (Some(semaphore), Some(waiter)) = (body.semaphore.get(), body.waiter.take()) else {
            // asyncio's or a subclass's own acquire() is over.
            return match outcome {
                Ok(value) => Next::Return(if E { Obj::none() } else { value }),
                Err(exc) => Next::raise(exc),
            };
        };
        let semaphore = semaphore.inst();
        let left = semaphore.waiters.leave(waiter.borrow());
        let finished = match (left, &outcome) {
            (Err(raised), _) => Err(raised),
            (Ok(()), Err(exc)) if is_cancelled(exc.borrow()) => {
                give_back(semaphore, waiter.borrow())
            }
            _ => Ok(()),
        };
        let passed_on = pass_on(semaphore, outcome.is_ok());
        if let Err(raised) = finished.and(passed_on) {
            return Next::Raise(raised);
        }
        match outcome {
            Ok(_true) => Next::Return(acquired::<E>()),
            Err(exc) => Next::raise(exc),
        }
    }
}

fn acquired<const E: bool>() -> Obj {
    if E { Obj::none() } else { Obj::bool(true) }
}

enum Begun {
    Acquired,
    Queued(Obj),
    Elsewhere(Obj),
}

fn begin<const E: bool>(semaphore: Inst<'_, Semaphore>) -> PyRes<Begun> {
    let own = is_plain(semaphore.obj(), plain);
    if E && !own {
        let acquisition = call::method(names().acquire.borrow(), [semaphore.obj()])?;
        return Ok(Begun::Elsewhere(acquisition));
    }
    let Some(value) = semaphore.value.get() else {
        let acquire = call::getattr(stock().semaphore.borrow(), names().acquire.borrow())?;
        return call::call1(acquire.borrow(), semaphore.obj()).map(Begun::Elsewhere);
    };
    let locked = if own {
        is_locked(semaphore, value)?
    } else {
        call::method(names().locked.borrow(), [semaphore.obj()])?
            .borrow()
            .truthy()?
    };
    if !locked {
        semaphore.value.set(value - 1);
        return Ok(Begun::Acquired);
    }
    semaphore.waiters.join(semaphore.obj()).map(Begun::Queued)
}

#[inline(always)]
fn is_locked(semaphore: Inst<'_, Semaphore>, value: i64) -> PyRes<bool> {
    Ok(value == 0 || !semaphore.waiters.all_cancelled()?)
}

/// A cancelled acquisition that had been granted: the room goes to another.
fn give_back(semaphore: Inst<'_, Semaphore>, waiter: Ref<'_>) -> PyRes<()> {
    let newer = stock().semaphore_fills_up;
    let granted = (!newer || waiters::done(waiter)?) && !waiters::cancelled(waiter)?;
    if granted {
        add(semaphore, 1);
        if !newer {
            wake_next(semaphore)?;
        }
    }
    Ok(())
}

/// What an acquisition does for the others at its end.
fn pass_on(semaphore: Inst<'_, Semaphore>, succeeded: bool) -> PyRes<()> {
    if stock().semaphore_fills_up {
        while semaphore.value.get().is_some_and(|value| value > 0) {
            if !wake_next(semaphore)? {
                break;
            }
        }
    } else if succeeded && semaphore.value.get().is_some_and(|value| value > 0) {
        wake_next(semaphore)?;
    }
    Ok(())
}

fn add(semaphore: Inst<'_, Semaphore>, by: i64) {
    if let Some(value) = semaphore.value.get() {
        semaphore.value.set(value + by);
    }
}

/// Grants the first waiter that is not done; whether there was one.
fn wake_next(semaphore: Inst<'_, Semaphore>) -> PyRes<bool> {
    let Some(deque) = semaphore.waiters.deque.get() else {
        return Ok(false);
    };
    if value::len(deque.borrow())? == 0 {
        return Ok(false);
    }
    value::any(deque.borrow(), |waiter| {
        if waiters::done(waiter)? {
            return Ok(false);
        }
        add(semaphore, -1);
        waiters::wake(waiter, Obj::bool(true))
    })
}

fn release(slf: Inst<'_, Semaphore>) -> PyRes<Obj> {
    if slf.value.get().is_none() {
        let release = call::getattr(stock().semaphore.borrow(), names().release.borrow())?;
        return call::call1(release.borrow(), slf.obj());
    }
    add(slf, 1);
    wake_next(slf)?;
    Ok(Obj::none())
}

fn locked(slf: Inst<'_, Semaphore>) -> PyRes<Obj> {
    match slf.value.get() {
        Some(value) => Ok(Obj::bool(is_locked(slf, value)?)),
        None => {
            let locked = call::getattr(stock().semaphore.borrow(), names().locked.borrow())?;
            call::call1(locked.borrow(), slf.obj())
        }
    }
}

impl Release for Semaphore {
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
    const EXIT_TYPE: &'static CStr = c"rondel.Semaphore_aexit";
}

pub(super) fn build() -> PyRes<Obj> {
    coroutine::build::<Acquire<false>>()?;
    coroutine::build::<Acquire<true>>()?;
    coroutine::build::<Exit<Semaphore>>()?;
    let class = TypeBuilder::<Semaphore>::new(c"rondel._rondel.SemaphoreBase")
        .subclassable()
        .method(method::noargs::<Semaphore, _>(
            c"release",
            c"release($self, /)\n--\n\nAdd one to the counter, and wake one who waits for it.",
            release,
        ))
        .method(method::noargs::<Semaphore, _>(
            c"locked",
            c"locked($self, /)\n--\n\nReturn True if the semaphore cannot be acquired at once.",
            locked,
        ))
        .properties([
            fields::count(c"_value", |s: &Semaphore| &s.value),
            fields::object(c"_waiters", |s: &Semaphore| &s.waiters.deque),
            fields::object(c"_loop", |s: &Semaphore| &s.waiters.loop_),
        ])
        .build()?;
    let like = stock().semaphore.borrow();
    let looks = |name: &CStr| call::getattr(like, value::intern(name)?.borrow());
    for (name, made) in [
        (
            c"acquire",
            callable::coroutine_method::<Semaphore, _>(
                acquire::<false>,
                looks(c"acquire")?.borrow(),
            )?,
        ),
        (
            c"__aenter__",
            callable::async_with_method::<Semaphore, _>(
                acquire::<true>,
                looks(c"__aenter__")?.borrow(),
            )?,
        ),
        (
            c"__aexit__",
            callable::async_with_method::<Semaphore, _>(
                super::exit::exit::<Semaphore>,
                looks(c"__aexit__")?.borrow(),
            )?,
        ),
    ] {
        call::setattr(class.borrow(), value::intern(name)?.borrow(), made.borrow())?;
    }
    Ok(class)
}
