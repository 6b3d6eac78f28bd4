//! Static files: which are sent, which are not, and what is said of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod parts;
mod places;
mod site;
