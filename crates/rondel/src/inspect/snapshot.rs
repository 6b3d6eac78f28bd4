//! All tasks of the running loops, as JSON.
//!
//! ```text
//! {"frames": [[file, line, function], …],       each place once
//!  "chains": [[frame, …], …],                   each await chain once, outermost first
//!  "loops":  [{id, thread, …}, …],
//!  "tasks":  [{id, name, loop, state, coro, chain, parent?, on?, cancels?, created?, request?}, …],
//!  "requests": [[task, method, path], …]}       of the tasks that answer one
//! ```
//!
//! The tasks of a crowd wait at few places, so places and chains are numbered, and a task has a number
//! instead of text. Between two [`CHUNK`]s the GIL is offered to others. The list of tasks may change
//! meanwhile: it is read from its end, where new ones are added and whose last one fills a gap, so that
//! a task that is there all the time is never missed, and one that is met twice is known by its number.
//!
//! With the GIL held. No Python code runs within a chunk, and code objects are all that is kept
//! between two.

use super::json::{Object, string};
use super::walk::{self, Link, Tail};
use crate::event_loop::LoopBase;
use crate::future::{AsFuture, Future, Kind as FutureKind};
use crate::primitives::gather::Gather;
use crate::task::{Task, Waiter};
use rondel_core::inspect::counters::Phase;
use rondel_core::inspect::requests::{self, Entry};
use rondel_ffi::frame::Frame;
use rondel_ffi::peek::{self, Kind};
use rondel_ffi::{Inst, Obj, Own, Ref, call, gil, value};
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::sync::atomic::Ordering;

/// Tasks that are looked at before the GIL is offered.
const CHUNK: usize = 1000;

/// Tasks of a snapshot at most; more are counted, not shown.
const MOST: usize = 2_000_000;

#[derive(Default)]
pub(super) struct Snapshot {
    tasks: String,
    loops: String,
    frames: String,
    chains: String,
    /// A code object and an instruction in it; the objects are kept, so that no other takes an address.
    places: HashMap<(usize, i32), u32>,
    natives: HashMap<&'static str, u32>,
    codes: Vec<Obj>,
    known_chains: HashMap<Vec<u32>, u32>,
    /// Coroutines' names by their code.
    names: HashMap<usize, String>,
    chain: Vec<u32>,
    seen: HashSet<u32>,
    count: usize,
    omitted: usize,
    /// Those whose own tasks were met.
    requests: Vec<Entry>,
}

impl Snapshot {
    /// Adds a loop and its tasks.
    pub(super) fn add(&mut self, home: &Own<LoopBase>) {
        self.describe_loop(home.inst());
        self.seen.clear();
        each_task(home, CHUNK, |task, parent| {
            self.task(home.inst(), task, parent);
            true
        });
    }

    fn describe_loop(&mut self, home: Inst<'_, LoopBase>) {
        if !self.loops.is_empty() {
            self.loops.push(',');
        }
        let counters = &home.counters;
        let mut object = Object::begin(&mut self.loops);
        object.number("id", counters.id);
        object.number("thread", counters.thread.load(Ordering::Relaxed));
        object.text("phase", phase(counters.phase()));
        object.number("tasks", home.tasks.borrow().len());
        object.end();
    }

    fn task(&mut self, home: Inst<'_, LoopBase>, task: Inst<'_, Task>, parent: u32) {
        let id = task.fut().id.get();
        if task.fut().done() || !self.seen.insert(id) {
            return;
        }
        if self.count >= MOST {
            self.omitted += 1;
            return;
        }
        self.count += 1;
        let coro = task.coro.get().unwrap_or_else(Obj::none);
        let steps = home
            .stepping_task()
            .is_some_and(|stepping| stepping.obj().is(task.obj()));
        self.chain.clear();
        let mut last = None;
        let tail = walk::chain(coro.borrow(), |link, _| match link {
            Link::Last => {}
            link => last = Some(self.link(link)),
        });
        let chain = self.number_chain();
        let called = last.flatten();
        let mut out = std::mem::take(&mut self.tasks);
        if !out.is_empty() {
            out.push(',');
        }
        let mut object = Object::begin(&mut out);
        object.number("id", id);
        object.text("name", &Task::shown_name(task));
        object.number("loop", home.counters.id);
        let state = task
            .waiter
            .peek(|waiter| state(steps, waiter, coro.borrow()));
        object.text("state", state);
        object.text("coro", self.coroutine_name(coro.borrow()));
        object.number("chain", chain);
        if parent != 0 {
            object.number("parent", parent);
        }
        if task.cancels.get() > 0 {
            object.number("cancels", task.cancels.get());
        }
        if let Some(request) = requests::find(crate::task::request_of(task)) {
            object.number("request", request.id);
            if request.task == id {
                self.requests.push(request);
            }
        }
        if !steps {
            let waited = task.waiter.peek(|waiter| match waiter {
                Waiter::Future(future) => Some(future.clone()),
                _ => None,
            });
            awaited(object.at("on"), home, tail, waited, called);
        }
        if let Some(place) = task.fut().rare_opt().and_then(|rare| rare.created_at.get()) {
            let code = value::item(place.borrow(), 0);
            let line = value::item(place.borrow(), 1);
            if let (Some(code), Some(line)) = (code, line) {
                let line = value::as_i64(line.borrow()).unwrap_or_default();
                write_place(object.at("created"), code.borrow(), line);
            }
        }
        object.end();
        self.tasks = out;
    }

