//! `serve_http` and the server object that Python stops.

use super::access::{self, Log};
use super::arguments::{
    compressed, count, http_limits, ids, limit, nanoseconds, numbers, own_headers, paths, seat,
    seconds, statics, trusted, websockets_of,
};
use super::blocking::{self, Blocking};
use super::bounds;
use super::door::{Door, Notes};
use super::scope::Scopes;
use super::secure;
use super::tally::Tally;
use crate::event_loop::LoopBase;
use crate::future;
use crate::pool::ThreadPool;
use rondel_core::clock;
use rondel_core::driver::Handle;
use rondel_ffi::class::{OwnCell, TypeBuilder, Visit, alloc};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::local::LoopLocal;
use rondel_ffi::method::{self, Args, MethodDef};
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Ref, listener, value};
use rondel_http::{Config, Limits, Server, Service};
use std::cell::OnceCell;
use std::ffi::CStr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a request's body that are kept in memory, if nobody says otherwise: Django's default.
const SPOOL: usize = 2_621_440;

/// Requests that may wait for a thread.
const QUEUE: usize = 1024;

struct Parts {
    door: Rc<Door>,
    driver: Handle,
}

/// `_rondel.HttpServer`.
#[derive(Default)]
pub(super) struct Control {
    parts: OnceCell<LoopLocal<Parts>>,
    home: OwnCell<LoopBase>,
}

static CELL: ClassCell = ClassCell::new();

