//! Making and reading plain values: str, int, float, bytes, tuple, list, dict, set.

use crate::err::{Builtin, PyRes, Raised};
use crate::obj::{Obj, Ref};
use pyo3::ffi;
use std::ffi::CStr;

fn check(status: std::ffi::c_int) -> PyRes<()> {
    if status < 0 {
        Err(Raised::assert_set())
    } else {
        Ok(())
    }
}

/// An interned str: attribute and keyword names, kept for good by the caller.
pub fn intern(text: &CStr) -> PyRes<Obj> {
    // SAFETY: NUL-terminated UTF-8 (all callers pass ASCII literals).
    unsafe { Obj::from_owned(ffi::PyUnicode_InternFromString(text.as_ptr())) }
}

pub fn str(text: &str) -> PyRes<Obj> {
    // SAFETY: pointer and length of a live &str.
    unsafe {
        Obj::from_owned(ffi::PyUnicode_FromStringAndSize(
            text.as_ptr().cast(),
            text.len() as isize,
        ))
    }
}

/// A str of the raw bytes, each byte a code point (latin-1).
pub fn str_latin1(text: &[u8]) -> PyRes<Obj> {
    // SAFETY: pointer and length of a live slice; a null errors argument means strict.
    unsafe {
        Obj::from_owned(ffi::PyUnicode_DecodeLatin1(
            text.as_ptr().cast(),
            text.len() as isize,
            std::ptr::null(),
        ))
    }
}

/// From this many bytes on it pays to look first whether text is ASCII.
const LONG: usize = 1024;

/// A str of bytes that are UTF-8; raises UnicodeDecodeError if they are not.
#[inline]
pub fn utf8(data: &[u8]) -> PyRes<Obj> {
    if data.len() >= LONG && data.is_ascii() {
        return ascii(data);
    }
    // SAFETY: pointer and length of a live slice; a null errors argument means strict.
    unsafe {
        Obj::from_owned(ffi::PyUnicode_DecodeUTF8(
            data.as_ptr().cast(),
            data.len() as isize,
            std::ptr::null(),
        ))
    }
}

/// CPython's decoder checks and copies word by word, at a third of the speed of a copy.
fn ascii(data: &[u8]) -> PyRes<Obj> {
    // SAFETY: a new str of that length for characters up to 127 has as many bytes of room and one
    // for the zero that is there already; nobody else has it yet, and the bytes are ASCII.
    unsafe {
        let text = Obj::from_owned(ffi::PyUnicode_New(data.len() as isize, 127))?;
        let to = ffi::PyUnicode_1BYTE_DATA(text.borrow().as_ptr());
        std::ptr::copy_nonoverlapping(data.as_ptr(), to, data.len());
        Ok(text)
    }
}

/// The UTF-8 of a str; raises TypeError for anything else, UnicodeEncodeError for lone surrogates.
#[inline]
pub fn utf8_of(obj: Ref<'_>) -> PyRes<&[u8]> {
    let mut len = 0;
    // SAFETY: returns null with an error, or a buffer of `len` bytes that lives as long as the
    // object, which is alive for the borrow, and does not change.
    unsafe {
        let ptr = ffi::PyUnicode_AsUTF8AndSize(obj.as_ptr(), &mut len);
        if ptr.is_null() {
            return Err(Raised::assert_set());
        }
        Ok(std::slice::from_raw_parts(ptr.cast::<u8>(), len as usize))
    }
}

/// The UTF-8 text of a str.
pub fn str_text(obj: Ref<'_>) -> PyRes<String> {
    let mut len = 0;
    // SAFETY: returns null with an error for anything but a str; else a buffer of `len` bytes that
    // lives as long as the object.
    unsafe {
        let ptr = ffi::PyUnicode_AsUTF8AndSize(obj.as_ptr(), &mut len);
        if ptr.is_null() {
            return Err(Raised::assert_set());
        }
        let bytes = std::slice::from_raw_parts(ptr.cast::<u8>(), len as usize);
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }
}

