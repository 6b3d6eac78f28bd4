//! Numbers in memory that several processes share: no Python, but a mapping is as unsafe.

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// `AtomicU64`s at the start of a shared mapping of a file (a memfd, say).
pub struct Counters {
    start: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: a pointer to memory that stays mapped for as long as the value lives, of which only atomics
// are handed out.
unsafe impl Send for Counters {}
// SAFETY: the same.
unsafe impl Sync for Counters {}

impl Counters {
    /// Maps `count` numbers of the file `fd`, which this process was started with.
    ///
    /// # Errors
    /// Those of fstat(2) and mmap(2); EINVAL if the file is shorter: reading past its end would be
    /// fatal (SIGBUS).
    pub fn map(fd: i32, count: usize) -> io::Result<Counters> {
        if fd < 0 || count == 0 {
            return Err(rustix::io::Errno::INVAL.into());
        }
        let length = count * size_of::<AtomicU64>();
        // SAFETY: not -1; borrowed for this call. A number that is not open makes both calls fail.
        let file = unsafe { BorrowedFd::borrow_raw(fd) };
        let size = rustix::fs::fstat(file)?.st_size;
        if usize::try_from(size).map_or(true, |size| size < length) {
            return Err(rustix::io::Errno::INVAL.into());
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice, which overlaps nothing.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                access,
                MapFlags::SHARED,
                file,
                0,
            )?
        };
        match NonNull::new(start.cast()) {
            // Mappings begin at a page, so the numbers are aligned.
            Some(start) => Ok(Counters { start, count }),
            None => Err(rustix::io::Errno::NOMEM.into()),
        }
    }

    /// The numbers.
    #[must_use]
    pub fn all(&self) -> &[AtomicU64] {
        // SAFETY: mapped, aligned, and only ever touched as atomics, by the other processes as well; the
        // file was long enough, and nobody of ours shortens it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nobody refers to any more. Failure would leave it in place.
        let _kept = unsafe {
            munmap(
                self.start.as_ptr().cast(),
                self.count * size_of::<AtomicU64>(),
            )
        };
    }
}
