//! The queue of lines for standard error, and the thread `log` that writes them.
//!
//! A thread that logs only puts a line here and never waits: if standard error is blocked, only the writer waits. The
//! queue holds at most [`MAX_QUEUED_LINES`] and [`MAX_QUEUED_BYTES`]. Lines beyond that are dropped and counted, and a
//! line reports the count in their place. A quarter of the room is reserved for warnings and errors, so that a flood of
//! details does not crowd them out.
//!
//! The writer is not joined, because it may be blocked forever. [`Queue::flush`] gives it time instead. Limitations:
//! lines that are still queued when the process is killed are lost.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// The most lines that wait to be written.
pub const MAX_QUEUED_LINES: usize = 4_096;
/// The most bytes of lines that wait to be written.
pub const MAX_QUEUED_BYTES: usize = 1 << 20;
/// The longest line; the rest of a longer one is cut off.
pub const MAX_LINE_BYTES: usize = 8 << 10;
/// The pause before the next write to a terminal that another program has made non-blocking.
const WRITE_AGAIN: Duration = Duration::from_millis(10);

/// How much of the queue a line may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Importance {
    /// All but a quarter.
    Routine,
    /// All of it.
    Urgent,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<QueueState>,
    /// There is something to write.
    filled: Condvar,
    /// Everything is written.
    idle: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    entries: VecDeque<Entry>,
    lines: usize,
    bytes: usize,
    /// Lines dropped after the last entry.
    dropped: u64,
    /// Whether the writer is at work on an entry.
    writing: bool,
}

/// What is written next.
#[derive(Debug, PartialEq)]
enum Entry {
    /// Text with its line end.
    Line(Vec<u8>),
    /// This many lines were dropped for lack of room.
    Dropped(u64),
}

impl Queue {
    /// Starts the thread `log`, which writes to `out`; `report` makes the line that reports how many were dropped.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        report: impl Fn(u64) -> Vec<u8> + Send + 'static,
    ) -> io::Result<Arc<Queue>> {
        let queue = Arc::new(Queue::default());
        let writer = LogWriter { queue: queue.clone(), out, report };
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.run())?;
        Ok(queue)
    }

    /// Puts a line, its end included, in the queue, or drops and counts it.
    pub(super) fn push(&self, importance: Importance, line: Vec<u8>) {
        let mut waiting = self.waiting.lock();
        if waiting.has_room(importance, line.len()) {
            let dropped = std::mem::take(&mut waiting.dropped);
            if dropped > 0 {
                waiting.entries.push_back(Entry::Dropped(dropped));
            }
            waiting.lines += 1;
            waiting.bytes += line.len();
            waiting.entries.push_back(Entry::Line(line));
        } else {
            waiting.dropped += 1;
        }
        drop(waiting);
        self.filled.notify_one();
    }

    /// Waits until everything is written, at most `limit`. Returns whether it is.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut waiting = self.waiting.lock();
        while !waiting.is_idle() {
            if self.idle.wait_until(&mut waiting, deadline).timed_out() {
                return waiting.is_idle();
            }
        }
        true
    }

    /// Waits for the next entry. The entry taken before it counts as written.
    fn next(&self) -> Entry {
        let mut waiting = self.waiting.lock();
        waiting.writing = false;
        loop {
            if let Some(entry) = waiting.take() {
                waiting.writing = true;
                return entry;
            }
            self.idle.notify_all();
            self.filled.wait(&mut waiting);
        }
    }
}

impl QueueState {
    fn has_room(&self, importance: Importance, bytes: usize) -> bool {
        let (lines, most) = match importance {
            Importance::Urgent => (MAX_QUEUED_LINES, MAX_QUEUED_BYTES),
            Importance::Routine => (MAX_QUEUED_LINES / 4 * 3, MAX_QUEUED_BYTES / 4 * 3),
        };
        self.lines < lines && self.bytes + bytes <= most
    }

    fn take(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front().or_else(|| match std::mem::take(&mut self.dropped) {
            0 => None,
            dropped => Some(Entry::Dropped(dropped)),
        })?;
        if let Entry::Line(line) = &entry {
            self.lines -= 1;
            self.bytes -= line.len();
        }
        Some(entry)
    }

