//! One poll: the system is asked for events, and what has come is put on the ready queue.
//!
//! ```text
//!  timeout 0, no future woken    the GIL is kept: giving it up and taking it back costs more
//!  else                          given up: `wait` polls Rust futures and passes on what threads
//!                                answer, however often, until there is something for Python
//!  then, with the GIL            requests enter, watchers, transports' and datagrams' readiness
//! ```
//!
//! The driver is borrowed and given back with the GIL held; between lie only Rust's own calls, so that
//! another thread that tries to poll finds it borrowed. No Python code runs while `doors` is borrowed.

use super::attention::reason;
use super::courtesy::Courtesy;
use super::turn::forks;
use super::{IoEvent, LoopBase, Ready, closed_error};
use crate::inspect::record;
use crate::server::Door;
use rondel_core::clock;
use rondel_core::driver::{self, Driver};
use rondel_ffi::err::{self, Builtin};
use rondel_ffi::{Inst, PyRes, gil, local};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Asks the system for events; blocks only when `idle`.
pub(super) fn poll(slf: Inst<'_, LoopBase>, idle: bool, ready: &mut driver::Ready) -> PyRes<()> {
    if slf.forks.get() != forks() {
        return Err(Builtin::Runtime.raise(
            "this event loop was running when the process forked, and the child shares its \
             descriptors with the parent: make a new loop in the child",
        ));
    }
    gil::release_orphans();
    if idle {
        slf.leave()?;
    }
    // What was freed by these may have scheduled something.
    let idle = idle && slf.ready.is_empty() && !slf.stopping.get();
    let timeout = if idle {
        let next = slf.timers.borrow_mut().next_deadline();
        if slf.is_virtual() {
            next.map(|_| Duration::ZERO)
        } else {
            next.map(|deadline| Duration::from_nanos(deadline.saturating_sub(clock::now())))
        }
    } else {
        Some(Duration::ZERO)
    };
    let Ok(mut driver) = slf.driver.try_borrow_mut() else {
        return Err(Builtin::Runtime.raise("the loop polls in another thread"));
    };
    let Some(active) = driver.as_mut() else {
        return Err(closed_error());
    };
    let doors = slf.doors.borrow();
    // Short polls keep the GIL: giving it up and taking it back costs more than the call.
    let short = timeout == Some(Duration::ZERO) && !active.has_woken();
    let polled = if short {
        let polled = active.turn(timeout, ready);
        take_answers(&doors);
        polled
    } else {
        slf.leave()?;
        // The GIL is not given up between the look at the ready queue and these.
        slf.called.store(false, Ordering::Relaxed);
        slf.woken.set(false);
        let called = &slf.called;
        let counters = &*slf.counters;
        counters.sleeps(clock::coarse);
        let late = slf.take_late();
        let recorded = record::on();
        if recorded {
            record::polls(false);
        }
        let courtesy = &slf.courtesy;
        courtesy.begin();
        let (polled, asked) = gil::detached(|| {
            drop(late);
            let polled = wait(active, &doors, called, courtesy, timeout, ready);
            courtesy.over();
            counters.wakes(clock::coarse);
            (polled, if courtesy.tries() { clock::now() } else { 0 })
        });
        courtesy.took(asked, clock::now);
        if recorded {
            record::polls(true);
        }
        polled
    };
    slf.attention.set(reason::RECORD, record::on());
    if slf.attention.has(reason::RECORD) {
        record::looks();
    }
    drop(driver);
    drop(doors);
    local::bury();
    polled.map_err(|e| err::raise_io(&e))?;
    enter_doors(slf)?;
    for event in &ready.fds {
        queue_watchers(slf, event);
    }
    slf.transports.borrow().fetch_ahead(&ready.edges);
    for event in &ready.edges {
        let transport = slf.transports.borrow().get(event.token).cloned();
        if let Some(transport) = transport {
            let read_closed = event.read_closed || event.error;
            let event = IoEvent {
                readable: event.readable || read_closed,
                writable: event.writable || event.error,
                read_closed,
            };
            slf.push(Ready::Io(transport, event));
        } else if !crate::net::sock::on_edge(slf, event)? {
            queue_datagrams(slf, event);
        }
    }
    if idle && slf.is_virtual() && slf.ready.is_empty() {
        slf.skip_to_next_timer();
    }
    err::check_signals()
}

