//! The ASGI `http` scope (ASGI specification 3.0, *HTTP & WebSocket ASGI Message Format* 2.3).
//!
//! The parts that never change are in a template that is copied per request; what depends on the
//! connection is made once per connection; header names, and paths that come often, are shared.

use super::head::Head;
use super::known::Known;
use crate::consts::stock;
use rondel_ffi::gil::Parked;
use rondel_ffi::{Obj, PyRes, Ref, value};
use rondel_http::http::{Method, Version};
use rondel_http::target::percent_decode;
use rondel_http::ws::Offer;
use std::cell::RefCell;

const NAMES: usize = 512;
const PATHS: usize = 256;

/// Longer paths are not shared: they name what is asked for once, or hold tokens.
const PATH: usize = 32;

/// A path as text, decoded, and as it came.
type Path = (Obj, Obj);

pub(crate) struct Scopes {
    template: Obj,
    websocket: Obj,
    /// The lifespan's state, copied into each scope.
    state: Option<Obj>,
    /// What the server can do beyond the specification, copied into each scope.
    extensions: Obj,
    /// The same for clients that are not sent 103.
    unhinted: Obj,
    /// Clients of HTTP/1.1 are sent 103.
    hints: bool,
    websocket_extensions: Obj,
    root_path: String,
    key: Keys,
    methods: Vec<(Method, Obj)>,
    /// Bytes objects of header names, by a hash of the name.
    names: RefCell<Vec<Option<Obj>>>,
    /// The last path for each hash: a request for it anew costs a comparison.
    paths: RefCell<Vec<Option<Path>>>,
}

struct Keys {
    http_version: Obj,
    http_1_0: Obj,
    http_2: Obj,
    scheme: Obj,
    https: Obj,
    server: Obj,
    client: Obj,
    method: Obj,
    path: Obj,
    raw_path: Obj,
    query_string: Obj,
    headers: Obj,
    state: Obj,
    extensions: Obj,
    tls: Obj,
    request_id: Obj,
}

