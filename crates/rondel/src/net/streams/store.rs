//! A reader's buffer.
//!
//! ```text
//!  Empty ── feed ──► One: a `bytes` as it came ── feed ──► Many: all copied together
//!    ▲                  │ taken whole: the very object       │
//!    └──────────────────┴──────────────── emptied ◄──────────┘
//!  any ── somebody asks for `_buffer` ──► Shown: a bytearray that stays the buffer
//! ```
//! asyncio's buffer is a bytearray, which programs and asyncio's own methods read and change. One that
//! was seen can be kept, so from then on it is the buffer.
//!
//! No borrow is held while Python code can run: only exact `bytes` are kept in `One`.

use rondel_ffi::class::{ObjCell, Visit};
use rondel_ffi::{Obj, PyRes, Ref, buffer, call, value};
use std::cell::{Cell, RefCell};
use std::io::BufRead;

#[derive(Default)]
#[repr(C)]
pub(super) struct Store {
    one: ObjCell,
    /// The bytearray, once it was seen; `one` and `many` are empty then.
    shown: ObjCell,
    /// Bytes of `one` or `many` that were taken.
    start: Cell<usize>,
    many: RefCell<Vec<u8>>,
}

/// Memory of a buffer that has grown is given back when it is empty, from this size on.
const KEPT: usize = 64 * 1024;

/// Where a separator begins and ends.
pub(super) type Found = Option<(usize, usize)>;

impl Store {
    pub(super) fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.one);
        visit.cell(&self.shown);
    }

    /// Forgets everything, the bytearray as well.
    pub(super) fn reset(&self) {
        self.shown.set(None);
        self.empty();
    }

    fn empty(&self) {
        self.one.set(None);
        self.start.set(0);
        let mut many = self.many.borrow_mut();
        if many.capacity() > KEPT {
            *many = Vec::new();
        } else {
            many.clear();
        }
    }

    /// Looks at what is there.
    #[inline(always)]
    fn look<R>(&self, look: impl FnOnce(&[u8]) -> R) -> PyRes<R> {
        if let Some(shown) = self.shown.get() {
            return buffer::with_bytes(shown.borrow(), look);
        }
        let start = self.start.get();
        if let Some(one) = self.one.peek() {
            return Ok(look(&value::bytes_of(one).unwrap_or_default()[start..]));
        }
        Ok(look(&self.many.borrow()[start..]))
    }

    #[inline(always)]
    pub(super) fn len(&self) -> PyRes<usize> {
        self.look(<[u8]>::len)
    }

    /// Adds a bytes-like object.
    #[inline(always)]
    pub(super) fn feed(&self, data: Ref<'_>) -> PyRes<()> {
        if let Some(shown) = self.shown.get() {
            let extend = value::intern(c"extend")?;
            return call::method(extend.borrow(), [shown.borrow(), data]).map(drop);
        }
        match value::bytes_of(data) {
            Some(_) if self.is_native_empty() && value::is_bytes_exact(data) => {
                self.one.set(Some(data.own()));
                Ok(())
            }
            Some(bytes) => {
                self.append(bytes);
                Ok(())
            }
            None => buffer::with_bytes(data, |bytes| self.append(bytes)),
        }
    }

    fn is_native_empty(&self) -> bool {
        self.one.is_none() && self.many.borrow().is_empty()
    }

    fn append(&self, bytes: &[u8]) {
        let one = self.one.take();
        let mut many = self.many.borrow_mut();
        let start = self.start.get();
        if let Some(one) = &one {
            let rest = &value::bytes_of(one.borrow()).unwrap_or_default()[start..];
            many.reserve(rest.len() + bytes.len());
            many.extend_from_slice(rest);
            self.start.set(0);
        } else if start > 0 && start >= many.len() / 2 {
            // What is moved is at most what was taken: amortised, each byte moves once.
            many.drain(..start);
            self.start.set(0);
        }
        many.extend_from_slice(bytes);
    }

    /// Takes the first `count` bytes, or all there are.
    #[inline(always)]
    pub(super) fn take(&self, count: usize) -> PyRes<Obj> {
        if let Some(shown) = self.shown.get() {
            return take_shown(shown.borrow(), count);
        }
        let start = self.start.get();
        if self.one.is_some() {
            let len = self
                .one
                .peek()
                .and_then(value::bytes_of)
                .map_or(0, <[u8]>::len);
            if count >= len - start {
                let one = self.one.take().unwrap_or_else(Obj::none);
                self.start.set(0);
                return if start == 0 {
                    Ok(one)
                } else {
                    value::bytes(&value::bytes_of(one.borrow()).unwrap_or_default()[start..])
                };
            }
        }
        let taken = self.look(|bytes| value::bytes(&bytes[..count.min(bytes.len())]))??;
        let end = start + value::bytes_of(taken.borrow()).map_or(0, <[u8]>::len);
        if self.one.is_none() && end == self.many.borrow().len() {
            self.empty();
        } else {
            self.start.set(end);
        }
        Ok(taken)
    }

    /// Drops the first `count` bytes.
    pub(super) fn discard(&self, count: usize) -> PyRes<()> {
        self.take(count).map(drop)
    }

    pub(super) fn clear(&self) -> PyRes<()> {
        self.discard(usize::MAX)
    }

    /// The earliest end of any of the separators, none of which is empty, from `offset` on; of those
    /// that end there the first in the list.
    pub(super) fn find(&self, separators: &[Obj], offset: usize) -> PyRes<Found> {
        self.look(|bytes| {
            let mut best: Found = None;
            for separator in separators {
                let separator = value::bytes_of(separator.borrow()).unwrap_or_default();
                if let Some(at) = find(bytes, separator, offset)
                    && best.is_none_or(|(_, end)| at + separator.len() < end)
                {
                    best = Some((at, at + separator.len()));
                }
            }
            best
        })
    }

    pub(super) fn has_at(&self, separator: &[u8], at: usize) -> PyRes<bool> {
        self.look(|bytes| {
            bytes
                .get(at..)
                .is_some_and(|rest| rest.starts_with(separator))
        })
    }

    /// `_buffer`: from now on the bytearray is the buffer.
    pub(super) fn show(&self, bytearray: Ref<'_>) -> PyRes<Obj> {
        if let Some(shown) = self.shown.get() {
            return Ok(shown);
        }
        let content = self.look(value::bytes)??;
        let shown = call::call1(bytearray, content.borrow())?;
        self.shown.set(Some(shown.clone()));
        self.empty();
        Ok(shown)
    }

    /// Somebody's own buffer.
    pub(super) fn assign(&self, given: Ref<'_>) {
        self.shown.set(Some(given.own()));
        self.empty();
    }
}