impl Class for Control {
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

impl Control {
    fn parts(&self) -> PyRes<&Parts> {
        self.parts.get().and_then(LoopLocal::get).ok_or_else(|| {
            Builtin::Runtime.raise("the server belongs to another thread's event loop")
        })
    }
}

/// `serve_http(loop, app, fds, *, …)`: serves `app` over listening sockets, of which it takes duplicates.
///
/// What a browser or a proxy is told and believed:
/// * `header_timeout`, `keep_alive_timeout`, `header_bytes`, `header_count`: bounds of a connection's heads;
///   `limits`, a dict, has the others (`http_limits`, `bounds`), and `late` is told of requests that are late.
/// * `tls`, `http`, `redirect`: see `secure`. `websockets`: see `websockets_of`.
/// * `proxy_headers`, `proxy_protocol` of the peers `proxies` are believed (`trusted`).
/// * Responses from `compression_least` bytes on are compressed in the codings `compression`.
/// * `headers` says which the server adds by itself (`own_headers`); with `early_hints` applications may send
///   clients of HTTP/1.1 103.
///
/// Who answers:
/// * `root_path` and `state` are the scopes'.
/// * The server itself: the path `health`, that of `metrics` (`(path, scrape)`) with what `scrape()` returns,
///   and files of `mounts`, told to be good for `max_age` seconds (`statics`).
/// * With a `handler` (and `pool`, `routes`, `spool`, `queue`) threads answer requests whose paths `routes`
///   knows: see `blocking`. With an `environ` it is a WSGI application's, called with a copy of that and what is
///   the request's own, and with a scope if it is `scoped`; `inline`: on the loop's own thread.
///
/// Who is told:
/// * The `access_log`, of the `access_fields` (`access::Field`) as well; `request_id` names the header that
///   requests' ids are in.
/// * `tally` (`(fd, size, base)`): requests are counted there, from the number `base` on.
/// * `shared`: who accepts how much among processes with the same sockets (`seat`).
fn serve_http(args: Args<'_>) -> PyRes<Obj> {
    let names = [
        value::intern(c"loop")?,
        value::intern(c"app")?,
        value::intern(c"fds")?,
        value::intern(c"root_path")?,
        value::intern(c"state")?,
        value::intern(c"access_log")?,
        value::intern(c"header_timeout")?,
        value::intern(c"keep_alive_timeout")?,
        value::intern(c"header_bytes")?,
        value::intern(c"header_count")?,
        value::intern(c"handler")?,
        value::intern(c"pool")?,
        value::intern(c"routes")?,
        value::intern(c"spool")?,
        value::intern(c"queue")?,
        value::intern(c"environ")?,
        value::intern(c"scoped")?,
        value::intern(c"inline")?,
        value::intern(c"shared")?,
        value::intern(c"tls")?,
        value::intern(c"http")?,
        value::intern(c"redirect")?,
        value::intern(c"websockets")?,
        value::intern(c"access_fields")?,
        value::intern(c"request_id")?,
        value::intern(c"health")?,
        value::intern(c"metrics")?,
        value::intern(c"tally")?,
        value::intern(c"limits")?,
        value::intern(c"late")?,
        value::intern(c"proxy_headers")?,
        value::intern(c"proxies")?,
        value::intern(c"proxy_protocol")?,
        value::intern(c"compression")?,
        value::intern(c"compression_least")?,
        value::intern(c"mounts")?,
        value::intern(c"max_age")?,
        value::intern(c"headers")?,
        value::intern(c"early_hints")?,
    ];
    let params = names.each_ref().map(Obj::borrow);
    let [
        loop_,
        app,
        fds,
        root_path,
        state,
        access_log,
        header_timeout,
        idle,
        bytes,
        lines,
        handler,
        pool,
        routes,
        spool,
        queue,
        environ,
        scoped,
        inline,
        shared,
        tls,
        http,
        redirect,
        websockets,
        access_fields,
        request_id,
        health,
        metrics,
        tally,
        further,
        late,
        proxy_headers,
        proxies,
        proxy_protocol,
        compression,
        compression_least,
        mounts,
        max_age,
        headers,
        early_hints,
    ] = args.bind("serve_http", params, 3, 3)?;
    let (Some(loop_), Some(app), Some(fds)) = (loop_, app, fds) else {
        return Err(Builtin::Type.raise("serve_http() needs a loop, an application and sockets"));
    };
    let Some(home) = loop_.cast::<LoopBase>() else {
        let text = value::repr(loop_)?;
        return Err(Builtin::Type.raise(&format!(
            "serve_http() needs a Rondel event loop, got {text}"
        )));
    };
    let further = further.and_then(Ref::not_none);
    let defaults = Limits::default();
    let config = Config {
        limits: Limits {
            header_deadline: seconds(header_timeout, defaults.header_deadline)?,
            idle_deadline: seconds(idle, defaults.idle_deadline)?,
            header_bytes: count(bytes, defaults.header_bytes)?,
            header_count: count(lines, defaults.header_count)?,
            ..http_limits(further)?
        },
        seat: seat(shared)?,
        websockets: websockets_of(websockets)?,
        proxies: trusted(proxy_headers, proxies, proxy_protocol)?,
        compression: compressed(compression, compression_least)?,
        ..own_headers(headers)?
    };
    let config = secure::configure(config, tls, http)?;
    let redirect = secure::Redirect::of(redirect)?;
    let root_path = match root_path.and_then(Ref::not_none) {
        Some(text) => value::str_text(text)?,
        None => String::new(),
    };
    let state = state.and_then(Ref::not_none).map(Ref::own);
    let access_log = match access_log.and_then(Ref::not_none) {
        Some(call) => Some(Log::new(call.own(), access_fields.and_then(Ref::not_none))?),
        None => None,
    };
    let ids = match request_id.and_then(Ref::not_none) {
        Some(name) => Some(ids(&value::str_text(name)?)?),
        None => None,
    };
    let paths = paths(
        health.and_then(Ref::not_none),
        metrics.and_then(Ref::not_none),
    )?;
    let tally = numbers(tally)?.map(|(counters, base)| Arc::new(Tally::new(counters, base)));
    let logger = access::logger()?;
    let blocking = match handler.and_then(Ref::not_none) {
        None => None,
        Some(handler) => {
            let pool = pool.and_then(Ref::cast::<ThreadPool>);
            let (Some(pool), Some(routes)) = (pool, routes) else {
                return Err(Builtin::Type.raise("a handler for threads needs a pool and routes"));
            };
            Some(Blocking::new(blocking::Options {
                pool: pool.pool()?.clone(),
                handler: handler.own(),
                routes: routes.own(),
                spool: count(spool, SPOOL)?,
                queue: count(queue, QUEUE)?,
                root_path: root_path.clone(),
                state: state.clone(),
                access_log: access_log.as_ref(),
                tally: tally.clone(),
                logger: logger.clone(),
                waker: home.with_driver(|driver| Ok(driver.waker()))?,
                environ: environ.and_then(Ref::not_none).map(Ref::own),
                scoped: scoped.map_or(Ok(false), Ref::truthy)?,
                inline: inline.map_or(Ok(false), Ref::truthy)?,
            })?)
        }
    };
    let hints = early_hints.map_or(Ok(false), Ref::truthy)?;
    let scopes = Scopes::new(root_path, state, hints)?;
    let notes = Notes {
        access_log,
        ids,
        tally,
        paths,
    };
    let driver = home.with_driver(|driver| Ok(driver.handle()))?;
    let bounds = bounds::Options {
        concurrency: limit(further, c"concurrency", 0)?,
        queue: limit(further, c"queue", QUEUE)?,
        deadline: nanoseconds(further, c"request_timeout")?.unwrap_or(0),
        late: late.and_then(Ref::not_none).map(Ref::own),
    };
    let door = Door::new(
        app.own(),
        scopes,
        notes,
        logger,
        blocking,
        bounds,
        driver.clone(),
    );
    let mut service = Rc::clone(&door) as Rc<dyn Service>;
    if let Some(mounts) = mounts.and_then(Ref::not_none) {
        let max_age = max_age.and_then(Ref::not_none);
        service = statics(driver.clone(), service, mounts, max_age)?;
    }
    let server = Server::new(driver.clone(), service, config);
    value::for_each(fds, |number| {
        let number = i32::try_from(value::as_i64(number.borrow())?)
            .map_err(|_| Builtin::Value.raise("a file descriptor was expected"))?;
        let listening = listener::duplicate(number).map_err(|e| err::raise_io(&e))?;
        match listening {
            listener::Listener::Tcp(listener) => server.listen_tcp(listener),
            listener::Listener::Unix(listener) => server.listen_unix(listener),
        }
        .map_err(|e| err::raise_io(&e))
    })?;
    redirect.listen(&server)?;
    door.set_server(server);
    home.add_door(Rc::clone(&door));
    let parts = OnceCell::new();
    let _fresh = parts.set(LoopLocal::new(Parts { door, driver }));
    let control: Own<Control> = alloc(
        Control {
            parts,
            home: OwnCell::new(Some(home.own())),
        },
        true,
    )?;
    Ok(control.into_obj())
}

/// `shutdown(deadline, idle=0)`: see `rondel.server.native.NativeServer`.
fn shutdown(slf: Inst<'_, Control>, args: Args<'_>) -> PyRes<Obj> {
    let names = [value::intern(c"deadline")?, value::intern(c"idle")?];
    let [deadline, idle] = args.bind("shutdown", names.each_ref().map(Obj::borrow), 1, 2)?;
    let parts = slf.parts()?;
    let Some(home) = slf.home.get() else {
        return Err(Builtin::Runtime.raise("the server is gone"));
    };
    let at = |limit: Duration| {
        clock::now().saturating_add(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX))
    };
    let end = at(seconds(deadline, Duration::ZERO)?);
    let idle = match seconds(idle, Duration::ZERO)? {
        Duration::ZERO => 0,
        idle => at(idle),
    };
    let fut = future::create(home.inst())?;
    parts
        .door
        .shut_down(&parts.driver, fut.obj().own(), end, idle)?;
    Ok(fut.into_obj())
}

