//! A request's way to a thread of the pool, and what becomes of it if none takes it.

use super::desk::{Office, Work};
use super::line::{Answer, Answers};
use rondel_core::pool::{Job, Turn};
use rondel_ffi::gil;
use std::sync::Arc;

/// A request's way to a thread. If none takes it, its client is told so.
pub(super) struct Errand {
    work: Option<Work>,
    office: Arc<Office>,
    answers: Arc<Answers>,
}

impl Errand {
    pub(super) fn new(work: Work, office: Arc<Office>, answers: Arc<Answers>) -> Errand {
        Errand {
            work: Some(work),
            office,
            answers,
        }
    }

    pub(super) fn into_job(mut self) -> Job {
        Box::new(move |turn: &mut Turn| self.run(turn))
    }

    fn run(&mut self, turn: &mut Turn) {
        let Some(work) = self.work.take() else { return };
        let tag = work.line.tag();
        let last = if work.line.is_gone() {
            Answer::Over
        } else {
            gil::attached(|| {
                work.line.begin(gil::thread_ident());
                // The loop may not take the GIL for long: what it drops is released here.
                gil::release_orphans();
                self.office.serve(work, turn.thread())
            })
        };
        let awaited = !matches!(last, Answer::Done);
        // A closed inbox: the server is gone, and with it the connection.
        if self.answers.leave((tag, last)).is_ok() {
            let waker = self.answers.waker();
            if awaited {
                turn.tell_soon(waker);
            } else {
                turn.tell_idly(waker);
            }
        }
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        if let Some(work) = &self.work {
            let unserved = (work.line.tag(), Answer::Unserved);
            let _closed = self.answers.push(unserved);
        }
    }
}
