//! From hyper's requests to exchanges: what need not bother the application, and the answer to come.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::{Method, Response, StatusCode, Version};
use rondel_core::driver::Handle;

use super::link::Link;
use crate::exchange::{Exchange, Inner, RequestBody};
use crate::http2::{self, StreamSide, Streams};
use crate::listener::Role;
use crate::response::{Aborted, ResponseBody};
use crate::service::{Limits, Request};
use crate::ws::Gate;

/// Turns hyper's requests into exchanges.
pub(crate) struct Dispatch(pub(super) Rc<Link>);

impl Dispatch {
    pub(crate) fn streams(&self) -> &Rc<Streams> {
        let link = &self.0;
        (link.streams).get_or_init(|| Streams::new(link.server.handle.clone()))
    }
}

impl hyper::service::Service<hyper::Request<Incoming>> for Dispatch {
    type Response = Response<ResponseBody>;
    type Error = Aborted;
    type Future = Answer;

    fn call(&self, request: hyper::Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        self.take_up(head, RequestBody::Message(body), false)
    }
}

impl Dispatch {
    pub(crate) fn handle(&self) -> &Handle {
        &self.0.server.handle
    }

    pub(crate) fn settings(&self) -> &http2::Settings {
        &self.0.server.config.http2
    }

    /// Bytes that have come on the connection.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes.get()
    }

    /// A request on a connection. `expects`: its client waits for 100, which is ours to send.
    #[inline]
    pub(crate) fn take_up(
        &self,
        head: hyper::http::request::Parts,
        body: RequestBody,
        expects: bool,
    ) -> Answer {
        let link = &self.0;
        let exchange = Exchange::new(
            Rc::clone(link),
            head.method == Method::HEAD,
            head.version,
            body,
        );
        let compression = &link.server.config.compression;
        if compression.is_on() {
            exchange.offer(compression.choose(&head.headers));
        }
        let inner = exchange.inner();
        link.partial.set(false);
        link.unread.set(false);
        link.activity.set(link.activity.get().wrapping_add(1));
        link.server.request_began();
        match link.streams() {
            None => *link.current.borrow_mut() = Some(Rc::clone(&inner)),
            Some(streams) => {
                if let Some(stream) = inner.stream() {
                    stream.begin(head.method == Method::CONNECT, expects);
                }
                streams.add(Rc::clone(&inner));
            }
        }
        link.calling.set(true);
        let has_body = exchange.has_body();
        // hyper notes there that the request has an `Upgrade` line; few have.
        let websocket = if head.extensions.is_empty() {
            Ok(None)
        } else {
            link.websocket(&head, has_body)
        };
        let known = !matches!(websocket, Ok(None));
        match (
            refusal(
                &head,
                has_body,
                exchange.body_length(),
                known,
                link.limits(),
            ),
            link.role,
            websocket,
        ) {
            (Some(status), ..) => {
                link.answering(head, has_body, &exchange, status);
                inner.reject(status);
            }
            (None, Role::Redirect(port), _) => match location(&head, port) {
                Some(location) => {
                    let status = StatusCode::PERMANENT_REDIRECT;
                    link.answering(head, has_body, &exchange, status);
                    inner.redirect(location);
                }
                None => {
                    link.answering(head, has_body, &exchange, StatusCode::BAD_REQUEST);
                    inner.reject(StatusCode::BAD_REQUEST);
                }
            },
            (None, Role::Serve, Err(refusal)) => {
                link.answering(head, has_body, &exchange, refusal.status);
                inner.answer_instead(refusal.status, refusal.headers);
            }
            (None, Role::Serve, Ok(websocket)) => {
                let conn = link.origin(&head.headers);
                let request = Request {
                    head,
                    has_body,
                    conn,
                    websocket,
                };
                link.service().call(request, exchange);
            }
        }
        link.calling.set(false);
        Answer(inner)
    }
}

