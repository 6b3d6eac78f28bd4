//! Request ids: taken from the client (a proxy, mostly) if they are sane, made otherwise.
//!
//! An id ends up in headers, logs and other people's systems. So one of the client's is taken only
//! if it is short and of characters that need quoting nowhere; a made one is 128 random bits in
//! hexadecimal, which are asked of the system for many ids at once. No GIL; one thread at a time.

use rondel_http::http::header::{HeaderMap, HeaderName, HeaderValue};
use std::cell::RefCell;
use std::io;

/// Characters of an id, at most.
const LONGEST: usize = 128;
/// Bytes of a made id, and of the supply.
const BYTES: usize = 16;
const SUPPLY: usize = 64 * BYTES;

pub(super) struct Ids {
    name: HeaderName,
    supply: RefCell<Supply>,
}

struct Supply {
    bytes: [u8; SUPPLY],
    used: usize,
}

impl Ids {
    /// Ids in headers of this name. Fails if the system has no random numbers.
    pub(super) fn new(name: HeaderName) -> io::Result<Ids> {
        let mut bytes = [0; SUPPLY];
        fill(&mut bytes)?;
        Ok(Ids {
            name,
            supply: RefCell::new(Supply { bytes, used: 0 }),
        })
    }

    pub(super) fn name(&self) -> &HeaderName {
        &self.name
    }

    /// The id of the request with these headers.
    pub(super) fn of(&self, headers: &HeaderMap) -> HeaderValue {
        let mut given = headers.get_all(&self.name).iter();
        match (given.next(), given.next()) {
            (Some(id), None) if is_sane(id.as_bytes()) => {
                // Not a slice of the connection's read buffer, which would have to stay.
                HeaderValue::from_bytes(id.as_bytes()).unwrap_or_else(|_| self.make())
            }
            _ => self.make(),
        }
    }

    fn make(&self) -> HeaderValue {
        let mut supply = self.supply.borrow_mut();
        if supply.used == SUPPLY {
            supply.used = 0;
            // What worked at the start works later. Should it not, ids come again.
            let _kept = fill(&mut supply.bytes);
        }
        let at = supply.used;
        supply.used += BYTES;
        let mut text = [0; 2 * BYTES];
        for (i, byte) in supply.bytes[at..at + BYTES].iter().enumerate() {
            text[2 * i] = b"0123456789abcdef"[usize::from(byte >> 4)];
            text[2 * i + 1] = b"0123456789abcdef"[usize::from(byte & 15)];
        }
        HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("0"))
    }
}

fn fill(mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => bytes = &mut bytes[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn is_sane(id: &[u8]) -> bool {
    let safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~+/=:@".contains(byte);
    (1..=LONGEST).contains(&id.len()) && id.iter().all(safe)
}