    /// Numbers a link and puts it on the present chain. A call of the standard library is answered.
    fn link(&mut self, link: Link) -> Option<String> {
        match link {
            Link::Last => None,
            Link::Native(name) => {
                let next = self.places.len() + self.natives.len();
                let frames = &mut self.frames;
                let number = *self.natives.entry(name).or_insert_with(|| {
                    separate(frames);
                    frames.push_str("[\"<native>\",0,");
                    string(frames, name);
                    frames.push(']');
                    small(next)
                });
                self.chain.push(number);
                None
            }
            Link::Python(frame) => {
                let code = frame.code();
                let key = (code.as_ptr() as usize, frame.instruction());
                let next = small(self.places.len() + self.natives.len());
                let (frames, codes) = (&mut self.frames, &mut self.codes);
                let number = *self.places.entry(key).or_insert_with(|| {
                    separate(frames);
                    write_place(frames, code.borrow(), i64::from(frame.line()));
                    codes.push(code.clone());
                    next
                });
                self.chain.push(number);
                library_call(&frame, code.borrow())
            }
        }
    }

    fn number_chain(&mut self) -> u32 {
        if let Some(number) = self.known_chains.get(&self.chain) {
            return *number;
        }
        let number = small(self.known_chains.len());
        self.known_chains.insert(self.chain.clone(), number);
        separate(&mut self.chains);
        self.chains.push('[');
        for (i, frame) in self.chain.iter().enumerate() {
            if i > 0 {
                self.chains.push(',');
            }
            let _infallible = write!(self.chains, "{frame}");
        }
        self.chains.push(']');
        number
    }

    /// The coroutine's `__qualname__`, without asking objects that might run code.
    fn coroutine_name(&mut self, coro: Ref<'_>) -> &str {
        let key = coro.as_ptr() as usize;
        // By code where there is one: coroutines of one function share it, and it is kept.
        let code = Kind::of(coro)
            .and_then(|kind| kind.frame(coro))
            .map(|frame| frame.code());
        let key = match &code {
            Some(code) => code.as_ptr() as usize,
            None => key,
        };
        if code.is_some() && self.names.contains_key(&key) {
            return &self.names[&key];
        }
        let name = match &code {
            Some(code) => attribute(code.borrow(), c"co_qualname"),
            None => name_of(coro),
        };
        if let Some(code) = code {
            self.codes.push(code);
        }
        self.names.insert(key, name);
        &self.names[&key]
    }

    /// The whole, in one line.
    pub(super) fn finish(self, head: impl FnOnce(&mut Object<'_>)) -> String {
        let mut out = String::with_capacity(self.tasks.len() + self.frames.len() + 1024);
        let mut object = Object::begin(&mut out);
        head(&mut object);
        for (name, items) in [
            ("loops", &self.loops),
            ("frames", &self.frames),
            ("chains", &self.chains),
            ("tasks", &self.tasks),
        ] {
            let at = object.at(name);
            at.push('[');
            at.push_str(items);
            at.push(']');
        }
        let at = object.at("requests");
        at.push('[');
        for (i, request) in self.requests.iter().enumerate() {
            if i > 0 {
                at.push(',');
            }
            let (method, path) = super::requests::name_of(request);
            let _infallible = write!(at, "[{},", request.task);
            string(at, &method);
            at.push(',');
            string(at, &path);
            at.push(']');
        }
        at.push(']');
        object.number("omitted", self.omitted);
        object.end();
        out
    }
}

/// Looks at a loop's tasks, from the end of its list, as long as `look` wants more; so many at a time, then
/// the GIL is offered. No Python code runs meanwhile.
pub(super) fn each_task(
    home: &Own<LoopBase>,
    chunk: usize,
    mut look: impl FnMut(Inst<'_, Task>, u32) -> bool,
) {
    let mut at = home.tasks.borrow().len();
    while at > 0 {
        peek::uncollected(|| {
            for _ in 0..chunk {
                at = at.min(home.tasks.borrow().len());
                let Some(next) = at.checked_sub(1) else {
                    return;
                };
                at = next;
                let listed = home.tasks.borrow();
                let next = listed
                    .get(at)
                    .and_then(|one| Some((one.task.own()?, one.parent())));
                drop(listed);
                if next.is_some_and(|(task, parent)| !look(task.inst(), parent)) {
                    at = 0;
                    return;
                }
            }
        });
        if at > 0 {
            gil::detached(std::thread::yield_now);
        }
    }
}

/// What a coroutine object is called.
pub(super) fn name_of(coro: Ref<'_>) -> String {
    if let Some(frame) = Kind::of(coro).and_then(|kind| kind.frame(coro)) {
        return attribute(frame.code().borrow(), c"co_qualname");
    }
    match crate::primitives::coroutine::view(coro) {
        Some(view) => view.name.to_owned(),
        None => value::type_name(coro),
    }
}

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn separate(out: &mut String) {
    if !out.is_empty() {
        out.push(',');
    }
}

pub(super) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Off => "off",
        Phase::Awake => "awake",
        Phase::Idle => "idle",
        Phase::Lent => "lent",
    }
}

