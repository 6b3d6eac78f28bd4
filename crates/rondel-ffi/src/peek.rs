//! Looking at objects of others without running any Python code: what a suspended coroutine awaits and
//! where it stands, what an object refers to.
//!
//! Only C types that are known by identity are asked (`cr_await` of a coroutine object is a C getter, a
//! subclass of it cannot exist), and objects that are not known are looked into as the garbage collector
//! does it. Nothing here leaves a reference behind, but for one thing: a suspended frame that has been
//! looked at keeps its frame object (some 200 bytes) until it goes on.

use crate::frame::Frame;
use crate::obj::{Obj, Ref};
use crate::{call, value};
use pyo3::ffi;
use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;

#[cfg(all(Py_3_12, not(py_sys_config = "Py_DEBUG")))]
unsafe extern "C" {
    /// Which the bindings lack.
    fn PyGen_GetCode(generator: *mut ffi::PyObject) -> *mut ffi::PyObject;
}

/// `T_OBJECT` of CPython's structmember.h, a member that may be null.
#[cfg(not(all(Py_3_12, not(py_sys_config = "Py_DEBUG"))))]
const OBJECT: c_int = 6;

/// What is asked of an object with a frame.
const PARTS: usize = 4;

/// Objects of the interpreter that have a frame and may be suspended in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Coroutine,
    Generator,
    AsyncGenerator,
}

impl Kind {
    /// What the object is, if it is one of these.
    #[must_use]
    pub fn of(obj: Ref<'_>) -> Option<Kind> {
        let ty = obj.type_ptr();
        // Compared by address; no reference to the statics is made.
        if std::ptr::eq(ty, &raw const ffi::PyCoro_Type) {
            Some(Kind::Coroutine)
        } else if std::ptr::eq(ty, &raw const ffi::PyGen_Type) {
            Some(Kind::Generator)
        } else if std::ptr::eq(ty, &raw const ffi::PyAsyncGen_Type) {
            Some(Kind::AsyncGenerator)
        } else {
            None
        }
    }

    fn names(self) -> [&'static CStr; PARTS] {
        match self {
            Kind::Coroutine => [c"cr_frame", c"cr_await", c"cr_suspended", c"cr_code"],
            Kind::Generator => [c"gi_frame", c"gi_yieldfrom", c"gi_suspended", c"gi_code"],
            Kind::AsyncGenerator => [c"ag_frame", c"ag_await", c"ag_suspended", c"ag_code"],
        }
    }

    fn type_object(self) -> *mut ffi::PyTypeObject {
        match self {
            Kind::Coroutine => &raw mut ffi::PyCoro_Type,
            Kind::Generator => &raw mut ffi::PyGen_Type,
            Kind::AsyncGenerator => &raw mut ffi::PyAsyncGen_Type,
        }
    }

