//! Native callables that pass for coroutine functions, free ones and methods.
//!
//! `asyncio.sleep` is an `async def` function: `inspect.iscoroutinefunction` says so by the code
//! object's flags (and, from 3.12 on, by a marker). A builtin function has neither. This type is
//! called by vectorcall, as a builtin is, and has a `__dict__` that holds what introspection reads
//! (`__code__`, `__defaults__`, …), taken over from the function it stands for. It is pickled and
//! copied as a function is, by name: its module is Rondel's of that name.

use crate::bound;
use crate::class::{Class, ClassCell, Inst, ObjCell, Visit};
use crate::err::{Builtin, PyRes, Raised};
use crate::method::{Args, item};
use crate::obj::{Obj, Ref};
use crate::refs;
use pyo3::ffi;
use std::cell::Cell;
use std::ffi::c_void;

#[repr(C)]
#[derive(Default)]
pub struct Callable {
    /// First: the type's `__vectorcalloffset__` points here.
    vectorcall: Cell<Option<ffi::vectorcallfunc>>,
    /// Second: the type's `__dictoffset__` points here.
    dict: ObjCell,
    /// The call of what [`bind_briefly`] makes.
    bound: Cell<Option<ffi::vectorcallfunc>>,
}

/// The same under the type that binds to an instance, as a function in a class does.
#[repr(transparent)]
#[derive(Default)]
pub struct Method(Callable);

/// The same for `__aenter__` and `__aexit__`, which are bound to be called once: see [`crate::bound`].
#[repr(transparent)]
#[derive(Default)]
pub struct AsyncWith(Callable);

static CELL: ClassCell = ClassCell::new();
static METHOD_CELL: ClassCell = ClassCell::new();
static ASYNC_WITH_CELL: ClassCell = ClassCell::new();

impl Class for Callable {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    // The dict is the type's own (`__dictoffset__`): `class` visits and clears it, and a reference
    // visited twice would pass for garbage.
    fn traverse(&self, _visit: &mut Visit) {}
    fn clear(&self) {}
}

impl Class for Method {
    fn cell() -> &'static ClassCell {
        &METHOD_CELL
    }
    // As above.
    fn traverse(&self, _visit: &mut Visit) {}
    fn clear(&self) {}
}

impl Class for AsyncWith {
    fn cell() -> &'static ClassCell {
        &ASYNC_WITH_CELL
    }
    // As above.
    fn traverse(&self, _visit: &mut Visit) {}
    fn clear(&self) {}
}

/// Builds the types. Once, at import.
pub fn build() -> PyRes<[Obj; 4]> {
    Ok([
        bound::build()?,
        builder::<Callable>(c"rondel.coroutine_function").build()?,
        // An unbound call through LOAD_METHOD spares the bound method.
        builder::<Method>(c"rondel.coroutine_method")
            .slot(ffi::Py_tp_descr_get, bind_method as *mut c_void)
            .flag(ffi::Py_TPFLAGS_METHOD_DESCRIPTOR)
            .build()?,
        builder::<AsyncWith>(c"rondel.async_with_method")
            .slot(ffi::Py_tp_descr_get, bind_briefly as *mut c_void)
            .flag(ffi::Py_TPFLAGS_METHOD_DESCRIPTOR)
            .build()?,
    ])
}

/// `__get__`: a bound method on an instance, itself on the class.
unsafe extern "C" fn bind_method(
    slf: *mut ffi::PyObject,
    instance: *mut ffi::PyObject,
    _class: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by CPython with live objects; null stands for no instance.
    unsafe {
        if instance.is_null() || std::ptr::eq(instance, ffi::Py_None()) {
            refs::up(slf);
            slf
        } else {
            crate::private::PyMethod_New(slf, instance)
        }
    }
}

/// `__get__`, as above, of a method that is bound for one call.
unsafe extern "C" fn bind_briefly(
    slf: *mut ffi::PyObject,
    instance: *mut ffi::PyObject,
    class: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as above; `slf` is an `AsyncWith`, as the slot is its type's.
    unsafe {
        let call = Inst::<AsyncWith>::from_ptr(slf).data().0.bound.get();
        match call {
            Some(call) if !instance.is_null() && !std::ptr::eq(instance, ffi::Py_None()) => {
                match bound::bind(call, Ref::from_ptr(slf), Ref::from_ptr(instance)) {
                    Ok(bound) => bound.into_ptr(),
                    Err(_raised) => std::ptr::null_mut(),
                }
            }
            _ => bind_method(slf, instance, class),
        }
    }
}

