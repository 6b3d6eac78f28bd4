//! The native halves of asyncio's locks: `Lock`, `Event`, `Semaphore`, `Condition`, `Barrier`.
//!
//! `rondel.Lock` and its kin (Python) derive from a base here and from asyncio's class, so that
//! constructors, `repr()` and everything unusual are asyncio's own code, exact for each Python. The
//! fields are properties under asyncio's names, `_waiters` is the very deque that asyncio would have:
//! asyncio's methods and ours work on the same state, in any mixture. Native is what runs at each
//! hand-off, and on Rondel's loops the waiters are native futures.
//!
//! No borrow is held while Python code can run: a waiter that is not ours, a deque somebody replaced.

pub(crate) mod barrier;
pub(crate) mod condition;
pub(crate) mod event;
pub(crate) mod exit;
pub(crate) mod fields;
pub(crate) mod lock;
pub(crate) mod semaphore;
pub(crate) mod waiters;

use rondel_ffi::err::{self, Builtin};
use rondel_ffi::gil::GilStatic;
use rondel_ffi::method::{self, Args, MethodDef};
use rondel_ffi::{Obj, PyRes, Raised, Ref, call, value};
use std::ffi::CStr;

/// The Python classes that add nothing to what is native. Instances of others may override anything.
struct Plain {
    lock: Obj,
    event: Obj,
    semaphore: Obj,
    condition: Obj,
    barrier: Obj,
}

static PLAIN: GilStatic<Plain> = GilStatic::new();

fn is_plain(obj: Ref<'_>, which: impl Fn(&Plain) -> &Obj) -> bool {
    PLAIN
        .get()
        .is_some_and(|plain| obj.type_of().is(which(plain).borrow()))
}

/// `_adopt_locks(Lock, Event, Semaphore, Condition, Barrier)`: called once, by the module that defines
/// them.
fn adopt(args: Args<'_>) -> PyRes<Obj> {
    let [lock, event, semaphore, condition, barrier] = args.positional() else {
        return Err(Builtin::Type.raise("_adopt_locks() takes five classes"));
    };
    if PLAIN.get().is_none() {
        PLAIN.set(Plain {
            lock: lock.own(),
            event: event.own(),
            semaphore: semaphore.own(),
            condition: condition.own(),
            barrier: barrier.own(),
        });
    }
    Ok(Obj::none())
}

pub(crate) fn definitions() -> Vec<MethodDef> {
    vec![method::function(
        c"_adopt_locks",
        c"Tell which classes add nothing to the native ones.",
        adopt,
    )]
}

/// asyncio's own method of a class, on the fields that it shares with ours.
#[cold]
fn by_asyncio(class: &Obj, name: &CStr, args: &[Ref<'_>]) -> PyRes<Obj> {
    let name = value::intern(name)?;
    let method = call::getattr(class.borrow(), name.borrow())?;
    call::call(method.borrow(), args)
}

/// Raises `exc`, which came up while `handled` was being handled.
fn raise_while(exc: Obj, handled: Option<Obj>) -> Raised {
    if let Some(handled) = handled {
        err::set_context(exc.borrow(), handled);
    }
    err::raise_instance(exc.borrow())
}

/// Builds the types.
pub(crate) fn build() -> PyRes<[(&'static CStr, Obj); 5]> {
    Ok([
        (c"LockBase", lock::build()?),
        (c"EventBase", event::build()?),
        (c"SemaphoreBase", semaphore::build()?),
        (c"ConditionBase", condition::build()?),
        (c"BarrierBase", barrier::build()?),
    ])
}
