//! `Gate`: a thread that waits for async code and makes calls for it meanwhile.
//!
//! ```text
//!   the waiting thread                      the loop's thread
//!   ──────────────────                      ─────────────────
//!   gate.run(seconds) ◄── calls ─────────── gate.call(func), await hop.wait()
//!        returns      ◄──────────────────── gate.close()
//! ```
//!
//! Sync code that calls async code (`async_to_sync`) waits here; what that calls with
//! `sync_to_async` runs on this very thread. It waits without the GIL.

use super::hop;
use rondel_core::pool::{Job, Turn};
use rondel_ffi::class::{TypeBuilder, Visit, alloc};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::method::{self, Args, MethodDef};
use rondel_ffi::{Class, ClassCell, Inst, Obj, PyRes, Ref, gil, value};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

/// `_rondel.Gate`
#[derive(Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    news: Condvar,
}

static CELL: ClassCell = ClassCell::new();

impl Class for Gate {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, _visit: &mut Visit) {}
    fn clear(&self) {}
}

enum Wake {
    Job(Job),
    Closed,
    Late,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Jobs run without the lock, so a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, until: Instant) -> Wake {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Wake::Job(job);
            }
            if state.closed {
                return Wake::Closed;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Wake::Late;
            }
            let (back, _timeout) = self
                .news
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
            state = back;
        }
    }
}

/// `gate()`
fn gate(_args: Args<'_>) -> PyRes<Obj> {
    Ok(alloc(Gate::default(), true)?.into_obj())
}

/// `run(seconds)`: makes calls until the gate is closed (true) or the time is over (false).
fn run(slf: Inst<'_, Gate>, seconds: Ref<'_>) -> PyRes<Obj> {
    let seconds = Duration::try_from_secs_f64(value::as_f64(seconds)?)
        .map_err(|_| Builtin::Value.raise("a number of seconds was expected"))?;
    let until = Instant::now() + seconds;
    let mut turn = Turn::outside();
    let gate = slf.data();
    loop {
        // The job takes the GIL for itself.
        let over = gil::detached(|| match gate.wait(until) {
            Wake::Job(job) => {
                job(&mut turn);
                turn.told();
                None
            }
            Wake::Closed => Some(true),
            Wake::Late => Some(false),
        });
        match over {
            Some(closed) => return Ok(Obj::bool(closed)),
            // In the main thread: Ctrl+C must not wait for the async code.
            None => err::check_signals()?,
        }
    }
}

/// `call(func, about=None)`: has the waiting thread call it; None if nobody waits any more.
fn call(slf: Inst<'_, Gate>, args: Args<'_>) -> PyRes<Obj> {
    let (func, about) = super::call_args(&args)?;
    let (made, job) = hop::new(super::home()?, func, None, about)?;
    Ok(if enqueue(slf.data(), job) {
        made.into_obj()
    } else {
        Obj::none()
    })
}

/// `post(func)`: the same for a call that nobody waits for; whether it will be made.
fn post(slf: Inst<'_, Gate>, func: Ref<'_>) -> PyRes<Obj> {
    Ok(Obj::bool(enqueue(
        slf.data(),
        super::errand(func.own(), None),
    )))
}

fn enqueue(gate: &Gate, job: Job) -> bool {
    let mut state = gate.lock();
    if state.closed {
        drop(state);
        drop(job);
        return false;
    }
    state.jobs.push_back(job);
    drop(state);
    gate.news.notify_all();
    true
}

/// `close()`: what was called is still made, then `run` returns.
fn close(slf: Inst<'_, Gate>) -> PyRes<Obj> {
    slf.lock().closed = true;
    slf.news.notify_all();
    Ok(Obj::none())
}

pub(super) fn build() -> PyRes<Obj> {
    TypeBuilder::<Gate>::new(c"rondel._rondel.Gate")
        .doc(c"A thread that waits for async code and makes calls for it meanwhile.")
        .methods([
            method::onearg::<Gate, _>(
                c"run",
                c"run(seconds): make calls until the gate is closed (true) or the time is over.",
                run,
            ),
            method::fast::<Gate, _>(
                c"call",
                c"Have the waiting thread call a function; the Hop, or None if nobody waits.",
                call,
            ),
            method::onearg::<Gate, _>(
                c"post",
                c"Have the waiting thread call a function; whether it will.",
                post,
            ),
            method::noargs::<Gate, _>(c"close", c"End the wait.", close),
        ])
        .build()
}

pub(super) fn definitions() -> Vec<MethodDef> {
    vec![method::function(c"gate", c"Nobody waits at it yet.", gate)]
}
