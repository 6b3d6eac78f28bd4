//! HTTP/2 on the loop, by h2.
//!
//! ```text
//!   conn::Connection (future) ──polls──► Http2 ──► h2 ──reads/writes──► Primed ──► Wire
//!        │ request on a stream ──► Dispatch ──► Exchange    (what was read of it as HTTP/1)
//!        │                         └► Answer, in a Reply: a future per stream
//!        └ body came ── Note ──► Exchange::body_arrived
//! ```
//!
//! HTTP/1 has one exchange at a time, and the connection's future waits for it. Here each stream is a
//! future of its own on the loop: an exchange wakes its own, and `Streams` knows those that are open.
//! Flow control is the protocol's: a body that is not read holds its stream back, a response that the
//! client does not take stays in the exchange's queue. A stream that has become a WebSocket connection
//! is `ws::tunnel`'s.
//!
//! What a client can make the server hold is bounded: streams, their windows and the connection's, the
//! bytes and lines of heads ([`Settings`], [`crate::Limits`]); h2 bounds what floods of CONTINUATION, of
//! PING, of SETTINGS and of reset streams can do, and ends the connection.
//!
//! h2 itself, not hyper's layer over it, which passes on no heads before the response (103, 100) and gives
//! no hold of a stream that it has upgraded.
//!
//! | module | holds |
//! |---|---|
//! | `connection` | a connection: its preface, requests, pings, end |
//! | `reply` | a stream: heads before the response, the response, its body |
//! | `upload` | a request's body |
//! | `streams` | what the streams of a connection share, and what an exchange has of its own |
//! | `io` | the connection's bytes as h2 wants them |
//! | `date` | the `Date` of responses |

mod connection;
mod date;
mod io;
mod reply;
mod streams;
mod upload;

use std::fmt;
use std::time::Duration;

use crate::service::Config;

pub(crate) use connection::Http2;
pub(crate) use date::Date;
pub(crate) use reply::Out;
pub(crate) use streams::{StreamSide, Streams};
pub(crate) use upload::{Upload, poll_data};

/// Bytes that a connection reads in a row before the loop looks at its other connections.
const BURST: usize = 256 * 1024;

/// Requests that a client may take back, beyond those it let end, before it has to connect again.
/// h2 bounds those that were not even taken up; these have cost the application something.
const TAKEN_BACK: u64 = 500;

/// Streams that h2 resets for what the client does wrong, before it ends the connection.
const WRONG: usize = 1024;

/// How HTTP/2 is spoken.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Streams at once on a connection; further ones are refused.
    pub streams: u32,
    /// Body bytes of a stream that the client may send before the application reads.
    pub stream_window: u32,
    /// The same for all streams of a connection.
    pub connection_window: u32,
    /// After so long without news of the client it is pinged; `None`: never.
    pub ping_interval: Option<Duration>,
    /// A client that does not answer a ping for so long has gone.
    pub ping_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            streams: 128,
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
            ping_interval: None,
            ping_timeout: Duration::from_secs(20),
        }
    }
}

/// Why a connection of HTTP/2 ended before its time.
#[derive(Debug)]
pub enum Failure {
    /// What the client sent, or an error of the socket.
    Protocol(h2::Error),
    /// A ping was not answered in time.
    Silent,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Protocol(error) => write!(f, "http2 error: {error}"),
            Failure::Silent => f.write_str("the client answered no ping in time"),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Failure::Protocol(error) => Some(error),
            Failure::Silent => None,
        }
    }
}

/// What a server's connections are made by.
pub(crate) fn builder(config: &Config) -> h2::server::Builder {
    let settings = &config.http2;
    let limits = &config.limits;
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(settings.streams)
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_send_buffer_size(limits.high_water)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_local_error_reset_streams(Some(WRONG));
    if config.websockets.is_some() {
        builder.enable_connect_protocol();
    }
    builder
}
