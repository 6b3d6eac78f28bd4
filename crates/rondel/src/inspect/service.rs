//! The life of the process's inspector thread (`rondel_core::inspect`): started with the first loop that
//! runs, put aside around a fork, ended with the interpreter.
//!
//! `RONDEL_INSPECT=0` turns all of it off, `RONDEL_STALL` is the watchdog's threshold in milliseconds (0:
//! no watchdog). Whatever goes wrong here is silent: a program must not notice that it cannot be looked
//! at (a full table of descriptors, a `chroot` without a temporary folder).
//!
//! [`STATE`] is locked with the GIL held, for moments, and never while a thread is joined: that is done
//! without the GIL, as a helper may want it.

use super::{requests, stalls, stats, tasks, tracing};
use rondel_core::clock;
use rondel_core::inspect::{Door, Over, Service, Source, Stall};
use rondel_ffi::{PyRes, call, gil, value};
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Milliseconds.
const THRESHOLD: u64 = 100;

static STARTED: AtomicBool = AtomicBool::new(false);

#[derive(Default)]
struct State {
    service: Option<Service>,
    /// Kept for the parent while the process forks; closed in the child.
    door: Option<Door>,
    paused: bool,
    ended: bool,
}

static STATE: Mutex<State> = Mutex::new(State {
    service: None,
    door: None,
    paused: false,
    ended: false,
});

fn with_state<R>(work: impl FnOnce(&mut State) -> R) -> R {
    work(&mut STATE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Starts the thread when the process's first loop runs.
#[inline]
pub(super) fn start_once() -> PyRes<()> {
    if STARTED.load(Ordering::Relaxed) {
        return Ok(());
    }
    start()
}

#[cold]
fn start() -> PyRes<()> {
    STARTED.store(true, Ordering::Relaxed);
    if std::env::var_os("RONDEL_INSPECT").is_some_and(|value| value == "0") {
        rondel_core::inspect::requests::turn(false);
        return Ok(());
    }
    without_signals(|state| {
        if state.service.is_none() && !state.ended {
            open(state);
        }
    })
}

/// Works on the state with all signals blocked in this thread: the threads that are started inherit it.
/// A program that blocks a signal everywhere and waits for it must not lose it to a thread of ours.
///
/// An error is what a handler raised, of a signal that came meanwhile.
fn without_signals(work: impl FnOnce(&mut State)) -> PyRes<()> {
    const SIG_BLOCK: i64 = 0;
    const SIG_SETMASK: i64 = 2;
    let signals = call::import(c"_signal")?;
    let set_mask = call::getattr(
        signals.borrow(),
        value::intern(c"pthread_sigmask")?.borrow(),
    )?;
    let every = call::getattr(signals.borrow(), value::intern(c"valid_signals")?.borrow())?;
    let every = call::call0(every.borrow())?;
    let block = value::int(SIG_BLOCK)?;
    let before = call::call(set_mask.borrow(), &[block.borrow(), every.borrow()])?;
    with_state(work);
    let restore = value::int(SIG_SETMASK)?;
    call::call(set_mask.borrow(), &[restore.borrow(), before.borrow()]).map(|_blocked| ())
}

fn open(state: &mut State) {
    let threshold = std::env::var("RONDEL_STALL")
        .ok()
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(THRESHOLD);
    let threshold = Duration::from_millis(threshold);
    state.service = Service::start(Arc::new(Process), state.door.take(), threshold).ok();
}

/// Before a fork.
pub(super) fn pause() {
    if let Some(service) = with_state(|state| state.service.take()) {
        let door = gil::detached(|| service.stop());
        tracing::unheld();
        with_state(|state| {
            state.door = door;
            state.paused = true;
        });
    }
}

/// In the parent, after it.
pub(super) fn resume() -> PyRes<()> {
    if !with_state(|state| std::mem::take(&mut state.paused) && !state.ended) {
        return Ok(());
    }
    without_signals(open)
}

/// In a forked child: its own is opened when a loop of its own runs.
pub(super) fn forked() {
    let door = with_state(|state| {
        state.paused = false;
        state.service = None;
        state.door.take()
    });
    // The parent's file stays; the child's descriptor of it goes.
    drop(door);
    STARTED.store(false, Ordering::Relaxed);
    stalls::forget();
}

/// When the interpreter ends.
pub(super) fn end() {
    let (service, door) = with_state(|state| {
        state.ended = true;
        (state.service.take(), state.door.take())
    });
    let stopped = service.and_then(|service| gil::detached(|| service.stop()));
    if let Some(door) = stopped.or(door) {
        door.remove();
    }
}

// ------------------------------------------------------------------------------- what is asked

struct Process;

impl Source for Process {
    fn at_once(&self, ask: &str) -> Option<String> {
        match ask {
            "stats" => Some(stats()),
            "stalls" => Some(stalls::all()),
            "requests now" => Some(requests::now()),
            _ => None,
        }
    }

    fn knows(&self, ask: &str) -> bool {
        ask == "tasks" || requests::knows(ask) || tracing::knows(ask)
    }

    fn holds(&self, ask: &str) -> Option<Duration> {
        tracing::longest(ask)
    }

    fn left(&self, client: u64) {
        tracing::left(client);
    }

    fn with_gil(&self, ask: &str, holder: Option<u64>) -> String {
        gil::attached(|| match ask {
            "tasks" => tasks(),
            _ if requests::knows(ask) => requests::answer(ask),
            _ => tracing::answer(ask, holder),
        })
    }

    fn stalled(&self, stall: &Stall) {
        gil::attached(|| stalls::report(stall));
    }

    fn stalled_without_gil(&self, stall: &Stall) {
        stalls::report_native(stall);
    }

    fn over(&self, over: &Over) {
        stalls::over(over);
    }

    fn beat(&self) {
        sample();
        tracing::expire();
    }
}

// ----------------------------------------------------------------------------------- tasks' ages

/// When how many tasks had been created: tells a task's age by its number, to within the distance of two
/// samples, at no cost for the task.
static SAMPLES: Mutex<VecDeque<(u32, u64)>> = Mutex::new(VecDeque::new());

/// Samples at most. When there are more, every second one of the older half goes.
const MOST: usize = 1024;

/// Nanoseconds between two.
const APART: u64 = 50_000_000;

fn sample() {
    let now = clock::coarse();
    let created = crate::task::last_created();
    let Ok(mut samples) = SAMPLES.lock() else {
        return;
    };
    if let Some((last, at)) = samples.back_mut() {
        if *last == created {
            return;
        }
        if now.saturating_sub(*at) < APART {
            return;
        }
    }
    samples.push_back((created, now));
    if samples.len() > MOST {
        let mut i = 0;
        samples.retain(|_| {
            i += 1;
            i > MOST / 2 || i % 2 == 0
        });
    }
}

/// `[[number, seconds ago], …]`: tasks up to that number were created before.
pub(super) fn ages(out: &mut String) {
    let now = clock::coarse();
    out.push('[');
    if let Ok(samples) = SAMPLES.lock() {
        for (i, (number, at)) in samples.iter().enumerate() {
            let ago = now.saturating_sub(*at) as f64 * 1e-9;
            let comma = if i > 0 { "," } else { "" };
            let _infallible = write!(out, "{comma}[{number},{ago:.3}]");
        }
    }
    out.push(']');
}
