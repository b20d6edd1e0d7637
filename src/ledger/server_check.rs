//! Finds settings of the Redis server that endanger the guarantees, and says what to set instead.
//!
//! Reads only: `CONFIG GET` and `INFO`. If a server refuses them (a managed one, or a user without the right), a note
//! says that its settings are unknown. Limitation: the limits suit the load that docs/PERFORMANCE.md measures; larger
//! messages may need more.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU64;

use log::{debug, info, warn};
use redis::Value;

use super::command::Command;
use super::connection::Connection;
use super::interests::Interests;
use super::value::text;
use crate::base::error::Result;
use crate::base::hint::UrlSetting;
use crate::base::refusal::Refusal;
use crate::base::text::Quoted;

pub(super) mod keyspace;

/// The least that Redis must buffer for a subscriber that is behind: the default size of a dispatcher's ring.
///
/// With less, Redis disconnects a dispatcher that could still catch up. Redis's default of 32 MiB is 7 s at 26,000
/// messages of 100 bytes per second, or one burst of 2,000 messages of 16 KiB.
pub const LEAST_PUBSUB_BUFFER_BYTES: u64 = 64 << 20;
/// Soft limits of this time or longer are ignored. Clients that are behind for so long have stopped reading.
const PATIENT_SOFT_LIMIT_S: u64 = 30;
/// The two commands that read the server's settings.
const CONFIG_GET: &str = "CONFIG GET";
const INFO: &str = "INFO";
/// The oldest version that has all commands that are used.
const OLDEST_VERSION: (u32, u32) = (6, 2);

/// Something about the server that its operator should change, or should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Redis disconnects slow subscribers too early.
    PubSubBuffer {
        /// The limit as Redis has it: hard limit, soft limit, seconds.
        limits: String,
        /// The bytes at which a subscriber is disconnected.
        bytes: u64,
    },
    /// Keys may be evicted: with a policy `allkeys-…` any, with `volatile-…` those with an expiry.
    Eviction {
        /// The setting `maxmemory-policy`.
        policy: String,
        /// The setting `maxmemory` in bytes; without it nothing is evicted yet.
        maxmemory: Option<NonZeroU64>,
    },
    /// The server follows another one.
    Replica {
        /// Which one, `host:port`.
        primary: String,
        /// Whether it accepts writes, which its next synchronisation undoes.
        writable: bool,
        /// What the server's URL is called where it was set.
        setting: UrlSetting,
    },
    /// Redis does not publish all keyspace events that the group listens to.
    KeyspaceEvents {
        /// The setting `notify-keyspace-events`.
        flags: String,
        /// The value that it needs.
        needed: String,
    },
    /// The group listens to keyspace events of a database that the server does not have.
    NoSuchDatabase {
        /// The number of the database.
        database: u64,
        /// How many the server has.
        databases: u64,
    },
    /// The group listens to keyspace events that no command of Redis causes; see [`Warning::is_note`].
    UnknownEvents {
        /// Their names, with commas between them.
        events: String,
    },
    /// Too few replicas are connected, so the server refuses writes; see [`Warning::is_problem`].
    TooFewReplicas {
        /// How many are connected and not too far behind.
        good: u64,
        /// The setting `min-replicas-to-write`, if it is known.
        least: Option<u64>,
        /// Whether it refuses scripts and transactions, too, as Redis does since 7.0.
        refuses_all: bool,
    },
    /// The server is too old.
    OldVersion {
        /// Its version.
        version: String,
    },
    /// Stored data may be lost in a restart; see [`Warning::is_note`].
    NoAppendOnlyFile,
    /// The server has nearly as many connections as it allows.
    Clients {
        /// The setting `maxclients`.
        most: u64,
    },
    /// The server closes connections that are idle; see [`Warning::is_note`].
    IdleTimeout {
        /// The setting `timeout`.
        seconds: u64,
    },
    /// The server refuses a command to this user, or does not have it, so some settings are unknown.
    NotTold {
        /// The command.
        command: &'static str,
    },
}

impl Warning {
    /// Whether it stops the group now.
    pub fn is_problem(&self) -> bool {
        matches!(self, Warning::TooFewReplicas { refuses_all: true, .. })
    }