/// What threads have answered goes out; whether there was something.
fn take_answers(doors: &[Rc<Door>]) -> bool {
    let mut some = false;
    for door in doors {
        some |= door.take_answers();
    }
    some
}

/// Waits, without the GIL, until there is something for Python: an event, a request for the
/// application, a call from another thread, the end of the timeout. Rust futures and what threads
/// answer are dealt with meanwhile, however often: for them the GIL is not taken, which threads full
/// of Python may hold for long. Only when much memory waits for the GIL to be released is it taken.
fn wait(
    driver: &mut Driver,
    doors: &[Rc<Door>],
    called: &AtomicBool,
    courtesy: &Courtesy,
    timeout: Option<Duration>,
    ready: &mut driver::Ready,
) -> io::Result<()> {
    let deadline = timeout.map(|timeout| clock::now().saturating_add(nanoseconds(timeout)));
    let arrived = || doors.iter().any(|door| door.has_arrivals());
    // Responses go out before the wait; what came in by that ends it.
    let woken = driver.has_woken() && driver.run_futures();
    let mut left = if woken || arrived() {
        Some(Duration::ZERO)
    } else {
        timeout
    };
    // Requests among what came in wait for no event.
    doors.iter().for_each(|door| door.send_off());
    loop {
        driver.turn(left, ready)?;
        while take_answers(doors) && driver.has_woken() {
            driver.run_futures();
        }
        // What the system has told must be dealt with before the next question.
        if !ready.is_empty() {
            return Ok(());
        }
        let wanted = arrived() || called.load(Ordering::Acquire) || gil::has_many_orphans();
        let now = clock::now();
        let until = match if wanted { Some(now) } else { deadline } {
            Some(due) if due <= now => match courtesy.until(now, || driver.waker()) {
                None => return Ok(()),
                until => until,
            },
            due => due,
        };
        left = until.map(|until| Duration::from_nanos(until.saturating_sub(now)));
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Lets each server's requests in.
fn enter_doors(slf: Inst<'_, LoopBase>) -> PyRes<()> {
    if slf.doors.borrow().iter().any(|door| door.has_arrivals()) {
        // A short poll keeps the last callback's context entered; a request has no part in that.
        slf.leave()?;
    }
    let mut i = 0;
    loop {
        let door = slf.doors.borrow().get(i).cloned();
        match door {
            None => return Ok(()),
            Some(door) if door.is_finished() => {
                let finished = slf.doors.borrow_mut().remove(i);
                drop(finished);
            }
            Some(door) => {
                door.enter(slf)?;
                i += 1;
            }
        }
    }
}

fn queue_datagrams(slf: Inst<'_, LoopBase>, event: &driver::EdgeEvent) {
    let transport = slf.datagrams.borrow().get(&event.token).cloned();
    if let Some(transport) = transport {
        let event = IoEvent {
            readable: event.readable || event.error,
            writable: event.writable || event.error,
            read_closed: false,
        };
        slf.push(Ready::Datagrams(transport, event));
    }
}

fn queue_watchers(slf: Inst<'_, LoopBase>, event: &driver::FdEvent) {
    let (reader, writer) = {
        let watches = slf.watches.borrow();
        let Some(watch) = watches.get(&event.fd) else {
            return;
        };
        (
            if event.readable {
                watch.reader.clone()
            } else {
                None
            },
            if event.writable {
                watch.writer.clone()
            } else {
                None
            },
        )
    };
    for handle in [reader, writer].into_iter().flatten() {
        slf.push(Ready::Run(handle));
    }
}
