//! Timers in exact (deadline, insertion) order.
//!
//! Two sequences hold the pending entries, the earlier head of the two is the next to fire:
//!
//! ```text
//!   run   VecDeque, ascending   ◄── a deadline not before the run's last one: O(1) in and out
//!   heap  4-ary heap            ◄── everything else: O(log n)
//!   slots slab of values        one per live timer; its `seq` tells a live entry from a dead one
//! ```
//!
//! Programs mostly start timers in ascending order (the same delay again and again), so the run
//! takes nearly all of them; 100 000 sleepers cost no heap work at all.
//!
//! Invariants:
//! * an entry is live exactly if `slots[entry.slot].seq == entry.seq`; `seq` is never reused, so
//!   neither an entry nor a [`TimerKey`] can ever match a newer timer in the same slot;
//! * a value leaves its slot at `cancel` or `pop_due`, never later: a cancelled timer holds on to
//!   nothing but its 24-byte entry, and entries are swept once more than half of them are dead.

use std::collections::VecDeque;

/// Sweep only beyond this many dead entries, so that small sets never pay for it.
const SWEEP_MIN: usize = 64;
const ARITY: usize = 4;
/// `seq` of a slot without a timer; real sequence numbers start at 1.
const VACANT: u64 = 0;

/// Names one timer for [`Timers::cancel`]; harmless once that timer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerKey {
    seq: u64,
    slot: u32,
}

#[derive(Clone, Copy)]
struct Entry {
    deadline: u64,
    seq: u64,
    slot: u32,
}

impl TimerKey {
    /// The sequence number and the slot, for whoever has to keep a key in bare words.
    #[inline(always)]
    #[must_use]
    pub fn into_parts(self) -> (u64, u32) {
        (self.seq, self.slot)
    }

    /// The key that [`TimerKey::into_parts`] took apart. Any other numbers name no timer.
    #[inline(always)]
    #[must_use]
    pub fn from_parts(seq: u64, slot: u32) -> TimerKey {
        TimerKey { seq, slot }
    }
}

impl Entry {
    #[inline]
    fn before(&self, other: &Entry) -> bool {
        (self.deadline, self.seq) < (other.deadline, other.seq)
    }
}

struct Slot<T> {
    /// Sequence number of the timer that lives here, or [`VACANT`].
    seq: u64,
    value: Option<T>,
}