    /// Whether this is only a limitation, which may be intended.
    pub fn is_note(&self) -> bool {
        matches!(
            self,
            Warning::NoAppendOnlyFile
                | Warning::UnknownEvents { .. }
                | Warning::IdleTimeout { .. }
                | Warning::NotTold { .. }
        )
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::PubSubBuffer { limits, bytes } => write!(
                f,
                "client-output-buffer-limit pubsub is {limits}: Redis cuts off a dispatcher that is {bytes} bytes \
                 behind, which then misses messages; set it to 256mb 128mb 60"
            ),
            Warning::Eviction { policy, maxmemory } => show_eviction(f, policy, *maxmemory),
            Warning::Replica { primary, writable, setting } => {
                let fate = if *writable { "undone when it next synchronises" } else { "refused" };
                write!(
                    f,
                    "the server is a replica of {primary}: what is written to it is {fate}; {setting} must \
                     name the primary"
                )
            }
            Warning::KeyspaceEvents { flags, needed } => write!(
                f,
                "notify-keyspace-events is {flags:?}: Redis does not publish all events that the group listens to; run \
                 CONFIG SET notify-keyspace-events {needed}, and set the same in redis.conf"
            ),
            Warning::NoSuchDatabase { database, databases } => write!(
                f,
                "the group listens to keyspace events of database {database}, and the server has {databases} \
                 databases, from 0 on: there are no such events; correct --keyspace-db, or `databases` in redis.conf"
            ),
            Warning::UnknownEvents { events } => write!(
                f,
                "no command of Redis causes keyspace events named {events}: check the spelling, unless a module \
                 publishes them"
            ),
            Warning::TooFewReplicas { good, least, refuses_all } => show_too_few(f, *good, *least, *refuses_all),
            Warning::OldVersion { version } => {
                let (major, minor) = OLDEST_VERSION;
                write!(f, "the server's version is {version}: {major}.{minor} or newer is needed; upgrade it")
            }
            Warning::NoAppendOnlyFile => f.write_str(
                "appendonly is no: a restart of Redis loses pending messages and results since its last snapshot; set \
                 it to yes to keep them",
            ),
            Warning::Clients { most } => write!(
                f,
                "most of the connections that maxclients, {most}, allows are in use: programs that start or connect \
                 again may be refused; raise it"
            ),
            Warning::IdleTimeout { seconds } => write!(
                f,
                "timeout is {seconds}: Redis closes connections that are idle for so many seconds. Nothing is lost, \
                 but after each such pause results are recorded by scripts, which cost Redis more; 0 avoids that"
            ),
            Warning::NotTold { command } => {
                let unknown = match *command {
                    INFO => "its version and whether it is a replica",
                    _ => "maxmemory-policy, client-output-buffer-limit, appendonly and notify-keyspace-events",
                };
                write!(f, "Redis refuses {command} to this user, or does not have it; not checked: {unknown}")
            }
        }
    }
}

fn show_eviction(f: &mut fmt::Formatter<'_>, policy: &str, maxmemory: Option<NonZeroU64>) -> fmt::Result {
    let when = match maxmemory {
        None => "once maxmemory is set".to_owned(),
        Some(bytes) => format!("at {bytes} bytes (maxmemory)"),
    };
    let what = if takes_only_what_expires(policy) {
        "Redis may remove the lease and the dispatchers' reports to make room: leadership moves for no reason, though \
         no message is lost; noeviction avoids that"
    } else {
        "Redis removes pending messages and results to make room; set it to noeviction"
    };
    write!(f, "maxmemory-policy is {policy}: {when} {what}")
}

fn show_too_few(f: &mut fmt::Formatter<'_>, good: u64, least: Option<u64>, refuses_all: bool) -> fmt::Result {
    let least = least.map_or_else(|| "more".to_owned(), |least| least.to_string());
    if !refuses_all {
        return write!(
            f,
            "{good} replicas follow Redis closely, and min-replicas-to-write demands {least}: before Redis 7.0 that \
             refuses only the reports of dispatchers (NOREPLICAS), and messages and results are stored all the same; \
             set --wait-replicas, or upgrade Redis"
        );
    }
    write!(
        f,
        "Redis refuses all writes (NOREPLICAS): {good} replicas follow it closely, and min-replicas-to-write demands \
         {least}; messages wait in the dispatchers. After a failover this passes once a replica follows the new \
         primary; INFO replication shows which do"
    )
}

