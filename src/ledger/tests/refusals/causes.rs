//! Why Redis may refuse a command. Causes are not chosen by hand, but generated from the commands of the step and the
//! keys of the group.

use super::steps::{Needs, Step};
use super::world::{KeyContent, World};
use crate::base::refusal::Refusal;

/// The key that keeps a replaced value meanwhile.
const ASIDE: &str = "aside";
const HIGHEST: &str = "18446744073709551615-18446744073709551615";

/// A cause that begins and ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// The user has no right to a command.
    Command(String),
    /// The user has no right to a key.
    Key(String),
    /// The user has no right to use a command on one of the keys.
    CommandOn(String, String),
    /// The user has no right to any channel.
    Channels,
    /// A key holds another type.
    Type(String),
    /// A stream has no higher id.
    Exhausted(String),
    /// The memory is full.
    Full,
    /// The server is a replica.
    Replica,
    /// The server can't write to its disk.
    Disk,
    /// Too few replicas are connected.
    Replicas,
}

/// Each command of a step, which the user may not use. Rights to what the server does not have can't be taken.
pub(super) fn commands(step: &Step, world: &World) -> Vec<Cause> {
    let known = step.all_commands().into_iter().filter(|name| world.commands.contains(*name));
    known.map(|name| Cause::Command(name.to_owned())).collect()
}

/// Each key, which the user may not use, and the channels.
pub(super) fn keys(_: &Step, world: &World) -> Vec<Cause> {
    world.all_keys().into_iter().map(Cause::Key).chain([Cause::Channels]).collect()
}

/// Each writing command of a step, which the user may use on all keys but one. The server must have such rights.
pub(super) fn commands_by_key(step: &Step, world: &World) -> Vec<Cause> {
    let keys = world.all_keys();
    let of = |name: &'static str| keys.iter().map(move |key| Cause::CommandOn(name.to_owned(), key.clone()));
    step.all_commands().into_iter().filter(|name| world.writing.contains(*name)).flat_map(of).collect()
}

/// Each key, with a value of another type. Except the marks of messages that were put back, which may have any type.
pub(super) fn types(step: &Step, world: &World) -> Vec<Cause> {
    let types: Vec<_> = world.keys.types().collect();
    let keys = || types.iter().map(|(key, _)| (*key).to_owned());
    let streams = types.iter().filter(|(_, kind)| *kind == "stream").map(|(key, _)| (*key).to_owned());
    let streams = streams.filter(|key| step.takes_from != Some(key.as_str()));
    keys().map(Cause::Type).chain(streams.map(Cause::Exhausted)).collect()
}

/// Conditions of the whole server.
pub(super) fn conditions(_: &Step, _: &World) -> Vec<Cause> {
    vec![Cause::Full, Cause::Replica, Cause::Disk, Cause::Replicas]
}

/// A cause that has begun.
pub(super) struct Begun<'a> {
    cause: &'a Cause,
    /// The value that replaced a key's.
    foreign: Option<KeyContent>,
}

