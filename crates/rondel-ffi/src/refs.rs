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
                (*ptr).ob_refcnt.ob_refcnt = more as isize;
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

    /// # Safety
    /// As for [`up`]; two references are taken.
    #[inline(always)]
    pub(crate) unsafe fn up_two(ptr: *mut ffi::PyObject) {
        // SAFETY: as in `up`.
        unsafe {
            let count = (*ptr).ob_refcnt.ob_refcnt_split[0];
            if (count as i32) >= 0 {
                (*ptr).ob_refcnt.ob_refcnt = count as isize + 2;
            }
        }
    }

    /// Gives two references up if there are others; whether it has.
    ///
    /// # Safety
    /// As for [`up`]; two references are the caller's to give up.
    #[inline(always)]
    pub(crate) unsafe fn down_two(ptr: *mut ffi::PyObject) -> bool {
        // SAFETY: as in `down`.
        unsafe {
            let count = (*ptr).ob_refcnt.ob_refcnt_split[0];
            // An immortal object's is none of these: `down` sees to it.
            let others = (count as i32) > 2;
            if others {
                (*ptr).ob_refcnt.ob_refcnt = count as isize - 2;
            }
            others
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

    /// # Safety
    /// As for [`up`]; two references are taken.
    #[inline(always)]
    pub(crate) unsafe fn up_two(ptr: *mut ffi::PyObject) {
        // SAFETY: as the caller vouches.
        unsafe {
            up(ptr);
            up(ptr);
        }
    }

    /// Gives two references up if there are others; whether it has.
    ///
    /// # Safety
    /// As for [`up`]; two references are the caller's to give up.
    #[inline(always)]
    pub(crate) unsafe fn down_two(ptr: *mut ffi::PyObject) -> bool {
        // SAFETY: as the caller vouches.
        unsafe {
            let others = count(ptr) > 2;
            if others {
                down(ptr);
                down(ptr);
            }
            others
        }
    }
}

pub(crate) use counts::{count, down, down_two, up, up_two};
