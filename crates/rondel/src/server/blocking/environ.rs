//! `environ` (PEP 3333), from a request's head in one go.
//!
//! What is the same for all requests is in a template of Python's (`rondel.server.wsgi`); it is copied.
//! A client's header lines are mostly those of the request before: then the template with these in it
//! is copied, and nothing is made anew but what differs.
//!
//! * A name with an underscore is left out, as by nginx, gunicorn and Django's own server: `X_Real_IP`
//!   would be taken for `X-Real-IP`, which a proxy sets.
//! * Lines of the same name are joined (RFC 9110, section 5.3; cookies: RFC 9113, 8.2.3); of those
//!   whose key has no `HTTP_` the first counts.
//! * `Transfer-Encoding` was taken off the body: the length is told instead (RFC 3875, 4.1.2, 4.1.18).
//!
//! With the GIL, and each thread at its own [`Desk`]: making objects may have threads switch.

use super::origin::Texts;
use crate::server::head::{Head, Lines};
use rondel_ffi::gil::Parked;
use rondel_ffi::{Obj, PyRes, Ref, call, value};
use rondel_http::gather::Gathered;
use rondel_http::http::{Method, Version};
use rondel_http::target::percent_decode;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::IntoRawFd;

/// Header names whose keys a thread keeps: clients repeat themselves, and who makes names up pays for
/// them and fills no memory.
const NAMES: usize = 1000;

/// Heads of more lines or text than this are not remembered.
const LINES: usize = 32;
const TEXT: usize = 2048;

/// `CONTENT_TYPE`s and the like: of more than one only the first counts.
const BARE: [&[u8]; 2] = [b"content-type", b"content-length"];

pub(super) struct Environs {
    template: Obj,
    key: Keys,
    /// `io.BytesIO`, and `os.fdopen`.
    memory: Obj,
    open: Obj,
    desks: Vec<RefCell<Desk>>,
}

/// What one thread keeps.
#[derive(Default)]
struct Desk {
    /// The keys of header names; None: it is left out.
    names: HashMap<Box<[u8]>, Option<Obj>>,
    last: Last,
}

/// The header lines of the last request, and the template with them in it.
#[derive(Default)]
struct Last {
    lines: Lines,
    environ: Option<Obj>,
}

struct Keys {
    method: Obj,
    path: Obj,
    query: Obj,
    protocol: Obj,
    scheme: Obj,
    https: Obj,
    on: Obj,
    http_1_0: Obj,
    http_2: Obj,
    host: Obj,
    length: Obj,
    input: Obj,
    mode: Obj,
    client: Obj,
    client_port: Obj,
    server: Obj,
    server_port: Obj,
    https_key: Obj,
    root: Obj,
    methods: Vec<(Method, Obj)>,
}

impl Environs {
    /// Of `template`, for so many threads.
    pub(super) fn new(template: Ref<'_>, threads: usize) -> PyRes<Environs> {
        let word = value::intern;
        let key = Keys {
            method: word(c"REQUEST_METHOD")?,
            path: word(c"PATH_INFO")?,
            query: word(c"QUERY_STRING")?,
            protocol: word(c"SERVER_PROTOCOL")?,
            scheme: word(c"wsgi.url_scheme")?,
            https: word(c"https")?,
            on: word(c"on")?,
            http_1_0: word(c"HTTP/1.0")?,
            http_2: word(c"HTTP/2")?,
            host: word(c"HTTP_HOST")?,
            length: word(c"CONTENT_LENGTH")?,
            input: word(c"wsgi.input")?,
            mode: word(c"rb")?,
            client: word(c"REMOTE_ADDR")?,
            client_port: word(c"REMOTE_PORT")?,
            server: word(c"SERVER_NAME")?,
            server_port: word(c"SERVER_PORT")?,
            https_key: word(c"HTTPS")?,
            root: word(c"/")?,
            methods: [
                (Method::GET, c"GET"),
                (Method::POST, c"POST"),
                (Method::HEAD, c"HEAD"),
                (Method::PUT, c"PUT"),
                (Method::DELETE, c"DELETE"),
                (Method::OPTIONS, c"OPTIONS"),
                (Method::PATCH, c"PATCH"),
            ]
            .into_iter()
            .map(|(method, text)| Ok((method, word(text)?)))
            .collect::<PyRes<_>>()?,
        };
        Ok(Environs {
            template: value::dict_copy(template)?,
            memory: attribute(c"io", c"BytesIO")?,
            open: attribute(c"os", c"fdopen")?,
            key,
            desks: (0..threads).map(|_| RefCell::default()).collect(),
        })
    }

