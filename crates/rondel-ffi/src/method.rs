//! From safe Rust functions to C slots.
//!
//! Each constructor takes a function *item* (its type is zero-sized) and yields a C function that
//! conjures it up again: no table, no boxed closure, nothing to look up at call time. Every
//! trampoline catches panics and turns them into Python exceptions.

use crate::call::Sent;
use crate::class::{Class, Inst};
use crate::err::{Builtin, PyRes, Raised, panic_to_exception};
use crate::obj::{Obj, Ref};
use pyo3::ffi;
use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub struct MethodDef(pub(crate) ffi::PyMethodDef);
pub struct PropertyDef(pub(crate) ffi::PyGetSetDef);
pub struct SlotDef {
    pub(crate) slot: c_int,
    pub(crate) function: *mut c_void,
}

/// The value of a zero-sized function item type.
#[inline(always)]
pub(crate) fn item<F: Copy>() -> F {
    const {
        assert!(
            size_of::<F>() == 0,
            "pass a function item or a closure that captures nothing"
        )
    };
    // SAFETY: a zero-sized Copy value has one representation, and F is inhabited: the caller of the
    // constructor held one.
    unsafe { std::mem::zeroed() }
}

#[inline(always)]
pub(crate) fn guard(work: impl FnOnce() -> PyRes<Obj>) -> *mut ffi::PyObject {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(obj)) => obj.into_ptr(),
        Ok(Err(_raised)) => std::ptr::null_mut(),
        Err(panic) => {
            let _raised = panic_to_exception(panic);
            std::ptr::null_mut()
        }
    }
}

fn guard_status(work: impl FnOnce() -> PyRes<()>) -> c_int {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => 0,
        Ok(Err(_raised)) => -1,
        Err(panic) => {
            let _raised = panic_to_exception(panic);
            -1
        }
    }
}

fn def(
    name: &'static CStr,
    doc: &'static CStr,
    meth: ffi::PyMethodDefPointer,
    flags: c_int,
) -> MethodDef {
    MethodDef(ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: meth,
        ml_flags: flags,
        ml_doc: doc.as_ptr(),
    })
}

/// A method without arguments.
pub fn noargs<T: Class, F>(name: &'static CStr, doc: &'static CStr, _f: F) -> MethodDef
where
    F: for<'a> Fn(Inst<'a, T>) -> PyRes<Obj> + Copy + 'static,
{
    unsafe extern "C" fn tramp<T: Class, F>(
        slf: *mut ffi::PyObject,
        _: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject
    where
        F: for<'a> Fn(Inst<'a, T>) -> PyRes<Obj> + Copy + 'static,
    {
        // SAFETY: method descriptors check self's type before they call.
        guard(|| item::<F>()(unsafe { Inst::from_ptr(slf) }))
    }
    def(
        name,
        doc,
        ffi::PyMethodDefPointer {
            PyCFunction: tramp::<T, F>,
        },
        ffi::METH_NOARGS,
    )
}

