//! Requests, their tasks and their calls in threads: how these know each other, and what is told of them.
//!
//! ```text
//!  request ─► its task ─ create_task ─► tasks        each knows the request's key (`task::Listed`)
//!                 └ to_thread, sync_to_async ─► a thread        [`Trip`]: waited, ran
//!                                                 └ async_to_sync ─► a task     [`here`] on that thread
//! ```
//!
//! The requests themselves are noted in `rondel_core::inspect::requests`. Which view one has come to is
//! looked up when somebody asks, by what frameworks note in the scope.
//!
//! With the GIL held, but for [`now`]. No Python code is run.

use super::VERSION;
use super::json::Object;
use super::{snapshot, stalls};
use crate::event_loop::{self, LoopBase};
use crate::future::AsFuture;
use crate::task::Task;
use rondel_core::clock;
use rondel_core::inspect::requests::{self, Entry, Key, Stage};
use rondel_ffi::gil::{self, GilStatic};
use rondel_ffi::method::{self, Args, MethodDef};
use rondel_ffi::{Inst, Obj, Own, PyRes, Raised, Ref, peek, value};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

// ------------------------------------------------------------------------------- who belongs to whom

thread_local! {
    /// The request that this thread, one of a pool's, is at.
    static CURRENT: Cell<Key> = const { Cell::new(Key::NONE) };
}

/// The request in whose course this thread runs.
pub(crate) fn here() -> Key {
    match event_loop::running() {
        Some(home) => of_step(home.inst()),
        None => CURRENT.get(),
    }
}

/// The request of the task that takes a step.
#[inline]
fn of_step(home: Inst<'_, LoopBase>) -> Key {
    home.stepping_task()
        .map_or(Key::NONE, |task| crate::task::request_of(task))
}

/// A request's place in the list, which it leaves when this is dropped.
#[derive(Default)]
pub(crate) struct Ticket(Cell<Key>);

impl Ticket {
    pub(crate) fn new(key: Key) -> Ticket {
        Ticket(Cell::new(key))
    }

    pub(crate) fn key(&self) -> Key {
        self.0.get()
    }

    /// The request is over, now. `scope`: where its view is found, if it was slow.
    pub(crate) fn end(&self, status: u16, now: u64, scope: Option<Ref<'_>>) {
        let key = self.0.take();
        if requests::leave(key, status, now)
            && let Some(view) = scope.and_then(view_of)
        {
            requests::name_slow(key, view);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.0.get().is_none() {
            requests::leave(self.0.get(), 0, clock::now());
        }
    }
}

/// A call's way to a thread and back.
#[derive(Default)]
pub(crate) struct Trip {
    /// In whose course it was made.
    request: Cell<Key>,
    /// When it was submitted, then when it began.
    at: Cell<u64>,
    /// Whose the thread was before.
    outer: Cell<Key>,
}

impl Trip {
    /// The loop's task that takes a step hands a call over.
    #[inline]
    pub(crate) fn sets_off(&self, home: Inst<'_, LoopBase>) {
        let key = of_step(home);
        if !key.is_none() {
            self.request.set(key);
            self.at.set(clock::now());
            requests::hop_queued(key);
        }
    }

    /// Its thread begins with it.
    #[inline]
    pub(crate) fn begins(&self) {
        let key = self.request.get();
        if !key.is_none() {
            let now = clock::now();
            let waited = now.saturating_sub(self.at.replace(now));
            requests::hop_begins(key, gil::thread_ident(), waited, now);
            self.outer.set(CURRENT.replace(key));
        }
    }

    /// It is over.
    #[inline]
    pub(crate) fn ends(&self) {
        let key = self.request.take();
        if !key.is_none() {
            requests::hop_ends(key, clock::now().saturating_sub(self.at.get()));
            CURRENT.set(self.outer.take());
        }
    }

