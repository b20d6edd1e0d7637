//! The last lines a child wrote, and waiting for one of them.
//!
//! One thread reads the child's pipe and ends with it; it never blocks on anything else, so a child is never stalled by
//! its log. Memory is bounded: the oldest lines go first, over-long ones are cut in pieces.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::base::error::{Error, Result};

/// How many lines are kept.
pub const MAX_LINES: usize = 4_000;
/// The longest line; what is longer becomes several.
pub const MAX_LINE_BYTES: u64 = 8 * 1024;

/// See the module's text. Clones see the same lines.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    ring: Mutex<Ring>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<String>,
    /// Lines that were kept once and had to go.
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
        // A pipe that cannot be read is a pipe that has ended.
        while let Ok(1..) = pipe.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
            self.push(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned());
            line.clear();
        }
        self.0.ring.lock().ended = true;
        self.0.changed.notify_all();
    }

    fn push(&self, line: String) {
        let mut ring = self.0.ring.lock();
        if ring.kept.len() == MAX_LINES {
            ring.kept.pop_front();
            ring.dropped += 1;
        }
        ring.kept.push_back(line);
        self.0.changed.notify_all();
    }

    /// How many lines there have been so far.
    pub fn count(&self) -> u64 {
        let ring = self.0.ring.lock();
        ring.dropped + ring.kept.len() as u64
    }

    /// All lines that are kept, oldest first.
    pub fn all(&self) -> Vec<String> {
        self.0.ring.lock().kept.iter().cloned().collect()
    }

    /// The last `most` lines, indented, each on its own line; a hint for an error's text.
    pub fn tail(&self, most: usize) -> String {
        let ring = self.0.ring.lock();
        let skipped = ring.kept.len().saturating_sub(most);
        ring.kept.iter().skip(skipped).map(|line| format!("\n    {line}")).collect()
    }

    /// Waits until everything has been read that the child wrote; not for ever, since a child of its own may hold the pipe open.
    pub(super) fn wait_for_end(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut ring = self.0.ring.lock();
        while !ring.ended && !self.0.changed.wait_until(&mut ring, deadline).timed_out() {}
    }

    /// The first kept line that contains `part`, waiting for it if need be.
    pub fn wait_for(&self, part: &str, within: Duration) -> Result<String> {
        self.wait_for_after(0, part, within)
    }

    /// The first line that contains `part` after the first `seen` lines (see [`count`](Lines::count)).
    pub fn wait_for_after(&self, seen: u64, part: &str, within: Duration) -> Result<String> {
        let deadline = Instant::now() + within;
        let mut ring = self.0.ring.lock();
        let mut looked_at = seen;
        loop {
            let skip = looked_at.saturating_sub(ring.dropped) as usize;
            if let Some(line) = ring.kept.iter().skip(skip).find(|line| line.contains(part)) {
                return Ok(line.clone());
            }
            looked_at = ring.dropped + ring.kept.len() as u64;
            let ended = ring.ended;
            if ended || self.0.changed.wait_until(&mut ring, deadline).timed_out() {
                drop(ring);
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
