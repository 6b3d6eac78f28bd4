//! `put`, `get` and `join`: asyncio's `async def` methods of queues, as state machines.
//!
//! ```text
//!  put ── room ──► put_nowait            get ── an item ──► get_nowait
//!   │ else: a putter waits                │ else: a getter waits
//!   └─ woken: looks again                 └─ woken: looks again
//! ```
//! A waiter that was woken and then cancelled passes its turn on, so that no item or room is left over
//! (Python docs, *Queues*; `asyncio.queues.Queue`).

use super::{Order, Queue, by_asyncio, get_now, is_full, native, put_now, raise_shut_down, size};
use super::{waiters, wake_next};
use crate::consts::names;
use crate::primitives::coroutine::{self, Coroutine, Machine, Next};
use rondel_ffi::class::{ObjCell, OwnCell, Visit};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::method::Args;
use rondel_ffi::{ClassCell, Inst, Obj, PyRes, Ref, call, value};
use std::ffi::CStr;

/// The coroutine of `put(item)`, and of `get()` where `GET`.
#[derive(Default)]
pub(crate) struct Transfer<const GET: bool> {
    queue: OwnCell<Queue>,
    item: ObjCell,
    waiter: ObjCell,
}

static PUT: ClassCell = ClassCell::new();
static PUT_FREE: FreeList = FreeList::new();
static GET: ClassCell = ClassCell::new();
static GET_FREE: FreeList = FreeList::new();

/// `put(item)`.
pub(super) fn put(slf: Inst<'_, Queue>, args: Args<'_>) -> PyRes<Obj> {
    let item = match args.positional() {
        [item] if args.keyword_count() == 0 => Some(*item),
        _ => args.bind("Queue.put", [names().item.borrow()], 1, 1)?[0],
    };
    if native(slf).is_none() {
        return by_asyncio(slf, c"put", &[item.unwrap_or_else(|| slf.obj())]);
    }
    coroutine::new(|| Transfer::<false> {
        queue: OwnCell::new(Some(slf.own())),
        item: ObjCell::new(item.map(Ref::own)),
        waiter: ObjCell::default(),
    })
}

/// `get()`.
pub(super) fn get(slf: Inst<'_, Queue>, args: Args<'_>) -> PyRes<Obj> {
    no_arguments(args, "Queue.get")?;
    if native(slf).is_none() {
        return by_asyncio(slf, c"get", &[]);
    }
    coroutine::new(|| Transfer::<true> {
        queue: OwnCell::new(Some(slf.own())),
        item: ObjCell::default(),
        waiter: ObjCell::default(),
    })
}

fn no_arguments(args: Args<'_>, name: &str) -> PyRes<()> {
    if args.is_empty() && args.keyword_count() == 0 {
        return Ok(());
    }
    Err(Builtin::Type.raise(&format!("{name}() takes no arguments")))
}

impl<const G: bool> Transfer<G> {
    /// Whether it has to wait; QueueShutDown if it would wait for ever.
    #[inline(always)]
    fn must_wait(queue: Inst<'_, Queue>) -> PyRes<bool> {
        let wait = if G {
            size(queue)? == 0
        } else {
            is_full(queue)?
        };
        if wait && queue.shut_down.get() {
            return Err(raise_shut_down());
        }
        Ok(wait)
    }

    fn waiting(queue: &Queue) -> &ObjCell {
        if G { &queue.getters } else { &queue.putters }
    }

    /// Transfers the item, or a new waiter to wait for.
    #[inline(always)]
    fn attempt(&self) -> PyRes<Attempt> {
        let Some(queue) = self.queue.get() else {
            return Ok(Attempt::Over(Obj::none()));
        };
        let queue = queue.inst();
        // Somebody may have replaced a field meanwhile.
        let Some(order) = native(queue) else {
            return self.elsewhere(queue);
        };
        if Self::must_wait(queue)? {
            let waiter = waiters::new_waiter(queue.obj(), &queue.loop_)?;
            match Self::waiting(queue.data()).get() {
                Some(waiting) => waiters::append(waiting.borrow(), waiter.borrow())?,
                None => return self.elsewhere(queue),
            }
            self.waiter.set(Some(waiter.clone()));
            return Ok(Attempt::Wait(waiter));
        }
        self.transfer(queue, order).map(Attempt::Over)
    }

    #[inline(always)]
    fn transfer(&self, queue: Inst<'_, Queue>, order: Order) -> PyRes<Obj> {
        if G {
            return get_now(queue, order);
        }
        let item = self.item.take().unwrap_or_else(Obj::none);
        put_now(queue, order, item.borrow())?;
        Ok(Obj::none())
    }

    #[cold]
    fn elsewhere(&self, queue: Inst<'_, Queue>) -> PyRes<Attempt> {
        let (name, item) = if G {
            (c"get", None)
        } else {
            (c"put", self.item.take())
        };
        let rest: Vec<Ref<'_>> = item.iter().map(Obj::borrow).collect();
        by_asyncio(queue, name, &rest).map(Attempt::Await)
    }

