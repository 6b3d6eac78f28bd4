//! `X-Forwarded-*` and `Forwarded` (RFC 7239), from the proxies that are trusted.
//!
//! Each proxy adds the address that it was called from at the right. So the chain is walked from
//! there, past the addresses that are trusted proxies themselves; the first other one is the client.
//! What is left of it came from that client, and says whatever the client likes. An entry that is no
//! address (`unknown`, `_hidden`) ends the walk: what is left of it is of unknown origin.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use hyper::header::{FORWARDED, HeaderName};

use super::{Forwarded, Trust};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Entries looked at; a chain of proxies is shorter.
const LONGEST: usize = 64;

/// `X-Forwarded-For: client, proxy` and `X-Forwarded-Proto: https`.
pub(super) fn x_forwarded(headers: &HeaderMap, trust: &Trust) -> Forwarded {
    let mut hops = 0;
    let mut client = None;
    for entry in entries(headers, &X_FORWARDED_FOR) {
        let Some(address) = address(entry) else { break };
        client = Some(address);
        if !trust.contains(address.ip()) {
            break;
        }
        hops += 1;
    }
    // Some write one protocol, of the outermost connection; some one for each address.
    let mut secure = None;
    for entry in entries(headers, &X_FORWARDED_PROTO).take(hops + 1) {
        match protocol(entry) {
            Some(it) => secure = Some(it),
            None => break,
        }
    }
    Forwarded { client, secure }
}

/// `Forwarded: for=192.0.2.60;proto=http;by=203.0.113.43, for="[2001:db8::1]:4711"`.
pub(super) fn forwarded(headers: &HeaderMap, trust: &Trust) -> Forwarded {
    let mut found = Forwarded::default();
    for element in entries(headers, &FORWARDED) {
        let mut from = None;
        let mut secure = None;
        for pair in split(element, b';') {
            let Some((name, value)) = pair.split_once('=') else {
                continue;
            };
            let value = value.trim();
            let value = value
                .strip_prefix('"')
                .and_then(|value| value.strip_suffix('"'))
                .unwrap_or(value);
            let name = name.trim();
            if name.eq_ignore_ascii_case("for") {
                from = address(value);
            } else if name.eq_ignore_ascii_case("proto") {
                secure = protocol(value);
            }
        }
        // An element without an address is of the same proxy still, or of one that hides its client.
        found.secure = secure.or(found.secure);
        let Some(from) = from else { break };
        found.client = Some(from);
        if !trust.contains(from.ip()) {
            break;
        }
    }
    found
}

/// A list's entries from the right, over all lines of that name. What is not text ends it.
fn entries<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let mut lines = headers.get_all(name).iter();
    std::iter::from_fn(move || lines.next_back())
        .map_while(|line| line.to_str().ok())
        .flat_map(|line| split(line, b',').rev())
        .take(LONGEST)
}

