//! A server on a thread of its own with a service of known routes, and a client that speaks raw
//! HTTP. What happens inside is told through a channel: tests wait for it instead of sleeping.

#![allow(dead_code, reason = "each test file uses its part")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use rondel_core::driver::{Driver, Ready};
use rondel_core::inbox::Inbox;
use rondel_http::http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use rondel_http::hyper::ext::ReasonPhrase;
use rondel_http::{
    BodyPoll, Config, Event, Exchange, FilePart, Flow, Mount, Problem, Request, Server, Service,
    Statics,
};

/// A test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const FLOOD_CHUNK: usize = 8 * 1024;
pub(crate) const FLOOD_TOTAL: usize = 32 * 1024 * 1024;

/// What the service does when its exchange can go on.
enum Work {
    /// Sends back what comes, part by part.
    Echo,
    /// Counts the body and answers with the number.
    Count(usize),
    /// Sends `FLOOD_TOTAL` bytes as fast as it may; the number sent so far.
    Flood(usize),
    /// Waits to be told.
    Hold,
    /// Has begun, and sends this when it is told to.
    File(FilePart),
}

pub(crate) struct App {
    tell: Sender<String>,
    works: RefCell<HashMap<u64, (Exchange, Work)>>,
    next: RefCell<u64>,
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(n, v)| {
            (
                n.parse::<HeaderName>().unwrap(),
                v.parse::<HeaderValue>().unwrap(),
            )
        })
        .collect()
}

fn answer(exchange: &Exchange, body: impl Into<Bytes>) {
    exchange.start(200, HeaderMap::new()).unwrap();
    exchange.send_chunk(body.into(), false).unwrap();
}

impl App {
    fn tell(&self, what: impl Into<String>) {
        // Nobody listens any more once the test is over.
        drop(self.tell.send(what.into()));
    }

    fn work(&self, tag: u64, exchange: Exchange, mut work: Work) {
        let go_on = match &mut work {
            Work::Hold | Work::File(_) => true,
            Work::Echo => loop {
                match exchange.poll_body() {
                    BodyPoll::Chunk { data, more } => {
                        exchange.send_chunk(data, more).unwrap();
                        if !more {
                            break false;
                        }
                    }
                    BodyPoll::Pending => break true,
                    BodyPoll::End => break false,
                    BodyPoll::Gone => {
                        self.tell("gone while reading");
                        break false;
                    }
                }
            },
            Work::Count(n) => loop {
                match exchange.poll_body() {
                    BodyPoll::Chunk { data, more } => {
                        *n += data.len();
                        if !more {
                            answer(&exchange, n.to_string());
                            break false;
                        }
                    }
                    BodyPoll::Pending => break true,
                    BodyPoll::End => break false,
                    BodyPoll::Gone => {
                        self.tell("gone while reading");
                        break false;
                    }
                }
            },
            Work::Flood(sent) => loop {
                *sent += FLOOD_CHUNK;
                let more = *sent < FLOOD_TOTAL;
                let data = Bytes::from(vec![b'f'; FLOOD_CHUNK]);
                let flow = exchange.send_chunk(data, more).unwrap();
                if !more {
                    self.tell("flood done");
                    break false;
                }
                if flow == Flow::Full {
                    self.tell(format!("full {sent}"));
                    break true;
                }
            },
        };
        if go_on {
            self.works.borrow_mut().insert(tag, (exchange, work));
        }
    }

