//! What futures, tasks and the ready queue keep in bare words: references beside a tag.
//!
//! An enum of references that is put together on the stack and then moved goes through memory twice:
//! stored field by field, loaded as one wide value, which the processor can't forward (some 15 cycles
//! each time, several times a step). These types are made of words, which stay in registers; each is
//! the enum that its name says, taken apart by `pack` and put together by `unpack`:
//!
//! ```text
//!  Entry         tag           first           second or nothing      one place in the ready queue
//!  CallbackCell  first         second, or a tag below TAGS            a future's first callback
//!  WaiterCell    reference or a timer's slot, tag and sequence number what a task waits for
//! ```
//!
//! `ring` is the ready queue that entries are in, `lent` how a loop knows the task that takes a step.
//!
//! A tag is written together with the references that it speaks for and nowhere else, which is what
//! every `unsafe` block here relies on. The GIL serialises access, as for all that refers to Python.

mod lent;
mod ring;

pub(crate) use lent::Lent;
pub(crate) use ring::Ring;

use crate::event_loop::{IoEvent, Ready};
use crate::future::{Callback, Future};
use crate::primitives::hops::{Alarm, Hop};
use crate::task::{Task, Waiter};
use rondel_core::timers::TimerKey;
use rondel_ffi::class::Visit;
use rondel_ffi::{Class, Inst, Obj, Own};
use std::cell::Cell;
use std::mem::ManuallyDrop;

/// The object as the instance that its tag says it is.
///
/// # Safety
/// `obj` came from an `Own<T>`.
#[inline(always)]
unsafe fn back<T: Class>(obj: Obj) -> Own<T> {
    // SAFETY: the caller's word.
    unsafe { Own::from_obj(obj) }
}

// ------------------------------------------------------------------------------------- hops

/// [`Hop`]'s tag among those of an entry or a callback, counted from `HOP`.
#[inline(always)]
fn pack_hop(hop: Hop) -> (usize, Obj) {
    match hop {
        Hop::Release(future) => (0, future.into_obj()),
        Hop::Tally(tally) => (1, tally.into_obj()),
        Hop::Completed(source) => (2, source.into_obj()),
        Hop::ShieldInner(outer) => (3, outer.into_obj()),
        Hop::ShieldOuter(inner) => (4, inner.into_obj()),
        Hop::ToThread(future) => (5, future),
        Hop::CancelThread(future) => (6, future),
        Hop::FromThread(future) => (7, future),
        Hop::Called(call) => (8, call.into_obj()),
    }
}

/// # Safety
/// Both came from one [`pack_hop`].
#[inline(always)]
unsafe fn unpack_hop(tag: usize, obj: Obj) -> Hop {
    // SAFETY: the tag says what the object was taken from.
    unsafe {
        match tag {
            0 => Hop::Release(back(obj)),
            1 => Hop::Tally(back(obj)),
            2 => Hop::Completed(back(obj)),
            3 => Hop::ShieldInner(back(obj)),
            4 => Hop::ShieldOuter(back(obj)),
            5 => Hop::ToThread(obj),
            6 => Hop::CancelThread(obj),
            7 => Hop::FromThread(obj),
            _ => Hop::Called(back(obj)),
        }
    }
}

// ------------------------------------------------------------------------------------- ready queue

mod entry {
    pub(super) const STEP: usize = 0;
    pub(super) const RUN: usize = 1;
    pub(super) const AWAKE: usize = 2;
    pub(super) const THROW: usize = 3;
    pub(super) const EXPIRE: usize = 4;
    pub(super) const GATHER_CHILD: usize = 5;
    pub(super) const GROUP_CHILD: usize = 6;
    pub(super) const REQUEST_DONE: usize = 7;
    pub(super) const ALARM_RELEASE: usize = 8;
    pub(super) const ALARM_COMPLETED: usize = 9;
    /// With the event's bits from `EVENT` on.
    pub(super) const IO: usize = 10;
    /// The same.
    pub(super) const DATAGRAMS: usize = 11;
    pub(super) const HOP: usize = 16;
    pub(super) const EVENT: u32 = 8;
}

