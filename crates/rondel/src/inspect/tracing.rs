//! Recordings that other processes ask for (`rondel trace PID`).
//!
//! ```text
//! {"ask": "record 5"}     begins one of at most so many seconds: {"v": 1, "recording": true}
//! {"ask": "recorded"}     ends it: {"v": 1, "events": [..], "notes": [..], "lost": N}
//! ```
//! `events` is flat: time, subject, other, what, note of each (`record::What`). A task is told by the
//! number that it has in a snapshot. A note is a string, or an
//! object: `{"code": [FILE, NAME]}`, `{"type": NAME}`, `{"place": [FILE, LINE, NAME, WHAT]}`.
//!
//! Who has begun one and does not come back for it does no harm: it is turned off when the connection ends
//! that holds it ([`left`]), and in any case some time after its seconds ([`expire`]).

use super::VERSION;
use super::json::{Object, string};
use super::record::{self, Recording};
use crate::consts::names;
use rondel_core::clock::{self, SECOND};
use rondel_ffi::{Obj, Ref, call, value};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const LIMIT: usize = 1_000_000;
/// Seconds that a recording lasts at most, and that its client has to come back for it.
const LONGEST: f64 = 3600.0;
const GRACE: u64 = 30 * SECOND;

/// When the recording that another process has begun is turned off; 0 if there is none.
static DEADLINE: AtomicU64 = AtomicU64::new(0);

/// The client who holds it, by number; 0 if nobody does.
static HOLDER: AtomicU64 = AtomicU64::new(0);

/// The seconds of the question, if it is one to begin.
fn seconds_of(ask: &str) -> Option<f64> {
    let seconds: f64 = ask.strip_prefix("record ")?.parse().ok()?;
    (seconds > 0.0 && seconds <= LONGEST).then_some(seconds)
}

pub(super) fn knows(ask: &str) -> bool {
    ask == "recorded" || seconds_of(ask).is_some()
}

/// How long the recording that begins by this question goes on at most.
pub(super) fn longest(ask: &str) -> Option<Duration> {
    Some(Duration::from_secs_f64(seconds_of(ask)?) + Duration::from_nanos(GRACE))
}

/// The answer; `holder`: who holds the recording that begins by it. With the GIL held.
pub(super) fn answer(ask: &str, holder: Option<u64>) -> String {
    match longest(ask) {
        Some(longest) => begin(longest, holder),
        None => end(),
    }
}

fn begin(longest: Duration, holder: Option<u64>) -> String {
    if !record::begin(LIMIT, true) {
        return refusal("busy", "a recording is going on already");
    }
    let longest = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    HOLDER.store(holder.unwrap_or(0), Ordering::Relaxed);
    DEADLINE.store(clock::now().saturating_add(longest), Ordering::Relaxed);
    let mut out = String::new();
    let mut object = Object::begin(&mut out);
    object.number("v", VERSION);
    object.number("recording", true);
    object.end();
    out
}

fn end() -> String {
    // One that the program has begun itself is its own.
    if DEADLINE.swap(0, Ordering::Relaxed) == 0 {
        return refusal("none", "nothing is being recorded");
    }
    match record::finish() {
        Some(recording) => told(&recording),
        None => refusal("none", "nothing is being recorded"),
    }
}

fn refusal(kind: &str, message: &str) -> String {
    let mut out = String::new();
    let mut object = Object::begin(&mut out);
    object.number("v", VERSION);
    object.text("error", kind);
    object.text("message", message);
    object.end();
    out
}

/// Turns a recording off that nobody has come back for. Needs no GIL.
pub(super) fn expire() {
    let deadline = DEADLINE.load(Ordering::Relaxed);
    if deadline != 0 && clock::coarse() > deadline {
        abandon();
    }
}

/// A client is gone: what it holds is turned off. Needs no GIL.
pub(super) fn left(client: u64) {
    let held = HOLDER.compare_exchange(client, 0, Ordering::Relaxed, Ordering::Relaxed);
    if held.is_ok() {
        abandon();
    }
}

/// Clients' connections are cut, for a fork, and may be made again: what they hold goes on for its time.
pub(super) fn unheld() {
    HOLDER.store(0, Ordering::Relaxed);
}

fn abandon() {
    // Unless somebody has ended it: then it is over, or another that is the program's own.
    if DEADLINE.swap(0, Ordering::Relaxed) != 0 {
        record::abandon();
    }
}

/// In a forked child: nothing is recorded there.
pub(super) fn forked() {
    DEADLINE.store(0, Ordering::Relaxed);
    record::abandon();
}

fn told(recording: &Recording) -> String {
    let mut out = String::with_capacity(recording.len() * 56 + 4096);
    let mut object = Object::begin(&mut out);
    object.number("v", VERSION);
    object.number("lost", recording.lost);
    let at = object.at("notes");
    at.push('[');
    for (i, note) in recording.notes.iter().enumerate() {
        if i > 0 {
            at.push(',');
        }
        describe(at, note.borrow());
    }
    at.push(']');
    let at = object.at("events");
    at.push('[');
    let mut comma = "";
    recording.tell(|event| {
        let (time, subject, other) = (event.at, event.subject, event.other);
        let (what, note) = (event.what, event.note);
        let _infallible = write!(at, "{comma}{time},{subject},{other},{what},{note}");
        comma = ",";
    });
    at.push(']');
    object.end();
    out
}

/// A note: a name, code, a type, or a place.
fn describe(out: &mut String, note: Ref<'_>) {
    if value::is_str(note) {
        return string(out, &value::str_text(note).unwrap_or_default());
    }
    if value::is_tuple(note) {
        let part = |i| value::item(note, i).unwrap_or_else(Obj::none);
        let (code, line, awaited) = (part(0), part(1), part(2));
        let line = value::as_i64(line.borrow()).unwrap_or_default();
        out.push_str("{\"place\":[");
        string(out, &text(code.borrow(), names().co_filename.borrow()));
        let _infallible = write!(out, ",{line},");
        string(out, &text(code.borrow(), names().co_qualname.borrow()));
        out.push(',');
        if awaited.is_none() {
            out.push_str("\"\"");
        } else {
            describe(out, awaited.borrow());
        }
        return out.push_str("]}");
    }
    if value::type_name(note) == "code" {
        out.push_str("{\"code\":[");
        string(out, &text(note, names().co_filename.borrow()));
        out.push(',');
        string(out, &text(note, names().co_qualname.borrow()));
        return out.push_str("]}");
    }
    out.push_str("{\"type\":");
    string(out, &text(note, names().dunder_name.borrow()));
    out.push('}');
}

/// A str attribute of a code object or a type.
fn text(obj: Ref<'_>, name: Ref<'_>) -> String {
    let found = call::getattr(obj, name).and_then(|found| value::str_text(found.borrow()));
    found.unwrap_or_else(|raised| {
        raised.clear();
        String::new()
    })
}
