//! `sock_connect`.

use super::call::{At, Attempt, Op};
use super::table::Side;
use super::{names, table};
use rondel_ffi::class::{ObjCell, Visit};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::freelist::FreeList;
use rondel_ffi::{ClassCell, Obj, PyRes, Ref, call, value};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, connect, sockopt};
use std::cell::Cell;
use std::ffi::CStr;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Fresh,
    /// `connect()` was called and goes on in the background.
    Started,
    /// The socket was waited for.
    Waited,
    /// Its outcome is there; it is told after a poll, as under asyncio: by then whoever listens on this
    /// very loop has heard of the connection.
    Known,
    /// The same, and there is no error to ask for.
    Connected,
}

#[derive(Default)]
pub(super) struct Connect {
    /// As given, then as resolved.
    pub(super) address: ObjCell,
    /// The same, if it is a literal of two parts.
    target: Cell<Option<SocketAddr>>,
    stage: Cell<Stage>,
}

static CONNECT: ClassCell = ClassCell::new();
static FREE: FreeList = FreeList::new();

impl Connect {
    pub(super) fn new(address: Obj) -> Connect {
        Connect {
            address: ObjCell::new(Some(address)),
            target: Cell::new(None),
            stage: Cell::new(Stage::Fresh),
        }
    }

    fn address(&self) -> Obj {
        self.address.get().unwrap_or_else(Obj::none)
    }
}

impl Op for Connect {
    const NAME: &'static str = "BaseSelectorEventLoop.sock_connect";
    const TYPE: &'static CStr = c"rondel.sock_connect_coroutine";
    const SIDE: Side = Side::Write;

    fn cell() -> &'static ClassCell {
        &CONNECT
    }
    fn freelist() -> Option<&'static FreeList> {
        Some(&FREE)
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.cell(&self.address);
    }
    fn clear(&self) {
        self.address.set(None);
    }

    /// Names are resolved by the loop; literals need not be.
    fn prepare(&self, at: At<'_>) -> PyRes<Option<Obj>> {
        let own = names::own();
        let family = call::property(own.family_of.borrow(), at.sock)?;
        let family = match u16::try_from(value::as_i64(family.borrow())?) {
            Ok(number) => AddressFamily::from_raw(number),
            Err(_no_family) => return Ok(None),
        };
        if !matches!(family, AddressFamily::INET | AddressFamily::INET6) {
            return Ok(None);
        }
        let address = self.address();
        match literal(address.borrow(), family) {
            Literal::Plain(target) => {
                self.target.set(Some(target));
                return Ok(None);
            }
            Literal::Other => return Ok(None),
            Literal::No => {}
        }
        let resolve = call::getattr(at.home.obj(), own.ensure_resolved.borrow())?;
        let parts = [
            call::getattr(at.sock, own.family.borrow())?,
            call::getattr(at.sock, own.type_.borrow())?,
            call::getattr(at.sock, own.proto.borrow())?,
        ];
        let keywords = value::tuple([
            own.family.clone(),
            own.type_.clone(),
            own.proto.clone(),
            crate::consts::names().loop_.clone(),
        ])?;
        let [family, kind, proto] = &parts;
        let args = [
            address.borrow(),
            family.borrow(),
            kind.borrow(),
            proto.borrow(),
            at.home.obj(),
        ];
        call::call_kw(resolve.borrow(), &args, keywords.borrow()).map(Some)
    }

    /// `(family, type, proto, name, address)`, the first of a list.
    fn prepared(&self, resolved: Obj) -> PyRes<()> {
        let first = value::first(resolved.borrow())?;
        let address = value::item(first.borrow(), 4);
        let address =
            address.ok_or_else(|| Builtin::OSError.raise("getaddrinfo() returned no address"))?;
        self.address.set(Some(address));
        Ok(())
    }

    fn attempt(&self, at: At<'_>) -> Attempt {
        let attempt = match self.step(at) {
            Ok(attempt) => attempt,
            Err(raised) => Attempt::Failed(raised),
        };
        match attempt {
            Attempt::Again | Attempt::GiveWay => attempt,
            Attempt::Failed(raised) => {
                let exc = raised.fetch();
                Attempt::Failed(match self.waited(at) {
                    Ok(()) => err::raise_instance(exc.borrow()),
                    Err(raised) => raised,
                })
            }
            Attempt::Done(value) => Attempt::from_result(self.waited(at).map(|()| value)),
        }
    }

    fn delegate(&self, at: At<'_>) -> PyRes<Obj> {
        call::call(
            names::stock(c"sock_connect")?.borrow(),
            &[at.home.obj(), at.sock, self.address().borrow()],
        )
    }

    fn waited(&self, at: At<'_>) -> PyRes<()> {
        table::done_connecting(at.home, at.sock, at.fd)
    }
}

