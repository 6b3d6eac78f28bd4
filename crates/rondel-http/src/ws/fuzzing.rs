//! Doors for the fuzz targets: see [`crate::fuzzing`].

use bytes::{Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use sockudo_ws::deflate::{DeflateConfig, DeflateWindowBits};

use super::codec::{Decoder, Encoder, Incoming, Output};
use super::handshake::COMPRESS_FROM;
use super::{Message, WebSockets, examine};

/// A request's offer as the headers that would accept it, and its subprotocols; or the status of its
/// refusal.
pub fn offer(head: &Parts) -> Result<Option<(HeaderMap, Vec<String>)>, u16> {
    let examined = examine(head, &WebSockets::default());
    let offer = examined.map_err(|refusal| refusal.status.as_u16())?;
    Ok(offer.map(|offer| {
        let mut headers = HeaderMap::new();
        let first = offer.subprotocols.first();
        let first = first.and_then(|name| HeaderValue::from_str(name).ok());
        offer.complete(&mut headers, first);
        (headers, offer.subprotocols)
    }))
}

/// What a peer's bytes came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    Text(Bytes),
    Binary(Bytes),
    Ping(Bytes),
    Pong,
    Close(Option<(u16, String)>),
    /// The connection is failed with this code; nothing follows.
    Failed(u16),
}

fn agreed(forgets: bool) -> DeflateConfig {
    DeflateConfig {
        server_max_window_bits: DeflateWindowBits::Bits12,
        client_max_window_bits: DeflateWindowBits::Bits12,
        server_no_context_takeover: forgets,
        client_no_context_takeover: forgets,
        // As for connections: of empty messages the library makes none that can be inflated.
        compression_threshold: COMPRESS_FROM,
        ..DeflateConfig::default()
    }
}

/// The reading side of a connection. `deflate`: agreed on, and whether its context is forgotten.
pub struct Frames {
    decoder: Decoder,
    input: BytesMut,
    failed: bool,
}

impl Frames {
    #[must_use]
    pub fn new(max_size: usize, deflate: Option<bool>) -> Frames {
        Frames {
            decoder: Decoder::new(max_size, deflate.map(agreed)),
            input: BytesMut::new(),
            failed: false,
        }
    }

    /// What these bytes complete. After a failure, and after a close, nothing is looked at.
    pub fn feed(&mut self, data: &[u8], came: &mut Vec<Came>) {
        self.input.extend_from_slice(data);
        while !self.failed {
            let it = match self.decoder.next(&mut self.input) {
                Ok(None) => return,
                Ok(Some(Incoming::Data(Message::Text(data)))) => Came::Text(data),
                Ok(Some(Incoming::Data(Message::Binary(data)))) => Came::Binary(data),
                Ok(Some(Incoming::Ping(data))) => Came::Ping(data),
                Ok(Some(Incoming::Pong)) => Came::Pong,
                Ok(Some(Incoming::Close(close))) => {
                    self.failed = true;
                    Came::Close(close.map(|close| (close.code, close.reason)))
                }
                Err(failure) => {
                    self.failed = true;
                    Came::Failed(failure.code)
                }
            };
            came.push(it);
        }
    }

    /// Bytes that the frame under way still needs.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.decoder.missing(&self.input)
    }
}

/// The writing side.
pub struct Writer {
    encoder: Encoder,
    output: Output,
}

impl Writer {
    #[must_use]
    pub fn new(deflate: Option<bool>) -> Writer {
        Writer {
            encoder: Encoder::new(deflate.map(agreed)),
            output: Output::default(),
        }
    }

    /// The frame of a message, given out in steps of `step` bytes.
    pub fn message(&mut self, message: Message, step: usize) -> Vec<u8> {
        let written = self.encoder.message(message, &mut self.output);
        written.expect("a compressor that works");
        let mut frame = Vec::with_capacity(self.output.len());
        while !self.output.is_empty() {
            let n = self.output.next_slices(|slices| {
                let slice = slices.iter().find(|slice| !slice.is_empty());
                let slice = slice.expect("what is not empty has bytes");
                let n = slice.len().min(step.max(1));
                frame.extend_from_slice(&slice[..n]);
                n
            });
            self.output.written(n);
        }
        frame
    }
}
