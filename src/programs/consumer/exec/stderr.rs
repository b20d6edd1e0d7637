//! What children write on standard error, as lines of the consumer's log.
//!
//! A thread of its own, `exec-log-<child>`, reads each long-lived child's standard error at all times, so a child never
//! waits for the log. The thread belongs to a [`StderrReader`], which ends and joins it.
//!
//! Guarantees: what is logged is limited to some lines a second for all children together; the others are counted, and
//! the next logged line has their number. A line is cut after [`MAX_LINE_BYTES`], and only that much of it is kept, so
//! a flood takes no memory. Control characters are escaped.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::process::ChildStderr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::{info, warn};
use parking_lot::Mutex;

use super::pipes::{self, Moved};
use crate::base::log_context;
use crate::base::rate_limit::RateLimit;
use crate::base::text::Quoted;

/// The longest part of a line that is logged.
const MAX_LINE_BYTES: usize = 1_024;
/// Lines of all children together: this many at once …
const LINES_AT_ONCE: u32 = 50;
/// … and this many a second after that.
const LINES_PER_S: u32 = 10;
/// How many bytes are read at a time.
pub(super) const CHUNK_BYTES: usize = 16 << 10;
/// How many bytes are read after the end of a child, beyond which a process that it left behind keeps writing.
const MAX_REST_BYTES: usize = 1 << 20;

/// The limit that the children share. Clones are the same limit.
#[derive(Clone, Debug)]
pub(super) struct StderrLimit(Arc<Mutex<Allowance>>);

#[derive(Debug)]
struct Allowance {
    limit: RateLimit,
    suppressed: u64,
}

impl StderrLimit {
    pub(super) fn new() -> StderrLimit {
        let limit = RateLimit::new(LINES_AT_ONCE, LINES_PER_S, Instant::now());
        StderrLimit(Arc::new(Mutex::new(Allowance { limit, suppressed: 0 })))
    }

    /// Whether a line may be logged now, and if so, how many were not.
    fn take(&self) -> Option<u64> {
        let mut allowance = self.0.lock();
        if allowance.limit.take(Instant::now()) {
            return Some(std::mem::take(&mut allowance.suppressed));
        }
        allowance.suppressed += 1;
        None
    }

    /// How many lines were not logged since the last one that was.
    pub(super) fn suppressed(&self) -> u64 {
        self.0.lock().suppressed
    }
}

/// Splits what one child writes into lines, and logs them.
#[derive(Debug)]
pub(super) struct StderrLines {
    /// The child's name in the log: its number and process id.
    child: String,
    limit: StderrLimit,
    /// The beginning of the line that is not complete.
    line: Vec<u8>,
    cut: bool,
    /// The last line that was not blank.
    last: Option<String>,
}

impl StderrLines {
    pub(super) fn new(child: String, limit: StderrLimit) -> StderrLines {
        StderrLines { child, limit, line: Vec::new(), cut: false, last: None }
    }

    /// Adds what was read.
    pub(super) fn add(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.keep(&bytes[..end]);
            self.end_line();
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
    }

    /// Logs the last line, which may have no line end. Returns the last line that was not blank.
    pub(super) fn finish(mut self) -> Option<String> {
        self.end_line();
        self.last
    }

    fn keep(&mut self, part: &[u8]) {
        let room = MAX_LINE_BYTES - self.line.len();
        self.cut |= part.len() > room;
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn end_line(&mut self) {
        let text = String::from_utf8_lossy(&self.line);
        let text = text.trim_end();
        if !text.is_empty() {
            let text = if self.cut { format!("{text}…") } else { text.to_owned() };
            match self.limit.take() {
                Some(0) => info!("event=child-stderr {} line={}", self.child, Quoted(&text)),
                Some(before) => {
                    info!("event=child-stderr {} line={} suppressed_before={before}", self.child, Quoted(&text));
                }
                None => {}
            }
            self.last = Some(text);
        }
        self.line.clear();
        self.cut = false;
    }
}

/// The thread that logs what a long-lived child writes. Dropping it ends and joins the thread, after it has read what
/// the child has written.
#[derive(Debug)]
pub(super) struct StderrReader {
    /// Dropping it ends the thread.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl StderrReader {
    pub(super) fn start(number: u64, stderr: ChildStderr, lines: StderrLines) -> io::Result<StderrReader> {
        pipes::set_nonblocking(&stderr)?;
        let (stopped, stop) = io::pipe()?;
        let context = log_context::current();
        let thread = thread::Builder::new().name(format!("exec-log-{number}")).spawn(move || {
            log_context::enter(&context);
            let child = lines.child.clone();
            if let Err(error) = run(stderr, lines, &stopped) {
                warn!("event=child-stderr-lost {child} error={}", Quoted(error));
            }
        })?;
        Ok(StderrReader { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for StderrReader {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("event=bug thread=exec-log problem=panicked");
        }
    }
}

/// The thread's main loop: logs lines until the pipe ends, or until it is stopped and nothing is left to read.
fn run(mut stderr: ChildStderr, mut lines: StderrLines, stopped: &PipeReader) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut stopping, mut rest) = (false, MAX_REST_BYTES);
    loop {
        match pipes::read(&mut stderr, &mut chunk)? {
            Moved::Bytes(count) => {
                lines.add(&chunk[..count]);
                // A flood must not keep the thread from seeing that it is to stop.
                stopping = stopping || pipes::has_ended(stopped)?;
                if stopping {
                    rest = rest.saturating_sub(count);
                }
            }
            Moved::Nothing if stopping => rest = 0,
            Moved::Nothing => {
                pipes::wait(&[stderr.as_fd(), stopped.as_fd()], None, Duration::MAX)?;
                stopping = pipes::has_ended(stopped)?;
            }
            Moved::End => rest = 0,
        }
        if rest == 0 {
            lines.finish();
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_wherever_they_are_read_and_cut() {
        let mut lines = StderrLines::new("child=1 pid=2".to_owned(), StderrLimit::new());
        for part in ["fir", "st\nsec", "ond\r\n", "\n \n"] {
            lines.add(part.as_bytes());
        }
        assert_eq!(lines.last.as_deref(), Some("second"));
        (0..1_000).for_each(|_| lines.add(&[b'x'; 5_000]));
        assert!(lines.line.capacity() <= 2 * MAX_LINE_BYTES, "only the beginning is kept");
        lines.add(b"\nthe la");
        lines.add(b"st");
        assert_eq!(lines.finish().as_deref(), Some("the last"));
    }

    #[test]
    fn lines_beyond_the_limit_are_counted() {
        let limit = StderrLimit::new();
        let mut lines = StderrLines::new("child=1 pid=2".to_owned(), limit.clone());
        lines.add("x\n".repeat(10_000).as_bytes());
        assert!(limit.suppressed() > 9_000, "{}", limit.suppressed());
    }
}
