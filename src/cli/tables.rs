//! What each program takes and what its `--help` says.

use clap::{Arg, ArgAction, Command};

use super::Default::{Found, Required, Text};
use super::{Setting, bench, with_settings};

const REDIS_URL: Setting = Setting::new(
    "redis-url",
    "URL",
    Text("redis://127.0.0.1:6379"),
    "The Redis server: redis://[user:password@]host[:port][/db] or redis+unix:///path",
)
.secret();
const GROUP: Setting = Setting::new(
    "group",
    "NAME",
    Text("messages"),
    "The consumer group; every key in Redis starts with it. Put braces around it for Redis Cluster",
);
const CHANNEL: Setting = Setting::new(
    "channel",
    "NAME",
    Text("messages:published"),
    "The channel that users publish on: one name, no pattern. Put a backslash before each * ? [ ] \\ in it",
);
pub(super) const LOG_LEVEL: Setting =
    Setting::new("log-level", "LEVEL", Text("info"), "off, error, warn, info, debug or trace");
const METRICS_ADDR: Setting = Setting::new(
    "metrics-addr",
    "HOST:PORT",
    Found("off"),
    "Where to serve /metrics, /healthz and /readyz, and a dispatcher its status page",
);

pub(super) const REDIS_SERVER: Setting =
    Setting::new("redis-server", "PATH", Found("redis-server or valkey-server on PATH"), "The Redis server to start");

pub(super) const DISPATCHER: &[Setting] = &[
    Setting::new("consumers", "HOST:PORT,…", Required, "The addresses of the consumers, separated by commas"),
    REDIS_URL,
    GROUP,
    CHANNEL,
    Setting::new(
        "dispatcher-id",
        "NAME",
        Found("host name and pid"),
        "The name part of this dispatcher's id; a random suffix is added at each start",
    ),
    Setting::new(
        "lease-ttl-ms",
        "MS",
        Text("2000"),
        "How long the lease on leadership lasts unless renewed: a hung leader is replaced after this time",
    ),
    Setting::new(
        "link-timeout-ms",
        "MS",
        Text("3000"),
        "A consumer that is silent for this long is given up, and its messages go to others",
    ),
    Setting::new("max-deliveries", "N", Text("8"), "A message that fails this many times goes to the dead letters"),
    Setting::new(
        "retry",
        "POLICY",
        Text("exponential:200ms..5m*4"),
        "How long a message that failed waits for its next delivery, if its handler asked for no delay: \
         exponential:FIRST..MOST*FACTOR, fixed:WAIT, or none. With 8 deliveries the default rides out about ten minutes",
    ),
    Setting::new(
        "ring-bytes",
        "BYTES",
        Text("67108864"),
        "Memory for messages seen on the channel and not yet known to be taken in",
    ),
    Setting::new(
        "ready-bytes",
        "BYTES",
        Text("33554432"),
        "Memory for messages waiting for a free consumer; beyond it they wait in Redis alone",
    ),
    LOG_LEVEL,
    METRICS_ADDR,
];

pub(super) const CONSUMER: &[Setting] = &[
    Setting::new("listen", "HOST:PORT", Text("127.0.0.1:6969"), "Where dispatchers connect"),
    REDIS_URL,
    GROUP,
    Setting::new("consumer-id", "NAME", Found("the listen address"), "This consumer's name, recorded with each result"),
    Setting::new("concurrency", "N", Found("number of cores"), "Handlers that run at the same time"),
    Setting::new(
        "prefetch",
        "N",
        Text("1024"),
        "The most messages in hand at once; small for slow handlers, so that none waits here while others idle",
    ),
    Setting::new(
        "handler",
        "NAME",
        Text("stamp"),
        "What is done with a message: stamp (adds random_property and consumer_id)",
    ),
    Setting::new(
        "handler-timeout-ms",
        "MS",
        Text("0"),
        "A handler that runs longer is given up and its message goes to another consumer; 0: never",
    ),
    Setting::new("result-maxlen", "N", Text("0"), "Trim the result stream to about this many entries; 0: keep all"),
    LOG_LEVEL,
    METRICS_ADDR,
];

/// The consumer's, and where its journal is.
pub(super) const WITNESS: &[Setting] =
    &consumer_and(Setting::new("journals", "DIR", Required, "The folder for the journals of handler runs"));

