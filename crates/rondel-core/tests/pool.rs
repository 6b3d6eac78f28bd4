//! The pool of threads: where jobs run, in which order, and how many at once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod plain;

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use plain::{PATIENCE, Plain, Threads, gate, job, next, paced, wait_for};
use rondel_core::pool::{Pool, TICK, Turn};

#[test]
fn every_job_runs_once_and_close_waits_for_none_but_loses_none() {
    let plain = Plain::new(3);
    let (tell, told) = channel();
    for i in 0..1000 {
        let tell = tell.clone();
        plain
            .pool
            .submit(job(move |_| tell.send(i).unwrap()))
            .unwrap();
    }
    plain.end();
    let mut seen: Vec<i32> = told.try_iter().collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..1000).collect::<Vec<_>>());
}

#[test]
fn a_closed_pool_gives_the_job_back() {
    let plain = Plain::new(1);
    let pin = plain.pool.pin();
    plain.pool.close();
    assert!(plain.pool.submit(job(|_| {})).is_err());
    assert!(pin.submit(job(|_| {})).is_err());
    plain.end();
}

#[test]
fn never_more_threads_than_the_limit() {
    let plain = Plain::new(2);
    let (began, begins) = channel();
    let gates: Vec<_> = (0..5).map(|_| gate(&began)).collect();
    let mut opens = Vec::new();
    for (work, open) in gates {
        plain.pool.submit(work).unwrap();
        opens.push(open);
    }
    let mut threads = vec![next(&begins), next(&begins)];
    assert_eq!(plain.pool.stats().queued, 3);
    opens.iter().for_each(|open| open.send(()).unwrap());
    threads.extend((0..3).map(|_| next(&begins)));
    assert!(threads.iter().all(|&t| t < 2), "{threads:?}");
    assert_eq!(plain.pool.stats().threads, 2);
    plain.end();
}

#[test]
fn the_thread_that_went_idle_last_runs_next() {
    let plain = Plain::new(3);
    let (began, begins) = channel();
    let (first, open_first) = gate(&began);
    let (second, open_second) = gate(&began);
    plain.pool.submit(first).unwrap();
    let a = next(&begins);
    plain.pool.submit(second).unwrap();
    let b = next(&begins);
    assert_ne!(a, b);
    open_second.send(()).unwrap();
    wait_for(&plain.pool, |stats| stats.busy == 1);
    open_first.send(()).unwrap();
    wait_for(&plain.pool, |stats| stats.busy == 0);
    // Busy ends a moment before the thread is idle: the job may be taken by either then, so ask
    // until the order shows.
    let (third, open_third) = gate(&began);
    plain.pool.submit(third).unwrap();
    let c = next(&begins);
    open_third.send(()).unwrap();
    assert!(c == a || c == b, "no third thread while two are idle");
    plain.end();
}

#[test]
fn the_jobs_of_a_pin_run_on_one_thread_in_order() {
    let plain = Plain::new(4);
    let pin = plain.pool.pin();
    assert_eq!(pin.thread(), None);
    let (tell, told) = channel();
    for i in 0..200 {
        let theirs = tell.clone();
        let work = job(move |turn| theirs.send((i, turn.thread())).unwrap());
        pin.submit(work).unwrap();
        plain.pool.submit(job(|_| {})).unwrap();
    }
    assert!(pin.thread().is_some());
    let seen: Vec<_> = (0..200).map(|_| next(&told)).collect();
    assert!(seen.iter().map(|s| s.0).eq(0..200));
    assert!(seen.iter().all(|s| s.1 == seen[0].1));
    plain.end();
}

#[test]
fn pins_spread_over_the_threads_before_they_share_one() {
    let plain = Plain::new(2);
    let (began, begins) = channel();
    let pins: Vec<_> = (0..3).map(|_| plain.pool.pin()).collect();
    let mut opens = Vec::new();
    for pin in &pins[..2] {
        let (work, open) = gate(&began);
        pin.submit(work).unwrap();
        opens.push(open);
    }
    let threads = [next(&begins), next(&begins)];
    assert_ne!(threads[0], threads[1]);
    let (work, open) = gate(&began);
    pins[2].submit(work).unwrap();
    opens.iter().for_each(|open| open.send(()).unwrap());
    assert!(threads.contains(&next(&begins)));
    open.send(()).unwrap();
    plain.end();
}

