//! Sending: `sendto()` tries at once; what the socket has no room for is queued.

use super::read::would_block;
use super::{Family, Life, UdpTransport, names, register};
use crate::event_loop::LoopBase;
use crate::net::transport::limits::{maybe_pause, maybe_resume};
use crate::net::transport::{close, raise_errno};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::method::Args;
use rondel_ffi::{Inst, Obj, PyRes, Ref, buffer, call, context, value};
use rustix::io::Errno;
use rustix::net::{SendFlags, send, sendto as send_to};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};

const FLAGS: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

/// What asyncio counts for each datagram in the queue.
const HEADER: usize = if cfg!(Py_3_13) { 8 } else { 0 };

const WRITE_FAILED: &str = "Fatal write error on datagram transport";

/// `transport.sendto(data, addr=None)`.
pub(super) fn sendto(slf: Inst<'_, UdpTransport>, args: Args<'_>) -> PyRes<Obj> {
    let own = names::own();
    let [data, addr] = args.bind("sendto", [own.data.borrow(), own.addr.borrow()], 1, 2)?;
    let data = data.unwrap_or_else(|| own.none.borrow());
    let bytes = value::bytes_of(data);
    if bytes.is_none()
        && !data.is_instance(own.bytearray.borrow())?
        && !data.is_instance(own.memoryview.borrow())?
    {
        let name = call::getattr(data.type_of(), own.type_name.borrow())?;
        let name = value::repr(name.borrow())?;
        return Err(Builtin::Type.raise(&format!(
            "data argument must be a bytes-like object, not {name}"
        )));
    }
    // From 3.13 on an empty datagram is one.
    if !cfg!(Py_3_13) && !data.truthy()? {
        return Ok(Obj::none());
    }
    let address = slf.address.get();
    let addr = match &address {
        None => addr.unwrap_or_else(|| own.none.borrow()),
        Some(address) => {
            if let Some(addr) = addr.and_then(Ref::not_none)
                && !addr.equals(address.borrow())?
            {
                let address = value::to_str(address.borrow())?;
                let address = value::str_text(address.borrow())?;
                return Err(
                    Builtin::Value.raise(&format!("Invalid address: must be None or {address}"))
                );
            }
            address.borrow()
        }
    };
    if slf.life.get() == Life::Gone || (slf.is_lost() && address.is_some()) {
        close::count_lost(slf)?;
        return Ok(Obj::none());
    }
    if !slf.has_queued() {
        match send_now(slf, data, addr) {
            Ok(true) => return Ok(Obj::none()),
            Ok(false) => {}
            Err(raised) => {
                refused(slf, raised.fetch(), WRITE_FAILED)?;
                return Ok(Obj::none());
            }
        }
        if slf.is_lost() {
            return Ok(Obj::none()); // there is nobody left to send it later
        }
    }
    let (kept, size) = match bytes {
        Some(bytes) => (data.own(), bytes.len()),
        None => {
            let kept = value::to_bytes(data)?;
            let size = value::bytes_of(kept.borrow()).map_or(0, <[u8]>::len);
            (kept, size)
        }
    };
    let first = !slf.has_queued();
    slf.queue.borrow_mut().push_back((kept, addr.own()));
    slf.queued.set(slf.queued.get() + size + HEADER);
    if first && let Some(home) = slf.home.get() {
        slf.write_context.set(Some(context::copy_current()?));
        register(home.inst(), slf)?;
    }
    maybe_pause(slf)?;
    Ok(Obj::none())
}

/// An OSError is the protocol's to hear of, while it is being handled; another exception is fatal.
#[cold]
pub(super) fn refused(slf: Inst<'_, UdpTransport>, exc: Obj, message: &str) -> PyRes<()> {
    if !err::exception_is(exc.borrow(), Builtin::OSError.class()) {
        return close::failed_with(slf, exc, message);
    }
    match slf.protocol.get() {
        Some(protocol) => {
            let name = names::own().error_received.borrow();
            let args = [protocol.borrow(), exc.borrow()];
            err::while_handling(exc.borrow(), || call::method(name, args).map(drop))
        }
        None => Ok(()),
    }
}

/// Sends a datagram; false if there is no room.
fn send_now(slf: Inst<'_, UdpTransport>, data: Ref<'_>, addr: Ref<'_>) -> PyRes<bool> {
    if slf.connected.get() {
        let socket = slf.descriptor().map_err(raise_errno)?;
        return sent(with_bytes(data, |bytes| send(socket, bytes, FLAGS))?);
    }
    let Some(target) = target(slf, addr) else {
        return by_method(slf, data, addr);
    };
    if let Some(sock) = slf.file.get() {
        err::audit(c"socket.sendto", sock.borrow(), addr)?;
    }
    let socket = slf.descriptor().map_err(raise_errno)?;
    sent(with_bytes(data, |bytes| {
        send_to(socket, bytes, FLAGS, &target)
    })?)
}