impl IoEvent {
    /// As bits of a tag.
    #[inline(always)]
    fn bits(self) -> usize {
        let bits = usize::from(self.readable)
            | usize::from(self.writable) << 1
            | usize::from(self.read_closed) << 2;
        bits << entry::EVENT
    }

    #[inline(always)]
    fn from_bits(tag: usize) -> IoEvent {
        let bits = tag >> entry::EVENT;
        IoEvent {
            readable: bits & 1 != 0,
            writable: bits & 2 != 0,
            read_closed: bits & 4 != 0,
        }
    }
}

/// One entry of the ready queue. It is not dropped by itself: [`Entry::unpack`] gives what it holds.
pub(crate) struct Entry {
    tag: usize,
    first: ManuallyDrop<Obj>,
    second: Option<ManuallyDrop<Obj>>,
}

impl Entry {
    #[inline(always)]
    fn new(tag: usize, first: Obj, second: Option<Obj>) -> Entry {
        Entry {
            tag,
            first: ManuallyDrop::new(first),
            second: second.map(ManuallyDrop::new),
        }
    }

    #[inline(always)]
    pub(crate) fn pack(ready: Ready) -> Entry {
        match ready {
            Ready::Step(task) => Entry::new(entry::STEP, task.into_obj(), None),
            Ready::Run(handle) => Entry::new(entry::RUN, handle.into_obj(), None),
            Ready::Awake(task) => Entry::new(entry::AWAKE, task.into_obj(), None),
            Ready::Throw(task, exc) => Entry::new(entry::THROW, task.into_obj(), Some(exc)),
            Ready::Expire(timeout) => Entry::new(entry::EXPIRE, timeout.into_obj(), None),
            Ready::GatherChild(gather, child) => Entry::new(
                entry::GATHER_CHILD,
                gather.into_obj(),
                Some(child.into_obj()),
            ),
            Ready::GroupChild(group, child) => {
                Entry::new(entry::GROUP_CHILD, group.into_obj(), Some(child.into_obj()))
            }
            Ready::RequestDone(cycle, task) => {
                Entry::new(entry::REQUEST_DONE, cycle.into_obj(), Some(task.into_obj()))
            }
            Ready::Hop(hop, future) => {
                let (tag, obj) = pack_hop(hop);
                Entry::new(entry::HOP + tag, obj, Some(future.into_obj()))
            }
            Ready::Alarm(Alarm::Release(future)) => {
                Entry::new(entry::ALARM_RELEASE, future.into_obj(), None)
            }
            Ready::Alarm(Alarm::Completed(source)) => {
                Entry::new(entry::ALARM_COMPLETED, source.into_obj(), None)
            }
            Ready::Io(transport, event) => {
                Entry::new(entry::IO | event.bits(), transport.into_obj(), None)
            }
            Ready::Datagrams(transport, event) => {
                Entry::new(entry::DATAGRAMS | event.bits(), transport.into_obj(), None)
            }
        }
    }

    /// The same for a function that takes it by its address: only this copy then has one, and the
    /// original stays in registers.
    #[inline(always)]
    pub(crate) fn moved(self) -> Entry {
        Entry {
            tag: self.tag,
            first: self.first,
            second: self.second,
        }
    }

    /// The task of a [`Ready::Step`], by far the most frequent entry.
    #[inline(always)]
    pub(crate) fn into_step(self) -> Result<Own<Task>, Entry> {
        if self.tag == entry::STEP {
            // SAFETY: the tag was written beside a task.
            Ok(unsafe { back(ManuallyDrop::into_inner(self.first)) })
        } else {
            Err(self)
        }
    }

    /// The task of a [`Ready::Throw`], and what is thrown into it.
    pub(crate) fn into_throw(self) -> Result<(Own<Task>, Obj), Entry> {
        if self.tag != entry::THROW {
            return Err(self);
        }
        match self.unpack() {
            Ready::Throw(task, exc) => Ok((task, exc)),
            other => Err(Entry::pack(other)),
        }
    }

