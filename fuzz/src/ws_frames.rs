//! Frames to messages. In pieces they come to the same as whole; without compression, to what RFC 6455
//! says, written down plainly; and what our own side has written is read again as it was.

use bytes::Bytes;
use rondel_http::fuzzing::{Came, Frames, Writer};
use rondel_http::ws::Message;

use crate::text::{Dice, pieces};

/// Bytes of a message at most.
const MOST: usize = 1000;

pub fn check(data: &[u8]) {
    let mut dice = Dice(data);
    let kind = dice.byte();
    let seed = u32::from_be_bytes(dice.array());
    let deflate = match kind & 12 {
        0 | 4 => None,
        8 => Some(false),
        _ => Some(true),
    };
    match kind & 3 {
        0 => read(dice.0, seed, deflate),
        3 => again(dice, seed, deflate),
        _ => read(&framed(dice), seed, deflate),
    }
}

fn read(data: &[u8], seed: u32, deflate: Option<bool>) {
    let mut whole = Vec::new();
    Frames::new(MOST, deflate).feed(data, &mut whole);
    let (mut frames, mut parts) = (Frames::new(MOST, deflate), Vec::new());
    for piece in pieces(data, seed) {
        frames.feed(piece, &mut parts);
    }
    assert_eq!(whole, parts, "{data:?}");
    for came in &whole {
        match came {
            Came::Text(data) => assert!(data.len() <= MOST && std::str::from_utf8(data).is_ok()),
            Came::Binary(data) => assert!(data.len() <= MOST),
            Came::Ping(data) => assert!(data.len() <= 125),
            Came::Close(Some((code, reason))) => {
                assert!(may_be_sent(*code), "{code}");
                assert!(reason.len() <= 123);
            }
            Came::Failed(code) => assert!(matches!(code, 1002 | 1007 | 1009), "{code}"),
            Came::Pong | Came::Close(None) => {}
        }
    }
    if deflate.is_none() {
        let (model, fails) = model(data);
        match (fails, whole.split_last()) {
            (Fails::With(codes) | Fails::Soon(codes), Some((Came::Failed(code), before))) => {
                assert_eq!(before, model, "{data:?}");
                assert!(
                    codes.contains(code),
                    "{code}, not one of {codes:?}: {data:?}"
                );
            }
            (Fails::With(codes), _) => panic!("not one of {codes:?}, but {whole:?}: {data:?}"),
            (Fails::Soon(_) | Fails::Not, _) => assert_eq!(whole, model, "{data:?}"),
        }
    }
}

fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Whether the connection has to be failed, and with one of which codes.
enum Fails {
    Not,
    With(Vec<u16>),
    /// Now or when the frame has come whole.
    Soon(Vec<u16>),
}

