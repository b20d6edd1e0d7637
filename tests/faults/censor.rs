//! A proxy in front of Redis that refuses what some services refuse: commands with too many words or bytes, commands
//! and settings that are closed, sections of `INFO`, and forbidden bytes.

use std::collections::VecDeque;
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

/// What a service refuses.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most words of a command, and the most bytes of a request.
    pub most_words: u64,
    pub most_bytes: usize,
    /// How it refuses more, and with which error.
    pub refusal: Refusal,
    pub too_large: &'static str,
    /// The commands that it does not have, in small letters, with their subcommand if only that is missing.
    pub closed: &'static [&'static str],
    /// The settings that `CONFIG GET` knows. All if there are none.
    pub settings: &'static [&'static str],
    /// The sections of `INFO` of which it gives only the heading.
    pub empty_info: &'static [&'static str],
}

impl Limits {
    pub const NONE: Limits = Limits {
        most_words: u64::MAX,
        most_bytes: usize::MAX,
        refusal: Refusal::Error,
        too_large: "ERR too many arguments",
        closed: &[],
        settings: &[],
        empty_info: &[],
    };

    /// The error for a command, if it is refused for its first words; all in small letters.
    fn refused(&self, first: &[String]) -> Option<String> {
        let with_subcommand = first[..first.len().min(2)].join(" ");
        if self
            .closed
            .iter()
            .any(|closed| first.first().is_some_and(|name| name == closed) || with_subcommand == *closed)
        {
            return Some(format!("ERR unknown command '{with_subcommand}'"));
        }
        let is_known = |setting: &String| self.settings.is_empty() || self.settings.contains(&setting.as_str());
        match first {
            [config, get, setting, ..] if config == "config" && get == "get" && !is_known(setting) => {
                Some(format!("ERR unsupported setting '{setting}'"))
            }
            _ => None,
        }
    }

    /// The heading, if that is all that the service gives.
    fn heading(&self, first: &[String]) -> Option<String> {
        match first {
            [info, section, ..] if info == "info" && self.empty_info.contains(&section.as_str()) => {
                Some(format!("# {section}\r\n"))
            }
            _ => None,
        }
    }
}

/// The command sent to Redis instead. Its answer arrives in order, and inside `MULTI` it aborts the transaction.
const UNKNOWN: &[u8] = b"*1\r\n$12\r\nNOT-ACCEPTED\r\n";
/// The beginning of the answer to that, and a part of it. The client gets another.
const UNKNOWN_ANSWER: &[u8] = b"-ERR unknown command";
const UNKNOWN_NAME: &[u8] = b"NOT-ACCEPTED";
/// How many words are looked at, and how long they are at most.
const FIRST_WORDS: usize = 3;
const FIRST_WORD_BYTES: u64 = 100;

/// See the module's text. Its connections are closed and its threads joined on drop.
pub struct Censor {
    address: String,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    target: String,
    limits: Limits,
    /// A command that contains this is refused.
    forbidden: Mutex<Option<&'static [u8]>>,
    refused: AtomicU64,
    stop: AtomicBool,
}

impl Censor {
    pub fn to(target: &str, most_words: u64, refusal: Refusal) -> Censor {
        Censor::with(target, Limits { most_words, refusal, ..Limits::NONE })
    }

    /// A proxy with all the limits of a service.
    pub fn with(target: &str, limits: Limits) -> Censor {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it listens").to_string();
        let (refused, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let shared = Arc::new(Shared { target: target.to_owned(), limits, forbidden: Mutex::default(), refused, stop });
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
        // The errors for the commands that were replaced, in order.
        let errors: Arc<Mutex<VecDeque<String>>> = Arc::default();
        let errors_to_send = errors.clone();
        let answers = thread::spawn(move || {
            let _ = pass_answers_on(&from, &to, &errors_to_send);
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        });
        let _ = self.pass_commands_on(near, far, &errors);
        let _ = (near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both));
        let _ = answers.join();
    }

    /// Copies commands until one side ends, or a refused one must end the connection.
    fn pass_commands_on(
        &self,
        near: &TcpStream,
        mut far: &TcpStream,
        errors: &Mutex<VecDeque<String>>,
    ) -> io::Result<()> {
        let mut commands = BufReader::with_capacity(256 << 10, near);
        let mut command = Vec::new();
        loop {
            command.clear();
            let mut first = Vec::new();
            let words = number_of(&mut commands, &mut command)?;
            for _ in 0..words {
                let length = number_of(&mut commands, &mut command)?;
                let begin = command.len();
                // Including the end of the line.
                commands.by_ref().take(length + 2).read_to_end(&mut command)?;
                if first.len() < FIRST_WORDS && length <= FIRST_WORD_BYTES {
                    let word = &command[begin..command.len().saturating_sub(2).max(begin)];
                    first.push(String::from_utf8_lossy(word).to_lowercase());
                }
            }
            let is_forbidden = self.forbidden.lock().is_some_and(|word| find(&command, word).is_some());
            let is_too_large = words > self.limits.most_words || command.len() > self.limits.most_bytes || is_forbidden;
            if is_too_large && self.limits.refusal == Refusal::Close {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            let too_large = is_too_large.then(|| self.limits.too_large.to_owned());
            if let Some(error) = too_large.or_else(|| self.limits.refused(&first)) {
                self.refused.fetch_add(1, Ordering::Relaxed);
                errors.lock().push_back(error);
                far.write_all(UNKNOWN)?;
            } else if let Some(heading) = self.limits.heading(&first) {
                write!(far, "*2\r\n$4\r\nECHO\r\n${}\r\n{heading}\r\n", heading.len())?;
            } else {
                far.write_all(&command)?;
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

/// Copies answers. Those to replaced commands get the proxy's own errors.
fn pass_answers_on(mut from: &TcpStream, mut to: &TcpStream, errors: &Mutex<VecDeque<String>>) -> io::Result<()> {
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
            match find(&held[..end], UNKNOWN_NAME).and_then(|_| errors.lock().pop_front()) {
                Some(error) => write!(to, "-{error}\r\n")?,
                // Redis does not have that command itself.
                None => to.write_all(&held[..end + 2])?,
            }
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
