//! The buffer protocol: memory of `bytearray`, `memoryview`, `array` … seen as slices.
//!
//! # Invariant
//! A view exists only for the length of a closure, and the closure must not run Python code: with
//! the GIL held nobody else can then touch the memory, so a writable slice is really exclusive.
//! The object can't be resized meanwhile either: that is the buffer protocol's own promise.

use crate::err::{PyRes, Raised};
use crate::obj::Ref;
use pyo3::ffi;
use std::ffi::c_int;

/// An exported buffer, released when dropped.
struct View(ffi::Py_buffer);

impl View {
    fn new(obj: Ref<'_>, flags: c_int) -> PyRes<View> {
        let mut view = View(ffi::Py_buffer::new());
        // SAFETY: `obj` is alive and the struct is ours to fill. On failure the struct's `obj` stays
        // null, so that the release in `drop` does nothing.
        if unsafe { ffi::PyObject_GetBuffer(obj.as_ptr(), &raw mut view.0, flags) } < 0 {
            return Err(Raised::assert_set());
        }
        Ok(view)
    }

    /// The memory's start and length; `None` when empty (the pointer may be null then).
    fn span(&self) -> Option<(*mut u8, usize)> {
        match usize::try_from(self.0.len) {
            Ok(len) if len > 0 => Some((self.0.buf.cast(), len)),
            _ => None,
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: filled by PyObject_GetBuffer, or never (its `obj` is null then: no effect).
        unsafe { ffi::PyBuffer_Release(&raw mut self.0) }
    }
}

/// Runs `work` over the bytes of any C-contiguous bytes-like object.
///
/// # Errors
/// TypeError for what has no buffer, BufferError for what is not contiguous.
pub fn with_bytes<R>(obj: Ref<'_>, work: impl FnOnce(&[u8]) -> R) -> PyRes<R> {
    let view = View::new(obj, ffi::PyBUF_SIMPLE)?;
    Ok(match view.span() {
        // SAFETY: exported and contiguous until the view is released, after `work`; nobody writes
        // to it meanwhile (the module's invariant).
        Some((start, len)) => work(unsafe { std::slice::from_raw_parts(start, len) }),
        None => work(&[]),
    })
}

/// Runs `work` over the memory of a writable, C-contiguous object.
///
/// # Errors
/// TypeError for what has no buffer, BufferError for what is read-only or not contiguous.
pub fn with_bytes_mut<R>(obj: Ref<'_>, work: impl FnOnce(&mut [u8]) -> R) -> PyRes<R> {
    let view = View::new(obj, ffi::PyBUF_WRITABLE)?;
    Ok(match view.span() {
        // SAFETY: as above; the exporter agreed to be written to, and no other code runs while this
        // exclusive slice exists.
        Some((start, len)) => work(unsafe { std::slice::from_raw_parts_mut(start, len) }),
        None => work(&mut []),
    })
}

/// `len(obj)`: for a memoryview of several dimensions that is not its number of bytes.
///
/// # Errors
/// TypeError for what has no length.
pub fn len(obj: Ref<'_>) -> PyRes<usize> {
    // SAFETY: alive; -1 with an error set signals failure.
    usize::try_from(unsafe { ffi::PyObject_Size(obj.as_ptr()) }).map_err(|_negative| Raised::assert_set())
}
