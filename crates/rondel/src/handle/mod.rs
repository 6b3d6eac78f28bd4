//! Handle and TimerHandle: a callback with its arguments and its context, which can be cancelled.
//!
//! One payload serves both types. A handle sits on the ready queue or in the timers, which own it;
//! it owns nothing of the loop but a reference. After it has run it lets go of the callback, so a
//! handle kept by the user keeps nothing else alive. Watchers of descriptors run many times.
//!
//! Here are the payload, its making and its run; `methods` has what Python sees. With the GIL held.

mod methods;

pub(crate) use methods::{build, cancel_handle, context_keyword};

use crate::consts::names;
use crate::event_loop::{self, Due, LoopBase};
use crate::future::{self, call_handler_in_except};
use rondel_core::timers::TimerKey;
use rondel_ffi::class::{ObjCell, OwnCell, Visit, alloc_with, track};
use rondel_ffi::context::{ContextCell, Held};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::{
    Class, ClassCell, Extends, Inst, Obj, Own, PyRes, Raised, Ref, call, context, value,
};
use std::cell::Cell;

#[derive(Default)]
#[repr(C)]
pub(crate) struct Handle {
    pub(crate) home: OwnCell<LoopBase>,
    pub(crate) callback: ObjCell,
    /// Its variables alone, until it is needed ([`Handle::context`]).
    context: ContextCell,
    /// The first two arguments; `more` replaces them when there are others. Of a handle that was
    /// cancelled in debug mode, `first` is what it looked like: see [`Handle::remembered`].
    first: ObjCell,
    second: ObjCell,
    /// A tuple of all arguments, when there are more than two.
    more: ObjCell,
    /// Debug mode: where it was scheduled.
    source_traceback: ObjCell,
    timer: Cell<Option<TimerKey>>,
    /// Seconds on the loop's clock, for a timer.
    when: Cell<f64>,
    cancelled: Cell<bool>,
    /// Stays usable after it has run: a descriptor's watcher.
    lasting: Cell<bool>,
}

/// The same payload under the type that has `when()`.
#[derive(Default)]
#[repr(C)]
pub(crate) struct TimerHandle {
    handle: Handle,
}

// SAFETY: repr(C), a Handle first, both plain types with the payload right behind the header.
unsafe impl Extends<Handle> for TimerHandle {}

static CELL: ClassCell = ClassCell::new();
static TIMER_CELL: ClassCell = ClassCell::new();
static FREE: FreeList = FreeList::new();
static TIMER_FREE: FreeList = FreeList::new();

impl Class for Handle {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.home);
        for cell in [
            &self.callback,
            &self.context,
            &self.first,
            &self.second,
            &self.more,
            &self.source_traceback,
        ] {
            visit.cell(cell);
        }
    }
    fn clear(&self) {
        self.release();
        self.source_traceback.set(None);
        self.home.set(None);
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&FREE)
    }
}

impl Class for TimerHandle {
    fn cell() -> &'static ClassCell {
        &TIMER_CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        self.handle.traverse(visit);
    }
    fn clear(&self) {
        self.handle.clear();
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&TIMER_FREE)
    }
}

impl Handle {
    /// Lets go of the callback and all it holds.
    fn release(&self) {
        self.callback.set(None);
        self.context.set(None);
        self.first.set(None);
        self.second.set(None);
        self.more.set(None);
    }

    fn is_debug(&self) -> bool {
        self.home.peek().is_some_and(|home| home.is_debug())
    }

    /// Where it was scheduled, which is known in debug mode: a file and the number of a line.
    fn made_at(&self) -> PyRes<Option<(String, String)>> {
        let Some(stack) = self.source_traceback.get() else {
            return Ok(None);
        };
        let frames = value::len(stack.borrow())?;
        let last = frames.checked_sub(1);
        let Some(frame) = last.and_then(|last| value::item(stack.borrow(), last)) else {
            return Ok(None);
        };
        let part = |name: &Obj| {
            let part = call::getattr(frame.borrow(), name.borrow())?;
            value::str_text(value::to_str(part.borrow())?.borrow())
        };
        Ok(Some((part(&names().filename)?, part(&names().lineno)?)))
    }

    /// What a handle without a callback looked like when it was cancelled in debug mode.
    fn remembered(&self) -> Option<Obj> {
        let looks = self.first.get().filter(|_| self.cancelled.get());
        looks.filter(|_| self.callback.is_none())
    }

    /// The context, made of its variables when it is first asked for.
    fn context(&self) -> PyRes<Option<Obj>> {
        match self.context.get() {
            Some(context) if context::is_frozen(context.borrow()) => {
                let made = context::thaw(context)?;
                self.context.set(Some(made.clone()));
                Ok(Some(made))
            }
            known => Ok(known),
        }
    }

    fn args_tuple(&self) -> PyRes<Obj> {
        if let Some(more) = self.more.get() {
            return Ok(more);
        }
        match (self.first.get(), self.second.get()) {
            (None, _) => value::tuple([]),
            (Some(a), None) => value::tuple([a]),
            (Some(a), Some(b)) => value::tuple([a, b]),
        }
    }
}

