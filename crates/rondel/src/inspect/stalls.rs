//! Reports of steps that take too long, made while they do.
//!
//! ```text
//! watchdog: the loop stands still ── helper takes the GIL ──► stack, task ──► kept, program told
//!                                └── it cannot be had ──────► kept as "native"; the stack follows
//!           it goes on ──────────────────────────────────────► how long it was
//! ```
//!
//! The last [`KEPT`] are kept for `rondel stalls`, as JSON; one at the same place within a minute is
//! counted, not kept again. The program's function (`_inspect_reporter`) is called in a Python thread of
//! its own: native frames beneath Python code do not survive the interpreter's end. A stack with a
//! debugger in it is no stall.
//!
//! [`RING`] is locked for moments, with or without the GIL, and no Python code runs meanwhile.

use super::VERSION;
use super::json::{Object, string};
use super::requests::Named;
use crate::future::AsFuture;
use crate::task::Task;
use rondel_core::inspect::requests::Key;
use rondel_core::inspect::{Over, Stall};
use rondel_ffi::err::Raised;
use rondel_ffi::frame::Frame;
use rondel_ffi::gil::GilStatic;
use rondel_ffi::peek;
use rondel_ffi::{Obj, PyRes, Ref, call, value};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

const KEPT: usize = 64;
/// Frames of a stack.
const DEPTH: usize = 64;
/// Seconds.
const MINUTE: f64 = 60.0;

/// A task's number, name, coroutine, and where it was created.
type Who = (u32, String, String, Option<String>);

/// File, line, function.
pub(super) type Place = (String, i64, String);

#[derive(Clone, Default)]
struct Record {
    loop_id: u32,
    steps: u64,
    thread: u64,
    /// Seconds since 1970, when it was reported.
    at: f64,
    /// Nanoseconds so far, or in all if it is over.
    length: u64,
    over: bool,
    /// The GIL could not be had: native code holds it.
    native: bool,
    /// Innermost first.
    stack: Vec<Place>,
    task: Option<Who>,
    /// In whose course it takes the step.
    request: Option<Named>,
    /// How often within the minute.
    count: u32,
}

static RING: Mutex<VecDeque<Record>> = Mutex::new(VecDeque::new());

/// The program's function.
static REPORTER: GilStatic<RefCell<Option<Obj>>> = GilStatic::new();

pub(super) fn set_reporter(function: Option<Ref<'_>>) {
    if REPORTER.get().is_none() {
        REPORTER.set(RefCell::default());
    }
    if let Some(reporter) = REPORTER.get() {
        let before = reporter.replace(function.map(Ref::own));
        drop(before);
    }
}

pub(super) fn forget() {
    if let Ok(mut ring) = RING.try_lock() {
        ring.clear();
    }
}

impl Record {
    fn new(stall: &Stall) -> Record {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Record {
            loop_id: stall.counters.id,
            steps: stall.steps,
            thread: stall.counters.thread.load(Ordering::Relaxed),
            at: now.map_or(0.0, |since| since.as_secs_f64()),
            length: stall.length(),
            count: 1,
            ..Record::default()
        }
    }

    fn is_of(&self, loop_id: u32, steps: u64) -> bool {
        (self.loop_id, self.steps) == (loop_id, steps)
    }

    fn same_place(&self, other: &Record) -> bool {
        match (self.stack.first(), other.stack.first()) {
            (Some(a), Some(b)) => (&a.0, a.1) == (&b.0, b.1),
            _ => false,
        }
    }

    fn write(&self, out: &mut String) {
        let mut object = Object::begin(out);
        object.number("loop", self.loop_id);
        object.number("thread", self.thread);
        object.number("at", format_args!("{:.3}", self.at));
        object.number("seconds", format_args!("{:.3}", self.length as f64 * 1e-9));
        object.number("over", self.over);
        object.number("native", self.native);
        object.number("count", self.count);
        if let Some((id, name, coro, created)) = &self.task {
            object.number("task", id);
            object.text("name", name);
            object.text("coro", coro);
            if let Some(created) = created {
                object.text("created", created);
            }
        }
        if let Some(request) = &self.request {
            request.write(&mut object);
        }
        write_stack(&mut object, &self.stack);
        object.end();
    }
}

/// As the member `stack`.
pub(super) fn write_stack(object: &mut Object<'_>, stack: &[Place]) {
    let at = object.at("stack");
    at.push('[');
    for (i, (file, line, function)) in stack.iter().enumerate() {
        at.push_str(if i > 0 { ",[" } else { "[" });
        string(at, file);
        let _infallible = write!(at, ",{line},");
        string(at, function);
        at.push(']');
    }
    at.push(']');
}

/// All that are kept, the oldest first. Needs no GIL.
pub(super) fn all() -> String {
    let mut out = String::new();
    let mut object = Object::begin(&mut out);
    object.number("v", VERSION);
    let at = object.at("stalls");
    at.push('[');
    if let Ok(ring) = RING.lock() {
        for (i, record) in ring.iter().enumerate() {
            if i > 0 {
                at.push(',');
            }
            record.write(at);
        }
    }
    at.push(']');
    object.end();
    out
}

