//! The inspector's native half: who waits for what, in this process.
//!
//! * `service`: the thread that other processes ask, and its life; `stalls`: reports of steps that take
//!   too long.
//! * `record`: events of tasks, callbacks, thread calls and polls, in order, when asked for.
//! * `tracing`: a recording that another process asks for.
//! * `requests`: the server's, their tasks and their calls in threads.
//! * `snapshot`: every task of the running loops with its await chain, by `walk`; `json`: how it is
//!   written.
//!
//! A snapshot is taken with the GIL held, in any thread. Counters (`rondel_core::inspect::counters`)
//! are read without it.

mod json;
pub(crate) mod record;
pub(crate) mod requests;
mod service;
mod snapshot;
mod stalls;
mod tracing;
mod walk;

use crate::event_loop::LoopBase;
use json::Object;
use rondel_core::clock;
use rondel_core::inspect::counters::{self, Counters};
use rondel_core::pool;
use rondel_ffi::class::Weak;
use rondel_ffi::gil::{self, GilStatic};
use rondel_ffi::method::{self, Args, MethodDef};
use rondel_ffi::{Inst, Obj, Own, PyRes, value};
use snapshot::Snapshot;
use std::cell::RefCell;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The protocol's version, in every answer.
pub(crate) const VERSION: u32 = 1;

/// The loops that run, each kept alive by its run.
static RUNNING: GilStatic<RefCell<Vec<Weak<LoopBase>>>> = GilStatic::new();

/// A loop runs in this thread from now on, until the answer is dropped.
pub(crate) fn runs(home: Inst<'_, LoopBase>) -> PyRes<Run<'_>> {
    if RUNNING.get().is_none() {
        RUNNING.set(RefCell::default());
    }
    if let Some(running) = RUNNING.get() {
        running.borrow_mut().push(Weak::new(home));
    }
    counters::enter(&home.counters, clock::coarse(), gil::thread_ident());
    let run = Run(home);
    service::start_once()?;
    Ok(run)
}

/// A loop's run.
pub(crate) struct Run<'a>(Inst<'a, LoopBase>);

impl Drop for Run<'_> {
    fn drop(&mut self) {
        counters::leave(&self.0.counters);
        if let Some(running) = RUNNING.get() {
            let own = self.0.obj();
            running.borrow_mut().retain(|one| !one.get().obj().is(own));
        }
    }
}

/// In a forked child: nothing runs here.
pub(crate) fn forked() {
    counters::forget();
    rondel_core::inspect::requests::forget();
    rondel_core::pool::forget();
    tracing::forked();
    service::forked();
    if let Some(running) = RUNNING.get() {
        running.borrow_mut().clear();
    }
}

/// The running loops.
fn running() -> Vec<Own<LoopBase>> {
    let Some(running) = RUNNING.get() else {
        return Vec::new();
    };
    running.borrow().iter().filter_map(Weak::own).collect()
}

/// All tasks, as one line of JSON. Call with the GIL held.
pub(crate) fn tasks() -> String {
    let began = clock::now();
    let mut snapshot = Snapshot::default();
    for home in running() {
        snapshot.add(&home);
    }
    snapshot.finish(|object| {
        object.number("v", VERSION);
        let took = clock::now().saturating_sub(began);
        object.number("took", format_args!("{:.6}", took as f64 * 1e-9));
        object.number("last", crate::task::last_created());
        service::ages(object.at("ages"));
    })
}

/// The counters of all running loops, as one line of JSON. Needs no GIL.
pub(crate) fn stats() -> String {
    let mut out = String::new();
    let mut object = Object::begin(&mut out);
    object.number("v", VERSION);
    object.number("pid", std::process::id());
    object.number("created", crate::task::last_created());
    object.number("recorded", record::on());
    let at = object.at("loops");
    at.push('[');
    for (i, one) in counters::running().iter().enumerate() {
        if i > 0 {
            at.push(',');
        }
        describe(at, one);
    }
    at.push(']');
    describe_pool(object.at("pool"));
    describe_process(object.at("process"));
    object.end();
    out
}

