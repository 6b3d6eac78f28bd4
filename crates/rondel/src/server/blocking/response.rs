//! `WsgiResponse`: a WSGI application's response (PEP 3333), from `start_response` to its last piece.
//!
//! Nothing is sent before the first piece of the body that is not empty, or its end, so that
//! `start_response` with `exc_info` can still replace the head. Status and headers are read at once, so
//! that errors are raised where the mistake is. What the application returned is iterated in Python
//! (`rondel.server.wsgi`), but for a list of one piece, which is all there is.
//!
//! With the GIL, on the thread that runs the application.

use super::line::Start;
use super::reply::{self, Reply};
use rondel_ffi::class::{ObjCell, TypeBuilder, Visit, alloc};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::method::{self, Args, BoundDef, MethodDef};
use rondel_ffi::{Class, ClassCell, Inst, Obj, PyRes, Raised, Ref, call, value};
use rondel_http::http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use rondel_http::http::{Method, StatusCode};
use rondel_http::hyper::body::Bytes;
use rondel_http::hyper::ext::ReasonPhrase;
use std::cell::{Cell, RefCell};
use std::sync::OnceLock;

/// `_rondel.WsgiResponse`
#[derive(Default)]
pub(super) struct Response {
    /// The request's `Reply`, or what somebody has put around it.
    reply: ObjCell,
    /// The request was a HEAD: a body is dropped, whatever its length.
    bodyless: Cell<bool>,
    /// The status given; 0 before.
    code: Cell<u16>,
    /// What was given, until it is sent.
    start: RefCell<Option<Start>>,
    /// The same for what is around a reply: status and headers.
    status: ObjCell,
    headers: ObjCell,
    /// Bytes that the declared length leaves; None where none was declared.
    left: Cell<Option<u64>>,
    /// The head was sent.
    sent: Cell<bool>,
}

static CELL: ClassCell = ClassCell::new();

impl Class for Response {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.reply);
        visit.cell(&self.status);
        visit.cell(&self.headers);
    }
    fn clear(&self) {
        self.reply.set(None);
        self.status.set(None);
        self.headers.set(None);
    }
}

impl Response {
    fn has_no_body(&self) -> bool {
        self.bodyless.get() || matches!(self.code.get(), 204 | 304)
    }

    /// What begins the response, to be sent now.
    fn begin(&self) -> PyRes<Option<Start>> {
        if self.code.get() == 0 {
            return Err(
                Builtin::Assertion.raise("the application sent a body before start_response()")
            );
        }
        self.sent.set(true);
        Ok(self.start.take())
    }

    fn reply(&self) -> PyRes<Obj> {
        let reply = self.reply.get();
        reply.ok_or_else(|| Builtin::Runtime.raise("this response belongs to no request"))
    }
}

// ------------------------------------------------------------------------- the application's side

/// `start_response(status, headers, exc_info=None)`: PEP 3333's.
fn start_response(slf: Inst<'_, Response>, args: Args<'_>) -> PyRes<Obj> {
    let (status, headers, exc_info) = match args.positional() {
        [status, headers] if args.keyword_count() == 0 => (*status, *headers, None),
        _ => {
            let names = [
                value::intern(c"status")?,
                value::intern(c"headers")?,
                value::intern(c"exc_info")?,
            ];
            let [status, headers, exc_info] =
                args.bind("start_response", names.each_ref().map(Obj::borrow), 2, 3)?;
            let (Some(status), Some(headers)) = (status, headers) else {
                return Err(Builtin::Type.raise("start_response() needs a status and headers"));
            };
            (status, headers, exc_info)
        }
    };
    let error = match exc_info {
        Some(error) if error.truthy()? => Some(error),
        _ => None,
    };
    if let Some(error) = error {
        if slf.sent.get() {
            return Err(raise_again(error));
        }
    } else if slf.code.get() != 0 {
        return Err(Builtin::Assertion.raise("start_response() was called twice, without exc_info"));
    }
    let (code, reason) = read_status(status)?;
    let (map, left) = read_headers(headers)?;
    if slf.reply()?.borrow().exact::<Reply>().is_none() {
        let said = value::int(i64::from(code))?;
        slf.status.set(Some(match &reason {
            None => said,
            Some(reason) => value::tuple([said, value::bytes(reason.as_bytes())?])?,
        }));
        slf.headers.set(Some(headers.own()));
    }
    let start = Start {
        status: code,
        reason,
        headers: map,
    };
    slf.start.replace(Some(start));
    slf.code.set(code);
    slf.left.set(left);
    static WRITE: OnceLock<BoundDef> = OnceLock::new();
    let def = WRITE.get_or_init(|| BoundDef::new(write_def()));
    method::bind(def, slf.obj())
}

