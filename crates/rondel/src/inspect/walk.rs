//! The await chain of a task: from its coroutine down to what the innermost one waits for.
//!
//! ```text
//!  coroutine ─cr_await─► coroutine ─► asynchronous generator ─► native coroutine ─► future, sleep
//!      └ frame               └ frame          └ frame                 └ name, and what it is about
//! ```
//!
//! Runs no Python code: what is asked is of C types known by identity, anything else is looked into as
//! the collector does it, or is where the chain ends. Bounded by [`DEPTH`]. With the GIL held.

use crate::future::{Future, FutureIter};
use crate::primitives::coroutine;
use crate::primitives::sleep::Sleep;
use crate::task::Task;
use rondel_ffi::frame::Frame;
use rondel_ffi::peek::{self, Kind};
use rondel_ffi::{Obj, Own, Ref, value};

/// Links of a chain that are looked at.
pub(super) const DEPTH: usize = 64;

/// A link of the chain.
pub(super) enum Link {
    Python(Frame),
    Native(&'static str),
    /// What is no coroutine: the chain ends in it.
    Last,
}

/// What a chain ends in.
#[derive(Default)]
pub(super) enum Tail {
    /// Nothing: the coroutine runs, has not begun, or awaits something that ends at once.
    #[default]
    Nothing,
    /// When the sleep is over, on the loop's clock.
    Sleep(u64),
    Future(Own<Future>),
    /// A native coroutine, and what it is about: a lock, a queue, the function of a thread.
    Native(&'static str, Option<Obj>),
    /// An object of a class that is not known, by its class's name.
    Other(String),
    /// Longer than [`DEPTH`].
    Deep,
}

/// Walks down from a task's coroutine, telling `each` of each link and its object.
pub(super) fn chain(coro: Ref<'_>, mut each: impl FnMut(Link, Ref<'_>)) -> Tail {
    let mut tail = Tail::Nothing;
    let mut at = Some(coro.own());
    for _ in 0..DEPTH {
        let Some(here) = at.take() else { return tail };
        let obj = here.borrow();
        if let Some(kind) = Kind::of(obj) {
            if let Some(frame) = kind.frame(obj) {
                each(Link::Python(frame), obj);
            }
            tail = Tail::Nothing;
            at = kind.awaited(obj);
        } else if let Some(view) = coroutine::view(obj) {
            each(Link::Native(view.name), obj);
            // A future is the native's own business; another coroutine is shown as well.
            let inner = view
                .awaited
                .filter(|inner| future_of(inner.borrow()).is_none());
            at = inner.filter(|inner| is_link(inner.borrow()));
            // What the program has called: `Queue.join`, not the event in it; but for what merely adds a
            // deadline.
            if !matches!(tail, Tail::Native(outer, _) if outer != "wait_for") {
                tail = Tail::Native(view.name, subject(obj));
            }
        } else if let Some(sleep) = obj.exact::<Sleep>() {
            each(Link::Last, obj);
            return Tail::Sleep(sleep.deadline());
        } else if let Some(future) = future_of(obj) {
            each(Link::Last, obj);
            return Tail::Future(future);
        } else if let Some(inner) = peek::referent(obj, |inner| Kind::of(inner).is_some()) {
            // What stands between: `__anext__` of an asynchronous generator, `__await__` of a coroutine.
            at = Some(inner);
        } else {
            each(Link::Last, obj);
            return Tail::Other(value::type_name(obj));
        }
    }
    if at.is_some() { Tail::Deep } else { tail }
}

fn is_link(obj: Ref<'_>) -> bool {
    Kind::of(obj).is_some()
        || coroutine::view(obj).is_some()
        || obj.exact::<Sleep>().is_some()
        || peek::referent(obj, |inner| Kind::of(inner).is_some()).is_some()
}

fn future_of(obj: Ref<'_>) -> Option<Own<Future>> {
    if let Some(future) = obj.cast::<Future>() {
        return Some(future.own());
    }
    obj.exact::<FutureIter>().and_then(|iter| iter.awaited())
}

/// What a native coroutine is about: the first object that it refers to.
fn subject(obj: Ref<'_>) -> Option<Obj> {
    peek::referent(obj, |inner| !inner.is(obj.type_of()))
        .filter(|found| !found.is_none() && found.borrow().cast::<Future>().is_none())
}

/// What a call for a thread is called: `shelf.views.index`, whatever is around the function.
pub(super) fn describe_call(obj: Ref<'_>) -> String {
    peek::callable_name(obj).unwrap_or_else(|| describe(obj))
}

/// What an object is called in a report: a function by its name, a task by its own, anything else by
/// class and address.
pub(super) fn describe(obj: Ref<'_>) -> String {
    if let Some(name) = peek::function_name(obj) {
        return name;
    }
    if let Some(task) = obj.cast::<Task>() {
        return Task::shown_name(task);
    }
    if !obj.is_callable() {
        return format!("<{} at {:p}>", value::type_name(obj), obj.as_ptr());
    }
    // A method, a partial: the function in it, or among its arguments (`context.run`).
    let is_function = |inner: Ref<'_>| peek::function_name(inner).is_some();
    let within =
        |inner: Ref<'_>| value::is_tuple(inner).then(|| peek::referent(inner, is_function));
    peek::referent(obj, is_function)
        .or_else(|| {
            let tuple = peek::referent(obj, |inner| within(inner).flatten().is_some())?;
            peek::referent(tuple.borrow(), is_function)
        })
        .and_then(|function| peek::function_name(function.borrow()))
        .unwrap_or_else(|| value::type_name(obj))
}
