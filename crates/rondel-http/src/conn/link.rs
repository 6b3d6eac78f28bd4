//! What the parts of a connection share: its future, its socket, the exchanges in progress.
//!
//! The whole interface that [`crate::exchange`] needs, so that another protocol only has to bring a
//! link and a future like [`super::Connection`]. Loop's thread only.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use hyper::header::HeaderValue;
use hyper::rt::ReadBufCursor;
use hyper::{HeaderMap, StatusCode};
use rondel_core::clock;
use rondel_core::driver::Handle;

use crate::exchange::{Exchange, Inner, Interim};
use crate::file::Lane;
use crate::framing::{Framing, PREFACE, Pass, REFUSED};
use crate::http2::Streams;
use crate::listener::Role;
use crate::proxy::Forwarded;
use crate::server::Shared;
use crate::service::{Address, ConnInfo, Limits, Problem, Request, Service};
use crate::waker::keep;
use crate::ws::{Offer, Refusal, Shared as WsShared, examine};

/// What a server asks of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    None,
    /// Finish what is in progress, then close.
    Drain,
    /// Close now.
    Kill,
}

/// Woken by hyper when it has body for an exchange: a note for the connection, which is being
/// polled at that very time and looks at it afterwards. Waking it would cost another poll.
struct BodyArrived(AtomicBool);

impl Wake for BodyArrived {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Room in hyper's buffer that a read must leave: see [`Link::give`].
pub(crate) const SLACK: usize = PREFACE.len() + REFUSED.len();

/// What the parts of a connection share.
pub(crate) struct Link {
    pub(super) server: Rc<Shared>,
    pub(super) info: Rc<ConnInfo>,
    pub(super) role: Role,
    /// The peer is a proxy whose headers are believed.
    pub(super) believed: bool,
    /// The client on whose behalf the last request came.
    pub(super) client: RefCell<Option<Rc<ConnInfo>>>,
    /// The connection's future.
    pub(super) waker: RefCell<Option<Waker>>,
    /// Made with the first body that is asked for.
    body: OnceCell<(Arc<BodyArrived>, Waker)>,
    /// Made with the first file that is sent.
    pub(super) files: OnceCell<Rc<Lane>>,
    /// The exchange whose response hyper has not taken to its end.
    pub(super) current: RefCell<Option<Rc<Inner>>>,
    /// The service is being called: hyper looks for its answer right afterwards.
    pub(super) calling: Cell<bool>,
    /// Bytes came that no exchange has accounted for: a head has begun.
    pub(super) partial: Cell<bool>,
    /// What goes out before the present response.
    pub(crate) interim: Interim,
    /// The socket takes no more.
    pub(super) stuck: Cell<bool>,
    /// Counts requests: tells an idle connection from a live one.
    pub(super) activity: Cell<u64>,
    /// Bytes that came.
    pub(super) bytes: Cell<u64>,
    /// Counts writes: tells a stuck connection from a slow one.
    pub(super) writes: Cell<u64>,
    /// Set where several exchanges are in progress at once: HTTP/2.
    pub(super) streams: OnceCell<Rc<Streams>>,
    /// What hyper is given of HTTP/1.1's bytes.
    framing: RefCell<Framing>,
    /// A request may come, and none has begun to: the connection may be closed for another.
    pub(super) idle: Cell<bool>,
    /// `activity` when such a connection was last looked for: see [`Shared::dispensable`].
    seen: Cell<u64>,
    /// A request's body was not read to its end.
    pub(super) unread: Cell<bool>,
    /// The close must not look like a proper end.
    pub(super) reset: Cell<bool>,
    pub(super) command: Cell<Command>,
    /// The WebSocket connection that this one becomes once its 101 is written.
    pub(super) upgrade: RefCell<Option<Rc<WsShared>>>,
}

impl Link {
    pub(crate) fn new(server: Rc<Shared>, info: Rc<ConnInfo>, role: Role) -> Self {
        Link {
            believed: server.config.proxies.believes(&info.peer),
            client: RefCell::new(None),
            server,
            info,
            role,
            waker: RefCell::new(None),
            body: OnceCell::new(),
            files: OnceCell::new(),
            current: RefCell::new(None),
            calling: Cell::new(false),
            partial: Cell::new(false),
            interim: Interim::default(),
            stuck: Cell::new(false),
            activity: Cell::new(0),
            bytes: Cell::new(0),
            writes: Cell::new(0),
            streams: OnceCell::new(),
            framing: RefCell::new(Framing::new()),
            idle: Cell::new(false),
            seen: Cell::new(0),
            unread: Cell::new(false),
            reset: Cell::new(false),
            command: Cell::new(Command::None),
            upgrade: RefCell::new(None),
        }
    }

