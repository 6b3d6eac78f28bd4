//! The accept loop, a future per listening socket.
//!
//! It takes connections in batches, so that a flood of them does not hold up those that are
//! served; it pauses when the server is full and nobody on
//! it idle, whom it would close for the next one, and when the process is out of descriptors or
//! memory, since a listener that is left readable would otherwise spin.
//!
//! A socket that other processes accept from as well is accepted from by turns, one connection a turn
//! ([`rondel_core::sharing`]); a server that has requests waiting lets the others go first.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use rondel_core::clock;
use rondel_core::driver::Handle;
use rondel_core::io::Registration;
use rondel_core::sharing::SharedListener;

use std::cell::OnceCell;

use crate::conn::Command;
use crate::server::Shared;
use crate::service::{Address, ConnInfo, Problem};
use crate::stream::Socket;

/// Connections accepted before other futures get their turn.
const BATCH: usize = 64;
/// Pause after an error that will not pass at once.
const BACK_OFF: u64 = clock::SECOND / 4;
/// How long a server with requests waiting leaves new connections to other processes.
const GIVE_WAY: u64 = clock::SECOND / 500;

/// What connections of a listener are for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    /// The application's requests.
    Serve,
    /// Every request is sent to `https` at this port.
    Redirect(u16),
}

/// A listening socket.
pub(crate) enum Listener {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener),
}

impl Listener {
    pub(crate) fn register(&mut self, handle: &Handle) -> io::Result<Registration> {
        match self {
            Listener::Tcp(l) => handle.register(l),
            Listener::Unix(l) => handle.register(l),
        }
    }

    pub(crate) fn share(&self, handle: &Handle) -> io::Result<SharedListener> {
        match self {
            Listener::Tcp(l) => handle.share(l),
            Listener::Unix(l) => handle.share(l),
        }
    }

    fn accept(&self) -> io::Result<(Socket, ConnInfo)> {
        let (socket, peer, local) = match self {
            Listener::Tcp(l) => {
                let (s, peer) = l.accept()?;
                // A reset connection refuses both; it will be noticed when it is read.
                let _set = s.set_nodelay(true);
                let local = s.local_addr().or_else(|_| l.local_addr())?;
                (Socket::Tcp(s), Address::Tcp(peer), Address::Tcp(local))
            }
            Listener::Unix(l) => {
                let (s, peer) = l.accept()?;
                let path = |a: &std::os::unix::net::SocketAddr| {
                    Address::Unix(a.as_pathname().map(Into::into))
                };
                let local = l.local_addr()?;
                (Socket::Unix(s), path(&peer), path(&local))
            }
        };
        let info = ConnInfo {
            peer,
            local,
            tls: OnceCell::new(),
            secure: false,
            cache: OnceCell::new(),
        };
        Ok((socket, info))
    }
}

/// How a listener is waited for.
pub(crate) enum Interest {
    /// It is ours alone.
    Own(Registration),
    /// Other processes accept from it, too.
    Shared(SharedListener),
}

impl Interest {
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Interest::Own(it) => it.poll_read_ready(cx),
            Interest::Shared(it) => it.poll_ready(cx),
        }
    }

    /// There was nothing to accept.
    fn empty(&self) {
        match self {
            Interest::Own(it) => it.clear_read_ready(),
            Interest::Shared(it) => it.missed(),
        }
    }

    /// Nothing is accepted for a while.
    fn pause(&self) -> io::Result<()> {
        match self {
            Interest::Own(_) => Ok(()),
            Interest::Shared(it) => it.pause(),
        }
    }

    fn resume(&self) -> io::Result<()> {
        match self {
            Interest::Own(_) => Ok(()),
            Interest::Shared(it) => it.resume(),
        }
    }
}

/// Why a batch ended.
enum Batch {
    /// A connection was taken from a shared listener: it is the next process's turn.
    Turn,
    /// Other processes should go first.
    Busy,
    Draining,
    /// Too many connections; woken when that changes.
    Full,
    /// Nothing left; woken by the next connection.
    Empty,
    /// There may be more.
    Spent,
    Failed,
}

