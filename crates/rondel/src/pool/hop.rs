//! One call on its way to a thread of the pool and back.
//!
//! ```text
//!   loop's thread                         a pool's thread
//!   ─────────────                         ───────────────
//!   pool.call(func) ─► Hop, a job ──────► func()           with the GIL
//!   await hop.wait() ◄── future, wake ─── the outcome      still with the GIL
//! ```
//!
//! There and back it is one hand-over each: the job goes to the pool, and the thread that has the
//! outcome sets the future itself, as it holds the GIL, which guards the loop's ready queue. No
//! `concurrent.futures` object and no pipe lies between.
//!
//! The outcome stays with the hop. A cancelled `wait()` does not lose it: `wait()` again. (asgiref
//! shields its futures for that.) All fields are used with the GIL held.

use crate::event_loop::LoopBase;
use crate::future::{self, Future};
use crate::inspect::record;
use crate::inspect::requests::Trip;
use rondel_core::pool::{Job, Turn};
use rondel_ffi::class::{ObjCell, OwnCell, TypeBuilder, Visit, alloc};
use rondel_ffi::err::Builtin;
use rondel_ffi::gil::{self, Parked};
use rondel_ffi::method;
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, call};
use std::cell::Cell;

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Queued,
    Running,
    Done,
    /// Cancelled before it began.
    Dropped,
}

#[derive(Default)]
pub(super) struct Hop {
    home: OwnCell<LoopBase>,
    func: ObjCell,
    /// Who waits for it.
    future: OwnCell<Future>,
    stage: Cell<Stage>,
    /// The value, or the exception if it failed.
    outcome: ObjCell,
    failed: Cell<bool>,
    /// What the inspector shows: the function that the program wants called.
    about: ObjCell,
    trip: Trip,
}

static CELL: ClassCell = ClassCell::new();

impl Class for Hop {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.home);
        visit.cell(&self.func);
        visit.own(&self.future);
        visit.cell(&self.outcome);
        visit.cell(&self.about);
    }
    fn clear(&self) {
        self.home.set(None);
        self.func.set(None);
        self.future.set(None);
        self.outcome.set(None);
        self.about.set(None);
    }
}

/// A hop and the job that does it. `about`: what the inspector shows as called, if not `func`.
pub(super) fn new(
    home: Own<LoopBase>,
    func: Obj,
    hold: Option<Obj>,
    about: Option<Obj>,
) -> PyRes<(Own<Hop>, Job)> {
    let trip = Trip::default();
    trip.sets_off(home.inst());
    let about = about.unwrap_or_else(|| func.clone());
    let hop = alloc(
        Hop {
            home: OwnCell::new(Some(home)),
            func: ObjCell::new(Some(func)),
            about: ObjCell::new(Some(about)),
            trip,
            ..Hop::default()
        },
        true,
    )?;
    if record::on() {
        record::call_made(hop.obj(), hop.func.get(), None);
    }
    let mut order = Order(Some(Parked::new(hop.obj().own())));
    let hold = hold.map(Parked::new);
    let job = Box::new(move |turn: &mut Turn| gil::attached(|| order.carry_out(turn, hold)));
    Ok((hop, job))
}

/// The job's end of a hop. Dropped unused (no thread could be started), it fails the hop.
struct Order(Option<Parked>);

impl Order {
    fn carry_out(&mut self, turn: &mut Turn, hold: Option<Parked>) {
        let Some(hop) = self.take() else { return };
        if hop.stage.get() != Stage::Queued {
            return hop.trip.dropped();
        }
        hop.stage.set(Stage::Running);
        hop.trip.begins();
        if record::on() {
            record::call_begins(hop.obj());
        }
        let outcome = match hop.func.take() {
            Some(func) => call::call0(func.borrow()),
            None => Ok(Obj::none()),
        };
        hop.trip.ends();
        match outcome {
            Ok(value) => arrive(hop.inst(), value, false, Some(turn)),
            Err(raised) => arrive(hop.inst(), raised.fetch(), true, Some(turn)),
        }
        super::ask_hold(turn, hold);
    }

