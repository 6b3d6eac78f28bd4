//! JSON as it is written: a comma where one is needed, strings escaped. (Requests are read by
//! `serde_json`; what is written here goes out by the hundred thousand, straight into one buffer.)

use std::fmt::{Display, Write};

/// Appends `text` as a JSON string.
pub(super) fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Terminals act on these, and line ends of Unicode would end a line in some readers.
            c if c.is_control() || c == '\u{2028}' || c == '\u{2029}' => {
                let _infallible = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// An object under way; [`Object::end`] closes it.
pub(super) struct Object<'a> {
    out: &'a mut String,
    first: bool,
}

impl<'a> Object<'a> {
    pub(super) fn begin(out: &'a mut String) -> Object<'a> {
        out.push('{');
        Object { out, first: true }
    }

    /// The place for the value of `name`.
    pub(super) fn at(&mut self, name: &str) -> &mut String {
        if !self.first {
            self.out.push(',');
        }
        self.first = false;
        self.out.push('"');
        self.out.push_str(name);
        self.out.push_str("\":");
        self.out
    }

    pub(super) fn number(&mut self, name: &str, value: impl Display) {
        let _infallible = write!(self.at(name), "{value}");
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        string(self.at(name), value);
    }

    pub(super) fn end(self) {
        self.out.push('}');
    }
}
