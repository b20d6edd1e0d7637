//! A witness: reads MONITOR and checks, in the order of execution, that only the newest leader writes and that epochs
//! only rise.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread::{self, JoinHandle};

use crate::support::{DEADLINE, run};

/// Commands that write.
const WRITES: [&str; 9] = ["ZADD", "ZREMRANGEBYSCORE", "SET", "DEL", "XADD", "XTRIM", "RPUSH", "HSET", "HDEL"];
/// Ends the reading.
const LAST: &str = "the-last-line-for-the-witness";

/// See the module's text.
pub struct Watch {
    reader: JoinHandle<Witness>,
}

/// The observations.
#[derive(Default)]
pub struct Witness {
    /// The epochs in the order in which they were given out.
    pub epochs: Vec<u64>,
    /// Writes by scripts that carry a leader's epoch.
    pub writes: u64,
    /// Violations.
    wrong: Vec<String>,
    /// The epoch that the script now running was called with, if it is a leader's.
    caller: Option<u64>,
    /// Whether the data set was wiped since the last epoch was given out.
    wiped: bool,
}

impl Watch {
    /// Watches a server from now on.
    pub fn start(address: &str) -> Watch {
        let mut stream = TcpStream::connect(address).expect("Redis takes connections");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout above zero");
        stream.write_all(b"MONITOR\r\n").expect("Redis reads");
        let mut lines = BufReader::new(stream);
        let mut first = Vec::new();
        lines.read_until(b'\n', &mut first).expect("Redis answers");
        assert_eq!(first, b"+OK\r\n");
        Watch { reader: thread::spawn(move || Witness::default().read(lines)) }
    }

    /// Fails if an older leader wrote, or an epoch did not rise. Returns the observations.
    pub fn finish(self, connection: &mut redis::Connection) -> Witness {
        let _: String = run(connection, &["ECHO", LAST]);
        let witness = self.reader.join().expect("the witness reads on to the last line");
        assert!(witness.wrong.is_empty(), "{:?}", witness.wrong);
        witness
    }
}

impl Witness {
    fn read(mut self, mut lines: BufReader<TcpStream>) -> Witness {
        let mut line = Vec::new();
        loop {
            line.clear();
            if !lines.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                self.wrong.push("MONITOR ended before the test did".to_owned());
                return self;
            }
            // Payloads are escaped, so each command is one line, and the words that matter come first.
            let line = String::from_utf8_lossy(&line);
            let Some((from, command)) = line.split_once("] ") else { continue };
            let words: Vec<&str> = command.trim_end().trim_matches('"').split("\" \"").collect();
            if words.contains(&LAST) {
                return self;
            }
            if from.ends_with(" lua") { self.script_did(&words) } else { self.called(&words) }
        }
    }

    fn called(&mut self, words: &[&str]) {
        self.caller = None;
        if words[0].eq_ignore_ascii_case("FLUSHALL") {
            self.wiped = true;
        }
        // EVALSHA digest 4 messages:epoch … <epoch>: the leader's scripts name the epoch first.
        if words[0].starts_with("EVAL")
            && let Some("messages:epoch") = words.get(3).copied()
            && let Some(keys) = words.get(2).and_then(|keys| keys.parse::<usize>().ok())
        {
            self.caller = words.get(3 + keys).and_then(|epoch| epoch.parse().ok());
        }
    }

    fn script_did(&mut self, words: &[&str]) {
        // A script first proves that it may write, with commands that change nothing.
        let proves = words.len() > 3 && matches!(words[3], "NX" | "XX");
        if words.len() > 2 && words[..2] == ["SET", "messages:epoch"] && !proves {
            let epoch = words[2].parse().expect("an epoch is a number");
            if self.epochs.last().is_some_and(|newest| *newest >= epoch) {
                self.wrong.push(format!("epoch {epoch} after {:?}", self.epochs));
            }
            self.epochs.push(epoch);
            self.wiped = false;
        }
        let Some(caller) = self.caller.filter(|_| WRITES.contains(&words[0])) else { return };
        self.writes += 1;
        if self.wiped || self.epochs.last().is_some_and(|newest| *newest != caller) {
            self.wrong.push(format!("{} {:?} by epoch {caller}, wiped {}", words[0], self.epochs, self.wiped));
        }
    }
}
