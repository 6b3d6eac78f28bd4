//! The coroutine methods of the loop: `loop.sock_recv(sock, n)` and the others.

use super::accept::Accept;
use super::call::{Call, Op};
use super::connect::Connect;
use super::names;
use super::recv::{Recv, RecvFrom, RecvFromInto, RecvInto};
use super::send::{SendAll, SendTo};
use super::sendfile::SendFile;
use crate::event_loop::LoopBase;
use crate::primitives::coroutine;
use rondel_ffi::class::ObjCell;
use rondel_ffi::method::Args;
use rondel_ffi::{Inst, Obj, PyRes, Ref, call, callable, value};
use std::ffi::CStr;

fn kept(arg: Option<Ref<'_>>) -> ObjCell {
    ObjCell::new(arg.map(Ref::own))
}

/// The coroutine; asyncio's for a socket that is not served natively.
#[inline(always)]
fn start<O: Op, const N: usize>(
    slf: Inst<'_, LoopBase>,
    stock: &'static CStr,
    given: [Option<Ref<'_>>; N],
    op: impl FnOnce([Option<Ref<'_>>; N]) -> O,
) -> PyRes<Obj> {
    match given.first().copied().flatten() {
        Some(sock) if names::is_plain_socket(sock) => {
            coroutine::new(|| Call::new(slf, sock, op(given)))
        }
        _ => {
            let mut args = vec![slf.obj()];
            args.extend(given.into_iter().flatten());
            call::call(names::stock(stock)?.borrow(), &args)
        }
    }
}

fn sock_recv(slf: Inst<'_, LoopBase>, args: Args<'_>) -> PyRes<Obj> {
    let own = names::own();
    let given = args.bind("sock_recv", [own.sock.borrow(), own.n.borrow()], 2, 2)?;
    start(slf, c"sock_recv", given, |[_, n]| Recv { n: kept(n) })
}

fn sock_recv_into(slf: Inst<'_, LoopBase>, args: Args<'_>) -> PyRes<Obj> {
    let own = names::own();
    let given = args.bind(
        "sock_recv_into",
        [own.sock.borrow(), own.buf.borrow()],
        2,
        2,
    )?;
    start(slf, c"sock_recv_into", given, |[_, buf]| RecvInto {
        buf: kept(buf),
    })
}

fn sock_recvfrom(slf: Inst<'_, LoopBase>, args: Args<'_>) -> PyRes<Obj> {
    let own = names::own();
    let params = [own.sock.borrow(), own.bufsize.borrow()];
    let given = args.bind("sock_recvfrom", params, 2, 2)?;
    start(slf, c"sock_recvfrom", given, |[_, bufsize]| RecvFrom {
        bufsize: kept(bufsize),
    })
}

fn sock_recvfrom_into(slf: Inst<'_, LoopBase>, args: Args<'_>) -> PyRes<Obj> {
    let own = names::own();
    let params = [own.sock.borrow(), own.buf.borrow(), own.nbytes.borrow()];
    let given = args.bind("sock_recvfrom_into", params, 2, 3)?;
    start(slf, c"sock_recvfrom_into", given, |[_, buf, nbytes]| {
        RecvFromInto {
            buf: kept(buf),
            nbytes: kept(nbytes),
        }
    })
}

fn sock_sendall(slf: Inst<'_, LoopBase>, args: Args<'_>) -> PyRes<Obj> {
    let own = names::own();
    let given = args.bind("sock_sendall", [own.sock.borrow(), own.data.borrow()], 2, 2)?;
    start(slf, c"sock_sendall", given, |[_, data]| {
        SendAll::new(data.map_or_else(Obj::none, Ref::own))
    })
}

fn sock_sendto(slf: Inst<'_, LoopBase>, args: Args<'_>) -> PyRes<Obj> {
    let own = names::own();
    let params = [own.sock.borrow(), own.data.borrow(), own.address.borrow()];
    let given = args.bind("sock_sendto", params, 3, 3)?;
    start(slf, c"sock_sendto", given, |[_, data, address]| SendTo {
        data: kept(data),
        address: kept(address),
    })
}

fn sock_connect(slf: Inst<'_, LoopBase>, args: Args<'_>) -> PyRes<Obj> {
    let own = names::own();
    let params = [own.sock.borrow(), own.address.borrow()];
    let given = args.bind("sock_connect", params, 2, 2)?;
    start(slf, c"sock_connect", given, |[_, address]| {
        Connect::new(address.map_or_else(Obj::none, Ref::own))
    })
}

fn sock_accept(slf: Inst<'_, LoopBase>, args: Args<'_>) -> PyRes<Obj> {
    let given = args.bind("sock_accept", [names::own().sock.borrow()], 1, 1)?;
    start(slf, c"sock_accept", given, |[_]| Accept)
}

/// `loop._accept_one(sock)`.
pub(crate) fn accept_one(slf: Inst<'_, LoopBase>, sock: Ref<'_>) -> PyRes<Obj> {
    super::accept::accept_one(slf, sock)
}

/// Builds the coroutines' types.
pub(crate) fn build() -> PyRes<()> {
    names::load()?;
    coroutine::build::<Call<Recv>>()?;
    coroutine::build::<Call<RecvInto>>()?;
    coroutine::build::<Call<RecvFrom>>()?;
    coroutine::build::<Call<RecvFromInto>>()?;
    coroutine::build::<Call<SendAll>>()?;
    coroutine::build::<Call<SendTo>>()?;
    coroutine::build::<Call<SendFile>>()?;
    coroutine::build::<Call<Connect>>()?;
    coroutine::build::<Call<Accept>>()?;
    Ok(())
}

/// Puts the methods into the loop's type.
pub(crate) fn add_to(class: Ref<'_>) -> PyRes<()> {
    let add = |name: &'static CStr, made: Obj| {
        call::setattr(class, value::intern(name)?.borrow(), made.borrow())
    };
    macro_rules! methods {
        ($($name:literal => $function:expr),* $(,)?) => {
            $(add($name, callable::coroutine_method::<LoopBase, _>(
                $function, names::stock($name)?.borrow())?)?;)*
        };
    }
    methods! {
        c"sock_recv" => sock_recv,
        c"sock_recv_into" => sock_recv_into,
        c"sock_recvfrom" => sock_recvfrom,
        c"sock_recvfrom_into" => sock_recvfrom_into,
        c"sock_sendall" => sock_sendall,
        c"sock_sendto" => sock_sendto,
        c"sock_connect" => sock_connect,
        c"sock_accept" => sock_accept,
    }
    Ok(())
}
