//! What kinds of content files have, by their names' endings: `mime_guess`'s table, and a memory of it.

use hyper::header::HeaderValue;
use std::cell::RefCell;
use std::collections::HashMap;

/// Those that were asked for and are known: as many as the table has, at most.
#[derive(Default)]
pub(crate) struct Kinds(RefCell<HashMap<Box<str>, HeaderValue>>);

impl Kinds {
    pub(crate) fn of(&self, extension: &str) -> HeaderValue {
        if let Some(kind) = self.0.borrow().get(extension) {
            return kind.clone();
        }
        let Some(kind) = mime_guess::from_ext(extension).first_raw() else {
            return HeaderValue::from_static("application/octet-stream");
        };
        // RFC 9239 has one name for it; the table two.
        let kind = match kind {
            "application/javascript" => "text/javascript",
            kind => kind,
        };
        // Text is taken to be in UTF-8, as everybody's is who serves it from files.
        let value = if kind.starts_with("text/") {
            HeaderValue::try_from(format!("{kind}; charset=utf-8"))
        } else {
            Ok(HeaderValue::from_static(kind))
        };
        let value = value.unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"));
        if extension.bytes().all(|byte| !byte.is_ascii_uppercase()) {
            self.0.borrow_mut().insert(extension.into(), value.clone());
        }
        value
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_usual_kinds() {
        let kinds = Kinds::default();
        for _ in 0..2 {
            for (extension, kind) in [
                ("html", "text/html; charset=utf-8"),
                ("css", "text/css; charset=utf-8"),
                ("CSS", "text/css; charset=utf-8"),
                ("js", "text/javascript; charset=utf-8"),
                ("mjs", "text/javascript; charset=utf-8"),
                ("json", "application/json"),
                ("svg", "image/svg+xml"),
                ("png", "image/png"),
                ("woff2", "font/woff2"),
                ("wasm", "application/wasm"),
                ("avif", "image/avif"),
                ("gz", "application/gzip"),
                ("", "application/octet-stream"),
                ("nothing-known", "application/octet-stream"),
            ] {
                assert_eq!(kinds.of(extension), kind, "{extension}");
            }
        }
    }
}
