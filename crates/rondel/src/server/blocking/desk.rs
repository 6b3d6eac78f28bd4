//! What a pool's thread does with a request: its scope, the application's call, the end.
//!
//! Each thread has a [`Desk`], so that what scopes share (header names, paths, repeated header lines)
//! is not shared between threads, which may switch in the middle of anything that allocates.

use super::line::{Answer, Line};
use super::reply::{self, Reply, Stage};
use crate::inspect::requests::OnThread;
use crate::server::access::{About, Access, Headers, ParkedLog, log_exception};
use crate::server::head::Head;
use crate::server::known::Known;
use crate::server::scope::Scopes;
use crate::server::tally::Tally;
use rondel_core::clock;
use rondel_ffi::gil::{Parked, Sheltered};
use rondel_ffi::{Inst, Obj, PyRes, call, context, value};
use rondel_http::gather::Gathered;
use rondel_http::http::Method;
use rondel_http::{Address, TlsInfo};
use std::cell::RefCell;
use std::os::fd::IntoRawFd;
use std::sync::Arc;

/// A request on its way to a thread.
pub(super) struct Work {
    pub(super) head: Box<Head>,
    pub(super) origin: Origin,
    pub(super) body: Gathered,
    pub(super) line: Arc<Line>,
    /// When it was complete.
    pub(super) started: u64,
}

/// Where a request comes from.
#[derive(Clone, PartialEq)]
pub(super) struct Origin {
    pub(super) peer: Address,
    pub(super) local: Address,
    pub(super) secure: bool,
    pub(super) tls: Option<Arc<TlsInfo>>,
}

impl Origin {
    fn known(&self) -> PyRes<Known> {
        Known::new(&self.peer, &self.local, self.secure, self.tls.as_deref())
    }
}

/// What the requests of a thread share.
struct Desk {
    scopes: Scopes,
    /// Of the connection that the last request came by.
    known: Known,
    origin: Origin,
}

/// What all threads share.
pub(super) struct Office {
    /// `handler(scope, body, reply)`; `body` is `bytes`, or the descriptor of a file that holds it.
    handler: Parked,
    root_path: String,
    state: Option<Parked>,
    access_log: Option<ParkedLog>,
    tally: Option<Arc<Tally>>,
    logger: Parked,
    desks: Vec<Sheltered<RefCell<Option<Desk>>>>,
}

impl Office {
    pub(super) fn new(
        handler: Obj,
        root_path: String,
        state: Option<Obj>,
        access_log: Option<ParkedLog>,
        tally: Option<Arc<Tally>>,
        logger: Obj,
        threads: usize,
    ) -> Office {
        Office {
            handler: Parked::new(handler),
            root_path,
            state: state.map(Parked::new),
            access_log,
            tally,
            logger: Parked::new(logger),
            desks: (0..threads)
                .map(|_| Sheltered::new(RefCell::new(None)))
                .collect(),
        }
    }

    /// Answers a request; with the GIL, on thread number `seat`. Errors go to the log.
    pub(super) fn serve(&self, work: Work, seat: usize) -> Answer {
        let Work {
            mut head,
            origin,
            body,
            line,
            started,
        } = work;
        let made = reply::new(Arc::clone(&line));
        let reply = match made {
            Ok(reply) => reply,
            Err(raised) => {
                let about = Some(head.about());
                self.log("Exception in the server", Some(&raised.fetch()), about);
                return Answer::Over;
            }
        };
        reply.submitted.set(started);
        let passage = OnThread::begin(head.ticket.key(), started);
        let had_body = !body.is_empty();
        let answered = self.answer(&mut head, origin, body, reply.inst(), seat, &passage);
        let stage = reply.stage.get();
        match answered {
            Err(raised) => {
                let (exc, client) = (raised.fetch(), self.client(seat));
                let about = About {
                    client: client.as_deref(),
                    ..head.about()
                };
                self.log("Exception in the application", Some(&exc), Some(about));
            }
            Ok(()) if stage == Stage::Bounced => {
                debug_assert!(!had_body, "the handler was told not to bounce it");
                passage.goes_back();
                return Answer::Bounce(head);
            }
            Ok(()) if stage != Stage::Complete && !line.is_gone() => {
                self.log(
                    "The application returned without completing the response",
                    None,
                    Some(head.about()),
                );
            }
            Ok(()) => {}
        }
        let status = match reply.status.get() {
            0 => 500,
            status => status,
        };
        let ended = clock::now();
        passage.ends(&head.ticket, status, ended);
        self.note(&head, reply.inst(), seat, status, (started, ended));
        Answer::Over
    }

    fn answer(
        &self,
        head: &mut Head,
        origin: Origin,
        body: Gathered,
        reply: Inst<'_, Reply>,
        seat: usize,
        passage: &OnThread,
    ) -> PyRes<()> {
        let scope = self.scope(head, origin, seat)?;
        passage.scope(&scope);
        let body = body_object(body)?;
        let Some(handler) = self.handler.get() else {
            return Ok(());
        };
        // Each request begins with the variables that the thread has by itself: none.
        let context = context::copy_current()?;
        context::enter(context.borrow())?;
        let args = [scope.borrow(), body.borrow(), reply.obj()];
        let called = call::call(handler.borrow(), &args);
        let left = context::exit(context.borrow());
        context::release(context);
        called?;
        left
    }

    fn scope(&self, head: &Head, origin: Origin, seat: usize) -> PyRes<Obj> {
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
                origin: origin.clone(),
            },
        };
        if desk.origin != origin {
            let known = origin.known()?;
            known.inherit(&desk.known);
            (desk.known, desk.origin) = (known, origin);
        }
        let scope = desk.scopes.build(head, &desk.known);
        place.get().replace(Some(desk));
        scope
    }

    /// The access log's line.
    fn note(
        &self,
        head: &Head,
        reply: Inst<'_, Reply>,
        seat: usize,
        status: u16,
        (started, ended): (u64, u64),
    ) {
        if let Some(tally) = &self.tally {
            tally.count(&head.method, status, ended.saturating_sub(started));
        }
        let Some(log) = &self.access_log else {
            return;
        };
        let client = self.client(seat);
        let bodyless = head.method == Method::HEAD || matches!(status, 204 | 304);
        let access = Access {
            client: client.as_deref().unwrap_or_default(),
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

    /// Who sent the request that the thread is at.
    fn client(&self, seat: usize) -> Option<String> {
        let desk = self.desks.get(seat)?.get().borrow();
        desk.as_ref().map(|desk| desk.known.client_text.clone())
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
