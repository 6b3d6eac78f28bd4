//! ASGI messages: making those that `receive()` gives, reading those that `send()` takes.

use super::cycle::{self, Cycle};
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
const COPY: usize = 8 * 1024;

struct Words {
    type_: Obj,
    status: Obj,
    headers: Obj,
    body: Obj,
    more_body: Obj,
    start: Obj,
    response_body: Obj,
    disconnect: Obj,
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
        body(cycle, exchange, message, words)
    } else if starts || is(&words.start) {
        start(cycle, exchange, message, words)?;
        Ok(Flow::Ready)
    } else {
        let text = value::repr(kind)?;
        Err(Builtin::Runtime.raise(&format!(
            "Unexpected ASGI message {text}: an http application sends 'http.response.start' and \
             'http.response.body'"
        )))
    }
}

fn start(
    cycle: Inst<'_, Cycle>,
    exchange: &Exchange,
    message: Ref<'_>,
    words: &Words,
) -> PyRes<()> {
    let Some(status) = value::dict_get(message, words.status.borrow())? else {
        return Err(Builtin::KeyError.raise("status"));
    };
    let status = value::as_i64(status)?;
    let headers = match value::dict_get(message, words.headers.borrow())? {
        Some(headers) => {
            let spare = cycle.local()?.spare.take().unwrap_or_default();
            read_headers(headers.own(), spare)?
        }
        None => HeaderMap::new(),
    };
    let code = u16::try_from(status).unwrap_or(0);
    match exchange.start(code, headers) {
        Ok(()) => {
            cycle.status.set(code);
            Ok(())
        }
        Err(error) => refuse(error),
    }
}

fn body(
    cycle: Inst<'_, Cycle>,
    exchange: &Exchange,
    message: Ref<'_>,
    words: &Words,
) -> PyRes<Flow> {
    let data = match value::dict_get(message, words.body.borrow())? {
        Some(data) => read_body(data)?,
        None => Bytes::new(),
    };
    let more =
        value::dict_get(message, words.more_body.borrow())?.map_or(Ok(false), Ref::truthy)?;
    let flow = match exchange.send_chunk(data, more) {
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

fn read_body(data: Ref<'_>) -> PyRes<Bytes> {
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
fn read_headers(headers: Obj, mut map: HeaderMap) -> PyRes<HeaderMap> {
    value::for_each(headers.borrow(), |pair| {
        let pair = pair.borrow();
        let (Some(name), Some(content)) = (value::item(pair, 0), value::item(pair, 1)) else {
            return Err(bad_header("must be a pair of bytes", pair));
        };
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
