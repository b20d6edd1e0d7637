//! The settings of `oncecast chaos`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{ArgMatches, Command};
use log::LevelFilter;

use crate::base::setting::ConfigError;
use crate::lab::experiment::plan::{Fault, Plan, Target};
use crate::lab::settings::{CLUSTER, DELIVER, Deliver, HANDLER, REDIS_SERVER, program};
use crate::process::config::Default::{Found, Text};
use crate::process::config::{self, Environment, Setting, Values, quoted};
use crate::process::log::settings::{LOG_LEVEL, log_level};
use crate::programs::consumer::exec::settings::{self as exec, ExecConfig};

/// The settings of `oncecast chaos`.
#[derive(Clone, Debug)]
pub struct ChaosConfig {
    /// The Redis server program, if it was named.
    pub redis_server: Option<PathBuf>,
    /// Whether Redis is a Redis Cluster.
    pub cluster: bool,
    /// Whether messages are published on a sharded channel of each primary.
    pub sharded: bool,
    /// How many dispatchers.
    pub dispatchers: usize,
    /// How many consumers, or workers.
    pub consumers: usize,
    /// What the dispatchers deliver to.
    pub deliver: Deliver,
    /// What processes the messages in the consumers.
    pub worker: Worker,
    /// Messages per second.
    pub rate: u64,
    /// Messages in a burst; with `None` they are spread evenly.
    pub batch: Option<u64>,
    /// Over how many channels messages are spread, heard through one pattern; `None`: one channel.
    pub channels: Option<u64>,
    /// The faults, and how long to inject them.
    pub plan: Plan,
    /// The folder for the report, if there is to be one.
    pub report: Option<PathBuf>,
    /// What is logged.
    pub log_level: LevelFilter,
}

/// What processes the messages in the consumers.
#[derive(Clone, Debug)]
pub enum Worker {
    /// The handler `stamp`.
    Stamp,
    /// The handler `exec`.
    Exec(ExecConfig),
    /// Consumers of the user's own: each a program and its arguments.
    Commands(Vec<Vec<OsString>>),
}

impl Worker {
    fn read(values: &Values<'_>, deliver: Deliver) -> Result<Worker, ConfigError> {
        let handler = program(values, deliver)?;
        let texts = values.texts(CONSUMER_COMMAND.name)?;
        if texts.is_empty() {
            return Ok(handler.map_or(Worker::Stamp, Worker::Exec));
        }
        let unfit = match deliver {
            Deliver::Stream => Some("--deliver stream, which has no consumers"),
            Deliver::Consumers if handler.is_some() => {
                Some("--handler exec; give it to oncecast-consumer in the command")
            }
            Deliver::Consumers => None,
        };
        if let Some(unfit) = unfit {
            return Err(ConfigError::new(CONSUMER_COMMAND.name, "a command", format_args!("none with {unfit}")));
        }
        texts.iter().map(|text| words(text)).collect::<Result<_, _>>().map(Worker::Commands)
    }

    /// The arguments that give it again.
    pub fn arguments(&self) -> Vec<String> {
        match self {
            Worker::Stamp => Vec::new(),
            Worker::Exec(handler) => {
                handler.arguments().iter().map(|word| word.to_string_lossy().into_owned()).collect()
            }
            Worker::Commands(commands) => {
                let text = |words: &Vec<OsString>| words.join(OsStr::new(" ")).to_string_lossy().into_owned();
                let flag = || format!("--{}", CONSUMER_COMMAND.name);
                commands.iter().flat_map(|words| [flag(), text(words)]).collect()
            }
        }
    }
}

/// The words of a command.
fn words(text: &str) -> Result<Vec<OsString>, ConfigError> {
    let words: Vec<OsString> = text.split_whitespace().map(OsString::from).collect();
    match words.is_empty() {
        true => Err(ConfigError::new(CONSUMER_COMMAND.name, "no program", "a program and its arguments")),
        false => Ok(words),
    }
}

const CONSUMER_COMMAND: Setting = Setting::new(
    "consumer-command",
    "COMMAND",
    Found("consumers of our own"),
    "Run a program of yours as consumer, with ONCECAST_LISTEN, ONCECAST_CONSUMER_ID, ONCECAST_GROUP and \
     ONCECAST_REDIS_URL in its environment; of several commands, each consumer takes the next. Split at white space; \
     quotes have no meaning",
)
.list();

const SHARDED: Setting = Setting::switch(
    "sharded",
    "With --cluster: publish by SPUBLISH on a sharded channel of each primary, so that the group has a lane on each. A \
     fault hits one lane's leader or node, or any process; there is no migrate",
);

