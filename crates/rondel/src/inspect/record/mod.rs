//! The recorder: what tasks, callbacks, threads and the loop did, in order, with times.
//!
//! ```text
//!  Created ─► Begin ─ step ─ End(what it waits for) ─► Begin … End(result, exception, cancelled)
//!  Poll ─ the loop sleeps ─ Polled        Call ─ queued ─ CallBegin ─ a thread runs it ─ CallEnd
//! ```
//!
//! Off, it costs nothing: a loop that records has a reason to see to each entry (`attention`), which it
//! tests anyway; creating a task tests the flag that lost work has (`watch`). On, a step costs one
//! reading of a clock (`ticks`) and 24 bytes (`store`): most begin when another has ended.
//!
//! A task is known by its number, the same that snapshots have. Names, code and places are notes, each
//! kept once; no event holds a reference to a task. Calls and futures are known by their address for as
//! long as they are there. The store has a bound: what comes after is counted, not kept.
//!
//! Without details a task's creation has the time at which the step began that made it: exact times,
//! places that make tasks and places that wait are the details.
//!
//! Everything happens with the GIL held, and no user code runs in here: what is looked at is of C types
//! known by identity.
//!
//! * `store`: events and notes, and how they are told; `ticks`: the clock; `export`: what Python calls.

mod export;
mod store;
mod ticks;

pub(super) use export::definitions;
pub(super) use store::Recording;

use super::walk::{self, Link};
use crate::consts::names;
use crate::event_loop::{LoopBase, Ready};
use crate::future::{AsFuture, Future};
use crate::packed::Entry;
use crate::primitives::gather::Gather;
use crate::primitives::sleep::Sleep;
use crate::task::{self, Task, Waiter};
use crate::{event_loop, watch};
use rondel_ffi::call::{self, Sent};
use rondel_ffi::frame::Frame;
use rondel_ffi::gil::GilStatic;
use rondel_ffi::peek::{self, Kind};
use rondel_ffi::{Inst, Obj, Ref, value};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

static ON: AtomicBool = AtomicBool::new(false);
static DETAILS: AtomicBool = AtomicBool::new(false);
static STORE: GilStatic<RefCell<Recording>> = GilStatic::new();

/// Whether events are recorded. Only a hint for who is about to tell of one.
#[inline(always)]
pub(crate) fn on() -> bool {
    ON.load(Ordering::Relaxed)
}

fn details() -> bool {
    DETAILS.load(Ordering::Relaxed)
}

/// The kinds of events; Python reads them by number (`rondel/inspect/recording.py`).
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum What {
    /// `other` is the task that made it; the note its coroutine's code.
    Created = 0,
    /// A task's number among those without a name in `other`, or its name as the note; the place that
    /// made it follows as another of these with `other` at its most.
    Named = 1,
    Begin = 2,
    /// What comes next of a step's ends is one of these, with what is waited for in `other`.
    EndReady = 3,
    EndWaits = 4,
    EndWaitsTask = 5,
    EndWaitsGather = 6,
    EndSleeps = 7,
    EndResult = 8,
    EndException = 9,
    EndCancelled = 10,
    /// A callback, or one of the loop's own entries.
    Callback = 11,
    CallbackEnd = 12,
    Poll = 13,
    Polled = 14,
    /// A call for a thread; the future that has its outcome in `other`.
    Call = 15,
    CallBegin = 16,
    CallEnd = 17,
    /// A task was asked to end by the one in `other`.
    Cancel = 18,
    /// A call is waited for by the future in `other`.
    CallWaits = 19,
    /// Not told: the lead's step began when the last entry ended.
    Open = 20,
}

impl What {
    fn ends_step(kind: u8) -> bool {
        (What::EndReady as u8..=What::EndCancelled as u8).contains(&kind)
    }

    fn ends_entry(kind: u8) -> bool {
        What::ends_step(kind) || kind == What::CallbackEnd as u8
    }
}

/// Says that a `Named` has the place that made the task.
const PLACE: u32 = u32::MAX;

/// Something to record, if it still is wanted. What `work` does runs no Python code.
#[inline(always)]
fn with(work: impl FnOnce(&mut Recording)) {
    if let Some(store) = STORE.get()
        && let Ok(mut recording) = store.try_borrow_mut()
    {
        work(&mut recording);
    }
}

