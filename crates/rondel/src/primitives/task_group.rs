//! The native half of TaskGroup: creating tasks and counting them off.
//!
//! `rondel.TaskGroup` derives from this and from asyncio's TaskGroup, whose `__aenter__`,
//! `__aexit__` and error handling it inherits, exact for each Python version. What runs once per
//! task is here; its fields are properties, so that asyncio's code finds them under its own names.

use crate::consts::names;
use crate::event_loop::{self, LoopBase};
use crate::future::{self, AsFuture, Callback, Future, State};
use crate::sync::fields;
use crate::task::{self, Task};
use rondel_ffi::class::{ObjCell, TypeBuilder, Visit};
use rondel_ffi::method::{self, Args};
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Ref, call, value};
use std::cell::Cell;

#[derive(Default)]
pub(crate) struct TaskGroup {
    /// A set of the tasks that are not done.
    tasks: ObjCell,
    loop_: ObjCell,
    /// A future that `__aexit__` waits on, or none.
    on_completed: ObjCell,
    entered: Cell<bool>,
    exiting: Cell<bool>,
    aborting: Cell<bool>,
}

static CELL: ClassCell = ClassCell::new();

impl Class for TaskGroup {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.tasks);
        visit.cell(&self.loop_);
        visit.cell(&self.on_completed);
    }
    fn clear(&self) {
        self.tasks.set(None);
        self.loop_.set(None);
        self.on_completed.set(None);
    }
}

/// `create_task(coro, *, name=None, context=None)`.
#[inline(always)]
fn create_task(slf: Inst<'_, TaskGroup>, args: Args<'_>) -> PyRes<Obj> {
    let (Some(coro), Some(tasks), Some(loop_)) = (args.get(0), slf.tasks.get(), slf.loop_.get())
    else {
        return by_asyncio(slf, args);
    };
    let usable = slf.entered.get()
        && !slf.aborting.get()
        && args.len() == 1
        && !(slf.exiting.get() && value::set_len(tasks.borrow()) == 0);
    let Some(home) = loop_.borrow().cast::<LoopBase>().filter(|_| usable) else {
        return by_asyncio(slf, args);
    };
    let options = task::Options::from_keywords("create_task", &args, 0)?;
    let made = event_loop::create_task_with(home, coro, options)?;
    let Some(native) = made.borrow().exact::<Task>().filter(|t| !t.fut().done()) else {
        return adopt(slf, tasks.borrow(), made);
    };
    value::set_add(tasks.borrow(), made.borrow())?;
    future::add_callback(native.up(), Callback::Group(slf.own()))?;
    Ok(made)
}

/// A task from a custom factory, or one that is done already (an eager one).
#[cold]
fn adopt(slf: Inst<'_, TaskGroup>, tasks: Ref<'_>, made: Obj) -> PyRes<Obj> {
    let on_done = call::getattr(slf.obj(), value::intern(c"_on_task_done")?.borrow())?;
    let done = call::method(names().done.borrow(), [made.borrow()])?
        .borrow()
        .truthy()?;
    if done && cfg!(Py_3_12) {
        let _none = call::call1(on_done.borrow(), made.borrow())?;
    } else {
        value::set_add(tasks, made.borrow())?;
        let _none = call::method(
            names().add_done_callback.borrow(),
            [made.borrow(), on_done.borrow()],
        )?;
    }
    Ok(made)
}

/// asyncio's own method, for its errors and for loops that are not Rondel's.
#[cold]
fn by_asyncio(slf: Inst<'_, TaskGroup>, args: Args<'_>) -> PyRes<Obj> {
    let create = call::getattr(slf.obj(), value::intern(c"_stock_create_task")?.borrow())?;
    call::call_args(create.borrow(), &args)
}

/// A task of the group is done (asyncio's `_on_task_done`, whose unhappy half this calls).
pub(crate) fn child_done(slf: Own<TaskGroup>, child: Own<Future>) -> PyRes<()> {
    if child.state.get() == State::Failed {
        let on_done = call::getattr(slf.obj(), value::intern(c"_on_task_done")?.borrow())?;
        let _none = call::call1(on_done.borrow(), child.obj())?;
        return Ok(());
    }
    let Some(tasks) = slf.tasks.get() else {
        return Ok(());
    };
    value::set_discard(tasks.borrow(), child.obj())?;
    if value::set_len(tasks.borrow()) == 0
        && let Some(waiting) = slf.on_completed.get()
        && let Some(waiting) = waiting.borrow().exact::<Future>()
        && !waiting.done()
    {
        future::finish(waiting, State::Finished, Some(Obj::bool(true)))?;
    }
    Ok(())
}

/// `_rondel.TaskGroupBase`.
pub(crate) fn build() -> PyRes<Obj> {
    TypeBuilder::<TaskGroup>::new(c"rondel._rondel.TaskGroupBase")
        .subclassable()
        .method(method::fast::<TaskGroup, _>(
            c"create_task",
            c"create_task($self, /, coro, *, name=None, context=None)\n--\n\nCreate a task in the group.",
            create_task,
        ))
        .properties([
            fields::object(c"_tasks", |s: &TaskGroup| &s.tasks),
            fields::object(c"_loop", |s: &TaskGroup| &s.loop_),
            fields::object(c"_on_completed_fut", |s: &TaskGroup| &s.on_completed),
            fields::flag(c"_entered", |s: &TaskGroup| &s.entered),
            fields::flag(c"_exiting", |s: &TaskGroup| &s.exiting),
            fields::flag(c"_aborting", |s: &TaskGroup| &s.aborting),
        ])
        .build()
}
