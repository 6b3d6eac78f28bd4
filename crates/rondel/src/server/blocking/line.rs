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

use crate::server::head::Head;
use rondel_core::inbox::Inbox;
use rondel_ffi::gil;
use rondel_http::FilePart;
use rondel_http::http::header::HeaderMap;
use rondel_http::hyper::body::Bytes;
use rondel_http::hyper::ext::ReasonPhrase;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes on their way to the loop from which on the thread waits.
const AHEAD: usize = 64 * 1024;

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
    /// The thread is done with the request, whatever it has sent.
    Over,
    /// No thread could be had for it.
    Unserved,
    /// The application wants to answer it on the loop instead.
    Bounce(Box<Head>),
}

impl Answer {
    fn len(&self) -> usize {
        match self {
            Answer::Chunk(data, _) | Answer::Whole(_, data) => data.len(),
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
}

pub(super) struct Line {
    tag: u64,
    answers: Arc<Answers>,
    state: Mutex<State>,
    room: Condvar,
    /// The thread that is at it; 0: none yet.
    thread: AtomicU64,
}

/// The client has gone, or the server: nobody is there to answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

impl Line {
    pub(super) fn new(tag: u64, answers: Arc<Answers>) -> Line {
        Line {
            tag,
            answers,
            state: Mutex::default(),
            room: Condvar::new(),
            thread: AtomicU64::new(0),
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

    fn wait_for_room(&self) -> Result<(), Gone> {
        let mut state = self.lock();
        while !state.gone && (state.full || state.ahead >= AHEAD) {
            state = (self.room.wait(state)).unwrap_or_else(PoisonError::into_inner);
        }
        if state.gone { Err(Gone) } else { Ok(()) }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.lock().gone
    }

    // -------------------------------------------------------------------------- the loop's side

    /// The number of the thread that is at it; 0: none yet.
    pub(super) fn thread(&self) -> u64 {
        self.thread.load(Relaxed)
    }

    /// A part of so many bytes was taken out of the inbox; whether the exchange has enough now.
    pub(super) fn took(&self, len: usize, full: bool) {
        let room = {
            let mut state = self.lock();
            state.ahead -= len.min(state.ahead);
            state.full = full;
            !full && state.ahead < AHEAD
        };
        if room {
            self.room.notify_all();
        }
    }

    pub(super) fn drained(&self) {
        self.lock().full = false;
        self.room.notify_all();
    }

    pub(super) fn hang_up(&self) {
        self.lock().gone = true;
        self.room.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
