//! `read`, `readexactly`, `readuntil`, `readline` and `__anext__`: asyncio's `async def` methods of
//! StreamReader, as state machines.
//!
//! Each looks at the buffer and returns, raises, or waits for data and looks again.

use super::reader::{Reader, Slf, by_asyncio, maybe_resume, new_waiter, pull, put_back};
use super::{is_plain, one, own};
use crate::consts::{names, stock};
use crate::primitives::coroutine::{self, Coroutine, Machine, Next};
use crate::sync::waiters;
use rondel_ffi::class::{ObjCell, OwnCell, Visit};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::method::Args;
use rondel_ffi::prefetch::Trace;
use rondel_ffi::{ClassCell, Inst, Obj, PyRes, Raised, Ref, buffer, call, value};
use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::CStr;

const READ: usize = 0;
const EXACTLY: usize = 1;
const UNTIL: usize = 2;
const LINE: usize = 3;
const NEXT: usize = 4;

/// The coroutine of one of the five.
#[derive(Default)]
pub(crate) struct Reading<const KIND: usize> {
    reader: OwnCell<Reader>,
    /// The size or the separators as given, until it starts.
    given: ObjCell,
    /// `read` and `readexactly`: bytes; negative for all there will be.
    count: Cell<i64>,
    /// `readuntil` and `readline`: no separator ends before this.
    offset: Cell<usize>,
    rest: OnceCell<Box<Rest>>,
}

/// What the usual ones do without.
#[derive(Default)]
struct Rest {
    /// `read`: the blocks so far of all there will be.
    blocks: RefCell<Vec<u8>>,
    /// `readuntil`: `bytes`, the shortest first.
    separators: RefCell<Vec<Obj>>,
}

static CELLS: [ClassCell; 5] = [const { ClassCell::new() }; 5];
static FREE: [FreeList; 5] = [const { FreeList::new() }; 5];

fn new<const KIND: usize>(slf: Slf<'_>, given: Option<Ref<'_>>) -> PyRes<Obj> {
    coroutine::new(|| Reading::<KIND> {
        reader: OwnCell::new(Some(slf.own())),
        given: ObjCell::new(given.map(Ref::own)),
        ..Reading::default()
    })
}

/// `read(n=-1)`.
pub(super) fn read(slf: Slf<'_>, args: Args<'_>) -> PyRes<Obj> {
    let count = one(args, "StreamReader.read", names().n.borrow(), 0)?;
    if is_plain(slf.obj(), |plain| &plain.reader) {
        new::<READ>(slf, count)
    } else {
        by_asyncio(slf, c"read", count)
    }
}

/// `readexactly(n)`.
pub(super) fn readexactly(slf: Slf<'_>, args: Args<'_>) -> PyRes<Obj> {
    let count = one(args, "StreamReader.readexactly", names().n.borrow(), 1)?;
    if is_plain(slf.obj(), |plain| &plain.reader) {
        new::<EXACTLY>(slf, count)
    } else {
        by_asyncio(slf, c"readexactly", count)
    }
}

/// `readuntil(separator=b'\n')`.
pub(super) fn readuntil(slf: Slf<'_>, args: Args<'_>) -> PyRes<Obj> {
    let separator = one(args, "StreamReader.readuntil", own().separator.borrow(), 0)?;
    if is_plain(slf.obj(), |plain| &plain.reader) {
        new::<UNTIL>(slf, separator)
    } else {
        by_asyncio(slf, c"readuntil", separator)
    }
}

/// `readline()`.
pub(super) fn readline(slf: Slf<'_>, args: Args<'_>) -> PyRes<Obj> {
    let [] = args.bind("StreamReader.readline", [], 0, 0)?;
    if is_plain(slf.obj(), |plain| &plain.reader) {
        new::<LINE>(slf, None)
    } else {
        by_asyncio(slf, c"readline", None)
    }
}

/// `__anext__()`.
pub(super) fn next(slf: Slf<'_>, args: Args<'_>) -> PyRes<Obj> {
    let [] = args.bind("StreamReader.__anext__", [], 0, 0)?;
    if is_plain(slf.obj(), |plain| &plain.reader) {
        new::<NEXT>(slf, None)
    } else {
        by_asyncio(slf, c"__anext__", None)
    }
}

