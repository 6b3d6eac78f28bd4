//! The line between a thread that answers a request and the loop that has the connection.
//!
//! ```text
//!   a pool's thread                     Line                  the loop's thread, without the GIL
//!   ───────────────                     ────                  ─────────────────────────────────
//!   answer(Start, Chunk …) ──► the door's inbox, a wake-up ──► exchange.start, send_chunk
//!   waits while it is full ◄── room ◄──────────────────────── the queue has drained
//!   is told of the end     ◄── gone ◄──────────────────────── the client has gone
//! ```
//!
//! Answers of all requests share one inbox, which keeps each thread's order. A thread that is ahead
//! of its client waits, without the GIL, until there is room: what a response holds in memory is
//! bounded by [`AHEAD`] and the exchange's own limit.
//!
//! Where the loop's own thread runs the application (`inline`), nobody can wait for it: what is beyond
//! [`KEPT`] bytes goes to a file without a name, and the next piece of an iterable is asked for once the
//! exchange has room.

use crate::server::head::Head;
use rondel_core::inbox::Inbox;
use rondel_ffi::gil;
use rondel_http::FilePart;
use rondel_http::gather::Gathered;
use rondel_http::http::header::HeaderMap;
use rondel_http::hyper::body::Bytes;
use rondel_http::hyper::ext::ReasonPhrase;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes on their way to the loop from which on the thread waits.
const AHEAD: usize = 64 * 1024;

/// Bytes that the loop's own thread keeps in memory of what an application writes at once.
const KEPT: usize = 1 << 20;

/// Bytes of that in the file, at most: nobody tells an application that writes for ever that its client
/// has gone, as the loop does not run meanwhile.
const PUT_BY: usize = 1 << 30;

/// What begins a response.
pub(super) struct Start {
    pub(super) status: u16,
    /// The application's own words for the status.
    pub(super) reason: Option<Box<ReasonPhrase>>,
    pub(super) headers: HeaderMap,
}

/// A part of a response.
pub(super) enum Answer {
    Start(Start),
    Chunk(Bytes, bool),
    /// The whole of it.
    Whole(Start, Bytes),
    /// The whole of it, its body a file's.
    File(Start, FilePart),
    /// A part of the body that was put by in a file.
    Spooled(FilePart),
    /// It can't be gone on with; the reason.
    Broken(String),
    /// The thread is done with the request, whatever it has sent.
    Over,
    /// The same, and the whole response was sent before: nobody waits for this.
    Done,
    /// The whole of it, and the thread is done with the request.
    Last(Start, Bytes),
    /// No thread could be had for it.
    Unserved,
    /// The application wants to answer it on the loop instead.
    Bounce(Box<Head>),
}

impl Answer {
    fn len(&self) -> usize {
        match self {
            Answer::Chunk(data, _) | Answer::Whole(_, data) | Answer::Last(_, data) => data.len(),
            _ => 0,
        }
    }
}

/// Answers by the tag of their request.
pub(super) type Answers = Inbox<(u64, Answer)>;

#[derive(Default)]
struct State {
    /// Bytes in the inbox.
    ahead: usize,
    /// The exchange has enough for now.
    full: bool,
    gone: bool,
    /// The thread waits for room. (To notify a condition is a system call, even if nobody waits.)
    waits: bool,
    /// What is beyond the inbox's share of a response, on the loop's own thread.
    spool: Gathered,
    put_by: usize,
}

pub(super) struct Line {
    tag: u64,
    answers: Arc<Answers>,
    state: Mutex<State>,
    room: Condvar,
    /// The thread that is at it; 0: none yet.
    thread: AtomicU64,
    /// That is the loop's own.
    inline: bool,
}

/// The client has gone, or the server: nobody is there to answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

impl Line {
    pub(super) fn new(tag: u64, answers: Arc<Answers>, inline: bool) -> Line {
        Line {
            tag,
            answers,
            state: Mutex::default(),
            room: Condvar::new(),
            thread: AtomicU64::new(0),
            inline,
        }
    }

