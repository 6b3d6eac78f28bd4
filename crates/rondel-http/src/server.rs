//! The server: its listeners, its connections, and their end.
//!
//! ```text
//!   serving ──graceful_shutdown──► draining ──last connection closed──► drained
//!      └──────────────────────force_close──────────────────────────────────┘
//! ```
//!
//! Loop's thread only. Listeners and connections are futures of the loop's executor; the server
//! knows the connections by their links.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use hyper::server::conn::http1;
#[cfg(doc)]
use rondel_core::clock;
use rondel_core::driver::Handle;

use crate::conn::{Command, Connection, Link};
use crate::http2;
use crate::listener::{Interest, Listener, Role, accept};
use crate::proxy::introduction::introduce;
use crate::service::{Config, ConnInfo, Service};
use crate::stream::{SCRATCH, Scratch, Socket, Stream};
use crate::tls::stream::TlsStream;
use crate::turns::Turns;
use crate::wire::Wire;

/// hyper refuses smaller buffers.
const MIN_BUFFER: usize = 8192;

/// Connections that are looked at, at most, for one that is idle.
const LOOKED_AT: usize = 1024;

pub(crate) struct Shared {
    pub(crate) handle: Handle,
    pub(crate) service: Rc<dyn Service>,
    pub(crate) config: Config,
    /// Set where other processes accept from the same sockets.
    pub(crate) turns: Option<Turns>,
    pub(crate) http: http1::Builder,
    pub(crate) http2: h2::server::Builder,
    /// Of responses over HTTP/2; hyper has its own.
    pub(crate) date: http2::Date,
    pub(crate) scratch: Scratch,
    /// Links by slot; `free` has the vacant ones.
    links: RefCell<Vec<Option<Rc<Link>>>>,
    free: RefCell<Vec<usize>>,
    connections: Cell<usize>,
    /// Where the last look for an idle connection has ended.
    hand: Cell<usize>,
    /// Exchanges whose response is not handed over.
    requests: Cell<usize>,
    /// Requests since the start.
    served: Cell<u64>,
    listeners: Cell<usize>,
    draining: Cell<bool>,
    /// Until when idle connections stay open while it drains.
    idle_until: Cell<u64>,
    /// Futures that wait for a connection to close or for the draining: acceptors and `Drained`.
    waiters: RefCell<Vec<Waker>>,
}

impl Shared {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Until when ([`clock::now`]) idle connections stay open while it drains.
    pub(crate) fn idle_until(&self) -> u64 {
        self.idle_until.get()
    }

    /// Whether one more connection would be too many.
    pub(crate) fn is_full(&self) -> bool {
        let most = self.config.limits.connections;
        most.is_some_and(|most| self.connections.get() >= most)
    }

    /// A connection on which nothing happens, to be closed for another. Those are passed over once that
    /// were in use since they were last looked at.
    pub(crate) fn dispensable(&self) -> Option<Rc<Link>> {
        let links = self.links.borrow();
        let count = links.len();
        (0..LOOKED_AT.min(2 * count)).find_map(|_| {
            let at = self.hand.get();
            self.hand.set(if at + 1 < count { at + 1 } else { 0 });
            let link = links.get(at)?.as_ref()?;
            link.is_dispensable().then(|| Rc::clone(link))
        })
    }

    /// A connection has become idle: an acceptor may have waited for that.
    pub(crate) fn became_idle(&self) {
        if self.is_full() {
            self.changed();
        }
    }

    /// Wakes `waker` at the next change that acceptors or `Drained` may wait for.
    pub(crate) fn wait(&self, waker: &Waker) {
        let mut waiters = self.waiters.borrow_mut();
        if !waiters.iter().any(|known| known.will_wake(waker)) {
            waiters.push(waker.clone());
        }
    }

    fn changed(&self) {
        let waiters = std::mem::take(&mut *self.waiters.borrow_mut());
        for waiter in waiters {
            waiter.wake();
        }
    }

