//! A worker of the peer: a consumer of a native Redis Streams group. It acknowledges a message and records its result
//! in one transaction.
//!
//! ```text
//!  one write:   MULTI  XACK stream group <ids…>  XADD results …  (for each)  EXEC  XREADGROUP … COUNT n BLOCK …
//!  one read:    +OK    +QUEUED …                                             […]   the next batch
//! ```
//!
//! One connection and one thread. The same write commits a batch and requests the next, so a batch costs one round
//! trip, and while one worker builds results Redis serves the others. It is cheaper than a worker in production in
//! three ways, all in its favour: entries stay in the stream (trimming costs Redis more than keeping them), entries of
//! workers that died are not claimed, and it parses only the messages of the comparison.

use std::io::Write;

use super::message::ResultWriter;
use super::replies::Replies;
use super::settings::WorkerConfig;
use crate::base::error::{Error, Result};
use crate::ledger::command::{begin, command, word};
use crate::process::output;

/// How long Redis waits for messages before it answers, in milliseconds.
const BLOCK_MS: &str = "1000";

/// Works until it is killed: the worker's main loop.
pub(crate) fn run(config: &WorkerConfig) -> Result<()> {
    let (mut replies, mut writer) = Replies::connect(config.port)?;
    let results = ResultWriter::new(&config.results, &config.name);
    let (mut ids, mut records, mut out) = (Vec::new(), Vec::new(), Vec::new());
    request(&mut out, config);
    writer.write_all(&out).map_err(Error::io("writing to redis"))?;
    // The bench waits for this line. From now on the group delivers messages to this worker.
    output::print("ready\n")?;
    let mut committed = 0;
    loop {
        out.clear();
        replies.make_room();
        if committed > 0 {
            take_commit(&mut replies, committed)?;
        }
        committed = 0;
        if let Some(1) = replies.list()? {
            // An array with the stream's name and its entries.
            replies.list()?;
            replies.text()?;
            let entries = replies.list()?.unwrap_or(0);
            ids.clear();
            records.clear();
            for _ in 0..entries {
                replies.list()?;
                word(&mut ids, replies.text()?);
                replies.list()?;
                replies.text()?;
                results.append(replies.text()?, &mut records);
            }
            command(&mut out, &["MULTI"]);
            begin(&mut out, 3 + entries);
            ["XACK", &config.stream, &config.group].iter().for_each(|each| word(&mut out, each));
            out.extend_from_slice(&ids);
            out.extend_from_slice(&records);
            command(&mut out, &["EXEC"]);
            committed = entries;
        }
        request(&mut out, config);
        writer.write_all(&out).map_err(Error::io("writing to redis"))?;
    }
}

/// Takes the replies to a commit. It must have acknowledged and recorded the whole batch.
fn take_commit(replies: &mut Replies, entries: usize) -> Result<()> {
    // The replies to MULTI, XACK, and each XADD.
    replies.skip_ok(entries + 2)?;
    let outcomes = replies.list()?;
    let acknowledged = replies.number()?;
    if outcomes != Some(entries + 1) || acknowledged != entries as u64 {
        return Err(Error::Failed(format!("{acknowledged} of {entries} messages were acknowledged")));
    }
    replies.skip_ok(entries)
}

/// Appends the command that requests the next batch.
fn request(out: &mut Vec<u8>, config: &WorkerConfig) {
    let batch = config.batch.to_string();
    command(
        out,
        &[
            "XREADGROUP",
            "GROUP",
            &config.group,
            &config.name,
            "COUNT",
            &batch,
            "BLOCK",
            BLOCK_MS,
            "STREAMS",
            &config.stream,
            ">",
        ],
    );
}
