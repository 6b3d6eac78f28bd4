//! Who a request comes from if a proxy has passed it on.
//!
//! A proxy's word counts only if the connection comes from an address that is trusted; whoever else
//! sends these headers is not believed, and neither is what a trusted proxy only passed on: of a
//! chain of addresses, the client is the last one that is not itself a trusted proxy.
//!
//! Which kind of header the proxy writes has to be told ([`Style`]): a proxy that sets the one kind
//! passes the other on as its client sent it.
//!
//! Plain functions of bytes. Needs no GIL.

mod headers;
pub(crate) mod introduction;
pub(crate) mod protocol;
mod trust;

use std::net::SocketAddr;

use hyper::HeaderMap;

pub use trust::{NotANetwork, Trust};

use crate::service::Address;

/// Which headers the trusted proxies write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// None are looked at.
    #[default]
    Off,
    /// `X-Forwarded-For` and `X-Forwarded-Proto`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// Which proxies are believed, and what they write.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    pub style: Style,
    pub trust: Trust,
    /// Connections begin with a header of the PROXY protocol; those that do not are closed.
    pub protocol: bool,
}

/// What a proxy says of a request; `None` where it says nothing that can be understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// The client's address; port 0 if it was not told.
    pub client: Option<SocketAddr>,
    /// Whether the client's connection was encrypted.
    pub secure: Option<bool>,
}

impl Proxies {
    /// Whether this peer is trusted.
    pub(crate) fn trusts(&self, peer: &Address) -> bool {
        match peer {
            Address::Tcp(peer) => self.trust.contains(peer.ip()),
            // Who may write to the socket's file has been let in by its mode.
            Address::Unix(_) => true,
        }
    }

    /// Whether the headers of this peer's requests are to be looked at.
    pub fn believes(&self, peer: &Address) -> bool {
        self.style != Style::Off && self.trusts(peer)
    }

    /// What the headers of a believed peer's request say.
    pub fn read(&self, headers: &HeaderMap) -> Forwarded {
        match self.style {
            Style::Off => Forwarded::default(),
            Style::XForwarded => headers::x_forwarded(headers, &self.trust),
            Style::Forwarded => headers::forwarded(headers, &self.trust),
        }
    }
}
