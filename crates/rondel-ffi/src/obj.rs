//! Owned and borrowed references to Python objects.
//!
//! [`Obj`] owns one reference count, [`Ref`] borrows one that somebody else owns for the lifetime
//! it carries. Both are one non-null pointer wide, so `Option<Obj>` is a nullable C pointer.

use crate::err::{PyRes, Raised};
use crate::refs;
use pyo3::ffi;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// One owned reference. Cloning increments the count, dropping decrements it.
#[repr(transparent)]
pub struct Obj(NonNull<ffi::PyObject>);

/// A borrowed reference, valid for `'a`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Ref<'a>(NonNull<ffi::PyObject>, PhantomData<&'a Obj>);

impl Obj {
    /// Takes over an owned pointer; null means that a C call has failed and set the error.
    ///
    /// # Safety
    /// `ptr` is null with a Python error set, or an owned reference that nobody else will release.
    #[inline(always)]
    pub unsafe fn from_owned(ptr: *mut ffi::PyObject) -> PyRes<Obj> {
        match NonNull::new(ptr) {
            Some(p) => Ok(Obj(p)),
            None => Err(Raised::assert_set()),
        }
    }

    /// Takes over an owned pointer that may be null without an error.
    ///
    /// # Safety
    /// `ptr` is null or an owned reference that nobody else will release.
    #[inline(always)]
    pub unsafe fn from_owned_opt(ptr: *mut ffi::PyObject) -> Option<Obj> {
        NonNull::new(ptr).map(Obj)
    }

    /// Takes back what [`Obj::into_ptr`] gave away.
    ///
    /// # Safety
    /// `ptr` is an owned reference that nobody else will release.
    #[inline(always)]
    pub unsafe fn from_ptr(ptr: *mut ffi::PyObject) -> Obj {
        // SAFETY: an object's pointer is not null.
        Obj(unsafe { NonNull::new_unchecked(ptr) })
    }

    /// Makes an owned reference from a borrowed pointer.
    ///
    /// # Safety
    /// `ptr` is non-null and points to a live object.
    #[inline(always)]
    pub unsafe fn from_borrowed(ptr: *mut ffi::PyObject) -> Obj {
        // SAFETY: the caller vouches for a live, non-null object.
        unsafe {
            refs::up(ptr);
            Obj(NonNull::new_unchecked(ptr))
        }
    }

    /// A new reference to `None`.
    #[inline(always)]
    pub fn none() -> Obj {
        // SAFETY: None is a live singleton.
        unsafe { Obj::from_borrowed(ffi::Py_None()) }
    }

    /// A new reference to `True` or `False`.
    #[inline(always)]
    pub fn bool(value: bool) -> Obj {
        // SAFETY: both are live singletons.
        unsafe {
            Obj::from_borrowed(if value {
                ffi::Py_True()
            } else {
                ffi::Py_False()
            })
        }
    }

    #[inline(always)]
    pub fn as_ptr(&self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }

    /// Gives the reference count away.
    #[inline(always)]
    pub fn into_ptr(self) -> *mut ffi::PyObject {
        ManuallyDrop::new(self).0.as_ptr()
    }

    #[inline(always)]
    pub fn borrow(&self) -> Ref<'_> {
        Ref(self.0, PhantomData)
    }

    #[inline(always)]
    pub fn is_none(&self) -> bool {
        self.borrow().is_none()
    }

    /// Whether the object is never freed.
    #[inline(always)]
    pub fn is_immortal(&self) -> bool {
        // From 3.12 on: the lower half of the count of one that is has its highest bit set.
        cfg!(Py_3_12) && (self.refcount() as i32) < 0
    }

    /// How many references there are (an object nobody else can see has one).
    #[inline(always)]
    pub fn refcount(&self) -> isize {
        // SAFETY: the object is alive as long as `self` is.
        unsafe { refs::count(self.as_ptr()) }
    }
}

