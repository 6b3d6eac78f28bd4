//! Requests that threads answer, without the GIL on the loop's thread.
//!
//! ```text
//!  loop's thread, no GIL                                a pool's thread
//!  ─────────────────────                                ───────────────
//!  Door::call ─ Routes: a thread's? ─► Guest ─ its body is complete ─► Office::serve
//!                                                                        handler(scope, body, reply)
//!  take_answers ◄──────────── inbox ◄──────────── Line ◄─────────────────── reply.respond(…)
//!      └► Exchange ─► hyper writes
//! ```
//!
//! This is what a WSGI server does, with the loop's thread as its front: threads full of Python never
//! hold up the network side, as nothing here waits for the GIL.
//!
//! With `inline` the loop's own thread is the only one that runs the application (`inline`): no thread,
//! no hand-over.
//!
//! * `rondel_http::routes`: which paths are a thread's. `rondel_http::gather`: a request's body.
//! * `line`, `reply`: the way back. `desk`: what a thread does with a request; `environ`, `origin`: what
//!   it tells a WSGI application.

mod desk;
mod environ;
mod errand;
mod guest;
mod inline;
mod line;
mod origin;
mod paths;
mod reply;
mod response;

use super::access::Log;
use super::bounds::{Lateness, Terms, Verdict};
use super::head::Head;
use super::known;
use super::tally::Tally;
use crate::event_loop::LoopBase;
use desk::{Office, Setup, Work};
use environ::Environs;
use errand::Errand;
use guest::{Guest, Name};
use inline::Inline;
use line::{Answer, Answers, Line, Start};
pub(super) use origin::Origin;
use paths::RoutesObject;
use rondel_core::clock;
use rondel_core::pool::{Late, Pool};
use rondel_core::wake::LoopWaker;
use rondel_ffi::method::MethodDef;
use rondel_ffi::{Inst, Obj, PyRes};
use rondel_http::gather::Gathered;
use rondel_http::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use rondel_http::http::{HeaderMap, StatusCode};
use rondel_http::routes::Routes;
use rondel_http::{BodyPoll, ConnInfo, Event, Exchange, Flow, Request, SendError};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Tags of requests that threads answer have this bit; the others' are small numbers.
const OURS: u64 = 1 << 63;

/// So many requests at most are handed out before a thread is woken for them.
const BATCH: usize = 16;

/// Whether the tag is one of ours.
pub(super) fn is_ours(tag: u64) -> bool {
    tag & OURS != 0
}

/// What `take_answers` has for the loop, once it holds the GIL.
pub(super) enum Turned {
    /// A request for the application on the loop.
    Back(Box<Head>, Rc<ConnInfo>, Exchange),
    /// Something for the log.
    Problem(String),
}

/// A request that no thread got: its head, whose it was, its status, when it came.
pub(super) type TurnedAway = (Box<Head>, Rc<ConnInfo>, Exchange, u16, u64);

pub(super) struct Blocking {
    pool: Pool,
    office: Arc<Office>,
    answers: Arc<Answers>,
    routes: Arc<Routes>,
    /// Bytes of a body that are kept in memory.
    spool: usize,
    /// Requests here at once; further ones are answered with 503.
    most: usize,
    guests: RefCell<Vec<Option<Guest>>>,
    free: RefCell<Vec<usize>>,
    active: Cell<usize>,
    /// The present one (`bounds`), as far as it is known here.
    epoch: Cell<u64>,
    /// Requests that were answered here, before a thread got them: see [`Blocking::turned_away`].
    turned_away: RefCell<Vec<TurnedAway>>,
    /// Threads that are woken at the end of the loop's turn, and the requests since the last time: one
    /// that is woken for each request takes the processor from the loop, and sleeps after each.
    late: RefCell<Vec<Late>>,
    handed: Cell<usize>,
    /// Set if the loop's own thread answers.
    inline: Option<Inline>,
}

/// What `serve_http` was told about threads.
pub(super) struct Options<'a> {
    pub(super) pool: Pool,
    pub(super) handler: Obj,
    pub(super) routes: Obj,
    pub(super) spool: usize,
    /// Requests that may wait for a thread.
    pub(super) queue: usize,
    pub(super) root_path: String,
    pub(super) state: Option<Obj>,
    pub(super) access_log: Option<&'a Log>,
    pub(super) tally: Option<Arc<Tally>>,
    pub(super) logger: Obj,
    pub(super) waker: Arc<LoopWaker>,
    /// What every request's `environ` has; the handler is a WSGI application's then.
    pub(super) environ: Option<Obj>,
    /// Whether the handler looks at scopes.
    pub(super) scoped: bool,
    /// Whether the loop's own thread answers, and no other.
    pub(super) inline: bool,
}