    /// A request's own, on thread number `seat`.
    pub(super) fn build(
        &self,
        head: &Head,
        texts: &Texts,
        body: Gathered,
        seat: usize,
    ) -> PyRes<Obj> {
        let key = &self.key;
        let environ = self.with_headers(&head.lines, seat)?;
        let set = |key: &Obj, item: Ref<'_>| value::dict_set(environ.borrow(), key.borrow(), item);
        let known = key.methods.iter().find(|(known, _)| *known == head.method);
        match known {
            Some((_, text)) => set(&key.method, text.borrow())?,
            None => set(&key.method, value::str(head.method.as_str())?.borrow())?,
        }
        match head.path() {
            "/" => set(&key.path, key.root.borrow())?,
            path if path.contains('%') => {
                let decoded = percent_decode(path.as_bytes());
                set(&key.path, value::str_latin1(&decoded)?.borrow())?;
            }
            path => set(&key.path, value::str_latin1(path.as_bytes())?.borrow())?,
        }
        if let Some(query) = head.query().filter(|query| !query.is_empty()) {
            set(&key.query, value::str_latin1(query.as_bytes())?.borrow())?;
        }
        match head.version {
            Version::HTTP_10 => set(&key.protocol, key.http_1_0.borrow())?,
            Version::HTTP_2 => set(&key.protocol, key.http_2.borrow())?,
            _ => {}
        }
        if texts.secure {
            set(&key.scheme, key.https.borrow())?;
            set(&key.https_key, key.on.borrow())?;
        }
        if let Some((address, port)) = pair(&texts.client) {
            set(&key.client, address.borrow())?;
            set(&key.client_port, port.borrow())?;
        }
        let (name, port) = match pair(&texts.server) {
            Some(both) => both,
            // A Unix socket: what the client thinks it is asking, as no server's name may be empty.
            None => {
                let host = value::dict_get(environ.borrow(), key.host.borrow())?;
                let host = host.map(value::str_text).transpose()?.unwrap_or_default();
                let (name, port) = host_of(&host);
                (value::str(name)?, value::str(port)?)
            }
        };
        set(&key.server, name.borrow())?;
        set(&key.server_port, port.borrow())?;
        if head.lines.get("transfer-encoding").is_some() {
            let length = value::str(&length(&body)?.to_string())?;
            set(&key.length, length.borrow())?;
        }
        set(&key.input, self.input(body)?.borrow())?;
        Ok(environ)
    }

    fn input(&self, body: Gathered) -> PyRes<Obj> {
        let memory = |data: &[u8]| {
            let data = value::bytes(data)?;
            call::call1(self.memory.borrow(), data.borrow())
        };
        match body {
            Gathered::Empty => call::call0(self.memory.borrow()),
            Gathered::One(data) => memory(&data),
            Gathered::Many(parts, _) => memory(&parts.concat()),
            Gathered::Spooled(file) => {
                let number = value::int(i64::from(file.into_raw_fd()))?;
                let args = [number.borrow(), self.key.mode.borrow()];
                call::call(self.open.borrow(), &args)
            }
        }
    }

    /// The template with the header lines in it.
    fn with_headers(&self, lines: &Lines, seat: usize) -> PyRes<Obj> {
        let Some(desk) = self.desks.get(seat) else {
            let mut names = HashMap::new();
            return self.fill(lines, &mut names);
        };
        // Out of its cell while objects are made, which may run finalizers.
        let mut mine = desk.take();
        let environ = match &mine.last.environ {
            Some(environ) if mine.last.lines == *lines => value::dict_copy(environ.borrow()),
            _ => self.fill(lines, &mut mine.names).and_then(|environ| {
                mine.last.environ = None;
                if lines.len() <= LINES && lines.text_len() <= TEXT {
                    mine.last.environ = Some(value::dict_copy(environ.borrow())?);
                    mine.last.lines.copy(lines);
                }
                Ok(environ)
            }),
        };
        let between = desk.replace(mine);
        drop(between);
        environ
    }