    /// `/file?path=…&offset=…&count=…&length=…&status=…&around=…&begin=…`: a file's part; `around` sends
    /// that text before and behind it, `begin` begins with it and waits for `send_files`.
    fn file(&self, tag: u64, request: &Request, exchange: Exchange) {
        let query = request.head.uri.query().unwrap_or_default();
        let get = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let number = |name| get(name).map(|text| text.parse::<u64>().unwrap());
        // Closed when this is over: the part has its own descriptor.
        let file = std::fs::File::open(get("path").unwrap()).unwrap();
        let part =
            FilePart::new(file.as_fd(), number("offset").unwrap_or(0), number("count")).unwrap();
        let mut head = HeaderMap::new();
        if let Some(length) = number("length") {
            head.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let status = number("status").map_or(200, |status| u16::try_from(status).unwrap());
        exchange.start(status, head).unwrap();
        if let Some(text) = get("begin").map(str::to_owned) {
            exchange.send_chunk(text.into(), true).unwrap();
            return self.work(tag, exchange, Work::File(part));
        }
        let sent = match get("around").map(str::to_owned) {
            Some(text) => {
                exchange.send_chunk(text.clone().into(), true).unwrap();
                exchange.send_file(part, true).unwrap();
                exchange.send_chunk(text.into(), false)
            }
            None => exchange.send_file(part, false),
        };
        if let Err(error) = sent {
            self.tell(error.to_string());
        }
    }

    /// Breaks off what `/abort` has begun.
    pub(crate) fn abort_all(&self) {
        let held = std::mem::take(&mut *self.works.borrow_mut());
        for (exchange, _) in held.into_values() {
            exchange.abort();
        }
    }

    /// Goes on with what `/file?begin=` has begun.
    pub(crate) fn send_files(&self) {
        let held = std::mem::take(&mut *self.works.borrow_mut());
        for (exchange, work) in held.into_values() {
            if let Work::File(part) = work {
                exchange.send_file(part, false).unwrap();
            }
        }
    }

    /// Answers what `/hold` holds.
    pub(crate) fn release(&self) {
        let held: Vec<u64> = self.works.borrow().keys().copied().collect();
        for tag in held {
            let work = self.works.borrow_mut().remove(&tag);
            if let Some((exchange, _)) = work {
                answer(&exchange, "released");
            }
        }
    }
}

impl Service for App {
    fn call(&self, request: Request, exchange: Exchange) {
        let tag = {
            let mut next = self.next.borrow_mut();
            *next += 1;
            *next
        };
        exchange.set_tag(tag);
        let path = request.head.uri.path().to_owned();
        self.tell(format!("call {path}"));
        match path.as_str() {
            "/hello" => answer(&exchange, "Hello, World!"),
            "/empty" => {
                exchange.start(200, HeaderMap::new()).unwrap();
                exchange.finish().unwrap();
            }
            "/large" => answer(&exchange, vec![b'L'; 1024 * 1024]),
            "/sized" => {
                let head = headers(&[("content-length", "5"), ("x-kept", "yes")]);
                exchange.start(200, head).unwrap();
                exchange.send_chunk("ab".into(), true).unwrap();
                exchange.send_chunk("cde".into(), false).unwrap();
            }
            "/stream" => {
                exchange.start(200, HeaderMap::new()).unwrap();
                exchange.send_chunk("one".into(), true).unwrap();
                exchange.send_chunk("two".into(), true).unwrap();
                self.work(tag, exchange, Work::Echo);
            }
            "/echo" => {
                exchange.start(200, HeaderMap::new()).unwrap();
                self.work(tag, exchange, Work::Echo);
            }
            "/count" => self.work(tag, exchange, Work::Count(0)),
            "/flood" => {
                exchange.start(200, HeaderMap::new()).unwrap();
                self.work(tag, exchange, Work::Flood(0));
            }
            "/file" => self.file(tag, &request, exchange),
            "/hold" => self.work(tag, exchange, Work::Hold),
            "/close" => {
                exchange
                    .start(200, headers(&[("connection", "close")]))
                    .unwrap();
                exchange.send_chunk("bye".into(), false).unwrap();
            }
            "/drop" => drop(exchange),
            "/abort" => {
                exchange.start(200, HeaderMap::new()).unwrap();
                exchange.send_chunk("part".into(), true).unwrap();
                self.work(tag, exchange, Work::Hold);
            }
            "/short" | "/long" => {
                let mut head = HeaderMap::new();
                head.insert(CONTENT_LENGTH, HeaderValue::from(4));
                exchange.start(200, head).unwrap();
                let body: &'static str = if path == "/short" { "abc" } else { "abcde" };
                let refused = exchange.send_chunk(body.into(), false).unwrap_err();
                self.tell(refused.to_string());
            }
            "/reason" => {
                let reason = || Some(Box::new(ReasonPhrase::from_static(b"Quite \xe9")));
                let mut head = HeaderMap::new();
                if let Some(length) = request.head.uri.query() {
                    head.insert(CONTENT_LENGTH, length.parse().unwrap());
                }
                exchange.start_as(299, reason(), head).unwrap();
                if let Err(error) = exchange.send_chunk("body".into(), false) {
                    self.tell(error.to_string());
                }
            }
            "/misuse" => {
                let misuses = [
                    exchange.send_chunk("x".into(), true).map(|_| ()),
                    exchange.start(101, HeaderMap::new()),
                    exchange.start(200, headers(&[("content-length", "+1")])),
                    exchange.start(200, HeaderMap::new()),
                    exchange.start(200, HeaderMap::new()),
                    exchange.finish(),
                    exchange.finish(),
                ];
                for it in misuses {
                    self.tell(format!("{it:?}"));
                }
            }
            path => {
                let status = path.trim_start_matches("/status/").parse().unwrap_or(404);
                let head = headers(&[("transfer-encoding", "chunked")]);
                exchange.start(status, head).unwrap();
                exchange.send_chunk("body".into(), true).unwrap();
                exchange.finish().unwrap();
            }
        }
    }

