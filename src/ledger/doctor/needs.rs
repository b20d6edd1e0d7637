//! What each program needs of the server. Pure.
//!
//! docs/OPERATIONS.md has the same as lines of `ACL SETUSER`; a test takes each right away in turn.

use super::finding::Effect::{self, Partly, Slower, Stops};
use super::patient::Setup;
use crate::ledger::keys::Keys;

/// A program, or a subcommand of `oncecast`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// A dispatcher that delivers to consumers.
    Dispatcher,
    /// A dispatcher that delivers to a stream.
    StreamDispatcher,
    /// A consumer.
    Consumer,
    /// A publisher.
    Publisher,
    /// `oncecast status`.
    Status,
    /// `oncecast audit`.
    Audit,
}

/// How a program uses a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Reads,
    Writes,
}

/// A key that a program needs.
pub(super) struct KeyNeed {
    pub(super) key: String,
    /// The right that includes it.
    pub(super) right: String,
    pub(super) uses: &'static [Use],
    pub(super) effect: Effect,
    /// Whether another node of the cluster may have it.
    pub(super) is_elsewhere: bool,
}

const BOTH: &[Use] = &[Use::Reads, Use::Writes];

const NO_TRANSACTIONS: &str = "scripts are used instead of transactions, which cost Redis more";
const NO_RUN_ID: &str = "results are recorded by scripts, which cost Redis more";
const STATUS_PART: &str = "the status leaves out what needs it";
const NO_TYPE: &str = "a key of another type is not named in errors";
const NO_PING: &str = "a broken subscription is noticed later";

/// Commands that every dispatcher needs, as they are named in `ACL SETUSER`.
const EVERY_DISPATCHER: &[(&str, Effect)] = &[
    ("evalsha", Stops),
    ("eval", Stops),
    ("script|load", Stops),
    ("publish", Stops),
    ("pubsub|numsub", Stops),
    ("pubsub|channels", Stops),
    ("time", Stops),
    ("exists", Stops),
    ("get", Stops),
    ("set", Stops),
    ("del", Stops),
    ("pttl", Stops),
    ("pexpire", Stops),
    ("zrevrange", Stops),
    ("zremrangebyscore", Stops),
    ("xadd", Stops),
    ("xtrim", Stops),
    ("xrevrange", Stops),
    ("ping", Partly(NO_PING)),
    ("mget", Partly(STATUS_PART)),
    ("zrange", Stops),
    ("zcard", Partly(STATUS_PART)),
    ("lrange", Partly(STATUS_PART)),
    ("xlen", Partly(STATUS_PART)),
];

const DISPATCHER: &[(&str, Effect)] = &[
    ("zadd", Stops),
    ("zcount", Stops),
    ("zrangebyscore", Stops),
    ("hget", Stops),
    ("hmget", Stops),
    ("hset", Stops),
    ("hdel", Stops),
    ("ltrim", Stops),
    ("rpush", Stops),
    ("info", Slower("consumers can't tell one start of Redis from another: they record results by scripts")),
    ("type", Slower(NO_TRANSACTIONS)),
    ("watch", Slower(NO_TRANSACTIONS)),
    ("unwatch", Slower(NO_TRANSACTIONS)),
    ("exec", Slower(NO_TRANSACTIONS)),
    ("multi", Slower(NO_TRANSACTIONS)),
];

const STREAM_DISPATCHER: &[(&str, Effect)] = &[
    ("xdel", Stops),
    ("zcount", Partly(STATUS_PART)),
    ("type", Partly(NO_TYPE)),
    ("info", Partly("consumers, if the group is switched back to them, can't tell one start of Redis from another")),
];

const CONSUMER: &[(&str, Effect)] = &[
    ("evalsha", Stops),
    ("eval", Stops),
    ("script|load", Stops),
    ("get", Stops),
    ("exists", Stops),
    ("set", Stops),
    ("zadd", Stops),
    ("zcount", Stops),
    ("zremrangebyscore", Stops),
    ("hdel", Stops),
    ("xadd", Stops),
    ("ping", Partly("a refusal of PING is taken for a sign that Redis answers")),
    ("getrange", Partly("a consumer with the wrong Redis is not noticed (event=epoch-unchecked)")),
    ("zrangebyscore", Slower("dispatchers store no messages in bundles, which cost Redis less")),
    ("info", Slower(NO_RUN_ID)),
    ("type", Slower(NO_TRANSACTIONS)),
    ("watch", Slower(NO_TRANSACTIONS)),
    ("unwatch", Slower(NO_TRANSACTIONS)),
    ("exec", Slower(NO_TRANSACTIONS)),
    ("multi", Slower(NO_TRANSACTIONS)),
];