/// The consumer's settings and one more.
pub(super) const fn consumer_and(one_more: Setting) -> [Setting; CONSUMER.len() + 1] {
    let mut settings = [one_more; CONSUMER.len() + 1];
    let mut number = 0;
    while number < CONSUMER.len() {
        settings[number] = CONSUMER[number];
        number += 1;
    }
    settings
}

pub(super) const PUBLISHER: &[Setting] = &[
    REDIS_URL,
    GROUP,
    CHANNEL,
    Setting::new("count", "N", Found("no limit"), "Stop after this many messages"),
    Setting::new(
        "duration",
        "TIME",
        Found("no limit"),
        "Stop after this time: one number and a unit, such as 500ms, 30s or 2m",
    ),
    Setting::new("rate", "N", Found("as fast as it goes"), "Messages per second, evenly spread"),
    Setting::new(
        "batch",
        "N",
        Found("none"),
        "Publish in bursts of N with a random pause of 0.1 to 0.5 s in between; with --rate the pauses keep to the rate",
    ),
    Setting::new("id-prefix", "TEXT", Found("random"), "What each message_id starts with"),
    Setting::new(
        "ids-file",
        "PATH",
        Found("none"),
        "Write the id of each message that somebody received to this file, one on each line, for oncecast audit --ids",
    ),
    LOG_LEVEL,
    METRICS_ADDR,
];

pub(super) const AUDIT: &[Setting] = &[
    REDIS_URL,
    GROUP,
    Setting::new("expect", "N", Found("unknown"), "How many distinct messages there must be"),
    Setting::new("ids", "FILE", Found("unknown"), "A file with the ids there must be, one on each line"),
    Setting::new("id-field", "NAME", Text("message_id"), "The field of a result that holds the message's id"),
    LOG_LEVEL,
];

pub(super) const STATUS: &[Setting] = &[
    REDIS_URL,
    GROUP,
    Setting::switch("watch", "Look again every second, until interrupted"),
    Setting::switch("json", "Print JSON, one line for each look"),
    Setting::new("max-age", "TIME", Text("60s"), "A message that is pending for longer needs attention"),
    LOG_LEVEL,
];

pub(super) const HEALTHCHECK: &[Setting] = &[Setting::new(
    "metrics-addr",
    "HOST:PORT",
    Required,
    "Where the program serves /healthz and /readyz: its own --metrics-addr; 0.0.0.0 and [::] mean this machine",
)];

pub(super) const DEMO: &[Setting] = &[
    REDIS_SERVER,
    Setting::new("rate", "N", Text("2000"), "Messages published per second"),
    Setting::new("duration", "TIME", Text("10s"), "How long to publish"),
    LOG_LEVEL,
];

pub(super) const CHAOS: &[Setting] = &[
    Setting::new("duration", "TIME", Text("120s"), "How long to publish"),
    Setting::new("rate", "N", Text("26000"), "Messages published per second"),
    Setting::new(
        "batch",
        "N",
        Found("10000 from 20000 messages per second on, else 0"),
        "Publish in bursts of N; 0: evenly spread",
    ),
    Setting::new("every", "TIME", Text("15s"), "The time from one fault to the next"),
    Setting::new(
        "faults",
        "LIST",
        Text("kill,pause,terminate"),
        "What happens: kill (SIGKILL), pause (SIGSTOP, later SIGCONT), terminate (SIGTERM), cut (Redis closes a \
         dispatcher's subscription), stall (Redis writes nothing for a while)",
    ),
    Setting::new(
        "target",
        "WHOM",
        Text("any"),
        "Who is struck: any, leader, dispatcher, consumer; stall strikes Redis, and cut only dispatchers",
    ),
    Setting::new("least-outage", "TIME", Text("100ms"), "The shortest time that a process is away or paused"),
    Setting::new(
        "outage",
        "TIME",
        Text("6s"),
        "The longest time that a process is away or paused; at most half the time between two faults",
    ),
    Setting::new("seed", "N", Found("random"), "Draws the same faults again"),
    Setting::new("dispatcher-count", "N", Text("2"), "How many dispatchers; one alone could not go on for another"),
    Setting::new("consumer-count", "N", Text("3"), "How many consumers"),
    Setting::new(
        "report",
        "DIR",
        Found("none"),
        "Write index.html with a picture of the run, and the picture alone, timeline.svg, to this folder",
    ),
    REDIS_SERVER,
    LOG_LEVEL,
];

