//! What Python calls of the recorder: `_record` begins, `_recorded` ends and gives what was recorded.

use super::{begin, finish};
use rondel_ffi::err::Builtin;
use rondel_ffi::method::{self, Args, MethodDef};
use rondel_ffi::{Obj, PyRes, value};

/// `_record(limit, details)`
fn start(args: Args<'_>) -> PyRes<Obj> {
    let [limit, details] = args.positional() else {
        return Err(Builtin::Type.raise("_record() takes a limit and whether details are wanted"));
    };
    let limit = usize::try_from(value::as_i64(*limit)?)
        .map_err(|_| Builtin::Value.raise("the limit must be >= 0"))?;
    if !begin(limit, details.truthy()?) {
        return Err(Builtin::Runtime.raise("a recording is going on already"));
    }
    Ok(Obj::none())
}

/// `_recorded()`: ends it; `(events, notes, lost)`. `events` is bytes of records of the machine's
/// byte order: time (64 bits), subject, other, what, note (32 each).
fn stop(args: Args<'_>) -> PyRes<Obj> {
    if !args.is_empty() {
        return Err(Builtin::Type.raise("_recorded() takes no arguments"));
    }
    let Some(recording) = finish() else {
        return Err(Builtin::Runtime.raise("nothing is being recorded"));
    };
    let mut bytes = Vec::with_capacity(recording.len() * 24);
    recording.tell(|event| {
        bytes.extend_from_slice(&event.at.to_ne_bytes());
        for half in [event.subject, event.other, event.what, event.note] {
            bytes.extend_from_slice(&half.to_ne_bytes());
        }
    });
    let notes = value::list_with(recording.notes.len())?;
    for (i, note) in recording.notes.into_iter().enumerate() {
        value::list_init(notes.borrow(), i, note);
    }
    let lost = value::int(i64::try_from(recording.lost).unwrap_or(i64::MAX))?;
    value::tuple([value::bytes(&bytes)?, notes, lost])
}

pub(in crate::inspect) fn definitions() -> Vec<MethodDef> {
    vec![
        method::function(
            c"_record",
            c"Begin to record what tasks, callbacks and threads do.",
            start,
        ),
        method::function(c"_recorded", c"End the recording and return it.", stop),
    ]
}
