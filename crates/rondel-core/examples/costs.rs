//! Nanoseconds per operation of the driver's parts: `cargo run --release --example costs`.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use rondel_core::clock::now;
use rondel_core::driver::{Driver, Ready};
use rondel_core::timers::Timers;

const N: u64 = 100_000;

/// The least of several rounds, per operation.
fn measure(name: &str, mut round: impl FnMut()) {
    let best = (0..15).map(|_| {
        let start = now();
        round();
        now() - start
    });
    let best = best.min().unwrap_or(0);
    println!("{name:44} {:8.1} ns", best as f64 / N as f64);
}

fn timers(name: &str, deadline: impl Fn(u64) -> u64) {
    let mut timers = Timers::new();
    measure(name, || {
        for i in 0..N {
            timers.insert(deadline(i), i);
        }
        while timers.pop_due(u64::MAX).is_some() {}
    });
}

fn main() -> std::io::Result<()> {
    timers("timer in and out, ascending", |i| i);
    timers("timer in and out, descending", |i| N - i);
    timers("timer in and out, random", |i| {
        i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20
    });
    let mut set = Timers::new();
    measure("timer in and cancelled", || {
        for i in 0..N {
            let key = set.insert(i, i);
            set.cancel(key);
        }
    });
    measure("clock", || {
        for _ in 0..N {
            std::hint::black_box(now());
        }
    });

    let (mut driver, mut ready) = (Driver::new()?, Ready::default());
    measure("empty turn", || {
        for _ in 0..N {
            let turned = driver.turn(Some(Duration::ZERO), &mut ready);
            debug_assert!(turned.is_ok());
        }
    });
    let polls = Rc::new(Cell::new(0));
    let count = Rc::clone(&polls);
    driver.handle().spawn(poll_fn(move |cx| {
        count.set(count.get() + 1);
        cx.waker().wake_by_ref();
        Poll::Pending
    }));
    measure("future woken and polled", || {
        let end = polls.get() + N;
        while polls.get() < end {
            driver.run_futures();
        }
    });
    Ok(())
}