/// The settings of all programs and subcommands. A name has one meaning in all of them, since its variable may be set for all.
pub(super) fn all() -> impl Iterator<Item = &'static [Setting]> {
    let own = [DISPATCHER, CONSUMER, WITNESS, PUBLISHER, AUDIT, STATUS, HEALTHCHECK, DEMO, CHAOS, bench::BENCH];
    own.into_iter().chain(bench::parts::TABLES)
}

/// What is said below the settings of every program.
const COMMON_HELP: &str = "\
Each setting may be given as a flag or as its environment variable; the flag wins. Logs go to standard error, a line of
key=value pairs for each event.";

/// The command line of the dispatcher.
pub(super) fn dispatcher() -> Command {
    let about = "\
Takes in the messages published on a Redis channel, and hands each of them to one consumer.

Start two or more with the same group, channel and consumers: one leads, the others follow the channel and go on within
milliseconds when it dies. A consumer or a Redis that can't be reached is tried again for ever.";
    let after = "\
Example:
  oncecast-dispatcher --redis-url redis://10.0.0.1:6379 --consumers 10.0.0.11:6969,10.0.0.12:6969

Ends on SIGTERM or SIGINT: takes in what has arrived and hands leadership over.
Exit codes: 0 clean, 1 failure while running, 2 wrong settings.";
    program("oncecast-dispatcher", about, after, DISPATCHER).override_usage(
        "oncecast-dispatcher --consumers <HOST:PORT,…> [OPTIONS]\n       oncecast-dispatcher healthcheck [OPTIONS]",
    )
}

/// The command line of the consumer.
pub(super) fn consumer() -> Command {
    let about = "\
Works on the messages that dispatchers hand it, and stores each result once, in the stream <group>:processed.

This program has one built-in handler, for trying things out and for tests. For work of your own write a consumer with
the library: a handler is a closure.";
    let after = "\
Example:
  oncecast-consumer --redis-url redis://10.0.0.1:6379 --listen 10.0.0.11:6969 --consumer-id worker-1

Ends on SIGTERM or SIGINT: asks for no more, finishes what it has in hand for up to 7 s, and hands the rest back. A
second signal ends it at once.
Exit codes: 0 clean, 1 failure while running, 2 wrong settings.";
    program("oncecast-consumer", about, after, CONSUMER)
}

/// The command line of the publisher.
pub(super) fn publisher() -> Command {
    let about = "\
Publishes messages {\"message_id\":\"…\"} with ids that are all different, and says how many nobody received.

A message that nobody received is published again with the same id, for up to 10 s after the end of the run. One whose reply
was lost is not: it may have come through, and is counted as unknown. Two runs with one --id-prefix publish the same ids.";
    let after = "\
Examples:
  oncecast-publisher --rate 2000 --duration 30s
  oncecast-publisher --batch 10000 --duration 2m --ids-file ids.txt && oncecast audit --ids ids.txt

The last line of its output has the totals: published=… unreceived=… retried=… unknown=… id_prefix=… seconds=… rate=…
Exit codes: 0 clean, 1 failure while running or messages that nobody received, 2 wrong settings.";
    program("oncecast-publisher", about, after, PUBLISHER)
}

