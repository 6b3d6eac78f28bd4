//! Bytes to messages, and messages to bytes. No socket, no clock.
//!
//! The library parses and writes frames and inflates and deflates; here fragments become messages,
//! and what is wrong becomes a close code:
//!
//! | what came | code |
//! |---|---|
//! | a frame that RFC 6455 forbids, fragments out of order, a bad close frame | 1002 |
//! | text that is not UTF-8, told at its first wrong byte; data that does not inflate | 1007 |
//! | a message beyond the limit, told by the frame's head where that says it; inflated, by its bytes | 1009 |
//!
//! Payloads are slices of the buffer that was read into: nothing is copied unless a message comes in
//! fragments or compressed. Compressors are made with the first message that needs one: an idle
//! connection has none.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf as _, Bytes, BytesMut};
use sockudo_ws::deflate::{DeflateConfig, DeflateDecoder, DeflateEncoder};
use sockudo_ws::error::{CloseReason, Error};
use sockudo_ws::frame::{
    Frame, FrameParser, OpCode, encode_frame, encode_frame_header_with_rsv, encode_frame_with_rsv,
};
use sockudo_ws::utf8::{Utf8Stream, validate_utf8};

use super::{Close, Message};

/// Larger payloads are written from where they lie.
const COPY: usize = 8 * 1024;

/// Slices of one `writev`.
const SLICES: usize = 16;

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    Data(Message),
    Ping(Bytes),
    Pong,
    /// The peer's close frame: its code, if it has one.
    Close(Option<Close>),
}

/// Why a connection has to be failed, and what the peer is told (RFC 6455, 7.1.7).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: u16,
    pub(super) reason: &'static str,
}

const TOO_BIG: Failure = Failure {
    code: 1009,
    reason: "message too big",
};
const NOT_UTF8: Failure = Failure {
    code: 1007,
    reason: "text is not UTF-8",
};

const fn protocol(reason: &'static str) -> Failure {
    Failure { code: 1002, reason }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::MessageTooLarge | Error::FrameTooLarge | Error::Capacity(_) => TOO_BIG,
            Error::InvalidUtf8 => NOT_UTF8,
            Error::Compression(_) => Failure {
                code: 1007,
                reason: "data cannot be inflated",
            },
            Error::Protocol(reason) | Error::InvalidFrame(reason) => protocol(reason),
            _ => protocol("bad frame"),
        }
    }
}

/// A message whose last fragment has not come.
struct Assembly {
    opcode: OpCode,
    compressed: bool,
    data: BytesMut,
}

pub(super) struct Decoder {
    parser: FrameParser,
    max_size: usize,
    /// What was agreed; `inflater` is made when it is needed.
    deflate: Option<DeflateConfig>,
    inflater: Option<DeflateDecoder>,
    assembly: Option<Assembly>,
    /// Checks text that comes in pieces.
    utf8: Utf8Stream,
    /// Bytes of the present frame that were checked before it was complete.
    checked: usize,
}

impl Decoder {
    pub(super) fn new(max_size: usize, deflate: Option<DeflateConfig>) -> Self {
        let mut parser = FrameParser::new(max_size, true);
        parser.set_compression(deflate.is_some());
        Decoder {
            parser,
            max_size,
            deflate,
            inflater: None,
            assembly: None,
            utf8: Utf8Stream::new(),
            checked: 0,
        }
    }

    /// The next whole message or control frame in `input`, if there is one. After a failure it must
    /// not be asked again.
    pub(super) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, Failure> {
        while !input.is_empty() {
            let Some(frame) = self.parser.parse(input)? else {
                self.look_ahead(input)?;
                return Ok(None);
            };
            let checked = std::mem::take(&mut self.checked);
            if let Some(incoming) = self.accept(frame, checked)? {
                return Ok(Some(incoming));
            }
        }
        Ok(None)
    }

    /// Bytes that the frame at the front of `input` still needs.
    pub(super) fn missing(&self, input: &BytesMut) -> usize {
        let total = self.parser.pending_payload().map_or(0, |it| it.total);
        total.saturating_sub(input.len())
    }