impl Clone for Obj {
    #[inline(always)]
    fn clone(&self) -> Obj {
        // SAFETY: `self` keeps the object alive.
        unsafe { Obj::from_borrowed(self.as_ptr()) }
    }
}

impl Drop for Obj {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: we own one reference and give it up exactly here; the GIL is held (crate invariant).
        unsafe { refs::down(self.as_ptr()) }
    }
}

impl<'a> Ref<'a> {
    /// # Safety
    /// `ptr` is non-null and its object lives for `'a`.
    #[inline(always)]
    pub unsafe fn from_ptr(ptr: *mut ffi::PyObject) -> Ref<'a> {
        // SAFETY: non-null by the caller's word.
        unsafe { Ref(NonNull::new_unchecked(ptr), PhantomData) }
    }

    #[inline(always)]
    pub fn as_ptr(self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }

    /// A new owned reference.
    #[inline(always)]
    pub fn own(self) -> Obj {
        // SAFETY: the object lives for 'a.
        unsafe { Obj::from_borrowed(self.as_ptr()) }
    }

    /// How many references there are.
    #[inline(always)]
    pub fn refcount(self) -> isize {
        // SAFETY: the object lives for 'a.
        unsafe { refs::count(self.as_ptr()) }
    }

    #[inline(always)]
    pub fn is_none(self) -> bool {
        // SAFETY: comparing with the singleton's address.
        std::ptr::eq(self.as_ptr(), unsafe { ffi::Py_None() })
    }

    /// Identity, Python's `is`.
    #[inline(always)]
    pub fn is(self, other: Ref<'_>) -> bool {
        self.0 == other.0
    }

    #[inline(always)]
    pub fn type_ptr(self) -> *mut ffi::PyTypeObject {
        // SAFETY: the object is alive.
        unsafe { ffi::Py_TYPE(self.as_ptr()) }
    }

    /// The object's type.
    #[inline(always)]
    pub fn type_of(self) -> Ref<'a> {
        // SAFETY: an instance keeps its type alive.
        unsafe { Ref::from_ptr(self.type_ptr().cast()) }
    }

    /// `None` if this is Python's `None`.
    #[inline(always)]
    pub fn not_none(self) -> Option<Ref<'a>> {
        if self.is_none() { None } else { Some(self) }
    }

    /// Python's truth value.
    pub fn truthy(self) -> PyRes<bool> {
        // SAFETY: the object is alive.
        match unsafe { ffi::PyObject_IsTrue(self.as_ptr()) } {
            1 => Ok(true),
            0 => Ok(false),
            _ => Err(Raised::assert_set()),
        }
    }

    /// Python's `==`.
    pub fn equals(self, other: Ref<'_>) -> PyRes<bool> {
        // SAFETY: both objects are alive.
        match unsafe { ffi::PyObject_RichCompareBool(self.as_ptr(), other.as_ptr(), ffi::Py_EQ) } {
            1 => Ok(true),
            0 => Ok(false),
            _ => Err(Raised::assert_set()),
        }
    }

    /// `isinstance(self, class)`.
    pub fn is_instance(self, class: Ref<'_>) -> PyRes<bool> {
        // SAFETY: both objects are alive.
        match unsafe { ffi::PyObject_IsInstance(self.as_ptr(), class.as_ptr()) } {
            1 => Ok(true),
            0 => Ok(false),
            _ => Err(Raised::assert_set()),
        }
    }

    /// Whether this is an instance of `BaseException`.
    #[inline]
    pub fn is_exception(self) -> bool {
        // SAFETY: the object is alive.
        unsafe { ffi::PyExceptionInstance_Check(self.as_ptr()) != 0 }
    }

    /// Whether this is a class derived from `BaseException`.
    #[inline]
    pub fn is_exception_class(self) -> bool {
        // SAFETY: the object is alive.
        unsafe { ffi::PyExceptionClass_Check(self.as_ptr()) != 0 }
    }

    pub fn is_callable(self) -> bool {
        // SAFETY: the object is alive.
        unsafe { ffi::PyCallable_Check(self.as_ptr()) != 0 }
    }
}