/// What all pools of threads have done since the process began.
fn describe_pool(out: &mut String) {
    let totals = pool::totals();
    let mut object = Object::begin(out);
    object.number("threads", totals.threads);
    object.number("busy", totals.busy);
    object.number("queued", totals.queued);
    object.number("calls", totals.calls);
    for (name, ns) in [("waited", totals.waited), ("ran", totals.ran)] {
        object.number(name, format_args!("{:.6}", ns as f64 * 1e-9));
    }
    object.end();
}

fn describe_process(out: &mut String) {
    let mut object = Object::begin(out);
    let cpu = clock::process_cpu() as f64 * 1e-9;
    object.number("cpu", format_args!("{cpu:.3}"));
    if let Some(bytes) = resident() {
        object.number("rss", bytes);
    }
    object.end();
}

/// Bytes of memory that are there.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

fn describe(out: &mut String, one: &Arc<Counters>) {
    let now = clock::coarse();
    let mut object = Object::begin(out);
    object.number("id", one.id);
    object.number("thread", one.thread.load(Ordering::Relaxed));
    object.text("phase", snapshot::phase(one.phase()));
    let seconds = |ns: u64| ns as f64 * 1e-9;
    let since = one.since.load(Ordering::Relaxed);
    let began = one.began.load(Ordering::Relaxed);
    for (name, ns) in [("in_phase", since), ("age", began)] {
        object.number(name, format_args!("{:.3}", seconds(now.saturating_sub(ns))));
    }
    object.number("busy", format_args!("{:.4}", one.busy(now)));
    let idle = one.idle.load(Ordering::Relaxed);
    object.number("idle", format_args!("{:.3}", seconds(idle)));
    for (name, word) in [
        ("steps", &one.steps),
        ("turns", &one.turns),
        ("polls", &one.polls),
    ] {
        object.number(name, word.load(Ordering::Relaxed));
    }
    for (name, word) in [
        ("ready", &one.ready),
        ("timers", &one.timers),
        ("tasks", &one.tasks),
    ] {
        object.number(name, word.load(Ordering::Relaxed));
    }
    let at = object.at("lag");
    at.push('[');
    for (i, n) in one.lag().iter().enumerate() {
        let _infallible = write!(at, "{}{n}", if i > 0 { "," } else { "" });
    }
    at.push(']');
    object.end();
}

fn inspect_tasks(_args: Args<'_>) -> PyRes<Obj> {
    value::str(&tasks())
}

fn inspect_stats(_args: Args<'_>) -> PyRes<Obj> {
    value::str(&stats())
}

fn inspect_stalls(_args: Args<'_>) -> PyRes<Obj> {
    value::str(&stalls::all())
}

fn inspect_pause(_args: Args<'_>) -> PyRes<Obj> {
    service::pause();
    Ok(Obj::none())
}

fn inspect_resume(_args: Args<'_>) -> PyRes<Obj> {
    service::resume()?;
    Ok(Obj::none())
}

fn inspect_end(_args: Args<'_>) -> PyRes<Obj> {
    service::end();
    Ok(Obj::none())
}

fn inspect_reporter(args: Args<'_>) -> PyRes<Obj> {
    stalls::set_reporter(args.get(0).and_then(rondel_ffi::Ref::not_none));
    Ok(Obj::none())
}

pub(crate) fn definitions() -> Vec<MethodDef> {
    let mut definitions = record::definitions();
    definitions.extend(requests::definitions());
    definitions.extend([
        method::function(
            c"_inspect_tasks",
            c"All tasks of the running loops, as JSON.",
            inspect_tasks,
        ),
        method::function(
            c"_inspect_stats",
            c"The counters of the running loops, as JSON.",
            inspect_stats,
        ),
        method::function(
            c"_inspect_stalls",
            c"The last stalls of the loops, as JSON.",
            inspect_stalls,
        ),
        method::function(
            c"_inspect_reporter",
            c"Have a function called, in a thread of its own, with each stall that is reported.",
            inspect_reporter,
        ),
        method::function(
            c"_inspect_pause",
            c"Called before a fork: end the inspector's threads.",
            inspect_pause,
        ),
        method::function(
            c"_inspect_resume",
            c"Called in the parent after a fork.",
            inspect_resume,
        ),
        method::function(
            c"_inspect_end",
            c"Called when the interpreter ends: close the socket, end the threads.",
            inspect_end,
        ),
    ]);
    definitions
}