/// All settings, in the order in which `--help` lists them.
pub const SETTINGS: &[Setting] = &[
    Setting::new("duration", "TIME", Text("120s"), "How long to publish: at least 1.5 times --every"),
    Setting::new(
        "rate",
        "N",
        Found("26000; with --cluster 5000; with --handler exec or --consumer-command 2000"),
        "Messages published per second",
    ),
    Setting::new(
        "batch",
        "N",
        Found("10000 from 20000 messages per second on, else 0"),
        "Publish in bursts of N; 0 spreads messages evenly",
    ),
    Setting::new(
        "channels",
        "N",
        Found("one, by its name"),
        "Spread the messages over N channels; the dispatchers listen to them by one --pattern",
    ),
    SHARDED,
    DELIVER,
    HANDLER,
    exec::EXEC,
    exec::EXEC_PER_MESSAGE,
    CONSUMER_COMMAND,
    Setting::new("every", "TIME", Text("15s"), "The time from one fault to the next"),
    Setting::new(
        "faults",
        "LIST",
        Found("kill,pause,terminate; with --cluster failover,migrate,node too"),
        "The faults to inject: kill (SIGKILL), pause (SIGSTOP, later SIGCONT), terminate (SIGTERM), cut (Redis closes \
         a dispatcher's subscription), stall (Redis holds back writes for a while); with --cluster also failover (a \
         replica takes its primary's place), migrate (the group's slot moves to another node), node (the node with \
         the group's keys is killed)",
    ),
    Setting::new(
        "target",
        "NODES",
        Text("any"),
        "The nodes to hit: any, leader, dispatcher, consumer. stall and the faults of --cluster always hit Redis, cut \
         only dispatchers. Workers of --deliver stream are not hit",
    ),
    Setting::new("least-outage", "TIME", Text("100ms"), "The shortest time that a process is down or paused"),
    Setting::new(
        "outage",
        "TIME",
        Text("6s"),
        "The longest time that a process is down or paused; at most half the time between two faults",
    ),
    Setting::new("seed", "N", Found("random"), "The same seed draws the same faults"),
    Setting::new(
        "dispatcher-count",
        "N",
        Text("2"),
        "How many dispatchers; with only one there would be no standby to take over",
    ),
    Setting::new("consumer-count", "N", Text("3"), "How many consumers, or workers with --deliver stream"),
    Setting::new(
        "report",
        "DIR",
        Found("none"),
        "Write a report of the run to this folder: index.html, and its chart alone, timeline.svg",
    ),
    CLUSTER,
    REDIS_SERVER,
    LOG_LEVEL,
];

/// The definition of the subcommand.
pub fn command() -> Command {
    let command = config::command(
        "chaos",
        "\
Injects random faults into a whole cluster under load: processes are killed, paused, or stopped with SIGTERM.

Starts a private Redis, dispatchers, consumers and a publisher. Each fault waits until the cluster has recovered from
the last one, so every message that a subscriber received must get exactly one result. At the end the results are
audited. The report shows how long it took after each fault until results resumed, how often a handler ran more than
once for a message, and the peak memory of each process. With --deliver stream every such message must become exactly
one entry of the stream. With --handler exec the consumers run a program of your own, and with --consumer-command they
are programs of your own, in any language. Results then need the field message_id of the payload; how often a handler
ran is not counted.",
        "\
Examples:
  oncecast chaos --duration 10m --report chaos-report
  oncecast chaos --deliver stream --channels 100
  oncecast chaos --cluster --duration 5m
  oncecast chaos --cluster --sharded
  oncecast chaos --handler exec -- python3 examples/worker.py
  oncecast chaos --consumer-command 'python3 consumer.py' --consumer-command 'node consumer.mjs'
  oncecast chaos --seed 7 --target leader --faults kill --every 2s --duration 30s --batch 0 --rate 2000

Exit codes: 0 nothing lost and nothing recorded twice, or interrupted, 3 otherwise, 1 something could not be started or
does not work, 2 invalid settings.",
        SETTINGS,
    );
    exec::with_words(command)
}

