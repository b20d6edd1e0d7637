//! A worker of the peer: a consumer of a native Redis Streams group. It acknowledges a message and records its result
//! in one transaction.
//!
//! ```text
//!  one write:   MULTI  XACK stream group <ids…>  XADD results …  (for each)  EXEC  XREADGROUP … COUNT n BLOCK …
//!  one read:    +OK    +QUEUED …                                             […]   the next batch
//! ```
//!
//! One connection and one thread. The same write commits a batch and requests the next, so a batch costs one round
//! trip, and while one worker builds results Redis serves the others. It parses only the messages of the comparison,
//! which is cheaper than in production. Without `--tidy` it is so in two more ways: entries stay in the stream
//! (trimming costs Redis more than keeping them), and entries of workers that died are not claimed.
//!
//! With `--tidy` it uses the best that the server has: `XACKDEL` (Redis 8.2), else `XACK` and `XDEL`; `XREADGROUP` with
//! `CLAIM` (Redis 8.4), else `XAUTOCLAIM` once a second.

use std::io::Write;
use std::time::{Duration, Instant};

use super::message::ResultWriter;
use super::replies::Replies;
use super::settings::WorkerConfig;
use crate::base::error::{Error, Result};
use crate::ledger::command::{begin, command, word};
use crate::net::WriteHalf;
use crate::process::output;

/// How long Redis waits for messages before it answers, in milliseconds.
const BLOCK_MS: &str = "1000";
/// For how long a message must be with a worker to be claimed by another, in milliseconds. None is, in a comparison.
const DEAD_AFTER_MS: &str = "60000";
/// How often messages of dead workers are looked for, without `CLAIM`.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Works until it is killed.
pub(crate) fn run(config: &WorkerConfig) -> Result<()> {
    let (replies, writer) = Replies::connect(config.port)?;
    let mut worker = Worker { config, replies, writer, out: Vec::new(), tidy: None, looked: Instant::now() };
    if config.tidy {
        worker.tidy = Some(worker.find_commands()?);
    }
    worker.request();
    worker.write()?;
    // The bench waits for this line. From now on the group delivers messages to this worker.
    output::print("ready\n")?;
    worker.work()
}

/// How messages are deleted and claimed.
#[derive(Clone, Copy)]
struct Tidy {
    xackdel: bool,
    claim: bool,
}

struct Worker<'a> {
    config: &'a WorkerConfig,
    replies: Replies,
    writer: WriteHalf,
    out: Vec<u8>,
    tidy: Option<Tidy>,
    /// When messages of dead workers were looked for.
    looked: Instant,
}

