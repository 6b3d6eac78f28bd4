//! Doors for the fuzz targets: see [`crate::fuzzing`].

use std::ops::Range;
use std::time::SystemTime;

use hyper::HeaderMap;

pub(crate) use super::conditions::Verdict;
use super::conditions::{self, Span, Validators};
use super::place;

/// The rest of a path behind a route.
#[must_use]
pub fn behind<'a>(path: &'a str, route: &str) -> Option<&'a str> {
    place::behind(path, route)
}

/// The path below a folder that the rest of a request's path means, and whether it is a directory's.
#[must_use]
pub fn below(rest: &str) -> Option<(Vec<u8>, bool)> {
    place::below(rest).map(|it| (it.path, it.slash))
}

pub(crate) fn judge(headers: &HeaderMap, etag: &str, modified: SystemTime) -> Verdict {
    conditions::judge(headers, &Validators { etag, modified })
}

pub(crate) fn span(
    headers: &HeaderMap,
    etag: &str,
    modified: SystemTime,
    len: u64,
) -> Result<Option<Range<u64>>, ()> {
    match conditions::span(headers, &Validators { etag, modified }, len) {
        Span::Whole => Ok(None),
        Span::Part(part) => Ok(Some(part)),
        Span::Unsatisfiable => Err(()),
    }
}
