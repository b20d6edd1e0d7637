//! The peer: a consumer of a native Redis Streams group that records each result in the step that acknowledges its
//! message.
//!
//! ```text
//!  one write:   MULTI  XACK stream group <ids…>  XADD results …  (for each)  EXEC  XREADGROUP … COUNT n BLOCK …
//!  one read:    +OK    +QUEUED …                                             […]   the next batch
//! ```
//!
//! One connection and one thread. The next batch is asked for in the write that commits the last one, so a batch costs
//! one round trip, and while one worker builds results Redis serves the others. What makes it cheaper than what people
//! run, always in its favour: entries stay in the stream (removing or trimming them costs Redis more than keeping them),
//! nobody looks for entries of workers that died, and only the messages of the comparison are understood.

use super::link::Link;
use super::message::Recorder;
use super::settings::WorkerConfig;
use crate::base::error::{Error, Result};
use crate::ledger::command::{begin, command, word};
use crate::process::output;

/// How long an idle worker waits before it asks again, in milliseconds.
const BLOCK_MS: &str = "1000";

/// Works until it is killed: the worker's main loop.
pub(in crate::lab::bench) fn run(config: &WorkerConfig) -> Result<()> {
    let mut link = Link::connect(config.port)?;
    let recorder = Recorder::new(&config.results, &config.name);
    let (mut ack, mut results, mut out) = (Vec::new(), Vec::new(), Vec::new());
    ask(&mut out, config);
    link.send(&out)?;
    // Whoever started it waits for this. The group gives it messages from now on.
    output::print("ready\n")?;
    let mut committed = 0;
    loop {
        out.clear();
        link.settle();
        if committed > 0 {
            take_commit(&mut link, committed)?;
        }
        committed = 0;
        if let Some(1) = link.list()? {
            // The stream's name and its entries.
            link.list()?;
            link.bulk()?;
            let entries = link.list()?.unwrap_or(0);
            ack.clear();
            results.clear();
            for _ in 0..entries {
                link.list()?;
                let id = link.bulk()?;
                link.list()?;
                link.bulk()?;
                let payload = link.bulk()?;
                word(&mut ack, link.text(&id));
                recorder.append(link.text(&payload), &mut results);
            }
            command(&mut out, &["MULTI"]);
            begin(&mut out, 3 + entries);
            ["XACK", &config.stream, &config.group].iter().for_each(|each| word(&mut out, each));
            out.extend_from_slice(&ack);
            out.extend_from_slice(&results);
            command(&mut out, &["EXEC"]);
            committed = entries;
        }
        ask(&mut out, config);
        link.send(&out)?;
    }
}

/// Takes the replies to a commit, which must have acknowledged and recorded all of the batch.
fn take_commit(link: &mut Link, entries: usize) -> Result<()> {
    // MULTI, XACK, each XADD.
    link.pass(entries + 2)?;
    let replies = link.list()?;
    let acknowledged = link.integer()?;
    if replies != Some(entries + 1) || acknowledged != entries as u64 {
        return Err(Error::Failed(format!("{acknowledged} of {entries} messages were acknowledged")));
    }
    link.pass(entries)
}

/// Appends the question for the next batch.
fn ask(out: &mut Vec<u8>, config: &WorkerConfig) {
    let batch = config.batch.to_string();
    let words = ["XREADGROUP", "GROUP", &config.group, &config.name, "COUNT", &batch, "BLOCK", BLOCK_MS];
    command_with(out, &words, &["STREAMS", &config.stream, ">"]);
}

fn command_with(out: &mut Vec<u8>, words: &[&str], more: &[&str]) {
    begin(out, words.len() + more.len());
    words.iter().chain(more).for_each(|each| word(out, each));
}
