//! The door between the connections, polled without the GIL, and the application.
//!
//! [`Door`] is the [`Service`] that hyper's side calls: it queues and returns. The loop drains the
//! queue with the GIL held ([`Door::enter`]). Both sides run on the loop's thread, never at once.

use super::access::{About, Access, Headers, Log, log_exception};
use super::blocking::{self, Blocking, Turned};
use super::bounds::{self, Bounds};
use super::cycle::{self, Cycle};
use super::head::{Head, Heads};
use super::ids::Ids;
use super::known::Known;
use super::scope::Scopes;
use super::tally::Tally;
use super::websocket::Socket;
use crate::event_loop::LoopBase;
use rondel_core::clock;
use rondel_core::driver::Handle;
use rondel_ffi::err::Builtin;
use rondel_ffi::{Inst, Obj, Own, PyRes, Raised, call, value};
use rondel_http::http::StatusCode;
use rondel_http::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use rondel_http::hyper::body::Bytes;
use rondel_http::{ConnInfo, Event, Exchange, Problem, Request, Server, Service};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;

/// Nanoseconds that cancelled requests get to end in at a forced stop.
const PATIENCE: u64 = 3 * clock::SECOND;

/// What waits for the GIL.
pub(super) enum Arrival {
    Request(Box<Head>, Rc<ConnInfo>, Exchange),
    News(u64, Event),
    /// The server's last connection is closed.
    Drained,
    /// A deadline of the shutdown has passed.
    Deadline,
    /// Requests that were cancelled at the deadline have not ended since.
    GiveUp,
    /// A thread is done with a request, and the server is stopping.
    Settle,
    /// What a thread's answer was refused for, or a file could not be sent for.
    Problem(String),
    /// Somebody asks for the metrics.
    Scrape(Exchange),
    /// The application has no part in it, for the access log: status, and when the request came.
    Answered(Box<Head>, Rc<ConnInfo>, Exchange, u16, u64),
    /// What came was no request, for the access log.
    Refused(Rc<ConnInfo>, u16, u64),
    /// Requests may be late (`bounds`).
    Tick,
}

pub(crate) struct Door {
    pub(super) queue: RefCell<VecDeque<Arrival>>,
    pub(super) heads: Heads,
    /// Requests that threads answer, if the application wants that.
    pub(super) blocking: Option<Blocking>,
    pub(super) bounds: Bounds,
    /// Requests in progress by tag; 0 is nobody's tag.
    pub(super) cycles: RefCell<Vec<Option<Own<Cycle>>>>,
    free: RefCell<Vec<u64>>,
    pub(super) active: Cell<usize>,
    app: Obj,
    pub(super) scopes: Scopes,
    pub(super) notes: Notes,
    logger: Obj,
    server: RefCell<Option<Server>>,
    /// Futures of `shutdown()` that nobody has answered yet.
    stopping: RefCell<Vec<Obj>>,
    drained: Cell<bool>,
    given_up: Cell<bool>,
    finished: Cell<bool>,
    cut_off: Cell<usize>,
}

impl Door {
    pub(super) fn new(
        app: Obj,
        scopes: Scopes,
        notes: Notes,
        logger: Obj,
        blocking: Option<Blocking>,
        bounds: bounds::Options,
        driver: Handle,
    ) -> Rc<Door> {
        Rc::new_cyclic(|me| Door {
            bounds: Bounds::new(bounds, driver, Weak::clone(me)),
            queue: RefCell::default(),
            heads: Heads::default(),
            cycles: RefCell::new(vec![None]),
            free: RefCell::default(),
            active: Cell::new(0),
            app,
            scopes,
            notes,
            logger,
            server: RefCell::new(None),
            stopping: RefCell::default(),
            drained: Cell::new(false),
            given_up: Cell::new(false),
            finished: Cell::new(false),
            cut_off: Cell::new(0),
            blocking,
        })
    }

    pub(super) fn set_server(&self, server: Server) {
        *self.server.borrow_mut() = Some(server);
    }

