//! The ready queue's memory: a ring of entries that is used through `&self`.
//!
//! A `RefCell<VecDeque>` does the same for twice the instructions, four times a step. Pushing and taking
//! out run no Python code and call nothing that comes back here, so with the GIL held each is done
//! before the next begins: there is nothing for a borrow flag to catch. The number of slots is a power
//! of two, and `head` and `len` are always within it. Entries are not dropped with the ring: whoever
//! owns it takes them out.

use super::Entry;
use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;

/// Slots of the first allocation.
const FIRST: usize = 64;

#[derive(Default)]
pub(crate) struct Ring {
    slots: UnsafeCell<Box<[MaybeUninit<Entry>]>>,
    /// Where the first entry is.
    head: Cell<usize>,
    len: Cell<usize>,
}

impl Ring {
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len.get()
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.len.get() == 0
    }

    #[inline(always)]
    pub(crate) fn push(&self, entry: Entry) {
        let len = self.len.get();
        // SAFETY: nobody else looks at the slots meanwhile (see the module); there is a free one after
        // `grow`, and the mask keeps the index within them.
        unsafe {
            if len == (&*self.slots.get()).len() {
                self.resize((len * 2).max(FIRST));
            }
            let slots = &mut *self.slots.get();
            let at = (self.head.get() + len) & (slots.len() - 1);
            slots.get_unchecked_mut(at).write(entry);
        }
        self.len.set(len + 1);
    }

    #[inline(always)]
    pub(crate) fn pop(&self) -> Option<Entry> {
        let len = self.len.get();
        if len == 0 {
            return None;
        }
        let head = self.head.get();
        self.len.set(len - 1);
        // SAFETY: as above; the slot at the head is filled, and is not again read before it is.
        unsafe {
            let slots = &*self.slots.get();
            self.head.set((head + 1) & (slots.len() - 1));
            Some(slots.get_unchecked(head).assume_init_read())
        }
    }

    /// Looks at each entry, first to last. `look` must not touch the ring.
    pub(crate) fn for_each(&self, mut look: impl FnMut(&Entry)) {
        // SAFETY: as above; these slots are filled.
        unsafe {
            let slots = &*self.slots.get();
            for i in 0..self.len.get() {
                look(slots[(self.head.get() + i) & (slots.len() - 1)].assume_init_ref());
            }
        }
    }

    /// Gives back room that is not needed any more, if it is most of it.
    pub(crate) fn trim(&self) {
        // SAFETY: reads a length.
        let room = unsafe { (&*self.slots.get()).len() };
        let needed = self.len.get().next_power_of_two().max(FIRST);
        if needed <= room / 8 {
            self.resize(needed);
        }
    }

    /// Moves the entries into `room` slots: a power of two, and enough for them.
    #[cold]
    #[inline(never)]
    fn resize(&self, room: usize) {
        let mut slots: Box<[MaybeUninit<Entry>]> = std::iter::repeat_with(MaybeUninit::uninit)
            .take(room)
            .collect();
        let mut filled = 0;
        while let Some(entry) = self.pop() {
            slots[filled].write(entry);
            filled += 1;
        }
        // SAFETY: the old slots are empty; nobody has a reference to them.
        let old = unsafe { std::mem::replace(&mut *self.slots.get(), slots) };
        drop(old);
        self.head.set(0);
        self.len.set(filled);
    }
}
