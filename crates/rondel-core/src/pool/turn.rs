//! What a thread of the pool has at hand between two looks at what there is to do.
//!
//! Its own, and the jobs' that it runs: nothing here is shared, or needs the pool's lock.

use super::seats::PinTag;
use crate::clock;
use crate::wake::LoopWaker;
use std::fmt;
use std::sync::{Arc, Weak};

/// So many jobs at most may end before their loop is told of the first.
const SOON: usize = 16;

/// A thread of the pool between two looks at what there is to do, and what a job can tell the pool.
pub struct Turn {
    pub(super) thread: usize,
    pub(super) hold: bool,
    pub(super) present: Present,
    /// Nanoseconds that the present job has waited for its thread.
    pub(super) waited: u64,
    /// When it last had to wait for a job, and got one.
    pub(super) woken: u64,
    /// It has not asked for a job yet.
    pub(super) fresh: bool,
    /// Whose sleep ends once this thread is idle, or has the next job.
    /// Weak: a loop that is closed meanwhile gives its descriptors back then.
    tell: Option<Weak<LoopWaker>>,
    /// Of `tell`: jobs that have ended since, each of which can wait for the next; None: one cannot.
    soon: Option<usize>,
    /// Of `tell`: nobody waits for any of it.
    idly: bool,
}

/// What a thread is at.
pub(super) enum Present {
    Nothing,
    Pinned(Arc<PinTag>),
    Queued,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn")
            .field("thread", &self.thread)
            .finish_non_exhaustive()
    }
}

impl Turn {
    /// For a job that runs somewhere else than on a pool's thread.
    #[must_use]
    pub fn outside() -> Turn {
        Turn::new(usize::MAX)
    }

    /// Thread number `seat` has nothing to do yet.
    #[must_use]
    pub fn new(seat: usize) -> Turn {
        Turn {
            thread: seat,
            hold: false,
            present: Present::Nothing,
            waited: 0,
            woken: clock::now(),
            fresh: true,
            tell: None,
            soon: None,
            idly: false,
        }
    }

    /// This loop has something to do; it is woken at the next [`Pool::next`], and by it at once.
    ///
    /// [`Pool::next`]: super::Pool::next
    pub fn tell(&mut self, waker: &Arc<LoopWaker>) {
        self.tell_one(waker);
        (self.soon, self.idly) = (None, false);
    }

    /// The same, but the loop, which looks after the pool ([`Pool::tick`]), may hear of it with the next
    /// jobs' news: at the first moment that finds no further job, after [`SOON`] of them, or when the
    /// pool is looked at, within a tick.
    ///
    /// [`Pool::tick`]: super::Pool::tick
    pub fn tell_soon(&mut self, waker: &Arc<LoopWaker>) {
        let first = self.tell_one(waker);
        self.count(first);
        self.idly = false;
    }

    /// The same, but nobody waits for it: the loop hears of it with whatever it is told next, at the
    /// latest when the thread finds no further job.
    pub fn tell_idly(&mut self, waker: &Arc<LoopWaker>) {
        let first = self.tell_one(waker);
        self.count(first);
        self.idly |= first;
    }

    fn count(&mut self, first: bool) {
        self.soon = match self.soon {
            Some(ended) => Some(ended + 1),
            None if first => Some(1),
            // One before this cannot wait.
            None => None,
        };
    }

    /// Whether this is the first thing that the loop is to be told.
    fn tell_one(&mut self, waker: &Arc<LoopWaker>) -> bool {
        match &self.tell {
            Some(untold) if untold.as_ptr() == Arc::as_ptr(waker) => return false,
            Some(_other) => self.told(),
            None => {}
        }
        self.tell = Some(Arc::downgrade(waker));
        true
    }

    /// Wakes the loop that was to be told, for those who do not call [`Pool::next`].
    ///
    /// [`Pool::next`]: super::Pool::next
    pub fn told(&mut self) {
        (self.soon, self.idly) = (None, false);
        if let Some(waker) = self.tell.take().and_then(|waker| waker.upgrade()) {
            waker.visit();
        }
    }

    /// As [`Turn::told`], unless nobody waits for it.
    pub(super) fn told_if_awaited(&mut self) {
        if self.idly {
            self.soon = Some(0);
        } else {
            self.told();
        }
    }

