//! What is counted of requests for `--metrics`: one addition or three per finished request.
//!
//! The numbers are in a file that the process shares with others (or not), a page for each: whoever is
//! asked for the metrics reads all pages, and a process that takes a dead one's page counts on where
//! that ended. `rondel.server.metrics` reads them, and has the same layout. No GIL, any thread.

use rondel_ffi::counters::Counters;
use rondel_http::http::Method;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Methods that are counted by themselves; the others are one more.
const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::OPTIONS,
    Method::PATCH,
];
/// Classes of statuses: 1xx to 5xx.
const CLASSES: usize = 5;
/// Upper bounds of the latencies' buckets, in microseconds; one more is for the rest.
const BOUNDS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];
const BUCKETS: usize = (METHODS.len() + 1) * CLASSES;
const SUM: usize = BUCKETS + BOUNDS.len() + 1;

pub(super) struct Tally {
    counters: Counters,
    /// Where our page begins.
    base: usize,
}

impl Tally {
    /// The page begins at the number `base`.
    pub(super) fn new(counters: Counters, base: usize) -> Tally {
        Tally { counters, base }
    }

    /// A request is finished, after so many nanoseconds.
    pub(super) fn count(&self, method: &Method, status: u16, nanoseconds: u64) {
        let row = METHODS.iter().position(|known| known == method);
        let class = usize::from(status / 100).clamp(1, CLASSES) - 1;
        let micros = nanoseconds / 1000;
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        self.add(row.unwrap_or(METHODS.len()) * CLASSES + class, 1);
        self.add(BUCKETS + bucket, 1);
        self.add(SUM, micros);
    }

    fn add(&self, at: usize, number: u64) {
        let page: &[AtomicU64] = self.counters.all().get(self.base..).unwrap_or_default();
        if let Some(counter) = page.get(at) {
            counter.fetch_add(number, Relaxed);
        }
    }
}