    /// Whether something waits for the GIL.
    #[inline]
    pub(crate) fn has_arrivals(&self) -> bool {
        !self.queue.borrow().is_empty() || self.blocking.as_ref().is_some_and(Blocking::has_turns)
    }

    /// Has threads begin with what was handed to them. Needs no GIL.
    pub(crate) fn send_off(&self) {
        if let Some(blocking) = &self.blocking {
            blocking.send_off();
        }
    }

    /// Passes on what threads have answered; whether there was something. Needs no GIL.
    pub(crate) fn take_answers(&self) -> bool {
        let Some(blocking) = &self.blocking else {
            return false;
        };
        let arrive = |arrival| self.queue.borrow_mut().push_back(arrival);
        let some = blocking.take_answers(|turned| {
            arrive(match turned {
                Turned::Back(head, conn, exchange) => return self.admit(head, conn, exchange),
                Turned::Problem(text) => Arrival::Problem(text),
            });
        });
        if some && !self.stopping.borrow().is_empty() {
            arrive(Arrival::Settle);
        }
        some
    }

    /// Deals with all that has arrived. With the GIL.
    pub(crate) fn enter(self: &Rc<Self>, home: Inst<'_, LoopBase>) -> PyRes<()> {
        self.let_in(home)?;
        if let Some(blocking) = self.blocking.as_ref().filter(|one| one.has_turns()) {
            blocking.take_turns(home)?;
            self.take_answers();
            // The application may have taken long.
            self.let_in(home)?;
        }
        Ok(())
    }

    fn let_in(self: &Rc<Self>, home: Inst<'_, LoopBase>) -> PyRes<()> {
        loop {
            let arrival = self.queue.borrow_mut().pop_front();
            match arrival {
                None => return Ok(()),
                Some(Arrival::Request(mut head, conn, exchange)) => {
                    let pending = &self.bounds.pending;
                    pending.set(pending.get() - 1);
                    let begun = self.begin(home, &mut head, &conn, exchange);
                    if let Err(raised) = begun {
                        self.start_failed(raised, Some(head.about()))?;
                        self.advance();
                    }
                    self.heads.recycle(head);
                }
                Some(Arrival::News(tag, event)) => {
                    let cycle = self.cycles.borrow().get(tag as usize).cloned().flatten();
                    if let Some(cycle) = cycle {
                        cycle::on_event(cycle.inst(), event)?;
                    }
                }
                Some(Arrival::Drained) => {
                    self.drained.set(true);
                    self.settle_shutdown()?;
                }
                Some(Arrival::Deadline) => self.deadline(home)?,
                Some(Arrival::GiveUp) => self.give_up()?,
                Some(Arrival::Settle) => self.settle_shutdown()?,
                Some(Arrival::Scrape(exchange)) => self.scrape(&exchange)?,
                Some(Arrival::Answered(head, conn, exchange, status, began)) => {
                    self.write_log(&head, &conn, &exchange, status, began)?;
                    self.heads.recycle(head);
                }
                Some(Arrival::Refused(conn, status, at)) => {
                    self.write_refused(&conn, status, at)?
                }
                Some(Arrival::Tick) => self.tick(home)?,
                Some(Arrival::Problem(text)) => self.log_exception(&text, None, None),
            }
        }
    }

    /// Answers with the metrics.
    fn scrape(&self, exchange: &Exchange) -> PyRes<()> {
        let Some((_, scrape)) = &self.notes.paths.metrics else {
            return Ok(());
        };
        let text = || -> PyRes<Bytes> {
            let text = call::call(scrape.borrow(), &[])?;
            super::message::read_body(text.borrow())
        };
        match text() {
            Ok(text) => {
                let kind = "text/plain; version=0.0.4; charset=utf-8";
                answer(exchange, kind, text);
                Ok(())
            }
            // The exchange, dropped, answers 500.
            Err(raised) => self.start_failed(raised, None),
        }
    }

