//! The settings of `oncecast dead`.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::{ArgMatches, Command};

use crate::base::setting::ConfigError;
use crate::ledger::Glob;
use crate::process::config::Default::{Found, Text};
use crate::process::config::{self, Environment, Setting, Values, quoted};
use crate::process::log::settings::LOG_LEVEL;
use crate::programs::common::{CommonConfig, GROUP, LANE, REDIS_CA, REDIS_CERT, REDIS_KEY, REDIS_URL};
use crate::programs::messages::{MessageName, ids, with_ids};
use crate::programs::patience::PATIENCE;

/// The settings of `oncecast dead`.
#[derive(Clone, Debug)]
pub struct DeadConfig {
    /// The settings that every program has.
    pub common: CommonConfig,
    /// What is done with the letters.
    pub action: Action,
    /// Which letters.
    pub selection: Selection,
    /// As JSON.
    pub json: bool,
    /// How long Redis may be unreachable before the tool gives up. Not a setting of the program.
    pub patience: Duration,
}

/// What is done with the letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// They are listed, at most so many of them.
    List(Option<u64>),
    /// They are shown with their payloads.
    Show,
    /// Their messages are processed again.
    Replay(Consent),
    /// They are removed.
    Drop(Consent),
}

/// Whether the operator has agreed to a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Ask.
    Ask,
    /// Yes.
    Given,
    /// Change nothing, only count.
    Dry,
}

/// Which letters. Of the conditions that are given, all must hold.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// These messages; none for all.
    pub names: BTreeSet<MessageName>,
    /// What the reason must match.
    pub reason: Option<Glob>,
    /// The consumer of the last delivery.
    pub consumer: Option<String>,
    /// How long ago they may have been written.
    pub since: Option<Duration>,
}

const COMMON: [Setting; 6] = [REDIS_URL, REDIS_CA, REDIS_CERT, REDIS_KEY, GROUP, LOG_LEVEL];
const REASON: Setting = Setting::new(
    "reason",
    "GLOB",
    Found("any"),
    "Letters whose reason matches, such as '*timeout*'; * ? [ ] as in Redis",
);
const CONSUMER: Setting =
    Setting::new("consumer", "ID", Found("any"), "Letters of this consumer: the one that the message was last at");
const SINCE: Setting = Setting::new(
    "since",
    "TIME",
    Found("any"),
    "Letters of the last so much time, such as 90m; a bare number means seconds",
);
const ALL: Setting = Setting::switch("all", "All letters, if no other condition is given");
const DRY_RUN: Setting = Setting::switch("dry-run", "Only count, and change nothing");
const YES: Setting = Setting::switch("yes", "Do not ask");
const JSON: Setting = Setting::switch("json", "Print JSON, one object on each line");
const LIMIT: Setting = Setting::new("limit", "N", Text("100"), "How many to list of each lane, 0 for all");

const LIST: &[Setting] =
    &[COMMON[0], COMMON[1], COMMON[2], COMMON[3], COMMON[4], LANE, REASON, CONSUMER, SINCE, LIMIT, JSON, COMMON[5]];
const SHOW: &[Setting] = &[COMMON[0], COMMON[1], COMMON[2], COMMON[3], COMMON[4], LANE, JSON, COMMON[5]];
const CHANGE: &[Setting] = &[
    COMMON[0], COMMON[1], COMMON[2], COMMON[3], COMMON[4], LANE, REASON, CONSUMER, SINCE, ALL, DRY_RUN, YES, JSON,
    COMMON[5],
];

const SOME: &str = "the ids of messages, --reason, --consumer or --since, or --all for all letters";

