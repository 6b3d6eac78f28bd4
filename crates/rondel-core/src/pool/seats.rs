//! Who sits where: the pool's threads, what waits for them, and which pin belongs to which.
//!
//! All of it is behind the pool's one lock; nothing here blocks, runs a job or wakes a thread: it says
//! whom to wake ([`Start`]). Invariants:
//!
//! * a thread is in `idle` exactly while it waits and nobody has woken it;
//! * `running` is the number of `counted` seats;
//! * a pin's jobs are in its seat's inbox or, if it has none yet, in `unseated`; never in both;
//! * a seat that waits for its turn (`waiting`) is idle.

use super::pacer::{Delay, Pace, SHORT};
use super::totals::Spent;
use super::turn::Present;
use super::{Job, Turn};
use crate::wake::LoopWaker;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Weak};

/// A thread that has run for so many nanoseconds makes room for one that waits.
const QUANTUM: u64 = 2_000_000;

/// A job that runs for longer is no short one.
const FRESH: u64 = 1_000_000;

/// What the caller is to do once it has let go of the lock.
pub(super) enum Start {
    Nothing,
    /// Whether that may come late: the thread looks for itself soon.
    Wake(Arc<Condvar>, bool),
    Spawn(usize),
}

/// What the pool knows of a pin. Written with the pool's lock held.
pub(super) struct PinTag {
    pub(super) id: u64,
    pub(super) alive: AtomicBool,
    /// The number of its thread; [`NOWHERE`] until there is one.
    pub(super) seat: AtomicUsize,
    /// Its jobs are in `State::unseated`.
    pub(super) waits: AtomicBool,
    /// Not on this thread, if there is another.
    pub(super) beside: Option<usize>,
}

pub(super) const NOWHERE: usize = usize::MAX;

impl PinTag {
    pub(super) fn seat(&self) -> Option<usize> {
        let seat = self.seat.load(Ordering::Relaxed);
        (seat != NOWHERE).then_some(seat)
    }
}

/// A job and when it was submitted.
pub(super) struct Queued {
    pub(super) job: Job,
    pub(super) at: u64,
}

pub(super) struct Pinned {
    pub(super) pin: Arc<PinTag>,
    pub(super) queued: Queued,
}

/// The first jobs of a pin, until some thread is free for it.
pub(super) struct Unseated {
    pub(super) pin: Arc<PinTag>,
    pub(super) jobs: Vec<Queued>,
}

/// One thread of the pool.
#[derive(Default)]
pub(super) struct Seat {
    /// Jobs for this thread, in their order.
    pub(super) inbox: VecDeque<Pinned>,
    /// Living pins that chose this thread.
    pub(super) pins: usize,
    /// The pin that has the thread to itself.
    pub(super) held: Option<u64>,
    /// When the present job began; `None` while there is none.
    pub(super) since: Option<u64>,
    /// The present job has no pin: it counts against `wanted`.
    pub(super) counted: bool,
    /// Its thread could not be started; it may be tried again.
    pub(super) vacant: bool,
    /// It waits, and looks for itself within [`super::HOT`].
    pub(super) hot: bool,
    pub(super) wake: Arc<Condvar>,
    /// Opened by the thread itself.
    pub(super) delay: Option<Delay>,
}

impl Seat {
    /// The first job in the inbox that may run now.
    pub(super) fn next_pinned(&mut self) -> Option<Pinned> {
        let at = match self.held {
            None => 0,
            Some(holder) => self.inbox.iter().position(|p| p.pin.id == holder)?,
        };
        self.inbox.remove(at)
    }
}

pub(super) struct State {
    pub(super) seats: Vec<Seat>,
    /// Idle threads; the last one went idle last.
    pub(super) idle: Vec<usize>,
    pub(super) queue: VecDeque<Queued>,
    /// Pins that found all threads at work.
    pub(super) unseated: VecDeque<Unseated>,
    /// Idle threads with jobs of pins, which are not woken as enough others are at work.
    pub(super) waiting: VecDeque<usize>,
    /// Who is to be woken once no thread is at work, and needs not be told of jobs before.
    pub(super) bell: Option<Weak<LoopWaker>>,
    /// Threads that run, or are about to run, a job without a pin.
    pub(super) running: usize,
    pub(super) pace: Pace,
    pub(super) closed: bool,
    pub(super) next_pin: u64,
    pub(super) spent: Spent,
    /// The process.
    pub(super) made_by: u32,
}

