//! Exceptions that nobody took, reported when their future goes away.

use super::{Future, Kind};
use crate::consts::names;
use crate::event_loop;
use rondel_ffi::{Inst, Obj, PyRes, Ref, call, err, value};

/// `Task exception was never retrieved`, through the loop's exception handler.
#[cold]
pub(super) fn never_retrieved(fut: Inst<'_, Future>) {
    fut.log_traceback.set(false);
    if let Err(raised) = report(fut) {
        raised.unraisable(Some(fut.obj()));
    }
}

fn report(fut: Inst<'_, Future>) -> PyRes<()> {
    let (Some(exc), Some(loop_)) = (fut.result.get(), fut.loop_obj()) else {
        return Ok(());
    };
    let class = type_name(fut)?;
    let context = value::dict()?;
    let message = value::str(&format!("{class} exception was never retrieved"))?;
    value::dict_set(context.borrow(), names().message.borrow(), message.borrow())?;
    value::dict_set(context.borrow(), names().exception.borrow(), exc.borrow())?;
    value::dict_set(context.borrow(), names().future.borrow(), fut.obj())?;
    if let Some(source) = fut.rare_opt().and_then(|r| r.source_traceback.get()) {
        value::dict_set(
            context.borrow(),
            names().source_traceback.borrow(),
            source.borrow(),
        )?;
    }
    crate::watch::add_origin(context.borrow(), fut.data())?;
    call_handler(loop_.borrow(), context.borrow())
}

/// The class's bare name: `Task`, `Future`, or the subclass's.
fn type_name(fut: Inst<'_, Future>) -> PyRes<String> {
    let name = call::getattr(fut.obj().type_of(), value::intern(c"__name__")?.borrow())?;
    let text = value::str_text(name.borrow())?;
    Ok(if fut.kind.get() == Kind::Gather {
        "_GatheringFuture".to_owned()
    } else {
        text
    })
}

/// `loop.call_exception_handler(context)`.
pub(crate) fn call_handler(loop_: Ref<'_>, context: Ref<'_>) -> PyRes<()> {
    // The handler runs in the context of what failed, which must not be the one that the loop still
    // has entered from the callback before.
    // Another thread's loop keeps its own.
    if let Some(home) = event_loop::running()
        && home.obj().is(loop_)
    {
        home.leave_between_callbacks()?;
    }
    let _none: Obj = call::method(names().call_exception_handler.borrow(), [loop_, context])?;
    Ok(())
}

/// The same for an exception that has just come out of a callback: it is being handled meanwhile, as
/// where asyncio catches it. `sys.exc_info()` has it, and an error of the handler's has it as context.
pub(crate) fn call_handler_in_except(loop_: Ref<'_>, context: Ref<'_>, exc: Ref<'_>) -> PyRes<()> {
    err::while_handling(exc, || call_handler(loop_, context))
}
