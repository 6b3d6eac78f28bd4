//! Where heads, bodies and chunks lie in the bytes of an HTTP/1.1 connection, and what RFC 9112 has
//! refused there although hyper takes it.
//!
//! ```text
//!   socket ─► Framing::pass ─► hyper
//!                │
//!   Start ─► Head ──blank line──► Body(n) ──► Head …
//!     │       ▲ │                 Chunk ─► … ─► Trailers ──► Head …
//!     │       │ └─ `Upgrade`, no body ─► Upgrade (frames may follow) ──denied──► Head
//!     ▼ HTTP/2's preface    anything below ─► Refused
//!    Off
//! ```
//!
//! | refused | RFC 9112 | hyper |
//! |---|---|---|
//! | a line of a head or of trailers that ends with a bare LF | 2.2: "may"; a proxy before us may see one line | takes it for a line's end |
//! | `Transfer-Encoding` with `Content-Length` | 6.1: "ought to be handled as an error" | takes off the latter, unseen |
//! | a second `Content-Length`, even the same; one that is no number, or takes more than 64 bytes | 6.3 | takes the same twice |
//! | a second line of `Transfer-Encoding` | 6.1: chunked at most once | looks at the last |
//! | a request line that begins with a bare CR | 2.2: "MUST consider that element to be invalid" | passes over it, behind a response |
//! | HTTP/2's `PRI * HTTP/2.0` behind anything | RFC 9113, 3.4: it comes first | ends without an answer if it sees the whole preface |
//!
//! Instead of the rest hyper is given what it can only refuse, so that the answer (400), the connection's
//! end and the report are those of any other malformed request. What is refused here is precise: bodies
//! are passed over by their length, chunks by theirs. Lines are found by a vectorised search for LF, so
//! that a plain request pays 20 ns, and one with a dozen header lines 70.
//!
//! HTTP/2's preface that comes in pieces is held back until it is whole: hyper tells it from a bad request
//! only then.
//!
//! Plain functions of bytes, without I/O. Loop's thread only.

use memchr::memchr_iter;

/// How HTTP/2 begins (RFC 9113, 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Its first line.
const PREFACE_LINE: &[u8] = PREFACE.split_at(14).0;

/// What hyper cannot but refuse, wherever it is: NUL is in no line and no chunk's head but its extensions,
/// in which LF is not; and heads and trailers are over.
pub(crate) const REFUSED: &[u8] = b"\0\n\r\n\r\n";

/// What is kept of a line that comes in pieces. No line that matters is longer.
const KEPT: usize = 64;

/// What hyper is to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// First so many bytes of [`PREFACE`], which were held back; then what came.
    All(usize),
    /// The same, but what came up to there only, then [`REFUSED`].
    Cut(usize, usize),
    /// Nothing yet.
    Hold,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// At the connection's first bytes, so many of which are the preface's.
    Start(usize),
    Head,
    Body(u64),
    Chunk(Chunk),
    Upgrade,
    Off,
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    First,
    Size(u64),
    Space(u64),
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    Trailers,
}

/// What a head has said so far.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    /// Its request line has come.
    begun: bool,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    bad: bool,
}

#[derive(Debug)]
pub(crate) struct Framing {
    at: At,
    head: Head,
    /// Of the present line, as far as it came before: its first bytes, its length, its last byte.
    kept: [u8; KEPT],
    length: usize,
    last: u8,
    /// Heads that have come to their end.
    heads: u64,
    /// Something has come behind a request that may change the protocol.
    early: bool,
}

impl Framing {
    pub(crate) fn new() -> Framing {
        Framing {
            at: At::Start(0),
            head: Head::default(),
            kept: [0; KEPT],
            length: 0,
            last: 0,
            heads: 0,
            early: false,
        }
    }

    /// It is HTTP/2: nothing is looked at.
    pub(crate) fn off(&mut self) {
        self.at = At::Off;
    }

    /// Whether it is.
    pub(crate) fn is_off(&self) -> bool {
        self.at == At::Off
    }

    /// Behind a request that may change the protocol, the `number`th of the connection; what comes now is
    /// of either. Others may be answered before it.
    pub(crate) fn may_upgrade(&self, number: u64) -> bool {
        self.at == At::Upgrade && self.heads == number
    }

    /// It has not changed: the next request follows.
    pub(crate) fn resume(&mut self) {
        if self.at == At::Upgrade {
            self.early = false;
            self.begin_head();
        }
    }

    /// Whether something has come behind such a request, before it was answered. It was not looked at.
    pub(crate) fn came_early(&self, number: u64) -> bool {
        self.early && self.may_upgrade(number)
    }

    /// Bytes of [`PREFACE`] that are held back, and are no longer.
    pub(crate) fn release(&mut self) -> usize {
        match self.at {
            At::Start(held) => {
                self.at = At::Start(0);
                held
            }
            _ => 0,
        }
    }

