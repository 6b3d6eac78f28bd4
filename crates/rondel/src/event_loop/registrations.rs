//! Native transports in the loop's tables: registered sockets, and TLS connections to flush.
//!
//! The tables own the transports, as the handles in asyncio's selector do. What leaves them is dropped
//! after the borrow: a transport's end may run Python code.

use super::LoopBase;
use super::attention::reason;
use crate::net::sock;
use crate::net::tcp::TcpTransport;
use crate::net::tls::Tls;
use crate::net::udp::UdpTransport;
use rondel_ffi::{Own, PyRes};
use std::os::fd::RawFd;

impl LoopBase {
    /// Registers a native transport's socket; events come as [`super::Ready::Io`].
    pub(crate) fn register_transport(&self, fd: RawFd, transport: Own<TcpTransport>) -> PyRes<u32> {
        sock::vacate(self, fd)?;
        let token = self.with_driver(|driver| driver.register_edge(fd))?;
        let old = self.transports.borrow_mut().insert(token, transport);
        drop(old);
        Ok(token)
    }

    /// Ends it for a descriptor that is about to be closed, and that nobody else knows.
    pub(crate) fn forget_transport(&self, token: u32) -> PyRes<()> {
        let old = self.transports.borrow_mut().remove(token);
        drop(old);
        if self.closed.get() {
            return Ok(());
        }
        self.with_driver(|driver| {
            driver.forget_edge(token);
            Ok(())
        })
    }

    pub(crate) fn deregister_transport(&self, fd: RawFd, token: u32) -> PyRes<()> {
        let old = self.transports.borrow_mut().remove(token);
        drop(old);
        if self.closed.get() {
            return Ok(());
        }
        self.with_driver(|driver| driver.deregister_edge(fd, token))
    }

    /// Has the connection's writes sent when the batch is over.
    pub(crate) fn flush_later(&self, tls: Own<Tls>) {
        self.flushes.borrow_mut().push_back(tls);
        self.attention.set(reason::FLUSH, true);
    }

    pub(crate) fn next_flush(&self) -> Option<Own<Tls>> {
        let next = self.flushes.borrow_mut().pop_front();
        self.attention.set(reason::FLUSH, next.is_some());
        next
    }

    /// Registers a datagram socket; events come as [`super::Ready::Datagrams`].
    pub(crate) fn register_datagrams(
        &self,
        fd: RawFd,
        room: bool,
        transport: Own<UdpTransport>,
    ) -> PyRes<u32> {
        sock::vacate(self, fd)?;
        let token = self.with_driver(|driver| driver.register_edge_for(fd, true, room))?;
        let old = self.datagrams.borrow_mut().insert(token, transport);
        drop(old);
        Ok(token)
    }

    pub(crate) fn deregister_datagrams(&self, fd: RawFd, token: u32) -> PyRes<()> {
        let old = self.datagrams.borrow_mut().remove(&token);
        drop(old);
        if self.closed.get() {
            return Ok(());
        }
        self.with_driver(|driver| driver.deregister_edge(fd, token))
    }
}
