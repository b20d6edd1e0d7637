//! The names of a trial's keys and channels, and their removal.

use std::time::{Duration, Instant};

use redis::Value;

use crate::base::error::Result;
use crate::base::id::DispatcherId;
use crate::ledger::command::Command;
use crate::ledger::connection::Connection;
use crate::ledger::keys::Keys;

/// How long removed keys may take to disappear.
const EXPIRY_TIME: Duration = Duration::from_millis(500);

/// The names that one trial uses. No two trials share one.
pub(super) struct Trial {
    /// Like a group's keys, and below a prefix that only this group uses.
    pub(super) keys: Keys,
    /// A channel on which nobody listens.
    pub(super) channel: String,
    /// A key that no step uses: for commands that are tried in a form without effect.
    pub(super) unused: String,
    /// A string, for commands that are refused for its type. It expires by itself.
    pub(super) string: String,
    /// The dispatcher of the trial.
    pub(super) dispatcher: DispatcherId,
    /// Remembers a message that was put back.
    pub(super) nonce: u64,
    /// After this time nothing is left of it, however it ends.
    pub(super) time: Duration,
}

impl Trial {
    /// A trial beside the group with these keys.
    pub(super) fn new(group: &Keys, time: Duration) -> Trial {
        let nonce = fastrand::u64(..);
        let base = format!("{}doctor-{nonce:016x}", group.put_back_prefix);
        let key = |suffix: &str| format!("{base}:{suffix}");
        // The group's dispatchers take no channel that begins with a second `alive:` for one of theirs.
        let channel = format!("{}alive:doctor-{nonce:016x}", group.alive_prefix);
        let keys = Keys {
            control: format!("{channel}:control"),
            alive_prefix: format!("{channel}:alive:"),
            shadow_prefix: format!("{channel}:shadow:"),
            stream: Some(key("messages")),
            ..Keys::new(&base)
        };
        Trial {
            channel,
            unused: key("unused"),
            string: key("string"),
            dispatcher: DispatcherId::generate("doctor"),
            nonce,
            time,
            keys,
        }
    }

    /// Every key that a program's steps may have written.
    pub(super) fn written_by_steps(&self) -> Vec<String> {
        let others = [
            self.keys.report_of(self.dispatcher.as_str()),
            format!("{}{:016x}", self.keys.put_back_prefix, self.nonce),
        ];
        self.keys.types().map(|(key, _)| key.to_owned()).chain(others).collect()
    }

    /// Every key that a trial may have written.
    fn written(&self) -> Vec<String> {
        [self.written_by_steps(), vec![self.string.clone(), self.unused.clone()]].concat()
    }

    /// Removes all of its keys, by whichever command the user may use. Returns those that are left.
    pub(super) fn remove(&self, connection: &mut Connection) -> Result<Vec<String>> {
        const DOING: &str = "removing the keys of a trial";
        let mut keys = self.written();
        // A consumer's user may not delete. It may replace a key of any type by one that expires.
        let ways: [&[&str]; 3] = [&["DEL"], &["PEXPIRE", "1"], &["SET", "", "XX", "PX", "1"]];
        for way in ways {
            let of = |key: &String| {
                let words: Vec<&str> = [way[0], key].into_iter().chain(way[1..].iter().copied()).collect();
                Command::of(&words)
            };
            let replies = connection.pipeline_each(DOING, keys.iter().map(of).collect())?;
            keys = keys.into_iter().zip(replies).filter(|(_, reply)| reply.is_err()).map(|(key, _)| key).collect();
            if keys.is_empty() {
                break;
            }
        }
        left_of(&self.written(), connection)
    }
}

/// Which of these keys are there, once those that expire are gone.
pub(super) fn left_of(keys: &[String], connection: &mut Connection) -> Result<Vec<String>> {
    const DOING: &str = "looking for the keys of a trial";
    let deadline = Instant::now() + EXPIRY_TIME;
    loop {
        let exist = keys.iter().map(|key| Command::of(&["EXISTS", key])).collect();
        let exist = connection.pipeline_each(DOING, exist)?;
        let left = keys.iter().zip(exist).filter(|(_, reply)| matches!(reply, Ok(Value::Int(1))));
        let left: Vec<String> = left.map(|(key, _)| key.clone()).collect();
        if left.is_empty() || Instant::now() > deadline {
            return Ok(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_uses_nothing_of_a_group_and_is_taken_for_no_dispatcher() {
        let group = Keys::in_database("orders", 3);
        let trial = Trial::new(&group, Duration::from_secs(10));
        assert!(trial.keys.types().all(|(key, _)| group.is_own(key.as_bytes())));
        assert!(trial.written().iter().all(|key| key.starts_with("orders:put-back:doctor-")));
        assert!(group.types().all(|(key, _)| !trial.written().iter().any(|own| own == key)));
        let alive = format!("{}{}", trial.keys.alive_prefix, trial.dispatcher);
        let id = alive.strip_prefix("orders@3:alive:").expect("a right to the group's covers it");
        assert!(!DispatcherId::is_one(id), "{id}");
        assert!(group.is_own_channel(alive.as_bytes()) && group.is_own_channel(trial.keys.control.as_bytes()));
    }
}
