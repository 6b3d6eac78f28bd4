//! Flow control of writing: the protocol is told to pause when more than the high-water mark is
//! queued, and to resume at the low one.

use super::{Transport, close, names};
use crate::consts::names;
use rondel_ffi::err::Builtin;
use rondel_ffi::method::Args;
use rondel_ffi::{Inst, Obj, PyRes, Ref, call, value};

/// Bytes; asyncio's default.
const HIGH_WATER: usize = 64 * 1024;

/// The marks of a new transport.
pub(in crate::net) fn set_default<T: Transport>(slf: Inst<'_, T>) {
    slf.rest().high_water.set(HIGH_WATER);
    slf.rest().low_water.set(HIGH_WATER / 4);
}

pub(super) fn int(number: usize) -> PyRes<Obj> {
    value::int(i64::try_from(number).unwrap_or(i64::MAX))
}

pub(super) fn get_write_buffer_size<T: Transport>(slf: Inst<'_, T>) -> PyRes<Obj> {
    int(slf.queued.get())
}

pub(super) fn get_write_buffer_limits<T: Transport>(slf: Inst<'_, T>) -> PyRes<Obj> {
    let rest = slf.rest();
    value::tuple([int(rest.low_water.get())?, int(rest.high_water.get())?])
}

/// `set_write_buffer_limits(high=None, low=None)`, in bytes.
pub(super) fn set_write_buffer_limits<T: Transport>(
    slf: Inst<'_, T>,
    args: Args<'_>,
) -> PyRes<Obj> {
    let own = names::own();
    let params = [own.high.borrow(), own.low.borrow()];
    let given = args.bind("set_write_buffer_limits", params, 0, 2)?;
    let [high, low] = given.map(|limit| limit.and_then(Ref::not_none));
    let [high, low] = [
        high.map(value::as_i64).transpose()?,
        low.map(value::as_i64).transpose()?,
    ];
    let high = match (high, low) {
        (Some(high), _) => high,
        (None, Some(low)) => low.saturating_mul(4),
        (None, None) => HIGH_WATER as i64,
    };
    // Rounded down, as Python divides; a negative `high` is refused below.
    let low = low.unwrap_or(high.div_euclid(4));
    match (usize::try_from(high), usize::try_from(low)) {
        (Ok(high_water), Ok(low_water)) if high_water >= low_water => {
            slf.rest().high_water.set(high_water);
            slf.rest().low_water.set(low_water);
            maybe_pause(slf)?;
            Ok(Obj::none())
        }
        _ => Err(Builtin::Value.raise(&format!(
            "high ({high}) must be >= low ({low}) must be >= 0"
        ))),
    }
}

/// Tells the protocol to pause when the queue has grown above the high-water mark.
#[inline(always)]
pub(in crate::net) fn maybe_pause<T: Transport>(slf: Inst<'_, T>) -> PyRes<()> {
    if slf.queued.get() <= slf.rest().high_water.get() || slf.protocol_paused.replace(true) {
        return Ok(());
    }
    tell(
        slf,
        &names().pause_writing,
        "protocol.pause_writing() failed",
    )
}

/// Tells it to resume when enough was sent. It may write more at once.
#[inline(always)]
pub(in crate::net) fn maybe_resume<T: Transport>(slf: Inst<'_, T>) -> PyRes<()> {
    if !slf.protocol_paused.get() || slf.queued.get() > slf.rest().low_water.get() {
        return Ok(());
    }
    slf.protocol_paused.set(false);
    tell(
        slf,
        &names().resume_writing,
        "protocol.resume_writing() failed",
    )
}

fn tell<T: Transport>(slf: Inst<'_, T>, method: &Obj, failure: &str) -> PyRes<()> {
    let Some(protocol) = slf.protocol.get() else {
        return Ok(());
    };
    match call::method(method.borrow(), [protocol.borrow()]) {
        Ok(_none) => Ok(()),
        Err(raised) => close::to_handler(slf, raised, failure),
    }
}
