//! What is compared, and the processes that take part.

/// A system under test. In settings and in the JSON it is called the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// Oncecast: dispatchers and consumers; messages are sent with `PUBLISH`.
    Oncecast,
    /// The same with the messages on many channels, to which dispatchers listen by one pattern.
    Patterns,
    /// The same in order by channel (`--order-key channel`).
    Ordered,
    /// The same as the first with a replica of Redis.
    Replicated,
    /// The same with `--wait-replicas 1`.
    Confirmed,
    /// Dispatchers that add each message to a stream (`--deliver stream`), without workers: the entries are the
    /// results.
    Bridge,
    /// A native consumer group of Redis Streams; messages are sent with `XADD`.
    Streams,
    /// A subscriber that records results and guarantees nothing.
    Relay,
}

impl Contender {
    /// All of them, in the order in which they are measured.
    pub const ALL: [Contender; 8] = [
        Contender::Oncecast,
        Contender::Patterns,
        Contender::Ordered,
        Contender::Replicated,
        Contender::Confirmed,
        Contender::Bridge,
        Contender::Streams,
        Contender::Relay,
    ];

    /// Whether its messages are on many channels.
    pub fn has_channels(self) -> bool {
        matches!(self, Contender::Patterns | Contender::Ordered)
    }

    /// Whether its Redis has a replica.
    pub fn has_replica(self) -> bool {
        matches!(self, Contender::Replicated | Contender::Confirmed)
    }

    /// Its name in the setting and the JSON.
    pub fn name(self) -> &'static str {
        match self {
            Contender::Oncecast => "oncecast",
            Contender::Patterns => "patterns",
            Contender::Ordered => "ordered",
            Contender::Replicated => "replicated",
            Contender::Confirmed => "confirmed",
            Contender::Bridge => "bridge",
            Contender::Streams => "streams",
            Contender::Relay => "relay",
        }
    }
}

/// The role of a process in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// The server.
    Redis,
    /// The load.
    Publisher,
    /// Oncecast's leader and its standbys.
    Dispatchers,
    /// The processes that record results: consumers, workers, the relay.
    Consumers,
}

impl Role {
    pub(super) const ALL: [Role; 4] = [Role::Redis, Role::Publisher, Role::Dispatchers, Role::Consumers];

    /// Its name in tables and the JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Role::Redis => "redis",
            Role::Publisher => "publisher",
            Role::Dispatchers => "dispatchers",
            Role::Consumers => "consumers",
        }
    }
}