    fn is_idle(&self) -> bool {
        self.entries.is_empty() && self.dropped == 0 && !self.writing
    }
}

struct LogWriter<W, T> {
    queue: Arc<Queue>,
    out: W,
    report: T,
}

impl<W: Write, T: Fn(u64) -> Vec<u8>> LogWriter<W, T> {
    /// The main loop of the thread `log`. It ends with the process.
    fn run(mut self) {
        loop {
            let line = match self.queue.next() {
                Entry::Line(line) => line,
                Entry::Dropped(lines) => (self.report)(lines),
            };
            self.write(&line);
        }
    }

    /// Writes a line in one go where the system allows it, since programs may share one standard error.
    fn write(&mut self, mut rest: &[u8]) {
        while !rest.is_empty() {
            match self.out.write(rest) {
                Ok(0) => return,
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(WRITE_AGAIN),
                // The reader is gone, and there is nowhere else to report that.
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// Takes one write for each permit.
    struct Gate(Receiver<()>, Sender<String>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Once the test is over, the sender is dropped and this no longer blocks.
            let _ = self.0.recv();
            let _ = self.1.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Arc<Queue>, Sender<()>, Receiver<String>) {
        let (permits, permitted) = bounded(0);
        let (sender, written) = unbounded();
        let report = |lines| format!("dropped {lines}\n").into_bytes();
        (Queue::start(Gate(permitted, sender), report).expect("a thread"), permits, written)
    }

    fn wait_until_blocked(queue: &Queue) {
        let blocked = || Ok(queue.waiting.lock().writing.then_some(()));
        crate::lab::wait_until(SOON, "the writer to be blocked", blocked).expect("it takes the first line");
    }

    #[test]
    fn a_blocked_writer_stalls_no_thread_and_dropped_lines_are_reported() {
        let (queue, permits, written) = gated();
        queue.push(Importance::Routine, b"first\n".to_vec());
        wait_until_blocked(&queue);
        let room = MAX_QUEUED_LINES / 4 * 3;
        for number in 0..room + 5 {
            queue.push(Importance::Routine, format!("{number}\n").into_bytes());
        }
        queue.push(Importance::Urgent, b"an error\n".to_vec());
        for _ in 0..7 {
            queue.push(Importance::Routine, b"more\n".to_vec());
        }
        assert!(!queue.flush(Duration::from_millis(1)), "a flush does not wait for ever");
        drop(permits);
        assert!(queue.flush(SOON));
        let written: Vec<String> = written.try_iter().collect();
        assert_eq!(written.len(), 1 + room + 3);
        assert_eq!(written[0], "first\n");
        assert_eq!(written[room], format!("{}\n", room - 1));
        assert_eq!(written[room + 1..], ["dropped 5\n", "an error\n", "dropped 7\n"]);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let (queue, permits, written) = gated();
        queue.push(Importance::Urgent, b"first\n".to_vec());
        wait_until_blocked(&queue);
        let line = || vec![b'x'; MAX_LINE_BYTES];
        for _ in 0..MAX_QUEUED_BYTES / MAX_LINE_BYTES {
            queue.push(Importance::Urgent, line());
        }
        queue.push(Importance::Urgent, b"!".to_vec());
        assert_eq!(queue.waiting.lock().bytes, MAX_QUEUED_BYTES);
        drop(permits);
        assert!(queue.flush(SOON));
        assert_eq!(written.try_iter().last().as_deref(), Some("dropped 1\n"));
        assert_eq!(queue.waiting.lock().bytes, 0);
    }

    #[test]
    fn a_flush_waits_for_the_line_that_is_being_written() {
        let (queue, permits, written) = gated();
        queue.push(Importance::Routine, b"only\n".to_vec());
        wait_until_blocked(&queue);
        assert!(!queue.flush(Duration::from_millis(1)), "it is not written yet");
        permits.send(()).expect("the writer waits for it");
        assert!(queue.flush(SOON));
        assert_eq!(written.try_iter().count(), 1);
    }
}
