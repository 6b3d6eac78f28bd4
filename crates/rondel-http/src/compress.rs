//! Compressed responses (RFC 9110, 8.4 and 12.5.3): which ones, in which coding, and the encoders.
//!
//! A response is compressed if its request accepts one of the codings that the server offers, its
//! type is one that shrinks, it is not tiny, and nobody has settled its coding before: neither the
//! application (`content-encoding`), nor a range (206, `content-range`), nor a proxy's ban
//! (`cache-control: no-transform`). Whatever could have been compressed says that it varies.
//!
//! What an application streams, part by part, goes out part by part: each is flushed.
//!
//! An encoder is of the loop's thread. Needs no GIL.

use std::io::{self, Write};

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, VARY,
};

/// Levels at which each costs about what sending the rest would: some 10 to 40 µs for 10 KB.
const GZIP: u32 = 5;
const BROTLI: u32 = 4;
const ZSTD: i32 = 3;
/// Brotli's window, as a power of two: 256 KiB, instead of 4 MiB, for each response on its way.
const BROTLI_WINDOW: u32 = 18;
const BUFFER: usize = 4096;

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    Brotli,
    Zstd,
}

impl Coding {
    /// By its name in `Accept-Encoding`.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Coding> {
        let known = [Coding::Gzip, Coding::Brotli, Coding::Zstd];
        let same = |coding: &Coding| coding.name().eq_ignore_ascii_case(name);
        known.into_iter().find(same)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
        }
    }
}

/// What the server compresses. Nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compression {
    /// In the server's order of preference.
    pub codings: Vec<Coding>,
    /// Bytes of a whole response below which it stays as it is.
    pub least: usize,
}

impl Compression {
    /// Whether anything is compressed at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.codings.is_empty()
    }

    /// The coding that a request with these headers likes best, of equal ones the server's first.
    pub(crate) fn choose(&self, headers: &HeaderMap) -> Option<Coding> {
        let mut best = None;
        for coding in &self.codings {
            let quality = quality(headers, coding.name());
            if quality > best.map_or(0, |(_, quality)| quality) {
                best = Some((*coding, quality));
            }
        }
        best.map(|(coding, _)| coding)
    }
}

/// How much a coding is liked, in thousandths; 0 is not at all.
pub(crate) fn quality(headers: &HeaderMap, name: &str) -> u32 {
    let mut any = 0;
    for line in headers.get_all(ACCEPT_ENCODING) {
        for entry in line.to_str().unwrap_or("").split(',') {
            let (coding, rest) = entry.split_once(';').unwrap_or((entry, ""));
            let coding = coding.trim();
            let liked = || match rest.trim().split_once('=') {
                Some((q, value)) if q.trim().eq_ignore_ascii_case("q") => {
                    let value: f32 = value.trim().parse().unwrap_or(0.0);
                    // A number from 0 to 1 with three digits (RFC 9110, 12.4.2).
                    (value.clamp(0.0, 1.0) * 1000.0) as u32
                }
                _ => 1000,
            };
            if coding.eq_ignore_ascii_case(name) {
                return liked();
            }
            if coding == "*" {
                any = liked();
            }
        }
    }
    any
}

/// Whether this response is one to compress, by its head.
pub(crate) fn suits(status: StatusCode, headers: &HeaderMap) -> bool {
    let settled = headers.contains_key(CONTENT_ENCODING) || headers.contains_key(CONTENT_RANGE);
    let banned = headers.get_all(CACHE_CONTROL).iter().any(|line| {
        let line = line.as_bytes().to_ascii_lowercase();
        line.windows(12).any(|at| at == b"no-transform")
    });
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    status != StatusCode::PARTIAL_CONTENT && !settled && !banned && kind.is_some_and(shrinks)
}

