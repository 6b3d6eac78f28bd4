//! A request's head as it waits for the GIL: copied out of the connection's read buffer.
//!
//! hyper's target and header values are slices of that buffer. A waiting request that kept them
//! would make hyper take another buffer, of 8 KiB and not in the caches, for every request. So the
//! few hundred bytes are copied into memory that is used again, and the buffer stays the
//! connection's own: this took away three of eight allocations of a request without a body.
//!
//! Loop's thread only. No Python objects, so no GIL.

use rondel_http::http::request::Parts;
use rondel_http::http::{HeaderMap, Method, Version};
use std::cell::RefCell;

/// Heads kept for the next requests, and how much room each may keep: at most 2 MiB together.
const KEPT: usize = 256;
const ROOM: usize = 4096;
const LINES: usize = 128;

/// Where in the text a header's name and its value end; the name begins where the last value ended.
struct Line {
    name_end: usize,
    end: usize,
}

#[derive(Default)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) version: Version,
    /// Path and query, as they came.
    target: String,
    path_end: usize,
    /// The headers' names and values.
    text: Vec<u8>,
    lines: Vec<Line>,
    /// The request's header map, emptied: its memory serves the response's.
    pub(super) spare: HeaderMap,
}

impl Head {
    fn fill(&mut self, parts: Parts) {
        self.method = parts.method;
        self.version = parts.version;
        self.target.push_str(parts.uri.path());
        self.path_end = self.target.len();
        if let Some(query) = parts.uri.query() {
            self.target.push('?');
            self.target.push_str(query);
        }
        for (name, value) in &parts.headers {
            self.text.extend_from_slice(name.as_str().as_bytes());
            let name_end = self.text.len();
            self.text.extend_from_slice(value.as_bytes());
            let end = self.text.len();
            self.lines.push(Line { name_end, end });
        }
        self.spare = parts.headers;
        self.spare.clear();
    }

    /// Path and query; `/` if there is neither.
    pub(super) fn target(&self) -> &str {
        match self.target.as_str() {
            "" => "/",
            target => target,
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.target[..self.path_end]
    }

    pub(super) fn query(&self) -> Option<&str> {
        self.target.get(self.path_end + 1..)
    }

    /// Header lines.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Names and values.
    pub(super) fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut start = 0;
        self.lines.iter().map(move |line| {
            let pair = (
                &self.text[start..line.name_end],
                &self.text[line.name_end..line.end],
            );
            start = line.end;
            pair
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
        let mut kept = self.0.borrow_mut();
        let modest =
            head.text.capacity() + head.target.capacity() <= ROOM && head.lines.capacity() <= LINES;
        if modest && kept.len() < KEPT {
            head.target.clear();
            head.text.clear();
            head.lines.clear();
            kept.push(head);
        }
    }
}
