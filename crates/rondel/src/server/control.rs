//! `serve_http` and the server object that Python stops.

use super::access::{self, Log};
use super::blocking::{self, Blocking};
use super::bounds;
use super::door::{Door, Notes, Paths};
use super::ids::Ids;
use super::scope::Scopes;
use super::secure;
use super::tally::Tally;
use crate::event_loop::LoopBase;
use crate::future;
use crate::pool::ThreadPool;
use rondel_core::clock;
use rondel_core::driver::Handle;
use rondel_ffi::class::{OwnCell, TypeBuilder, Visit, alloc};
use rondel_ffi::counters::Counters;
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::local::LoopLocal;
use rondel_ffi::method::{self, Args, MethodDef};
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Ref, listener, value};
use rondel_http::compress::{Coding, Compression};
use rondel_http::http::{HeaderName, HeaderValue};
use rondel_http::proxy::{Proxies, Style, Trust};
use rondel_http::ws::WebSockets;
use rondel_http::{Config, Ledger, Limits, Mount, Seat, Server, Service, Statics};
use std::cell::OnceCell;
use std::ffi::CStr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
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

fn seconds(value: Option<Ref<'_>>, default: Duration) -> PyRes<Duration> {
    let Some(value) = value else {
        return Ok(default);
    };
    let seconds = value::as_f64(value)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        Builtin::Value.raise(&format!(
            "a duration in seconds was expected, got {seconds}"
        ))
    })
}

fn count(value: Option<Ref<'_>>, default: usize) -> PyRes<usize> {
    let Some(value) = value else {
        return Ok(default);
    };
    let number = value::as_i64(value)?;
    usize::try_from(number)
        .map_err(|_| Builtin::Value.raise(&format!("a count was expected, got {number}")))
}

/// An entry of the `limits`.
fn entry<'a>(limits: Option<Ref<'a>>, name: &CStr) -> PyRes<Option<Ref<'a>>> {
    match limits {
        Some(limits) => value::dict_get(limits, value::intern(name)?.borrow()),
        None => Ok(None),
    }
}

fn limit(limits: Option<Ref<'_>>, name: &CStr, default: usize) -> PyRes<usize> {
    count(entry(limits, name)?, default)
}

/// None where there is no limit, which 0 says.
fn optional(limits: Option<Ref<'_>>, name: &CStr) -> PyRes<Option<usize>> {
    Ok(Some(limit(limits, name, 0)?).filter(|number| *number != 0))
}

fn duration(limits: Option<Ref<'_>>, name: &CStr) -> PyRes<Option<Duration>> {
    let found = seconds(entry(limits, name)?, Duration::ZERO)?;
    Ok(Some(found).filter(|limit| !limit.is_zero()))
}

fn nanoseconds(limits: Option<Ref<'_>>, name: &CStr) -> PyRes<Option<u64>> {
    let found = duration(limits, name)?;
    Ok(found.map(|limit| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX / 2)))
}

/// What the connections' side is told of limits; without a `limits` its own defaults hold.
fn http_limits(limits: Option<Ref<'_>>) -> PyRes<Limits> {
    let defaults = Limits::default();
    if limits.is_none() {
        return Ok(defaults);
    }
    let body_deadline = duration(limits, c"body_timeout")?;
    let rate = limit(limits, c"body_rate", 0)? as f64;
    Ok(Limits {
        url_bytes: limit(limits, c"url_bytes", defaults.url_bytes)?,
        body_bytes: optional(limits, c"body_bytes")?.map(|most| most as u64),
        body_step: body_deadline.map_or(0, |limit| (limit.as_secs_f64() * rate) as u64),
        body_deadline,
        write_deadline: duration(limits, c"write_timeout")?,
        connections: optional(limits, c"connections")?,
        ..defaults
    })
}

/// Numbers of processes that share sockets.
struct Shares(Counters);

impl Ledger for Shares {
    fn counts(&self) -> &[AtomicU64] {
        self.0.all()
    }
}

