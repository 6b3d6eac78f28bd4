//! Static files, answered on the loop: no interpreter, no lock of its, and no other thread for what the
//! system has in memory.
//!
//! ```text
//!   Server ──► Statics ── route? ──► place ──► folder ──► conditions ──► Exchange
//!                 │ no route, no such file        │ would wait for a disk
//!                 ▼                               ▼
//!            the service behind it             clerks (threads), then on
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`place`] | which file a path means: names only, however they are encoded |
//! | [`folder`] | finding it without leaving the folder, and without waiting |
//! | [`clerks`] | the threads that wait |
//! | [`conditions`] | `If-*`, `Range` |
//! | [`coding`] | precompressed files beside the plain ones |
//! | [`kinds`] | `Content-Type` |
//!
//! What is not there is not ours: the service behind gets the request, as if there were no static files.
//! So it is for hidden names and for whatever leads out of the folder. What is there is answered here,
//! whatever the method (405 for all but GET and HEAD).
//!
//! [`Statics`] is a [`Service`] around another: without routes there is none, and nobody pays for it.
//! Loop's thread only, but for `clerks`.

mod clerks;
mod coding;
mod conditions;
mod folder;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod kinds;
mod place;

use crate::exchange::Exchange;
use crate::file::FilePart;
use crate::outcome::SendError;
use crate::service::{ConnInfo, Event, Problem, Request, Service};
use bytes::Bytes;
use clerks::Clerks;
use coding::Wishes;
use conditions::{Span, Validators, Verdict, judge, span};
use folder::{Blocks, Entry, Folder, Found, Patience};
use hyper::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED, LOCATION, VARY,
};
use hyper::{Method, StatusCode, Uri};
use kinds::Kinds;
use place::{Below, behind, below, last_segment};
use rondel_core::clock;
use rondel_core::driver::Handle;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Our exchanges have this tag, which no service gives: nobody else is told of them.
const TAG: u64 = u64::MAX;

/// Files below a route.
#[derive(Clone, Debug)]
pub struct Mount {
    /// A path as clients write it, a slash at its end or not; `/` is all.
    pub route: String,
    pub folder: PathBuf,
}

struct Mounted {
    /// Without the slash at its end.
    route: Box<str>,
    folder: Arc<Folder>,
}

/// See the module. Clones are the same.
#[derive(Clone)]
pub struct Statics(Rc<Shared>);

struct Shared {
    behind: Rc<dyn Service>,
    handle: Handle,
    /// Those with the longest routes first.
    mounts: Vec<Mounted>,
    cache_control: Option<HeaderValue>,
    kinds: Kinds,
    clerks: Clerks,
}

/// A request for what may be a file of ours.
struct Visit {
    request: Request,
    exchange: Exchange,
    folder: Arc<Folder>,
    below: Below,
    began: u64,
}

impl Statics {
    /// Files before `behind`; `max_age` is said in `Cache-Control`, if any is.
    ///
    /// # Errors
    /// Those of opening the folders, with their path.
    pub fn new(
        handle: Handle,
        behind: Rc<dyn Service>,
        mounts: &[Mount],
        max_age: Option<Duration>,
    ) -> io::Result<Statics> {
        let open = |mount: &Mount| {
            let folder = Folder::open(&mount.folder).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", mount.folder.display()))
            })?;
            Ok(Mounted {
                route: mount.route.trim_end_matches('/').into(),
                folder: Arc::new(folder),
            })
        };
        let mut mounts = mounts.iter().map(open).collect::<io::Result<Vec<_>>>()?;
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.route.len()));
        let cache_control = max_age.map(|age| {
            let text = format!("public, max-age={}", age.as_secs());
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("no-cache"))
        });
        Ok(Statics(Rc::new(Shared {
            behind,
            handle,
            mounts,
            cache_control,
            kinds: Kinds::default(),
            clerks: Clerks::new(),
        })))
    }
}

impl Statics {
    /// For tests: as if the system had nothing in memory, so that every file takes a thread. Before
    /// anything else; a clone made earlier makes it do nothing.
    #[doc(hidden)]
    #[must_use]
    pub fn all_by_threads(mut self) -> Statics {
        if let Some(shared) = Rc::get_mut(&mut self.0) {
            let folders = shared.mounts.iter_mut();
            folders
                .filter_map(|mount| Arc::get_mut(&mut mount.folder))
                .for_each(Folder::forget_cache);
        }
        self
    }
}

