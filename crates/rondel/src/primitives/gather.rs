//! `gather`: one future for many, with native callbacks on its children.
//!
//! Each child that is done is one hop on the ready queue ([`Ready::GatherChild`]), as asyncio's
//! `_done_callback` is: the order in which others see the outcome is the same.

use crate::consts::{names, stock};
use crate::event_loop::{self, LoopBase};
use crate::future::{self, AsFuture, Callback, Future, Kind, Placement, STOCK_STATE, State};
use crate::task::{self, Task};
use rondel_ffi::class::{ObjCell, TypeBuilder, Visit, alloc_extended};
use rondel_ffi::err::Builtin;
use rondel_ffi::freelist::FreeList;
use rondel_ffi::method::{self, Args, Unary};
use rondel_ffi::{Class, ClassCell, Extends, Inst, Obj, Own, PyRes, Ref, call, value};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// Up to this many arguments, duplicates are found by comparing all pairs.
const FEW: usize = 8;

/// What a gather has besides its [`Future`].
#[derive(Default)]
pub(crate) struct Gather {
    /// In the order of the arguments; a duplicate argument stands twice.
    children: RefCell<Vec<Own<Future>>>,
    finished: Cell<usize>,
    /// Distinct children; 0 while the call that makes the gather has not finished.
    expected: Cell<usize>,
    return_exceptions: Cell<bool>,
    cancel_requested: Cell<bool>,
    message: ObjCell,
}

impl Gather {
    /// How many children are done, and how many there are.
    pub(crate) fn progress(&self) -> (usize, usize) {
        (self.finished.get(), self.expected.get())
    }

    /// Looks at each child. `look` must run no Python code.
    pub(crate) fn for_each_child(&self, mut look: impl FnMut(Inst<'_, Future>)) {
        if let Ok(children) = self.children.try_borrow() {
            children.iter().for_each(|child| look(child.inst()));
        }
    }
}

static CELL: ClassCell = ClassCell::new();
static FREE: FreeList = FreeList::new();

// SAFETY: built with `extends::<Future>`.
unsafe impl Extends<Future> for Gather {}

impl Class for Gather {
    const PLACE: Option<usize> = future::REST_PLACE;

    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        if let Ok(children) = self.children.try_borrow() {
            for child in children.iter() {
                visit.obj(child.obj());
            }
        }
    }
    fn clear(&self) {
        self.message.set(None);
        let children = self.children.take();
        drop(children);
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&FREE)
    }

    fn needs_finalize(slf: Inst<'_, Self>) -> bool {
        slf.fut().log_traceback.get()
    }
    fn finalize(slf: Inst<'_, Self>) {
        Future::finalize(slf.up());
    }
}

/// `gather(*coros_or_futures, return_exceptions=False)`.
pub(super) fn gather(args: Args<'_>) -> PyRes<Obj> {
    let home = match event_loop::running() {
        Some(home) if !args.is_empty() => home,
        _ => return call::call_args(stock().gather.borrow(), &args),
    };
    let mut return_exceptions = false;
    for i in 0..args.keyword_count() {
        let (name, value) = args.keyword(i);
        if !value::str_is(name, names().return_exceptions.borrow()) {
            let name = value::str_text(name)?;
            return Err(Builtin::Type.raise(&format!(
                "gather() got an unexpected keyword argument '{name}'"
            )));
        }
        return_exceptions = value.truthy()?;
    }
    let outer = alloc_extended(
        || Future::on(home.inst(), Kind::Gather),
        || Gather {
            children: RefCell::new(Vec::with_capacity(args.len())),
            finished: Cell::new(0),
            expected: Cell::new(0),
            return_exceptions: Cell::new(return_exceptions),
            cancel_requested: Cell::new(false),
            message: ObjCell::new(None),
        },
        true,
    )?;
    if home.is_debug() {
        future::remember_source(outer.inst().up())?;
    }
    collect(home.inst(), &outer, args.positional())
}

