//! `X-Forwarded-*` and `Forwarded`. A chain that we write ourselves, in any of the forms there are, names
//! its client whatever the client itself has put in front; and of what is not ours the client is told
//! as a plain reading from the right has it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rondel_http::http::header::{HeaderMap, HeaderValue};
use rondel_http::proxy::{Proxies, Style, Trust};

use crate::text::{Dice, headers};

fn proxies(style: Style) -> Proxies {
    Proxies {
        style,
        trust: Trust::parse(["10.0.0.0/8", "192.0.2.1", "fd00::/8"]).expect("networks"),
        protocol: false,
    }
}

pub fn check(data: &[u8]) {
    let mut dice = Dice(data);
    match dice.byte() % 4 {
        0 => anything(dice.0),
        1 => chain(dice, Style::XForwarded),
        2 => chain(dice, Style::Forwarded),
        _ => trust(dice.0),
    }
}

/// Whatever the headers are, the client is what a plain reading says.
fn anything(data: &[u8]) {
    let map = headers(data);
    assert_eq!(proxies(Style::Off).read(&map).client, None);
    let x = proxies(Style::XForwarded);
    let told = x.read(&map);
    let mut client = None;
    for entry in listed(&map, "x-forwarded-for") {
        let Some(address) = address(&entry) else {
            break;
        };
        client = Some(address);
        if !x.trust.contains(address.ip()) {
            break;
        }
    }
    assert_eq!(told.client, client);
    let told = proxies(Style::Forwarded).read(&map);
    // Nothing is made up: the client is an address that stands there.
    if let Some(client) = told.client {
        let stands = listed(&map, "forwarded").iter().any(|element| {
            element.split(';').any(|pair| {
                let value = pair.split_once('=').map(|(_, value)| value.trim());
                value.and_then(|value| address(value.trim_matches('"'))) == Some(client)
            })
        });
        assert!(stands || quoted(&map), "{client}");
    }
}

/// Whether a quoted string may hide separators from the reading above.
fn quoted(map: &HeaderMap) -> bool {
    let lines = map.get_all("forwarded").iter();
    lines
        .into_iter()
        .any(|line| line.as_bytes().iter().filter(|byte| **byte == b'"').count() > 1)
}

/// A list's entries from the right; the rightmost 64 of them.
fn listed(map: &HeaderMap, name: &str) -> Vec<String> {
    let mut all = Vec::new();
    let lines: Vec<_> = map.get_all(name).iter().collect();
    for line in lines.into_iter().rev() {
        let Ok(text) = line.to_str() else { break };
        let (mut entries, mut entry) = (Vec::new(), String::new());
        let (mut quoted, mut chars) = (false, text.chars());
        while let Some(char) = chars.next() {
            match char {
                ',' if !quoted => entries.push(std::mem::take(&mut entry)),
                '\\' if quoted => {
                    entry.push(char);
                    entry.extend(chars.next());
                }
                char => {
                    quoted ^= char == '"';
                    entry.push(char);
                }
            }
        }
        entries.push(entry);
        let entries = entries.iter().rev().map(|entry| entry.trim().to_owned());
        all.extend(entries.filter(|entry| !entry.is_empty()));
    }
    all.truncate(64);
    all
}

fn address(text: &str) -> Option<SocketAddr> {
    let text = text.trim().trim_matches('"');
    let whole = text.parse::<SocketAddr>().ok();
    let bare = text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 0));
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let boxed = inner.and_then(|text| text.parse::<IpAddr>().ok());
    let found = bare.or(boxed.map(|ip| SocketAddr::new(ip, 0))).or(whole)?;
    // An IPv4 address in IPv6 is an IPv4 address.
    Some(match found.ip() {
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => SocketAddr::new(ip.into(), found.port()),
            None => SocketAddr::new(ip.into(), found.port()),
        },
        IpAddr::V4(_) => found,
    })
}

/// What the client claims, then the client, then trusted proxies.
fn chain(mut dice: Dice<'_>, style: Style) {
    let proxies = proxies(style);
    let client = match dice.byte() % 2 {
        0 => IpAddr::from(Ipv4Addr::from(dice.array::<4>())),
        _ => IpAddr::from(Ipv6Addr::from(dice.array::<16>())),
    };
    let client = client.to_canonical();
    if proxies.trust.contains(client) {
        return;
    }
    let port = u16::from_be_bytes(dice.array());
    let hops = dice.byte() % 60;
    let secure = dice.byte() % 2 == 0;
    let forms = dice.byte();
    let mut entries = vec![entry(client, port, forms, style, secure)];
    for hop in 0..hops {
        let ip = match hop % 3 {
            0 => IpAddr::from([10, 0, 0, hop]),
            1 => IpAddr::from([192, 0, 2, 1]),
            _ => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(hop)]),
        };
        entries.push(entry(
            ip,
            0,
            forms.rotate_left(u32::from(hop)),
            style,
            !secure,
        ));
    }
    let mut map = HeaderMap::new();
    // The client's claims stand in lines of their own: within a line an open quote may hide what follows.
    for line in dice.0.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            map.append(name(style), value);
        }
    }
    let value = HeaderValue::from_str(&entries.join(", ")).expect("text");
    map.append(name(style), value);
    let told = proxies.read(&map);
    let form = forms & 3;
    let port = if form == 1 || form == 3 { port } else { 0 };
    assert_eq!(told.client, Some(SocketAddr::new(client, port)), "{map:?}");
    if style == Style::Forwarded {
        assert_eq!(told.secure, Some(secure), "{map:?}");
    }
}

fn name(style: Style) -> &'static str {
    match style {
        Style::Forwarded => "forwarded",
        _ => "x-forwarded-for",
    }
}

/// An address in one of its forms: plain, with a port, quoted, both.
fn entry(ip: IpAddr, port: u16, forms: u8, style: Style, secure: bool) -> String {
    let with_port = forms & 1 == 1;
    let text = match (ip, with_port) {
        (ip, true) => SocketAddr::new(ip, port).to_string(),
        (IpAddr::V6(ip), false) if forms & 4 == 4 => format!("[{ip}]"),
        (ip, false) => ip.to_string(),
    };
    let text = if forms & 2 == 2 {
        format!("\"{text}\"")
    } else {
        text
    };
    if style != Style::Forwarded {
        return text;
    }
    let proto = if secure { "https" } else { "HTTP" };
    match forms & 24 {
        0 => format!("for={text};proto={proto}"),
        8 => format!("by=1.2.3.4; For = {text} ;PROTO=\"{proto}\""),
        16 => format!("proto={proto};host=\"a,b;c=\\\"\";for={text}"),
        _ => format!("for={text};;proto={proto};x"),
    }
}

/// Networks: whoever is one contains its own addresses, and is told again by what it says.
fn trust(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let words: Vec<_> = text.split(' ').collect();
    let Ok(trust) = Trust::parse(words.iter().copied()) else {
        return;
    };
    for word in words {
        let word = word.trim();
        let first = word.split('/').next().unwrap_or_default();
        if let Ok(ip) = first.parse::<IpAddr>() {
            // A mapped address is looked for as the IPv4 address that it is.
            let mapped = matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some());
            assert!(mapped || trust.contains(ip), "{word}");
        } else {
            // A network may be written with more zeros than an address.
            assert!(word == "*" || word.contains('/'), "{word}");
        }
    }
}
