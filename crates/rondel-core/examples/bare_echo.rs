//! An echo server that is epoll, `recv` and `send` and nothing else: the limit for the benchmarks.
//!
//! `cargo run --release -p rondel-core --example bare_echo -- tcp|udp` prints the port that it
//! took on 127.0.0.1, `... -- unix PATH` prints the path; it then echoes until it is killed.
//! One thread, edge-triggered; a `recv` that did not fill the buffer has emptied the socket.
//!
//! `... -- keep` is `tcp` for a program that keeps each message until the next, as `data = await
//! reader.read()` does: every message is received into memory of its own, so that with many connections
//! no cache has it. (Which memory is settled beforehand: nothing is allocated.)
//!
//! `... -- greet` greets each client with a byte and makes no other system call than accepting,
//! registering, reading and closing take: the limit for connections that come and go. `... -- guest PORT`
//! is such a client: for each line N of its standard input it connects N times, reads the byte, closes,
//! and prints the nanoseconds of CPU per connection.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::mem;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use mio::net::{TcpListener, UdpSocket, UnixListener};
use mio::{Events, Interest, Poll, Registry, Token};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::net::{self, AddressFamily, RecvFlags, SocketFlags, SocketType, sockopt};
use rustix::time::{ClockId, clock_gettime};

const ROOM: usize = 256 * 1024;
const LISTENER: Token = Token(usize::MAX - 1);

trait Stream: Read + Write + mio::event::Source {}
impl<T: Read + Write + mio::event::Source> Stream for T {}

struct Connection {
    stream: Box<dyn Stream>,
    /// What the socket did not take; nothing is read while there is any.
    unsent: Vec<u8>,
    /// The last read filled the buffer, or an edge came while `unsent` was not empty.
    more: bool,
    /// The message that is kept until the next.
    kept: Option<Vec<u8>>,
}

impl Connection {
    /// False when it is over.
    fn readable(&mut self, scratch: &mut Vec<u8>) -> io::Result<bool> {
        self.more = true;
        while self.more && self.unsent.is_empty() {
            match self.stream.read(scratch) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.more = count == scratch.len();
                    let sent = send(&mut *self.stream, &scratch[..count])?;
                    self.unsent.extend_from_slice(&scratch[sent..count]);
                    if let Some(kept) = &mut self.kept {
                        // The one before it is where the next connection's will be.
                        mem::swap(kept, scratch);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.more = false,
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn writable(&mut self, scratch: &mut Vec<u8>) -> io::Result<bool> {
        if self.unsent.is_empty() {
            return Ok(true);
        }
        let sent = send(&mut *self.stream, &self.unsent)?;
        self.unsent.drain(..sent);
        if self.unsent.is_empty() && self.more {
            return self.readable(scratch);
        }
        Ok(true)
    }
}

fn send(stream: &mut dyn Stream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn accept(&self, greeting: &[u8]) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp(listener) => {
                let (mut stream, _) = listener.accept()?;
                if greeting.is_empty() {
                    stream.set_nodelay(true)?;
                } else {
                    // A client that has reset the connection is seen by its event.
                    let _sent = stream.write(greeting);
                }
                Ok(Box::new(stream))
            }
            Self::Unix(listener) => Ok(Box::new(listener.accept()?.0)),
        }
    }

    fn register(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => registry.register(listener, LISTENER, Interest::READABLE),
            Self::Unix(listener) => registry.register(listener, LISTENER, Interest::READABLE),
        }
    }
}

fn serve_streams(mut listener: Listener, greeting: &[u8], keep: bool) -> io::Result<()> {
    let mut poll = Poll::new()?;
    listener.register(poll.registry())?;
    let mut connections: HashMap<Token, Connection> = HashMap::new();
    let mut next = 0;
    let mut scratch = vec![0; ROOM];
    let mut events = Events::with_capacity(1024);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                loop {
                    let mut stream = match listener.accept(greeting) {
                        Ok(stream) => stream,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    };
                    next += 1;
                    let both = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(next), both)?;
                    let connection = Connection {
                        stream,
                        unsent: Vec::new(),
                        more: false,
                        kept: keep.then(|| vec![0; ROOM]),
                    };
                    connections.insert(Token(next), connection);
                }
                continue;
            }
            let Some(connection) = connections.get_mut(&event.token()) else {
                continue;
            };
            let mut open = true;
            if event.is_readable() {
                open = connection.readable(&mut scratch).unwrap_or(false);
            }
            if open && event.is_writable() {
                open = connection.writable(&mut scratch).unwrap_or(false);
            }
            if !open {
                connections.remove(&event.token());
            }
        }
    }
}

fn serve_datagrams(mut socket: UdpSocket) -> io::Result<()> {
    let mut poll = Poll::new()?;
    poll.registry()
        .register(&mut socket, LISTENER, Interest::READABLE)?;
    let mut scratch = vec![0; ROOM];
    let mut events = Events::with_capacity(16);
    loop {
        poll.poll(&mut events, None)?;
        loop {
            let (count, peer) = match socket.recv_from(&mut scratch) {
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            // A full send buffer drops the datagram, as the network would.
            match socket.send_to(&scratch[..count], peer) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    }
}

/// Connects, reads a byte and closes, with no more system calls than a client takes that hears of its
/// connections by epoll.
fn visit(greeter: SocketAddr, poller: &OwnedFd) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    match net::connect(&socket, &greeter) {
        Err(rustix::io::Errno::INPROGRESS) | Ok(()) => {}
        Err(error) => return Err(error.into()),
    }
    sockopt::set_tcp_nodelay(&socket, true)?;
    // No event but what is to be read: a connection that failed is there to be read, too.
    let interest = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
    epoll::add(poller, &socket, epoll::EventData::new_u64(0), interest)?;
    let mut events = Vec::with_capacity(64);
    epoll::wait(poller, spare_capacity(&mut events), None)?;
    let mut room = Vec::with_capacity(1);
    net::recv(&socket, spare_capacity(&mut room), RecvFlags::empty())?;
    Ok(())
}

fn visit_often(greeter: SocketAddr) -> io::Result<()> {
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for line in io::stdin().lines() {
        let count: u32 = line?.trim().parse().map_err(io::Error::other)?;
        let start = processor_time();
        for _ in 0..count {
            visit(greeter, &poller)?;
        }
        println!("{}", (processor_time() - start) / f64::from(count));
    }
    Ok(())
}

/// Nanoseconds of this process.
fn processor_time() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 * 1e9 + spent.tv_nsec as f64
}

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let any = ([127, 0, 0, 1], 0).into();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [mode @ ("tcp" | "keep" | "greet")] => {
            let listener = TcpListener::bind(any)?;
            println!("{}", listener.local_addr()?.port());
            let greeting: &[u8] = if mode == "greet" { b"!" } else { b"" };
            serve_streams(Listener::Tcp(listener), greeting, mode == "keep")
        }
        ["unix", path] => {
            let listener = UnixListener::bind(path)?;
            println!("{path}");
            serve_streams(Listener::Unix(listener), b"", false)
        }
        ["guest", port] => {
            let port: u16 = port.parse().map_err(io::Error::other)?;
            visit_often(([127, 0, 0, 1], port).into())
        }
        ["udp"] => {
            let socket = UdpSocket::bind(any)?;
            println!("{}", socket.local_addr()?.port());
            serve_datagrams(socket)
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "usage: bare_echo tcp | keep | greet | guest PORT | udp | unix PATH",
        )),
    }
}