fn collect(home: Inst<'_, LoopBase>, outer: &Own<Gather>, awaitables: &[Ref<'_>]) -> PyRes<Obj> {
    let mut seen: HashMap<*mut rondel_ffi::private::RawObject, usize> = HashMap::new();
    let mut distinct = 0;
    let mut done = Vec::new();
    for (i, awaitable) in awaitables.iter().enumerate() {
        let twin = if awaitables.len() <= FEW {
            awaitables[..i]
                .iter()
                .position(|earlier| earlier.is(*awaitable))
        } else if awaitable.refcount() == 1 {
            // One reference, the call's: it stands here and nowhere else. So do the coroutines of a
            // crowd that is made for the call, and a table of them costs 80 ns for each.
            None
        } else {
            seen.insert(awaitable.as_ptr(), i)
        };
        if let Some(twin) = twin {
            let child = outer.children.borrow()[twin].clone();
            outer.children.borrow_mut().push(child);
            continue;
        }
        let child = match native_child(home, *awaitable)? {
            Ok(child) => child,
            Err(other) => return hand_over(outer, awaitables, i, other),
        };
        distinct += 1;
        if cfg!(Py_3_12) && child.done() {
            // From 3.12 on, children that are done already count before gather returns.
            done.push(child.clone());
        } else {
            future::add_callback(child.inst(), Callback::Gather(outer.clone()))?;
        }
        outer.children.borrow_mut().push(child);
    }
    outer.expected.set(distinct);
    for child in done {
        child_done(outer.clone(), child)?;
    }
    Ok(outer.obj().own())
}

/// The awaitable as a native future of this loop; or, when it is or becomes some other future, that.
#[inline(always)]
fn native_child(home: Inst<'_, LoopBase>, awaitable: Ref<'_>) -> PyRes<Result<Own<Future>, Obj>> {
    let fresh = call::is_coroutine(awaitable) || awaitable.exact::<super::sleep::Sleep>().is_some();
    let made = if fresh {
        event_loop::create_task_with(home, awaitable, task::Options::default())?
    } else {
        super::functions::ensure(home, awaitable)?
    };
    if !made.borrow().is(awaitable)
        && let Some(task) = made.borrow().cast::<Task>()
    {
        // The caller can't reach this task: a pending end is not its fault.
        task.log_destroy_pending.set(false);
    }
    let native = made.borrow().exact::<Task>().is_some()
        || made.borrow().exact::<Future>().is_some()
        || made.borrow().exact::<Gather>().is_some();
    if !native {
        return Ok(Err(made));
    }
    let same_loop = match made.borrow().cast::<Task>() {
        Some(task) => task
            .fut()
            .home
            .peek()
            .is_some_and(|h| h.obj().is(home.obj())),
        None => match made.borrow().exact::<Gather>() {
            Some(gather) => gather
                .fut()
                .home
                .peek()
                .is_some_and(|h| h.obj().is(home.obj())),
            None => made
                .borrow()
                .exact::<Future>()
                .is_some_and(|f| f.home.peek().is_some_and(|h| h.obj().is(home.obj()))),
        },
    };
    if !same_loop {
        return Ok(Err(made));
    }
    Ok(match made.into_exact::<Task>() {
        Ok(task) => Ok(task.up()),
        Err(obj) => match obj.into_exact::<Gather>() {
            Ok(gather) => Ok(gather.up()),
            Err(obj) => obj.into_exact::<Future>(),
        },
    })
}