/// What `exc_info` has, when it is too late for another head.
#[cold]
fn raise_again(exc_info: Ref<'_>) -> Raised {
    let Some(error) = value::item(exc_info, 1).filter(|error| error.borrow().is_exception()) else {
        return Builtin::Assertion.raise("the response was begun before");
    };
    let traceback = value::item(exc_info, 2);
    if let Some(traceback) = traceback.filter(|one| value::is_traceback(one.borrow())) {
        err::set_traceback(error.borrow(), Some(traceback.borrow()));
    }
    err::raise_instance(error.borrow())
}

/// The code that `"200 OK"` says, and its words unless they are the usual ones.
fn read_status(status: Ref<'_>) -> PyRes<(u16, Option<Box<ReasonPhrase>>)> {
    if !value::is_str(status) {
        let kind = value::type_name(status);
        return Err(Builtin::Type.raise(&format!("the status must be a str, not {kind}")));
    }
    let wrong = |how: &str| {
        let shown = value::repr(status)?;
        Err(Builtin::Value.raise(&format!("the status {how}: {shown}")))
    };
    let Some(text) = latin1(status)? else {
        return wrong("is not latin-1");
    };
    let (number, reason) = match text.iter().position(|byte| *byte == b' ') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (&text[..], &b""[..]),
    };
    let code = match number {
        [a @ b'2'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
            100 * u16::from(a - b'0') + 10 * u16::from(b - b'0') + u16::from(c - b'0')
        }
        _ => return wrong("must begin with a code from 200 to 999"),
    };
    let usual = StatusCode::from_u16(code)
        .ok()
        .and_then(|code| code.canonical_reason());
    if usual.is_some_and(|usual| usual.as_bytes() == reason) {
        return Ok((code, None));
    }
    match ReasonPhrase::try_from(Bytes::copy_from_slice(reason)) {
        Ok(reason) => Ok((code, Some(Box::new(reason)))),
        Err(_) => wrong("has control characters"),
    }
}

/// The headers, and the declared length.
fn read_headers(headers: Ref<'_>) -> PyRes<(HeaderMap, Option<u64>)> {
    if !value::is_list(headers) {
        let kind = value::type_name(headers);
        return Err(Builtin::Type.raise(&format!("the headers must be a list, not {kind}")));
    }
    let mut map = HeaderMap::with_capacity(8);
    let mut length = None;
    let mut at = 0;
    while let Some(pair) = value::item(headers, at) {
        at += 1;
        let pair = pair.borrow();
        let (Some(name), Some(content), None) = (
            value::item(pair, 0),
            value::item(pair, 1),
            value::item(pair, 2),
        ) else {
            let shown = value::repr(pair)?;
            return Err(Builtin::Value.raise(&format!("a header is a name and a value: {shown}")));
        };
        let name = read_name(name.borrow())?;
        let content = read_value(content.borrow(), &name)?;
        if name == CONTENT_LENGTH {
            let number = (content.as_bytes().iter().all(u8::is_ascii_digit))
                .then(|| content.to_str().ok()?.parse::<u64>().ok())
                .flatten();
            if length.is_some() || number.is_none() {
                let shown = String::from_utf8_lossy(content.as_bytes());
                return Err(Builtin::Value.raise(&format!(
                    "the Content-Length is no single number: '{shown}'"
                )));
            }
            length = number;
        }
        map.append(name, content);
    }
    Ok((map, length))
}

