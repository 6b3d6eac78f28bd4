//! One step of a task: resume the coroutine, then act on what came out.

use super::{Task, Waiter, cancel, is_cancelled, methods};
use crate::consts::{names, stock};
use crate::event_loop::{self, Due, LoopBase, Ready};
use crate::future::{self, AsFuture, Callback, Future, State};
use crate::handle::ends_loop;
use crate::inspect::record;
use crate::meter;
use crate::primitives::gather::Gather;
use crate::primitives::sleep::Sleep;
use crate::watch;
use rondel_ffi::call::{self, Sent};
use rondel_ffi::class::track;
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::method::Reuse;
use rondel_ffi::{Inst, Obj, Own, PyRes, Raised, Ref, value};

/// Steps a task on its Rondel loop. An error ends the loop (KeyboardInterrupt, SystemExit).
#[inline(always)]
pub(crate) fn step(home: Inst<'_, LoopBase>, task: Own<Task>, thrown: Option<Obj>) -> PyRes<()> {
    take(home, task, thrown, &Unrecorded)
}

/// The same for a loop that records its entries.
#[inline(always)]
pub(crate) fn step_recorded(
    home: Inst<'_, LoopBase>,
    task: Own<Task>,
    thrown: Option<Obj>,
) -> PyRes<()> {
    take(home, task, thrown, &Entry)
}

/// A step that is no entry of the ready queue.
fn step_within(home: Inst<'_, LoopBase>, task: Own<Task>, thrown: Option<Obj>) -> PyRes<()> {
    if record::on() {
        take(home, task, thrown, &Within)
    } else {
        step(home, task, thrown)
    }
}

/// Who hears of a step.
trait Recorder {
    fn begins(&self, _home: Inst<'_, LoopBase>, _task: Inst<'_, Task>) {}
    /// What it has come to, before that is acted upon.
    fn end(&self, _task: Inst<'_, Task>, _sent: &Sent) -> Option<record::End> {
        None
    }
    fn over(&self, _home: Inst<'_, LoopBase>, _end: &record::End) {}
}

struct Unrecorded;
impl Recorder for Unrecorded {}

struct Entry;
impl Recorder for Entry {
    #[inline(always)]
    fn begins(&self, home: Inst<'_, LoopBase>, task: Inst<'_, Task>) {
        record::step_begins(home, task);
    }
    #[inline(always)]
    fn end(&self, task: Inst<'_, Task>, sent: &Sent) -> Option<record::End> {
        Some(record::End::of(task, sent))
    }
    #[inline(always)]
    fn over(&self, home: Inst<'_, LoopBase>, end: &record::End) {
        end.tell(home);
    }
}

struct Within;
impl Recorder for Within {
    fn begins(&self, _home: Inst<'_, LoopBase>, task: Inst<'_, Task>) {
        record::inner_begins(task);
    }
    fn end(&self, task: Inst<'_, Task>, sent: &Sent) -> Option<record::End> {
        Some(record::End::of(task, sent))
    }
    fn over(&self, _home: Inst<'_, LoopBase>, end: &record::End) {
        end.tell_within();
    }
}

#[inline(always)]
fn take(
    home: Inst<'_, LoopBase>,
    task: Own<Task>,
    thrown: Option<Obj>,
    recorder: &impl Recorder,
) -> PyRes<()> {
    if task.fut().done() {
        return already_done(home, task.inst());
    }
    let Some(context) = task.context.peek() else {
        return Ok(());
    };
    if let Err(raised) = home.enter(context) {
        return not_entered(home, task.inst(), raised);
    }
    let (thrown, _waited) = to_throw(task.inst(), thrown)?;
    event_loop::begin_step(home, task.obj())?;
    let current = Current(home);
    // Emptied when the step is settled: what goes by that may run Python code.
    let _values = Reuse::begin();
    if meter::open() {
        meter::step_begins(home, task.obj());
    }
    recorder.begins(home, task.inst());
    let sent = resume(task.inst(), thrown);
    let end = recorder.end(task.inst(), &sent);
    drop(current);
    home.callback_over();
    let settled = settle(Some(home), task, sent);
    if let Some(end) = end {
        recorder.over(home, &end);
    }
    settled
}

/// Ends the step's being current however it ends: the loop only borrows the task.
struct Current<'a>(Inst<'a, LoopBase>);

