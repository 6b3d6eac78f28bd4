//! Precompressed files: what they are called, and which of them a client takes.

use crate::compress::{Coding, quality};
use hyper::header::{ACCEPT_ENCODING, HeaderMap};
use std::cmp::Reverse;

/// In the order of their usual sizes, smallest first: of equals the first is sent.
const CODINGS: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

/// What the file's name has in addition.
pub(crate) fn suffix(coding: Coding) -> &'static [u8] {
    match coding {
        Coding::Brotli => b".br",
        Coding::Zstd => b".zst",
        Coding::Gzip => b".gz",
    }
}

/// How much a client likes each of the codings, in thousandths; 0 is not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes([u32; 3]);

impl Wishes {
    pub(crate) fn of(headers: &HeaderMap) -> Wishes {
        if !headers.contains_key(ACCEPT_ENCODING) {
            return Wishes::default();
        }
        Wishes(CODINGS.map(|coding| quality(headers, coding.name())))
    }

    /// All codings, those that are liked most first; with whether it is.
    pub(crate) fn in_order(self) -> [(Coding, bool); 3] {
        let mut order = [0, 1, 2];
        order.sort_by_key(|&at| Reverse(self.0[at]));
        order.map(|at| (CODINGS[at], self.0[at] > 0))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn wanted(lines: &[&str]) -> Vec<&'static str> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT_ENCODING, line.parse().unwrap());
        }
        let order = Wishes::of(&headers).in_order().into_iter();
        order
            .filter(|(_, wanted)| *wanted)
            .map(|(coding, _)| coding.name())
            .collect()
    }

    #[test]
    fn what_is_liked_most_comes_first_and_of_equals_the_smallest() {
        assert_eq!(wanted(&[]), [""; 0]);
        assert_eq!(wanted(&[""]), [""; 0]);
        assert_eq!(wanted(&["gzip, deflate, br, zstd"]), ["br", "zstd", "gzip"]);
        assert_eq!(wanted(&["gzip;q=1.0, br;q=0.5"]), ["gzip", "br"]);
        assert_eq!(wanted(&["gzip ; Q=0.001", "BR;q=0.002"]), ["br", "gzip"]);
        assert_eq!(wanted(&["*"]), ["br", "zstd", "gzip"]);
        assert_eq!(wanted(&["*;q=0.5, gzip"]), ["gzip", "br", "zstd"]);
        assert_eq!(wanted(&["identity"]), [""; 0]);
    }

    #[test]
    fn what_is_refused_or_unclear_is_not_sent() {
        assert_eq!(wanted(&["*, br;q=0"]), ["zstd", "gzip"]);
        for line in [
            "br;q=0",
            "br;q=0.000",
            "br;q=x",
            "br;q=-1",
            "brr",
            "br;q=NaN",
        ] {
            assert_eq!(wanted(&[line]), [""; 0], "{line}");
        }
    }
}
