//! `timeout()` and `timeout_at()`: a deadline for a block, which cancels the task that entered it.
//!
//! ```text
//!  Created ─ aenter ─► Entered ─ deadline ─► Expiring ─ aexit ─► Expired
//!                         └────── aexit ───────────────────────► Exited
//! ```
//! A task that is not native, or that runs on another loop, is served by an `asyncio.Timeout` inside.

use crate::consts::{names, stock};
use crate::event_loop::{self, Due, LoopBase, Ready, now_seconds};
use crate::future::AsFuture;
use crate::primitives::immediate;
use crate::task::{self, Task};
use rondel_core::timers::TimerKey;
use rondel_ffi::call::Sent;
use rondel_ffi::class::{ObjCell, OwnCell, TypeBuilder, Visit, alloc_with};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::method::{self, Args, Unary};
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Ref, call, callable, value};
use std::cell::Cell;
use std::ffi::CStr;

#[derive(Clone, Copy, Default, PartialEq, Debug)]
enum Stage {
    #[default]
    Created,
    Entered,
    Expiring,
    Expired,
    Exited,
}

impl Stage {
    /// asyncio's word for it, in messages and in the repr.
    fn word(self) -> &'static str {
        match self {
            Stage::Created => "created",
            Stage::Entered => "active",
            Stage::Expiring => "expiring",
            Stage::Expired => "expired",
            Stage::Exited => "finished",
        }
    }
}

#[derive(Clone, Copy, Default)]
enum Alarm {
    #[default]
    Off,
    Timer(TimerKey),
    /// On the ready queue: the deadline was over when it was set.
    Queued,
}

pub(crate) struct Timeout {
    /// On the loop's clock, as it was given; empty for none, and while `delayed` says it.
    when: ObjCell,
    /// The deadline of `timeout(delay)`, of which `when()` makes the float. Not a number for none: an
    /// `Option` would be put together in two stores and moved in one load, which waits for them.
    delayed: Cell<f64>,
    task: OwnCell<Task>,
    stage: Cell<Stage>,
    /// `task.cancelling()` on entry.
    cancelling: Cell<u32>,
    alarm: Cell<Alarm>,
    /// Entries on the ready queue that a reschedule has made void.
    void: Cell<u32>,
    /// asyncio's own, which does it all for a task that is not ours.
    other: ObjCell,
}

static CELL: ClassCell = ClassCell::new();
static FREE: FreeList = FreeList::new();

impl Class for Timeout {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.when);
        visit.own(&self.task);
        visit.cell(&self.other);
    }
    fn clear(&self) {
        self.when.set(None);
        self.task.set(None);
        self.other.set(None);
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&FREE)
    }
}

impl Timeout {
    #[inline(always)]
    fn created(when: Option<Obj>, delayed: f64) -> Timeout {
        Timeout {
            when: ObjCell::new(when),
            delayed: Cell::new(delayed),
            task: OwnCell::default(),
            stage: Cell::new(Stage::Created),
            cancelling: Cell::new(0),
            alarm: Cell::new(Alarm::Off),
            void: Cell::new(0),
            other: ObjCell::default(),
        }
    }
}

impl Default for Timeout {
    fn default() -> Timeout {
        Timeout::created(None, f64::NAN)
    }
}

#[inline(always)]
fn new(when: Option<Obj>, delayed: f64) -> PyRes<Obj> {
    Ok(alloc_with(|| Timeout::created(when, delayed), true)?.into_obj())
}

/// `timeout(delay)`.
pub(super) fn timeout(args: Args<'_>) -> PyRes<Obj> {
    let delay = match args.positional() {
        [delay] if args.keyword_count() == 0 => Some(*delay),
        _ => args.bind("timeout", [names().delay.borrow()], 1, 1)?[0],
    };
    if !event_loop::steps_native_task()? {
        return call::call_args(stock().timeout.borrow(), &args);
    }
    match delay.and_then(Ref::not_none) {
        None => new(None, f64::NAN),
        Some(delay) => {
            let when = now_seconds() + value::as_f64(delay)?;
            if when.is_nan() {
                return new(Some(value::float(when)?), when);
            }
            new(None, when)
        }
    }
}

/// `timeout_at(when)`.
pub(super) fn timeout_at(args: Args<'_>) -> PyRes<Obj> {
    let [when] = args.bind("timeout_at", [names().when.borrow()], 1, 1)?;
    if !event_loop::steps_native_task()? {
        return call::call_args(stock().timeout_at.borrow(), &args);
    }
    new(when.and_then(Ref::not_none).map(Ref::own), f64::NAN)
}

fn init(slf: Inst<'_, Timeout>, args: Args<'_>) -> PyRes<()> {
    let [when] = args.bind("Timeout", [names().when.borrow()], 1, 1)?;
    set_when(slf, when.and_then(Ref::not_none));
    Ok(())
}

