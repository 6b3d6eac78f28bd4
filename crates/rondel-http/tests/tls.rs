//! TLS: handshakes, requests over it, deadlines, clients that speak none.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rondel_http::tls::{ClientAuth, Identity, Options, TlsError};
use rondel_http::{Config, Limits, Tls, Versions};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use support::{FLOOD_TOTAL, Host, PATIENCE};

struct Place {
    folder: tempfile::TempDir,
    certificate: CertificateDer<'static>,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let certificate = make(folder.path(), "localhost");
        Place {
            folder,
            certificate,
        }
    }

    fn options(&self) -> Options {
        Options {
            identities: vec![Identity {
                certificate: self.file("c.pem"),
                key: Some(self.file("c.key")),
            }],
            password: None,
            client_auth: ClientAuth::None,
            authorities: None,
            revoked: None,
            only_13: false,
            tickets: None,
            versions: Versions::Auto,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn host(&self, limits: Limits) -> Host {
        Host::with(Config {
            tls: Some(Tls::load(self.options()).unwrap()),
            limits,
            ..Config::default()
        })
    }
}

fn make(folder: &Path, name: &str) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    std::fs::write(folder.join("c.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("c.key"), made.key_pair.serialize_pem()).unwrap();
    made.cert.der().clone()
}

type Client = StreamOwned<ClientConnection, TcpStream>;

fn client(host: &Host, trusted: &CertificateDer<'static>, protocols: &[&[u8]]) -> Client {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    let tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(host.addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(tls, stream)
}

/// Everything until the server has said goodbye; an end without that is an error.
fn rest(client: &mut Client) -> Vec<u8> {
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    all
}

#[test]
fn a_request_and_a_proper_end() {
    let (place, ask) = (
        Place::new(),
        "GET /hello HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
    );
    let host = place.host(Limits::default());
    let mut client = client(&host, &place.certificate, &[b"http/1.1"]);
    client.write_all(ask.as_bytes()).unwrap();
    let all = rest(&mut client);
    assert!(all.starts_with(b"HTTP/1.1 200 OK\r\n") && all.ends_with(b"\r\n\r\nHello, World!"));
    assert_eq!(client.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[test]
fn alpn_chooses_2() {
    let place = Place::new();
    let host = place.host(Limits::default());
    let mut client = client(&host, &place.certificate, &[b"h2", b"http/1.1"]);
    client
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .unwrap();
    let mut head = [0; 9];
    client.read_exact(&mut head).unwrap();
    assert_eq!(head[3], 4, "settings");
    assert_eq!(client.conn.alpn_protocol(), Some(&b"h2"[..]));
}

#[test]
fn a_response_waits_for_a_client_that_does_not_read() {
    let place = Place::new();
    let host = place.host(Limits::default());
    let mut client = client(&host, &place.certificate, &[]);
    client
        .write_all(b"GET /flood HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        .unwrap();
    let full = std::iter::from_fn(|| Some(host.told())).find(|it| it.starts_with("full"));
    assert!(full.is_some());
    let all = rest(&mut client);
    assert!(all.len() > FLOOD_TOTAL);
    assert_eq!(
        all.iter().filter(|byte| **byte == b'f').count() / FLOOD_TOTAL,
        1
    );
    host.expect("flood done");
}

#[test]
fn an_upload_is_read_to_its_end() {
    let place = Place::new();
    let host = place.host(Limits::default());
    let mut client = client(&host, &place.certificate, &[]);
    let size = 3_000_000;
    let head = format!(
        "POST /count HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
    );
    client.write_all(head.as_bytes()).unwrap();
    client.write_all(&vec![b'u'; size]).unwrap();
    assert!(rest(&mut client).ends_with(b"\r\n\r\n3000000"));
}

#[test]
fn what_is_loaded_again_is_for_connections_to_come() {
    let place = Place::new();
    let tls = Tls::load(place.options()).unwrap();
    let host = Host::with(Config {
        tls: Some(tls.clone()),
        ..Config::default()
    });
    let mut before = client(&host, &place.certificate, &[]);
    before
        .write_all(b"GET /hello HTTP/1.1\r\nHost: t\r\n\r\n")
        .unwrap();
    let renewed = make(place.folder.path(), "localhost");
    tls.reload().unwrap();
    let mut after = client(&host, &renewed, &[]);
    for client in [&mut before, &mut after] {
        client
            .write_all(b"GET /hello HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            .unwrap();
        assert!(rest(client).ends_with(b"Hello, World!"));
    }
    std::fs::write(place.file("c.pem"), "nonsense").unwrap();
    assert!(matches!(tls.reload(), Err(TlsError::Malformed(..))));
    client(&host, &renewed, &[]).flush().unwrap();
}

#[test]
fn a_handshake_has_a_deadline() {
    let place = Place::new();
    let host = place.host(Limits {
        handshake_deadline: Duration::from_millis(50),
        ..Limits::default()
    });
    let mut silent = host.client();
    assert_eq!(silent.rest(), b"");
    host.expect("deadline Handshake");
}

#[test]
fn who_speaks_no_tls_is_told() {
    let place = Place::new();
    let host = place.host(Limits::default());
    let mut plain = host.client();
    plain.request("GET", "/hello", "");
    let reply = plain.reply();
    assert_eq!(
        (reply.status, reply.text()),
        (400, "This port speaks HTTPS.\n")
    );
    assert_eq!(plain.rest(), b"");
    assert!(host.told().starts_with("handshake: "));
}

#[test]
fn a_graceful_end_does_not_wait_for_handshakes() {
    let place = Place::new();
    let mut host = place.host(Limits::default());
    let mut silent = host.client();
    silent.send([22, 3, 1]);
    while host.ask(|_, server| server.connections()) == 0 {}
    host.run(|_, server| server.graceful_shutdown(0));
    assert_eq!(silent.rest(), b"");
    host.join();
}