/// A header's name, if an application may set it.
fn read_name(name: Ref<'_>) -> PyRes<HeaderName> {
    if !value::is_str(name) {
        let kind = value::type_name(name);
        return Err(Builtin::Type.raise(&format!("a header's name must be a str, not {kind}")));
    }
    let known = match latin1(name)? {
        Some(text) => HeaderName::from_bytes(&text).ok(),
        None => None,
    };
    let Some(known) = known else {
        let shown = value::repr(name)?;
        return Err(Builtin::Value.raise(&format!("not a header's name: {shown}")));
    };
    if is_hop_by_hop(known.as_str()) {
        let name = value::str_text(name)?;
        return Err(Builtin::Value.raise(&format!(
            "{name} is a hop-by-hop header, which only the server may set"
        )));
    }
    Ok(known)
}

/// RFC 9110, section 7.6.1, and RFC 2616, section 13.5.1, which the PEP goes by.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "trailers"
            | "transfer-encoding"
            | "upgrade"
    )
}

fn read_value(content: Ref<'_>, name: &HeaderName) -> PyRes<HeaderValue> {
    if !value::is_str(content) {
        let kind = value::type_name(content);
        return Err(Builtin::Type.raise(&format!("the value of {name} must be a str, not {kind}")));
    }
    let wrong = |text: String| {
        let shown = value::repr(content)?;
        Err(Builtin::Value.raise(&format!("{text}: {shown}")))
    };
    match latin1(content)? {
        None => wrong(format!("the value of {name} is not latin-1")),
        Some(text) => match HeaderValue::from_bytes(&text) {
            Ok(value) => Ok(value),
            Err(_) => wrong(format!("the header {name} has control characters")),
        },
    }
}

