//! The buffer protocol: memory of `bytearray`, `memoryview`, `array` … seen as slices.
//!
//! # Invariant
//! A view exists only for the length of a closure, and the closure must not run Python code: with
//! the GIL held nobody else can then touch the memory, so a writable slice is really exclusive.
//! The object can't be resized meanwhile either: that is the buffer protocol's own promise.

use crate::err::{PyRes, Raised};
use crate::obj::{Obj, Ref};
use pyo3::ffi;
use std::ffi::c_int;
use std::mem::MaybeUninit;

unsafe extern "C" {
    /// Part of the documented API in spite of its name; PyO3 does not declare it.
    fn _PyBytes_Resize(bytes: *mut *mut ffi::PyObject, size: ffi::Py_ssize_t) -> c_int;
}

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

/// A writable, C-contiguous object's memory, exported for as long as this lives. Other code may run
/// meanwhile and write to it too, so it is never seen as a slice.
pub struct Writable(View);

impl Writable {
    /// # Errors
    /// TypeError for what has no buffer, BufferError for what is read-only or not contiguous.
    pub fn new(obj: Ref<'_>) -> PyRes<Writable> {
        View::new(obj, ffi::PyBUF_WRITABLE).map(Writable)
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.span().1
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory's start, dangling when it is empty, and length.
    pub(crate) fn span(&self) -> (*mut u8, usize) {
        self.0
            .span()
            .unwrap_or((std::ptr::NonNull::dangling().as_ptr(), 0))
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

/// `memoryview(obj)`: keeps the memory as it is for as long as it lives.
///
/// # Errors
/// TypeError for what has no buffer.
pub fn view(obj: Ref<'_>) -> PyRes<Obj> {
    // SAFETY: alive; a new reference or null with an error.
    unsafe { Obj::from_owned(ffi::PyMemoryView_FromObject(obj.as_ptr())) }
}

/// `len(obj)`: for a memoryview of several dimensions that is not its number of bytes.
///
/// # Errors
/// TypeError for what has no length.
pub fn len(obj: Ref<'_>) -> PyRes<usize> {
    // SAFETY: alive; -1 with an error set signals failure.
    usize::try_from(unsafe { ffi::PyObject_Size(obj.as_ptr()) })
        .map_err(|_negative| Raised::assert_set())
}

/// A new `bytes` of at most `room` bytes, written where it stays. `fill` says how much it wrote of
/// the memory it was given; an error of its own discards the object.
///
/// # Errors
/// The outer one is MemoryError.
pub fn new_bytes<E>(
    room: usize,
    fill: impl FnOnce(&mut [MaybeUninit<u8>]) -> Result<usize, E>,
) -> PyRes<Result<Obj, E>> {
    let size = isize::try_from(room).unwrap_or(isize::MAX);
    // SAFETY: null data asks for uninitialised memory of that size.
    let object =
        unsafe { Obj::from_owned(ffi::PyBytes_FromStringAndSize(std::ptr::null(), size))? };
    // SAFETY: a fresh object nobody else has seen; its memory is `room` bytes, uninitialised.
    let memory = unsafe {
        std::slice::from_raw_parts_mut(
            ffi::PyBytes_AsString(object.as_ptr()).cast::<MaybeUninit<u8>>(),
            room,
        )
    };
    let written = match fill(memory) {
        Ok(written) => written.min(room),
        Err(error) => return Ok(Err(error)),
    };
    let mut ptr = object.into_ptr();
    // SAFETY: still ours alone, so it may be resized; on failure the object is freed and null left.
    unsafe {
        let _status = _PyBytes_Resize(&raw mut ptr, isize::try_from(written).unwrap_or(isize::MAX));
        Obj::from_owned(ptr).map(Ok)
    }
}
