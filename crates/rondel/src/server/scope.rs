//! The ASGI `http` scope (ASGI specification 3.0, *HTTP & WebSocket ASGI Message Format* 2.3).
//!
//! The parts that never change are in a template that is copied per request; what depends on the
//! connection is made once per connection; header names are made once and shared.

use super::door::AddressCache;
use crate::consts::stock;
use rondel_ffi::gil::Parked;
use rondel_ffi::{Obj, PyRes, Ref, call, value};
use rondel_http::http::{HeaderMap, Method, Version};
use rondel_http::target::percent_decode;
use rondel_http::{Address, ConnInfo, Request};
use std::cell::RefCell;

const NAMES: usize = 512;

pub(crate) struct Scopes {
    template: Obj,
    /// The lifespan's state, copied into each scope.
    state: Option<Obj>,
    root_path: String,
    key: Keys,
    methods: Vec<(Method, Obj)>,
    /// Bytes objects of header names, by a hash of the name.
    names: RefCell<Vec<Option<Obj>>>,
}

struct Keys {
    http_version: Obj,
    http_1_0: Obj,
    http_2: Obj,
    server: Obj,
    client: Obj,
    method: Obj,
    path: Obj,
    raw_path: Obj,
    query_string: Obj,
    headers: Obj,
    state: Obj,
}

impl Scopes {
    pub(crate) fn new(root_path: String, state: Option<Obj>) -> PyRes<Scopes> {
        let template = value::dict()?;
        let set = |key: &std::ffi::CStr, item: Obj| -> PyRes<()> {
            value::dict_set(
                template.borrow(),
                value::intern(key)?.borrow(),
                item.borrow(),
            )
        };
        let asgi = value::dict()?;
        value::dict_set(
            asgi.borrow(),
            value::intern(c"version")?.borrow(),
            value::intern(c"3.0")?.borrow(),
        )?;
        value::dict_set(
            asgi.borrow(),
            value::intern(c"spec_version")?.borrow(),
            value::intern(c"2.3")?.borrow(),
        )?;
        let key = Keys {
            http_version: value::intern(c"http_version")?,
            http_1_0: value::intern(c"1.0")?,
            http_2: value::intern(c"2")?,
            server: value::intern(c"server")?,
            client: value::intern(c"client")?,
            method: value::intern(c"method")?,
            path: value::intern(c"path")?,
            raw_path: value::intern(c"raw_path")?,
            query_string: value::intern(c"query_string")?,
            headers: value::intern(c"headers")?,
            state: value::intern(c"state")?,
        };
        set(c"type", value::intern(c"http")?)?;
        set(c"asgi", asgi)?;
        set(c"http_version", value::intern(c"1.1")?)?;
        set(c"server", Obj::none())?;
        set(c"client", Obj::none())?;
        set(c"scheme", value::intern(c"http")?)?;
        set(c"method", value::intern(c"GET")?)?;
        set(c"root_path", value::str(&root_path)?)?;
        set(c"path", value::intern(c"/")?)?;
        set(c"raw_path", value::bytes(b"/")?)?;
        set(c"query_string", stock().empty_bytes.clone())?;
        set(c"headers", Obj::none())?;
        if let Some(state) = &state {
            set(c"state", state.clone())?;
        }
        let methods = [
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::HEAD,
            Method::OPTIONS,
            Method::PATCH,
        ]
        .into_iter()
        .map(|m| value::str(m.as_str()).map(|text| (m, text)))
        .collect::<PyRes<Vec<_>>>()?;
        let names = RefCell::new((0..NAMES).map(|_| None).collect());
        Ok(Scopes {
            template,
            state,
            root_path,
            key,
            methods,
            names,
        })
    }