impl Drop for Current<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        event_loop::end_step(self.0);
    }
}

/// Steps a task whose foreign future has called it: at once when its loop has, else on its loop.
pub(super) fn woken(
    home: Inst<'_, LoopBase>,
    task: Inst<'_, Task>,
    thrown: Option<Obj>,
) -> PyRes<()> {
    let here = event_loop::running().is_some_and(|running| running.obj().is(home.obj()));
    if !here {
        // A future that calls back in its own thread: asyncio would step the task there.
        home.check_open()?;
        home.push(match thrown {
            Some(exc) => Ready::Throw(task.own(), exc),
            None => Ready::Step(task.own()),
        });
        home.wake();
        return Ok(());
    }
    if let Some(current) = event_loop::current_task(home)? {
        let (task, current) = (value::repr(task.obj())?, value::repr(current.borrow())?);
        return Err(Builtin::Runtime.raise(&format!(
            "Cannot enter into task {task} while another task {current} is being executed."
        )));
    }
    step_within(home, task.own(), thrown)
}

/// Steps a task of another loop; called by that loop with the task's context entered.
pub(super) fn step_foreign(task: Own<Task>, thrown: Option<Obj>) -> PyRes<()> {
    if task.fut().done() {
        return Err(crate::consts::invalid_state("__step(): already done"));
    }
    let Some(loop_) = task.fut().loop_obj() else {
        return Ok(());
    };
    let (thrown, _waited) = to_throw(task.inst(), thrown)?;
    let tasks = call::import(c"asyncio.tasks")?;
    let enter = call::getattr(tasks.borrow(), value::intern(c"_enter_task")?.borrow())?;
    let leave = call::getattr(tasks.borrow(), value::intern(c"_leave_task")?.borrow())?;
    let _none = call::call(enter.borrow(), &[loop_.borrow(), task.obj()])?;
    let sent = resume(task.inst(), thrown);
    let outcome = settle(None, task.clone(), sent);
    // What ends the loop has to survive the call below.
    let pending = outcome.err().map(Raised::fetch);
    let left = call::call(leave.borrow(), &[loop_.borrow(), task.obj()]);
    match pending {
        Some(exc) => Err(err::raise_instance(exc.borrow())),
        None => left.map(|_none| ()),
    }
}

/// An eager task's first step, inside its creator's: the creator's context and current task are put
/// aside and back.
pub(super) fn eager(home: Inst<'_, LoopBase>, task: Own<Task>) -> PyRes<()> {
    let outer_task = event_loop::current_task(home)?;
    let outer_context = home.suspend_context();
    // What was published of the outer task would pass for the inner one's.
    event_loop::end_step(home);
    task.eager.set(true);
    let outcome = step_within(home, task.clone(), None);
    task.eager.set(false);
    if task.fut().done() && cfg!(Py_3_12) {
        // As asyncio: what has ended before anybody saw it keeps no coroutine. (3.11 has no eager
        // tasks, and its repr needs the coroutine.)
        task.coro.set(Some(Obj::none()));
    }
    let pending = outcome.err().map(Raised::fetch);
    home.leave()?;
    home.resume_context(outer_context);
    if let Some(outer) = outer_task {
        let current = outer;
        // It is being executed further up, and so is kept alive there.
        event_loop::begin_step(home, current.borrow())?;
        if meter::open() {
            meter::step_goes_on(home, current.borrow());
        }
    }
    match pending {
        Some(exc) => Err(err::raise_instance(exc.borrow())),
        None => Ok(()),
    }
}

/// What a task has waited for, held while it goes on, as asyncio's call of the wake-up holds it.
pub(super) struct Waited(Option<Own<Future>>);

impl Drop for Waited {
    #[inline(always)]
    fn drop(&mut self) {
        // A task that nobody but its waiter knew when it ended was not shown to the collector
        // (`keep_collectable`). Whoever still refers to it now keeps it.
        if let Some(waited) = &self.0
            && waited.refcount() > 1
        {
            track(waited.inst());
        }
    }
}