    /// The access log's line of a request that the application has no part in.
    fn write_log(
        &self,
        head: &Head,
        conn: &ConnInfo,
        exchange: &Exchange,
        status: u16,
        started: u64,
    ) -> PyRes<()> {
        if let Some(log) = &self.notes.access_log {
            log.write(&Access {
                client: &Known::of(conn)?.client_text,
                method: head.method.as_str(),
                target: head.target(),
                version: head.version(),
                status,
                started,
                sent: exchange.sent(),
                id: head.id(),
                headers: Headers::Lines(&head.lines),
            });
        }
        Ok(())
    }

    /// The access log's line of what became no request.
    fn write_refused(&self, conn: &ConnInfo, status: u16, at: u64) -> PyRes<()> {
        if let Some(log) = &self.notes.access_log {
            log.write(&Access {
                client: &Known::of(conn)?.client_text,
                method: "-",
                target: "-",
                version: "-",
                status,
                started: at,
                sent: 0,
                id: None,
                headers: Headers::Noted(&[]),
            });
        }
        Ok(())
    }

    /// Notes a request that the server has answered by itself.
    pub(super) fn note_answered(
        &self,
        head: Box<Head>,
        conn: Rc<ConnInfo>,
        exchange: Exchange,
        status: u16,
        began: u64,
    ) {
        let now = clock::now();
        if let Some(tally) = &self.notes.tally {
            tally.count(&head.method, status, now.saturating_sub(began));
        }
        head.ticket.end(status, now, None);
        if self.notes.access_log.is_some() {
            let arrival = Arrival::Answered(head, conn, exchange, status, began);
            self.queue.borrow_mut().push_back(arrival);
        } else {
            self.heads.recycle(head);
        }
    }

    /// The same for those that were to be threads'.
    fn note_turned_away(&self, blocking: &Blocking) {
        for (head, conn, exchange, status, began) in blocking.turned_away() {
            self.note_answered(head, conn, exchange, status, began);
        }
    }

    /// Gives the response the request's id, if requests have ids.
    fn name(&self, request: &Request, exchange: &Exchange) -> Option<HeaderValue> {
        self.notes.ids.as_ref().map(|ids| {
            let id = ids.of(&request.head.headers);
            exchange.set_header(ids.name().clone(), id.clone());
            id
        })
    }

    /// Answers what is not the application's; whether it was that.
    fn answers(&self, path: &str, exchange: &Exchange) -> bool {
        if self.notes.paths.health.as_deref() == Some(path) {
            answer(exchange, "text/plain", Bytes::from_static(b"ok\n"));
            return true;
        }
        if (self.notes.paths.metrics.as_ref()).is_some_and(|(known, _)| known == path) {
            let arrival = Arrival::Scrape(exchange.clone());
            self.queue.borrow_mut().push_back(arrival);
            return true;
        }
        false
    }

