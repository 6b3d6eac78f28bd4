//! The door between the connections, polled without the GIL, and the application.
//!
//! [`Door`] is the [`Service`] that hyper's side calls: it queues and returns. The loop drains the
//! queue with the GIL held ([`Door::enter`]). Both sides run on the loop's thread, never at once.

use super::cycle::{self, Cycle};
use super::head::{Head, Heads};
use super::known::Known;
use super::scope::Scopes;
use crate::event_loop::LoopBase;
use rondel_core::driver::Handle;
use rondel_ffi::err::Builtin;
use rondel_ffi::{Inst, Obj, Own, PyRes, Raised, call, value};
use rondel_http::{ConnInfo, Event, Exchange, Problem, Request, Server, Service};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

/// What waits for the GIL.
enum Arrival {
    Request(Box<Head>, Rc<ConnInfo>, Exchange),
    News(u64, Event),
    /// The server's last connection is closed.
    Drained,
    /// A deadline of the shutdown has passed.
    Deadline,
}

pub(crate) struct Door {
    queue: RefCell<VecDeque<Arrival>>,
    heads: Heads,
    /// Requests in progress by tag; 0 is nobody's tag.
    cycles: RefCell<Vec<Option<Own<Cycle>>>>,
    free: RefCell<Vec<u64>>,
    active: Cell<usize>,
    app: Obj,
    pub(super) scopes: Scopes,
    /// `access_log(client, method, target, version, status, seconds)`, or none.
    pub(super) access_log: Option<Obj>,
    logger: Obj,
    server: RefCell<Option<Server>>,
    /// Futures of `shutdown()` that nobody has answered yet.
    stopping: RefCell<Vec<Obj>>,
    drained: Cell<bool>,
    cut_off: Cell<usize>,
}

impl Door {
    pub(super) fn new(app: Obj, scopes: Scopes, access_log: Option<Obj>) -> PyRes<Rc<Door>> {
        let logging = call::import(c"logging")?;
        let get = call::getattr(logging.borrow(), value::intern(c"getLogger")?.borrow())?;
        let logger = call::call1(get.borrow(), value::str("rondel.server")?.borrow())?;
        Ok(Rc::new(Door {
            queue: RefCell::default(),
            heads: Heads::default(),
            cycles: RefCell::new(vec![None]),
            free: RefCell::default(),
            active: Cell::new(0),
            app,
            scopes,
            access_log,
            logger,
            server: RefCell::new(None),
            stopping: RefCell::default(),
            drained: Cell::new(false),
            cut_off: Cell::new(0),
        }))
    }

    pub(super) fn set_server(&self, server: Server) {
        *self.server.borrow_mut() = Some(server);
    }

    /// Whether something waits for the GIL.
    #[inline]
    pub(crate) fn has_arrivals(&self) -> bool {
        !self.queue.borrow().is_empty()
    }

    /// Deals with all that has arrived. With the GIL.
    pub(crate) fn enter(self: &Rc<Self>, home: Inst<'_, LoopBase>) -> PyRes<()> {
        loop {
            let arrival = self.queue.borrow_mut().pop_front();
            match arrival {
                None => return Ok(()),
                Some(Arrival::Request(mut head, conn, exchange)) => {
                    let begun = self.begin(home, &mut head, &conn, exchange);
                    self.heads.recycle(head);
                    if let Err(raised) = begun {
                        self.start_failed(raised)?;
                    }
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
                Some(Arrival::Deadline) => self.deadline()?,
            }
        }
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
        let scope = self.scopes.build(head, known)?;
        let cycle = cycle::new(self, tag, exchange, head, known)?;
        self.cycles.borrow_mut()[tag as usize] = Some(cycle.clone());
        self.active.set(self.active.get() + 1);
        cycle::start(home, &cycle, self.app.borrow(), scope.borrow())
    }

    /// The request could not even be started: the exchange, dropped, has answered 500.
    #[cold]
    fn start_failed(&self, raised: Raised) -> PyRes<()> {
        if raised.matches(Builtin::KeyboardInterrupt.class())
            || raised.matches(Builtin::SystemExit.class())
        {
            return Err(raised);
        }
        let exc = raised.fetch();
        self.log_exception("Exception in ASGI application", Some(&exc));
        Ok(())
    }

    /// Forgets a request whose task is done.
    pub(super) fn leave(&self, tag: u64) -> PyRes<()> {
        let cycle = self.cycles.borrow_mut()[tag as usize].take();
        drop(cycle);
        self.free.borrow_mut().push(tag);
        self.active.set(self.active.get() - 1);
        self.settle_shutdown()
    }

    /// `logger.error(message, exc_info=exc)`. A log that fails is itself reported, never raised.
    #[cold]
    pub(super) fn log_exception(&self, message: &str, exc: Option<&Obj>) {
        let log = || -> PyRes<()> {
            let error = call::getattr(self.logger.borrow(), value::intern(c"error")?.borrow())?;
            let text = value::str(message)?;
            match exc {
                Some(exc) => {
                    let names = value::tuple([value::intern(c"exc_info")?])?;
                    call::call_kw(
                        error.borrow(),
                        &[text.borrow(), exc.borrow()],
                        names.borrow(),
                    )?;
                }
                None => {
                    call::call1(error.borrow(), text.borrow())?;
                }
            }
            Ok(())
        };
        if let Err(raised) = log() {
            raised.unraisable(None);
        }
    }

    // --------------------------------------------------------------------- the end

    /// Stops accepting; `future` resolves when all is over. Each call may bring a nearer deadline.
    pub(super) fn shut_down(
        self: &Rc<Self>,
        driver: &Handle,
        future: Obj,
        deadline: u64,
    ) -> PyRes<()> {
        let first = self.stopping.borrow().is_empty();
        self.stopping.borrow_mut().push(future);
        let server = self.server.borrow().clone();
        let Some(server) = server else { return Ok(()) };
        if first {
            server.graceful_shutdown();
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

    fn deadline(&self) -> PyRes<()> {
        if self.is_over() {
            return Ok(());
        }
        self.cut_off.set(self.cut_off.get().max(self.active.get()));
        if let Some(server) = &*self.server.borrow() {
            server.force_close();
        }
        let left: Vec<Own<Cycle>> = self.cycles.borrow().iter().flatten().cloned().collect();
        for cycle in left {
            cycle::cancel(cycle.inst())?;
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.drained.get() && self.active.get() == 0
    }

    fn settle_shutdown(&self) -> PyRes<()> {
        if !self.is_over() {
            return Ok(());
        }
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
        self.active.get()
    }

    pub(super) fn with_server<R>(&self, look: impl FnOnce(&Server) -> R) -> Option<R> {
        self.server.borrow().as_ref().map(look)
    }
}

fn arrive(door: &Weak<Door>, arrival: Arrival) {
    if let Some(door) = door.upgrade() {
        door.queue.borrow_mut().push_back(arrival);
    }
}

impl Service for Door {
    fn call(&self, request: Request, exchange: Exchange) {
        let arrival = Arrival::Request(self.heads.copy(request.head), request.conn, exchange);
        self.queue.borrow_mut().push_back(arrival);
    }

    fn notify(&self, tag: u64, event: Event) {
        self.queue.borrow_mut().push_back(Arrival::News(tag, event));
    }

    fn report(&self, _problem: Problem<'_>) {
        // Broken connections and passed deadlines are the network's everyday life.
    }
}