/// Runs `work` over the text of a str; `None` for anything else, and for a text with lone surrogates.
pub fn str_with<R>(obj: Ref<'_>, work: impl FnOnce(&str) -> R) -> Option<R> {
    if !is_str(obj) {
        return None;
    }
    let mut len = 0;
    // SAFETY: a str; gives a buffer of `len` bytes of UTF-8 that lives as long as the object, or null
    // with an error, which is cleared.
    unsafe {
        let ptr = ffi::PyUnicode_AsUTF8AndSize(obj.as_ptr(), &mut len);
        if ptr.is_null() {
            Raised::assert_set().clear();
            return None;
        }
        let bytes = std::slice::from_raw_parts(ptr.cast::<u8>(), len as usize);
        std::str::from_utf8(bytes).ok().map(work)
    }
}

/// `str(obj)`.
pub fn to_str(obj: Ref<'_>) -> PyRes<Obj> {
    // SAFETY: alive.
    unsafe { Obj::from_owned(ffi::PyObject_Str(obj.as_ptr())) }
}

/// `repr(obj)`.
pub fn repr(obj: Ref<'_>) -> PyRes<String> {
    // SAFETY: alive.
    let text = unsafe { Obj::from_owned(ffi::PyObject_Repr(obj.as_ptr()))? };
    str_text(text.borrow())
}

pub fn is_str(obj: Ref<'_>) -> bool {
    // SAFETY: alive.
    unsafe { ffi::PyUnicode_Check(obj.as_ptr()) != 0 }
}

/// Whether a str equals an ASCII literal, by identity first.
pub fn str_is(obj: Ref<'_>, interned: Ref<'_>) -> bool {
    if obj.is(interned) {
        return true;
    }
    // SAFETY: both are str when this is reached; Compare returns -1 also on error, hence the check.
    is_str(obj) && unsafe { ffi::PyUnicode_Compare(obj.as_ptr(), interned.as_ptr()) == 0 }
}

pub fn int(value: i64) -> PyRes<Obj> {
    // SAFETY: new reference or null with an error.
    unsafe { Obj::from_owned(ffi::PyLong_FromLongLong(value)) }
}

pub fn as_i64(obj: Ref<'_>) -> PyRes<i64> {
    // SAFETY: -1 with an error set signals failure.
    unsafe {
        let value = ffi::PyLong_AsLongLong(obj.as_ptr());
        if value == -1 && !ffi::PyErr_Occurred().is_null() {
            Err(Raised::assert_set())
        } else {
            Ok(value)
        }
    }
}

pub fn float(value: f64) -> PyRes<Obj> {
    // SAFETY: new reference or null with an error.
    unsafe { Obj::from_owned(ffi::PyFloat_FromDouble(value)) }
}

#[inline]
pub fn as_f64(obj: Ref<'_>) -> PyRes<f64> {
    // SAFETY: -1.0 with an error set signals failure. An int is read as such: by way of `__float__`
    // it would become a float object first.
    unsafe {
        let value = if ffi::PyLong_CheckExact(obj.as_ptr()) != 0 {
            ffi::PyLong_AsDouble(obj.as_ptr())
        } else {
            ffi::PyFloat_AsDouble(obj.as_ptr())
        };
        if value == -1.0 && !ffi::PyErr_Occurred().is_null() {
            Err(Raised::assert_set())
        } else {
            Ok(value)
        }
    }
}

#[inline]
pub fn bytes(data: &[u8]) -> PyRes<Obj> {
    // SAFETY: pointer and length of a live slice.
    unsafe {
        Obj::from_owned(ffi::PyBytes_FromStringAndSize(
            data.as_ptr().cast(),
            data.len() as isize,
        ))
    }
}