    /// A request's scope.
    pub(crate) fn build(&self, request: &Request) -> PyRes<Obj> {
        let (head, key) = (&request.head, &self.key);
        let scope = value::dict_copy(self.template.borrow())?;
        let set = |key: &Obj, item: Ref<'_>| value::dict_set(scope.borrow(), key.borrow(), item);
        match head.version {
            Version::HTTP_10 => set(&key.http_version, key.http_1_0.borrow())?,
            Version::HTTP_2 => set(&key.http_version, key.http_2.borrow())?,
            _ => {}
        }
        if head.method != Method::GET {
            set(&key.method, self.method(&head.method)?.borrow())?;
        }
        let path = head.uri.path();
        if path != "/" || !self.root_path.is_empty() {
            set(&key.path, self.path(path)?.borrow())?;
            let raw = if self.root_path.is_empty() {
                value::bytes(path.as_bytes())?
            } else {
                value::bytes(format!("{}{path}", self.root_path).as_bytes())?
            };
            set(&key.raw_path, raw.borrow())?;
        }
        if let Some(query) = head.uri.query().filter(|q| !q.is_empty()) {
            set(&key.query_string, value::bytes(query.as_bytes())?.borrow())?;
        }
        set(&key.headers, self.headers(&head.headers)?.borrow())?;
        let addresses = addresses(&request.conn)?;
        if let Some(client) = addresses.client.get() {
            set(&key.client, client.borrow())?;
        }
        if let Some(server) = addresses.server.get() {
            set(&key.server, server.borrow())?;
        }
        if let Some(state) = &self.state {
            set(
                &key.state,
                call::method(value::intern(c"copy")?.borrow(), [state.borrow()])?.borrow(),
            )?;
        }
        Ok(scope)
    }

    fn method(&self, method: &Method) -> PyRes<Obj> {
        match self.methods.iter().find(|(m, _)| m == method) {
            Some((_, text)) => Ok(text.clone()),
            None => value::str(method.as_str()),
        }
    }

    /// The path, percent-decoded; what is not UTF-8 is replaced, as servers do.
    fn path(&self, path: &str) -> PyRes<Obj> {
        if !path.contains('%') && self.root_path.is_empty() {
            return value::str(path);
        }
        let decoded = percent_decode(path.as_bytes());
        value::str(&format!(
            "{}{}",
            self.root_path,
            String::from_utf8_lossy(&decoded)
        ))
    }

    /// `[(name, value), …]`, names in lower case as hyper gives them.
    fn headers(&self, headers: &HeaderMap) -> PyRes<Obj> {
        let list = value::list_with(headers.len())?;
        for (i, (name, content)) in headers.iter().enumerate() {
            let pair = value::tuple([
                self.header_name(name.as_str().as_bytes())?,
                value::bytes(content.as_bytes())?,
            ])?;
            value::list_init(list.borrow(), i, pair);
        }
        Ok(list)
    }

    fn header_name(&self, name: &[u8]) -> PyRes<Obj> {
        let pick = |i: usize| usize::from(*name.get(i).unwrap_or(&0));
        let at = (name.len() * 31
            + pick(0) * 7
            + pick(name.len() / 2)
            + pick(name.len().wrapping_sub(1)) * 3)
            % NAMES;
        let mut names = self.names.borrow_mut();
        match &names[at] {
            Some(known) if value::bytes_of(known.borrow()) == Some(name) => Ok(known.clone()),
            Some(_) => value::bytes(name),
            None => {
                let made = value::bytes(name)?;
                names[at] = Some(made.clone());
                Ok(made)
            }
        }
    }
}

/// The connection's `client` and `server`, made for its first request.
pub(super) fn addresses(conn: &ConnInfo) -> PyRes<&AddressCache> {
    if conn.cache.get().is_none() {
        let made = AddressCache {
            client: Parked::new(client(&conn.peer)?),
            server: Parked::new(server(&conn.local)?),
            client_text: match &conn.peer {
                Address::Tcp(peer) => peer.to_string(),
                Address::Unix(_) => "unix".to_owned(),
            },
        };
        let _first = conn.cache.set(Box::new(made));
    }
    match conn
        .cache
        .get()
        .and_then(|any| any.downcast_ref::<AddressCache>())
    {
        Some(cache) => Ok(cache),
        None => {
            Err(rondel_ffi::err::Builtin::Runtime
                .raise("the connection's cache holds something else"))
        }
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
