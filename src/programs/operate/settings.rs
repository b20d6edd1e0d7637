//! The settings of `oncecast pause`, `resume` and `set`. What is changed is given by flags alone: a variable, set for
//! some other program, must not change a group.

use std::time::Duration;

use clap::{Arg, ArgMatches, Command};

use crate::base::delivery_rate::{DeliveryRate, RATE_FORM};
use crate::base::duration;
use crate::base::setting::ConfigError;
use crate::base::text::beginning;
use crate::ledger::{MAX_BY_BYTES, MOST_IN_FLIGHT, PauseChange, SettingsChange};
use crate::process::config::{self, Environment, Setting, Values};
use crate::process::log::settings::LOG_LEVEL;
use crate::programs::common::{CommonConfig, GROUP, LANE, REDIS_CA, REDIS_CERT, REDIS_KEY, REDIS_URL};
use crate::programs::patience::PATIENCE;

/// The settings of one of the subcommands.
#[derive(Clone, Debug)]
pub struct OperateConfig {
    /// The settings that every program has.
    pub common: CommonConfig,
    /// What is changed; nothing, if that is only shown.
    pub change: SettingsChange,
    /// As JSON.
    pub json: bool,
    /// How long Redis may be unreachable before the tool gives up. Not a setting of the program.
    pub patience: Duration,
}

/// The names of the subcommands.
pub const NAMES: [&str; 3] = ["pause", "resume", "set"];

const SETTINGS: &[Setting] = &[
    REDIS_URL,
    REDIS_CA,
    REDIS_CERT,
    REDIS_KEY,
    GROUP,
    LANE,
    Setting::switch("json", "Print JSON, one object on one line for each lane"),
    LOG_LEVEL,
];

/// The longest pause with an end: a year.
const MAX_PAUSE: Duration = Duration::from_secs(8_760 * 3_600);
/// Takes the group's own limit away.
const DEFAULT: &str = "default";

/// The end of each subcommand's help, behind its examples.
macro_rules! after {
    ($examples:literal) => {
        concat!(
            $examples,
            "\n\nExit codes: 0 done, and the leader keeps to it or there is none now, 1 Redis can't be read or \
             written, or the group\ndelivers to a stream, 2 invalid settings, 3 done, and the leader has not confirmed \
             it."
        )
    };
}

/// The definitions of the subcommands.
pub fn commands() -> [Command; 3] {
    [pause(), resume(), set()]
}

fn pause() -> Command {
    let about = "\
Pauses a group: its messages are stored and not delivered.

What consumers hold already is finished and recorded. The pause is kept in Redis: it outlasts leaders, dispatchers and
consumers, and ends with --for or by oncecast resume. Pausing again changes its end, or removes it without --for;
oncecast set only shows the pause.";
    let after = after!(
        "\
Examples:
  oncecast pause --group orders
  oncecast pause --for 10m --by 'maintenance of the warehouse'"
    );
    config::command("pause", about, after, SETTINGS)
        .arg(
            flag(
                "for",
                "TIME",
                "How long, such as 10m or 2h, a bare number for seconds; otherwise until oncecast resume",
            )
            .value_parser(time_in),
        )
        .arg(flag("by", "NAME", "Who pauses it, or why, as the status shows it").value_parser(by_in))
}

fn resume() -> Command {
    let about = "Ends the pause of a group: everything that is pending is delivered.";
    config::command("resume", about, after!("Example:\n  oncecast resume --group orders"), SETTINGS)
}

fn set() -> Command {
    let about = "\
Shows or changes a group's limits while it runs.

They are kept in Redis and come before --max-in-flight and --rate of the dispatchers. Without a change, what is set
is shown.";
    let after = after!(
        "\
Examples:
  oncecast set --max-in-flight 20
  oncecast set --rate 100/s --max-in-flight default
  oncecast set --json"
    );
    let most = "The most messages that all consumers hold together; default: what the dispatchers have";
    let rate = "The most deliveries per second (N/s), minute (N/m) or hour (N/h), redeliveries included; default: what \
                the dispatchers have";
    config::command("set", about, after, SETTINGS)
        .arg(flag("max-in-flight", "N|default", most).value_parser(most_in))
        .arg(flag("rate", "N/s|default", rate).value_parser(rate_in))
}

fn flag(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn time_in(text: &str) -> Result<Duration, String> {
    let time = duration::parse(text).filter(|time| *time <= MAX_PAUSE);
    time.ok_or_else(|| "a pause lasts a time above zero such as 30s, 10m or 2h, at most 8760h".to_owned())
}

fn by_in(text: &str) -> Result<String, String> {
    let fits = (1..=MAX_BY_BYTES).contains(&text.len());
    if fits { Ok(text.to_owned()) } else { Err(format!("it takes 1 to {MAX_BY_BYTES} bytes")) }
}

fn most_in(text: &str) -> Result<Option<u64>, String> {
    if text == DEFAULT {
        return Ok(None);
    }
    let most = text.parse().ok().filter(|most| (1..=MOST_IN_FLIGHT).contains(most));
    most.map(Some).ok_or_else(|| format!("it takes a whole number from 1 to {MOST_IN_FLIGHT}, or {DEFAULT}"))
}

fn rate_in(text: &str) -> Result<Option<DeliveryRate>, String> {
    if text == DEFAULT {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| format!("it takes {RATE_FORM}, or {DEFAULT}"))
}

/// Reads and checks the settings of the subcommand `name`.
pub fn read(name: &str, matches: &ArgMatches, environment: Environment<'_>) -> Result<OperateConfig, ConfigError> {
    let values = &Values::new(matches, SETTINGS, environment);
    let mut change = SettingsChange::default();
    match name {
        "pause" => {
            let by = matches.get_one::<String>("by").cloned().unwrap_or_else(|| whoever(environment));
            change.pause = Some(PauseChange::Pause(matches.get_one::<Duration>("for").copied(), by));
        }
        "resume" => change.pause = Some(PauseChange::Resume),
        _ => {
            change.max_in_flight = matches.get_one::<Option<u64>>("max-in-flight").copied();
            change.rate = matches.get_one::<Option<DeliveryRate>>("rate").copied();
        }
    }
    Ok(OperateConfig {
        common: CommonConfig::read(values)?.unexamined(),
        change,
        json: values.is_on("json")?,
        patience: PATIENCE,
    })
}

/// Who runs the tool, and where, as far as that can be told.
fn whoever(environment: Environment<'_>) -> String {
    let variable = |name| environment(name).and_then(|value| value.into_string().ok()).unwrap_or_default();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| variable("HOSTNAME"));
    let parts = [variable("USER"), host.trim().to_owned()];
    let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    beginning(&parts.join("@"), MAX_BY_BYTES).to_owned()
}