/// What the step must throw: the awaited future's exception, a cancelled sleep, a requested cancel.
#[inline(always)]
pub(super) fn to_throw(task: Inst<'_, Task>, thrown: Option<Obj>) -> PyRes<(Option<Obj>, Waited)> {
    let held = Waited(task.waiter.take_future());
    let mut thrown = thrown;
    if let Some(waited) = &held.0 {
        let state = waited.state.get();
        if thrown.is_none() && state != State::Finished && state != State::Pending {
            thrown = future::outcome(waited.inst())?.err();
        }
    } else if !task.waiter.is_nothing()
        && let Waiter::CancelledSleep(message) = task.waiter.take()
        && thrown.is_none()
    {
        thrown = Some(cancelled_error(message)?);
    }
    if task.must_cancel.get() {
        task.must_cancel.set(false);
        if !thrown
            .as_ref()
            .is_some_and(|exc| is_cancelled(exc.borrow()))
        {
            thrown = Some(future::make_cancelled_error(task.up())?);
        }
    }
    Ok((thrown, held))
}

fn cancelled_error(message: Option<Obj>) -> PyRes<Obj> {
    let class = crate::consts::cancelled_class();
    match message {
        None => call::call0(class),
        Some(message) => call::call1(class, message.borrow()),
    }
}

#[inline(always)]
pub(super) fn resume(task: Inst<'_, Task>, thrown: Option<Obj>) -> Sent {
    // The coroutine may drop the task's last outside reference, but not the step's.
    let Some(coro) = task.coro.get() else {
        return Sent::Returned(Obj::none());
    };
    match thrown {
        None => call::send_none(coro.borrow()),
        Some(exc) => call::throw(coro.borrow(), names().throw.borrow(), exc.borrow()),
    }
}

#[inline(always)]
pub(super) fn settle(home: Option<Inst<'_, LoopBase>>, task: Own<Task>, sent: Sent) -> PyRes<()> {
    match sent {
        Sent::Yielded(obj) => {
            track(task.inst());
            yielded(home, task, obj)
        }
        Sent::Returned(value) => {
            let slf = task.inst();
            let known = known_references(slf);
            let outcome = if slf.must_cancel.get() {
                // Cancelled in its last step, which awaited nothing more: the cancel wins.
                slf.must_cancel.set(false);
                future::finish(slf.up(), State::Cancelled, None)
            } else {
                future::finish(slf.up(), State::Finished, Some(value))
            };
            keep_collectable(&task, known);
            outcome
        }
        Sent::Raised(raised) => {
            let outcome = raised_out(task.inst(), raised);
            keep_collectable(&task, 1);
            outcome
        }
    }
}

/// How many references to a task that ends are accounted for: the step's, and if the one who waits
/// is a task, that task's `waiter` and its suspended frame. Those two are gone when it goes on, and
/// then [`Waited`] looks whether others are left: most tasks are awaited where they are made.
#[inline(always)]
fn known_references(task: Inst<'_, Task>) -> isize {
    let fut = task.fut();
    if fut.first.wakes() && fut.rare_opt().is_none() {
        3
    } else {
        1
    }
}

/// A finished task that others still refer to can be part of a cycle.
#[inline(always)]
fn keep_collectable(task: &Own<Task>, known: isize) {
    if task.refcount() > known {
        track(task.inst());
    }
}

#[cold]
fn raised_out(task: Inst<'_, Task>, raised: Raised) -> PyRes<()> {
    let exc = raised.fetch();
    if is_cancelled(exc.borrow()) {
        // The first to ask is given this very exception, others one without a message: asyncio's
        // `super().cancel()`, too, forgets what the request said.
        task.fut().set_cancel_message(None);
        task.fut().rare().cancelled_error.set(Some(exc));
        return future::finish(task.up(), State::Cancelled, None);
    }
    let ends = ends_loop(exc.borrow());
    let set = if err::exception_is(exc.borrow(), Builtin::StopIteration.class()) {
        // Can only come from a coroutine-like object: asyncio takes it as a return.
        future::finish(task.up(), State::Finished, Some(Obj::none()))
    } else {
        let alone = watch::on() && !ends && watch::nobody_waits(task.fut());
        let set = future::fail(task.up(), exc.clone());
        if alone && set.is_ok() {
            watch::failed_alone(task)
        } else {
            set
        }
    };
    set?;
    if ends {
        Err(err::raise_instance(exc.borrow()))
    } else {
        Ok(())
    }
}