#[test]
fn a_pin_beside_a_thread_gets_another_one() {
    let plain = Plain::new(2);
    let (tell, told) = channel();
    let on = |pin: &rondel_core::pool::Pin| {
        let tell = tell.clone();
        pin.submit(job(move |turn| tell.send(turn.thread()).unwrap()))
            .unwrap();
        next(&told)
    };
    let first = plain.pool.pin();
    let its = on(&first);
    let second = plain.pool.pin_beside(first.thread());
    drop(first);
    wait_for(&plain.pool, |stats| stats.busy == 0);
    assert_ne!(on(&second), its);
    plain.end();
}

#[test]
fn a_thread_that_is_held_runs_nobody_elses_jobs() {
    let plain = Plain::new(1);
    let (tell, told) = channel();
    let say = |what: &'static str, hold: bool| {
        let tell = tell.clone();
        job(move |turn: &mut Turn| {
            turn.hold(hold);
            tell.send(what).unwrap();
        })
    };
    let (holder, other) = (plain.pool.pin(), plain.pool.pin());
    holder.submit(say("begin", true)).unwrap();
    assert_eq!(next(&told), "begin");
    other.submit(say("other", false)).unwrap();
    plain.pool.submit(say("unpinned", false)).unwrap();
    holder.submit(say("middle", true)).unwrap();
    holder.submit(say("end", false)).unwrap();
    let order: Vec<_> = (0..4).map(|_| next(&told)).collect();
    assert_eq!(order[..2], ["middle", "end"]);
    assert!(order[2..].contains(&"other") && order[2..].contains(&"unpinned"));
    plain.end();
}

#[test]
fn a_pin_that_is_dropped_lets_go() {
    let plain = Plain::new(1);
    let (tell, told) = channel();
    let (holder, other) = (plain.pool.pin(), plain.pool.pin());
    let begun = tell.clone();
    let hold = move |turn: &mut Turn| {
        turn.hold(true);
        begun.send("held").unwrap();
    };
    holder.submit(job(hold)).unwrap();
    assert_eq!(next(&told), "held");
    other
        .submit(job(move |_| tell.send("other").unwrap()))
        .unwrap();
    drop(holder);
    assert_eq!(next(&told), "other");
    plain.end();
}

#[test]
fn a_dropped_pin_lets_jobs_without_a_pin_go_on() {
    let plain = Plain::new(1);
    let (tell, told) = channel();
    let holder = plain.pool.pin();
    let begun = tell.clone();
    let hold = move |turn: &mut Turn| {
        turn.hold(true);
        begun.send("held").unwrap();
    };
    holder.submit(job(hold)).unwrap();
    assert_eq!(next(&told), "held");
    wait_for(&plain.pool, |stats| stats.busy == 0);
    let work = job(move |_| tell.send("unpinned").unwrap());
    plain.pool.submit(work).unwrap();
    drop(holder);
    assert_eq!(next(&told), "unpinned");
    plain.end();
}

#[test]
fn a_job_that_panics_ends_nothing_but_itself() {
    let plain = Plain::new(1);
    let (tell, told) = channel();
    plain.pool.submit(job(|_| panic!("on purpose"))).unwrap();
    plain
        .pool
        .submit(job(move |_| tell.send(()).unwrap()))
        .unwrap();
    next(&told);
    plain.end();
}

#[test]
fn jobs_are_dropped_when_no_thread_can_be_started_and_the_next_tries_again() {
    let tries = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&tries);
    let pool = Pool::new(2, move |seat| {
        noted.lock().unwrap().push(seat);
        false
    });
    let (tell, told) = channel::<()>();
    let theirs = tell.clone();
    pool.submit(job(move |_| theirs.send(()).unwrap())).unwrap();
    pool.pin()
        .submit(job(move |_| tell.send(()).unwrap()))
        .unwrap();
    // Both senders are gone: who waits for them can be told.
    assert!(told.recv_timeout(PATIENCE).is_err());
    assert_eq!(*tries.lock().unwrap(), [0, 0]);
    let stats = pool.stats();
    assert_eq!((stats.threads, stats.queued), (0, 0));
}

