//! Asking the processor for memory ahead of its use.
//!
//! With a thousand connections all that belongs to one has left the near caches when its turn comes. Its
//! objects refer to each other, so each miss waits for the one before; asked for in rounds, one round
//! for each link of the chain, the misses of many connections overlap.
//!
//! A hint only: nothing is read, nothing can fault, and elsewhere than on x86-64 nothing happens.

use crate::class::{Class, Inst};
use crate::obj::Ref;

/// Bytes fetched together.
const LINE: usize = 64;

#[inline(always)]
fn line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address at all neither faults nor changes what a program sees.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _unused = at;
}

#[inline(always)]
fn span(start: *const u8, len: usize) {
    let last = start.addr() + len.max(1) - 1;
    let mut at = start.addr() & !(LINE - 1);
    while at <= last {
        line(start.with_addr(at));
        at += LINE;
    }
}

/// The first `len` bytes of an object, its reference count being the first of them.
#[inline(always)]
pub fn object(obj: Ref<'_>, len: usize) {
    span(obj.as_ptr().cast(), len);
}

/// An instance's reference count and type, and the first `len` bytes of its payload.
#[inline(always)]
pub fn instance<T: Class>(inst: Inst<'_, T>, len: usize) {
    object(inst.obj(), 16);
    span(std::ptr::from_ref(inst.data()).cast(), len);
}

/// Where an object was when its address was taken: it may have gone since.
#[derive(Clone, Copy, Default)]
pub struct Trace(usize);

impl Trace {
    #[inline(always)]
    pub fn of(obj: Ref<'_>) -> Trace {
        Trace(obj.as_ptr().addr())
    }

    /// As [`object`].
    #[inline(always)]
    pub fn fetch(self, len: usize) {
        if self.0 != 0 {
            span(std::ptr::without_provenance(self.0), len);
        }
    }
}