#[inline(always)]
fn yielded(home: Option<Inst<'_, LoopBase>>, task: Own<Task>, obj: Obj) -> PyRes<()> {
    if obj.is_none() {
        return match home {
            Some(home) => {
                home.push(Ready::Step(task));
                Ok(())
            }
            None => methods::call_soon_step(task, None),
        };
    }
    if let Some(home) = home
        && let Some(sleep) = obj.borrow().exact::<Sleep>()
    {
        return match sleep.take_deadline() {
            Some(deadline) => asleep(home, task, deadline),
            None => bad_yield(Some(home), task, obj.borrow()),
        };
    }
    match into_native_future(obj) {
        Ok(waited) => wait_for(task, waited),
        Err(other) => yielded_other(home, task, other),
    }
}

/// One of our three future types, exactly. Python subclasses may override anything: they take the
/// general way.
#[inline(always)]
fn into_native_future(obj: Obj) -> Result<Own<Future>, Obj> {
    let obj = match obj.into_exact::<Future>() {
        Ok(future) => return Ok(future),
        Err(obj) => obj,
    };
    let obj = match obj.into_exact::<Task>() {
        Ok(task) => return Ok(task.up()),
        Err(obj) => obj,
    };
    obj.into_exact::<Gather>().map(Own::up)
}

fn asleep(home: Inst<'_, LoopBase>, task: Own<Task>, deadline: u64) -> PyRes<()> {
    let key = home.add_timer(deadline, Due::Awake(task.clone()));
    task.waiter.set(Waiter::Sleep(key));
    if task.must_cancel.get() {
        task.must_cancel.set(false);
        let message = task.fut().cancel_message();
        // The request was counted when it was made, and before 3.13 may have been taken back since.
        let counted = task.cancels.get();
        cancel(task.inst(), message)?;
        task.cancels.set(counted);
    }
    Ok(())
}

/// `sleep` is over: what setting its future's result does in asyncio.
pub(crate) fn awake(home: Inst<'_, LoopBase>, task: Own<Task>) -> PyRes<()> {
    match task.waiter.take() {
        Waiter::Sleep(_) => {
            task.waiter.set(Waiter::Rested);
            home.push(Ready::Step(task));
        }
        other => task.waiter.set(other),
    }
    Ok(())
}

#[inline(always)]
fn wait_for(task: Own<Task>, waited: Own<Future>) -> PyRes<()> {
    if !same_loop(task.inst(), &waited) || !waited.blocking.get() || waited.obj().is(task.obj()) {
        return misused(task, waited.into_obj());
    }
    waited.blocking.set(false);
    task.waiter.put_future(waited.clone());
    if !task.must_cancel.get() {
        return future::add_callback(waited.inst(), Callback::Wake(task));
    }
    future::add_callback(waited.inst(), Callback::Wake(task.clone()))?;
    if future::cancel_any(waited.inst(), task.fut().cancel_message())? {
        task.must_cancel.set(false);
    }
    Ok(())
}

#[inline(always)]
fn same_loop(task: Inst<'_, Task>, waited: &Own<Future>) -> bool {
    match (task.fut().home.peek(), waited.home.peek()) {
        (Some(a), Some(b)) => a.obj().is(b.obj()),
        (None, None) => {
            let (a, b) = (task.fut().loop_obj(), waited.loop_obj());
            a.zip(b).is_some_and(|(a, b)| a.borrow().is(b.borrow()))
        }
        _ => false,
    }
}

/// Something that is not ours, or a subclass of ours: asyncio's future protocol decides.
#[cold]
fn yielded_other(home: Option<Inst<'_, LoopBase>>, task: Own<Task>, obj: Obj) -> PyRes<()> {
    let blocking = match call::getattr_opt(obj.borrow(), names().asyncio_future_blocking.borrow()) {
        Ok(blocking) => blocking,
        Err(raised) => return throw_later(home, task, raised.fetch()),
    };
    let waits = match &blocking {
        Some(flag) if !flag.is_none() => flag.borrow().truthy()?,
        _ => return bad_yield(home, task, obj.borrow()),
    };
    if !waits || obj.borrow().is(task.obj()) {
        return misused(task, obj);
    }
    let foreign_loop = match loop_of(obj.borrow()) {
        Ok(found) => found,
        Err(raised) => return throw_later(home, task, raised.fetch()),
    };
    let own_loop = task.fut().loop_obj();
    if !own_loop
        .as_ref()
        .zip(foreign_loop.as_ref())
        .is_some_and(|(a, b)| a.borrow().is(b.borrow()))
    {
        return misused(task, obj);
    }
    call::setattr(
        obj.borrow(),
        names().asyncio_future_blocking.borrow(),
        Obj::bool(false).borrow(),
    )?;
    let wakeup = super::bound_wakeup(task.inst())?;
    let context = task.context.get().unwrap_or_else(Obj::none);
    let added = call::method_kw(
        names().add_done_callback.borrow(),
        &[obj.borrow(), wakeup.borrow(), context.borrow()],
        stock().kw_context.borrow(),
    );
    if let Err(raised) = added {
        return throw_later(home, task, raised.fetch());
    }
    task.waiter.set(Waiter::Other(obj.clone()));
    if task.must_cancel.get() && future::cancel_python(obj.borrow(), task.fut().cancel_message())? {
        task.must_cancel.set(false);
    }
    Ok(())
}

