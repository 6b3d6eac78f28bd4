//! The driver with real descriptors: watches, edges, futures, timers, wake-ups.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rondel_core::clock;
use rondel_core::driver::{Driver, EdgeEvent, FdEvent, Ready, edge_slot};

const NOW: Option<Duration> = Some(Duration::ZERO);
/// Never reached by a test that passes.
const LONG: Option<Duration> = Some(Duration::from_secs(20));
const MS: u64 = 1_000_000;

fn setup() -> (Driver, Ready) {
    (Driver::new().unwrap(), Ready::default())
}

fn pair() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    (a, b)
}

fn fds(driver: &mut Driver, ready: &mut Ready) -> Vec<FdEvent> {
    driver.turn(NOW, ready).unwrap();
    ready.fds.clone()
}

fn edges(driver: &mut Driver, ready: &mut Ready) -> Vec<EdgeEvent> {
    driver.turn(NOW, ready).unwrap();
    ready.edges.clone()
}

#[test]
fn a_watched_fd_is_reported_until_it_is_read() {
    let (mut driver, mut ready) = setup();
    let (mut a, mut b) = pair();
    let fd = a.as_raw_fd();
    driver.watch_fd(fd, true, false).unwrap();
    assert_eq!(fds(&mut driver, &mut ready), []);
    b.write_all(b"xy").unwrap();
    let readable = FdEvent {
        fd,
        readable: true,
        writable: false,
        hup_or_error: false,
    };
    for _ in 0..3 {
        assert_eq!(fds(&mut driver, &mut ready), [readable]);
    }
    let mut one = [0];
    a.read_exact(&mut one).unwrap();
    assert_eq!(fds(&mut driver, &mut ready), [readable]);
    a.read_exact(&mut one).unwrap();
    assert_eq!(fds(&mut driver, &mut ready), []);
    drop(b);
    for _ in 0..2 {
        let seen = fds(&mut driver, &mut ready);
        assert!(seen[0].readable && seen[0].hup_or_error, "{seen:?}");
    }
}

#[test]
fn interest_follows_watch_fd() {
    let (mut driver, mut ready) = setup();
    let (a, mut b) = pair();
    let fd = a.as_raw_fd();
    b.write_all(b"x").unwrap();
    for (r, w) in [(false, true), (true, true), (true, false), (true, true)] {
        driver.watch_fd(fd, r, w).unwrap();
        for _ in 0..2 {
            let seen = fds(&mut driver, &mut ready);
            assert_eq!((seen[0].readable, seen[0].writable), (r, w));
        }
    }
    driver.watch_fd(fd, false, false).unwrap();
    driver.watch_fd(fd, false, false).unwrap();
    assert_eq!(fds(&mut driver, &mut ready), []);
}

#[test]
fn a_closed_fd_can_be_unwatched_and_its_number_used_again() {
    let (mut driver, mut ready) = setup();
    let (a, _b) = pair();
    let fd = a.as_raw_fd();
    driver.watch_fd(fd, true, false).unwrap();
    drop(a);
    // Not unwatched before the number is another file's: the next watch must still take hold.
    let (again, mut peer) = pair();
    assert_eq!(again.as_raw_fd(), fd, "the lowest free number is used");
    driver.watch_fd(fd, true, false).unwrap();
    peer.write_all(b"x").unwrap();
    assert_eq!(fds(&mut driver, &mut ready).len(), 1);
    drop(again);
    driver.watch_fd(fd, false, false).unwrap();
    assert_eq!(fds(&mut driver, &mut ready), []);
}

