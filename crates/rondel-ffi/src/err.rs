//! Python exceptions as Rust results.
//!
//! [`Raised`] is a zero-sized witness: an exception is set in the thread state. It makes
//! `PyRes<Obj>` as small as the C convention (null means error) that the trampolines return.

use crate::obj::{Obj, Ref};
use pyo3::ffi;
use std::any::Any;
use std::ffi::{CStr, CString, c_char, c_int};

/// Witness that a Python exception is set for this thread.
#[must_use = "an exception is set: return it, fetch it or report it"]
#[derive(Debug)]
pub struct Raised(());

pub type PyRes<T> = Result<T, Raised>;

/// The built-in exception classes that native code raises.
#[derive(Clone, Copy)]
pub enum Builtin {
    Assertion,
    Attribute,
    BlockingIO,
    ConnectionAborted,
    Buffer,
    KeyError,
    NotImplemented,
    OSError,
    Overflow,
    Runtime,
    StopIteration,
    Timeout,
    Type,
    Value,
    Exception,
    BaseException,
    KeyboardInterrupt,
    SystemExit,
    GeneratorExit,
    Import,
    Interrupted,
    System,
}

impl Builtin {
    pub fn class(self) -> Ref<'static> {
        // SAFETY: the built-in exception classes live as long as the interpreter.
        unsafe {
            Ref::from_ptr(match self {
                Builtin::Assertion => ffi::PyExc_AssertionError,
                Builtin::Attribute => ffi::PyExc_AttributeError,
                Builtin::ConnectionAborted => ffi::PyExc_ConnectionAbortedError,
                Builtin::BlockingIO => ffi::PyExc_BlockingIOError,
                Builtin::Interrupted => ffi::PyExc_InterruptedError,
                Builtin::Buffer => ffi::PyExc_BufferError,
                Builtin::KeyError => ffi::PyExc_KeyError,
                Builtin::NotImplemented => ffi::PyExc_NotImplementedError,
                Builtin::OSError => ffi::PyExc_OSError,
                Builtin::Overflow => ffi::PyExc_OverflowError,
                Builtin::Runtime => ffi::PyExc_RuntimeError,
                Builtin::StopIteration => ffi::PyExc_StopIteration,
                Builtin::Timeout => ffi::PyExc_TimeoutError,
                Builtin::Type => ffi::PyExc_TypeError,
                Builtin::Value => ffi::PyExc_ValueError,
                Builtin::Exception => ffi::PyExc_Exception,
                Builtin::BaseException => ffi::PyExc_BaseException,
                Builtin::KeyboardInterrupt => ffi::PyExc_KeyboardInterrupt,
                Builtin::SystemExit => ffi::PyExc_SystemExit,
                Builtin::Import => ffi::PyExc_ImportError,
                Builtin::System => ffi::PyExc_SystemError,
                Builtin::GeneratorExit => ffi::PyExc_GeneratorExit,
            })
        }
    }

    /// Sets this exception with `message`.
    #[cold]
    pub fn raise(self, message: &str) -> Raised {
        raise_str(self.class(), message)
    }
}

impl Raised {
    /// For the callers of C functions that have just reported failure. Should a function have
    /// broken its word and set nothing, a SystemError says so instead of a silent null.
    #[inline(always)]
    pub(crate) fn assert_set() -> Raised {
        Raised(())
    }

    /// Takes the exception out of the thread state, normalised, with its traceback attached.
    #[cold]
    pub fn fetch(self) -> Obj {
        #[cfg(Py_3_12)]
        // SAFETY: gives an owned exception instance, or null when none is set.
        let got = unsafe { Obj::from_owned_opt(ffi::PyErr_GetRaisedException()) };
        #[cfg(not(Py_3_12))]
        // SAFETY: the fetch-normalise sequence of the C API docs; each pointer is owned by us after it.
        let got = unsafe {
            let (mut t, mut v, mut tb) = (
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            );
            ffi::PyErr_Fetch(&mut t, &mut v, &mut tb);
            ffi::PyErr_NormalizeException(&mut t, &mut v, &mut tb);
            drop(Obj::from_owned_opt(t));
            let tb = Obj::from_owned_opt(tb);
            let v = Obj::from_owned_opt(v);
            if let (Some(v), Some(tb)) = (&v, &tb) {
                ffi::PyException_SetTraceback(v.as_ptr(), tb.as_ptr());
            }
            v
        };
        got.unwrap_or_else(|| {
            Builtin::Runtime
                .raise("native code reported an error without setting one")
                .fetch()
        })
    }

