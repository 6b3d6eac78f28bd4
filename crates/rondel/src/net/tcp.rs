//! TCP transports. (Being written.)

use crate::event_loop::{IoEvent, LoopBase};
use rondel_ffi::class::{OwnCell, TypeBuilder, Visit};
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes};

#[derive(Default)]
pub(crate) struct TcpTransport {
    home: OwnCell<LoopBase>,
}

static CELL: ClassCell = ClassCell::new();

impl Class for TcpTransport {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, visit: &mut Visit) {
        visit.own(&self.home);
    }
    fn clear(&self) {
        self.home.set(None);
    }
}

/// Acts on what epoll said about the socket.
pub(crate) fn on_event(_home: Inst<'_, LoopBase>, _transport: Own<TcpTransport>, _event: IoEvent) -> PyRes<()> {
    Ok(())
}

/// `_rondel.TcpTransportBase`.
pub(crate) fn build() -> PyRes<Obj> {
    TypeBuilder::<TcpTransport>::new(c"rondel._rondel.TcpTransportBase").subclassable().build()
}