/// What came, and what is wrong then.
fn model(data: &[u8]) -> (Vec<Came>, Fails) {
    let mut came = Vec::new();
    let mut message: Option<(bool, Vec<u8>)> = None;
    let mut rest = data;
    loop {
        let [first, second, behind @ ..] = rest else {
            return (came, Fails::Not);
        };
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        let control = opcode & 8 != 0;
        let short = usize::from(second & 0x7f);
        let mut codes = Vec::new();
        if wrong_start(*first).is_some() || second & 0x80 == 0 || (control && short > 125) {
            codes.push(1002);
        }
        if codes.is_empty() {
            match (opcode, &message) {
                (0, None) | (1 | 2, Some(_)) => codes.push(1002),
                _ => {}
            }
        }
        let fields = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if behind.len() < fields {
            return (came, late(codes));
        }
        let (field, behind) = behind.split_at(fields);
        let length = match fields {
            0 => short as u64,
            _ => field
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        if length >> 63 == 1 || (fields == 2 && length < 126) || (fields == 8 && length < 65536) {
            codes.push(1002);
        }
        let before = message.as_ref().map_or(0, |(_, data)| data.len() as u64);
        if !control && length.saturating_add(before) > MOST as u64 {
            codes.push(1009);
        }
        let masked = behind.len() >= 4 && (behind.len() - 4) as u64 >= length;
        if !masked {
            let text = opcode == 1 || message.as_ref().is_some_and(|(text, _)| *text);
            if text && !control && behind.len() > 4 {
                let sofar = unmasked(&behind[..4], &behind[4..]);
                let all = match (&message, opcode) {
                    (Some((_, data)), 0) => [&data[..], &sofar].concat(),
                    _ => sofar,
                };
                if !begins_text(&all) {
                    codes.push(1007);
                }
            }
            return (came, late(codes));
        }
        let (mask, behind) = behind.split_at(4);
        let (payload, behind) = behind.split_at(usize::try_from(length).expect("it is there"));
        let payload = unmasked(mask, payload);
        rest = behind;
        match opcode {
            8 => {
                let close = match &payload[..] {
                    [] => Ok(None),
                    [_] => Err(1002),
                    [high, low, reason @ ..] => {
                        let code = u16::from_be_bytes([*high, *low]);
                        match std::str::from_utf8(reason) {
                            _ if !may_be_sent(code) => Err(1002),
                            Ok(reason) => Ok(Some((code, reason.to_owned()))),
                            Err(_) => Err(1007),
                        }
                    }
                };
                match (close, codes.is_empty()) {
                    (Ok(close), true) => {
                        came.push(Came::Close(close));
                        return (came, Fails::Not);
                    }
                    (close, _) => codes.extend(close.err()),
                }
            }
            9 if codes.is_empty() => came.push(Came::Ping(payload.into())),
            10 if codes.is_empty() => came.push(Came::Pong),
            0..=2 => {
                let (text, mut data) = match (opcode, message.take()) {
                    (0, Some(it)) => it,
                    (opcode, _) => (opcode == 1, Vec::new()),
                };
                data.extend(payload);
                let whole = std::str::from_utf8(&data).is_ok();
                if text && !(whole || (!fin && begins_text(&data))) {
                    codes.push(1007);
                }
                match (fin, text) {
                    _ if !codes.is_empty() => {}
                    (false, _) => message = Some((text, data)),
                    (true, true) => came.push(Came::Text(data.into())),
                    (true, false) => came.push(Came::Binary(data.into())),
                }
            }
            _ => {}
        }
        if !codes.is_empty() {
            return (came, Fails::With(codes));
        }
    }
}

/// Of a frame that has not come whole it is told at once that it is too large, or that its text is wrong.
fn late(codes: Vec<u16>) -> Fails {
    match codes.is_empty() || codes.contains(&1002) {
        true => Fails::Soon(codes),
        false => Fails::With(codes),
    }
}

fn wrong_start(first: u8) -> Option<u16> {
    let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
    let reserved = first & 0x70 != 0 || matches!(opcode, 3..=7 | 11..);
    (reserved || (opcode & 8 != 0 && !fin)).then_some(1002)
}

fn begins_text(data: &[u8]) -> bool {
    std::str::from_utf8(data).map_or_else(|error| error.error_len().is_none(), |_| true)
}

fn unmasked(mask: &[u8], payload: &[u8]) -> Vec<u8> {
    let mask = mask.iter().cycle();
    payload
        .iter()
        .zip(mask)
        .map(|(byte, mask)| byte ^ mask)
        .collect()
}

fn frame(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        n @ ..126 => frame.push(0x80 | n as u8),
        n @ ..65536 => {
            frame.push(0x80 | 126);
            frame.extend((n as u16).to_be_bytes());
        }
        n => {
            frame.push(0x80 | 127);
            frame.extend((n as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(unmasked(&mask, payload));
    frame
}

/// Frames whose heads are right, of what the input says: a first byte, a length, the payload.
fn framed(mut dice: Dice<'_>) -> Vec<u8> {
    let mut all = Vec::new();
    while !dice.0.is_empty() {
        let (first, length) = (dice.byte(), usize::from(dice.byte()));
        let (payload, rest) = dice.0.split_at(length.min(dice.0.len()));
        dice.0 = rest;
        all.extend(frame(first, [1, 2, 3, first], payload));
    }
    all
}

/// Messages through our writing side, masked as a client would, and through our reading side.
fn again(mut dice: Dice<'_>, seed: u32, deflate: Option<bool>) {
    let (mut writer, mut frames) = (Writer::new(deflate), Frames::new(1 << 20, deflate));
    let (mut sent, mut came) = (Vec::new(), Vec::new());
    while !dice.0.is_empty() && sent.len() < 16 {
        let (kind, length) = (dice.byte(), usize::from(dice.byte()));
        let (data, rest) = dice.0.split_at(length.min(dice.0.len()));
        dice.0 = rest;
        let data = data.repeat(1 + usize::from(kind >> 4) * usize::from(kind >> 4));
        let data = Bytes::from(data);
        let message = match std::str::from_utf8(&data) {
            Ok(_) if kind & 1 == 1 => Message::Text(data.clone()),
            _ => Message::Binary(data.clone()),
        };
        sent.push(match message {
            Message::Text(_) => Came::Text(data),
            Message::Binary(_) => Came::Binary(data),
        });
        let step = if kind & 2 == 2 {
            usize::MAX
        } else {
            1 + seed as usize % 5000
        };
        let ours = writer.message(message, step);
        let (head, payload) = match ours[1] {
            126 => ours.split_at(4),
            127 => ours.split_at(10),
            _ => ours.split_at(2),
        };
        assert_eq!(head[1] & 0x80, 0, "a server does not mask");
        let theirs = frame(head[0], seed.to_be_bytes(), payload);
        for piece in pieces(&theirs, seed.wrapping_add(sent.len() as u32)) {
            frames.feed(piece, &mut came);
        }
        assert_eq!(frames.missing(), 0);
    }
    assert_eq!(came, sent);
}
