//! `shield`: a future of its own for each waiter, so that a cancel ends the wait and not the work.
//!
//! ```text
//!  inner ── Hop::ShieldInner(outer) ──► its outcome goes to outer
//!  outer ── Hop::ShieldOuter(inner) ──► cancelled first: the hop above is taken back
//! ```
//!
//! As `asyncio.tasks.shield` (Python docs, *Shielding From Cancellation*). An inner future that is not
//! ours is asyncio's to shield, and so is every one where asyncio's `shield` reports what an abandoned
//! inner future raises (later releases than those this was written against).

use super::functions;
use super::hops::Hop;
use crate::consts::{invalid_state, names, stock};
use crate::event_loop;
use crate::future::{self, Callback, Future, State};
use rondel_ffi::method::Args;
use rondel_ffi::{Inst, Obj, PyRes, call};

/// `shield(arg)`.
pub(super) fn shield(args: Args<'_>) -> PyRes<Obj> {
    let [arg] = args.bind("shield", [names().arg.borrow()], 1, 1)?;
    let (Some(arg), Some(home), false) = (arg, event_loop::running(), stock().shield_reports)
    else {
        return call::call_args(stock().shield.borrow(), &args);
    };
    let inner = functions::ensure(home.inst(), arg)?;
    let Some(native) = future::native(inner.borrow()) else {
        return call::call1(stock().shield.borrow(), inner.borrow());
    };
    if native.done() {
        return Ok(inner);
    }
    let Some(its_home) = native.home.get() else {
        return call::call1(stock().shield.borrow(), inner.borrow());
    };
    let outer = future::create(its_home.inst())?;
    future::add_callback(native, Callback::Hop(Hop::ShieldInner(outer.clone())))?;
    future::add_callback(outer.inst(), Callback::Hop(Hop::ShieldOuter(native.own())))?;
    Ok(outer.into_obj())
}

/// asyncio's `_inner_done_callback`.
pub(super) fn inner_done(outer: Inst<'_, Future>, inner: Inst<'_, Future>) -> PyRes<()> {
    if outer.state.get() == State::Cancelled {
        // Nobody waits any more: what it raised counts as retrieved.
        inner.log_traceback.set(false);
        return Ok(());
    }
    if inner.state.get() == State::Cancelled {
        future::cancel_plain(outer, None)?;
        return Ok(());
    }
    if outer.done() {
        // Somebody set the outcome of what shield() gave them.
        return Err(invalid_state("invalid state"));
    }
    let result = inner.result.get().unwrap_or_else(Obj::none);
    if inner.state.get() == State::Failed {
        inner.log_traceback.set(false);
        future::fail(outer, result)
    } else {
        future::finish(outer, State::Finished, Some(result))
    }
}

/// asyncio's `_outer_done_callback`.
pub(super) fn outer_done(inner: Inst<'_, Future>, outer: Inst<'_, Future>) -> PyRes<()> {
    if !inner.done() {
        let taken = future::take_hop(
            inner,
            |hop| matches!(hop, Hop::ShieldInner(found) if found.obj().is(outer.obj())),
        );
        drop(taken);
    }
    Ok(())
}
