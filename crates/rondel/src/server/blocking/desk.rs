//! What a thread does with a request: its scope or its `environ`, the application's call, the pieces
//! of the body that come after that, the end.
//!
//! ```text
//!   begin ─► handler(…) ─► None: over
//!                      └─► a generator ─► resume: up to the next piece ─► … ─► over
//!                                         abandon: the client has gone
//! ```
//!
//! Each thread has a [`Desk`], so that what scopes share (header names, paths, repeated header lines)
//! is not shared between threads, which may switch in the middle of anything that allocates.

use super::environ::Environs;
use super::line::{Answer, Line};
use super::origin::Origin;
use super::reply::{self, Reply, Stage};
use crate::consts::names;
use crate::inspect::requests::OnThread;
use crate::server::access::{About, Access, Headers, ParkedLog, log_exception};
use crate::server::head::Head;
use crate::server::known::Known;
use crate::server::scope::Scopes;
use crate::server::tally::Tally;
use rondel_core::clock;
use rondel_ffi::call::Sent;
use rondel_ffi::gil::{Parked, Sheltered};
use rondel_ffi::{Obj, Own, PyRes, call, context, value};
use rondel_http::gather::Gathered;
use rondel_http::http::Method;
use std::cell::RefCell;
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// A request on its way to a thread.
pub(super) struct Work {
    pub(super) head: Box<Head>,
    pub(super) origin: Arc<Origin>,
    pub(super) body: Gathered,
    pub(super) line: Arc<Line>,
    /// When it was complete.
    pub(super) started: u64,
}

/// What the requests of a thread share.
struct Desk {
    scopes: Scopes,
    /// Of the connection that the last request came by.
    known: Known,
    origin: Arc<Origin>,
}

/// A request that the application has begun with and not ended.
pub(super) struct Rest {
    head: Box<Head>,
    origin: Arc<Origin>,
    line: Arc<Line>,
    reply: Own<Reply>,
    context: Obj,
    /// The generator that `handler` has returned.
    pieces: Option<Obj>,
    had_body: bool,
    started: u64,
    passage: OnThread,
}

impl Rest {
    /// Nobody is there any more.
    pub(super) fn is_unwanted(&self) -> bool {
        self.line.is_gone()
    }

    /// Its client is behind.
    pub(super) fn is_ahead(&self) -> bool {
        self.line.is_full() && !self.line.is_gone()
    }

    /// Has the loop send what was put by.
    pub(super) fn flush(&self) {
        self.line.flush();
    }
}

/// How far a request has come.
pub(super) enum Progress {
    Over(Answer),
    /// There are more pieces, perhaps.
    More(Box<Rest>),
}

/// What all threads share.
pub(super) struct Office {
    /// `handler(scope, body, reply)`; `body` is `bytes`, or the descriptor of a file that holds it. Where
    /// there are `environs`, it is the `environ`. Returns None, or a generator: the pieces that are left.
    handler: Parked,
    environs: Option<Sheltered<Environs>>,
    /// Whether somebody looks at scopes.
    scoped: bool,
    root_path: String,
    state: Option<Parked>,
    access_log: Option<ParkedLog>,
    tally: Option<Arc<Tally>>,
    logger: Parked,
    desks: Vec<Sheltered<RefCell<Option<Desk>>>>,
    /// Requests that are over, which the loop has not been told yet ([`Answer::Done`]).
    pub(super) done: AtomicUsize,
}

/// What an office is made of.
pub(super) struct Setup {
    pub(super) handler: Obj,
    pub(super) environs: Option<Environs>,
    pub(super) scoped: bool,
    pub(super) root_path: String,
    pub(super) state: Option<Obj>,
    pub(super) access_log: Option<ParkedLog>,
    pub(super) tally: Option<Arc<Tally>>,
    pub(super) logger: Obj,
    pub(super) threads: usize,
}