/// Of the group's keys only the lease and the reports expire.
fn takes_only_what_expires(policy: &str) -> bool {
    policy.starts_with("volatile-")
}

/// Finds what endangers the guarantees or is worth knowing. Two round trips. With `interests` this includes whether
/// Redis publishes the keyspace events among them.
///
/// # Errors
///
/// [`Error::Redis`](crate::base::error::Error::Redis) if the server can't be asked now. A refusal is not an error.
pub fn check(connection: &mut Connection, interests: Option<&Interests>) -> Result<Vec<Warning>> {
    const READING: &str = "reading Redis's settings";
    // One request for each, because only Redis 7 accepts several patterns or sections at once.
    let config = [
        "maxmemory*",
        "client-output-buffer-limit",
        "appendonly",
        "notify-keyspace-events",
        "databases",
        "maxclients",
        "timeout",
        "min-replicas-to-write",
    ];
    let config = config.iter().map(|pattern| Command::of(&["CONFIG", "GET", pattern])).collect();
    let config = if_allowed(connection.pipeline(READING, config))?;
    let info = ["replication", "server", "clients"].iter().map(|section| Command::of(&["INFO", section])).collect();
    let info = if_allowed(connection.pipeline(READING, info))?;
    let unknown = [(CONFIG_GET, config.is_none()), (INFO, info.is_none())].into_iter().filter(|(_, refused)| *refused);
    let unknown = unknown.map(|(command, _)| Warning::NotTold { command }).collect::<Vec<_>>();
    let (config, info) = (pairs(&config.unwrap_or_default()), fields(&info.unwrap_or_default()));
    let mut found = judge(&config, &info, connection.server().setting());
    // Keyspace events are not published on sharded channels.
    if let Some(interests) = interests.filter(|interests| !interests.is_sharded()) {
        found.extend(judge_events(&config, interests));
    }
    Ok([found, unknown].concat())
}

/// What keeps keyspace events among the interests from being published.
fn judge_events(config: &HashMap<String, String>, interests: &Interests) -> Vec<Warning> {
    let mut found = Vec::new();
    if let Some(flags) = config.get("notify-keyspace-events")
        && let Some(needed) = keyspace::completed(flags, interests)
    {
        found.push(Warning::KeyspaceEvents { flags: flags.clone(), needed });
    }
    if let Some(databases) = config.get("databases").and_then(|databases| databases.parse().ok())
        && let Some(database) = keyspace::highest_database(interests).filter(|database| *database >= databases)
    {
        found.push(Warning::NoSuchDatabase { database, databases });
    }
    let events = keyspace::unknown_events(interests);
    if !events.is_empty() {
        found.push(Warning::UnknownEvents { events: events.join(", ") });
    }
    found
}

/// Compares the findings of repeated checks, and logs the changes.
#[derive(Debug, Default)]
pub struct ServerWatch {
    found: Vec<Warning>,
}

impl ServerWatch {
    /// Logs each finding when it is new or gone.
    pub fn note(&mut self, found: Vec<Warning>) {
        for warning in found.iter().filter(|warning| !self.found.contains(warning)) {
            match warning.is_note() {
                true => info!("event=redis-setting note={}", Quoted(warning)),
                false => warn!("event=redis-setting warning={}", Quoted(warning)),
            }
        }
        for gone in self.found.iter().filter(|warning| !found.contains(warning)) {
            info!("event=redis-setting-changed was={}", Quoted(gone));
        }
        self.found = found;
    }
}

