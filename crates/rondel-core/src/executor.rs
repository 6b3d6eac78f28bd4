//! The executor of the loop's Rust futures: one thread, woken ones first come, first polled.
//!
//! ```text
//!   wake() ── any thread ──► RunQueue (mutex, deduplicated by Task.queued)
//!                               │ swapped out whole
//!                               ▼
//!   run(budget) ──► batch ──► poll one ──► Pending: back into its slot
//!                                     └──► Ready or panicked: dropped
//! ```
//!
//! Invariants:
//! * futures live in `Tasks`, on the loop's thread only, and need not be `Send`; wakers hold but a
//!   key and may go anywhere;
//! * nothing of the executor is borrowed while a future is polled or dropped, so it may spawn,
//!   wake and drop others;
//! * a panic stops at `poll_one`: the future is dropped, the hook told, the loop goes on.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::slots::{Key, Slots};
use crate::wake::LoopWaker;

/// Told of a future's panic with the panic's payload.
pub type PanicHook = Box<dyn Fn(&(dyn Any + Send))>;

type BoxFuture = Pin<Box<dyn Future<Output = ()>>>;

/// A number for the calling thread; cheaper than `thread::current().id()`, which counts references.
fn thread_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local!(static NUMBER: Cell<u64> = const { Cell::new(0) });
    NUMBER.with(|n| {
        if n.get() == 0 {
            n.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        n.get()
    })
}

/// Keys of woken futures, filled from any thread.
struct RunQueue {
    woken: Mutex<VecDeque<Key>>,
    /// Mirrors `woken.len()`, changed under the lock.
    len: AtomicUsize,
    /// Number of the thread that drives the loop; 0 before the first turn. That thread's own
    /// wake-ups need no eventfd and leave no trace in the waker: a turn looks at `len` itself.
    owner: AtomicU64,
    loop_waker: Arc<LoopWaker>,
}

impl RunQueue {
    fn push(&self, key: Key) {
        {
            let mut woken = self.lock();
            woken.push_back(key);
            self.len.store(woken.len(), Ordering::Release);
        }
        if self.owner.load(Ordering::Relaxed) != thread_number() {
            self.loop_waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Key>> {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a `Waker` points to.
struct TaskWaker {
    key: Key,
    /// Whether the key is in the run queue or the batch.
    queued: AtomicBool,
    queue: Arc<RunQueue>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.queue.push(self.key);
        }
    }
}

struct Task {
    future: BoxFuture,
    waker: Waker,
    state: Arc<TaskWaker>,
}

pub(crate) struct Executor {
    queue: Arc<RunQueue>,
    /// `None` while the task is being polled.
    tasks: RefCell<Slots<Option<Task>, 32>>,
    /// Woken tasks taken from the queue and not yet polled.
    batch: RefCell<VecDeque<Key>>,
    closed: Cell<bool>,
    panic_hook: RefCell<Option<std::rc::Rc<PanicHook>>>,
}

impl Executor {
    pub(crate) fn new(loop_waker: Arc<LoopWaker>) -> Self {
        Executor {
            queue: Arc::new(RunQueue {
                woken: Mutex::new(VecDeque::new()),
                len: AtomicUsize::new(0),
                owner: AtomicU64::new(0),
                loop_waker,
            }),
            tasks: RefCell::new(Slots::new()),
            batch: RefCell::new(VecDeque::new()),
            closed: Cell::new(false),
            panic_hook: RefCell::new(None),
        }
    }

    /// Notes that the calling thread drives the loop from now on.
    #[inline]
    pub(crate) fn enter(&self) {
        self.queue.owner.store(thread_number(), Ordering::Relaxed);
    }

    pub(crate) fn set_panic_hook(&self, hook: PanicHook) {
        *self.panic_hook.borrow_mut() = Some(std::rc::Rc::new(hook));
    }

    /// Adds a future, woken. After `close` it is dropped instead.
    pub(crate) fn spawn(&self, future: BoxFuture) {
        if self.closed.get() {
            drop(future);
            return;
        }
        let queue = &self.queue;
        let key = self.tasks.borrow_mut().insert_with(|key| {
            let state = Arc::new(TaskWaker {
                key,
                queued: AtomicBool::new(true),
                queue: Arc::clone(queue),
            });
            Some(Task {
                future,
                waker: Waker::from(Arc::clone(&state)),
                state,
            })
        });
        queue.push(key);
    }

    #[inline]
    pub(crate) fn has_woken(&self) -> bool {
        self.queue.len.load(Ordering::Acquire) != 0 || !self.batch.borrow().is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.tasks.borrow().len()
    }

    /// Polls woken futures, at most `budget` of them; true if some are left.
    pub(crate) fn run(&self, mut budget: usize) -> bool {
        loop {
            let next = self.batch.borrow_mut().pop_front();
            match next {
                Some(key) => {
                    self.poll_one(key);
                    budget -= 1;
                    if budget == 0 {
                        return self.has_woken();
                    }
                }
                None if self.queue.len.load(Ordering::Acquire) == 0 => return false,
                None => {
                    let mut woken = self.queue.lock();
                    std::mem::swap(&mut *woken, &mut self.batch.borrow_mut());
                    self.queue.len.store(0, Ordering::Release);
                }
            }
        }
    }

    fn poll_one(&self, key: Key) {
        let Some(mut task) = self.tasks.borrow_mut().get_mut(key).and_then(Option::take) else {
            return;
        };
        // Before the poll: a wake-up during it queues the task again.
        task.state.queued.swap(false, Ordering::AcqRel);
        let polled = catch_unwind(AssertUnwindSafe(|| {
            task.future
                .as_mut()
                .poll(&mut Context::from_waker(&task.waker))
        }));
        match polled {
            Ok(Poll::Pending) if !self.closed.get() => {
                if let Some(slot) = self.tasks.borrow_mut().get_mut(key) {
                    *slot = Some(task);
                }
            }
            Ok(_) => {
                drop(self.tasks.borrow_mut().remove(key));
                self.drop_quietly(task.future);
            }
            Err(payload) => {
                drop(self.tasks.borrow_mut().remove(key));
                self.report(&*payload);
                self.drop_quietly(task.future);
            }
        }
    }

    /// Drops every future; later ones are dropped as they come.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        loop {
            let task = self.tasks.borrow_mut().remove_any();
            match task {
                Some(Some(task)) => self.drop_quietly(task.future),
                Some(None) => {}
                None => break,
            }
        }
    }

    fn drop_quietly(&self, future: BoxFuture) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(future))) {
            self.report(&*payload);
        }
    }

    #[cold]
    fn report(&self, payload: &(dyn Any + Send)) {
        // Cloned, so that a hook may set another one.
        let hook = self.panic_hook.borrow().clone();
        if let Some(hook) = hook {
            // A hook that panics has nobody left to tell.
            drop(catch_unwind(AssertUnwindSafe(|| hook(payload))));
        }
    }
}
