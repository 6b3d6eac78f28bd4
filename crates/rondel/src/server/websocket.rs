//! The ASGI side of a WebSocket connection: which messages it may be sent when, and what it receives.
//!
//! ```text
//!                 receive: connect               accept
//!   Connecting ───────────────────► Handshake ─────────────► Open ──close──► Closed
//!                                     │    │
//!                                     │    └ http.response.start ► Denying ─last body─► Refused
//!                                     └ close ► 403 ──────────────────────────────────► Refused
//! ```
//!
//! Until it is accepted a connection is an exchange like any other, and a refusal is a response; from
//! then on it is a [`WebSocket`]. What the messages hold, and what is an error, is the ASGI
//! specification's (*HTTP & WebSocket ASGI Message Format* 2.4), and uvicorn's where that is silent:
//!
//! * `receive()` gives `websocket.disconnect` once the connection has ended, as often as it is asked:
//!   with the peer's code, 1005 if it gave none, 1006 if the connection was lost or never accepted;
//!   after the application's own close with that code.
//! * `send()` on a connection that has ended raises an `OSError`
//!   (`rondel.server.errors.ClientDisconnected`); leaving the application by it is no error.
//! * An application that returns has closed with 1000, one that raises with 1011; before it has
//!   accepted both are answered with 500.
//!
//! With the GIL, on the loop's thread.

use super::access::About;
use super::cycle::{self, Cycle};
use super::door::Door;
use super::message;
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::gil::{GilStatic, ParkedBytes};
use rondel_ffi::{Inst, Obj, PyRes, Raised, Ref, call, value};
use rondel_http::hyper::body::Bytes;
use rondel_http::hyper::header::HeaderValue;
use rondel_http::ws::{Close, Message, Offer, WebSocket, WsPoll};
use rondel_http::{Event, Exchange, Flow, SendError};
use std::cell::{Cell, OnceCell, RefCell};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// `websocket.connect` was not received.
    Connecting,
    Handshake,
    /// The denial response has begun.
    Denying,
    /// The answer was a response, or the application has ended without one.
    Refused,
    Open,
    /// The application has closed.
    Closed,
}

/// One connection as the application has it.
pub(super) struct Socket {
    stage: Cell<Stage>,
    offer: Box<Offer>,
    connection: OnceCell<WebSocket>,
    /// What the application closed with.
    closed: RefCell<Option<Close>>,
}

struct Words {
    type_: Obj,
    text: Obj,
    bytes: Obj,
    code: Obj,
    reason: Obj,
    subprotocol: Obj,
    headers: Obj,
    send: Obj,
    accept: Obj,
    close: Obj,
    denial_start: Obj,
    denial_body: Obj,
    disconnect: Obj,
    connect: Obj,
    /// `{"type": "websocket.receive"}`
    receive: Obj,
}

static WORDS: GilStatic<Words> = GilStatic::new();

fn words() -> PyRes<&'static Words> {
    if WORDS.get().is_none() {
        let word = value::intern;
        let type_ = word(c"type")?;
        let receive = value::dict()?;
        let kind = word(c"websocket.receive")?;
        value::dict_set(receive.borrow(), type_.borrow(), kind.borrow())?;
        WORDS.set(Words {
            type_,
            text: word(c"text")?,
            bytes: word(c"bytes")?,
            code: word(c"code")?,
            reason: word(c"reason")?,
            subprotocol: word(c"subprotocol")?,
            headers: word(c"headers")?,
            send: word(c"websocket.send")?,
            accept: word(c"websocket.accept")?,
            close: word(c"websocket.close")?,
            denial_start: word(c"websocket.http.response.start")?,
            denial_body: word(c"websocket.http.response.body")?,
            disconnect: word(c"websocket.disconnect")?,
            connect: word(c"websocket.connect")?,
            receive,
        });
    }
    WORDS
        .get()
        .ok_or_else(|| Builtin::Runtime.raise("the server's words are missing"))
}