    /// Whether the loop that is to be told looks for itself ([`Pool::tell_when_idle`]).
    ///
    /// [`Pool::tell_when_idle`]: super::Pool::tell_when_idle
    pub(super) fn is_heard_by(&self, bell: Option<&Weak<LoopWaker>>) -> bool {
        bell.zip(self.tell.as_ref())
            .is_some_and(|(bell, tell)| bell.ptr_eq(tell))
    }

    /// Whether somebody is still to be told.
    pub(super) fn is_to_tell(&self) -> bool {
        self.tell.is_some()
    }

    /// Whether that may wait for one more job.
    pub(super) fn may_wait(&self) -> bool {
        self.soon.is_some_and(|ended| ended < SOON)
    }

    /// The number of the thread, from 0 on.
    #[must_use]
    pub fn thread(&self) -> usize {
        self.thread
    }

    /// Nanoseconds from the job's being submitted to a thread's taking it.
    #[must_use]
    pub fn waited(&self) -> u64 {
        self.waited
    }

    /// Whether the job's pin holds its thread from now on: nobody else's jobs run there until one of
    /// the pin's own lets go, or the pin is dropped. Without a pin it has no effect.
    pub fn hold(&mut self, hold: bool) {
        self.hold = hold;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Job, Pool, pacer::SHORT};
    use super::*;
    use crate::driver::Driver;

    /// A pool whose one thread is the test's, with so many jobs; each has a loop told as `tell` does it.
    fn pool_with(jobs: usize, paced: bool, tell: fn(&mut Turn, &Arc<LoopWaker>)) -> (Pool, Driver) {
        let driver = Driver::new().unwrap();
        let pool = Pool::new(4, |_seat| true);
        pool.set_alarm(paced.then(|| Arc::new(|| {}) as Arc<dyn Fn() + Send + Sync>));
        for _ in 0..jobs {
            let waker = driver.waker();
            let job: Job = Box::new(move |turn| tell(turn, &waker));
            pool.submit(job).unwrap();
        }
        (pool, driver)
    }

    /// Runs so many jobs, and takes one more; how many each of the loop's wake-ups told of.
    fn run(pool: &Pool, driver: &Driver, jobs: usize) -> Vec<usize> {
        let (waker, mut turn) = (driver.waker(), Turn::new(0));
        let (mut told, mut untold) = (Vec::new(), 0);
        let mut job = pool.next(&mut turn).unwrap();
        for _ in 0..jobs {
            job(&mut turn);
            untold += 1;
            let next = pool.next_at_once(&mut turn);
            job = next.or_else(|| pool.next(&mut turn)).unwrap();
            // As a loop that is about to sleep finds out.
            if !waker.prepare_sleep() {
                told.push(std::mem::take(&mut untold));
            }
            waker.awake();
        }
        told
    }

    #[test]
    fn a_loop_hears_of_several_quick_jobs_at_once() {
        let (pool, driver) = pool_with(2001, true, Turn::tell_soon);
        let told = run(&pool, &driver, 2000);
        // One that was interrupted by the system is no quick one.
        assert!(told.len() < 1000, "{}", told.len());
        assert!(told.iter().all(|&jobs| jobs <= SOON), "{told:?}");
        assert!(told.iter().sum::<usize>() > 2000 - SOON);
    }

    #[test]
    fn a_job_that_took_long_is_told_of_at_once() {
        let (pool, driver) = pool_with(51, true, |turn, waker| {
            let end = clock::now() + SHORT;
            while clock::now() <= end {}
            turn.tell_soon(waker);
        });
        assert_eq!(run(&pool, &driver, 50), [1; 50]);
    }

    /// Such as that a thread is done with a request whose response has gone out already.
    #[test]
    fn what_nobody_waits_for_is_told_with_the_next_thing_or_when_no_job_is_left() {
        let (pool, driver) = pool_with(0, true, Turn::tell);
        let (waker, mut turn) = (driver.waker(), Turn::new(0));
        let tells = [
            Turn::tell_idly,
            Turn::tell_idly,
            Turn::tell,
            Turn::tell_idly,
        ];
        for tell in tells {
            let waker = driver.waker();
            let job: Job = Box::new(move |turn| {
                let end = clock::now() + SHORT;
                while clock::now() <= end {}
                tell(turn, &waker);
            });
            pool.submit(job).unwrap();
        }
        pool.close();
        let mut told = Vec::new();
        while let Some(job) = pool.next(&mut turn) {
            told.push(!waker.prepare_sleep());
            waker.awake();
            job(&mut turn);
        }
        told.push(!waker.prepare_sleep());
        assert_eq!(told, [false, false, false, true, true]);
    }

