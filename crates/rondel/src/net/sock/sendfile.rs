//! `sock_sendfile`: the part that sends, by sendfile(2). Checks, and asyncio's reading and sending where
//! the system refuses, are in `rondel._sendfile`.

use super::call::{At, Attempt, Call, Op};
use super::table::Side;
use crate::event_loop::LoopBase;
use crate::primitives::coroutine;
use rondel_ffi::class::{ObjCell, Visit};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::method::Args;
use rondel_ffi::{ClassCell, Inst, Obj, PyRes, Raised, Ref, call, fd, value};
use rustix::fs::{SeekFrom, seek, sendfile};
use rustix::io::Errno;
use std::cell::Cell;
use std::ffi::CStr;
use std::os::fd::{BorrowedFd, RawFd};

/// After so many bytes at once others have their turn, should the peer read as fast as we send.
const BURST: u64 = 1024 * 1024;

#[derive(Default)]
pub(super) struct SendFile {
    /// The file object, which keeps its descriptor open unless the program closes it.
    file: ObjCell,
    number: Cell<RawFd>,
    /// Where the next byte is.
    offset: Cell<u64>,
    /// Bytes to send; None: until the file's end.
    count: Cell<Option<u64>>,
    sent: Cell<u64>,
}

static CELL: ClassCell = ClassCell::new();

impl SendFile {
    /// Sends until all is sent (true), the socket is full (false), or others should have their turn.
    fn send(&self, socket: BorrowedFd<'_>, file: BorrowedFd<'_>) -> Result<Option<bool>, Errno> {
        let start = self.sent.get();
        loop {
            let burst = BURST - (self.sent.get() - start);
            if burst == 0 {
                return Ok(None);
            }
            let left = self.count.get().map(|count| count - self.sent.get());
            let room = left.map_or(burst, |left| left.min(burst));
            if room == 0 {
                return Ok(Some(true));
            }
            let mut offset = self.offset.get();
            match sendfile(socket, file, Some(&mut offset), room as usize) {
                Ok(0) => return Ok(Some(true)),
                Ok(sent) => {
                    self.offset.set(offset);
                    self.sent.set(self.sent.get() + sent as u64);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Some(false)),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// asyncio's exception for an error: before anything was sent it may mean that the file is not one
    /// that can be sent so.
    #[cold]
    fn failure(&self, errno: Errno) -> PyRes<Raised> {
        if self.sent.get() == 0 {
            let module = call::import(c"asyncio.exceptions")?;
            let class = value::intern(c"SendfileNotAvailableError")?;
            let class = call::getattr(module.borrow(), class.borrow())?;
            let text = value::str("os.sendfile call failed")?;
            let exc = call::call1(class.borrow(), text.borrow())?;
            return Ok(err::raise_instance(exc.borrow()));
        }
        let raised = super::call::raise_errno(errno);
        if errno != Errno::NOTCONN {
            return Ok(raised);
        }
        // One error for every system, as asyncio has it.
        let cause = raised.fetch();
        let builtins = call::import(c"builtins")?;
        let class = value::intern(c"ConnectionError")?;
        let class = call::getattr(builtins.borrow(), class.borrow())?;
        let text = value::str("socket is not connected")?;
        let number = value::int(i64::from(errno.raw_os_error()))?;
        let exc = call::call(class.borrow(), &[text.borrow(), number.borrow()])?;
        let name = value::intern(c"__cause__")?;
        call::setattr(exc.borrow(), name.borrow(), cause.borrow())?;
        Ok(err::raise_instance(exc.borrow()))
    }
}

impl Op for SendFile {
    const NAME: &'static str = "EventLoop._send_file";
    const TYPE: &'static CStr = c"rondel.sock_sendfile_coroutine";
    const SIDE: Side = Side::Write;

    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.file);
    }
    fn clear(&self) {
        self.file.set(None);
    }

    fn attempt(&self, at: At<'_>) -> Attempt {
        let before = self.sent.get();
        let held = self.file.get();
        let file = held
            .as_ref()
            .and_then(|held| fd::lend(held.borrow(), self.number.get()));
        // A transport that was closed meanwhile has given its descriptor back.
        let outcome = match (at.still_lent(), file) {
            (Err(raised), _) => return Attempt::Failed(raised),
            (Ok(Some(socket)), Some(file)) => {
                let outcome = self.send(socket, file);
                if self.sent.get() > before {
                    // At once: it is right however this ends. A file that was sent can be sought in.
                    let _unlikely = seek(file, SeekFrom::Start(self.offset.get()));
                }
                outcome
            }
            _ => Err(Errno::BADF),
        };
        match outcome {
            Ok(Some(true)) => {
                let sent = i64::try_from(self.sent.get()).unwrap_or(i64::MAX);
                Attempt::from_result(value::int(sent))
            }
            Ok(Some(false)) => Attempt::Again,
            Ok(None) => Attempt::GiveWay,
            Err(errno) => Attempt::Failed(self.failure(errno).unwrap_or_else(|raised| raised)),
        }
    }

    fn delegate(&self, at: At<'_>) -> PyRes<Obj> {
        let int = |number: u64| value::int(i64::try_from(number).unwrap_or(i64::MAX));
        let file = self.file.get().unwrap_or_else(Obj::none);
        let left = match self.count.get() {
            Some(count) => int(count - self.sent.get())?,
            None => Obj::none(),
        };
        let name = value::intern(c"_send_rest")?;
        let (offset, sent) = (int(self.offset.get())?, int(self.sent.get())?);
        let args = [
            at.home.obj(),
            at.sock,
            file.borrow(),
            offset.borrow(),
            left.borrow(),
            sent.borrow(),
        ];
        call::method(name.borrow(), args)
    }
}

/// `loop._send_file(sock, file, fileno, offset, count)`: a coroutine that sends `count` bytes, or all there
/// are for None, and returns how many that was.
pub(crate) fn send_file(slf: Inst<'_, LoopBase>, args: Args<'_>) -> PyRes<Obj> {
    let [sock, file, number, offset, count] = args.positional() else {
        return Err(Builtin::Type
            .raise("_send_file() takes a socket, a file, its descriptor, an offset and a count"));
    };
    let unsigned = |number: Ref<'_>| {
        u64::try_from(value::as_i64(number)?)
            .map_err(|_negative| Builtin::Value.raise("offset and count must not be negative"))
    };
    let op = SendFile {
        file: ObjCell::new(Some(file.own())),
        number: Cell::new(RawFd::try_from(value::as_i64(*number)?).unwrap_or(-1)),
        offset: Cell::new(unsigned(*offset)?),
        count: Cell::new(count.not_none().map(unsigned).transpose()?),
        sent: Cell::new(0),
    };
    coroutine::new(|| Call::new(slf, *sock, op))
}