    /// Starts a request: its scope, its cycle, its task.
    fn begin(
        self: &Rc<Self>,
        home: Inst<'_, LoopBase>,
        head: &mut Head,
        conn: &ConnInfo,
        exchange: Exchange,
    ) -> PyRes<()> {
        let tag = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut cycles = self.cycles.borrow_mut();
            cycles.push(None);
            cycles.len() as u64 - 1
        });
        exchange.set_tag(tag);
        let known = Known::of(conn)?;
        let offer = head.offer.take();
        let scope = match &offer {
            None => self.scopes.build(head, known)?,
            Some(offer) => self.scopes.build_websocket(head, known, offer)?,
        };
        let socket = offer.map(Socket::new);
        let cycle = cycle::new(self, tag, exchange, head, known, socket)?;
        self.cycles.borrow_mut()[tag as usize] = Some(cycle.clone());
        self.active.set(self.active.get() + 1);
        cycle::start(home, &cycle, self.app.borrow(), scope, head)
    }

    /// The request could not even be started: the exchange, dropped, has answered 500.
    #[cold]
    pub(super) fn start_failed(&self, raised: Raised, about: Option<About<'_>>) -> PyRes<()> {
        if raised.matches(Builtin::KeyboardInterrupt.class())
            || raised.matches(Builtin::SystemExit.class())
        {
            return Err(raised);
        }
        let exc = raised.fetch();
        self.log_exception("Exception in ASGI application", Some(&exc), about);
        Ok(())
    }

    /// Forgets a request whose task is done.
    pub(super) fn leave(&self, tag: u64) -> PyRes<()> {
        let cycle = self.cycles.borrow_mut()[tag as usize].take();
        drop(cycle);
        self.free.borrow_mut().push(tag);
        self.active.set(self.active.get() - 1);
        self.advance();
        self.settle_shutdown()
    }

    #[cold]
    pub(super) fn log_exception(&self, message: &str, exc: Option<&Obj>, about: Option<About<'_>>) {
        log_exception(self.logger.borrow(), message, exc, about);
    }

    // --------------------------------------------------------------------- the end

    /// Stops accepting; `future` resolves when all is over. Each call may bring a nearer deadline.
    pub(super) fn shut_down(
        self: &Rc<Self>,
        driver: &Handle,
        future: Obj,
        deadline: u64,
        idle_until: u64,
    ) -> PyRes<()> {
        let first = self.stopping.borrow().is_empty();
        self.stopping.borrow_mut().push(future);
        let server = self.server.borrow().clone();
        let Some(server) = server else { return Ok(()) };
        if first {
            server.graceful_shutdown(idle_until);
            let (door, drained) = (Rc::downgrade(self), server.drained());
            driver.spawn(async move {
                drained.await;
                arrive(&door, Arrival::Drained);
            });
        }
        let (door, sleep) = (Rc::downgrade(self), driver.sleep_until(deadline));
        driver.spawn(async move {
            sleep.await;
            arrive(&door, Arrival::Deadline);
        });
        Ok(())
    }

    fn deadline(self: &Rc<Self>, home: Inst<'_, LoopBase>) -> PyRes<()> {
        if self.is_over() {
            return Ok(());
        }
        self.cut_off.set(self.cut_off.get().max(self.active()));
        if let Some(blocking) = &self.blocking {
            blocking.cut_off();
        }
        self.bounds.turn_away();
        if let Some(server) = &*self.server.borrow() {
            server.force_close();
        }
        let left: Vec<Own<Cycle>> = self.cycles.borrow().iter().flatten().cloned().collect();
        for cycle in left {
            cycle::cancel(cycle.inst())?;
        }
        // A task may swallow its cancel, or wait for what never comes: the stop does not.
        let driver = home.with_driver(|driver| Ok(driver.handle()))?;
        let (door, sleep) = (
            Rc::downgrade(self),
            driver.sleep_until(clock::now() + PATIENCE),
        );
        driver.spawn(async move {
            sleep.await;
            arrive(&door, Arrival::GiveUp);
        });
        self.settle_shutdown()
    }

    /// What is left is left.
    fn give_up(&self) -> PyRes<()> {
        if self.is_over() {
            return Ok(());
        }
        let left = self.active();
        self.log_exception(
            &format!("requests that did not end when they were cancelled: {left}; leaving them"),
            None,
            None,
        );
        self.given_up.set(true);
        self.settle_shutdown()
    }

    /// Whether it was shut down and nothing of it is left: the loop can forget it.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished.get()
    }

    fn is_over(&self) -> bool {
        let waiting = self.bounds.pending.get() + self.bounds.waiting();
        self.given_up.get() || (self.drained.get() && self.active() + waiting == 0)
    }

    fn settle_shutdown(&self) -> PyRes<()> {
        if !self.is_over() {
            return Ok(());
        }
        self.finished.set(true);
        let waiting = self.stopping.take();
        for future in waiting {
            let count = value::int(self.cut_off.get() as i64)?;
            crate::future::resolve(future.borrow(), count)?;
        }
        Ok(())
    }

    /// Whether the requests that are left were cancelled by a shutdown's deadline.
    pub(super) fn is_cutting_off(&self) -> bool {
        self.cut_off.get() > 0
    }

    pub(super) fn active(&self) -> usize {
        self.active.get() + self.blocking.as_ref().map_or(0, Blocking::active)
    }

    pub(super) fn with_server<R>(&self, look: impl FnOnce(&Server) -> R) -> Option<R> {
        self.server.borrow().as_ref().map(look)
    }
}

