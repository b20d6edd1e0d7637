//! The subcommand: shows the status of a group, once or until interrupted.

use std::io::{self, IsTerminal};
use std::time::Duration;

use crossbeam_channel::{after, select};

use super::health::NEEDS_ATTENTION;
use super::lanes::{Seen, combined, in_words};
use super::readers::Readers;
use super::settings::StatusConfig;
use super::show::{failure_to_json, json_text};
use super::state::Status;
use crate::base::error::{Error, Result};
use crate::base::shutdown::shutdown_channel;
use crate::base::text::Escaped;
use crate::ledger::LaneNumber;
use crate::process::log;
use crate::process::output::{self, StdoutReader};

/// How often `--watch` checks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Shows the status of a group, once or until interrupted. The exit code is that of the last check.
pub fn run(config: &StatusConfig) -> Result<u8> {
    let _log = log::init(config.common.log_level, "oncecast", "status")?;
    let mut readers = Readers::new(config);
    if !config.watch {
        let status = readers.read()?;
        return output::print(shown(config, &status)).map(|_| exit_code(&status));
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
            Ok(status) => (shown(config, &status), Ok(exit_code(&status))),
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

fn shown(config: &StatusConfig, lanes: &[(LaneNumber, Seen)]) -> String {
    if !config.json {
        return in_words(lanes);
    }
    let keys = &config.common.keys;
    let group = |number| keys.lane(number).map_or_else(|| keys.group.clone(), |keys| keys.group);
    let lanes = lanes.iter().map(|(number, seen)| {
        let shown = seen.as_ref().map(Status::to_json);
        (*number, shown.unwrap_or_else(|problem| failure_to_json(&group(*number), problem)))
    });
    format!("{}\n", json_text(&combined(lanes.collect())))
}

fn exit_code(lanes: &[(LaneNumber, Seen)]) -> u8 {
    let code = |seen: &Seen| seen.as_ref().map_or(NEEDS_ATTENTION, Status::exit_code);
    lanes.iter().map(|(_, seen)| code(seen)).max().unwrap_or(0)
}