    /// Takes note of what has come.
    #[inline]
    pub(crate) fn pass(&mut self, data: &[u8]) -> Pass {
        let mut held = 0;
        if let At::Start(before) = self.at {
            let missing = &PREFACE[before..];
            let n = missing.len().min(data.len());
            if data[..n] == missing[..n] {
                if n < missing.len() {
                    self.at = At::Start(before + n);
                    return Pass::Hold;
                }
                self.at = At::Off;
                return Pass::All(before);
            }
            held = before;
            self.begin_head();
            if let Err(at) = self.look(&PREFACE[..before]) {
                self.at = At::Refused;
                return Pass::Cut(at, 0);
            }
        }
        match self.look(data) {
            Ok(()) => Pass::All(held),
            Err(at) => {
                self.at = At::Refused;
                Pass::Cut(held, at)
            }
        }
    }

    /// Fails at the byte instead of which hyper is to refuse.
    fn look(&mut self, data: &[u8]) -> Result<(), usize> {
        let mut i = 0;
        while i < data.len() {
            match self.at {
                At::Off | At::Start(_) => return Ok(()),
                At::Upgrade => {
                    self.early = true;
                    return Ok(());
                }
                At::Refused => return Err(i),
                At::Body(left) => {
                    let n = left.min((data.len() - i) as u64);
                    i += n as usize;
                    match left - n {
                        0 => self.begin_head(),
                        left => self.at = At::Body(left),
                    }
                }
                At::Head | At::Chunk(Chunk::Trailers) => match self.lines(&data[i..]) {
                    Ok(n) => i += n,
                    Err(n) => return Err(i + n),
                },
                At::Chunk(chunk) => {
                    let (next, n) = step(chunk, &data[i..]).ok_or(i)?;
                    i += n;
                    self.at = At::Chunk(next);
                    if next == Chunk::Trailers {
                        self.begin_lines();
                    }
                }
            }
        }
        Ok(())
    }

    fn begin_lines(&mut self) {
        (self.length, self.last) = (0, 0);
    }

    fn begin_head(&mut self) {
        self.at = At::Head;
        self.head = Head::default();
        self.begin_lines();
    }

    /// Lines up to the blank one, or to the end of what there is; how many bytes that is.
    fn lines(&mut self, data: &[u8]) -> Result<usize, usize> {
        let mut start = 0;
        for end in memchr_iter(b'\n', data) {
            let over = match (self.length, &data[start..end]) {
                (0, [line @ .., b'\r']) => match line.first() {
                    // Most lines.
                    Some(first) if self.head.begun && !matters(*first) => false,
                    _ => self.line(line, true),
                },
                (0, _) => return Err(end),
                (_, rest) => self.kept_line(rest).ok_or(end)?,
            };
            start = end + 1;
            if over {
                self.section_over().ok_or(end)?;
                return Ok(start);
            }
        }
        self.keep(&data[start..]);
        Ok(data.len())
    }

    /// The same as `line` for the rest of one that came in pieces, with all but its LF; none without a CR.
    #[cold]
    fn kept_line(&mut self, rest: &[u8]) -> Option<bool> {
        self.keep(rest);
        let (kept, length) = (self.kept, self.length - 1);
        if self.last != b'\r' {
            return None;
        }
        self.begin_lines();
        Some(self.line(&kept[..length.min(KEPT)], length <= KEPT))
    }

    fn keep(&mut self, part: &[u8]) {
        let at = self.length.min(KEPT);
        let n = part.len().min(KEPT - at);
        self.kept[at..at + n].copy_from_slice(&part[..n]);
        self.length += part.len();
        self.last = part.last().copied().unwrap_or(self.last);
    }

    /// Whether this line, without its end, is the blank one at a section's end. `whole`: all of it is
    /// there.
    fn line(&mut self, line: &[u8], whole: bool) -> bool {
        let Some(first) = line.first() else {
            // Blank lines before a request are passed over (section 2.2).
            return self.head.begun;
        };
        if self.at != At::Head {
            return false;
        }
        let head = &mut self.head;
        if !std::mem::replace(&mut head.begun, true) {
            // Behind a response hyper passes over CRs.
            head.bad = line == PREFACE_LINE || *first == b'\r';
            return false;
        }
        match first | 0x20 {
            b'c' => {
                if let Some(value) = field(line, b"content-length") {
                    let number = number(value).filter(|_| whole && line.len() <= KEPT);
                    head.bad |= head.length.is_some() || number.is_none();
                    head.length = number;
                }
            }
            b't' if field(line, b"transfer-encoding").is_some() => {
                head.bad |= std::mem::replace(&mut head.chunked, true);
            }
            b'u' => head.upgrade |= field(line, b"upgrade").is_some(),
            _ => {}
        }
        false
    }

