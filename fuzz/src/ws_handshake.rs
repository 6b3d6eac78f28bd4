//! The opening handshake: what asks for a WebSocket connection, whether its key is one, and that no more
//! of permessage-deflate is agreed to than was offered (RFC 7692, 7.1).

use std::collections::HashMap;

use rondel_http::fuzzing::offer;
use rondel_http::http::header::{HeaderMap, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS};
use rondel_http::http::{Method, Request, Version};

use crate::text::headers;

const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub fn check(data: &[u8]) {
    let Some((kind, lines)) = data.split_first() else {
        return;
    };
    let mut map = headers(lines);
    if kind & 1 == 1 {
        // What every handshake has, so that the rest is what varies.
        for (name, value) in [
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            map.insert(name, value.parse().expect("a value"));
        }
    }
    let mut request = Request::new(());
    *request.headers_mut() = map;
    if kind & 2 == 2 {
        *request.method_mut() = Method::POST;
    }
    if kind & 4 == 4 {
        *request.version_mut() = Version::HTTP_10;
    }
    let head = request.into_parts().0;
    let asks = head.method == Method::GET
        && head.version == Version::HTTP_11
        && lists(&head.headers, "upgrade", "websocket")
        && lists(&head.headers, "connection", "upgrade");
    match offer(&head) {
        Ok(None) => assert!(!asks),
        Err(status) => {
            assert!(asks);
            assert_ne!(
                kind & 1 == 1 && text_only(&head.headers),
                true,
                "refused: {head:?}"
            );
            let ours = only(&head.headers, "sec-websocket-version") == Some(b"13");
            assert_eq!(status, if ours { 400 } else { 426 });
        }
        Ok(Some((answer, subprotocols))) => {
            assert!(asks);
            let key = only(&head.headers, "sec-websocket-key").expect("one key");
            assert!(is_16_bytes(key), "{key:?}");
            assert_eq!(answer[SEC_WEBSOCKET_ACCEPT].len(), 28);
            for name in &subprotocols {
                assert!(!name.is_empty() && name.trim() == name && !name.contains(','));
            }
            if let Some(agreed) = answer.get(SEC_WEBSOCKET_EXTENSIONS) {
                deflate(agreed.to_str().expect("text"), &head.headers);
            }
        }
    }
}

fn text_only(map: &HeaderMap) -> bool {
    let names = ["sec-websocket-extensions", "sec-websocket-protocol"];
    let mut lines = names.iter().flat_map(|name| map.get_all(*name));
    lines.all(|line| line.to_str().is_ok())
}

fn lists(map: &HeaderMap, name: &str, token: &str) -> bool {
    let mut lines = map.get_all(name).iter();
    lines.any(|line| {
        let Ok(text) = line.to_str() else {
            return false;
        };
        let text = text.to_lowercase();
        text.split(',').map(str::trim).any(|word| word == token)
    })
}

fn only<'a>(map: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let mut lines = map.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(one), None) => Some(one.as_bytes()),
        _ => None,
    }
}

/// Decoded and encoded again it is the same.
fn is_16_bytes(key: &[u8]) -> bool {
    let Some(digits) = key.strip_suffix(b"==") else {
        return false;
    };
    let mut bits = 0_u128;
    for digit in digits {
        match ALPHABET.iter().position(|known| known == digit) {
            Some(value) => bits = (bits << 6) | value as u128,
            None => return false,
        }
    }
    // 22 digits are 132 bits: the last four of them, which must be 0, are no part of the 16 bytes.
    digits.len() == 22 && bits & 0b1111 == 0
}

/// The parameters of one offer.
fn parameters(text: &str) -> HashMap<String, Option<u8>> {
    let mut map = HashMap::new();
    for pair in text.split(';').skip(1) {
        let (name, value) = match pair.split_once('=') {
            Some((name, value)) => (name, value.trim().trim_matches('"').parse().ok()),
            None => (pair, None),
        };
        map.insert(name.trim().to_ascii_lowercase(), value);
    }
    map
}

fn deflate(agreed: &str, request: &HeaderMap) {
    assert_eq!(
        agreed.split(';').next().map(str::trim),
        Some("permessage-deflate")
    );
    let ours = parameters(agreed);
    assert_eq!(
        ours.len(),
        agreed.split(';').count() - 1,
        "twice the same in {agreed}"
    );
    for name in ours.keys() {
        let known = [
            "server_no_context_takeover",
            "client_no_context_takeover",
            "server_max_window_bits",
            "client_max_window_bits",
        ];
        assert!(known.contains(&name.as_str()), "{agreed}");
    }
    // One of the offers at least must be one that this is an answer to.
    let lines = request.get_all(SEC_WEBSOCKET_EXTENSIONS).iter();
    let mut offers = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter(|offer| {
            let name = offer.split(';').next().unwrap_or_default();
            name.trim().eq_ignore_ascii_case("permessage-deflate")
        });
    let fits = offers.any(|offer| {
        let theirs = parameters(offer);
        let server = match theirs.get("server_max_window_bits") {
            None => true,
            Some(None) => false,
            Some(Some(most)) => {
                let bits = ours.get("server_max_window_bits").copied().flatten();
                (8..=15).contains(most) && bits.is_some_and(|bits| bits <= *most)
            }
        };
        let client = match (
            ours.get("client_max_window_bits"),
            theirs.get("client_max_window_bits"),
        ) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(bits), Some(most)) => bits.is_some_and(|bits| bits <= most.unwrap_or(15)),
        };
        let forgets = !theirs.contains_key("server_no_context_takeover")
            || ours.contains_key("server_no_context_takeover");
        server && client && forgets
    });
    assert!(fits, "{agreed} was not offered: {request:?}");
}