const PUBLISHER: &[(&str, Effect)] = &[("ping", Stops), ("publish", Stops)];

const STATUS: &[(&str, Effect)] = &[
    ("get", Partly(STATUS_PART)),
    ("mget", Partly(STATUS_PART)),
    ("pttl", Partly(STATUS_PART)),
    ("pubsub|numsub", Partly(STATUS_PART)),
    ("pubsub|channels", Partly(STATUS_PART)),
    ("zcard", Partly(STATUS_PART)),
    ("zcount", Partly(STATUS_PART)),
    ("zrange", Partly(STATUS_PART)),
    ("lrange", Partly(STATUS_PART)),
    ("xlen", Partly(STATUS_PART)),
    ("xrevrange", Partly(STATUS_PART)),
    ("info", Partly("the version of Redis, and whether it is a replica, are not checked")),
];

const AUDIT: &[(&str, Effect)] =
    &[("xlen", Stops), ("xrange", Stops), ("zcard", Stops), ("zcount", Stops), ("zrangebyscore", Stops)];

/// What is needed beside these through the URL of Sentinels.
const BY_SENTINELS: &[(&str, Effect)] =
    &[("role", Partly("a server that is a replica by now may be noticed only when it refuses something"))];
/// What is needed beside these if there may be lanes.
const DISPATCHER_WITH_LANES: &[(&str, Effect)] = &[
    ("smembers", Stops),
    ("sadd", Stops),
    // A new lane is given the group's settings, also one that delivers to a stream.
    ("hmget", Stops),
    ("hset", Stops),
    ("hdel", Stops),
];
const STATUS_WITH_LANES: &[(&str, Effect)] = &[("smembers", Partly(STATUS_PART))];
const AUDIT_WITH_LANES: &[(&str, Effect)] = &[("smembers", Stops)];
/// What a dispatcher needs that waits for replicas.
const WAITING: &[(&str, Effect)] = &[("wait", Stops)];

/// What is needed beside these through the URL of a Redis Cluster.
const IN_CLUSTER: &[(&str, Effect)] = &[("cluster|slots", Stops)];
const DISPATCHER_IN_CLUSTER: &[(&str, Effect)] = &[("cluster|slots", Stops), ("cluster|myid", Stops)];
const SHARDED_PUBLISHER: &[(&str, Effect)] = &[("cluster|slots", Stops), ("exists", Stops)];
const PUBLISHER_IN_CLUSTER: &[(&str, Effect)] =
    &[("cluster|slots", Stops), ("exists", Stops), ("pubsub|numsub", Stops)];