/// What need not bother the application. `websocket`: a WebSocket connection is asked for.
fn refusal(
    head: &hyper::http::request::Parts,
    has_body: bool,
    body_length: Option<u64>,
    websocket: bool,
    limits: &Limits,
) -> Option<StatusCode> {
    if has_body {
        // RFC 9112, 6.1: other codings than chunked have to be undone, too, which nobody here would.
        let coding = head.headers.get(TRANSFER_ENCODING);
        if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
            return Some(StatusCode::NOT_IMPLEMENTED);
        }
    }
    if head.version == Version::HTTP_2 {
        if let Some(status) = refusal_h2(head, websocket, limits) {
            return Some(status);
        }
    } else if head.uri.scheme().is_some()
        || !head.uri.path().starts_with('/')
        || head.method == Method::CONNECT
    {
        if let Some(status) = refusal_target(head) {
            return Some(status);
        }
    }
    if head.version == Version::HTTP_11 {
        // RFC 9112, 3.2: exactly one Host.
        let mut hosts = head.headers.get_all(HOST).iter();
        if hosts.next().is_none() || hosts.next().is_some() {
            return Some(StatusCode::BAD_REQUEST);
        }
    }
    let target = head.uri.path_and_query();
    if target.is_some_and(|target| target.as_str().len() > limits.url_bytes) {
        return Some(StatusCode::URI_TOO_LONG);
    }
    match (body_length, limits.body_bytes) {
        (Some(length), Some(most)) if length > most => Some(StatusCode::PAYLOAD_TOO_LARGE),
        _ => None,
    }
}

/// Of targets that are no path (RFC 9112, 3.2).
#[cold]
fn refusal_target(head: &hyper::http::request::Parts) -> Option<StatusCode> {
    let uri = &head.uri;
    if head.method == Method::CONNECT {
        // Besides, hyper takes a success for an upgrade.
        return Some(StatusCode::NOT_IMPLEMENTED);
    }
    let fits = match (uri.scheme_str(), uri.authority()) {
        // RFC 9110, 4.2.4: no user in front of the host.
        (Some("http" | "https"), Some(authority)) => !authority.as_str().contains('@'),
        (None, None) => uri.path() == "*" && head.method == Method::OPTIONS,
        // A host alone is CONNECT's.
        _ => false,
    };
    (!fits).then_some(StatusCode::BAD_REQUEST)
}

/// The same target at `https`: by 308, which keeps the method (RFC 9110, 15.4.9).
fn location(head: &hyper::http::request::Parts, port: u16) -> Option<HeaderValue> {
    let named = match (head.uri.authority(), head.headers.get(HOST)) {
        (Some(authority), _) => Some(authority.clone()),
        (None, Some(host)) => host.to_str().ok().and_then(|host| host.parse().ok()),
        (None, None) => None,
    };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    named.filter(|_| path.starts_with('/')).and_then(|named| {
        let host = named.host();
        let place = match port {
            443 => format!("https://{host}{path}"),
            port => format!("https://{host}:{port}{path}"),
        };
        HeaderValue::try_from(place).ok()
    })
}

/// What HTTP/1's parser sees to by itself, or has no notion of.
fn refusal_h2(
    head: &hyper::http::request::Parts,
    websocket: bool,
    limits: &Limits,
) -> Option<StatusCode> {
    if head.headers.len() > limits.header_count {
        return Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    if head.method == Method::CONNECT && !websocket {
        return Some(StatusCode::NOT_IMPLEMENTED);
    }
    // As of HTTP/1.1 (RFC 9110, 8.6); lines that differ, h2 has refused.
    if head.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Some(StatusCode::BAD_REQUEST);
    }
    // RFC 9113, 8.3.1: one authority, by its pseudo-header field or by Host, or both the same.
    let mut hosts = head.headers.get_all(HOST).iter();
    let (host, more) = (hosts.next(), hosts.next());
    let fits = match (head.uri.authority(), host) {
        (None, host) => host.is_some(),
        (Some(_), None) => true,
        (Some(named), Some(host)) => named
            .as_str()
            .as_bytes()
            .eq_ignore_ascii_case(host.as_bytes()),
    };
    (more.is_some() || !fits).then_some(StatusCode::BAD_REQUEST)
}

/// The response to come.
pub(crate) struct Answer(Rc<Inner>);

impl Answer {
    /// Heads that a stream has to send before it.
    pub(crate) fn interim(&self) -> Vec<hyper::Response<()>> {
        self.0
            .stream()
            .map_or_else(Vec::new, StreamSide::take_interim)
    }

    /// Where a stream goes that the response has made a tunnel.
    pub(crate) fn take_gate(&self) -> Option<Rc<Gate>> {
        self.0.stream().and_then(StreamSide::take_gate)
    }

    /// The `Date` of a response that has none; `None` where none is sent.
    pub(crate) fn date(&self) -> Option<HeaderValue> {
        let server = &self.0.link().server;
        server.config.date_header.then(|| server.date.value())
    }
}

impl Future for Answer {
    type Output = Result<Response<ResponseBody>, Aborted>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The exchange wakes an HTTP/1 connection through the link.
        self.0.asked_by(cx);
        self.0.poll_response()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(gate) = self.take_gate() {
            // The stream was reset before it could be accepted.
            gate.shut();
        }
        self.0.dropped_unanswered();
    }
}
