//! Keyspace events of the group's own keys, which its dispatchers must not take in. Pure.
//!
//! With `notify-keyspace-events` Redis publishes each change of a key: on `__keyevent@<db>__:<event>` the key's name,
//! and on `__keyspace@<db>__:<key>` the event's. A group that listens to such a channel writes keys for each message
//! that it takes in, and each of these writes would be a message again, without end.
//!
//! What is left out follows from the channel, the payload and the group's name alone, so all dispatchers of a group
//! leave out the same, and the places in the channel that they count stay comparable. Limitation: two groups that
//! listen to each other's events feed each other all the same.

use std::sync::Arc;

use crate::ledger::keys::Keys;

/// Which messages of a channel tell of the group's own keys.
#[derive(Debug)]
pub(super) enum OwnEvents {
    /// Those whose payload is one of these keys.
    Keys(Arc<Keys>),
    /// All: the channel is that of one of the group's keys.
    All,
}

impl OwnEvents {
    /// `None` for a channel without such messages. The group's keys are in `database`.
    pub(super) fn on(channel: &str, keys: &Arc<Keys>, database: i64) -> Option<OwnEvents> {
        let (prefix, rest) = channel.split_once("__:")?;
        let (kind, number) = prefix.strip_prefix("__")?.split_once('@')?;
        if number.parse() != Ok(database) {
            return None;
        }
        match kind {
            "keyevent" => Some(OwnEvents::Keys(keys.clone())),
            "keyspace" if keys.is_own(rest.as_bytes()) => Some(OwnEvents::All),
            _ => None,
        }
    }

    /// Whether the message with this payload is one of them.
    pub(super) fn is_one(&self, payload: &[u8]) -> bool {
        match self {
            OwnEvents::Keys(keys) => keys.is_own(payload),
            OwnEvents::All => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_the_group_s_keys_are_told_from_all_others() {
        let keys = &Arc::new(Keys::in_database("orders", 3));
        let own = |channel: &str, payload: &str| {
            OwnEvents::on(channel, keys, 3).is_some_and(|own| own.is_one(payload.as_bytes()))
        };
        for key in
            ["pending", "processed", "dead", "consumers", "leader", "epoch", "cursor", "recall", "attempts", "gaps"]
        {
            assert!(own("__keyevent@3__:set", &format!("orders:{key}")), "{key}");
            assert!(own(&format!("__keyspace@3__:orders:{key}"), "set"), "{key}");
        }
        for key in ["orders:status:d0-5f3a9c", "orders:put-back:1f"] {
            assert!(own("__keyevent@3__:expired", key) && own(&format!("__keyspace@3__:{key}"), "del"), "{key}");
        }
        for key in ["orders", "orders:", "orders:1234", "orders:pending2", "my-orders:pending", "shop", ""] {
            assert!(!own("__keyevent@3__:set", key) && !own(&format!("__keyspace@3__:{key}"), "set"), "{key}");
        }
        for channel in ["__keyevent@0__:set", "__keyspace@0__:orders:pending", "orders:published", "__keyevent@3:set"] {
            assert!(!own(channel, "orders:pending"), "{channel}");
        }
    }
}
