//! What the operations of an exchange come back with.

use std::fmt;

use bytes::Bytes;

/// What [`crate::Exchange::poll_body`] has.
#[derive(Debug, PartialEq, Eq)]
pub enum BodyPoll {
    /// The next part of the body; the last one has `more` false and may be empty.
    Chunk { data: Bytes, more: bool },
    /// Nothing yet; [`crate::Event::Body`] follows.
    Pending,
    /// All of it was handed out before; [`crate::Event::Gone`] may follow.
    End,
    /// The client has gone.
    Gone,
}

/// Whether to send on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Ready,
    /// Hold back until [`crate::Event::Writable`].
    Full,
}

/// Why a part of a response was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The client has gone.
    Gone,
    /// A body before its head.
    NotStarted,
    /// A second head.
    AlreadyStarted,
    /// A body after its end.
    AfterEnd,
    /// Not a final status code: 200 to 999.
    BadStatus,
    /// 2xx, which to HTTP/2's CONNECT is no response but accepts (RFC 9110, 9.3.6).
    Accepts,
    /// `content-length` is no number, or there are two.
    BadLength,
    /// More body than `content-length` says. The connection is closed.
    TooLong,
    /// Less body than `content-length` says. The connection is closed.
    TooShort,
    /// A file's part could not be read for compression. The connection is closed.
    Unreadable,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Gone => "the client has gone",
            SendError::NotStarted => "response body sent before the response was started",
            SendError::AlreadyStarted => "response started twice",
            SendError::AfterEnd => "response body sent after its end",
            SendError::BadStatus => "response status must be between 200 and 999",
            SendError::Accepts => {
                "over HTTP/2 a status of 2xx cannot refuse a WebSocket connection: it would accept it"
            }
            SendError::BadLength => "response content-length must be one number",
            SendError::TooLong => "response body longer than its content-length",
            SendError::TooShort => "response body shorter than its content-length",
            SendError::Unreadable => "a file of the response body could not be read",
        })
    }
}

impl std::error::Error for SendError {}
