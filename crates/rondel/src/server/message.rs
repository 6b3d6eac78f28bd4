//! ASGI messages: making those that `receive()` gives, reading those that `send()` takes.

use super::cycle::{self, Cycle};
use super::files;
use crate::consts::stock;
use rondel_ffi::err::Builtin;
use rondel_ffi::gil::{GilStatic, ParkedBytes};
use rondel_ffi::{Inst, Obj, PyRes, Raised, Ref, value};
use rondel_http::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use rondel_http::hyper::body::Bytes;
use rondel_http::{Exchange, Flow, SendError};

pub(super) const INTERNAL_ERROR: &[u8] = b"Internal Server Error";

/// Smaller bodies are copied, which costs less than keeping their object for the connection: 3 % less
/// of a request at 4 KiB. At 8 KiB it is 3 % more (64 connections, their bodies not in the caches).
pub(super) const COPY: usize = 8 * 1024;

struct Words {
    type_: Obj,
    status: Obj,
    headers: Obj,
    body: Obj,
    more_body: Obj,
    start: Obj,
    response_body: Obj,
    disconnect: Obj,
    send_file: Obj,
    file: Obj,
    offset: Obj,
    count: Obj,
    trailers: Obj,
    response_trailers: Obj,
    more_trailers: Obj,
    send_path: Obj,
    path: Obj,
    early_hint: Obj,
    links: Obj,
    debug: Obj,
    /// `{"type": "http.request", "body": b"", "more_body": False}`
    request: Obj,
}

static WORDS: GilStatic<Words> = GilStatic::new();

fn words() -> PyRes<&'static Words> {
    if WORDS.get().is_none() {
        let request = value::dict()?;
        let word = value::intern;
        value::dict_set(
            request.borrow(),
            word(c"type")?.borrow(),
            word(c"http.request")?.borrow(),
        )?;
        value::dict_set(
            request.borrow(),
            word(c"body")?.borrow(),
            stock().empty_bytes.borrow(),
        )?;
        value::dict_set(
            request.borrow(),
            word(c"more_body")?.borrow(),
            Obj::bool(false).borrow(),
        )?;
        WORDS.set(Words {
            type_: word(c"type")?,
            status: word(c"status")?,
            headers: word(c"headers")?,
            body: word(c"body")?,
            more_body: word(c"more_body")?,
            start: word(c"http.response.start")?,
            response_body: word(c"http.response.body")?,
            disconnect: word(c"http.disconnect")?,
            send_file: word(c"http.response.zerocopysend")?,
            file: word(c"file")?,
            offset: word(c"offset")?,
            count: word(c"count")?,
            trailers: word(c"trailers")?,
            response_trailers: word(c"http.response.trailers")?,
            more_trailers: word(c"more_trailers")?,
            send_path: word(c"http.response.pathsend")?,
            path: word(c"path")?,
            early_hint: word(c"http.response.early_hint")?,
            links: word(c"links")?,
            debug: word(c"http.response.debug")?,
            request,
        });
    }
    WORDS
        .get()
        .ok_or_else(|| Builtin::Runtime.raise("the server's words are missing"))
}

/// `{"type": "http.request", "body": data, "more_body": more}`
pub(super) fn request(data: &Bytes, more: bool) -> PyRes<Obj> {
    let words = words()?;
    let message = value::dict_copy(words.request.borrow())?;
    if !data.is_empty() {
        value::dict_set(
            message.borrow(),
            words.body.borrow(),
            value::bytes(data)?.borrow(),
        )?;
    }
    if more {
        value::dict_set(
            message.borrow(),
            words.more_body.borrow(),
            Obj::bool(true).borrow(),
        )?;
    }
    Ok(message)
}

/// `{"type": "http.disconnect"}`
pub(super) fn disconnect() -> PyRes<Obj> {
    let words = words()?;
    let message = value::dict()?;
    value::dict_set(
        message.borrow(),
        words.type_.borrow(),
        words.disconnect.borrow(),
    )?;
    Ok(message)
}

/// The headers of our own 500.
pub(super) fn plain_headers() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(1);
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers
}