    #[inline(always)]
    pub(crate) fn unpack(self) -> Ready {
        let first = ManuallyDrop::into_inner(self.first);
        let second = self.second.map(ManuallyDrop::into_inner);
        // SAFETY: `pack` wrote the tag beside these very references, and nobody else makes entries.
        unsafe {
            match (self.tag & ((1 << entry::EVENT) - 1), second) {
                (entry::STEP, _) => Ready::Step(back(first)),
                (entry::RUN, _) => Ready::Run(back(first)),
                (entry::AWAKE, _) => Ready::Awake(back(first)),
                (entry::THROW, Some(exc)) => Ready::Throw(back(first), exc),
                (entry::EXPIRE, _) => Ready::Expire(back(first)),
                (entry::GATHER_CHILD, Some(child)) => Ready::GatherChild(back(first), back(child)),
                (entry::GROUP_CHILD, Some(child)) => Ready::GroupChild(back(first), back(child)),
                (entry::REQUEST_DONE, Some(task)) => Ready::RequestDone(back(first), back(task)),
                (entry::ALARM_RELEASE, _) => Ready::Alarm(Alarm::Release(back(first))),
                (entry::ALARM_COMPLETED, _) => Ready::Alarm(Alarm::Completed(back(first))),
                (hop, Some(future)) => {
                    Ready::Hop(unpack_hop(hop - entry::HOP, first), back(future))
                }
                (entry::DATAGRAMS, None) => {
                    Ready::Datagrams(back(first), IoEvent::from_bits(self.tag))
                }
                (_io, None) => Ready::Io(back(first), IoEvent::from_bits(self.tag)),
            }
        }
    }

    /// Looks at the entry.
    pub(crate) fn peek<R>(&self, look: impl FnOnce(&Ready) -> R) -> R {
        let twin = Entry {
            tag: self.tag,
            // SAFETY: what is made of the twin is not dropped: the references stay this entry's.
            first: unsafe { ManuallyDrop::new(Obj::from_ptr(self.first.as_ptr())) },
            second: self.second.as_ref().map(|second| {
                // SAFETY: as above.
                unsafe { ManuallyDrop::new(Obj::from_ptr(second.as_ptr())) }
            }),
        };
        look(&ManuallyDrop::new(twin.unpack()))
    }

    /// Shows the collector what it holds.
    pub(crate) fn traverse(&self, visit: &mut Visit) {
        visit.obj(self.first.borrow());
        if let Some(second) = &self.second {
            visit.obj(second.borrow());
        }
    }
}

// ------------------------------------------------------------------------------------- callbacks

mod callback {
    /// Every tag is below; no object lies at such an address.
    pub(super) const TAGS: usize = 64;
    pub(super) const WAKE: usize = 1;
    pub(super) const GATHER: usize = 2;
    pub(super) const GROUP: usize = 3;
    pub(super) const REQUEST: usize = 4;
    pub(super) const HOP: usize = 16;
}

/// A cell for an optional [`Callback`].
pub(crate) struct CallbackCell {
    /// What the callback refers to; null without a callback. Owned.
    first: Cell<*mut ()>,
    /// The context of a Python callback, owned; or a tag.
    second: Cell<*mut ()>,
}

impl Default for CallbackCell {
    #[inline(always)]
    fn default() -> CallbackCell {
        CallbackCell {
            first: Cell::new(std::ptr::null_mut()),
            second: Cell::new(std::ptr::null_mut()),
        }
    }
}

impl CallbackCell {
    #[inline(always)]
    pub(crate) fn is_none(&self) -> bool {
        self.first.get().is_null()
    }

    /// Whether it holds a [`Callback::Wake`].
    #[inline(always)]
    pub(crate) fn wakes(&self) -> bool {
        self.second.get().addr() == callback::WAKE && !self.is_none()
    }