fn set_when(slf: Inst<'_, Timeout>, when: Option<Ref<'_>>) {
    slf.delayed.set(f64::NAN);
    slf.when.set(when.map(Ref::own));
}

/// The deadline as an object.
fn deadline(slf: Inst<'_, Timeout>) -> PyRes<Option<Obj>> {
    let seconds = slf.delayed.replace(f64::NAN);
    if !seconds.is_nan() {
        slf.when.set(Some(value::float(seconds)?));
    }
    Ok(slf.when.get())
}

/// The deadline in seconds on the loop's clock.
#[inline(always)]
fn deadline_seconds(slf: Inst<'_, Timeout>) -> PyRes<Option<f64>> {
    let seconds = slf.delayed.get();
    if !seconds.is_nan() {
        return Ok(Some(seconds));
    }
    let when = slf.when.get();
    when.map(|when| value::as_f64(when.borrow())).transpose()
}

/// A method of asyncio's own, if that is what serves the task.
fn by_other<const N: usize>(
    slf: Inst<'_, Timeout>,
    name: &CStr,
    args: [Ref<'_>; N],
) -> Option<PyRes<Obj>> {
    let other = slf.other.get()?;
    let method = value::intern(name).and_then(|name| call::getattr(other.borrow(), name.borrow()));
    Some(method.and_then(|method| call::call(method.borrow(), &args)))
}

/// The outcome of one of its coroutines, none of which ever suspends.
fn outcome(coroutine: PyRes<Obj>) -> PyRes<Obj> {
    match call::send_none(coroutine?.borrow()) {
        Sent::Returned(value) => Ok(value),
        Sent::Raised(raised) => Err(raised),
        Sent::Yielded(_) => Err(Builtin::Runtime.raise("asyncio's Timeout has suspended")),
    }
}

fn when(slf: Inst<'_, Timeout>) -> PyRes<Obj> {
    if let Some(when) = by_other(slf, c"when", []) {
        return when;
    }
    Ok(deadline(slf)?.unwrap_or_else(Obj::none))
}

fn expired(slf: Inst<'_, Timeout>) -> PyRes<Obj> {
    if let Some(expired) = by_other(slf, c"expired", []) {
        return expired;
    }
    Ok(Obj::bool(matches!(
        slf.stage.get(),
        Stage::Expiring | Stage::Expired
    )))
}

fn repr(slf: Inst<'_, Timeout>) -> PyRes<Obj> {
    if let Some(repr) = by_other(slf, c"__repr__", []) {
        return repr;
    }
    let mut info = String::new();
    if slf.stage.get() == Stage::Entered {
        info = match deadline_seconds(slf)? {
            Some(when) => {
                let rounded = (when * 1000.0).round() / 1000.0;
                format!(" when={}", value::repr(value::float(rounded)?.borrow())?)
            }
            None => " when=None".to_owned(),
        };
    }
    value::str(&format!("<Timeout [{}]{info}>", slf.stage.get().word()))
}

/// `reschedule(when)`.
fn reschedule(slf: Inst<'_, Timeout>, args: Args<'_>) -> PyRes<Obj> {
    let [when] = args.bind("Timeout.reschedule", [names().when.borrow()], 1, 1)?;
    let when = when.unwrap_or(slf.obj());
    if let Some(none) = by_other(slf, c"reschedule", [when]) {
        return none;
    }
    match slf.stage.get() {
        Stage::Entered => {}
        Stage::Created => return Err(Builtin::Runtime.raise("Timeout has not been entered")),
        stage => {
            return Err(
                Builtin::Runtime.raise(&format!("Cannot change state of {} Timeout", stage.word()))
            );
        }
    }
    set_when(slf, when.not_none());
    if let Some(home) = slf.task.get().and_then(|task| task.fut().home.get()) {
        clear_alarm(slf, home.inst());
        set_alarm(slf, home.inst())?;
    }
    Ok(Obj::none())
}

/// Takes the alarm back, wherever it is.
fn clear_alarm(slf: Inst<'_, Timeout>, home: Inst<'_, LoopBase>) {
    match slf.alarm.replace(Alarm::Off) {
        Alarm::Off => {}
        Alarm::Queued => slf.void.set(slf.void.get() + 1),
        Alarm::Timer(key) => match home.cancel_timer(key) {
            Some(due) => drop(due),
            // Due already: it waits on the ready queue.
            None => slf.void.set(slf.void.get() + 1),
        },
    }
}

/// Sets the alarm, which is off, for the deadline, if there is one.
#[inline(always)]
fn set_alarm(slf: Inst<'_, Timeout>, home: Inst<'_, LoopBase>) -> PyRes<()> {
    let Some(when) = deadline_seconds(slf)? else {
        return Ok(());
    };
    match event_loop::ahead(when) {
        Some(deadline) => {
            let key = home.add_timer(deadline, Due::Expire(slf.own()));
            slf.alarm.set(Alarm::Timer(key));
        }
        None => {
            home.push(Ready::Expire(slf.own()));
            slf.alarm.set(Alarm::Queued);
        }
    }
    Ok(())
}

/// The deadline has come (asyncio's `_on_timeout`).
pub(crate) fn expire(slf: Own<Timeout>) -> PyRes<()> {
    if slf.void.get() > 0 {
        slf.void.set(slf.void.get() - 1);
        return Ok(());
    }
    if slf.stage.get() != Stage::Entered {
        return Ok(());
    }
    slf.alarm.set(Alarm::Off);
    if let Some(task) = slf.task.get() {
        task::cancel(task.inst(), None)?;
    }
    slf.stage.set(Stage::Expiring);
    Ok(())
}

/// `__aenter__()`: acts when it is awaited, as the coroutine that asyncio has here.
#[inline(always)]
fn aenter(slf: Inst<'_, Timeout>, args: Args<'_>) -> PyRes<Obj> {
    if !args.is_empty() || args.keyword_count() > 0 {
        no_arguments(args)?;
    }
    immediate::entering(slf)
}

/// Apart, so that what calls it need not copy the arguments, whose words were just written one by one.
#[cold]
#[inline(never)]
fn no_arguments(args: Args<'_>) -> PyRes<()> {
    let [] = args.bind("Timeout.__aenter__", [], 0, 0)?;
    Ok(())
}

/// What the coroutine of `__aenter__()` does; gives the Timeout back.
#[inline(always)]
pub(super) fn enter(slf: Own<Timeout>) -> PyRes<Own<Timeout>> {
    if slf.stage.get() != Stage::Created || slf.other.is_some() {
        return Err(Builtin::Runtime.raise("Timeout has already been entered"));
    }
    let entered = event_loop::with_running(|running| match running {
        Some(home) => enter_on(slf.inst(), home),
        None => Ok(false),
    })?;
    if entered { Ok(slf) } else { enter_other(slf) }
}

/// Whether the loop's current task is one of ours, which has entered it then.
#[inline(always)]
fn enter_on(slf: Inst<'_, Timeout>, home: Inst<'_, LoopBase>) -> PyRes<bool> {
    let current = event_loop::current_task(home)?;
    let Some(task) = current.and_then(|task| task.into_cast::<Task>().ok()) else {
        return Ok(false);
    };
    slf.stage.set(Stage::Entered);
    slf.cancelling.set(task.cancels.get());
    slf.task.set(Some(task));
    set_alarm(slf, home)?;
    Ok(true)
}

#[cold]
fn enter_other(slf: Own<Timeout>) -> PyRes<Own<Timeout>> {
    let when = when(slf.inst())?;
    let other = call::call1(stock().timeout_class.borrow(), when.borrow())?;
    let enter = value::intern(c"__aenter__")?;
    let _other = outcome(call::method(enter.borrow(), [other.borrow()]))?;
    slf.other.set(Some(other));
    Ok(slf)
}

/// A deadline that the task has entered: `async with timeout(delay)` up to its body. Only for native
/// code: `when()` of it is none. A delay is positive.
#[inline(always)]
pub(super) fn entered(
    home: Inst<'_, LoopBase>,
    task: Own<Task>,
    delay: Option<f64>,
) -> PyRes<Own<Timeout>> {
    let guard = alloc_with(
        || Timeout {
            when: ObjCell::new(None),
            delayed: Cell::new(f64::NAN),
            stage: Cell::new(Stage::Entered),
            cancelling: Cell::new(task.cancels.get()),
            task: OwnCell::new(Some(task)),
            alarm: Cell::new(Alarm::Off),
            void: Cell::new(0),
            other: ObjCell::default(),
        },
        true,
    )?;
    if let Some(delay) = delay {
        let due = Due::Expire(guard.clone());
        let key = event_loop::add_deadline(home, now_seconds() + delay, due);
        guard.alarm.set(Alarm::Timer(key));
    }
    Ok(guard)
}

/// `__reduce__()`: one that has not been entered is its deadline.
fn reduce(slf: Inst<'_, Timeout>) -> PyRes<Obj> {
    if slf.stage.get() != Stage::Created || slf.other.is_some() {
        return Err(Builtin::Type.raise("a Timeout that was entered cannot be copied or pickled"));
    }
    let args = value::tuple([when(slf)?])?;
    value::tuple([slf.obj().type_of().own(), args])
}

/// `__aexit__(exc_type, exc, traceback)`.
fn aexit(slf: Inst<'_, Timeout>, args: Args<'_>) -> PyRes<Obj> {
    if slf.other.is_some() {
        return exit_other(slf, args);
    }
    left(slf, args.get(1).and_then(Ref::not_none))?;
    immediate::done()
}

#[cold]
#[inline(never)]
fn exit_other(slf: Inst<'_, Timeout>, args: Args<'_>) -> PyRes<Obj> {
    let [kind, exc, traceback] = [0, 1, 2].map(|at| args.get(at).unwrap_or(slf.obj()));
    match by_other(slf, c"__aexit__", [kind, exc, traceback]) {
        Some(exit) => immediate::immediate(outcome(exit)?),
        None => immediate::done(),
    }
}

/// The end of the block, by `exc` or without: raises what replaces it.
#[inline(always)]
pub(super) fn left(slf: Inst<'_, Timeout>, exc: Option<Ref<'_>>) -> PyRes<()> {
    if !matches!(slf.stage.get(), Stage::Entered | Stage::Expiring) {
        return Err(Builtin::Assertion.raise(""));
    }
    let Some(task) = slf.task.get() else {
        return Ok(());
    };
    if let Some(home) = task.fut().home.get() {
        clear_alarm(slf, home.inst());
    }
    if slf.stage.get() == Stage::Entered {
        slf.stage.set(Stage::Exited);
        return Ok(());
    }
    slf.stage.set(Stage::Expired);
    let left = task::uncancel_one(task.inst());
    let before = if stock().timeout_compares {
        slf.cancelling.get()
    } else {
        0
    };
    if left > before {
        return Ok(());
    }
    let Some(exc) = exc else {
        return Ok(());
    };
    let exact = exc.type_of().is(crate::consts::cancelled_class());
    if exact || (cfg!(Py_3_13) && task::is_cancelled(exc)) {
        if !stock().timeout_compares {
            return Err(super::hops::timeout_error_in(exc.own())?);
        }
        let timeout = super::hops::timeout_error_from(exc.own())?;
        return Err(err::raise_instance(timeout.borrow()));
    }
    if cfg!(Py_3_13) {
        insert_timeout_errors(exc)?;
    }
    Ok(())
}

/// 3.13: a CancelledError in the chain of another exception is explained by a TimeoutError.
#[cold]
fn insert_timeout_errors(exc: Ref<'_>) -> PyRes<()> {
    let insert = call::getattr(
        stock().timeout_class.borrow(),
        value::intern(c"_insert_timeout_error")?.borrow(),
    )?;
    let _none = call::call1(insert.borrow(), exc)?;
    let builtins = call::import(c"builtins")?;
    let group = call::getattr(
        builtins.borrow(),
        value::intern(c"ExceptionGroup")?.borrow(),
    )?;
    if exc.is_instance(group.borrow())? {
        let inner = call::getattr(exc, value::intern(c"exceptions")?.borrow())?;
        value::for_each(inner.borrow(), |each| {
            call::call1(insert.borrow(), each.borrow()).map(|_none| ())
        })?;
    }
    Ok(())
}

pub(crate) fn build() -> PyRes<Obj> {
    let class = TypeBuilder::<Timeout>::new(c"rondel.Timeout")
        .doc(
            c"Timeout(when)\n--\n\nAsynchronous context manager for cancelling overdue coroutines.",
        )
        .subclassable()
        .with(method::init::<Timeout, _>(init))
        .with(method::unary::<Timeout, _>(Unary::Repr, repr))
        .methods([
            method::noargs::<Timeout, _>(c"when", c"Return the deadline, or None.", when),
            method::fast::<Timeout, _>(
                c"reschedule",
                c"reschedule($self, /, when)\n--\n\nMove the deadline.",
                reschedule,
            ),
            method::noargs::<Timeout, _>(
                c"expired",
                c"Whether the deadline has come inside the block.",
                expired,
            ),
            method::noargs::<Timeout, _>(
                c"__reduce__",
                c"How to copy a timeout that has not been entered.",
                reduce,
            ),
        ])
        .weakrefs()
        .build()?;
    let like = |name| call::getattr(stock().timeout_class.borrow(), name);
    let (enter, exit) = (value::intern(c"__aenter__")?, value::intern(c"__aexit__")?);
    let made = callable::async_with_method::<Timeout, _>(aenter, like(enter.borrow())?.borrow())?;
    call::setattr(class.borrow(), enter.borrow(), made.borrow())?;
    let made = callable::async_with_method::<Timeout, _>(aexit, like(exit.borrow())?.borrow())?;
    call::setattr(class.borrow(), exit.borrow(), made.borrow())?;
    Ok(class)
}
