//! What a cluster consists of. Plain values.

use std::ffi::OsString;

use log::LevelFilter;

use crate::lab::programs::Programs;
use crate::lab::redis::RedisOptions;
use crate::lab::redis_cluster::RedisClusterOptions;

/// What a cluster consists of.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Where our programs are.
    pub programs: Programs,
    /// The private server.
    pub redis: RedisOptions,
    /// A server that is started elsewhere, by its URL, in place of the private one.
    pub redis_url: Option<String>,
    /// A private Redis Cluster in its place.
    pub redis_cluster: Option<RedisClusterOptions>,
    /// The group's name.
    pub group: String,
    /// The number of dispatchers.
    pub dispatchers: usize,
    /// The number of consumers.
    pub consumers: usize,
    /// What is started as a consumer.
    pub consumer_program: ConsumerProgram,
    /// What dispatchers and consumers log; `None`: as much as they do by default.
    pub log_level: Option<LevelFilter>,
    /// Whether dispatchers serve `/readyz`, for [`Cluster::is_ready`](crate::lab::Cluster::is_ready).
    pub readiness: bool,
    /// More arguments for each dispatcher.
    pub dispatcher_args: Vec<String>,
    /// More arguments for each consumer that is a program of ours.
    pub consumer_args: Vec<String>,
    /// The handler of each such consumer, as its last arguments, since a program's words come at the end.
    pub handler_args: Vec<OsString>,
}

impl ClusterOptions {
    /// Two dispatchers, three consumers, and all settings at their defaults.
    pub fn new(programs: Programs) -> ClusterOptions {
        ClusterOptions {
            programs,
            redis: RedisOptions::default(),
            redis_url: None,
            redis_cluster: None,
            group: "messages".to_owned(),
            dispatchers: 2,
            consumers: 3,
            consumer_program: ConsumerProgram::default(),
            log_level: None,
            readiness: false,
            dispatcher_args: Vec::new(),
            consumer_args: Vec::new(),
            handler_args: Vec::new(),
        }
    }

    /// Makes it a group on a private Redis Cluster, whose nodes keep their data when they are killed.
    pub fn on_redis_cluster(&mut self) {
        // Not synced, since only processes die here, not the machine.
        let config = vec![("appendfsync".to_owned(), "no".to_owned())];
        let node = RedisOptions { append_only: true, config, ..self.redis.clone() };
        self.redis_cluster = Some(RedisClusterOptions { node, ..RedisClusterOptions::default() });
        self.group = format!("{{{}}}", self.group);
    }

    /// Makes the dispatchers listen to the channels of `oncecast-publisher --channels`, all by one pattern.
    pub fn listen_to_many(&mut self) {
        self.dispatcher_args.extend(["--pattern", "messages:published.*"].map(str::to_owned));
    }

    /// Makes the dispatchers listen to these sharded channels.
    pub fn listen_to_sharded(&mut self, channels: &[String]) {
        self.dispatcher_args.extend(["--sharded-channel".to_owned(), channels.join(",")]);
    }

    /// Makes the dispatchers add messages to the stream `<group>:messages`, without consumers.
    pub fn deliver_to_stream(&mut self) {
        self.consumers = 0;
        self.dispatcher_args.extend(["--deliver", "stream"].map(str::to_owned));
    }
}

/// What is started as a consumer.
#[derive(Clone, Debug)]
pub enum ConsumerProgram {
    /// One of our programs that accepts a consumer's settings.
    Ours {
        /// Its name.
        name: String,
        /// Arguments before the settings.
        arguments: Vec<String>,
    },
    /// Programs of any kind, at least one, which the consumers run in turn: each a program and its arguments. They find
    /// the settings in the variables that `oncecast-consumer` reads, such as `ONCECAST_LISTEN`.
    Commands(Vec<Vec<OsString>>),
}

impl Default for ConsumerProgram {
    /// `oncecast-consumer`.
    fn default() -> ConsumerProgram {
        ConsumerProgram::Ours { name: "oncecast-consumer".to_owned(), arguments: Vec::new() }
    }
}
