//! How many requests the application has at once, how many wait for that, and for how long.
//!
//! ```text
//!   Service::call ─ room? ─► the door's queue ─► the application
//!                    │ no                          ▲ one has ended
//!                    └─► waiting (bounded) ────────┘
//!                         │ no room either, or too late: 503, Retry-After
//! ```
//!
//! The deadline is for a response to begin. It is looked at `STEPS` times in its course, as long as there
//! are requests: each is stamped with the number of such looks (an epoch) when it comes, which costs it
//! no look at a clock, and is late by an eighth at most. While the client owes its body, time does not
//! count.
//!
//! * On the loop: 504, then its task is cancelled. If the task does not end by that, it is stuck.
//! * On a thread, which can't be cancelled: 504; the thread goes on, answers nobody, and is stuck if it
//!   does not end.
//! * Not yet begun: 503.
//!
//! What is late or stuck is told to `late` (`rondel.server.watchdog`), which logs where it stands and has
//! the process replaced. Loop's thread only; `tick` with the GIL, the rest without.

use super::blocking;
use super::cycle;
use super::door::{Arrival, Door};
use super::head::Head;
use crate::event_loop::LoopBase;
use rondel_core::clock;
use rondel_core::driver::Handle;
use rondel_ffi::{Inst, Obj, PyRes, Ref, call, value};
use rondel_http::http::StatusCode;
use rondel_http::{ConnInfo, Exchange};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

/// Looks in the course of a deadline.
const STEPS: u64 = 8;

/// What a late request gets to end in, at most; not more than its deadline was.
const GRACE: u64 = 10 * clock::SECOND;

/// Tags of requests that wait have this bit.
const WAITS: u64 = 1 << 62;

/// Whether the tag is that of a request that waits.
pub(super) fn is_waiting(tag: u64) -> bool {
    tag & WAITS != 0 && !blocking::is_ours(tag)
}

/// How far a request is behind its deadline.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Lateness {
    #[default]
    InTime,
    /// It was answered and cancelled in that epoch.
    Late(u64),
    /// It has not ended by that, which was told.
    Stuck,
}

/// What is to be done about a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    TooLate,
    Stuck,
}

/// When requests are late, in epochs.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    pub(super) epoch: u64,
    grace: u64,
}

impl Terms {
    /// Judges a request that came in epoch `since`, and notes that.
    pub(super) fn judge(self, since: u64, lateness: &Cell<Lateness>) -> Verdict {
        match lateness.get() {
            Lateness::InTime if self.is_late(since) => {
                lateness.set(Lateness::Late(self.epoch));
                Verdict::TooLate
            }
            Lateness::Late(then) if self.epoch - then > self.grace => {
                lateness.set(Lateness::Stuck);
                Verdict::Stuck
            }
            _ => Verdict::Fine,
        }
    }

    fn is_late(self, since: u64) -> bool {
        self.epoch - since > STEPS
    }
}

/// What `serve_http` was told of all this.
pub(super) struct Options {
    /// Requests that the application has at once; 0: any number.
    pub(super) concurrency: usize,
    /// Requests that wait for that.
    pub(super) queue: usize,
    /// Nanoseconds until a response has to begin; 0: for ever.
    pub(super) deadline: u64,
    /// Is told of what is late: `late(what, which, where)`.
    pub(super) late: Option<Obj>,
}

struct Waiting {
    head: Box<Head>,
    conn: Rc<ConnInfo>,
    exchange: Exchange,
}

pub(super) struct Bounds {
    most: usize,
    room: usize,
    /// Between two looks; 0: there are none.
    period: u64,
    late: Option<Obj>,
    driver: Handle,
    door: Weak<Door>,
    epoch: Cell<u64>,
    /// A look is to come.
    armed: Cell<bool>,
    /// In the order in which they came.
    waiting: RefCell<BTreeMap<u64, Waiting>>,
    next: Cell<u64>,
    /// Requests in the door's queue.
    pub(super) pending: Cell<usize>,
}

impl Bounds {
    pub(super) fn new(options: Options, driver: Handle, door: Weak<Door>) -> Bounds {
        let most = match options.concurrency {
            0 => usize::MAX,
            most => most,
        };
        Bounds {
            most,
            room: options.queue,
            period: options.deadline.div_ceil(STEPS),
            late: options.late,
            driver,
            door,
            epoch: Cell::new(0),
            armed: Cell::new(false),
            waiting: RefCell::default(),
            next: Cell::new(0),
            pending: Cell::new(0),
        }
    }

    /// The number that a request is stamped with.
    pub(super) fn stamp(&self) -> u64 {
        if self.period != 0 && !self.armed.get() {
            self.arm();
        }
        self.epoch.get()
    }

    #[cold]
    fn arm(&self) {
        self.armed.set(true);
        let sleep = self.driver.sleep_until(clock::now() + self.period);
        let door = self.door.clone();
        self.driver.spawn(async move {
            sleep.await;
            super::door::arrive(&door, Arrival::Tick);
        });
    }

