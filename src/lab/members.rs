//! What a cluster is made of, and what its processes are called. Plain values.

use std::fmt;

use super::{Programs, RedisOptions};

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Where our programs are.
    pub programs: Programs,
    /// The private server.
    pub redis: RedisOptions,
    /// The group's name.
    pub group: String,
    /// How many dispatchers.
    pub dispatchers: usize,
    /// How many consumers.
    pub consumers: usize,
    /// What is started as a consumer.
    pub consumer_program: ConsumerProgram,
    /// Whether dispatchers say if they are ready, for [`Cluster::is_ready`](super::Cluster::is_ready).
    pub readiness: bool,
    /// More arguments for each dispatcher.
    pub dispatcher_args: Vec<String>,
    /// More arguments for each consumer.
    pub consumer_args: Vec<String>,
}

impl ClusterOptions {
    /// Two dispatchers, three consumers, and all settings at their defaults.
    pub fn new(programs: Programs) -> ClusterOptions {
        ClusterOptions {
            programs,
            redis: RedisOptions::default(),
            group: "messages".to_owned(),
            dispatchers: 2,
            consumers: 3,
            consumer_program: ConsumerProgram::default(),
            readiness: false,
            dispatcher_args: Vec::new(),
            consumer_args: Vec::new(),
        }
    }
}

/// One of our programs that takes a consumer's settings.
#[derive(Clone, Debug)]
pub struct ConsumerProgram {
    /// Its name.
    pub name: String,
    /// What comes before the settings.
    pub arguments: Vec<String>,
}

impl Default for ConsumerProgram {
    /// `oncecast-consumer`.
    fn default() -> ConsumerProgram {
        ConsumerProgram { name: "oncecast-consumer".to_owned(), arguments: Vec::new() }
    }
}

/// One of the cluster's processes, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// `d0`, `d1`, …
    Dispatcher(usize),
    /// `c0`, `c1`, …
    Consumer(usize),
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Member::Dispatcher(number) => write!(f, "d{number}"),
            Member::Consumer(number) => write!(f, "c{number}"),
        }
    }
}
