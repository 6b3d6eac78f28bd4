//! What is known of a connection: made for its first request, used by those that follow.
//!
//! * The scope's template with the connection's addresses in it.
//! * The header lines of its last request. Clients repeat themselves, so a line that is the same, in
//!   the same place, is the same tuple: a comparison instead of two objects that are made and
//!   destroyed, 70 instructions instead of 400 for each line.
//!
//! Made and used with the GIL held, but dropped along with the connection, without it: [`Parked`].

use super::head::Head;
use rondel_ffi::err::Builtin;
use rondel_ffi::gil::Parked;
use rondel_ffi::{Obj, PyRes, value};
use rondel_http::{Address, ConnInfo};
use std::cell::RefCell;

/// Lines are remembered if they are among the first and end within so many bytes of a head: with
/// what is left of earlier heads, a connection keeps less than twice that.
const LINES: usize = 32;
const TEXT: usize = 2048;

pub(super) struct Known {
    /// A scope in which only the request's own entries are missing.
    template: Parked,
    /// `host:port` for the access log.
    pub(super) client_text: String,
    /// `(name, value)`, the first lines of the last head.
    lines: RefCell<Vec<Parked>>,
}

impl Known {
    /// What is known of `conn`; `template` makes the scope's if it is its first request.
    pub(super) fn of(
        conn: &ConnInfo,
        template: impl FnOnce(Obj, Obj) -> PyRes<Obj>,
    ) -> PyRes<&Known> {
        if conn.cache.get().is_none() {
            let template = template(client(&conn.peer)?, server(&conn.local)?)?;
            let made = Known {
                template: Parked::new(template),
                client_text: match &conn.peer {
                    Address::Tcp(peer) => peer.to_string(),
                    Address::Unix(_) => "unix".to_owned(),
                },
                lines: RefCell::default(),
            };
            let _first = conn.cache.set(Box::new(made));
        }
        let known = conn.cache.get().and_then(|any| any.downcast_ref::<Known>());
        known.ok_or_else(|| Builtin::Runtime.raise("the connection's cache holds something else"))
    }

    /// A new scope, without the request's own entries.
    pub(super) fn scope(&self) -> PyRes<Obj> {
        match self.template.get() {
            Some(template) => value::dict_copy(template.borrow()),
            None => Err(Builtin::Runtime.raise("the scope's template is missing")),
        }
    }

    /// `[(name, value), …]`; `name` makes the objects of names.
    pub(super) fn headers(&self, head: &Head, name: impl Fn(&[u8]) -> PyRes<Obj>) -> PyRes<Obj> {
        let list = value::list_with(head.len())?;
        // Out of the cell while objects are made, which may run finalizers.
        let mut lines = self.lines.take();
        let mut end = 0;
        for (i, line) in head.headers().enumerate() {
            end += line.0.len() + line.1.len();
            let repeated = lines.get(i).and_then(|known| same(known, line));
            let pair = match repeated {
                Some(pair) => pair,
                None => {
                    let pair = value::tuple([name(line.0)?, value::bytes(line.1)?])?;
                    if i >= LINES || end > TEXT {
                        lines.truncate(i);
                    } else {
                        let line = Parked::new(pair.clone());
                        match lines.get_mut(i) {
                            Some(old) => *old = line,
                            // All before it are there: each was within the bounds.
                            None => lines.push(line),
                        }
                    }
                    pair
                }
            };
            value::list_init(list.borrow(), i, pair);
        }
        lines.truncate(head.len());
        self.lines.replace(lines);
        Ok(list)
    }
}

/// The known line as a new reference, if it is this one.
fn same(known: &Parked, (name, content): (&[u8], &[u8])) -> Option<Obj> {
    let pair = known.get()?;
    let part = |i| value::item(pair.borrow(), i);
    let is = |part: &Obj, bytes| value::bytes_of(part.borrow()) == Some(bytes);
    (is(&part(0)?, name) && is(&part(1)?, content)).then_some(pair)
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