/// What is noted of requests, and what the server answers by itself.
pub(super) struct Notes {
    pub(super) access_log: Option<Log>,
    /// Where requests have ids.
    pub(super) ids: Option<Ids>,
    /// Where they are counted.
    pub(super) tally: Option<Arc<Tally>>,
    pub(super) paths: Paths,
}

/// Paths that the server answers by itself.
#[derive(Default)]
pub(super) struct Paths {
    /// Whether there are any.
    any: bool,
    /// Answered here, by whoever polls, before the application is asked.
    health: Option<String>,
    /// And what gives the text.
    metrics: Option<(String, Obj)>,
}

impl Paths {
    pub(super) fn new(health: Option<String>, metrics: Option<(String, Obj)>) -> Paths {
        Paths {
            any: health.is_some() || metrics.is_some(),
            health,
            metrics,
        }
    }
}

/// A client that has gone has no use for it.
fn answer(exchange: &Exchange, kind: &'static str, text: Bytes) {
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let _gone = exchange
        .start(200, headers)
        .and_then(|()| exchange.send_chunk(text, false));
}

pub(super) fn arrive(door: &Weak<Door>, arrival: Arrival) {
    if let Some(door) = door.upgrade() {
        door.queue.borrow_mut().push_back(arrival);
    }
}

impl Service for Door {
    fn call(&self, request: Request, exchange: Exchange) {
        if self.notes.paths.any && self.answers(request.head.uri.path(), &exchange) {
            return;
        }
        let id = self.name(&request, &exchange);
        let on_threads = |b: &&Blocking| request.websocket.is_none() && b.takes(&request);
        if let Some(blocking) = self.blocking.as_ref().filter(on_threads) {
            blocking.admit(request, exchange, id, self.bounds.stamp());
            return self.note_turned_away(blocking);
        }
        let mut head = self.heads.copy(request.head);
        head.id = id;
        head.offer = request.websocket;
        self.admit(head, request.conn, exchange);
    }

    fn notify(&self, tag: u64, event: Event) {
        if let Some(blocking) = self.blocking.as_ref().filter(|_| blocking::is_ours(tag)) {
            blocking.on_event(tag, event);
            return self.note_turned_away(blocking);
        }
        if bounds::is_waiting(tag) {
            return self.bounds.forget(tag);
        }
        self.queue.borrow_mut().push_back(Arrival::News(tag, event));
    }

    fn answering(&self, request: Request, exchange: &Exchange, status: u16, began: u64) {
        let id = self.name(&request, exchange);
        if self.notes.tally.is_some() || self.notes.access_log.is_some() {
            let mut head = self.heads.copy(request.head);
            head.id = id;
            self.note_answered(head, request.conn, exchange.clone(), status, began);
        }
    }

    fn refused(&self, conn: &Rc<ConnInfo>, status: StatusCode) {
        if self.notes.access_log.is_some() {
            let arrival = Arrival::Refused(Rc::clone(conn), status.as_u16(), clock::now());
            self.queue.borrow_mut().push_back(arrival);
        }
    }

    fn is_crowded(&self) -> bool {
        self.bounds.waiting() > 0 || self.blocking.as_ref().is_some_and(Blocking::is_crowded)
    }

    fn report(&self, problem: Problem<'_>) {
        // Broken connections and passed deadlines are the network's everyday life.
        if let Problem::File(_, error) = problem {
            let text = error.to_string();
            self.queue.borrow_mut().push_back(Arrival::Problem(text));
        }
    }
}
