//! The requests that this process answers, and the last ones that it has answered: who they are, where
//! they are, and what they have paid for threads.
//!
//! ```text
//!  enter ─► begin(task) ─► hop_queued ─► hop_begins ─► hop_ends … ─► leave(status)
//!  queued      loop            queued         thread         loop      one of the last KEPT
//! ```
//!
//! A request has a slot, known by its [`Key`], which finds nothing once the slot is somebody else's: what
//! outlives a request (a task, a call in a thread) may go on using it. Slots are used again in the order in
//! which their requests have ended, [`KEPT`] later: so the last ended ones are there without being copied.
//!
//! One lock, held for some nanoseconds; any thread, no GIL. A child of a fork that finds it locked for good
//! has no list ([`forget`]).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Ended requests that are kept.
pub const KEPT: usize = 256;

/// Ended requests that took [`SLOW`] nanoseconds or more and are kept for longer.
const KEPT_SLOW: usize = 64;
const SLOW: u64 = 100_000_000;

/// Bytes of method and path that are kept.
const TEXT: usize = 112;

/// Slots that are copied before the lock is offered to others.
const CHUNK: usize = 64;

/// A request's slot and its turn there. The one by default is nobody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key {
    turn: u32,
    slot: u32,
}

impl Key {
    pub const NONE: Key = Key { turn: 0, slot: 0 };

    /// The number of its slot.
    #[must_use]
    pub fn slot(self) -> u32 {
        self.slot
    }

    #[must_use]
    pub fn to_bits(self) -> u64 {
        u64::from(self.turn) << 32 | u64::from(self.slot)
    }

    #[must_use]
    pub fn from_bits(bits: u64) -> Key {
        Key {
            turn: (bits >> 32) as u32,
            slot: bits as u32,
        }
    }

    /// Whether it is nobody's.
    #[inline(always)]
    #[must_use]
    pub fn is_none(self) -> bool {
        self.turn == 0
    }
}

/// What the process is doing about a request, as far as that is known without its task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Nothing has begun with it.
    #[default]
    Queued,
    /// Its task has been made; where that is, the task knows.
    Task,
    /// A call of it waits for a thread.
    QueuedForThread,
    /// A thread is at it.
    Thread,
    Ended,
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub key: Key,
    /// Its number among all requests of the process.
    pub id: u64,
    text: [u8; TEXT],
    method: u8,
    len: u8,
    /// Not all of the path is there.
    pub cut: bool,
    /// A WebSocket connection.
    pub socket: bool,
    /// A task, or a thread, has begun with it.
    begun: bool,
    /// 0: none.
    pub status: u16,
    /// Its task's number; 0: none.
    pub task: u32,
    /// Calls in threads, those that wait for one included.
    pub hops: u32,
    queued: u16,
    running: u16,
    /// The thread that has begun last, as Python's `threading.get_ident()` has it.
    pub thread: u64,
    /// When that was, on the loops' clock.
    since: u64,
    /// Nanoseconds that its calls have waited for a thread.
    pub waited: u64,
    /// And have run there, those that are over.
    ran: u64,
    /// When it came and when it ended (0: not yet), on the loops' clock.
    pub began: u64,
    pub ended: u64,
}

impl Entry {
    const EMPTY: Entry = Entry {
        key: Key::NONE,
        id: 0,
        text: [0; TEXT],
        method: 0,
        len: 0,
        cut: false,
        socket: false,
        begun: false,
        status: 0,
        task: 0,
        hops: 0,
        queued: 0,
        running: 0,
        thread: 0,
        since: 0,
        waited: 0,
        ran: 0,
        began: 0,
        ended: 0,
    };

    /// Method and path, as far as they are kept.
    #[must_use]
    pub fn name(&self) -> (String, String) {
        let (method, path) = self.text[..usize::from(self.len)].split_at(usize::from(self.method));
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        (text(method), text(path))
    }

    #[must_use]
    pub fn stage(&self) -> Stage {
        match self {
            Entry { ended: 1.., .. } => Stage::Ended,
            Entry { running: 1.., .. } => Stage::Thread,
            Entry { begun: false, .. } => Stage::Queued,
            Entry { queued: 1.., .. } => Stage::QueuedForThread,
            _ => Stage::Task,
        }
    }

    fn begins(&mut self, thread: u64, waited: u64, now: u64) {
        self.queued = self.queued.saturating_sub(1);
        self.running = self.running.saturating_add(1);
        (self.thread, self.since) = (thread, now);
        self.begun = true;
        self.waited = self.waited.saturating_add(waited);
    }

    /// Nanoseconds that its calls have run in threads so far.
    #[must_use]
    pub fn ran(&self, now: u64) -> u64 {
        let present = if self.running > 0 {
            now.saturating_sub(self.since)
        } else {
            0
        };
        self.ran + present
    }