    pub(crate) fn request_began(&self) {
        self.requests.set(self.requests.get() + 1);
        self.served.set(self.served.get() + 1);
    }

    pub(crate) fn request_ended(&self) {
        self.requests.set(self.requests.get() - 1);
    }

    pub(crate) fn listener_ended(&self) {
        self.listeners.set(self.listeners.get() - 1);
        self.changed();
    }

    /// A connection was accepted.
    pub(crate) fn welcome(
        self: &Rc<Self>,
        socket: Socket,
        info: ConnInfo,
        role: Role,
    ) -> io::Result<()> {
        let proxies = &self.config.proxies;
        if !proxies.protocol {
            return self.open(socket, info, role);
        }
        if proxies.trusts(&info.peer) {
            (self.handle).spawn(introduce(Rc::clone(self), socket, info, role));
        }
        Ok(())
    }

    /// Counts a connection that is not open yet, as long as the guard lives.
    pub(crate) fn count(self: &Rc<Self>) -> Counted {
        self.connections.set(self.connections.get() + 1);
        Counted(Rc::clone(self))
    }

    /// A new connection's future is spawned.
    pub(crate) fn open(
        self: &Rc<Self>,
        socket: Socket,
        mut info: ConnInfo,
        role: Role,
    ) -> io::Result<()> {
        info.secure = self.config.tls.is_some() && matches!(role, Role::Serve);
        let link = Rc::new(Link::new(Rc::clone(self), Rc::new(info), role));
        let scratch = Rc::clone(&self.scratch);
        let stream = Stream::new(socket, &self.handle, scratch, Rc::clone(&link))?;
        let opening = match (&self.config.tls, role) {
            (None, _) | (_, Role::Redirect(_)) => Wire::Plain(stream),
            (Some(tls), Role::Serve) => Wire::Tls(Box::new(TlsStream::new(tls, stream)?)),
        };
        let slot = {
            let mut links = self.links.borrow_mut();
            match self.free.borrow_mut().pop() {
                Some(slot) => {
                    links[slot] = Some(Rc::clone(&link));
                    slot
                }
                None => {
                    links.push(Some(Rc::clone(&link)));
                    links.len() - 1
                }
            }
        };
        self.connections.set(self.connections.get() + 1);
        if self.draining.get() {
            // Accepted before, and introduced since.
            link.command(Command::Drain);
        }
        self.handle.spawn(Connection::new(link, opening, slot));
        Ok(())
    }

    /// A connection's future was dropped.
    pub(crate) fn closed(&self, slot: usize) {
        let link = self.links.borrow_mut()[slot].take();
        self.free.borrow_mut().push(slot);
        self.connections.set(self.connections.get() - 1);
        drop(link);
        self.changed();
    }

    fn command(&self, command: Command) {
        // Collected first: a woken connection runs later, but a hook may well come back here.
        let links: Vec<_> = self.links.borrow().iter().flatten().cloned().collect();
        for link in links {
            link.command(command);
        }
    }
}

/// See [`Shared::count`].
pub(crate) struct Counted(Rc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        self.0.changed();
    }
}

/// Serves one service on any number of listeners. Clones are the same server.
#[derive(Clone)]
pub struct Server(Rc<Shared>);

impl Server {
    #[must_use]
    pub fn new(handle: Handle, service: Rc<dyn Service>, config: Config) -> Self {
        let mut http = http1::Builder::new();
        let limits = &config.limits;
        http.keep_alive(config.keep_alive)
            .header_read_timeout(None)
            .auto_date_header(config.date_header)
            .max_header_size(limits.header_bytes)
            // Also bounds what hyper holds of a response beyond our queue.
            .max_buf_size(limits.header_bytes.max(limits.high_water).max(MIN_BUFFER));
        // hyper's own default is 100 and spares an allocation per request.
        if limits.header_count != 100 {
            http.max_headers(limits.header_count);
        }
        let turns = config.seat.clone().and_then(Turns::join);
        let http2 = http2::builder(&config);
        Server(Rc::new(Shared {
            turns,
            handle,
            service,
            config,
            http,
            http2,
            date: http2::Date::default(),
            scratch: Rc::new(RefCell::new(vec![0; SCRATCH].into_boxed_slice())),
            links: RefCell::default(),
            free: RefCell::default(),
            connections: Cell::new(0),
            hand: Cell::new(0),
            requests: Cell::new(0),
            served: Cell::new(0),
            listeners: Cell::new(0),
            draining: Cell::new(false),
            idle_until: Cell::new(0),
            waiters: RefCell::default(),
        }))
    }

