//! A call's arguments, and their binding to parameters as a Python function would do it.
//!
//! [`Args`] borrows CPython's vector for the length of the call; the GIL is held throughout.

use crate::err::{Builtin, PyRes};
use crate::obj::{Obj, Ref};
use pyo3::ffi;
use std::marker::PhantomData;

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
