//! The last lines that a child process wrote, and waiting for one of them.
//!
//! One thread reads the child's pipe until it ends. The thread blocks on nothing else, so a child is never stalled by
//! its own log. Memory is bounded: the oldest lines are dropped, and lines that are too long are split.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::base::error::{Error, Result};

/// The most lines that are kept.
pub const MAX_LINES: usize = 4_000;
/// The longest line; longer ones are split.
pub const MAX_LINE_BYTES: u64 = 8 * 1024;

/// See the module's text. Clones share the lines.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<SharedLines>);

#[derive(Debug, Default)]
struct SharedLines {
    kept: Mutex<Kept>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    /// How many lines were dropped.
    dropped: u64,
    ended: bool,
}

impl Lines {
    /// Starts the thread that reads `pipe` to its end.
    pub(super) fn read(name: String, pipe: impl Read + Send + 'static) -> Result<(Lines, JoinHandle<()>)> {
        let lines = Lines::default();
        let writer = lines.clone();
        let reader = thread::Builder::new()
            .name(name)
            .spawn(move || writer.fill(pipe))
            .map_err(Error::io("starting a thread that reads a child's output"))?;
        Ok((lines, reader))
    }

    fn fill(&self, pipe: impl Read) {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        // A pipe that cannot be read is treated as one that has ended.
        while let Ok(1..) = pipe.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
            self.push(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned());
            line.clear();
        }
        self.0.kept.lock().ended = true;
        self.0.changed.notify_all();
    }

    fn push(&self, line: String) {
        let mut kept = self.0.kept.lock();
        if kept.lines.len() == MAX_LINES {
            kept.lines.pop_front();
            kept.dropped += 1;
        }
        kept.lines.push_back(line);
        self.0.changed.notify_all();
    }

    /// How many lines there have been so far.
    pub fn count(&self) -> u64 {
        let kept = self.0.kept.lock();
        kept.dropped + kept.lines.len() as u64
    }

    /// All kept lines, oldest first.
    pub fn all(&self) -> Vec<String> {
        self.0.kept.lock().lines.iter().cloned().collect()
    }

    /// The last `most` lines for an error's text: each on a line of its own, indented.
    pub fn tail(&self, most: usize) -> String {
        let kept = self.0.kept.lock();
        let skipped = kept.lines.len().saturating_sub(most);
        kept.lines.iter().skip(skipped).map(|line| format!("\n    {line}")).collect()
    }

    /// Waits until everything that the child wrote has been read. With a limit, since a grandchild may hold the pipe
    /// open.
    pub(super) fn wait_for_end(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut kept = self.0.kept.lock();
        while !kept.ended && !self.0.changed.wait_until(&mut kept, deadline).timed_out() {}
    }

    /// Waits for a line that contains `part`. Returns the first of those that are kept.
    pub fn wait_for(&self, part: &str, within: Duration) -> Result<String> {
        self.wait_for_after(0, part, within)
    }

    /// The same, but ignores the first `seen` lines (see [`count`](Lines::count)).
    pub fn wait_for_after(&self, seen: u64, part: &str, within: Duration) -> Result<String> {
        let deadline = Instant::now() + within;
        let mut kept = self.0.kept.lock();
        let mut searched = seen;
        loop {
            let skip = searched.saturating_sub(kept.dropped) as usize;
            if let Some(line) = kept.lines.iter().skip(skip).find(|line| line.contains(part)) {
                return Ok(line.clone());
            }
            searched = kept.dropped + kept.lines.len() as u64;
            let ended = kept.ended;
            if ended || self.0.changed.wait_until(&mut kept, deadline).timed_out() {
                drop(kept);
                let why = if ended { "the output ended".to_owned() } else { format!("waited {within:?}") };
                return Err(Error::Failed(format!("{why} without a line with {part:?}; the last:{}", self.tail(10))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_cut_and_bounded() {
        let mut text = b"first\r\nsecond one\n".to_vec();
        text.extend(vec![b'x'; MAX_LINE_BYTES as usize + 3]);
        text.push(b'\n');
        text.extend((0..MAX_LINES).flat_map(|n| format!("n={n}\n").into_bytes()));
        text.extend(b"unfinished");
        let lines = Lines::default();
        lines.fill(&text[..]);
        assert_eq!(lines.all().len(), MAX_LINES);
        assert_eq!(lines.count(), MAX_LINES as u64 + 5);
        let no_wait = Duration::ZERO;
        assert_eq!(lines.wait_for("n=7", no_wait).unwrap(), "n=7");
        assert_eq!(lines.wait_for_after(4 + 100, "n=", no_wait).unwrap(), "n=100");
        assert_eq!(lines.tail(2), format!("\n    n={}\n    unfinished", MAX_LINES - 1));
        let error = lines.wait_for("second", no_wait).unwrap_err().to_string();
        assert!(error.contains("the output ended") && error.contains("\"second\""), "{error}");
    }

    #[test]
    fn a_wait_is_woken_by_the_line() {
        let lines = Lines::default();
        let writer = lines.clone();
        let push = thread::spawn(move || writer.push("event=ready".into()));
        assert_eq!(lines.wait_for("ready", Duration::from_secs(10)).unwrap(), "event=ready");
        push.join().unwrap();
        let error = lines.wait_for("never", Duration::from_millis(1)).unwrap_err().to_string();
        assert!(error.contains("waited 1ms") && error.contains("event=ready"), "{error}");
    }
}
