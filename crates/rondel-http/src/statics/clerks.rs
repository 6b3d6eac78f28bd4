//! Threads that look up what the loop would have to wait for a disk for.
//!
//! At most [`MOST`], started when they are needed and kept; a request waits for its turn. They know
//! nothing but folders and paths, so no interpreter and no connection. Whoever asks always gets an
//! answer: a clerk that fails says that nothing is there.

use super::coding::Wishes;
use super::folder::{Folder, Found, Patience};
use super::place::Below;
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

/// Disks answer several at once; but what is asked for often the system knows by heart.
const MOST: usize = 4;

struct Question {
    folder: Arc<Folder>,
    below: Below,
    wishes: Wishes,
    slot: Slot,
}

#[derive(Default)]
struct State {
    found: Option<Found>,
    waker: Option<Waker>,
}

/// Where the answer goes; dropped empty it has the answer that nothing is there.
struct Slot(Arc<Mutex<State>>);

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.found.get_or_insert(Found::Nothing);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The answer to come.
pub(crate) struct Answer(Arc<Mutex<State>>);

impl Future for Answer {
    type Output = Found;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Found> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.found.take() {
            Some(found) => Poll::Ready(found),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

pub(crate) struct Clerks {
    ask: Sender<Question>,
    questions: Arc<Mutex<Receiver<Question>>>,
    /// Those that wait for a question.
    idle: Arc<AtomicUsize>,
    started: Cell<usize>,
}

impl Clerks {
    pub(crate) fn new() -> Clerks {
        let (ask, questions) = channel();
        Clerks {
            ask,
            questions: Arc::new(Mutex::new(questions)),
            idle: Arc::default(),
            started: Cell::new(0),
        }
    }

    pub(crate) fn ask(&self, folder: &Arc<Folder>, below: Below, wishes: Wishes) -> Answer {
        let state = Arc::new(Mutex::new(State::default()));
        let question = Question {
            folder: Arc::clone(folder),
            below,
            wishes,
            slot: Slot(Arc::clone(&state)),
        };
        if self.idle.load(Ordering::Acquire) == 0 && self.started.get() < MOST {
            self.start();
        }
        if self.started.get() == 0 {
            // No thread to be had: better late than never.
            reply(question);
        } else {
            // Received as long as we are here.
            let _sent = self.ask.send(question);
        }
        Answer(state)
    }

    fn start(&self) {
        let (questions, idle) = (Arc::clone(&self.questions), Arc::clone(&self.idle));
        let work = move || {
            loop {
                idle.fetch_add(1, Ordering::AcqRel);
                let question = questions
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .recv();
                idle.fetch_sub(1, Ordering::AcqRel);
                match question {
                    Ok(question) => reply(question),
                    // Nobody asks any more.
                    Err(_) => return,
                }
            }
        };
        let thread = thread::Builder::new().name("rondel-files".into());
        if thread.spawn(work).is_ok() {
            self.started.set(self.started.get() + 1);
        }
    }
}

fn reply(question: Question) {
    let Question {
        folder,
        below,
        wishes,
        slot,
    } = question;
    let found = folder
        .find(&below, wishes, Patience::Full)
        .unwrap_or(Found::Nothing);
    if let Found::File(entry) = &found {
        entry.warm();
    }
    let mut state = slot.0.lock().unwrap_or_else(PoisonError::into_inner);
    state.found = Some(found);
}