/// What a future, a call or a handle is known by while it is there: its address, less the bits that are
/// the same in all. Two that lie 64 GiB apart would share one.
fn key(obj: Ref<'_>) -> u32 {
    (obj.as_ptr() as usize >> 4) as u32
}

fn address(home: Inst<'_, LoopBase>) -> usize {
    home.obj().as_ptr() as usize
}

// ------------------------------------------------------------------------------------ tasks

/// A task was made, and has its number.
#[inline]
pub(crate) fn created(task: Inst<'_, Task>) {
    is_known(task, task::parent_of(task), details());
    if details() {
        made_at(task);
    }
}

/// The place that makes a task.
#[cold]
fn made_at(task: Inst<'_, Task>) {
    quietly(|| {
        if let Some(here) = maker() {
            with(|it| {
                let note = it.place(&here, None);
                it.put(What::Named, task.fut().id.get(), PLACE, note, 0);
            });
        }
    });
}

/// Makes objects without the collector, which before 3.12 starts where they are made: what it ends may
/// run any code.
fn quietly<R>(work: impl FnOnce() -> R) -> R {
    if cfg!(Py_3_12) {
        work()
    } else {
        peek::uncollected(work)
    }
}

/// As `watch::innermost`: the innermost frame of the program's own.
fn maker() -> Option<Frame> {
    let mut frame = Frame::current();
    while let Some(here) = frame {
        let mut ours = false;
        with(|it| ours = it.is_ours(&here));
        if !ours {
            return Some(here);
        }
        frame = here.back();
    }
    None
}

/// Tells what a task runs, who made it, and its name. One of another runtime's loop has no number: it
/// takes no steps here.
#[inline]
fn is_known(task: Inst<'_, Task>, parent: u32, exact: bool) {
    let (id, number) = (task.fut().id.get(), task.fut().number.get());
    let Some(coro) = task.coro.peek().filter(|_| id != 0) else {
        return;
    };
    let code = Kind::of(coro).and_then(|kind| kind.code(coro));
    with(|it| {
        let note = match &code {
            Some(code) => it.note(code.borrow()),
            None => it.note(coro.type_of()),
        };
        it.created(id, parent, note, number, exact);
        if let Some(name) = task.name.peek() {
            let note = it.note(name);
            it.put(What::Named, id, 0, note, 0);
        }
    });
}

/// A task was given a name.
#[cold]
pub(crate) fn named(task: Inst<'_, Task>) {
    let name = task.name.get();
    with(|it| {
        if let Some(name) = &name {
            let note = it.note(name.borrow());
            it.put(What::Named, task.fut().id.get(), 0, note, 0);
        }
    });
}

/// A task is asked to end.
#[cold]
pub(crate) fn cancelled(task: Inst<'_, Task>) {
    let by = event_loop::running()
        .and_then(|home| home.stepping_task().map(|by| by.fut().id.get()))
        .unwrap_or(0);
    with(|it| it.write(What::Cancel, task.fut().id.get(), by, 0));
}

// ------------------------------------------------------------------------------------ steps

/// A step out of a loop's ready queue is about to be taken.
#[inline(always)]
pub(crate) fn step_begins(home: Inst<'_, LoopBase>, task: Inst<'_, Task>) {
    with(|it| it.step_begins(address(home), task.fut().id.get()));
}

/// What a step has come to.
pub(crate) struct End {
    task: u32,
    what: What,
    other: u32,
    note: u32,
}

impl End {
    /// Looks at it before it is acted upon: that may be the task's end.
    #[inline(always)]
    pub(crate) fn of(task: Inst<'_, Task>, sent: &Sent) -> End {
        let (what, other) = match sent {
            Sent::Yielded(obj) => waits_for(obj.borrow()),
            Sent::Returned(_) if task.must_cancel.get() => (What::EndCancelled, 0),
            Sent::Returned(_) => (What::EndResult, 0),
            Sent::Raised(raised) if raised.matches(crate::consts::cancelled_class()) => {
                (What::EndCancelled, 0)
            }
            Sent::Raised(_) => (What::EndException, 0),
        };
        let waits = matches!(sent, Sent::Yielded(_));
        let note = if waits && details() {
            quietly(|| place_of(task))
        } else {
            0
        };
        End {
            task: task.fut().id.get(),
            what,
            other,
            note,
        }
    }