/// `futures._get_loop(fut)`.
fn loop_of(obj: Ref<'_>) -> PyRes<Option<Obj>> {
    match call::getattr_opt(obj, names().get_loop.borrow())? {
        Some(get_loop) => call::call0(get_loop.borrow()).map(Some),
        None => call::getattr_opt(obj, value::intern(c"_loop")?.borrow()),
    }
}

/// A future that can't be waited for: the reason is thrown into the coroutine, in asyncio's words.
#[cold]
fn misused(task: Own<Task>, obj: Obj) -> PyRes<()> {
    let task_text = value::repr(task.obj())?;
    let text = value::repr(obj.borrow())?;
    let message = if obj.borrow().is(task.obj()) {
        format!("Task cannot await on itself: {task_text}")
    } else {
        let other = loop_of(obj.borrow())?;
        let own = task.fut().loop_obj();
        if own
            .zip(other)
            .is_some_and(|(a, b)| a.borrow().is(b.borrow()))
        {
            format!("yield was used instead of yield from in task {task_text} with {text}")
        } else {
            format!("Task {task_text} got Future {text} attached to a different loop")
        }
    };
    let exc = call::call1(Builtin::Runtime.class(), value::str(&message)?.borrow())?;
    let home = task.fut().home.get();
    throw_later(home.as_ref().map(Own::inst), task, exc)
}

#[cold]
fn bad_yield(home: Option<Inst<'_, LoopBase>>, task: Own<Task>, obj: Ref<'_>) -> PyRes<()> {
    let task_text = value::repr(task.obj())?;
    let text = value::repr(obj)?;
    let message = if call::is_generator(obj) {
        format!(
            "yield was used instead of yield from for generator in task {task_text} with {text}"
        )
    } else {
        format!("Task got bad yield: {text}")
    };
    let exc = call::call1(Builtin::Runtime.class(), value::str(&message)?.borrow())?;
    throw_later(home, task, exc)
}

fn throw_later(home: Option<Inst<'_, LoopBase>>, task: Own<Task>, exc: Obj) -> PyRes<()> {
    match home {
        Some(home) => {
            home.push(Ready::Throw(task, exc));
            Ok(())
        }
        None => methods::call_soon_step(task, Some(exc)),
    }
}

/// Somebody ended the task over its coroutine's head (`Future.set_result(task, …)`).
#[cold]
fn already_done(home: Inst<'_, LoopBase>, task: Inst<'_, Task>) -> PyRes<()> {
    report(
        home,
        task,
        crate::consts::invalid_state("__step(): already done"),
    )
}

/// The task's context is entered elsewhere: as asyncio, the step is lost and reported.
#[cold]
fn not_entered(home: Inst<'_, LoopBase>, task: Inst<'_, Task>, raised: Raised) -> PyRes<()> {
    report(home, task, raised)
}

fn report(home: Inst<'_, LoopBase>, task: Inst<'_, Task>, raised: Raised) -> PyRes<()> {
    let exc = raised.fetch();
    let context = value::dict()?;
    let text = value::repr(task.obj())?;
    let message = value::str(&format!("Exception in callback step of {text}"))?;
    value::dict_set(context.borrow(), names().message.borrow(), message.borrow())?;
    value::dict_set(context.borrow(), names().exception.borrow(), exc.borrow())?;
    value::dict_set(context.borrow(), names().task.borrow(), task.obj())?;
    future::call_handler_in_except(home.obj(), context.borrow(), exc.borrow())
}
