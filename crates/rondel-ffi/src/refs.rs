//! Reference counts, as the interpreter's `Py_INCREF` and `Py_DECREF`.
//!
//! From 3.12 on the interpreter counts up in the lower half of the word and down in the whole of it. A
//! load of the whole word right after a store of its half waits until that has reached the cache (some
//! 12 cycles, each time). So here the half is read and the whole word is written: neither our loads nor
//! the interpreter's wait for a store of ours, and ours not for the interpreter's. The upper half of a
//! mortal object's count is zero.
//!
//! The GIL is held (crate invariant).

#[cfg(all(
    Py_3_12,
    not(Py_3_14),
    not(Py_GIL_DISABLED),
    not(py_sys_config = "Py_REF_DEBUG"),
    target_pointer_width = "64",
    target_endian = "little"
))]
mod counts {
    use pyo3::ffi;

    unsafe extern "C" {
        // What the interpreter's own macro calls.
        fn _Py_Dealloc(object: *mut ffi::PyObject);
    }

    /// # Safety
    /// `ptr` is non-null and points to a live object; the GIL is held.
    #[inline(always)]
    pub(crate) unsafe fn up(ptr: *mut ffi::PyObject) {
        // SAFETY: the caller vouches for the object, and the GIL guards its count.
        unsafe {
            let more = (*ptr).ob_refcnt.ob_refcnt_split[0].wrapping_add(1);
            // Zero: an immortal object's, which stays as it is.
            if more != 0 {
                (*ptr).ob_refcnt.ob_refcnt_split[0] = more;
            }
        }
    }

    /// # Safety
    /// As for [`up`].
    #[inline(always)]
    pub(crate) unsafe fn count(ptr: *mut ffi::PyObject) -> isize {
        // SAFETY: as the caller vouches.
        unsafe { (*ptr).ob_refcnt.ob_refcnt_split[0] as isize }
    }

    /// # Safety
    /// As for [`up`]; one reference is given up.
    #[inline(always)]
    pub(crate) unsafe fn down(ptr: *mut ffi::PyObject) {
        // SAFETY: the caller vouches for the object, and the GIL guards its count.
        unsafe {
            let count = (*ptr).ob_refcnt.ob_refcnt_split[0];
            if (count as i32) < 0 {
                return;
            }
            let left = count - 1;
            (*ptr).ob_refcnt.ob_refcnt = left as isize;
            if left == 0 {
                _Py_Dealloc(ptr);
            }
        }
    }
}

#[cfg(not(all(
    Py_3_12,
    not(Py_3_14),
    not(Py_GIL_DISABLED),
    not(py_sys_config = "Py_REF_DEBUG"),
    target_pointer_width = "64",
    target_endian = "little"
)))]
mod counts {
    use pyo3::ffi;

    /// # Safety
    /// `ptr` is non-null and points to a live object; the GIL is held.
    #[inline(always)]
    pub(crate) unsafe fn up(ptr: *mut ffi::PyObject) {
        // SAFETY: as the caller vouches.
        unsafe { ffi::Py_INCREF(ptr) }
    }

    /// # Safety
    /// As for [`up`].
    #[inline(always)]
    pub(crate) unsafe fn count(ptr: *mut ffi::PyObject) -> isize {
        // SAFETY: as the caller vouches.
        unsafe { ffi::Py_REFCNT(ptr) as isize }
    }

    /// # Safety
    /// As for [`up`]; one reference is given up.
    #[inline(always)]
    pub(crate) unsafe fn down(ptr: *mut ffi::PyObject) {
        // SAFETY: as the caller vouches.
        unsafe { ffi::Py_DECREF(ptr) }
    }
}

pub(crate) use counts::{count, down, up};
