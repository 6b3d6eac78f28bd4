//! WebSocket connections (RFC 6455, with permessage-deflate, RFC 7692).
//!
//! ```text
//!   request with `Upgrade: websocket`, or HTTP/2's CONNECT with `:protocol: websocket`
//!        │ handshake::examine: an `Offer`, or a refusal of our own (400, 426)
//!        ▼
//!   Exchange ──start, send_chunk──► an ordinary response: refused
//!        │ accept(offer, …)
//!        ▼
//!   WebSocket ◄──► Shared ◄──► Session (in the connection's future, in hyper's place)
//!    the application's side     │ bytes ► Decoder ► messages ► inbox
//!                               │ outbox ► Encoder ► bytes
//! ```
//!
//! What hyper is left with ends with the 101 that it has written: the connection's future takes the
//! socket back, with what hyper had read beyond the request's head, and goes on as a [`session`].
//!
//! | module | holds |
//! |---|---|
//! | `handshake` | what a request offers; the headers of the answer |
//! | `codec` | bytes to messages and back, by `sockudo_ws`'s frames and deflate; knows no socket |
//! | `socket` | the application's side, and what both sides share |
//! | `session` | the connection's side: reading, writing, deadlines, the closing handshake |
//! | `tunnel` | the same on a stream of HTTP/2 (RFC 8441), which answers 200 where HTTP/1.1 answers 101 |
//!
//! The frames and the compression are the library's; fragments, limits, which close code what is
//! answered with, and when to stop reading are decided here.

mod codec;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod handshake;
mod session;
mod socket;
mod tunnel;

pub(crate) use handshake::{Refusal, examine};
pub(crate) use session::{End, Session, Transport};
pub(crate) use socket::Shared;
pub(crate) use tunnel::{Gate, Tunnel};

pub use handshake::Offer;
pub use socket::{Message, WebSocket, WsPoll};

use std::time::Duration;

/// How WebSocket connections are served. Durations of `None` are for ever.
#[derive(Clone, Copy, Debug)]
pub struct WebSockets {
    /// Bytes of a message that comes in, inflated; a larger one is answered with close code 1009.
    pub max_size: usize,
    /// Messages that wait for the application; with as many, or 64 KiB of them, nothing is read.
    pub max_queue: usize,
    /// Between a ping and the next.
    pub ping_interval: Option<Duration>,
    /// For the peer to say something after a ping.
    pub ping_timeout: Option<Duration>,
    /// For the peer to answer a close.
    pub close_timeout: Duration,
    /// Whether permessage-deflate is agreed to.
    pub deflate: bool,
}

impl Default for WebSockets {
    fn default() -> Self {
        WebSockets {
            max_size: 16 * 1024 * 1024,
            max_queue: 32,
            ping_interval: Some(Duration::from_secs(20)),
            ping_timeout: Some(Duration::from_secs(20)),
            close_timeout: Duration::from_secs(10),
            deflate: true,
        }
    }
}

/// Why a connection ended: what the peer is told, or has told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    pub code: u16,
    pub reason: String,
}

impl Close {
    /// No close frame came: the connection was lost (RFC 6455, 7.1.5).
    pub const ABNORMAL: u16 = 1006;
    /// The peer's close frame had no code.
    pub const NO_STATUS: u16 = 1005;
    pub const NORMAL: u16 = 1000;
    pub const INTERNAL: u16 = 1011;
    pub const RESTART: u16 = 1012;

    #[must_use]
    pub fn new(code: u16, reason: impl Into<String>) -> Self {
        Close {
            code,
            reason: reason.into(),
        }
    }
}