    fn notify(&self, tag: u64, event: Event) {
        if event != Event::Body {
            self.tell(format!("{event:?}"));
        }
        let work = self.works.borrow_mut().remove(&tag);
        if let Some((exchange, work)) = work {
            match event {
                Event::Gone => assert!(exchange.is_gone()),
                _ => self.work(tag, exchange, work),
            }
        }
    }

    fn answering(&self, request: Request, exchange: &Exchange, status: u16, _began: u64) {
        assert!(!exchange.is_started());
        let uri = &request.head.uri;
        self.tell(format!("{} {uri} {status}", request.head.method));
    }

    fn report(&self, problem: Problem<'_>) {
        match problem {
            Problem::Accept(e) => self.tell(format!("accept: {e}")),
            Problem::Connection(_, e) => self.tell(format!("problem: {e}")),
            Problem::File(_, e) => self.tell(format!("file: {e}")),
            Problem::Handshake(_, e) => self.tell(format!("handshake: {e}")),
            Problem::Deadline(_, d) => self.tell(format!("deadline {d:?}")),
        }
    }
}

type Job = Box<dyn FnOnce(&App, &Server) + Send>;

/// A running server; stopped and joined when dropped.
pub(crate) struct Host {
    pub(crate) addr: SocketAddr,
    told: Receiver<String>,
    jobs: Arc<Inbox<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    pub(crate) fn new() -> Host {
        Host::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Host {
        Host::with_files(config, Vec::new(), |statics| statics)
    }

    /// With static files before the service.
    pub(crate) fn with_files(
        config: Config,
        mounts: Vec<Mount>,
        set: impl FnOnce(Statics) -> Statics + Send + 'static,
    ) -> Host {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (tell, told) = channel();
        let (hand, handed) = channel();
        let thread = std::thread::spawn(move || {
            let mut driver = Driver::new().unwrap();
            let jobs = Arc::new(Inbox::<Job>::new(driver.waker()));
            hand.send(Arc::clone(&jobs)).unwrap();
            let app = Rc::new(App {
                tell: tell.clone(),
                works: RefCell::default(),
                next: RefCell::new(0),
            });
            driver.handle().set_panic_hook(Box::new(move |_| {
                drop(tell.send("a future panicked".into()));
            }));
            let mut service = Rc::clone(&app) as Rc<dyn Service>;
            if !mounts.is_empty() {
                let age = Some(Duration::from_secs(3600));
                let statics = Statics::new(driver.handle(), service, &mounts, age);
                service = Rc::new(set(statics.unwrap()));
            }
            let server = Server::new(driver.handle(), service, config);
            server.listen_tcp(listener).unwrap();
            let (mut ready, mut batch) = (Ready::default(), Vec::new());
            while !server.is_drained() {
                driver.turn(None, &mut ready).unwrap();
                jobs.take(&mut batch);
                for job in batch.drain(..) {
                    job(&app, &server);
                }
            }
            assert_eq!((server.connections(), server.requests()), (0, 0));
        });
        let jobs = handed.recv().unwrap();
        Host {
            addr,
            told,
            jobs,
            thread: Some(thread),
        }
    }

    /// Runs `job` on the server's thread.
    pub(crate) fn run(&self, job: impl FnOnce(&App, &Server) + Send + 'static) {
        assert!(self.jobs.push(Box::new(job)).is_ok());
    }

    /// The result of `job` on the server's thread.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&App, &Server) -> T + Send + 'static,
    ) -> T {
        let (tx, rx) = channel();
        self.run(move |app, server| tx.send(job(app, server)).unwrap());
        rx.recv_timeout(PATIENCE).unwrap()
    }