    pub(crate) fn service(&self) -> &dyn Service {
        &*self.server.service
    }

    /// A request is about to be answered in the service's stead.
    pub(super) fn answering(
        &self,
        head: hyper::http::request::Parts,
        has_body: bool,
        exchange: &Exchange,
        status: StatusCode,
    ) {
        let request = Request {
            conn: self.origin(&head.headers),
            head,
            has_body,
            websocket: None,
        };
        (self.service()).answering(request, exchange, status.as_u16(), clock::now());
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.server.config.limits
    }

    /// Bytes of a whole response below which it is not compressed.
    pub(crate) fn least_compressed(&self) -> usize {
        self.server.config.compression.least
    }

    pub(crate) fn server_header(&self) -> Option<&HeaderValue> {
        self.server.config.server_header.as_ref()
    }

    pub(crate) fn body_waker(&self) -> &Waker {
        let make = || {
            let arrived = Arc::new(BodyArrived(AtomicBool::new(false)));
            (Arc::clone(&arrived), Waker::from(arrived))
        };
        &self.body.get_or_init(make).1
    }

    /// The files on their way, if there ever was one.
    pub(crate) fn files(&self) -> Option<&Lane> {
        self.files.get().map(Rc::as_ref)
    }

    /// The exchanges of a connection that may have several.
    pub(crate) fn streams(&self) -> Option<&Streams> {
        self.streams.get().map(Rc::as_ref)
    }

    /// Whether files have to be read to be sent.
    pub(crate) fn reads_files(&self) -> bool {
        self.info.tls.get().is_some() || self.streams.get().is_some()
    }

    /// No exchange is in progress.
    pub(super) fn is_quiet(&self) -> bool {
        let none = self.current.borrow().is_none();
        none && self.streams().is_none_or(Streams::is_empty)
    }

    pub(crate) fn lane(&self) -> Rc<Lane> {
        Rc::clone(self.files.get_or_init(Rc::default))
    }

    /// A file ended before its part did, or could not be read.
    pub(crate) fn file_failed(&self, error: &io::Error) {
        self.service().report(Problem::File(&self.info, error));
    }

    pub(crate) fn set_upgrade(&self, shared: Rc<WsShared>) {
        *self.upgrade.borrow_mut() = Some(shared);
    }

    /// There will be no WebSocket connection.
    pub(crate) fn forget_upgrade(&self) {
        let shared = self.upgrade.borrow_mut().take();
        if let Some(shared) = shared {
            shared.lost();
        }
    }

    /// Whether the connection can be closed to make room for another: nothing is in progress, and nothing
    /// has been since this was last asked.
    pub(crate) fn is_dispensable(&self) -> bool {
        let activity = self.activity.get();
        let idle = self.idle.get() && self.command.get() == Command::None;
        idle && self.seen.replace(activity) == activity
    }