/// A method with one positional argument.
pub fn onearg<T: Class, F>(name: &'static CStr, doc: &'static CStr, _f: F) -> MethodDef
where
    F: for<'a> Fn(Inst<'a, T>, Ref<'a>) -> PyRes<Obj> + Copy + 'static,
{
    unsafe extern "C" fn tramp<T: Class, F>(
        slf: *mut ffi::PyObject,
        arg: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject
    where
        F: for<'a> Fn(Inst<'a, T>, Ref<'a>) -> PyRes<Obj> + Copy + 'static,
    {
        // SAFETY: as in `noargs`; the argument is alive for the call.
        guard(|| unsafe { item::<F>()(Inst::from_ptr(slf), Ref::from_ptr(arg)) })
    }
    def(
        name,
        doc,
        ffi::PyMethodDefPointer {
            PyCFunction: tramp::<T, F>,
        },
        ffi::METH_O,
    )
}

/// A method with positional and keyword arguments.
pub fn fast<T: Class, F>(name: &'static CStr, doc: &'static CStr, _f: F) -> MethodDef
where
    F: for<'a> Fn(Inst<'a, T>, Args<'a>) -> PyRes<Obj> + Copy + 'static,
{
    unsafe extern "C" fn tramp<T: Class, F>(
        slf: *mut ffi::PyObject,
        args: *const *mut ffi::PyObject,
        nargs: ffi::Py_ssize_t,
        names: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject
    where
        F: for<'a> Fn(Inst<'a, T>, Args<'a>) -> PyRes<Obj> + Copy + 'static,
    {
        // SAFETY: as in `noargs`; the vector is CPython's for this call.
        guard(|| unsafe {
            item::<F>()(Inst::from_ptr(slf), Args::new(args, nargs as usize, names))
        })
    }
    def(
        name,
        doc,
        ffi::PyMethodDefPointer {
            PyCFunctionFastWithKeywords: tramp::<T, F>,
        },
        ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
    )
}

/// A module function with positional and keyword arguments.
pub fn function<F>(name: &'static CStr, doc: &'static CStr, _f: F) -> MethodDef
where
    F: for<'a> Fn(Args<'a>) -> PyRes<Obj> + Copy + 'static,
{
    unsafe extern "C" fn tramp<F>(
        _module: *mut ffi::PyObject,
        args: *const *mut ffi::PyObject,
        nargs: ffi::Py_ssize_t,
        names: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject
    where
        F: for<'a> Fn(Args<'a>) -> PyRes<Obj> + Copy + 'static,
    {
        // SAFETY: the vector is CPython's for this call.
        guard(|| unsafe { item::<F>()(Args::new(args, nargs as usize, names)) })
    }
    def(
        name,
        doc,
        ffi::PyMethodDefPointer {
            PyCFunctionFastWithKeywords: tramp::<F>,
        },
        ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
    )
}

/// A class method with one argument: `f(cls, arg)`.
pub fn class_method<F>(name: &'static CStr, doc: &'static CStr, _f: F) -> MethodDef
where
    F: for<'a> Fn(Ref<'a>, Ref<'a>) -> PyRes<Obj> + Copy + 'static,
{
    unsafe extern "C" fn tramp<F>(
        cls: *mut ffi::PyObject,
        arg: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject
    where
        F: for<'a> Fn(Ref<'a>, Ref<'a>) -> PyRes<Obj> + Copy + 'static,
    {
        // SAFETY: CPython passes the class and the argument, both alive for the call.
        guard(|| unsafe { item::<F>()(Ref::from_ptr(cls), Ref::from_ptr(arg)) })
    }
    def(
        name,
        doc,
        ffi::PyMethodDefPointer {
            PyCFunction: tramp::<F>,
        },
        ffi::METH_O | ffi::METH_CLASS,
    )
}

/// A class method with positional and keyword arguments: `f(cls, args)`.
pub fn class_fast<F>(name: &'static CStr, doc: &'static CStr, _f: F) -> MethodDef
where
    F: for<'a> Fn(Ref<'a>, Args<'a>) -> PyRes<Obj> + Copy + 'static,
{
    unsafe extern "C" fn tramp<F>(
        cls: *mut ffi::PyObject,
        args: *const *mut ffi::PyObject,
        nargs: ffi::Py_ssize_t,
        names: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject
    where
        F: for<'a> Fn(Ref<'a>, Args<'a>) -> PyRes<Obj> + Copy + 'static,
    {
        // SAFETY: CPython passes the class and its vector, alive for the call.
        guard(|| unsafe { item::<F>()(Ref::from_ptr(cls), Args::new(args, nargs as usize, names)) })
    }
    def(
        name,
        doc,
        ffi::PyMethodDefPointer {
            PyCFunctionFastWithKeywords: tramp::<F>,
        },
        ffi::METH_FASTCALL | ffi::METH_KEYWORDS | ffi::METH_CLASS,
    )
}

/// A read-only property.
pub fn getter<T: Class, G>(name: &'static CStr, _get: G) -> PropertyDef
where
    G: for<'a> Fn(Inst<'a, T>) -> PyRes<Obj> + Copy + 'static,
{
    PropertyDef(ffi::PyGetSetDef {
        name: name.as_ptr(),
        get: Some(get_tramp::<T, G>),
        ..Default::default()
    })
}

/// A property that can be set (`None` as the value means deletion).
pub fn property<T: Class, G, S>(name: &'static CStr, _get: G, _set: S) -> PropertyDef
where
    G: for<'a> Fn(Inst<'a, T>) -> PyRes<Obj> + Copy + 'static,
    S: for<'a> Fn(Inst<'a, T>, Option<Ref<'a>>) -> PyRes<()> + Copy + 'static,
{
    unsafe extern "C" fn set_tramp<T: Class, S>(
        slf: *mut ffi::PyObject,
        value: *mut ffi::PyObject,
        _: *mut c_void,
    ) -> c_int
    where
        S: for<'a> Fn(Inst<'a, T>, Option<Ref<'a>>) -> PyRes<()> + Copy + 'static,
    {
        // SAFETY: descriptors check self's type; the value is null for a deletion.
        guard_status(|| unsafe {
            let value = if value.is_null() {
                None
            } else {
                Some(Ref::from_ptr(value))
            };
            item::<S>()(Inst::from_ptr(slf), value)
        })
    }
    PropertyDef(ffi::PyGetSetDef {
        name: name.as_ptr(),
        get: Some(get_tramp::<T, G>),
        set: Some(set_tramp::<T, S>),
        ..Default::default()
    })
}

unsafe extern "C" fn get_tramp<T: Class, G>(
    slf: *mut ffi::PyObject,
    _: *mut c_void,
) -> *mut ffi::PyObject
where
    G: for<'a> Fn(Inst<'a, T>) -> PyRes<Obj> + Copy + 'static,
{
    // SAFETY: descriptors check self's type.
    guard(|| item::<G>()(unsafe { Inst::from_ptr(slf) }))
}

/// Which unary slot a function fills.
#[derive(Clone, Copy)]
pub enum Unary {
    Repr,
    Iter,
    Await,
}

/// `__repr__`, `__iter__` or `__await__`.
pub fn unary<T: Class, F>(which: Unary, _f: F) -> SlotDef
where
    F: for<'a> Fn(Inst<'a, T>) -> PyRes<Obj> + Copy + 'static,
{
    unsafe extern "C" fn tramp<T: Class, F>(slf: *mut ffi::PyObject) -> *mut ffi::PyObject
    where
        F: for<'a> Fn(Inst<'a, T>) -> PyRes<Obj> + Copy + 'static,
    {
        // SAFETY: slots are called with an instance of their type.
        guard(|| item::<F>()(unsafe { Inst::from_ptr(slf) }))
    }
    let slot = match which {
        Unary::Repr => ffi::Py_tp_repr,
        Unary::Iter => ffi::Py_tp_iter,
        Unary::Await => ffi::Py_am_await,
    };
    SlotDef {
        slot,
        function: tramp::<T, F> as *mut c_void,
    }
}