/// Threads of which the first starts and no other.
fn only_one_thread() -> Plain {
    let threads: Threads = Arc::default();
    let place: Arc<Mutex<Option<Pool>>> = Arc::default();
    let (started, theirs) = (Arc::clone(&threads), Arc::clone(&place));
    let pool = Pool::new(2, move |seat| {
        if !started.lock().unwrap().is_empty() {
            return false;
        }
        let pool = theirs.lock().unwrap().clone().unwrap();
        started
            .lock()
            .unwrap()
            .push(thread::spawn(move || pool.work(seat, |next| next())));
        true
    });
    *place.lock().unwrap() = Some(pool.clone());
    pool.set_alarm(None);
    Plain { pool, threads }
}

#[test]
fn a_pins_jobs_go_to_whoever_runs_when_its_thread_cannot_be_started() {
    let plain = only_one_thread();
    let (began, begins) = channel();
    let (work, open) = gate(&began);
    plain.pool.submit(work).unwrap();
    let only = next(&begins);
    let (tell, told) = channel();
    let pin = plain.pool.pin();
    for n in 0..3 {
        let tell = tell.clone();
        let say = move |turn: &mut Turn| tell.send((n, turn.thread())).unwrap();
        pin.submit(job(say)).unwrap();
    }
    open.send(()).unwrap();
    let order: Vec<_> = (0..3).map(|_| next(&told)).collect();
    assert_eq!(order, [(0, only), (1, only), (2, only)]);
    assert_eq!(pin.thread(), Some(only));
    plain.end();
}

/// Two threads at work, each until its sender is used; by thread.
fn two_at_work(plain: &Plain) -> [Sender<()>; 2] {
    let (began, begins) = channel();
    let mut opens: Vec<_> = (0..2)
        .map(|_| {
            let (work, open) = gate(&began);
            plain.pool.submit(work).unwrap();
            (next(&begins), open)
        })
        .collect();
    opens.sort_by_key(|(thread, _)| *thread);
    let [(0, first), (1, second)] = <[_; 2]>::try_from(opens).unwrap() else {
        panic!("two threads");
    };
    [first, second]
}

#[test]
fn a_pin_that_finds_all_threads_at_work_gets_the_first_that_is_free() {
    for free in [0, 1] {
        let plain = Plain::new(2);
        let opens = two_at_work(&plain);
        let (tell, told) = channel();
        let pin = plain.pool.pin();
        for n in 0..3 {
            let tell = tell.clone();
            let say = move |turn: &mut Turn| tell.send((n, turn.thread())).unwrap();
            pin.submit(job(say)).unwrap();
        }
        assert_eq!(pin.thread(), None);
        // The other one stays at work all the time.
        opens[free].send(()).unwrap();
        let order: Vec<_> = (0..3).map(|_| next(&told)).collect();
        assert_eq!(order, [(0, free), (1, free), (2, free)]);
        opens[1 - free].send(()).unwrap();
        plain.end();
    }
}

#[test]
fn a_pin_beside_a_busy_thread_waits_for_another_one() {
    let plain = Plain::new(2);
    let opens = two_at_work(&plain);
    let (tell, told) = channel();
    let pin = plain.pool.pin_beside(Some(0));
    let mine = tell.clone();
    let say = move |turn: &mut Turn| mine.send(turn.thread()).unwrap();
    pin.submit(job(say)).unwrap();
    opens[0].send(()).unwrap();
    // Thread 0 is free for others, and takes nothing of the pin's.
    let say = move |turn: &mut Turn| tell.send(turn.thread()).unwrap();
    plain.pool.submit(job(say)).unwrap();
    assert_eq!(next(&told), 0);
    opens[1].send(()).unwrap();
    assert_eq!(next(&told), 1);
    plain.end();
}

