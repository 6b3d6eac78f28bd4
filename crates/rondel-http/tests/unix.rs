//! The same service over a Unix socket.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::time::Duration;

use rondel_core::driver::{Driver, Ready};
use rondel_http::http::HeaderMap;
use rondel_http::{Address, Config, Event, Exchange, Request, Server, Service};

struct Greeter(RefCell<Vec<Address>>);

impl Service for Greeter {
    fn call(&self, request: Request, exchange: Exchange) {
        let mut seen = self.0.borrow_mut();
        seen.extend([request.conn.local.clone(), request.conn.peer.clone()]);
        exchange.start(200, HeaderMap::new()).unwrap();
        exchange.send_chunk("hi".into(), false).unwrap();
    }

    fn notify(&self, _tag: u64, _event: Event) {}
}

#[test]
fn a_unix_socket_is_served_and_its_addresses_are_known() {
    let path = std::env::temp_dir().join(format!("rondel-http-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let mut driver = Driver::new().unwrap();
    let service = Rc::new(Greeter(RefCell::default()));
    let as_service = Rc::clone(&service) as Rc<dyn Service>;
    let server = Server::new(driver.handle(), as_service, Config::default());
    server.listen_unix(listener).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        .unwrap();
    let drained = Rc::new(RefCell::new(false));
    let (seen, watched) = (Rc::clone(&drained), server.clone());
    driver.handle().spawn(async move {
        watched.drained().await;
        *seen.borrow_mut() = true;
    });
    let mut ready = Ready::default();
    let patience = Some(Duration::from_secs(20));
    while server.served() == 0 {
        driver.turn(patience, &mut ready).unwrap();
    }
    server.graceful_shutdown(0);
    while !*drained.borrow() {
        driver.turn(patience, &mut ready).unwrap();
    }
    let mut reply = String::new();
    client.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.ends_with("\r\n\r\nhi"));
    assert_eq!(
        *service.0.borrow(),
        [Address::Unix(Some(path)), Address::Unix(None)]
    );
}