/// The pair `tp_iternext` and `am_send` of an awaitable's iterator, from one function that is given
/// the value sent in.
pub fn resume<T: Class, F>(_f: F) -> [SlotDef; 2]
where
    F: for<'a> Fn(Inst<'a, T>, Ref<'a>) -> Sent + Copy + 'static,
{
    unsafe extern "C" fn send<T: Class, F>(
        slf: *mut ffi::PyObject,
        value: *mut ffi::PyObject,
        out: *mut *mut ffi::PyObject,
    ) -> ffi::PySendResult
    where
        F: for<'a> Fn(Inst<'a, T>, Ref<'a>) -> Sent + Copy + 'static,
    {
        // SAFETY: slots are called with an instance of their type and a live value; `out` is theirs.
        unsafe {
            let value = if value.is_null() {
                ffi::Py_None()
            } else {
                value
            };
            match resume_guarded::<T, F>(Inst::from_ptr(slf), Ref::from_ptr(value)) {
                Sent::Yielded(obj) => {
                    *out = obj.into_ptr();
                    ffi::PySendResult::PYGEN_NEXT
                }
                Sent::Returned(obj) => {
                    *out = obj.into_ptr();
                    ffi::PySendResult::PYGEN_RETURN
                }
                Sent::Raised(_) => {
                    *out = std::ptr::null_mut();
                    ffi::PySendResult::PYGEN_ERROR
                }
            }
        }
    }
    unsafe extern "C" fn next<T: Class, F>(slf: *mut ffi::PyObject) -> *mut ffi::PyObject
    where
        F: for<'a> Fn(Inst<'a, T>, Ref<'a>) -> Sent + Copy + 'static,
    {
        // SAFETY: as above.
        let sent =
            unsafe { resume_guarded::<T, F>(Inst::from_ptr(slf), Ref::from_ptr(ffi::Py_None())) };
        match sent {
            Sent::Yielded(obj) => obj.into_ptr(),
            Sent::Returned(obj) => {
                // A bare null means StopIteration(None): the usual case pays for no exception.
                if !obj.is_none() {
                    let _raised = raise_stop(obj);
                }
                std::ptr::null_mut()
            }
            Sent::Raised(_) => std::ptr::null_mut(),
        }
    }
    [
        SlotDef {
            slot: ffi::Py_tp_iternext,
            function: next::<T, F> as *mut c_void,
        },
        SlotDef {
            slot: ffi::Py_am_send,
            function: send::<T, F> as *mut c_void,
        },
    ]
}

