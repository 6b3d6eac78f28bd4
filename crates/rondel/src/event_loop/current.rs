//! Which task is the loop's current one, and how asyncio gets to know.
//!
//! The current task is published lazily. Stock `asyncio.current_task()` looks it up in a dictionary
//! keyed by the loop; to look there it asks for the loop's hash, and that is when we write the entry. From
//! 3.14 on the interpreter keeps it in the thread's state, where it is put for each step. With the GIL
//! held, by the thread that runs the loop.

use super::LoopBase;
use crate::consts::stock;
use crate::meter;
use rondel_ffi::{Inst, Obj, PyRes, Ref, value};

/// Makes `task` the current one for the time of a step. The caller keeps it alive until [`end_step`],
/// which it calls however the step ends.
#[inline(always)]
pub(crate) fn begin_step(slf: Inst<'_, LoopBase>, task: Ref<'_>) -> PyRes<()> {
    if cfg!(Py_3_14)
        && let Some(swap) = &stock().swap_current_task
    {
        let _previous = rondel_ffi::call::call(swap.borrow(), &[slf.obj(), task])?;
    }
    slf.current.lend(task);
    Ok(())
}

#[inline(always)]
pub(crate) fn end_step(slf: Inst<'_, LoopBase>) {
    if slf.current_published.get() {
        let task = slf.current.get();
        // First: the look into asyncio's table asks for the loop's hash, which publishes what is there.
        slf.current.take_back();
        unpublish(slf);
        if meter::open()
            && let Some(task) = &task
        {
            meter::step_ends(task.borrow());
        }
    }
    slf.current.take_back();
    if cfg!(Py_3_14)
        && let Some(swap) = &stock().swap_current_task
    {
        let none = Obj::none();
        if let Err(raised) = rondel_ffi::call::call(swap.borrow(), &[slf.obj(), none.borrow()]) {
            raised.unraisable(None);
        }
    }
}

#[cold]
fn unpublish(slf: Inst<'_, LoopBase>) {
    slf.current_published.set(false);
    if let Some(table) = &stock().current_tasks
        && let Err(raised) = value::dict_discard(table.borrow(), slf.obj())
    {
        raised.unraisable(None);
    }
}

/// `hash(loop)`: by identity, publishing the current task first (see the module's doc).
pub(super) fn hash(slf: Inst<'_, LoopBase>) -> isize {
    publish(slf);
    // Objects are 16-byte aligned: rotate the dead bits away, as CPython does for pointers.
    (slf.obj().as_ptr() as usize).rotate_right(4) as isize
}

/// Writes the current task into asyncio's table, where the end of the step takes it out again.
pub(crate) fn publish(slf: Inst<'_, LoopBase>) {
    if !slf.current_published.get()
        && let (Some(task), Some(table)) = (slf.current.get(), &stock().current_tasks)
    {
        slf.current_published.set(true);
        if let Err(raised) = value::dict_set(table.borrow(), slf.obj(), task.borrow()) {
            raised.unraisable(Some(slf.obj()));
        }
    }
}