/// `(fd, size, index)`: a file that counts, how many numbers it has, and which is ours.
fn numbers(shared: Option<Ref<'_>>) -> PyRes<Option<(Counters, usize)>> {
    let Some(shared) = shared.and_then(Ref::not_none) else {
        return Ok(None);
    };
    let mut told = Vec::new();
    value::for_each(shared, |number| {
        told.push(value::as_i64(number.borrow())?);
        Ok(())
    })?;
    let [fd, size, index] = told[..] else {
        return Err(Builtin::Value.raise("(fd, size, index) was expected"));
    };
    let number = |n: i64| usize::try_from(n).unwrap_or(usize::MAX);
    let fd = i32::try_from(fd).unwrap_or(-1);
    let counters = Counters::map(fd, number(size)).map_err(|e| err::raise_io(&e))?;
    if number(index) >= number(size) {
        return Err(Builtin::Value.raise("the file has no such index"));
    }
    Ok(Some((counters, number(index))))
}

fn seat(shared: Option<Ref<'_>>) -> PyRes<Option<Seat>> {
    Ok(numbers(shared)?.map(|(counters, number)| Seat {
        ledger: Arc::new(Shares(counters)),
        number,
    }))
}

/// Files before a service: `mounts` is an iterable of `(route, folder)`.
fn statics(
    driver: Handle,
    behind: Rc<dyn Service>,
    mounts: Ref<'_>,
    max_age: Option<Ref<'_>>,
) -> PyRes<Rc<dyn Service>> {
    let mut told = Vec::new();
    value::for_each(mounts, |pair| {
        let (route, folder) = (value::item(pair.borrow(), 0), value::item(pair.borrow(), 1));
        let (Some(route), Some(folder)) = (route, folder) else {
            return Err(Builtin::Value.raise("mounts are of (route, folder)"));
        };
        told.push(Mount {
            route: value::str_text(route.borrow())?,
            folder: value::str_text(folder.borrow())?.into(),
        });
        Ok(())
    })?;
    let max_age = match max_age {
        Some(age) => Some(seconds(Some(age), Duration::ZERO)?),
        None => None,
    };
    let statics = Statics::new(driver, behind, &told, max_age).map_err(|e| err::raise_io(&e))?;
    Ok(Rc::new(statics))
}

/// `(max_size, max_queue, ping_interval, ping_timeout, close_timeout, deflate)`; intervals of 0 are
/// for ever. `None`: requests for WebSocket connections are ordinary requests.
fn websockets_of(given: Option<Ref<'_>>) -> PyRes<Option<WebSockets>> {
    let Some(given) = given else {
        return Ok(Some(WebSockets::default()));
    };
    let Some(given) = given.not_none() else {
        return Ok(None);
    };
    let item = |i: usize| {
        value::item(given, i).ok_or_else(|| {
            Builtin::Value.raise(
                "websockets is (max_size, max_queue, ping_interval, ping_timeout, close_timeout, deflate)",
            )
        })
    };
    let duration = |i: usize| seconds(Some(item(i)?.borrow()), Duration::ZERO);
    let or_never = |limit: Duration| (limit != Duration::ZERO).then_some(limit);
    Ok(Some(WebSockets {
        max_size: count(Some(item(0)?.borrow()), 0)?,
        max_queue: count(Some(item(1)?.borrow()), 0)?,
        ping_interval: or_never(duration(2)?),
        ping_timeout: or_never(duration(3)?),
        close_timeout: duration(4)?,
        deflate: item(5)?.borrow().truthy()?,
    }))
}

/// What is compressed: the codings' names, and from how many bytes on.
fn compressed(names: Option<Ref<'_>>, least: Option<Ref<'_>>) -> PyRes<Compression> {
    let mut codings = Vec::new();
    if let Some(names) = names.and_then(Ref::not_none) {
        value::for_each(names, |name| {
            let name = value::str_text(name.borrow())?;
            let coding = Coding::by_name(&name).ok_or_else(|| {
                Builtin::Value.raise(&format!("there is no content coding {name:?} here"))
            })?;
            codings.push(coding);
            Ok(())
        })?;
    }
    let least = count(least, 0)?;
    Ok(Compression { codings, least })
}