/// Pending timers, each with a value handed back when it is due or cancelled.
pub struct Timers<T> {
    run: VecDeque<Entry>,
    heap: Vec<Entry>,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    /// The next sequence number.
    seq: u64,
    /// Live timers.
    live: usize,
    /// No live timer is due before this: the last look at the head, lowered by what came since.
    /// (Cancels leave it low.)
    bound: u64,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Timers<T> {
    #[must_use]
    pub fn new() -> Self {
        Timers {
            run: VecDeque::new(),
            heap: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            seq: VACANT + 1,
            live: 0,
            bound: u64::MAX,
        }
    }

    /// How many timers are pending.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.live
    }

    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Adds a timer; equal deadlines fire in the order of insertion.
    pub fn insert(&mut self, deadline: u64, value: T) -> TimerKey {
        let seq = self.seq;
        self.seq += 1;
        self.live += 1;
        self.bound = self.bound.min(deadline);
        let filled = Slot {
            seq,
            value: Some(value),
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = filled;
                slot
            }
            None => {
                let slot = u32::try_from(self.slots.len()).expect("fewer than 2^32 timers");
                self.slots.push(filled);
                slot
            }
        };
        let entry = Entry {
            deadline,
            seq,
            slot,
        };
        match self.run.back() {
            Some(last) if deadline < last.deadline => {
                self.heap.push(entry);
                self.sift_up(self.heap.len() - 1);
            }
            _ => self.run.push_back(entry),
        }
        TimerKey { seq, slot }
    }

    /// Takes a pending timer out; `None` if it has fired, was cancelled, or belongs elsewhere.
    pub fn cancel(&mut self, key: TimerKey) -> Option<T> {
        let value = self.vacate(key.slot, key.seq)?;
        // Who set one last often cancels first (a timeout that was not needed): no dead entry then.
        if self.run.back().is_some_and(|last| last.seq == key.seq) {
            self.run.pop_back();
            return Some(value);
        }
        let dead = self.run.len() + self.heap.len() - self.live;
        if dead > SWEEP_MIN && dead > self.live {
            self.sweep();
        }
        Some(value)
    }

    /// The value of a pending timer.
    #[inline]
    pub fn get_mut(&mut self, key: TimerKey) -> Option<&mut T> {
        match self.slots.get_mut(key.slot as usize) {
            Some(slot) if slot.seq == key.seq => slot.value.as_mut(),
            _ => None,
        }
    }

    /// Whether no timer is due at `time` or before, as far as can be told without a look at the head:
    /// `false` may be wrong.
    #[inline(always)]
    #[must_use]
    pub fn none_until(&self, time: u64) -> bool {
        self.bound > time
    }

    /// When the next timer is due. Drops cancelled entries that have come to the front.
    pub fn next_deadline(&mut self) -> Option<u64> {
        let next = self.head().map(|(entry, _)| entry.deadline);
        self.bound = next.unwrap_or(u64::MAX);
        next
    }

    /// The next timer's value if its deadline is not after `now`.
    pub fn pop_due(&mut self, now: u64) -> Option<T> {
        let (entry, from_run) = self.head()?;
        if entry.deadline > now {
            return None;
        }
        if from_run {
            self.run.pop_front();
        } else {
            self.heap_pop();
        }
        self.vacate(entry.slot, entry.seq)
    }

    /// Takes out every pending value, in no particular order, and keeps the memory.
    pub fn drain(&mut self) -> Vec<T> {
        self.run.clear();
        self.heap.clear();
        self.live = 0;
        self.free.clear();
        let mut values = Vec::new();
        for (index, slot) in (0u32..).zip(&mut self.slots) {
            slot.seq = VACANT;
            values.extend(slot.value.take());
            self.free.push(index);
        }
        values
    }

    /// Shows every pending value, in no particular order (a garbage collector's walk).
    pub fn for_each(&self, mut show: impl FnMut(&T)) {
        self.slots
            .iter()
            .filter_map(|slot| slot.value.as_ref())
            .for_each(&mut show);
    }

    #[inline]
    fn is_live(&self, entry: &Entry) -> bool {
        self.slots[entry.slot as usize].seq == entry.seq
    }

    /// The earliest live entry and whether the run holds it.
    #[inline]
    fn head(&mut self) -> Option<(Entry, bool)> {
        if self.live == 0 {
            self.run.clear();
            self.heap.clear();
            return None;
        }
        while let Some(entry) = self.run.front() {
            if self.is_live(entry) {
                break;
            }
            self.run.pop_front();
        }
        while let Some(entry) = self.heap.first() {
            if self.is_live(entry) {
                break;
            }
            self.heap_pop();
        }
        match (self.run.front(), self.heap.first()) {
            (Some(r), Some(h)) if h.before(r) => Some((*h, false)),
            (Some(r), _) => Some((*r, true)),
            (None, Some(h)) => Some((*h, false)),
            (None, None) => None,
        }
    }

    fn vacate(&mut self, index: u32, seq: u64) -> Option<T> {
        let slot = self.slots.get_mut(index as usize)?;
        if slot.seq != seq {
            return None;
        }
        slot.seq = VACANT;
        self.free.push(index);
        self.live -= 1;
        slot.value.take()
    }

    fn sweep(&mut self) {
        let slots = &self.slots;
        let live = |e: &Entry| slots[e.slot as usize].seq == e.seq;
        self.run.retain(live);
        self.heap.retain(live);
        if self.heap.len() > 1 {
            for i in (0..=(self.heap.len() - 2) / ARITY).rev() {
                self.sift_down(i);
            }
        }
    }

    fn heap_pop(&mut self) {
        let Some(last) = self.heap.pop() else { return };
        if let Some(root) = self.heap.first_mut() {
            *root = last;
            self.sift_down(0);
        }
    }

    fn sift_up(&mut self, mut i: usize) {
        let entry = self.heap[i];
        while i > 0 {
            let parent = (i - 1) / ARITY;
            if !entry.before(&self.heap[parent]) {
                break;
            }
            self.heap[i] = self.heap[parent];
            i = parent;
        }
        self.heap[i] = entry;
    }

    fn sift_down(&mut self, mut i: usize) {
        let entry = self.heap[i];
        let len = self.heap.len();
        loop {
            let first = i * ARITY + 1;
            if first >= len {
                break;
            }
            let mut least = first;
            for child in first + 1..(first + ARITY).min(len) {
                if self.heap[child].before(&self.heap[least]) {
                    least = child;
                }
            }
            if !self.heap[least].before(&entry) {
                break;
            }
            self.heap[i] = self.heap[least];
            i = least;
        }
        self.heap[i] = entry;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    /// A small deterministic generator (xorshift), so that failures repeat.
    struct Random(u64);
    impl Random {
        fn next(&mut self, below: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % below
        }
    }

    fn pop_all<T>(timers: &mut Timers<T>) -> Vec<T> {
        std::iter::from_fn(|| timers.pop_due(u64::MAX)).collect()
    }

    #[test]
    fn equal_deadlines_fire_in_insertion_order() {
        let mut t = Timers::new();
        t.insert(9, 'z'); // ends the run early: the rest goes through the heap
        for c in ['a', 'b', 'c', 'd', 'e', 'f', 'g'] {
            t.insert(5, c);
        }
        assert_eq!(pop_all(&mut t).iter().collect::<String>(), "abcdefgz");
    }

    #[test]
    fn nothing_fires_before_its_deadline() {
        let mut t = Timers::new();
        t.insert(10, ());
        assert_eq!(t.pop_due(9), None);
        assert_eq!(t.pop_due(10), Some(()));
        assert_eq!(t.pop_due(u64::MAX), None);
    }

    #[test]
    fn a_stale_key_never_cancels_a_newer_timer() {
        let mut t = Timers::new();
        let old = t.insert(1, "old");
        assert_eq!(t.cancel(old), Some("old"));
        let new = t.insert(1, "new");
        assert_eq!(old.slot, new.slot, "the slot is reused");
        assert_eq!(t.cancel(old), None);
        assert_eq!(t.pop_due(1), Some("new"));
        assert_eq!(t.cancel(new), None);
        assert_eq!(t.len(), 0);
    }

    #[test]
    fn a_cancelled_value_is_dropped_at_once() {
        let mut t = Timers::new();
        let value = Rc::new(());
        let key = t.insert(1, Rc::clone(&value));
        t.insert(2, Rc::clone(&value));
        drop(t.cancel(key));
        assert_eq!(Rc::strong_count(&value), 2);
    }

    #[test]
    fn next_deadline_passes_over_cancelled_timers() {
        let mut t = Timers::new();
        let a = t.insert(1, ());
        t.insert(3, ());
        let b = t.insert(2, ());
        assert_eq!(t.next_deadline(), Some(1));
        t.cancel(a);
        assert_eq!(t.next_deadline(), Some(2));
        t.cancel(b);
        assert_eq!(t.next_deadline(), Some(3));
        t.pop_due(3);
        assert_eq!(t.next_deadline(), None);
    }

    #[test]
    fn dead_entries_are_swept() {
        let mut t = Timers::new();
        t.insert(u64::MAX, 0);
        for i in 0..100_000u64 {
            let key = t.insert(1_000_000 - i, i);
            t.cancel(key);
        }
        assert_eq!(t.len(), 1);
        assert!(t.run.len() + t.heap.len() <= 2 * SWEEP_MIN + 2);
        assert!(t.slots.len() <= 2);
    }

    #[test]
    fn drain_empties_and_keys_stay_stale() {
        let mut t = Timers::new();
        let key = t.insert(5, 1);
        t.insert(4, 2);
        let mut all = t.drain();
        all.sort_unstable();
        assert_eq!(all, [1, 2]);
        assert!(t.is_empty());
        t.insert(7, 3);
        t.insert(7, 4);
        assert_eq!(t.cancel(key), None);
        assert_eq!(pop_all(&mut t), [3, 4]);
    }

    #[test]
    fn agrees_with_a_sorted_list_over_random_operations() {
        let mut rng = Random(0x9E37_79B9_7F4A_7C15);
        let mut t = Timers::new();
        let mut model: Vec<(u64, u64, TimerKey)> = Vec::new();
        let mut now = 0;
        for id in 0..200_000u64 {
            match rng.next(10) {
                0..=4 => {
                    let deadline = now + rng.next(1000);
                    let key = t.insert(deadline, id);
                    model.push((deadline, id, key));
                }
                5..=6 if !model.is_empty() => {
                    let at = rng.next(model.len() as u64) as usize;
                    let (_, id, key) = model.swap_remove(at);
                    assert_eq!(t.cancel(key), Some(id));
                }
                _ => {
                    now += rng.next(40);
                    let at = (0..model.len())
                        .min_by_key(|&i| (model[i].0, model[i].1))
                        .filter(|&i| model[i].0 <= now);
                    let expected = at.map(|i| model.swap_remove(i).1);
                    assert_eq!(t.pop_due(now), expected);
                }
            }
            assert_eq!(t.len(), model.len());
            if model.len() > 500 {
                now += 1000;
                model.sort_unstable_by_key(|m| (m.0, m.1));
                let due = model.partition_point(|m| m.0 <= now);
                for (_, id, _) in model.drain(..due) {
                    assert_eq!(t.pop_due(now), Some(id));
                }
            }
        }
    }
}
