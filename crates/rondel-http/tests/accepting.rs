//! The accept loop out of its comfort: no descriptors left. Alone in its file, as it changes the
//! process's limits.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::File;
use std::os::fd::AsRawFd;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::Host;

#[test]
fn accepting_outlives_a_lack_of_descriptors() {
    let host = Host::new();
    assert_eq!(host.client().get("/hello").status, 200);
    let mut kept = host.client();
    assert_eq!(kept.get("/hello").status, 200);
    while host.ask(|_, s| s.connections()) > 1 {}

    let before = getrlimit(Resource::Nofile);
    // The lowest free number: the client's socket takes it, the server finds none.
    let free = File::open("/dev/null").unwrap().as_raw_fd();
    let tight = Rlimit {
        current: Some(free as u64 + 1),
        ..before
    };
    setrlimit(Resource::Nofile, tight).unwrap();
    let mut late = host.client();
    late.request("GET", "/hello", "");
    host.expect("accept: Too many open files (os error 24)");
    assert_eq!(kept.get("/hello").status, 200, "the loop lives on");

    setrlimit(Resource::Nofile, before).unwrap();
    assert_eq!(late.reply().status, 200);
}