fn with_bytes<R>(data: Ref<'_>, work: impl Fn(&[u8]) -> R) -> PyRes<R> {
    match value::bytes_of(data) {
        Some(bytes) => Ok(work(bytes)),
        None => buffer::with_bytes(data, work),
    }
}

fn sent(outcome: Result<usize, Errno>) -> PyRes<bool> {
    match outcome {
        Ok(_count) => Ok(true),
        Err(Errno::AGAIN | Errno::INTR) => Ok(false),
        Err(errno) => Err(raise_errno(errno)),
    }
}

/// The address, if it is one of the socket's family by number.
fn target(slf: Inst<'_, UdpTransport>, addr: Ref<'_>) -> Option<SocketAddr> {
    if let Some((address, tuple)) = &*slf.last.borrow()
        && tuple.borrow().is(addr)
    {
        return Some(*address);
    }
    let family = slf.family.get();
    if family == Family::Other || !value::is_tuple(addr) {
        return None;
    }
    let host = value::item(addr, 0)?;
    let ip: IpAddr = value::str_with(host.borrow(), |text| text.parse().ok())??;
    let port = u16::try_from(number(addr, 1)??).ok()?;
    match (ip, family) {
        (IpAddr::V4(ip), Family::V4) if value::item(addr, 2).is_none() => {
            Some(SocketAddr::V4(SocketAddrV4::new(ip, port)))
        }
        (IpAddr::V6(ip), Family::V6) if value::item(addr, 4).is_none() => {
            let flow = u32::try_from(number(addr, 2).unwrap_or(Some(0))?).ok()?;
            let scope = u32::try_from(number(addr, 3).unwrap_or(Some(0))?).ok()?;
            if flow > 0xf_ffff {
                return None; // to be refused
            }
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, flow, scope)))
        }
        _ => None,
    }
}

/// The tuple's item as a number: no such item, no such number, the number.
#[expect(
    clippy::option_option,
    reason = "a missing item has a default, a wrong one has not"
)]
fn number(addr: Ref<'_>, at: usize) -> Option<Option<i64>> {
    let item = value::item(addr, at)?;
    if !value::is_int(item.borrow()) {
        return Some(None);
    }
    Some(match value::as_i64(item.borrow()) {
        Ok(number) => Some(number),
        Err(raised) => {
            raised.clear();
            None
        }
    })
}

/// Names, other families, and the words for what is wrong with an address.
fn by_method(slf: Inst<'_, UdpTransport>, data: Ref<'_>, addr: Ref<'_>) -> PyRes<bool> {
    let Some(sock) = slf.file.get() else {
        return Err(raise_errno(Errno::BADF));
    };
    match call::method(names::own().sendto.borrow(), [sock.borrow(), data, addr]) {
        Ok(_count) => Ok(true),
        Err(raised) if would_block(&raised) => {
            raised.clear();
            Ok(false)
        }
        Err(raised) => Err(raised),
    }
}

/// There is room: sends from the queue, then does what waited for it to empty.
pub(super) fn ready(home: Inst<'_, LoopBase>, slf: Inst<'_, UdpTransport>) -> PyRes<()> {
    if let Some(context) = slf.write_context.get() {
        home.enter(context.borrow())?;
    }
    loop {
        let Some((data, addr)) = slf.queue.borrow_mut().pop_front() else {
            break;
        };
        let size = value::bytes_of(data.borrow()).map_or(0, <[u8]>::len) + HEADER;
        match send_now(slf, data.borrow(), addr.borrow()) {
            Ok(true) => {
                slf.queued.set(slf.queued.get().saturating_sub(size));
            }
            Ok(false) => {
                slf.queue.borrow_mut().push_front((data, addr));
                break;
            }
            Err(raised) => {
                slf.queued.set(slf.queued.get().saturating_sub(size));
                if let Err(raised) = refused(slf, raised.fetch(), WRITE_FAILED) {
                    super::again(home, slf, true);
                    return Err(raised);
                }
            }
        }
    }
    maybe_resume(slf)?; // may send more
    if slf.has_queued() {
        return Ok(());
    }
    match slf.life.get() {
        Life::Draining => close::connection_lost(slf, None),
        Life::Open if slf.token.get().is_some() => register(home, slf),
        _ => Ok(()),
    }
}