/// The content of a `bytes`; `None` for any other type.
#[inline]
pub fn bytes_of(obj: Ref<'_>) -> Option<&[u8]> {
    // SAFETY: type-checked; immutable and alive for the borrow.
    unsafe {
        if ffi::PyBytes_Check(obj.as_ptr()) == 0 {
            return None;
        }
        let data = ffi::PyBytes_AsString(obj.as_ptr()).cast::<u8>();
        Some(std::slice::from_raw_parts(
            data,
            ffi::PyBytes_Size(obj.as_ptr()) as usize,
        ))
    }
}

/// Exactly a `bytes`, not a subclass: nobody's code runs when it is dropped.
#[inline]
pub fn is_bytes_exact(obj: Ref<'_>) -> bool {
    // SAFETY: alive.
    unsafe { ffi::PyBytes_CheckExact(obj.as_ptr()) != 0 }
}

/// `text.encode("latin-1")`.
pub fn latin1(text: Ref<'_>) -> PyRes<Obj> {
    // SAFETY: checks the type itself.
    unsafe { Obj::from_owned(ffi::PyUnicode_AsLatin1String(text.as_ptr())) }
}

/// Copies any bytes-like object (bytearray, memoryview …) into a new `bytes`.
pub fn to_bytes(obj: Ref<'_>) -> PyRes<Obj> {
    // SAFETY: raises TypeError for what has no buffer.
    unsafe {
        if ffi::PyObject_CheckBuffer(obj.as_ptr()) == 0 {
            let name = repr(obj.type_of())?;
            return Err(
                Builtin::Type.raise(&format!("a bytes-like object is required, not {name}"))
            );
        }
        Obj::from_owned(ffi::PyBytes_FromObject(obj.as_ptr()))
    }
}

/// A tuple of owned items.
pub fn tuple<const N: usize>(items: [Obj; N]) -> PyRes<Obj> {
    // SAFETY: a fresh tuple of N slots, each filled once with a stolen reference.
    unsafe {
        let t = Obj::from_owned(ffi::PyTuple_New(N as isize))?;
        for (i, item) in items.into_iter().enumerate() {
            ffi::PyTuple_SET_ITEM(t.as_ptr(), i as isize, item.into_ptr());
        }
        Ok(t)
    }
}

pub fn is_tuple(obj: Ref<'_>) -> bool {
    // SAFETY: alive.
    unsafe { ffi::PyTuple_Check(obj.as_ptr()) != 0 }
}

/// A list with room for `len` items; fill every slot with [`list_init`] before anybody sees it.
pub fn list_with(len: usize) -> PyRes<Obj> {
    // SAFETY: new reference or null with an error.
    unsafe { Obj::from_owned(ffi::PyList_New(len as isize)) }
}

/// Fills an empty slot of a list made by [`list_with`].
pub fn list_init(list: Ref<'_>, index: usize, item: Obj) {
    // SAFETY: in bounds by the caller's loop over the same length; the slot is still null.
    unsafe { ffi::PyList_SET_ITEM(list.as_ptr(), index as isize, item.into_ptr()) }
}

pub fn list_append(list: Ref<'_>, item: Ref<'_>) -> PyRes<()> {
    // SAFETY: a list, alive.
    check(unsafe { ffi::PyList_Append(list.as_ptr(), item.as_ptr()) })
}

pub fn dict() -> PyRes<Obj> {
    // SAFETY: new reference or null with an error.
    unsafe { Obj::from_owned(ffi::PyDict_New()) }
}

pub fn dict_copy(dict: Ref<'_>) -> PyRes<Obj> {
    // SAFETY: a dict, alive.
    unsafe { Obj::from_owned(ffi::PyDict_Copy(dict.as_ptr())) }
}

pub fn is_dict(obj: Ref<'_>) -> bool {
    // SAFETY: alive.
    unsafe { ffi::PyDict_Check(obj.as_ptr()) != 0 }
}

#[inline]
pub fn dict_set(dict: Ref<'_>, key: Ref<'_>, value: Ref<'_>) -> PyRes<()> {
    // SAFETY: a dict, alive; takes its own references.
    check(unsafe { ffi::PyDict_SetItem(dict.as_ptr(), key.as_ptr(), value.as_ptr()) })
}

