//! The response in a content coding: whether it gets one, and its parts on their way into it. The
//! rules are [`crate::compress`]'s.

use std::io;

use super::{Stage, State};
use crate::compress::{self, Coding, Encoder};
use crate::file::Piece;

/// Of compression: what the client accepts of what the server has, if anything.
pub(super) struct Offer(pub(super) Option<Coding>);

impl State {
    /// Settles whether the response is compressed, once its first part is there.
    pub(super) fn settle_coding(&mut self, first: &Piece, more: bool, least: usize) {
        let (Some(Offer(coding)), Stage::Head(status, _, headers)) =
            (self.coding.take(), &mut self.stage)
        else {
            return;
        };
        // Files go out as they lie; they have compressed copies if somebody cares.
        if !compress::suits(*status, headers) || matches!(first, Piece::File(_)) {
            return;
        }
        compress::vary(headers);
        let tiny = !more && first.len() < least as u64;
        let Some(coding) = coding.filter(|_| !tiny) else {
            return;
        };
        if self.bodyless {
            // What GET would say, but for the length, which nobody knows.
            compress::announce(headers, coding);
            self.coded = true;
        } else if let Ok(encoder) = Encoder::new(coding) {
            compress::announce(headers, coding);
            (self.encoder, self.coded) = (Some(encoder), true);
        }
    }

    /// A part of the body in the response's coding.
    pub(super) fn encode(&mut self, data: Piece, more: bool) -> io::Result<Piece> {
        let Some(mut encoder) = self.encoder.take() else {
            return Ok(data);
        };
        let data = data.into_bytes()?;
        let coded = if more {
            let coded = encoder.part(&data)?;
            self.encoder = Some(encoder);
            coded
        } else {
            encoder.last(&data)?
        };
        Ok(Piece::Data(coded))
    }
}
