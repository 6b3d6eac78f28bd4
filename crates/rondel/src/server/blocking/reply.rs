//! `Reply`: how the application answers from a pool's thread.

use super::line::{Answer, Gone, Line, Start};
use crate::server::{files, message};
use rondel_core::clock;
use rondel_ffi::class::{TypeBuilder, Visit, alloc};
use rondel_ffi::err::Builtin;
use rondel_ffi::gil;
use rondel_ffi::method::{self, Args};
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Ref, value};
use rondel_http::FilePart;
use rondel_http::hyper::body::Bytes;
use rondel_http::hyper::ext::ReasonPhrase;
use std::cell::{Cell, OnceCell};
use std::sync::Arc;

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Waiting,
    Started,
    Complete,
    /// Handed to the loop.
    Bounced,
}

/// `_rondel.Reply`
#[derive(Default)]
pub(super) struct Reply {
    line: OnceCell<Arc<Line>>,
    pub(super) stage: Cell<Stage>,
    /// The status given; 0 before.
    pub(super) status: Cell<u16>,
    /// When the request was complete, so that a thread could have it.
    pub(super) submitted: Cell<u64>,
    /// Bytes of the body that were given.
    pub(super) sent: Cell<u64>,
    /// A whole response, after which the handler has nothing to do but to return: one message to the
    /// loop has both.
    pub(super) last: Cell<Option<(Start, Bytes)>>,
}

static CELL: ClassCell = ClassCell::new();

impl Class for Reply {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, _visit: &mut Visit) {}
    fn clear(&self) {}
}

impl Reply {
    fn line(&self) -> PyRes<&Line> {
        let line = self.line.get().map(Arc::as_ref);
        line.ok_or_else(|| Builtin::Runtime.raise("this reply belongs to no request"))
    }

    fn expect(&self, stage: Stage, what: &str) -> PyRes<()> {
        if self.stage.get() == stage {
            return Ok(());
        }
        Err(Builtin::Runtime.raise(&format!("{what} at the wrong time of a response")))
    }
}

pub(super) fn new(line: Arc<Line>) -> PyRes<Own<Reply>> {
    let cell = OnceCell::new();
    let _fresh = cell.set(line);
    let reply = Reply {
        line: cell,
        ..Reply::default()
    };
    alloc(reply, true)
}

fn told(outcome: Result<(), Gone>) -> PyRes<bool> {
    Ok(outcome.is_ok())
}