#[test]
fn jobs_of_a_pin_that_is_dropped_before_it_has_a_thread_are_run() {
    let plain = Plain::new(2);
    let opens = two_at_work(&plain);
    let (tell, told) = channel();
    let pin = plain.pool.pin();
    pin.submit(job(move |_| tell.send(()).unwrap())).unwrap();
    drop(pin);
    opens[1].send(()).unwrap();
    next(&told);
    opens[0].send(()).unwrap();
    plain.end();
}

#[test]
fn one_thread_runs_until_those_at_work_are_found_blocked() {
    let (plain, rung) = paced(4);
    let (began, begins) = channel();
    let (first, open_first) = gate(&began);
    let (second, open_second) = gate(&began);
    plain.pool.submit(first).unwrap();
    next(&begins);
    assert!(rung.try_recv().is_err(), "nothing waits: nobody need look");
    plain.pool.submit(second).unwrap();
    next(&rung);
    assert_eq!(plain.pool.stats().wanted, 1);
    // The first waits for its gate and uses no processor: a further thread is of use.
    let end = std::time::Instant::now() + PATIENCE;
    while plain.pool.stats().busy < 2 {
        assert!(std::time::Instant::now() < end, "{:?}", plain.pool.stats());
        thread::sleep(Duration::from_millis(1));
        plain.pool.tick();
    }
    next(&begins);
    open_first.send(()).unwrap();
    open_second.send(()).unwrap();
    wait_for(&plain.pool, |stats| stats.busy == 0);
    assert_eq!(
        plain.pool.tick(),
        None,
        "nothing runs: nobody need look again"
    );
    plain.end();
}

/// A look wakes the thread that looks.
#[test]
fn looks_that_change_nothing_get_rarer() {
    // A pool of one has nothing to decide; one of two may have.
    for (threads, rarest) in [(1, 16), (2, 4)] {
        let (plain, rung) = paced(threads);
        let (began, begins) = channel();
        let gates: Vec<_> = (0..=threads).map(|_| gate(&began)).collect();
        let mut doors = Vec::new();
        for (job, door) in gates {
            plain.pool.submit(job).unwrap();
            doors.push(door);
        }
        next(&begins);
        next(&rung);
        let mut asked_for = Vec::new();
        let end = std::time::Instant::now() + PATIENCE;
        while asked_for.last() != Some(&rarest) {
            assert!(std::time::Instant::now() < end, "{asked_for:?}");
            thread::sleep(Duration::from_millis(1));
            asked_for.push(plain.pool.tick().unwrap() / TICK);
        }
        let changed = plain.pool.stats().wanted - 1;
        assert_eq!(changed, threads - 1, "all threads are blocked");
        assert!(
            asked_for
                .windows(2)
                .all(|two| two[1] == 1 || two[1] == two[0] * 2),
            "{asked_for:?}"
        );
        assert_eq!(asked_for.first(), Some(&if threads == 1 { 2 } else { 1 }));
        for door in doors {
            door.send(()).unwrap();
        }
        wait_for(&plain.pool, |stats| stats.busy == 0);
        assert_eq!(plain.pool.tick(), None);
        plain.end();
    }
}

/// One whose wake-up is late is run all the same: the thread looks for itself.
#[test]
fn a_late_wake_up_is_not_waited_for() {
    let plain = Plain::new(1);
    let (done, finished) = channel();
    for round in 0..20 {
        let done = done.clone();
        let submitted = plain
            .pool
            .submit_late(job(move |_| done.send(round).unwrap()));
        // Kept until the job has run: nobody has woken the thread.
        let late = submitted.unwrap();
        assert_eq!(next(&finished), round);
        drop(late);
    }
    plain.end();
}

