//! Which certificate a client gets: the first that is valid for the name it asks for and whose key
//! makes signatures that it understands, else the first that it understands.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// No certificate's index.
const NONE: usize = usize::MAX;

pub(super) struct Certificates {
    /// In the order in which they were given; at least one.
    keys: Vec<Arc<CertifiedKey>>,
    /// The last one chosen. Handshakes are moved on one at a time, on the loop's thread.
    chosen: AtomicUsize,
}

impl Certificates {
    /// `None` if there are none.
    pub(super) fn new(keys: Vec<Arc<CertifiedKey>>) -> Option<Self> {
        let chosen = AtomicUsize::new(NONE);
        (!keys.is_empty()).then_some(Certificates { keys, chosen })
    }

    pub(super) fn take_chosen(&self) -> Option<CertificateDer<'static>> {
        let index = self.chosen.swap(NONE, Ordering::Relaxed);
        self.keys.get(index)?.cert.first().cloned()
    }

    fn choose(&self, hello: &ClientHello<'_>) -> Option<usize> {
        let schemes = hello.signature_schemes();
        let understood = |key: &CertifiedKey| key.key.choose_scheme(schemes).is_some();
        let name = match self.keys.len() {
            1 => None,
            _ => hello
                .server_name()
                .and_then(|name| ServerName::try_from(name).ok()),
        };
        let named = name.and_then(|name| {
            let fits = |key: &CertifiedKey| understood(key) && is_valid_for(key, &name);
            self.keys.iter().position(|key| fits(key))
        });
        named.or_else(|| self.keys.iter().position(|key| understood(key)))
    }
}

fn is_valid_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let Some(own) = key.cert.first() else {
        return false;
    };
    webpki::EndEntityCert::try_from(own)
        .is_ok_and(|cert| cert.verify_is_valid_for_subject_name(name).is_ok())
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let index = self.choose(&hello)?;
        self.chosen.store(index, Ordering::Relaxed);
        self.keys.get(index).cloned()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("count", &self.keys.len())
            .finish_non_exhaustive()
    }
}
