//! What `receive()` and `send(message)` return: coroutine-like objects that act when awaited and,
//! where they can, finish without suspending.

use super::cycle::{self, Cycle, Local};
use super::message;
use crate::future::{self, Future};
use rondel_ffi::call::Sent;
use rondel_ffi::class::{ObjCell, OwnCell, TypeBuilder, Visit, alloc};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::method::{self, Args, BoundDef, Unary};
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Ref};
use rondel_http::{BodyPoll, Flow};
use std::sync::OnceLock;

/// An awaited `receive()`.
#[derive(Default)]
pub(super) struct ReceiveCall {
    cycle: OwnCell<Cycle>,
    waiting: OwnCell<Future>,
}

/// An awaited `send(message)`.
#[derive(Default)]
pub(super) struct SendCall {
    cycle: OwnCell<Cycle>,
    /// Taken when it is acted on.
    message: ObjCell,
    waiting: OwnCell<Future>,
}

static RECEIVE_CELL: ClassCell = ClassCell::new();
static SEND_CELL: ClassCell = ClassCell::new();
static RECEIVE_FREE: FreeList = FreeList::new();
static SEND_FREE: FreeList = FreeList::new();

impl Class for ReceiveCall {
    fn cell() -> &'static ClassCell {
        &RECEIVE_CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.cycle);
        visit.own(&self.waiting);
    }
    fn clear(&self) {
        self.cycle.set(None);
        self.waiting.set(None);
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&RECEIVE_FREE)
    }
}

impl Class for SendCall {
    fn cell() -> &'static ClassCell {
        &SEND_CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.cycle);
        visit.cell(&self.message);
        visit.own(&self.waiting);
    }
    fn clear(&self) {
        self.cycle.set(None);
        self.message.set(None);
        self.waiting.set(None);
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&SEND_FREE)
    }
}

// ------------------------------------------------------------------------------- the callables

/// The application's `receive`.
pub(super) fn bound_receive(cycle: Inst<'_, Cycle>) -> PyRes<Obj> {
    static DEF: OnceLock<BoundDef> = OnceLock::new();
    let def = DEF.get_or_init(|| {
        BoundDef::new(method::noargs::<Cycle, _>(
            c"receive",
            c"ASGI receive: the next event.",
            |cycle: Inst<'_, Cycle>| {
                let call = ReceiveCall {
                    cycle: OwnCell::new(Some(cycle.own())),
                    ..ReceiveCall::default()
                };
                Ok(alloc(call, false)?.into_obj())
            },
        ))
    });
    method::bind(def, cycle.obj())
}

/// The application's `send`.
pub(super) fn bound_send(cycle: Inst<'_, Cycle>) -> PyRes<Obj> {
    static DEF: OnceLock<BoundDef> = OnceLock::new();
    let def = DEF.get_or_init(|| {
        BoundDef::new(method::onearg::<Cycle, _>(
            c"send",
            c"ASGI send: one message of the response.",
            |cycle: Inst<'_, Cycle>, message: Ref<'_>| {
                let call = SendCall {
                    cycle: OwnCell::new(Some(cycle.own())),
                    message: ObjCell::new(Some(message.own())),
                    waiting: OwnCell::default(),
                };
                Ok(alloc(call, false)?.into_obj())
            },
        ))
    });
    method::bind(def, cycle.obj())
}

/// The done callback for a task that is not native.
pub(super) fn bound_finished(cycle: Inst<'_, Cycle>) -> PyRes<Obj> {
    static DEF: OnceLock<BoundDef> = OnceLock::new();
    let def = DEF.get_or_init(|| {
        BoundDef::new(method::onearg::<Cycle, _>(
            c"finished",
            c"The application's task is done.",
            |cycle: Inst<'_, Cycle>, task: Ref<'_>| {
                cycle::finished(cycle.own(), task)?;
                Ok(Obj::none())
            },
        ))
    });
    method::bind(def, cycle.obj())
}

// ------------------------------------------------------------------------------- resuming

/// Suspends on a fresh future of the cycle's loop.
fn suspend<T: Class>(
    call: Inst<'_, T>,
    cycle: &Own<Cycle>,
    waiting: &OwnCell<Future>,
    park: fn(&Cycle, Own<Future>),
) -> Sent {
    let made = match cycle.home.peek() {
        Some(home) => future::create(home),
        None => Err(Builtin::Runtime.raise("the request is over")),
    };
    match made {
        Ok(fut) => {
            fut.blocking.set(true);
            park(cycle, fut.clone());
            waiting.set(Some(fut.clone()));
            rondel_ffi::class::track(call);
            Sent::Yielded(fut.into_obj())
        }
        Err(raised) => Sent::Raised(raised),
    }
}