/// Media types that are text, or nearly.
fn shrinks(kind: &[u8]) -> bool {
    let end = kind.iter().position(|byte| *byte == b';');
    let kind = kind[..end.unwrap_or(kind.len())].trim_ascii();
    let kind = kind.to_ascii_lowercase();
    kind.starts_with(b"text/")
        || kind.ends_with(b"+json")
        || kind.ends_with(b"+xml")
        || matches!(
            kind.as_slice(),
            b"application/json"
                | b"application/javascript"
                | b"application/xml"
                | b"application/wasm"
                | b"application/x-ndjson"
                | b"application/vnd.ms-fontobject"
                | b"font/ttf"
                | b"font/otf"
                | b"image/bmp"
                | b"image/x-icon"
        )
}

/// Says that the answer depends on what the request accepts.
pub(crate) fn vary(headers: &mut HeaderMap) {
    let told = headers.get_all(VARY).iter().any(|line| {
        let words = line.as_bytes().split(|byte| *byte == b',');
        let mut words = words.map(<[u8]>::trim_ascii);
        words.any(|word| word == b"*" || word.eq_ignore_ascii_case(b"accept-encoding"))
    });
    if !told {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// A head says that its body is in this coding.
pub(crate) fn announce(headers: &mut HeaderMap, coding: Coding) {
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    headers.remove(CONTENT_LENGTH);
    // Ranges would be of what is compressed, which is not kept.
    headers.remove(ACCEPT_RANGES);
    // The same thing, but not the same bytes (RFC 9110, 8.8.3).
    if let Some(tag) = headers.get(ETAG)
        && tag.as_bytes().starts_with(b"\"")
    {
        let weak = [b"W/", tag.as_bytes()].concat();
        if let Ok(weak) = HeaderValue::from_bytes(&weak) {
            headers.insert(ETAG, weak);
        }
    }
}

/// A response's body on its way into its coding.
pub(crate) enum Encoder {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    /// Fails only for want of memory.
    pub(crate) fn new(coding: Coding) -> io::Result<Encoder> {
        let out = Vec::new();
        Ok(match coding {
            Coding::Gzip => {
                let level = flate2::Compression::new(GZIP);
                Encoder::Gzip(flate2::write::GzEncoder::new(out, level))
            }
            Coding::Brotli => Encoder::Brotli(Box::new(brotli::CompressorWriter::new(
                out,
                BUFFER,
                BROTLI,
                BROTLI_WINDOW,
            ))),
            Coding::Zstd => Encoder::Zstd(zstd::stream::write::Encoder::new(out, ZSTD)?),
        })
    }

    /// Takes a part in; what there is of the coded body then. Each part is flushed.
    pub(crate) fn part(&mut self, data: &[u8]) -> io::Result<Bytes> {
        if data.is_empty() {
            return Ok(Bytes::new());
        }
        let out = match self {
            Encoder::Gzip(it) => {
                it.write_all(data)?;
                it.flush()?;
                it.get_mut()
            }
            Encoder::Brotli(it) => {
                it.write_all(data)?;
                it.flush()?;
                it.get_mut()
            }
            Encoder::Zstd(it) => {
                it.write_all(data)?;
                it.flush()?;
                it.get_mut()
            }
        };
        Ok(Bytes::from(std::mem::take(out)))
    }

    /// Takes the last part in; the rest of the coded body.
    pub(crate) fn last(self, data: &[u8]) -> io::Result<Bytes> {
        let out = match self {
            Encoder::Gzip(mut it) => {
                it.write_all(data)?;
                it.finish()?
            }
            Encoder::Brotli(mut it) => {
                it.write_all(data)?;
                it.into_inner()
            }
            Encoder::Zstd(mut it) => {
                it.write_all(data)?;
                it.finish()?
            }
        };
        Ok(Bytes::from(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn accepting(text: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(text));
        headers
    }

    fn decoded(coding: Coding, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(data).read_to_end(&mut out),
            Coding::Brotli => brotli::Decompressor::new(data, BUFFER).read_to_end(&mut out),
            Coding::Zstd => {
                zstd::stream::copy_decode(data, &mut out).expect("zstd");
                Ok(out.len())
            }
        }
        .expect("a whole stream");
        out
    }

    #[test]
    fn the_client_has_the_choice_then_the_server() {
        let all = Compression {
            codings: vec![Coding::Zstd, Coding::Brotli, Coding::Gzip],
            least: 0,
        };
        let cases = [
            ("gzip, br, zstd", Some(Coding::Zstd)),
            ("gzip, br", Some(Coding::Brotli)),
            ("gzip;q=0.9, br;q=0.5", Some(Coding::Gzip)),
            ("GZIP", Some(Coding::Gzip)),
            ("gzip;q=0", None),
            ("gzip ; q=0.001", Some(Coding::Gzip)),
            ("*", Some(Coding::Zstd)),
            ("zstd;q=0, *", Some(Coding::Brotli)),
            ("*;q=0, gzip", Some(Coding::Gzip)),
            ("identity, deflate", None),
            ("gzip;q=much", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(all.choose(&accepting(text)), expected, "{text}");
        }
        assert_eq!(all.choose(&HeaderMap::new()), None);
        assert_eq!(Compression::default().choose(&accepting("*")), None);
    }

    #[test]
    fn only_what_shrinks_and_is_not_settled_suits() {
        let head = |lines: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, HeaderValue::from_static(value));
            }
            suits(StatusCode::OK, &headers)
        };
        for kind in [
            "text/html; charset=utf-8",
            "application/json",
            "application/problem+json",
            "image/svg+xml",
            "Text/Event-Stream",
        ] {
            assert!(head(&[("content-type", kind)]), "{kind}");
        }
        for kind in ["image/png", "application/zip", "video/mp4", ""] {
            assert!(!head(&[("content-type", kind)]), "{kind}");
        }
        let text = ("content-type", "text/plain");
        assert!(!head(&[]));
        assert!(!head(&[text, ("content-encoding", "br")]));
        assert!(!head(&[text, ("content-range", "bytes 0-1/2")]));
        assert!(!head(&[text, ("cache-control", "public, No-Transform")]));
        assert!(head(&[text, ("cache-control", "public")]));
        let mut partial = HeaderMap::new();
        partial.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        assert!(!suits(StatusCode::PARTIAL_CONTENT, &partial));
    }

    #[test]
    fn a_head_says_what_was_done() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("9"));
        headers.insert(ETAG, HeaderValue::from_static("\"x\""));
        headers.insert(VARY, HeaderValue::from_static("Cookie"));
        vary(&mut headers);
        vary(&mut headers);
        announce(&mut headers, Coding::Brotli);
        assert_eq!(headers[CONTENT_ENCODING], "br");
        assert_eq!(headers[ETAG], "W/\"x\"");
        assert!(!headers.contains_key(CONTENT_LENGTH));
        let vary: Vec<_> = headers.get_all(VARY).iter().collect();
        assert_eq!(vary, ["Cookie", "accept-encoding"]);
    }

    #[test]
    fn parts_come_out_as_they_go_in_and_decode_to_the_whole() {
        let parts: [&[u8]; 4] = [b"one,", b"", &[b'x'; 300_000], b"last"];
        for coding in [Coding::Gzip, Coding::Brotli, Coding::Zstd] {
            let mut encoder = Encoder::new(coding).expect("an encoder");
            let mut wire = Vec::new();
            for part in &parts[..3] {
                let out = encoder.part(part).expect("a part");
                assert_eq!(out.is_empty(), part.is_empty(), "{coding:?}");
                wire.extend_from_slice(&out);
            }
            wire.extend_from_slice(&encoder.last(parts[3]).expect("the end"));
            assert!(wire.len() < 2000, "{coding:?} {}", wire.len());
            assert_eq!(decoded(coding, &wire), parts.concat(), "{coding:?}");
        }
    }
}
