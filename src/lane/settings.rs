//! The settings of one lane, as values. The process that runs the lane makes them.

use std::sync::Arc;
use std::time::Duration;

use super::following::Following;
use super::order_key::OrderKey;
use super::roster::ConsumerSource;
use crate::base::delivery_rate::DeliveryRate;
use crate::base::retry_policy::RetryPolicy;
use crate::ledger::{Destination, Interests, Keys, Server};
use crate::net::{ClientTls, LinkSecret};

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The lane's name in the log and in metrics. `None` if it is the only lane of its process.
    pub name: Option<String>,
    /// The Redis server.
    pub redis: Server,
    /// The group's keys.
    pub keys: Keys,
    /// What the group listens to.
    pub interests: Arc<Interests>,
    /// Where messages are stored. With a stream nothing is delivered to consumers.
    pub destination: Destination,
    /// Where the consumers are, or where their addresses are found, all different; none with a stream.
    pub consumers: Vec<ConsumerSource>,
    /// How lists of consumers are followed.
    pub following: Following,
    /// TLS to the consumers that have it.
    pub link_tls: Option<ClientTls>,
    /// The secret of the group's links, if there is one.
    pub link_secret: Option<LinkSecret>,
    /// How long the lease lasts unless it is renewed.
    pub lease_ttl: Duration,
    /// How long a link may be silent.
    pub link_timeout: Duration,
    /// After this many failed deliveries a message becomes a dead letter.
    pub max_deliveries: u32,
    /// How long a failed message waits for its next delivery.
    pub retry: RetryPolicy,
    /// The most messages that consumers hold together, unless the group has a setting of its own.
    pub max_in_flight: Option<u64>,
    /// The most deliveries in a time, unless the group has a setting of its own.
    pub max_rate: Option<DeliveryRate>,
    /// Of messages with one key, the next is delivered only when the one before it is done. `None`: there is no order.
    pub order_key: Option<OrderKey>,
    /// How many replicas must have a message before it counts as stored.
    pub wait_replicas: u32,
    /// Whether messages that arrive together may be stored in bundles.
    pub bundles: bool,
    /// The ring's limit.
    pub ring_bytes: usize,
    /// The limit of the messages waiting for a consumer.
    pub ready_bytes: usize,
}
