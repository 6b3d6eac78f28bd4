//! A pool of plain threads, for the tests of pools.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rondel_core::pool::{Job, Pool, Stats, Turn};

/// What should happen at once gets this long: only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) type Threads = Arc<Mutex<Vec<JoinHandle<()>>>>;

/// A pool of plain threads, joined at the end.
pub(crate) struct Plain {
    pub(crate) pool: Pool,
    pub(crate) threads: Threads,
}

impl Plain {
    pub(crate) fn new(limit: usize) -> Plain {
        let threads: Threads = Arc::default();
        let place: Arc<Mutex<Option<Pool>>> = Arc::default();
        let (started, theirs) = (Arc::clone(&threads), Arc::clone(&place));
        let pool = Pool::new(limit, move |seat| {
            let pool = theirs.lock().unwrap().clone().unwrap();
            let thread = thread::spawn(move || pool.work(seat, |next| next()));
            started.lock().unwrap().push(thread);
            true
        });
        *place.lock().unwrap() = Some(pool.clone());
        pool.set_alarm(None);
        Plain { pool, threads }
    }

    /// Ends the pool; all that was taken in has run then.
    pub(crate) fn end(self) {
        self.pool.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap());
        threads.into_iter().for_each(|t| t.join().unwrap());
    }
}

pub(crate) fn job(work: impl FnOnce(&mut Turn) + Send + 'static) -> Job {
    Box::new(work)
}

pub(crate) fn next<T>(receiver: &Receiver<T>) -> T {
    receiver.recv_timeout(PATIENCE).unwrap()
}

/// A job that tells that it has begun, and ends when it is told to.
pub(crate) fn gate(began: &Sender<usize>) -> (Job, Sender<()>) {
    let (open, opened) = channel();
    let began = began.clone();
    let work = move |turn: &mut Turn| {
        began.send(turn.thread()).unwrap();
        opened.recv_timeout(PATIENCE).unwrap();
    };
    (job(work), open)
}

pub(crate) fn wait_for(pool: &Pool, fits: impl Fn(Stats) -> bool) {
    let end = std::time::Instant::now() + PATIENCE;
    while !fits(pool.stats()) {
        assert!(std::time::Instant::now() < end, "{:?}", pool.stats());
        thread::yield_now();
    }
}

/// A pool that is told how things are by its ticks, as a loop does it.
pub(crate) fn paced(limit: usize) -> (Plain, Receiver<()>) {
    let plain = Plain::new(limit);
    let (ring, rung) = channel();
    let ring = Mutex::new(ring);
    let alarm = move || {
        let _gone = ring.lock().unwrap().send(());
    };
    plain.pool.set_alarm(Some(Arc::new(alarm)));
    (plain, rung)
}