/// The status and the headers that begin a response.
fn read_head(args: &[Ref<'_>]) -> PyRes<Start> {
    let [status, headers] = args else {
        return Err(Builtin::Type.raise("a status and headers were expected"));
    };
    // A status in words of the application's own is a pair.
    let (number, reason) = match value::item(*status, 0) {
        None => (value::as_i64(*status)?, None),
        Some(number) => (
            value::as_i64(number.borrow())?,
            read_reason(value::item(*status, 1))?,
        ),
    };
    let Ok(code @ 200..=999) = u16::try_from(number) else {
        return Err(Builtin::Value.raise(&format!(
            "response status must be between 200 and 999, got {number}"
        )));
    };
    Ok(Start {
        status: code,
        reason,
        headers: message::text_headers(headers.own())?,
    })
}

fn read_reason(reason: Option<Obj>) -> PyRes<Option<Box<ReasonPhrase>>> {
    let bytes = reason
        .as_ref()
        .and_then(|reason| value::bytes_of(reason.borrow()));
    let Some(bytes) = bytes else {
        return Err(Builtin::Type.raise("a status is a number, or that and a reason in bytes"));
    };
    match ReasonPhrase::try_from(Bytes::copy_from_slice(bytes)) {
        Ok(reason) => Ok(Some(Box::new(reason))),
        Err(_) => Err(Builtin::Value.raise("a status's reason has forbidden bytes")),
    }
}

/// `respond(status, headers, body, last=False)`: the whole response, sent when the handler returns if it is
/// the `last` that it does. False: nobody is there any more.
fn respond(slf: Inst<'_, Reply>, args: Args<'_>) -> PyRes<Obj> {
    slf.expect(Stage::Waiting, "respond()")?;
    let (status, headers, body, last) = match args.positional() {
        [status, headers, body] => (status, headers, body, false),
        [status, headers, body, last] => (status, headers, body, last.truthy()?),
        _ => {
            return Err(Builtin::Type.raise("respond() needs a status, headers and a body"));
        }
    };
    let head = read_head(&[*status, *headers])?;
    let body = message::read_body(*body)?;
    complete(slf, head, body, last).map(Obj::bool)
}

/// The whole response; see [`respond`].
pub(super) fn complete(slf: Inst<'_, Reply>, head: Start, body: Bytes, last: bool) -> PyRes<bool> {
    slf.expect(Stage::Waiting, "respond()")?;
    slf.stage.set(Stage::Complete);
    slf.status.set(head.status);
    slf.sent.set(body.len() as u64);
    if last {
        slf.last.set(Some((head, body)));
        return Ok(!slf.line()?.is_gone());
    }
    told(slf.line()?.answer(Answer::Whole(head, body)))
}

/// `respond_file(status, headers, file, offset, count)`: the whole response, its body the `count` bytes
/// of a file from `offset` on, sent by the system while the thread goes on. Raises OSError or ValueError
/// for a file that cannot be sent so, or has not so many bytes; another answer may be given then.
fn respond_file(slf: Inst<'_, Reply>, args: Args<'_>) -> PyRes<Obj> {
    slf.expect(Stage::Waiting, "respond_file()")?;
    let [status, headers, file, offset, count] = args.positional() else {
        return Err(Builtin::Type
            .raise("respond_file() needs a status, headers, a file, an offset and a count"));
    };
    let part = file_part(*file, *offset, *count)?;
    let head = read_head(&[*status, *headers])?;
    complete_with(slf, head, part).map(Obj::bool)
}

pub(super) fn file_part(file: Ref<'_>, offset: Ref<'_>, count: Ref<'_>) -> PyRes<FilePart> {
    let part = files::part(file, Some(offset), Some(count))?;
    if i64::try_from(part.len()) != Ok(value::as_i64(count)?) {
        return Err(Builtin::Value.raise(&format!("the file has {} bytes there", part.len())));
    }
    Ok(part)
}

/// The whole response, of a file; see [`respond_file`].
pub(super) fn complete_with(slf: Inst<'_, Reply>, head: Start, part: FilePart) -> PyRes<bool> {
    slf.expect(Stage::Waiting, "respond_file()")?;
    slf.stage.set(Stage::Complete);
    slf.status.set(head.status);
    slf.sent.set(part.len());
    told(slf.line()?.answer(Answer::File(head, part)))
}

/// `start(status, headers)`: the head of a response that is sent in parts.
fn start(slf: Inst<'_, Reply>, args: Args<'_>) -> PyRes<Obj> {
    let head = read_head(args.positional())?;
    begin(slf, head).map(Obj::bool)
}

/// See [`start`].
pub(super) fn begin(slf: Inst<'_, Reply>, head: Start) -> PyRes<bool> {
    slf.expect(Stage::Waiting, "start()")?;
    slf.stage.set(Stage::Started);
    slf.status.set(head.status);
    told(slf.line()?.answer(Answer::Start(head)))
}

/// `send(data)`: a part of the body. Waits while the client is behind. False: it has gone.
fn send(slf: Inst<'_, Reply>, data: Ref<'_>) -> PyRes<Obj> {
    part(slf, data).map(Obj::bool)
}

/// See [`send`].
pub(super) fn part(slf: Inst<'_, Reply>, data: Ref<'_>) -> PyRes<bool> {
    slf.expect(Stage::Started, "send()")?;
    // What was sent before: a loop that has nothing for Python to do does not take the GIL for it, and
    // the whole of a long response would stay in memory.
    gil::release_orphans();
    let data = message::read_body(data)?;
    let line = slf.line()?;
    if data.is_empty() {
        return Ok(!line.is_gone());
    }
    slf.sent.set(slf.sent.get() + data.len() as u64);
    told(line.answer(Answer::Chunk(data, true)))
}

/// `finish()`: the end of a response that was sent in parts.
fn finish(slf: Inst<'_, Reply>) -> PyRes<Obj> {
    slf.expect(Stage::Started, "finish()")?;
    slf.stage.set(Stage::Complete);
    told(slf.line()?.answer(Answer::Chunk(Bytes::new(), false))).map(Obj::bool)
}

/// `bounce()`: the request is to be answered on the loop, by the ASGI application.
fn bounce(slf: Inst<'_, Reply>) -> PyRes<Obj> {
    slf.expect(Stage::Waiting, "bounce()")?;
    slf.stage.set(Stage::Bounced);
    Ok(Obj::none())
}

fn gone(slf: Inst<'_, Reply>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.line()?.is_gone()))
}

/// Seconds from then to now: at the head of the handler, what the request has waited for its thread.
fn waited(slf: Inst<'_, Reply>) -> PyRes<Obj> {
    let nanoseconds = clock::now().saturating_sub(slf.submitted.get());
    value::float(nanoseconds as f64 * 1e-9)
}

pub(super) fn build() -> PyRes<Obj> {
    TypeBuilder::<Reply>::new(c"rondel._rondel.Reply")
        .doc(c"How a thread answers a request.")
        .methods([
            method::fast::<Reply, _>(
                c"respond",
                c"respond(status, headers, body, last=False): the whole response; false if the client has gone.",
                respond,
            ),
            method::fast::<Reply, _>(
                c"respond_file",
                c"respond_file(status, headers, file, offset, count): a whole response from a file; \
                  false if the client has gone.",
                respond_file,
            ),
            method::fast::<Reply, _>(
                c"start",
                c"start(status, headers): begin a response in parts; false if the client has gone.",
                start,
            ),
            method::onearg::<Reply, _>(
                c"send",
                c"Send a part of the body; false if the client has gone.",
                send,
            ),
            method::noargs::<Reply, _>(
                c"finish",
                c"End a response in parts; false if the client has gone.",
                finish,
            ),
            method::noargs::<Reply, _>(
                c"bounce",
                c"Have the ASGI application answer on the loop instead.",
                bounce,
            ),
        ])
        .property(method::getter::<Reply, _>(c"gone", gone))
        .property(method::getter::<Reply, _>(c"waited", waited))
        .build()
}
