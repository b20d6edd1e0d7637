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
            dispatcher_args: Vec::new(),
            consumer_args: Vec::new(),
        }
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
