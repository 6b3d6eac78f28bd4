//! One request: its exchange with the connection, its task, and who waits for its body.

use super::access::{About, Access, Headers};
use super::awaitable;
use super::bounds::{Lateness, Terms, Verdict};
use super::door::Door;
use super::head::Head;
use super::known::Known;
use super::websocket::{self, Socket};
use crate::event_loop::{self, LoopBase};
use crate::future::{self, Callback, Future, State};
use crate::inspect::requests::Ticket;
use crate::task::{self, Task};
use rondel_core::clock;
use rondel_core::inspect::requests;
use rondel_ffi::class::{ObjCell, OwnCell, TypeBuilder, Visit, alloc};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::local::LoopLocal;
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Ref, call};
use rondel_http::http::{HeaderMap, HeaderValue, Method, StatusCode};
use rondel_http::{Event, Exchange};
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

/// What only the loop's thread may touch.
pub(super) struct Local {
    pub(super) exchange: Exchange,
    pub(super) door: Rc<Door>,
    /// The request's header map, emptied: its memory serves the response's.
    pub(super) spare: Cell<Option<HeaderMap>>,
    /// Trailers of which more are to come.
    pub(super) trailers: Cell<Option<Box<HeaderMap>>>,
    /// Set if it is a WebSocket connection that was asked for.
    pub(super) socket: Option<Box<Socket>>,
    log: Option<LogLine>,
    /// Its method, if requests are counted.
    counted: Option<Method>,
    /// When it came, if anybody wants to know.
    started: u64,
}

/// What logs say of the request, noted when it came.
struct LogLine {
    client: String,
    method: String,
    target: String,
    version: &'static str,
    id: Option<HeaderValue>,
    /// Headers that the access log asks for.
    headers: Vec<Option<Vec<u8>>>,
}

impl LogLine {
    fn id(&self) -> Option<&str> {
        self.id.as_ref().and_then(|id| id.to_str().ok())
    }

    fn about(&self) -> About<'_> {
        About {
            client: Some(&self.client),
            method: &self.method,
            target: &self.target,
            id: self.id(),
        }
    }
}

#[derive(Default)]
pub(crate) struct Cycle {
    local: OnceCell<LoopLocal<Local>>,
    tag: Cell<u64>,
    pub(super) home: OwnCell<LoopBase>,
    task: OwnCell<Task>,
    /// Futures of `receive()` calls that wait for body or disconnect.
    receivers: RefCell<Vec<Own<Future>>>,
    /// Futures of `send()` calls that wait for the queue to drain.
    senders: RefCell<Vec<Own<Future>>>,
    /// The status given by the application; 0 before.
    pub(super) status: Cell<u16>,
    /// For whoever is told that the request is late, and where the inspector finds its view.
    pub(crate) scope: ObjCell,
    /// When it came (`bounds`).
    epoch: Cell<u64>,
    lateness: Cell<Lateness>,
    /// Its place in the inspector's list.
    ticket: RefCell<Ticket>,
}

static CELL: ClassCell = ClassCell::new();
static FREE: FreeList = FreeList::new();

impl Class for Cycle {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.home);
        visit.own(&self.task);
        visit.cell(&self.scope);
        for list in [&self.receivers, &self.senders] {
            if let Ok(list) = list.try_borrow() {
                for future in list.iter() {
                    visit.obj(future.obj());
                }
            }
        }
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&FREE)
    }
    fn clear(&self) {
        let waiting = (self.receivers.take(), self.senders.take());
        drop(waiting);
        self.task.set(None);
        self.scope.set(None);
        self.home.set(None);
    }
}

impl Cycle {
    /// The exchange and its door; only on the loop's thread.
    pub(super) fn local(&self) -> PyRes<&Local> {
        self.local.get().and_then(LoopLocal::get).ok_or_else(|| {
            rondel_ffi::err::Builtin::Runtime.raise(
                "receive() and send() belong to the server's event loop and were used in another thread; \
                 use asyncio.run_coroutine_threadsafe()",
            )
        })
    }

    pub(super) fn wait_to_receive(&self, future: Own<Future>) {
        self.receivers.borrow_mut().push(future);
    }

    pub(super) fn wait_to_send(&self, future: Own<Future>) {
        self.senders.borrow_mut().push(future);
    }
}

