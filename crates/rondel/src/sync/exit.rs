//! `__aexit__` of the locks: a coroutine that releases when it is awaited.

use crate::primitives::coroutine::{self, Coroutine, Machine, Next};
use rondel_ffi::class::{OwnCell, Visit};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::method::Args;
use rondel_ffi::{Class, ClassCell, Inst, Obj, PyRes};
use std::ffi::CStr;

/// What `async with` gives back at its end.
pub(crate) trait Release: Class {
    /// The dotted name of the coroutine's type.
    const EXIT_TYPE: &'static CStr;
    /// The coroutine type's cell and recycled blocks: one of each for a class.
    fn exit_cell() -> (&'static ClassCell, &'static FreeList);
    /// `self.release()`.
    fn release(slf: Inst<'_, Self>) -> PyRes<()>;
}

/// The coroutine of `__aexit__()`.
pub(crate) struct Exit<T: Release>(OwnCell<T>);

impl<T: Release> Default for Exit<T> {
    fn default() -> Self {
        Exit(OwnCell::default())
    }
}

/// `__aexit__(exc_type, exc, tb)`.
pub(super) fn exit<T: Release>(slf: Inst<'_, T>, _args: Args<'_>) -> PyRes<Obj> {
    coroutine::new(|| Exit(OwnCell::new(Some(slf.own()))))
}

impl<T: Release> Machine for Exit<T> {
    const NAME: &'static str = "_ContextManagerMixin.__aexit__";
    const TYPE: &'static CStr = T::EXIT_TYPE;

    fn cell() -> &'static ClassCell {
        T::exit_cell().0
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(T::exit_cell().1)
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.0);
    }
    fn clear(&self) {
        self.0.set(None);
    }
    #[inline(always)]
    fn start(slf: Inst<'_, Coroutine<Self>>) -> Next {
        let Some(owner) = slf.data().body.0.get() else {
            return Next::Return(Obj::none());
        };
        match T::release(owner.inst()) {
            Ok(()) => Next::Return(Obj::none()),
            Err(raised) => Next::Raise(raised),
        }
    }
    fn resume(_slf: Inst<'_, Coroutine<Self>>, outcome: Result<Obj, Obj>) -> Next {
        // It never waits.
        match outcome {
            Ok(value) => Next::Return(value),
            Err(exc) => Next::raise(exc),
        }
    }
}