fn keep(ring: &mut VecDeque<Record>, record: Record) {
    if ring.len() >= KEPT {
        ring.pop_front();
    }
    ring.push_back(record);
}

/// The GIL cannot be had. Without it.
pub(super) fn report_native(stall: &Stall) {
    let record = Record {
        native: true,
        ..Record::new(stall)
    };
    if let Ok(mut ring) = RING.lock() {
        keep(&mut ring, record);
    }
}

/// It is over.
pub(super) fn over(over: &Over) {
    if let Ok(mut ring) = RING.lock()
        && let Some(record) = ring
            .iter_mut()
            .rev()
            .find(|one| one.is_of(over.id, over.steps))
    {
        record.length = record.length.max(over.length);
        record.over = true;
    }
}

/// With the GIL: who it is, and where. In the helper's thread.
pub(super) fn report(stall: &Stall) {
    let lasts = stall.lasts();
    let mut record = Record::new(stall);
    if lasts {
        let mut key = None;
        peek::uncollected(|| {
            record.stack = stack_of(record.thread).unwrap_or_else(|raised| {
                raised.clear();
                Vec::new()
            });
            (record.task, key) = task_of(stall).unzip();
        });
        record.request = key.and_then(Named::of);
        if record.stack.iter().any(|place| is_debugger(&place.0)) {
            return;
        }
    }
    let Ok(mut ring) = RING.lock() else { return };
    let known = ring
        .iter_mut()
        .rev()
        .find(|one| one.is_of(record.loop_id, record.steps));
    let told = match known {
        // Kept when the GIL could not be had.
        Some(known) => {
            known.length = known.length.max(record.length);
            known.stack.clone_from(&record.stack);
            known.task.clone_from(&record.task);
            known.request.clone_from(&record.request);
            known.over |= !lasts;
            known.clone()
        }
        None if !lasts => return,
        None => {
            let recent = |one: &&mut Record| record.at - one.at < MINUTE && one.same_place(&record);
            if let Some(same) = ring.iter_mut().rev().find(recent) {
                same.count += 1;
                // Its end is to be found under the present step.
                (same.steps, same.over) = (record.steps, false);
                return;
            }
            keep(&mut ring, record.clone());
            record
        }
    };
    drop(ring);
    if let Err(raised) = tell(&told) {
        raised.clear();
    }
}

fn is_debugger(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or_default();
    matches!(name, "bdb.py" | "pdb.py") || file.contains("/pydevd") || file.contains("/debugpy/")
}

/// The Python stack of a thread.
pub(super) fn stack_of(thread: u64) -> PyRes<Vec<Place>> {
    let sys = call::import(c"sys")?;
    let name = value::intern(c"_current_frames")?;
    let frames = call::method(name.borrow(), [sys.borrow()])?;
    let key = value::int(i64::try_from(thread).unwrap_or_default())?;
    let found = value::dict_get(frames.borrow(), key.borrow())?.map(Ref::own);
    let mut at = found.and_then(Frame::cast);
    let mut stack = Vec::new();
    while let Some(frame) = at.filter(|_| stack.len() < DEPTH) {
        let code = frame.code();
        stack.push((
            super::snapshot::attribute(code.borrow(), c"co_filename"),
            i64::from(frame.line()),
            super::snapshot::attribute(code.borrow(), c"co_qualname"),
        ));
        at = frame.back();
    }
    Ok(stack)
}

/// The task that takes the step, and the request that it is of.
fn task_of(stall: &Stall) -> Option<(Who, Key)> {
    let home = super::running()
        .into_iter()
        .find(|home| home.counters.id == stall.counters.id)?;
    let task = home.inst().data().stepping_task()?;
    let coro = task.coro.get()?;
    let created = task.fut().rare_opt().and_then(|rare| rare.created_at.get());
    let created = created.and_then(|place| {
        let code = value::item(place.borrow(), 0)?;
        let line = value::item(place.borrow(), 1)?;
        let line = value::as_i64(line.borrow()).map_err(Raised::clear).ok()?;
        let file = super::snapshot::attribute(code.borrow(), c"co_filename");
        Some(format!("{file}:{line}"))
    });
    let name = super::snapshot::name_of(coro.borrow());
    Some((
        (task.fut().id.get(), Task::shown_name(task), name, created),
        crate::task::request_of(task),
    ))
}

/// Calls the program's function in a thread of its own.
fn tell(record: &Record) -> PyRes<()> {
    let Some(reporter) = REPORTER
        .get()
        .and_then(|reporter| reporter.borrow().clone())
    else {
        return Ok(());
    };
    let mut text = String::new();
    record.write(&mut text);
    let threads = call::import(c"_thread")?;
    let arguments = value::tuple([value::str(&text)?])?;
    let start = value::intern(c"start_new_thread")?;
    let started = [threads.borrow(), reporter.borrow(), arguments.borrow()];
    call::method(start.borrow(), started).map(|_ident| ())
}
