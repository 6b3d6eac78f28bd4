//! The inspector's thread: it answers on the process's socket and watches for loops that stall.
//!
//! # The protocol, version 1
//! A client connects to `PID.sock` (see `door`), sends lines of JSON and gets a line for each:
//!
//! ```text
//! {"v": 1, "ask": "stats"}      counters of the running loops; never needs the GIL
//! {"v": 1, "ask": "tasks"}      every task with its await chain
//! {"v": 1, "ask": "stalls"}     the last 64 stalls
//! {"v": 1, "ask": "requests"}   those that are being answered, with their views, and the last ones that were
//! {"v": 1, "ask": "requests stacks"}  with the stacks of the threads that are at them
//! {"v": 1, "ask": "requests now"}     without views; never needs the GIL
//! {"v": 1, "ask": "record 5"}   begins to record for at most so many seconds
//!     with "held": true         which also ends when this connection does, whoever ends it
//! {"v": 1, "ask": "recorded"}   ends that: what tasks, callbacks, threads and loops did
//! any failure                   {"v": 1, "error": KIND, "message": TEXT}
//! ```
//!
//! Kinds: `bad-request`, `too-long`, `unknown`, `version`, `gil` (the GIL could not be had in time),
//! `busy` (somebody records already), `none` (nothing is recorded).
//! Unknown members are ignored; an answer may have more members than a client knows.
//!
//! # Bounds
//! [`CLIENTS`] at once (further ones are closed at once), 64 KiB a request, 5 s to ask, to make an
//! answer, and to take the next part of one; who holds a recording may be silent for as long as that. A
//! client that goes away costs nothing but its buffer.
//!
//! # Threads
//! ```text
//!  inspector ──── polls: socket, clients, a wake-up, the watchdog's beat; never has the GIL
//!     └─ helper   one at a time, for as long as one answer or one report takes; takes the GIL
//! ```
//! While no client asks and all loops sleep it wakes up once a second. Around a fork and at the
//! interpreter's end both are joined ([`Service::stop`]): the child has no lock that a thread of its
//! parent held, and no thread asks for the GIL of an interpreter that is going.

use super::bell;
use super::client::{Client, PATIENCE, Stage, error};
use super::door::{Door, may_ask};
use super::watchdog::Watchdog;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Clients at once.
const CLIENTS: usize = 8;

/// What the process tells.
pub trait Source: Send + Sync + 'static {
    /// An answer that needs no GIL; none if the question is not of that kind.
    fn at_once(&self, ask: &str) -> Option<String>;
    /// An answer for which the GIL is taken, on the helper thread. `holder`: the number of the client,
    /// if what begins by it is to end with the connection.
    fn with_gil(&self, ask: &str, holder: Option<u64>) -> String;
    /// Whether [`Source::with_gil`] knows it.
    fn knows(&self, ask: &str) -> bool;
    /// Whether the answer to this question is the beginning of something that may end with the
    /// connection: how long its client may be silent then.
    fn holds(&self, ask: &str) -> Option<Duration>;
    /// The connection of this client, who holds something, has ended. Without the GIL.
    fn left(&self, client: u64);
    /// A loop has been in one step for too long. On the helper thread; to be reported with the GIL.
    fn stalled(&self, stall: &super::watchdog::Stall);
    /// The same when the GIL could not be had: on the inspector's thread, without it.
    fn stalled_without_gil(&self, stall: &super::watchdog::Stall);
    /// A stall that was told of is over.
    fn over(&self, over: &super::watchdog::Over);
    /// Tells how many tasks there have been, now and then.
    fn beat(&self);
}

/// Work for the helper, and what came of it.
enum Job {
    /// Of a client, who holds what begins by it or does not.
    Answer(u64, String, bool),
    Stall(super::watchdog::Stall),
}

struct Shared {
    stop: AtomicBool,
    wake: Arc<OwnedFd>,
    /// Answers by client.
    made: Mutex<Vec<(u64, String)>>,
}

impl Shared {
    fn wake(&self) {
        bell::write(&self.wake);
    }
}

/// A running inspector.
pub struct Service {
    shared: Arc<Shared>,
    thread: JoinHandle<Option<Door>>,
    tid: i32,
}