    pub(super) fn tag(&self) -> u64 {
        self.tag
    }

    // ------------------------------------------------------------------------ the thread's side

    /// The thread of this number (`threading.get_ident()`) is at it.
    pub(super) fn begin(&self, thread: u64) {
        self.thread.store(thread, Relaxed);
    }

    /// Sends a part of the response; waits, without the GIL, while the client is behind.
    pub(super) fn answer(&self, answer: Answer) -> Result<(), Gone> {
        let len = answer.len();
        if self.inline {
            return self.put(answer, len);
        }
        {
            let state = self.lock();
            if state.gone {
                return Err(Gone);
            }
            let crowded = state.full || state.ahead >= AHEAD;
            drop(state);
            if crowded && len > 0 {
                gil::detached(|| self.wait_for_room())?;
            }
        }
        self.lock().ahead += len;
        self.answers.push((self.tag, answer)).map_err(|_| Gone)
    }

    /// The same on the loop's own thread, which does not wait.
    fn put(&self, answer: Answer, len: usize) -> Result<(), Gone> {
        let spooled = {
            let mut state = self.lock();
            if state.gone {
                return Err(Gone);
            }
            match answer {
                Answer::Chunk(data, true)
                    if !state.spool.is_empty() || (state.ahead > 0 && state.ahead + len > KEPT) =>
                {
                    state.put_by += len;
                    if state.put_by > PUT_BY {
                        Err(io::ErrorKind::FileTooLarge.into())
                    } else {
                        state.spool.add(data, 0)
                    }
                }
                answer => {
                    drop(state);
                    self.flush();
                    self.lock().ahead += len;
                    return self.answers.push((self.tag, answer)).map_err(|_| Gone);
                }
            }
        };
        spooled.map_err(|error| self.give_up(&error))
    }

    /// Has the loop send what was put by.
    pub(super) fn flush(&self) {
        let spool = {
            let mut state = self.lock();
            state.put_by = 0;
            std::mem::take(&mut state.spool)
        };
        if let Gathered::Spooled(file) = spool {
            let sent = FilePart::new(file.as_fd(), 0, None).map(|part| {
                let _closed = self.answers.push((self.tag, Answer::Spooled(part)));
            });
            if let Err(error) = sent {
                self.give_up(&error);
            }
        }
    }

    #[cold]
    fn give_up(&self, error: &io::Error) -> Gone {
        self.hang_up();
        let text = format!("a response could not be put by: {error}");
        let _closed = self.answers.push((self.tag, Answer::Broken(text)));
        Gone
    }

    fn wait_for_room(&self) -> Result<(), Gone> {
        let mut state = self.lock();
        while !state.gone && (state.full || state.ahead >= AHEAD) {
            state.waits = true;
            state = (self.room.wait(state)).unwrap_or_else(PoisonError::into_inner);
        }
        state.waits = false;
        if state.gone { Err(Gone) } else { Ok(()) }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.lock().gone
    }

    /// Whether the exchange has enough for now.
    pub(super) fn is_full(&self) -> bool {
        self.lock().full
    }

    // -------------------------------------------------------------------------- the loop's side

    /// The number of the thread that is at it; 0: none yet.
    pub(super) fn thread(&self) -> u64 {
        self.thread.load(Relaxed)
    }

    /// A part that was put by is with the exchange.
    pub(super) fn sent(&self, full: bool) {
        self.lock().full = full;
    }

    /// A part of so many bytes was taken out of the inbox; whether the exchange has enough now.
    pub(super) fn took(&self, len: usize, full: bool) {
        self.change(|state| {
            state.ahead -= len.min(state.ahead);
            state.full = full;
        });
    }

    pub(super) fn drained(&self) {
        self.change(|state| state.full = false);
    }

    pub(super) fn hang_up(&self) {
        self.change(|state| state.gone = true);
    }

    /// A thread that waits looks whether that was what it has waited for.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let waits = {
            let mut state = self.lock();
            change(&mut state);
            state.waits && (state.gone || (!state.full && state.ahead < AHEAD))
        };
        if waits {
            self.room.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