    /// The step is over.
    #[inline(always)]
    pub(crate) fn tell(&self, home: Inst<'_, LoopBase>) {
        with(|it| it.step_ends(address(home), self.what, self.task, self.other, self.note));
    }

    /// One within another entry is.
    pub(crate) fn tell_within(&self) {
        with(|it| it.ends(self.what, self.task, self.other, self.note));
    }
}

/// A step within another entry begins: an eager task's first, or one that another runtime's future calls.
#[cold]
pub(crate) fn inner_begins(task: Inst<'_, Task>) {
    with(|it| it.begins(task.fut().id.get()));
}

/// What a coroutine yields says what it waits for.
#[inline(always)]
fn waits_for(obj: Ref<'_>) -> (What, u32) {
    if obj.is_none() {
        (What::EndReady, 0)
    } else if obj.exact::<Future>().is_some() {
        (What::EndWaits, key(obj))
    } else if let Some(task) = obj.exact::<Task>() {
        (What::EndWaitsTask, task.fut().id.get())
    } else if obj.exact::<Sleep>().is_some() {
        (What::EndSleeps, 0)
    } else if obj.exact::<Gather>().is_some() {
        (What::EndWaitsGather, key(obj))
    } else {
        (What::EndWaits, key(obj))
    }
}

/// The note of the innermost line of the program's own that a task stands at, with what it awaits there:
/// a function of asyncio's or ours, or the type of an object.
#[cold]
fn place_of(task: Inst<'_, Task>) -> u32 {
    let Some(coro) = task.coro.peek() else {
        return 0;
    };
    let (mut found, mut awaited): (Option<Frame>, Option<Obj>) = (None, None);
    walk::chain(coro, |link, obj| match link {
        Link::Python(frame) => {
            let mut ours = false;
            with(|it| ours = it.is_ours(&frame));
            if found.is_none() || !ours {
                (found, awaited) = (Some(frame), None);
            } else if awaited.is_none() {
                awaited = Kind::of(obj).and_then(|kind| kind.code(obj));
            }
        }
        Link::Native(_) | Link::Last if awaited.is_none() => awaited = Some(obj.type_of().own()),
        Link::Native(_) | Link::Last => {}
    });
    let Some(found) = found else { return 0 };
    let mut note = 0;
    with(|it| note = it.place(&found, awaited.as_ref().map(Obj::borrow)));
    note
}

// ------------------------------------------------------------------------------------ the loop

/// An entry that is no step is about to be dealt with; by what it is known.
pub(crate) fn callback_begins(home: Inst<'_, LoopBase>, entry: &Entry) -> u32 {
    let (handle, function) = entry.peek(|entry| match entry {
        Ready::Run(handle) => {
            let function = details().then(|| handle.callback.get()).flatten();
            (key(handle.obj()), function.map(function_of))
        }
        _ => (0, None),
    });
    with(|it| {
        let note = function.map_or(0, |function| it.note(function.borrow()));
        it.callback_begins(address(home), handle, note);
    });
    handle
}

pub(crate) fn callback_ends(home: Inst<'_, LoopBase>, handle: u32) {
    with(|it| it.callback_ends(address(home), handle));
}

/// The loop is about to look for events: the next step does not begin at the end of the last.
pub(crate) fn looks() {
    with(Recording::pauses);
}

/// The loop may sleep, or has.
pub(crate) fn polls(over: bool) {
    let what = if over { What::Polled } else { What::Poll };
    with(|it| it.write(what, 0, 0, 0));
}

// ------------------------------------------------------------------------------------ threads

/// A call for a thread, and what it calls.
#[cold]
pub(crate) fn call_made(call: Ref<'_>, function: Option<Obj>, future: Option<Ref<'_>>) {
    let Some(function) = function else { return };
    let code = function_of(function);
    with(|it| {
        let note = it.note(code.borrow());
        it.write(What::Call, key(call), future.map_or(0, key), note);
    });
}

/// Its outcome is waited for.
#[cold]
pub(crate) fn call_waits(call: Ref<'_>, future: Ref<'_>) {
    with(|it| it.put(What::CallWaits, key(call), key(future), 0, 0));
}

/// How deep a function is looked for in what wraps it.
const DEPTH: usize = 100;

