//! The settings of one lane, as values. The process that runs it makes them from whatever it was given.

use std::sync::Arc;
use std::time::Duration;

use super::retry_policy::RetryPolicy;
use crate::ledger::{Interests, Keys, Server};

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What distinguishes the lane from others of its process, in the log and in metrics. `None`: it is the only one.
    pub name: Option<String>,
    /// The Redis server.
    pub redis: Server,
    /// The group's keys.
    pub keys: Keys,
    /// What the group listens to.
    pub interests: Arc<Interests>,
    /// The consumers' addresses, `host:port`, at least one, all different.
    pub consumers: Vec<String>,
    /// How long the lease lasts.
    pub lease_ttl: Duration,
    /// How long a link may be silent.
    pub link_timeout: Duration,
    /// How many failed deliveries make a dead letter.
    pub max_deliveries: u32,
    /// How long a message that failed waits for its next delivery.
    pub retry: RetryPolicy,
    /// The ring's limit.
    pub ring_bytes: usize,
    /// The limit of the messages waiting for a consumer.
    pub ready_bytes: usize,
}
