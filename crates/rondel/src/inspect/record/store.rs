//! What is recorded, as it is written: 24 bytes an event, and notes that are kept once.
//!
//! ```text
//!  END of a step ── nothing between ──► the next entry's step ──► its END: began when the last one ended
//!        └── a poll, another loop, a step within a step ──► BEGIN, with a reading of the clock
//! ```
//!
//! A step that follows another in its loop's batch has no event for its beginning: its END says that it
//! was so ([`STRAIGHT`]), and [`Recording::tell`] puts a BEGIN where it belongs. While such a step runs it
//! is the *lead*; whoever writes a BEGIN meanwhile has the lead's beginning written first.

use super::What;
use super::ticks::{Counter, Moment, Scale};
use rondel_ffi::frame::Frame;
use rondel_ffi::{Obj, Ref, memory, value};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// 24 bytes, whose words are written one after the other.
struct Event {
    /// Ticks since the recording began, over the kind.
    stamp: u64,
    subject: u32,
    other: u32,
    note: u32,
    more: u32,
}

const KIND: u32 = 8;

/// A step's END in `more`: it began when the last entry ended.
const STRAIGHT: u32 = 1;

/// An event as it is told; see [`What`].
pub(in crate::inspect) struct Told {
    /// Nanoseconds on the loops' clock.
    pub(in crate::inspect) at: u64,
    pub(in crate::inspect) subject: u32,
    pub(in crate::inspect) other: u32,
    pub(in crate::inspect) what: u32,
    pub(in crate::inspect) note: u32,
}

/// Room that is asked for at the beginning, in events; the system gives it as it is written to, in large
/// pages if it can: small ones would cost an event some 4 ns.
const ROOM: usize = 1 << 20;

/// Notes found without a look into the table.
const RECENT: usize = 64;

/// Keys are addresses of objects that are kept, so nobody chooses them.
type Table<K, V> = HashMap<K, V, BuildHasherDefault<Addresses>>;

#[derive(Default)]
struct Addresses(u64);