#[test]
fn a_number_reused_between_turns_is_not_watched_unasked() {
    let (mut driver, mut ready) = setup();
    let (a, mut b) = pair();
    let fd = a.as_raw_fd();
    b.write_all(b"x").unwrap();
    driver.watch_fd(fd, true, false).unwrap();
    assert_eq!(fds(&mut driver, &mut ready).len(), 1);
    drop((a, b));
    let (again, mut peer) = pair();
    assert_eq!(again.as_raw_fd(), fd);
    peer.write_all(b"x").unwrap();
    assert_eq!(fds(&mut driver, &mut ready), []);
    driver.watch_fd(fd, true, false).unwrap();
    assert_eq!(fds(&mut driver, &mut ready).len(), 1);
}

#[test]
fn regular_files_and_bad_descriptors_are_refused() {
    let (mut driver, _) = setup();
    let file = File::open("/proc/self/exe").unwrap();
    let refused = driver.watch_fd(file.as_raw_fd(), true, false).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    let (a, _b) = pair();
    let fd = a.as_raw_fd();
    drop(a);
    assert!(driver.watch_fd(fd, true, false).is_err());
    assert!(driver.watch_fd(-1, true, false).is_err());
    assert!(driver.register_edge(fd).is_err());
}

#[test]
fn an_edge_is_reported_once() {
    let (mut driver, mut ready) = setup();
    let (a, mut b) = pair();
    let token = driver.register_edge(a.as_raw_fd()).unwrap();
    let first = edges(&mut driver, &mut ready);
    assert!(first.len() == 1 && first[0].writable && !first[0].readable);
    b.write_all(b"x").unwrap();
    let seen = edges(&mut driver, &mut ready);
    assert!(seen[0].token == token && seen[0].readable && !seen[0].read_closed);
    assert_eq!(
        edges(&mut driver, &mut ready),
        [],
        "unread, but no new edge"
    );
    b.write_all(b"x").unwrap();
    assert!(edges(&mut driver, &mut ready)[0].readable);
    drop(b);
    assert!(edges(&mut driver, &mut ready)[0].read_closed);
}

#[test]
fn a_token_after_deregistration_is_another_and_stale_ones_do_no_harm() {
    let (mut driver, mut ready) = setup();
    let (a, _b) = pair();
    let old = driver.register_edge(a.as_raw_fd()).unwrap();
    driver.deregister_edge(a.as_raw_fd(), old).unwrap();
    assert_eq!(edges(&mut driver, &mut ready), []);
    let new = driver.register_edge(a.as_raw_fd()).unwrap();
    assert_ne!(old, new);
    assert_eq!(edge_slot(old), edge_slot(new));
    driver.deregister_edge(a.as_raw_fd(), old).unwrap();
    assert_eq!(edges(&mut driver, &mut ready)[0].token, new);
    let fd = a.as_raw_fd();
    drop(a);
    driver.deregister_edge(fd, new).unwrap();
}

#[test]
fn a_rust_source_wakes_its_future_without_a_second_read() {
    let (mut driver, mut ready) = setup();
    let handle = driver.handle();
    let (a, mut b) = pair();
    let (got, reads) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0)));
    let (got2, reads2) = (Rc::clone(&got), Rc::clone(&reads));
    let mut a = mio::net::UnixStream::from_std(a);
    let registration = handle.register(&mut a).unwrap();
    handle.spawn(async move {
        loop {
            poll_fn(|cx| registration.poll_read_ready(cx)).await;
            let mut buf = [0; 64];
            reads2.set(reads2.get() + 1);
            match a.read(&mut buf) {
                Ok(0) => break,
                Ok(n) => {
                    got2.borrow_mut().extend_from_slice(&buf[..n]);
                    registration.clear_read_ready();
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => registration.clear_read_ready(),
                Err(e) => panic!("{e}"),
            }
        }
    });
    driver.turn(NOW, &mut ready).unwrap();
    assert_eq!(reads.get(), 1, "a fresh source is tried");
    b.write_all(b"hello").unwrap();
    driver.turn(LONG, &mut ready).unwrap();
    assert_eq!((&got.borrow()[..], reads.get()), (&b"hello"[..], 2));
    b.write_all(b" end").unwrap();
    drop(b);
    // Data and close in one edge: the close must not be missed.
    driver.turn(LONG, &mut ready).unwrap();
    assert_eq!((&got.borrow()[..], reads.get()), (&b"hello end"[..], 4));
    assert_eq!(handle.futures(), 0);
}