impl Service {
    /// Starts the thread; it opens the door, if it is not handed one, and goes on as a watchdog alone
    /// if it cannot be opened.
    ///
    /// # Errors
    /// When the system has no descriptor or thread left.
    pub fn start(
        source: Arc<dyn Source>,
        door: Option<Door>,
        threshold: Duration,
    ) -> io::Result<Service> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            wake: Arc::new(eventfd(0, flags)?),
            made: Mutex::default(),
        });
        let (told, tid) = std::sync::mpsc::sync_channel(1);
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name("rondel-inspect".into())
            .stack_size(256 * 1024)
            .spawn(move || {
                bell::hang(Some(theirs.wake.clone()));
                let _sent = told.send(tid_here());
                let mut inspector = Inspector {
                    door: door.or_else(|| Door::open().ok()),
                    source,
                    shared: theirs,
                    clients: Vec::new(),
                    next_client: 0,
                    jobs: VecDeque::new(),
                    helper: None,
                    watchdog: Watchdog::new(threshold),
                };
                inspector.run();
                inspector.door
            })?;
        Ok(Service {
            tid: tid.recv().unwrap_or_default(),
            shared,
            thread,
        })
    }

    /// Ends the thread, and gives the door back. Must be called without the GIL: a helper may want it.
    pub fn stop(self) -> Option<Door> {
        bell::hang(None);
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
        let door = self.thread.join().ok().flatten();
        await_end(self.tid);
        door
    }
}

fn tid_here() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// A joined thread is counted by the system for some microseconds more, and from 3.12 on CPython warns
/// at a fork if it finds more than one.
fn await_end(tid: i32) {
    let task = format!("/proc/self/task/{tid}");
    let began = Instant::now();
    while Path::new(&task).exists() && began.elapsed() < Duration::from_millis(20) {
        std::thread::yield_now();
    }
}

struct Helper {
    thread: JoinHandle<i32>,
    /// The client that it makes an answer for.
    stall: Option<super::watchdog::Stall>,
    told: bool,
    began: Instant,
}

struct Inspector {
    door: Option<Door>,
    source: Arc<dyn Source>,
    shared: Arc<Shared>,
    clients: Vec<Client>,
    next_client: u64,
    jobs: VecDeque<Job>,
    helper: Option<Helper>,
    watchdog: Watchdog,
}

