//! A thread's side of the pool: what it takes next, whom it tells, when it makes room, how it sleeps.
//!
//! Called by the pool's threads alone, each with its own [`Turn`]. Nobody is woken, and no job runs, with
//! the pool's lock held.

use super::pacer::Delay;
use super::seats::{Pinned, Start, State};
use super::turn::{Present, Turn};
use super::{Job, Pool};
use crate::clock;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

/// So long does a thread that has gone idle look for itself whether a job is there for it; meanwhile the
/// wake-up for one may come late. Calls that follow each other come at shorter intervals.
const HOT: Duration = Duration::from_millis(2);

impl Pool {
    /// Runs jobs as thread number `seat` until the pool is closed and nothing is left for it. It waits
    /// for the next within `wait`, where there is none at once.
    pub fn work(&self, seat: usize, wait: impl Fn(&mut dyn FnMut())) {
        let mut turn = Turn::new(seat);
        loop {
            let mut next = self.next_at_once(&mut turn);
            if next.is_none() {
                wait(&mut || next = self.next(&mut turn));
            }
            match next {
                Some(job) => run(job, &mut turn),
                None => return,
            }
        }
    }

    /// The next job for a thread that has finished the one before; the caller runs it, with this turn.
    /// `None`: the pool is closed and nothing is left for the thread.
    pub fn next(&self, turn: &mut Turn) -> Option<Job> {
        let seat = turn.thread;
        // It has just been at work: the next job may follow at once.
        let mut hot = !matches!(turn.present, Present::Nothing);
        let ended = if hot { clock::now() } else { 0 };
        let mut state = self.lock();
        if std::mem::take(&mut turn.fresh) && state.pace.is_paced() {
            state.seats[seat].delay = Delay::mine();
        }
        let mut quick = state.end(turn, ended);
        if hot && state.gives_way(turn, ended) {
            state = self.give_way(state, turn);
        }
        loop {
            if let Some(Pinned { pin, queued }) = state.next_pinned(seat, self.0.limit) {
                turn.hold = state.seats[seat].held.is_some();
                turn.present = Present::Pinned(pin);
                let job = state.begin(turn, queued);
                // It may have been woken for the queue: somebody else sees to that.
                state.uncount(seat);
                let started = self.more(&mut state);
                let tell = !turn.is_heard_by(state.bell.as_ref());
                drop(state);
                self.start(started);
                if tell {
                    turn.told_if_awaited();
                }
                return Some(job);
            }
            if let Some(job) = state.next_queued(turn) {
                // Else who waits for the job before hears of it with this one's end.
                let awaited = !quick || !turn.may_wait() || !state.pace.is_watching_closely();
                let tell = awaited && !turn.is_heard_by(state.bell.as_ref());
                drop(state);
                if tell {
                    turn.told_if_awaited();
                }
                return Some(job);
            }
            if state.closed {
                drop(state);
                turn.told();
                return None;
            }
            let started = self.more(&mut state);
            if !matches!(started, Start::Nothing) {
                drop(state);
                self.start(started);
                state = self.lock();
                continue;
            }
            let started = state.call_next(1);
            if !matches!(started, Start::Nothing) {
                drop(state);
                self.start(started);
                state = self.lock();
                continue;
            }
            state.idle.push(seat);
            state.seats[seat].hot = hot;
            let bell = if state.at_work() == 0 {
                state.bell.take()
            } else {
                None
            };
            if turn.is_to_tell() || bell.is_some() {
                // Idle by now: what the loop does next finds this thread.
                drop(state);
                turn.told();
                if let Some(waker) = bell.and_then(|waker| waker.upgrade()) {
                    waker.visit();
                }
                state = self.lock();
                if state.closed || !state.idle.contains(&seat) {
                    state.leave_idle(seat);
                    continue;
                }
            }
            state = sleep(state, seat, hot);
            turn.woken = clock::now();
            (hot, quick) = (false, false);
        }
    }

    /// One that waits has its turn, and this thread has to wait for its next if it has more to do.
    #[cold]
    fn give_way<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        turn: &mut Turn,
    ) -> MutexGuard<'a, State> {
        let seat = turn.thread;
        let started = state.call_next(1);
        turn.woken = clock::now();
        if matches!(started, Start::Nothing) || state.seats[seat].inbox.is_empty() {
            drop(state);
            self.start(started);
            return self.lock();
        }
        state.idle.push(seat);
        state.waiting.push_back(seat);
        drop(state);
        self.start(started);
        turn.told();
        let mut state = self.lock();
        if state.closed {
            state.leave_idle(seat);
        } else if state.idle.contains(&seat) {
            state = sleep(state, seat, false);
        }
        turn.woken = clock::now();
        state
    }

    /// As [`Pool::next`], but `None` unless there is a job at once, no other thread is at work, and the
    /// jobs so far were quick and can wait for this one ([`Turn::tell_soon`]): for a caller who keeps what
    /// others need (an interpreter's lock) from one to the next, and gives it up for `next` else. So that
    /// is for no more than some jobs in a row, and nobody is woken while it is held.
    pub fn next_at_once(&self, turn: &mut Turn) -> Option<Job> {
        if !turn.may_wait() {
            return None;
        }
        let ended = clock::now();
        let mut state = self.lock();
        if !state.goes_on_at_once(turn, ended) {
            return None;
        }
        state.end(turn, ended);
        state.next_queued(turn)
    }
}

/// Waits as an idle thread until somebody has something for it, or it had better look.
fn sleep<'a>(mut state: MutexGuard<'a, State>, seat: usize, hot: bool) -> MutexGuard<'a, State> {
    let wake = Arc::clone(&state.seats[seat].wake);
    let mut asleep = true;
    if hot {
        let waited = wake.wait_timeout(state, HOT);
        let (back, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        state = back;
        state.seats[seat].hot = false;
        // Taken off the list: the job's wake-up is late.
        asleep = timeout.timed_out() && !state.closed && state.idle.contains(&seat);
    }
    if asleep {
        state = wake.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    // Taken off by whoever woke it; a wake-up by accident takes itself off.
    state.leave_idle(seat);
    state
}

fn run(job: Job, turn: &mut Turn) {
    // The panic hook has told of it by now.
    let _panicked = catch_unwind(AssertUnwindSafe(|| job(turn)));
}
