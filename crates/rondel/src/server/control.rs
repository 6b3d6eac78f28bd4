//! `serve_http` and the server object that Python stops.

use super::door::Door;
use super::scope::Scopes;
use crate::event_loop::LoopBase;
use crate::future;
use rondel_core::clock;
use rondel_core::driver::Handle;
use rondel_ffi::class::{OwnCell, TypeBuilder, Visit, alloc};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::local::LoopLocal;
use rondel_ffi::method::{self, Args, MethodDef};
use rondel_ffi::{Class, ClassCell, Inst, Obj, Own, PyRes, Ref, listener, value};
use rondel_http::{Config, Limits, Server};
use std::cell::OnceCell;
use std::rc::Rc;
use std::time::Duration;

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

/// `serve_http(loop, app, fds, *, root_path, state, access_log, header_timeout, keep_alive_timeout,
/// header_bytes, header_count)`: serves `app` over listening sockets, of which it takes duplicates.
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
    let defaults = Limits::default();
    let config = Config {
        limits: Limits {
            header_deadline: seconds(header_timeout, defaults.header_deadline)?,
            idle_deadline: seconds(idle, defaults.idle_deadline)?,
            header_bytes: count(bytes, defaults.header_bytes)?,
            header_count: count(lines, defaults.header_count)?,
            ..defaults
        },
        ..Config::default()
    };
    let root_path = match root_path.and_then(Ref::not_none) {
        Some(text) => value::str_text(text)?,
        None => String::new(),
    };
    let scopes = Scopes::new(root_path, state.and_then(Ref::not_none).map(Ref::own))?;
    let door = Door::new(
        app.own(),
        scopes,
        access_log.and_then(Ref::not_none).map(Ref::own),
    )?;
    let driver = home.with_driver(|driver| Ok(driver.handle()))?;
    let server = Server::new(
        driver.clone(),
        Rc::clone(&door) as Rc<dyn rondel_http::Service>,
        config,
    );
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

/// `shutdown(deadline)`: see `rondel.server.native.NativeServer`.
fn shutdown(slf: Inst<'_, Control>, deadline: Ref<'_>) -> PyRes<Obj> {
    let parts = slf.parts()?;
    let Some(home) = slf.home.get() else {
        return Err(Builtin::Runtime.raise("the server is gone"));
    };
    let limit = seconds(Some(deadline), Duration::ZERO)?;
    let at = clock::now().saturating_add(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
    let fut = future::create(home.inst())?;
    parts.door.shut_down(&parts.driver, fut.obj().own(), at)?;
    Ok(fut.into_obj())
}

/// `stats()`: `{"connections": …, "requests": …, "served": …}`.
fn stats(slf: Inst<'_, Control>) -> PyRes<Obj> {
    let door = &slf.parts()?.door;
    let counts = value::dict()?;
    let set = |key: &std::ffi::CStr, number: u64| -> PyRes<()> {
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
    set(c"served", door.with_server(Server::served).unwrap_or(0))?;
    Ok(counts)
}

pub(super) fn build() -> PyRes<Obj> {
    TypeBuilder::<Control>::new(c"rondel._rondel.HttpServer")
        .method(method::onearg::<Control, _>(
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

pub(crate) fn definitions() -> Vec<MethodDef> {
    vec![method::function(
        c"serve_http",
        c"Serve an ASGI application over listening sockets on a running Rondel loop.",
        serve_http,
    )]
}