impl Connect {
    /// `sock.connect(address)`; [`Attempt::Again`]: it goes on in the background, interrupted or not.
    fn begin(&self, at: At<'_>, address: Ref<'_>) -> PyRes<Attempt> {
        let own = names::own();
        let connects = call::getattr(own.socket.borrow(), own.connect.borrow())?;
        // Tools that forbid connections put a function of theirs there.
        let target = match self.target.get() {
            Some(target) if connects.borrow().is(own.stock_connect.borrow()) => {
                let timeout = call::method(own.gettimeout.borrow(), [at.sock])?;
                let blocks = timeout.is_none() || value::as_f64(timeout.borrow())? != 0.0;
                (!blocks).then_some(target)
            }
            _ => None,
        };
        let Some(target) = target else {
            // The method knows every family, and gives the GIL up where it blocks.
            return Ok(Attempt::from_call(call::call(
                connects.borrow(),
                &[at.sock, address],
            )));
        };
        // It tells audit hooks, too.
        err::audit(c"socket.connect", at.sock, address)?;
        let socket = match at.lent() {
            Ok(socket) => socket,
            Err(errno) => return Ok(Attempt::Failed(err::raise_io(&errno.into()))),
        };
        Ok(match connect(socket, &target) {
            Ok(()) => Attempt::Done(Obj::none()),
            Err(Errno::INPROGRESS | Errno::ALREADY | Errno::AGAIN | Errno::INTR) => Attempt::Again,
            Err(errno) => Attempt::Failed(err::raise_io(&errno.into())),
        })
    }

    fn step(&self, at: At<'_>) -> PyRes<Attempt> {
        let address = self.address();
        if self.stage.get() == Stage::Fresh {
            match self.begin(at, address.borrow())? {
                Attempt::Again => self.stage.set(Stage::Started),
                over => return Ok(over),
            }
        }
        let socket = match at.lent() {
            Ok(socket) => socket,
            Err(errno) => return Ok(Attempt::from_errno(errno)),
        };
        let stage = self.stage.get();
        if !matches!(stage, Stage::Known | Stage::Connected) {
            let connected = match outcome(socket) {
                Ok(Some(connected)) => connected,
                Ok(None) => {
                    self.stage.set(Stage::Waited);
                    return Ok(Attempt::Again);
                }
                Err(errno) => return Ok(Attempt::from_errno(errno)),
            };
            if stage != Stage::Waited {
                self.stage.set(if connected {
                    Stage::Connected
                } else {
                    Stage::Known
                });
                at.home.poll_next_turn();
                return Ok(Attempt::GiveWay);
            }
        }
        if stage == Stage::Connected {
            return Ok(Attempt::Done(Obj::none()));
        }
        Ok(match sockopt::socket_error(socket) {
            Ok(Ok(())) => Attempt::Done(Obj::none()),
            Ok(Err(errno)) => Attempt::Failed(connect_failed(errno, address.borrow())),
            Err(errno) => Attempt::from_errno(errno),
        })
    }
}

/// Whether the attempt is over and has led to a connection. One within the host is over, mostly, as soon
/// as it has begun: then there is no need to register it.
fn outcome(socket: BorrowedFd<'_>) -> Result<Option<bool>, Errno> {
    let mut asked = [PollFd::new(&socket, PollFlags::OUT)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    loop {
        match poll(&mut asked, Some(&now)) {
            Ok(0) => return Ok(None),
            Ok(_) => {
                let failed = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
                return Ok(Some(!asked[0].revents().intersects(failed)));
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// `OSError(errno, "Connect call failed <address>")`, as asyncio words it.
#[cold]
fn connect_failed(errno: Errno, address: Ref<'_>) -> rondel_ffi::Raised {
    let made = (|| {
        let address = value::str_text(value::to_str(address)?.borrow())?;
        let text = value::str(&format!("Connect call failed {address}"))?;
        let code = value::int(i64::from(errno.raw_os_error()))?;
        call::call(Builtin::OSError.class(), &[code.borrow(), text.borrow()])
    })();
    match made {
        Ok(exc) => err::raise_instance(exc.borrow()),
        Err(raised) => raised,
    }
}

/// Whether an address has to be resolved.
pub(super) enum Literal {
    No,
    /// `(literal, port)`.
    Plain(SocketAddr),
    /// `(literal, number, ...)`.
    Other,
}

/// What the address is to a socket of that family.
pub(super) fn literal(address: Ref<'_>, family: AddressFamily) -> Literal {
    if !value::is_tuple(address) {
        return Literal::No;
    }
    let (Some(host), Some(port)) = (value::item(address, 0), value::item(address, 1)) else {
        return Literal::No;
    };
    if !value::is_str_exact(host.borrow()) || !value::is_int(port.borrow()) {
        return Literal::No;
    }
    let host = value::str_with(host.borrow(), |text| text.parse::<IpAddr>().ok()).flatten();
    match host {
        Some(host) if host.is_ipv4() == (family == AddressFamily::INET) => {
            match value::as_i64(port.borrow()).map(u16::try_from) {
                Ok(Ok(port)) if value::item(address, 2).is_none() => {
                    Literal::Plain(SocketAddr::new(host, port))
                }
                // The method says what is wrong with the number.
                Ok(_) => Literal::Other,
                Err(raised) => {
                    raised.clear();
                    Literal::Other
                }
            }
        }
        _ => Literal::No,
    }
}