#[test]
fn a_thread_that_has_been_idle_for_long_is_woken_at_once() {
    let plain = Plain::new(1);
    let (done, finished) = channel();
    let theirs = done.clone();
    plain
        .pool
        .submit(job(move |_| theirs.send(()).unwrap()))
        .unwrap();
    next(&finished);
    // Longer than a thread that has just been at work looks for itself.
    thread::sleep(Duration::from_millis(50));
    let submitted = plain.pool.submit_late(job(move |_| done.send(()).unwrap()));
    let late = submitted.unwrap();
    assert!(late.is_none());
    next(&finished);
    plain.end();
}

/// A thread that takes job after job by itself tells the loop once it can be found idle.
#[test]
fn a_loop_is_told_when_the_thread_is_idle() {
    let pool = Pool::new(1, |_seat| true);
    pool.set_alarm(None);
    let (done, finished) = channel();
    pool.submit(job(move |_| done.send(()).unwrap())).unwrap();
    let mut driver = rondel_core::driver::Driver::new().unwrap();
    let (waker, theirs) = (driver.waker(), pool.clone());
    let worker = thread::spawn(move || {
        let mut turn = Turn::new(0);
        let job = theirs.next(&mut turn).unwrap();
        job(&mut turn);
        turn.tell(&waker);
        assert!(theirs.next(&mut turn).is_none());
    });
    next(&finished);
    let mut ready = rondel_core::driver::Ready::default();
    driver.turn(Some(PATIENCE), &mut ready).unwrap();
    assert_eq!(pool.stats().busy, 0);
    pool.close();
    worker.join().unwrap();
}

#[test]
fn what_is_withdrawn_is_not_run() {
    let plain = Plain::new(1);
    let (began, begun) = channel();
    let (first, open) = gate(&began);
    plain.pool.submit(first).unwrap();
    next(&begun);
    let (done, finished) = channel();
    plain
        .pool
        .submit(job(move |_| done.send(()).unwrap()))
        .unwrap();
    assert_eq!(plain.pool.withdraw().len(), 1);
    open.send(()).unwrap();
    plain.end();
    assert!(finished.recv().is_err());
}

/// Where jobs are quick, two threads would only take turns with what all need.
#[test]
fn a_second_thread_is_left_alone_while_the_first_is_quick() {
    let started: Arc<Mutex<Vec<usize>>> = Arc::default();
    let theirs = Arc::clone(&started);
    // The threads are the test's own one.
    let pool = Pool::new(4, move |seat| {
        theirs.lock().unwrap().push(seat);
        true
    });
    let count = || started.lock().unwrap().len();
    pool.set_alarm(Some(Arc::new(|| {})));
    let mut turn = Turn::new(0);
    let mut quick = |many: usize| {
        for _ in 0..many {
            pool.submit(job(|_| {})).unwrap();
            let next = pool.next_at_once(&mut turn);
            next.or_else(|| pool.next(&mut turn)).unwrap()(&mut turn);
        }
    };
    let end = std::time::Instant::now() + PATIENCE;
    let idle_until = |done: &dyn Fn() -> bool, busy: &mut dyn FnMut()| {
        while !done() {
            assert!(std::time::Instant::now() < end, "{:?}", pool.stats());
            busy();
            thread::sleep(Duration::from_millis(2));
            pool.tick();
        }
    };
    // One more job than it runs: others always wait.
    pool.submit(job(|_| {})).unwrap();
    pool.submit(job(|_| {})).unwrap();
    // It stands still at its last job: a second thread is of use, though its jobs were quick.
    idle_until(&|| count() == 2, &mut || quick(40));
    // That one was woken, and has not come yet: whatever waits, no third is.
    for _ in 0..10 {
        pool.submit(job(|_| {})).unwrap();
        thread::sleep(Duration::from_millis(2));
        pool.tick();
    }
    assert_eq!(*started.lock().unwrap(), [0, 1]);
    // It has come, and stands still, too.
    let (theirs, (leave, left)) = (pool.clone(), channel::<()>());
    let second = thread::spawn(move || {
        let job = theirs.next(&mut Turn::new(1));
        let _gone = left.recv_timeout(PATIENCE);
        drop(job);
    });
    idle_until(&|| count() >= 3, &mut || {});
    drop(leave);
    second.join().unwrap();
}
