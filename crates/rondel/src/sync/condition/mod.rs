//! `Condition`: asyncio's, whose waits and notifications are native.
//!
//! A condition is a lock, a deque of waiters, and three methods of the lock that asyncio's constructor
//! copies to the instance: `acquire`, `release`, `locked`. For a native lock they are not kept but
//! derived, and then every step of a hand-off is native (`direct`). With any other lock, or methods
//! that somebody has replaced, the same machines call what the condition has. A subclass may override
//! anything, and asyncio's own methods serve it (Python docs, *Synchronization Primitives*;
//! `asyncio.locks.Condition`). `waiting` has the coroutines.
//!
//! No borrow is held while Python code can run: a lock, waiter or deque that is not ours.

mod waiting;

pub(super) use waiting::{Step, Taking, Waiting, suspended};

use super::exit::{Exit, Release};
use super::fields::{self, Given, given, set_obj, show};
use super::lock::{self, Lock};
use super::waiters::Waiters;
use super::{Plain, by_asyncio, is_plain};
use crate::consts::{names, stock};
use crate::primitives::coroutine;
use rondel_ffi::class::{ObjCell, TypeBuilder, Visit};
use rondel_ffi::err::Builtin;
use rondel_ffi::freelist::FreeList;
use rondel_ffi::method::{self, Args};
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Ref, call, callable, value};
use std::ffi::CStr;

#[derive(Default)]
pub(crate) struct Condition {
    /// `_lock`.
    lock: ObjCell,
    /// `acquire`, `release` and `locked`, where they are not those of a native `lock`.
    exports: [ObjCell; 3],
    waiters: Waiters,
}

/// What a condition has of its lock: the places in `exports`.
#[derive(Clone, Copy)]
enum Export {
    Acquire,
    Release,
    Locked,
}

const EXPORTS: [Export; 3] = [Export::Acquire, Export::Release, Export::Locked];

impl Export {
    fn name(self) -> Ref<'static> {
        match self {
            Export::Acquire => names().acquire.borrow(),
            Export::Release => names().release.borrow(),
            Export::Locked => names().locked.borrow(),
        }
    }
}

static CELL: ClassCell = ClassCell::new();

impl Class for Condition {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.lock);
        for export in &self.exports {
            visit.cell(export);
        }
        self.waiters.traverse(visit);
    }
    fn clear(&self) {
        self.lock.set(None);
        for export in &self.exports {
            export.set(None);
        }
        self.waiters.clear();
    }
}

type Slf<'a> = Inst<'a, Condition>;

fn plain(plain: &Plain) -> &Obj {
    &plain.condition
}