#[test]
fn sleeps_end_in_order_and_bound_the_turn() {
    let (mut driver, mut ready) = setup();
    let handle = driver.handle();
    let start = clock::now();
    let order = Rc::new(RefCell::new(Vec::new()));
    for (name, delay) in [('c', 30), ('a', 10), ('b', 20)] {
        let (order, sleep) = (Rc::clone(&order), handle.sleep_until(start + delay * MS));
        handle.spawn(async move {
            sleep.await;
            order.borrow_mut().push(name);
        });
    }
    let mut turns = 0;
    while handle.futures() > 0 {
        driver.turn(None, &mut ready).unwrap();
        turns += 1;
    }
    assert_eq!(order.borrow().iter().collect::<String>(), "abc");
    assert!(clock::now() - start >= 30 * MS);
    assert!(turns <= 8, "{turns} turns: the loop slept in between");
}

#[test]
fn a_reset_or_dropped_sleep_leaves_no_timer() {
    let (mut driver, mut ready) = setup();
    let handle = driver.handle();
    let far = clock::now() + 3600 * clock::SECOND;
    let done = Rc::new(Cell::new(false));
    let flag = Rc::clone(&done);
    let (mut sleep, mut dropped) = (handle.sleep_until(far), handle.sleep_until(far));
    handle.spawn(async move {
        poll_fn(|cx| {
            assert!(Pin::new(&mut sleep).poll(cx).is_pending());
            assert!(Pin::new(&mut dropped).poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        drop(dropped);
        sleep.reset(clock::now() + MS);
        sleep.await;
        flag.set(true);
    });
    while !done.get() {
        driver.turn(LONG, &mut ready).unwrap();
    }
    assert_eq!(handle.futures(), 0);
    let before = clock::now();
    driver
        .turn(Some(Duration::from_millis(1)), &mut ready)
        .unwrap();
    assert!(clock::now() - before >= MS, "no timer cuts the turn short");
}

#[test]
fn a_future_woken_by_another_thread_ends_the_sleep() {
    let (mut driver, mut ready) = setup();
    let handle = driver.handle();
    let (tx, rx) = std::sync::mpsc::channel::<Waker>();
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = std::sync::Arc::clone(&done);
    handle.spawn(poll_fn(move |cx: &mut Context<'_>| {
        if seen.load(std::sync::atomic::Ordering::Acquire) {
            return Poll::Ready(());
        }
        tx.send(cx.waker().clone()).unwrap();
        Poll::Pending
    }));
    let thread = std::thread::spawn(move || {
        let waker = rx.recv().unwrap();
        done.store(true, std::sync::atomic::Ordering::Release);
        waker.wake();
    });
    while handle.futures() > 0 {
        driver.turn(None, &mut ready).unwrap();
    }
    thread.join().unwrap();
}

#[test]
fn own_wake_ups_cost_no_system_call_and_no_empty_turn() {
    let (mut driver, mut ready) = setup();
    let handle = driver.handle();
    let slot: Rc<RefCell<Option<Waker>>> = Rc::default();
    let (theirs, polls) = (Rc::clone(&slot), Rc::new(Cell::new(0)));
    let count = Rc::clone(&polls);
    handle.spawn(poll_fn(move |cx| {
        count.set(count.get() + 1);
        *theirs.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }));
    driver.turn(NOW, &mut ready).unwrap();
    slot.borrow().as_ref().unwrap().wake_by_ref();
    slot.borrow().as_ref().unwrap().wake_by_ref();
    assert!(driver.has_woken());
    assert!(!driver.run_futures());
    assert_eq!(polls.get(), 2, "two wake-ups, one poll");
    assert_eq!(driver.waker().writes(), 0);
    let before = clock::now();
    driver
        .turn(Some(Duration::from_millis(5)), &mut ready)
        .unwrap();
    assert!(clock::now() - before >= 5 * MS, "the turn really slept");
}

#[test]
fn a_panic_is_reported_and_stays_within_its_future() {
    let (mut driver, mut ready) = setup();
    let handle = driver.handle();
    let told = Rc::new(RefCell::new(Vec::new()));
    let hook = Rc::clone(&told);
    handle.set_panic_hook(Box::new(move |payload| {
        let text = payload.downcast_ref::<&str>().copied().unwrap_or("?");
        hook.borrow_mut().push(text.to_owned());
    }));
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }
    std::panic::set_hook(Box::new(|_| {}));
    handle.spawn(async { panic!("in poll") });
    let bomb = Bomb;
    handle.spawn(async move {
        let _bomb = bomb;
        std::future::pending::<()>().await;
    });
    let after = Rc::new(Cell::new(false));
    let flag = Rc::clone(&after);
    handle.spawn(async move { flag.set(true) });
    driver.turn(NOW, &mut ready).unwrap();
    assert!(after.get());
    drop(driver);
    assert_eq!(*told.borrow(), ["in poll", "in drop"]);
}

#[test]
fn a_future_that_never_rests_does_not_starve_the_turn() {
    let (mut driver, mut ready) = setup();
    let handle = driver.handle();
    handle.spawn(poll_fn(|cx| {
        cx.waker().wake_by_ref();
        Poll::<()>::Pending
    }));
    let (mut a, b) = pair();
    a.write_all(b"x").unwrap();
    driver.watch_fd(b.as_raw_fd(), true, false).unwrap();
    driver.turn(None, &mut ready).unwrap();
    assert_eq!(ready.fds.len(), 1);
    assert!(driver.run_futures(), "it still waits for its next poll");
}

#[test]
fn a_future_that_gives_way_is_polled_once_a_turn() {
    let (mut driver, mut ready) = setup();
    let handle = driver.handle();
    let polls = Rc::new(Cell::new(0));
    let count = Rc::clone(&polls);
    let ours = handle.clone();
    handle.spawn(poll_fn(move |cx| {
        count.set(count.get() + 1);
        if count.get() < 4 {
            ours.wake_next_turn(cx.waker());
        }
        Poll::<()>::Pending
    }));
    for turn in 1..=4 {
        // Without a future to wake, this would wait for ever.
        driver.turn(None, &mut ready).unwrap();
        assert_eq!(polls.get(), turn);
        assert_eq!(driver.has_woken(), turn < 4);
        assert!(!driver.run_futures());
        assert_eq!(polls.get(), turn);
    }
}

#[test]
fn dropping_the_driver_drops_futures_that_spawn_in_their_drop() {
    struct Spawner(rondel_core::driver::Handle, Rc<Cell<u32>>);
    impl Drop for Spawner {
        fn drop(&mut self) {
            self.1.set(self.1.get() + 1);
            let dropped = Rc::clone(&self.1);
            struct Count(Rc<Cell<u32>>);
            impl Drop for Count {
                fn drop(&mut self) {
                    self.0.set(self.0.get() + 1);
                }
            }
            let count = Count(dropped);
            self.0.spawn(async move {
                let _count = count;
                std::future::pending::<()>().await;
            });
        }
    }
    let (mut driver, mut ready) = setup();
    let drops = Rc::new(Cell::new(0));
    let spawner = Spawner(driver.handle(), Rc::clone(&drops));
    let sleep = driver.handle().sleep_until(u64::MAX);
    driver.handle().spawn(async move {
        let _spawner = spawner;
        sleep.await;
    });
    driver.turn(NOW, &mut ready).unwrap();
    assert_eq!(drops.get(), 0);
    drop(driver);
    assert_eq!(drops.get(), 2);
}
