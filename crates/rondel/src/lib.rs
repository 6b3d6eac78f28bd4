//! `rondel._rondel`: the native half of Rondel.
//!
//! | module | what |
//! |---|---|
//! | `event_loop` | the loop: ready queue, timers, turns |
//! | `future`, `task`, `handle` | asyncio's objects as subclasses of its C types |
//! | `primitives` | sleep, gather, timeout, TaskGroup, wait and its kin |
//! | `sync` | locks, events, semaphores, conditions, barriers |
//! | `queue` | queues |
//! | `net` | transports of stream and datagram sockets, TLS, streams, `sock_*` |
//! | `pool` | threads for blocking calls |
//! | `server` | ASGI over `rondel-http` |
//! | `watch` | reports of lost work, when asked for |
//! | `inspect` | who waits for what: snapshots, counters, stalls; recordings |
//! | `meter` | time in a task's steps, for the blocks of `timed` |
//!
//! Unsafe code lives in `rondel-ffi`; here it is confined to three `Extends` impls, which state a
//! layout.

mod consts;
mod event_loop;
mod future;
mod handle;
mod inspect;
mod meter;
mod net;
mod packed;
mod pool;
mod primitives;
mod queue;
mod server;
mod sync;
mod task;
mod watch;

use pyo3::prelude::*;
use rondel_ffi::{Obj, PyRes, callable, class, context, method, module};

/// Builds every type and function, bases first.
fn fill(m: &module::Module) -> PyRes<()> {
    consts::load()?;
    let place = future::Placement::choose(consts::stock())?;
    context::prepare()?;
    class::prepare()?;
    callable::build()?;
    net::sock::build()?;
    net::transport::load()?;
    let types: [(&std::ffi::CStr, Obj); 30] = {
        let [handle, timer] = handle::build()?;
        let [
            http_server,
            cycle,
            receive,
            send,
            reply,
            routes,
            wsgi_response,
            file_watch,
            tls_context,
        ] = server::build()?;
        let [tls_protocol, tls_transport] = net::tls::build()?;
        let [read_pipe, write_pipe] = net::pipe::build()?;
        let [thread_pool, pin, hop, gate, worker] = pool::build()?;
        [
            (c"LoopBase", event_loop::build()?),
            (c"Future", future::build(place)?),
            (c"Task", task::build(place)?),
            (c"_GatheringFuture", primitives::gather::build(place)?),
            (c"Handle", handle),
            (c"TimerHandle", timer),
            (c"Timeout", primitives::timeout::build()?),
            (c"TaskGroupBase", primitives::task_group::build()?),
            (c"sleep_coroutine", primitives::sleep::build()?),
            (c"Immediate", primitives::immediate::build()?),
            (c"TcpTransportBase", net::tcp::build()?),
            (c"TlsProtocolBase", tls_protocol),
            (c"TlsTransportBase", tls_transport),
            (c"UdpTransportBase", net::udp::build()?),
            (c"ReadPipeBase", read_pipe),
            (c"WritePipeBase", write_pipe),
            (c"HttpServer", http_server),
            (c"Cycle", cycle),
            (c"ReceiveCall", receive),
            (c"SendCall", send),
            (c"Reply", reply),
            (c"Routes", routes),
            (c"WsgiResponse", wsgi_response),
            (c"FileWatch", file_watch),
            (c"TlsContext", tls_context),
            (c"ThreadPool", thread_pool),
            (c"Pin", pin),
            (c"Hop", hop),
            (c"Gate", gate),
            (c"Worker", worker),
        ]
    };
    for (name, ty) in types {
        m.add(name, ty)?;
    }
    for (name, ty) in sync::build()? {
        m.add(name, ty)?;
    }
    m.add(c"QueueBase", queue::build()?)?;
    for (name, ty) in net::streams::build()? {
        m.add(name, ty)?;
    }
    for (name, function) in primitives::functions::coroutine_functions()? {
        m.add(name, function)?;
    }
    let mut functions = primitives::functions::definitions();
    functions.extend(server::definitions());
    functions.extend(pool::definitions());
    functions.extend(sync::definitions());
    functions.extend(queue::definitions());
    functions.extend(net::streams::definitions());
    functions.push(net::tcp::definition());
    functions.extend(watch::definitions());
    functions.extend(meter::definitions());
    functions.extend(inspect::definitions());
    method::add_functions(m.obj(), functions)
}

#[pymodule]
fn _rondel(m: &Bound<'_, PyModule>) -> PyResult<()> {
    module::initialise(m, fill)?;
    m.add("__version__", env!("CARGO_PKG_VERSION"))
}
