//! TLS and HTTP/2 as Python sets them up, and what applications are told of TLS.
//!
//! `tls_context(...)` reads the files once per process and gives a [`TlsContext`], which `serve_http`
//! takes; its `reload()` reads them again. The scope's `tls` extension is made once per connection, by
//! Python (`rondel.server.tls`).

use rondel_ffi::class::{TypeBuilder, Visit, alloc};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::method::{self, Args, MethodDef};
use rondel_ffi::{Class, ClassCell, Inst, Obj, PyRes, Ref, call, listener, value};
use rondel_http::tls::{ClientAuth, Identity, Options, TicketSecret};
use rondel_http::{Config, Server, Tls, TlsInfo, Versions};
use std::sync::OnceLock;
use std::time::Duration;

/// `_rondel.TlsContext`
#[derive(Default)]
pub(super) struct TlsContext {
    tls: OnceLock<Tls>,
}

static CELL: ClassCell = ClassCell::new();

impl Class for TlsContext {
    fn cell() -> &'static ClassCell {
        &CELL
    }
    fn traverse(&self, _visit: &mut Visit) {}
    fn clear(&self) {}
}

fn versions(text: Ref<'_>) -> PyRes<Versions> {
    match value::str_text(text)?.as_str() {
        "auto" => Ok(Versions::Auto),
        "1" => Ok(Versions::One),
        "2" => Ok(Versions::Two),
        other => Err(Builtin::Value.raise(&format!("http is auto, 1 or 2, not {other:?}"))),
    }
}

fn path(value: Option<Ref<'_>>) -> PyRes<Option<std::path::PathBuf>> {
    let given = value.and_then(Ref::not_none);
    given
        .map(|text| Ok(value::str_text(text)?.into()))
        .transpose()
}

/// `tls_context(identities, *, password, client_auth, authorities, revoked, only_13, http,
/// tickets)`; see the stub.
fn tls_context(args: Args<'_>) -> PyRes<Obj> {
    let names = [
        value::intern(c"identities")?,
        value::intern(c"password")?,
        value::intern(c"client_auth")?,
        value::intern(c"authorities")?,
        value::intern(c"revoked")?,
        value::intern(c"only_13")?,
        value::intern(c"http")?,
        value::intern(c"tickets")?,
    ];
    let params = names.each_ref().map(Obj::borrow);
    let [
        identities,
        password,
        client_auth,
        authorities,
        revoked,
        only_13,
        http,
        tickets,
    ] = args.bind("tls_context", params, 1, 1)?;
    let Some(identities) = identities else {
        return Err(Builtin::Type.raise("tls_context() needs certificates"));
    };
    let mut given = Vec::new();
    value::for_each(identities, |pair| {
        let certificate = path(Some(value::first(pair.borrow())?.borrow()))?;
        let key = value::item(pair.borrow(), 1);
        given.extend(certificate.map(|certificate| (certificate, key)));
        Ok(())
    })?;
    let mut all = Vec::new();
    for (certificate, key) in given {
        let key = path(key.as_ref().map(Obj::borrow))?;
        all.push(Identity { certificate, key });
    }
    let client_auth = match client_auth.and_then(Ref::not_none) {
        None => ClientAuth::None,
        Some(text) => match value::str_text(text)?.as_str() {
            "none" => ClientAuth::None,
            "optional" => ClientAuth::Optional,
            "required" => ClientAuth::Required,
            other => {
                let text = format!("client_auth is none, optional or required, not {other:?}");
                return Err(Builtin::Value.raise(&text));
            }
        },
    };
    let options = Options {
        identities: all,
        password: (password.and_then(Ref::not_none).map(value::str_text)).transpose()?,
        client_auth,
        authorities: path(authorities)?,
        revoked: path(revoked)?,
        only_13: only_13.map_or(Ok(false), Ref::truthy)?,
        tickets: secret(tickets)?,
        versions: http.map_or(Ok(Versions::Auto), versions)?,
    };
    let tls = Tls::load(options).map_err(|error| Builtin::Value.raise(&error.to_string()))?;
    let context = TlsContext {
        tls: OnceLock::from(tls),
    };
    Ok(alloc(context, true)?.into_obj())
}

/// `(period, secret)`: `rondel.server.tls.Tickets`.
fn secret(told: Option<Ref<'_>>) -> PyRes<Option<TicketSecret>> {
    let Some(told) = told.and_then(Ref::not_none) else {
        return Ok(None);
    };
    let wrong = || Builtin::Value.raise("tickets is (period, 32 bytes)");
    let (period, secret) = (value::item(told, 0), value::item(told, 1));
    let (period, secret) = period.zip(secret).ok_or_else(wrong)?;
    let bytes = value::bytes_of(secret.borrow()).and_then(|secret| secret.try_into().ok());
    Ok(Some(TicketSecret {
        period: u64::try_from(value::as_i64(period.borrow())?).map_err(|_| wrong())?,
        secret: bytes.ok_or_else(wrong)?,
    }))
}