    /// A loop that gives way looks for itself, and wants to know when there is nobody to give way to.
    #[test]
    fn a_loop_that_gives_way_is_woken_when_no_thread_is_at_work() {
        let (pool, driver) = pool_with(2, true, Turn::tell);
        let (waker, mut turn) = (driver.waker(), Turn::new(0));
        let gives_way = || pool.tell_when_idle(|| driver.waker(), clock::now());
        let first = pool.next(&mut turn).unwrap();
        assert!(gives_way(), "it has just begun");
        first(&mut turn);
        let second = pool.next(&mut turn).unwrap();
        assert!(waker.prepare_sleep(), "another job follows");
        second(&mut turn);
        let (woken, gave_way, ended) = std::thread::scope(|scope| {
            let thread = scope.spawn(|| pool.next(&mut turn).is_none());
            let end = clock::now() + 20 * clock::SECOND;
            // It is asleep, so whoever wakes it writes; nothing is lost between two looks.
            while waker.writes() == 0 && clock::now() < end {
                std::thread::yield_now();
            }
            let (woken, gave_way) = (waker.writes() > 0, gives_way());
            // Else the thread sleeps on, and the test with it.
            pool.close();
            (woken, gave_way, thread.join().unwrap())
        });
        assert!(woken && ended);
        assert!(!gave_way, "nobody is at work");
    }

    #[test]
    fn another_loop_is_told_at_once_while_one_gives_way() {
        let (pool, driver) = pool_with(2, true, Turn::tell);
        let (waker, mut turn) = (driver.waker(), Turn::new(0));
        let other = Driver::new().unwrap();
        let first = pool.next(&mut turn).unwrap();
        assert!(pool.tell_when_idle(|| other.waker(), clock::now()));
        first(&mut turn);
        let _second = pool.next(&mut turn).unwrap();
        assert!(!waker.prepare_sleep());
        assert!(other.waker().prepare_sleep());
    }

    #[test]
    fn a_loop_does_not_give_way_to_a_long_job_and_hears_of_the_next_when_it_has_stopped() {
        let (pool, driver) = pool_with(2, true, Turn::tell);
        let (waker, mut turn) = (driver.waker(), Turn::new(0));
        let gives_way = |later| pool.tell_when_idle(|| driver.waker(), clock::now() + later);
        let first = pool.next(&mut turn).unwrap();
        assert!(gives_way(0) && !gives_way(clock::SECOND));
        pool.tell_no_more();
        first(&mut turn);
        let _second = pool.next(&mut turn).unwrap();
        assert!(!waker.prepare_sleep(), "it is told at once");
    }

    /// Nobody would look within a tick.
    #[test]
    fn a_pool_without_a_pacer_tells_of_each_job() {
        let (pool, driver) = pool_with(51, false, Turn::tell_soon);
        assert_eq!(run(&pool, &driver, 50), [1; 50]);
    }

    #[test]
    fn who_cannot_wait_is_told_at_once() {
        let (pool, driver) = pool_with(51, true, Turn::tell);
        assert_eq!(run(&pool, &driver, 50), [1; 50]);
        let (pool, driver) = pool_with(51, true, |turn, waker| {
            turn.tell(waker);
            turn.tell_soon(waker);
        });
        assert_eq!(run(&pool, &driver, 50), [1; 50]);
    }

    #[test]
    fn a_loop_is_told_before_another_is_to_be() {
        let [one, other] = [Driver::new().unwrap(), Driver::new().unwrap()];
        let mut turn = Turn::new(0);
        turn.tell_soon(&one.waker());
        turn.tell_soon(&other.waker());
        assert!(!one.waker().prepare_sleep());
        assert!(other.waker().prepare_sleep());
        turn.told();
        assert!(turn.tell.is_none());
    }
}
