//! A connection that has to begin with a header of the PROXY protocol, until it is there.
//!
//! The header is peeked at, and taken out of the socket alone: what follows is the connection's, be it
//! HTTP or TLS, which begins as if nothing had been. What is no header, comes late, or comes from a
//! peer that is not trusted ends the connection.
//!
//! Loop's thread only; needs no GIL.

use std::future::{Future as _, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rondel_core::clock;
use rondel_core::io::Registration;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::protocol::{LONGEST, Prefix, parse};
use crate::listener::Role;
use crate::server::Shared;
use crate::service::{Address, ConnInfo, Problem};
use crate::stream::Socket;

type Addresses = Option<(SocketAddr, SocketAddr)>;

/// Opens the connection as the client's own once its header is there.
pub(crate) async fn introduce(
    server: Rc<Shared>,
    mut socket: Socket,
    mut info: ConnInfo,
    role: Role,
) {
    let _counted = server.count();
    let Ok(registration) = socket.register(&server.handle) else {
        return;
    };
    let limit = server.config.limits.header_deadline;
    let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
    let mut deadline = server
        .handle
        .sleep_until(clock::coarse().saturating_add(limit));
    let told = poll_fn(|cx| {
        let header = poll_header(&socket, &registration, cx);
        if header.is_ready() {
            return header;
        }
        server.wait(cx.waker());
        if server.is_draining() && server.idle_until() < deadline.deadline() {
            // As idle connections.
            deadline.reset(server.idle_until());
        }
        ready!(Pin::new(&mut deadline).poll(cx));
        Poll::Ready(Err(Errno::TIMEDOUT.into()))
    })
    .await;
    // The connection registers it anew, and hears of what has come by now.
    if socket.deregister(registration).is_err() {
        return;
    }
    match told {
        Ok(Some((from, to))) => (info.peer, info.local) = (Address::Tcp(from), Address::Tcp(to)),
        // The proxy speaks for itself.
        Ok(None) => {}
        Err(_) => return,
    }
    if let Err(error) = server.open(socket, info, role) {
        server.service.report(Problem::Accept(&error));
    }
}

fn poll_header(
    socket: &Socket,
    registration: &Registration,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Addresses>> {
    loop {
        ready!(registration.poll_read_ready(cx));
        let mut data = [0; LONGEST];
        let length = match recv(socket.as_fd(), &mut data, RecvFlags::PEEK) {
            Ok((_, length)) => length,
            Err(Errno::AGAIN) => {
                registration.clear_read_ready();
                continue;
            }
            Err(Errno::INTR) => continue,
            Err(error) => return Poll::Ready(Err(error.into())),
        };
        match parse(&data[..length]) {
            Prefix::Header(header, addresses) => {
                let (_, taken) = recv(socket.as_fd(), &mut data[..header], RecvFlags::empty())?;
                debug_assert_eq!(taken, header, "what was peeked at is there");
                return Poll::Ready(Ok(addresses));
            }
            Prefix::Incomplete if length > 0 && !registration.is_read_closed() => {
                registration.clear_read_ready();
            }
            // The peer has gone, or is no proxy.
            Prefix::Incomplete | Prefix::Other => {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        }
    }
}
