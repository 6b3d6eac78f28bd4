//! Which file a request's path means. Text only: nothing here looks at a disk.
//!
//! Each segment is decoded by itself and must be a file's name and nothing else, so that no encoding
//! of a separator, of `..` or of a NUL gets past. What is refused here is no static file: the request
//! is the application's. The system's own check comes on top ([`super::folder`]).

/// The one hidden name that is served (RFC 8615).
const WELL_KNOWN: &[u8] = b".well-known";

/// What a file system has at most for a name, and for a path.
const NAME: usize = 255;
const PATH: usize = 4095;

/// A path below a folder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Below {
    /// Without a slash at its ends; empty for the folder itself.
    pub(crate) path: Vec<u8>,
    /// The request's path ended with a slash: it means a directory.
    pub(crate) slash: bool,
}

/// The rest of a path behind a route (itself without a slash at its end), if the route has it.
pub(crate) fn behind<'a>(path: &'a str, route: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(route)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// What the rest of a path means, if it means a file that may be served.
pub(crate) fn below(rest: &str) -> Option<Below> {
    let (mut path, bytes) = (Vec::with_capacity(rest.len()), rest.as_bytes());
    let Some((b'/', rest)) = bytes.split_first() else {
        return bytes.is_empty().then_some(Below { path, slash: false });
    };
    if rest.is_empty() {
        return Some(Below { path, slash: true });
    }
    let (rest, slash) = match rest.split_last() {
        Some((b'/', rest)) => (rest, true),
        _ => (rest, false),
    };
    for segment in rest.split(|&byte| byte == b'/') {
        if !path.is_empty() {
            path.push(b'/');
        }
        let start = path.len();
        decode(segment, &mut path)?;
        if !is_name(&path[start..]) || path.len() > PATH {
            return None;
        }
    }
    Some(Below { path, slash })
}

/// The last segment as it came, for a redirect to the same with a slash.
pub(crate) fn last_segment(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, last)| last)
}

/// A name that is not hidden. `.` and `..` are, and so no case of their own.
fn is_name(name: &[u8]) -> bool {
    match name.first() {
        None => false,
        Some(b'.') => name == WELL_KNOWN,
        // A backslash separates on other systems: nobody has it in a name in good faith.
        Some(_) => name.len() <= NAME && !name.iter().any(|byte| matches!(byte, b'/' | b'\\' | 0)),
    }
}

fn decode(segment: &[u8], into: &mut Vec<u8>) -> Option<()> {
    let mut rest = segment;
    while let Some((&first, behind)) = rest.split_first() {
        rest = match (first, behind) {
            (b'%', [high, low, rest @ ..]) => {
                into.push(digit(*high)? * 16 + digit(*low)?);
                rest
            }
            (b'%', _) => return None,
            (byte, rest) => {
                into.push(byte);
                rest
            }
        };
    }
    Some(())
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn path(rest: &str) -> Option<(String, bool)> {
        below(rest).map(|it| (String::from_utf8_lossy(&it.path).into_owned(), it.slash))
    }

    fn is(text: &str, slash: bool) -> Option<(String, bool)> {
        Some((text.to_owned(), slash))
    }

    #[test]
    fn a_route_has_what_is_below_it() {
        assert_eq!(behind("/static/a", "/static"), Some("/a"));
        assert_eq!(behind("/static", "/static"), Some(""));
        assert_eq!(behind("/statics", "/static"), None);
        assert_eq!(behind("/a", ""), Some("/a"));
        assert_eq!(behind("*", ""), None);
    }

    #[test]
    fn names_are_decoded_once() {
        assert_eq!(path(""), is("", false));
        assert_eq!(path("/"), is("", true));
        assert_eq!(path("/a/b.css"), is("a/b.css", false));
        assert_eq!(path("/a%20b/%E4%BD%A0"), is("a b/你", false));
        assert_eq!(path("/a/"), is("a", true));
        assert_eq!(path("/%2561"), is("%61", false));
        assert_eq!(path("/a+b"), is("a+b", false));
        assert_eq!(below("/%FF").unwrap().path, b"\xff");
    }

    #[test]
    fn nothing_but_names_gets_through() {
        for rest in [
            "x",
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/../a",
            "/a/..",
            "/a/./b",
            "/a/../b",
            "/%2e%2e/a",
            "/.%2E/a",
            "/%2e",
            "/a%2fb",
            "/a%2Fb",
            "/..%2fa",
            "/a%5cb",
            "/..\\a",
            "/a%00",
            "/%00",
            "/a%00.css",
            "/%",
            "/%4",
            "/%zz",
            "/%+1",
            "/.git/config",
            "/a/.env",
            "/%2eenv",
            "/.well-known%2f..",
            "/.well-knowns",
        ] {
            assert_eq!(path(rest), None, "{rest}");
        }
        assert_eq!(path(&format!("/{}", "x".repeat(NAME + 1))), None);
        assert_eq!(path(&"/xxxxxxxxxxxxxxx".repeat(257)), None);
    }

    #[test]
    fn well_known_is_known() {
        assert_eq!(
            path("/.well-known/security.txt"),
            is(".well-known/security.txt", false)
        );
    }

    #[test]
    fn whatever_comes_is_below() {
        // Every sequence of up to four of these: what gets through is a relative path of names.
        let parts = ["/", ".", "%2e", "%2f", "%5c", "%00", "a", "%", "\\"];
        for i in 0..parts.len().pow(4) {
            let (mut rest, mut n) = (String::from("/"), i);
            for _ in 0..4 {
                rest.push_str(parts[n % parts.len()]);
                n /= parts.len();
            }
            if let Some(it) = below(&rest).filter(|it| !it.path.is_empty()) {
                assert!(it.path.split(|&b| b == b'/').all(is_name), "{rest}");
            }
        }
    }
}
