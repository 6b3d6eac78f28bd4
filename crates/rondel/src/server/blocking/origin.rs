//! Where a request comes from: what of a connection goes to the threads that answer its requests.
//!
//! Made by the loop once for a connection, without the GIL; the texts by the first thread that needs
//! them.

use crate::server::known::{self, Known};
use rondel_ffi::err::Builtin;
use rondel_ffi::gil::Parked;
use rondel_ffi::{PyRes, value};
use rondel_http::{Address, ConnInfo, TlsInfo};
use std::sync::{Arc, OnceLock};

pub(in crate::server) struct Origin {
    peer: Address,
    local: Address,
    secure: bool,
    tls: Option<Arc<TlsInfo>>,
    texts: OnceLock<Texts>,
}

/// What `environ` has of a connection.
pub(super) struct Texts {
    /// Address and port; None: a Unix socket's client has none.
    pub(super) client: Option<(Parked, Parked)>,
    pub(super) server: Option<(Parked, Parked)>,
    pub(super) secure: bool,
}

impl Origin {
    pub(in crate::server) fn new(conn: &ConnInfo) -> Origin {
        Origin {
            peer: conn.peer.clone(),
            local: conn.local.clone(),
            secure: conn.secure,
            tls: conn.tls.get().cloned(),
            texts: OnceLock::new(),
        }
    }

    /// For scopes. With the GIL.
    pub(super) fn known(&self) -> PyRes<Known> {
        Known::new(&self.peer, &self.local, self.secure, self.tls.as_deref())
    }

    /// For logs.
    pub(super) fn client(&self) -> String {
        known::client_text(&self.peer)
    }

    /// With the GIL.
    pub(super) fn texts(&self) -> PyRes<&Texts> {
        if self.texts.get().is_none() {
            let made = Texts {
                client: pair(&self.peer)?,
                server: pair(&self.local)?,
                secure: self.secure,
            };
            let _first = self.texts.set(made);
        }
        let texts = self.texts.get();
        texts.ok_or_else(|| Builtin::Runtime.raise("a connection's texts are missing"))
    }
}

fn pair(address: &Address) -> PyRes<Option<(Parked, Parked)>> {
    match address {
        Address::Tcp(address) => Ok(Some((
            Parked::new(value::str(&address.ip().to_string())?),
            Parked::new(value::str(&address.port().to_string())?),
        ))),
        Address::Unix(_) => Ok(None),
    }
}
