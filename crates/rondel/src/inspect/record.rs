//! The recorder: what tasks, callbacks, threads and the loop did, in order, with times.
//!
//! ```text
//!  Created ─► Begin ─ step ─ End(what it waits for) ─► Begin … End(result, exception, cancelled)
//!  Poll ─ the loop sleeps ─ Polled        Call ─ queued ─ CallBegin ─ a thread runs it ─ CallEnd
//! ```
//!
//! Off, it costs nothing: a loop that records has a reason to see to each entry (`attention`), which it
//! tests anyway; creating a task tests the flag that lost work has (`watch`). On, an event is 32 bytes
//! written to a vector, and one reading of the clock.
//!
//! A task is known by its address, from its Created to its end: the same address means another task after
//! that. Names, code and places are notes, each kept once; no event holds a reference to a task. The
//! vector has a bound: what comes after is counted, not kept.
//!
//! Everything happens with the GIL held, and no user code runs in here: attributes are asked of exact
//! coroutine, generator and frame objects only.

use crate::consts::names;
use crate::event_loop::{self, LoopBase, Ready};
use crate::future::{AsFuture, Future, State};
use crate::pool::call::Call;
use crate::primitives::gather::Gather;
use crate::task::{self, Task, Waiter};
use crate::watch;
use rondel_core::clock;
use rondel_ffi::err::Builtin;
use rondel_ffi::frame::Frame;
use rondel_ffi::gil::GilStatic;
use rondel_ffi::method::{self, Args, MethodDef};
use rondel_ffi::{Inst, Obj, Own, PyRes, Ref, call, value};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

static ON: AtomicBool = AtomicBool::new(false);
static STORE: GilStatic<RefCell<Recording>> = GilStatic::new();

/// Whether events are recorded. Only a hint for who is about to tell of one.
#[inline(always)]
pub(crate) fn on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// The kinds of events; Python reads them by number (`rondel/inspect/recording.py`).
#[derive(Clone, Copy)]
#[repr(u32)]
enum What {
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
}

pub(super) struct Event {
    /// Nanoseconds on the loops' clock.
    pub(super) at: u64,
    pub(super) subject: u64,
    pub(super) other: u64,
    pub(super) what: u32,
    pub(super) note: u32,
}

/// Says that a `Named` has the place that made the task.
const PLACE: u64 = u64::MAX;

#[derive(Default)]
pub(super) struct Recording {
    pub(super) events: Vec<Event>,
    limit: usize,
    pub(super) lost: u64,
    /// When the last event was.
    at: u64,
    /// The loop of which it was an entry's end: what comes next there begins then.
    ended: u64,
    /// Whether places and chains of waits are noted.
    details: bool,
    pub(super) notes: Vec<Obj>,
    /// The note of an object that a note keeps alive.
    known: HashMap<usize, u32>,
    /// The note of a line of code, with what is awaited there.
    places: HashMap<(usize, i64, usize), u32>,
}

impl Recording {
    fn write(&mut self, what: What, subject: u64, other: u64, note: u32) {
        self.at = clock::now();
        self.ended = 0;
        self.write_now(what, subject, other, note);
    }

    /// As `write`, at the time of the last event.
    fn write_now(&mut self, what: What, subject: u64, other: u64, note: u32) {
        if self.events.len() >= self.limit {
            self.lost += 1;
            return;
        }
        self.events.push(Event {
            at: self.at,
            subject,
            other,
            what: what as u32,
            note,
        });
    }

    /// The beginning of a step of that loop's: at the time at which its last entry has ended, if nothing
    /// else has been told since.
    fn write_begin(&mut self, subject: u64, home: u64) {
        if self.ended == home {
            self.write_now(What::Begin, subject, 0, 0);
        } else {
            self.write(What::Begin, subject, 0, 0);
        }
        self.ended = 0;
    }

    /// Notes count from 1; 0 is none.
    fn keep(&mut self, obj: Obj) -> u32 {
        self.notes.push(obj);
        u32::try_from(self.notes.len()).unwrap_or(0)
    }

