//! Time in a task's steps, for `with rondel.timed(...)` blocks: the CPU time, the wall time and the
//! number of the steps that the block's task took, without what ran while it was suspended.
//!
//! ```text
//! block begins ─ rest of this step ─┐ suspended ┌─ step ─┐ suspended ┌─ start of this step ─ ends
//!                   counted         └───────────┘ counted└───────────┘       counted
//! ```
//!
//! A step pays one test of a process-wide counter of open blocks before it. Its end costs nothing more:
//! while a metered task steps, the loop's current task is published in asyncio's own table, and the end
//! of such a step takes a cold path anyway (`event_loop::end_step`).
//!
//! Everything happens with the GIL held; a [`Meter`] holds plain numbers, no Python object.

use crate::event_loop::{self, LoopBase};
use crate::future::{AsFuture, Future};
use crate::task::Task;
use rondel_core::clock;
use rondel_ffi::err::Builtin;
use rondel_ffi::method::{self, Args, MethodDef};
use rondel_ffi::{Inst, Obj, PyRes, Ref, value};
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

/// Blocks that have begun and not ended, in all tasks.
static OPEN: AtomicU32 = AtomicU32::new(0);

/// What a task has spent in its steps since its first block began.
#[derive(Default)]
pub(crate) struct Meter {
    /// Blocks of this task that have not ended.
    blocks: Cell<u32>,
    /// Nanoseconds of the thread's CPU time.
    cpu: Cell<u64>,
    /// Nanoseconds of wall time.
    wall: Cell<u64>,
    steps: Cell<u64>,
    /// The two clocks when the present step began, or was first metered; none while suspended.
    began: Cell<Option<(u64, u64)>>,
}

impl Meter {
    fn begin(&self) {
        self.steps.set(self.steps.get() + 1);
        self.go_on();
    }

    fn go_on(&self) {
        self.began.set(Some((clock::thread_cpu(), clock::now())));
    }

    fn end(&self) {
        let [cpu, wall, _] = self.read();
        self.cpu.set(cpu);
        self.wall.set(wall);
        self.began.set(None);
    }

    /// CPU time, wall time and number of steps until now.
    fn read(&self) -> [u64; 3] {
        let (cpu, wall) = self.began.get().map_or((0, 0), |(cpu, wall)| {
            (
                clock::thread_cpu().saturating_sub(cpu),
                clock::now().saturating_sub(wall),
            )
        });
        [
            self.cpu.get() + cpu,
            self.wall.get() + wall,
            self.steps.get(),
        ]
    }
}

/// Whether any task may be metered.
#[inline(always)]
pub(crate) fn open() -> bool {
    OPEN.load(Ordering::Relaxed) != 0
}

fn of(fut: &Future) -> Option<&Meter> {
    let meter = fut.rare_opt()?.meter.get()?;
    (meter.blocks.get() > 0).then_some(meter)
}

/// A task of a Rondel loop takes a step, and is the loop's current one.
#[cold]
pub(crate) fn step_begins(home: Inst<'_, LoopBase>, task: Ref<'_>) {
    if let Some(task) = task.cast::<Task>()
        && let Some(meter) = of(task.fut())
    {
        event_loop::publish(home);
        meter.begin();
    }
}

/// The step goes on after an eager task's inside it.
#[cold]
pub(crate) fn step_goes_on(home: Inst<'_, LoopBase>, task: Ref<'_>) {
    if let Some(task) = task.cast::<Task>()
        && let Some(meter) = of(task.fut())
    {
        event_loop::publish(home);
        meter.go_on();
    }
}

/// The step is over, or an eager task's begins inside it.
#[cold]
pub(crate) fn step_ends(task: Ref<'_>) {
    if let Some(task) = task.cast::<Task>()
        && let Some(meter) = of(task.fut())
    {
        meter.end();
    }
}

fn totals(meter: &Meter) -> PyRes<[Obj; 3]> {
    let [cpu, wall, steps] = meter.read();
    let int = |n: u64| value::int(i64::try_from(n).unwrap_or(i64::MAX));
    Ok([int(cpu)?, int(wall)?, int(steps)?])
}

/// `_block_began()`: `(task, cpu, wall, steps)` of the native task that takes a step right now on a
/// Rondel loop, or None. A task that is given is to be handed to `_block_ended`.
fn block_began(args: Args<'_>) -> PyRes<Obj> {
    if !args.is_empty() {
        return Err(Builtin::Type.raise("_block_began() takes no arguments"));
    }
    let Some(home) = event_loop::running() else {
        return Ok(Obj::none());
    };
    let Some(current) = event_loop::current_task(home.inst())? else {
        return Ok(Obj::none());
    };
    let Some(task) = current.borrow().cast::<Task>() else {
        return Ok(Obj::none());
    };
    let meter = task.fut().rare().meter.get_or_init(Box::default);
    if meter.blocks.get() == 0 {
        event_loop::publish(home.inst());
        meter.begin();
    }
    meter.blocks.set(meter.blocks.get() + 1);
    OPEN.fetch_add(1, Ordering::Relaxed);
    let [cpu, wall, steps] = totals(meter)?;
    value::tuple([task.obj().own(), cpu, wall, steps])
}

/// `_block_ended(task)`: `(cpu, wall, steps)` at the end of a block that began in `task`.
fn block_ended(args: Args<'_>) -> PyRes<Obj> {
    let task = args.get(0).and_then(|task| task.cast::<Task>());
    let Some(meter) = task.as_ref().and_then(|task| of(task.fut())) else {
        return Err(Builtin::Value.raise("no block began in this task"));
    };
    let totals = totals(meter)?;
    meter.blocks.set(meter.blocks.get() - 1);
    if meter.blocks.get() == 0 {
        meter.end();
    }
    OPEN.fetch_sub(1, Ordering::Relaxed);
    value::tuple(totals)
}

pub(crate) fn definitions() -> Vec<MethodDef> {
    vec![
        method::function(
            c"_block_began",
            c"Meter the steps of the current native task; what it has spent, or None.",
            block_began,
        ),
        method::function(
            c"_block_ended",
            c"What the task of a block has spent in its steps.",
            block_ended,
        ),
    ]
}