/// Reads and checks the settings.
pub fn read(matches: &ArgMatches, environment: Environment<'_>) -> Result<ChaosConfig, ConfigError> {
    let values = &Values::new(matches, SETTINGS, environment);
    let names = |all: &[&str]| all.join(", ");
    let cluster = values.is_on(CLUSTER.name)?;
    let target = values.required("target", "the nodes to hit")?;
    let target = Target::ALL
        .into_iter()
        .find(|known| known.name() == target)
        .ok_or_else(|| ConfigError::new("target", quoted(&target), names(&Target::ALL.map(Target::name))))?;
    let deliver = Deliver::read(values)?;
    if (deliver, target) == (Deliver::Stream, Target::Consumer) {
        let takes = "any, leader, dispatcher with --deliver stream: there are no consumers";
        return Err(ConfigError::new("target", quoted(target.name()), takes));
    }
    let duration = |name| Ok(values.duration(name)?.expect("the setting has a default"));
    const RATE: u64 = 26_000;
    /// Six nodes need a part of the machine as well.
    const RATE_ON_CLUSTER: u64 = 5_000;
    /// What programs of three consumers in any language process beside the rest of the cluster.
    const RATE_OF_PROGRAMS: u64 = 2_000;
    /// From this rate on, there are at least two bursts a second.
    const BURSTS_FROM: u64 = 20_000;
    const BURST: u64 = 10_000;
    let worker = Worker::read(values, deliver)?;
    let sharded = sharded(values, cluster, deliver)?;
    let faults = faults(values, cluster, sharded)?;
    let usual_rate = match (&worker, cluster) {
        (Worker::Stamp, false) => RATE,
        (Worker::Stamp, true) => RATE_ON_CLUSTER,
        _ => RATE_OF_PROGRAMS,
    };
    let rate = values.optional_number("rate", 1, 1_000_000)?.unwrap_or(usual_rate);
    let batch = values.optional_number("batch", 0, 1_000_000)?.unwrap_or(if rate < BURSTS_FROM { 0 } else { BURST });
    let plan = Plan {
        seed: values.optional_number("seed", 0, u64::MAX)?.unwrap_or_else(|| fastrand::u64(..1 << 32)),
        every: duration("every")?,
        duration: duration("duration")?,
        faults,
        target,
        least_outage: duration("least-outage")?,
        outage: duration("outage")?,
    };
    check_times(&plan, values)?;
    Ok(ChaosConfig {
        redis_server: values.path("redis-server")?,
        cluster,
        sharded,
        deliver,
        worker,
        dispatchers: values.number("dispatcher-count", 2, 64)? as usize,
        consumers: values.number("consumer-count", 1, 64)? as usize,
        rate,
        channels: values.optional_number("channels", 1, 100_000)?,
        batch: Some(batch).filter(|batch| *batch > 0),
        plan,
        report: values.path("report")?,
        log_level: log_level(values)?,
    })
}

/// Whether the channels are sharded ones.
fn sharded(values: &Values<'_>, cluster: bool, deliver: Deliver) -> Result<bool, ConfigError> {
    if !values.is_on(SHARDED.name)? {
        return Ok(false);
    }
    let (got, takes) = match deliver {
        _ if !cluster => ("yes without --cluster", "yes only with --cluster: one server has one lane"),
        Deliver::Stream => {
            ("yes with --deliver stream", "no with --deliver stream: its workers read one lane's stream")
        }
        Deliver::Consumers if values.is_given("channels") => {
            ("yes with --channels", "no with --channels: there is one channel on each primary")
        }
        Deliver::Consumers => return Ok(true),
    };
    Err(ConfigError::new(SHARDED.name, got, takes))
}

/// The kinds of faults to draw from.
///
/// A lane's slot that moves makes channels change their lanes. What is published on them before a leader listens again
/// is not owed, which the audit can't tell from a loss.
fn faults(values: &Values<'_>, cluster: bool, sharded: bool) -> Result<Vec<Fault>, ConfigError> {
    let fits = |fault: &Fault| (cluster || !fault.needs_redis_cluster()) && !(sharded && *fault == Fault::Migrate);
    let possible = || Fault::ALL.into_iter().filter(fits);
    let Some(list) = values.text("faults")? else {
        return Ok(possible().filter(|fault| !matches!(fault, Fault::Cut | Fault::Stall)).collect());
    };
    let fault = |word: &str| possible().find(|fault| fault.name() == word.trim());
    let faults = list.split(',').map(|word| {
        let names: Vec<&str> = possible().map(Fault::name).collect();
        let takes = format!("some of {}, separated by commas", names.join(", "));
        fault(word).ok_or_else(|| ConfigError::new("faults", quoted(word), takes))
    });
    faults.collect()
}

/// At least one fault must fit into the run, and not too many. The error names the setting that was given.
fn check_times(plan: &Plan, values: &Values<'_>) -> Result<(), ConfigError> {
    /// All faults are drawn before the run.
    const MAX_FAULTS: u128 = 1_000_000;
    let Plan { every, duration, .. } = plan;
    let every_given = values.is_given("every");
    let (too_many, too_few) = match every_given {
        true => (
            format!("at least a millionth of --duration ({duration:?})"),
            format!("at most two thirds of --duration ({duration:?}), so that there is at least one fault"),
        ),
        false => (
            format!("at most a million times --every ({every:?})"),
            format!("at least one and a half times --every ({every:?}), so that there is at least one fault"),
        ),
    };
    let takes = match duration.as_nanos() / every.as_nanos() {
        faults if faults > MAX_FAULTS => too_many,
        _ if *every + *every / 2 > *duration => too_few,
        _ => return Ok(()),
    };
    let (name, got) = if every_given { ("every", every) } else { ("duration", duration) };
    Err(ConfigError::new(name, format_args!("{got:?}"), takes))
}