impl Service for Statics {
    fn call(&self, request: Request, exchange: Exchange) {
        let shared = &self.0;
        let path = request.head.uri.path();
        let mount = shared
            .mounts
            .iter()
            .find_map(|mount| Some((mount, behind(path, &mount.route)?)));
        let Some((mount, below)) = mount.and_then(|(mount, rest)| Some((mount, below(rest)?)))
        else {
            return shared.behind.call(request, exchange);
        };
        exchange.set_tag(TAG);
        let visit = Visit {
            folder: Arc::clone(&mount.folder),
            request,
            exchange,
            below,
            began: clock::now(),
        };
        let wishes = Wishes::of(&visit.request.head.headers);
        let found = visit.folder.find(&visit.below, wishes, Patience::None);
        let blocked = match found {
            Ok(found) => shared.answer(visit, found, Patience::None),
            Err(Blocks) => Some(visit),
        };
        if let Some(visit) = blocked {
            let below = Below {
                path: visit.below.path.clone(),
                slash: visit.below.slash,
            };
            let answer = shared.clerks.ask(&visit.folder, below, wishes);
            let later = Rc::clone(shared);
            shared.handle.spawn(async move {
                let found = answer.await;
                // With all patience in the world nothing is left to wait for.
                let _answered = later.answer(visit, found, Patience::Full);
            });
        }
    }

    fn notify(&self, tag: u64, event: Event) {
        if tag != TAG {
            self.0.behind.notify(tag, event);
        }
    }

    fn answering(&self, request: Request, exchange: &Exchange, status: u16, began: u64) {
        self.0.behind.answering(request, exchange, status, began);
    }

    fn refused(&self, conn: &Rc<ConnInfo>, status: StatusCode) {
        self.0.behind.refused(conn, status);
    }

    fn report(&self, problem: Problem<'_>) {
        self.0.behind.report(problem);
    }

    fn is_crowded(&self) -> bool {
        self.0.behind.is_crowded()
    }
}

/// A response to come.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
}

enum Body {
    None,
    Bytes(Bytes),
    File(FilePart),
}

impl Shared {
    /// Answers the request, or gives it back if that takes patience.
    fn answer(&self, visit: Visit, found: Found, patience: Patience) -> Option<Visit> {
        if visit.exchange.is_gone() {
            return None;
        }
        let method = &visit.request.head.method;
        let reply = match found {
            Found::Nothing => {
                visit.exchange.set_tag(0);
                self.behind.call(visit.request, visit.exchange);
                return None;
            }
            _ if method != Method::GET && method != Method::HEAD => {
                let mut headers = HeaderMap::with_capacity(4);
                headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                say(StatusCode::METHOD_NOT_ALLOWED, headers)
            }
            Found::Directory => redirect(&visit.request.head.uri),
            Found::File(entry) => match self.file(&visit, entry, patience) {
                Ok(reply) => reply,
                Err(Blocks) => return Some(visit),
            },
        };
        let Visit {
            request,
            exchange,
            began,
            ..
        } = visit;
        let Reply {
            status,
            headers,
            body,
        } = reply;
        // A file that is to be compressed lies so beside the plain one.
        exchange.keep_coding();
        self.behind
            .answering(request, &exchange, status.as_u16(), began);
        let sent = exchange
            .start(status.as_u16(), headers)
            .and_then(|()| match body {
                Body::None => exchange.finish(),
                Body::Bytes(bytes) => exchange.send_chunk(bytes, false).map(|_flow| ()),
                Body::File(part) => exchange.send_file(part, false).map(|_flow| ()),
            });
        debug_assert!(matches!(sent, Ok(()) | Err(SendError::Gone)), "{sent:?}");
        None
    }