#[inline(always)]
fn resume_guarded<T: Class, F>(slf: Inst<'_, T>, value: Ref<'_>) -> Sent
where
    F: for<'a> Fn(Inst<'a, T>, Ref<'a>) -> Sent + Copy + 'static,
{
    // Both borrows end with the call; one lifetime serves.
    catch_unwind(AssertUnwindSafe(|| item::<F>()(slf, value)))
        .unwrap_or_else(|panic| Sent::Raised(panic_to_exception(panic)))
}

/// Raises `StopIteration(value)`; a tuple or an exception as the value stays one value.
pub fn raise_stop(value: Obj) -> Raised {
    let class = Builtin::StopIteration.class();
    let needs_instance = crate::value::is_tuple(value.borrow()) || value.borrow().is_exception();
    if needs_instance {
        return match crate::call::call1(class, value.borrow()) {
            Ok(exc) => crate::err::raise_instance(exc.borrow()),
            Err(raised) => raised,
        };
    }
    crate::err::raise_value(class, value.borrow())
}

/// The end of a `send`/`throw` method: what an iterator method returns or raises.
pub fn sent_to_result(sent: Sent) -> PyRes<Obj> {
    match sent {
        Sent::Yielded(obj) => Ok(obj),
        Sent::Returned(obj) => Err(raise_stop(obj)),
        Sent::Raised(raised) => Err(raised),
    }
}

/// The `send(value)` method of a coroutine-like object, from the function of [`resume`].
pub fn send<T: Class, F>(_f: F) -> MethodDef
where
    F: for<'a> Fn(Inst<'a, T>, Ref<'a>) -> Sent + Copy + 'static,
{
    unsafe extern "C" fn tramp<T: Class, F>(
        slf: *mut ffi::PyObject,
        value: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject
    where
        F: for<'a> Fn(Inst<'a, T>, Ref<'a>) -> Sent + Copy + 'static,
    {
        // SAFETY: method descriptors check self's type; the value is alive for the call.
        guard(|| unsafe { sent_to_result(item::<F>()(Inst::from_ptr(slf), Ref::from_ptr(value))) })
    }
    def(
        c"send",
        c"Resume the coroutine.",
        ffi::PyMethodDefPointer {
            PyCFunction: tramp::<T, F>,
        },
        ffi::METH_O,
    )
}

/// `__init__`.
pub fn init<T: Class, F>(_f: F) -> SlotDef
where
    F: for<'a> Fn(Inst<'a, T>, Args<'a>) -> PyRes<()> + Copy + 'static,
{
    unsafe extern "C" fn tramp<T: Class, F>(
        slf: *mut ffi::PyObject,
        args: *mut ffi::PyObject,
        kwargs: *mut ffi::PyObject,
    ) -> c_int
    where
        F: for<'a> Fn(Inst<'a, T>, Args<'a>) -> PyRes<()> + Copy + 'static,
    {
        // SAFETY: `args` is a tuple, `kwargs` a dict or null, both alive for the call; the vector
        // built here borrows from them.
        guard_status(|| unsafe {
            let count = ffi::PyTuple_Size(args) as usize;
            let mut vector: Vec<*mut ffi::PyObject> = (0..count)
                .map(|i| ffi::PyTuple_GetItem(args, i as isize))
                .collect();
            let mut names = None;
            if !kwargs.is_null() && ffi::PyDict_Size(kwargs) > 0 {
                let keys = Obj::from_owned(ffi::PyTuple_New(ffi::PyDict_Size(kwargs)))?;
                let (mut pos, mut key, mut value, mut i) =
                    (0, std::ptr::null_mut(), std::ptr::null_mut(), 0);
                while ffi::PyDict_Next(kwargs, &mut pos, &mut key, &mut value) != 0 {
                    ffi::Py_INCREF(key);
                    ffi::PyTuple_SET_ITEM(keys.as_ptr(), i, key);
                    vector.push(value);
                    i += 1;
                }
                names = Some(keys);
            }
            let names_ptr = names.as_ref().map_or(std::ptr::null_mut(), Obj::as_ptr);
            item::<F>()(
                Inst::from_ptr(slf),
                Args::new(vector.as_ptr(), count, names_ptr),
            )
        })
    }
    SlotDef {
        slot: ffi::Py_tp_init,
        function: tramp::<T, F> as *mut c_void,
    }
}

/// The six comparisons; `None` for NotImplemented.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Less,
    LessEqual,
    Equal,
    NotEqual,
    Greater,
    GreaterEqual,
}

