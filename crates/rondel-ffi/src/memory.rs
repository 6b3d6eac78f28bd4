//! Memory for large tables; a heap without holes, for a process that is to be forked.

/// A vector with room for so many, which the system is asked to give in large pages as it is written to.
#[must_use]
pub fn large<T>(room: usize) -> Vec<T> {
    let vector = Vec::with_capacity(room);
    #[cfg(target_os = "linux")]
    advise(&vector);
    vector
}

#[cfg(target_os = "linux")]
fn advise<T>(vector: &Vec<T>) {
    use rustix::mm::{Advice, madvise};
    /// The size of a page, at most: advice is for whole ones.
    const PAGE: usize = 1 << 16;
    let begin = vector.as_ptr() as usize;
    let end = (begin + vector.capacity() * size_of::<T>()) & !(PAGE - 1);
    let skipped = begin.next_multiple_of(PAGE) - begin;
    if begin + skipped >= end {
        return;
    }
    let first = vector.as_ptr().cast::<u8>().cast_mut();
    // SAFETY: pages within the vector's own memory; the advice changes nothing that is seen there.
    let advised = unsafe {
        madvise(
            first.add(skipped).cast(),
            end - begin - skipped,
            Advice::LinuxHugepage,
        )
    };
    // Small pages serve as well.
    advised.unwrap_or_default();
}

/// Takes for good what the heap has free between what is in use: Python's pools of small blocks, and the
/// C library's; how many bytes that was.
///
/// For a process that only lives to be forked. Its forks share its pages until they write to them, and
/// what they allocate would go into the holes first: some bytes on each of hundreds of pages, which each
/// fork would then have for its own. With the holes gone it lies close together, on new pages. The heap
/// does not grow by it, as nothing is taken of what is free at its end.
///
/// With the GIL held. No other thread may allocate meanwhile, or it gets some of the end; nothing worse.
/// Of the C library's heap with glibc only. What is known of either allocator's insides is when it has no
/// hole of a size any more; where that is not so, or another allocator answers, nothing is taken.
#[must_use]
pub fn fill_holes() -> usize {
    let small = pools::fill();
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    let large = glibc::fill();
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let large = 0;
    small + large
}

mod pools {
    //! Blocks up to 512 bytes come from pools, each of one size. One that has free blocks is taken from
    //! before a new one is begun: there is no hole of a size when all blocks of one pool come at once.

    use pyo3::ffi;
    use std::collections::HashMap;
    use std::ffi::c_void;

    const LARGEST: usize = 512;
    const STEP: usize = 16;
    /// Of a pool, which begins at a multiple of it, and of what it has there for itself.
    const POOL: usize = 16 * 1024;
    const HEAD: usize = 48;
    /// Bytes of one size after which these are no pools as described.
    const MOST: usize = 16 * 1024 * 1024;

    pub(super) fn fill() -> usize {
        let mut filled = 0;
        for size in (STEP..=LARGEST).rev().step_by(STEP) {
            let Some(blocks) = fill_size(size) else {
                break;
            };
            filled += blocks * size;
        }
        filled
    }

    /// How many blocks were kept; `None` if it was not to be seen when to stop.
    fn fill_size(size: usize) -> Option<usize> {
        let whole = (POOL - HEAD) / size;
        let mut taken: Vec<*mut c_void> = Vec::new();
        let mut of_pool: HashMap<usize, usize> = HashMap::new();
        let mut last = None;
        while last.is_none() && taken.len() * size < MOST {
            // SAFETY: GIL held; a size that is not 0.
            let block = unsafe { ffi::PyObject_Malloc(size) };
            if block.is_null() {
                break;
            }
            taken.push(block);
            let pool = block.addr() / POOL;
            let count = of_pool.entry(pool).or_default();
            *count += 1;
            if *count == whole {
                last = Some(pool);
            }
        }
        let mut kept = 0;
        for block in taken {
            if last.is_some_and(|pool| block.addr() / POOL != pool) {
                kept += 1;
            } else {
                // SAFETY: GIL held; just allocated, by the same allocator.
                unsafe { ffi::PyObject_Free(block) };
            }
        }
        last.map(|_| kept)
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::alloc::{Layout, alloc, dealloc};
    use std::ffi::{c_uint, c_void};

    /// `struct mallinfo`. Its numbers, signed there, are modulo 2^32: enough, as of a larger heap some
    /// holes may stay. (`mallinfo2` came with glibc 2.33.)
    #[repr(C)]
    struct Info {
        from_system: c_uint,
        free_chunks: c_uint,
        fast_chunks: c_uint,
        mapped_chunks: c_uint,
        mapped: c_uint,
        unused: c_uint,
        fast: c_uint,
        in_use: c_uint,
        free: c_uint,
        /// At the heap's end.
        free_at_end: c_uint,
    }

    unsafe extern "C" {
        fn mallinfo() -> Info;
        fn sbrk(by: isize) -> *mut c_void;
    }

    /// Sizes that are tried: larger ones are mapped, not taken from the heap; glibc's are multiples of 16,
    /// of which it has 8 for itself.
    const LARGEST: usize = 64 * 1024;
    const FINE: usize = 1024;
    const STEP: usize = 16;
    const HEAD: usize = 8;

    pub(super) fn fill() -> usize {
        // SAFETY: reads the allocator's counters, under its locks.
        let info = unsafe { mallinfo() };
        // SAFETY: by nothing: where the heap ends.
        let end = unsafe { sbrk(0) }.addr();
        let bytes = |number: c_uint| usize::try_from(number).unwrap_or(0);
        let last = end.saturating_sub(bytes(info.free_at_end));
        // No more than the heap has, whatever allocator answers. (What is `free` leaves out the threads'
        // caches of freed chunks, which are holes like others.)
        let most = bytes(info.from_system);
        let coarse = std::iter::successors(Some(LARGEST), |size| Some(size / 2));
        let sizes = coarse
            .take_while(|size| *size > FINE)
            .chain((STEP..=FINE).rev().step_by(STEP));
        let mut filled = 0;
        for size in sizes {
            let Ok(layout) = Layout::from_size_align(size - HEAD, 1) else {
                continue;
            };
            while filled + size <= most {
                // SAFETY: the layout has a size.
                let chunk = unsafe { alloc(layout) };
                if chunk.is_null() {
                    break;
                }
                if chunk.addr() >= last {
                    // There is no hole of this size any more.
                    // SAFETY: just allocated, with this layout.
                    unsafe { dealloc(chunk, layout) };
                    break;
                }
                filled += size;
            }
        }
        filled
    }
}
