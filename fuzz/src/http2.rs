//! A connection of HTTP/2, by prior knowledge: whatever comes behind the preface, the server comes to
//! rest, sends frames, and has nothing left of it afterwards. The frame heads may be made right, so that
//! what is in them is reached.

use crate::connection::with;
use crate::text::{Dice, pieces};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

pub fn check(data: &[u8]) {
    let mut dice = Dice(data);
    let kind = dice.byte();
    let seed = u32::from_be_bytes(dice.array());
    let mut bytes = PREFACE.to_vec();
    match kind % 4 {
        0 => bytes.extend_from_slice(dice.0),
        1 => {
            bytes.extend_from_slice(SETTINGS);
            bytes.extend_from_slice(dice.0);
        }
        _ => {
            bytes.extend_from_slice(SETTINGS);
            bytes.extend(framed(&mut dice));
        }
    }
    let seen = with(|host| match kind & 16 {
        0 => host.connection(&[&bytes]),
        _ => host.connection(&pieces(&bytes, seed)),
    });
    frames(&seen.output);
    for call in &seen.calls {
        assert!(call.body.len() <= 3000);
        assert!(call.head.headers.len() <= 100);
    }
}

/// Frames of what the input says: a type, flags, a stream, a length, the payload.
fn framed(dice: &mut Dice<'_>) -> Vec<u8> {
    let mut all = Vec::new();
    while !dice.0.is_empty() {
        let (kind, flags, stream) = (dice.byte() % 12, dice.byte(), dice.byte());
        let length = usize::from(dice.byte());
        let (payload, rest) = dice.0.split_at(length.min(dice.0.len()));
        dice.0 = rest;
        all.extend([0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream % 16]);
        all.extend_from_slice(payload);
    }
    all
}

/// What the server sends are whole frames of known types, none larger than it may be.
fn frames(mut output: &[u8]) {
    while !output.is_empty() {
        assert!(output.len() >= 9, "a frame's head: {output:?}");
        let length = u32::from_be_bytes([0, output[0], output[1], output[2]]) as usize;
        assert!(length <= 16 * 1024, "{length} bytes in a frame");
        assert!(output[3] <= 9, "type {}", output[3]);
        assert!(output.len() >= 9 + length, "half a frame");
        output = &output[9 + length..];
    }
}