    /// Looks at a [`Callback::Wake`]'s task. `look` runs no Python code and leaves the cell alone.
    #[inline(always)]
    pub(crate) fn peek_wake(&self, look: impl FnOnce(Inst<'_, Task>)) {
        if self.wakes() {
            // SAFETY: the tag was written beside a task, whose reference stays the cell's.
            let task =
                ManuallyDrop::new(unsafe { back::<Task>(Obj::from_ptr(self.first.get().cast())) });
            look(task.inst());
        }
    }

    /// Sets the content; the old one is dropped after the cell holds the new one.
    #[inline(always)]
    pub(crate) fn set(&self, callback: Option<Callback>) {
        let old = if self.is_none() { None } else { self.take() };
        if let Some(callback) = callback {
            self.put(callback);
        }
        drop(old);
    }

    #[inline(always)]
    fn put(&self, callback: Callback) {
        let (first, second) = match callback {
            Callback::Python { function, context } => (function, context.into_ptr().cast()),
            Callback::Wake(task) => (task.into_obj(), tag(callback::WAKE)),
            Callback::Gather(gather) => (gather.into_obj(), tag(callback::GATHER)),
            Callback::Group(group) => (group.into_obj(), tag(callback::GROUP)),
            Callback::Request(cycle) => (cycle.into_obj(), tag(callback::REQUEST)),
            Callback::Hop(hop) => {
                let (number, obj) = pack_hop(hop);
                (obj, tag(callback::HOP + number))
            }
        };
        self.first.set(first.into_ptr().cast());
        self.second.set(second);
    }

    /// Takes a [`Callback::Wake`]'s task out, if that is what it holds.
    #[inline(always)]
    pub(crate) fn take_wake(&self) -> Option<Own<Task>> {
        if !self.wakes() {
            return None;
        }
        let first = self.first.replace(std::ptr::null_mut());
        // SAFETY: the tag was written beside a task, whose reference is ours now.
        Some(unsafe { back(Obj::from_ptr(first.cast())) })
    }

    #[inline(always)]
    pub(crate) fn take(&self) -> Option<Callback> {
        let first = self.first.replace(std::ptr::null_mut());
        if first.is_null() {
            return None;
        }
        // SAFETY: the words were written together, and their references are ours now.
        Some(unsafe { read(first, self.second.get()) })
    }

    /// Looks at the content. `look` must not touch the cell.
    pub(crate) fn peek<R>(&self, look: impl FnOnce(Option<&Callback>) -> R) -> R {
        if self.is_none() {
            return look(None);
        }
        // SAFETY: the words were written together; the cell keeps owning the references, as what is
        // made here is not dropped.
        let shown = ManuallyDrop::new(unsafe { read(self.first.get(), self.second.get()) });
        look(Some(&shown))
    }
}

impl Drop for CallbackCell {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.is_none() {
            drop(self.take());
        }
    }
}

#[inline(always)]
fn tag(number: usize) -> *mut () {
    std::ptr::without_provenance_mut(number)
}

/// # Safety
/// Both words are those of one [`CallbackCell`] with a callback.
#[inline(always)]
unsafe fn read(first: *mut (), second: *mut ()) -> Callback {
    // SAFETY: `first` is an owned reference, and `second` one or the tag that says whose it was.
    unsafe {
        let obj = Obj::from_ptr(first.cast());
        match second.addr() {
            callback::WAKE => Callback::Wake(back(obj)),
            callback::GATHER => Callback::Gather(back(obj)),
            callback::GROUP => Callback::Group(back(obj)),
            callback::REQUEST => Callback::Request(back(obj)),
            hop if hop < callback::TAGS => Callback::Hop(unpack_hop(hop - callback::HOP, obj)),
            _context => Callback::Python {
                function: obj,
                context: Obj::from_ptr(second.cast()),
            },
        }
    }
}

// ------------------------------------------------------------------------------------- waiters

mod waiter {
    pub(super) const NOTHING: u64 = 0;
    pub(super) const FUTURE: u64 = 1;
    pub(super) const SLEEP: u64 = 2;
    pub(super) const RESTED: u64 = 3;
    pub(super) const CANCELLED_SLEEP: u64 = 4;
    /// With a message.
    pub(super) const CANCELLED_SLEEP_WITH: u64 = 5;
    pub(super) const OTHER: u64 = 6;
    /// The timer's sequence number lies from here on: 2^56 timers are more than a loop lives to see.
    pub(super) const SEQ: u32 = 8;
}

/// A cell for a [`Waiter`].
pub(crate) struct WaiterCell {
    /// What is waited for, owned; the timer's slot for `SLEEP`; else null.
    word: Cell<*mut ()>,
    /// The tag, and the timer's sequence number above it.
    meta: Cell<u64>,
}

