//! The Python interface that all transports have. Each kind's `methods` adds its own.

use super::limits::{self, int};
use super::{Life, Reading, Transport, close, names};
use rondel_ffi::method::{self, Args, MethodDef, PropertyDef};
use rondel_ffi::{Inst, Obj, PyRes, Ref, value};

fn get_protocol<T: Transport>(slf: Inst<'_, T>) -> PyRes<Obj> {
    Ok(slf.protocol.get().unwrap_or_else(Obj::none))
}

fn is_closing<T: Transport>(slf: Inst<'_, T>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.life.get() != Life::Open))
}

/// `_polling()`: whether the loop would call on readability and on writability, for the repr.
fn polling<T: Transport>(slf: Inst<'_, T>) -> PyRes<Obj> {
    value::tuple([Obj::bool(slf.polls()), Obj::bool(slf.queued.get() > 0)])
}

/// asyncio's `_conn_lost`.
fn conn_lost<T: Transport>(slf: Inst<'_, T>) -> PyRes<Obj> {
    value::int(i64::from(slf.rest().lost_count.get()))
}

pub(in crate::net) fn get_extra_info<T: Transport>(slf: Inst<'_, T>, args: Args<'_>) -> PyRes<Obj> {
    let own = names::own();
    let params = [own.name.borrow(), own.default.borrow()];
    let [name, default] = args.bind("get_extra_info", params, 1, 2)?;
    if let (Some(extra), Some(name)) = (slf.rest().extra.get(), name)
        && let Some(found) = value::dict_get(extra.borrow(), name)?
    {
        return Ok(found.own());
    }
    Ok(default.map_or_else(Obj::none, Ref::own))
}

/// What any transport has.
pub(in crate::net) fn methods<T: Transport>() -> [MethodDef; 5] {
    [
        method::noargs::<T, _>(
            c"is_closing",
            c"Whether it is closing or closed.",
            is_closing,
        ),
        method::noargs::<T, _>(
            c"close",
            c"Close after sending what is queued.",
            close::close,
        ),
        method::onearg::<T, _>(
            c"_call_connection_lost",
            c"Tell the protocol that it is over.",
            close::call_connection_lost,
        ),
        method::noargs::<T, _>(c"get_protocol", c"The current protocol.", get_protocol),
        method::noargs::<T, _>(
            c"_polling",
            c"What the loop watches the descriptor for.",
            polling,
        ),
    ]
}

/// What one has that can be written to.
pub(in crate::net) fn writing<T: Transport>() -> [MethodDef; 4] {
    [
        method::noargs::<T, _>(c"abort", c"Close at once.", close::abort),
        method::noargs::<T, _>(
            c"get_write_buffer_size",
            c"How many bytes wait to be sent.",
            limits::get_write_buffer_size,
        ),
        method::noargs::<T, _>(
            c"get_write_buffer_limits",
            c"The low-water and high-water marks.",
            limits::get_write_buffer_limits,
        ),
        method::fast::<T, _>(
            c"set_write_buffer_limits",
            c"Set the high-water and low-water marks.",
            limits::set_write_buffer_limits,
        ),
    ]
}

/// State by asyncio's private names: any transport's.
pub(in crate::net) fn properties<T: Transport>() -> [PropertyDef; 3] {
    [
        method::getter::<T, _>(c"_loop", |slf: Inst<'_, T>| {
            Ok(slf
                .home
                .peek()
                .map_or_else(Obj::none, |home| home.obj().own()))
        }),
        method::getter::<T, _>(c"_protocol", get_protocol),
        method::getter::<T, _>(c"_closing", is_closing),
    ]
}

/// A reading one's.
pub(in crate::net) fn paused<T: Transport>(slf: Inst<'_, T>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.reading.get() == Reading::Paused))
}

/// A writing one's.
pub(in crate::net) fn writing_properties<T: Transport>() -> [PropertyDef; 4] {
    [
        method::getter::<T, _>(c"_conn_lost", conn_lost),
        method::getter::<T, _>(c"_protocol_paused", |slf: Inst<'_, T>| {
            Ok(Obj::bool(slf.protocol_paused.get()))
        }),
        method::getter::<T, _>(c"_high_water", |slf: Inst<'_, T>| {
            int(slf.rest().high_water.get())
        }),
        method::getter::<T, _>(c"_low_water", |slf: Inst<'_, T>| {
            int(slf.rest().low_water.get())
        }),
    ]
}
