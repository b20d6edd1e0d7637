//! The login that begins a connection to Redis or to a Sentinel. Pure.

use super::command::command;

/// Appends the command that logs in, if there is a user or a password. Returns the number of replies.
pub(super) fn log_in(out: &mut Vec<u8>, user: Option<&str>, password: Option<&str>) -> usize {
    match (user, password) {
        // A user without a password. Redis accepts any password for it, so also an empty one.
        (Some(user), password) => command(out, &["AUTH", user, password.unwrap_or_default()]),
        // Not the same as naming the user `default`: if that user needs no password, Redis reports this form as a
        // mistake.
        (None, Some(password)) => command(out, &["AUTH", password]),
        (None, None) => return 0,
    }
    1
}
