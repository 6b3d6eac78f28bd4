//! The native Future: a subclass of `_asyncio.Future` whose state lives in a Rust payload.
//!
//! A Task and a gather hold a [`Future`] too, at the same place, so everything here serves all
//! three. A future belongs to a *home* loop. On a Rondel loop its callbacks become entries of
//! the ready queue (no Handle, no Python call for native ones); on any other loop they go through
//! that loop's `call_soon`, as asyncio does.
//!
//! ```text
//!            set_result / set_exception / cancel
//!  Pending ───────────────────────────────────────► Finished | Failed | Cancelled
//!     │ add_done_callback: kept                            │ add_done_callback: scheduled at once
//! ```
//!
//! Here is what a future consists of; `life` has these changes, `methods` what Python sees of them.
//! All with the GIL held.
//!
//! # Layout
//! The payload lies on top of the C struct's fields: nothing of asyncio's C code looks into a
//! subclass's instance by itself. Calls by hand do (`asyncio.Future.result(fut)`): they check
//! `fut_loop` before all else, which stays null, so that they raise RuntimeError ("not initialized") or
//! answer as for a pending future; those that ask for the state first find a finished one
//! (`layout`). What they use unchecked keeps its C meaning: `fut_cancel_msg` is an object here too,
//! a task's coroutine and context are never null, the state's ints and `__dict__` lie behind us. The
//! one call that would break an instance is `_asyncio.Future.__init__(fut)` (or Task's), which releases
//! every C field first: it is handed to our own `__init__` (`rondel_ffi::class::share_init`). Classes
//! that would inherit asyncio's constructor before ours are laid out as the C base, and
//! `__init_subclass__` refuses them. From 3.14 on, and on 32-bit machines, [`Placement`] puts the
//! payload behind the C fields.

mod iter;
mod layout;
mod life;
mod methods;
mod report;

pub(crate) use iter::{FutureIter, raise_thrown};
pub(crate) use layout::{Placement, REST_PLACE, STOCK_STATE};
pub(crate) use life::{
    add_callback, cancel_any, cancel_plain, cancel_python, fail, finish, make_cancelled_error,
    outcome, resolve, result, take_hop,
};
pub(crate) use methods::init_on as methods_init_on;
pub(crate) use methods::{
    awaited, build, class_getitem_def, future_methods, future_properties, set_by,
};
pub(crate) use report::{call_handler, call_handler_in_except};

use crate::consts::stock;
use crate::event_loop::LoopBase;
use crate::meter::Meter;
use crate::packed::CallbackCell;
use crate::primitives::gather::Gather;
use crate::primitives::hops::Hop;
use crate::primitives::task_group::TaskGroup;
use crate::server::Cycle;
use crate::task::Task;
use rondel_ffi::class::{ObjCell, OwnCell, Visit};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::{Class, ClassCell, Extends, Inst, Obj, Own, PyRes, Ref, call};
use std::cell::{Cell, OnceCell, RefCell};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub(crate) enum State {
    #[default]
    Pending,
    Finished,
    Failed,
    Cancelled,
}

/// Which of the three classes that hold a [`Future`] this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub(crate) enum Kind {
    #[default]
    Future,
    Task,
    Gather,
}

/// What happens when a future is done.
pub(crate) enum Callback {
    /// `loop.call_soon(function, future, context=context)`.
    Python { function: Obj, context: Obj },
    /// The task that awaits it takes its next step.
    Wake(Own<Task>),
    /// It is a child of a gather.
    Gather(Own<Gather>),
    /// It is a task of a group.
    Group(Own<TaskGroup>),
    /// It is the task of a request.
    Request(Own<Cycle>),
    /// `wait`, `shield` and their kin want to know.
    Hop(Hop),
}

/// What few futures need, kept out of line.
#[derive(Default)]
pub(crate) struct Rare {
    /// Callbacks after the first, in order.
    pub(crate) callbacks: RefCell<Vec<Callback>>,
    pub(crate) cancel_message: ObjCell,
    /// The CancelledError that ended a task's coroutine: given out once.
    pub(crate) cancelled_error: ObjCell,
    /// The exception's traceback as it was when it was set.
    pub(crate) traceback: ObjCell,
    /// Debug mode: where the future was created.
    pub(crate) source_traceback: ObjCell,
    /// Watched tasks: the line that created it, as `(code, line)`. (No cycle goes
    /// through it.)
    pub(crate) created_at: ObjCell,
    /// Tasks that have run a timed block.
    pub(crate) meter: OnceCell<Box<Meter>>,
    /// A loop that is not Rondel's.
    pub(crate) foreign_loop: ObjCell,
}

