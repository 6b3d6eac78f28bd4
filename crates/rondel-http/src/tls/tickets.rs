//! Session tickets that all processes of a server understand.
//!
//! A client that comes again shows its ticket, to whichever worker accepts it. rustls' own ticketer has
//! a key by chance per process, so that of four workers three would not know it. Here keys come from a
//! secret that the supervisor gives to all:
//!
//! ```text
//!   secret of a period ──HMAC──► secret of the next one ──► …      never back: old ones are forgotten
//!         └────HMAC────► key of its tickets (AES-256-GCM)
//! ```
//!
//! Tickets of this period and of the one before are understood. The key also depends on what clients'
//! certificates are checked against: with other authorities, nobody comes in by an old ticket.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;

/// Seconds for which a key is used.
const PERIOD: u64 = 6 * 3600;

/// Bytes of a period's number, in front of each ticket.
const NUMBER: usize = 8;

/// What keys come from: a secret and its period.
#[derive(Clone)]
pub struct TicketSecret {
    /// Seconds since 1970, by `PERIOD`.
    pub period: u64,
    pub secret: [u8; 32],
}

impl TicketSecret {
    /// One by chance, of this period; `None` if the system has no randomness.
    #[must_use]
    pub fn random() -> Option<Self> {
        let mut secret = [0; 32];
        SystemRandom::new().fill(&mut secret).ok()?;
        let period = this_period();
        Some(TicketSecret { period, secret })
    }

    fn derived(&self, what: &[u8]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.secret);
        let mut derived = [0; 32];
        derived.copy_from_slice(hmac::sign(&key, what).as_ref());
        derived
    }

    fn next(&self) -> Self {
        TicketSecret {
            period: self.period + 1,
            secret: self.derived(b"rondel next"),
        }
    }
}

fn this_period() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() / PERIOD)
}

/// A period's key.
struct Key {
    period: u64,
    key: LessSafeKey,
}

struct Keys {
    secret: TicketSecret,
    now: Option<Key>,
    before: Option<Key>,
}

pub(super) struct Tickets {
    keys: Mutex<Keys>,
    /// What a client's certificate is checked against.
    bound_to: Vec<u8>,
    random: SystemRandom,
}

impl Tickets {
    pub(super) fn new(secret: TicketSecret, bound_to: Vec<u8>) -> Self {
        let keys = Keys {
            secret,
            now: None,
            before: None,
        };
        Tickets {
            keys: Mutex::new(keys),
            bound_to,
            random: SystemRandom::new(),
        }
    }

    fn key(&self, secret: &TicketSecret) -> Option<Key> {
        let bytes = secret.derived(&[b"rondel ticket", &self.bound_to[..]].concat());
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).ok()?);
        let period = secret.period;
        Some(Key { period, key })
    }

    /// Calls `with` with the key of a period, of this one if none is named.
    fn with<R>(&self, period: Option<u64>, with: impl FnOnce(&Key) -> Option<R>) -> Option<R> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that is set back leaves us where we are.
        let now = this_period().max(keys.secret.period);
        // A clock that was wrong when the secret was made must not have us derive for ever.
        if now - keys.secret.period > 100_000 {
            keys.secret.period = now;
        }
        while keys.now.as_ref().is_none_or(|key| key.period < now) {
            if keys.now.is_some() || keys.secret.period < now {
                let key = self.key(&keys.secret)?;
                keys.before = Some(key);
                keys.secret = keys.secret.next();
            }
            keys.now = Some(self.key(&keys.secret)?);
        }
        let mut known = [&keys.now, &keys.before].into_iter().flatten();
        with(known.find(|key| period.is_none_or(|period| period == key.period))?)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(PERIOD).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        self.with(None, |key| {
            let number = key.period.to_be_bytes();
            let mut sealed = plain.to_vec();
            let unique = Nonce::assume_unique_for_key(nonce);
            (key.key)
                .seal_in_place_append_tag(unique, Aad::from(number), &mut sealed)
                .ok()?;
            Some([&number[..], &nonce[..], &sealed[..]].concat())
        })
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (number, rest) = cipher.split_first_chunk::<NUMBER>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        self.with(Some(u64::from_be_bytes(*number)), |key| {
            let mut opened = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let plain = (key.key)
                .open_in_place(nonce, Aad::from(*number), &mut opened)
                .ok()?;
            Some(plain.to_vec())
        })
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn secret(periods_ago: u64) -> TicketSecret {
        TicketSecret {
            period: this_period() - periods_ago,
            secret: [7; 32],
        }
    }

    #[test]
    fn a_ticket_is_understood_by_whoever_has_the_secret() {
        let ticket = Tickets::new(secret(0), vec![]).encrypt(b"session").unwrap();
        let other = Tickets::new(secret(0), vec![]);
        assert_eq!(other.decrypt(&ticket).unwrap(), b"session");
        assert!(Tickets::new(secret(0), vec![1]).decrypt(&ticket).is_none());
        let random = TicketSecret::random().unwrap();
        assert!(Tickets::new(random, vec![]).decrypt(&ticket).is_none());
    }

    #[test]
    fn an_older_secret_leads_to_this_periods_and_the_one_before() {
        let old = secret(5);
        let fresh = (0..5).fold(old.clone(), |secret, _| secret.next());
        let (old, fresh) = (Tickets::new(old, vec![]), Tickets::new(fresh, vec![]));
        let ticket = old.encrypt(b"session").unwrap();
        assert_eq!(fresh.decrypt(&ticket).unwrap(), b"session");
        let keys = old.keys.lock().unwrap();
        let before = keys.before.as_ref().unwrap();
        assert_eq!(before.period + 1, keys.now.as_ref().unwrap().period);
    }

    #[test]
    fn what_was_changed_is_not_understood() {
        let tickets = Tickets::new(secret(0), vec![]);
        let ticket = tickets.encrypt(b"session").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert!(tickets.decrypt(&changed).is_none(), "byte {at}");
            assert!(tickets.decrypt(&ticket[..at]).is_none());
        }
    }
}