/// `dict.get(key)`; `Ok(None)` when missing.
#[inline]
pub fn dict_get<'a>(dict: Ref<'a>, key: Ref<'_>) -> PyRes<Option<Ref<'a>>> {
    // SAFETY: a borrowed reference, alive as long as the dict holds it; the callers take their own
    // before they run other code.
    unsafe {
        let item = ffi::PyDict_GetItemWithError(dict.as_ptr(), key.as_ptr());
        if item.is_null() {
            if ffi::PyErr_Occurred().is_null() {
                Ok(None)
            } else {
                Err(Raised::assert_set())
            }
        } else {
            Ok(Some(Ref::from_ptr(item)))
        }
    }
}

/// `dict.pop(key, None)`.
pub fn dict_discard(dict: Ref<'_>, key: Ref<'_>) -> PyRes<()> {
    // SAFETY: a dict, alive.
    if unsafe { ffi::PyDict_DelItem(dict.as_ptr(), key.as_ptr()) } < 0 {
        let raised = Raised::assert_set();
        if !raised.matches(Builtin::KeyError.class()) {
            return Err(raised);
        }
        raised.clear();
    }
    Ok(())
}

pub fn set() -> PyRes<Obj> {
    // SAFETY: new reference or null with an error.
    unsafe { Obj::from_owned(ffi::PySet_New(std::ptr::null_mut())) }
}

/// `set(iterable)`.
pub fn set_of(iterable: Ref<'_>) -> PyRes<Obj> {
    // SAFETY: alive; a new set, or null with the iterable's error.
    unsafe { Obj::from_owned(ffi::PySet_New(iterable.as_ptr())) }
}

pub fn set_add(set: Ref<'_>, item: Ref<'_>) -> PyRes<()> {
    // SAFETY: a set, alive.
    check(unsafe { ffi::PySet_Add(set.as_ptr(), item.as_ptr()) })
}

pub fn set_discard(set: Ref<'_>, item: Ref<'_>) -> PyRes<()> {
    // SAFETY: a set, alive.
    check(unsafe { ffi::PySet_Discard(set.as_ptr(), item.as_ptr()) })
}

pub fn set_len(set: Ref<'_>) -> usize {
    // SAFETY: a set, alive.
    unsafe { ffi::PySet_Size(set.as_ptr()).max(0) as usize }
}

/// Whether this is exactly a list, tuple, set or frozenset.
pub fn is_plain_collection(obj: Ref<'_>) -> bool {
    // SAFETY: alive.
    unsafe {
        ffi::PyList_CheckExact(obj.as_ptr()) != 0
            || ffi::PyTuple_CheckExact(obj.as_ptr()) != 0
            || ffi::PyAnySet_CheckExact(obj.as_ptr()) != 0
    }
}

/// Calls `each` with every item of an iterable.
pub fn for_each(iterable: Ref<'_>, mut each: impl FnMut(Obj) -> PyRes<()>) -> PyRes<()> {
    // SAFETY: the iterator protocol: null without an error is the end.
    unsafe {
        let iter = Obj::from_owned(ffi::PyObject_GetIter(iterable.as_ptr()))?;
        loop {
            match Obj::from_owned_opt(ffi::PyIter_Next(iter.as_ptr())) {
                Some(item) => each(item)?,
                None if ffi::PyErr_Occurred().is_null() => return Ok(()),
                None => return Err(Raised::assert_set()),
            }
        }
    }
}

/// Whether `found` holds for one of an iterable's items; those after it are left alone.
pub fn any(iterable: Ref<'_>, mut found: impl FnMut(Ref<'_>) -> PyRes<bool>) -> PyRes<bool> {
    // SAFETY: alive; the iterator is ours; a null without an error is its end.
    unsafe {
        let iter = Obj::from_owned(ffi::PyObject_GetIter(iterable.as_ptr()))?;
        loop {
            let item = ffi::PyIter_Next(iter.as_ptr());
            let Some(item) = Obj::from_owned_opt(item) else {
                return if ffi::PyErr_Occurred().is_null() {
                    Ok(false)
                } else {
                    Err(Raised::assert_set())
                };
            };
            if found(item.borrow())? {
                return Ok(true);
            }
        }
    }
}