#[derive(Default)]
#[repr(C)]
pub(crate) struct Future {
    /// C's `fut_loop`: null for ever.
    stock_loop: Cell<usize>,
    /// The Rondel loop it belongs to; none before `__init__` or on another loop.
    pub(crate) home: OwnCell<LoopBase>,
    /// The result, or the exception of a failed future. While it is pending: what it stands for (the
    /// function of a thread), if that is worth a word.
    pub(crate) result: ObjCell,
    pub(crate) first: CallbackCell,
    rare: OnceCell<Box<Rare>>,
    pub(crate) state: Cell<State>,
    pub(crate) kind: Cell<Kind>,
    /// `_asyncio_future_blocking`: set when yielded to a task, cleared by it.
    pub(crate) blocking: Cell<bool>,
    /// The exception has not been retrieved yet.
    pub(crate) log_traceback: Cell<bool>,
    /// A task's place in its loop's list of tasks, plus one; 0 when it is not there.
    pub(crate) index: Cell<u32>,
    /// A task's: the N of `Task-N`, and its number among all tasks of the process, for the inspector;
    /// 0 for none. Here, as C's fields leave a word of room: one more in each task costs a crowd 2 %.
    pub(crate) number: Cell<u32>,
    pub(crate) id: Cell<u32>,
    /// C's `fut_cancel_msg`, which `asyncio.Task.cancel(task)` sets.
    stock_cancel_message: ObjCell,
}

static CELL: ClassCell = ClassCell::new();
static FREE: FreeList = FreeList::new();

impl Class for Future {
    const PLACE: Option<usize> = layout::FUTURE_PLACE;

    fn cell() -> &'static ClassCell {
        &CELL
    }

    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.home);
        visit.cell(&self.result);
        visit.cell(&self.stock_cancel_message);
        self.first.peek(|first| {
            if let Some(callback) = first {
                callback.traverse(visit);
            }
        });
        if let Some(rare) = self.rare.get() {
            if let Ok(list) = rare.callbacks.try_borrow() {
                for callback in list.iter() {
                    callback.traverse(visit);
                }
            }
            for cell in [
                &rare.cancel_message,
                &rare.cancelled_error,
                &rare.traceback,
                &rare.source_traceback,
                &rare.foreign_loop,
            ] {
                visit.cell(cell);
            }
        }
    }

    fn clear(&self) {
        self.retire();
        self.stock_cancel_message.set(None);
        self.first.set(None);
        self.result.set(None);
        if let Some(rare) = self.rare.get() {
            drop(rare.callbacks.take());
            for cell in [
                &rare.cancel_message,
                &rare.cancelled_error,
                &rare.traceback,
                &rare.source_traceback,
                &rare.foreign_loop,
            ] {
                cell.set(None);
            }
        }
        self.home.set(None);
    }

    fn retire(&self) {
        self.log_traceback.set(false);
        crate::task::unregister(self);
    }

    fn freelist() -> Option<&'static FreeList> {
        Some(&FREE)
    }

    fn needs_finalize(slf: Inst<'_, Self>) -> bool {
        slf.log_traceback.get()
    }

    fn finalize(slf: Inst<'_, Self>) {
        report::never_retrieved(slf);
    }
}

impl Callback {
    fn traverse(&self, visit: &mut Visit) {
        match self {
            Callback::Python { function, context } => {
                visit.obj(function.borrow());
                visit.obj(context.borrow());
            }
            Callback::Wake(task) => visit.obj(task.obj()),
            Callback::Gather(gather) => visit.obj(gather.obj()),
            Callback::Group(group) => visit.obj(group.obj()),
            Callback::Request(cycle) => visit.obj(cycle.obj()),
            Callback::Hop(hop) => visit.obj(hop.obj()),
        }
    }
}

impl Future {
    /// A pending payload on a Rondel loop.
    #[inline(always)]
    pub(crate) fn on(home: Inst<'_, LoopBase>, kind: Kind) -> Future {
        Future::numbered(home, kind, (0, 0))
    }