impl Blocking {
    pub(super) fn new(options: Options<'_>) -> PyRes<Blocking> {
        let known = options.routes.borrow().cast::<RoutesObject>();
        let Some(routes) = known.and_then(|object| object.routes.get().cloned()) else {
            return Err(rondel_ffi::err::Builtin::Type.raise("routes() was expected"));
        };
        let limit = options.pool.stats().limit;
        let environs = (options.environ)
            .map(|template| Environs::new(template.borrow(), limit))
            .transpose()?;
        Ok(Blocking {
            office: Arc::new(Office::new(Setup {
                handler: options.handler,
                environs,
                scoped: options.scoped,
                root_path: options.root_path,
                state: options.state,
                access_log: options.access_log.map(Log::parked),
                tally: options.tally,
                logger: options.logger,
                threads: limit,
            })),
            inline: options.inline.then(Inline::new).transpose()?,
            pool: options.pool,
            answers: Arc::new(Answers::new(options.waker)),
            routes,
            spool: options.spool,
            most: options.queue.saturating_add(limit),
            guests: RefCell::default(),
            free: RefCell::default(),
            active: Cell::new(0),
            epoch: Cell::new(0),
            turned_away: RefCell::default(),
            late: RefCell::default(),
            handed: Cell::new(0),
        })
    }

    /// Whether a thread answers requests like this one.
    pub(super) fn takes(&self, request: &Request) -> bool {
        self.routes.is_for_thread(request.head.uri.path())
    }

    /// Whether requests wait for a thread.
    pub(super) fn is_crowded(&self) -> bool {
        match &self.inline {
            Some(inline) => inline.is_busy(),
            None => self.pool.stats().queued > 0,
        }
    }