enum Attempt {
    Over(Obj),
    Wait,
}

/// A size: an int; one beyond 64 bits is as good as the largest.
fn size(given: Ref<'_>) -> PyRes<i64> {
    match value::as_i64(given) {
        Err(raised) if raised.matches(Builtin::Overflow.class()) => {
            raised.clear();
            Ok(if value::as_f64(given).is_ok_and(|number| number < 0.0) {
                i64::MIN
            } else {
                i64::MAX
            })
        }
        result => result,
    }
}

/// The separators as `bytes`, the shortest first, as asyncio checks them.
fn separators(given: Option<Obj>) -> PyRes<Vec<Obj>> {
    let Some(given) = given else {
        return Ok(vec![own().newline.clone()]);
    };
    let mut found = Vec::new();
    let mut add = |separator: Ref<'_>| -> PyRes<()> {
        found.push(match value::bytes_of(separator) {
            Some(_) => separator.own(),
            None => buffer::with_bytes(separator, value::bytes)??,
        });
        Ok(())
    };
    if cfg!(Py_3_13) && value::is_tuple(given.borrow()) {
        value::for_each(given.borrow(), |separator| add(separator.borrow()))?;
    } else {
        add(given.borrow())?;
    }
    let length = |separator: &Obj| value::bytes_of(separator.borrow()).map_or(0, <[u8]>::len);
    found.sort_by_key(length); // stable, as Python's
    match found.first().map(length) {
        None => Err(Builtin::Value.raise("Separator should contain at least one element")),
        Some(0) => Err(Builtin::Value.raise("Separator should be at least one-byte string")),
        Some(_) => Ok(found),
    }
}

fn raise_set(reader: Slf<'_>) -> PyRes<()> {
    match reader.exception.get() {
        Some(exc) => Err(err::raise_instance(exc.borrow())),
        None => Ok(()),
    }
}

fn length(count: i64) -> usize {
    usize::try_from(count).unwrap_or(0)
}

impl<const KIND: usize> Reading<KIND> {
    fn rest(&self) -> &Rest {
        self.rest.get_or_init(Box::default)
    }

    /// What is checked once, before the buffer is looked at.
    #[inline(always)]
    fn begin(&self, reader: Slf<'_>) -> PyRes<Option<Obj>> {
        if KIND == READ || KIND == EXACTLY {
            let count = match self.given.take() {
                Some(given) => size(given.borrow())?,
                None => -1,
            };
            if KIND == EXACTLY && count < 0 {
                return Err(Builtin::Value.raise("readexactly size can not be less than zero"));
            }
            raise_set(reader)?;
            self.count.set(count);
            return Ok((count == 0).then(|| stock().empty_bytes.clone()));
        }
        if KIND == UNTIL {
            *self.rest().separators.borrow_mut() = separators(self.given.take())?;
        }
        raise_set(reader)?;
        Ok(None)
    }

    #[inline(always)]
    fn attempt(&self, reader: Slf<'_>) -> PyRes<Attempt> {
        match KIND {
            READ if self.count.get() < 0 => self.read_all(reader),
            READ => self.read_some(reader),
            EXACTLY => self.read_exactly(reader),
            UNTIL => self.read_until(reader),
            _ => self.read_line(reader),
        }
    }

    #[inline(always)]
    fn read_some(&self, reader: Slf<'_>) -> PyRes<Attempt> {
        let there = reader.store.len()?;
        if there == 0 {
            return Ok(if reader.eof.get() {
                Attempt::Over(stock().empty_bytes.clone())
            } else {
                Attempt::Wait
            });
        }
        let data = reader.store.take(length(self.count.get()))?;
        maybe_resume(reader)?;
        Ok(Attempt::Over(data))
    }

    /// In blocks of the limit, so that a transport that was paused for it goes on.
    fn read_all(&self, reader: Slf<'_>) -> PyRes<Attempt> {
        loop {
            raise_set(reader)?;
            if reader.store.len()? == 0 {
                if reader.eof.get() {
                    let blocks = self.rest().blocks.take();
                    return value::bytes(&blocks).map(Attempt::Over);
                }
                return Ok(Attempt::Wait);
            }
            let block = reader.store.take(reader.limit.get())?;
            let block = value::bytes_of(block.borrow()).unwrap_or_default();
            self.rest().blocks.borrow_mut().extend_from_slice(block);
            maybe_resume(reader)?;
        }
    }

