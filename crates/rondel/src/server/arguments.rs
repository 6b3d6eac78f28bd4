//! What `serve_http` is given, read: Python objects to the values that the server's parts take.
//!
//! An argument that is left out, or None, has its part's own default. What does not fit raises TypeError,
//! ValueError or OSError, before anything is begun. Once per server, with the GIL held.

use super::door::Paths;
use super::ids::Ids;
use rondel_core::driver::Handle;
use rondel_ffi::counters::Counters;
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::{PyRes, Ref, value};
use rondel_http::compress::{Coding, Compression};
use rondel_http::http::{HeaderName, HeaderValue};
use rondel_http::proxy::{Proxies, Style, Trust};
use rondel_http::ws::WebSockets;
use rondel_http::{Config, Ledger, Limits, Mount, Seat, Service, Statics};
use std::ffi::CStr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

pub(super) fn seconds(value: Option<Ref<'_>>, default: Duration) -> PyRes<Duration> {
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

pub(super) fn count(value: Option<Ref<'_>>, default: usize) -> PyRes<usize> {
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

pub(super) fn limit(limits: Option<Ref<'_>>, name: &CStr, default: usize) -> PyRes<usize> {
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

pub(super) fn nanoseconds(limits: Option<Ref<'_>>, name: &CStr) -> PyRes<Option<u64>> {
    let found = duration(limits, name)?;
    Ok(found.map(|limit| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX / 2)))
}

/// What the connections' side is told of limits; without a `limits` its own defaults hold.
pub(super) fn http_limits(limits: Option<Ref<'_>>) -> PyRes<Limits> {
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
pub(super) fn numbers(shared: Option<Ref<'_>>) -> PyRes<Option<(Counters, usize)>> {
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

pub(super) fn seat(shared: Option<Ref<'_>>) -> PyRes<Option<Seat>> {
    Ok(numbers(shared)?.map(|(counters, number)| Seat {
        ledger: Arc::new(Shares(counters)),
        number,
    }))
}

/// Files before a service: `mounts` is an iterable of `(route, folder)`.
pub(super) fn statics(
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
pub(super) fn websockets_of(given: Option<Ref<'_>>) -> PyRes<Option<WebSockets>> {
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
pub(super) fn compressed(names: Option<Ref<'_>>, least: Option<Ref<'_>>) -> PyRes<Compression> {
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
pub(super) fn trusted(
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

pub(super) fn paths(health: Option<Ref<'_>>, metrics: Option<Ref<'_>>) -> PyRes<Paths> {
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
pub(super) fn own_headers(given: Option<Ref<'_>>) -> PyRes<Config> {
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
pub(super) fn ids(name: &str) -> PyRes<Ids> {
    let name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Builtin::Value.raise(&format!("not a header's name: {name:?}")))?;
    Ids::new(name).map_err(|e| err::raise_io(&e))
}
