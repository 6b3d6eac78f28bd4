//! From options and files to rustls' configuration.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::ring::digest::{SHA256, digest};
use pkcs8::{EncryptedPrivateKeyInfo, SecretDocument};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer,
};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};

use super::Loaded;
use super::certificates::Certificates;
use super::tickets::{TicketSecret, Tickets};
use crate::service::Versions;

/// A certificate with its chain, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// PEM: the server's certificate, then those that lead to its authority.
    pub certificate: PathBuf,
    /// PEM, PKCS #1, #8 or SEC 1; the certificate's file by default.
    pub key: Option<PathBuf>,
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    None,
    /// They are asked; one that shows none is served, one that shows a bad one is not.
    Optional,
    Required,
}

/// What TLS is configured by.
#[derive(Clone)]
pub struct Options {
    /// At least one; a client that asks for no name, or for none of theirs, gets the first.
    pub identities: Vec<Identity>,
    /// Of the keys that are protected by one.
    pub password: Option<String>,
    pub client_auth: ClientAuth,
    /// PEM: authorities that clients' certificates may come from.
    pub authorities: Option<PathBuf>,
    /// PEM: revocation lists of those authorities.
    pub revoked: Option<PathBuf>,
    /// No TLS 1.2.
    pub only_13: bool,
    /// What session tickets are made with; `None`: something of this process's own.
    pub tickets: Option<TicketSecret>,
    /// What is offered by ALPN.
    pub versions: Versions,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the password.
        f.debug_struct("Options")
            .field("identities", &self.identities)
            .field("client_auth", &self.client_auth)
            .finish_non_exhaustive()
    }
}

