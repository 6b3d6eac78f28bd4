//! What is known of a connection: made for its first request, used by those that follow.
//!
//! * Its addresses, as scopes have them.
//! * The header lines of its last request. Clients repeat themselves, so that a line which is the
//!   same, in the same place, is the same tuple: not two objects made and destroyed for each line.
//!   They are compared as text, in one piece if nothing has changed: the objects are out of the
//!   caches by the next request, and to look into each would cost as much as to make it.
//!
//! Made and used with the GIL held, but dropped along with the connection, without it: [`Parked`].

use super::blocking::Origin;
use super::head::{Head, Lines};
use super::secure;
use rondel_ffi::err::Builtin;
use rondel_ffi::gil::Parked;
use rondel_ffi::{Obj, PyRes, value};
use rondel_http::{Address, ConnInfo, TlsInfo};
use std::cell::{OnceCell, RefCell};
use std::sync::Arc;

/// Heads of more lines or text than this are not remembered.
const LINES: usize = 32;
const TEXT: usize = 2048;

pub(super) struct Known {
    pub(super) client: Parked,
    pub(super) server: Parked,
    /// ASGI's `tls` extension, where the connection has TLS.
    pub(super) tls: Option<Parked>,
    /// Whether the scheme is `https`.
    pub(super) secure: bool,
    /// `host:port` for the access log; the host alone if a proxy told no port.
    pub(super) client_text: String,
    last: RefCell<Last>,
}

/// The header lines of the last request: as text, and `(name, value)` of each.
#[derive(Default)]
struct Last {
    lines: Lines,
    pairs: Vec<Parked>,
}

impl Known {
    pub(super) fn of(conn: &ConnInfo) -> PyRes<&Known> {
        let known = cached(conn).map(|cached| &cached.known);
        if let Some(known) = known.filter(|known| known.get().is_none()) {
            let tls = conn.tls.get().map(Arc::as_ref);
            let made = Known::new(&conn.peer, &conn.local, conn.secure, tls)?;
            let _first = known.set(made);
        }
        let known = known.and_then(OnceCell::get);
        known.ok_or_else(|| Builtin::Runtime.raise("the connection's cache holds something else"))
    }

    pub(super) fn new(
        peer: &Address,
        local: &Address,
        secure: bool,
        tls: Option<&TlsInfo>,
    ) -> PyRes<Known> {
        Ok(Known {
            client: Parked::new(client(peer)?),
            server: Parked::new(server(local)?),
            tls: tls.map(secure::extension).transpose()?.map(Parked::new),
            secure,
            client_text: client_text(peer),
            last: RefCell::default(),
        })
    }

    /// The same lines are likely to come again, from whomever.
    pub(super) fn inherit(&self, before: &Known) {
        self.last.swap(&before.last);
    }

    /// `[(name, value), …]`; `name` makes the objects of names.
    pub(super) fn headers(&self, head: &Head, name: impl Fn(&[u8]) -> PyRes<Obj>) -> PyRes<Obj> {
        let lines = &head.lines;
        let list = value::list_with(lines.len())?;
        // Out of the cell while objects are made, which may run finalizers.
        let mut last = self.last.take();
        let same = last.lines == *lines;
        let kept = lines.len() <= LINES && lines.text_len() <= TEXT;
        if !kept {
            last = Last::default();
        }
        {
            let mut before = last.lines.iter();
            for (i, line) in lines.iter().enumerate() {
                let repeats = same || before.next() == Some(line);
                let known = last.pairs.get(i).filter(|_| repeats);
                let pair = match known.and_then(Parked::get) {
                    Some(pair) => pair,
                    None => value::tuple([name(line.0)?, value::bytes(line.1)?])?,
                };
                if kept && !repeats {
                    let parked = Parked::new(pair.clone());
                    match last.pairs.get_mut(i) {
                        Some(old) => *old = parked,
                        None => last.pairs.push(parked),
                    }
                }
                value::list_init(list.borrow(), i, pair);
            }
        }
        if kept && !same {
            last.lines.copy(lines);
            last.pairs.truncate(lines.len());
        }
        self.last.replace(last);
        Ok(list)
    }
}

/// What a connection keeps for its requests, on the loop's thread.
#[derive(Default)]
struct Cached {
    known: OnceCell<Known>,
    origin: OnceCell<Arc<Origin>>,
}

fn cached(conn: &ConnInfo) -> Option<&Cached> {
    let cache = conn.cache.get_or_init(|| Box::new(Cached::default()));
    cache.downcast_ref()
}

/// What the threads that answer a connection's requests know of it. Needs no GIL.
pub(super) fn origin(conn: &ConnInfo) -> Arc<Origin> {
    match cached(conn) {
        Some(cached) => Arc::clone(cached.origin.get_or_init(|| Arc::new(Origin::new(conn)))),
        None => Arc::new(Origin::new(conn)),
    }
}

/// A client as logs have it.
pub(super) fn client_text(peer: &Address) -> String {
    match peer {
        Address::Tcp(peer) if peer.port() == 0 => peer.ip().to_string(),
        Address::Tcp(peer) => peer.to_string(),
        Address::Unix(_) => "unix".to_owned(),
    }
}

fn client(peer: &Address) -> PyRes<Obj> {
    match peer {
        Address::Tcp(addr) => value::tuple([
            value::str(&addr.ip().to_string())?,
            value::int(i64::from(addr.port()))?,
        ]),
        Address::Unix(_) => Ok(Obj::none()),
    }
}

fn server(local: &Address) -> PyRes<Obj> {
    match local {
        Address::Tcp(addr) => value::tuple([
            value::str(&addr.ip().to_string())?,
            value::int(i64::from(addr.port()))?,
        ]),
        Address::Unix(path) => {
            let text = path
                .as_ref()
                .map(|p| p.to_string_lossy().into_owned())
                .unwrap_or_default();
            value::tuple([value::str(&text)?, Obj::none()])
        }
    }
}