    pub(super) fn admit(
        &self,
        request: Request,
        exchange: Exchange,
        id: Option<HeaderValue>,
        epoch: u64,
    ) {
        self.epoch.set(epoch);
        // What the loop has not been told of leaves room, too.
        if self.active.get() >= self.most + self.office.done.load(Relaxed) {
            refuse(&exchange, 503);
            let mut head = Box::new(Head::of(request.head));
            head.id = id;
            return self.turn_away(head, request.conn, exchange, 503, clock::now());
        }
        let at = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut guests = self.guests.borrow_mut();
            guests.push(None);
            guests.len() - 1
        });
        let tag = at as u64 | OURS;
        exchange.set_tag(tag);
        let mut head = Box::new(Head::of(request.head));
        head.id = id;
        head.enter(false, 0, clock::now());
        let guest = Guest {
            exchange,
            line: Arc::new(Line::new(
                tag,
                Arc::clone(&self.answers),
                self.inline.is_some(),
            )),
            conn: request.conn,
            name: Name::of(&head),
            reading: Some((head, Gathered::default())),
            began: clock::coarse(),
            epoch,
            lateness: Cell::default(),
        };
        self.guests.borrow_mut()[at] = Some(guest);
        self.active.set(self.active.get() + 1);
        if request.has_body {
            self.read_on(at);
        } else {
            self.hand_out(at);
        }
    }

    /// Takes in what there is of a request's body.
    fn read_on(&self, at: usize) {
        loop {
            let exchange = match &self.guests.borrow()[at] {
                Some(guest) if guest.reading.is_some() => guest.exchange.clone(),
                _ => return,
            };
            let (data, more) = match exchange.poll_body() {
                BodyPoll::Chunk { data, more } => (data, more),
                BodyPoll::Pending => return,
                BodyPoll::End => return self.hand_out(at),
                // Nobody to answer to.
                BodyPoll::Gone => return self.forget(at),
            };
            let added = match &mut self.guests.borrow_mut()[at] {
                Some(Guest {
                    reading: Some((_, body)),
                    ..
                }) => body.add(data, self.spool),
                _ => return,
            };
            if added.is_err() {
                // No room on the disk: the client may come again.
                refuse(&exchange, 507);
                return self.forget(at);
            }
            if !more {
                return self.hand_out(at);
            }
        }
    }

    /// All of the request is there: a thread gets it.
    fn hand_out(&self, at: usize) {
        let work = {
            let mut guests = self.guests.borrow_mut();
            let Some(guest) = &mut guests[at] else { return };
            let Some((head, mut body)) = guest.reading.take() else {
                return;
            };
            guest.epoch = self.epoch.get();
            // A file that was just written can be sought in.
            let _rewound = body.rewind();
            Work {
                head,
                origin: known::origin(&guest.conn),
                body,
                line: Arc::clone(&guest.line),
                started: clock::now(),
            }
        };
        if let Some(inline) = &self.inline {
            return inline.await_turn(at, work);
        }
        let errand = Errand::new(work, Arc::clone(&self.office), Arc::clone(&self.answers));
        // Refused or dropped, the errand has the request answered.
        let submitted = self.pool.submit_late(errand.into_job());
        if let Ok(Some(late)) = submitted {
            self.late.borrow_mut().push(late);
        }
        self.handed.set(self.handed.get() + 1);
        if self.handed.get() >= BATCH {
            self.send_off();
        }
    }

    /// Wakes the threads that requests were handed to since the last time.
    pub(super) fn send_off(&self) {
        if self.handed.replace(0) > 0 {
            self.late.borrow_mut().clear();
        }
    }

    fn forget(&self, at: usize) {
        let guest = self.guests.borrow_mut()[at].take();
        let Some(guest) = guest else { return };
        self.free.borrow_mut().push(at);
        self.active.set(self.active.get() - 1);
        if let (Some((head, _)), Some(status)) = (guest.reading, guest.exchange.answered_instead())
        {
            self.turn_away(head, guest.conn, guest.exchange, status, guest.began);
        }
    }

    #[cold]
    fn turn_away(
        &self,
        head: Box<Head>,
        conn: Rc<ConnInfo>,
        exchange: Exchange,
        status: u16,
        began: u64,
    ) {
        let away = (head, conn, exchange, status, began);
        self.turned_away.borrow_mut().push(away);
    }

    /// Requests that were answered since the last time without a thread, for the logs.
    pub(super) fn turned_away(&self) -> Vec<TurnedAway> {
        self.turned_away.take()
    }

    /// News of one of our exchanges.
    pub(super) fn on_event(&self, tag: u64, event: Event) {
        let at = (tag & !OURS) as usize;
        match event {
            Event::Body => self.read_on(at),
            Event::Writable => {
                self.with_line(at, Line::drained);
                self.go_on(at);
            }
            Event::Gone => {
                self.with_line(at, Line::hang_up);
                self.go_on(at);
                let reading = matches!(
                    self.guests.borrow().get(at),
                    Some(Some(Guest {
                        reading: Some(_),
                        ..
                    }))
                );
                if reading {
                    self.forget(at);
                }
            }
        }
    }

    fn go_on(&self, at: usize) {
        if let Some(inline) = &self.inline {
            inline.go_on(at);
        }
    }

    /// Whether the application could run now, on the loop's own thread.
    pub(super) fn has_turns(&self) -> bool {
        self.inline.as_ref().is_some_and(Inline::is_due)
    }

    /// Has the application run on the loop's own thread, for a while; with the GIL.
    pub(super) fn take_turns(&self, home: Inst<'_, LoopBase>) -> PyRes<()> {
        match &self.inline {
            Some(inline) => inline.run(&self.office, &self.answers, home),
            None => Ok(()),
        }
    }

    fn with_line(&self, at: usize, tell: impl FnOnce(&Line)) {
        if let Some(Some(guest)) = self.guests.borrow().get(at) {
            tell(&guest.line);
        }
    }

    /// Passes on what threads have answered; whether there was something.
    pub(super) fn take_answers(&self, turned: impl FnMut(Turned)) -> bool {
        self.send_off();
        if self.answers.is_empty() {
            return false;
        }
        self.take_all(turned);
        true
    }

    fn take_all(&self, mut turned: impl FnMut(Turned)) {
        let mut batch = Vec::new();
        self.answers.take(&mut batch);
        for (tag, answer) in batch {
            let at = (tag & !OURS) as usize;
            if matches!(answer, Answer::Done) {
                self.office.done.fetch_sub(1, Relaxed);
            }
            let found = match self.guests.borrow().get(at) {
                Some(Some(guest)) => (guest.exchange.clone(), Arc::clone(&guest.line)),
                // Cut off by a shutdown.
                _ => continue,
            };
            let (exchange, line) = found;
            let passed = match answer {
                Answer::Start(head) => begin(&exchange, head),
                Answer::Chunk(data, more) => pass(&exchange, &line, data, more),
                Answer::Whole(head, data) => {
                    begin(&exchange, head).and_then(|()| pass(&exchange, &line, data, false))
                }
                Answer::Spooled(part) => exchange.send_file(part, true).map(|flow| {
                    line.sent(flow == Flow::Full);
                }),
                Answer::Broken(text) => {
                    refuse(&exchange, 500);
                    turned(Turned::Problem(text));
                    Ok(())
                }
                Answer::File(head, part) => begin(&exchange, head)
                    .and_then(|()| exchange.send_file(part, false))
                    .map(|_flow| ()),
                Answer::Last(head, data) => {
                    let sent =
                        begin(&exchange, head).and_then(|()| pass(&exchange, &line, data, false));
                    self.forget(at);
                    sent
                }
                Answer::Over | Answer::Done => {
                    if !(exchange.is_complete() || exchange.is_gone()) {
                        refuse(&exchange, 500);
                    }
                    self.forget(at);
                    Ok(())
                }
                Answer::Unserved => {
                    refuse(&exchange, 503);
                    self.forget(at);
                    Ok(())
                }
                Answer::Bounce(head) => {
                    let guest = self.guests.borrow_mut()[at].take();
                    if let Some(guest) = guest {
                        self.free.borrow_mut().push(at);
                        self.active.set(self.active.get() - 1);
                        turned(Turned::Back(head, guest.conn, guest.exchange));
                    }
                    Ok(())
                }
            };
            match passed {
                Ok(()) => {}
                Err(SendError::Gone) => line.hang_up(),
                Err(error) => {
                    line.hang_up();
                    turned(Turned::Problem(error.to_string()));
                }
            }
        }
    }

    /// Answers requests that are late; which they are, and on which threads (0: on none yet).
    pub(super) fn overdue(&self, terms: Terms) -> Vec<(Verdict, String, u64)> {
        self.epoch.set(terms.epoch);
        let mut found = Vec::new();
        let mut late = Vec::new();
        for guest in self.guests.borrow().iter().flatten() {
            let fine = guest.lateness.get() == Lateness::InTime
                && (guest.exchange.is_started() || guest.exchange.is_gone());
            if fine || guest.reading.is_some() {
                continue;
            }
            let verdict = terms.judge(guest.epoch, &guest.lateness);
            if verdict == Verdict::Fine {
                continue;
            }
            let ident = guest.line.thread();
            if verdict == Verdict::TooLate {
                late.push((guest.exchange.clone(), Arc::clone(&guest.line), ident));
            }
            if ident != 0 {
                found.push((verdict, guest.name.text(), ident));
            }
        }
        for (exchange, line, ident) in late {
            // Its thread, now or later, finds nobody to answer to.
            line.hang_up();
            if ident == 0 {
                refuse(&exchange, 503);
            } else {
                exchange.refuse(StatusCode::GATEWAY_TIMEOUT);
            }
        }
        found
    }

    /// Requests that are not answered yet.
    pub(super) fn active(&self) -> usize {
        self.active.get()
    }

    /// The shutdown's deadline has passed: threads that still work answer nobody.
    pub(super) fn cut_off(&self) {
        let guests: Vec<Guest> = self
            .guests
            .borrow_mut()
            .iter_mut()
            .filter_map(Option::take)
            .collect();
        self.free.borrow_mut().clear();
        self.guests.borrow_mut().clear();
        self.active.set(0);
        guests.iter().for_each(|guest| guest.line.hang_up());
        drop(guests);
        if let Some(inline) = &self.inline {
            inline.cut_off(&self.office);
        }
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        self.answers.close();
        self.cut_off();
    }
}