    fn fill(&self, lines: &Lines, names: &mut HashMap<Box<[u8]>, Option<Obj>>) -> PyRes<Obj> {
        let environ = value::dict_copy(self.template.borrow())?;
        // Names whose lines were joined.
        let mut joined: Vec<&[u8]> = Vec::new();
        for (name, content) in lines.iter() {
            let Some(key) = key_of(name, names)? else {
                continue;
            };
            if value::dict_get(environ.borrow(), key.borrow())?.is_none() {
                let text = value::str_latin1(content)?;
                value::dict_set(environ.borrow(), key.borrow(), text.borrow())?;
            } else if !BARE.contains(&name) && !joined.contains(&name) {
                joined.push(name);
                let text = value::str_latin1(&join(lines, name))?;
                value::dict_set(environ.borrow(), key.borrow(), text.borrow())?;
            }
        }
        Ok(environ)
    }
}

fn attribute(module: &CStr, name: &CStr) -> PyRes<Obj> {
    let module = call::import(module)?;
    call::getattr(module.borrow(), value::intern(name)?.borrow())
}

fn pair(parked: &Option<(Parked, Parked)>) -> Option<(Obj, Obj)> {
    let (first, second) = parked.as_ref()?;
    Some((first.get()?, second.get()?))
}

/// A header's key in `environ`; None for those that are left out.
fn key_of(name: &[u8], names: &mut HashMap<Box<[u8]>, Option<Obj>>) -> PyRes<Option<Obj>> {
    if let Some(known) = names.get(name) {
        return Ok(known.clone());
    }
    let made = match key_text(name) {
        Some(text) => Some(value::str_latin1(&text)?),
        None => None,
    };
    if names.len() < NAMES {
        names.insert(name.into(), made.clone());
    }
    Ok(made)
}

fn key_text(name: &[u8]) -> Option<Vec<u8>> {
    if name.contains(&b'_') || name == b"transfer-encoding" {
        return None;
    }
    let prefix: &[u8] = if BARE.contains(&name) { b"" } else { b"HTTP_" };
    let upper = name.iter().map(|byte| match byte {
        b'-' => b'_',
        byte => byte.to_ascii_uppercase(),
    });
    Some(prefix.iter().copied().chain(upper).collect())
}

/// All lines of a name in one.
fn join(lines: &Lines, name: &[u8]) -> Vec<u8> {
    let between: &[u8] = if name == b"cookie" { b"; " } else { b", " };
    let same: Vec<&[u8]> = (lines.iter())
        .filter(|(other, _)| *other == name)
        .map(|(_, content)| content)
        .collect();
    same.join(between)
}

/// Name and port of a `Host` header.
fn host_of(header: &str) -> (&str, &str) {
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let (name, port) = match header.rsplit_once(':') {
        Some((name, port)) if digits(port) => (name, port),
        _ => (header, "80"),
    };
    (if name.is_empty() { "localhost" } else { name }, port)
}

fn length(body: &Gathered) -> PyRes<u64> {
    match body {
        Gathered::Empty => Ok(0),
        Gathered::One(data) => Ok(data.len() as u64),
        Gathered::Many(_, size) => Ok(*size as u64),
        Gathered::Spooled(file) => match file.metadata() {
            Ok(data) => Ok(data.len()),
            Err(error) => Err(rondel_ffi::err::raise_io(&error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{host_of, key_text};

    #[test]
    fn keys_are_names_in_capitals_and_forgeable_ones_are_left_out() {
        let key = |name: &str| {
            key_text(name.as_bytes()).map(|key| String::from_utf8_lossy(&key).into_owned())
        };
        assert_eq!(key("x-one").as_deref(), Some("HTTP_X_ONE"));
        assert_eq!(key("content-type").as_deref(), Some("CONTENT_TYPE"));
        assert_eq!(key("content-length").as_deref(), Some("CONTENT_LENGTH"));
        assert_eq!(key("x_one"), None);
    }

    #[test]
    fn a_host_has_a_name_and_a_port() {
        assert_eq!(host_of("a.example:81"), ("a.example", "81"));
        assert_eq!(host_of("a.example"), ("a.example", "80"));
        assert_eq!(host_of("a.example:x"), ("a.example:x", "80"));
        assert_eq!(host_of("[::1]:81"), ("[::1]", "81"));
        assert_eq!(host_of(""), ("localhost", "80"));
        assert_eq!(host_of(":82"), ("localhost", "82"));
    }
}
