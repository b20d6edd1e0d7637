//! What to do about an error of Redis. Pure: hints are values, and this file has the text of each.

use std::fmt;

use super::tls::TlsHint;

/// The name of the setting with the URL of a Redis server, such as `--redis-url / ONCECAST_REDIS_URL`.
pub type UrlSetting = &'static str;

/// How a server was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChosenBy {
    /// By this setting.
    Setting(UrlSetting),
    /// By default; this setting would choose another.
    Default(UrlSetting),
}

impl ChosenBy {
    /// The setting's name.
    pub fn setting(self) -> UrlSetting {
        match self {
            ChosenBy::Setting(setting) | ChosenBy::Default(setting) => setting,
        }
    }
}

impl fmt::Display for ChosenBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChosenBy::Setting(setting) => write!(f, "the address is {setting}"),
            ChosenBy::Default(setting) => write!(f, "it is the default; {setting} names another"),
        }
    }
}

/// What to do about an error of Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Nothing listens at the address.
    IsItRunning(ChosenBy),
    /// The connection failed for another reason: check the address.
    Address(ChosenBy),
    /// No reply came in time.
    Slow,
    /// The server closes the connection before it has answered anything.
    NoAnswer(UrlSetting),
    /// TLS failed.
    Tls(TlsHint),
    /// A password was sent to a server that has none.
    NoPassword(UrlSetting),
    /// The server requires a password.
    Password(UrlSetting),
    /// User or password are wrong.
    Login(UrlSetting),
    /// The same of a node of a Redis Cluster.
    NodeLogin(UrlSetting),
    /// The user lacks a right; this one or one of these, if known.
    Right(UrlSetting, Option<String>),
    /// The user of a program that `oncecast doctor` does not examine lacks a right; this one or one of these, if known.
    RightOfAnother(UrlSetting, Option<String>),
    /// The server lacks a command; this one, if known.
    Command(Option<String>),
    /// The memory is full.
    Memory,
    /// The server is a replica.
    Replica(UrlSetting),
    /// The server can't write to its disk.
    Disk,
    /// The server does not have this database.
    Database(UrlSetting, i64),
    /// The server does not speak RESP3.
    Resp3,
    /// A script runs for too long.
    Busy,
    /// The server reads its data.
    Loading,
    /// The server has as many connections as it allows.
    Clients,
    /// The server accepts connections from its own machine only.
    Protected,
    /// A stream has no higher id left: this key, if it is known.
    StreamExhausted(Option<String>),
    /// Another node of the cluster has the group's keys.
    Moved {
        /// The setting that must name it.
        setting: UrlSetting,
        /// Its address, or `:` and a port of the same host.
        owner: String,
    },
    /// The cluster is moving the group's keys.
    Moving,
    /// The cluster is incomplete.
    ClusterDown,
    /// The group's keys are in several slots of the cluster.
    Slots,
    /// A key holds a value of another type.
    KeyType {
        /// The key.
        key: String,
        /// What it holds.
        found: String,
        /// What it must hold.
        wanted: &'static str,
    },
}

/// Ends a hint about which `oncecast doctor` says more.
const DOCTOR: &str = "oncecast doctor --redis-url … says what is missing, and what to type";

/// Where the rights of all users are.
const USERS: &str = "; docs/OPERATIONS.md has the line of ACL SETUSER for this program's user";

/// Puts a group's keys in one slot.
const BRACES: &str =
    "put braces around the group's name, in every program, so that its keys share a slot: '{messages}'";

/// A hint as it is shown by the doctor itself.
pub struct Advice<'a>(&'a Hint);

impl fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.show(f)
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.show(f)?;
        if self.is_for_the_doctor() { write!(f, "; {DOCTOR}") } else { Ok(()) }
    }
}

impl Hint {
    /// Whether `oncecast doctor` says more about it.
    pub fn is_for_the_doctor(&self) -> bool {
        matches!(self, Hint::Right(..) | Hint::Command(_) | Hint::Memory | Hint::Resp3 | Hint::Slots)
    }

    /// The same hint with these rights in place of those that it names, if it is about rights.
    pub fn with_rights(self, rights: String) -> Hint {
        match self {
            Hint::Right(setting, _) => Hint::Right(setting, Some(rights)),
            Hint::RightOfAnother(setting, _) => Hint::RightOfAnother(setting, Some(rights)),
            other => other,
        }
    }

    /// Whether it says that a right is missing, but not which.
    pub fn lacks_rights(&self) -> bool {
        matches!(self, Hint::Right(_, None) | Hint::RightOfAnother(_, None))
    }