/// `reload()`
fn reload(slf: Inst<'_, TlsContext>) -> PyRes<Obj> {
    if let Some(tls) = slf.tls.get() {
        tls.reload()
            .map_err(|error| Builtin::Value.raise(&error.to_string()))?;
    }
    Ok(Obj::none())
}

/// The configuration with TLS, and with `http`: `(versions, streams, ping, handshake)`.
pub(super) fn configure(
    mut config: Config,
    tls: Option<Ref<'_>>,
    http: Option<Ref<'_>>,
) -> PyRes<Config> {
    if let Some(tls) = tls.and_then(Ref::not_none) {
        let Some(context) = tls.cast::<TlsContext>() else {
            return Err(Builtin::Type.raise("tls is what tls_context() gives"));
        };
        config.tls = context.tls.get().cloned();
    }
    if let Some(http) = http.and_then(Ref::not_none) {
        let items: Vec<Obj> = (0..4).map_while(|at| value::item(http, at)).collect();
        let [given, streams, ping, handshake] = &items[..] else {
            let text = "http is (versions, streams, ping, handshake)";
            return Err(Builtin::Value.raise(text));
        };
        config.versions = versions(given.borrow())?;
        let streams = value::as_i64(streams.borrow())?;
        config.http2.streams = u32::try_from(streams).unwrap_or(u32::MAX);
        let ping = seconds(ping.borrow())?;
        config.http2.ping_interval = Some(ping).filter(|ping| !ping.is_zero());
        config.limits.handshake_deadline = seconds(handshake.borrow())?;
    }
    Ok(config)
}

fn seconds(value: Ref<'_>) -> PyRes<Duration> {
    Duration::try_from_secs_f64(value::as_f64(value)?)
        .map_err(|_| Builtin::Value.raise("a duration in seconds was expected"))
}

/// `redirect`: `(fds, port)`, sockets whose requests are sent to `https` at that port.
pub(super) struct Redirect(Vec<listener::Listener>, u16);

impl Redirect {
    pub(super) fn of(told: Option<Ref<'_>>) -> PyRes<Redirect> {
        let mut all = Vec::new();
        let Some(told) = told.and_then(Ref::not_none) else {
            return Ok(Redirect(all, 0));
        };
        let (Some(fds), Some(port)) = (value::item(told, 0), value::item(told, 1)) else {
            return Err(Builtin::Value.raise("redirect is (fds, port)"));
        };
        value::for_each(fds.borrow(), |fd| {
            let fd = i32::try_from(value::as_i64(fd.borrow())?).unwrap_or(-1);
            all.push(listener::duplicate(fd).map_err(|e| err::raise_io(&e))?);
            Ok(())
        })?;
        let port = u16::try_from(value::as_i64(port.borrow())?);
        Ok(Redirect(all, port.unwrap_or_default()))
    }

    pub(super) fn listen(self, server: &Server) -> PyRes<()> {
        for one in self.0 {
            if let listener::Listener::Tcp(one) = one {
                server
                    .listen_redirect(one, self.1)
                    .map_err(|e| err::raise_io(&e))?;
            }
        }
        Ok(())
    }
}

/// The scope's `tls` extension: `rondel.server.tls.extension(version, suite, certificate, chain, name)`.
pub(super) fn extension(info: &TlsInfo) -> PyRes<Obj> {
    let module = call::import(c"rondel.server.tls")?;
    let make = call::getattr(module.borrow(), value::intern(c"extension")?.borrow())?;
    let chain = value::list_with(0)?;
    for one in &info.client_chain {
        value::list_append(chain.borrow(), value::bytes(one)?.borrow())?;
    }
    let optional = |made: Option<PyRes<Obj>>| made.unwrap_or_else(|| Ok(Obj::none()));
    let args = [
        value::int(i64::from(info.version))?,
        value::int(i64::from(info.cipher_suite))?,
        optional(info.certificate.as_ref().map(|der| value::bytes(der)))?,
        chain,
        optional(info.client_name().map(|name| value::str(&name)))?,
    ];
    call::call(make.borrow(), &args.each_ref().map(Obj::borrow))
}

pub(super) fn build() -> PyRes<Obj> {
    TypeBuilder::<TlsContext>::new(c"rondel._rondel.TlsContext")
        .doc(c"A server's certificates and what else TLS is set up by.")
        .method(method::noargs::<TlsContext, _>(
            c"reload",
            c"Read the files again, for connections to come; ValueError changes nothing.",
            reload,
        ))
        .build()
}

pub(super) fn definitions() -> Vec<MethodDef> {
    vec![method::function(
        c"tls_context",
        c"A TlsContext by files of certificates and keys; ValueError says what is wrong with them.",
        tls_context,
    )]
}
