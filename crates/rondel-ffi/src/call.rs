//! Calling Python: functions, methods, attributes, and resuming coroutines.

use crate::entry;
use crate::err::{Builtin, PyRes, Raised};
use crate::obj::{Obj, Ref};
use crate::refs;
use crate::value;
use pyo3::ffi;

const OFFSET: usize = ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;

/// What resuming a coroutine (or any awaitable's iterator) gave.
pub enum Sent {
    /// It suspended and yielded this.
    Yielded(Obj),
    /// It returned this.
    Returned(Obj),
    /// It raised.
    Raised(Raised),
}

/// `callable()`.
#[inline]
pub fn call0(callable: Ref<'_>) -> PyRes<Obj> {
    // SAFETY: alive; the result is a new reference or null with an error.
    unsafe { Obj::from_owned(entry::PyObject_CallNoArgs(callable.as_ptr())) }
}

/// `callable(arg)`.
#[inline]
pub fn call1(callable: Ref<'_>, arg: Ref<'_>) -> PyRes<Obj> {
    // SAFETY: as above.
    unsafe { Obj::from_owned(entry::PyObject_CallOneArg(callable.as_ptr(), arg.as_ptr())) }
}

/// `callable(*args)` with a slice of borrowed references.
#[inline]
pub fn call(callable: Ref<'_>, args: &[Ref<'_>]) -> PyRes<Obj> {
    // SAFETY: `Ref` is transparent over the pointer; no argument-offset flag, so CPython does not
    // write before the slice.
    unsafe {
        Obj::from_owned(entry::PyObject_Vectorcall(
            callable.as_ptr(),
            args.as_ptr().cast(),
            args.len(),
            std::ptr::null_mut(),
        ))
    }
}

/// `callable(*args, **kwargs)`: the last `names.len()` of `args` are keyword values.
pub fn call_kw(callable: Ref<'_>, args: &[Ref<'_>], names: Ref<'_>) -> PyRes<Obj> {
    // SAFETY: `names` is a tuple of str; its length is taken off the positional count.
    unsafe {
        let named = ffi::PyTuple_Size(names.as_ptr()) as usize;
        Obj::from_owned(entry::PyObject_Vectorcall(
            callable.as_ptr(),
            args.as_ptr().cast(),
            args.len() - named,
            names.as_ptr(),
        ))
    }
}

/// Forwards a vectorcall argument vector unchanged.
pub fn call_args(callable: Ref<'_>, args: &crate::method::Args<'_>) -> PyRes<Obj> {
    // SAFETY: the vector came from CPython for this very call.
    unsafe {
        Obj::from_owned(entry::PyObject_Vectorcall(
            callable.as_ptr(),
            args.raw(),
            args.len(),
            args.raw_names(),
        ))
    }
}

/// `callable(*tuple)`.
pub fn call_tuple(callable: Ref<'_>, args: Ref<'_>, kwargs: Option<Ref<'_>>) -> PyRes<Obj> {
    // SAFETY: `args` is a tuple, `kwargs` a dict or null.
    unsafe {
        Obj::from_owned(entry::PyObject_Call(
            callable.as_ptr(),
            args.as_ptr(),
            kwargs.map_or(std::ptr::null_mut(), Ref::as_ptr),
        ))
    }
}

/// `args[0].name(*args[1..])`. `name` is an interned str.
#[inline]
pub fn method<const N: usize>(name: Ref<'_>, args: [Ref<'_>; N]) -> PyRes<Obj> {
    // SAFETY: args[0] is the object; all alive for the call.
    unsafe {
        Obj::from_owned(entry::PyObject_VectorcallMethod(
            name.as_ptr(),
            args.as_ptr().cast(),
            N,
            std::ptr::null_mut(),
        ))
    }
}

/// As [`method`], the last `names.len()` of `args` being keyword values.
pub fn method_kw(name: Ref<'_>, args: &[Ref<'_>], names: Ref<'_>) -> PyRes<Obj> {
    // SAFETY: as in `call_kw`.
    unsafe {
        let named = ffi::PyTuple_Size(names.as_ptr()) as usize;
        Obj::from_owned(entry::PyObject_VectorcallMethod(
            name.as_ptr(),
            args.as_ptr().cast(),
            args.len() - named,
            names.as_ptr(),
        ))
    }
}

/// A callback's call with room before the first argument, which spares CPython a copy when it
/// binds a method.
#[inline(always)]
pub fn callback(callable: Ref<'_>, args: [Option<Ref<'_>>; 2]) -> PyRes<Obj> {
    let mut vector = [std::ptr::null_mut::<ffi::PyObject>(); 3];
    let mut count = 0;
    for arg in args.into_iter().flatten() {
        count += 1;
        vector[count] = arg.as_ptr();
    }
    // SAFETY: vector[0] is scratch space that the offset flag lets CPython use.
    unsafe {
        Obj::from_owned(entry::PyObject_Vectorcall(
            callable.as_ptr(),
            vector.as_ptr().add(1),
            count | OFFSET,
            std::ptr::null_mut(),
        ))
    }
}

