//! Socket addresses as Python's tuples, as `socket` makes and takes them.

use rondel_ffi::{Obj, PyRes, value};
use rustix::net::SocketAddrAny;
use std::fmt::Write;
use std::net::SocketAddr;

/// The tuple of an IPv4 or IPv6 address; None for no address, or one of another family.
pub(crate) fn optional(address: Option<&SocketAddrAny>) -> PyRes<Obj> {
    match address.and_then(|address| SocketAddr::try_from(address.clone()).ok()) {
        Some(address) => tuple(&address),
        None => Ok(Obj::none()),
    }
}

/// `(host, port)` or `(host, port, flowinfo, scope_id)`.
pub(crate) fn tuple(address: &SocketAddr) -> PyRes<Obj> {
    // The longest is `ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255`.
    let mut text = String::with_capacity(46);
    let port = value::int(i64::from(address.port()))?;
    match address {
        SocketAddr::V4(v4) => {
            let [a, b, c, d] = v4.ip().octets();
            let _infallible = write!(text, "{a}.{b}.{c}.{d}");
            value::tuple([value::str(&text)?, port])
        }
        SocketAddr::V6(v6) => {
            let _infallible = write!(text, "{}", v6.ip());
            value::tuple([
                value::str(&text)?,
                port,
                value::int(i64::from(v6.flowinfo()))?,
                value::int(i64::from(v6.scope_id()))?,
            ])
        }
    }
}
