//! The frames that wait to be written to one socket. Any thread adds frames; one thread writes them, in order.
//!
//! Adding a frame never waits for the peer, so it may be done under the desk's lock: a dispatcher that does not read
//! delays no other thread. The waiting bytes are limited; beyond the limit the connection is given up.
//!
//! Frames that are not urgent, which follow each other closely, are written together, at most [`LAZY_INTERVAL`] late:
//! each write wakes up a thread here and one in the dispatcher. ACKs are such frames, as long as the consumer has
//! places to spare. A dispatcher may wait for one all the same, with an order by key or a limit of the group.
//!
//! [`Outbox::answers`] also checks whether the peer is alive: the writer sends a ping, and the reader notes the pong.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::wire::Frame;

/// The most bytes that wait for one peer. ACKs take 8 bytes each, so this is half a million messages.
pub(super) const MAX_OUTBOX_BYTES: usize = 4 << 20;

/// The shortest time between two writes if nothing urgent waits. After a longer silence everything is written at once.
const LAZY_INTERVAL: Duration = Duration::from_millis(1);

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<OutboxState>,
    /// For the writer.
    changed: Condvar,
    /// For threads that wait for a pong.
    answered: Condvar,
}

#[derive(Debug, Default)]
struct OutboxState {
    frames: Vec<u8>,
    /// A PROGRESS is among the frames: a second one would add nothing.
    progress: bool,
    /// Something urgent is among the frames.
    urgent: bool,
    /// When frames that are not urgent may be written again.
    lazy_from: Option<Instant>,
    /// How many frames wait.
    count: usize,
    /// The last write had several frames, so more are likely to come soon.
    busy: bool,
    /// The writer waits for that time.
    waits_for_lazy: bool,
    /// No more frames are added, and the socket closes once the waiting ones are written.
    closing: bool,
    /// The peer does not read, so nothing more is written.
    overrun: bool,
    pings: Pings,
}

/// Pings that check whether the peer is alive, numbered from 1.
#[derive(Debug, Default)]
struct Pings {
    asked: u64,
    written: u64,
    answered: u64,
}

/// What the writer does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WriterTask {
    /// Write these frames as one message.
    Write(Vec<u8>),
    /// Write a ping with this payload.
    Ping([u8; 8]),
    /// It is time for the next report.
    Tick,
    /// Write these frames, then close.
    Close(Vec<u8>),
    /// Close without writing.
    Abort,
}

impl Outbox {
    /// Adds a frame. Frames after [`close`](Outbox::close) are dropped: the peer would not read them.
    pub(super) fn put(&self, frame: &Frame<'_>) {
        self.add(frame, true);
    }

    /// Adds a frame that is not urgent.
    pub(super) fn put_lazily(&self, frame: &Frame<'_>) {
        self.add(frame, false);
    }

    fn add(&self, frame: &Frame<'_>, urgent: bool) {
        let mut state = self.state.lock();
        if state.closing || state.overrun {
            return;
        }
        if matches!(frame, Frame::Progress(_)) && std::mem::replace(&mut state.progress, true) {
            return;
        }
        frame.encode(&mut state.frames);
        state.count += 1;
        state.overrun = state.frames.len() > MAX_OUTBOX_BYTES;
        state.urgent |= state.overrun || urgent;
        if state.urgent || !state.waits_for_lazy {
            self.changed.notify_one();
        }
    }

    /// Closes the socket once all waiting frames, and `last`, are written. `false` if it was closed before.
    pub(super) fn close(&self, last: Option<&Frame<'_>>) -> bool {
        if let Some(frame) = last {
            self.put(frame);
        }
        let was_closing = std::mem::replace(&mut self.state.lock().closing, true);
        self.changed.notify_one();
        self.answered.notify_all();
        !was_closing
    }

    /// Whether the socket is to be closed.
    pub(super) fn is_closing(&self) -> bool {
        self.state.lock().closing
    }

