//! What each target asserts of the bytes that it is given. A target is a function of bytes that panics
//! if they show something wrong; libFuzzer looks for such bytes, by what of the code they reach.
//!
//! Beside "it does not crash" each has a model of its own, written the slow and plain way, and holds the
//! server's code to it; and what comes in pieces must come to the same as what comes whole.

pub mod conditions;
pub mod connection;
pub mod http1;
pub mod http2;
pub mod proxy_headers;
pub mod proxy_protocol;
pub mod static_paths;
pub mod text;
pub mod ws_frames;
pub mod ws_handshake;