/// A text's bytes in latin-1, if it has only those.
fn latin1(text: Ref<'_>) -> PyRes<Option<std::borrow::Cow<'_, [u8]>>> {
    match value::utf8_of(text) {
        Ok(bytes) if bytes.is_ascii() => return Ok(Some(bytes.into())),
        Ok(_) => {}
        // A lone surrogate.
        Err(raised) => {
            raised.clear();
            return Ok(None);
        }
    }
    match value::latin1(text) {
        Ok(encoded) => Ok(value::bytes_of(encoded.borrow()).map(|bytes| bytes.to_vec().into())),
        Err(raised) => {
            raised.clear();
            Ok(None)
        }
    }
}

/// `write(data)`: sends a piece of the body now; waits while the client is behind.
fn write(slf: Inst<'_, Response>, data: Ref<'_>) -> PyRes<Obj> {
    let data = piece_of(data)?;
    let len = value::bytes_of(data.borrow()).map_or(0, <[u8]>::len) as u64;
    if len == 0 {
        return Ok(Obj::none());
    }
    if slf.left.get().is_some_and(|left| len > left) && !slf.has_no_body() {
        return Err(Builtin::Assertion.raise("write() past the response's Content-Length"));
    }
    if !send_piece(slf, data.borrow())? {
        let gone = of_python(c"ClientGone")?;
        return Err(err::raise_str(gone.borrow(), "the client has gone"));
    }
    Ok(Obj::none())
}

// ------------------------------------------------------------------------------ the server's side

/// `send(result)`: sends what the application returned if that is all there is, a list of one piece;
/// whether it was that.
fn send(slf: Inst<'_, Response>, result: Ref<'_>) -> PyRes<Obj> {
    if slf.sent.get() || !value::is_plain_sequence(result) || value::item(result, 1).is_some() {
        return Ok(Obj::bool(false));
    }
    match value::item(result, 0) {
        None => Ok(Obj::bool(false)),
        Some(data) => {
            send_whole(slf, data.borrow(), true)?;
            Ok(Obj::bool(true))
        }
    }
}

/// `whole(data)`: sends the only piece, of which the declared length is that of the body.
fn whole(slf: Inst<'_, Response>, data: Ref<'_>) -> PyRes<Obj> {
    send_whole(slf, data, false)?;
    Ok(Obj::none())
}

fn send_whole(slf: Inst<'_, Response>, data: Ref<'_>, last: bool) -> PyRes<()> {
    let data = piece_of(data)?;
    let len = value::bytes_of(data.borrow()).map_or(0, <[u8]>::len) as u64;
    let left = slf.left.get().filter(|_| !slf.has_no_body());
    if left.is_some_and(|left| len < left) && slf.code.get() != 0 {
        return Err(too_short(left.unwrap_or(0) - len));
    }
    let start = slf.begin()?;
    let reply = slf.reply()?;
    match (reply.borrow().exact::<Reply>(), start) {
        (Some(reply), Some(start)) => {
            let mut body = crate::server::message::read_body(data.borrow())?;
            if let Some(left) = left {
                body.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            }
            reply::complete(reply, start, body, last).map(drop)
        }
        _ => {
            let bytes = value::bytes_of(data.borrow()).unwrap_or_default();
            let kept = left.map_or(bytes.len(), |left| bytes.len().min(left as usize));
            let body = value::bytes(&bytes[..kept])?;
            around(slf, c"respond", &[body.borrow(), Obj::bool(last).borrow()]).map(drop)
        }
    }
}

/// `piece(data)`: sends a piece; whether the client is still there.
fn piece(slf: Inst<'_, Response>, data: Ref<'_>) -> PyRes<Obj> {
    send_piece(slf, data).map(Obj::bool)
}

fn send_piece(slf: Inst<'_, Response>, data: Ref<'_>) -> PyRes<bool> {
    let reply = slf.reply()?;
    let native = reply.borrow().exact::<Reply>();
    if !slf.sent.get() {
        let begun = match (native, slf.begin()?) {
            (Some(reply), Some(start)) => reply::begin(reply, start)?,
            _ => around(slf, c"start", &[])?,
        };
        if !begun {
            return Ok(false);
        }
    }
    if let Some(left) = slf.left.get() {
        let len = value::len(data)? as u64;
        slf.left.set(Some(left.saturating_sub(len)));
    }
    match native {
        Some(reply) => reply::part(reply, data),
        None => call_reply(slf, c"send", &[data]),
    }
}

/// `end()`: all pieces were sent.
fn end(slf: Inst<'_, Response>) -> PyRes<Obj> {
    let reply = slf.reply()?;
    let name = value::intern(c"gone")?;
    if call::getattr(reply.borrow(), name.borrow())?
        .borrow()
        .truthy()?
    {
        return Ok(Obj::none());
    }
    if let Some(left) = slf
        .left
        .get()
        .filter(|left| *left > 0 && !slf.has_no_body())
    {
        return Err(too_short(left));
    }
    if slf.sent.get() {
        call_reply(slf, c"finish", &[])?;
        return Ok(Obj::none());
    }
    match (reply.borrow().exact::<Reply>(), slf.begin()?) {
        (Some(reply), Some(start)) => reply::complete(reply, start, Bytes::new(), false)?,
        _ => around(slf, c"respond", &[value::bytes(b"")?.borrow()])?,
    };
    Ok(Obj::none())
}

/// `file(fd, offset, count)`: has the system send a file as the whole body. Raises OSError or ValueError,
/// with nothing sent, if that can't be.
fn file(slf: Inst<'_, Response>, args: Args<'_>) -> PyRes<Obj> {
    let [fd, offset, count] = args.positional() else {
        return Err(Builtin::Type.raise("file() needs a descriptor, an offset and a count"));
    };
    let given = (*fd, *offset, *count);
    let reply = slf.reply()?;
    match reply.borrow().exact::<Reply>() {
        Some(reply) => {
            let part = reply::file_part(given.0, given.1, given.2)?;
            if let Some(start) = slf.begin()? {
                reply::complete_with(reply, start, part)?;
            }
        }
        None => {
            around(slf, c"respond_file", &[given.0, given.1, given.2])?;
            slf.sent.set(true);
        }
    }
    Ok(Obj::none())
}

/// Calls a method of what is around the reply, with the head in front.
fn around(slf: Inst<'_, Response>, name: &std::ffi::CStr, args: &[Ref<'_>]) -> PyRes<bool> {
    let (Some(status), Some(headers)) = (slf.status.get(), slf.headers.get()) else {
        return Err(Builtin::Assertion.raise("the application sent a body before start_response()"));
    };
    let mut all = vec![status.borrow(), headers.borrow()];
    all.extend_from_slice(args);
    call_reply(slf, name, &all)
}

