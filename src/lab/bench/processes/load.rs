//! The load of a run, the same program for all contenders: it sends messages with `PUBLISH` or
//! `SPUBLISH`, or with `XADD` to a Streams group.
//!
//! Without a rate it sends as fast as Redis accepts messages, but is never more than a window ahead of the results:
//! each pipeline ends with a command that counts them. So all processes keep up during the run, and no buffer
//! overflows. With a rate, each message carries the time at which it was due, even if it is sent late because Redis was
//! busy. That corrects for coordinated omission.
//!
//! Two threads: the caller's writes, another reads the replies. The run ends when every result is recorded, or when
//! there was no new result for a while.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::message::{self, now_us};
use super::replies::Replies;
use super::settings::{LoadCommand, LoadConfig};
use super::summary::Summary;
use crate::base::error::{Error, Result};
use crate::lab::bench::cpu;
use crate::ledger::command::{begin, command, word};
use crate::net::WriteHalf;
use crate::process::output;

/// How many pipelines are in flight without a rate: the next is written while the last is being answered.
const PIPELINES: u64 = 2;
/// The most messages and bytes in a pipeline.
const MAX_MESSAGES: u64 = 500;
const MAX_BYTES: u64 = 512 << 10;
/// The most bytes that the window may hold: half of the default limit of a dispatcher's ring.
const MAX_WINDOW_BYTES: u64 = 32 << 20;
/// How many pipelines may be in flight with a rate.
const MAX_UNANSWERED: usize = 100_000;
/// With a rate, messages that are due within this time are sent together.
const TICK: Duration = Duration::from_micros(100);
/// The interval at which results are counted while there is nothing to send.
const COUNT_EVERY: Duration = Duration::from_millis(1);
/// After this long without a new result, missing results are no longer expected.
const QUIET_LIMIT: Duration = Duration::from_secs(20);

/// Sends the messages, waits for the results, and prints the summary.
pub(crate) fn run(config: LoadConfig) -> Result<()> {
    let (replies, writer) = Replies::connect(config.port)?;
    let (sent, pipelines) = bounded(MAX_UNANSWERED);
    let (answers, answered) = bounded(MAX_UNANSWERED);
    let command = config.command;
    let reader = thread::Builder::new()
        .name("replies".to_owned())
        .spawn(move || take_replies(replies, command, &pipelines, &answers))
        .map_err(Error::io("starting the thread replies"))?;
    let load = Load {
        batch: (MAX_BYTES / config.payload as u64).clamp(1, MAX_MESSAGES),
        window: config.first + config.window.min(MAX_WINDOW_BYTES / config.payload as u64).max(2),
        out: Vec::new(),
        payload: Vec::new(),
        unanswered: 0,
        recorded: 0,
        summary: Summary::default(),
        keys: match config.channels {
            Some(channels) => (0..channels).map(|number| format!("{}.{number}", config.key)).collect(),
            None => vec![config.key.clone()],
        },
        config,
        writer,
        sent,
        answered,
    };
    let summary = load.run();
    // The load has been dropped, and with it the sender, so the thread ends.
    let replies = reader.join().map_err(|_| Error::Failed("the thread replies panicked".to_owned()))?;
    // An error of that thread is the cause of an error of the load.
    replies?;
    output::print(format_args!("{}\n", summary?.line())).map(drop)
}

/// A pipeline that was sent.
struct Pipeline {
    messages: usize,
    /// Whether it ends with the command that counts the results.
    counted: bool,
}

/// The replies to a pipeline.
struct Answer {
    unreceived: u64,
    recorded: Option<u64>,
}