/// The code behind a function, a method or a `functools.partial`; anything else is its type.
fn function_of(callable: Obj) -> Obj {
    let mut here = callable;
    for _ in 0..DEPTH {
        let inner = match value::type_name(here.borrow()).as_str() {
            "function" => part(here.borrow(), names().dunder_code.borrow()),
            "method" => part(here.borrow(), names().dunder_func.borrow()),
            "functools.partial" | "partial" => of_partial(here.borrow()),
            "builtin_function_or_method" => part(here.borrow(), names().dunder_qualname.borrow()),
            "code" | "str" => return here,
            _ => None,
        };
        match inner {
            Some(inner) => here = inner,
            None => return here.borrow().type_of().own(),
        }
    }
    here
}

/// Which of its arguments `rondel.bridge.calls` has `thread_handler` call.
const HANDLED: usize = 4;

/// What a partial calls: its function, or what the bridge's handler and `Context.run` are told to call.
fn of_partial(partial: Ref<'_>) -> Option<Obj> {
    let function = part(partial, names().func.borrow())?;
    let name = part(function.borrow(), names().dunder_name.borrow());
    let name = name.and_then(|name| peek::text(name.borrow()));
    let args = part(partial, names().args.borrow());
    let told = match (name.as_deref(), args) {
        (Some("thread_handler"), Some(args)) => value::item(args.borrow(), HANDLED),
        (Some("run"), Some(args)) => value::item(args.borrow(), 0),
        _ => None,
    };
    let is_told = |told: &Obj| told.borrow().is_callable();
    told.filter(is_told).or(Some(function))
}

/// An attribute of an object whose type is CPython's or ours; an error is as good as nothing.
fn part(obj: Ref<'_>, name: Ref<'_>) -> Option<Obj> {
    match call::getattr_opt(obj, name) {
        Ok(found) => found.filter(|found| !found.is_none()),
        Err(raised) => {
            raised.clear();
            None
        }
    }
}

#[cold]
pub(crate) fn call_begins(call: Ref<'_>) {
    with(|it| it.write(What::CallBegin, key(call), 0, 0));
}

#[cold]
pub(crate) fn call_ends(call: Ref<'_>) {
    with(|it| it.write(What::CallEnd, key(call), 0, 0));
}

// ------------------------------------------------------------------------------------ switches

/// Begins a recording of so many events at most; false if one is going on.
pub(super) fn begin(limit: usize, details: bool) -> bool {
    if on() {
        return false;
    }
    STORE.set(RefCell::default());
    let before = STORE
        .get()
        .map(|store| store.replace(Recording::new(limit)));
    drop(before);
    DETAILS.store(details, Ordering::Relaxed);
    for home in super::running() {
        for task in task::all(home.inst()) {
            is_there(home.inst(), task.inst());
        }
    }
    switch(true);
    true
}

/// A task that was there before the recording: what it runs, its name, what it waits for.
fn is_there(home: Inst<'_, LoopBase>, task: Inst<'_, Task>) {
    is_known(task, 0, true);
    // The end of the step that is going on will be told.
    if home
        .stepping()
        .is_some_and(|current| current.is(task.obj()))
    {
        return;
    }
    let (what, other) = task.waiter.peek(|waiter| match waiter {
        Waiter::Nothing | Waiter::Rested | Waiter::CancelledSleep(_) => (What::EndReady, 0),
        Waiter::Sleep(_) => (What::EndSleeps, 0),
        Waiter::Future(waited) => waits_for(waited.obj()),
        Waiter::Other(obj) => (What::EndWaits, key(obj.borrow())),
    });
    let note = if details() {
        quietly(|| place_of(task))
    } else {
        0
    };
    with(|it| it.ends(what, task.fut().id.get(), other, note));
}

/// Ends it: what was recorded; none if nothing is.
pub(super) fn finish() -> Option<Recording> {
    if !on() {
        return None;
    }
    switch(false);
    let mut recording = STORE.get().map(RefCell::take)?;
    recording.end();
    Some(recording)
}

fn switch(on: bool) {
    ON.store(on, Ordering::Relaxed);
    watch::set_recorded(on);
    for home in super::running() {
        home.set_recorded(on);
    }
}

/// Nothing is recorded any more; needs no GIL. What was is dropped when the next recording begins.
pub(super) fn abandon() {
    ON.store(false, Ordering::Relaxed);
    watch::set_recorded(false);
}