/// `stats()`: `{"connections": …, "requests": …, "served": …}`.
fn stats(slf: Inst<'_, Control>) -> PyRes<Obj> {
    let door = &slf.parts()?.door;
    let counts = value::dict()?;
    let set = |key: &CStr, number: u64| -> PyRes<()> {
        let number = value::int(i64::try_from(number).unwrap_or(i64::MAX))?;
        value::dict_set(
            counts.borrow(),
            value::intern(key)?.borrow(),
            number.borrow(),
        )
    };
    set(c"requests", door.active() as u64)?;
    set(
        c"connections",
        door.with_server(Server::connections).unwrap_or(0) as u64,
    )?;
    set(c"waiting", door.bounds.waiting() as u64)?;
    set(c"served", door.with_server(Server::served).unwrap_or(0))?;
    Ok(counts)
}

pub(super) fn build() -> PyRes<Obj> {
    TypeBuilder::<Control>::new(c"rondel._rondel.HttpServer")
        .method(method::fast::<Control, _>(
            c"shutdown",
            c"Stop accepting; end or cut off what is in flight within a number of seconds.",
            shutdown,
        ))
        .method(method::noargs::<Control, _>(
            c"stats",
            c"Counts of connections and requests.",
            stats,
        ))
        .weakrefs()
        .build()
}

pub(super) fn definitions() -> Vec<MethodDef> {
    vec![method::function(
        c"serve_http",
        c"Serve an ASGI application over listening sockets on a running Rondel loop.",
        serve_http,
    )]
}