/// The parts between separators, which may stand in quoted strings as well. None is empty.
fn split(text: &str, separator: u8) -> impl DoubleEndedIterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, byte) in text.bytes().enumerate() {
        if escaped {
            escaped = false;
        } else if byte == b'\\' && quoted {
            escaped = true;
        } else if byte == b'"' {
            quoted = !quoted;
        } else if byte == separator && !quoted {
            parts.push(&text[start..at]);
            start = at + 1;
        }
    }
    parts.push(&text[start..]);
    let trimmed = parts.into_iter().map(str::trim);
    trimmed.filter(|part| !part.is_empty())
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:4711`.
fn address(text: &str) -> Option<SocketAddr> {
    let text = text.trim().trim_matches('"');
    let ip = |text: &str| text.parse::<IpAddr>().ok();
    let plain = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = match ip(plain.unwrap_or(text)) {
        Some(ip) => SocketAddr::new(ip, 0),
        None => text.parse().ok()?,
    };
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

fn protocol(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("https") || text.eq_ignore_ascii_case("wss") {
        Some(true)
    } else if text.eq_ignore_ascii_case("http") || text.eq_ignore_ascii_case("ws") {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        map
    }

    fn trust() -> Trust {
        Trust::parse(["127.0.0.1", "10.0.0.0/8"]).expect("words")
    }

    fn told(found: Forwarded) -> (Option<String>, Option<bool>) {
        (found.client.map(|it| it.to_string()), found.secure)
    }

    fn x(lines: &[(&'static str, &str)]) -> (Option<String>, Option<bool>) {
        told(x_forwarded(&headers(lines), &trust()))
    }

    fn rfc(lines: &[&str]) -> (Option<String>, Option<bool>) {
        let lines: Vec<_> = lines.iter().map(|line| ("forwarded", *line)).collect();
        told(forwarded(&headers(&lines), &trust()))
    }

    fn client(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_trusted_proxy() {
        let cases = [
            ("1.2.3.4", "1.2.3.4:0"),
            ("6.6.6.6, 1.2.3.4", "1.2.3.4:0"),
            ("6.6.6.6, 1.2.3.4, 10.0.0.1, 10.0.0.2", "1.2.3.4:0"),
            ("10.0.0.1, 10.0.0.2", "10.0.0.1:0"),
            ("1.2.3.4:5678", "1.2.3.4:5678"),
            ("2001:db8::1", "[2001:db8::1]:0"),
            ("[2001:db8::1]:80 , 10.0.0.1", "[2001:db8::1]:80"),
            ("::ffff:1.2.3.4", "1.2.3.4:0"),
            (",, 1.2.3.4 ,", "1.2.3.4:0"),
            ("6.6.6.6, unknown, 10.0.0.1", "10.0.0.1:0"),
        ];
        for (line, expected) in cases {
            assert_eq!(
                x(&[("x-forwarded-for", line)]).0,
                client(expected),
                "{line}"
            );
        }
        for line in ["", "unknown", "6.6.6.6, _hidden", "a b", "1.2.3.4.5"] {
            assert_eq!(x(&[("x-forwarded-for", line)]).0, None, "{line}");
        }
    }

    #[test]
    fn several_lines_are_one_list() {
        let lines = [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "1.2.3.4, 10.0.0.1"),
        ];
        assert_eq!(x(&lines).0, client("1.2.3.4:0"));
    }

    #[test]
    fn the_protocol_is_that_of_the_clients_connection() {
        let for_ = ("x-forwarded-for", "6.6.6.6, 1.2.3.4, 10.0.0.1");
        let cases = [
            ("https", Some(true)),
            ("HTTP", Some(false)),
            ("wss", Some(true)),
            // One for each address: the client's own claim is the first.
            ("http, https, http", Some(true)),
            ("https, http", Some(true)),
            ("gopher", None),
            ("gopher, https", Some(true)),
        ];
        for (line, expected) in cases {
            assert_eq!(
                x(&[for_, ("x-forwarded-proto", line)]).1,
                expected,
                "{line}"
            );
        }
        // Without addresses the last one counts.
        assert_eq!(x(&[("x-forwarded-proto", "https, http")]).1, Some(false));
    }

    #[test]
    fn forwarded_elements_are_read_as_the_rfc_has_them() {
        let cases: [(&[&str], Option<&str>, Option<bool>); 9] = [
            (
                &["for=192.0.2.60;proto=http;by=203.0.113.43"],
                Some("192.0.2.60:0"),
                Some(false),
            ),
            (
                &["For=\"[2001:db8:cafe::17]:4711\""],
                Some("[2001:db8:cafe::17]:4711"),
                None,
            ),
            (
                &["for=192.0.2.43, for=198.51.100.17"],
                Some("198.51.100.17:0"),
                None,
            ),
            (
                &[
                    "for=6.6.6.6;proto=http",
                    "for=1.2.3.4;proto=https, for=10.0.0.1",
                ],
                Some("1.2.3.4:0"),
                Some(true),
            ),
            (&["for=unknown;proto=https"], None, Some(true)),
            (&["for=_hidden, for=10.0.0.1"], Some("10.0.0.1:0"), None),
            (
                &["for=\"1.2.3.4:80\" ; proto=\"https\""],
                Some("1.2.3.4:80"),
                Some(true),
            ),
            (
                &["host=\"a,for=6.6.6.6\";for=1.2.3.4"],
                Some("1.2.3.4:0"),
                None,
            ),
            (&["", "by=1.2.3.4", ";;=;", "\"for=1.2.3.4"], None, None),
        ];
        for (lines, from, secure) in cases {
            assert_eq!(rfc(lines), (from.map(str::to_owned), secure), "{lines:?}");
        }
    }

    #[test]
    fn the_other_kind_is_not_looked_at() {
        assert_eq!(x(&[("forwarded", "for=1.2.3.4")]), (None, None));
        let lines = headers(&[("x-forwarded-for", "1.2.3.4")]);
        assert_eq!(told(forwarded(&lines, &trust())), (None, None));
    }

    #[test]
    fn a_long_chain_is_not_walked_for_ever() {
        let line = "10.0.0.1,".repeat(5000);
        assert_eq!(x(&[("x-forwarded-for", &line)]).0, client("10.0.0.1:0"));
    }
}