impl Office {
    pub(super) fn new(setup: Setup) -> Office {
        Office {
            handler: Parked::new(setup.handler),
            environs: setup.environs.map(Sheltered::new),
            scoped: setup.scoped,
            root_path: setup.root_path,
            state: setup.state.map(Parked::new),
            access_log: setup.access_log,
            tally: setup.tally,
            logger: Parked::new(setup.logger),
            desks: (0..setup.threads)
                .map(|_| Sheltered::new(RefCell::new(None)))
                .collect(),
            done: AtomicUsize::new(0),
        }
    }

    /// Answers a request; with the GIL, on thread number `seat`. Errors go to the log.
    pub(super) fn serve(&self, work: Work, seat: usize) -> Answer {
        let mut progress = self.begin(work, seat);
        loop {
            match progress {
                Progress::Over(answer) => return answer,
                Progress::More(rest) => progress = self.resume(rest),
            }
        }
    }

    /// Has the application begin with a request, up to the first piece of its body; as `serve`.
    pub(super) fn begin(&self, work: Work, seat: usize) -> Progress {
        let Work {
            head,
            origin,
            body,
            line,
            started,
        } = work;
        let made = reply::new(Arc::clone(&line)).and_then(|reply| {
            // Each request begins with the variables that the thread has by itself: none.
            Ok((reply, context::copy_current()?))
        });
        let (reply, context) = match made {
            Ok(made) => made,
            Err(raised) => {
                let about = Some(head.about());
                self.log("Exception in the server", Some(&raised.fetch()), about);
                return Progress::Over(Answer::Over);
            }
        };
        reply.submitted.set(started);
        let passage = OnThread::begin(head.ticket.key(), started);
        let mut rest = Box::new(Rest {
            head,
            origin,
            line,
            reply,
            context,
            pieces: None,
            had_body: !body.is_empty(),
            started,
            passage,
        });
        match self.call(&mut rest, body, seat) {
            Ok(pieces) if !pieces.is_none() => {
                rest.pieces = Some(pieces);
                self.resume(rest)
            }
            called => Progress::Over(self.conclude(*rest, called.map(drop))),
        }
    }

    fn call(&self, rest: &mut Rest, body: Gathered, seat: usize) -> PyRes<Obj> {
        let (scope, body) = match &self.environs {
            None => {
                let scope = self.scope(&rest.head, &rest.origin, seat)?;
                rest.passage.scope(&scope);
                (scope, body_object(body)?)
            }
            Some(environs) => {
                let scope = if self.scoped {
                    self.scope(&rest.head, &rest.origin, seat)?
                } else {
                    Obj::none()
                };
                let texts = rest.origin.texts()?;
                let environ = environs.get().build(&rest.head, texts, body, seat)?;
                rest.passage.scope(&environ);
                (scope, environ)
            }
        };
        let Some(handler) = self.handler.get() else {
            return Ok(Obj::none());
        };
        context::enter(rest.context.borrow())?;
        let args = [scope.borrow(), body.borrow(), rest.reply.obj()];
        let called = call::call(handler.borrow(), &args);
        context::exit(rest.context.borrow())?;
        called
    }

    /// Up to the next piece.
    pub(super) fn resume(&self, rest: Box<Rest>) -> Progress {
        let Some(pieces) = &rest.pieces else {
            return Progress::Over(self.conclude(*rest, Ok(())));
        };
        if let Err(raised) = context::enter(rest.context.borrow()) {
            return Progress::Over(self.conclude(*rest, Err(raised)));
        }
        let sent = call::send_none(pieces.borrow());
        let left = context::exit(rest.context.borrow());
        let ended = match (sent, left) {
            (Sent::Yielded(_none), Ok(())) => return Progress::More(rest),
            (Sent::Raised(raised), _) | (_, Err(raised)) => Err(raised),
            (Sent::Returned(_none), Ok(())) => Ok(()),
        };
        Progress::Over(self.conclude(*rest, ended))
    }

    /// Nobody wants the pieces that are left.
    pub(super) fn abandon(&self, rest: Rest) -> Answer {
        let closed = match &rest.pieces {
            None => Ok(()),
            Some(pieces) => context::enter(rest.context.borrow()).and_then(|()| {
                let closed = call::method(names().close.borrow(), [pieces.borrow()]);
                context::exit(rest.context.borrow())?;
                closed.map(drop)
            }),
        };
        self.conclude(rest, closed)
    }