/// `None` if the server refuses the commands.
fn if_allowed(replies: Result<Vec<Value>>) -> Result<Option<Vec<Value>>> {
    match replies {
        Ok(replies) => Ok(Some(replies)),
        // A user without the right; a command that was renamed, or that the service does not have.
        Err(error) if matches!(error.refusal(), Some(Refusal::Right | Refusal::UnknownCommand | Refusal::Other)) => {
            debug!("event=redis-settings-unknown reason={}", Quoted(error));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The names and values that `CONFIG GET` has given.
fn pairs(replies: &[Value]) -> HashMap<String, String> {
    let mut pairs = HashMap::new();
    let mut note = |name: &Value, value: &Value| {
        if let (Some(name), Some(value)) = (text(name), text(value)) {
            pairs.insert(name.to_owned(), value.to_owned());
        }
    };
    for reply in replies {
        match reply {
            Value::Array(words) => words.chunks_exact(2).for_each(|pair| note(&pair[0], &pair[1])),
            Value::Map(entries) => entries.iter().for_each(|(name, value)| note(name, value)),
            _ => {}
        }
    }
    pairs
}

/// The lines `name:value` that `INFO` has given.
fn fields(replies: &[Value]) -> HashMap<String, String> {
    let texts = replies.iter().filter_map(|reply| match reply {
        Value::VerbatimString { text, .. } => Some(text.as_str()),
        other => text(other),
    });
    let lines = texts.flat_map(str::lines).filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name.to_owned(), value.trim_end().to_owned())).collect()
}

/// What is wrong with these settings. Missing ones are not judged.
fn judge(config: &HashMap<String, String>, info: &HashMap<String, String>, url: UrlSetting) -> Vec<Warning> {
    let setting = |name: &str| config.get(name).map(String::as_str);
    let field = |name: &str| info.get(name).map(String::as_str);
    let mut found = Vec::new();
    if field("role") == Some("slave") {
        found.push(Warning::Replica {
            primary: format!("{}:{}", field("master_host").unwrap_or("?"), field("master_port").unwrap_or("?")),
            writable: field("slave_read_only") == Some("0"),
            setting: url,
        });
    } else {
        let refuses_all = field("redis_version").is_none_or(|version| !is_before(version, (7, 0)));
        let (good, least) = (field("min_slaves_good_slaves"), setting("min-replicas-to-write"));
        found.extend(too_few_replicas(good, least, refuses_all));
    }
    if let Some(policy) = setting("maxmemory-policy").filter(|policy| *policy != "noeviction") {
        let maxmemory = setting("maxmemory").and_then(|bytes| bytes.parse().ok());
        found.push(Warning::Eviction { policy: policy.to_owned(), maxmemory });
    }
    found.extend(setting("client-output-buffer-limit").and_then(pubsub_buffer));
    if let Some(version) = field("redis_version").filter(|version| is_before(version, OLDEST_VERSION)) {
        found.push(Warning::OldVersion { version: version.to_owned() });
    }
    if setting("appendonly") == Some("no") {
        found.push(Warning::NoAppendOnlyFile);
    }
    found.extend(clients(setting("maxclients"), field("connected_clients")));
    if let Some(seconds) = setting("timeout").and_then(|seconds| seconds.parse().ok()).filter(|seconds| *seconds > 0) {
        found.push(Warning::IdleTimeout { seconds });
    }
    found
}

/// Warns if the server refuses writes for lack of replicas. It counts the good ones only if it demands some.
fn too_few_replicas(good: Option<&str>, least: Option<&str>, refuses_all: bool) -> Option<Warning> {
    let (good, least): (u64, Option<u64>) = (good?.parse().ok()?, least.and_then(|least| least.parse().ok()));
    (good < least.unwrap_or(1)).then_some(Warning::TooFewReplicas { good, least, refuses_all })
}

/// Warns if fewer than a tenth of the connections are left.
fn clients(most: Option<&str>, connected: Option<&str>) -> Option<Warning> {
    let (most, connected): (u64, u64) = (most?.parse().ok()?, connected?.parse().ok()?);
    (most.saturating_sub(connected) < most.div_ceil(10)).then_some(Warning::Clients { most })
}

/// Parses `normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60`: hard limit, soft limit, seconds; 0
/// means none.
fn pubsub_buffer(limits: &str) -> Option<Warning> {
    let words: Vec<&str> = limits.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "pubsub")?;
    let limits = words.get(at + 1..at + 4)?;
    let [hard, soft, seconds] = [0, 1, 2].map(|index| limits[index].parse::<u64>().ok());
    let soft = if seconds? < PATIENT_SOFT_LIMIT_S { soft? } else { 0 };
    let bytes = [hard?, soft].into_iter().filter(|limit| *limit > 0).min()?;
    (bytes < LEAST_PUBSUB_BUFFER_BYTES).then(|| Warning::PubSubBuffer { limits: limits.join(" "), bytes })
}

fn is_before(version: &str, other: (u32, u32)) -> bool {
    let mut numbers = version.split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < other,
        // A version of another kind gives no warning.
        _ => false,
    }
}

#[cfg(test)]
mod tests;
