//! The opening handshake: what a request offers, and the headers that answer it.

use h2::ext::Protocol;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version};
use sockudo_ws::deflate::{
    DeflateConfig, DeflateNegotiation, DeflateWindowBits, negotiate_server_deflate,
};
use sockudo_ws::handshake::generate_accept_key;

use super::WebSockets;

/// Shorter messages are not compressed: they would hardly shrink, and become longer in part.
pub(super) const COMPRESS_FROM: usize = 64;

/// Our compressor's window: with zlib's tables some 150 KiB for each connection that sends, instead
/// of 300. What uvicorn asks for, too.
const WINDOW: DeflateWindowBits = DeflateWindowBits::Bits12;

/// A request that wants to become a WebSocket connection.
#[derive(Debug)]
pub struct Offer {
    /// In the client's order.
    pub subprotocols: Vec<String>,
    /// Over HTTP/1.1: what proves that the request was understood.
    accept: Option<HeaderValue>,
    /// Over HTTP/2: a stream of the connection becomes one.
    pub(super) on_stream: bool,
    pub(super) config: WebSockets,
    pub(super) deflate: Option<DeflateNegotiation>,
}

/// What a bad handshake is answered with.
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

impl Refusal {
    fn new(status: StatusCode) -> Self {
        Refusal {
            status,
            headers: HeaderMap::new(),
        }
    }
}

/// Whether a request asks for a WebSocket connection; what is no such request is an ordinary one
/// (RFC 9110, 7.8: a server may ignore `Upgrade`).
pub(crate) fn examine(head: &Parts, config: &WebSockets) -> Result<Option<Box<Offer>>, Refusal> {
    let headers = &head.headers;
    let on_stream = is_extended(head);
    let asks = head.version == Version::HTTP_11
        && head.method == Method::GET
        && has_token(headers, &UPGRADE, "websocket")
        && has_token(headers, &CONNECTION, "upgrade");
    if !asks && !on_stream {
        return Ok(None);
    }
    let bad = || Refusal::new(StatusCode::BAD_REQUEST);
    let mut versions = headers.get_all(SEC_WEBSOCKET_VERSION).iter();
    if (versions.next().map(HeaderValue::as_bytes), versions.next()) != (Some(b"13"), None) {
        let mut refusal = if on_stream {
            // HTTP/2 has no `Upgrade`.
            bad()
        } else {
            Refusal::new(StatusCode::UPGRADE_REQUIRED)
        };
        let ours = HeaderValue::from_static("13");
        refusal.headers.insert(SEC_WEBSOCKET_VERSION, ours);
        return Err(refusal);
    }
    let accept = if on_stream {
        None
    } else {
        Some(accept(headers).ok_or_else(bad)?)
    };
    let offers = values(headers, &SEC_WEBSOCKET_EXTENSIONS).map_err(|()| bad())?;
    let deflate = if config.deflate {
        offers.iter().find_map(|offers| negotiate(offers))
    } else {
        None
    };
    let subprotocols = values(headers, &SEC_WEBSOCKET_PROTOCOL)
        .map_err(|()| bad())?
        .iter()
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    Ok(Some(Box::new(Offer {
        subprotocols,
        accept,
        on_stream,
        config: *config,
        deflate,
    })))
}

/// HTTP/2's extended CONNECT for a WebSocket connection (RFC 8441, 4 and 5).
fn is_extended(head: &Parts) -> bool {
    let protocol = head.extensions.get::<Protocol>();
    head.version == Version::HTTP_2
        && head.method == Method::CONNECT
        && protocol.is_some_and(|it| it.as_str().eq_ignore_ascii_case("websocket"))
}

/// What answers the request's key, if that is one.
fn accept(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return None;
    };
    let key = key.to_str().ok()?.trim();
    if !is_key(key) {
        return None;
    }
    HeaderValue::from_str(&generate_accept_key(key)).ok()
}

impl Offer {
    /// What accepts it.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        if self.on_stream {
            StatusCode::OK
        } else {
            StatusCode::SWITCHING_PROTOCOLS
        }
    }

    /// Makes an application's headers those of the 101, or of HTTP/2's 200.
    pub(super) fn complete(&self, headers: &mut HeaderMap, subprotocol: Option<HeaderValue>) {
        if let Some(accept) = &self.accept {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept.clone());
        }
        // Which extensions are spoken is the connection's business.
        headers.remove(SEC_WEBSOCKET_EXTENSIONS);
        if let Some(name) = subprotocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, name);
        }
        if let Some(agreed) = &self.deflate {
            if let Ok(text) = HeaderValue::from_str(&agreed.to_response_header()) {
                headers.insert(SEC_WEBSOCKET_EXTENSIONS, text);
            }
        }
    }
}

fn negotiate(offers: &str) -> Option<DeflateNegotiation> {
    let policy = DeflateConfig {
        server_max_window_bits: WINDOW,
        compression_threshold: COMPRESS_FROM,
        ..DeflateConfig::default()
    };
    negotiate_server_deflate(offers, &policy)
}

/// 16 bytes in base64 (RFC 6455, 4.1): 22 digits and two signs that fill up. What they say does not
/// matter to us.
fn is_key(key: &str) -> bool {
    let digits = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
    };
    key.len() == 24
        && key
            .strip_suffix("==")
            .is_some_and(|text| digits(text) && text.ends_with(['A', 'Q', 'g', 'w']))
}

fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Vec<&'a str>, ()> {
    let lines = headers.get_all(name).iter();
    lines.map(|line| line.to_str().map_err(|_| ())).collect()
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().any(|line| {
        let text = line.to_str().unwrap_or_default();
        text.split(',')
            .any(|word| word.trim().eq_ignore_ascii_case(token))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &str)]) -> Parts {
        let mut request = hyper::Request::builder().uri("/chat");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    const PLAIN: [(&str, &str); 4] = [
        ("upgrade", "WebSocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn examined(extra: &[(&'static str, &str)]) -> Result<Option<Box<Offer>>, StatusCode> {
        let all: Vec<_> = PLAIN.iter().chain(extra).copied().collect();
        examine(&request(&all), &WebSockets::default()).map_err(|refusal| refusal.status)
    }

    #[test]
    fn the_rfc_s_own_key_gives_the_rfc_s_own_answer() {
        let offer = examined(&[]).expect("no refusal").expect("an offer");
        let accept = offer.accept.expect("HTTP/1.1");
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(offer.deflate.is_none());
    }

    #[test]
    fn subprotocols_come_in_the_client_s_order_from_all_lines() {
        let offer = examined(&[
            ("sec-websocket-protocol", "chat, superchat"),
            ("sec-websocket-protocol", " soap"),
        ]);
        let offer = offer.expect("no refusal").expect("an offer");
        assert_eq!(offer.subprotocols, ["chat", "superchat", "soap"]);
    }

    #[test]
    fn the_first_offer_that_can_be_met_is_met() {
        let lines = "permessage-deflate; server_max_window_bits=8, \
                     permessage-deflate; client_no_context_takeover";
        let offer = examined(&[("sec-websocket-extensions", lines)]);
        let offer = offer.expect("no refusal").expect("an offer");
        let mut headers = HeaderMap::new();
        offer.complete(&mut headers, None);
        assert_eq!(
            headers[SEC_WEBSOCKET_EXTENSIONS],
            "permessage-deflate; client_no_context_takeover; server_max_window_bits=12"
        );
    }

    fn connect(protocol: &'static str, version: &str) -> Parts {
        let request = hyper::Request::builder()
            .method(Method::CONNECT)
            .version(Version::HTTP_2)
            .uri("https://test/chat")
            .header(SEC_WEBSOCKET_VERSION, version)
            .header(SEC_WEBSOCKET_PROTOCOL, "chat")
            .extension(Protocol::from_static(protocol))
            .body(())
            .expect("a request");
        request.into_parts().0
    }

    #[test]
    fn http_2_asks_by_an_extended_connect_and_is_answered_without_a_key() {
        let config = WebSockets::default();
        let Ok(Some(offer)) = examine(&connect("WebSocket", "13"), &config) else {
            panic!("no offer");
        };
        assert_eq!(offer.status(), StatusCode::OK);
        assert_eq!(offer.subprotocols, ["chat"]);
        let mut headers = HeaderMap::new();
        offer.complete(&mut headers, Some(HeaderValue::from_static("chat")));
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[SEC_WEBSOCKET_PROTOCOL], "chat");
        let refused = examine(&connect("websocket", "8"), &config).err();
        let refused = refused.expect("a refusal");
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert_eq!(refused.headers[SEC_WEBSOCKET_VERSION], "13");
        let other = examine(&connect("connect-udp", "13"), &config);
        assert!(matches!(other, Ok(None)));
        let mut plain = connect("websocket", "13");
        plain.extensions.remove::<Protocol>();
        assert!(matches!(examine(&plain, &config), Ok(None)));
    }

    #[test]
    fn what_asks_for_no_websocket_is_an_ordinary_request() {
        for (name, value) in [("upgrade", "h2c"), ("connection", "keep-alive")] {
            let others = PLAIN.iter().filter(|(other, _)| *other != name).copied();
            let all: Vec<_> = others.chain([(name, value)]).collect();
            let examined = examine(&request(&all), &WebSockets::default());
            assert!(matches!(examined, Ok(None)), "{name}: {value}");
        }
    }

    #[test]
    fn a_bad_handshake_is_refused() {
        let without = |name: &str, value: Option<&'static str>| {
            let mut all: Vec<_> = PLAIN.into_iter().filter(|(n, _)| *n != name).collect();
            all.extend(value.map(|value| match name {
                "sec-websocket-key" => ("sec-websocket-key", value),
                _ => ("sec-websocket-version", value),
            }));
            examine(&request(&all), &WebSockets::default())
                .err()
                .map(|refusal| refusal.status.as_u16())
        };
        assert_eq!(without("sec-websocket-version", None), Some(426));
        assert_eq!(without("sec-websocket-version", Some("8")), Some(426));
        assert_eq!(without("sec-websocket-key", None), Some(400));
        assert_eq!(without("sec-websocket-key", Some("c2hvcnQ=")), Some(400));
        let long = Some("dGhlIHNhbXBsZSBub25jZWQ=");
        assert_eq!(without("sec-websocket-key", long), Some(400));
        let twice = examined(&[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]);
        assert_eq!(twice.err(), Some(StatusCode::BAD_REQUEST));
    }
}
