//! A request of a thread's, as the loop knows it. Loop's thread only; no Python objects.

use super::line::Line;
use crate::server::bounds::Lateness;
use crate::server::head::Head;
use rondel_http::gather::Gathered;
use rondel_http::http::Method;
use rondel_http::{ConnInfo, Exchange};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

/// A request that is here.
pub(super) struct Guest {
    pub(super) exchange: Exchange,
    pub(super) line: Arc<Line>,
    pub(super) conn: Rc<ConnInfo>,
    /// Until all of its body is there.
    pub(super) reading: Option<(Box<Head>, Gathered)>,
    /// When it came, by the coarse clock.
    pub(super) began: u64,
    /// When it came, then when all of it was there (`bounds`).
    pub(super) epoch: u64,
    pub(super) lateness: Cell<Lateness>,
    /// For whoever is told that it is late.
    pub(super) name: Name,
}

/// Method and path of a request, or as much of that as has room: copied for each request, hence without
/// an allocation.
pub(super) struct Name {
    method: Method,
    path: [u8; 64],
    len: usize,
}

impl Name {
    pub(super) fn of(head: &Head) -> Name {
        let text = head.path().as_bytes();
        let mut path = [0; 64];
        let len = text.len().min(path.len());
        path[..len].copy_from_slice(&text[..len]);
        Name {
            method: head.method.clone(),
            path,
            len: text.len(),
        }
    }

    pub(super) fn text(&self) -> String {
        let shown = self.len.min(self.path.len());
        let path = String::from_utf8_lossy(&self.path[..shown]);
        let more = if self.len > shown { "..." } else { "" };
        format!("{} {path}{more}", self.method)
    }
}
