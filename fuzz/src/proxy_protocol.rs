//! The PROXY protocol's header. What is a header is one however it comes: each of its beginnings is
//! incomplete, and what follows makes no difference; what is none will never be one. Headers that we
//! write ourselves are read as they were meant.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use rondel_http::fuzzing::proxy_header;

use crate::text::Dice;

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

pub fn check(data: &[u8]) {
    let mut dice = Dice(data);
    match dice.byte() % 3 {
        0 => anything(dice.0),
        1 => line(dice),
        _ => binary(dice),
    }
}

fn anything(data: &[u8]) {
    let whole = proxy_header(data);
    if let Ok((length, addresses)) = whole {
        assert!(length > 0 && length <= data.len());
        let version_2 = data.starts_with(V2);
        assert!(version_2 || (data.starts_with(b"PROXY ") && length <= 107));
        if !version_2 {
            let text = std::str::from_utf8(&data[..length]).expect("a line of text");
            assert!(text.ends_with("\r\n"));
            if let Some((from, to)) = addresses {
                let words: Vec<_> = text.trim_end().split(' ').collect();
                let [_, family, source, destination, source_port, port] = words[..] else {
                    panic!("{text:?}");
                };
                assert_eq!(family, if from.is_ipv4() { "TCP4" } else { "TCP6" });
                assert_eq!(source.parse(), Ok(from.ip()));
                assert_eq!(destination.parse(), Ok(to.ip()));
                assert_eq!(source_port.parse(), Ok(from.port()));
                assert_eq!(port.parse(), Ok(to.port()));
            }
        }
    }
    let mut over = None;
    for length in 0..data.len() {
        let found = proxy_header(&data[..length]);
        if over.is_none() && found != Err(true) {
            over = Some(found);
        }
        if let Some(over) = over {
            assert_eq!(found, over, "with {length} bytes of {data:?}");
        }
    }
    if let Some(over) = over {
        assert_eq!(whole, over, "{data:?}");
    }
}

fn must_be(header: &[u8], rest: &[u8], addresses: Option<(SocketAddr, SocketAddr)>) {
    let all = [header, rest].concat();
    assert_eq!(proxy_header(&all), Ok((header.len(), addresses)), "{all:?}");
    for length in 0..header.len() {
        assert_eq!(
            proxy_header(&header[..length]),
            Err(true),
            "{length} of {header:?}"
        );
    }
}

fn addresses(dice: &mut Dice<'_>) -> (SocketAddr, SocketAddr) {
    let four = dice.byte() % 2 == 0;
    let mut one = || match four {
        true => (
            Ipv4Addr::from(dice.array::<4>()),
            u16::from_be_bytes(dice.array()),
        )
            .into(),
        false => (
            Ipv6Addr::from(dice.array::<16>()),
            u16::from_be_bytes(dice.array()),
        )
            .into(),
    };
    (one(), one())
}

fn line(mut dice: Dice<'_>) {
    let (from, to) = addresses(&mut dice);
    let family = if from.is_ipv4() { 4 } else { 6 };
    let (source, port) = (from.ip(), from.port());
    let header = format!(
        "PROXY TCP{family} {source} {} {port} {}\r\n",
        to.ip(),
        to.port()
    );
    must_be(header.as_bytes(), dice.0, Some((from, to)));
}

fn binary(mut dice: Dice<'_>) {
    let (from, to) = addresses(&mut dice);
    let mut body = Vec::new();
    match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            body.extend(from.ip().octets());
            body.extend(to.ip().octets());
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            body.extend(from.ip().octets());
            body.extend(to.ip().octets());
        }
        _ => unreachable!("both are of one family"),
    }
    body.extend(from.port().to_be_bytes());
    body.extend(to.port().to_be_bytes());
    // What proxies add to it: entries of a kind and a length.
    for _ in 0..dice.byte() % 4 {
        let (kind, length) = (dice.byte(), dice.byte() % 32);
        body.extend([kind, 0, length]);
        body.extend((0..length).map(|_| dice.byte()));
    }
    let local = dice.byte() % 4 == 0;
    let command = if local { 0x20 } else { 0x21 };
    let family = if from.is_ipv4() { 0x11 } else { 0x21 };
    let length = u16::try_from(body.len())
        .expect("a short one")
        .to_be_bytes();
    let header = [V2, &[command, family], &length, &body].concat();
    must_be(&header, dice.0, (!local).then_some((from, to)));
}
