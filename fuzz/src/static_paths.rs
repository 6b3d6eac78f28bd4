//! Which file a request's path means: a path of plain names below the folder, or none at all; the one
//! that a plain reading gives.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

use rondel_http::fuzzing::{behind, below};
use rondel_http::target::percent_decode;

pub fn check(data: &[u8]) {
    decoding(data);
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for route in ["", "/static", "/a/b"] {
        if let Some(rest) = behind(text, route) {
            assert_eq!(format!("{route}{rest}"), text);
            path(rest);
        }
    }
    path(text);
    escaped(text);
}

fn path(rest: &str) {
    let found = below(rest);
    assert_eq!(found, model(rest), "{rest:?}");
    let Some((path, _)) = found else { return };
    assert!(path.len() < 4096 + 256);
    let folder = Path::new("/srv/folder");
    let path = Path::new(OsStr::from_bytes(&path));
    let mut depth = 0;
    for component in path.components() {
        assert!(matches!(component, Component::Normal(_)), "{rest:?}");
        depth += 1;
    }
    assert!(folder.join(path).starts_with(folder), "{rest:?}");
    assert_eq!(
        folder.join(path).components().count(),
        3 + depth,
        "{rest:?}"
    );
}

/// Each segment decoded by itself; names only.
fn model(rest: &str) -> Option<(Vec<u8>, bool)> {
    if rest.is_empty() {
        return Some((Vec::new(), false));
    }
    let mut segments: Vec<&str> = rest.strip_prefix('/')?.split('/').collect();
    let slash = segments.last() == Some(&"");
    if slash {
        segments.pop();
    }
    let mut names = Vec::new();
    let mut length = 0;
    for segment in segments {
        // Each percent sign begins an escape.
        let mut parts = segment.split('%');
        parts.next();
        for part in parts {
            let digits = part.as_bytes().get(..2)?;
            if !digits.iter().all(u8::is_ascii_hexdigit) {
                return None;
            }
        }
        let name = percent_decode(segment.as_bytes());
        let hidden = name.first() == Some(&b'.') && name != b".well-known";
        if name.is_empty() || hidden || name.len() > 255 {
            return None;
        }
        if name.iter().any(|byte| b"/\\\0".contains(byte)) {
            return None;
        }
        length += name.len() + usize::from(!names.is_empty());
        if length > 4095 {
            return None;
        }
        names.push(name);
    }
    Some((names.join(&b'/'), slash))
}

/// A name whose bytes are escaped, some or all, is the same name.
fn escaped(text: &str) {
    let mut all = String::from("/");
    let mut some = String::from("/");
    for (at, byte) in text.bytes().enumerate() {
        let escape = format!("%{byte:02x}");
        all.push_str(&escape);
        if at % 2 == 0 || b"%/".contains(&byte) || !byte.is_ascii() {
            some.push_str(&escape.to_uppercase());
        } else {
            some.push(char::from(byte));
        }
    }
    let found = below(&all);
    assert_eq!(found, below(&some), "{text:?}");
    if let (Some((path, _)), false) = (found, text.is_empty()) {
        assert_eq!(path, text.as_bytes());
        assert!(!text.contains('/'), "{text:?}");
    }
}

/// Decoding undoes encoding, and makes nothing longer.
fn decoding(data: &[u8]) {
    assert!(percent_decode(data).len() <= data.len());
    let escaped: String = data.iter().map(|byte| format!("%{byte:02X}")).collect();
    assert_eq!(percent_decode(escaped.as_bytes()), data);
    if !data.contains(&b'%') {
        assert_eq!(percent_decode(data), data);
    }
}