impl Inspector {
    fn run(&mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            self.source.beat();
            let Some(ready) = self.wait() else { break };
            self.turn(&ready);
        }
        self.clients.clear();
        if let Some(helper) = self.helper.take()
            && let Ok(tid) = helper.thread.join()
        {
            await_end(tid);
        }
    }

    /// Which descriptors are ready: the wake-up, the door, the clients.
    fn wait(&mut self) -> Option<Vec<bool>> {
        if self.door.as_ref().is_some_and(|door| !door.is_whole()) {
            // Somebody has closed the descriptor: the number is not ours any more.
            std::mem::forget(self.door.take());
            return None;
        }
        let mut fds = vec![PollFd::new(&self.shared.wake, PollFlags::IN)];
        if let Some(door) = &self.door {
            fds.push(PollFd::new(&door.listener, PollFlags::IN));
        }
        let now = Instant::now();
        let mut timeout = self.watchdog.next(self.helper.is_some());
        for client in &self.clients {
            let wanted = match client.stage {
                Stage::Reading => PollFlags::IN,
                Stage::Writing => PollFlags::OUT,
                Stage::Waiting | Stage::Over => PollFlags::empty(),
            };
            fds.push(PollFd::new(&client.stream, wanted));
            timeout = timeout.min(client.deadline.saturating_duration_since(now));
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
        Some(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
    }

    fn turn(&mut self, ready: &[bool]) {
        if ready[0] {
            let mut count = [0; 8];
            let _read = rustix::io::read(&self.shared.wake, &mut count);
        }
        let first = 1 + usize::from(self.door.is_some());
        let now = Instant::now();
        for i in 0..self.clients.len() {
            if ready.get(first + i).copied().unwrap_or_default() {
                self.serve(i);
            }
            let client = &mut self.clients[i];
            if client.deadline <= now {
                match client.stage {
                    Stage::Waiting => client.answer(error(
                        "gil",
                        "the GIL could not be had in time: native code, or a thread that never \
                         gives it up, holds it",
                    )),
                    _ => client.stage = Stage::Over,
                }
            }
        }
        let source = &self.source;
        self.clients.retain(|client| {
            let over = client.stage == Stage::Over;
            if over && client.holder {
                source.left(client.id);
            }
            !over
        });
        if self.door.is_some() && ready[1] {
            self.accept();
        }
        self.take_answers();
        self.see_to_helper(now);
        if let Some(stall) = self.watchdog.look() {
            self.jobs.push_front(Job::Stall(stall));
        }
        for over in self.watchdog.over() {
            self.source.over(&over);
        }
        self.start_helper();
    }

    fn accept(&mut self) {
        // A bounded number of times: others want to be served as well.
        for _ in 0..CLIENTS {
            let Some(Ok((stream, _))) = self.door.as_ref().map(|door| door.listener.accept())
            else {
                return;
            };
            let usable = self.clients.len() < CLIENTS && may_ask(&stream);
            if usable && stream.set_nonblocking(true).is_ok() {
                self.next_client += 1;
                self.clients.push(Client::new(self.next_client, stream));
            }
        }
    }

    fn serve(&mut self, i: usize) {
        let client = &mut self.clients[i];
        match client.stage {
            Stage::Writing => client.write(),
            // It has gone away while it waits.
            Stage::Waiting => client.stage = Stage::Over,
            Stage::Over => {}
            Stage::Reading => {
                if let Some(request) = client.read() {
                    match self.ask(i, &request) {
                        Ok(None) => {}
                        Ok(Some(answer)) | Err(answer) => self.clients[i].answer(answer),
                    }
                }
            }
        }
    }

    /// The answer; none if a helper makes it.
    fn ask(&mut self, i: usize, request: &[u8]) -> Result<Option<String>, String> {
        let request: serde_json::Value = serde_json::from_slice(request)
            .map_err(|_| error("bad-request", "a request is a line of JSON"))?;
        if request.get("v").and_then(serde_json::Value::as_u64) != Some(1) {
            return Err(error("version", "this process speaks version 1"));
        }
        let Some(ask) = request.get("ask").and_then(serde_json::Value::as_str) else {
            return Err(error("bad-request", "a request has a member ask"));
        };
        if let Some(answer) = self.source.at_once(ask) {
            return Ok(Some(answer));
        }
        if !self.source.knows(ask) {
            return Err(error("unknown", "no such question"));
        }
        let held = request.get("held").and_then(serde_json::Value::as_bool) == Some(true);
        let client = &mut self.clients[i];
        client.silent = self.source.holds(ask).filter(|_| held);
        client.holder |= client.silent.is_some();
        let job = Job::Answer(client.id, ask.to_owned(), client.silent.is_some());
        self.jobs.push_back(job);
        Ok(None)
    }

    fn take_answers(&mut self) {
        let made = match self.shared.made.lock() {
            Ok(mut made) => std::mem::take(&mut *made),
            Err(_) => return,
        };
        for (id, answer) in made {
            let waits = |client: &&mut Client| client.id == id && client.stage == Stage::Waiting;
            if let Some(client) = self.clients.iter_mut().find(waits) {
                client.answer(answer);
            } else {
                // It went while its answer was made: it holds nothing.
                self.source.left(id);
            }
        }
    }

    fn see_to_helper(&mut self, now: Instant) {
        let Some(helper) = &mut self.helper else {
            return;
        };
        if helper.thread.is_finished() {
            let _tid = self.helper.take().map(|helper| helper.thread.join());
        } else if let Some(stall) = &helper.stall
            && !helper.told
            && now.duration_since(helper.began) >= super::watchdog::GIL_PATIENCE
            && stall.lasts()
        {
            helper.told = true;
            self.source.stalled_without_gil(stall);
        }
    }

    fn start_helper(&mut self) {
        while self.helper.is_none() {
            let Some(job) = self.jobs.pop_front() else {
                return;
            };
            if let Job::Answer(id, ..) = &job {
                let waits = |client: &Client| client.id == *id && client.stage == Stage::Waiting;
                if !self.clients.iter().any(waits) {
                    continue;
                }
            }
            let stall = match &job {
                Job::Stall(stall) => Some(stall.clone()),
                Job::Answer(..) => None,
            };
            let (source, shared) = (self.source.clone(), self.shared.clone());
            let started = std::thread::Builder::new()
                .name("rondel-helper".into())
                .spawn(move || {
                    match job {
                        Job::Stall(stall) => source.stalled(&stall),
                        Job::Answer(id, ask, held) => {
                            let answer = source.with_gil(&ask, held.then_some(id));
                            if let Ok(mut made) = shared.made.lock() {
                                made.push((id, answer));
                            }
                        }
                    }
                    shared.wake();
                    tid_here()
                });
            if let Ok(thread) = started {
                self.helper = Some(Helper {
                    thread,
                    stall,
                    told: false,
                    began: Instant::now(),
                });
            }
        }
    }
}

// A job that is made after the client's patience is dropped by `take_answers`.
const _: () = assert!(PATIENCE.as_secs() == 5);