    /// What follows a head, or trailers; none if it is to be refused.
    fn section_over(&mut self) -> Option<()> {
        let head = self.head;
        if self.at != At::Head {
            self.begin_head();
            return Some(());
        }
        self.heads += 1;
        if head.bad || (head.chunked && head.length.is_some()) {
            return None;
        }
        match (head.chunked, head.length.unwrap_or(0)) {
            (true, _) => self.at = At::Chunk(Chunk::First),
            (false, 0) if head.upgrade => self.at = At::Upgrade,
            (false, 0) => self.begin_head(),
            (false, length) => self.at = At::Body(length),
        }
        Some(())
    }
}

/// Whether a line that begins so may say something of the request's framing.
fn matters(first: u8) -> bool {
    matches!(first | 0x20, b'c' | b't' | b'u')
}

/// The value of a line with this name.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let (colon, value) = rest.split_first()?;
    (*colon == b':' && found.eq_ignore_ascii_case(name)).then_some(value)
}

/// Digits alone, in white space.
fn number(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let text = text.trim_matches([' ', '\t']);
    // `parse` takes a sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// The next state within a chunked body, and the bytes that lead there; none where there is no way on.
/// Nothing that hyper takes is refused here, nor the other way round.
fn step(chunk: Chunk, data: &[u8]) -> Option<(Chunk, usize)> {
    let byte = *data.first()?;
    let size = |size: u64| {
        let digit = char::from(byte).to_digit(16)?;
        let size = size.checked_mul(16)?.checked_add(u64::from(digit))?;
        Some(Chunk::Size(size))
    };
    let next = match (chunk, byte) {
        (Chunk::Data(left), _) => {
            let n = left.min(data.len() as u64);
            let next = match left - n {
                0 => Chunk::DataCr,
                left => Chunk::Data(left),
            };
            return Some((next, n as usize));
        }
        (Chunk::First, _) => size(0)?,
        (Chunk::Size(n) | Chunk::Space(n), b' ' | b'\t') => Chunk::Space(n),
        (Chunk::Size(n) | Chunk::Space(n), b';') => Chunk::Extension(n),
        (Chunk::Size(n) | Chunk::Space(n) | Chunk::Extension(n), b'\r') => Chunk::SizeLf(n),
        (Chunk::Size(n), _) => size(n)?,
        (Chunk::Extension(_), b'\n') => return None,
        (Chunk::Extension(n), _) => Chunk::Extension(n),
        (Chunk::SizeLf(0), b'\n') => Chunk::Trailers,
        (Chunk::SizeLf(n), b'\n') => Chunk::Data(n),
        (Chunk::DataCr, b'\r') => Chunk::DataLf,
        (Chunk::DataLf, b'\n') => Chunk::First,
        _ => return None,
    };
    Some((next, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What hyper is given of `data` when it comes whole; the same must come of any two pieces.
    fn given(data: &[u8]) -> Vec<u8> {
        let whole = in_pieces(&[data]);
        for at in 1..data.len() {
            let pieces = [&data[..at], &data[at..]];
            assert_eq!(in_pieces(&pieces), whole, "{at} of {}", data.escape_ascii());
        }
        let bytes: Vec<_> = data.chunks(1).collect();
        assert_eq!(in_pieces(&bytes), whole, "{}", data.escape_ascii());
        whole
    }

    fn in_pieces(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut framing, mut out) = (Framing::new(), Vec::new());
        for piece in pieces {
            match framing.pass(piece) {
                Pass::Hold => {}
                Pass::All(held) => {
                    out.extend_from_slice(&PREFACE[..held]);
                    out.extend_from_slice(piece);
                }
                Pass::Cut(held, at) => {
                    out.extend_from_slice(&PREFACE[..held]);
                    out.extend_from_slice(&piece[..at]);
                    out.extend_from_slice(REFUSED);
                    return out;
                }
            }
        }
        out.extend_from_slice(&PREFACE[..framing.release()]);
        out
    }

    fn passes(data: &[u8]) {
        assert_eq!(
            given(data).escape_ascii().to_string(),
            data.escape_ascii().to_string()
        );
    }

    /// Refused at the mark: what is before it passes.
    fn refused(data: &str) {
        let (before, rest) = data.split_once('#').expect("a mark");
        let all = [before, rest].concat();
        let expected = [before.as_bytes(), REFUSED].concat();
        assert_eq!(
            given(all.as_bytes()).escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
    }

    #[test]
    fn requests_pass_and_their_bodies_whatever_is_in_them() {
        passes(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n");
        passes(b"\r\n\r\nGET / HTTP/1.1\r\nhost: t\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        passes(b"POST / HTTP/1.1\r\nContent-Length: 12 \r\n\r\na\nb\nc\n\n\n\r\n\nGET / HTTP/1.1\r\n\r\n");
        passes(b"POST / HTTP/1.1\r\ntransfer-Encoding: chunked\r\n\r\n3\r\n\n\n\n\r\nA;x=\ty\r\n0123456\n\n\n\r\n0 \t\r\nt: u\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        passes(b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\nP");
    }

    #[test]
    fn a_bare_cr_is_no_blank_line() {
        refused("\rGET / HTTP/1.1\r\nhost: t\r\n\r#\n");
        refused("GET / HTTP/1.1\r\n\r\n\r\rGET / HTTP/1.1\r\nhost: t\r\n\r#\n");
    }

    #[test]
    fn a_bare_lf_is_no_line_end() {
        for data in [
            "#\nGET / HTTP/1.1\r\n\r\n",
            "\r\n#\n",
            "GET / HTTP/1.1#\nhost: t\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: t#\nx: y\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: t\r\n#\n",
            "POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\n\nGET / HTTP/1.1#\n\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n#\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y#\n\r\n",
        ] {
            refused(data);
        }
    }

    #[test]
    fn a_body_has_one_framing() {
        for lines in [
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nx: y\r\nCONTENT-LENGTH: 5\r\n",
            "content-length: 5\r\ncontent-length: 5\r\n",
            "content-length: 5, 5\r\n",
            "content-length: +5\r\n",
            "content-length:\r\n",
            "content-length: 18446744073709551616\r\n",
            "content-length:                                                                5\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        ] {
            refused(&format!("POST / HTTP/1.1\r\n{lines}\r#\n0\r\n\r\n"));
        }
    }

    #[test]
    fn a_malformed_chunk_is_the_end() {
        let head = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        for chunks in [
            "#\r\n",
            "#+1\r\n",
            "1#x\r\n",
            "1 #1\r\n",
            "1;a#\nb\r\n",
            "1\r#a",
            "1#\na",
            "1\r\naa#",
            "1\r\na\r#\r",
            "1000000000000000#0\r\n",
        ] {
            let chunks = chunks.replace("aa#", "a#a");
            refused(&format!("{head}{chunks}"));
        }
    }

    #[test]
    fn behind_an_upgrade_frames_may_follow_or_another_request() {
        let mut framing = Framing::new();
        let head = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(framing.pass(head), Pass::All(0));
        assert!(framing.may_upgrade(1));
        assert!(!framing.came_early(1));
        assert_eq!(framing.pass(b"\n\n\n"), Pass::All(0));
        assert!(framing.came_early(1));
        framing.resume();
        assert!(!framing.came_early(1));
        assert_eq!(framing.pass(b"GET / HTTP/1.1\n"), Pass::Cut(0, 14));
        // What is answered before it has nothing to do with it.
        let mut framing = Framing::new();
        let two = [b"GET / HTTP/1.1\r\nhost: t\r\n\r\n", &head[..], b"\n"].concat();
        assert_eq!(framing.pass(&two), Pass::All(0));
        assert!(!framing.may_upgrade(1) && !framing.came_early(1));
        assert!(framing.may_upgrade(2) && framing.came_early(2));
        // With a body it is no such request.
        passes(
            b"GET / HTTP/1.1\r\nupgrade: x\r\ncontent-length: 2\r\n\r\n\n\nGET / HTTP/1.1\r\n\r\n",
        );
        refused("GET / HTTP/1.1\r\nupgrade: x\r\ncontent-length: 2\r\n\r\n\n\n#\n");
    }

    #[test]
    fn the_preface_of_http_2_is_held_back_until_it_is_whole() {
        let all = [PREFACE, b"\0\0\n\n\n"].concat();
        passes(&all);
        let mut framing = Framing::new();
        assert_eq!(framing.pass(&PREFACE[..23]), Pass::Hold);
        assert_eq!(framing.pass(b"\n\0\n"), Pass::All(23));
        // It may become something else, or nothing more.
        passes(b"POST / HTTP/1.1\r\n\r\n");
        passes(b"PRI * HTTP/2.0\r\n\r\nSM");
        refused("PRI * HTTP/2.0\r\n\r#\nSM\n");
        refused("PRI * HTTP/2.0\r\nhost: t\r\n\r#\n");
        // Nothing comes before it.
        let preface = "PRI * HTTP/2.0\r\n\r#\nSM\r\n\r\n";
        refused(&format!("\r\n{preface}"));
        refused(&format!("GET / HTTP/1.1\r\nhost: t\r\n\r\n\r{preface}"));
        refused(&format!("GET / HTTP/1.1\r\nhost: t\r\n\r\n{preface}"));
    }
}