/// `[file, line, function]`
fn write_place(out: &mut String, code: Ref<'_>, line: i64) {
    out.push('[');
    string(out, &attribute(code, c"co_filename"));
    let _infallible = write!(out, ",{line},");
    string(out, &attribute(code, c"co_qualname"));
    out.push(']');
}

/// A str that a code object has.
pub(super) fn attribute(code: Ref<'_>, name: &'static std::ffi::CStr) -> String {
    let found = value::intern(name).and_then(|name| call::getattr(code, name.borrow()));
    match found {
        Ok(found) => peek::text(found.borrow()).unwrap_or_default(),
        Err(raised) => {
            raised.clear();
            String::new()
        }
    }
}

/// What is called, if the frame is one of asyncio's or Rondel's own.
fn library_call(frame: &Frame, code: Ref<'_>) -> Option<String> {
    frame
        .is_in(&["asyncio", "rondel", "asgiref"])
        .then(|| attribute(code, c"co_qualname"))
}

pub(super) fn state(steps: bool, waiter: &Waiter, coro: Ref<'_>) -> &'static str {
    match waiter {
        _ if steps => "running",
        Waiter::Future(_) | Waiter::Other(_) => "waiting",
        Waiter::Sleep(_) => "sleeping",
        Waiter::Rested | Waiter::CancelledSleep(_) => "ready",
        Waiter::Nothing => match Kind::of(coro) {
            Some(kind) if !kind.is_suspended(coro) => "created",
            _ => "ready",
        },
    }
}

/// What the chain ends in, as an object with a `kind`.
fn awaited(
    out: &mut String,
    home: Inst<'_, LoopBase>,
    tail: Tail,
    waited: Option<Own<Future>>,
    called: Option<String>,
) {
    let mut object = Object::begin(out);
    let is = |kind| {
        waited
            .as_ref()
            .is_some_and(|future| future.kind.get() == kind)
    };
    if is(FutureKind::Task) || is(FutureKind::Gather) {
        if let Some(waited) = &waited {
            future(&mut object, waited, called);
        }
        return object.end();
    }
    if let (Tail::Native("to_thread", _), Some(waited)) = (&tail, &waited) {
        future(&mut object, waited, Some("to_thread".to_owned()));
        return object.end();
    }
    match tail {
        Tail::Nothing => match (&waited, called) {
            (Some(waited), called) => future(&mut object, waited, called),
            (None, _) => object.text("kind", "nothing"),
        },
        Tail::Sleep(deadline) => {
            object.text("kind", "sleep");
            let left = deadline.saturating_sub(home.now());
            object.number("left", format_args!("{:.3}", left as f64 * 1e-9));
        }
        Tail::Future(own) => future(&mut object, waited.as_ref().unwrap_or(&own), called),
        Tail::Native(name, subject) => {
            object.text("kind", "call");
            let about = subject.as_ref().map(|subject| subject.borrow());
            match (name.strip_prefix("_ContextManagerMixin."), about) {
                (Some(method), Some(about)) => {
                    let class = value::type_name(about);
                    object.text("call", &format!("{class}.{method}"));
                }
                _ => object.text("call", name),
            }
            if let Some(about) = about {
                object.text("what", &walk::describe(about));
            }
        }
        // asyncio's own iterator of a future.
        Tail::Other(class) if class == "FutureIter" => object.text("kind", "future"),
        Tail::Other(class) => {
            object.text("kind", "other");
            object.text("what", &class);
        }
        Tail::Deep => object.text("kind", "deep"),
    }
    object.end();
}

/// Children of a gather that are named.
const FEW: usize = 8;

fn future(object: &mut Object<'_>, future: &Own<Future>, called: Option<String>) {
    if let Some(task) = future.obj().cast::<Task>() {
        object.text("kind", "task");
        object.number("task", task.fut().id.get());
        object.text("what", &Task::shown_name(task));
    } else if let Some(gather) = future.obj().cast::<Gather>() {
        let (done, total) = gather.progress();
        object.text("kind", "gather");
        object.number("done", done);
        object.number("total", total);
        let out = object.at("tasks");
        out.push('[');
        let mut shown = 0;
        gather.for_each_child(|child| {
            if let Some(task) = child.obj().cast::<Task>().filter(|task| !task.fut().done())
                && shown < FEW
            {
                if shown > 0 {
                    out.push(',');
                }
                shown += 1;
                let _infallible = write!(out, "{}", task.fut().id.get());
            }
        });
        out.push(']');
    } else if let Some(about) = future.subject() {
        object.text("kind", "thread");
        object.text("call", called.as_deref().unwrap_or("run_in_executor"));
        object.text("what", &walk::describe_call(about.borrow()));
    } else if let Some(called) = called {
        object.text("kind", "call");
        object.text("call", &called);
    } else {
        object.text("kind", "future");
    }
}