fn begin(exchange: &Exchange, head: Start) -> Result<(), SendError> {
    exchange.start_as(head.status, head.reason, head.headers)
}

fn pass(
    exchange: &Exchange,
    line: &Line,
    data: rondel_http::hyper::body::Bytes,
    more: bool,
) -> Result<(), SendError> {
    let len = data.len();
    let sent = exchange.send_chunk(data, more);
    line.took(len, sent == Ok(Flow::Full));
    sent.map(|_flow| ())
}

/// Answers in the application's stead, or breaks off what it has begun.
pub(super) fn refuse(exchange: &Exchange, status: u16) {
    if exchange.is_started() {
        return exchange.abort();
    }
    let mut headers = HeaderMap::with_capacity(2);
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(CONTENT_TYPE, text);
    let body: &[u8] = match status {
        503 => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            b"Service Unavailable"
        }
        507 => b"Insufficient Storage",
        _ => super::message::INTERNAL_ERROR,
    };
    // A client that has gone has no use for it.
    let _gone = exchange
        .start(status, headers)
        .and_then(|()| exchange.send_chunk(body.into(), false));
}

/// The types: `[Reply, Routes, WsgiResponse]`.
pub(super) fn build() -> PyRes<[Obj; 3]> {
    Ok([reply::build()?, paths::build()?, response::build()?])
}

pub(super) fn definitions() -> Vec<MethodDef> {
    vec![paths::definition(), response::definition()]
}
