//! The subcommand: shows the state of a group, once or until interrupted.

use std::io::{self, IsTerminal};
use std::time::Duration;

use crossbeam_channel::{after, select};

use super::onlooker::Onlooker;
use super::settings::StatusConfig;
use super::show::{failure_to_json, json_text};
use super::state::Status;
use crate::base::error::{Error, Result};
use crate::base::shutdown::shutdown_channel;
use crate::base::text::Escaped;
use crate::ledger::Connection;
use crate::process::log;
use crate::process::output::{self, Reader};

/// How long a reply is waited for.
const REPLY_TIME: Duration = Duration::from_secs(5);
/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Shows how a group stands, once or until interrupted. The exit code tells the health that was seen last.
pub fn run(config: &StatusConfig) -> Result<u8> {
    let _log = log::init(config.common.log_level, "oncecast", "status")?;
    let connection = Connection::new(config.common.redis.clone(), REPLY_TIME);
    let mut onlooker = Onlooker::new(connection, config.common.keys.clone(), config.max_age).without_scripts();
    if !config.watch {
        let status = onlooker.look()?;
        return output::print(shown(config.json, &status)).map(|_| status.exit_code());
    }
    let (handle, requests) = shutdown_channel();
    handle.on_signals()?;
    let screen = !config.json && io::stdout().is_terminal();
    // On a screen from the top left corner, when it is empty; elsewhere with an empty line between two looks.
    let (before, after_it) = match (screen, config.json) {
        (true, _) => ("\x1b[H\x1b[2J", ""),
        (false, true) => ("", ""),
        (false, false) => ("", "\n"),
    };
    loop {
        let (text, outcome) = match onlooker.look() {
            Ok(status) => (shown(config.json, &status), Ok(status.exit_code())),
            // In the place of the figures, which would look like those of now.
            Err(error) if config.json => (failure_as_json(config, &error) + "\n", Err(error)),
            Err(error) => (format!("{}\n", Escaped(format!("status unknown: {error}"))), Err(error)),
        };
        if output::print(format_args!("{before}{text}{after_it}"))? == Reader::Gone {
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
