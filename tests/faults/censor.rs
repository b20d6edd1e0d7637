//! A proxy in front of Redis that refuses commands with too many words, or with forbidden bytes, like some services do.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

/// How the proxy refuses a command that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// With an error.
    Error,
    /// By closing the connection.
    Close,
}

/// The command sent to Redis instead. Its answer arrives in order, and inside `MULTI` it aborts the transaction.
const UNKNOWN: &[u8] = b"*1\r\n$14\r\nTOO-MANY-WORDS\r\n";
/// The beginning of the answer to that.
const UNKNOWN_ANSWER: &[u8] = b"-ERR unknown command";
/// The answer to the client.
const ANSWER: &[u8] = b"-ERR too many arguments\r\n";

/// See the module's text. Its connections are closed and its threads joined on drop.
pub struct Censor {
    address: String,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    target: String,
    most_words: u64,
    refusal: Refusal,
    /// A command that contains this is refused.
    forbidden: Mutex<Option<&'static [u8]>>,
    refused: AtomicU64,
    stop: AtomicBool,
}

impl Censor {
    pub fn to(target: &str, most_words: u64, refusal: Refusal) -> Censor {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it listens").to_string();
        let (refused, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            most_words,
            refusal,
            forbidden: Mutex::default(),
            refused,
            stop,
        });
        let accepting = shared.clone();
        Censor { address, shared, acceptor: Some(thread::spawn(move || accepting.accept(&listener))) }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Refuses commands that contain this from now on; with `None`, none because of its content.
    pub fn forbid(&self, forbidden: Option<&'static [u8]>) {
        *self.shared.forbidden.lock() = forbidden;
    }

    /// How many commands were refused.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Censor {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // The thread blocks until a connection arrives, so make one.
        let _ = TcpStream::connect(&self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        let mut connections = Vec::new();
        for near in listener.incoming() {
            if self.stop.load(Ordering::Acquire) {
                break;
            }
            let near = near.expect("a connection");
            let Ok(far) = TcpStream::connect(&self.target) else { continue };
            let (this, ends) = (self.clone(), [&near, &far].map(clone));
            connections.push((ends, thread::spawn(move || this.connect(&near, &far))));
        }
        for (ends, connection) in connections {
            ends.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
            let _ = connection.join();
        }
    }

    fn connect(&self, near: &TcpStream, far: &TcpStream) {
        [near, far].into_iter().for_each(|stream| stream.set_nodelay(true).expect("our own socket"));
        let (from, to) = (clone(far), clone(near));
        let answers = thread::spawn(move || {
            let _ = pass_answers_on(&from, &to);
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        });
        let _ = self.pass_commands_on(near, far);
        let _ = (near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both));
        let _ = answers.join();
    }

    /// Copies commands until one side ends, or a refused one must end the connection.
    fn pass_commands_on(&self, near: &TcpStream, mut far: &TcpStream) -> io::Result<()> {
        let mut commands = BufReader::with_capacity(256 << 10, near);
        let mut command = Vec::new();
        loop {
            command.clear();
            let words = number_of(&mut commands, &mut command)?;
            for _ in 0..words {
                let length = number_of(&mut commands, &mut command)?;
                // Including the end of the line.
                commands.by_ref().take(length + 2).read_to_end(&mut command)?;
            }
            let is_forbidden = self.forbidden.lock().is_some_and(|word| find(&command, word).is_some());
            if words <= self.most_words && !is_forbidden {
                far.write_all(&command)?;
                continue;
            }
            self.refused.fetch_add(1, Ordering::Relaxed);
            match self.refusal {
                Refusal::Error => far.write_all(UNKNOWN)?,
                Refusal::Close => return Ok(()),
            }
        }
    }
}

/// Reads a line that has a number after its first character, and appends it to what was read.
fn number_of(from: &mut impl BufRead, read: &mut Vec<u8>) -> io::Result<u64> {
    let start = read.len();
    from.read_until(b'\n', read)?;
    let line = std::str::from_utf8(&read[start..]).ok().and_then(|line| line.get(1..)?.trim_end().parse().ok());
    line.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Copies answers. Those to replaced commands get the proxy's own text.
fn pass_answers_on(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let (mut buffer, mut held) = (vec![0; 256 << 10], Vec::new());
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        held.extend_from_slice(&buffer[..count]);
        while let Some(begin) = find(&held, UNKNOWN_ANSWER) {
            to.write_all(&held[..begin])?;
            held.drain(..begin);
            let Some(end) = find(&held, b"\r\n") else { break };
            to.write_all(ANSWER)?;
            held.drain(..end + 2);
        }
        // Bytes that may become such an answer are held back. No other answer ends like that.
        let begins = |length: &usize| held.ends_with(&UNKNOWN_ANSWER[..*length]);
        let kept = match held.starts_with(UNKNOWN_ANSWER) {
            true => held.len(),
            false => (1..UNKNOWN_ANSWER.len()).rev().find(begins).unwrap_or(0),
        };
        let ready = held.len() - kept;
        to.write_all(&held[..ready])?;
        held.drain(..ready);
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn clone(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a socket can be shared")
}