    /// Forgets the exception.
    pub fn clear(self) {
        // SAFETY: only touches the thread state.
        unsafe { ffi::PyErr_Clear() }
    }

    /// Whether the set exception is an instance of `class`.
    pub fn matches(&self, class: Ref<'_>) -> bool {
        // SAFETY: an exception is set (that is what `self` says), and `class` is alive.
        unsafe { ffi::PyErr_ExceptionMatches(class.as_ptr()) != 0 }
    }

    /// Reports through `sys.unraisablehook`: for places that can't raise (finalizers).
    #[cold]
    pub fn unraisable(self, place: Option<Ref<'_>>) {
        // SAFETY: accepts null for "no place".
        unsafe { ffi::PyErr_WriteUnraisable(place.map_or(std::ptr::null_mut(), Ref::as_ptr)) }
    }
}

/// Raises an exception instance.
pub fn raise_instance(exc: Ref<'_>) -> Raised {
    // SAFETY: `exc` is an exception instance, alive.
    unsafe { ffi::PyErr_SetObject(exc.type_ptr().cast(), exc.as_ptr()) };
    Raised(())
}

/// Raises `class(value)`.
pub fn raise_value(class: Ref<'_>, value: Ref<'_>) -> Raised {
    // SAFETY: both alive.
    unsafe { ffi::PyErr_SetObject(class.as_ptr(), value.as_ptr()) };
    Raised(())
}

/// Raises `class(message)`.
#[cold]
pub fn raise_str(class: Ref<'_>, message: &str) -> Raised {
    let text = CString::new(message.replace('\0', "\\0")).unwrap_or_default();
    // SAFETY: class is alive, text is NUL-terminated.
    unsafe { ffi::PyErr_SetString(class.as_ptr(), text.as_ptr()) };
    Raised(())
}

/// Raises OSError (the right subclass) for an `io::Error`.
#[cold]
pub fn raise_io(error: &std::io::Error) -> Raised {
    match error.raw_os_error() {
        Some(code) => {
            // SAFETY: a two-tuple (errno, text) given to OSError picks the subclass.
            unsafe {
                let args = ffi::Py_BuildValue(
                    c"(is)".as_ptr(),
                    code,
                    std::ptr::null::<std::ffi::c_char>(),
                );
                drop(Obj::from_owned_opt(args));
                *libc_errno() = code;
                ffi::PyErr_SetFromErrno(ffi::PyExc_OSError);
            }
            Raised(())
        }
        None => Builtin::OSError.raise(&error.to_string()),
    }
}

unsafe extern "C" {
    #[link_name = "__errno_location"]
    fn libc_errno() -> *mut std::ffi::c_int;
}

/// Whether an exception instance is one of `class` (subclasses included).
#[inline]
pub fn exception_is(exc: Ref<'_>, class: Ref<'_>) -> bool {
    // SAFETY: both alive.
    unsafe { ffi::PyErr_GivenExceptionMatches(exc.as_ptr(), class.as_ptr()) != 0 }
}

/// The exception's `__traceback__`.
pub fn traceback_of(exc: Ref<'_>) -> Option<Obj> {
    // SAFETY: gives a new reference or null without an error.
    unsafe { Obj::from_owned_opt(ffi::PyException_GetTraceback(exc.as_ptr())) }
}

