//! Hand-written heap types: Rust payloads inside a Python object.
//!
//! ```text
//!  plain                     over a C type                         behind a C type
//!  ┌──────────┬─────────┐    ┌──────────┬───────────┬───────┐      ┌──────────┬────────┬─────────┐
//!  │ PyObject │payload T│    │ PyObject │ payload T │ dict… │      │ PyObject │ C base │payload T│
//!  └──────────┴─────────┘    └──────────┴───────────┴───────┘      └──────────┴─ zero ─┴─────────┘
//!             ^ offset                  ^ offset: on top of the               ^ offset
//!                                         base's unused fields
//! ```
//!
//! The payload uses interior mutability (`Cell`, `RefCell`, [`ObjCell`]); the GIL serialises it.
//!
//! A class that [`TypeBuilder::extends`] another of ours holds two payloads, each at its own class's
//! offset: a task is a `Future` and a `Task`.
//!
//! *Over* a C type: the base's constructor, destructor and methods never see the instance, but its
//! methods called by hand (`asyncio.Task.get_name(task)`) do. The payload's author lays it out so
//! that those find nothing (see `future` in the crate above); `is_laid_out` refuses Python classes that
//! would be allocated by the C base.
//!
//! # Life of an instance
//! * `alloc` (native code) writes the payloads given, `tp_new` (Python) the default ones.
//! * The collector sees them through [`Class::traverse`] and breaks cycles by [`Class::clear`].
//! * Deallocation: [`Class::finalize`] if [`Class::needs_finalize`], then weak references are cleared,
//!   then [`Class::retire`], then `__dict__` goes, then the payloads are dropped, then the memory goes
//!   to the free list or back. Behind a C type the base's own deallocator does what it knows.
//!   [`Class::needs_finalize`] reads plain flags only: a base's deallocator may still ask for it
//!   when the payload has been dropped.
//!
//! # Invariants
//! Everything here is called with the GIL held; nothing is `Send` but the cells of the classes, which
//! are written once, at import. A payload's author may not keep what [`ObjCell::peek`] or [`peek`]
//! lends across anything that can run Python code.
//!
//! # Where things are
//! `reference` (borrowed, owned and bare references), `cell` (fields of a payload), `payload` (which
//! payloads an instance has), `collect` (traverse, clear, `__dict__`), `life` (creation, finalizer,
//! deallocation), `nest` (deallocations within deallocations), `build` (the type object), `init` (a C
//! base's `__init__`).

mod build;
mod cell;
mod collect;
mod init;
mod life;
mod nest;
mod payload;
mod reference;

pub use build::{TypeBuilder, basicsize, derives_from, is_laid_out};
pub use cell::{ObjCell, OwnCell, peek};
pub use collect::Visit;
pub use init::share_init;
pub use life::{alloc, alloc_extended, alloc_with, track};
pub use reference::{Inst, Own, Weak};

pub use crate::collector::prepare;

use crate::freelist::FreeList;
use crate::obj::Ref;
use pyo3::ffi;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// Where a class keeps its type object and its payload's offset, filled at import.
pub struct ClassCell {
    ty: AtomicPtr<ffi::PyTypeObject>,
    offset: AtomicUsize,
    base_dealloc: AtomicUsize,
    /// The C base's own `tp_init`, where [`share_init`] stands before it.
    base_init: AtomicUsize,
    /// `tp_basicsize`.
    size: AtomicUsize,
    /// Where every instance has [`TypeBuilder::stamp`]'s number; 0 for a class without.
    stamp_at: AtomicUsize,
    stamp: AtomicU32,
}

impl ClassCell {
    #[expect(clippy::new_without_default, reason = "a static's constructor")]
    pub const fn new() -> ClassCell {
        ClassCell {
            ty: AtomicPtr::new(std::ptr::null_mut()),
            offset: AtomicUsize::new(0),
            base_dealloc: AtomicUsize::new(0),
            base_init: AtomicUsize::new(0),
            size: AtomicUsize::new(0),
            stamp_at: AtomicUsize::new(0),
            stamp: AtomicU32::new(0),
        }
    }

    #[inline(always)]
    pub(crate) fn type_ptr(&self) -> *mut ffi::PyTypeObject {
        self.ty.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn offset(&self) -> usize {
        self.offset.load(Ordering::Relaxed)
    }
}

/// A payload type: what a class of ours keeps in its instances.
pub trait Class: Default + 'static {
    /// The class's cell; one static per class.
    fn cell() -> &'static ClassCell;
    /// The payload's offset where it is known when we are compiled ([`TypeBuilder::build`] checks it):
    /// right behind the object's head, unless a class says otherwise. `None` is looked up in the cell
    /// at every access.
    const PLACE: Option<usize> = Some(size_of::<ffi::PyObject>());
    /// For an awaitable: what it gives, if anybody else has it then, he has it at least until the task's
    /// step is over, or nobody can tell.
    const VALUES_LAST: bool = false;
    /// Shows the collector every reference held.
    fn traverse(&self, visit: &mut Visit);
    /// Releases every reference held, leaving a valid, empty payload.
    fn clear(&self);
    /// Called when an instance is about to be freed, before its fields are dropped: leaves the
    /// registries that know it without a reference, and lowers the flags of `needs_finalize`.
    fn retire(&self) {}
    /// Whether [`Class::finalize`] has something to say about this instance. Must be cheap.
    fn needs_finalize(_slf: Inst<'_, Self>) -> bool {
        false
    }
    /// Reports on an object that is going away (its exception was never retrieved, say).
    fn finalize(_slf: Inst<'_, Self>) {}
    /// Recycled blocks, for classes whose instances come and go all the time.
    fn freelist() -> Option<&'static FreeList> {
        None
    }

    /// Where the payload lies in every instance.
    #[doc(hidden)]
    #[inline(always)]
    fn place() -> usize {
        match Self::PLACE {
            Some(place) => place,
            None => Self::cell().offset(),
        }
    }

    /// The type object.
    fn type_object() -> Ref<'static> {
        // SAFETY: set at import and never freed.
        unsafe { Ref::from_ptr(Self::cell().type_ptr().cast()) }
    }
}

/// Says that instances of this class hold a base's payload as well, at the base's offset.
///
/// # Safety
/// Every instance has a `B` at the offset in B's cell. Either the type is built with
/// [`TypeBuilder::extends`], which keeps that payload, or `Self` is `repr(C)`, has a `B` as its first
/// field, and both cells are given one offset.
pub unsafe trait Extends<B: Class>: Class {}