/// The outcome of what was waited for, if it was anything; `None` to go on.
fn resumed(waiting: &OwnCell<Future>) -> Option<Sent> {
    let fut = waiting.take()?;
    if !fut.done() {
        waiting.set(Some(fut.clone()));
        if fut.blocking.get() {
            return Some(Sent::Raised(
                Builtin::Runtime.raise("await wasn't used with future"),
            ));
        }
        fut.blocking.set(true);
        return Some(Sent::Yielded(fut.into_obj()));
    }
    match future::outcome(fut.inst()) {
        Ok(Ok(_)) => None,
        Ok(Err(exc)) => Some(Sent::Raised(err::raise_instance(exc.borrow()))),
        Err(raised) => Some(Sent::Raised(raised)),
    }
}

fn resume_receive(slf: Inst<'_, ReceiveCall>, _value: Ref<'_>) -> Sent {
    if let Some(sent) = resumed(&slf.waiting) {
        return sent;
    }
    let Some(cycle) = slf.cycle.get() else {
        return reused();
    };
    let polled = match cycle.local() {
        Ok(Local {
            socket: Some(socket),
            exchange,
            ..
        }) => {
            return match socket.receive(exchange) {
                Ok(None) => suspend(slf, &cycle, &slf.waiting, Cycle::wait_to_receive),
                Ok(Some(message)) => {
                    slf.cycle.set(None);
                    Sent::Returned(message)
                }
                Err(raised) => Sent::Raised(raised),
            };
        }
        Ok(local) if local.exchange.is_complete() => BodyPoll::Gone,
        Ok(local) => local.exchange.poll_body(),
        Err(raised) => return Sent::Raised(raised),
    };
    let message = match polled {
        BodyPoll::Chunk { data, more } => message::request(&data, more),
        BodyPoll::Gone => message::disconnect(),
        BodyPoll::Pending | BodyPoll::End => {
            return suspend(slf, &cycle, &slf.waiting, Cycle::wait_to_receive);
        }
    };
    slf.cycle.set(None);
    match message {
        Ok(message) => Sent::Returned(message),
        Err(raised) => Sent::Raised(raised),
    }
}

fn resume_send(slf: Inst<'_, SendCall>, _value: Ref<'_>) -> Sent {
    if let Some(sent) = resumed(&slf.waiting) {
        return sent;
    }
    let Some(cycle) = slf.cycle.get() else {
        return reused();
    };
    let Some(message) = slf.message.take() else {
        // Resumed after the wait.
        slf.cycle.set(None);
        return Sent::Returned(Obj::none());
    };
    let sent = match cycle.local() {
        Ok(Local {
            socket: Some(socket),
            ..
        }) => socket.send(cycle.inst(), message.borrow()),
        _ => message::send(cycle.inst(), message.borrow()),
    };
    match sent {
        Ok(Flow::Ready) => {
            let gone = cycle.local().is_ok_and(|local| local.exchange.is_gone());
            if gone {
                // Nothing is sent any more, so nothing would hold back an application that only
                // sends: the loop goes round, which lets it be told (by a cancel, by `receive()`).
                return Sent::Yielded(Obj::none());
            }
            slf.cycle.set(None);
            Sent::Returned(Obj::none())
        }
        Ok(Flow::Full) => suspend(slf, &cycle, &slf.waiting, Cycle::wait_to_send),
        Err(raised) => {
            slf.cycle.set(None);
            Sent::Raised(raised)
        }
    }
}

#[cold]
fn reused() -> Sent {
    Sent::Raised(Builtin::Runtime.raise("cannot reuse already awaited coroutine"))
}

// ------------------------------------------------------------------------------- the types

/// Both types have a coroutine's methods, so that `create_task(receive())` works as it does with
/// servers whose `receive` is an `async def`.
fn coroutine<T, F>(name: &'static std::ffi::CStr, _resume: F) -> PyRes<Obj>
where
    T: Class,
    F: for<'a> Fn(Inst<'a, T>, Ref<'a>) -> Sent + Copy + 'static,
{
    fn itself<T: Class>(slf: Inst<'_, T>) -> PyRes<Obj> {
        Ok(slf.obj().own())
    }
    fn throw<T: Class>(slf: Inst<'_, T>, args: Args<'_>) -> PyRes<Obj> {
        slf.data().clear();
        Err(future::raise_thrown(args))
    }
    fn close<T: Class>(slf: Inst<'_, T>) -> PyRes<Obj> {
        slf.data().clear();
        Ok(Obj::none())
    }
    let [next, send_slot] = method::resume::<T, F>(_resume);
    TypeBuilder::<T>::new(name)
        .with(method::unary::<T, _>(Unary::Iter, itself::<T>))
        .with(method::unary::<T, _>(Unary::Await, itself::<T>))
        .with(next)
        .with(send_slot)
        .method(method::send::<T, F>(_resume))
        .method(method::fast::<T, _>(
            c"throw",
            c"Raise inside the coroutine.",
            throw::<T>,
        ))
        .method(method::noargs::<T, _>(
            c"close",
            c"Close the coroutine.",
            close::<T>,
        ))
        .build()
}

pub(super) fn build() -> PyRes<[Obj; 2]> {
    Ok([
        coroutine::<ReceiveCall, _>(c"rondel._rondel.ReceiveCall", resume_receive)?,
        coroutine::<SendCall, _>(c"rondel._rondel.SendCall", resume_send)?,
    ])
}
