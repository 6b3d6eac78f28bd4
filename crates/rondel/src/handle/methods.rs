//! The Python face of handles: methods, properties, order, and the scheduling calls' `context=`.
//!
//! All with the GIL held, from any thread.

use super::{Handle, TimerHandle, describe_callback, failed};
use crate::consts::names;
use rondel_ffi::class::TypeBuilder;
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::method::{self, Args, Comparison, Unary};
use rondel_ffi::{Class, Inst, Obj, PyRes, Raised, Ref, call, context, value};

fn cancel(slf: Inst<'_, Handle>) -> PyRes<Obj> {
    if !slf.cancelled.replace(true) {
        if let (Some(key), Some(home)) = (slf.timer.take(), slf.home.get()) {
            let due = home.cancel_timer(key);
            drop(due);
        }
        let looks = if slf.is_debug() {
            Some(look_of(slf)?)
        } else {
            None
        };
        slf.release();
        slf.first.set(looks);
    }
    Ok(Obj::none())
}

/// Cancels natively.
pub(crate) fn cancel_handle(handle: Inst<'_, Handle>) -> PyRes<()> {
    let _none = cancel(handle)?;
    Ok(())
}

fn cancelled(slf: Inst<'_, Handle>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.cancelled.get()))
}

fn when(slf: Inst<'_, Handle>) -> PyRes<Obj> {
    value::float(slf.when.get())
}

/// `handle._run()`: for callers that schedule handles themselves. It may be called inside another
/// callback, and in any thread: the context that the loop has entered for its own is left alone.
fn run_method(slf: Inst<'_, Handle>) -> PyRes<Obj> {
    let (Some(home), Some(callback), Some(context), false) = (
        slf.home.get(),
        slf.callback.get(),
        slf.context()?,
        slf.cancelled.get(),
    ) else {
        return Ok(Obj::none());
    };
    let args = slf.args_tuple()?;
    let result = context::enter(context.borrow()).and_then(|()| {
        let result = call::call_tuple(callback.borrow(), args.borrow(), None);
        let pending = result.map_err(Raised::fetch);
        context::exit(context.borrow())?;
        pending.map_err(|exc| err::raise_instance(exc.borrow()))
    });
    if let Err(raised) = result {
        failed(home.inst(), slf, raised)?;
    }
    Ok(Obj::none())
}

fn get_context(slf: Inst<'_, Handle>) -> PyRes<Obj> {
    Ok(slf.context()?.unwrap_or_else(Obj::none))
}

fn get_callback(slf: Inst<'_, Handle>) -> PyRes<Obj> {
    Ok(slf.callback.get().unwrap_or_else(Obj::none))
}

fn get_args(slf: Inst<'_, Handle>) -> PyRes<Obj> {
    if slf.callback.is_none() {
        Ok(Obj::none())
    } else {
        slf.args_tuple()
    }
}

fn get_loop(slf: Inst<'_, Handle>) -> PyRes<Obj> {
    Ok(slf
        .home
        .peek()
        .map_or_else(Obj::none, |home| home.obj().own()))
}

fn get_source_traceback(slf: Inst<'_, Handle>) -> PyRes<Obj> {
    Ok(slf.source_traceback.get().unwrap_or_else(Obj::none))
}

fn get_scheduled(slf: Inst<'_, Handle>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.timer.get().is_some()))
}

/// As asyncio's: what a handle looked like when it was cancelled in debug mode, or what it looks like.
fn repr(slf: Inst<'_, Handle>) -> PyRes<Obj> {
    slf.remembered().map_or_else(|| look_of(slf), Ok)
}

fn look_of(slf: Inst<'_, Handle>) -> PyRes<Obj> {
    let timer = slf.obj().exact::<TimerHandle>().is_some();
    let mut look = String::from(if timer { "<TimerHandle" } else { "<Handle" });
    if slf.cancelled.get() {
        look.push_str(" cancelled");
    }
    if timer {
        let when = value::float(slf.when.get())?;
        look.push_str(" when=");
        look.push_str(&value::repr(when.borrow())?);
    }
    if !slf.callback.is_none() {
        look.push(' ');
        look.push_str(&describe_callback(slf)?);
    }
    if let Some((file, line)) = slf.made_at()? {
        look.push_str(&format!(" created at {file}:{line}"));
    }
    look.push('>');
    value::str(&look)
}