pub(super) fn new(
    door: &Rc<Door>,
    tag: u64,
    exchange: Exchange,
    head: &mut Head,
    known: &Known,
    socket: Option<Box<Socket>>,
) -> PyRes<Own<Cycle>> {
    let log = if door.notes.access_log.is_some() || head.id.is_some() {
        Some(LogLine {
            client: known.client_text.clone(),
            method: head.method.as_str().to_owned(),
            target: head.target().to_owned(),
            version: head.version(),
            id: head.id.clone(),
            headers: (door.notes.access_log.as_ref())
                .map_or_else(Vec::new, |log| log.note(&head.lines)),
        })
    } else {
        None
    };
    let counted = (door.notes.tally.as_ref()).map(|_| head.method.clone());
    let wanted = log.is_some() || counted.is_some() || requests::is_on();
    let started = if wanted { clock::now() } else { 0 };
    let local = OnceCell::new();
    let _fresh = local.set(LoopLocal::new(Local {
        exchange,
        door: Rc::clone(door),
        spare: Cell::new(Some(std::mem::take(&mut head.spare))),
        trailers: Cell::new(None),
        socket,
        log,
        counted,
        started,
    }));
    alloc(
        Cycle {
            local,
            tag: Cell::new(tag),
            epoch: Cell::new(head.epoch),
            ..Cycle::default()
        },
        true,
    )
}

/// Calls the application and makes its coroutine a task.
pub(super) fn start(
    home: Inst<'_, LoopBase>,
    cycle: &Own<Cycle>,
    app: Ref<'_>,
    scope: Obj,
    head: &mut Head,
) -> PyRes<()> {
    cycle.home.set(Some(home.own()));
    let started = || -> PyRes<Obj> {
        let receive = awaitable::bound_receive(cycle.inst())?;
        let send = awaitable::bound_send(cycle.inst())?;
        let coro = call::call(app, &[scope.borrow(), receive.borrow(), send.borrow()])?;
        event_loop::create_task_with(home, coro.borrow(), task::Options::default())
    };
    let made = match started() {
        Ok(made) => made,
        Err(raised) => {
            cycle.local()?.door.leave(cycle.tag.get())?;
            return Err(raised);
        }
    };
    cycle.scope.set(Some(scope));
    match made.into_exact::<Task>() {
        Ok(task) => {
            cycle.task.set(Some(task.clone()));
            let local = cycle.local()?;
            let id = task.inst().up().id.get();
            head.enter(local.socket.is_some(), id, local.started);
            task::belongs_to(task.inst(), head.ticket.key());
            cycle.ticket.replace(std::mem::take(&mut head.ticket));
            future::add_callback(task.inst().up(), Callback::Request(cycle.clone()))
        }
        Err(other) => {
            // A task factory made something else: its own callback protocol tells when it is done.
            let local = cycle.local()?;
            head.enter(local.socket.is_some(), 0, local.started);
            cycle.ticket.replace(std::mem::take(&mut head.ticket));
            let done = awaitable::bound_finished(cycle.inst())?;
            let name = &crate::consts::names().add_done_callback;
            call::method(name.borrow(), [other.borrow(), done.borrow()]).map(|_none| ())
        }
    }
}

/// Body has come, the queue has drained, or the client has gone.
pub(super) fn on_event(cycle: Inst<'_, Cycle>, event: Event) -> PyRes<()> {
    if matches!(event, Event::Body | Event::Gone) {
        wake(&cycle.receivers)?;
    }
    if matches!(event, Event::Writable | Event::Gone) {
        wake(&cycle.senders)?;
    }
    Ok(())
}

fn wake(waiting: &RefCell<Vec<Own<Future>>>) -> PyRes<()> {
    let futures = waiting.take();
    for fut in futures {
        // A cancelled wait is done already.
        if !fut.done() {
            future::finish(fut.inst(), State::Finished, Some(Obj::none()))?;
        }
    }
    Ok(())
}

/// The response is complete: who still waits in `receive()` is told of the end.
pub(super) fn response_complete(cycle: Inst<'_, Cycle>) -> PyRes<()> {
    wake(&cycle.receivers)
}

/// Cancels the application's task (a forced end).
pub(super) fn cancel(cycle: Inst<'_, Cycle>) -> PyRes<()> {
    match cycle.task.get() {
        Some(task) => task::cancel(task.inst(), None).map(|_| ()),
        None => Ok(()),
    }
}

/// Whether the request is late, by its deadline's terms.
pub(super) fn judge(cycle: Inst<'_, Cycle>, terms: Terms) -> PyRes<Verdict> {
    let exchange = &cycle.local()?.exchange;
    if cycle.lateness.get() == Lateness::InTime {
        if exchange.is_started() || exchange.is_gone() {
            return Ok(Verdict::Fine);
        }
        if exchange.waits_for_body() {
            // It is the client's turn.
            cycle.epoch.set(terms.epoch);
        }
    }
    Ok(terms.judge(cycle.epoch.get(), &cycle.lateness))
}