/// Reads the replies to all pipelines.
fn take_replies(
    mut replies: Replies,
    command: LoadCommand,
    pipelines: &Receiver<Pipeline>,
    answers: &Sender<Answer>,
) -> Result<()> {
    for pipeline in pipelines {
        let mut unreceived = 0;
        for _ in 0..pipeline.messages {
            match command {
                LoadCommand::Publish | LoadCommand::Spublish => unreceived += u64::from(replies.number()? == 0),
                LoadCommand::Xadd => replies.skip_ok(1)?,
            }
        }
        let recorded = if pipeline.counted { Some(replies.number()?) } else { None };
        replies.make_room();
        if answers.send(Answer { unreceived, recorded }).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

struct Load {
    config: LoadConfig,
    /// Where messages go, in turn.
    keys: Vec<String>,
    batch: u64,
    /// How far the number of messages sent may be ahead of the number of results.
    window: u64,
    writer: WriteHalf,
    out: Vec<u8>,
    payload: Vec<u8>,
    sent: Sender<Pipeline>,
    answered: Receiver<Answer>,
    unanswered: u64,
    /// The number of results at the last count.
    recorded: u64,
    summary: Summary,
}

impl Load {
    fn run(mut self) -> Result<Summary> {
        self.count()?;
        let before = self.recorded;
        let begin = Instant::now();
        match self.config.rate {
            Some(rate) => self.send_at(rate, begin)?,
            None => self.send_all(begin)?,
        }
        self.count()?;
        self.summary.recorded_while_sending = self.recorded - before;
        self.summary.sending_us = begin.elapsed().as_micros() as u64;
        self.wait_for_results()?;
        self.summary.recorded = self.recorded;
        self.summary.elapsed_us = begin.elapsed().as_micros() as u64;
        self.summary.cpu_us = cpu::of_this_process()?;
        Ok(self.summary)
    }

    /// Sends as fast as possible: the main loop without a rate.
    fn send_all(&mut self, begin: Instant) -> Result<()> {
        let is_over = |load: &Load| {
            load.summary.sent >= load.config.count || load.config.duration.is_some_and(|time| begin.elapsed() >= time)
        };
        let mut quiet = Quiet::new(self.recorded);
        while !is_over(self) {
            let ahead = (self.config.first + self.summary.sent).saturating_sub(self.recorded);
            let batch = self.batch.min(self.window / 2).min(self.config.count - self.summary.sent);
            if ahead + batch > self.window {
                thread::sleep(COUNT_EVERY);
                self.count()?;
                if quiet.is_over(self.recorded) {
                    return Ok(());
                }
                continue;
            }
            let now = now_us();
            self.send(batch, |_| now, true)?;
            while self.unanswered >= PIPELINES {
                self.take_answer()?;
            }
        }
        Ok(())
    }

    /// Sends each message when it is due: the main loop with a rate.
    fn send_at(&mut self, rate: u64, begin: Instant) -> Result<()> {
        let begin_us = now_us();
        let due_us = |number: u64| number * 1_000_000 / rate;
        loop {
            let elapsed = begin.elapsed();
            let due = (elapsed.as_micros() as u64 * rate / 1_000_000 + 1).min(self.config.count);
            while self.summary.sent < due {
                let already = self.summary.sent;
                let batch = (due - already).min(self.batch);
                self.send(batch, |number| begin_us + due_us(already + number), false)?;
                while let Ok(answer) = self.answered.try_recv() {
                    self.note(&answer);
                }
            }
            if self.summary.sent == self.config.count {
                return Ok(());
            }
            let next = Duration::from_micros(due_us(self.summary.sent));
            thread::sleep(next.saturating_sub(begin.elapsed()).max(TICK));
        }
    }

    /// Waits until all results are recorded, or until no new one comes.
    fn wait_for_results(&mut self) -> Result<()> {
        let all = self.config.first + self.summary.sent;
        let mut quiet = Quiet::new(self.recorded);
        while self.recorded < all && !quiet.is_over(self.recorded) {
            thread::sleep(COUNT_EVERY);
            self.count()?;
        }
        Ok(())
    }

    /// Sends a pipeline of messages.
    fn send(&mut self, batch: u64, time_us: impl Fn(u64) -> u64, counted: bool) -> Result<()> {
        for number in 0..batch {
            let (id, bytes) = (self.config.first + self.summary.sent + number, self.config.payload);
            message::write(&mut self.payload, id, time_us(number), bytes);
            let key = &self.keys[(id % self.keys.len() as u64) as usize];
            match self.config.command {
                command @ (LoadCommand::Publish | LoadCommand::Spublish) => {
                    begin(&mut self.out, 3);
                    word(&mut self.out, if command == LoadCommand::Publish { "PUBLISH" } else { "SPUBLISH" });
                    word(&mut self.out, key);
                }
                LoadCommand::Xadd => {
                    begin(&mut self.out, 5);
                    word(&mut self.out, "XADD");
                    word(&mut self.out, key);
                    word(&mut self.out, "*");
                    word(&mut self.out, "p");
                }
            }
            word(&mut self.out, &self.payload);
        }
        self.summary.sent += batch;
        self.flush(batch as usize, counted)
    }

    /// Counts the results, after all pipelines are answered.
    fn count(&mut self) -> Result<()> {
        self.flush(0, true)?;
        while self.unanswered > 0 {
            self.take_answer()?;
        }
        Ok(())
    }

    fn flush(&mut self, messages: usize, counted: bool) -> Result<()> {
        if counted {
            let words: Vec<&str> = self.config.progress.split(' ').collect();
            command(&mut self.out, &words);
        }
        // This comes before the write, because replies may arrive before the write returns.
        self.sent.send(Pipeline { messages, counted }).map_err(|_| reader_ended())?;
        self.unanswered += 1;
        self.writer.write_all(&self.out).map_err(Error::io("writing to redis"))?;
        self.out.clear();
        Ok(())
    }

    fn take_answer(&mut self) -> Result<()> {
        let answer = self.answered.recv().map_err(|_| reader_ended())?;
        self.note(&answer);
        Ok(())
    }

    fn note(&mut self, answer: &Answer) {
        self.unanswered -= 1;
        self.summary.unreceived += answer.unreceived;
        self.recorded = answer.recorded.unwrap_or(self.recorded);
    }
}

fn reader_ended() -> Error {
    Error::Failed("the thread replies has ended".to_owned())
}

/// Whether a count has not changed for too long.
struct Quiet {
    last: u64,
    since: Instant,
}

impl Quiet {
    fn new(count: u64) -> Quiet {
        Quiet { last: count, since: Instant::now() }
    }

    fn is_over(&mut self, count: u64) -> bool {
        if count != self.last {
            *self = Quiet::new(count);
        }
        self.since.elapsed() >= QUIET_LIMIT
    }
}
