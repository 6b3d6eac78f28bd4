//! One client of the inspector: a request in, an answer out, both bounded in size and time.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A request's bytes at most, its line's end included.
pub(super) const LONGEST: usize = 64 * 1024;

/// How long a client may take for its next request, to take the next bytes of an answer, and how long
/// an answer may take to be made.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Reading,
    /// The answer is being made.
    Waiting,
    Writing,
    Over,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: u64,
    pub(super) stream: UnixStream,
    pub(super) stage: Stage,
    pub(super) deadline: Instant,
    /// How long it may be silent after the answer to its last question, if not for [`PATIENCE`].
    pub(super) silent: Option<Duration>,
    /// Its end may be the end of something that it has begun.
    pub(super) holder: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
}

impl Client {
    pub(super) fn new(id: u64, stream: UnixStream) -> Client {
        Client {
            id,
            stream,
            stage: Stage::Reading,
            deadline: Instant::now() + PATIENCE,
            silent: None,
            holder: false,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
        }
    }

    /// Reads what is there; a whole request, if there is one.
    pub(super) fn read(&mut self) -> Option<Vec<u8>> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let rest = self.input.split_off(end + 1);
                let request = std::mem::replace(&mut self.input, rest);
                self.stage = Stage::Waiting;
                self.deadline = Instant::now() + PATIENCE;
                return Some(request);
            }
            if self.input.len() >= LONGEST {
                self.answer(error("too-long", "a request has at most 64 KiB"));
                // What follows is no request.
                self.input.clear();
                return None;
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => self.stage = Stage::Over,
                Ok(n) => {
                    self.input.extend_from_slice(&buffer[..n]);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => self.stage = Stage::Over,
            }
            return None;
        }
    }

    /// Starts to send an answer: one line.
    pub(super) fn answer(&mut self, answer: String) {
        self.output = answer.into_bytes();
        self.output.push(b'\n');
        self.written = 0;
        self.stage = Stage::Writing;
        self.deadline = Instant::now() + PATIENCE;
        self.write();
    }

    /// Sends what the socket takes. Afterwards the client may ask again.
    pub(super) fn write(&mut self) {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return self.stage = Stage::Over,
                Ok(n) => {
                    self.written += n;
                    self.deadline = Instant::now() + PATIENCE;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.stage = Stage::Over,
            }
        }
        self.output = Vec::new();
        self.stage = Stage::Reading;
        if let Some(silent) = self.silent.take() {
            self.deadline = Instant::now() + silent;
        }
    }
}

/// An answer that says what is wrong: `kind` for programs, `message` for people, both plain ASCII
/// without quotes.
pub(super) fn error(kind: &str, message: &str) -> String {
    format!(r#"{{"v":1,"error":"{kind}","message":"{message}"}}"#)
}