    /// It will not be made.
    #[cold]
    pub(crate) fn dropped(&self) {
        requests::hop_dropped(self.request.take());
    }
}

/// Scopes of the requests that threads answer as a whole, by their slots.
static SCOPES: GilStatic<RefCell<Vec<Option<Scope>>>> = GilStatic::new();

/// A request's scope, with the request that has the slot.
type Scope = (Key, Obj);

/// A whole request on a thread: with the GIL, on that thread.
pub(crate) struct OnThread {
    key: Key,
}

impl OnThread {
    /// `since`: when it could have begun.
    pub(crate) fn begin(key: Key, since: u64) -> OnThread {
        if !key.is_none() {
            let now = clock::now();
            requests::request_begins(key, gil::thread_ident(), now.saturating_sub(since), now);
        }
        CURRENT.set(key);
        OnThread { key }
    }

    /// Its scope is made.
    pub(crate) fn scope(&self, scope: &Obj) {
        if self.key.is_none() {
            return;
        }
        if SCOPES.get().is_none() {
            SCOPES.set(RefCell::default());
        }
        if let Some(scopes) = SCOPES.get() {
            let slot = self.key.slot() as usize;
            let mut scopes = scopes.borrow_mut();
            if scopes.len() <= slot {
                scopes.resize_with(slot + 1, || None);
            }
            let before = scopes[slot].replace((self.key, scope.clone()));
            drop(scopes);
            drop(before);
        }
    }

    /// It is answered.
    pub(crate) fn ends(self, ticket: &Ticket, status: u16, now: u64) {
        let scope = self.take_scope();
        ticket.end(status, now, scope.as_ref().map(Obj::borrow));
    }

    /// The loop is to answer it.
    pub(crate) fn goes_back(self) {
        requests::back_to_loop(self.key);
    }

    fn take_scope(&self) -> Option<Obj> {
        let scope = scope_of(self.key)?;
        let place = SCOPES.get()?.borrow_mut()[self.key.slot() as usize].take();
        drop(place);
        Some(scope)
    }
}

impl Drop for OnThread {
    fn drop(&mut self) {
        // On the loop's own thread there may be several, whose pieces take turns; nobody asks there.
        if CURRENT.get() == self.key {
            CURRENT.set(Key::NONE);
        }
        drop(self.take_scope());
    }
}

/// The scope of a request that a thread is at.
fn scope_of(key: Key) -> Option<Obj> {
    if key.is_none() {
        return None;
    }
    let scopes = SCOPES.get()?.borrow();
    let (of, scope) = scopes.get(key.slot() as usize)?.as_ref()?;
    (*of == key).then(|| scope.clone())
}

// -------------------------------------------------------------------------------------- its view

/// What the view is called that the request of this scope has come to.
pub(crate) fn view_of(scope: Ref<'_>) -> Option<String> {
    let item = |key| entry(scope, key);
    if let Some(found) = item(c"rondel.match") {
        // Django's match, or what was resolved ahead of the middleware: (match, path, language).
        let first = value::is_tuple(found.borrow())
            .then(|| value::item(found.borrow(), 0))
            .flatten();
        let found = first.unwrap_or(found);
        let path = peek::own_attribute(found.borrow(), c"_func_path");
        if let Some(name) = path.and_then(|path| peek::text(path.borrow())) {
            return Some(name);
        }
    }
    if let Some(view) = item(c"rondel.view").or_else(|| item(c"endpoint")) {
        let name = peek::callable_name(view.borrow());
        return Some(name.unwrap_or_else(|| value::type_name(view.borrow())));
    }
    // Werkzeug's request, of Flask: in WSGI's environ.
    let environ = item(c"rondel.environ").unwrap_or_else(|| scope.own());
    let request = entry(environ.borrow(), c"werkzeug.request")?;
    let rule = peek::own_attribute(request.borrow(), c"url_rule")?;
    peek::text(peek::own_attribute(rule.borrow(), c"endpoint")?.borrow())
}

fn entry(dict: Ref<'_>, key: &'static std::ffi::CStr) -> Option<Obj> {
    if !value::is_dict(dict) {
        return None;
    }
    let key = value::intern(key).map_err(Raised::clear).ok()?;
    let found = value::dict_get(dict, key.borrow()).map_err(Raised::clear);
    found.ok().flatten().map(Ref::own)
}

/// What is known of requests by their tasks: states and views.
#[derive(Default)]
struct Known {
    by_slot: HashMap<u32, (Key, Option<&'static str>, Option<String>)>,
}

/// Tasks that are looked at before the GIL is offered.
const CHUNK: usize = 10_000;

impl Known {
    /// Looks at the loops' tasks for those of requests, and at what threads are at.
    fn look(entries: &[Entry]) -> Known {
        let wanted: HashMap<u32, Key> = entries
            .iter()
            .filter(|entry| entry.task != 0)
            .map(|entry| (entry.task, entry.key))
            .collect();
        let mut known = Known::default();
        if !wanted.is_empty() {
            for home in super::running() {
                known.look_at(&home, &wanted);
            }
        }
        for entry in entries {
            if let Some(scope) = scope_of(entry.key) {
                let view = view_of(scope.borrow());
                known
                    .by_slot
                    .insert(entry.key.slot(), (entry.key, None, view));
            }
        }
        known
    }