impl State {
    /// The job of this turn, if there was one, has ended; whether it was a quick one without a pin.
    pub(super) fn end(&mut self, turn: &mut Turn, ended: u64) -> bool {
        let seat = turn.thread;
        let quick = self.was_quick(turn, ended);
        match std::mem::replace(&mut turn.present, Present::Nothing) {
            Present::Nothing => return false,
            Present::Pinned(pin) => {
                let hold = turn.hold && pin.alive.load(Ordering::Relaxed);
                self.seats[seat].held = hold.then_some(pin.id);
            }
            Present::Queued => self.uncount(seat),
        }
        if let Some(since) = self.seats[seat].since.take() {
            self.spent.ran += ended.saturating_sub(since);
        }
        quick
    }

    fn was_quick(&self, turn: &Turn, ended: u64) -> bool {
        let since = self.seats[turn.thread].since;
        matches!(turn.present, Present::Queued)
            && since.is_some_and(|since| ended.saturating_sub(since) < SHORT)
    }

    /// Whether a quick job has another one behind it, and nobody but its thread is at work.
    pub(super) fn goes_on_at_once(&self, turn: &Turn, ended: u64) -> bool {
        let place = &self.seats[turn.thread];
        !self.queue.is_empty()
            && self.idle.len() + 1 >= self.seats.len()
            && self.pace.is_watching_closely()
            && place.inbox.is_empty()
            && place.held.is_none()
            && self.unseated.is_empty()
            && self.was_quick(turn, ended)
    }

    /// The next job without a pin, for a thread that is free. A thread that was woken for one is
    /// counted already.
    pub(super) fn next_queued(&mut self, turn: &mut Turn) -> Option<Job> {
        let seat = turn.thread;
        self.uncount(seat);
        if self.seats[seat].held.is_some() || self.running >= self.pace.wanted() {
            return None;
        }
        let queued = self.queue.pop_front()?;
        self.running += 1;
        self.pace.begun += 1;
        turn.hold = false;
        turn.present = Present::Queued;
        let job = self.begin(turn, queued);
        self.seats[seat].counted = true;
        Some(job)
    }

    pub(super) fn uncount(&mut self, seat: usize) {
        if std::mem::take(&mut self.seats[seat].counted) {
            self.running -= 1;
        }
    }

    /// The next job of a pin for a thread that is free: of one that has chosen it, or of one that
    /// waits for a thread.
    pub(super) fn next_pinned(&mut self, seat: usize, limit: usize) -> Option<Pinned> {
        let next = self.seats[seat].next_pinned();
        if next.is_some() || self.seats[seat].held.is_some() {
            return next;
        }
        let fits = |waiting: &Unseated| waiting.may_use(seat, limit);
        let at = self.unseated.iter().position(fits)?;
        let Unseated { pin, jobs } = self.unseated.remove(at)?;
        pin.waits.store(false, Ordering::Relaxed);
        pin.seat.store(seat, Ordering::Relaxed);
        if pin.alive.load(Ordering::Relaxed) {
            self.seats[seat].pins += 1;
        }
        for queued in jobs {
            self.put(Some(seat), &pin, queued);
        }
        self.seats[seat].next_pinned()
    }

    /// Lays a pin's job where its thread finds it.
    pub(super) fn put(&mut self, seat: Option<usize>, pin: &Arc<PinTag>, queued: Queued) {
        if let Some(seat) = seat {
            if pin.seat() != Some(seat) {
                pin.seat.store(seat, Ordering::Relaxed);
                self.seats[seat].pins += 1;
            }
            let pin = Arc::clone(pin);
            return self.seats[seat].inbox.push_back(Pinned { pin, queued });
        }
        if pin.waits.swap(true, Ordering::Relaxed) {
            let mut waiting = self.unseated.iter_mut();
            if let Some(mine) = waiting.find(|w| w.pin.id == pin.id) {
                return mine.jobs.push(queued);
            }
        }
        self.unseated.push_back(Unseated {
            pin: Arc::clone(pin),
            jobs: vec![queued],
        });
    }

    pub(super) fn leave_idle(&mut self, seat: usize) {
        if let Some(at) = self.idle.iter().position(|&idle| idle == seat) {
            self.idle.remove(at);
            self.waiting.retain(|&waiting| waiting != seat);
        }
    }

    /// Threads that are at a job, or about to be.
    pub(super) fn at_work(&self) -> usize {
        self.seats.iter().filter(|seat| !seat.vacant).count() - self.idle.len()
    }