impl Hasher for Addresses {
    fn write(&mut self, bytes: &[u8]) {
        bytes
            .iter()
            .for_each(|byte| self.write_usize(usize::from(*byte)));
    }
    #[inline]
    fn write_usize(&mut self, word: usize) {
        // The multiplier of the golden ratio spreads what comes in steps of 16.
        self.0 = (self.0.rotate_left(5) ^ word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    #[inline]
    fn finish(&self) -> u64 {
        self.0.rotate_left(20)
    }
}

pub(in crate::inspect) struct Recording {
    events: Vec<Event>,
    limit: usize,
    pub(in crate::inspect) lost: u64,
    counter: Counter,
    began: Moment,
    over: Moment,
    /// When the last event was.
    at: u64,
    /// The loop of which it was an entry's end: what comes next there begins then.
    ended: usize,
    /// The task that takes a step without a BEGIN; 0 for none.
    lead: u32,
    pub(in crate::inspect) notes: Vec<Obj>,
    /// The note of an object that a note keeps alive.
    known: Table<usize, u32>,
    recent: [(usize, u32); RECENT],
    /// The note of an instruction of a code object, with what is awaited there.
    places: Table<(usize, usize, usize), u32>,
    /// Whether code is of asyncio's or ours.
    ours: Table<usize, bool>,
}

impl Default for Recording {
    fn default() -> Recording {
        Recording::new(0)
    }
}

impl Recording {
    pub(super) fn new(limit: usize) -> Recording {
        let counter = Counter::choose();
        let began = Moment::now(counter);
        Recording {
            events: memory::large(limit.min(ROOM)),
            limit,
            lost: 0,
            counter,
            began,
            over: began,
            at: 0,
            ended: 0,
            lead: 0,
            notes: Vec::new(),
            known: Table::default(),
            recent: [(0, 0); RECENT],
            places: Table::default(),
            ours: Table::default(),
        }
    }

    /// Nothing is written any more.
    pub(super) fn end(&mut self) {
        self.open();
        self.over = Moment::now(self.counter);
    }

    #[inline(always)]
    fn look(&mut self) {
        let now = self.counter.read();
        self.at = now.saturating_sub(self.began.ticks());
    }

    /// An event of this moment.
    #[inline(always)]
    pub(super) fn write(&mut self, what: What, subject: u32, other: u32, note: u32) {
        self.look();
        self.put(what, subject, other, note, 0);
    }

    /// An event of the last one's moment.
    #[inline(always)]
    pub(super) fn put(&mut self, what: What, subject: u32, other: u32, note: u32, more: u32) {
        if self.events.len() >= self.limit {
            self.lost += 1;
            return;
        }
        self.events.push(Event {
            stamp: self.at << KIND | u64::from(what as u8),
            subject,
            other,
            note,
            more,
        });
    }

    /// A task was made: now, or, if that is good enough, when the step began in which it was.
    #[inline]
    pub(super) fn created(&mut self, task: u32, parent: u32, code: u32, number: u32, exact: bool) {
        if exact {
            self.look();
        }
        self.put(What::Created, task, parent, code, number);
    }

    /// A task's step out of that loop's ready queue begins.
    #[inline(always)]
    pub(super) fn step_begins(&mut self, home: usize, task: u32) {
        if self.ended == home {
            self.ended = 0;
            self.lead = task;
        } else {
            self.begins(task);
        }
    }

    #[inline(always)]
    pub(super) fn step_ends(&mut self, home: usize, what: What, task: u32, other: u32, note: u32) {
        self.look();
        let straight = u32::from(self.lead == task);
        self.put(what, task, other, note, straight * STRAIGHT);
        self.lead = 0;
        self.ended = home;
    }

    /// A step begins that is no entry's.
    #[cold]
    pub(super) fn begins(&mut self, task: u32) {
        self.open();
        self.ended = 0;
        self.write(What::Begin, task, 0, 0);
    }

    /// It ends.
    #[cold]
    pub(super) fn ends(&mut self, what: What, task: u32, other: u32, note: u32) {
        self.write(what, task, other, note);
        self.ended = 0;
    }

    /// The lead's beginning, from which on it is a step like any.
    fn open(&mut self) {
        if self.lead != 0 {
            self.put(What::Open, self.lead, 0, 0, 0);
            self.lead = 0;
        }
    }

    /// Another entry of that loop's begins.
    pub(super) fn callback_begins(&mut self, home: usize, handle: u32, function: u32) {
        if self.ended != home {
            self.look();
        }
        self.open();
        self.ended = 0;
        self.put(What::Callback, handle, 0, function, 0);
    }

    pub(super) fn callback_ends(&mut self, home: usize, handle: u32) {
        self.write(What::CallbackEnd, handle, 0, 0);
        self.ended = home;
    }

    /// What comes next in any loop does not begin when the last entry ended.
    pub(super) fn pauses(&mut self) {
        self.ended = 0;
    }

    // -------------------------------------------------------------------------------- notes

    /// Notes count from 1; 0 is none.
    fn keep(&mut self, obj: Obj) -> u32 {
        self.notes.push(obj);
        u32::try_from(self.notes.len()).unwrap_or(0)
    }

    #[inline]
    pub(super) fn note(&mut self, obj: Ref<'_>) -> u32 {
        let address = obj.as_ptr() as usize;
        // Objects lie 16 bytes apart at least.
        let slot = (address >> 4) % RECENT;
        let (last, note) = self.recent[slot];
        if last == address {
            return note;
        }
        let note = self.note_slowly(obj, address);
        self.recent[slot] = (address, note);
        note
    }

    fn note_slowly(&mut self, obj: Ref<'_>, address: usize) -> u32 {
        if let Some(note) = self.known.get(&address) {
            return *note;
        }
        let note = self.keep(obj.own());
        self.known.insert(address, note);
        note
    }

    /// `(code, line, what is awaited)`
    pub(super) fn place(&mut self, frame: &Frame, awaited: Option<Ref<'_>>) -> u32 {
        let code = frame.code();
        let address = |obj: Ref<'_>| obj.as_ptr() as usize;
        let key = (
            address(code.borrow()),
            frame.instruction() as usize,
            awaited.map_or(0, address),
        );
        if let Some(note) = self.places.get(&key) {
            return *note;
        }
        let awaited = awaited.map_or_else(Obj::none, Ref::own);
        let kept = value::int(i64::from(frame.line()))
            .and_then(|line| value::tuple([code, line, awaited]));
        let note = match kept {
            Ok(place) => self.keep(place),
            Err(raised) => {
                raised.clear();
                0
            }
        };
        self.places.insert(key, note);
        note
    }

    /// Whether a frame runs code of asyncio's or ours.
    pub(super) fn is_ours(&mut self, frame: &Frame) -> bool {
        let code = frame.code();
        let address = code.as_ptr() as usize;
        if let Some(ours) = self.ours.get(&address) {
            return *ours;
        }
        let ours = crate::watch::is_ours(frame);
        // Kept, so that no other code takes the address.
        self.note(code.borrow());
        self.ours.insert(address, ours);
        ours
    }

    // -------------------------------------------------------------------------------- told

    pub(in crate::inspect) fn len(&self) -> usize {
        self.events.len()
    }

    /// Tells every event in order, a BEGIN for each step among them.
    pub(in crate::inspect) fn tell(&self, mut each: impl FnMut(Told)) {
        let scale = Scale::new(self.counter, self.began, self.over);
        // What has come since the last entry ended: within the step that began then, if one did.
        let mut since: Vec<Told> = Vec::new();
        let mut ended = 0;
        for event in &self.events {
            let ticks = event.stamp >> KIND;
            let at = scale.at(ticks);
            let kind = (event.stamp & ((1 << KIND) - 1)) as u8;
            let what = u32::from(kind);
            let told = Told {
                at,
                subject: event.subject,
                other: event.other,
                what,
                note: event.note,
            };
            let straight = What::ends_step(kind) && event.more == STRAIGHT;
            let open = kind == What::Open as u8;
            if straight || open {
                each(Told {
                    at: ended,
                    subject: event.subject,
                    other: 0,
                    what: What::Begin as u32,
                    note: 0,
                });
            }
            if What::ends_entry(kind) || open || kind == What::Begin as u8 {
                since.drain(..).for_each(&mut each);
                if !open {
                    each(told);
                }
                if What::ends_entry(kind) {
                    ended = at;
                }
                continue;
            }
            let named = (kind == What::Created as u8 && event.more != 0).then_some(Told {
                at,
                subject: event.subject,
                other: event.more,
                what: What::Named as u32,
                note: 0,
            });
            since.push(told);
            since.extend(named);
        }
        since.into_iter().for_each(each);
    }
}