/// `__lt__` and its kin.
pub fn compare<T: Class, F>(_f: F) -> SlotDef
where
    F: for<'a> Fn(Inst<'a, T>, Ref<'a>, Comparison) -> PyRes<Option<bool>> + Copy + 'static,
{
    unsafe extern "C" fn tramp<T: Class, F>(
        slf: *mut ffi::PyObject,
        other: *mut ffi::PyObject,
        op: c_int,
    ) -> *mut ffi::PyObject
    where
        F: for<'a> Fn(Inst<'a, T>, Ref<'a>, Comparison) -> PyRes<Option<bool>> + Copy + 'static,
    {
        let op = match op {
            ffi::Py_LT => Comparison::Less,
            ffi::Py_LE => Comparison::LessEqual,
            ffi::Py_EQ => Comparison::Equal,
            ffi::Py_NE => Comparison::NotEqual,
            ffi::Py_GT => Comparison::Greater,
            _ => Comparison::GreaterEqual,
        };
        // SAFETY: slots are called with an instance of their type and a live operand;
        // NotImplemented is a live singleton.
        guard(|| unsafe {
            Ok(
                match item::<F>()(Inst::from_ptr(slf), Ref::from_ptr(other), op)? {
                    Some(answer) => Obj::bool(answer),
                    None => Obj::from_borrowed(ffi::Py_NotImplemented()),
                },
            )
        })
    }
    SlotDef {
        slot: ffi::Py_tp_richcompare,
        function: tramp::<T, F> as *mut c_void,
    }
}

/// `__hash__`.
pub fn hash<T: Class, F>(_f: F) -> SlotDef
where
    F: for<'a> Fn(Inst<'a, T>) -> isize + Copy + 'static,
{
    unsafe extern "C" fn tramp<T: Class, F>(slf: *mut ffi::PyObject) -> ffi::Py_hash_t
    where
        F: for<'a> Fn(Inst<'a, T>) -> isize + Copy + 'static,
    {
        let value = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: slots are called with an instance of their type.
            item::<F>()(unsafe { Inst::from_ptr(slf) })
        }));
        match value.unwrap_or(-2) {
            -1 => -2,
            h => h,
        }
    }
    SlotDef {
        slot: ffi::Py_tp_hash,
        function: tramp::<T, F> as *mut c_void,
    }
}

/// Adds functions to a module.
pub fn add_functions(module: Ref<'_>, defs: Vec<MethodDef>) -> PyRes<()> {
    let mut defs: Vec<ffi::PyMethodDef> = defs.into_iter().map(|d| d.0).collect();
    defs.push(ffi::PyMethodDef::zeroed());
    let defs = Box::leak(defs.into_boxed_slice());
    // SAFETY: a module, alive; the definitions are leaked because functions point at them.
    if unsafe { ffi::PyModule_AddFunctions(module.as_ptr(), defs.as_mut_ptr()) } < 0 {
        return Err(Raised::assert_set());
    }
    Ok(())
}

/// Makes a bound native callable: a builtin function whose `self` is `slf`.
/// `def` must be leaked or static.
pub fn bind(def: &'static BoundDef, slf: Ref<'_>) -> PyRes<Obj> {
    // SAFETY: CPython reads the definition only; it lives for ever.
    unsafe {
        Obj::from_owned(ffi::PyCFunction_NewEx(
            std::ptr::from_ref(&def.0.0).cast_mut(),
            slf.as_ptr(),
            std::ptr::null_mut(),
        ))
    }
}

