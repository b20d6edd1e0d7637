//! The settings of `oncecast pending`.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::{ArgMatches, Command};

use crate::base::setting::ConfigError;
use crate::process::config::Default::{Found, Text};
use crate::process::config::{self, Environment, Setting, Values};
use crate::process::log::settings::LOG_LEVEL;
use crate::programs::common::{CommonConfig, GROUP, LANE, REDIS_CA, REDIS_CERT, REDIS_KEY, REDIS_URL};
use crate::programs::messages::{MessageName, ids, with_ids};
use crate::programs::patience::PATIENCE;

/// The settings of `oncecast pending`.
#[derive(Clone, Debug)]
pub struct PendingConfig {
    /// The settings that every program has.
    pub common: CommonConfig,
    /// What is shown.
    pub action: Action,
    /// As JSON.
    pub json: bool,
    /// Whether the leader is asked where the messages are.
    pub asks: bool,
    /// How long Redis may be unreachable before the tool gives up. Not a setting of the program.
    pub patience: Duration,
}

/// What is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The oldest messages.
    List {
        /// At most so many.
        limit: Option<u64>,
        /// Only those that have been pending for longer.
        older_than: Option<Duration>,
    },
    /// These, with their payloads.
    Show(BTreeSet<MessageName>),
}

const NO_ASK: Setting = Setting::switch("no-ask", "Do not ask the leader where the messages are");
const JSON: Setting = Setting::switch("json", "Print JSON, one object on each line");
const LIMIT: Setting = Setting::new("limit", "N", Text("100"), "How many to list of each lane, 0 for all");
const OLDER_THAN: Setting = Setting::new(
    "older-than",
    "TIME",
    Found("any"),
    "Messages that have been pending for longer, such as 5m; a bare number means seconds",
);

const LIST: &[Setting] =
    &[REDIS_URL, REDIS_CA, REDIS_CERT, REDIS_KEY, GROUP, LANE, OLDER_THAN, LIMIT, NO_ASK, JSON, LOG_LEVEL];
const SHOW: &[Setting] = &[REDIS_URL, REDIS_CA, REDIS_CERT, REDIS_KEY, GROUP, LANE, NO_ASK, JSON, LOG_LEVEL];

/// The definition of the subcommand.
pub fn command() -> Command {
    Command::new("pending")
        .about("Lists and shows pending messages: those without a result yet, and where each of them is.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(config::command(
            "list",
            "\
Lists pending messages, oldest first, without their payloads. Changes nothing.

Only the leader knows where a message is: at a consumer and for how long, waiting for a consumer or for the time of its
next delivery, or in Redis only. It is asked, and has two seconds to answer. '?' means that it did not. In a group with
several lanes, each lane's are listed, with ids as LANE/ID.",
            "\
Examples:
  oncecast pending list --group orders
  oncecast pending list --older-than 5m
  oncecast pending list --limit 0 --no-ask --json | jq -r .channel | sort | uniq -c

Exit codes: 0 done, also if there is no such group (event=no-such-group), 1 Redis can't be read, 2 invalid settings.",
            LIST,
        ))
        .subcommand(with_ids(
            1,
            "pending list",
            config::command(
                "show",
                "Shows pending messages with their payloads. Changes nothing.",
                "\
Examples:
  oncecast pending show 0006423f1c8a5e10
  oncecast pending show 0006423f1c8a5e10 --json | jq -r .payload

Exit codes: 0 done, 1 Redis can't be read, 2 invalid settings, 3 one of the ids is not pending.",
                SHOW,
            ),
        ))
}

/// Reads and checks the settings.
pub fn read(matches: &ArgMatches, environment: Environment<'_>) -> Result<PendingConfig, ConfigError> {
    let (name, matches) = matches.subcommand().expect("clap demands a subcommand");
    let values = &Values::new(matches, if name == "list" { LIST } else { SHOW }, environment);
    let action = match name {
        "list" => Action::List {
            limit: Some(values.number("limit", 0, u64::MAX)?).filter(|limit| *limit > 0),
            older_than: values.duration("older-than")?,
        },
        _ => Action::Show(ids(matches)),
    };
    Ok(PendingConfig {
        common: CommonConfig::read(values)?.unexamined(),
        action,
        json: values.is_on("json")?,
        asks: !values.is_on("no-ask")?,
        patience: PATIENCE,
    })
}