fn take_shown(shown: Ref<'_>, count: usize) -> PyRes<Obj> {
    let (taken, count) = buffer::with_bytes(shown, |bytes| {
        let count = count.min(bytes.len());
        (value::bytes(&bytes[..count]), count)
    })?;
    let taken = taken?;
    let slice = call::getattr(
        call::import(c"builtins")?.borrow(),
        value::intern(c"slice")?.borrow(),
    )?;
    let end = value::int(i64::try_from(count).unwrap_or(i64::MAX))?;
    let slice = call::call1(slice.borrow(), end.borrow())?;
    let delete = value::intern(c"__delitem__")?;
    call::method(delete.borrow(), [shown, slice.borrow()]).map(|_none| taken)
}

/// Where `separator`, which is not empty, begins at or after `offset`.
fn find(bytes: &[u8], separator: &[u8], offset: usize) -> Option<usize> {
    let (first, rest) = separator.split_first()?;
    let mut at = offset;
    while at < bytes.len() {
        at += position(&bytes[at..], *first)?;
        if bytes[at + 1..].starts_with(rest) {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// `memchr`, which the standard library has behind this method.
fn position(mut bytes: &[u8], byte: u8) -> Option<usize> {
    let whole = bytes;
    let count = bytes.skip_until(byte).unwrap_or(0);
    (count > 0 && whole[count - 1] == byte).then(|| count - 1)
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn finds_where_a_separator_begins() {
        assert_eq!(find(b"abcabd", b"abd", 0), Some(3));
        assert_eq!(find(b"aab", b"ab", 0), Some(1));
        assert_eq!(find(b"ab", b"abc", 0), None);
        assert_eq!(find(b"line\n", b"\n", 0), Some(4));
        assert_eq!(find(b"a\nb\n", b"\n", 2), Some(3));
        assert_eq!(find(b"", b"\n", 0), None);
        assert_eq!(find(b"abc", b"a", 3), None);
    }
}