impl Default for WaiterCell {
    #[inline(always)]
    fn default() -> WaiterCell {
        WaiterCell {
            word: Cell::new(std::ptr::null_mut()),
            meta: Cell::new(waiter::NOTHING),
        }
    }
}

impl WaiterCell {
    /// Sets the content; the old one is dropped after the cell holds the new one.
    #[inline(always)]
    pub(crate) fn set(&self, value: Waiter) {
        let old = self.take();
        let (word, meta) = match value {
            Waiter::Nothing => (std::ptr::null_mut(), waiter::NOTHING),
            Waiter::Future(future) => (future.into_obj().into_ptr().cast(), waiter::FUTURE),
            Waiter::Sleep(key) => {
                let (seq, slot) = key.into_parts();
                let meta = waiter::SLEEP | seq << waiter::SEQ;
                (std::ptr::without_provenance_mut(slot as usize), meta)
            }
            Waiter::Rested => (std::ptr::null_mut(), waiter::RESTED),
            Waiter::CancelledSleep(None) => (std::ptr::null_mut(), waiter::CANCELLED_SLEEP),
            Waiter::CancelledSleep(Some(message)) => {
                (message.into_ptr().cast(), waiter::CANCELLED_SLEEP_WITH)
            }
            Waiter::Other(obj) => (obj.into_ptr().cast(), waiter::OTHER),
        };
        self.word.set(word);
        self.meta.set(meta);
        drop(old);
    }

    #[inline(always)]
    pub(crate) fn take(&self) -> Waiter {
        let meta = self.meta.replace(waiter::NOTHING);
        // SAFETY: the words were written together, and their reference is ours now.
        unsafe { wait(self.word.get(), meta) }
    }

    /// Takes a [`Waiter::Future`]'s future out, if that is what it holds.
    #[inline(always)]
    pub(crate) fn take_future(&self) -> Option<Own<Future>> {
        if self.meta.get() != waiter::FUTURE {
            return None;
        }
        self.meta.set(waiter::NOTHING);
        // SAFETY: the tag was written beside a future, whose reference is ours now.
        Some(unsafe { back(Obj::from_ptr(self.word.get().cast())) })
    }

    /// Puts a future into an empty cell.
    #[inline(always)]
    pub(crate) fn put_future(&self, future: Own<Future>) {
        if !self.is_nothing() {
            return self.set(Waiter::Future(future));
        }
        self.word.set(future.into_obj().into_ptr().cast());
        self.meta.set(waiter::FUTURE);
    }

    #[inline(always)]
    pub(crate) fn is_nothing(&self) -> bool {
        self.meta.get() == waiter::NOTHING
    }

    /// Looks at the content. `look` must not touch the cell.
    pub(crate) fn peek<R>(&self, look: impl FnOnce(&Waiter) -> R) -> R {
        // SAFETY: the words were written together; the cell keeps owning the reference, as what is
        // made here is not dropped.
        let shown = ManuallyDrop::new(unsafe { wait(self.word.get(), self.meta.get()) });
        look(&shown)
    }
}

impl Drop for WaiterCell {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.is_nothing() {
            drop(self.take());
        }
    }
}

/// # Safety
/// Both words are those of one [`WaiterCell`].
#[inline(always)]
unsafe fn wait(word: *mut (), meta: u64) -> Waiter {
    // SAFETY: the tag says what the word is.
    unsafe {
        match meta & 0xff {
            waiter::NOTHING => Waiter::Nothing,
            waiter::FUTURE => Waiter::Future(back(Obj::from_ptr(word.cast()))),
            waiter::SLEEP => Waiter::Sleep(TimerKey::from_parts(
                meta >> waiter::SEQ,
                word.addr() as u32,
            )),
            waiter::RESTED => Waiter::Rested,
            waiter::CANCELLED_SLEEP => Waiter::CancelledSleep(None),
            waiter::CANCELLED_SLEEP_WITH => {
                Waiter::CancelledSleep(Some(Obj::from_ptr(word.cast())))
            }
            _other => Waiter::Other(Obj::from_ptr(word.cast())),
        }
    }
}
