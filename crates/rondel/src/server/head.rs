//! A request's head as it waits for the GIL: copied out of the connection's read buffer.
//!
//! hyper's target and header values are slices of that buffer. A waiting request that kept them
//! would make hyper take another buffer, of 8 KiB and not in the caches, for every request. So the
//! few hundred bytes are copied into memory that is used again, and the buffer stays the
//! connection's own: this took away three of the seven allocations of a request without a body.
//!
//! Loop's thread only. No Python objects, so no GIL.

use super::access::About;
use crate::inspect::requests::Ticket;
use rondel_core::inspect::requests;
use rondel_http::http::header::{COOKIE, HOST};
use rondel_http::http::request::Parts;
use rondel_http::http::uri::Authority;
use rondel_http::http::{HeaderMap, HeaderValue, Method, Version};
use rondel_http::ws::Offer;
use std::cell::RefCell;

/// Heads kept for the next requests, and how much room each may keep: at most 2 MiB together.
const KEPT: usize = 256;
const ROOM: usize = 4096;
const LINES: usize = 128;

#[derive(Default)]
pub(super) struct Head {
    /// Set if a WebSocket connection is asked for.
    pub(super) offer: Option<Box<Offer>>,
    pub(super) method: Method,
    pub(super) version: Version,
    /// Path and query, as they came.
    target: String,
    path_end: usize,
    pub(super) lines: Lines,
    /// The request's header map, emptied: its memory serves the response's.
    pub(super) spare: HeaderMap,
    /// Its id, if requests have any.
    pub(super) id: Option<HeaderValue>,
    /// When it came (`bounds`).
    pub(super) epoch: u64,
    /// Its place in the inspector's list, once it has one.
    pub(super) ticket: Ticket,
}

impl Head {
    /// One of its own, for another thread.
    pub(super) fn of(parts: Parts) -> Head {
        let mut head = Head::default();
        head.fill(parts);
        head.spare = HeaderMap::new();
        head
    }

    fn fill(&mut self, parts: Parts) {
        self.method = parts.method;
        self.version = parts.version;
        self.target.push_str(parts.uri.path());
        self.path_end = self.target.len();
        if let Some(query) = parts.uri.query() {
            self.target.push('?');
            self.target.push_str(query);
        }
        if parts.version == Version::HTTP_2 {
            self.lines.push_h2(parts.uri.authority(), &parts.headers);
        } else if let Some(authority) = parts.uri.authority() {
            self.lines.push_absolute(authority, &parts.headers);
        } else {
            for (name, value) in &parts.headers {
                self.lines.push(name.as_str().as_bytes(), value.as_bytes());
            }
        }
        self.spare = parts.headers;
        self.spare.clear();
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_ref().and_then(|id| id.to_str().ok())
    }

    /// The version's number, as logs have it.
    pub(super) fn version(&self) -> &'static str {
        match self.version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            _ => "1.1",
        }
    }

    /// Which request it is, for errors; whose is another question.
    pub(super) fn about(&self) -> About<'_> {
        About {
            client: None,
            method: self.method.as_str(),
            target: self.target(),
            id: self.id(),
        }
    }

    /// Path and query; `/` if there is neither.
    pub(super) fn target(&self) -> &str {
        match self.target.as_str() {
            "" => "/",
            target => target,
        }
    }

    /// Notes that it is here, from this time on; `task` answers it, 0 for none yet. `socket`: a WebSocket connection.
    pub(super) fn enter(&mut self, socket: bool, task: u32, now: u64) {
        if self.ticket.key().is_none() {
            let key = requests::enter(self.method.as_str(), self.path(), socket, task, now);
            self.ticket = Ticket::new(key);
        } else {
            requests::begin(self.ticket.key(), task);
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.target[..self.path_end]
    }

    pub(super) fn query(&self) -> Option<&str> {
        self.target.get(self.path_end + 1..)
    }
}

/// Header lines. Equal ones have the same names and values.
#[derive(Default, PartialEq)]
pub(super) struct Lines {
    /// Names and values, one after the other.
    text: Vec<u8>,
    ends: Vec<Ends>,
}

/// Where in the text a name and its value end; the name begins where the value before ended.
#[derive(Clone, Copy, PartialEq)]
struct Ends {
    name: usize,
    value: usize,
}

impl Lines {
    fn push(&mut self, name: &[u8], value: &[u8]) {
        self.text.extend_from_slice(name);
        let name = self.text.len();
        self.text.extend_from_slice(value);
        let value = self.text.len();
        self.ends.push(Ends { name, value });
    }

    /// Those of a request whose target names the host, which counts whatever `host` says (RFC 9112, 3.2.2).
    #[cold]
    fn push_absolute(&mut self, authority: &Authority, headers: &HeaderMap) {
        self.push(b"host", authority.as_str().as_bytes());
        for (name, value) in headers.iter().filter(|(name, _)| *name != HOST) {
            self.push(name.as_str().as_bytes(), value.as_bytes());
        }
    }

    /// Those of an HTTP/2 request: `host` first, by its authority (ASGI), and one `cookie` (RFC 9113,
    /// 8.2.3).
    fn push_h2(&mut self, authority: Option<&Authority>, headers: &HeaderMap) {
        if let Some(authority) = authority {
            self.push(b"host", authority.as_str().as_bytes());
        }
        let mut cookies = Vec::new();
        for (name, value) in headers {
            match name {
                &COOKIE => {
                    if !cookies.is_empty() {
                        cookies.extend_from_slice(b"; ");
                    }
                    cookies.extend_from_slice(value.as_bytes());
                }
                &HOST if authority.is_some() => {}
                name => self.push(name.as_str().as_bytes(), value.as_bytes()),
            }
        }
        if !cookies.is_empty() {
            self.push(b"cookie", &cookies);
        }
    }

    /// Becomes a copy of `other`, in the memory that is there.
    pub(super) fn copy(&mut self, other: &Lines) {
        self.text.clone_from(&other.text);
        self.ends.clone_from(&other.ends);
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of all names and values.
    pub(super) fn text_len(&self) -> usize {
        self.text.len()
    }

    /// The first value of a header, its name in lower case.
    pub(super) fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self.iter().find(|(line, _)| *line == name.as_bytes());
        found.map(|(_, value)| value)
    }

    /// Names and values.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |ends| {
            let name = &self.text[start..ends.name];
            start = ends.value;
            (name, &self.text[ends.name..ends.value])
        })
    }
}

/// Makes heads, from used ones if there are any.
#[derive(Default)]
#[allow(
    clippy::vec_box,
    reason = "a head moves to the queue and back: a pointer, not 250 bytes"
)]
pub(super) struct Heads(RefCell<Vec<Box<Head>>>);

impl Heads {
    pub(super) fn copy(&self, parts: Parts) -> Box<Head> {
        let mut head = self.0.borrow_mut().pop().unwrap_or_default();
        head.fill(parts);
        head
    }

    /// Takes a head back that is no longer looked at.
    pub(super) fn recycle(&self, mut head: Box<Head>) {
        let text = head.lines.text.capacity() + head.target.capacity();
        let modest = text <= ROOM && head.lines.ends.capacity() <= LINES;
        let mut kept = self.0.borrow_mut();
        head.offer = None;
        drop(std::mem::take(&mut head.ticket));
        if modest && kept.len() < KEPT {
            head.id = None;
            head.target.clear();
            head.lines.text.clear();
            head.lines.ends.clear();
            kept.push(head);
        }
    }
}
