//! A listening socket in the epoll of two drivers, as if they were two processes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::future::poll_fn;
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use rondel_core::driver::{Driver, Ready};
use rondel_core::sharing::SharedListener;

const NOW: Option<Duration> = Some(Duration::ZERO);

/// A driver that waits for the listener's turn; counts how often it has come.
struct Process {
    driver: Driver,
    ready: Ready,
    turns: Rc<Cell<u32>>,
    listener: Rc<SharedListener>,
}

impl Process {
    fn new(listener: &TcpListener) -> Self {
        let driver = Driver::new().unwrap();
        let shared = Rc::new(driver.handle().share(listener).unwrap());
        shared.resume().unwrap();
        let turns = Rc::new(Cell::new(0));
        let (count, waiting) = (Rc::clone(&turns), Rc::clone(&shared));
        driver.handle().spawn(async move {
            loop {
                poll_fn(|cx| waiting.poll_ready(cx)).await;
                waiting.missed();
                count.set(count.get() + 1);
            }
        });
        let ready = Ready::default();
        let mut process = Process {
            driver,
            ready,
            turns,
            listener: shared,
        };
        process.turn();
        process
    }

    /// How often its turn has come within one turn of its loop.
    fn turn(&mut self) -> u32 {
        let before = self.turns.get();
        self.driver.turn(NOW, &mut self.ready).unwrap();
        self.driver.run_futures();
        self.turns.get() - before
    }
}

fn listening() -> (TcpListener, impl Fn() -> TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, move || TcpStream::connect(address).unwrap())
}

#[test]
fn what_is_left_is_reported_again() {
    let (listener, connect) = listening();
    let mut process = Process::new(&listener);
    assert_eq!(process.turn(), 0);
    let _client = connect();
    assert_eq!(process.turn(), 1);
    assert_eq!(process.turn(), 1, "nobody has accepted");
    listener.accept().unwrap();
    assert_eq!(process.turn(), 0);
}

#[test]
fn one_that_pauses_hears_nothing_until_it_resumes() {
    let (listener, connect) = listening();
    let (mut first, mut second) = (Process::new(&listener), Process::new(&listener));
    first.listener.pause().unwrap();
    let _client = connect();
    assert_eq!((first.turn(), second.turn()), (0, 1));
    first.listener.resume().unwrap();
    assert_eq!(first.turn(), 1, "what waits already is reported");
    first.listener.next_turn().unwrap();
    assert_eq!(first.turn(), 1);
}

#[test]
fn the_socket_leaves_epoll_although_others_hold_it_open() {
    let (listener, connect) = listening();
    let process = Process::new(&listener);
    process.listener.pause().unwrap();
    process.listener.pause().unwrap();
    let Process {
        mut driver,
        mut ready,
        listener: shared,
        ..
    } = process;
    drop(shared);
    let _client = connect();
    driver.turn(NOW, &mut ready).unwrap();
    assert!(ready.fds.is_empty() && ready.edges.is_empty());
}
