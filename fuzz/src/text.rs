//! How targets read their input.

use rondel_http::http::header::{HeaderMap, HeaderName, HeaderValue};

/// A header map of lines `name: value`, as far as they are such.
pub fn headers(data: &[u8]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(200) {
        let Some(at) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..at]);
        let value = HeaderValue::from_bytes(line[at + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            map.append(name, value);
        }
    }
    map
}

/// Takes numbers off the front of an input; 0 when there is none left.
pub struct Dice<'a>(pub &'a [u8]);

impl<'a> Dice<'a> {
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }
}

/// Cuts `data` into pieces whose lengths hang on `seed`: small ones and large ones.
pub fn pieces(data: &[u8], seed: u32) -> Vec<&[u8]> {
    let (mut rest, mut seed, mut pieces) = (data, seed | 1, Vec::new());
    while !rest.is_empty() {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let n = match seed >> 30 {
            0 => 1,
            1 => 1 + (seed >> 24) as usize % 4,
            2 => 1 + (seed >> 20) as usize % 40,
            _ => 1 + (seed >> 16) as usize % 400,
        };
        let (piece, behind) = rest.split_at(n.min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}