    /// Whether the peer answers, within `limit`, a ping that is sent now.
    pub(super) fn answers(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.state.lock();
        // All callers share a ping that is not written yet.
        if state.pings.asked == state.pings.written {
            state.pings.asked += 1;
            self.changed.notify_one();
        }
        let number = state.pings.asked;
        while state.pings.answered < number && !state.closing {
            if self.answered.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        state.pings.answered >= number
    }

    /// The peer has sent a pong with this payload.
    pub(super) fn note_pong(&self, payload: &[u8]) {
        let mut state = self.state.lock();
        if let Ok(number) = payload.try_into().map(u64::from_be_bytes)
            && number <= state.pings.written
            && number > state.pings.answered
        {
            state.pings.answered = number;
            self.answered.notify_all();
        }
    }

    /// Waits for something to do, at most until `tick`.
    pub(super) fn next(&self, tick: Instant) -> WriterTask {
        let mut state = self.state.lock();
        loop {
            state.progress = false;
            if state.overrun {
                return WriterTask::Abort;
            }
            if state.closing {
                return WriterTask::Close(std::mem::take(&mut state.frames));
            }
            if state.pings.written < state.pings.asked {
                state.pings.written = state.pings.asked;
                return WriterTask::Ping(state.pings.asked.to_be_bytes());
            }
            let now = Instant::now();
            let lazy_from = state.lazy_from.filter(|from| *from > now);
            if !state.frames.is_empty() && (state.urgent || lazy_from.is_none()) {
                state.urgent = false;
                state.busy = std::mem::take(&mut state.count) > 1;
                state.lazy_from = Some(now + LAZY_INTERVAL);
                return WriterTask::Write(std::mem::take(&mut state.frames));
            }
            // While many frames come, the first one after a write need not wake this thread.
            let lazy_from = lazy_from.filter(|_| state.busy || !state.frames.is_empty());
            state.waits_for_lazy = lazy_from.is_some();
            let timed_out =
                self.changed.wait_until(&mut state, lazy_from.map_or(tick, |from| from.min(tick))).timed_out();
            state.waits_for_lazy = false;
            if timed_out && Instant::now() >= tick {
                return WriterTask::Tick;
            }
        }
    }

    /// Takes out the frames that wait to be written, for tests of code that adds frames.
    #[cfg(test)]
    pub(super) fn take(&self) -> Vec<u8> {
        let mut state = self.state.lock();
        state.progress = false;
        std::mem::take(&mut state.frames)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::id::MessageId;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(1)
    }

    #[test]
    fn frames_are_written_together_and_in_order_before_the_close() {
        let outbox = Outbox::default();
        assert_eq!(outbox.next(soon()), WriterTask::Tick);
        let (ack, drain) = (Frame::Ack(vec![MessageId(1)]), Frame::Drain);
        outbox.put(&ack);
        outbox.put(&drain);
        assert_eq!(outbox.next(soon()), WriterTask::Write([ack.to_vec(), drain.to_vec()].concat()));
        outbox.put(&ack);
        outbox.close(Some(&drain));
        outbox.put(&ack);
        assert_eq!(outbox.next(soon()), WriterTask::Close([ack.to_vec(), drain.to_vec()].concat()));
    }

    #[test]
    fn what_is_not_urgent_is_written_together() {
        let outbox = Outbox::default();
        let (ack, far) = (Frame::Ack(vec![MessageId(1)]), Instant::now() + Duration::from_secs(60));
        outbox.put_lazily(&ack);
        assert_eq!(outbox.next(far), WriterTask::Write(ack.to_vec()), "the first is written at once");
        outbox.put_lazily(&ack);
        outbox.put_lazily(&ack);
        let written = Instant::now();
        assert_eq!(outbox.next(far), WriterTask::Write([ack.to_vec(), ack.to_vec()].concat()));
        assert!(written.elapsed() < Duration::from_secs(30), "without waiting for the tick");
        // More are likely to come, so the writer looks again by itself.
        let again = Instant::now() + Duration::from_millis(100);
        outbox.state.lock().lazy_from = Some(again);
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| outbox.next(far));
            while !outbox.state.lock().waits_for_lazy && Instant::now() < again {
                std::thread::yield_now();
            }
            outbox.put_lazily(&ack);
            assert_eq!(writing.join().expect("no panic"), WriterTask::Write(ack.to_vec()));
        });
        outbox.put_lazily(&ack);
        outbox.state.lock().lazy_from = Some(far);
        assert_eq!(outbox.next(soon()), WriterTask::Tick);
        outbox.put(&Frame::Drain);
        assert_eq!(outbox.next(far), WriterTask::Write([ack.to_vec(), Frame::Drain.to_vec()].concat()));
    }

    #[test]
    fn one_progress_waits_at_a_time() {
        let outbox = Outbox::default();
        let progress = Frame::Progress(vec![MessageId(1)]);
        outbox.put(&progress);
        outbox.put(&progress);
        assert_eq!(outbox.next(soon()), WriterTask::Write(progress.to_vec()));
        outbox.put(&progress);
        assert_eq!(outbox.next(soon()), WriterTask::Write(progress.to_vec()));
    }

    /// The payload of the next ping that the writer is asked to send.
    fn next_ping(outbox: &Outbox) -> [u8; 8] {
        loop {
            if let WriterTask::Ping(number) = outbox.next(soon()) {
                return number;
            }
        }
    }

    #[test]
    fn a_peer_that_answers_the_latest_ping_is_alive() {
        const LONG: Duration = Duration::from_secs(60);
        let outbox = Outbox::default();
        assert!(!outbox.answers(Duration::ZERO), "nothing was written");
        let first = next_ping(&outbox);
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| outbox.answers(LONG));
            let second = next_ping(&outbox);
            outbox.note_pong(&first);
            outbox.note_pong(b"?");
            outbox.note_pong(&u64::MAX.to_be_bytes());
            assert!(!asking.is_finished(), "these were pongs to something else");
            outbox.note_pong(&second);
            assert!(asking.join().expect("no panic"));
            // A closed connection counts as not answering.
            let asking = scope.spawn(|| outbox.answers(LONG));
            next_ping(&outbox);
            outbox.close(None);
            assert!(!asking.join().expect("no panic"));
        });
    }

    #[test]
    fn a_peer_that_does_not_read_is_given_up() {
        let outbox = Outbox::default();
        let ack = Frame::Ack((0..60_000).map(MessageId).collect());
        for _ in 0..100 {
            outbox.put(&ack);
        }
        assert!(outbox.state.lock().frames.len() < MAX_OUTBOX_BYTES + 8 * 65_536);
        assert_eq!(outbox.next(soon()), WriterTask::Abort);
    }
}