/// `len(obj)`.
#[inline]
pub fn len(obj: Ref<'_>) -> PyRes<usize> {
    // SAFETY: alive; -1 says that an exception is set.
    let len = unsafe { ffi::PyObject_Size(obj.as_ptr()) };
    usize::try_from(len).map_err(|_| Raised::assert_set())
}

/// `sequence[0]`.
#[inline]
pub fn first(sequence: Ref<'_>) -> PyRes<Obj> {
    // SAFETY: alive; a new reference or null with an error.
    unsafe { Obj::from_owned(ffi::PySequence_GetItem(sequence.as_ptr(), 0)) }
}

/// A tuple of new references to `items`.
pub fn tuple_of(items: &[Ref<'_>]) -> PyRes<Obj> {
    // SAFETY: a fresh tuple of that many slots, each filled once with a stolen reference.
    unsafe {
        let t = Obj::from_owned(ffi::PyTuple_New(items.len() as isize))?;
        for (i, item) in items.iter().enumerate() {
            ffi::PyTuple_SET_ITEM(t.as_ptr(), i as isize, item.own().into_ptr());
        }
        Ok(t)
    }
}

pub fn is_int(obj: Ref<'_>) -> bool {
    // SAFETY: alive.
    unsafe { ffi::PyLong_Check(obj.as_ptr()) != 0 }
}

pub fn is_list(obj: Ref<'_>) -> bool {
    // SAFETY: alive.
    unsafe { ffi::PyList_Check(obj.as_ptr()) != 0 }
}

/// Whether this is exactly a list or a tuple.
pub fn is_plain_sequence(obj: Ref<'_>) -> bool {
    // SAFETY: alive.
    unsafe {
        ffi::PyList_CheckExact(obj.as_ptr()) != 0 || ffi::PyTuple_CheckExact(obj.as_ptr()) != 0
    }
}

/// Exactly a str, not a subclass.
pub fn is_str_exact(obj: Ref<'_>) -> bool {
    // SAFETY: alive.
    unsafe { ffi::PyUnicode_CheckExact(obj.as_ptr()) != 0 }
}

/// The `index`-th item of a tuple or a list, as a new reference.
pub fn item(sequence: Ref<'_>, index: usize) -> Option<Obj> {
    // SAFETY: type- and bounds-checked; the borrowed item is owned before anything else runs.
    unsafe {
        let at = index as isize;
        if ffi::PyTuple_Check(sequence.as_ptr()) != 0 {
            if at < ffi::PyTuple_GET_SIZE(sequence.as_ptr()) {
                return Some(Obj::from_borrowed(ffi::PyTuple_GET_ITEM(
                    sequence.as_ptr(),
                    at,
                )));
            }
        } else if ffi::PyList_Check(sequence.as_ptr()) != 0
            && at < ffi::PyList_GET_SIZE(sequence.as_ptr())
        {
            return Some(Obj::from_borrowed(ffi::PyList_GET_ITEM(
                sequence.as_ptr(),
                at,
            )));
        }
        None
    }
}

pub fn is_traceback(obj: Ref<'_>) -> bool {
    // SAFETY: alive.
    unsafe { ffi::PyTraceBack_Check(obj.as_ptr()) != 0 }
}

/// `type(obj).__name__`, for messages.
pub fn type_name(obj: Ref<'_>) -> String {
    // SAFETY: a live object's type has a NUL-terminated `tp_name` (dotted for static types).
    let full = unsafe { CStr::from_ptr((*obj.type_ptr()).tp_name) }.to_string_lossy();
    full.rsplit('.').next().unwrap_or_default().to_owned()
}
