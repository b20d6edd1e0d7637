//! The users of docs/OPERATIONS.md, with rights that a test withdraws and gives back.

use std::collections::HashMap;

use crate::mode::Mode;
use crate::support::run;

const DOCUMENT: &str = include_str!("../../docs/OPERATIONS.md");

/// The users that programs have.
pub const DISPATCHER: &str = "oncecast-dispatcher";
pub const CONSUMER: &str = "oncecast-consumer";

/// The line that makes a user: a dispatcher has fewer rights with `--deliver stream`.
fn line_of(mode: Mode, user: &str) -> Vec<&'static str> {
    let kind = if (mode, user) == (Mode::Stream, DISPATCHER) { "acl-stream" } else { "acl" };
    let begin = format!("```{kind}\n");
    let block = DOCUMENT.split(&begin).nth(1).and_then(|rest| rest.split("```").next()).expect("a block of this kind");
    let mut lines = block.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.find(|line| line.get(2) == Some(&user)).expect("each program has a user")
}

/// Makes the users of dispatchers and consumers, each with all its rights.
pub fn make(admin: &mut redis::Connection, mode: Mode) {
    [DISPATCHER, CONSUMER].into_iter().for_each(|user| give_back(admin, mode, user));
}

/// The URL of a server on this machine for a user.
pub fn url_of(user: &str, port: u16) -> String {
    let password = line_of(Mode::Consumers, user)
        .into_iter()
        .find_map(|word| word.strip_prefix('>'))
        .expect("each has a password");
    format!("redis://{user}:{password}@127.0.0.1:{port}")
}

/// Withdraws a command from a user and resets the log of refusals.
pub fn take(admin: &mut redis::Connection, user: &str, command: &str) {
    let () = run(admin, &["ACL", "LOG", "RESET"]);
    // Not every server has rights for subcommands, so the whole command is withdrawn.
    let command = command.split('|').next().unwrap_or(command);
    let () = run(admin, &["ACL", "SETUSER", user, &format!("-{command}")]);
}

/// Gives a user all its rights.
pub fn give_back(admin: &mut redis::Connection, mode: Mode, user: &str) {
    let () = run(admin, &line_of(mode, user));
}

/// The commands that a user was refused since one was withdrawn.
pub fn refused(admin: &mut redis::Connection, user: &str) -> Vec<String> {
    // Entries of the log are lists of names and values.
    let log: Vec<HashMap<String, redis::Value>> = run(admin, &["ACL", "LOG"]);
    let word = |entry: &HashMap<String, redis::Value>, name: &str| match entry.get(name) {
        Some(redis::Value::BulkString(text)) => String::from_utf8_lossy(text).into_owned(),
        _ => String::new(),
    };
    let of_user = log.iter().filter(|entry| word(entry, "username") == user && word(entry, "reason") == "command");
    of_user.map(|entry| word(entry, "object")).collect()
}
