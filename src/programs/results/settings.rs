//! The settings of `oncecast results`.

use std::time::Duration;

use clap::{ArgMatches, Command};

use crate::base::setting::ConfigError;
use crate::process::config::Default::Found;
use crate::process::config::{self, Environment, Setting, Values, quoted};
use crate::process::log::settings::LOG_LEVEL;
use crate::programs::common::{CommonConfig, GROUP, LANE, REDIS_CA, REDIS_CERT, REDIS_KEY, REDIS_URL};
use crate::programs::patience::PATIENCE;

/// The settings of `oncecast results tail`.
#[derive(Clone, Debug)]
pub struct ResultsConfig {
    /// The settings that every program has.
    pub common: CommonConfig,
    /// Where to begin.
    pub begin: Begin,
    /// After how many entries to end.
    pub count: Option<u64>,
    /// How long Redis may be unreachable at first. Not a setting of the program.
    pub patience: Duration,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With what is added from now on.
    Now,
    /// With the oldest entry.
    Start,
    /// With what was added so long ago.
    Ago(Duration),
}

const FROM_START: Setting = Setting::switch("from-start", "Begin with the oldest entry");
const SINCE: Setting = Setting::new(
    "since",
    "TIME",
    Found("now"),
    "Begin with the entries of the last so much time, such as 90m; a bare number means seconds",
);

const TAIL: &[Setting] = &[
    REDIS_URL,
    REDIS_CA,
    REDIS_CERT,
    REDIS_KEY,
    GROUP,
    LANE,
    Setting::new(
        "stream",
        "KEY",
        Found("the results"),
        "Follow the entries of this stream, for a group with --deliver stream",
    ),
    SINCE,
    FROM_START,
    Setting::new("count", "N", Found("no end"), "End after so many entries"),
    LOG_LEVEL,
];

/// The definition of the subcommand.
pub fn command() -> Command {
    Command::new("results")
        .about("Follows the results as they are recorded.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(config::command(
            "tail",
            "\
Prints each result as a line of JSON, as it is recorded, until interrupted. Changes nothing.

'entry' is the id of the entry, 'at' when it was added, 'fields' what the handler returned. A value that is not UTF-8 is
{\"base64\": …}; a name that occurs more than once has a list of its values. The tool waits while Redis is unreachable.
Entries that were removed before they could be read are counted in the log (event=skipped), if the server counts them:
from Redis 7 on. If there is no such group (event=no-such-group), the tool waits for its first result.",
            "\
Examples:
  oncecast results tail --group orders
  oncecast results tail --since 10m | jq -r .fields.message_id
  oncecast results tail --from-start --count 1000
  oncecast results tail --group orders --stream orders:messages

Exit codes: 0 interrupted, the reader has gone or --count is reached; 1 Redis can't be read, 2 invalid settings.",
            TAIL,
        ))
}

/// Reads and checks the settings.
pub fn read(matches: &ArgMatches, environment: Environment<'_>) -> Result<ResultsConfig, ConfigError> {
    let (_, matches) = matches.subcommand().expect("clap demands a subcommand");
    let values = &Values::new(matches, TAIL, environment);
    let mut common = CommonConfig::read(values)?.unexamined();
    if let Some(stream) = values.text("stream")? {
        if stream.is_empty() {
            return Err(ConfigError::new("stream", quoted(&stream), "the key of a stream"));
        }
        common = common.with_stream("stream", &stream)?;
    }
    let begin = match (values.duration("since")?, values.is_on("from-start")?) {
        (Some(_), true) => {
            return Err(ConfigError::new("from-start", "it beside --since", "one of the two"));
        }
        (Some(ago), false) => Begin::Ago(ago),
        (None, true) => Begin::Start,
        (None, false) => Begin::Now,
    };
    Ok(ResultsConfig { common, begin, count: values.optional_number("count", 1, u64::MAX)?, patience: PATIENCE })
}
