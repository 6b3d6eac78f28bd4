//! A loop's registered transports, by the token that epoll gives back with an event; and what a crowd of
//! them needs in the cache before its events are dealt with.
//!
//! GIL held throughout; nothing here runs Python code, so that borrows of the table are safe as long as
//! what leaves it is dropped by the caller.

use super::TcpTransport;
use crate::net::streams::Reader;
use crate::task::Task;
use rondel_core::driver::{EdgeEvent, edge_slot};
use rondel_ffi::class::peek;
use rondel_ffi::prefetch::Trace;
use rondel_ffi::{Own, Ref, prefetch};

/// Fewer events than this at once are still in the cache from the last time.
const CROWD: usize = 16;

/// Bytes of a transport, a reader and any other object that a message needs.
const TRANSPORT: usize = 128;
const READER: usize = 64;
const OBJECT: usize = 48;

/// Slots are dense, as the driver uses them again.
#[derive(Default)]
pub(crate) struct Transports(Vec<Option<(u32, Own<TcpTransport>)>>);

impl Transports {
    #[inline(always)]
    pub(crate) fn get(&self, token: u32) -> Option<&Own<TcpTransport>> {
        match self.0.get(edge_slot(token)) {
            Some(Some((whole, transport))) if *whole == token => Some(transport),
            _ => None,
        }
    }

    /// What it replaces is the caller's to drop, as with [`Transports::remove`].
    pub(crate) fn insert(
        &mut self,
        token: u32,
        transport: Own<TcpTransport>,
    ) -> Option<(u32, Own<TcpTransport>)> {
        let slot = edge_slot(token);
        if slot >= self.0.len() {
            self.0.resize_with(slot + 1, || None);
        }
        self.0[slot].replace((token, transport))
    }

    pub(crate) fn remove(&mut self, token: u32) -> Option<(u32, Own<TcpTransport>)> {
        self.0
            .get_mut(edge_slot(token))?
            .take_if(|(whole, _)| *whole == token)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Own<TcpTransport>> {
        self.0.iter().flatten().map(|(_token, transport)| transport)
    }

    /// Has fetched what the events of a crowd are about to look at, a round for each step from a transport
    /// to its task's frame: misses that would come one after the other overlap.
    #[inline]
    pub(crate) fn fetch_ahead(&self, events: &[EdgeEvent]) {
        if events.len() >= CROWD {
            self.fetch(events);
        }
    }

    fn fetch(&self, events: &[EdgeEvent]) {
        let found = || events.iter().filter_map(|event| self.get(event.token));
        for transport in found() {
            prefetch::instance(transport.inst(), TRANSPORT);
        }
        for transport in found() {
            transport.fetch_receiver();
        }
        for transport in found() {
            transport.with_reader(Reader::fetch_waiter);
        }
        for transport in found() {
            transport.with_reader(|reader| reader.waiting_task(Task::fetch));
        }
        for transport in found() {
            transport.with_reader(|reader| reader.waiting_task(Task::fetch_frame));
        }
    }
}

impl TcpTransport {
    #[inline(always)]
    fn with_reader(&self, look: impl FnOnce(&Reader)) {
        peek(&self.reader, |reader| {
            if let Some(reader) = reader {
                look(reader.get().data());
            }
        });
    }

    #[inline(always)]
    fn fetch_receiver(&self) {
        let read_context = peek(&self.reader, |reader| match reader {
            Some(reader) => {
                prefetch::instance(reader.get(), READER);
                None
            }
            None => self.read_context.peek(),
        });
        for obj in [self.protocol.peek(), read_context].into_iter().flatten() {
            prefetch::object(obj, OBJECT);
        }
        self.writer.get().fetch(OBJECT);
    }

    /// Remembers a stream's writer, which is fetched with the transport.
    #[inline(always)]
    pub(crate) fn note_writer(&self, writer: Ref<'_>) {
        self.writer.set(Trace::of(writer));
    }
}