/// Sets the exception's `__traceback__` (`None` to drop it).
pub fn set_traceback(exc: Ref<'_>, traceback: Option<Ref<'_>>) {
    // SAFETY: accepts a traceback object or None; both alive.
    unsafe {
        ffi::PyException_SetTraceback(exc.as_ptr(), traceback.map_or(ffi::Py_None(), Ref::as_ptr));
    }
}

/// Sets `exc.__cause__`.
pub fn set_cause(exc: Ref<'_>, cause: Option<Obj>) {
    // SAFETY: steals the reference to cause (or takes null).
    unsafe {
        ffi::PyException_SetCause(
            exc.as_ptr(),
            cause.map_or(std::ptr::null_mut(), Obj::into_ptr),
        )
    }
}

/// Sets `exc.__context__`, as raising `exc` while `handled` is being handled does.
pub fn set_context(exc: Ref<'_>, handled: Obj) {
    if exc.is(handled.borrow()) {
        return;
    }
    // SAFETY: both are exception instances; steals the reference to the context.
    unsafe { ffi::PyException_SetContext(exc.as_ptr(), handled.into_ptr()) }
}

/// Runs `body` as in an `except` clause that has caught `exc`: `sys.exc_info()` gives it, and what is
/// raised within has it as its context.
#[cold]
pub fn while_handling<T>(exc: Ref<'_>, body: impl FnOnce() -> T) -> T {
    // SAFETY: gives an owned exception, None, or null where nothing is handled.
    let before = unsafe { Obj::from_owned_opt(ffi::PyErr_GetHandledException()) };
    // SAFETY: takes a reference of its own to a living exception.
    unsafe { ffi::PyErr_SetHandledException(exc.as_ptr()) };
    let result = body();
    let before = before
        .as_ref()
        .map_or(std::ptr::null_mut(), |b| b.borrow().as_ptr());
    // SAFETY: as above, or null for nothing.
    unsafe { ffi::PyErr_SetHandledException(before) };
    result
}

/// A Rust panic that reached the boundary becomes a Python exception, never an abort.
#[cold]
pub(crate) fn panic_to_exception(payload: Box<dyn Any + Send>) -> Raised {
    let text = payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown panic".to_owned());
    Builtin::Runtime.raise(&format!(
        "internal error in Rondel (please report it): {text}"
    ))
}

/// Runs pending signal handlers, as the interpreter does between bytecodes.
#[inline]
pub fn check_signals() -> PyRes<()> {
    // SAFETY: GIL held.
    if unsafe { ffi::PyErr_CheckSignals() } < 0 {
        Err(Raised(()))
    } else {
        Ok(())
    }
}

/// Tells audit hooks (`sys.addaudithook`), if there are any, of an event with two arguments.
///
/// # Errors
/// Those of a hook, which so forbids the operation.
pub fn audit(event: &CStr, first: Ref<'_>, second: Ref<'_>) -> PyRes<()> {
    unsafe extern "C" {
        /// Documented C API; the bindings lack it.
        fn PySys_Audit(event: *const c_char, format: *const c_char, ...) -> c_int;
    }
    // SAFETY: NUL-terminated texts; the format takes two objects, both alive.
    let status = unsafe {
        PySys_Audit(
            event.as_ptr(),
            c"OO".as_ptr(),
            first.as_ptr(),
            second.as_ptr(),
        )
    };
    if status < 0 { Err(Raised(())) } else { Ok(()) }
}

/// The warning categories that native code issues.
#[derive(Clone, Copy)]
pub enum Warning {
    Deprecation,
}

/// Issues a warning; raises if the filters make it an error.
pub fn warn(category: Warning, message: &str) -> PyRes<()> {
    let text = CString::new(message).unwrap_or_default();
    // SAFETY: the classes are static, the text NUL-terminated.
    let status = unsafe {
        let class = match category {
            Warning::Deprecation => ffi::PyExc_DeprecationWarning,
        };
        ffi::PyErr_WarnEx(class, text.as_ptr(), 1)
    };
    if status < 0 { Err(Raised(())) } else { Ok(()) }
}
