//! Recognises keyspace events about the group's own keys, which dispatchers must not store. Pure.
//!
//! With `notify-keyspace-events` Redis publishes each change of a key: on `__keyevent@<db>__:<event>` the key's name,
//! and on `__keyspace@<db>__:<key>` the event's. A group with such a channel writes keys for each message that it
//! stores, and each of these writes would cause a message again, without end.
//!
//! What is dropped depends only on the channel, the payload and the group's name. So all dispatchers of a group drop
//! the same messages and count the same. Limitation: two groups that subscribe to events about each other's keys still
//! trigger each other without end.

use std::sync::Arc;

use crate::ledger::keys::Keys;

/// Which messages of a channel are about the group's own keys.
#[derive(Debug)]
pub(super) enum OwnEvents {
    /// The messages whose payload is one of these keys.
    Keys(Arc<Keys>),
    /// All messages: the channel is about one of the group's keys.
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
    fn events_of_the_groups_keys_are_recognised() {
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
