//! A native task on a loop that is not Rondel's, as asyncio's tables know it.
//!
//! The tables are asyncio's private functions, of the Python that runs. GIL held, in the thread of
//! whoever makes the task.

use super::{Task, step};
use crate::future::AsFuture;
use rondel_ffi::err::{self, Raised};
use rondel_ffi::{Inst, Obj, PyRes, call, context, value};
use std::ffi::CStr;

fn table(name: &CStr) -> PyRes<Option<Obj>> {
    let tasks = call::import(c"asyncio.tasks")?;
    call::getattr_opt(tasks.borrow(), value::intern(name)?.borrow())
}

fn enlist(name: &CStr, task: Inst<'_, Task>) -> PyRes<()> {
    match table(name)? {
        Some(enlist) => call::call1(enlist.borrow(), task.obj()).map(|_none| ()),
        None => Ok(()),
    }
}

/// Adds the task to `all_tasks()`.
pub(super) fn register(task: Inst<'_, Task>) -> PyRes<()> {
    enlist(c"_register_task", task)
}

/// The first step of an eager task on a running loop, inside its creator's. False if there can be
/// none: the loop does not run, or this asyncio knows no eager tasks (3.11).
pub(super) fn start_eagerly(task: Inst<'_, Task>) -> PyRes<bool> {
    let (Some(loop_), Some(swap)) = (task.fut().loop_obj(), table(c"_swap_current_task")?) else {
        return Ok(false);
    };
    let is_running = value::intern(c"is_running")?;
    if !call::method(is_running.borrow(), [loop_.borrow()])?
        .borrow()
        .truthy()?
    {
        return Ok(false);
    }
    let outer = call::call(swap.borrow(), &[loop_.borrow(), task.obj()])?;
    let stepped = enlist(c"_register_eager_task", task).and_then(|()| {
        let stepped = first_step(task);
        then(stepped, || enlist(c"_unregister_eager_task", task))
    });
    let swapped = then(stepped, || {
        call::call(swap.borrow(), &[loop_.borrow(), outer.borrow()]).map(|_task| ())
    });
    then(swapped, || {
        if task.fut().done() {
            // As asyncio: what has ended before anybody saw it keeps no coroutine.
            task.coro.set(Some(Obj::none()));
            Ok(())
        } else {
            register(task)
        }
    })?;
    Ok(true)
}

fn first_step(task: Inst<'_, Task>) -> PyRes<()> {
    let Some(own) = task.context.get() else {
        return Ok(());
    };
    context::enter(own.borrow())?;
    task.eager.set(true);
    let stepped = step::to_throw(task, None).and_then(|(thrown, _waited)| {
        let sent = step::resume(task, thrown);
        step::settle(None, task.own(), sent)
    });
    task.eager.set(false);
    then(stepped, || context::exit(own.borrow()))
}

/// `try: … finally: last()`.
fn then(result: PyRes<()>, last: impl FnOnce() -> PyRes<()>) -> PyRes<()> {
    match result {
        Ok(()) => last(),
        Err(raised) => {
            let exc = Raised::fetch(raised);
            match last() {
                Ok(()) => Err(err::raise_instance(exc.borrow())),
                Err(raised) => {
                    let later = raised.fetch();
                    err::set_context(later.borrow(), exc);
                    Err(err::raise_instance(later.borrow()))
                }
            }
        }
    }
}