/// Timers order by time, as asyncio's do; equal ones also have the same callback and arguments.
fn compare(slf: Inst<'_, TimerHandle>, other: Ref<'_>, op: Comparison) -> PyRes<Option<bool>> {
    let Some(other) = other.exact::<TimerHandle>() else {
        return Ok(None);
    };
    let (a, b) = (slf.up::<Handle>(), other.up::<Handle>());
    let (x, y) = (a.when.get(), b.when.get());
    let equal = || -> PyRes<bool> {
        let same = |p: Obj, q: Obj| p.borrow().equals(q.borrow());
        Ok(x == y
            && a.cancelled.get() == b.cancelled.get()
            && same(get_callback(a)?, get_callback(b)?)?
            && same(get_args(a)?, get_args(b)?)?)
    };
    Ok(Some(match op {
        Comparison::Less => x < y,
        Comparison::Greater => x > y,
        Comparison::LessEqual => x < y || equal()?,
        Comparison::GreaterEqual => x > y || equal()?,
        Comparison::Equal => equal()?,
        Comparison::NotEqual => !equal()?,
    }))
}

fn hash(slf: Inst<'_, TimerHandle>) -> isize {
    slf.up::<Handle>().when.get().to_bits() as isize
}

fn common<T: Class>(builder: TypeBuilder<T>) -> TypeBuilder<T> {
    builder
        .methods([
            method::noargs::<Handle, _>(c"cancel", c"Cancel the callback.", cancel),
            method::noargs::<Handle, _>(
                c"cancelled",
                c"Return True if the callback was cancelled.",
                cancelled,
            ),
            method::noargs::<Handle, _>(
                c"get_context",
                c"Return the contextvars.Context of the callback.",
                get_context,
            ),
            method::noargs::<Handle, _>(c"_run", c"Run the callback in its context.", run_method),
        ])
        .properties([
            method::getter::<Handle, _>(c"_callback", get_callback),
            method::getter::<Handle, _>(c"_args", get_args),
            method::getter::<Handle, _>(c"_context", get_context),
            method::getter::<Handle, _>(c"_loop", get_loop),
            method::getter::<Handle, _>(c"_source_traceback", get_source_traceback),
            method::getter::<Handle, _>(c"_cancelled", |slf: Inst<'_, Handle>| cancelled(slf)),
        ])
        .weakrefs()
}

/// `rondel.Handle` and `rondel.TimerHandle`.
pub(crate) fn build() -> PyRes<[Obj; 2]> {
    let handle = common(TypeBuilder::<Handle>::new(c"rondel.Handle"))
        .doc(c"A scheduled callback (Python docs: Callback Handles).")
        .with(method::unary::<Handle, _>(Unary::Repr, repr))
        .build()?;
    let timer = common(TypeBuilder::<TimerHandle>::new(c"rondel.TimerHandle"))
        .doc(c"A callback scheduled for a time of the loop's clock, in seconds.")
        .method(method::noargs::<Handle, _>(
            c"when",
            c"Return the scheduled time, in seconds.",
            when,
        ))
        .with(method::compare::<TimerHandle, _>(compare))
        .with(method::hash::<TimerHandle, _>(hash))
        .property(method::getter::<Handle, _>(c"_when", when))
        .property(method::getter::<Handle, _>(c"_scheduled", get_scheduled))
        .with(method::unary::<Handle, _>(Unary::Repr, repr))
        .build()?;
    Ok([handle, timer])
}

/// Takes `context=` out of a scheduling call's keywords.
pub(crate) fn context_keyword<'a>(func: &str, args: &Args<'a>) -> PyRes<Option<Ref<'a>>> {
    let mut context = None;
    for i in 0..args.keyword_count() {
        let (name, value) = args.keyword(i);
        if !value::str_is(name, names().context.borrow()) {
            let name = value::str_text(name)?;
            return Err(Builtin::Type.raise(&format!(
                "{func}() got an unexpected keyword argument '{name}'"
            )));
        }
        context = value.not_none();
    }
    Ok(context)
}