/// The command line of the operator's tool.
pub(super) fn tool() -> Command {
    let audit = command(
        "audit",
        "\
Counts the results: entries, distinct ids, ids recorded more than once; with --expect or --ids also lost and foreign ones.

A message is lost if it is neither in the results nor in the dead letters nor still pending.",
        "\
Examples:
  oncecast audit --expect 1000000
  oncecast audit --group orders --ids ids.txt

Exit codes: 0 nothing lost and nothing recorded twice, 3 otherwise, 1 Redis can't be read, 2 wrong settings.",
        AUDIT,
    );
    let demo = command(
        "demo",
        "\
Starts a private Redis, 2 dispatchers, 3 consumers and a publisher, kills the leader once, and audits the results.

Needs nothing but a redis-server or valkey-server on this machine, and leaves nothing behind.",
        "\
Example:
  oncecast demo --rate 20000 --duration 30s

Exit codes: 0 nothing lost and nothing recorded twice, or interrupted, 3 otherwise, 1 something could not be started, 2
wrong settings.",
        DEMO,
    );
    let status = command(
        "status",
        "\
Shows how a group stands: who leads, what is connected, what is pending, and what may have been missed.

A gap is a stretch of the channel that no dispatcher may have heard; the newest are shown, all are in <group>:gaps.
What needs attention now is called a problem: no leader, a leader that can't take in, no consumer, a message that is
pending for longer than --max-age, ten dead letters or more within ten minutes. Notes are worth knowing: no
standby in sync, recent gaps, dead letters. Settings of Redis that endanger what is promised are shown beside them.",
        "\
Examples:
  oncecast status --group orders
  oncecast status --watch
  oncecast status --json | jq .pending

Exit codes: 0 all is well, 1 Redis can't be read, 2 wrong settings, 3 something needs attention.",
        STATUS,
    );
    let chaos = command(
        "chaos",
        "\
Strikes a whole cluster under load with faults at random: processes are killed, stopped for a while, or asked to end.

Starts a private Redis, dispatchers, consumers and a publisher. Each fault waits until the cluster is whole again after
the last one, so every message that anybody received must come out once. At the end the results are audited, and the
report says how long it took after each fault until results flowed again, how often a handler ran more than once for a
message, and how much memory each process took.",
        "\
Examples:
  oncecast chaos --duration 10m --report chaos-report
  oncecast chaos --seed 7 --target leader --faults kill --every 2s --duration 30s --batch 0 --rate 2000

Exit codes: 0 nothing lost and nothing recorded twice, or interrupted, 3 otherwise, 1 something could not be started, 2
wrong settings.",
        CHAOS,
    );
    let witness = command(
        "witness",
        "A consumer that keeps a journal of its handler's runs. Trials start it; there is no other use for it.",
        "The settings are those of oncecast-consumer.",
        WITNESS,
    );
    Command::new("oncecast")
        .about("Looks after Oncecast: consumer groups for Redis Pub/Sub.")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(audit)
        .subcommand(status)
        .subcommand(demo)
        .subcommand(chaos)
        .subcommand(bench::command())
        .subcommand(healthcheck())
        .subcommand(witness.hide(true))
        .subcommands(bench::parts::hidden_commands())
}

fn program(name: &'static str, about: &'static str, after: &'static str, settings: &[Setting]) -> Command {
    command(name, about, after, settings)
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand(healthcheck())
        .disable_help_subcommand(true)
        // Otherwise settings before the subcommand would be taken and not looked at.
        .args_conflicts_with_subcommands(true)
}

/// The name of the subcommand that every program has.
pub(super) const HEALTHCHECK_NAME: &str = "healthcheck";
/// Its flag.
pub(super) const ALIVE: &str = "alive";

fn healthcheck() -> Command {
    let about = "\
Asks the program that runs on this machine whether it is ready.

Ready is a dispatcher that leads or could take over at once, a consumer that can record results, and a publisher that is
connected to Redis. Meant for the health checks of containers, which need no shell and no other program for it.";
    let after = "\
Example, in a Compose file whose service sets ONCECAST_METRICS_ADDR:
  healthcheck: { test: [CMD, oncecast-dispatcher, healthcheck] }

Exit codes: 0 it is, 1 it is not or does not answer within 2 s, 2 wrong settings.";
    command(HEALTHCHECK_NAME, about, after, HEALTHCHECK).arg(
        Arg::new(ALIVE)
            .long(ALIVE)
            .action(ArgAction::SetTrue)
            .help("Ask whether it runs (/healthz), not whether it can do its job (/readyz)"),
    )
}

pub(super) fn command(name: &'static str, about: &'static str, after: &'static str, settings: &[Setting]) -> Command {
    // The first paragraph is what a list of commands shows.
    let first = about.split("\n\n").next().unwrap_or(about);
    let command = Command::new(name)
        .about(first)
        .long_about(about)
        .after_help(format!("{COMMON_HELP}\n\n{after}"))
        .next_line_help(true);
    with_settings(command, settings)
}
