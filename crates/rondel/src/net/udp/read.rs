//! Receiving: from readiness to `datagram_received()`, and what the switches of
//! `pause_reading()` do.

use super::{Family, Life, PEERS, Reading, UdpTransport, again, names, register, write};
use crate::event_loop::LoopBase;
use crate::net::address;
use crate::net::transport::receive::with_scratch;
use crate::net::transport::switches::Reads;
use crate::net::transport::{close, raise_errno};
use rondel_ffi::err::Builtin;
use rondel_ffi::{Inst, Obj, PyRes, Raised, call, context, value};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recvfrom};
use std::net::{IpAddr, SocketAddr};

const READ_FAILED: &str = "Fatal read error on datagram transport";

/// Datagrams of one event. asyncio takes one a turn; so many cost no more than a turn of others' does.
pub(super) const BURST: usize = 32;

/// Receives what there is, if the protocol wants it.
pub(super) fn ready(home: Inst<'_, LoopBase>, slf: Inst<'_, UdpTransport>) -> PyRes<()> {
    if slf.life.get() != Life::Open {
        return Ok(());
    }
    if slf.reading.get() != Reading::Flowing {
        slf.missed.set(true);
        return Ok(());
    }
    if let Some(context) = slf.read_context.get() {
        home.enter(context.borrow())?;
    }
    for _ in 0..BURST {
        match one(slf) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(raised) => {
                // Before it is told: a KeyboardInterrupt ends the run, and the edge is used up.
                again(home, slf, false);
                return close::report(home, slf, "_read_ready", raised);
            }
        }
        match (slf.life.get(), slf.reading.get()) {
            (Life::Open, Reading::Flowing) => {}
            (Life::Open, _) => {
                slf.missed.set(true);
                return Ok(());
            }
            _ => return Ok(()),
        }
    }
    again(home, slf, false);
    Ok(())
}

/// Receives one datagram, or an error, for the protocol; false if there is none.
fn one(slf: Inst<'_, UdpTransport>) -> PyRes<bool> {
    let Some(protocol) = slf.protocol.get() else {
        return Ok(false);
    };
    let own = names::own();
    match receive(slf) {
        Ok(Some((data, address))) => {
            let args = [protocol.borrow(), data.borrow(), address.borrow()];
            call::method(own.datagram_received.borrow(), args).map(|_none| true)
        }
        Ok(None) => Ok(false),
        Err(raised) => write::refused(slf, raised.fetch(), READ_FAILED).map(|()| true),
    }
}

fn receive(slf: Inst<'_, UdpTransport>) -> PyRes<Option<(Obj, Obj)>> {
    if slf.family.get() == Family::Other {
        return by_method(slf);
    }
    let socket = slf.descriptor().map_err(raise_errno)?;
    let got = with_scratch(|scratch| {
        loop {
            match recvfrom(socket, &mut *scratch, RecvFlags::DONTWAIT) {
                Ok((_, count, peer)) => {
                    return value::bytes(&scratch[..count]).map(|data| Ok((data, peer)));
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Ok(Err(errno)),
            }
        }
    })?;
    let (data, peer) = match got {
        Ok(received) => received,
        Err(Errno::AGAIN) => return Ok(None),
        Err(errno) => return Err(raise_errno(errno)),
    };
    let address = match peer.and_then(|peer| SocketAddr::try_from(peer).ok()) {
        Some(peer) => tuple_of(slf, peer)?,
        None => Obj::none(),
    };
    Ok(Some((data, address)))
}

/// The peer's tuple, made once for as long as it is remembered.
fn tuple_of(slf: Inst<'_, UdpTransport>, peer: SocketAddr) -> PyRes<Obj> {
    let host = match peer.ip() {
        IpAddr::V4(ip) => ip.to_bits(),
        IpAddr::V6(ip) => ip.to_bits() as u32,
    };
    let at = (host ^ u32::from(peer.port()) ^ host >> 8) as usize & (PEERS - 1);
    let known = slf.peers.borrow().get(at).and_then(|known| match known {
        Some((address, tuple)) if *address == peer => Some(tuple.clone()),
        _ => None,
    });
    let tuple = match known {
        Some(tuple) => tuple,
        None => {
            let tuple = address::tuple(&peer)?;
            let forgotten = {
                let mut peers = slf.peers.borrow_mut();
                if peers.is_empty() {
                    peers.resize_with(PEERS, || None);
                }
                peers[at].replace((peer, tuple.clone()))
            };
            drop(forgotten);
            tuple
        }
    };
    let forgotten = slf.last.borrow_mut().replace((peer, tuple.clone()));
    drop(forgotten);
    Ok(tuple)
}

/// A datagram of a family whose addresses only `socket` knows.
fn by_method(slf: Inst<'_, UdpTransport>) -> PyRes<Option<(Obj, Obj)>> {
    let Some(sock) = slf.file.get() else {
        return Ok(None);
    };
    let own = names::own();
    let args = [sock.borrow(), own.max_size.borrow()];
    match call::method(own.recvfrom.borrow(), args) {
        Ok(pair) => match (value::item(pair.borrow(), 0), value::item(pair.borrow(), 1)) {
            (Some(data), Some(address)) => Ok(Some((data, address))),
            _ => Ok(None),
        },
        Err(raised) if would_block(&raised) => {
            raised.clear();
            Ok(None)
        }
        Err(raised) => Err(raised),
    }
}

pub(super) fn would_block(raised: &Raised) -> bool {
    raised.matches(Builtin::BlockingIO.class()) || raised.matches(Builtin::Interrupted.class())
}

impl Reads for UdpTransport {
    fn flow(home: Inst<'_, LoopBase>, slf: Inst<'_, Self>) -> PyRes<()> {
        slf.reading.set(Reading::Flowing);
        slf.read_context.set(Some(context::copy_current()?));
        if slf.missed.replace(false) {
            again(home, slf, false);
        }
        register(home, slf)
    }
}
