//! What is compared.

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Ours: dispatchers, consumers, `PUBLISH`.
    Oncecast,
    /// A native consumer group on a stream.
    Streams,
    /// A subscriber that records results and promises nothing.
    Relay,
}

impl Kind {
    /// All of them, in the order in which they are measured.
    pub const ALL: [Kind; 3] = [Kind::Oncecast, Kind::Streams, Kind::Relay];

    /// What the setting and the JSON call it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Oncecast => "oncecast",
            Kind::Streams => "streams",
            Kind::Relay => "relay",
        }
    }
}

/// Processes that do the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// The server.
    Redis,
    /// The load.
    Publisher,
    /// Ours that lead or follow.
    Dispatchers,
    /// Those that make results: consumers, workers, the relay.
    Consumers,
}

impl Role {
    pub(super) const ALL: [Role; 4] = [Role::Redis, Role::Publisher, Role::Dispatchers, Role::Consumers];

    /// What tables and the JSON call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Role::Redis => "redis",
            Role::Publisher => "publisher",
            Role::Dispatchers => "dispatchers",
            Role::Consumers => "consumers",
        }
    }
}