    fn accept(&mut self, frame: Frame, checked: usize) -> Result<Option<Incoming>, Failure> {
        let (fin, compressed) = (frame.header.fin, frame.header.rsv1);
        let data = frame.payload;
        match frame.header.opcode {
            OpCode::Ping => Ok(Some(Incoming::Ping(data))),
            OpCode::Pong => Ok(Some(Incoming::Pong)),
            OpCode::Close => close(&data).map(|close| Some(Incoming::Close(close))),
            OpCode::Continuation => self.go_on(&data, fin, checked),
            opcode => {
                if self.assembly.is_some() {
                    return Err(protocol("a message began within another"));
                }
                if !fin {
                    return self.begin(opcode, compressed, &data, checked);
                }
                let data = if compressed {
                    self.inflate(&data)?
                } else {
                    data
                };
                let fine = opcode != OpCode::Text
                    || if checked == 0 {
                        validate_utf8(&data)
                    } else {
                        self.utf8.push(&data[checked..]) && self.utf8.finish()
                    };
                if !fine {
                    return Err(NOT_UTF8);
                }
                Ok(Some(Incoming::Data(message(opcode, data))))
            }
        }
    }

    fn begin(
        &mut self,
        opcode: OpCode,
        compressed: bool,
        data: &Bytes,
        checked: usize,
    ) -> Result<Option<Incoming>, Failure> {
        if opcode == OpCode::Text && !compressed {
            if checked == 0 {
                self.utf8.reset();
            }
            if !self.utf8.push(&data[checked..]) {
                return Err(NOT_UTF8);
            }
        }
        self.assembly = Some(Assembly {
            opcode,
            compressed,
            data: BytesMut::from(&data[..]),
        });
        Ok(None)
    }

    fn go_on(
        &mut self,
        data: &Bytes,
        fin: bool,
        checked: usize,
    ) -> Result<Option<Incoming>, Failure> {
        let Some(assembly) = &mut self.assembly else {
            return Err(protocol("a continuation of nothing"));
        };
        if assembly.data.len() + data.len() > self.max_size {
            return Err(TOO_BIG);
        }
        let text = assembly.opcode == OpCode::Text;
        if text && !assembly.compressed && !self.utf8.push(&data[checked..]) {
            return Err(NOT_UTF8);
        }
        assembly.data.extend_from_slice(data);
        if !fin {
            return Ok(None);
        }
        let Some(whole) = self.assembly.take() else {
            return Ok(None);
        };
        let mut data = whole.data.freeze();
        let fine = if whole.compressed {
            data = self.inflate(&data)?;
            !text || validate_utf8(&data)
        } else {
            !text || self.utf8.finish()
        };
        if !fine {
            return Err(NOT_UTF8);
        }
        Ok(Some(Incoming::Data(message(whole.opcode, data))))
    }

    /// What can be said of a frame that is not complete: that it will be too large, or that its text
    /// is wrong already.
    fn look_ahead(&mut self, input: &BytesMut) -> Result<(), Failure> {
        let Some(pending) = self.parser.pending_payload() else {
            return Ok(());
        };
        let (text, compressed, before) = match (pending.opcode, &self.assembly) {
            (OpCode::Continuation, Some(it)) => {
                (it.opcode == OpCode::Text, it.compressed, it.data.len())
            }
            (opcode, None) => (opcode == OpCode::Text, pending.rsv1, 0),
            // A control frame, or a fault that is found when the frame is complete.
            (_, Some(_)) => return Ok(()),
        };
        if before + pending.total > self.max_size {
            return Err(TOO_BIG);
        }
        let ready = pending.ready.min(input.len());
        if !text || compressed || ready <= self.checked {
            return Ok(());
        }
        if self.checked == 0 && self.assembly.is_none() {
            self.utf8.reset();
        }
        if !self.utf8.push(&input[self.checked..ready]) {
            return Err(NOT_UTF8);
        }
        self.checked = ready;
        Ok(())
    }

    fn inflate(&mut self, data: &Bytes) -> Result<Bytes, Failure> {
        let Some(agreed) = &self.deflate else {
            return Err(protocol("compressed without an agreement"));
        };
        let inflater = self.inflater.get_or_insert_with(|| {
            DeflateDecoder::new(
                agreed.client_max_window_bits,
                agreed.client_no_context_takeover,
            )
        });
        Ok(inflater.decompress(data, self.max_size)?)
    }
}

fn message(opcode: OpCode, data: Bytes) -> Message {
    if opcode == OpCode::Text {
        Message::Text(data)
    } else {
        Message::Binary(data)
    }
}

