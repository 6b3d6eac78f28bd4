//! A connection of HTTP/1.1. In pieces its bytes come to the same requests and responses as whole. The
//! application is called with no request that RFC 9112, read strictly, does not find at that very place,
//! with that body; and a plain sequence of requests is answered, each of them.

use crate::connection::{Call, Seen, with};
use crate::text::{Dice, pieces};

pub fn check(data: &[u8]) {
    let mut dice = Dice(data);
    let seed = u32::from_be_bytes(dice.array());
    let bytes = dice.0;
    if bytes.trim_ascii_start().starts_with(b"PRI") {
        return; // another target's
    }
    let (whole, parts) = with(|host| {
        let whole = host.connection(&[bytes]);
        (whole, host.connection(&pieces(bytes, seed)))
    });
    strictly(bytes, &whole);
    strictly(bytes, &parts);
    if early(bytes) {
        return;
    }
    assert!(
        alike(&whole, &parts),
        "{:?}, but in pieces {:?}, of {}",
        whole.calls,
        parts.calls,
        bytes.escape_ascii()
    );
    if let Some(rest) = whole.output.strip_prefix(&parts.output[..]) {
        // What is wrong with a head that does not end is found at once, or with its end.
        let refused = rest.starts_with(b"HTTP/1.1 4") || rest.starts_with(b"HTTP/1.0 4");
        if rest.is_empty() || (whole.closed && !parts.closed && refused) {
            return;
        }
    }
    panic!(
        "{} of {}, but in pieces {}",
        whole.output.escape_ascii(),
        bytes.escape_ascii(),
        parts.output.escape_ascii()
    );
}

/// Whether the application was told the same. How much of a body it has seen that is refused for its
/// length hangs on how the body came: a piece that is too much is kept from it as a whole.
fn alike(whole: &Seen, parts: &Seen) -> bool {
    let refused = [whole, parts].iter().all(|seen| {
        let mut answers = seen.output.windows(12);
        answers.any(|at| at == b"HTTP/1.1 413")
    });
    let same = |(one, other): (&Call, &Call)| {
        let cut = refused && !one.whole && !other.whole;
        let begins = one.body.starts_with(&other.body) || other.body.starts_with(&one.body);
        format!("{:?}", one.head) == format!("{:?}", other.head)
            && (one.body == other.body || (cut && begins))
    };
    whole.calls.len() == parts.calls.len() && whole.calls.iter().zip(&parts.calls).all(same)
}

/// Whether something may come behind a request that may change the protocol: whether it does before or
/// after the answer makes a difference, as it should.
fn early(bytes: &[u8]) -> bool {
    let lower = bytes.to_ascii_lowercase();
    lower.windows(8).any(|at| at == b"upgrade:") || lower.starts_with(b"connect ")
}

#[derive(Debug)]
struct Request<'a> {
    method: &'a [u8],
    target: &'a [u8],
    fields: Vec<(&'a [u8], &'a [u8])>,
    /// Of its body, what there is; and whether that is all.
    body: Vec<u8>,
    whole: bool,
    /// A server has no reason to refuse it, or to close the connection with it.
    plain: bool,
}

/// Holds what the application was called with to the requests that stand there.
fn strictly(bytes: &[u8], seen: &Seen) {
    let requests = read(bytes);
    let calls = seen.calls.iter().enumerate();
    for (number, call) in calls {
        let say = || format!("call {number}, {call:?}, in {}", bytes.escape_ascii());
        let request = requests.get(number).unwrap_or_else(|| panic!("{}", say()));
        assert_eq!(
            call.head.method.as_str().as_bytes(),
            request.method,
            "{}",
            say()
        );
        assert_eq!(call.head.headers.len(), request.fields.len(), "{}", say());
        for (name, value) in &request.fields {
            let name = std::str::from_utf8(name).expect("a token");
            let mut found = call.head.headers.get_all(name).iter();
            assert!(found.any(|found| found.as_bytes() == *value), "{}", say());
        }
        if request.target.starts_with(b"/") && !request.target.contains(&b'#') {
            let target = call
                .head
                .uri
                .path_and_query()
                .map(|it| it.as_str().as_bytes());
            assert_eq!(target, Some(request.target), "{}", say());
        }
        assert!(request.body.starts_with(&call.body), "{}", say());
        if call.whole {
            assert!(request.whole, "{}", say());
            assert_eq!(call.body, request.body, "{}", say());
        }
        if call.websocket {
            assert_eq!(number + 1, seen.calls.len(), "{}", say());
            return;
        }
    }
    let plain = requests
        .iter()
        .take_while(|request| request.plain && request.whole);
    let plain = plain.count();
    let answered = seen.calls.iter().filter(|call| call.whole).count();
    assert!(
        answered >= plain,
        "{answered} of {plain} requests were answered in {}: {}",
        bytes.escape_ascii(),
        seen.output.escape_ascii()
    );
}

