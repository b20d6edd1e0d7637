//! The subcommand: shows the status of a group, once or until interrupted.

use std::io::{self, IsTerminal};
use std::time::Duration;

use crossbeam_channel::{after, select};

use super::reader::StatusReader;
use super::settings::StatusConfig;
use super::show::{failure_to_json, json_text};
use super::state::Status;
use crate::base::error::{Error, Result};
use crate::base::shutdown::shutdown_channel;
use crate::base::text::Escaped;
use crate::ledger::Connection;
use crate::process::log;
use crate::process::output::{self, StdoutReader};

/// How long to wait for a reply.
const REPLY_TIME: Duration = Duration::from_secs(5);
/// How often `--watch` checks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Shows the status of a group, once or until interrupted. The exit code is that of the last check.
pub fn run(config: &StatusConfig) -> Result<u8> {
    let _log = log::init(config.common.log_level, "oncecast", "status")?;
    let connection = Connection::new(config.common.redis.clone(), REPLY_TIME);
    let mut reader = StatusReader::new(connection, config.common.keys.clone(), config.max_age).without_scripts();
    if !config.watch {
        let status = reader.read()?;
        return output::print(shown(config.json, &status)).map(|_| status.exit_code());
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
        let (text, outcome) = match reader.read() {
            Ok(status) => (shown(config.json, &status), Ok(status.exit_code())),
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

fn shown(json: bool, status: &Status) -> String {
    if json { format!("{}\n", json_text(&status.to_json())) } else { status.to_string() }
}
