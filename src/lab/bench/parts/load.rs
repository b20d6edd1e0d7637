//! The load of a run, the same for all kinds: `PUBLISH` for those that listen to a channel, `XADD` for a Streams group.
//!
//! Without a rate as fast as Redis takes it, but never more than a window ahead of the results: each pipeline also asks
//! how many there are. So the run is sustained by all that take part, and nobody's buffers overflow.
//! With a rate each message has a time at which it is due, and carries it; one that goes out late because Redis was busy
//! carries it all the same. That is what corrects for coordinated omission.
//!
//! Two threads: the caller's writes, another takes the replies. The run ends when every result is recorded, or when none
//! has come for a while.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::link::Link;
use super::message::{self, now_us};
use super::settings::{LoadCommand, LoadConfig};
use super::summary::Summary;
use crate::base::error::{Error, Result};
use crate::lab::bench::cpu;
use crate::ledger::command::{begin, command, word};
use crate::process::output;

/// Pipelines on their way at the same time, without a rate: the next one is written while the last is answered.
const PIPELINES: u64 = 2;
/// The most messages and bytes of a pipeline.
const MAX_MESSAGES: u64 = 500;
const MAX_BYTES: u64 = 512 << 10;
/// The most bytes that the window may hold: as much as a dispatcher keeps by default, and a half.
const MAX_WINDOW_BYTES: u64 = 32 << 20;
/// Pipelines that may wait for their replies with a rate.
const MAX_UNANSWERED: usize = 100_000;
/// With a rate, messages that are due within this time go out together.
const TICK: Duration = Duration::from_micros(100);
/// Between two looks at the results, while there is nothing to send.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// No new result for this long: those that are missing will not come.
const QUIET_LIMIT: Duration = Duration::from_secs(20);

/// Sends, waits for the results, and prints the summary.
pub(in crate::lab::bench) fn run(config: LoadConfig) -> Result<()> {
    let link = Link::connect(config.port)?;
    let writer = link.writer()?;
    let (sent, pipelines) = bounded(MAX_UNANSWERED);
    let (answers, answered) = bounded(MAX_UNANSWERED);
    let command = config.command;
    let reader = thread::Builder::new()
        .name("replies".to_owned())
        .spawn(move || take_replies(link, command, &pipelines, &answers))
        .map_err(Error::io("starting the thread replies"))?;
    let load = Load {
        batch: (MAX_BYTES / config.payload as u64).clamp(1, MAX_MESSAGES),
        window: config.first + config.window.min(MAX_WINDOW_BYTES / config.payload as u64).max(2),
        out: Vec::new(),
        payload: Vec::new(),
        unanswered: 0,
        recorded: 0,
        summary: Summary::default(),
        config,
        writer,
        sent,
        answered,
    };
    let summary = load.run();
    // The load is gone, and with it the sender that the thread waits for.
    let replies = reader.join().map_err(|_| Error::Failed("the thread replies panicked".to_owned()))?;
    // What went wrong there is why the load could not go on.
    replies?;
    output::print(format_args!("{}\n", summary?.line())).map(drop)
}

/// A pipeline that has gone out.
struct Pipeline {
    messages: usize,
    /// Whether it is asked how many results there are, at the end.
    counted: bool,
}

/// What was answered to a pipeline.
struct Answer {
    unreceived: u64,
    recorded: Option<u64>,
}

/// Takes replies until there are no more pipelines to come.
fn take_replies(
    mut link: Link,
    command: LoadCommand,
    pipelines: &Receiver<Pipeline>,
    answers: &Sender<Answer>,
) -> Result<()> {
    for pipeline in pipelines {
        let mut unreceived = 0;
        for _ in 0..pipeline.messages {
            match command {
                LoadCommand::Publish => unreceived += u64::from(link.integer()? == 0),
                LoadCommand::Xadd => link.pass(1)?,
            }
        }
        let recorded = if pipeline.counted { Some(link.integer()?) } else { None };
        link.settle();
        if answers.send(Answer { unreceived, recorded }).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

struct Load {
    config: LoadConfig,
    batch: u64,
    /// How far the numbers sent may be ahead of the results.
    window: u64,
    writer: TcpStream,
    out: Vec<u8>,
    payload: Vec<u8>,
    sent: Sender<Pipeline>,
    answered: Receiver<Answer>,
    unanswered: u64,
    /// How many results there were when last asked.
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
        self.summary.recorded_meanwhile = self.recorded - before;
        self.summary.sending_us = begin.elapsed().as_micros() as u64;
        self.wait_for_results()?;
        self.summary.recorded = self.recorded;
        self.summary.elapsed_us = begin.elapsed().as_micros() as u64;
        self.summary.cpu_us = cpu::of_this_process()?;
        Ok(self.summary)
    }

    /// Sends as fast as it goes: the main loop without a rate.
    fn send_all(&mut self, begin: Instant) -> Result<()> {
        let is_over = |load: &Load| {
            load.summary.sent >= load.config.count || load.config.duration.is_some_and(|time| begin.elapsed() >= time)
        };
        let mut quiet = Quiet::new(self.recorded);
        while !is_over(self) {
            let ahead = (self.config.first + self.summary.sent).saturating_sub(self.recorded);
            let batch = self.batch.min(self.window / 2).min(self.config.count - self.summary.sent);
            if ahead + batch > self.window {
                thread::sleep(LOOK_EVERY);
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

    /// Waits until all is recorded, or for as long as something comes.
    fn wait_for_results(&mut self) -> Result<()> {
        let all = self.config.first + self.summary.sent;
        let mut quiet = Quiet::new(self.recorded);
        while self.recorded < all && !quiet.is_over(self.recorded) {
            thread::sleep(LOOK_EVERY);
            self.count()?;
        }
        Ok(())
    }

    /// Sends one pipeline.
    fn send(&mut self, batch: u64, time_us: impl Fn(u64) -> u64, counted: bool) -> Result<()> {
        for number in 0..batch {
            let (id, bytes) = (self.config.first + self.summary.sent + number, self.config.payload);
            message::write(&mut self.payload, id, time_us(number), bytes);
            match self.config.command {
                LoadCommand::Publish => {
                    begin(&mut self.out, 3);
                    word(&mut self.out, "PUBLISH");
                    word(&mut self.out, &self.config.key);
                }
                LoadCommand::Xadd => {
                    begin(&mut self.out, 5);
                    word(&mut self.out, "XADD");
                    word(&mut self.out, &self.config.key);
                    word(&mut self.out, "*");
                    word(&mut self.out, "p");
                }
            }
            word(&mut self.out, &self.payload);
        }
        self.summary.sent += batch;
        self.flush(batch as usize, counted)
    }

    /// Asks how many results there are, once everything before is answered.
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
        // First: the replies may come before the write returns.
        self.sent.send(Pipeline { messages, counted }).map_err(|_| ended())?;
        self.unanswered += 1;
        self.writer.write_all(&self.out).map_err(Error::io("writing to redis"))?;
        self.out.clear();
        Ok(())
    }

    fn take_answer(&mut self) -> Result<()> {
        let answer = self.answered.recv().map_err(|_| ended())?;
        self.note(&answer);
        Ok(())
    }

    fn note(&mut self, answer: &Answer) {
        self.unanswered -= 1;
        self.summary.unreceived += answer.unreceived;
        self.recorded = answer.recorded.unwrap_or(self.recorded);
    }
}

fn ended() -> Error {
    Error::Failed("the thread replies has ended".to_owned())
}

/// Whether a count has stood still for too long.
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
