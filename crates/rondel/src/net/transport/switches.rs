//! The switches of reading: `pause_reading()`, `resume_reading()`, and the start.
//!
//! ```text
//!  Waiting ──_start_reading()──► Flowing ◄──resume_reading()── Paused
//!     └──────────────────────pause_reading()──────────────────────▲
//! ```

use super::{Life, Reading, Transport, close};
use crate::event_loop::LoopBase;
use rondel_ffi::method::{self, MethodDef};
use rondel_ffi::{Inst, Obj, PyRes};

/// A transport that gives its protocol what arrives, until it is told to pause.
pub(in crate::net) trait Reads: Transport {
    /// Lets it flow from now on: watches for it, or takes up what was missed.
    fn flow(home: Inst<'_, LoopBase>, slf: Inst<'_, Self>) -> PyRes<()>;

    /// It has flowed until now.
    fn paused(_home: Inst<'_, LoopBase>, _slf: Inst<'_, Self>) -> PyRes<()> {
        Ok(())
    }
}

/// `_start_reading()`: the callback after `connection_made`.
fn start_reading<T: Reads>(slf: Inst<'_, T>) -> PyRes<Obj> {
    if slf.life.get() == Life::Open
        && slf.reading.get() == Reading::Waiting
        && let Some(home) = slf.home.get()
    {
        T::flow(home.inst(), slf)?;
    }
    Ok(Obj::none())
}

pub(in crate::net) fn pause_reading<T: Reads>(slf: Inst<'_, T>) -> PyRes<Obj> {
    if slf.is_reading()
        && let Some(home) = slf.home.get()
    {
        if slf.reading.replace(Reading::Paused) == Reading::Flowing {
            T::paused(home.inst(), slf)?;
        }
        close::log_debug(home.inst(), slf, "pauses reading")?;
    }
    Ok(Obj::none())
}

pub(in crate::net) fn resume_reading<T: Reads>(slf: Inst<'_, T>) -> PyRes<Obj> {
    if slf.life.get() == Life::Open
        && slf.reading.get() == Reading::Paused
        && let Some(home) = slf.home.get()
    {
        T::flow(home.inst(), slf)?;
        close::log_debug(home.inst(), slf, "resumes reading")?;
    }
    Ok(Obj::none())
}

fn is_reading<T: Reads>(slf: Inst<'_, T>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.is_reading()))
}

/// What one has that can be read from.
pub(in crate::net) fn reading<T: Reads>() -> [MethodDef; 4] {
    [
        method::noargs::<T, _>(
            c"_start_reading",
            c"Let data flow to the protocol.",
            start_reading,
        ),
        method::noargs::<T, _>(
            c"pause_reading",
            c"Stop calling the protocol with data.",
            pause_reading,
        ),
        method::noargs::<T, _>(c"resume_reading", c"Undo pause_reading().", resume_reading),
        method::noargs::<T, _>(
            c"is_reading",
            c"Whether data goes to the protocol.",
            is_reading,
        ),
    ]
}