fn call_reply(slf: Inst<'_, Response>, name: &std::ffi::CStr, args: &[Ref<'_>]) -> PyRes<bool> {
    let reply = slf.reply()?;
    let bound = call::getattr(reply.borrow(), value::intern(name)?.borrow())?;
    call::call(bound.borrow(), args)?.borrow().truthy()
}

/// A piece of a body as `bytes`; raises TypeError for what is none.
fn piece_of(data: Ref<'_>) -> PyRes<Obj> {
    if value::is_bytes_exact(data) {
        return Ok(data.own());
    }
    call::call1(of_python(c"to_bytes")?.borrow(), data)
}

#[cold]
fn of_python(name: &std::ffi::CStr) -> PyRes<Obj> {
    let module = call::import(c"rondel.server.wsgi")?;
    call::getattr(module.borrow(), value::intern(name)?.borrow())
}

#[cold]
fn too_short(missing: u64) -> Raised {
    Builtin::Runtime.raise(&format!(
        "the response's body is {missing} bytes short of its Content-Length"
    ))
}

fn started(slf: Inst<'_, Response>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.code.get() != 0))
}

fn sent(slf: Inst<'_, Response>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.sent.get()))
}

/// Bytes that are missing; None where that is not known, or of no matter.
fn left(slf: Inst<'_, Response>) -> PyRes<Obj> {
    match slf.left.get().filter(|_| !slf.has_no_body()) {
        Some(left) => value::int(i64::try_from(left).unwrap_or(i64::MAX)),
        None => Ok(Obj::none()),
    }
}

fn bodyless(slf: Inst<'_, Response>) -> PyRes<Obj> {
    Ok(Obj::bool(slf.has_no_body()))
}

fn write_def() -> MethodDef {
    method::onearg::<Response, _>(
        c"write",
        c"Send a piece of the body now. Raises AssertionError past the declared length, \
          ConnectionAbortedError if the client has gone.",
        write,
    )
}

fn start_def() -> MethodDef {
    method::fast::<Response, _>(
        c"start_response",
        c"start_response(status, headers, exc_info=None): PEP 3333's.",
        start_response,
    )
}

/// `wsgi_response(reply, method)`: the response, and its `start_response`.
fn make(args: Args<'_>) -> PyRes<Obj> {
    let [reply, method] = args.positional() else {
        return Err(Builtin::Type.raise("wsgi_response() needs a reply and a method"));
    };
    let response = Response {
        reply: ObjCell::new(Some(reply.own())),
        bodyless: Cell::new(value::utf8_of(*method)? == Method::HEAD.as_str().as_bytes()),
        ..Response::default()
    };
    let response = alloc(response, true)?;
    static START: OnceLock<BoundDef> = OnceLock::new();
    let def = START.get_or_init(|| BoundDef::new(start_def()));
    let start = method::bind(def, response.obj())?;
    value::tuple([response.into_obj(), start])
}

pub(super) fn build() -> PyRes<Obj> {
    TypeBuilder::<Response>::new(c"rondel._rondel.WsgiResponse")
        .doc(c"A WSGI application's response.")
        .methods([
            start_def(),
            write_def(),
            method::onearg::<Response, _>(
                c"send",
                c"Send what the application returned, if it is a list of one piece; whether it was.",
                send,
            ),
            method::onearg::<Response, _>(c"whole", c"Send the only piece of the body.", whole),
            method::onearg::<Response, _>(
                c"piece",
                c"Send a piece of the body; false if the client has gone.",
                piece,
            ),
            method::noargs::<Response, _>(c"end", c"All pieces were sent.", end),
            method::fast::<Response, _>(
                c"file",
                c"file(fd, offset, count): have the system send a file. Raises OSError, ValueError.",
                file,
            ),
        ])
        .property(method::getter::<Response, _>(c"started", started))
        .property(method::getter::<Response, _>(c"sent", sent))
        .property(method::getter::<Response, _>(c"left", left))
        .property(method::getter::<Response, _>(c"bodyless", bodyless))
        .build()
}

pub(super) fn definition() -> MethodDef {
    method::function(
        c"wsgi_response",
        c"wsgi_response(reply, method): a WSGI application's response, and its start_response.",
        make,
    )
}
