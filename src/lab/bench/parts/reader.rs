//! Follows the result stream and measures, by its own clock, how long ago each message was to be sent.
//!
//! So a latency includes the way to the reader: a wake-up and a reply more than until the result is recorded. The
//! stream's own ids are no use for it, as they count milliseconds.

use std::time::{Duration, Instant};

use super::link::Link;
use super::message::{self, now_us};
use super::settings::ReaderConfig;
use crate::base::error::{Error, Result};
use crate::lab::bench::histogram::Histogram;
use crate::ledger::command::command;
use crate::process::output;

/// How long Redis waits for a new result, in milliseconds.
const BLOCK_MS: &str = "1000";
/// The most results of one reply.
const PAGE: &str = "1000";
/// No new result for this long: those that are missing will not come.
const QUIET_LIMIT: Duration = Duration::from_secs(30);

/// Reads so many results, and prints the histogram.
pub(in crate::lab::bench) fn run(config: &ReaderConfig) -> Result<()> {
    let mut link = Link::connect(config.port)?;
    output::print("ready\n")?;
    let mut histogram = Histogram::default();
    let mut last = "0-0".to_owned();
    let mut out = Vec::new();
    let mut heard = Instant::now();
    let mut skip = config.skip;
    while histogram.count() + config.skip < config.count {
        out.clear();
        command(&mut out, &["XREAD", "COUNT", PAGE, "BLOCK", BLOCK_MS, "STREAMS", &config.results, &last]);
        link.send(&out)?;
        link.settle();
        let Some(_) = link.list()? else {
            if heard.elapsed() >= QUIET_LIMIT {
                let count = histogram.count() + config.skip - skip;
                return Err(Error::Failed(format!("{count} results came, and then none for {QUIET_LIMIT:?}")));
            }
            continue;
        };
        last = page(&mut link, &mut skip, &mut histogram)?;
        heard = Instant::now();
    }
    output::print(histogram.lines().map(|line| format!("{line}\n")).collect::<String>())?;
    Ok(())
}

/// Takes the results of one reply; gives the id of the last.
fn page(link: &mut Link, skip: &mut u64, histogram: &mut Histogram) -> Result<String> {
    link.list()?;
    link.bulk()?;
    let entries = link.list()?.unwrap_or(0);
    let mut last = 0..0;
    let mut sent = Vec::with_capacity(entries);
    for _ in 0..entries {
        link.list()?;
        last = link.bulk()?;
        let fields = link.list()?.unwrap_or(0);
        let mut time = None;
        for _ in 0..fields / 2 {
            let (name, value) = (link.bulk()?, link.bulk()?);
            if link.text(&name) == b"message_id" {
                time = message::read(link.text(&value)).and_then(|(_, time)| time);
            }
        }
        sent.push(time.ok_or_else(|| Error::Failed("a result does not say when its message was sent".to_owned()))?);
    }
    // Once the whole reply is there: that is when a reader has the result.
    let now = now_us();
    let skipped = (*skip).min(sent.len() as u64);
    *skip -= skipped;
    sent[skipped as usize..].iter().for_each(|sent| histogram.add(now.saturating_sub(*sent)));
    Ok(String::from_utf8_lossy(link.text(&last)).into_owned())
}
