//! One request: its exchange with the connection, its task, and who waits for its body.

use super::awaitable;
use super::door::Door;
use super::head::Head;
use super::known::Known;
use crate::event_loop::{self, LoopBase};
use crate::future::{self, Callback, Future, State};
use crate::task::{self, Task};
use rondel_core::clock;
use rondel_ffi::class::{OwnCell, TypeBuilder, Visit, alloc};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::local::LoopLocal;
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Ref, call, value};
use rondel_http::http::HeaderMap;
use rondel_http::{Event, Exchange};
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

/// What only the loop's thread may touch.
pub(super) struct Local {
    pub(super) exchange: Exchange,
    pub(super) door: Rc<Door>,
    /// The request's header map, emptied: its memory serves the response's.
    pub(super) spare: Cell<Option<HeaderMap>>,
    log: Option<LogLine>,
}

/// What the access log says of the request, noted when it came.
struct LogLine {
    client: String,
    method: String,
    target: String,
    version: &'static str,
    started: u64,
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
) -> PyRes<Own<Cycle>> {
    let log = if door.access_log.is_some() {
        Some(LogLine {
            client: known.client_text.clone(),
            method: head.method.as_str().to_owned(),
            target: head.target().to_owned(),
            version: if head.version == rondel_http::http::Version::HTTP_10 {
                "1.0"
            } else {
                "1.1"
            },
            started: clock::now(),
        })
    } else {
        None
    };
    let local = OnceCell::new();
    let _fresh = local.set(LoopLocal::new(Local {
        exchange,
        door: Rc::clone(door),
        spare: Cell::new(Some(std::mem::take(&mut head.spare))),
        log,
    }));
    alloc(
        Cycle {
            local,
            tag: Cell::new(tag),
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
    scope: Ref<'_>,
) -> PyRes<()> {
    cycle.home.set(Some(home.own()));
    let started = || -> PyRes<Obj> {
        let receive = awaitable::bound_receive(cycle.inst())?;
        let send = awaitable::bound_send(cycle.inst())?;
        let coro = call::call(app, &[scope, receive.borrow(), send.borrow()])?;
        event_loop::create_task_with(home, coro.borrow(), task::Options::default())
    };
    let made = match started() {
        Ok(made) => made,
        Err(raised) => {
            cycle.local()?.door.leave(cycle.tag.get())?;
            return Err(raised);
        }
    };
    match made.into_exact::<Task>() {
        Ok(task) => {
            cycle.task.set(Some(task.clone()));
            future::add_callback(task.inst().up(), Callback::Request(cycle.clone()))
        }
        Err(other) => {
            // A task factory made something else: its own callback protocol tells when it is done.
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
    match outcome {
        Err(exc) => {
            let expected =
                (exchange.is_gone() || door.is_cutting_off()) && task::is_cancelled(exc.borrow());
            if !expected {
                door.log_exception("Exception in ASGI application", Some(&exc));
            }
            fail(&cycle, exchange)?;
        }
        Ok(_) if !exchange.is_gone() && !exchange.is_complete() => {
            let message = if exchange.is_started() {
                "ASGI callable returned without completing the response"
            } else {
                "ASGI callable returned without starting a response"
            };
            door.log_exception(message, None);
            fail(&cycle, exchange)?;
        }
        Ok(_) => {}
    }
    if let (Some(line), Some(log)) = (&local.log, &door.access_log)
        && let Err(raised) = access(&cycle, line, log.borrow())
    {
        raised.unraisable(Some(log.borrow()));
    }
    let (door, tag) = (Rc::clone(door), cycle.tag.get());
    // The task refers to the cycle through `receive` and `send`: cut the circle.
    cycle.task.set(None);
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

fn access(cycle: &Own<Cycle>, line: &LogLine, log: Ref<'_>) -> PyRes<()> {
    // A client that left before the answer: the number that nginx made customary for it.
    let status = if cycle.status.get() == 0 {
        499
    } else {
        cycle.status.get()
    };
    let seconds = clock::now().saturating_sub(line.started) as f64 * 1e-9;
    let args = [
        value::str(&line.client)?,
        value::str(&line.method)?,
        value::str(&line.target)?,
        value::str(line.version)?,
        value::int(i64::from(status))?,
        value::float(seconds)?,
    ];
    let args: Vec<Ref<'_>> = args.iter().map(Obj::borrow).collect();
    call::call(log, &args).map(|_none| ())
}

pub(super) fn build() -> PyRes<Obj> {
    TypeBuilder::<Cycle>::new(c"rondel._rondel.Cycle").build()
}