/// The definition of the subcommand.
pub fn command() -> Command {
    Command::new("dead")
        .about("Lists, shows, replays and drops dead letters: messages that were given up.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(list())
        .subcommand(show())
        .subcommand(replay())
        .subcommand(drop_letters())
}

fn list() -> Command {
    config::command(
        "list",
        "\
Lists dead letters, oldest first.

A letter that was replayed before has the number of its replays, the deliveries before them, and the first reason. In a
group with several lanes, each lane's are listed, with ids as LANE/ID.",
        "\
Examples:
  oncecast dead list --group orders
  oncecast dead list --since 1h --reason '*timeout*'
  oncecast dead list --limit 0 --json | jq -r .reason | sort | uniq -c

Exit codes: 0 done, also if there is no such group (event=no-such-group), 1 Redis can't be read, 2 invalid settings.",
        LIST,
    )
}

fn show() -> Command {
    with_ids(
        1,
        "dead list",
        config::command(
            "show",
            "Shows dead letters with their payloads.",
            "\
Examples:
  oncecast dead show 0006423f1c8a5e10
  oncecast dead show 0006423f1c8a5e10 --json | jq -r .payload

Exit codes: 0 done, 1 Redis can't be read, 2 invalid settings, 3 there is no letter with one of the ids.",
            SHOW,
        ),
    )
}

fn replay() -> Command {
    with_ids(
        0,
        "dead list",
        config::command(
            "replay",
            "\
Processes the messages of dead letters again, in this group alone.

Each becomes pending under its own id, in its place in the order, and its deliveries are counted anew. Its letter goes
in the same step, so a message is replayed once, however many operators do it and whatever is killed meanwhile. Should
it fail again, the new letter has the first reason as well. Letters that are written while this runs are left alone. So
is a letter of which only the beginning of the message was kept: that one was too large.",
            "\
Examples:
  oncecast dead replay 0006423f1c8a5e10
  oncecast dead replay --reason '*connection refused*' --since 2h --dry-run
  oncecast dead replay --all --yes

Exit codes: 0 done, 1 Redis can't be read or written, or you said no, 2 invalid settings, 3 some letters could not be
replayed, or there is no letter with one of the ids.",
            CHANGE,
        ),
    )
}

fn drop_letters() -> Command {
    with_ids(
        0,
        "dead list",
        config::command(
            "drop",
            "\
Removes dead letters for good.

Letters that are written while this runs are left alone.",
            "\
Examples:
  oncecast dead drop 0006423f1c8a5e10
  oncecast dead drop --reason 'malformed*' --dry-run
  oncecast dead drop --all

Exit codes: 0 done, 1 Redis can't be read or written, or you said no, 2 invalid settings, 3 there is no letter with one
of the ids.",
            CHANGE,
        ),
    )
}

/// Reads and checks the settings.
pub fn read(matches: &ArgMatches, environment: Environment<'_>) -> Result<DeadConfig, ConfigError> {
    let (name, matches) = matches.subcommand().expect("clap demands a subcommand");
    let settings = match name {
        "list" => LIST,
        "show" => SHOW,
        _ => CHANGE,
    };
    let values = &Values::new(matches, settings, environment);
    let mut selection = Selection { names: ids(matches), ..Selection::default() };
    if name != "show" {
        selection.reason = values.text("reason")?.map(|text| glob(&text)).transpose()?;
        selection.consumer = values.text("consumer")?;
        selection.since = values.duration("since")?;
    }
    let action = match name {
        "list" => Action::List(Some(values.number("limit", 0, u64::MAX)?).filter(|limit| *limit > 0)),
        "show" => Action::Show,
        change => {
            let all = values.is_on("all")?;
            if all == selection.is_some() {
                let found = if all { "it beside other conditions" } else { "no condition" };
                return Err(ConfigError::new("all", found, SOME));
            }
            let consent = match (values.is_on("dry-run")?, values.is_on("yes")?) {
                (true, _) => Consent::Dry,
                (false, true) => Consent::Given,
                (false, false) => Consent::Ask,
            };
            if change == "replay" { Action::Replay(consent) } else { Action::Drop(consent) }
        }
    };
    Ok(DeadConfig {
        common: CommonConfig::read(values)?.unexamined(),
        action,
        selection,
        json: values.is_on("json")?,
        patience: PATIENCE,
    })
}

impl Selection {
    /// Whether there is any condition.
    fn is_some(&self) -> bool {
        !self.names.is_empty() || self.reason.is_some() || self.consumer.is_some() || self.since.is_some()
    }
}

fn glob(text: &str) -> Result<Glob, ConfigError> {
    Glob::parse(text.as_bytes())
        .map_err(|why| ConfigError::new("reason", quoted(text), format!("a pattern as in Redis: {why}")))
}