impl Scopes {
    /// `hints`: clients of HTTP/1.1 are sent 103, as those of HTTP/2 are.
    pub(crate) fn new(root_path: String, state: Option<Obj>, hints: bool) -> PyRes<Scopes> {
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
            scheme: value::intern(c"scheme")?,
            https: value::intern(c"https")?,
            server: value::intern(c"server")?,
            client: value::intern(c"client")?,
            method: value::intern(c"method")?,
            path: value::intern(c"path")?,
            raw_path: value::intern(c"raw_path")?,
            query_string: value::intern(c"query_string")?,
            headers: value::intern(c"headers")?,
            state: value::intern(c"state")?,
            extensions: value::intern(c"extensions")?,
            tls: value::intern(c"tls")?,
            request_id: value::intern(c"request_id")?,
        };
        let extensions = value::dict()?;
        let offer = |name: &std::ffi::CStr| -> PyRes<()> {
            let name = value::intern(name)?;
            value::dict_set(extensions.borrow(), name.borrow(), value::dict()?.borrow())
        };
        offer(c"http.response.zerocopysend")?;
        offer(c"http.response.pathsend")?;
        offer(c"http.response.trailers")?;
        let unhinted = value::dict_copy(extensions.borrow())?;
        offer(c"http.response.early_hint")?;
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
        set(c"extensions", extensions.clone())?;
        if let Some(state) = &state {
            set(c"state", state.clone())?;
        }
        let websocket = websocket_template(&template)?;
        let websocket_extensions = value::dict()?;
        value::dict_set(
            websocket_extensions.borrow(),
            value::intern(c"websocket.http.response")?.borrow(),
            value::dict()?.borrow(),
        )?;
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
        Ok(Scopes {
            template,
            websocket,
            state,
            extensions,
            unhinted,
            hints,
            websocket_extensions,
            root_path,
            key,
            methods,
            names: RefCell::new((0..NAMES).map(|_| None).collect()),
            paths: RefCell::new((0..PATHS).map(|_| None).collect()),
        })
    }

    /// Whether early hints are offered to clients of this version: RFC 8297, 3, has them turned on for those
    /// of HTTP/1.1, some of which take a 103 for the response.
    pub(super) fn offers_hints(&self, version: Version) -> bool {
        version == Version::HTTP_2 || self.hints && version == Version::HTTP_11
    }

    /// A request's scope.
    pub(super) fn build(&self, head: &Head, known: &Known) -> PyRes<Obj> {
        let extensions = if self.offers_hints(head.version) {
            &self.extensions
        } else {
            &self.unhinted
        };
        let scope = self.fill(&self.template, extensions, head, known)?;
        if head.method != Method::GET {
            let method = self.method(&head.method)?;
            value::dict_set(scope.borrow(), self.key.method.borrow(), method.borrow())?;
        }
        Ok(scope)
    }

    /// The scope of a connection (ASGI 2.4, *WebSocket connection scope*).
    pub(super) fn build_websocket(&self, head: &Head, known: &Known, offer: &Offer) -> PyRes<Obj> {
        let extensions = &self.websocket_extensions;
        let scope = self.fill(&self.websocket, extensions, head, known)?;
        let names = value::list_with(offer.subprotocols.len())?;
        for (i, name) in offer.subprotocols.iter().enumerate() {
            value::list_init(names.borrow(), i, value::str(name)?);
        }
        if known.secure {
            let wss = value::intern(c"wss")?;
            value::dict_set(scope.borrow(), self.key.scheme.borrow(), wss.borrow())?;
        }
        let key = value::intern(c"subprotocols")?;
        value::dict_set(scope.borrow(), key.borrow(), names.borrow())?;
        Ok(scope)
    }

    fn fill(&self, template: &Obj, extensions: &Obj, head: &Head, known: &Known) -> PyRes<Obj> {
        let key = &self.key;
        let scope = value::dict_copy(template.borrow())?;
        let set = |key: &Obj, item: Ref<'_>| value::dict_set(scope.borrow(), key.borrow(), item);
        match head.version {
            Version::HTTP_10 => set(&key.http_version, key.http_1_0.borrow())?,
            Version::HTTP_2 => set(&key.http_version, key.http_2.borrow())?,
            _ => {}
        }
        let path = head.path();
        if path != "/" || !self.root_path.is_empty() {
            let (text, raw) = self.path(path)?;
            set(&key.path, text.borrow())?;
            set(&key.raw_path, raw.borrow())?;
        }
        if let Some(query) = head.query().filter(|q| !q.is_empty()) {
            set(&key.query_string, value::bytes(query.as_bytes())?.borrow())?;
        }
        let headers = known.headers(head, |name| self.header_name(name))?;
        set(&key.headers, headers.borrow())?;
        if known.secure {
            set(&key.scheme, key.https.borrow())?;
        }
        if let Some(client) = known.client.get() {
            set(&key.client, client.borrow())?;
        }
        if let Some(server) = known.server.get() {
            set(&key.server, server.borrow())?;
        }
        let extensions = value::dict_copy(extensions.borrow())?;
        if let Some(tls) = known.tls.as_ref().and_then(Parked::get) {
            let tls = value::dict_copy(tls.borrow())?;
            value::dict_set(extensions.borrow(), key.tls.borrow(), tls.borrow())?;
        }
        set(&key.extensions, extensions.borrow())?;
        let mut state = match &self.state {
            Some(state) => Some(value::dict_copy(state.borrow())?),
            None => None,
        };
        if let Some(id) = head.id() {
            let with = state.map_or_else(value::dict, Ok)?;
            let id = value::str(id)?;
            value::dict_set(with.borrow(), key.request_id.borrow(), id.borrow())?;
            state = Some(with);
        }
        if let Some(state) = state {
            set(&key.state, state.borrow())?;
        }
        Ok(scope)
    }

    fn method(&self, method: &Method) -> PyRes<Obj> {
        match self.methods.iter().find(|(m, _)| m == method) {
            Some((_, text)) => Ok(text.clone()),
            None => value::str(method.as_str()),
        }
    }

    /// The path, percent-decoded, what is not UTF-8 replaced, as servers do; and the path as it came.
    fn path(&self, path: &str) -> PyRes<Path> {
        if path.len() > PATH {
            return self.make_path(path);
        }
        let at = slot(path.as_bytes());
        let known = self.paths.borrow()[at].clone();
        if let Some((text, raw)) = known
            && value::bytes_of(raw.borrow())
                .and_then(|raw| raw.strip_prefix(self.root_path.as_bytes()))
                == Some(path.as_bytes())
        {
            return Ok((text, raw));
        }
        let made = self.make_path(path)?;
        let old = self.paths.borrow_mut()[at].replace(made.clone());
        drop(old);
        Ok(made)
    }

    fn make_path(&self, path: &str) -> PyRes<Path> {
        let root = &self.root_path;
        if root.is_empty() && !path.contains('%') {
            return Ok((value::str(path)?, value::bytes(path.as_bytes())?));
        }
        let decoded = percent_decode(path.as_bytes());
        let text = format!("{root}{}", String::from_utf8_lossy(&decoded));
        let raw = format!("{root}{path}");
        Ok((value::str(&text)?, value::bytes(raw.as_bytes())?))
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

fn websocket_template(http: &Obj) -> PyRes<Obj> {
    let template = value::dict_copy(http.borrow())?;
    let set = |key: &std::ffi::CStr, item: Obj| -> PyRes<()> {
        let key = value::intern(key)?;
        value::dict_set(template.borrow(), key.borrow(), item.borrow())
    };
    let asgi = value::dict()?;
    for (key, text) in [(c"version", c"3.0"), (c"spec_version", c"2.4")] {
        let (key, text) = (value::intern(key)?, value::intern(text)?);
        value::dict_set(asgi.borrow(), key.borrow(), text.borrow())?;
    }
    set(c"type", value::intern(c"websocket")?)?;
    set(c"scheme", value::intern(c"ws")?)?;
    set(c"asgi", asgi)?;
    value::dict_discard(template.borrow(), value::intern(c"method")?.borrow())?;
    Ok(template)
}

/// Where a path is among the known ones. Not proof against collisions made on purpose: they cost
/// what a path costs that is not known.
fn slot(path: &[u8]) -> usize {
    let hash = path.iter().fold(0_u32, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(u32::from(*byte))
    });
    hash as usize % PATHS
}