    /// Has the connection polled.
    pub(crate) fn wake(&self) {
        if self.calling.get() {
            return;
        }
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    pub(crate) fn command(&self, command: Command) {
        self.command.set(command);
        if let Some(streams) = self.streams() {
            streams.wake_sockets();
        }
        self.wake();
    }

    /// The connection is to end with what is in progress.
    pub(crate) fn is_leaving(&self) -> bool {
        self.command.get() == Command::Drain
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.server.handle
    }

    pub(crate) fn set_unread(&self) {
        self.unread.set(true);
    }

    pub(crate) fn set_reset(&self) {
        self.reset.set(true);
    }

    /// The connection is HTTP/2's from its beginning.
    pub(super) fn is_2(&self) {
        self.framing.borrow_mut().off();
    }

    /// Whether HTTP/2's preface was the very first to come. hyper finds it behind blank lines as well.
    pub(super) fn began_with_preface(&self) -> bool {
        self.framing.borrow().is_off()
    }

    /// Gives hyper what has come; false if it is given nothing yet. It has room for [`SLACK`] bytes more.
    #[inline]
    pub(crate) fn give(&self, data: &[u8], buf: &mut ReadBufCursor<'_>) -> bool {
        let mut framing = self.framing.borrow_mut();
        if framing.may_upgrade(self.activity.get())
            && self.is_quiet()
            && self.upgrade.borrow().is_none()
        {
            framing.resume();
        }
        match framing.pass(data) {
            Pass::All(0) => buf.put_slice(data),
            Pass::All(held) => {
                buf.put_slice(&PREFACE[..held]);
                buf.put_slice(data);
            }
            Pass::Cut(held, at) => {
                buf.put_slice(&PREFACE[..held]);
                buf.put_slice(&data[..at]);
                buf.put_slice(REFUSED);
            }
            Pass::Hold => return false,
        }
        true
    }

    /// Gives hyper what was held back, as no more will come.
    pub(crate) fn give_rest(&self, buf: &mut ReadBufCursor<'_>) {
        let held = self.framing.borrow_mut().release();
        buf.put_slice(&PREFACE[..held]);
    }

    /// Whether the connection has to end with the present response, which changes no protocol: what has
    /// come behind its request was not looked at.
    pub(crate) fn came_early(&self) -> bool {
        self.framing.borrow().came_early(self.activity.get())
    }

    pub(crate) fn read(&self, n: usize) {
        self.partial.set(true);
        self.bytes.set(self.bytes.get().wrapping_add(n as u64));
    }

    pub(crate) fn wrote(&self) {
        self.stuck.set(false);
        self.writes.set(self.writes.get().wrapping_add(1));
    }

    pub(crate) fn write_blocked(&self) {
        self.stuck.set(true);
    }

    /// Nanoseconds for which the present request's body was waited for.
    pub(super) fn body_waited(&self) -> u64 {
        let current = self.current.borrow();
        current.as_ref().map_or(0, |current| current.body_waited())
    }

    /// An exchange's response was taken to its end, or will never be.
    pub(crate) fn end(&self, inner: &Inner) {
        if let Some(streams) = self.streams() {
            if streams.remove(inner) {
                self.server.request_ended();
            }
            return;
        }
        let ended = {
            let mut current = self.current.borrow_mut();
            match &*current {
                Some(it) if it.same(inner) => current.take(),
                _ => None,
            }
        };
        if ended.is_some() {
            self.partial.set(false);
            self.server.request_ended();
        }
    }

    /// Whether a request asks for a WebSocket connection. One with a body does not: where its bytes
    /// end and frames begin would be a matter of opinion.
    pub(super) fn websocket(
        &self,
        head: &hyper::http::request::Parts,
        has_body: bool,
    ) -> Result<Option<Box<Offer>>, Refusal> {
        match &self.server.config.websockets {
            Some(config) if !has_body => examine(head, config),
            _ => Ok(None),
        }
    }

    /// Whom a request with these headers comes from.
    pub(super) fn origin(&self, headers: &HeaderMap) -> Rc<ConnInfo> {
        if !self.believed {
            return Rc::clone(&self.info);
        }
        let told = self.server.config.proxies.read(headers);
        if told == Forwarded::default() {
            return Rc::clone(&self.info);
        }
        let peer = told.client.map(Address::Tcp);
        let peer = peer.as_ref().unwrap_or(&self.info.peer);
        let secure = told.secure.unwrap_or(self.info.secure);
        let mut known = self.client.borrow_mut();
        match &*known {
            Some(known) if known.peer == *peer && known.secure == secure => Rc::clone(known),
            _ => {
                let info = Rc::new(ConnInfo {
                    peer: peer.clone(),
                    local: self.info.local.clone(),
                    secure,
                    tls: self.info.tls.clone(),
                    cache: OnceCell::new(),
                });
                *known = Some(Rc::clone(&info));
                info
            }
        }
    }

    pub(super) fn set_waker(&self, waker: &Waker) {
        keep(&mut self.waker.borrow_mut(), waker);
    }

    pub(super) fn deliver_body(&self) {
        let Some((arrived, _)) = self.body.get() else {
            return;
        };
        if arrived.0.load(Ordering::Relaxed) {
            arrived.0.store(false, Ordering::Relaxed);
            let current = self.current.borrow().clone();
            if let Some(current) = current {
                current.body_arrived();
            }
        }
    }
}
