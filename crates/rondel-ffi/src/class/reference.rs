//! Typed references to instances: [`Inst`] borrowed, [`Own`] owned, [`Weak`] a bare pointer.
//!
//! One word each. Whoever holds an `Inst` or `Own` of `T` knows that the object has a payload `T`: they
//! are made by a checked cast ([`Ref::exact`], [`Ref::cast`]), by creation, or from a slot's `self`.
//! As all references, they are used and dropped with the GIL held.

use super::{Class, Extends};
use crate::obj::{Obj, Ref};
use crate::refs;
use pyo3::ffi;
use std::marker::PhantomData;
use std::ops::Deref;

/// A borrowed instance of class `T`. Dereferences to the payload.
#[repr(transparent)]
pub struct Inst<'a, T: Class>(Ref<'a>, PhantomData<&'a T>);

impl<T: Class> Clone for Inst<'_, T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<T: Class> Copy for Inst<'_, T> {}

impl<'a, T: Class> Inst<'a, T> {
    /// # Safety
    /// `ptr` is a live instance of T's type (or a subclass) for `'a`.
    #[inline(always)]
    pub(crate) unsafe fn from_ptr(ptr: *mut ffi::PyObject) -> Inst<'a, T> {
        // SAFETY: the caller's word.
        unsafe { Inst(Ref::from_ptr(ptr), PhantomData) }
    }

    #[inline(always)]
    pub fn obj(self) -> Ref<'a> {
        self.0
    }

    #[inline(always)]
    pub fn own(self) -> Own<T> {
        Own(self.0.own(), PhantomData)
    }

    /// The payload, for the whole lifetime of the borrow.
    #[inline(always)]
    pub fn data(self) -> &'a T {
        // SAFETY: an instance of T's type holds a T at the class's offset, written at creation.
        unsafe { &*self.0.as_ptr().cast::<u8>().add(T::place()).cast::<T>() }
    }

    /// The same object seen as its base class.
    #[inline(always)]
    pub fn up<B: Class>(self) -> Inst<'a, B>
    where
        T: Extends<B>,
    {
        Inst(self.0, PhantomData)
    }

    /// Whether this is exactly `T`, not a subclass written in Python.
    #[inline(always)]
    pub fn is_exact(self) -> bool {
        std::ptr::eq(self.0.type_ptr(), T::cell().type_ptr())
    }
}

impl<T: Class> Deref for Inst<'_, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        self.data()
    }
}

/// An owned instance of class `T`.
#[repr(transparent)]
pub struct Own<T: Class>(Obj, PhantomData<T>);

impl<T: Class> Own<T> {
    /// # Safety
    /// `obj` is an instance of T's type (or a subclass) whose payload is written.
    #[inline(always)]
    pub unsafe fn from_obj(obj: Obj) -> Own<T> {
        Own(obj, PhantomData)
    }

    #[inline(always)]
    pub fn inst(&self) -> Inst<'_, T> {
        Inst(self.0.borrow(), PhantomData)
    }

    #[inline(always)]
    pub fn obj(&self) -> Ref<'_> {
        self.0.borrow()
    }

    #[inline(always)]
    pub fn into_obj(self) -> Obj {
        self.0
    }

    #[inline(always)]
    pub fn up<B: Class>(self) -> Own<B>
    where
        T: Extends<B>,
    {
        Own(self.0, PhantomData)
    }

    #[inline(always)]
    pub fn refcount(&self) -> isize {
        self.0.refcount()
    }
}

impl<T: Class> Clone for Own<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        Own(self.0.clone(), PhantomData)
    }
}

impl<T: Class> Deref for Own<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        self.inst().data()
    }
}

impl<'a> Ref<'a> {
    /// This object as exactly a `T`.
    #[inline(always)]
    pub fn exact<T: Class>(self) -> Option<Inst<'a, T>> {
        if std::ptr::eq(self.type_ptr(), T::cell().type_ptr()) {
            Some(Inst(self, PhantomData))
        } else {
            None
        }
    }

    /// This object as a `T` or an instance of a subclass.
    #[inline]
    pub fn cast<T: Class>(self) -> Option<Inst<'a, T>> {
        let own = T::cell().type_ptr();
        // The usual subclass is written in Python right over ours: a load tells, not a call.
        // SAFETY: both type objects are alive, and so is a type's base.
        let is_subtype = || unsafe {
            std::ptr::eq((*self.type_ptr()).tp_base, own)
                || ffi::PyType_IsSubtype(self.type_ptr(), own) != 0
        };
        if std::ptr::eq(self.type_ptr(), own) || is_subtype() {
            Some(Inst(self, PhantomData))
        } else {
            None
        }
    }
}

impl Obj {
    /// This object as exactly a `T`; gives the object back otherwise.
    #[inline(always)]
    pub fn into_exact<T: Class>(self) -> Result<Own<T>, Obj> {
        if self.borrow().exact::<T>().is_some() {
            Ok(Own(self, PhantomData))
        } else {
            Err(self)
        }
    }

    /// This object as a `T` or a subclass of it; gives the object back otherwise.
    #[inline]
    pub fn into_cast<T: Class>(self) -> Result<Own<T>, Obj> {
        if self.borrow().cast::<T>().is_some() {
            Ok(Own(self, PhantomData))
        } else {
            Err(self)
        }
    }
}

/// A pointer to an instance that holds no reference: for registries that the instance's own
/// deallocation removes it from.
pub struct Weak<T: Class>(*mut ffi::PyObject, PhantomData<T>);

impl<T: Class> Weak<T> {
    pub fn new(inst: Inst<'_, T>) -> Weak<T> {
        Weak(inst.obj().as_ptr(), PhantomData)
    }

    /// The instance. Sound because registries drop the pointer when the instance is deallocated.
    #[inline(always)]
    pub fn get(&self) -> Inst<'_, T> {
        // SAFETY: see above: each registered class removes itself in `retire`, which precedes its end.
        unsafe { Inst::from_ptr(self.0) }
    }

    /// A new reference, unless the instance is being deallocated: weak references' callbacks and
    /// what a subclass's slots held run Python code after its last reference has gone and before
    /// `retire`. A reference taken then would free it twice.
    #[inline]
    pub fn own(&self) -> Option<Own<T>> {
        // SAFETY: the memory is the instance's until `retire` (see `get`).
        if unsafe { refs::count(self.0) } == 0 {
            return None;
        }
        Some(self.get().own())
    }
}
