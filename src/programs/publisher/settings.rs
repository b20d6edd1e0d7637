//! The settings of the publisher.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, Command};

use crate::base::setting::ConfigError;
use crate::ledger::{Keys, slot_of};
use crate::process::config::Default::Found;
use crate::process::config::{Environment, Setting, Values, quoted};
use crate::process::log::settings::LOG_LEVEL;
use crate::process::metrics::settings::{METRICS_ADDR, METRICS_HOST, METRICS_TOKEN_FILE};
use crate::process::program::{self, CommandLine};
use crate::process::scheduling::SCHEDULING;
use crate::programs::common::{CommonConfig, GROUP, REDIS_CA, REDIS_CERT, REDIS_KEY, REDIS_URL};
use crate::programs::interests::{CHANNEL, SHARDED_CHANNEL, published_channels, sharded_channels};
use crate::wire::MAX_CHANNEL_BYTES;

/// How long messages without a subscriber are retried after the end of the run.
const GRACE: Duration = Duration::from_secs(10);
/// How long a refused login or command is retried, since users of Redis may be set up after the publisher starts.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(10);

/// The settings of the publisher.
#[derive(Clone, Debug)]
pub struct PublisherConfig {
    /// The settings that every program has.
    pub common: CommonConfig,
    /// Where it publishes, in turn.
    pub channels: Vec<Vec<u8>>,
    /// Whether these are sharded channels.
    pub sharded: bool,
    /// Stop after this many messages.
    pub count: Option<u64>,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// Messages per second.
    pub rate: Option<u64>,
    /// Messages in a burst.
    pub batch: Option<u64>,
    /// What each id starts with.
    pub id_prefix: String,
    /// Where the ids of received messages are written, if anywhere.
    pub ids_file: Option<PathBuf>,
    /// How long messages without a subscriber are retried after the end of the run.
    pub grace: Duration,
    /// How long a refused login or command is retried.
    pub refusal_patience: Duration,
}

/// All settings, in the order in which `--help` lists them.
pub const SETTINGS: &[Setting] = &[
    REDIS_URL,
    REDIS_CA,
    REDIS_CERT,
    REDIS_KEY,
    GROUP,
    CHANNEL,
    SHARDED_CHANNEL,
    Setting::new(
        "channels",
        "N",
        Found("off"),
        "Spread the messages over N channels for each --channel: NAME.0 to NAME.N-1, in turn",
    ),
    Setting::new("count", "N", Found("no limit"), "Stop after this many messages"),
    Setting::new(
        "duration",
        "TIME",
        Found("no limit"),
        "Stop after this time: one number and a unit, such as 500ms, 30s or 2m",
    ),
    Setting::new("rate", "N", Found("no limit"), "Messages per second, evenly spaced"),
    Setting::new(
        "batch",
        "N",
        Found("none"),
        "Publish in bursts of N, with a random pause of 0.1 to 0.5 s between them or, with --rate, at that rate on \
         average",
    ),
    Setting::new("id-prefix", "TEXT", Found("random"), "Prefix of each message_id"),
    Setting::new(
        "ids-file",
        "PATH",
        Found("none"),
        "Write the id of each message that a subscriber received to this file, one per line, for oncecast audit --ids",
    ),
    SCHEDULING,
    LOG_LEVEL,
    METRICS_ADDR,
    METRICS_HOST,
    METRICS_TOKEN_FILE,
];

/// The most channels that `--channels` makes, of all names.
const MAX_CHANNELS: u64 = 100_000;

/// The program's command line.
pub const COMMAND_LINE: CommandLine<PublisherConfig> = CommandLine { command, read };

/// Its definition.
pub fn command() -> Command {
    let about = "\
Publishes messages {\"message_id\":\"…\"} with unique ids, and reports how many no subscriber received.

A message that no subscriber received is published again with the same id, until 10 s after the end of the run. If the
reply to a message is lost, the message may have been published: it is counted as unknown and not published again. Two
runs with the same --id-prefix publish the same ids.";
    let after = "\
Examples:
  oncecast-publisher --rate 2000 --duration 30s
  oncecast-publisher --channel orders --channels 50 --count 100000      # orders.0 to orders.49, in turn
  oncecast-publisher --batch 10000 --duration 2m --ids-file ids.txt && oncecast audit --ids ids.txt

The last line of output has the totals: published=… unreceived=… retried=… unknown=… id_prefix=… seconds=… rate=…
Exit codes: 0 success, 1 failure while running or messages that no subscriber received, 2 invalid settings.";
    program::service("oncecast-publisher", about, after, SETTINGS)
}

/// Reads and checks the settings.
pub fn read(matches: &ArgMatches, environment: Environment<'_>) -> Result<PublisherConfig, ConfigError> {
    let values = &Values::new(matches, SETTINGS, environment);
    let common = CommonConfig::read(values)?;
    let random_prefix = || format!("{:08x}-", fastrand::u32(..));
    let sharded = values.is_given("sharded-channel");
    let channels = channels(values, &common.keys)?;
    let slot = |channel: &Vec<u8>| slot_of(channel);
    if sharded && common.redis.is_cluster() && channels.iter().any(|channel| slot(channel) != slot(&channels[0])) {
        let takes = "channels of one slot in a Redis Cluster: put the same text in braces into their names, as in \
                     {orders}.eu, or start a publisher for each";
        return Err(ConfigError::new("sharded-channel", "channels of several slots", takes));
    }
    Ok(PublisherConfig {
        sharded,
        channels,
        count: values.optional_number("count", 1, u64::MAX >> 1)?,
        duration: values.duration("duration")?,
        rate: values.optional_number("rate", 1, 100_000_000)?,
        batch: values.optional_number("batch", 1, 1_000_000)?,
        id_prefix: match values.text("id-prefix")? {
            // A line break would split the line in a file of ids.
            Some(prefix) if prefix.len() <= 256 && !prefix.contains(char::is_control) => prefix,
            Some(prefix) => {
                let takes = "at most 256 bytes without control characters";
                return Err(ConfigError::new("id-prefix", quoted(&prefix), takes));
            }
            None => random_prefix(),
        },
        ids_file: values.path("ids-file")?,
        grace: GRACE,
        refusal_patience: REFUSAL_PATIENCE,
        common,
    })
}

/// The channels by their names, or with `--channels` those that begin with them.
fn channels(values: &Values<'_>, keys: &Keys) -> Result<Vec<Vec<u8>>, ConfigError> {
    let sharded = sharded_channels(values, keys)?;
    let names = sharded.map_or_else(|| published_channels(values, keys), Ok)?;
    let most = MAX_CHANNELS / names.len() as u64;
    let Some(spread) = values.optional_number("channels", 1, most)? else { return Ok(names) };
    let longest = names.iter().map(Vec::len).max().unwrap_or_default() + format!(".{}", spread - 1).len();
    if longest > MAX_CHANNEL_BYTES {
        let takes = format!("names of at most {MAX_CHANNEL_BYTES} bytes with their number of --channels");
        let setting = if values.is_given("sharded-channel") { "sharded-channel" } else { "channel" };
        return Err(ConfigError::new(setting, format_args!("a name that gets {longest} bytes"), takes));
    }
    let numbered = |name: &Vec<u8>| {
        let name = name.clone();
        (0..spread).map(move |number| [&name[..], format!(".{number}").as_bytes()].concat())
    };
    Ok(names.iter().flat_map(numbered).collect())
}