/// Accepts until the server drains.
pub(crate) async fn accept(server: Rc<Shared>, listener: Listener, interest: Interest, role: Role) {
    /// Counts the listener out, also when its future is dropped.
    struct Ended(Rc<Shared>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.listener_ended();
        }
    }
    let ended = Ended(Rc::clone(&server));

    // Gave way already: then at least one connection is taken.
    let mut patient = false;
    loop {
        let done = interest.resume();
        let mut end =
            poll_fn(|cx| Poll::Ready(batch(&server, (&listener, role), &interest, patient, cx)))
                .await;
        if let Err(error) = done {
            server.service.report(Problem::Accept(&error));
            end = Batch::Failed;
        }
        patient = false;
        match end {
            Batch::Draining => break,
            Batch::Empty => pause().await,
            Batch::Spent => yield_now().await,
            Batch::Full => {
                // Woken by a connection's end.
                step_back(&server, &interest);
                pause().await;
            }
            Batch::Turn => {
                step_back(&server, &interest);
                yield_now().await;
            }
            Batch::Busy => {
                step_back(&server, &interest);
                rest(&server, GIVE_WAY).await;
                if let Some(turns) = &server.turns {
                    turns.waited();
                }
                patient = true;
            }
            Batch::Failed => {
                step_back(&server, &interest);
                rest(&server, BACK_OFF).await;
            }
        }
    }
    // Out of epoll, then closed, then counted out.
    drop((interest, listener));
    drop(ended);
}

fn step_back(server: &Shared, interest: &Interest) {
    if let Err(error) = interest.pause() {
        server.service.report(Problem::Accept(&error));
    }
}

/// Sleeps, but not past the begin of the draining.
async fn rest(server: &Rc<Shared>, nanoseconds: u64) {
    let mut sleep = server.handle.sleep_until(clock::now() + nanoseconds);
    poll_fn(|cx| {
        server.wait(cx.waker());
        if server.is_draining() {
            return Poll::Ready(());
        }
        Pin::new(&mut sleep).poll(cx)
    })
    .await;
}

fn batch(
    server: &Rc<Shared>,
    (listener, role): (&Listener, Role),
    interest: &Interest,
    patient: bool,
    cx: &mut Context<'_>,
) -> Batch {
    for _ in 0..BATCH {
        if server.is_draining() {
            return Batch::Draining;
        }
        let mut leaves = None;
        if server.is_full() {
            leaves = server.dispensable();
            if leaves.is_none() {
                server.wait(cx.waker());
                return Batch::Full;
            }
        }
        if let (Some(turns), false) = (&server.turns, patient) {
            if server.service.is_crowded() || turns.gives_way() {
                return Batch::Busy;
            }
        }
        if interest.poll_ready(cx).is_pending() {
            server.wait(cx.waker());
            return Batch::Empty;
        }
        match listener.accept() {
            Ok((socket, info)) => {
                if let Some(link) = leaves {
                    link.command(Command::Drain);
                }
                if let Err(error) = server.welcome(socket, info, role) {
                    server.service.report(Problem::Accept(&error));
                }
                if let Some(turns) = &server.turns {
                    turns.took();
                    return Batch::Turn;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => interest.empty(),
            Err(e) if is_of_one_connection(&e) => {}
            Err(error) => {
                server.service.report(Problem::Accept(&error));
                return Batch::Failed;
            }
        }
    }
    Batch::Spent
}

/// Errors of the connection that was to be accepted, not of the listener (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::ConnectionRefused
            | Kind::Interrupted
            | Kind::TimedOut
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
    )
}

/// Pending once: whoever was asked for a wake-up ends it.
async fn pause() {
    let mut first = true;
    poll_fn(|_| match std::mem::take(&mut first) {
        true => Poll::Pending,
        false => Poll::Ready(()),
    })
    .await;
}

async fn yield_now() {
    let mut first = true;
    poll_fn(|cx| match std::mem::take(&mut first) {
        true => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        false => Poll::Ready(()),
    })
    .await;
}