    /// The wait ended by an exception.
    #[cold]
    fn give_up(&self, waiter: &Obj) -> PyRes<()> {
        let Some(queue) = self.queue.get() else {
            return Ok(());
        };
        let queue = queue.inst();
        waiters::cancel(waiter.borrow())?;
        let waiting = Self::waiting(queue.data());
        if let Some(waiting) = waiting.get()
            && let Err(raised) = waiters::remove(waiting.borrow(), waiter.borrow())
        {
            // Whoever woke it has taken it out.
            if !raised.matches(Builtin::Value.class()) {
                return Err(raised);
            }
            raised.clear();
        }
        let could = if G {
            size(queue)? > 0
        } else {
            !is_full(queue)?
        };
        if could && !waiters::cancelled(waiter.borrow())? {
            wake_next(waiting)?;
        }
        Ok(())
    }
}

enum Attempt {
    Over(Obj),
    Wait(Obj),
    Await(Obj),
}

impl Attempt {
    #[inline(always)]
    fn into_next(attempt: PyRes<Attempt>) -> Next {
        match attempt {
            Ok(Attempt::Over(value)) => Next::Return(value),
            Ok(Attempt::Wait(waiter)) => waiters::wait_for(waiter),
            Ok(Attempt::Await(awaitable)) => Next::Await(awaitable),
            Err(raised) => Next::Raise(raised),
        }
    }
}

impl<const G: bool> Machine for Transfer<G> {
    const NAME: &'static str = if G { "Queue.get" } else { "Queue.put" };
    const TYPE: &'static CStr = if G {
        c"rondel.Queue_get"
    } else {
        c"rondel.Queue_put"
    };

    fn cell() -> &'static ClassCell {
        if G { &GET } else { &PUT }
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(if G { &GET_FREE } else { &PUT_FREE })
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.queue);
        visit.cell(&self.item);
        visit.cell(&self.waiter);
    }
    fn clear(&self) {
        self.queue.set(None);
        self.item.set(None);
        self.waiter.set(None);
    }
    #[inline(always)]
    fn start(slf: Inst<'_, Coroutine<Self>>) -> Next {
        Attempt::into_next(slf.data().body.attempt())
    }
    #[inline(always)]
    fn resume(slf: Inst<'_, Coroutine<Self>>, outcome: Result<Obj, Obj>) -> Next {
        let body = &slf.data().body;
        let Some(waiter) = body.waiter.take() else {
            // asyncio's own coroutine is over.
            return match outcome {
                Ok(value) => Next::Return(value),
                Err(exc) => Next::raise(exc),
            };
        };
        match outcome {
            Ok(_none) => Attempt::into_next(body.attempt()),
            Err(exc) => match body.give_up(&waiter) {
                Ok(()) => Next::raise(exc),
                Err(raised) => Next::Raise(raised),
            },
        }
    }
}

/// The coroutine of `join()`.
#[derive(Default)]
pub(crate) struct Join(OwnCell<Queue>);

static JOIN: ClassCell = ClassCell::new();

/// `join()`.
pub(super) fn join(slf: Inst<'_, Queue>, args: Args<'_>) -> PyRes<Obj> {
    no_arguments(args, "Queue.join")?;
    if slf.unfinished.get().is_none() {
        return by_asyncio(slf, c"join", &[]);
    }
    coroutine::new(|| Join(OwnCell::new(Some(slf.own()))))
}

impl Machine for Join {
    const NAME: &'static str = "Queue.join";
    const TYPE: &'static CStr = c"rondel.Queue_join";

    fn cell() -> &'static ClassCell {
        &JOIN
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.0);
    }
    fn clear(&self) {
        self.0.set(None);
    }
    fn start(slf: Inst<'_, Coroutine<Self>>) -> Next {
        let waits = || -> PyRes<Option<Obj>> {
            let Some(queue) = slf.data().body.0.get() else {
                return Ok(None);
            };
            if queue.unfinished.get().is_some_and(|count| count <= 0) {
                return Ok(None);
            }
            let finished = queue.finished.get().unwrap_or_else(Obj::none);
            let wait = value::intern(c"wait")?;
            call::method(wait.borrow(), [finished.borrow()]).map(Some)
        };
        match waits() {
            Ok(Some(wait)) => Next::Await(wait),
            Ok(None) => Next::Return(Obj::none()),
            Err(raised) => Next::Raise(raised),
        }
    }
    fn resume(_slf: Inst<'_, Coroutine<Self>>, outcome: Result<Obj, Obj>) -> Next {
        match outcome {
            Ok(_true) => Next::Return(Obj::none()),
            Err(exc) => Next::Raise(err::raise_instance(exc.borrow())),
        }
    }
}

pub(super) fn build() -> PyRes<()> {
    coroutine::build::<Transfer<false>>()?;
    coroutine::build::<Transfer<true>>()?;
    coroutine::build::<Join>()?;
    Ok(())
}