/// Acts on a message of the application; says whether it should hold back before the next.
pub(super) fn send(cycle: Inst<'_, Cycle>, message: Ref<'_>) -> PyRes<Flow> {
    let words = words()?;
    let exchange = &cycle.local()?.exchange;
    if !value::is_dict(message) {
        return Err(Builtin::Type.raise("an ASGI message must be a dict"));
    }
    let Some(kind) = value::dict_get(message, words.type_.borrow())? else {
        return Err(Builtin::KeyError.raise("type"));
    };
    // Names with dots are not interned, so that a comparison reads them: the likelier one first.
    let is = |word: &Obj| value::str_is(kind, word.borrow());
    let starts = !exchange.is_started() && is(&words.start);
    if !starts && is(&words.response_body) {
        body(cycle, exchange, message)
    } else if starts || is(&words.start) {
        start(cycle, exchange, message)?;
        Ok(Flow::Ready)
    } else if is(&words.send_file) {
        send_file(cycle, exchange, message, words)
    } else if is(&words.response_trailers) {
        trailers(cycle, exchange, message, words)
    } else if is(&words.send_path) {
        send_path(cycle, exchange, message, words)
    } else if is(&words.early_hint) {
        early_hint(cycle, exchange, message, words)?;
        Ok(Flow::Ready)
    } else if is(&words.debug) {
        // For test clients, and never offered: what an application tells all the same is nobody's.
        Ok(Flow::Ready)
    } else {
        let text = value::repr(kind)?;
        Err(Builtin::Runtime.raise(&format!(
            "Unexpected ASGI message {text}: an http application sends 'http.response.start' and \
             'http.response.body' (or 'http.response.zerocopysend')"
        )))
    }
}

/// Acts on the message that starts a response.
pub(super) fn start(cycle: Inst<'_, Cycle>, exchange: &Exchange, message: Ref<'_>) -> PyRes<()> {
    let words = words()?;
    let Some(status) = value::dict_get(message, words.status.borrow())? else {
        return Err(Builtin::KeyError.raise("status"));
    };
    let status = value::as_i64(status)?;
    let given = value::dict_get(message, words.headers.borrow())?;
    // Most messages have nothing else: they are not searched for it.
    let usual = if given.is_some() { 3 } else { 2 };
    let trailing = value::len(message)? > usual
        && value::dict_get(message, words.trailers.borrow())?.map_or(Ok(false), Ref::truthy)?;
    let headers = headers(cycle, given)?;
    let code = u16::try_from(status).unwrap_or(0);
    match exchange.start(code, headers) {
        Ok(()) => {
            cycle.status.set(code);
            if trailing {
                exchange.promise_trailers();
            }
            Ok(())
        }
        Err(error) => refuse(error),
    }
}

/// A message's headers; an empty map if it has none.
pub(super) fn headers(cycle: Inst<'_, Cycle>, given: Option<Ref<'_>>) -> PyRes<HeaderMap> {
    match given {
        Some(headers) => {
            let spare = cycle.local()?.spare.take().unwrap_or_default();
            read_headers(headers.own(), spare)
        }
        None => Ok(HeaderMap::new()),
    }
}

/// Acts on the message that has a part of a response's body.
pub(super) fn body(cycle: Inst<'_, Cycle>, exchange: &Exchange, message: Ref<'_>) -> PyRes<Flow> {
    let words = words()?;
    let data = match value::dict_get(message, words.body.borrow())? {
        Some(data) => read_body(data)?,
        None => Bytes::new(),
    };
    let more = more_body(message, words)?;
    let then = more || exchange.owes_trailers();
    sent(cycle, exchange.send_chunk(data, more), then)
}

/// The extension *HTTP trailers*: what follows the body, in one message or several.
fn trailers(
    cycle: Inst<'_, Cycle>,
    exchange: &Exchange,
    message: Ref<'_>,
    words: &Words,
) -> PyRes<Flow> {
    let gathered = &cycle.local()?.trailers;
    let mut map = gathered.take().map_or_else(HeaderMap::new, |map| *map);
    if let Some(headers) = value::dict_get(message, words.headers.borrow())? {
        map = read_headers(headers.own(), map)?;
    }
    let more = value::dict_get(message, words.more_trailers.borrow())?;
    if more.map_or(Ok(false), Ref::truthy)? {
        gathered.set(Some(Box::new(map)));
        return Ok(Flow::Ready);
    }
    let ended = exchange.finish_with(map).map(|()| Flow::Ready);
    sent(cycle, ended, false)
}

/// The extension *zero copy send*: a file, or a part of one, as a part of the body.
fn send_file(
    cycle: Inst<'_, Cycle>,
    exchange: &Exchange,
    message: Ref<'_>,
    words: &Words,
) -> PyRes<Flow> {
    let Some(file) = value::dict_get(message, words.file.borrow())? else {
        return Err(Builtin::KeyError.raise("file"));
    };
    let given = |word: &Obj| -> PyRes<Option<Ref<'_>>> {
        let found = value::dict_get(message, word.borrow())?;
        Ok(found.filter(|found| !found.is_none()))
    };
    let part = files::part(file, given(&words.offset)?, given(&words.count)?)?;
    let more = more_body(message, words)?;
    let then = more || exchange.owes_trailers();
    sent(cycle, exchange.send_file(part, more), then)
}

