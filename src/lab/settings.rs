//! Settings that several of the lab's subcommands have.

use crate::base::setting::ConfigError;
use crate::process::config::Default::{Found, Text};
use crate::process::config::{Setting, Values, quoted};
use crate::programs::consumer::exec::settings::{self as exec, ExecConfig};

/// The server program to start.
pub const REDIS_SERVER: Setting =
    Setting::new("redis-server", "PATH", Found("redis-server or valkey-server on PATH"), "The Redis server to start");

/// Whether Redis is a Redis Cluster.
pub const CLUSTER: Setting =
    Setting::switch("cluster", "Start a Redis Cluster of 3 primaries and 3 replicas in place of one server");

/// What the dispatchers deliver to.
pub const DELIVER: Setting = Setting::new(
    "deliver",
    "WHERE",
    Text("consumers"),
    "consumers, or stream: the dispatchers add each message to a Redis Stream, which workers read with XREADGROUP",
);

/// The consumers' handler.
pub const HANDLER: Setting = Setting::new(
    "handler",
    "NAME",
    Text("stamp"),
    "What the consumers record: stamp (the fields of each message's JSON object and two more), or exec (what the \
     program after -- answers)",
);

/// See [`DELIVER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deliver {
    /// Consumers.
    Consumers,
    /// A stream.
    Stream,
}

impl Deliver {
    /// Reads the setting.
    pub fn read(values: &Values<'_>) -> Result<Deliver, ConfigError> {
        const TAKES: &str = "consumers or stream";
        match values.required("deliver", TAKES)?.as_str() {
            "consumers" => Ok(Deliver::Consumers),
            "stream" => Ok(Deliver::Stream),
            other => Err(ConfigError::new("deliver", quoted(other), TAKES)),
        }
    }
}

/// The program that the consumers run; `None`: they have the handler `stamp`.
pub fn program(values: &Values<'_>, deliver: Deliver) -> Result<Option<ExecConfig>, ConfigError> {
    const TAKES: &str = "stamp, or with consumers exec";
    match values.required(HANDLER.name, TAKES)?.as_str() {
        "stamp" => exec::check_unused(values).map(|()| None),
        "exec" if deliver == Deliver::Consumers => exec::read(values).map(Some),
        other => Err(ConfigError::new(HANDLER.name, quoted(other), TAKES)),
    }
}