impl Socket {
    pub(super) fn new(offer: Box<Offer>) -> Box<Socket> {
        Box::new(Socket {
            stage: Cell::new(Stage::Connecting),
            offer,
            connection: OnceCell::new(),
            closed: RefCell::new(None),
        })
    }

    // ----------------------------------------------------------------------------- receive

    /// What `receive()` gives; `None` if there is nothing yet.
    pub(super) fn receive(&self, exchange: &Exchange) -> PyRes<Option<Obj>> {
        match (self.stage.get(), self.connection.get()) {
            (Stage::Open, Some(connection)) => match connection.poll_message() {
                WsPoll::Message(message) => received(&message).map(Some),
                WsPoll::Pending => Ok(None),
                WsPoll::Closed(close) => disconnect(&close).map(Some),
            },
            (Stage::Closed, _) => match &*self.closed.borrow() {
                Some(close) => disconnect(close).map(Some),
                None => abnormal().map(Some),
            },
            (Stage::Connecting, _) => {
                self.stage.set(Stage::Handshake);
                let words = words()?;
                let message = value::dict()?;
                let (key, kind) = (words.type_.borrow(), words.connect.borrow());
                value::dict_set(message.borrow(), key, kind)?;
                Ok(Some(message))
            }
            (Stage::Refused, _) => abnormal().map(Some),
            _ if exchange.is_gone() => abnormal().map(Some),
            _ => Ok(None),
        }
    }

    // ----------------------------------------------------------------------------- send

    /// Acts on a message of the application; says whether it should hold back before the next.
    pub(super) fn send(&self, cycle: Inst<'_, Cycle>, message: Ref<'_>) -> PyRes<Flow> {
        let words = words()?;
        let local = cycle.local()?;
        let exchange = &local.exchange;
        if !value::is_dict(message) {
            return Err(Builtin::Type.raise("an ASGI message must be a dict"));
        }
        let Some(kind) = value::dict_get(message, words.type_.borrow())? else {
            return Err(Builtin::KeyError.raise("type"));
        };
        let is = |word: &Obj| value::str_is(kind, word.borrow());
        match (self.stage.get(), self.connection.get()) {
            (Stage::Open, Some(connection)) => {
                if is(&words.send) {
                    return send_data(connection, message, words);
                }
                if is(&words.close) {
                    self.close(connection, message, words)?;
                    cycle::response_complete(cycle)?;
                    return Ok(Flow::Ready);
                }
                unexpected(kind, "expected 'websocket.send' or 'websocket.close'")
            }
            (Stage::Connecting | Stage::Handshake, _) => {
                if is(&words.accept) {
                    self.accept(cycle, exchange, message, words)?;
                    return Ok(Flow::Ready);
                }
                if is(&words.close) {
                    self.refuse(cycle, exchange)?;
                    return Ok(Flow::Ready);
                }
                if is(&words.denial_start) {
                    still_there(exchange)?;
                    message::start(cycle, exchange, message)?;
                    self.stage.set(Stage::Denying);
                    return Ok(Flow::Ready);
                }
                unexpected(
                    kind,
                    "expected 'websocket.accept', 'websocket.close' or 'websocket.http.response.start'",
                )
            }
            (Stage::Denying, _) => {
                if !is(&words.denial_body) {
                    return unexpected(kind, "expected 'websocket.http.response.body'");
                }
                still_there(exchange)?;
                let flow = message::body(cycle, exchange, message)?;
                if exchange.is_complete() {
                    self.stage.set(Stage::Refused);
                }
                Ok(flow)
            }
            _ => unexpected(kind, "the connection was closed before"),
        }
    }