    /// The type's own getters: a look-up by name costs ten times the call.
    fn getters(self) -> &'static [Option<ffi::getter>; PARTS] {
        static KNOWN: [OnceLock<[Option<ffi::getter>; PARTS]>; 3] = [const { OnceLock::new() }; 3];
        KNOWN[self as usize].get_or_init(|| {
            let mut found = [None; PARTS];
            // SAFETY: a type of the interpreter's own, complete since it began; its table ends with an
            // entry without a name, and names are C strings.
            unsafe {
                let mut entry = (*self.type_object()).tp_getset;
                while !entry.is_null() && !(*entry).name.is_null() {
                    let name = CStr::from_ptr((*entry).name);
                    if let Some(which) = self.names().iter().position(|known| *known == name) {
                        found[which] = (*entry).get;
                    }
                    entry = entry.add(1);
                }
            }
            found
        })
    }

    fn attribute(self, obj: Ref<'_>, which: usize) -> Option<Obj> {
        debug_assert!(Kind::of(obj) == Some(self));
        let found = if let Some(getter) = self.getters()[which] {
            // SAFETY: a getter of the object's very type; these have no closure.
            let found = unsafe { Obj::from_owned_opt(getter(obj.as_ptr(), std::ptr::null_mut())) };
            found.ok_or_else(crate::Raised::assert_set)
        } else {
            value::intern(self.names()[which]).and_then(|name| call::getattr(obj, name.borrow()))
        };
        let found = found.map_err(crate::Raised::clear);
        found.ok().filter(|found| !found.is_none())
    }

    /// The code that it runs.
    #[must_use]
    #[inline]
    pub fn code(self, obj: Ref<'_>) -> Option<Obj> {
        #[cfg(all(Py_3_12, not(py_sys_config = "Py_DEBUG")))]
        // SAFETY: all three are generators to C; the result is a new reference. (A debug build asserts
        // the one type alone.)
        unsafe {
            Obj::from_owned_opt(PyGen_GetCode(obj.as_ptr()))
        }
        #[cfg(not(all(Py_3_12, not(py_sys_config = "Py_DEBUG"))))]
        {
            let Some(offset) = self.code_member() else {
                return self.attribute(obj, 3);
            };
            debug_assert!(Kind::of(obj) == Some(self));
            // SAFETY: the object's very type has a member there, which refers to an object or to none.
            unsafe {
                let member = obj.as_ptr().byte_offset(offset).cast();
                Obj::from_owned_opt(ffi::Py_XNewRef(*member))
            }
        }
    }

    /// Where the type's own table of members has the code, before 3.12: a reading by name is an audited event,
    /// and costs ten times as much.
    #[cfg(not(all(Py_3_12, not(py_sys_config = "Py_DEBUG"))))]
    fn code_member(self) -> Option<ffi::Py_ssize_t> {
        static KNOWN: [OnceLock<Option<ffi::Py_ssize_t>>; 3] = [const { OnceLock::new() }; 3];
        *KNOWN[self as usize].get_or_init(|| {
            // SAFETY: as in `getters`.
            unsafe {
                let mut entry = (*self.type_object()).tp_members;
                while !entry.is_null() && !(*entry).name.is_null() {
                    let is_code = CStr::from_ptr((*entry).name) == self.names()[3];
                    if is_code && [OBJECT, ffi::Py_T_OBJECT_EX].contains(&(*entry).type_code) {
                        return Some((*entry).offset);
                    }
                    entry = entry.add(1);
                }
                None
            }
        })
    }

    /// Where it stands; none when it has ended.
    #[must_use]
    pub fn frame(self, obj: Ref<'_>) -> Option<Frame> {
        self.attribute(obj, 0).and_then(Frame::cast)
    }

    /// What it is suspended in.
    #[must_use]
    pub fn awaited(self, obj: Ref<'_>) -> Option<Obj> {
        self.attribute(obj, 1)
    }

    /// Whether it has begun and waits.
    #[must_use]
    pub fn is_suspended(self, obj: Ref<'_>) -> bool {
        self.attribute(obj, 2)
            .is_some_and(|answer| answer.borrow().truthy().unwrap_or(false))
    }
}

/// The first object, of those that `obj` refers to itself, that `wanted` takes. `wanted` must run no
/// Python code.
pub fn referent(obj: Ref<'_>, wanted: impl FnMut(Ref<'_>) -> bool) -> Option<Obj> {
    struct Search<F> {
        wanted: F,
        found: Option<Obj>,
    }
    extern "C" fn visit<F: FnMut(Ref<'_>) -> bool>(
        obj: *mut ffi::PyObject,
        search: *mut c_void,
    ) -> c_int {
        // SAFETY: the search below, which nobody else uses meanwhile; the object is alive, as somebody
        // that is alive refers to it.
        let (search, obj) = unsafe { (&mut *search.cast::<Search<F>>(), Ref::from_ptr(obj)) };
        if !(search.wanted)(obj) {
            return 0;
        }
        search.found = Some(obj.own());
        1
    }
    let mut search = Search {
        wanted,
        found: None,
    };
    // SAFETY: alive; a type with the flag has `tp_traverse`, which calls `visit` with what it refers to.
    unsafe {
        let ty = obj.type_ptr();
        if ffi::PyType_HasFeature(ty, ffi::Py_TPFLAGS_HAVE_GC) != 0
            && let Some(traverse) = (*ty).tp_traverse
        {
            fn of<F: FnMut(Ref<'_>) -> bool>(_: &Search<F>) -> ffi::visitproc {
                visit::<F>
            }
            let visit = of(&search);
            traverse(obj.as_ptr(), visit, (&raw mut search).cast());
        }
    }
    search.found
}

/// The name of a function of Python, as its `__qualname__` has it.
#[must_use]
pub fn function_name(obj: Ref<'_>) -> Option<String> {
    if !std::ptr::eq(obj.type_ptr(), &raw const ffi::PyFunction_Type) {
        return None;
    }
    let name = value::intern(c"__qualname__").map_err(crate::Raised::clear);
    let name = call::getattr(obj, name.ok()?.borrow()).map_err(crate::Raised::clear);
    text(name.ok()?.borrow())
}

/// Functions within functions that [`callable_name`] looks into.
const NESTED: usize = 8;

