//! One batch: exactly the entries that were ready when it began, each by its native way.
//!
//! ```text
//!  batch ─► execute ─┬─ a plain step of a task: inlined, most entries are one
//!    │               └─ other: whatever else, apart, so that a step has the registers
//!    └─► watched ─── the same with the recorder's, debug mode's or late wake-ups' part around it
//! ```
//!
//! An entry's exception goes to the loop's exception handler; what comes back from a batch ends the run.
//! With the GIL held, by the thread that runs the loop. What is inlined and what stands apart
//! was measured.

use super::attention::reason;
use super::{LoopBase, Ready};
use crate::consts::names;
use crate::inspect::record;
use crate::packed::Entry;
use crate::{future, handle, task};
use rondel_core::clock;
use rondel_ffi::{Inst, Obj, PyRes, Raised, call, err, value};

/// A batch of more entries than this has its room given back when it is over: some 30 bytes for each
/// of 100 000 tasks that were started at once and now wait.
const CROWD: usize = 8192;

#[inline(always)]
pub(super) fn batch(slf: Inst<'_, LoopBase>) -> PyRes<()> {
    let count = slf.ready.len();
    let counters = &*slf.counters;
    for _ in 0..count {
        counters.step();
        if slf.attention.has(reason::EACH) {
            watched(slf)?;
            continue;
        }
        let Some(entry) = slf.pop() else {
            return Ok(());
        };
        execute(slf, entry)?;
    }
    if count > CROWD {
        slf.ready.trim();
    }
    Ok(())
}

/// What a native entry could not do for an exception of user code (a repr, a property, a future's
/// method): to the exception handler, as from a Handle of asyncio's. Only what ends the loop is left.
#[cold]
fn failed(slf: Inst<'_, LoopBase>, raised: Raised) -> PyRes<()> {
    let exc = raised.fetch();
    slf.callback_over();
    if handle::ends_loop(exc.borrow()) {
        return Err(err::raise_instance(exc.borrow()));
    }
    let context = value::dict()?;
    let message = value::str("Exception in the event loop's handling of a task or a future")?;
    value::dict_set(context.borrow(), names().message.borrow(), message.borrow())?;
    value::dict_set(context.borrow(), names().exception.borrow(), exc.borrow())?;
    future::call_handler_in_except(slf.obj(), context.borrow(), exc.borrow())
}

#[inline(always)]
fn execute(slf: Inst<'_, LoopBase>, entry: Entry) -> PyRes<()> {
    match entry.into_step() {
        Ok(task) => task::step(slf, task, None).or_else(|raised| failed(slf, raised)),
        Err(entry) => other(slf, entry.moved()),
    }
}

/// Whatever is no plain step: apart, so that a step has the registers.
#[inline(never)]
fn other(slf: Inst<'_, LoopBase>, entry: Entry) -> PyRes<()> {
    let outcome = match entry.unpack() {
        Ready::Step(task) => task::step(slf, task, None),
        // It has told the handler itself.
        Ready::Run(handle) => return handle::run(slf, handle),
        Ready::Awake(task) => task::awake(slf, task),
        Ready::Throw(task, exc) => task::step(slf, task, Some(exc)),
        Ready::Expire(timeout) => crate::primitives::timeout::expire(timeout),
        Ready::GatherChild(gather, child) => crate::primitives::gather::child_done(gather, child),
        Ready::GroupChild(group, child) => crate::primitives::task_group::child_done(group, child),
        Ready::RequestDone(cycle, task) => crate::server::finished(cycle, task.obj()),
        Ready::Hop(hop, future) => crate::primitives::hops::run(hop, future),
        Ready::Alarm(alarm) => crate::primitives::hops::ring(alarm),
        Ready::Io(transport, event) => crate::net::tcp::on_event(slf, transport, event),
        Ready::Datagrams(transport, event) => crate::net::udp::on_event(slf, transport, event),
    };
    outcome.or_else(|raised| failed(slf, raised))
}

/// The next entry, with what is to be seen to before it and around it.
#[inline(never)]
fn watched(slf: Inst<'_, LoopBase>) -> PyRes<()> {
    slf.wake_late();
    let Some(entry) = slf.pop() else {
        return Ok(());
    };
    match (slf.attention.has(reason::RECORD), slf.is_debug()) {
        (true, false) => recorded(slf, entry),
        (false, false) => execute(slf, entry),
        (true, true) => timed(slf, entry, recorded),
        (false, true) => timed(slf, entry, execute),
    }
}

type Execute = fn(Inst<'_, LoopBase>, Entry) -> PyRes<()>;

/// Executes the entry and tells the recorder of it.
#[inline(always)]
fn recorded(slf: Inst<'_, LoopBase>, entry: Entry) -> PyRes<()> {
    match entry.into_step() {
        Ok(task) => task::step_recorded(slf, task, None).or_else(|raised| failed(slf, raised)),
        Err(entry) => other_recorded(slf, entry.moved()),
    }
}

#[inline(never)]
fn other_recorded(slf: Inst<'_, LoopBase>, entry: Entry) -> PyRes<()> {
    let entry = match entry.into_throw() {
        Ok((task, exc)) => {
            let stepped = task::step_recorded(slf, task, Some(exc));
            return stepped.or_else(|raised| failed(slf, raised));
        }
        Err(entry) => entry,
    };
    let known = record::callback_begins(slf, &entry);
    let outcome = other(slf, entry);
    record::callback_ends(slf, known);
    outcome
}

/// Debug mode: reports a callback that took too long, as asyncio words it.
#[cold]
fn timed(slf: Inst<'_, LoopBase>, entry: Entry, execute: Execute) -> PyRes<()> {
    let (subject, handle) = entry.peek(|entry| match entry {
        Ready::Step(task) | Ready::Awake(task) => (Some(task.obj().own()), None),
        Ready::Throw(task, _) => (Some(task.obj().own()), None),
        Ready::Run(handle) => (Some(handle.obj().own()), Some(handle.clone())),
        _ => (None, None),
    });
    // A handle keeps its callback until it has been told of.
    let kept = handle.map(|handle| (handle::keep(handle.inst()), handle));
    let start = clock::now();
    let executed = execute(slf, entry);
    let reported = executed.and_then(|()| report(slf, subject.as_ref(), start));
    if let Some((lasting, handle)) = kept {
        handle::let_go(handle.inst(), lasting);
    }
    reported
}

#[cold]
fn report(slf: Inst<'_, LoopBase>, subject: Option<&Obj>, start: u64) -> PyRes<()> {
    let took = clock::now().saturating_sub(start) as f64 * 1e-9;
    let limit = slf.slow_callback.get();
    let Some(subject) = subject.filter(|_| limit > 0.0 && took >= limit) else {
        return Ok(());
    };
    let report = call::getattr(slf.obj(), value::intern(c"_report_slow")?.borrow())?;
    let took = value::float(took)?;
    let _none = call::call(report.borrow(), &[subject.borrow(), took.borrow()])?;
    Ok(())
}