impl Cause {
    pub(super) fn begin(&self, world: &mut World) -> Begun<'_> {
        let mut foreign = None;
        match self {
            Cause::Command(name) => {
                // The text of a script is sent only if the server does not have it.
                if name == "EVAL" {
                    world.run(&["SCRIPT", "FLUSH"]);
                }
                world.run(&["ACL", "SETUSER", "u", &format!("-{}", name.to_lowercase())]);
            }
            Cause::Key(without) => {
                let keys = all_but(world, without);
                let words = ["ACL", "SETUSER", "u", "resetkeys"].into_iter().chain(keys.iter().map(String::as_str));
                world.run(&words.collect::<Vec<_>>());
            }
            Cause::CommandOn(name, key) => {
                let name = name.to_lowercase();
                let selector = format!("(+{name} {})", all_but(world, key).join(" "));
                world.run(&["ACL", "SETUSER", "u", &format!("-{name}"), &selector]);
            }
            Cause::Channels => drop(world.run(&["ACL", "SETUSER", "u", "resetchannels"])),
            Cause::Type(key) => foreign = Some(replace(world, key, other_type(world.type_of(key)))),
            Cause::Exhausted(key) => foreign = Some(replace(world, key, &["XADD", HIGHEST, "f", "v"])),
            Cause::Full => drop(world.run(&["CONFIG", "SET", "maxmemory", "1"])),
            Cause::Replica => drop(world.run(&["REPLICAOF", "127.0.0.1", "1"])),
            // A failed save counts only if saves are configured; see `World::fail_to_save`.
            Cause::Disk => drop(world.run(&["CONFIG", "SET", "save", "3600 1000000"])),
            Cause::Replicas => drop(world.run(&["CONFIG", "SET", "min-replicas-to-write", "1"])),
        }
        Begun { cause: self, foreign }
    }

    /// Whether the step must be refused, if that is known.
    pub(super) fn refuses(&self, step: &Step) -> Option<bool> {
        match self {
            Cause::Command(name) if step.insists_on.contains(&name.as_str()) => Some(true),
            Cause::Full => Some(step.needs == Needs::Room),
            Cause::Replica | Cause::Disk => Some(step.needs != Needs::Nothing),
            // The first versions of 6.2 let a script write nevertheless.
            Cause::Replicas if step.needs != Needs::Nothing => None,
            Cause::Replicas => Some(false),
            _ => None,
        }
    }

    /// How the error must be classified, and what its text must contain.
    pub(super) fn recognised(&self, world: &World) -> (Refusal, String) {
        let (refusal, text) = match self {
            Cause::Command(_) | Cause::Key(_) | Cause::CommandOn(..) | Cause::Channels => {
                (Refusal::Right, "lacks a right")
            }
            Cause::Type(key) => {
                let (wanted, kind) =
                    (world.type_of(key), if world.type_of(key) == "string" { "list" } else { "string" });
                return (Refusal::WrongType, format!("{key} is a {kind}, it must be a {wanted}"));
            }
            Cause::Exhausted(_) => (Refusal::StreamExhausted, "rename or delete that stream"),
            Cause::Full => (Refusal::Memory, "maxmemory; raise it or make room"),
            Cause::Replica => (Refusal::Replica, "must name the primary"),
            Cause::Disk => (Refusal::Disk, "its log says why"),
            Cause::Replicas => (Refusal::Replicas, "NOREPLICAS"),
        };
        (refusal, text.to_owned())
    }
}

impl Begun<'_> {
    pub(super) fn end(self, world: &mut World) {
        match self.cause {
            Cause::Command(_) => drop(world.run(&["ACL", "SETUSER", "u", "+@all"])),
            Cause::Key(_) => drop(world.run(&["ACL", "SETUSER", "u", "allkeys"])),
            Cause::CommandOn(..) => drop(world.run(&["ACL", "SETUSER", "u", "clearselectors", "+@all"])),
            Cause::Channels => drop(world.run(&["ACL", "SETUSER", "u", "allchannels"])),
            Cause::Type(key) | Cause::Exhausted(key) => {
                // A step may overwrite or delete the value that it finds. Then the old value is not restored.
                if world.held(key) == self.foreign {
                    world.run(&["DEL", key]);
                    if world.held(ASIDE).is_some() {
                        world.run(&["RENAME", ASIDE, key]);
                    }
                }
                world.run(&["DEL", ASIDE]);
            }
            Cause::Full => drop(world.run(&["CONFIG", "SET", "maxmemory", "0"])),
            Cause::Replica => drop(world.run(&["REPLICAOF", "NO", "ONE"])),
            Cause::Disk => drop(world.run(&["CONFIG", "SET", "save", ""])),
            Cause::Replicas => drop(world.run(&["CONFIG", "SET", "min-replicas-to-write", "0"])),
        }
    }
}

/// A command, without its key, that creates a value of another type.
fn other_type(kind: &str) -> &'static [&'static str] {
    if kind == "string" { &["RPUSH", "foreign"] } else { &["SET", "foreign"] }
}

/// Patterns of all keys but one.
fn all_but(world: &World, key: &str) -> Vec<String> {
    world.all_keys().into_iter().filter(|other| other != key).map(|other| format!("~{other}")).collect()
}

/// Moves a key's value aside and puts another in its place.
fn replace(world: &mut World, key: &str, by: &[&str]) -> KeyContent {
    if world.held(key).is_some() {
        world.run(&["RENAME", key, ASIDE]);
    }
    world.run(&[&by[..1], &[key], &by[1..]].concat());
    world.held(key).expect("it was just made")
}
