//! Settings that several of the lab's subcommands have.

use crate::process::config::Default::Found;
use crate::process::config::Setting;

/// The server program to start.
pub const REDIS_SERVER: Setting =
    Setting::new("redis-server", "PATH", Found("redis-server or valkey-server on PATH"), "The Redis server to start");