    /// Whether a thread has begun its job a short while ago, or is about to begin one.
    pub(super) fn is_at_short_job(&self, now: u64) -> bool {
        self.seats.iter().enumerate().any(|(seat, place)| {
            !place.vacant
                && match place.since {
                    Some(since) => now.saturating_sub(since) < FRESH,
                    None => !self.idle.contains(&seat),
                }
        })
    }

    /// A thread has a job of a pin: it is woken if it is idle and one more may run, else it waits.
    pub(super) fn call_up(&mut self, seat: usize) -> Start {
        if !self.idle.contains(&seat) {
            return Start::Nothing;
        }
        if self.at_work() < self.pace.wanted() {
            return self.wake(seat);
        }
        if !self.waiting.contains(&seat) {
            self.waiting.push_back(seat);
        }
        Start::Nothing
    }

    /// Wakes the thread that has waited longest for its turn, if so many may run besides `leaving`
    /// that are about to go idle.
    pub(super) fn call_next(&mut self, leaving: usize) -> Start {
        match self.waiting.front() {
            Some(&seat) if self.at_work() - leaving < self.pace.wanted() => self.wake(seat),
            _ => Start::Nothing,
        }
    }

    /// Whether a thread that has ended a job at that time had better make room for one that waits.
    pub(super) fn gives_way(&self, turn: &Turn, ended: u64) -> bool {
        !self.waiting.is_empty()
            && self.at_work() <= self.pace.wanted()
            && ended.saturating_sub(turn.woken) > QUANTUM
    }

    fn wake(&mut self, seat: usize) -> Start {
        match self.idle.iter().position(|&idle| idle == seat) {
            Some(at) => self.wake_idle(at).1,
            None => Start::Nothing,
        }
    }

    pub(super) fn wake_idle(&mut self, at: usize) -> (usize, Start) {
        let seat = self.idle.remove(at);
        self.waiting.retain(|&waiting| waiting != seat);
        let place = &self.seats[seat];
        (seat, Start::Wake(Arc::clone(&place.wake), place.hot))
    }

    /// Wakes the last thread to go idle that fits.
    pub(super) fn find_idle(
        &mut self,
        fits: impl Fn(usize, &Seat) -> bool,
    ) -> Option<(usize, Start)> {
        let seat = self.last_idle(fits)?;
        let at = self.idle.iter().position(|&idle| idle == seat)?;
        Some(self.wake_idle(at))
    }

    /// Wakes an idle thread for a pin that waits for one.
    pub(super) fn help(&mut self, limit: usize) -> Start {
        let unseated = std::mem::take(&mut self.unseated);
        let found = self.find_idle(|seat, s| {
            s.held.is_none() && unseated.iter().any(|waiting| waiting.may_use(seat, limit))
        });
        self.unseated = unseated;
        found.map_or(Start::Nothing, |(_, start)| start)
    }

    /// A place for one more thread.
    pub(super) fn new_seat(&mut self, limit: usize) -> Option<(usize, Start)> {
        let seat = match self.seats.iter().position(|s| s.vacant) {
            Some(seat) => seat,
            None if self.seats.len() < limit => {
                self.seats.push(Seat::default());
                self.seats.len() - 1
            }
            None => return None,
        };
        self.seats[seat].vacant = false;
        Some((seat, Start::Spawn(seat)))
    }

    /// A thread for a new pin: the last one to go idle that nobody is pinned to, a new one, or an
    /// idle one, which is then to be called up. None: all are at work, and the first to be free will do.
    pub(super) fn choose(&mut self, limit: usize, beside: Option<usize>) -> (Option<usize>, Start) {
        let free = |seat: usize, s: &Seat| s.held.is_none() && Some(seat) != beside;
        if let Some(seat) = self.last_idle(|seat, s| s.pins == 0 && free(seat, s)) {
            return (Some(seat), Start::Nothing);
        }
        if let Some((seat, start)) = self.new_seat(limit) {
            return (Some(seat), start);
        }
        let idle = self.last_idle(|seat, s| free(seat, s) || limit == 1);
        (idle, Start::Nothing)
    }

    fn last_idle(&self, fits: impl Fn(usize, &Seat) -> bool) -> Option<usize> {
        let mut idle = self.idle.iter().copied();
        idle.rfind(|&seat| fits(seat, &self.seats[seat]))
    }
}

impl Unseated {
    pub(super) fn may_use(&self, seat: usize, limit: usize) -> bool {
        limit == 1 || self.pin.beside != Some(seat)
    }
}