/// What a function is called, with its module (`shelf.views.index`); of a bound method its function, of a
/// `functools.partial` what it calls, of a class the class. None for other objects: what they are called by
/// would have to be asked of them.
#[must_use]
pub fn callable_name(obj: Ref<'_>) -> Option<String> {
    let mut at = obj.own();
    for _ in 0..NESTED {
        let here = at.borrow();
        let ty = here.type_ptr();
        if std::ptr::eq(ty, &raw const ffi::PyFunction_Type) {
            return qualified(here);
        }
        // SAFETY: alive; checks of types alone.
        let (builtin, class) = unsafe {
            let builtin = ffi::PyCFunction_CheckExact(here.as_ptr()) != 0;
            (builtin, ffi::PyType_CheckExact(here.as_ptr()) != 0)
        };
        if builtin || class {
            return qualified(here);
        }
        // Another class of that name is looked into to no avail.
        at = match value::type_name(here).as_str() {
            "method" => referent(here, is_function)?,
            "partial" => within_partial(here)?,
            _ => return None,
        };
    }
    None
}

fn is_function(obj: Ref<'_>) -> bool {
    // SAFETY: alive; checks of types alone.
    let builtin = unsafe { ffi::PyCFunction_CheckExact(obj.as_ptr()) != 0 };
    builtin || std::ptr::eq(obj.type_ptr(), &raw const ffi::PyFunction_Type)
}

/// What a partial calls: its function, but for `Context.run`, which calls its first argument.
fn within_partial(partial: Ref<'_>) -> Option<Obj> {
    let class = partial.type_of();
    let func = referent(partial, |inner| !inner.is(class) && inner.is_callable())?;
    if function_name_of_builtin(func.borrow()).as_deref() != Some("Context.run") {
        return Some(func);
    }
    let args = referent(partial, value::is_tuple)?;
    referent(args.borrow(), |inner| inner.is_callable())
}

fn function_name_of_builtin(obj: Ref<'_>) -> Option<String> {
    // SAFETY: alive; a check of its type.
    let builtin = unsafe { ffi::PyCFunction_CheckExact(obj.as_ptr()) != 0 };
    builtin.then(|| attribute(obj, c"__qualname__")).flatten()
}

fn qualified(obj: Ref<'_>) -> Option<String> {
    let name = attribute(obj, c"__qualname__")?;
    match attribute(obj, c"__module__").as_deref() {
        None | Some("builtins" | "__main__") => Some(name),
        Some(module) => Some(format!("{module}.{name}")),
    }
}

/// An attribute that is text. Of objects that run no Python code for it.
fn attribute(obj: Ref<'_>, name: &CStr) -> Option<String> {
    let name = value::intern(name).map_err(crate::Raised::clear).ok()?;
    let found = call::getattr(obj, name.borrow()).map_err(crate::Raised::clear);
    text(found.ok()?.borrow())
}

/// What an instance of a class of Python has under this name, in its `__dict__`; its class is not asked.
#[must_use]
pub fn own_attribute(obj: Ref<'_>, name: &CStr) -> Option<Obj> {
    // SAFETY: alive; for objects without a `__dict__` it is null, with an error set.
    let dict = unsafe {
        Obj::from_owned(ffi::PyObject_GenericGetDict(
            obj.as_ptr(),
            std::ptr::null_mut(),
        ))
    };
    let dict = dict.map_err(crate::Raised::clear).ok()?;
    let name = value::intern(name).map_err(crate::Raised::clear).ok()?;
    let found = value::dict_get(dict.borrow(), name.borrow()).map_err(crate::Raised::clear);
    found.ok().flatten().map(Ref::own)
}

/// The text of a str as it can be written down; none for anything else.
#[must_use]
pub fn text(obj: Ref<'_>) -> Option<String> {
    value::is_str_exact(obj).then(|| {
        value::str_with(obj, str::to_owned).unwrap_or_else(|| "(not valid Unicode)".to_owned())
    })
}

/// Keeps the garbage collector from starting, in this block of the thread that holds the GIL: what it
/// collects may run any code. The GIL is not given up meanwhile.
pub fn uncollected<R>(work: impl FnOnce() -> R) -> R {
    struct Guard(bool);
    impl Drop for Guard {
        fn drop(&mut self) {
            if self.0 {
                // SAFETY: the GIL is held; sets a flag.
                unsafe { ffi::PyGC_Enable() };
            }
        }
    }
    // SAFETY: the GIL is held; sets a flag and tells what it was.
    let _guard = Guard(unsafe { ffi::PyGC_Disable() } != 0);
    work()
}