    /// The same for the task `Task-N`.
    #[inline(always)]
    pub(crate) fn numbered(
        home: Inst<'_, LoopBase>,
        kind: Kind,
        (number, id): (u32, u32),
    ) -> Future {
        Future {
            stock_loop: Cell::new(0),
            home: OwnCell::new(Some(home.own())),
            result: ObjCell::new(None),
            first: CallbackCell::default(),
            number: Cell::new(number),
            id: Cell::new(id),
            rare: OnceCell::new(),
            state: Cell::new(State::Pending),
            kind: Cell::new(kind),
            blocking: Cell::new(false),
            log_traceback: Cell::new(false),
            index: Cell::new(0),
            stock_cancel_message: ObjCell::new(None),
        }
    }

    #[inline(always)]
    pub(crate) fn done(&self) -> bool {
        self.state.get() != State::Pending
    }

    #[inline(always)]
    pub(crate) fn rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }

    #[inline(always)]
    pub(crate) fn rare_opt(&self) -> Option<&Rare> {
        self.rare.get().map(Box::as_ref)
    }

    /// Remembers what is waited for by a pending future, for the inspector: where its result will be.
    pub(crate) fn stands_for(&self, what: &Obj) {
        if !self.done() {
            self.result.set(Some(what.clone()));
        }
    }

    /// What was remembered.
    pub(crate) fn subject(&self) -> Option<Obj> {
        if self.done() { None } else { self.result.get() }
    }

    /// Whether `__init__` has run.
    pub(crate) fn initialised(&self) -> bool {
        !self.home.is_none() || self.rare_opt().is_some_and(|r| r.foreign_loop.is_some())
    }

    /// The loop, whichever kind it is.
    pub(crate) fn loop_obj(&self) -> Option<Obj> {
        match self.home.peek() {
            Some(home) => Some(home.obj().own()),
            None => self.rare_opt().and_then(|r| r.foreign_loop.get()),
        }
    }

    pub(crate) fn cancel_message(&self) -> Option<Obj> {
        self.rare_opt().and_then(|r| r.cancel_message.get())
    }

    /// Remembers the message of a cancel request; `None` unless there was one before costs nothing.
    pub(crate) fn set_cancel_message(&self, message: Option<Obj>) {
        if message.is_some() || self.rare_opt().is_some() {
            self.rare().cancel_message.set(message);
        }
    }

    /// The request whose task this is.
    pub(crate) fn request(&self) -> Option<Own<Cycle>> {
        let of = |callback: &Callback| match callback {
            Callback::Request(cycle) => Some(cycle.clone()),
            _ => None,
        };
        let first = self.first.peek(|first| first.and_then(of));
        first.or_else(|| self.rare_opt()?.callbacks.borrow().iter().find_map(of))
    }
}

/// The future that a task or a gather is.
pub(crate) trait AsFuture {
    fn fut(&self) -> &Future;
}

impl<T: Extends<Future>> AsFuture for Inst<'_, T> {
    #[inline(always)]
    fn fut(&self) -> &Future {
        self.up::<Future>().data()
    }
}

impl<T: Extends<Future>> AsFuture for Own<T> {
    #[inline(always)]
    fn fut(&self) -> &Future {
        self.inst().up::<Future>().data()
    }
}

/// A pending future on a Rondel loop, as `loop.create_future()` makes it.
#[inline(always)]
pub(crate) fn create(home: Inst<'_, LoopBase>) -> PyRes<Own<Future>> {
    let future = stand_in(home)?;
    if home.is_debug() {
        remember_source(future.inst())?;
    }
    Ok(future)
}

/// The same, nowhere created: debug mode would name the place where it was merely looked at.
#[inline(always)]
pub(crate) fn stand_in(home: Inst<'_, LoopBase>) -> PyRes<Own<Future>> {
    rondel_ffi::class::alloc_with(|| Future::on(home, Kind::Future), true)
}

/// Debug mode: keeps where a future was created, to the outermost frame and with the lines' text, as
/// asyncio's C future does: a report may come when the interpreter ends and can read no files.
#[cold]
pub(crate) fn remember_source(fut: Inst<'_, Future>) -> PyRes<()> {
    let stack = call::call0(stock().whole_stack.borrow())?;
    fut.rare().source_traceback.set(Some(stack));
    Ok(())
}

/// One of our three future types, exactly, on a Rondel loop: what native callbacks can be added to.
/// Python subclasses may override anything.
#[inline(always)]
pub(crate) fn native(obj: Ref<'_>) -> Option<Inst<'_, Future>> {
    let found = match obj.exact::<Task>() {
        Some(task) => task.up(),
        None => match obj.exact::<Future>() {
            Some(future) => future,
            None => obj.exact::<Gather>()?.up(),
        },
    };
    if found.home.is_none() {
        None
    } else {
        Some(found)
    }
}
