//! A request's body as it is gathered before a thread is asked to answer: in memory up to a limit,
//! beyond it in a file without a name.
//!
//! A thread is given to a request only when all of it is there, so that a slow upload costs no thread.
//! Loop's thread, without the GIL. Writing to the file fills the page cache; the disk is waited for
//! only when the system is short of memory.

use bytes::Bytes;
use std::fs::File;
use std::io::{self, Seek, Write};

/// A body, as far as it is there.
#[derive(Debug, Default)]
pub enum Gathered {
    #[default]
    Empty,
    One(Bytes),
    /// Its parts, and how many bytes they are together.
    Many(Vec<Bytes>, usize),
    Spooled(File),
}

impl Gathered {
    /// Adds what has come; past `most` bytes it all goes to a file.
    ///
    /// # Errors
    /// Those of making and writing the file.
    pub fn add(&mut self, data: Bytes, most: usize) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        match self {
            Gathered::Empty => *self = Gathered::One(data),
            Gathered::One(first) => {
                let size = first.len() + data.len();
                *self = Gathered::Many(vec![std::mem::take(first), data], size);
            }
            Gathered::Many(parts, size) => {
                *size += data.len();
                parts.push(data);
            }
            Gathered::Spooled(file) => return file.write_all(&data),
        }
        if self.len() > most {
            self.spool()
        } else {
            Ok(())
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Gathered::Empty)
    }

    /// Bytes in memory.
    fn len(&self) -> usize {
        match self {
            Gathered::Empty | Gathered::Spooled(_) => 0,
            Gathered::One(data) => data.len(),
            Gathered::Many(_, size) => *size,
        }
    }

    fn spool(&mut self) -> io::Result<()> {
        let mut file = tempfile::tempfile()?;
        match std::mem::take(self) {
            Gathered::One(data) => file.write_all(&data)?,
            Gathered::Many(parts, _) => parts.iter().try_for_each(|part| file.write_all(part))?,
            Gathered::Empty | Gathered::Spooled(_) => {}
        }
        *self = Gathered::Spooled(file);
        Ok(())
    }

    /// All is there: a file is read from its beginning.
    ///
    /// # Errors
    /// That of seeking.
    pub fn rewind(&mut self) -> io::Result<()> {
        match self {
            Gathered::Spooled(file) => file.rewind(),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn stays_in_memory_up_to_the_limit() {
        let mut body = Gathered::default();
        assert!(body.is_empty());
        body.add(Bytes::from_static(b"abc"), 6).unwrap();
        body.add(Bytes::from_static(b"def"), 6).unwrap();
        assert!(matches!(&body, Gathered::Many(parts, 6) if parts.len() == 2));
    }

    #[test]
    fn goes_to_a_file_past_it_and_loses_nothing() {
        let mut body = Gathered::default();
        for part in [&b"abc"[..], b"def", b"g", b"", b"hi"] {
            body.add(Bytes::copy_from_slice(part), 6).unwrap();
        }
        body.rewind().unwrap();
        let Gathered::Spooled(mut file) = body else {
            panic!("not spooled");
        };
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abcdefghi");
    }
}