    #[cfg(feature = "fuzzing")]
    pub(crate) fn shared(&self) -> &Rc<Shared> {
        &self.0
    }

    /// Accepts on a bound, listening socket until the server is shut down, then closes it.
    ///
    /// # Errors
    /// If the socket cannot be made non-blocking or registered.
    pub fn listen_tcp(&self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        self.listen(
            Listener::Tcp(mio::net::TcpListener::from_std(listener)),
            Role::Serve,
        )
    }

    /// The same, but every request, without TLS, is answered with 308: the same at `https` and `port`.
    ///
    /// # Errors
    /// If the socket cannot be made non-blocking or registered.
    pub fn listen_redirect(&self, listener: TcpListener, port: u16) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        self.listen(
            Listener::Tcp(mio::net::TcpListener::from_std(listener)),
            Role::Redirect(port),
        )
    }

    /// The same for a Unix socket. Its path is left in place.
    ///
    /// # Errors
    /// If the socket cannot be made non-blocking or registered.
    pub fn listen_unix(&self, listener: UnixListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        self.listen(
            Listener::Unix(mio::net::UnixListener::from_std(listener)),
            Role::Serve,
        )
    }

    fn listen(&self, mut listener: Listener, role: Role) -> io::Result<()> {
        let shared = &self.0;
        let interest = if shared.turns.is_some() {
            Interest::Shared(listener.share(&shared.handle)?)
        } else {
            Interest::Own(listener.register(&shared.handle)?)
        };
        shared.listeners.set(shared.listeners.get() + 1);
        shared
            .handle
            .spawn(accept(Rc::clone(shared), listener, interest, role));
        Ok(())
    }

    /// Stops accepting, lets requests in progress finish, closes idle connections.
    ///
    /// The latter only at `idle_until` ([`clock::now`]'s time; 0: at once): a client may send its next
    /// request at the very moment in which its connection is closed, and can't know whether it was
    /// heard. Until then such a request is answered, and its connection closed with the answer.
    pub fn graceful_shutdown(&self, idle_until: u64) {
        self.0.idle_until.set(idle_until);
        self.0.draining.set(true);
        self.0.changed();
        self.0.command(Command::Drain);
    }

    /// Stops accepting and closes every connection; requests in progress learn that their client
    /// has gone.
    pub fn force_close(&self) {
        self.0.draining.set(true);
        self.0.changed();
        self.0.command(Command::Kill);
    }

    /// Ends once the server was shut down and its last connection and listener are closed.
    #[must_use]
    pub fn drained(&self) -> Drained {
        Drained(Rc::clone(&self.0))
    }

    #[must_use]
    pub fn is_drained(&self) -> bool {
        let s = &self.0;
        s.draining.get() && s.connections.get() == 0 && s.listeners.get() == 0
    }

    /// Open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.connections.get()
    }

    /// Requests whose response is not handed over to the socket's side.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.0.requests.get()
    }

    /// Requests since the start.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.0.served.get()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("connections", &self.connections())
            .field("requests", &self.requests())
            .field("draining", &self.0.draining.get())
            .finish_non_exhaustive()
    }
}

/// See [`Server::drained`].
pub struct Drained(Rc<Shared>);

impl Future for Drained {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Server(Rc::clone(&self.0)).is_drained() {
            return Poll::Ready(());
        }
        self.0.wait(cx.waker());
        Poll::Pending
    }
}