/// Why TLS cannot be set up.
#[derive(Debug)]
pub enum TlsError {
    NoIdentity,
    Read(PathBuf, io::Error),
    /// No PEM, or none of the kind that was expected.
    Malformed(PathBuf, &'static str),
    /// It is protected by a password, and none was given.
    Encrypted(PathBuf),
    /// The password is another's, or the protection is not known (PBES2 is).
    Locked(PathBuf, String),
    /// The certificate and its key do not go together, or are not usable.
    Unusable(PathBuf, rustls::Error),
    /// Clients' certificates were asked for without authorities.
    NoAuthorities,
    Authorities(PathBuf, String),
    Config(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::NoIdentity => f.write_str("TLS needs a certificate"),
            TlsError::Read(path, error) => {
                write!(f, "{} cannot be read: {error}", path.display())
            }
            TlsError::Malformed(path, what) => write!(f, "{} has no {what}", path.display()),
            TlsError::Encrypted(path) => write!(
                f,
                "the key in {} is protected by a password",
                path.display()
            ),
            TlsError::Locked(path, error) => write!(
                f,
                "the key in {} cannot be unlocked by the password: {error}",
                path.display()
            ),
            TlsError::Unusable(path, error) => {
                write!(f, "the certificate in {} cannot be used: ", path.display())?;
                match error {
                    rustls::Error::InconsistentKeys(_) => f.write_str("the key is another's"),
                    error => error.fmt(f),
                }
            }
            TlsError::NoAuthorities => f.write_str(
                "clients' certificates are checked against authorities, and none were given",
            ),
            TlsError::Authorities(path, error) => {
                write!(
                    f,
                    "the authorities in {} cannot be used: {error}",
                    path.display()
                )
            }
            TlsError::Config(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TlsError {}

const ENCRYPTED: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
const ENCRYPTED_END: &str = "-----END ENCRYPTED PRIVATE KEY-----";

pub(super) fn load(options: &Options) -> Result<Loaded, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let mut keys = Vec::new();
    for identity in &options.identities {
        let chain = certificates(&identity.certificate)?;
        let key = key(
            identity.key.as_ref().unwrap_or(&identity.certificate),
            options.password.as_deref(),
        )?;
        let both = CertifiedKey::from_der(chain, key, &provider)
            .map_err(|e| TlsError::Unusable(identity.certificate.clone(), e))?;
        keys.push(Arc::new(both));
    }
    let certificates = Arc::new(Certificates::new(keys).ok_or(TlsError::NoIdentity)?);
    let versions = if options.only_13 {
        &[&TLS13][..]
    } else {
        &[&TLS13, &TLS12]
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(TlsError::Config)?;
    let mut bound_to = vec![options.client_auth as u8];
    if let (Some(path), true) = (
        &options.authorities,
        options.client_auth != ClientAuth::None,
    ) {
        bound_to.extend(digest(&SHA256, &read(path)?).as_ref());
    }
    let builder = match verifier(options, &provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::clone(&certificates) as _);
    config.alpn_protocols = match options.versions {
        Versions::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Versions::One => vec![b"http/1.1".to_vec()],
        Versions::Two => vec![b"h2".to_vec()],
    };
    if let Some(secret) = options.tickets.clone() {
        config.ticketer = Arc::new(Tickets::new(secret, bound_to));
    }
    Ok(Loaded {
        config: Arc::new(config),
        certificates,
    })
}

fn verifier(
    options: &Options,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    if options.client_auth == ClientAuth::None {
        return Ok(None);
    }
    let path = options
        .authorities
        .as_ref()
        .ok_or(TlsError::NoAuthorities)?;
    let unusable = |error: String| TlsError::Authorities(path.clone(), error);
    let mut roots = RootCertStore::empty();
    for authority in certificates(path)? {
        roots.add(authority).map_err(|e| unusable(e.to_string()))?;
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if let Some(path) = &options.revoked {
        let lists: Vec<CertificateRevocationListDer<'static>> = items(path, "revocation list")?;
        builder = builder.with_crls(lists);
    }
    if options.client_auth == ClientAuth::Optional {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder.build().map_err(|e| unusable(e.to_string()))?;
    Ok(Some(verifier))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    items(path, "certificate")
}

fn items<T: PemObject>(path: &Path, what: &'static str) -> Result<Vec<T>, TlsError> {
    let text = read(path)?;
    let all: Result<Vec<_>, _> = T::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(TlsError::Malformed(path.to_owned(), what)),
    }
}

fn key(path: &Path, password: Option<&str>) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    if let Ok(key) = PrivateKeyDer::from_pem_slice(&text) {
        return Ok(key);
    }
    let has = |mark: &[u8]| text.windows(mark.len()).any(|part| part == mark);
    let known = has(ENCRYPTED);
    if !known && !has(b"Proc-Type: 4,ENCRYPTED") {
        return Err(TlsError::Malformed(path.to_owned(), "private key"));
    }
    let Some(password) = password else {
        return Err(TlsError::Encrypted(path.to_owned()));
    };
    let locked = |error: String| TlsError::Locked(path.to_owned(), error);
    if !known {
        let advice = "its format is OpenSSL's old one; `openssl pkcs8 -topk8` makes a newer one";
        return Err(locked(advice.to_owned()));
    }
    unlock(&text, password).map_err(|error| locked(error.to_string()))
}

/// PKCS #8 by PBES2, as OpenSSL writes it.
fn unlock(text: &[u8], password: &str) -> Result<PrivateKeyDer<'static>, pkcs8::Error> {
    // From its own line on: certificates may be in the same file.
    let at = text
        .windows(ENCRYPTED.len())
        .position(|part| part == ENCRYPTED);
    let own = String::from_utf8_lossy(&text[at.unwrap_or(0)..]);
    let end = own
        .find(ENCRYPTED_END)
        .map_or(own.len(), |at| at + ENCRYPTED_END.len());
    let (_label, document) = SecretDocument::from_pem(&own[..end])?;
    let locked = EncryptedPrivateKeyInfo::try_from(document.as_bytes())?;
    let key = locked.decrypt(password)?;
    let key = PrivatePkcs8KeyDer::from(key.as_bytes().to_vec());
    Ok(PrivateKeyDer::Pkcs8(key))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::Read(path.to_owned(), error))
}