    /// A file's response.
    fn file(&self, visit: &Visit, entry: Entry, patience: Patience) -> Result<Reply, Blocks> {
        let asked = &visit.request.head.headers;
        let is_get = visit.request.head.method == Method::GET;
        let etag = etag(&entry);
        let modified = last_modified(&entry);
        let validators = Validators {
            etag: &etag,
            modified,
        };
        let verdict = judge(asked, &validators);
        let span = match verdict {
            Verdict::Send if is_get => span(asked, &validators, entry.len),
            _ => Span::Whole,
        };
        let mut headers = HeaderMap::with_capacity(12);
        put(&mut headers, ETAG, etag);
        put(
            &mut headers,
            LAST_MODIFIED,
            httpdate::fmt_http_date(modified),
        );
        if let Some(value) = &self.cache_control {
            headers.insert(CACHE_CONTROL, value.clone());
        }
        if entry.varies {
            headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        }
        let (status, part) = match (verdict, span) {
            (Verdict::NotModified, _) => {
                let (status, body) = (StatusCode::NOT_MODIFIED, Body::None);
                return Ok(Reply {
                    status,
                    headers,
                    body,
                });
            }
            (Verdict::Failed, _) => return Ok(say(StatusCode::PRECONDITION_FAILED, headers)),
            (Verdict::Send, Span::Unsatisfiable) => {
                put(
                    &mut headers,
                    CONTENT_RANGE,
                    format!("bytes */{}", entry.len),
                );
                return Ok(say(StatusCode::RANGE_NOT_SATISFIABLE, headers));
            }
            (Verdict::Send, Span::Part(part)) => {
                let text = format!("bytes {}-{}/{}", part.start, part.end - 1, entry.len);
                put(&mut headers, CONTENT_RANGE, text);
                (StatusCode::PARTIAL_CONTENT, part)
            }
            (Verdict::Send, Span::Whole) => (StatusCode::OK, 0..entry.len),
        };
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(CONTENT_TYPE, self.kinds.of(extension(&visit.below)));
        if let Some(coding) = entry.coding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        }
        headers.insert(CONTENT_LENGTH, HeaderValue::from(part.end - part.start));
        let body = match is_get {
            false => Body::None,
            true => match entry.read(&part, patience)? {
                Some(bytes) => Body::Bytes(bytes),
                None => Body::File(FilePart::of(entry.file, part)),
            },
        };
        Ok(Reply {
            status,
            headers,
            body,
        })
    }
}

/// To the same path with a slash: relative, as a proxy may have taken something off its front.
fn redirect(uri: &Uri) -> Reply {
    let mut target = format!("./{}/", last_segment(uri.path()));
    if let Some(query) = uri.query() {
        target.push('?');
        target.push_str(query);
    }
    let mut headers = HeaderMap::with_capacity(4);
    put(&mut headers, LOCATION, target);
    say(StatusCode::MOVED_PERMANENTLY, headers)
}

/// A response that is no file: its body says what its status does.
fn say(status: StatusCode, mut headers: HeaderMap) -> Reply {
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(CONTENT_TYPE, text);
    let words = status.canonical_reason().unwrap_or_default();
    let body = Body::Bytes(Bytes::from_static(words.as_bytes()));
    Reply {
        status,
        headers,
        body,
    }
}

/// What was made of numbers, or was a request's target, is a value.
fn put(headers: &mut HeaderMap, name: HeaderName, text: String) {
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}

/// Of the file's time to the nanosecond, its length, and its coding: a file that is written anew gets
/// another.
fn etag(entry: &Entry) -> String {
    let (seconds, nanoseconds) = entry.modified;
    let mut tag = format!("\"{seconds:x}.{nanoseconds:x}-{:x}", entry.len);
    if let Some(coding) = entry.coding {
        tag.push('-');
        tag.push_str(coding.name());
    }
    tag.push('"');
    tag
}

/// In whole seconds; never later than now (RFC 9110, section 8.8.2.1), nor before HTTP has a date.
fn last_modified(entry: &Entry) -> SystemTime {
    let seconds = u64::try_from(entry.modified.0).unwrap_or(0);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |it| it.as_secs());
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(now))
}

/// Of the plain file's name.
fn extension(below: &Below) -> &str {
    if below.slash {
        return "html";
    }
    let name = below
        .path
        .rsplit(|&byte| byte == b'/')
        .next()
        .unwrap_or_default();
    let mut parts = name.rsplitn(2, |&byte| byte == b'.');
    let last = parts.next().unwrap_or_default();
    // Without a dot there is but one part.
    parts
        .next()
        .and_then(|_stem| std::str::from_utf8(last).ok())
        .unwrap_or_default()
}