/// A child that is not native: asyncio's gather takes over, with the futures made so far.
#[cold]
fn hand_over(outer: &Own<Gather>, awaitables: &[Ref<'_>], at: usize, other: Obj) -> PyRes<Obj> {
    let made: Vec<Obj> = outer
        .children
        .borrow()
        .iter()
        .map(|c| c.obj().own())
        .collect();
    let mut args: Vec<Ref<'_>> = made.iter().map(Obj::borrow).collect();
    args.push(other.borrow());
    args.extend_from_slice(&awaitables[at + 1..]);
    let flag = Obj::bool(outer.return_exceptions.get());
    args.push(flag.borrow());
    let names = value::tuple([names().return_exceptions.clone()])?;
    // Our own callbacks on the children stay and do nothing: this gather expects none of them.
    call::call_kw(stock().gather.borrow(), &args, names.borrow())
}

/// A child is done (asyncio's `_done_callback`).
pub(crate) fn child_done(outer: Own<Gather>, child: Own<Future>) -> PyRes<()> {
    outer.finished.set(outer.finished.get() + 1);
    if outer.fut().done() || outer.expected.get() == 0 {
        if outer.fut().done() && child.state.get() == State::Failed {
            child.log_traceback.set(false);
        }
        return Ok(());
    }
    if !outer.return_exceptions.get() && child.state.get() != State::Finished {
        if let Err(exc) = future::outcome(child.inst())? {
            return future::fail(outer.inst().up(), exc);
        }
    }
    if outer.finished.get() < outer.expected.get() {
        return Ok(());
    }
    let children: Vec<Own<Future>> = outer.children.borrow().clone();
    let list = value::list_with(children.len())?;
    for (i, each) in children.iter().enumerate() {
        value::list_init(list.borrow(), i, result_of(each)?);
    }
    if outer.cancel_requested.get() {
        // The request is honoured whatever return_exceptions says.
        let last = children.last().map_or_else(|| child.clone(), Clone::clone);
        let exc = future::make_cancelled_error(last.inst())?;
        return future::fail(outer.inst().up(), exc);
    }
    future::finish(outer.inst().up(), State::Finished, Some(list))
}

/// A child's entry in the results: its value, or its exception as a value.
#[inline(always)]
fn result_of(child: &Own<Future>) -> PyRes<Obj> {
    match child.state.get() {
        State::Finished => Ok(child.result.get().unwrap_or_else(Obj::none)),
        State::Failed => {
            child.log_traceback.set(false);
            Ok(child.result.get().unwrap_or_else(Obj::none))
        }
        State::Cancelled => {
            let message = match child.cancel_message().filter(|m| !m.is_none()) {
                Some(message) => message,
                None => value::str("")?,
            };
            call::call1(crate::consts::cancelled_class(), message.borrow())
        }
        State::Pending => Err(crate::consts::invalid_state("Result is not set.")),
    }
}

/// `gather.cancel(msg)`: cancels the children; they decide.
pub(crate) fn cancel(outer: Inst<'_, Gather>, message: Option<Obj>) -> PyRes<bool> {
    if outer.fut().done() {
        return Ok(false);
    }
    let children: Vec<Own<Future>> = outer.children.borrow().clone();
    let mut any = false;
    for child in children {
        any |= future::cancel_any(child.inst(), message.clone())?;
    }
    if any {
        outer.cancel_requested.set(true);
    }
    Ok(any)
}

fn cancel_method(slf: Inst<'_, Gather>, args: Args<'_>) -> PyRes<Obj> {
    let [message] = args.bind("cancel", [names().msg.borrow()], 0, 1)?;
    Ok(Obj::bool(cancel(
        slf,
        message.and_then(Ref::not_none).map(Ref::own),
    )?))
}

fn set_result(slf: Inst<'_, Gather>, result: Ref<'_>) -> PyRes<Obj> {
    if slf.fut().done() {
        return Err(crate::consts::invalid_state("invalid state"));
    }
    future::finish(slf.up(), State::Finished, Some(result.own()))?;
    Ok(Obj::none())
}

fn set_exception(slf: Inst<'_, Gather>, exc: Ref<'_>) -> PyRes<Obj> {
    if slf.fut().done() {
        return Err(crate::consts::invalid_state("invalid state"));
    }
    let exc = if exc.is_exception_class() {
        call::call0(exc)?
    } else {
        exc.own()
    };
    if !exc.borrow().is_exception() {
        return Err(Builtin::Type.raise("invalid exception object"));
    }
    future::fail(slf.up(), exc)?;
    Ok(Obj::none())
}

fn get_children(slf: Inst<'_, Gather>) -> PyRes<Obj> {
    let children: Vec<Own<Future>> = slf.children.borrow().clone();
    let list = value::list_with(children.len())?;
    for (i, child) in children.into_iter().enumerate() {
        value::list_init(list.borrow(), i, child.into_obj());
    }
    Ok(list)
}

fn repr(slf: Inst<'_, Gather>) -> PyRes<Obj> {
    call::call1(stock().future_repr.borrow(), slf.obj())
}

pub(crate) fn build(place: Placement) -> PyRes<Obj> {
    let builder = TypeBuilder::<Gather>::new(c"rondel._GatheringFuture").extends::<Future>();
    let mut builder = if place.over {
        builder
            .over(vec![Future::type_object().own()], place.rest)
            .stamp(STOCK_STATE.0, STOCK_STATE.1)
    } else {
        builder.behind(stock().future.clone(), place.rest)
    };
    builder = builder
        .methods(future::future_methods())
        .method(method::fast::<Gather, _>(
            c"cancel",
            c"Cancel all children.",
            cancel_method,
        ))
        .method(method::onearg::<Gather, _>(
            c"set_result",
            c"Mark the future done and set its result.",
            set_result,
        ))
        .method(method::onearg::<Gather, _>(
            c"set_exception",
            c"Mark the future done and set an exception.",
            set_exception,
        ))
        .method(future::class_getitem_def())
        .properties(future::future_properties())
        .property(method::getter::<Gather, _>(c"_children", get_children))
        .with(method::unary::<Gather, _>(Unary::Repr, repr));
    future::awaited(builder).build()
}
