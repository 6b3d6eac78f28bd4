//! What the logs are told of a request: the access log's call, and errors with their request.
//!
//! The access log is `log(client, method, target, version, status, seconds, *fields)`. The fields
//! are those that the log's format asked for when the server was made, so that the plain line costs
//! no look at a header. All with the GIL.

use super::head::Lines;
use rondel_core::clock;
use rondel_ffi::err::Builtin;
use rondel_ffi::gil::Parked;
use rondel_ffi::{Obj, PyRes, Ref, call, value};
use std::sync::Arc;

/// A value beyond the six that every line has.
pub(super) enum Field {
    /// Bytes of the response's body.
    Sent,
    /// The request's id, or None.
    Id,
    /// A header of the request, or None; the name in lower case.
    Header(String),
}

/// The access log.
pub(super) struct Log {
    call: Obj,
    fields: Arc<[Field]>,
}

/// The same, for threads.
pub(super) struct ParkedLog {
    call: Parked,
    fields: Arc<[Field]>,
}

impl Log {
    /// `fields` is an iterable of `"sent"`, `"id"` and `"header:NAME"`, or none.
    pub(super) fn new(call: Obj, fields: Option<Ref<'_>>) -> PyRes<Log> {
        let mut asked = Vec::new();
        if let Some(fields) = fields {
            value::for_each(fields, |field| {
                let text = value::str_text(field.borrow())?;
                asked.push(match (text.as_str(), text.strip_prefix("header:")) {
                    ("sent", _) => Field::Sent,
                    ("id", _) => Field::Id,
                    (_, Some(name)) => Field::Header(name.to_ascii_lowercase()),
                    _ => {
                        let message = format!("the access log has no field {text:?}");
                        return Err(Builtin::Value.raise(&message));
                    }
                });
                Ok(())
            })?;
        }
        Ok(Log {
            call,
            fields: asked.into(),
        })
    }

    pub(super) fn parked(&self) -> ParkedLog {
        ParkedLog {
            call: Parked::new(self.call.clone()),
            fields: Arc::clone(&self.fields),
        }
    }

    /// The values of the headers that are asked for, in their order.
    pub(super) fn note(&self, lines: &Lines) -> Vec<Option<Vec<u8>>> {
        let headers = self.fields.iter().filter_map(|field| match field {
            Field::Header(name) => Some(lines.get(name).map(<[u8]>::to_vec)),
            _ => None,
        });
        headers.collect()
    }

    pub(super) fn write(&self, access: &Access<'_>) {
        write(self.call.borrow(), &self.fields, access);
    }
}

impl ParkedLog {
    pub(super) fn write(&self, access: &Access<'_>) {
        if let Some(call) = self.call.get() {
            write(call.borrow(), &self.fields, access);
        }
    }
}

/// The request's headers: those that were noted, or all.
pub(super) enum Headers<'a> {
    Noted(&'a [Option<Vec<u8>>]),
    Lines(&'a Lines),
}

/// One request as the access log has it.
pub(super) struct Access<'a> {
    pub(super) client: &'a str,
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) version: &'a str,
    pub(super) status: u16,
    /// On the loop's clock.
    pub(super) started: u64,
    pub(super) sent: u64,
    pub(super) id: Option<&'a str>,
    pub(super) headers: Headers<'a>,
}

/// Calls the access log. What it raises is reported, never raised.
fn write(log: Ref<'_>, fields: &[Field], access: &Access<'_>) {
    let called = || -> PyRes<()> {
        let seconds = clock::now().saturating_sub(access.started) as f64 * 1e-9;
        let mut args = Vec::with_capacity(6 + fields.len());
        args.push(value::str(access.client)?);
        args.push(value::str(access.method)?);
        args.push(value::str(access.target)?);
        args.push(value::str(access.version)?);
        args.push(value::int(i64::from(access.status))?);
        args.push(value::float(seconds)?);
        let mut noted = 0;
        for field in fields {
            args.push(match field {
                Field::Sent => value::int(i64::try_from(access.sent).unwrap_or(i64::MAX))?,
                Field::Id => access.id.map_or(Ok(Obj::none()), value::str)?,
                Field::Header(name) => {
                    let text = match access.headers {
                        Headers::Noted(values) => values.get(noted).and_then(Option::as_deref),
                        Headers::Lines(lines) => lines.get(name),
                    };
                    noted += 1;
                    text.map_or(Ok(Obj::none()), value::str_latin1)?
                }
            });
        }
        let args: Vec<Ref<'_>> = args.iter().map(Obj::borrow).collect();
        call::call(log, &args).map(|_none| ())
    };
    if let Err(raised) = called() {
        raised.unraisable(Some(log));
    }
}

pub(super) fn logger() -> PyRes<Obj> {
    let logging = call::import(c"logging")?;
    let get = call::getattr(logging.borrow(), value::intern(c"getLogger")?.borrow())?;
    call::call1(get.borrow(), value::str("rondel.server")?.borrow())
}

/// Which request an error belongs to.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) client: Option<&'a str>,
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) id: Option<&'a str>,
}

/// `logger.error(message, exc_info=exc, extra={…})`: the record gets `method`, `target`, and
/// `client` and `request_id` if there are any. A log that fails is itself reported, never raised.
#[cold]
pub(super) fn log_exception(
    logger: Ref<'_>,
    message: &str,
    exc: Option<&Obj>,
    about: Option<About<'_>>,
) {
    let log = || -> PyRes<()> {
        let error = call::getattr(logger, value::intern(c"error")?.borrow())?;
        let text = value::str(message)?;
        let extra = match about {
            Some(about) => extra(about)?,
            None => Obj::none(),
        };
        let exc = exc.map_or_else(Obj::none, Obj::clone);
        let names = value::tuple([value::intern(c"exc_info")?, value::intern(c"extra")?])?;
        call::call_kw(
            error.borrow(),
            &[text.borrow(), exc.borrow(), extra.borrow()],
            names.borrow(),
        )?;
        Ok(())
    };
    if let Err(raised) = log() {
        raised.unraisable(None);
    }
}

fn extra(about: About<'_>) -> PyRes<Obj> {
    let extra = value::dict()?;
    let texts = [
        (c"method", Some(about.method)),
        (c"target", Some(about.target)),
        (c"client", about.client),
        (c"request_id", about.id),
    ];
    for (key, text) in texts {
        if let Some(text) = text {
            let (key, text) = (value::intern(key)?, value::str(text)?);
            value::dict_set(extra.borrow(), key.borrow(), text.borrow())?;
        }
    }
    Ok(extra)
}