/// What a native method is bound to, if `callable` is a bound method whose C function is `code`
/// ([`crate::method::MethodDef::code`]).
#[inline(always)]
pub fn native_self(callable: Ref<'_>, code: usize) -> Option<Ref<'_>> {
    // SAFETY: the type is checked before the fields are read; `self` lives as long as the method.
    unsafe {
        if !std::ptr::eq(callable.type_ptr(), &raw const ffi::PyCFunction_Type) {
            return None;
        }
        let function = callable.as_ptr().cast::<ffi::PyCFunctionObject>();
        let def = (*function).m_ml;
        if (*def).ml_meth.PyCFunction as usize != code || (*function).m_self.is_null() {
            return None;
        }
        Some(Ref::from_ptr((*function).m_self))
    }
}

/// `getattr(obj, name)`.
#[inline]
pub fn getattr(obj: Ref<'_>, name: Ref<'_>) -> PyRes<Obj> {
    // SAFETY: alive; name is a str.
    unsafe { Obj::from_owned(ffi::PyObject_GetAttr(obj.as_ptr(), name.as_ptr())) }
}

/// What a property gives for `obj`: `getattr` by a descriptor that was looked up before.
#[inline]
pub fn property(descriptor: Ref<'_>, obj: Ref<'_>) -> PyRes<Obj> {
    // SAFETY: both alive; the slot, if there is one, gives a new reference or null with an error, and
    // checks itself that the descriptor is for this object.
    unsafe {
        match (*descriptor.type_ptr()).tp_descr_get {
            Some(get) => {
                let ty = obj.type_ptr().cast();
                Obj::from_owned(get(descriptor.as_ptr(), obj.as_ptr(), ty))
            }
            None => Err(Builtin::Type.raise("a property was expected")),
        }
    }
}

/// `class.__new__(class)`.
pub fn blank(class: Ref<'_>) -> PyRes<Obj> {
    let none = value::tuple([])?;
    // SAFETY: alive; only a type has its slot looked at, which gives a new reference or null with an error.
    unsafe {
        let class = class.as_ptr();
        let new = if ffi::PyType_Check(class) != 0 {
            (*class.cast::<ffi::PyTypeObject>()).tp_new
        } else {
            None
        };
        match new {
            Some(new) => Obj::from_owned(new(class.cast(), none.as_ptr(), std::ptr::null_mut())),
            None => Err(Builtin::Type.raise("a class that makes instances was expected")),
        }
    }
}

/// `getattr(obj, name, None)`, with a missing attribute as `Ok(None)`.
pub fn getattr_opt(obj: Ref<'_>, name: Ref<'_>) -> PyRes<Option<Obj>> {
    match getattr(obj, name) {
        Ok(value) => Ok(Some(value)),
        Err(raised) if raised.matches(Builtin::Attribute.class()) => {
            raised.clear();
            Ok(None)
        }
        Err(raised) => Err(raised),
    }
}

/// `setattr(obj, name, value)`.
pub fn setattr(obj: Ref<'_>, name: Ref<'_>, value: Ref<'_>) -> PyRes<()> {
    // SAFETY: alive; name is a str.
    if unsafe { ffi::PyObject_SetAttr(obj.as_ptr(), name.as_ptr(), value.as_ptr()) } < 0 {
        Err(Raised::assert_set())
    } else {
        Ok(())
    }
}

/// Imports a module.
pub fn import(name: &std::ffi::CStr) -> PyRes<Obj> {
    // SAFETY: NUL-terminated.
    unsafe { Obj::from_owned(ffi::PyImport_ImportModule(name.as_ptr())) }
}

/// `from module import name`.
pub fn import_from(module: &std::ffi::CStr, name: &std::ffi::CStr) -> PyRes<Obj> {
    getattr(
        import(module)?.borrow(),
        crate::value::intern(name)?.borrow(),
    )
}

/// `obj.send(None)`, without the StopIteration exception when the object can do without.
#[inline(always)]
pub fn send_none(coro: Ref<'_>) -> Sent {
    let mut out = std::ptr::null_mut();
    // SAFETY: `coro` is alive and stays so for the call; `out` gets an owned reference.
    unsafe {
        let status = if std::ptr::eq(coro.type_ptr(), &raw const ffi::PyCoro_Type) {
            match coroutine_send() {
                Some(send) => entry::send(send, coro.as_ptr(), &mut out),
                None => entry::PyIter_Send(coro.as_ptr(), ffi::Py_None(), &mut out),
            }
        } else {
            entry::PyIter_Send(coro.as_ptr(), ffi::Py_None(), &mut out)
        };
        match status {
            ffi::PySendResult::PYGEN_RETURN => match Obj::from_owned_opt(out) {
                Some(value) => Sent::Returned(value),
                None => Sent::Returned(Obj::none()),
            },
            ffi::PySendResult::PYGEN_NEXT => match Obj::from_owned(out) {
                Ok(value) => Sent::Yielded(value),
                Err(raised) => Sent::Raised(raised),
            },
            ffi::PySendResult::PYGEN_ERROR => Sent::Raised(Raised::assert_set()),
        }
    }
}

/// The coroutine type's own `am_send`: saves PyIter_Send's look-up on every step.
#[inline(always)]
unsafe fn coroutine_send() -> Option<ffi::sendfunc> {
    // SAFETY: PyCoro_Type is a static, initialised type; its async slots never change.
    unsafe {
        let slots = ffi::PyCoro_Type.tp_as_async;
        if slots.is_null() {
            None
        } else {
            (*slots).am_send
        }
    }
}

/// `coro.throw(exception)`; a StopIteration that comes out is a return.
pub fn throw(coro: Ref<'_>, name_throw: Ref<'_>, exception: Ref<'_>) -> Sent {
    match method(name_throw, [coro, exception]) {
        Ok(value) => Sent::Yielded(value),
        Err(raised) => stop_value(raised),
    }
}

/// Turns a set StopIteration into the value it carries.
pub fn stop_value(raised: Raised) -> Sent {
    if !raised.matches(Builtin::StopIteration.class()) {
        return Sent::Raised(raised);
    }
    let exc = raised.fetch();
    // Making the instance may have failed, and so have given another exception.
    if !crate::err::exception_is(exc.borrow(), crate::err::Builtin::StopIteration.class()) {
        return Sent::Raised(crate::err::raise_instance(exc.borrow()));
    }
    // SAFETY: the exception is a StopIteration (just checked); its struct holds `value`.
    unsafe {
        let value = (*exc.as_ptr().cast::<ffi::PyStopIterationObject>()).value;
        Sent::Returned(if value.is_null() {
            Obj::none()
        } else {
            Obj::from_borrowed(value)
        })
    }
}

/// Runs `work` one level deeper in C's stack: a RecursionError instead of a stack overflow.
pub fn nested<R>(work: impl FnOnce() -> PyRes<R>) -> PyRes<R> {
    // SAFETY: a NUL-terminated text; each successful Enter is paired with the Leave below.
    if unsafe { ffi::Py_EnterRecursiveCall(c" in a native call".as_ptr()) } != 0 {
        return Err(Raised::assert_set());
    }
    let result = work();
    // SAFETY: pairs with the Enter above. `work` does not unwind past its trampoline's guard.
    unsafe { ffi::Py_LeaveRecursiveCall() };
    result
}

/// What `await obj` iterates (Python's data model, "Awaitable Objects").
pub fn awaitable_iter(obj: Ref<'_>) -> PyRes<Obj> {
    if is_coroutine(obj) {
        // Whoever awaits it holds a reference to it: the caller's alone means nobody does.
        // SAFETY: alive; reads the count.
        if unsafe { refs::count(obj.as_ptr()) } > 1 {
            let awaited = getattr(obj, crate::value::intern(c"cr_await")?.borrow())?;
            if !awaited.is_none() {
                return Err(Builtin::Runtime.raise("coroutine is being awaited already"));
            }
        }
        return Ok(obj.own());
    }
    if is_generator(obj) && is_marked_awaitable(obj)? {
        return Ok(obj.own());
    }
    // SAFETY: the object's type is alive; `am_await` gives a new reference or null with an error.
    let made = unsafe {
        let slots = (*obj.type_ptr()).tp_as_async;
        let am_await = if slots.is_null() {
            None
        } else {
            (*slots).am_await
        };
        match am_await {
            Some(function) => Obj::from_owned(function(obj.as_ptr()))?,
            None => {
                let name = crate::value::type_name(obj);
                return Err(Builtin::Type.raise(&format!(
                    "object {name} can't be used in 'await' expression"
                )));
            }
        }
    };
    if is_coroutine(made.borrow()) {
        return Err(Builtin::Type.raise("__await__() returned a coroutine"));
    }
    // SAFETY: alive; reads the type's slot.
    if unsafe { ffi::PyIter_Check(made.as_ptr()) } == 0 {
        let name = crate::value::type_name(made.borrow());
        return Err(Builtin::Type.raise(&format!(
            "__await__() returned non-iterator of type '{name}'"
        )));
    }
    Ok(made)
}

/// Whether a generator comes from a function that `types.coroutine` marked.
#[cold]
fn is_marked_awaitable(generator: Ref<'_>) -> PyRes<bool> {
    const CO_ITERABLE_COROUTINE: i64 = 0x100;
    let code = getattr(generator, crate::value::intern(c"gi_code")?.borrow())?;
    let flags = getattr(code.borrow(), crate::value::intern(c"co_flags")?.borrow())?;
    Ok(crate::value::as_i64(flags.borrow())? & CO_ITERABLE_COROUTINE != 0)
}

/// Whether this is a coroutine object of an `async def` function.
#[inline(always)]
pub fn is_coroutine(obj: Ref<'_>) -> bool {
    std::ptr::eq(obj.type_ptr(), &raw const ffi::PyCoro_Type)
}

/// Whether this is a generator object.
pub fn is_generator(obj: Ref<'_>) -> bool {
    std::ptr::eq(obj.type_ptr(), &raw const ffi::PyGen_Type)
}
