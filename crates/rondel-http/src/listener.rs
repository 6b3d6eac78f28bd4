//! The accept loop, a future per listening socket.
//!
//! It takes connections in batches, so that a flood of them does not hold up those that are
//! served; it pauses when the server is full, and when the process is out of descriptors or
//! memory, since a listener that is left readable would otherwise spin.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use rondel_core::clock;
use rondel_core::driver::Handle;
use rondel_core::io::Registration;

use std::cell::OnceCell;

use crate::server::Shared;
use crate::service::{Address, ConnInfo, Problem};
use crate::stream::Socket;

/// Connections accepted before other futures get their turn.
const BATCH: usize = 64;
/// Pause after an error that will not pass at once.
const BACK_OFF: u64 = clock::SECOND / 4;

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
            cache: OnceCell::new(),
        };
        Ok((socket, info))
    }
}

/// Why a batch ended.
enum Batch {
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
pub(crate) async fn accept(server: Rc<Shared>, listener: Listener, registration: Registration) {
    /// Counts the listener out, also when its future is dropped.
    struct Ended(Rc<Shared>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.listener_ended();
        }
    }
    let ended = Ended(Rc::clone(&server));

    loop {
        match poll_fn(|cx| Poll::Ready(batch(&server, &listener, &registration, cx))).await {
            Batch::Draining => break,
            Batch::Full | Batch::Empty => pause().await,
            Batch::Spent => yield_now().await,
            Batch::Failed => {
                let until = clock::now() + BACK_OFF;
                let mut sleep = server.handle.sleep_until(until);
                poll_fn(|cx| {
                    server.wait(cx.waker());
                    if server.is_draining() {
                        return Poll::Ready(());
                    }
                    Pin::new(&mut sleep).poll(cx)
                })
                .await;
            }
        }
    }
    // The socket is closed before it is counted out.
    drop((listener, registration));
    drop(ended);
}

fn batch(
    server: &Rc<Shared>,
    listener: &Listener,
    registration: &Registration,
    cx: &mut Context<'_>,
) -> Batch {
    for _ in 0..BATCH {
        if server.is_draining() {
            return Batch::Draining;
        }
        if server.is_full() {
            server.wait(cx.waker());
            return Batch::Full;
        }
        if registration.poll_read_ready(cx).is_pending() {
            server.wait(cx.waker());
            return Batch::Empty;
        }
        match listener.accept() {
            Ok((socket, info)) => {
                if let Err(error) = server.open(socket, info) {
                    server.service.report(Problem::Accept(&error));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => registration.clear_read_ready(),
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