/// A method definition that bound callables share.
pub struct BoundDef(MethodDef);
// SAFETY: immutable after creation.
unsafe impl Sync for BoundDef {}
// SAFETY: as above.
unsafe impl Send for BoundDef {}

impl BoundDef {
    pub fn new(def: MethodDef) -> BoundDef {
        BoundDef(def)
    }
}

// ------------------------------------------------------------------------------- arguments

/// A call's arguments as CPython's vectorcall hands them over.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    args: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
    _alive: PhantomData<&'a Obj>,
}

impl<'a> Args<'a> {
    /// # Safety
    /// `args` points to `count` positional and then `len(names)` keyword values, alive for `'a`.
    pub(crate) unsafe fn new(
        args: *const *mut ffi::PyObject,
        count: usize,
        names: *mut ffi::PyObject,
    ) -> Args<'a> {
        Args {
            args,
            count,
            names,
            _alive: PhantomData,
        }
    }

    /// How many positional arguments there are.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    #[inline(always)]
    pub(crate) fn raw(&self) -> *const *mut ffi::PyObject {
        self.args
    }

    #[inline(always)]
    pub(crate) fn raw_names(&self) -> *mut ffi::PyObject {
        self.names
    }

    /// The positional arguments.
    #[inline(always)]
    pub fn positional(&self) -> &'a [Ref<'a>] {
        if self.count == 0 {
            return &[];
        }
        // SAFETY: `Ref` is transparent over a non-null pointer; CPython never passes null here.
        unsafe { std::slice::from_raw_parts(self.args.cast(), self.count) }
    }

    #[inline(always)]
    pub fn get(&self, index: usize) -> Option<Ref<'a>> {
        self.positional().get(index).copied()
    }

    #[inline(always)]
    pub fn keyword_count(&self) -> usize {
        if self.names.is_null() {
            return 0;
        }
        // SAFETY: a tuple, alive.
        unsafe { ffi::PyTuple_Size(self.names) as usize }
    }

    /// The `i`-th keyword's name and value.
    #[inline]
    pub fn keyword(&self, i: usize) -> (Ref<'a>, Ref<'a>) {
        // SAFETY: i is below keyword_count; values follow the positional ones.
        unsafe {
            let name = Ref::from_ptr(ffi::PyTuple_GetItem(self.names, i as isize));
            (name, Ref::from_ptr(*self.args.add(self.count + i)))
        }
    }

    /// Binds the arguments to parameters: the first `positional` may be given by position, the first
    /// `required` must be given. Raises TypeError as a Python function would.
    pub fn bind<const N: usize>(
        &self,
        func: &str,
        params: [Ref<'_>; N],
        required: usize,
        positional: usize,
    ) -> PyRes<[Option<Ref<'a>>; N]> {
        let mut out = [None; N];
        if self.count > positional {
            return Err(Builtin::Type.raise(&format!(
                "{func}() takes {positional} positional argument{} but {} {} given",
                if positional == 1 { "" } else { "s" },
                self.count,
                if self.count == 1 { "was" } else { "were" },
            )));
        }
        for (slot, arg) in out.iter_mut().zip(self.positional()) {
            *slot = Some(*arg);
        }
        for i in 0..self.keyword_count() {
            let (name, value) = self.keyword(i);
            match params.iter().position(|p| crate::value::str_is(name, *p)) {
                Some(at) if out[at].is_none() => out[at] = Some(value),
                Some(_) => {
                    let name = crate::value::str_text(name)?;
                    return Err(Builtin::Type.raise(&format!(
                        "{func}() got multiple values for argument '{name}'"
                    )));
                }
                None => {
                    let name = crate::value::str_text(name)?;
                    return Err(Builtin::Type.raise(&format!(
                        "{func}() got an unexpected keyword argument '{name}'"
                    )));
                }
            }
        }
        if let Some(at) = out.iter().take(required).position(Option::is_none) {
            let name = crate::value::str_text(params[at])?;
            return Err(Builtin::Type.raise(&format!(
                "{func}() missing 1 required positional argument: '{name}'"
            )));
        }
        Ok(out)
    }
}