/// A close frame's payload (RFC 6455, 5.5.1 and 7.4).
fn close(data: &Bytes) -> Result<Option<Close>, Failure> {
    let [high, low, reason @ ..] = &data[..] else {
        return if data.is_empty() {
            Ok(None)
        } else {
            Err(protocol("a close frame with half a code"))
        };
    };
    let code = u16::from_be_bytes([*high, *low]);
    if !CloseReason::is_valid_code(code) {
        return Err(protocol("a close code that is not to be sent"));
    }
    match std::str::from_utf8(reason) {
        Ok(reason) => Ok(Some(Close::new(code, reason))),
        Err(_) => Err(NOT_UTF8),
    }
}

/// Encoded frames that are not written yet, in order: `segments`, then `tail`.
#[derive(Default)]
pub(super) struct Output {
    segments: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl Output {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Has `write` take what it will of the next bytes; `None` if there are none.
    pub(super) fn next_slices<R>(&mut self, write: impl FnOnce(&[IoSlice<'_>]) -> R) -> R {
        if self.segments.is_empty() {
            return write(&[IoSlice::new(&self.tail)]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let all = self.segments.iter().map(|segment| &segment[..]);
        let mut count = 0;
        for (slot, bytes) in slices.iter_mut().zip(all.chain([&self.tail[..]])) {
            *slot = IoSlice::new(bytes);
            count += 1;
        }
        write(&slices[..count])
    }

    pub(super) fn written(&mut self, mut n: usize) {
        self.len -= n;
        while n > 0 {
            let Some(first) = self.segments.front_mut() else {
                self.tail.advance(n);
                return;
            };
            if n < first.len() {
                first.advance(n);
                return;
            }
            n -= first.len();
            self.segments.pop_front();
        }
    }

    fn append(&mut self, opcode: OpCode, data: Bytes, compressed: bool) {
        if data.len() < COPY {
            let before = self.tail.len();
            encode_frame_with_rsv(&mut self.tail, opcode, &data, true, None, compressed);
            self.len += self.tail.len() - before;
            return;
        }
        let before = self.tail.len();
        encode_frame_header_with_rsv(&mut self.tail, opcode, data.len(), true, None, compressed);
        self.len += self.tail.len() - before + data.len();
        self.segments.push_back(self.tail.split().freeze());
        self.segments.push_back(data);
    }

    fn control(&mut self, opcode: OpCode, data: &[u8]) {
        let before = self.tail.len();
        encode_frame(&mut self.tail, opcode, data, true, None);
        self.len += self.tail.len() - before;
    }
}

#[derive(Default)]
pub(super) struct Encoder {
    deflate: Option<DeflateConfig>,
    deflater: Option<DeflateEncoder>,
}

impl Encoder {
    pub(super) fn new(deflate: Option<DeflateConfig>) -> Self {
        Encoder {
            deflate,
            deflater: None,
        }
    }

    /// Fails if the compressor does, which leaves it in no state to go on in.
    pub(super) fn message(&mut self, message: Message, out: &mut Output) -> Result<(), Failure> {
        let (opcode, data) = match message {
            Message::Text(data) => (OpCode::Text, data),
            Message::Binary(data) => (OpCode::Binary, data),
        };
        if let Some(agreed) = &self.deflate {
            let deflater = self.deflater.get_or_insert_with(|| {
                DeflateEncoder::new(
                    agreed.server_max_window_bits,
                    agreed.server_no_context_takeover,
                    agreed.compression_level,
                    agreed.compression_threshold,
                )
            });
            let failed = Failure {
                code: Close::INTERNAL,
                reason: "data cannot be compressed",
            };
            if let Some(small) = deflater.compress(&data).map_err(|_| failed)? {
                out.append(opcode, small, true);
                return Ok(());
            }
        }
        out.append(opcode, data, false);
        Ok(())
    }

    pub(super) fn ping(out: &mut Output, data: &[u8]) {
        out.control(OpCode::Ping, data);
    }

    pub(super) fn pong(out: &mut Output, data: &[u8]) {
        out.control(OpCode::Pong, data);
    }

    /// A close frame; without a code if the peer's had none. A reason is cut to what fits.
    pub(super) fn close(out: &mut Output, close: Option<&Close>) {
        let Some(close) = close else {
            out.control(OpCode::Close, &[]);
            return;
        };
        let mut data = [0; 125];
        let mut end = close.reason.len().min(data.len() - 2);
        while !close.reason.is_char_boundary(end) {
            end -= 1;
        }
        data[..2].copy_from_slice(&close.code.to_be_bytes());
        data[2..end + 2].copy_from_slice(&close.reason.as_bytes()[..end]);
        out.control(OpCode::Close, &data[..end + 2]);
    }
}