    fn accept(
        &self,
        cycle: Inst<'_, Cycle>,
        exchange: &Exchange,
        message: Ref<'_>,
        words: &Words,
    ) -> PyRes<()> {
        let subprotocol = match given(message, &words.subprotocol)? {
            None => None,
            Some(name) if !value::is_str(name) => {
                return Err(Builtin::Type.raise("subprotocol must be a str"));
            }
            Some(name) => match value::str_text(name)?.as_str() {
                "" => None,
                text => Some(HeaderValue::from_str(text).map_err(|_| {
                    Builtin::Value.raise(&format!("not a name of a subprotocol: {text:?}"))
                })?),
            },
        };
        let headers = message::headers(cycle, given(message, &words.headers)?)?;
        let connection = match exchange.accept(&self.offer, headers, subprotocol) {
            Ok(connection) => connection,
            Err(SendError::Gone) => return Err(client_disconnected()),
            Err(error) => return Err(Builtin::Runtime.raise(&error.to_string())),
        };
        cycle.status.set(self.offer.status().as_u16());
        let _only_once = self.connection.set(connection);
        self.stage.set(Stage::Open);
        Ok(())
    }

    /// `websocket.close` instead of `accept`.
    fn refuse(&self, cycle: Inst<'_, Cycle>, exchange: &Exchange) -> PyRes<()> {
        still_there(exchange)?;
        self.stage.set(Stage::Refused);
        cycle.status.set(403);
        respond(exchange, 403, Bytes::new())?;
        cycle::response_complete(cycle)
    }

    fn close(&self, connection: &WebSocket, message: Ref<'_>, words: &Words) -> PyRes<()> {
        let code = match given(message, &words.code)? {
            None => Close::NORMAL,
            Some(code) => {
                let code = value::as_i64(code)?;
                u16::try_from(code)
                    .ok()
                    .filter(|code| is_sendable(*code))
                    .ok_or_else(|| {
                        Builtin::Value.raise(&format!("not a code to close with: {code}"))
                    })?
            }
        };
        let reason = match given(message, &words.reason)? {
            None => String::new(),
            Some(reason) => value::str_text(reason)?,
        };
        if connection.is_ended() {
            return Err(client_disconnected());
        }
        let close = Close::new(code, reason);
        *self.closed.borrow_mut() = Some(close.clone());
        self.stage.set(Stage::Closed);
        connection.close(close);
        Ok(())
    }

    // ----------------------------------------------------------------------------- the end

