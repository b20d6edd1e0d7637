//! Follows the stream of results and measures the time since each message was due.
//!
//! So a latency includes the way from Redis to the reader: one wake-up and one reply more than until the result is
//! recorded. The ids of the stream's entries are not precise enough: they count milliseconds.

use std::io::Write;
use std::time::{Duration, Instant};

use super::message::now_us;
use super::replies::Replies;
use super::settings::ReaderConfig;
use crate::base::error::{Error, Result};
use crate::lab::bench::histogram::Histogram;
use crate::ledger::command::command;
use crate::process::output;

/// How long Redis waits for a new result before it answers, in milliseconds.
const BLOCK_MS: &str = "1000";
/// The most results in a reply.
const PAGE: &str = "1000";
/// After this long without a new result, missing results are no longer expected.
const QUIET_LIMIT: Duration = Duration::from_secs(30);

/// Reads the expected number of results and prints the histogram.
pub(crate) fn run(config: &ReaderConfig) -> Result<()> {
    let (mut replies, mut writer) = Replies::connect(config.port)?;
    output::print("ready\n")?;
    let mut histogram = Histogram::default();
    let mut last = "0-0".to_owned();
    let mut out = Vec::new();
    let mut last_reply = Instant::now();
    let mut skip = config.skip;
    while histogram.count() + config.skip < config.count {
        out.clear();
        command(&mut out, &["XREAD", "COUNT", PAGE, "BLOCK", BLOCK_MS, "STREAMS", &config.results, &last]);
        writer.write_all(&out).map_err(Error::io("writing to redis"))?;
        replies.make_room();
        let Some(_) = replies.list()? else {
            if last_reply.elapsed() >= QUIET_LIMIT {
                let count = histogram.count() + config.skip - skip;
                return Err(Error::Failed(format!("no new result for {QUIET_LIMIT:?} after {count}")));
            }
            continue;
        };
        last = take_results(&mut replies, &mut skip, &mut histogram)?;
        last_reply = Instant::now();
    }
    output::print(histogram.lines().map(|line| format!("{line}\n")).collect::<String>())?;
    Ok(())
}

/// Takes the results of one reply and returns the id of the last.
fn take_results(replies: &mut Replies, skip: &mut u64, histogram: &mut Histogram) -> Result<String> {
    // The stream's name and its entries.
    replies.list()?;
    replies.text()?;
    let mut due = Vec::new();
    let mut without_time = false;
    let last = replies.results(|found| match found {
        Some((_, Some(time))) => due.push(time),
        _ => without_time = true,
    })?;
    if without_time {
        return Err(Error::Failed("a result without the time of its message".to_owned()));
    }
    // Taken once the whole reply has been read: that is when a reader has the result.
    let now = now_us();
    let skipped = (*skip).min(due.len() as u64);
    *skip -= skipped;
    due[skipped as usize..].iter().for_each(|due| histogram.add(now.saturating_sub(*due)));
    last.ok_or_else(|| Error::Failed("redis answered with no result".to_owned()))
}