impl Program {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Program::Dispatcher => "dispatcher",
            Program::StreamDispatcher => "dispatcher into a stream",
            Program::Consumer => "consumer",
            Program::Publisher => "publisher",
            Program::Status => "status",
            Program::Audit => "audit",
        }
    }

    /// Whether it subscribes to what the group listens to.
    pub(super) fn listens(self) -> bool {
        matches!(self, Program::Dispatcher | Program::StreamDispatcher)
    }

    /// Whether it writes keys of the group.
    pub(super) fn writes(self) -> bool {
        self.listens() || self == Program::Consumer
    }

    /// The commands that it calls, as they are named in `ACL SETUSER`, and what follows if one is missing. SUBSCRIBE
    /// and PSUBSCRIBE are tried with the channels.
    pub(super) fn commands(self, setup: Setup) -> impl Iterator<Item = (&'static str, Effect)> {
        let in_cluster: &[(&str, Effect)] = match self {
            _ if !setup.in_cluster => &[],
            Program::Dispatcher | Program::StreamDispatcher => DISPATCHER_IN_CLUSTER,
            Program::Publisher if setup.is_sharded => SHARDED_PUBLISHER,
            Program::Publisher => PUBLISHER_IN_CLUSTER,
            Program::Consumer | Program::Status | Program::Audit => IN_CLUSTER,
        };
        let by_sentinels = if setup.by_sentinels { BY_SENTINELS } else { &[] };
        let with_lanes: &[(&str, Effect)] = match self {
            Program::Dispatcher | Program::StreamDispatcher if setup.has_lanes => DISPATCHER_WITH_LANES,
            Program::Status if setup.has_lanes => STATUS_WITH_LANES,
            Program::Audit if setup.has_lanes => AUDIT_WITH_LANES,
            _ => &[],
        };
        let waiting = if setup.waits && self.listens() { WAITING } else { &[] };
        let own: [&[(&str, Effect)]; 2] = match self {
            Program::Dispatcher => [EVERY_DISPATCHER, DISPATCHER],
            Program::StreamDispatcher => [EVERY_DISPATCHER, STREAM_DISPATCHER],
            Program::Consumer => [CONSUMER, &[]],
            Program::Publisher => [PUBLISHER, &[]],
            Program::Status => [STATUS, &[]],
            Program::Audit => [AUDIT, &[]],
        };
        // Before its own, since MULTI is the last of these.
        [in_cluster, with_lanes, by_sentinels, waiting].into_iter().chain(own).flatten().copied()
    }

    /// The command by which it is tried whether a key may be read: one that it needs anyway.
    pub(super) fn reads_with(self) -> &'static str {
        match self {
            Program::Audit => "XLEN",
            Program::Publisher => "EXISTS",
            _ => "GET",
        }
    }

    /// The keys that it uses. `trial` is the key of a trial.
    pub(super) fn keys(self, keys: &Keys, trial: &str, setup: Setup) -> Vec<KeyNeed> {
        let lane = keys.lane(1).filter(|_| setup.has_lanes && self != Program::Publisher);
        let mut needs = self.keys_of(keys, trial, setup);
        if let Some(lane) = lane {
            // One lane stands for all.
            let of_all = |right: String| right.replacen("/1}", "/*}", 1);
            let own = self.keys_of(&lane, &format!("{}doctor-none", lane.put_back_prefix), setup);
            let own = own.into_iter().filter(|need| need.key.starts_with(&lane.group));
            needs.extend(own.map(|need| KeyNeed { right: of_all(need.right), is_elsewhere: true, ..need }));
        }
        needs
    }

    /// What a publisher reads to follow the slot of a sharded channel: the key that is called like the channel.
    pub(super) fn key_of_channel(channel: &[u8]) -> Option<KeyNeed> {
        let key = std::str::from_utf8(channel).ok()?.to_owned();
        let right = format!("~{}", literal(&key));
        Some(KeyNeed { key, right, uses: &[Use::Reads], effect: Stops, is_elsewhere: true })
    }

    fn keys_of(self, keys: &Keys, trial: &str, setup: Setup) -> Vec<KeyNeed> {
        let all = format!("~{}:*", literal(&keys.group));
        let need = |key: &str, uses: &'static [Use], effect| {
            let right = match key.starts_with(&format!("{}:", keys.group)) {
                true => all.clone(),
                false => format!("~{}", literal(key)),
            };
            KeyNeed { key: key.to_owned(), right, uses, effect, is_elsewhere: false }
        };
        let own = |key: &str, uses, effect| KeyNeed { right: format!("~{}", literal(key)), ..need(key, uses, effect) };
        match self {
            Program::Dispatcher | Program::StreamDispatcher => {
                let stream = keys.stream.as_ref().filter(|_| self == Program::Dispatcher);
                let types = keys.types().filter(|(key, _)| stream.is_none_or(|stream| stream != key));
                types.map(|(key, _)| need(key, BOTH, Stops)).collect()
            }
            Program::Consumer => vec![
                own(&keys.pending, BOTH, Stops),
                own(&keys.processed, &[Use::Writes], Stops),
                own(&keys.attempts, BOTH, Stops),
                own(&keys.recall, BOTH, Stops),
                own(&keys.epoch, &[Use::Reads], Partly("a consumer with the wrong Redis is not noticed")),
                KeyNeed {
                    key: trial.to_owned(),
                    right: format!("~{}*", literal(&keys.put_back_prefix)),
                    uses: &[Use::Writes],
                    effect: Stops,
                    is_elsewhere: false,
                },
            ],
            // By it the publisher learns that the group has moved.
            Program::Publisher if setup.in_cluster && !setup.is_sharded => {
                vec![own(&keys.leader, &[Use::Reads], Stops)]
            }
            Program::Publisher => Vec::new(),
            Program::Status => keys.types().map(|(key, _)| need(key, &[Use::Reads], Partly(STATUS_PART))).collect(),
            Program::Audit => {
                let read = [&keys.processed, &keys.dead, &keys.pending].into_iter().chain(&keys.stream);
                read.map(|key| need(key, &[Use::Reads], Stops)).collect()
            }
        }
    }
}

/// The pattern that matches this name only.
pub(super) fn literal(name: &str) -> String {
    name.chars().map(|c| if r"\*?[]".contains(c) { format!("\\{c}") } else { c.to_string() }).collect()
}