/// The requests that stand there, up to what is none.
fn read(bytes: &[u8]) -> Vec<Request<'_>> {
    let (mut requests, mut rest) = (Vec::new(), bytes);
    loop {
        while let Some(behind) = rest.strip_prefix(b"\r\n") {
            rest = behind;
        }
        let Some(end) = rest.windows(4).position(|at| at == b"\r\n\r\n") else {
            return requests;
        };
        let (head, behind) = (&rest[..end], &rest[end + 4..]);
        let Some(mut request) = self::head(head) else {
            return requests;
        };
        let all = |name: &str| {
            let same = |field: &&(&[u8], &[u8])| field.0.eq_ignore_ascii_case(name.as_bytes());
            request
                .fields
                .iter()
                .filter(same)
                .map(|field| field.1)
                .collect::<Vec<_>>()
        };
        let after = match (&all("content-length")[..], &all("transfer-encoding")[..]) {
            ([], []) => {
                request.whole = true;
                Some(behind)
            }
            ([length], []) => {
                let Ok(length) = std::str::from_utf8(length) else {
                    return requests;
                };
                if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
                    return requests;
                }
                let Ok(length) = length.parse::<usize>() else {
                    return requests;
                };
                request.plain &= length <= 3000;
                request.whole = behind.len() >= length;
                request.body = behind[..length.min(behind.len())].to_vec();
                behind.get(length..)
            }
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && is_11(head) => {
                chunks(behind, &mut request)
            }
            _ => return requests,
        };
        let goes_on = request.whole;
        requests.push(request);
        match after {
            Some(after) if goes_on => rest = after,
            _ => return requests,
        }
    }
}

fn is_11(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    line.ends_with(b" HTTP/1.1")
}

fn is_token(text: &[u8]) -> bool {
    let special = b"!#$%&'*+-.^_`|~";
    let fine = |byte: &u8| byte.is_ascii_alphanumeric() || special.contains(byte);
    !text.is_empty() && text.iter().all(fine)
}

fn head(head: &[u8]) -> Option<Request<'_>> {
    let mut lines = Vec::new();
    let mut rest = head;
    while let Some(at) = rest.windows(2).position(|at| at == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    if lines
        .iter()
        .any(|line| line.iter().any(|byte| b"\r\n\0".contains(byte)))
    {
        return None;
    }
    let words: Vec<_> = lines[0].split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else {
        return None;
    };
    if !is_token(method) || target.is_empty() || !matches!(version, b"HTTP/1.1" | b"HTTP/1.0") {
        return None;
    }
    let mut fields = Vec::new();
    for line in &lines[1..] {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let text = value
            .iter()
            .all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 127));
        if !is_token(name) || !text {
            return None;
        }
        let space = |byte: &u8| matches!(byte, b' ' | b'\t');
        let start = value
            .iter()
            .position(|byte| !space(byte))
            .unwrap_or(value.len());
        let end = value
            .iter()
            .rposition(|byte| !space(byte))
            .map_or(start, |at| at + 1);
        fields.push((name, &value[start..end]));
    }
    let of = |name: &str| {
        let same = |field: &&(&[u8], &[u8])| field.0.eq_ignore_ascii_case(name.as_bytes());
        fields.iter().filter(same).count()
    };
    if version == b"HTTP/1.1" && of("host") != 1 {
        return None;
    }
    let closes = of("connection") + of("upgrade") + of("expect") > 0;
    // A length that needs so much room is refused.
    let stretched = lines
        .iter()
        .any(|line| line.len() > 64 && line.to_ascii_lowercase().starts_with(b"content-length:"));
    let simple = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'/';
    let plain = version == b"HTTP/1.1"
        && !closes
        && !stretched
        && matches!(method, b"GET" | b"POST" | b"PUT" | b"HEAD")
        && target.starts_with(b"/")
        && target.len() < 1000
        && target.iter().all(simple)
        && fields.len() < 90
        && head.len() < 4000;
    Some(Request {
        method,
        target,
        fields,
        body: Vec::new(),
        whole: false,
        plain,
    })
}

/// A chunked body (section 7.1); what follows it.
fn chunks<'a>(mut rest: &'a [u8], request: &mut Request<'_>) -> Option<&'a [u8]> {
    loop {
        let line = rest.windows(2).position(|at| at == b"\r\n")?;
        let (line, behind) = (&rest[..line], &rest[line + 2..]);
        if line.iter().any(|byte| b"\r\n".contains(byte)) {
            return None;
        }
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let size = std::str::from_utf8(size)
            .ok()?
            .trim_end_matches([' ', '\t']);
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        // Extensions are bounded, as is all.
        request.plain &= line.len() < 1000;
        let size = u64::from_str_radix(size, 16).ok()?;
        if size == 0 {
            rest = behind;
            break;
        }
        let size = usize::try_from(size).ok()?;
        let there = size.min(behind.len());
        request.body.extend_from_slice(&behind[..there]);
        rest = behind.get(size..)?.strip_prefix(b"\r\n")?;
    }
    request.plain &= request.body.len() <= 3000;
    // Trailers, to the blank line.
    loop {
        let line = rest.windows(2).position(|at| at == b"\r\n")?;
        let (line, behind) = (&rest[..line], &rest[line + 2..]);
        rest = behind;
        if line.is_empty() {
            request.whole = true;
            return Some(rest);
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let text = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 127);
        if !is_token(&line[..colon]) || !line[colon..].iter().all(text) {
            return None;
        }
        // How many and how long they may be is the server's affair.
        request.plain = false;
    }
}
