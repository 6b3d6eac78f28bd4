//! A slab whose keys carry a generation: a stale key finds nothing, even once its slot is reused.
//!
//! The generation has `BITS` bits and wraps: `1 << BITS` reuses of one slot would have to happen
//! while an old key is still in flight for two to be confused.

/// Names one value; `generation` is below `1 << BITS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

pub(crate) struct Slots<T, const BITS: u32> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T, const BITS: u32> Slots<T, BITS> {
    pub(crate) const fn new() -> Self {
        Slots {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Adds the value that `make` builds from its own key.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Key {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(Slot {
                    generation: 0,
                    value: None,
                });
                u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 slots")
            }
        };
        let slot = &mut self.slots[index as usize];
        let key = Key {
            index,
            generation: slot.generation,
        };
        slot.value = Some(make(key));
        key
    }

    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.index as usize) {
            Some(slot) if slot.generation == key.generation => slot.value.as_ref(),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index as usize) {
            Some(slot) if slot.generation == key.generation => slot.value.as_mut(),
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1) & (u32::MAX >> (32 - BITS));
        self.free.push(key.index);
        Some(value)
    }

    /// Takes one value out, whichever; for emptying.
    pub(crate) fn remove_any(&mut self) -> Option<T> {
        let (index, slot) = (0..)
            .zip(&self.slots)
            .find(|(_, slot)| slot.value.is_some())?;
        self.remove(Key {
            index,
            generation: slot.generation,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing_in_a_reused_slot() {
        let mut s: Slots<u32, 2> = Slots::new();
        let a = s.insert_with(|_| 1);
        assert_eq!(s.remove(a), Some(1));
        let b = s.insert_with(|_| 2);
        assert_eq!(a.index, b.index);
        assert_eq!((s.get(a), s.get(b)), (None, Some(&2)));
        assert_eq!(s.remove(a), None);
        assert_eq!(s.len(), 1);
        assert_eq!(s.remove_any(), Some(2));
        assert_eq!(s.remove_any(), None);
    }

    #[test]
    fn the_generation_stays_within_its_bits() {
        let mut s: Slots<(), 2> = Slots::new();
        for _ in 0..9 {
            let key = s.insert_with(|_| ());
            assert!(key.generation < 4);
            s.remove(key);
        }
    }
}