    fn look_at(&mut self, home: &Own<LoopBase>, wanted: &HashMap<u32, Key>) {
        snapshot::each_task(home, CHUNK, |task, _parent| {
            if let Some(key) = wanted.get(&task.fut().id.get()) {
                let (state, view) = look_at_task(home.inst(), task);
                self.by_slot.insert(key.slot(), (*key, Some(state), view));
            }
            self.by_slot.len() < wanted.len()
        });
    }

    fn of(&self, key: Key) -> (Option<&'static str>, Option<&str>) {
        match self.by_slot.get(&key.slot()) {
            Some((of, state, view)) if *of == key => (*state, view.as_deref()),
            _ => (None, None),
        }
    }
}

fn look_at_task(home: Inst<'_, LoopBase>, task: Inst<'_, Task>) -> (&'static str, Option<String>) {
    let steps = home
        .stepping_task()
        .is_some_and(|stepping| stepping.obj().is(task.obj()));
    let coro = task.coro.get().unwrap_or_else(Obj::none);
    let state = task
        .waiter
        .peek(|waiter| snapshot::state(steps, waiter, coro.borrow()));
    let state = match state {
        "waiting" | "sleeping" => "waiting",
        _ => "loop",
    };
    (state, view_of_task(task))
}

fn view_of_task(task: Inst<'_, Task>) -> Option<String> {
    let scope = task.fut().request()?.inst().scope.get()?;
    view_of(scope.borrow())
}

// ------------------------------------------------------------------------------------ what is told

/// Which request a report is about.
#[derive(Clone)]
pub(super) struct Named {
    id: u64,
    method: String,
    path: String,
    view: Option<String>,
}

impl Named {
    /// The request of this key, if it is there still. Its task may be another one than that at hand.
    pub(super) fn of(key: Key) -> Option<Named> {
        let entry = requests::find(key)?;
        let known = Known::look(&[entry]);
        let (method, path) = name_of(&entry);
        Some(Named {
            id: entry.id,
            method,
            path,
            view: known.of(key).1.map(str::to_owned),
        })
    }

