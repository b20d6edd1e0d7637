//! Lanes for the tests of their parts.

use std::sync::Arc;
use std::time::Duration;

use super::{ProcessHandles, Settings, Shared};
use crate::base::id::DispatcherId;
use crate::base::log_context::Context;
use crate::ledger::{Keys, Server};

/// A lane that has not started, for consumers at these addresses.
pub(super) fn lane_of(consumers: Vec<String>) -> Arc<Shared> {
    let redis = Server::parse("redis://127.0.0.1:6379").expect("a URL");
    let settings = settings_of(None, redis, "messages", consumers);
    let process = ProcessHandles { id: DispatcherId::generate("d0"), log: Context::new("starting") };
    Shared::new(settings, process)
}

/// Settings as a dispatcher has them by default.
pub(super) fn settings_of(name: Option<&str>, redis: Server, group: &str, consumers: Vec<String>) -> Settings {
    Settings {
        name: name.map(str::to_owned),
        redis,
        keys: Keys::new(group),
        channel: format!("{group}-channel"),
        consumers,
        lease_ttl: Duration::from_secs(3),
        link_timeout: Duration::from_secs(3),
        max_deliveries: 8,
        retry: "exponential:200ms..5m*4".parse().expect("a policy"),
        ring_bytes: 64 << 20,
        ready_bytes: 64 << 20,
    }
}
