//! The subcommand: shows the status of a group, once or until interrupted.

use std::io::{self, IsTerminal};
use std::time::Duration;

use crossbeam_channel::{after, select};

use super::lanes::{combined, in_words};
use super::reader::StatusReader;
use super::settings::StatusConfig;
use super::show::{failure_to_json, json_text};
use super::state::Status;
use crate::base::error::{Error, Result};
use crate::base::shutdown::shutdown_channel;
use crate::base::text::Escaped;
use crate::ledger::{Connection, LaneNumber};
use crate::process::log;
use crate::process::output::{self, StdoutReader};
use crate::programs::lanes::{LaneConfig, lanes_of};

/// How long to wait for a reply.
const REPLY_TIME: Duration = Duration::from_secs(5);
/// How often `--watch` checks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Shows the status of a group, once or until interrupted. The exit code is that of the last check.
pub fn run(config: &StatusConfig) -> Result<u8> {
    let _log = log::init(config.common.log_level, "oncecast", "status")?;
    let mut readers = Readers { config, lanes: Vec::new() };
    if !config.watch {
        let status = readers.read()?;
        return output::print(shown(config.json, &status)).map(|_| exit_code(&status));
    }
    let (handle, requests) = shutdown_channel();
    handle.on_signals_with_certificates(config.common.has_renewed_files())?;
    let screen = !config.json && io::stdout().is_terminal();
    // A terminal is cleared before each check; elsewhere an empty line separates two checks.
    let show = |text: String| match (screen, config.json) {
        (true, _) => output::print_on_cleared(text),
        (false, true) => output::print(text),
        (false, false) => output::print(text + "\n"),
    };
    loop {
        let (text, outcome) = match readers.read() {
            Ok(status) => (shown(config.json, &status), Ok(exit_code(&status))),
            // This replaces the last figures, which would otherwise look current.
            Err(error) if config.json => (failure_as_json(config, &error) + "\n", Err(error)),
            Err(error) => (format!("{}\n", Escaped(format!("status unknown: {error}"))), Err(error)),
        };
        if show(text)? == StdoutReader::Gone {
            return outcome;
        }
        select! {
            recv(requests.receiver()) -> _ => return outcome,
            recv(after(WATCH_EVERY)) -> _ => {}
        }
    }
}

fn failure_as_json(config: &StatusConfig, error: &Error) -> String {
    json_text(&failure_to_json(&config.common.keys.group, &error.to_string()))
}

fn shown(json: bool, lanes: &[(LaneNumber, Status)]) -> String {
    if !json {
        return in_words(lanes);
    }
    let lanes = lanes.iter().map(|(number, status)| (*number, status.to_json()));
    format!("{}\n", json_text(&combined(lanes.collect())))
}

fn exit_code(lanes: &[(LaneNumber, Status)]) -> u8 {
    lanes.iter().map(|(_, status)| status.exit_code()).max().unwrap_or(0)
}

/// Reads the status of each lane.
struct Readers<'a> {
    config: &'a StatusConfig,
    /// Those found last.
    lanes: Vec<(LaneNumber, StatusReader)>,
}

impl Readers<'_> {
    /// The status of each lane now, the lowest first.
    fn read(&mut self) -> Result<Vec<(LaneNumber, Status)>> {
        let found = lanes_of(&self.config.common, Duration::ZERO)?;
        let known = self.lanes.iter().map(|(number, _)| *number);
        if !known.eq(found.iter().map(|lane| lane.number)) {
            let reader = |lane: LaneConfig| {
                let connection = Connection::new(lane.common.redis.for_key(&lane.common.keys.leader), REPLY_TIME);
                let reader = StatusReader::new(connection, lane.common.keys, self.config.max_age).without_scripts();
                (lane.number, reader)
            };
            self.lanes = found.into_iter().map(reader).collect();
        }
        self.lanes.iter_mut().map(|(number, reader)| Ok((*number, reader.read()?))).collect()
    }
}
