//! TLS by rustls, between a connection's socket and hyper.
//!
//! ```text
//!   Options (files) ──load──► Loaded: rustls' configuration, certificates ──► Tls (swapped as a whole)
//!                                                                              │ per connection
//!   socket ◄── records ── stream::TlsStream { rustls connection, Stream } ◄────┘
//! ```
//!
//! A server has one [`Tls`]. [`Tls::reload`] reads the files again; connections that are open keep what
//! they have. What cannot be loaded changes nothing: a certificate and its key are two files, and
//! between their renewals they do not fit each other.
//!
//! | module | holds |
//! |---|---|
//! | `config` | options, the files, rustls' configuration |
//! | `certificates` | which certificate a client gets |
//! | `tickets` | session tickets that several processes understand |
//! | `stream` | a connection's records: handshake, reading, writing, the end |
//!
//! The crypto is *ring*'s: it builds with a C compiler and nothing else.

mod certificates;
mod config;
pub(crate) mod stream;
mod tickets;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;

use x509_cert::der::Decode as _;

use certificates::Certificates;
pub use config::{ClientAuth, Identity, Options, TlsError};
pub use tickets::TicketSecret;

/// What was loaded together.
struct Loaded {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
}

struct Inner {
    options: Options,
    loaded: Mutex<Arc<Loaded>>,
}

/// A server's TLS: its options, and what was last loaded by them. Clones are the same.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

impl Tls {
    /// Loads the certificates, keys and authorities that the options name.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(mut options: Options) -> Result<Tls, TlsError> {
        if options.tickets.is_none() {
            // Kept, so that tickets outlive a reload.
            options.tickets = TicketSecret::random();
        }
        let loaded = Mutex::new(Arc::new(config::load(&options)?));
        Ok(Tls(Arc::new(Inner { options, loaded })))
    }

    /// Reads the files again, for connections that are accepted from now on.
    ///
    /// # Errors
    /// See [`TlsError`]; what was loaded before stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = Arc::new(config::load(&self.0.options)?);
        let mut loaded = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        *loaded = fresh;
        Ok(())
    }

    fn current(&self) -> Arc<Loaded> {
        let loaded = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&loaded)
    }

    /// A connection's half of it.
    pub(crate) fn accept(&self) -> io::Result<(rustls::ServerConnection, Arc<dyn Presented>)> {
        let loaded = self.current();
        let connection =
            rustls::ServerConnection::new(Arc::clone(&loaded.config)).map_err(io::Error::other)?;
        Ok((connection, loaded))
    }
}

/// Tells which certificate a client was shown.
pub(crate) trait Presented {
    /// The one chosen since the last call: ask right after the handshake was moved on.
    fn take_chosen(&self) -> Option<CertificateDer<'static>>;
}

impl Presented for Loaded {
    fn take_chosen(&self) -> Option<CertificateDer<'static>> {
        self.certificates.take_chosen()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.0.options).finish()
    }
}

/// What a handshake came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsInfo {
    /// As the protocol has it: 0x0303 is TLS 1.2, 0x0304 is TLS 1.3.
    pub version: u16,
    /// By IANA's number.
    pub cipher_suite: u16,
    /// By ALPN; without, the client decides by what it sends.
    pub agreed_on_1: bool,
    /// The name that the client asked for.
    pub server_name: Option<String>,
    /// Ours; `None` if the session was resumed, for which no certificate is shown.
    pub certificate: Option<CertificateDer<'static>>,
    /// The client's, its own first; empty if it has shown none.
    pub client_chain: Vec<CertificateDer<'static>>,
}

impl TlsInfo {
    /// Whom the client's certificate is for (RFC 4514), if it has shown one.
    #[must_use]
    pub fn client_name(&self) -> Option<String> {
        let own = self.client_chain.first()?;
        let parsed = x509_cert::Certificate::from_der(own).ok()?;
        Some(parsed.tbs_certificate.subject.to_string())
    }
}
