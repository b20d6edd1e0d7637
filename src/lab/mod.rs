//! Whole clusters on this machine: a private Redis and our programs as child processes. `oncecast demo`, `chaos` and
//! `bench` run on them, and so do the tests.
//!
//! This is the only room that starts processes. Everything here is owned by the thread that created it; each child
//! process has two more threads, which read its output. Every wait has a deadline and an error that names what was
//! awaited. Dropping a value stops its processes and removes its folder. If this process is killed, its child processes
//! are killed, too.
//!
//! Limitations: the folders of a killed process stay.

pub mod bench;
pub mod chaos;
pub mod child;
pub mod cluster;
pub mod console;
pub mod demo;
pub mod experiment;
pub mod folder;
pub mod journal;
pub mod lanes;
pub mod lines;
pub mod numbers;
pub mod ports;
pub mod programs;
pub mod readiness;
pub mod redis;
pub mod redis_cluster;
pub mod sentinel;
mod settings;
pub mod stream_workers;
pub mod wait;
mod watcher;

pub use self::child::{ChildProcess, Signal};
pub use self::cluster::{Cluster, ClusterOptions, ConsumerProgram, Node};
pub use self::experiment::Experiment;
pub use self::lanes::LanesView;
pub use self::programs::Programs;
pub use self::redis::{PemPair, RedisOptions, RedisServer, RedisTls};
pub use self::redis_cluster::{RedisCluster, RedisClusterOptions};
pub use self::sentinel::SentinelSet;
pub use self::wait::wait_until;
pub use crate::ledger::Lease;
pub use crate::ledger::overview::{GroupView, Snapshot};
