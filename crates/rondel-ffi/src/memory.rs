//! Memory for large tables.

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