    fn read_exactly(&self, reader: Slf<'_>) -> PyRes<Attempt> {
        let count = length(self.count.get());
        if reader.store.len()? >= count {
            let data = reader.store.take(count)?;
            maybe_resume(reader)?;
            return Ok(Attempt::Over(data));
        }
        if reader.eof.get() {
            let expected = value::int(self.count.get())?;
            return Err(incomplete(reader, expected.borrow()));
        }
        Ok(Attempt::Wait)
    }

    fn read_until(&self, reader: Slf<'_>) -> PyRes<Attempt> {
        let separators = self.rest().separators.borrow().clone();
        match self.look(reader, &separators)? {
            Look::Found(end) => {
                let data = reader.store.take(end)?;
                maybe_resume(reader)?;
                Ok(Attempt::Over(data))
            }
            Look::TooLong(message, consumed) => Err(overrun(message, consumed)),
            Look::Ended => {
                let none = Obj::none();
                Err(incomplete(reader, none.borrow()))
            }
            Look::Wait => Ok(Attempt::Wait),
        }
    }

    fn read_line(&self, reader: Slf<'_>) -> PyRes<Attempt> {
        match self.look(reader, std::slice::from_ref(&own().newline))? {
            Look::Found(end) => {
                let data = reader.store.take(end)?;
                maybe_resume(reader)?;
                Ok(Attempt::Over(data))
            }
            Look::TooLong(message, consumed) => {
                if reader.store.has_at(b"\n", consumed)? {
                    reader.store.discard(consumed + 1)?;
                } else {
                    reader.store.clear()?;
                }
                maybe_resume(reader)?;
                let cause = overrun(message, consumed).fetch();
                let error = Builtin::Value.raise(message).fetch();
                err::set_context(error.borrow(), cause);
                Err(err::raise_instance(error.borrow()))
            }
            Look::Ended => reader.store.take(usize::MAX).map(Attempt::Over),
            Look::Wait => Ok(Attempt::Wait),
        }
    }

    /// The search that `readuntil` and `readline` share.
    fn look(&self, reader: Slf<'_>, separators: &[Obj]) -> PyRes<Look> {
        let length = |at: Option<&Obj>| {
            at.and_then(|separator| value::bytes_of(separator.borrow()))
                .map_or(0, <[u8]>::len)
        };
        let (shortest, longest) = (length(separators.first()), length(separators.last()));
        let there = reader.store.len()?;
        let offset = self.offset.get();
        if there >= offset.saturating_add(shortest) {
            if let Some((start, end)) = reader.store.find(separators, offset)? {
                return Ok(if start > reader.limit.get() {
                    Look::TooLong("Separator is found, but chunk is longer than limit", start)
                } else {
                    Look::Found(end)
                });
            }
            // The last bytes may be a separator's beginning.
            let offset = (there + 1).saturating_sub(longest);
            self.offset.set(offset);
            if offset > reader.limit.get() {
                return Ok(Look::TooLong(
                    "Separator is not found, and chunk exceed the limit",
                    offset,
                ));
            }
        }
        Ok(if reader.eof.get() {
            Look::Ended
        } else {
            Look::Wait
        })
    }

    /// Receives at most once, however much there is: others have their turn, too.
    #[inline(always)]
    fn go_on(&self, slf: Ref<'_>, reader: Slf<'_>) -> Next {
        let attempted = match self.attempt(reader) {
            Ok(Attempt::Wait) => match pull(reader) {
                Ok(true) => self.attempt(reader),
                Ok(false) => Ok(Attempt::Wait),
                Err(raised) => Err(raised),
            },
            attempted => attempted,
        };
        match attempted {
            Ok(Attempt::Over(data)) => Self::over(data),
            Ok(Attempt::Wait) => match new_waiter(reader, Self::WAITS_IN) {
                Ok(waiter) => {
                    reader.waits.set(Trace::of(slf));
                    waiters::wait_for(waiter)
                }
                Err(raised) => Next::Raise(raised),
            },
            Err(raised) => Next::Raise(raised),
        }
    }