    fn note(&mut self, obj: Ref<'_>) -> u32 {
        let address = obj.as_ptr() as usize;
        if let Some(note) = self.known.get(&address) {
            return *note;
        }
        let note = self.keep(obj.own());
        self.known.insert(address, note);
        note
    }

    fn name(&mut self, subject: u64, number: u64, name: Option<&Obj>) {
        let (number, note) = match name {
            Some(name) => (0, self.note(name.borrow())),
            None => (number, 0),
        };
        self.write_now(What::Named, subject, number, note);
    }

    /// `(code or type, line, what is awaited)`
    fn place(&mut self, code: Ref<'_>, line: i64, awaited: Option<Ref<'_>>) -> u32 {
        let address = |obj: Ref<'_>| obj.as_ptr() as usize;
        let key = (address(code), line, awaited.map_or(0, address));
        if let Some(note) = self.places.get(&key) {
            return *note;
        }
        let awaited = awaited.map_or_else(Obj::none, Ref::own);
        let kept = value::int(line).and_then(|line| value::tuple([code.own(), line, awaited]));
        let note = match kept {
            Ok(place) => self.keep(place),
            Err(raised) => {
                raised.clear();
                0
            }
        };
        self.places.insert(key, note);
        note
    }
}

/// Something to record, if it still is wanted. What `work` does runs no Python code.
fn with(work: impl FnOnce(&mut Recording)) {
    if let Some(store) = STORE.get()
        && let Ok(mut recording) = store.try_borrow_mut()
    {
        work(&mut recording);
    }
}

fn details() -> bool {
    STORE
        .get()
        .is_some_and(|store| store.try_borrow().is_ok_and(|it| it.details))
}

