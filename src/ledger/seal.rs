//! Makes everything that a connection writes expire, for the doctor's trials. Pure.
//!
//! What a script or a transaction writes gets its expiry in the same script or transaction. So however a trial ends, by
//! SIGKILL or with the machine, Redis has nothing of it that stays. Plain commands are left as they are: a trial only
//! uses those that have an expiry of their own.
//!
//! Limitation: only keys that a script is given in `KEYS`, or that a transaction is about, get an expiry. No script of
//! ours writes others.

use std::time::Duration;

use super::command::command;

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seal {
    /// What was written remains so long, for the next step. Needs the right to `PEXPIRE`.
    Expire(Duration),
    /// What was written is replaced by a string that expires at once. For a consumer's user, who has no other right by
    /// which a key goes away. The script comes after this one.
    Replace(&'static str),
}

/// A replaced key is gone after this time, in milliseconds: the shortest there is.
const AT_ONCE: &str = "1";

impl Seal {
    /// A script that does the same as `text` and then seals its keys, also if it is refused midway. Line numbers stay.
    pub(super) fn around(self, text: &str) -> String {
        let (before, seal) = match self {
            Seal::Expire(after) => ("", format!("'PEXPIRE', key, {}", after.as_millis())),
            Seal::Replace(before) => (before, format!("'SET', key, '', 'XX', 'PX', {AT_ONCE}")),
        };
        format!(
            "{before} local function step() {text}\nend\nlocal done, answer = pcall(step)\n\
             for _, key in ipairs(KEYS) do\n  redis.call({seal})\nend\n\
             if not done and type(answer) ~= 'table' then\n  error(answer, 0)\nend\nreturn answer\n"
        )
    }

    /// Appends to a transaction the commands that seal these keys. Returns their number.
    pub(super) fn close<'a>(self, keys: impl Iterator<Item = &'a str>, out: &mut Vec<u8>) -> usize {
        keys.map(|key| match self {
            Seal::Expire(after) => command(out, &["PEXPIRE", key, &after.as_millis().to_string()]),
            Seal::Replace(_) => command(out, &["SET", key, "", "XX", "PX", AT_ONCE]),
        })
        .count()
    }
}