    fn terms(&self) -> Terms {
        let grace = GRACE.div_ceil(self.period.max(1)).min(STEPS);
        Terms {
            epoch: self.epoch.get(),
            grace,
        }
    }

    /// Requests that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// The client of one that waits has gone.
    pub(super) fn forget(&self, tag: u64) {
        let left = self.waiting.borrow_mut().remove(&(tag & !WAITS));
        drop(left);
    }

    /// All that wait are told to come again.
    pub(super) fn turn_away(&self) {
        let waiting = self.waiting.take();
        for one in waiting.into_values() {
            blocking::refuse(&one.exchange, 503);
        }
    }

    fn tell(&self, what: &str, which: Ref<'_>, place: Ref<'_>) -> PyRes<()> {
        let Some(late) = &self.late else {
            return Ok(());
        };
        let what = value::str(what)?;
        call::call(late.borrow(), &[what.borrow(), which, place]).map(|_none| ())
    }
}

impl Door {
    /// A request for the application on the loop: it enters, waits, or is refused.
    pub(super) fn admit(&self, mut head: Box<Head>, conn: Rc<ConnInfo>, exchange: Exchange) {
        let bounds = &self.bounds;
        head.epoch = bounds.stamp();
        if self.active.get() + bounds.pending.get() >= bounds.most {
            return self.have_wait(head, conn, exchange);
        }
        bounds.pending.set(bounds.pending.get() + 1);
        let arrival = Arrival::Request(head, conn, exchange);
        self.queue.borrow_mut().push_back(arrival);
    }

    #[cold]
    fn have_wait(&self, mut head: Box<Head>, conn: Rc<ConnInfo>, exchange: Exchange) {
        let bounds = &self.bounds;
        if bounds.waiting() >= bounds.room {
            return self.refused(head, conn, exchange);
        }
        let number = bounds.next.get();
        bounds.next.set(number + 1);
        exchange.set_tag(number | WAITS);
        head.enter(head.offer.is_some(), 0, clock::now());
        let one = Waiting {
            head,
            conn,
            exchange,
        };
        bounds.waiting.borrow_mut().insert(number, one);
    }

    fn refused(&self, head: Box<Head>, conn: Rc<ConnInfo>, exchange: Exchange) {
        blocking::refuse(&exchange, 503);
        self.note_answered(head, conn, exchange, 503, clock::now());
    }

    /// A request has ended: the next one that waits has its place.
    pub(super) fn advance(&self) {
        let bounds = &self.bounds;
        if bounds.waiting.borrow().is_empty() {
            return;
        }
        if self.active.get() + bounds.pending.get() < bounds.most {
            let next = bounds.waiting.borrow_mut().pop_first();
            if let Some((_, one)) = next {
                bounds.pending.set(bounds.pending.get() + 1);
                let arrival = Arrival::Request(one.head, one.conn, one.exchange);
                self.queue.borrow_mut().push_back(arrival);
            }
        }
    }

    /// What is wrong with the telling is logged: others' requests go on.
    fn tell(&self, what: &str, which: Ref<'_>, place: Ref<'_>) -> PyRes<()> {
        match self.bounds.tell(what, which, place) {
            Err(raised) => self.start_failed(raised, None),
            Ok(()) => Ok(()),
        }
    }

    /// An epoch has passed: who is late?
    pub(super) fn tick(&self, home: Inst<'_, LoopBase>) -> PyRes<()> {
        let bounds = &self.bounds;
        bounds.armed.set(false);
        bounds.epoch.set(bounds.epoch.get() + 1);
        let terms = bounds.terms();
        loop {
            let first = {
                let mut waiting = bounds.waiting.borrow_mut();
                match waiting.first_entry() {
                    Some(first) if terms.is_late(first.get().head.epoch) => first.remove(),
                    _ => break,
                }
            };
            self.refused(first.head, first.conn, first.exchange);
        }
        let cycles: Vec<_> = self.cycles.borrow().iter().flatten().cloned().collect();
        for one in cycles {
            let what = match cycle::judge(one.inst(), terms)? {
                Verdict::Fine => continue,
                Verdict::TooLate => "late",
                Verdict::Stuck => "stuck",
            };
            let (scope, task) = cycle::parts(one.inst());
            self.tell(what, scope.borrow(), task.borrow())?;
            if what == "late" {
                cycle::time_out(one.inst(), StatusCode::GATEWAY_TIMEOUT)?;
            }
        }
        if let Some(threads) = &self.blocking {
            for (verdict, about, ident) in threads.overdue(terms) {
                let what = match verdict {
                    Verdict::Stuck => "thread stuck",
                    _ => "thread late",
                };
                let ident = value::int(i64::try_from(ident).unwrap_or(0))?;
                self.tell(what, value::str(&about)?.borrow(), ident.borrow())?;
            }
        }
        let busy = self.active() + bounds.pending.get() + bounds.waiting();
        if busy > 0 {
            bounds.arm();
        }
        let _ = home;
        Ok(())
    }
}