fn address(obj: Ref<'_>) -> u64 {
    obj.as_ptr() as usize as u64
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

/// What a coroutine runs: its code, or the type of one without.
fn code_of(coro: Ref<'_>) -> Obj {
    let code = if call::is_coroutine(coro) {
        part(coro, names().cr_code.borrow())
    } else if call::is_generator(coro) {
        part(coro, names().gi_code.borrow())
    } else {
        None
    };
    code.unwrap_or_else(|| coro.type_of().own())
}

/// A task was made. `parent` is the one that takes a step.
#[cold]
pub(crate) fn created(task: Inst<'_, Task>, parent: Option<Ref<'_>>) {
    let Some(coro) = task.coro.get() else { return };
    let parent = parent.map_or_else(
        || stepping().map_or(0, |task| address(task.borrow())),
        address,
    );
    let place = details().then(watch::innermost).flatten();
    is_known(task, &coro, parent);
    if let Some(here) = place {
        let (code, line) = (here.code(), i64::from(here.line()));
        with(|it| {
            let note = it.place(code.borrow(), line, None);
            it.write_now(What::Named, address(task.obj()), PLACE, note);
        });
    }
}

/// Tells what a task runs, who made it, and its name.
fn is_known(task: Inst<'_, Task>, coro: &Obj, parent: u64) {
    let (name, code) = (task.name.get(), code_of(coro.borrow()));
    let subject = address(task.obj());
    with(|it| {
        let note = it.note(code.borrow());
        it.write(What::Created, subject, parent, note);
        it.name(subject, task.fut().number.get(), name.as_ref());
    });
}

/// A task was given a name.
#[cold]
pub(crate) fn named(task: Inst<'_, Task>) {
    let name = task.name.get();
    with(|it| it.name(address(task.obj()), 0, name.as_ref()));
}

/// What an entry of the ready queue is about, held until it is over.
pub(crate) enum Subject {
    Step(Own<Task>),
    Other(u64),
}

/// An entry is about to be dealt with.
pub(crate) fn begins(home: Inst<'_, LoopBase>, entry: &Ready) -> Subject {
    let subject = match entry {
        Ready::Step(task) | Ready::Throw(task, _) => Subject::Step(task.clone()),
        Ready::Run(handle) => {
            let function = handle.callback.get().map(function_of);
            let subject = address(handle.obj());
            with(|it| {
                let note = function.map_or(0, |function| it.note(function.borrow()));
                it.write(What::Callback, subject, 0, note);
            });
            return Subject::Other(subject);
        }
        _ => Subject::Other(0),
    };
    match &subject {
        // Between the end of an entry, or of a poll, and the next there is nothing but the loop.
        Subject::Step(task) => {
            with(|it| it.write_begin(address(task.obj()), address(home.obj())));
        }
        Subject::Other(_) => with(|it| it.write(What::Callback, 0, 0, 0)),
    }
    subject
}

pub(crate) fn ends(home: Inst<'_, LoopBase>, subject: &Subject) {
    match subject {
        Subject::Step(task) => step_ends(task.inst()),
        Subject::Other(handle) => with(|it| it.write(What::CallbackEnd, *handle, 0, 0)),
    }
    with(|it| it.ended = address(home.obj()));
}

/// The loop is about to look for events: the next step does not begin at the end of the last.
pub(crate) fn looks() {
    with(|it| it.ended = 0);
}

pub(crate) fn step_begins(task: Inst<'_, Task>) {
    with(|it| it.write(What::Begin, address(task.obj()), 0, 0));
}

pub(crate) fn step_ends(task: Inst<'_, Task>) {
    let subject = address(task.obj());
    let (what, other) = match task.fut().state.get() {
        State::Pending => task.waiter.peek(|waiter| match waiter {
            Waiter::Nothing | Waiter::Rested | Waiter::CancelledSleep(_) => (What::EndReady, 0),
            Waiter::Sleep(_) => (What::EndSleeps, 0),
            Waiter::Future(waited) => (kind_of(waited), address(waited.obj())),
            Waiter::Other(obj) => (What::EndWaits, address(obj.borrow())),
        }),
        State::Cancelled => (What::EndCancelled, 0),
        State::Failed => (What::EndException, 0),
        State::Finished => (What::EndResult, 0),
    };
    let waits = matches!(task.fut().state.get(), State::Pending);
    let chain = if waits && details() {
        awaits(task)
    } else {
        None
    };
    with(|it| {
        let note = match &chain {
            Some((code, line, awaited)) => {
                it.place(code.borrow(), *line, awaited.as_ref().map(Obj::borrow))
            }
            None => 0,
        };
        it.write(what, subject, other, note);
    });
}

fn kind_of(waited: &Own<Future>) -> What {
    if waited.obj().exact::<Task>().is_some() {
        What::EndWaitsTask
    } else if waited.obj().exact::<Gather>().is_some() {
        What::EndWaitsGather
    } else {
        What::EndWaits
    }
}

/// How deep a chain of awaits is looked into.
const DEPTH: usize = 100;

/// The innermost line of the program's own that a task stands at, and what it awaits there: a function
/// of asyncio's or ours, or the type of an object.
fn awaits(task: Inst<'_, Task>) -> Option<(Obj, i64, Option<Obj>)> {
    let mut here = task.coro.get()?;
    let mut found = None;
    for _ in 0..DEPTH {
        let (frame, inner) = if call::is_coroutine(here.borrow()) {
            (&names().cr_frame, &names().cr_await)
        } else if call::is_generator(here.borrow()) {
            (&names().gi_frame, &names().gi_yieldfrom)
        } else {
            break;
        };
        let inner = part(here.borrow(), inner.borrow());
        if let Some(frame) = part(here.borrow(), frame.borrow()).and_then(Frame::cast)
            && (found.is_none() || !watch::is_ours(&frame))
        {
            let awaited = inner.as_ref().map(|inner| code_of(inner.borrow()));
            found = Some((frame.code(), i64::from(frame.line()), awaited));
        }
        match inner {
            Some(inner) => here = inner,
            None => break,
        }
    }
    found
}

/// A task is asked to end.
#[cold]
pub(crate) fn cancelled(task: Inst<'_, Task>) {
    let by = stepping().map_or(0, |by| address(by.borrow()));
    with(|it| it.write(What::Cancel, address(task.obj()), by, 0));
}

/// The task that takes a step in this thread.
fn stepping() -> Option<Obj> {
    event_loop::running().and_then(|home| home.stepping().map(Ref::own))
}

/// The loop may sleep, or has.
pub(crate) fn polls(over: bool) {
    let what = if over { What::Polled } else { What::Poll };
    with(|it| it.write(what, 0, 0, 0));
}

/// A call for a thread, by its address, and what it calls.
#[cold]
pub(crate) fn call_made(call: &Own<Call>, future: Ref<'_>) {
    let Some(function) = call.func.get() else {
        return;
    };
    let code = function_of(function);
    with(|it| {
        let note = it.note(code.borrow());
        it.write(What::Call, address(call.obj()), address(future), note);
    });
}

/// The code behind a function, a method or a `functools.partial`; anything else is its type.
fn function_of(callable: Obj) -> Obj {
    let mut here = callable;
    for _ in 0..DEPTH {
        let inner = match value::type_name(here.borrow()).as_str() {
            "function" => part(here.borrow(), names().dunder_code.borrow()),
            "method" => part(here.borrow(), names().dunder_func.borrow()),
            "functools.partial" | "partial" => part(here.borrow(), names().func.borrow()),
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

#[cold]
pub(crate) fn call_begins(call: Ref<'_>) {
    with(|it| it.write(What::CallBegin, address(call), 0, 0));
}

#[cold]
pub(crate) fn call_ends(call: Ref<'_>) {
    with(|it| it.write(What::CallEnd, address(call), 0, 0));
}

// ------------------------------------------------------------------------------------ switches

/// Begins a recording of so many events at most; false if one is going on.
pub(super) fn begin(limit: usize, details: bool) -> bool {
    if on() {
        return false;
    }
    STORE.set(RefCell::default());
    let before = STORE.get().map(|store| {
        store.replace(Recording {
            limit,
            details,
            ..Recording::default()
        })
    });
    drop(before);
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
    let Some(coro) = task.coro.get() else { return };
    is_known(task, &coro, 0);
    // The end of the step that is going on will not be told.
    if home
        .stepping()
        .is_none_or(|current| !current.is(task.obj()))
    {
        step_ends(task);
    }
}

/// Ends it: what was recorded; none if nothing is.
pub(super) fn finish() -> Option<Recording> {
    if !on() {
        return None;
    }
    switch(false);
    STORE.get().map(RefCell::take)
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

/// `_record(limit, details)`
fn start(args: Args<'_>) -> PyRes<Obj> {
    let [limit, details] = args.positional() else {
        return Err(Builtin::Type.raise("_record() takes a limit and whether details are wanted"));
    };
    let limit = usize::try_from(value::as_i64(*limit)?)
        .map_err(|_| Builtin::Value.raise("the limit must be >= 0"))?;
    if !begin(limit, details.truthy()?) {
        return Err(Builtin::Runtime.raise("a recording is going on already"));
    }
    Ok(Obj::none())
}

/// `_recorded()`: ends it; `(events, notes, lost)`. `events` is bytes of records of the machine's
/// byte order: time, subject, other (64 bits each), what, note (32).
fn stop(args: Args<'_>) -> PyRes<Obj> {
    if !args.is_empty() {
        return Err(Builtin::Type.raise("_recorded() takes no arguments"));
    }
    let Some(recording) = finish() else {
        return Err(Builtin::Runtime.raise("nothing is being recorded"));
    };
    let mut bytes = Vec::with_capacity(recording.events.len() * 32);
    for event in &recording.events {
        for word in [event.at, event.subject, event.other] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        for half in [event.what, event.note] {
            bytes.extend_from_slice(&half.to_ne_bytes());
        }
    }
    let notes = value::list_with(recording.notes.len())?;
    for (i, note) in recording.notes.into_iter().enumerate() {
        value::list_init(notes.borrow(), i, note);
    }
    let lost = value::int(i64::try_from(recording.lost).unwrap_or(i64::MAX))?;
    value::tuple([value::bytes(&bytes)?, notes, lost])
}

pub(crate) fn definitions() -> Vec<MethodDef> {
    vec![
        method::function(
            c"_record",
            c"Begin to record what tasks, callbacks and threads do.",
            start,
        ),
        method::function(c"_recorded", c"End the recording and return it.", stop),
    ]
}
