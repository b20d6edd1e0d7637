//! `oncecast results tail`: follows a group's results.
//!
//! One thread reads page by page and waits in Redis for at most a second at a time, so that a signal and a reader that
//! has gone are noticed. While Redis is unreachable it waits; then it continues behind the last entry that it has
//! printed. Nothing is printed twice, and what was trimmed meanwhile is counted in the log.

use std::time::Duration;

use crossbeam_channel::{Receiver, after, select};

use crate::base::backoff::Backoff;
use crate::base::error::{Error, Result};
use crate::base::shutdown::shutdown_channel;
use crate::base::text::Quoted;
use crate::ledger::reading::EntryStream;
use crate::ledger::{Followed, Follower, LaneNumber, Ledger};
use crate::process::log as process_log;
use crate::process::output::{self, StdoutReader};
use crate::programs::absent::warn_if_absent;
use crate::programs::lanes::{LaneConfig, lanes_of, only_lane};
use crate::programs::patience::{may_pass, patiently};

mod line;
pub mod settings;

use self::line::line;
use self::settings::{Begin, ResultsConfig};

/// How long to wait for a reply; longer than [`BLOCK_MS`].
const REPLY_TIME: Duration = Duration::from_secs(10);
/// How long Redis waits for an entry, so also how late a signal may be noticed.
const BLOCK_MS: u64 = 1_000;

/// The subcommand. Returns the exit code.
pub fn run(config: &ResultsConfig) -> Result<u8> {
    let _log = process_log::init(config.common.log_level, "oncecast", "results")?;
    let (handle, requests) = shutdown_channel();
    handle.on_signals_with_certificates(config.common.has_renewed_files())?;
    let lanes = lanes_of(&config.common, config.patience)?;
    let LaneConfig { number, common, .. } = only_lane(&lanes)?;
    let mut ledger = Ledger::new(common.redis.clone(), common.keys.clone().into(), REPLY_TIME);
    let stream = if ledger.keys().stream.is_some() { EntryStream::Messages } else { EntryStream::Processed };
    let key = stream.key(ledger.keys()).to_owned();
    // Its first result may still come.
    warn_if_absent(common, &mut ledger, &key)?;
    let follower = match config.begin {
        Begin::Start => Follower::from_start(stream),
        Begin::Now => patiently(&mut ledger, config.patience, |ledger| Follower::from_now(ledger, stream))?,
        Begin::Ago(ago) => {
            let now_us = patiently(&mut ledger, config.patience, Ledger::clock_us)?;
            Follower::since(stream, (now_us / 1_000).saturating_sub(ago.as_millis() as u64))
        }
    };
    Tail { lane: *number, ledger, follower, left: config.count, stop: requests.receiver() }.run()
}

struct Tail<'a> {
    lane: LaneNumber,
    ledger: Ledger,
    follower: Follower,
    /// How many entries are still to be printed, if there is an end.
    left: Option<u64>,
    /// Told to stop.
    stop: &'a Receiver<()>,
}

impl Tail<'_> {
    /// The main loop.
    fn run(mut self) -> Result<u8> {
        let mut backoff = Backoff::for_redis();
        while self.left != Some(0) && self.stop.is_empty() {
            match self.step() {
                Ok(StdoutReader::Gone) => break,
                Ok(StdoutReader::Present) => {
                    if backoff.reset() {
                        log::info!("event=redis-recovered");
                    }
                }
                Err(error) if may_pass(&error) => {
                    if backoff.should_log() {
                        log::warn!("event=redis-trouble error={}", Quoted(error));
                    }
                    select! {
                        recv(self.stop) -> _ => break,
                        recv(after(backoff.next_wait())) -> _ => {}
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(0)
    }

    /// Prints what there is; if there is nothing, waits for more.
    fn step(&mut self) -> Result<StdoutReader, Error> {
        let Followed { entries, skipped, went_back } = self.follower.read(&mut self.ledger)?;
        if skipped > 0 {
            log::warn!("event=skipped entries={skipped} reason=\"they were removed before they could be read\"");
        }
        if went_back {
            log::warn!(
                "event=stream-went-back reason=\"Redis has lost entries that were read, or was restored\" \
                 note=\"continues with what is added from now on\""
            );
        }
        if entries.is_empty() {
            self.follower.wait(&mut self.ledger, BLOCK_MS)?;
            return Ok(output::reader());
        }
        let most =
            self.left.map_or(entries.len(), |left| entries.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
        self.left = self.left.map(|left| left - most as u64);
        output::print(entries[..most].iter().map(|entry| line(self.lane, entry)).collect::<String>())
    }
}