/// The extension *path send*: a whole file as the body.
fn send_path(
    cycle: Inst<'_, Cycle>,
    exchange: &Exchange,
    message: Ref<'_>,
    words: &Words,
) -> PyRes<Flow> {
    let Some(path) = value::dict_get(message, words.path.borrow())? else {
        return Err(Builtin::KeyError.raise("path"));
    };
    let part = files::whole(path)?;
    let then = exchange.owes_trailers();
    sent(cycle, exchange.send_file(part, false), then)
}

/// The extension *early hints*: links that the client may look at before the response. Where they are not
/// offered nothing happens, as the extension leaves to servers.
fn early_hint(
    cycle: Inst<'_, Cycle>,
    exchange: &Exchange,
    message: Ref<'_>,
    words: &Words,
) -> PyRes<()> {
    let mut links = Vec::new();
    if let Some(given) = value::dict_get(message, words.links.borrow())? {
        value::for_each(given, |link| {
            let link = link.borrow();
            let Some(bytes) = value::bytes_of(link) else {
                return Err(bad_header("must be bytes", link));
            };
            let link = HeaderValue::from_bytes(bytes)
                .map_err(|_| bad_header("value has forbidden bytes", link))?;
            links.push(link);
            Ok(())
        })?;
    }
    if cycle.local()?.door.scopes.offers_hints(exchange.version()) {
        exchange.hint(&links);
    }
    Ok(())
}

fn more_body(message: Ref<'_>, words: &Words) -> PyRes<bool> {
    value::dict_get(message, words.more_body.borrow())?.map_or(Ok(false), Ref::truthy)
}

/// What became of a part of the body.
fn sent(cycle: Inst<'_, Cycle>, sent: Result<Flow, SendError>, more: bool) -> PyRes<Flow> {
    let flow = match sent {
        Ok(flow) => flow,
        Err(error) => {
            refuse(error)?;
            Flow::Ready
        }
    };
    if !more {
        cycle::response_complete(cycle)?;
    }
    Ok(flow)
}

/// A client that has gone is no error of the application: what it still sends is dropped (ASGI 2.3).
fn refuse(error: SendError) -> PyRes<()> {
    match error {
        SendError::Gone => Ok(()),
        other => Err(Builtin::Runtime.raise(&other.to_string())),
    }
}

pub(super) fn read_body(data: Ref<'_>) -> PyRes<Bytes> {
    match value::bytes_of(data) {
        Some(bytes) if bytes.len() < COPY => Ok(Bytes::copy_from_slice(bytes)),
        Some(_) => match ParkedBytes::new(data.own()) {
            Some(parked) => Ok(Bytes::from_owner(parked)),
            None => Ok(Bytes::new()),
        },
        None => {
            let copied = value::to_bytes(data)?;
            Ok(Bytes::copy_from_slice(
                value::bytes_of(copied.borrow()).unwrap_or_default(),
            ))
        }
    }
}

fn bad_header(reason: &str, part: Ref<'_>) -> Raised {
    match value::repr(part) {
        Ok(text) => Builtin::Value.raise(&format!("response header {reason}: {text}")),
        Err(raised) => raised,
    }
}

/// `[(name, value), …]`: any iterable of pairs of bytes.
fn read_headers(headers: Obj, map: HeaderMap) -> PyRes<HeaderMap> {
    header_map(headers, map, Ok)
}

/// The same, of pairs of text or bytes.
pub(super) fn text_headers(headers: Obj) -> PyRes<HeaderMap> {
    header_map(headers, HeaderMap::with_capacity(8), |part| {
        if value::is_str(part.borrow()) {
            value::latin1(part.borrow())
        } else {
            Ok(part)
        }
    })
}

fn header_map(
    headers: Obj,
    mut map: HeaderMap,
    encoded: impl Fn(Obj) -> PyRes<Obj>,
) -> PyRes<HeaderMap> {
    value::for_each(headers.borrow(), |pair| {
        let pair = pair.borrow();
        let (Some(name), Some(content)) = (value::item(pair, 0), value::item(pair, 1)) else {
            return Err(bad_header("must be a pair of bytes", pair));
        };
        let (name, content) = (encoded(name)?, encoded(content)?);
        let (Some(name_bytes), Some(content_bytes)) = (
            value::bytes_of(name.borrow()),
            value::bytes_of(content.borrow()),
        ) else {
            return Err(bad_header("must be a pair of bytes", pair));
        };
        let header = HeaderName::from_bytes(name_bytes)
            .map_err(|_| bad_header("name is not a token", name.borrow()))?;
        let text = HeaderValue::from_bytes(content_bytes)
            .map_err(|_| bad_header("value has forbidden bytes", content.borrow()))?;
        map.append(header, text);
        Ok(())
    })?;
    Ok(map)
}