fn builder<T: Class>(name: &'static std::ffi::CStr) -> crate::class::TypeBuilder<T> {
    let base = size_of::<ffi::PyObject>() as ffi::Py_ssize_t;
    let member = |name: &'static std::ffi::CStr, field: usize| ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code: ffi::Py_T_PYSSIZET,
        offset: base + field as ffi::Py_ssize_t,
        flags: ffi::Py_READONLY,
        doc: std::ptr::null(),
    };
    // SAFETY: an all-zero member definition ends the array.
    let end: ffi::PyMemberDef = unsafe { std::mem::zeroed() };
    let members = vec![
        member(
            c"__vectorcalloffset__",
            std::mem::offset_of!(Callable, vectorcall),
        ),
        member(c"__dictoffset__", std::mem::offset_of!(Callable, dict)),
        end,
    ];
    let members = Box::leak(members.into_boxed_slice());
    // SAFETY: the getter and setter of a `__dict__` at the type's dict offset.
    let getset = vec![
        ffi::PyGetSetDef {
            name: c"__dict__".as_ptr(),
            get: Some(ffi::PyObject_GenericGetDict),
            set: Some(ffi::PyObject_GenericSetDict),
            doc: std::ptr::null(),
            closure: std::ptr::null_mut(),
        },
        ffi::PyGetSetDef::default(),
    ];
    let getset = Box::leak(getset.into_boxed_slice());
    crate::class::TypeBuilder::<T>::new(name)
        .slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void)
        .slot(ffi::Py_tp_members, members.as_mut_ptr().cast())
        .slot(ffi::Py_tp_getset, getset.as_mut_ptr().cast())
        .method(crate::method::noargs::<T, _>(
            c"__reduce__",
            c"Pickled by name, as a function is.",
            reduce::<T>,
        ))
        .flag(ffi::Py_TPFLAGS_HAVE_VECTORCALL)
}

fn reduce<T: Class>(slf: Inst<'_, T>) -> PyRes<Obj> {
    let name = crate::value::intern(c"__qualname__")?;
    crate::call::getattr(slf.obj(), name.borrow())
}

/// Makes a callable of a function item; `like` is the Python function whose looks it takes.
pub fn coroutine_function<F>(_f: F, like: Ref<'_>) -> PyRes<Obj>
where
    F: for<'a> Fn(Args<'a>) -> PyRes<Obj> + Copy + 'static,
{
    unsafe extern "C" fn tramp<F>(
        _callable: *mut ffi::PyObject,
        args: *const *mut ffi::PyObject,
        nargsf: usize,
        names: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject
    where
        F: for<'a> Fn(Args<'a>) -> PyRes<Obj> + Copy + 'static,
    {
        let count = nargsf & !ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
        // SAFETY: the vector is CPython's for this call.
        crate::method::guard(|| unsafe { item::<F>()(Args::new(args, count, names)) })
    }
    let made = crate::class::alloc(
        Callable {
            vectorcall: Cell::new(Some(tramp::<F>)),
            dict: ObjCell::new(Some(crate::value::dict()?)),
            bound: Cell::new(None),
        },
        true,
    )?;
    take_looks(made.obj(), like)?;
    Ok(made.into_obj())
}