/// A callback's arguments as a handle keeps them.
#[derive(Default)]
struct Kept {
    first: Option<Obj>,
    second: Option<Obj>,
    more: Option<Obj>,
}

impl Kept {
    #[inline(always)]
    fn new(args: &[Ref<'_>]) -> PyRes<Kept> {
        Ok(match args {
            [] => Kept::default(),
            [first] => Kept {
                first: Some(first.own()),
                ..Kept::default()
            },
            [first, second] => Kept {
                first: Some(first.own()),
                second: Some(second.own()),
                more: None,
            },
            _ => Kept {
                more: Some(value::tuple_of(args)?),
                ..Kept::default()
            },
        })
    }
}

#[inline(always)]
fn payload(home: Inst<'_, LoopBase>, callback: Obj, context: Obj, args: Kept, when: f64) -> Handle {
    Handle {
        home: OwnCell::new(Some(home.own())),
        callback: ObjCell::new(Some(callback)),
        context: ContextCell::new(Some(context)),
        first: ObjCell::new(args.first),
        second: ObjCell::new(args.second),
        more: ObjCell::new(args.more),
        source_traceback: ObjCell::new(None),
        timer: Cell::new(None),
        when: Cell::new(when),
        cancelled: Cell::new(false),
        lasting: Cell::new(false),
    }
}

fn remember_source(home: Inst<'_, LoopBase>, handle: &Handle) -> PyRes<()> {
    if home.is_debug() {
        let stack = call::call0(crate::consts::stock().extract_stack.borrow())?;
        handle.source_traceback.set(Some(stack));
    }
    Ok(())
}

/// A handle for `call_soon`.
#[inline(always)]
pub(crate) fn new(
    home: Inst<'_, LoopBase>,
    callback: Ref<'_>,
    args: &[Ref<'_>],
    context: Option<Ref<'_>>,
) -> PyRes<Own<Handle>> {
    let context = match context {
        Some(context) => context.own(),
        None => context::freeze_current()?,
    };
    // In a running loop a handle is gone in a moment; outside of one it may wait for ever, in a cycle
    // with the loop.
    let args = Kept::new(args)?;
    let handle = alloc_with(
        || payload(home, callback.own(), context, args, 0.0),
        !home.is_running(),
    )?;
    remember_source(home, &handle)?;
    Ok(handle)
}

/// A handle for a done future's callback.
#[inline(always)]
pub(crate) fn for_callback(
    home: Inst<'_, LoopBase>,
    function: Obj,
    future: Obj,
    context: Obj,
) -> PyRes<Own<Handle>> {
    if home.is_debug() {
        // asyncio calls `call_soon`, which checks.
        event_loop::debug_checks(home, Some(&function.borrow()), "call_soon", true)?;
    }
    let args = Kept {
        first: Some(future),
        ..Kept::default()
    };
    let handle = alloc_with(|| payload(home, function, context, args, 0.0), false)?;
    remember_source(home, &handle)?;
    Ok(handle)
}

/// A descriptor's watcher: stays whole however often it runs.
pub(crate) fn watcher(
    home: Inst<'_, LoopBase>,
    callback: Ref<'_>,
    args: &[Ref<'_>],
) -> PyRes<Own<Handle>> {
    let handle = new(home, callback, args, None)?;
    handle.lasting.set(true);
    // It lives long, refers to the loop and is referred to by it: the collector must know it.
    track(handle.inst());
    Ok(handle)
}

/// A handle in the timers, due at `when` seconds on the loop's clock.
pub(crate) fn timer(
    home: Inst<'_, LoopBase>,
    when: f64,
    callback: Ref<'_>,
    args: &[Ref<'_>],
    context: Option<Ref<'_>>,
) -> PyRes<Own<TimerHandle>> {
    let context = match context {
        Some(context) => context.own(),
        None => context::freeze_current()?,
    };
    let args = Kept::new(args)?;
    let handle = alloc_with(
        || TimerHandle {
            handle: payload(home, callback.own(), context, args, when),
        },
        true,
    )?;
    let base = handle.inst().up::<Handle>();
    remember_source(home, base.data())?;
    base.timer.set(Some(home.add_timer(
        crate::event_loop::seconds_to_ns(when),
        Due::Run(base.own()),
    )));
    Ok(handle)
}

/// Has a handle keep its callback when it runs, as asyncio's do, until [`let_go`] is told what this says.
pub(crate) fn keep(handle: Inst<'_, Handle>) -> bool {
    handle.lasting.replace(true)
}

/// A handle that has run lets go of its callback again, unless it is a watcher's.
pub(crate) fn let_go(handle: Inst<'_, Handle>, lasting: bool) {
    handle.lasting.set(lasting);
    // One that was cancelled has let go already, and shows what it looked like.
    if !lasting && !handle.cancelled.get() {
        handle.release();
    }
}

/// Runs the callback in its context. An error is the loop's end (KeyboardInterrupt, SystemExit, or
/// an exception handler that failed); other exceptions went to the handler.
#[inline(always)]
pub(crate) fn run(home: Inst<'_, LoopBase>, handle: Own<Handle>) -> PyRes<()> {
    handle.timer.set(None);
    if handle.cancelled.get() {
        return Ok(());
    }
    // A handle that nobody else has is emptied: the callback may reach it by a weak reference only,
    // and cancelling it must not free what is running.
    let alone = handle.refcount() == 1 && !handle.lasting.get();
    let hold = |cell: &ObjCell| if alone { cell.take() } else { cell.get() };
    let context = if alone {
        handle.context.take()
    } else {
        handle.context()?
    };
    let (Some(callback), Some(context)) = (hold(&handle.callback), context) else {
        return Ok(());
    };
    let args = [hold(&handle.first), hold(&handle.second)];
    if let [Some(result), None] = &args
        && let Some(set) = future::set_by(home, callback.borrow(), result.borrow())
    {
        let set = set.or_else(|raised| {
            handle.context.set(Some(context));
            failed(home, handle.inst(), raised)
        });
        if !handle.lasting.get() && handle.refcount() > 1 {
            handle.release();
        }
        return set;
    }
    let context = Held::new(context::thaw(context)?);
    let entered = home.enter(context.obj());
    let has_entered = entered.is_ok();
    let result = match entered {
        Ok(()) => match handle.more.get() {
            None => call::callback(
                callback.borrow(),
                args.each_ref().map(|a| a.as_ref().map(Obj::borrow)),
            ),
            Some(args) => call::call_tuple(callback.borrow(), args.borrow(), None),
        },
        Err(raised) => Err(raised),
    };
    home.callback_over();
    // Left before anything of the handle is dropped: a finalizer may want to enter it.
    let left = home.leave();
    let outcome = match result {
        Ok(_result) => Ok(()),
        Err(raised) => {
            if alone {
                let [first, second] = args;
                handle.callback.set(Some(callback));
                handle.first.set(first);
                handle.second.set(second);
            }
            // The exception handler is run in it, but not if it can't be entered.
            let own = || Some(context.obj().own());
            handle.context.set(if has_entered { own() } else { None });
            let told = failed(home, handle.inst(), raised);
            if !has_entered && !handle.cancelled.get() {
                handle.context.set(own());
            }
            told
        }
    };
    // The last reference: dropping it releases everything.
    if !handle.lasting.get() && handle.refcount() > 1 {
        handle.release();
    }
    outcome.and(left)
}

/// As an exception of a handle's callback, for one that was called without a handle.
#[cold]
pub(crate) fn failed_outside(
    home: Inst<'_, LoopBase>,
    callback: Ref<'_>,
    args: &[Ref<'_>],
    context: Ref<'_>,
    raised: Raised,
) -> PyRes<()> {
    let exc = raised.fetch();
    let handle = new(home, callback, args, Some(context))?;
    failed(home, handle.inst(), err::raise_instance(exc.borrow()))
}

#[cold]
fn failed(home: Inst<'_, LoopBase>, handle: Inst<'_, Handle>, raised: Raised) -> PyRes<()> {
    if raised.matches(Builtin::KeyboardInterrupt.class())
        || raised.matches(Builtin::SystemExit.class())
    {
        return Err(raised);
    }
    let exc = raised.fetch();
    let described = describe_callback(handle)?;
    let context = value::dict()?;
    let message = value::str(&format!("Exception in callback {described}"))?;
    value::dict_set(context.borrow(), names().message.borrow(), message.borrow())?;
    value::dict_set(context.borrow(), names().exception.borrow(), exc.borrow())?;
    value::dict_set(context.borrow(), names().handle.borrow(), handle.obj())?;
    if let Some(source) = handle.source_traceback.get() {
        value::dict_set(
            context.borrow(),
            names().source_traceback.borrow(),
            source.borrow(),
        )?;
    }
    call_handler_in_except(home.obj(), context.borrow(), exc.borrow())
}

/// `function(args) at file:line`, as asyncio formats it.
fn describe_callback(handle: Inst<'_, Handle>) -> PyRes<String> {
    let helpers = call::import(c"asyncio.format_helpers")?;
    let format = call::getattr(
        helpers.borrow(),
        value::intern(c"_format_callback_source")?.borrow(),
    )?;
    let callback = handle.callback.get().unwrap_or_else(Obj::none);
    let args = handle.args_tuple()?;
    // Since 3.13 arguments are shown in debug mode alone.
    let text = if cfg!(Py_3_13) {
        let keyword = value::tuple([names().debug.clone()])?;
        let shown = Obj::bool(handle.is_debug());
        let given = [callback.borrow(), args.borrow(), shown.borrow()];
        call::call_kw(format.borrow(), &given, keyword.borrow())
    } else {
        call::call(format.borrow(), &[callback.borrow(), args.borrow()])
    }?;
    value::str_text(text.borrow())
}

/// Whether a set exception ends the loop instead of going to the exception handler.
pub(crate) fn ends_loop(exc: Ref<'_>) -> bool {
    err::exception_is(exc, Builtin::KeyboardInterrupt.class())
        || err::exception_is(exc, Builtin::SystemExit.class())
}
