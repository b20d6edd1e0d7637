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
    /// The same as it is run in production: entries are deleted when they are acknowledged, and those of dead workers
    /// are claimed.
    Tidy,
    /// Workers of BullMQ, in Node.
    Bullmq,
    /// A subscriber that records results and guarantees nothing.
    Relay,
}

impl Contender {
    /// All of them, in the order in which they are measured.
    pub const ALL: [Contender; 10] = [
        Contender::Oncecast,
        Contender::Patterns,
        Contender::Ordered,
        Contender::Replicated,
        Contender::Confirmed,
        Contender::Bridge,
        Contender::Streams,
        Contender::Tidy,
        Contender::Bullmq,
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

    /// Whether it is a group of Redis Streams.
    pub fn is_stream(self) -> bool {
        matches!(self, Contender::Streams | Contender::Tidy)
    }

    /// The most messages of a round, so that one takes seconds, not minutes.
    pub fn most_messages(self) -> u64 {
        if self == Contender::Bullmq { 100_000 } else { u64::MAX }
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
            Contender::Tidy => "tidy",
            Contender::Bullmq => "bullmq",
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

    /// The role of a process of a cluster with this name.
    pub(super) fn of(process: &str) -> Role {
        match process.as_bytes().first() {
            Some(b'd') => Role::Dispatchers,
            Some(b'c') => Role::Consumers,
            _ => Role::Redis,
        }
    }

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
