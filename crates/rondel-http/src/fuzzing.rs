//! What the fuzz targets in `fuzz/` call of what is private: nothing but doors, for them alone.

use std::cell::OnceCell;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::time::SystemTime;

use hyper::HeaderMap;

use crate::Server;
use crate::compress::quality;
use crate::listener::Role;
use crate::proxy::protocol::{self, Prefix};
use crate::service::{Address, ConnInfo};
use crate::statics::fuzzing::{Verdict, judge, span};
use crate::stream::Socket;

pub use crate::statics::fuzzing::{behind, below};
pub use crate::ws::fuzzing::{Came, Frames, Writer, offer};

type Addresses = Option<(SocketAddr, SocketAddr)>;

/// The PROXY protocol's header at the beginning of `data`: its length and addresses; or whether one may
/// still come.
pub fn proxy_header(data: &[u8]) -> Result<(usize, Addresses), bool> {
    match protocol::parse(data) {
        Prefix::Header(length, addresses) => Ok((length, addresses)),
        Prefix::Incomplete => Err(true),
        Prefix::Other => Err(false),
    }
}

/// A GET's conditions, for a file of that state: 200, 304 or 412.
pub fn conditions(headers: &HeaderMap, etag: &str, modified: SystemTime) -> u16 {
    match judge(headers, etag, modified) {
        Verdict::Send => 200,
        Verdict::NotModified => 304,
        Verdict::Failed => 412,
    }
}

/// The part of a file that is asked for; `Err` if there is none such.
pub fn part(
    headers: &HeaderMap,
    etag: &str,
    modified: SystemTime,
    len: u64,
) -> Result<Option<Range<u64>>, ()> {
    span(headers, etag, modified, len)
}

/// How much a coding is liked, in thousandths.
pub fn liked(headers: &HeaderMap, coding: &str) -> u32 {
    quality(headers, coding)
}

/// Serves a connection that nobody had to accept.
///
/// # Errors
/// If the socket cannot be made non-blocking or registered.
pub fn connect(server: &Server, socket: UnixStream) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let socket = Socket::Unix(mio::net::UnixStream::from_std(socket));
    let info = ConnInfo {
        peer: Address::Unix(None),
        local: Address::Unix(None),
        tls: OnceCell::new(),
        secure: false,
        cache: OnceCell::new(),
    };
    server.shared().welcome(socket, info, Role::Serve)
}
