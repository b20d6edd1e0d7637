//! The services, by what they document. docs/COMPATIBILITY.md has the links.

use oncecast::lab::{RedisOptions, RedisServer};

use crate::censor::{Censor, Limits, Refusal};
use crate::support::{client, run, wait_until};

/// A service.
pub struct Service {
    pub limits: Limits,
    /// Its settings.
    config: &'static [(&'static str, &'static str)],
    /// Whether it is a Redis Cluster.
    is_cluster: bool,
    /// What dispatchers say that they can't check.
    pub unchecked: Option<&'static str>,
}

const CONFIG_UNKNOWN: Option<&str> = Some("Redis refuses CONFIG GET to this user, or does not have it");
/// Disconnects a subscriber that is behind by 32 MB, or by 8 MB for a minute.
const PUBSUB_32_MB: (&str, &str) = ("client-output-buffer-limit", "pubsub 32mb 8mb 60");

pub const ELASTICACHE: Service = Service {
    limits: Limits {
        closed: &[
            "bgrewriteaof",
            "bgsave",
            "config",
            "debug",
            "migrate",
            "replicaof",
            "save",
            "slaveof",
            "shutdown",
            "sync",
        ],
        ..Limits::NONE
    },
    config: &[],
    is_cluster: false,
    unchecked: CONFIG_UNKNOWN,
};

/// More than 3,999 arguments are 4,001 words or more, with the command's name.
pub const ELASTICACHE_SERVERLESS: Service = Service {
    limits: Limits { most_words: 4_000, refusal: Refusal::Error, ..ELASTICACHE.limits },
    config: &[PUBSUB_32_MB],
    is_cluster: true,
    unchecked: CONFIG_UNKNOWN,
};

pub const MEMORYDB: Service = Service {
    limits: Limits {
        closed: &[
            "acl deluser",
            "acl load",
            "acl save",
            "acl setuser",
            "bgrewriteaof",
            "bgsave",
            "cluster addslot",
            "cluster delslot",
            "cluster setslot",
            "config",
            "debug",
            "migrate",
            "module",
            "psync",
            "replicaof",
            "save",
            "shutdown",
            "slaveof",
            "sync",
        ],
        ..Limits::NONE
    },
    config: &[],
    is_cluster: false,
    unchecked: CONFIG_UNKNOWN,
};

/// `INFO` has other fields there: here it has none of those that are read.
pub const REDIS_SOFTWARE: Service = Service {
    limits: Limits {
        closed: &[
            "acl deluser",
            "acl load",
            "acl log",
            "acl save",
            "acl setuser",
            "bgrewriteaof",
            "bgsave",
            "client no-evict",
            "client pause",
            "config resetstat",
            "debug",
            "failover",
            "lastsave",
            "migrate",
            "psync",
            "replconf",
            "replicaof",
            "role",
            "save",
            "shutdown",
            "slaveof",
            "swapdb",
            "sync",
        ],
        settings: &["notify-keyspace-events"],
        empty_info: &["replication", "server", "commandstats"],
        ..Limits::NONE
    },
    config: &[],
    is_cluster: false,
    unchecked: CONFIG_UNKNOWN,
};

pub const AZURE_CACHE: Service = Service {
    limits: Limits {
        closed: &[
            "acl",
            "bgrewriteaof",
            "bgsave",
            "config",
            "debug",
            "migrate",
            "psync",
            "replicaof",
            "replconf",
            "save",
            "shutdown",
            "slaveof",
            "sync",
        ],
        ..Limits::NONE
    },
    config: &[PUBSUB_32_MB, ("maxmemory-policy", "volatile-lru")],
    is_cluster: false,
    unchecked: CONFIG_UNKNOWN,
};

pub const UPSTASH: Service = Service {
    limits: Limits {
        most_bytes: 10_000_000,
        too_large: "ERR max request size exceeded",
        empty_info: &["replication", "commandstats"],
        ..Limits::NONE
    },
    config: &[],
    is_cluster: false,
    unchecked: None,
};

impl Service {
    /// Its limits, in front of a server.
    pub fn before(&self, server: &RedisServer) -> Censor {
        Censor::with(&format!("127.0.0.1:{}", server.port()), self.limits.clone())
    }

    /// A server with its settings.
    pub fn start(&self) -> RedisServer {
        let cluster: &[(&str, &str)] = if self.is_cluster { &[("cluster-enabled", "yes")] } else { &[] };
        let config = self.config.iter().chain(cluster);
        let config = config.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let server = RedisServer::start(RedisOptions { config, ..RedisOptions::default() }).expect("Redis starts");
        if self.is_cluster {
            let connection = &mut client(&server.url());
            let slots: Vec<String> = (0..16_384).map(|slot| slot.to_string()).collect();
            let words: Vec<&str> =
                ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str)).collect();
            let () = run(connection, &words);
            wait_until("the cluster to be complete", || {
                run::<String>(connection, &["CLUSTER", "INFO"]).contains("cluster_state:ok").then_some(())
            });
        }
        server
    }
}
