//! Files that responses are made of, as Python code names them.

use crate::event_loop;
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::{PyRes, Raised, Ref, call, fd, value};
use rondel_http::FilePart;
use rustix::fs::OFlags;

/// The part of a file that begins at `offset` (or where the file stands) and has `count` bytes (or goes
/// on to the end). `file` is a descriptor, or an object with `fileno()`; whoever has it keeps it.
///
/// Raises ValueError for what is not a regular file, or begins nowhere in one.
pub(super) fn part(
    file: Ref<'_>,
    offset: Option<Ref<'_>>,
    count: Option<Ref<'_>>,
) -> PyRes<FilePart> {
    let number = event_loop::descriptor(file)?;
    let Some(lent) = fd::lend(file, number) else {
        return Err(Builtin::Value.raise("a file's descriptor is negative"));
    };
    let offset = match offset {
        Some(offset) => natural(offset, "offset")?,
        None => match position(file)? {
            Some(position) => position,
            None => rustix::fs::tell(lent).map_err(|error| err::raise_io(&error.into()))?,
        },
    };
    let count = count.map(|count| natural(count, "count")).transpose()?;
    FilePart::new(lent, offset, count).map_err(|error| refused(&error))
}

/// A whole file, by its path: text, or an object with `__fspath__()`.
///
/// Raises OSError with the path for what cannot be opened, ValueError for what is not a regular file.
pub(super) fn whole(path: Ref<'_>) -> PyRes<FilePart> {
    let os = call::import(c"os")?;
    let function = |name| call::getattr(os.borrow(), value::intern(name)?.borrow());
    // What is no file, a pipe for instance, must not hold the loop up.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = value::int(i64::from(flags.bits()))?;
    // By Python's own `open`: its errors name the path, its audit hooks hear of it.
    let opened = call::call(function(c"open")?.borrow(), &[path, flags.borrow()])?;
    let number = event_loop::descriptor(opened.borrow())?;
    let lent = fd::lend(opened.borrow(), number);
    let part = lent.map(|lent| FilePart::new(lent, 0, None));
    call::call1(function(c"close")?.borrow(), opened.borrow())?;
    match part {
        Some(part) => part.map_err(|error| refused(&error)),
        None => Err(Builtin::Value.raise("a file's descriptor is negative")),
    }
}

fn refused(error: &std::io::Error) -> Raised {
    if error.kind() == std::io::ErrorKind::InvalidInput && error.raw_os_error().is_none() {
        return Builtin::Value.raise(&error.to_string());
    }
    err::raise_io(error)
}

/// Where a file object stands, whatever its buffer has read beyond that.
fn position(file: Ref<'_>) -> PyRes<Option<u64>> {
    match call::getattr_opt(file, value::intern(c"tell")?.borrow())? {
        Some(tell) => natural(call::call0(tell.borrow())?.borrow(), "position").map(Some),
        None => Ok(None),
    }
}

fn natural(number: Ref<'_>, what: &str) -> PyRes<u64> {
    let number = value::as_i64(number)?;
    u64::try_from(number)
        .map_err(|_| Builtin::Value.raise(&format!("a file's {what} is negative: {number}")))
}