    /// Nanoseconds so far, or in all.
    #[must_use]
    pub fn age(&self, now: u64) -> u64 {
        let end = if self.ended == 0 { now } else { self.ended };
        end.saturating_sub(self.began)
    }
}

#[derive(Default)]
struct Board {
    slots: Vec<Entry>,
    /// Slots of ended requests, the one that ended first in front.
    ended: VecDeque<u32>,
    slow: VecDeque<(Entry, Option<String>)>,
    count: u64,
}

static BOARD: Mutex<Board> = Mutex::new(Board {
    slots: Vec::new(),
    ended: VecDeque::new(),
    slow: VecDeque::new(),
    count: 0,
});

/// Whether requests are noted.
static ON: AtomicBool = AtomicBool::new(true);

/// Notes requests from now on, or none.
pub fn turn(on: bool) {
    ON.store(on, Relaxed);
}

fn board() -> MutexGuard<'static, Board> {
    BOARD.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    fn enter(&mut self) -> &mut Entry {
        let free = if self.ended.len() > KEPT {
            self.ended.pop_front()
        } else {
            None
        };
        let slot = free.unwrap_or_else(|| {
            self.slots.push(Entry::EMPTY);
            u32::try_from(self.slots.len() - 1).unwrap_or_default()
        });
        self.count += 1;
        let entry = &mut self.slots[slot as usize];
        let turn = entry.key.turn.wrapping_add(1).max(1);
        entry.key = Key { turn, slot };
        entry.id = self.count;
        (entry.begun, entry.socket) = (false, false);
        (entry.status, entry.task, entry.hops) = (0, 0, 0);
        (entry.queued, entry.running, entry.thread) = (0, 0, 0);
        (entry.waited, entry.ran, entry.ended) = (0, 0, 0);
        entry
    }

    /// A request that has not ended.
    fn find(&mut self, key: Key) -> Option<&mut Entry> {
        let entry = self.slots.get_mut(key.slot as usize)?;
        (entry.key == key && entry.ended == 0).then_some(entry)
    }
}

fn with(key: Key, change: impl FnOnce(&mut Entry)) {
    if key.is_none() {
        return;
    }
    if let Some(entry) = board().find(key) {
        change(entry);
    }
}

// ---------------------------------------------------------------------------------- what happens

/// Whether requests are noted.
#[must_use]
pub fn is_on() -> bool {
    ON.load(Relaxed)
}

/// A request has come, at this time. `task`: the number of the task that answers it, 0 if there is none yet.
#[must_use]
pub fn enter(method: &str, path: &str, socket: bool, task: u32, now: u64) -> Key {
    if !is_on() {
        return Key::default();
    }
    let mut board = board();
    let entry = board.enter();
    let method = &method.as_bytes()[..method.len().min(TEXT / 4)];
    let kept = path.len().min(TEXT - method.len());
    entry.text[..method.len()].copy_from_slice(method);
    entry.text[method.len()..method.len() + kept].copy_from_slice(&path.as_bytes()[..kept]);
    // Both are less than `TEXT`.
    (entry.method, entry.len) = (method.len() as u8, (method.len() + kept) as u8);
    (entry.cut, entry.socket) = (kept < path.len(), socket);
    (entry.task, entry.begun) = (task, task != 0);
    entry.began = now;
    entry.key
}

/// Its task is made.
pub fn begin(key: Key, task: u32) {
    with(key, |entry| {
        entry.task = task;
        entry.begun = true;
    });
}

/// A call of it waits for a thread.
pub fn hop_queued(key: Key) {
    with(key, |entry| {
        entry.hops = entry.hops.saturating_add(1);
        entry.queued = entry.queued.saturating_add(1);
    });
}

/// The thread has begun, after so many nanoseconds.
pub fn hop_begins(key: Key, thread: u64, waited: u64, now: u64) {
    with(key, |entry| entry.begins(thread, waited, now));
}

/// A thread begins with the whole of it, after so many nanoseconds.
pub fn request_begins(key: Key, thread: u64, waited: u64, now: u64) {
    with(key, |entry| {
        entry.queued = entry.queued.saturating_add(1);
        entry.hops = entry.hops.saturating_add(1);
        entry.begins(thread, waited, now);
    });
}

/// The call is over, after so many nanoseconds.
pub fn hop_ends(key: Key, ran: u64) {
    with(key, |entry| {
        entry.running = entry.running.saturating_sub(1);
        entry.ran = entry.ran.saturating_add(ran);
    });
}

/// The call will not be made.
pub fn hop_dropped(key: Key) {
    with(key, |entry| {
        entry.queued = entry.queued.saturating_sub(1);
        entry.hops = entry.hops.saturating_sub(1);
    });
}

/// A thread has found that the request is the loop's.
pub fn back_to_loop(key: Key) {
    with(key, |entry| {
        (entry.hops, entry.waited, entry.ran) = (0, 0, 0);
        (entry.running, entry.begun) = (0, false);
    });
}

