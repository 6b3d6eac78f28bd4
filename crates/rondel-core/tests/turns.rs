//! Turns of pins: whose calls run while enough threads are at work.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod plain;

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use std::{iter, thread};

use plain::{PATIENCE, Plain, gate, job, next, paced};
use rondel_core::pool::Pin;

/// A paced pool whose threads have a pin each, and are idle.
fn pins(count: usize) -> (Plain, Vec<Pin>, Receiver<()>) {
    let (plain, rung) = paced(count);
    let (began, begins) = channel();
    let mut pins = Vec::new();
    for _ in 0..count {
        let pin = plain.pool.pin();
        let (work, open) = gate(&began);
        pin.submit(work).unwrap();
        next(&begins);
        pins.push((pin, open));
    }
    let pins = pins.into_iter().map(|(pin, open)| {
        open.send(()).unwrap();
        pin
    });
    let pins: Vec<_> = pins.collect();
    let idle = || plain.pool.stats().busy == 0 && plain.pool.tick().is_none();
    let end = Instant::now() + PATIENCE;
    while !idle() {
        assert!(Instant::now() < end, "{:?}", plain.pool.stats());
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(plain.pool.stats().wanted, 1);
    while rung.try_recv().is_ok() {}
    (plain, pins, rung)
}

#[test]
fn a_pin_waits_while_enough_are_at_work_and_has_its_turn_when_they_are_done() {
    let (plain, pins, rung) = pins(2);
    let (began, begins) = channel();
    let (first, open_first) = gate(&began);
    let (second, open_second) = gate(&began);
    pins[0].submit(first).unwrap();
    let at_first = next(&begins);
    pins[1].submit(second).unwrap();
    next(&rung);
    assert_eq!(plain.pool.stats().busy, 1);
    open_first.send(()).unwrap();
    assert_ne!(next(&begins), at_first, "it has a thread of its own");
    open_second.send(()).unwrap();
    plain.end();
}

/// As one call may wait for what another does.
#[test]
fn a_pin_does_not_wait_for_one_that_is_blocked() {
    let (plain, pins, rung) = pins(3);
    let (began, begins) = channel();
    let mut opens = Vec::new();
    for pin in &pins {
        let (work, open) = gate(&began);
        pin.submit(work).unwrap();
        opens.push(open);
    }
    next(&rung);
    let end = Instant::now() + PATIENCE;
    while plain.pool.stats().busy < 3 {
        assert!(Instant::now() < end, "{:?}", plain.pool.stats());
        thread::sleep(Duration::from_millis(1));
        plain.pool.tick();
    }
    for _ in 0..3 {
        next(&begins);
    }
    opens.into_iter().for_each(|open| open.send(()).unwrap());
    plain.end();
}

#[test]
fn a_thread_with_much_to_do_makes_room_for_one_that_waits() {
    let (plain, pins, _rung) = pins(2);
    let (tell, told) = channel();
    let (began, begins) = channel();
    let (first, open_first) = gate(&began);
    pins[0].submit(first).unwrap();
    next(&begins);
    let many = 200;
    for pin in iter::repeat_n(&pins[0], many).chain([&pins[1]]) {
        let tell = tell.clone();
        pin.submit(job(move |turn| {
            let end = Instant::now() + Duration::from_millis(1);
            while Instant::now() < end {}
            tell.send(turn.thread()).unwrap();
        }))
        .unwrap();
    }
    open_first.send(()).unwrap();
    let order: Vec<usize> = (0..=many).map(|_| next(&told)).collect();
    let other = order.iter().filter(|&&thread| thread != order[0]).count();
    assert_eq!(other, 1);
    let at = order.iter().position(|&thread| thread != order[0]).unwrap();
    assert!(at < many / 2, "it was the {at}th");
    plain.end();
}

/// Whoever waits for its turn is run when the pool is closed, or is paced no more.
#[test]
fn nothing_that_waits_is_forgotten() {
    for close in [true, false] {
        let (plain, pins, _rung) = pins(3);
        let (began, begins) = channel();
        let (first, open_first) = gate(&began);
        pins[0].submit(first).unwrap();
        next(&begins);
        let (tell, told) = channel();
        for pin in &pins[1..] {
            let tell = tell.clone();
            pin.submit(job(move |_| tell.send(()).unwrap())).unwrap();
        }
        if close {
            plain.pool.close();
        } else {
            plain.pool.set_alarm(None);
        }
        next(&told);
        next(&told);
        open_first.send(()).unwrap();
        plain.end();
    }
}