/// The object as a condition whose class adds nothing to what is native.
#[inline(always)]
pub(super) fn native(obj: Ref<'_>) -> Option<Slf<'_>> {
    if is_plain(obj, plain) {
        obj.cast::<Condition>()
    } else {
        None
    }
}

/// The lock, where all that the condition does with it is native.
#[inline(always)]
pub(super) fn direct(slf: Slf<'_>) -> Option<Own<Lock>> {
    if slf.exports.iter().any(ObjCell::is_some) || !is_plain(slf.obj(), plain) {
        return None;
    }
    lock::native(slf.lock.peek()?).map(Inst::own)
}

/// `self.locked()`.
#[inline(always)]
fn is_locked(slf: Slf<'_>) -> PyRes<bool> {
    match direct(slf) {
        Some(lock) => Ok(lock.locked.get()),
        None => call::method(names().locked.borrow(), [slf.obj()])?
            .borrow()
            .truthy(),
    }
}

/// `self.release()`.
#[inline(always)]
pub(super) fn release(slf: Slf<'_>) -> PyRes<()> {
    match direct(slf) {
        Some(lock) => lock::release(lock.inst()),
        None => call::method(names().release.borrow(), [slf.obj()]),
    }
    .map(|_none| ())
}

/// `self.notify(most)`.
pub(super) fn wake(slf: Slf<'_>, most: i64) -> PyRes<()> {
    if !is_locked(slf)? {
        return Err(Builtin::Runtime.raise("cannot notify on un-acquired lock"));
    }
    slf.waiters.wake(most, false)
}

/// `self.notify_all()`: as many as there are.
pub(super) fn wake_all(slf: Slf<'_>) -> PyRes<()> {
    wake(slf, i64::MAX)
}

/// `notify(n=1)`.
fn notify(slf: Slf<'_>, args: Args<'_>) -> PyRes<Obj> {
    let [most] = args.bind("Condition.notify", [names().n.borrow()], 0, 1)?;
    if is_plain(slf.obj(), plain)
        && let Some(most) = most.map_or(Some(1), small)
    {
        return wake(slf, most).map(|()| Obj::none());
    }
    match most {
        Some(most) => by_asyncio(&stock().condition, c"notify", &[slf.obj(), most]),
        None => by_asyncio(&stock().condition, c"notify", &[slf.obj()]),
    }
}

/// A count that is an int of 64 bits; asyncio's code takes whatever can be compared.
fn small(count: Ref<'_>) -> Option<i64> {
    if !value::is_int(count) {
        return None;
    }
    match value::as_i64(count) {
        Ok(count) => Some(count),
        Err(raised) => {
            raised.clear();
            None
        }
    }
}

fn notify_all(slf: Slf<'_>) -> PyRes<Obj> {
    if is_plain(slf.obj(), plain) {
        return wake_all(slf).map(|()| Obj::none());
    }
    by_asyncio(&stock().condition, c"notify_all", &[slf.obj()])
}

impl Release for Condition {
    fn release(slf: Inst<'_, Self>) -> PyRes<()> {
        release(slf)
    }
    fn exit_cell() -> (&'static ClassCell, &'static FreeList) {
        static CELL: ClassCell = ClassCell::new();
        static FREE: FreeList = FreeList::new();
        (&CELL, &FREE)
    }
    const EXIT_TYPE: &'static CStr = c"rondel.Condition_aexit";
}

// ------------------------------------------------------------------------------------- the fields

/// Sets `_lock`. A condition goes on with the methods of its first lock, as asyncio's does.
fn set_lock(slf: Slf<'_>, value: Given<'_>) -> PyRes<()> {
    let lock = given(value)?;
    if let Some(first) = slf.lock.get()
        && !first.borrow().is(lock)
    {
        for export in EXPORTS {
            if slf.exports[export as usize].is_none() {
                let method = call::getattr(first.borrow(), export.name())?;
                slf.exports[export as usize].set(Some(method));
            }
        }
    }
    set_obj(&slf.lock, value)
}

fn export(slf: Slf<'_>, export: Export) -> PyRes<Obj> {
    if let Some(method) = slf.exports[export as usize].get() {
        return Ok(method);
    }
    match slf.lock.get() {
        Some(lock) => call::getattr(lock.borrow(), export.name()),
        None => Err(Builtin::Attribute.raise("this condition has no lock yet")),
    }
}

fn set_export(slf: Slf<'_>, export: Export, value: Given<'_>) -> PyRes<()> {
    let method = given(value)?;
    let derived = match slf.lock.get() {
        Some(lock) if lock::native(lock.borrow()).is_some() => {
            call::getattr(lock.borrow(), export.name())?
                .borrow()
                .equals(method)?
        }
        _ => false,
    };
    slf.exports[export as usize].set((!derived).then(|| method.own()));
    Ok(())
}

/// `_exports()`: what a copy has to take along beside the lock.
fn exports(slf: Slf<'_>) -> PyRes<Obj> {
    let kept = value::dict()?;
    for export in EXPORTS {
        if let Some(method) = slf.exports[export as usize].get() {
            value::dict_set(kept.borrow(), export.name(), method.borrow())?;
        }
    }
    Ok(kept)
}

pub(super) fn build() -> PyRes<Obj> {
    waiting::build()?;
    coroutine::build::<Exit<Condition>>()?;
    let class = TypeBuilder::<Condition>::new(c"rondel._rondel.ConditionBase")
        .subclassable()
        .methods([
            method::fast::<Condition, _>(
                c"notify",
                c"notify($self, /, n=1)\n--\n\nWake n of those that wait; RuntimeError without the lock.",
                notify,
            ),
            method::noargs::<Condition, _>(
                c"notify_all",
                c"notify_all($self, /)\n--\n\nWake all that wait; RuntimeError without the lock.",
                notify_all,
            ),
            method::noargs::<Condition, _>(
                c"_exports",
                c"_exports($self, /)\n--\n\nThe methods that are not those of a native lock.",
                exports,
            ),
        ])
        .properties([
            method::property::<Condition, _, _>(c"_lock", |s: Slf<'_>| show(&s.lock), set_lock),
            method::property::<Condition, _, _>(
                c"acquire",
                |s: Slf<'_>| export(s, Export::Acquire),
                |s: Slf<'_>, v: Given<'_>| set_export(s, Export::Acquire, v),
            ),
            method::property::<Condition, _, _>(
                c"release",
                |s: Slf<'_>| export(s, Export::Release),
                |s: Slf<'_>, v: Given<'_>| set_export(s, Export::Release, v),
            ),
            method::property::<Condition, _, _>(
                c"locked",
                |s: Slf<'_>| export(s, Export::Locked),
                |s: Slf<'_>, v: Given<'_>| set_export(s, Export::Locked, v),
            ),
            fields::object(c"_waiters", |s: &Condition| &s.waiters.deque),
            fields::object(c"_loop", |s: &Condition| &s.waiters.loop_),
        ])
        .build()?;
    let like = |name| call::getattr(stock().condition.borrow(), value::intern(name)?.borrow());
    for (name, made) in [
        (
            c"wait",
            callable::coroutine_method::<Condition, _>(waiting::wait, like(c"wait")?.borrow())?,
        ),
        (
            c"wait_for",
            callable::coroutine_method::<Condition, _>(
                waiting::wait_for,
                like(c"wait_for")?.borrow(),
            )?,
        ),
        (
            c"__aenter__",
            callable::async_with_method::<Condition, _>(
                waiting::enter,
                like(c"__aenter__")?.borrow(),
            )?,
        ),
        (
            c"__aexit__",
            callable::async_with_method::<Condition, _>(
                super::exit::exit::<Condition>,
                like(c"__aexit__")?.borrow(),
            )?,
        ),
    ] {
        call::setattr(class.borrow(), value::intern(name)?.borrow(), made.borrow())?;
    }
    Ok(class)
}