/// It is over. Whether it was slow: [`name_slow`] may be told its view.
pub fn leave(key: Key, status: u16, now: u64) -> bool {
    if key.is_none() {
        return false;
    }
    let mut board = board();
    let Some(entry) = board.find(key) else {
        return false;
    };
    entry.status = status;
    entry.ended = now.max(1);
    entry.ran = entry.ran(now);
    entry.running = 0;
    let slow = now.saturating_sub(entry.began) >= SLOW && !entry.socket;
    if slow {
        let entry = *entry;
        if board.slow.len() >= KEPT_SLOW {
            board.slow.pop_front();
        }
        board.slow.push_back((entry, None));
    }
    board.ended.push_back(key.slot);
    slow
}

/// What the view of a slow one is called.
pub fn name_slow(key: Key, view: String) {
    let mut board = board();
    let mut slow = board.slow.iter_mut().rev();
    if let Some((_, name)) = slow.find(|(entry, _)| entry.key == key) {
        *name = Some(view);
    }
}

// ---------------------------------------------------------------------------------- what is told

/// A request that has not ended.
#[must_use]
pub fn find(key: Key) -> Option<Entry> {
    if key.is_none() {
        return None;
    }
    board().find(key).map(|entry| *entry)
}

/// Those that have not ended, and those that have, each in the order in which they came.
#[must_use]
pub fn all() -> (Vec<Entry>, Vec<Entry>) {
    let (mut here, mut ended) = (Vec::new(), Vec::new());
    let mut at = 0;
    loop {
        let board = board();
        if at >= board.slots.len() {
            break;
        }
        let end = board.slots.len().min(at + CHUNK);
        for entry in &board.slots[at..end] {
            if entry.ended == 0 {
                here.push(*entry);
            } else {
                ended.push(*entry);
            }
        }
        at = end;
    }
    here.sort_unstable_by_key(|entry| entry.id);
    ended.sort_unstable_by_key(|entry| entry.ended);
    let extra = ended.len().saturating_sub(KEPT);
    ended.drain(..extra);
    (here, ended)
}

/// Slow ones that have ended, with their views as far as they are known.
#[must_use]
pub fn slow() -> Vec<(Entry, Option<String>)> {
    board().slow.iter().cloned().collect()
}

/// In a forked child: its parent's requests are not its own.
pub fn forget() {
    match BOARD.try_lock() {
        Ok(mut board) => *board = Board::default(),
        Err(_) => turn(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The board is the process's; so it is one test.
    #[test]
    fn a_request_s_way() {
        let key = enter("GET", "/books/1", false, 0, 10);
        let now = |key| find(key).unwrap();
        assert_eq!(now(key).name(), ("GET".to_owned(), "/books/1".to_owned()));
        assert_eq!(now(key).stage(), Stage::Queued);
        begin(key, 7);
        assert_eq!((now(key).stage(), now(key).task), (Stage::Task, 7));
        hop_queued(key);
        assert_eq!(now(key).stage(), Stage::QueuedForThread);
        hop_begins(key, 99, 5, 0);
        assert_eq!(now(key).ran(3), 3);
        assert_eq!((now(key).stage(), now(key).thread), (Stage::Thread, 99));
        hop_queued(key);
        hop_dropped(key);
        hop_ends(key, 10);
        assert_eq!(now(key).stage(), Stage::Task);
        assert!(!leave(key, 204, 50));
        assert!(find(key).is_none());
        // Nobody's any more: nothing happens.
        hop_queued(key);
        assert!(!leave(key, 500, 50));
        let (here, ended) = all();
        assert!(here.iter().all(|entry| entry.key != key));
        let last = ended.iter().find(|entry| entry.key == key).unwrap();
        assert_eq!(
            (last.status, last.hops, last.waited, last.ran(0)),
            (204, 1, 5, 10)
        );

        // A slot is used again when as many others have ended, not before.
        let others: Vec<Key> = (0..KEPT)
            .map(|_| {
                let other = enter("BREW", &"/long".repeat(100), false, 1, 10);
                assert_ne!(other.slot, key.slot);
                assert!(now(other).cut && now(other).name().1.len() < 500);
                leave(other, 200, 50);
                other
            })
            .collect();
        let again = enter("GET", "/", true, 1, 10);
        assert_eq!(again.slot, key.slot);
        assert!(find(key).is_none() && now(again).socket);
        assert_eq!(now(again).stage(), Stage::Task);
        let (_, ended) = all();
        assert_eq!(ended.len(), KEPT);
        assert_eq!(ended.last().unwrap().key, others[KEPT - 1]);
        leave(again, 101, 50);

        // None by default, none when it is off.
        assert!(find(Key::default()).is_none());
        turn(false);
        assert!(enter("GET", "/", false, 1, 10).is_none());
        turn(true);
        let kept = enter("GET", "/", false, 1, 10);
        forget();
        assert!(find(kept).is_none());
        assert_eq!(all().0.len(), 0);
    }
}