/// Scope and task, or None.
pub(super) fn parts(cycle: Inst<'_, Cycle>) -> (Obj, Obj) {
    let task = cycle.task.get().map(Own::into_obj);
    let scope = cycle.scope.get();
    (
        scope.unwrap_or_else(Obj::none),
        task.unwrap_or_else(Obj::none),
    )
}

/// Answers in the application's stead, and cancels it.
pub(super) fn time_out(cycle: Inst<'_, Cycle>, status: StatusCode) -> PyRes<()> {
    let exchange = &cycle.local()?.exchange;
    if exchange.is_started() || exchange.is_gone() {
        return Ok(());
    }
    exchange.refuse(status);
    cycle.status.set(status.as_u16());
    wake(&cycle.receivers)?;
    cancel(cycle)
}

/// The application's task is done.
pub(crate) fn finished(cycle: Own<Cycle>, task: Ref<'_>) -> PyRes<()> {
    let local = cycle.local()?;
    let outcome = match task
        .cast::<Future>()
        .or_else(|| task.exact::<Task>().map(Inst::up))
    {
        Some(fut) => future::outcome(fut)?,
        None => match call::method(crate::consts::names().result.borrow(), [task]) {
            Ok(value) => Ok(value),
            Err(raised) => Err(raised.fetch()),
        },
    };
    let (exchange, door) = (&local.exchange, &local.door);
    let about = local.log.as_ref().map(LogLine::about);
    match (outcome, local.socket.as_deref()) {
        (Ok(_), Some(socket)) => socket.finish(cycle.inst(), door, false, about)?,
        (Err(exc), Some(socket)) => {
            let cut_off = (socket.is_over(exchange) || door.is_cutting_off())
                && task::is_cancelled(exc.borrow());
            if !cut_off && !websocket::is_disconnect(&exc) {
                door.log_exception("Exception in ASGI application", Some(&exc), about);
            }
            socket.finish(cycle.inst(), door, true, about)?;
        }
        (Err(exc), None) => {
            let expected =
                (exchange.is_gone() || door.is_cutting_off()) && task::is_cancelled(exc.borrow());
            if !expected {
                door.log_exception("Exception in ASGI application", Some(&exc), about);
            }
            fail(&cycle, exchange)?;
        }
        (Ok(_), None) if !exchange.is_gone() && !exchange.is_complete() => {
            let message = if exchange.is_started() {
                "ASGI callable returned without completing the response"
            } else {
                "ASGI callable returned without starting a response"
            };
            door.log_exception(message, None, about);
            fail(&cycle, exchange)?;
        }
        (Ok(_), None) => {}
    }
    let status = match (exchange.answered_instead(), cycle.status.get()) {
        (Some(status), _) => status,
        // A client that left before the answer: the number that nginx made customary for it.
        (None, 0) => 499,
        (None, status) => status,
    };
    if let (Some(line), Some(log)) = (&local.log, &door.notes.access_log) {
        let access = Access {
            client: &line.client,
            method: &line.method,
            target: &line.target,
            version: line.version,
            status,
            started: local.started,
            sent: exchange.sent(),
            id: line.id(),
            headers: Headers::Noted(&line.headers),
        };
        log.write(&access);
    }
    let ticket = cycle.ticket.take();
    if local.counted.is_some() || !ticket.key().is_none() {
        let ended = clock::now();
        if let (Some(method), Some(tally)) = (&local.counted, &door.notes.tally) {
            tally.count(method, status, ended.saturating_sub(local.started));
        }
        let scope = cycle.scope.get();
        ticket.end(status, ended, scope.as_ref().map(Obj::borrow));
    }
    let (door, tag) = (Rc::clone(door), cycle.tag.get());
    // The task refers to the cycle through `receive` and `send`: cut the circle.
    cycle.task.set(None);
    cycle.scope.set(None);
    door.leave(tag)
}

/// Answers 500, or breaks off a response that has begun.
fn fail(cycle: &Own<Cycle>, exchange: &Exchange) -> PyRes<()> {
    if exchange.is_gone() {
        return Ok(());
    }
    if exchange.is_started() {
        exchange.abort();
        return Ok(());
    }
    cycle.status.set(500);
    let headers = super::message::plain_headers();
    let answered = exchange
        .start(500, headers)
        .and_then(|()| exchange.send_chunk(super::message::INTERNAL_ERROR.into(), false));
    match answered {
        Ok(_) | Err(rondel_http::SendError::Gone) => Ok(()),
        Err(error) => Err(rondel_ffi::err::Builtin::Runtime.raise(&error.to_string())),
    }
}

pub(super) fn build() -> PyRes<Obj> {
    TypeBuilder::<Cycle>::new(c"rondel._rondel.Cycle").build()
}