    /// The application has ended by itself (`failed`: it raised, which was logged).
    pub(super) fn finish(
        &self,
        cycle: Inst<'_, Cycle>,
        door: &Door,
        failed: bool,
        about: Option<About<'_>>,
    ) -> PyRes<()> {
        let exchange = &cycle.local()?.exchange;
        match (self.stage.get(), self.connection.get()) {
            (Stage::Open, Some(connection)) => {
                let code = if failed {
                    Close::INTERNAL
                } else {
                    Close::NORMAL
                };
                connection.close(Close::new(code, ""));
                // Tasks that it left behind go on; the cycle's tag will be another's.
                connection.detach();
                cycle::on_event(cycle, Event::Gone)?;
            }
            (_, Some(connection)) => {
                connection.detach();
                cycle::on_event(cycle, Event::Gone)?;
            }
            (Stage::Connecting | Stage::Handshake, _) if !exchange.is_gone() => {
                if !failed {
                    let text = "ASGI callable returned without accepting or refusing the WebSocket \
                                connection";
                    door.log_exception(text, None, about);
                }
                cycle.status.set(500);
                respond(exchange, 500, Bytes::from_static(message::INTERNAL_ERROR))?;
            }
            (Stage::Denying, _) if !exchange.is_gone() => {
                if !failed {
                    let text = "ASGI callable returned without completing the response";
                    door.log_exception(text, None, about);
                }
                if exchange.is_started() {
                    exchange.abort();
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the client is gone, or was told all there is: a cancelled application is no surprise.
    pub(super) fn is_over(&self, exchange: &Exchange) -> bool {
        match self.connection.get() {
            Some(connection) => connection.is_ended() || connection.is_closing(),
            None => exchange.is_gone(),
        }
    }
}

/// Whether the application left by the error that tells it of the disconnect.
pub(super) fn is_disconnect(exc: &Obj) -> bool {
    match client_disconnected_class() {
        Ok(class) => err::exception_is(exc.borrow(), class.borrow()),
        Err(raised) => {
            raised.clear();
            false
        }
    }
}

/// Codes that an endpoint may send (RFC 6455, 7.4, and IANA's registry).
fn is_sendable(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

fn given<'a>(message: Ref<'a>, word: &Obj) -> PyRes<Option<Ref<'a>>> {
    let found = value::dict_get(message, word.borrow())?;
    Ok(found.filter(|found| !found.is_none()))
}

fn send_data(connection: &WebSocket, message: Ref<'_>, words: &Words) -> PyRes<Flow> {
    let data = match given(message, &words.bytes)? {
        Some(bytes) => Message::Binary(message::read_body(bytes)?),
        None => match given(message, &words.text)? {
            Some(text) if value::is_str(text) => {
                // Lone surrogates raise what `str.encode` does.
                let data = value::utf8_of(text)?;
                Message::Text(if data.len() < message::COPY {
                    Bytes::copy_from_slice(data)
                } else {
                    Bytes::from_owner(ParkedBytes::of_text(text.own())?)
                })
            }
            Some(_) => return Err(Builtin::Type.raise("text must be a str")),
            None => {
                return Err(Builtin::Value.raise("'websocket.send' has neither 'bytes' nor 'text'"));
            }
        },
    };
    match connection.send(data) {
        Ok(flow) => Ok(flow),
        Err(_) => Err(client_disconnected()),
    }
}

/// `{"type": "websocket.receive", "text": …}`, or with `"bytes"`.
fn received(message: &Message) -> PyRes<Obj> {
    let words = words()?;
    let event = value::dict_copy(words.receive.borrow())?;
    match message {
        Message::Text(data) => {
            let text = value::utf8(data)?;
            value::dict_set(event.borrow(), words.text.borrow(), text.borrow())?;
        }
        Message::Binary(data) => {
            let bytes = value::bytes(data)?;
            value::dict_set(event.borrow(), words.bytes.borrow(), bytes.borrow())?;
        }
    }
    Ok(event)
}

fn disconnect(close: &Close) -> PyRes<Obj> {
    let words = words()?;
    let message = value::dict()?;
    let set = |key: &Obj, item: Ref<'_>| value::dict_set(message.borrow(), key.borrow(), item);
    set(&words.type_, words.disconnect.borrow())?;
    set(&words.code, value::int(i64::from(close.code))?.borrow())?;
    set(&words.reason, value::str(&close.reason)?.borrow())?;
    Ok(message)
}

fn abnormal() -> PyRes<Obj> {
    disconnect(&Close::new(Close::ABNORMAL, ""))
}

fn respond(exchange: &Exchange, status: u16, body: Bytes) -> PyRes<()> {
    let answered = exchange
        .start(status, message::plain_headers())
        .and_then(|()| exchange.send_chunk(body, false));
    match answered {
        Ok(_) | Err(SendError::Gone) => Ok(()),
        Err(error) => Err(Builtin::Runtime.raise(&error.to_string())),
    }
}

fn still_there(exchange: &Exchange) -> PyRes<()> {
    if exchange.is_gone() {
        return Err(client_disconnected());
    }
    Ok(())
}

fn unexpected(kind: Ref<'_>, expected: &str) -> PyRes<Flow> {
    let kind = value::repr(kind)?;
    let text = format!("Unexpected ASGI message {kind}: {expected}");
    Err(Builtin::Runtime.raise(&text))
}

#[cold]
fn client_disconnected() -> Raised {
    match client_disconnected_class() {
        Ok(class) => err::raise_str(class.borrow(), "the WebSocket connection has ended"),
        Err(raised) => raised,
    }
}

fn client_disconnected_class() -> PyRes<Obj> {
    let errors = call::import(c"rondel.server.errors")?;
    let name = value::intern(c"ClientDisconnected")?;
    call::getattr(errors.borrow(), name.borrow())
}