    /// What to do, without the doctor's name.
    pub fn advice(&self) -> Advice<'_> {
        Advice(self)
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hint::IsItRunning(chosen) => write!(f, "is Redis running there? {chosen}"),
            Hint::Address(chosen) => write!(f, "{chosen}"),
            Hint::Slow => f.write_str("no answer in time: is the server hung, or far away?"),
            Hint::NoAnswer(setting) => write!(
                f,
                "it does not answer plain Redis commands: is this a port for TLS? then {setting} must begin with \
                 rediss://"
            ),
            Hint::Tls(hint) => write!(f, "{hint}"),
            Hint::NoPassword(setting) => write!(f, "the server has no password: leave it out of {setting}"),
            Hint::Password(setting) => {
                write!(f, "it requires a password: add it to {setting}, with the user if that is not the default one")
            }
            Hint::Login(setting) => {
                write!(f, "check user and password in {setting}; special characters in them must be percent-encoded")
            }
            Hint::NodeLogin(setting) => write!(
                f,
                "check user and password in {setting}; users must be set on every node of the Redis Cluster, replicas \
                 included"
            ),
            Hint::Right(setting, rights) => lacks_right(f, setting, rights.as_deref(), ""),
            Hint::RightOfAnother(setting, rights) => lacks_right(f, setting, rights.as_deref(), USERS),
            Hint::Command(command) => lacks(f, command.as_deref()),
            Hint::Memory => f.write_str("Redis is at its maxmemory; raise it or make room"),
            Hint::Replica(setting) => write!(f, "{setting} names a replica; it must name the primary"),
            Hint::Disk => f.write_str("Redis can't write to its disk; its log says why"),
            Hint::Database(setting, database) => write!(
                f,
                "{setting} names database {database}, which the server does not have; a Redis Cluster has only \
                 database 0"
            ),
            Hint::Resp3 => f.write_str(
                "a subscription needs RESP3, the protocol of Redis 6 and newer: an older server or a proxy does not \
                 have it",
            ),
            Hint::Busy => {
                f.write_str("a script of another client runs for too long: SCRIPT KILL ends it, unless it has written")
            }
            Hint::Loading => f.write_str("it reads its data after a start: try again in a while"),
            Hint::Clients => f.write_str("raise maxclients: CONFIG SET maxclients NUMBER"),
            Hint::Protected => f.write_str("give it a password, or users, and put it into the URL"),
            Hint::StreamExhausted(key) => {
                if let Some(key) = key {
                    write!(f, "the stream {key} has run out of ids: ")?;
                }
                f.write_str("someone added an entry with the highest id there is: rename or delete that stream")
            }
            Hint::Moved { setting, owner } => {
                write!(
                    f,
                    "this node of the Redis Cluster does not have the group's keys: {setting} must name their \
                     owner, "
                )?;
                match owner.strip_prefix(':') {
                    Some(port) => write!(f, "port {port} of the same host")?,
                    None => f.write_str(owner)?,
                }
                write!(f, "; if it names another each time, {BRACES}")
            }
            Hint::Moving => f.write_str("the cluster is moving these keys to another node"),
            Hint::ClusterDown => f.write_str("the Redis Cluster is incomplete; CLUSTER INFO shows why"),
            Hint::Slots => f.write_str(BRACES),
            Hint::KeyType { key, found, wanted } => {
                write!(f, "key {key} is a {found}, it must be a {wanted}: rename or delete it, or choose another group")
            }
        }
    }
}

fn lacks_right(f: &mut fmt::Formatter<'_>, setting: &str, rights: Option<&str>, advice: &str) -> fmt::Result {
    let rights = rights.map(|rights| format!(": {rights}")).unwrap_or_default();
    write!(f, "the user in {setting} lacks a right{rights}{advice}")
}

/// What to do about a command that the server lacks.
fn lacks(f: &mut fmt::Formatter<'_>, command: Option<&str>) -> fmt::Result {
    let name = command.map(|command| format!(", {command}")).unwrap_or_default();
    let why = match command {
        Some("SSUBSCRIBE" | "SPUBLISH") => {
            "sharded channels need Redis 7.0 or newer, or Valkey; use --channel with an older one"
        }
        _ => "it was renamed, or is older than 6.2",
    };
    write!(f, "the server lacks a command{name}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_doctor_explains_names_it() {
        for (hint, names) in [
            (Hint::Right("--redis-url", None), true),
            (Hint::Right("--redis-url", Some("+zadd".to_owned())), true),
            (Hint::Command(Some("ZADD".to_owned())), true),
            (Hint::RightOfAnother("--redis-url", Some("+zadd".to_owned())), false),
            (Hint::Memory, true),
            (Hint::Slots, true),
            (Hint::Slow, false),
            (Hint::Login("--redis-url"), false),
            (Hint::Busy, false),
        ] {
            assert_eq!(hint.to_string().contains("oncecast doctor --redis-url"), names, "{hint}");
        }
    }
}