    /// As asyncio's message for a second reader names it.
    const WAITS_IN: &'static str = match KIND {
        READ => "read",
        EXACTLY => "readexactly",
        _ => "readuntil",
    };

    #[inline(always)]
    fn over(data: Obj) -> Next {
        if KIND == NEXT && value::bytes_of(data.borrow()).is_some_and(<[u8]>::is_empty) {
            return match call::call0(stock().stop_async_iteration.borrow()) {
                Ok(exc) => Next::raise(exc),
                Err(raised) => Next::Raise(raised),
            };
        }
        Next::Return(data)
    }
}

enum Look {
    /// A separator ends here.
    Found(usize),
    /// asyncio's LimitOverrunError: its message and `consumed`.
    TooLong(&'static str, usize),
    Ended,
    Wait,
}

/// IncompleteReadError with all that is there.
#[cold]
fn incomplete(reader: Slf<'_>, expected: Ref<'_>) -> Raised {
    let raise = || -> PyRes<Obj> {
        let partial = reader.store.take(usize::MAX)?;
        call::call(
            own().incomplete_read.borrow(),
            &[partial.borrow(), expected],
        )
    };
    match raise() {
        Ok(exc) => err::raise_instance(exc.borrow()),
        Err(raised) => raised,
    }
}

#[cold]
fn overrun(message: &str, consumed: usize) -> Raised {
    let raise = || -> PyRes<Obj> {
        let message = value::str(message)?;
        let consumed = value::int(i64::try_from(consumed).unwrap_or(i64::MAX))?;
        call::call(
            own().limit_overrun.borrow(),
            &[message.borrow(), consumed.borrow()],
        )
    };
    match raise() {
        Ok(exc) => err::raise_instance(exc.borrow()),
        Err(raised) => raised,
    }
}

impl<const KIND: usize> Machine for Reading<KIND> {
    const NAME: &'static str = match KIND {
        READ => "StreamReader.read",
        EXACTLY => "StreamReader.readexactly",
        UNTIL => "StreamReader.readuntil",
        LINE => "StreamReader.readline",
        _ => "StreamReader.__anext__",
    };
    const TYPE: &'static CStr = match KIND {
        READ => c"rondel.StreamReader_read",
        EXACTLY => c"rondel.StreamReader_readexactly",
        UNTIL => c"rondel.StreamReader_readuntil",
        LINE => c"rondel.StreamReader_readline",
        _ => c"rondel.StreamReader_next",
    };

    fn cell() -> &'static ClassCell {
        &CELLS[KIND]
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&FREE[KIND])
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.reader);
        visit.cell(&self.given);
        if let Some(rest) = self.rest.get()
            && let Ok(separators) = rest.separators.try_borrow()
        {
            for separator in separators.iter() {
                visit.obj(separator.borrow());
            }
        }
    }
    fn clear(&self) {
        self.reader.set(None);
        self.given.set(None);
        if let Some(rest) = self.rest.get() {
            rest.separators.take();
            rest.blocks.take();
        }
    }
    #[inline(always)]
    fn start(slf: Inst<'_, Coroutine<Self>>) -> Next {
        let body = &slf.data().body;
        let Some(reader) = body.reader.get() else {
            return Next::Return(Obj::none());
        };
        match body.begin(reader.inst()) {
            Ok(None) => body.go_on(slf.obj(), reader.inst()),
            Ok(Some(data)) => Next::Return(data),
            Err(raised) => Next::Raise(raised),
        }
    }
    #[inline(always)]
    fn resume(slf: Inst<'_, Coroutine<Self>>, outcome: Result<Obj, Obj>) -> Next {
        let body = &slf.data().body;
        let Some(reader) = body.reader.get() else {
            return Next::Return(Obj::none());
        };
        reader.waiter.set(None);
        match outcome {
            Ok(_none) => {
                let next = body.go_on(slf.obj(), reader.inst());
                // It may have been fed by hand meanwhile, and not have received.
                put_back(reader.inst());
                next
            }
            Err(exc) => {
                put_back(reader.inst());
                Next::raise(exc)
            }
        }
    }
}

pub(super) fn build() -> PyRes<()> {
    coroutine::build::<Reading<READ>>()?;
    coroutine::build::<Reading<EXACTLY>>()?;
    coroutine::build::<Reading<UNTIL>>()?;
    coroutine::build::<Reading<LINE>>()?;
    coroutine::build::<Reading<NEXT>>()?;
    Ok(())
}
