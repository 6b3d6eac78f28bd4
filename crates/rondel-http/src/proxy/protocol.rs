//! The PROXY protocol, versions 1 and 2 (HAProxy's specification): what precedes a connection's own
//! bytes when a proxy of the transport layer passes it on. The parser is a library's; what is here
//! is which answer it comes to. Plain functions of bytes.

use std::net::SocketAddr;

use ppp::{HeaderResult, PartialResult, v1, v2};

/// More than any header is read for: an address of version 2, and what proxies add to it.
pub(crate) const LONGEST: usize = 2048;

/// How a header of version 1 begins, and how long its line is at most, its end included.
const LINE: &[u8] = b"PROXY ";
const LONGEST_LINE: usize = 107;

/// How one of version 2 begins.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// A whole header of so many bytes. The addresses are the client's and that which it called, or
    /// none: the proxy speaks for itself (`LOCAL`, `UNKNOWN`).
    Header(usize, Option<(SocketAddr, SocketAddr)>),
    /// More of it has to come.
    Incomplete,
    /// None.
    Other,
}

pub(crate) fn parse(data: &[u8]) -> Prefix {
    // Version 1 is a line. The parser takes some beginnings of one for a broken line, and some of what is
    // neither for a beginning.
    let begins = |word: &[u8]| {
        let known = data.len().min(word.len());
        data[..known] == word[..known]
    };
    let line = begins(LINE);
    if !line && !begins(SIGNATURE) {
        return Prefix::Other;
    }
    if line {
        match data.iter().position(|byte| *byte == b'\n') {
            None if data.len() < LONGEST_LINE => return Prefix::Incomplete,
            // What `UNKNOWN` is followed by the parser does not look at, but a line has one end.
            Some(end) if data[end - 1] == b'\r' => {}
            _ => return Prefix::Other,
        }
    }
    let result = HeaderResult::parse(data);
    if result.is_incomplete() {
        // It would be whole by now.
        let hopeless = line || data.len() >= LONGEST;
        return match hopeless {
            true => Prefix::Other,
            false => Prefix::Incomplete,
        };
    }
    match result {
        HeaderResult::V1(Ok(header)) => {
            let addresses = match header.addresses {
                v1::Addresses::Tcp4(it) => Some((
                    (it.source_address, it.source_port).into(),
                    (it.destination_address, it.destination_port).into(),
                )),
                v1::Addresses::Tcp6(it) => Some((
                    (it.source_address, it.source_port).into(),
                    (it.destination_address, it.destination_port).into(),
                )),
                v1::Addresses::Unknown => None,
            };
            Prefix::Header(header.header.len(), addresses)
        }
        HeaderResult::V2(Ok(header)) => {
            let addresses = match header.addresses {
                _ if header.command == v2::Command::Local => None,
                v2::Addresses::IPv4(it) => Some((
                    (it.source_address, it.source_port).into(),
                    (it.destination_address, it.destination_port).into(),
                )),
                v2::Addresses::IPv6(it) => Some((
                    (it.source_address, it.source_port).into(),
                    (it.destination_address, it.destination_port).into(),
                )),
                v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
            };
            Prefix::Header(header.len(), addresses)
        }
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Prefix::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(from: &str, to: &str) -> Option<(SocketAddr, SocketAddr)> {
        Some((from.parse().expect("from"), to.parse().expect("to")))
    }

    /// Each beginning of a header is incomplete, the whole one is found whatever follows it.
    fn whole(header: &[u8], expected: Option<(SocketAddr, SocketAddr)>) {
        for length in 0..header.len() {
            assert_eq!(parse(&header[..length]), Prefix::Incomplete, "{length}");
        }
        let found = Prefix::Header(header.len(), expected);
        for rest in [
            &b""[..],
            b"GET / HTTP/1.1\r\n",
            b"\r\n",
            b"PROXY UNKNOWN\r\n",
        ] {
            assert_eq!(parse(&[header, rest].concat()), found);
        }
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len())
            .expect("a short one")
            .to_be_bytes();
        [SIGNATURE, &[0x20 | command, family], &length, body].concat()
    }

    #[test]
    fn version_1_is_a_line() {
        whole(
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n",
            addresses("192.0.2.1:56324", "198.51.100.1:443"),
        );
        whole(
            b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n",
            addresses("[2001:db8::1]:56324", "[2001:db8::2]:443"),
        );
        whole(b"PROXY UNKNOWN\r\n", None);
    }

    #[test]
    fn version_2_is_binary_and_may_carry_more() {
        let four = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 1, 0xbb];
        let told = addresses("192.0.2.1:56324", "198.51.100.1:443");
        whole(&v2(1, 0x11, &four), told);
        let more = [&four[..], &[0x02, 0, 3, b'a', b'b', b'c']].concat();
        whole(&v2(1, 0x11, &more), told);
        let mut six = [0; 36];
        (six[15], six[31], six[33], six[35]) = (1, 2, 80, 81);
        whole(&v2(1, 0x21, &six), addresses("[::1]:80", "[::2]:81"));
        // A health check of the proxy's own.
        whole(&v2(0, 0x00, &[]), None);
    }

    #[test]
    fn what_is_something_else_is_told_at_once() {
        for other in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x03\x01\x02\x00",
            b"PROXY TCP4 no addresses at all\r\n",
            b"PROXY TCP4 x\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 99999 1\r\n",
            b"PROXY TCP9 1.2.3.4 5.6.7.8 1 2\r\n",
        ] {
            assert_eq!(parse(other), Prefix::Other, "{other:?}");
        }
        let endless = [&b"PROXY UNKNOWN "[..], &[b'x'; LONGEST]].concat();
        assert_eq!(parse(&endless), Prefix::Other);
        assert_eq!(parse(&v2(1, 0x11, &[0; 4])), Prefix::Other);
    }

    #[test]
    fn what_is_no_header_does_not_become_one_with_more() {
        // Found by fuzzing: with its `P` at the end the parser took it for the beginning of a line.
        let data = b"P X4YOR\0\0\0PROXY\r\n";
        for length in 2..=data.len() {
            assert_eq!(parse(&data[..length]), Prefix::Other, "{length}");
        }
        let data = b"PROXY UNKNOWN a\nb\r\n";
        for length in 17..=data.len() {
            assert_eq!(parse(&data[..length]), Prefix::Other, "{length}");
        }
    }

    #[test]
    fn whatever_comes_it_comes_to_an_answer() {
        // A cheap generator of bytes, the same each time.
        let mut seed = 1_u32;
        let mut next = move || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        };
        for round in 0..20_000 {
            let mut data: Vec<u8> = (0..round % 64).map(|_| next()).collect();
            if round % 3 == 0 {
                data.splice(0..0, SIGNATURE.iter().copied());
            } else if round % 3 == 1 {
                data.splice(0..0, b"PROXY TCP4 ".iter().copied());
            }
            if let Prefix::Header(length, _) = parse(&data) {
                assert!(length <= data.len());
            }
        }
    }
}