    pub(super) fn write(&self, object: &mut Object<'_>) {
        let mut inner = Object::begin(object.at("request"));
        inner.number("id", self.id);
        inner.text("method", &self.method);
        inner.text("path", &self.path);
        if let Some(view) = &self.view {
            inner.text("view", view);
        }
        inner.end();
    }
}

pub(super) fn name_of(entry: &Entry) -> (String, String) {
    let (method, mut path) = entry.name();
    if entry.cut {
        path.push('…');
    }
    (method, path)
}

pub(super) fn knows(ask: &str) -> bool {
    matches!(ask, "requests" | "requests stacks")
}

/// With views, and with stacks of threads if these are asked for.
pub(super) fn answer(ask: &str) -> String {
    let (here, ended) = requests::all();
    let known = Known::look(&here);
    told(&here, &ended, |entry, object| {
        let (state, view) = known.of(entry.key);
        if let Some(view) = view {
            object.text("view", view);
        }
        if ask == "requests stacks" && entry.stage() == Stage::Thread {
            let stack = peek::uncollected(|| stalls::stack_of(entry.thread));
            let stack = stack.map_err(Raised::clear).unwrap_or_default();
            stalls::write_stack(object, &stack);
        }
        state
    })
}

/// What is known without the GIL.
pub(super) fn now() -> String {
    let (here, ended) = requests::all();
    told(&here, &ended, |_, _| None)
}

fn told(
    here: &[Entry],
    ended: &[Entry],
    mut more: impl FnMut(&Entry, &mut Object<'_>) -> Option<&'static str>,
) -> String {
    let now = clock::now();
    let mut out = String::new();
    let mut object = Object::begin(&mut out);
    object.number("v", VERSION);
    array(object.at("requests"), here, |entry, object| {
        describe(entry, now, object);
        seconds(object, "age", entry.age(now));
        let state = more(entry, object);
        object.text(
            "state",
            match entry.stage() {
                Stage::Queued | Stage::QueuedForThread => "queued",
                Stage::Thread => "thread",
                Stage::Task | Stage::Ended => state.unwrap_or("loop"),
            },
        );
        if entry.stage() == Stage::Thread {
            object.number("thread", entry.thread);
        }
    });
    array(object.at("recent"), ended, |entry, object| {
        describe_ended(entry, now, object);
    });
    array(
        object.at("slow"),
        &requests::slow(),
        |(entry, view), object| {
            describe_ended(entry, now, object);
            if let Some(view) = view {
                object.text("view", view);
            }
        },
    );
    object.end();
    out
}

fn array<T>(out: &mut String, items: &[T], mut write: impl FnMut(&T, &mut Object<'_>)) {
    out.push('[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        let mut object = Object::begin(out);
        write(item, &mut object);
        object.end();
    }
    out.push(']');
}

fn describe(entry: &Entry, now: u64, object: &mut Object<'_>) {
    let (method, path) = name_of(entry);
    object.number("id", entry.id);
    object.text("method", &method);
    object.text("path", &path);
    if entry.socket {
        object.number("websocket", true);
    }
    if entry.task != 0 {
        object.number("task", entry.task);
    }
    if entry.status != 0 {
        object.number("status", entry.status);
    }
    object.number("hops", entry.hops);
    seconds(object, "hop_wait", entry.waited);
    seconds(object, "thread_run", entry.ran(now));
}

fn describe_ended(entry: &Entry, now: u64, object: &mut Object<'_>) {
    describe(entry, now, object);
    seconds(object, "seconds", entry.age(now));
    seconds(object, "ago", now.saturating_sub(entry.ended));
}

fn seconds(object: &mut Object<'_>, name: &str, nanoseconds: u64) {
    object.number(name, format_args!("{:.6}", nanoseconds as f64 * 1e-9));
}

// ------------------------------------------------------------------------------------- for Python

fn inspect_requests(args: Args<'_>) -> PyRes<Obj> {
    let stacks = args.get(0).map_or(Ok(false), Ref::truthy)?;
    value::str(&answer(if stacks {
        "requests stacks"
    } else {
        "requests"
    }))
}

/// `_request()`: the number of the request in whose course this runs; 0 for none.
fn request_here(_args: Args<'_>) -> PyRes<Obj> {
    let id = requests::find(here()).map_or(0, |entry| entry.id);
    value::int(i64::try_from(id).unwrap_or_default())
}

/// `_request_key()`: for `_belongs`.
fn request_key(_args: Args<'_>) -> PyRes<Obj> {
    value::int(here().to_bits() as i64)
}

/// `_belongs(task, key)`: the task is one of the request's whose `_request_key()` that was.
fn belongs(args: Args<'_>) -> PyRes<Obj> {
    if let [task, key] = args.positional()
        && let Some(task) = task.exact::<Task>()
    {
        crate::task::belongs_to(task, Key::from_bits(value::as_i64(*key)? as u64));
    }
    Ok(Obj::none())
}

pub(super) fn definitions() -> [MethodDef; 4] {
    [
        method::function(
            c"_inspect_requests",
            c"The requests that are answered, and the last ones that were, as JSON.",
            inspect_requests,
        ),
        method::function(
            c"_request",
            c"The number of the request in whose course this is called; 0 for none.",
            request_here,
        ),
        method::function(
            c"_request_key",
            c"What _belongs() knows that request by.",
            request_key,
        ),
        method::function(
            c"_belongs",
            c"_belongs(task, key): the task is one of that request's.",
            belongs,
        ),
    ]
}
