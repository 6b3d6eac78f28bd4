//! Which thread this is, for a load and a comparison.
//!
//! A loop is asked for at every `create_task` and `timeout()`, and CPython's state of the thread at every
//! change of contexts. Both are found by thread-local variables, which a shared library reaches by a call
//! each (`__tls_get_addr`), CPython's own likewise where it is a shared library. While a loop runs, both
//! lie in a static beside the thread's pointer, the register by which the thread finds its variables:
//! where it is this thread's, they are this thread's.
//!
//! # Invariants
//! The statics are read and written with the GIL held. What they say holds for as long as the run that
//! has written them, and it takes that back at its end ([`during`]): a thread that has ended leaves
//! nothing behind for one that gets its pointer. Loops in several threads write over each other's; the
//! one that finds another's there asks its thread-local variables.

use crate::class::{Class, ClassCell, Inst, Own};
use crate::obj::Ref;
use pyo3::ffi;
use std::cell::UnsafeCell;

struct Known {
    thread: usize,
    state: *mut ffi::PyThreadState,
    /// What runs, and its class.
    running: *mut ffi::PyObject,
    class: *const ClassCell,
}

struct Shared(UnsafeCell<Known>);
// SAFETY: reached with the GIL held only (crate invariant).
unsafe impl Sync for Shared {}

const NOBODY: Known = Known {
    thread: 0,
    state: std::ptr::null_mut(),
    running: std::ptr::null_mut(),
    class: std::ptr::null(),
};
static KNOWN: Shared = Shared(UnsafeCell::new(NOBODY));

/// A number that no other living thread has; not 0.
#[inline(always)]
fn thread() -> usize {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        let pointer: usize;
        // SAFETY: the ABI has the thread's pointer at the start of what it points at; a load.
        unsafe {
            std::arch::asm!("mov {}, fs:[0]", out(reg) pointer, options(nostack, preserves_flags, readonly, pure));
        }
        pointer
    }
    #[cfg(all(target_arch = "aarch64", target_os = "linux"))]
    {
        let pointer: usize;
        // SAFETY: reads the thread's pointer.
        unsafe {
            std::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nostack, preserves_flags, nomem, pure));
        }
        pointer
    }
    #[cfg(not(all(
        any(target_arch = "x86_64", target_arch = "aarch64"),
        target_os = "linux"
    )))]
    {
        thread_local! {
            static MINE: u8 = const { 0 };
        }
        MINE.with(|mine| std::ptr::from_ref(mine).addr())
    }
}

/// CPython's state of this thread.
#[inline(always)]
pub(crate) fn state() -> *mut ffi::PyThreadState {
    // SAFETY: GIL held, so the thread has a state; it is the one that its run has found.
    unsafe {
        let known = KNOWN.0.get();
        if (*known).thread == thread() {
            (*known).state
        } else {
            ffi::PyThreadState_Get()
        }
    }
}

/// The instance of `T` that runs in this thread; `None` if that is not known here.
#[inline(always)]
pub fn running<T: Class>() -> Option<Own<T>> {
    with_running(|running| running.map(Inst::own))
}

/// The same, lent to `work`, which is over before the run is.
#[inline(always)]
pub fn with_running<T: Class, R>(work: impl FnOnce(Option<Inst<'_, T>>) -> R) -> R {
    // SAFETY: GIL held; what runs is alive, as `during` has a borrow of it until after this call, which is
    // made within its work; and it is of that class.
    let running = unsafe {
        let known = KNOWN.0.get();
        ((*known).thread == thread() && std::ptr::eq((*known).class, T::cell()))
            .then(|| Inst::<T>::from_ptr((*known).running))
    };
    work(running)
}

/// For the time of `work` the instance runs in this thread. `work` calls [`Mark::again`] where others may
/// have come between.
pub fn during<T: Class, R>(inst: Inst<'_, T>, work: impl FnOnce(&Mark<'_>) -> R) -> R {
    let mark = Mark {
        running: inst.obj(),
        class: T::cell(),
    };
    mark.again();
    work(&mark)
}

/// Forgets what is known: this is the child of a fork.
pub fn forget() {
    // SAFETY: GIL held.
    unsafe { *KNOWN.0.get() = NOBODY };
}

/// See [`during`].
pub struct Mark<'a> {
    running: Ref<'a>,
    class: &'static ClassCell,
}

impl Mark<'_> {
    /// Says again what runs in this thread.
    #[inline(always)]
    pub fn again(&self) {
        let thread = thread();
        // SAFETY: GIL held, so the thread has a state.
        unsafe {
            let known = KNOWN.0.get();
            if (*known).thread != thread || !std::ptr::eq((*known).running, self.running.as_ptr()) {
                *known = Known {
                    thread,
                    state: ffi::PyThreadState_Get(),
                    running: self.running.as_ptr(),
                    class: self.class,
                };
            }
        }
    }
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        // SAFETY: GIL held. Another thread's entry is that one's to take back.
        unsafe {
            let known = KNOWN.0.get();
            if (*known).thread == thread() {
                *known = NOBODY;
            }
        }
    }
}
