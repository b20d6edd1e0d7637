//! `oncecast pause`, `resume` and `set`: change a group's settings while it runs, or show them.
//!
//! A change is one step in Redis, which also tells the leader. Then the tool waits until the leader's report shows it,
//! so that what it prints is true. It may be killed at any time and started again.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

mod outcome;
pub mod settings;

use self::outcome::{Leader, Outcome};
use self::settings::OperateConfig;
use crate::base::error::{Error, Result};
use crate::base::text::Quoted;
use crate::ledger::{GroupSettings, Ledger, PauseChange, SettingsChange, SettingsReading};
use crate::process::log as process_log;
use crate::process::output;
use crate::programs::lanes::{LaneConfig, heading, lanes_to_change};
use crate::programs::patience::patiently;
use crate::programs::status::report::Report;

/// How long to wait for a reply.
const REPLY_TIME: Duration = Duration::from_secs(10);
/// How long the leader may take to report a change.
const CONFIRM_WITHIN: Duration = Duration::from_secs(5);
/// After this time without a leader, there is none.
const NONE_AFTER: Duration = Duration::from_secs(1);
/// How often the leader's report is read.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The subcommands. Returns the exit code.
pub fn run(config: &OperateConfig) -> Result<u8> {
    let _log = process_log::init(config.common.log_level, "oncecast", "operate")?;
    let (mut code, mut done, mut failed) = (0, BTreeSet::new(), None);
    // A lane that is recorded meanwhile may have been given the settings from before. Lanes are never removed.
    loop {
        let lanes = lanes_to_change(&config.common, config.patience)?;
        let new: Vec<&LaneConfig> = lanes.iter().filter(|lane| !done.contains(&lane.number)).collect();
        if new.is_empty() {
            return failed.map_or(Ok(code), Err);
        }
        for lane in new {
            output::print(if config.json { String::new() } else { heading(lane) })?;
            match run_on(config, lane) {
                Ok(of_lane) => code = code.max(of_lane),
                Err(error) if lane.is_one_of_several => {
                    log::error!(
                        "event=lane-failed lane={number} error={} note=\"the other lanes are done all the same; repeat \
                         it for this one: --lane {number}\"",
                        Quoted(&error),
                        number = lane.number
                    );
                    failed.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
            done.insert(lane.number);
        }
    }
}

/// The same for one lane.
fn run_on(config: &OperateConfig, lane: &LaneConfig) -> Result<u8> {
    let mut ledger = Ledger::new(lane.common.redis.clone(), lane.common.keys.clone().into(), REPLY_TIME);
    let patience = config.patience;
    if config.change != SettingsChange::default() {
        patiently(&mut ledger, patience, |ledger| refuse_stream(ledger, &config.change))?;
    }
    let reading = patiently(&mut ledger, patience, |ledger| ledger.change_settings(&config.change))?;
    let read = Instant::now();
    for (field, value) in &reading.foreign {
        log::warn!(
            "event=setting-ignored key={} field={field} holds={}",
            Quoted(&ledger.keys().settings),
            Quoted(value)
        );
    }
    let leader = patiently(&mut ledger, patience, |ledger| confirmed(ledger, &reading, read))?;
    let outcome = Outcome { settings: still_set(&reading, read), leader };
    output::print(outcome.shown(lane.number, &config.change, config.json))?;
    Ok(outcome.exit_code())
}

/// With `--deliver stream` there are no deliveries that could be held back.
fn refuse_stream(ledger: &mut Ledger, change: &SettingsChange) -> Result<()> {
    let Some((leader, report)) = ledger.leaders_report()? else { return Ok(()) };
    let stream = report.as_deref().and_then(Report::parse).map(|report| report.stream).unwrap_or_default();
    // A pause that is left from before may be ended.
    if stream.is_empty() || change.pause == Some(PauseChange::Resume) {
        return Ok(());
    }
    Err(Error::Failed(format!(
        "the leader {leader} adds messages to the stream {}, from which workers read as they like: a pause and limits \
         have no meaning for --deliver stream, so stop the workers instead; nothing was changed",
        Quoted(stream)
    )))
}

/// Waits until the leader's report shows the settings, a little.
fn confirmed(ledger: &mut Ledger, reading: &SettingsReading, read: Instant) -> Result<Leader> {
    let begin = Instant::now();
    let mut seen = begin;
    loop {
        let found = ledger.leaders_report()?;
        let now = Instant::now();
        let leader = match found {
            Some((id, report)) => {
                seen = now;
                Leader::of(id, report.as_deref().and_then(Report::parse), &still_set(reading, read))
            }
            None => Leader::None,
        };
        let waits = match leader {
            Leader::Confirmed { .. } => false,
            Leader::Silent(_) => begin.elapsed() < CONFIRM_WITHIN,
            Leader::None => seen.elapsed() < NONE_AFTER && begin.elapsed() < CONFIRM_WITHIN,
        };
        if !waits {
            return Ok(leader);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// What is set now: a short pause may be over already.
fn still_set(reading: &SettingsReading, read: Instant) -> GroupSettings {
    let goes_on = reading.pause_left().is_some_and(|left| left.is_none_or(|left| read.elapsed() < left));
    let settings = reading.settings.clone();
    GroupSettings { pause: settings.pause.filter(|_| goes_on), ..settings }
}