    /// The application is done with it.
    fn conclude(&self, rest: Rest, ended: PyRes<()>) -> Answer {
        let Rest {
            head,
            origin,
            line,
            reply,
            context,
            pieces,
            had_body,
            started,
            passage,
        } = rest;
        // Told of first: what goes away with them may raise, too.
        let raised = ended.map_err(rondel_ffi::Raised::fetch).err();
        drop(pieces);
        context::release(context);
        let stage = reply.stage.get();
        if let Some(exc) = raised {
            let client = origin.client();
            let about = About {
                client: Some(&client),
                ..head.about()
            };
            self.log("Exception in the application", Some(&exc), Some(about));
        } else if stage == Stage::Bounced {
            debug_assert!(!had_body, "the handler was told not to bounce it");
            passage.goes_back();
            return Answer::Bounce(head);
        } else if stage != Stage::Complete && !line.is_gone() {
            self.log(
                "The application returned without completing the response",
                None,
                Some(head.about()),
            );
        }
        let status = match reply.status.get() {
            0 => 500,
            status => status,
        };
        let ended = clock::now();
        passage.ends(&head.ticket, status, ended);
        self.note(&head, &origin, &reply, status, (started, ended));
        match reply.last.take() {
            Some((head, body)) => Answer::Last(head, body),
            None if stage == Stage::Complete => {
                self.done.fetch_add(1, Relaxed);
                Answer::Done
            }
            None => Answer::Over,
        }
    }

    fn scope(&self, head: &Head, origin: &Arc<Origin>, seat: usize) -> PyRes<Obj> {
        let Some(place) = self.desks.get(seat) else {
            return Err(rondel_ffi::err::Builtin::Runtime.raise("the pool has no such thread"));
        };
        // Out of its cell while objects are made, which may run Python code.
        let mut desk = match place.get().take() {
            Some(desk) => desk,
            None => Desk {
                scopes: Scopes::new(
                    self.root_path.clone(),
                    self.state.as_ref().and_then(Parked::get),
                    false,
                )?,
                known: origin.known()?,
                origin: Arc::clone(origin),
            },
        };
        if !Arc::ptr_eq(&desk.origin, origin) {
            let known = origin.known()?;
            known.inherit(&desk.known);
            (desk.known, desk.origin) = (known, Arc::clone(origin));
        }
        let scope = desk.scopes.build(head, &desk.known);
        place.get().replace(Some(desk));
        scope
    }

    /// The access log's line.
    fn note(
        &self,
        head: &Head,
        origin: &Origin,
        reply: &Own<Reply>,
        status: u16,
        (started, ended): (u64, u64),
    ) {
        if let Some(tally) = &self.tally {
            tally.count(&head.method, status, ended.saturating_sub(started));
        }
        let Some(log) = &self.access_log else {
            return;
        };
        let client = origin.client();
        let bodyless = head.method == Method::HEAD || matches!(status, 204 | 304);
        let access = Access {
            client: &client,
            method: head.method.as_str(),
            target: head.target(),
            version: head.version(),
            status,
            started,
            sent: if bodyless { 0 } else { reply.sent.get() },
            id: head.id(),
            headers: Headers::Lines(&head.lines),
        };
        log.write(&access);
    }

    fn log(&self, message: &str, exc: Option<&Obj>, about: Option<About<'_>>) {
        if let Some(logger) = self.logger.get() {
            log_exception(logger.borrow(), message, exc, about);
        }
    }
}

fn body_object(body: Gathered) -> PyRes<Obj> {
    match body {
        Gathered::Empty => value::bytes(b""),
        Gathered::One(data) => value::bytes(&data),
        Gathered::Many(parts, _) => value::bytes(&parts.concat()),
        // Whoever is called closes it.
        Gathered::Spooled(file) => value::int(i64::from(file.into_raw_fd())),
    }
}