/// Makes a method of a function item for class `T`, to be put into T's type by `setattr`; `like` is
/// the Python method whose looks it takes.
pub fn coroutine_method<T, F>(_f: F, like: Ref<'_>) -> PyRes<Obj>
where
    T: Class,
    F: for<'a> Fn(Inst<'a, T>, Args<'a>) -> PyRes<Obj> + Copy + 'static,
{
    let made = crate::class::alloc(Method(method_callable::<T, F>()?), true)?;
    take_looks(made.obj(), like)?;
    Ok(made.into_obj())
}

/// As [`coroutine_method`], for `__aenter__` and `__aexit__`.
pub fn async_with_method<T, F>(_f: F, like: Ref<'_>) -> PyRes<Obj>
where
    T: Class,
    F: for<'a> Fn(Inst<'a, T>, Args<'a>) -> PyRes<Obj> + Copy + 'static,
{
    let made = crate::class::alloc(AsyncWith(method_callable::<T, F>()?), true)?;
    take_looks(made.obj(), like)?;
    Ok(made.into_obj())
}

fn method_callable<T, F>() -> PyRes<Callable>
where
    T: Class,
    F: for<'a> Fn(Inst<'a, T>, Args<'a>) -> PyRes<Obj> + Copy + 'static,
{
    unsafe extern "C" fn tramp<T, F>(
        callable: *mut ffi::PyObject,
        args: *const *mut ffi::PyObject,
        nargsf: usize,
        names: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject
    where
        T: Class,
        F: for<'a> Fn(Inst<'a, T>, Args<'a>) -> PyRes<Obj> + Copy + 'static,
    {
        let count = nargsf & !ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
        // SAFETY: the vector is CPython's for this call; the first argument is checked to be a T.
        crate::method::guard(|| unsafe {
            let slf = (count > 0).then(|| Ref::from_ptr(*args)).and_then(|slf| {
                // The usual case, an instance of a Python subclass, is no exact one.
                slf.cast::<T>()
            });
            match slf {
                Some(slf) => item::<F>()(slf, Args::new(args.add(1), count - 1, names)),
                None => Err(misbound::<T>(Ref::from_ptr(callable))),
            }
        })
    }
    unsafe extern "C" fn bound_tramp<T, F>(
        callable: *mut ffi::PyObject,
        args: *const *mut ffi::PyObject,
        nargsf: usize,
        names: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject
    where
        T: Class,
        F: for<'a> Fn(Inst<'a, T>, Args<'a>) -> PyRes<Obj> + Copy + 'static,
    {
        let count = nargsf & !ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
        // SAFETY: as above; the callable is a `Bound`, whose vectorcall this is.
        crate::method::guard(|| unsafe {
            let instance = bound::instance(callable);
            match instance.as_ref().and_then(|slf| slf.borrow().cast::<T>()) {
                Some(slf) => item::<F>()(slf, Args::new(args, count, names)),
                None => Err(misbound::<T>(Ref::from_ptr(callable))),
            }
        })
    }
    Ok(Callable {
        vectorcall: Cell::new(Some(tramp::<T, F>)),
        dict: ObjCell::new(Some(crate::value::dict()?)),
        bound: Cell::new(Some(bound_tramp::<T, F>)),
    })
}

#[cold]
fn misbound<T: Class>(callable: Ref<'_>) -> Raised {
    let name = crate::value::intern(c"__qualname__")
        .and_then(|name| crate::call::getattr(callable, name.borrow()))
        .and_then(|name| crate::value::str_text(name.borrow()));
    match (name, crate::value::repr(T::type_object())) {
        (Ok(name), Ok(class)) => {
            Builtin::Type.raise(&format!("{name}() needs an instance of {class}"))
        }
        (Err(raised), _) | (_, Err(raised)) => raised,
    }
}

/// Takes over what introspection reads of a function.
fn take_looks(made: Ref<'_>, like: Ref<'_>) -> PyRes<()> {
    for name in [
        c"__name__",
        c"__qualname__",
        c"__doc__",
        c"__code__",
        c"__defaults__",
        c"__kwdefaults__",
        c"__annotations__",
    ] {
        let name = crate::value::intern(name)?;
        let looks = crate::call::getattr(like, name.borrow())?;
        crate::call::setattr(made, name.borrow(), looks.borrow())?;
    }
    let module = crate::value::intern(c"__module__")?;
    let theirs = crate::call::getattr(like, module.borrow())?;
    let ours = crate::value::str_text(theirs.borrow())?.replacen("asyncio", "rondel", 1);
    crate::call::setattr(made, module.borrow(), crate::value::str(&ours)?.borrow())?;
    // inspect.signature() takes what has a function's attributes for a function; from 3.12 on this
    // marker is what asyncio and inspect ask for.
    let inspect = crate::call::import(c"inspect")?;
    let marker = crate::value::intern(c"_is_coroutine_mark")?;
    if let Some(mark) = crate::call::getattr_opt(inspect.borrow(), marker.borrow())? {
        let attribute = crate::value::intern(c"_is_coroutine_marker")?;
        crate::call::setattr(made, attribute.borrow(), mark.borrow())?;
    }
    Ok(())
}