impl Worker<'_> {
    /// Tries what the server has, on the stream that is empty yet.
    fn find_commands(&mut self) -> Result<Tidy> {
        let WorkerConfig { stream, group, name, .. } = self.config;
        command(&mut self.out, &["XACKDEL", stream, group, "IDS", "1", "0-1"]);
        let claiming =
            ["XREADGROUP", "GROUP", group, name, "COUNT", "1", "CLAIM", DEAD_AFTER_MS, "STREAMS", stream, ">"];
        command(&mut self.out, &claiming);
        self.write()?;
        Ok(Tidy { xackdel: self.replies.is_accepted()?, claim: self.replies.is_accepted()? })
    }

    /// The main loop: takes a batch, and commits it with the request for the next.
    fn work(&mut self) -> Result<()> {
        let results = ResultWriter::new(&self.config.results, &self.config.name);
        let (mut ids, mut records) = (Vec::new(), Vec::new());
        let (mut committed, mut looks) = (0, false);
        loop {
            self.replies.make_room();
            if committed > 0 {
                self.take_commit(committed)?;
            }
            if looks {
                self.take_look()?;
            }
            let entries = self.take_batch(&results, &mut ids, &mut records)?;
            if entries > 0 {
                self.commit(entries, &ids, &records);
            }
            committed = entries;
            looks = self.tidy.is_some_and(|tidy| !tidy.claim) && self.looked.elapsed() >= LOOK_EVERY;
            if looks {
                self.looked = Instant::now();
                let WorkerConfig { stream, group, name, .. } = self.config;
                command(&mut self.out, &["XAUTOCLAIM", stream, group, name, DEAD_AFTER_MS, "0-0"]);
            }
            self.request();
            self.write()?;
        }
    }

    /// Takes a batch: its ids, and the commands that record its results. Returns how many messages it has.
    fn take_batch(&mut self, results: &ResultWriter, ids: &mut Vec<u8>, records: &mut Vec<u8>) -> Result<usize> {
        ids.clear();
        records.clear();
        let Some(1) = self.replies.list()? else { return Ok(0) };
        // An array with the stream's name and its entries.
        self.replies.list()?;
        self.replies.text()?;
        let entries = self.replies.list()?.unwrap_or(0);
        for _ in 0..entries {
            let parts = self.replies.list()?.unwrap_or(0);
            word(ids, self.replies.text()?);
            self.replies.list()?;
            self.replies.text()?;
            results.append(self.replies.text()?, records);
            // With `CLAIM` also how long it was with a worker, and how often it was delivered.
            self.replies.skip_ok(parts.saturating_sub(2))?;
        }
        Ok(entries)
    }

    /// Appends the transaction that acknowledges and records a batch.
    fn commit(&mut self, entries: usize, ids: &[u8], records: &[u8]) {
        let WorkerConfig { stream, group, .. } = self.config;
        let out = &mut self.out;
        command(out, &["MULTI"]);
        if self.tidy.is_some_and(|tidy| tidy.xackdel) {
            begin(out, 5 + entries);
            ["XACKDEL", stream, group, "IDS", &entries.to_string()].iter().for_each(|each| word(out, each));
            out.extend_from_slice(ids);
        } else {
            begin(out, 3 + entries);
            ["XACK", stream, group].iter().for_each(|each| word(out, each));
            out.extend_from_slice(ids);
        }
        if self.tidy.is_some_and(|tidy| !tidy.xackdel) {
            begin(out, 2 + entries);
            ["XDEL", stream].iter().for_each(|each| word(out, each));
            out.extend_from_slice(ids);
        }
        out.extend_from_slice(records);
        command(out, &["EXEC"]);
    }

    /// Takes the replies to a commit. It must have acknowledged and recorded the whole batch.
    fn take_commit(&mut self, entries: usize) -> Result<()> {
        let deletes = self.tidy.is_some_and(|tidy| !tidy.xackdel);
        let commands = entries + 1 + usize::from(deletes);
        // The replies to MULTI, and to each command.
        self.replies.skip_ok(commands + 1)?;
        let outcomes = self.replies.list()?;
        let mut acknowledged = 0;
        if self.tidy.is_some_and(|tidy| tidy.xackdel) {
            for _ in 0..self.replies.list()?.unwrap_or(0) {
                acknowledged += u64::from(self.replies.number()? == 1);
            }
        } else {
            acknowledged = self.replies.number()?;
        }
        if outcomes != Some(commands) || acknowledged != entries as u64 {
            return Err(Error::Failed(format!("{acknowledged} of {entries} messages were acknowledged")));
        }
        self.replies.skip_ok(commands - 1)
    }

    /// Takes the reply to `XAUTOCLAIM`: where to go on, what was claimed, and since Redis 7.0 what was deleted.
    fn take_look(&mut self) -> Result<()> {
        let parts = self.replies.list()?.unwrap_or(0);
        self.replies.text()?;
        let claimed = self.replies.list()?.unwrap_or(0);
        if claimed > 0 {
            return Err(Error::Failed(format!("{claimed} messages were with a worker for {DEAD_AFTER_MS} ms")));
        }
        for _ in 2..parts {
            let deleted = self.replies.list()?.unwrap_or(0);
            self.replies.skip_ok(deleted)?;
        }
        Ok(())
    }

    /// Appends the command that requests the next batch.
    fn request(&mut self) {
        let WorkerConfig { stream, group, name, batch, .. } = self.config;
        let batch = batch.to_string();
        let mut words = vec!["XREADGROUP", "GROUP", group, name, "COUNT", &batch, "BLOCK", BLOCK_MS];
        if self.tidy.is_some_and(|tidy| tidy.claim) {
            words.extend(["CLAIM", DEAD_AFTER_MS]);
        }
        words.extend(["STREAMS", stream, ">"]);
        command(&mut self.out, &words);
    }

    fn write(&mut self) -> Result<()> {
        self.writer.write_all(&self.out).map_err(Error::io("writing to redis"))?;
        self.out.clear();
        Ok(())
    }
}