    /// The next thing told.
    pub(crate) fn told(&self) -> String {
        self.told.recv_timeout(PATIENCE).unwrap()
    }

    /// Waits for `what`, passing over the rest.
    pub(crate) fn expect(&self, what: &str) {
        let mut seen = Vec::new();
        loop {
            match self.told.recv_timeout(PATIENCE) {
                Ok(it) if it == what => return,
                Ok(it) => seen.push(it),
                Err(_) => panic!("{what:?} was not told, but {seen:?}"),
            }
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.addr)
    }

    /// Waits for the thread's end.
    pub(crate) fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.run(|_, server| server.force_close());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
        // The last word of the service, after all its futures are gone.
        if !std::thread::panicking() {
            assert!(!self.told.try_iter().any(|it| it == "a future panicked"));
        }
    }
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (n, v) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then_some(v.trim())
        })
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

pub(crate) struct Client(pub(crate) BufReader<TcpStream>);

impl Client {
    pub(crate) fn new(addr: SocketAddr) -> Client {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client(BufReader::new(stream))
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    pub(crate) fn request(&mut self, method: &str, path: &str, rest: &str) {
        self.send(format!("{method} {path} HTTP/1.1\r\nHost: t\r\n{rest}\r\n"));
    }

    pub(crate) fn get(&mut self, path: &str) -> Reply {
        self.request("GET", path, "");
        self.reply()
    }

    pub(crate) fn head(&mut self) -> Reply {
        let mut head = String::new();
        loop {
            let mut line = Vec::new();
            let n = self.0.read_until(b'\n', &mut line).unwrap();
            let line: String = line.into_iter().map(char::from).collect();
            assert!(n > 0, "closed within the head: {head:?}");
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Reply {
            status,
            head,
            body: Vec::new(),
        }
    }

    /// A reply to anything but HEAD.
    pub(crate) fn reply(&mut self) -> Reply {
        let mut reply = self.head();
        if let Some(n) = reply.header("content-length") {
            reply.body = vec![0; n.parse().unwrap()];
            self.0.read_exact(&mut reply.body).unwrap();
        } else if reply.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk().unwrap() {
                reply.body.extend_from_slice(&chunk);
            }
        }
        reply
    }

    /// One chunk; `None` is the end of the body.
    pub(crate) fn chunk(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim_end(), 16)
            .map_err(|_| std::io::Error::other(format!("chunk size {line:?}")))?;
        let mut data = vec![0; size + 2];
        self.0.read_exact(&mut data)?;
        assert_eq!(&data[size..], b"\r\n");
        data.truncate(size);
        Ok((size > 0).then_some(data))
    }

    /// Everything until the server closes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
        rest
    }
}
