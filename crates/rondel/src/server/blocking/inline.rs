//! One thread: the loop's own runs the application, without a hand-over.
//!
//! ```text
//!   hand_out ─► due: begin ──┐                      ┌─► over
//!                            ├─ run, with the GIL ──┤
//!   room, gone ► due: go on ─┘   up to a piece      └─► rests ── room? due again, after a turn
//! ```
//!
//! * One request's application at a time: the next begins when it has returned. While a response
//!   streams, others run between its pieces. A piece is asked for when the exchange has room, and after
//!   a turn in which the one before could be sent.
//! * What runs here is no part of the loop: it finds no running one (Django forbids its database where
//!   there is one, `asyncio.run()` refuses), and may block. The stall watchdog looks away meanwhile
//!   ([`Phase::Lent`]); a loop that is away for `limit_stall` is still reported (`server.watchdog`).
//!
//! The loop's thread. `await_turn` and `go_on` without the GIL, the rest with it. Nothing is borrowed
//! while the application runs.
//!
//! [`Phase::Lent`]: rondel_core::inspect::counters::Phase::Lent

use super::OURS;
use super::desk::{Office, Progress, Rest, Work};
use super::line::{Answer, Answers};
use crate::event_loop::LoopBase;
use rondel_core::clock;
use rondel_ffi::{Inst, Obj, PyRes, call, gil, value};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};

/// Nanoseconds from which on the network is looked at before the next request.
const WHILE: u64 = 1_000_000;

/// Of the thread, among those of the office.
const SEAT: usize = 0;

pub(super) struct Inline {
    due: RefCell<VecDeque<Due>>,
    /// What has begun and is not over, by the request's place.
    rests: RefCell<HashMap<usize, Resting>>,
    /// Of `asyncio.events`: `_get_running_loop`, `_set_running_loop`.
    get_running: Obj,
    set_running: Obj,
}

enum Due {
    Begin(usize, Box<Work>),
    GoOn(usize),
}

struct Resting {
    rest: Box<Rest>,
    /// It is among what is due.
    due: bool,
}

impl Inline {
    pub(super) fn new() -> PyRes<Inline> {
        let events = call::import(c"asyncio.events")?;
        let of = |name| call::getattr(events.borrow(), value::intern(name)?.borrow());
        Ok(Inline {
            due: RefCell::default(),
            rests: RefCell::default(),
            get_running: of(c"_get_running_loop")?,
            set_running: of(c"_set_running_loop")?,
        })
    }

    /// All of a request is there.
    pub(super) fn await_turn(&self, at: usize, work: Work) {
        let begin = Due::Begin(at, Box::new(work));
        self.due.borrow_mut().push_back(begin);
    }

    /// There is room for a piece, or nobody is there any more.
    pub(super) fn go_on(&self, at: usize) {
        if let Some(resting) = self.rests.borrow_mut().get_mut(&at)
            && !std::mem::replace(&mut resting.due, true)
        {
            self.due.borrow_mut().push_back(Due::GoOn(at));
        }
    }

    pub(super) fn is_due(&self) -> bool {
        !self.due.borrow().is_empty()
    }

    /// Whether a request waits for others.
    pub(super) fn is_busy(&self) -> bool {
        self.due.borrow().len() > 1
    }

    /// Runs what is due, for a while. The answers are in the inbox then.
    pub(super) fn run(
        &self,
        office: &Office,
        answers: &Answers,
        home: Inst<'_, LoopBase>,
    ) -> PyRes<()> {
        home.counters.lend(true);
        let ran = self.outside(|| self.run_due(office, answers));
        home.counters.lend(false);
        ran
    }

    fn run_due(&self, office: &Office, answers: &Answers) {
        // What becomes due by this waits for the next turn, in which what it has sent goes out.
        let most = self.due.borrow().len();
        let end = clock::now() + WHILE;
        for _ in 0..most {
            let due = self.due.borrow_mut().pop_front();
            match due {
                None => break,
                Some(Due::Begin(at, work)) => {
                    let line = &work.line;
                    if line.is_gone() {
                        let _closed = answers.push((line.tag(), Answer::Over));
                        continue;
                    }
                    line.begin(gil::thread_ident());
                    self.keep(at, office.begin(*work, SEAT), answers);
                }
                Some(Due::GoOn(at)) => {
                    if let Some(rest) = self.ready(at) {
                        let progress = if rest.is_unwanted() {
                            Progress::Over(office.abandon(*rest))
                        } else {
                            office.resume(rest)
                        };
                        self.keep(at, progress, answers);
                    }
                }
            }
            if clock::now() >= end {
                break;
            }
        }
    }

    /// What is to go on, if it can.
    fn ready(&self, at: usize) -> Option<Box<Rest>> {
        let mut rests = self.rests.borrow_mut();
        let resting = rests.get_mut(&at)?;
        if resting.rest.is_ahead() {
            resting.due = false;
            return None;
        }
        rests.remove(&at).map(|resting| resting.rest)
    }

    fn keep(&self, at: usize, progress: Progress, answers: &Answers) {
        match progress {
            Progress::Over(answer) => {
                let _closed = answers.push((at as u64 | OURS, answer));
            }
            Progress::More(rest) => {
                rest.flush();
                // Where its piece fills the exchange, that is known once the loop has passed it on.
                let resting = Resting { rest, due: true };
                self.rests.borrow_mut().insert(at, resting);
                self.due.borrow_mut().push_back(Due::GoOn(at));
            }
        }
    }

    /// Runs what is no part of the running loop.
    fn outside<R>(&self, work: impl FnOnce() -> R) -> PyRes<R> {
        let set = |which: &Obj| call::call1(self.set_running.borrow(), which.borrow());
        let running = call::call0(self.get_running.borrow())?;
        set(&Obj::none())?;
        let done = work();
        set(&running)?;
        Ok(done)
    }

    /// Ends what has begun; nobody is there any more.
    pub(super) fn cut_off(&self, office: &Office) {
        let (due, rests) = (self.due.take(), self.rests.take());
        drop(due);
        if rests.is_empty() {
            return;
        }
        let ended = self.outside(|| {
            for resting in rests.into_values() {
                // The inbox's reader knows of no such request any more.
                let _over = office.abandon(*resting.rest);
            }
        });
        if let Err(raised) = ended {
            raised.unraisable(None);
        }
    }
}