/// The proxies that are believed, and which headers they write.
fn trusted(
    style: Option<Ref<'_>>,
    addresses: Option<Ref<'_>>,
    protocol: Option<Ref<'_>>,
) -> PyRes<Proxies> {
    let style = match style.and_then(Ref::not_none) {
        None => Style::Off,
        Some(style) => match value::str_text(style)?.as_str() {
            "off" => Style::Off,
            "x-forwarded" => Style::XForwarded,
            "forwarded" => Style::Forwarded,
            other => {
                let message = format!("proxies write no headers of the kind {other:?}");
                return Err(Builtin::Value.raise(&message));
            }
        },
    };
    let mut words = Vec::new();
    if let Some(addresses) = addresses.and_then(Ref::not_none) {
        value::for_each(addresses, |word| {
            words.push(value::str_text(word.borrow())?);
            Ok(())
        })?;
    }
    let trust = Trust::parse(words.iter().map(String::as_str));
    let trust = trust.map_err(|refused| Builtin::Value.raise(&refused.to_string()))?;
    let protocol = protocol.map_or(Ok(false), Ref::truthy)?;
    Ok(Proxies {
        style,
        trust,
        protocol,
    })
}

fn paths(health: Option<Ref<'_>>, metrics: Option<Ref<'_>>) -> PyRes<Paths> {
    let health = health.map(value::str_text).transpose()?;
    let metrics = match metrics {
        None => None,
        Some(pair) => match (value::item(pair, 0), value::item(pair, 1)) {
            (Some(path), Some(scrape)) => Some((value::str_text(path.borrow())?, scrape)),
            _ => return Err(Builtin::Value.raise("metrics is (path, scrape)")),
        },
    };
    Ok(Paths::new(health, metrics))
}

/// `(server, date)`: the `Server` header's text, or None for none; and whether `Date` is sent.
fn own_headers(given: Option<Ref<'_>>) -> PyRes<Config> {
    let mut config = Config::default();
    let given = given.and_then(Ref::not_none);
    if let Some((server, date)) =
        given.and_then(|pair| Some((value::item(pair, 0)?, value::item(pair, 1)?)))
    {
        config.server_header = match server.borrow().not_none() {
            None => None,
            Some(text) => {
                let text = value::str_text(text)?;
                let value = HeaderValue::try_from(&text).map_err(|_| {
                    Builtin::Value.raise(&format!("not a header's value: {text:?}"))
                })?;
                Some(value)
            }
        };
        config.date_header = date.borrow().truthy()?;
    }
    Ok(config)
}

/// Request ids in headers of this name.
fn ids(name: &str) -> PyRes<Ids> {
    let name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Builtin::Value.raise(&format!("not a header's name: {name:?}")))?;
    Ids::new(name).map_err(|e| err::raise_io(&e))
}

/// `serve_http(loop, app, fds, *, root_path, state, access_log, header_timeout, keep_alive_timeout,
/// header_bytes, header_count, handler, pool, routes, spool, queue, environ, scoped, inline, shared, access_fields, request_id, health, metrics,
/// tally, proxy_headers, proxies, compression, compression_least, tls, http, redirect, websockets, limits, late,
/// mounts, max_age, headers, early_hints)`: serves `app` over listening
/// sockets, of which it takes duplicates; `shared` with other processes, or not (`seat`). The access log gets the
/// `access_fields` (`access::Field`) as well; `request_id` names the header that requests' ids are in. The server
/// answers the path `health` itself, and that of `metrics` (`(path, scrape)`) with what `scrape()` returns;
/// `proxy_headers` of the peers `proxies` are believed (`trusted`);
/// Responses from `compression_least` bytes on are compressed in the codings `compression`;
/// `tally` (`(fd, size, base)`) is where requests are counted, from the number `base` on; files of `mounts` are sent
/// without asking the application (`statics`), and told to be good for `max_age` seconds. With a `handler` (and `pool`, `routes`, `spool`, `queue`) threads answer requests
/// whose paths `routes` knows: see `blocking`; with an `environ` it is a WSGI application's, called with a copy of that
/// and what is the request's own, and with a scope if it is `scoped`; `inline`: on the loop's own thread. `limits` is a dict: see `http_limits` and `bounds`; `late` is
/// told of requests that are late. `headers` says which the server adds by itself (`own_headers`); with
/// `early_hints` applications may send clients of HTTP/1.1 103.
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