    fn take(&mut self) -> Option<Own<Hop>> {
        self.0.take()?.take()?.into_exact::<Hop>().ok()
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        if self.0.is_none() {
            return;
        }
        gil::attached(|| {
            let Some(hop) = self.take() else { return };
            hop.trip.dropped();
            if hop.stage.get() == Stage::Queued {
                let raised = Builtin::Runtime.raise("no thread could be started for the call");
                arrive(hop.inst(), raised.fetch(), true, None);
            }
        });
    }
}

/// The outcome is there: who waits is told, by `turn` when the GIL is free, or at once.
fn arrive(hop: Inst<'_, Hop>, outcome: Obj, failed: bool, turn: Option<&mut Turn>) {
    if record::on() {
        record::call_ends(hop.obj());
    }
    hop.stage.set(Stage::Done);
    hop.failed.set(failed);
    hop.outcome.set(Some(outcome));
    hop.about.set(None);
    let (waiting, home) = (hop.future.take(), hop.home.get());
    if let Some(waiting) = waiting
        && let Err(raised) = hand_over(hop, waiting.inst())
    {
        raised.unraisable(Some(hop.obj()));
    }
    let waker = home.and_then(|home| home.announce());
    match (turn, waker) {
        (Some(turn), Some(waker)) => turn.tell(&waker),
        (None, Some(waker)) => waker.wake(),
        (_, None) => {}
    }
}

fn hand_over(hop: Inst<'_, Hop>, waiting: Inst<'_, Future>) -> PyRes<()> {
    let open = hop.home.get().is_some_and(|home| {
        let open = home.check_open();
        open.map_err(rondel_ffi::Raised::clear).is_ok()
    });
    if waiting.done() || !open {
        return Ok(());
    }
    let outcome = hop.outcome.get().unwrap_or_else(Obj::none);
    if hop.failed.get() {
        future::fail(waiting, outcome)
    } else {
        future::finish(waiting, future::State::Finished, Some(outcome))
    }
}

/// `wait()`: a future for the outcome; cancelling it leaves the call alone.
fn wait(slf: Inst<'_, Hop>) -> PyRes<Obj> {
    let Some(home) = slf.home.get() else {
        return Err(Builtin::Runtime.raise("the call has no event loop"));
    };
    let made = future::create(home.inst())?;
    match slf.stage.get() {
        Stage::Done => hand_over(slf, made.inst())?,
        Stage::Dropped => {
            let _cancelled = future::cancel_plain(made.inst(), None)?;
        }
        Stage::Queued | Stage::Running => {
            if let Some(about) = slf.about.get() {
                made.stands_for(&about);
            }
            if record::on() {
                record::call_waits(slf.obj(), made.obj());
            }
            slf.future.set(Some(made.clone()));
        }
    }
    Ok(made.into_obj())
}

/// `cancel()`: true if the call will not be made.
fn cancel(slf: Inst<'_, Hop>) -> PyRes<Obj> {
    if slf.stage.get() == Stage::Queued {
        slf.stage.set(Stage::Dropped);
        slf.func.set(None);
    }
    Ok(Obj::bool(slf.stage.get() == Stage::Dropped))
}

fn done(slf: Inst<'_, Hop>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.stage.get() == Stage::Done))
}

pub(super) fn build() -> PyRes<Obj> {
    TypeBuilder::<Hop>::new(c"rondel._rondel.Hop")
        .doc(c"A call that a pool's thread makes.")
        .method(method::noargs::<Hop, _>(
            c"wait",
            c"A future for the outcome; cancelling it leaves the call alone.",
            wait,
        ))
        .method(method::noargs::<Hop, _>(
            c"cancel",
            c"Do not make the call, if it has not begun; whether it is not made.",
            cancel,
        ))
        .property(method::getter::<Hop, _>(c"done", done))
        .build()
}
