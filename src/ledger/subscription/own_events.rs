//! Recognises keyspace events about the group's own keys, which dispatchers must not store. Pure.
//!
//! With `notify-keyspace-events` Redis publishes each change of a key: on `__keyevent@<db>__:<event>` the key's name,
//! and on `__keyspace@<db>__:<key>` the event's. A group with such a channel writes keys for each message that it
//! stores, and each of these writes would cause a message again, without end. The keys of all lanes of a group are its
//! own: a node has those of lanes that drain, too, and slots move.
//!
//! What is dropped depends on the channel, the payload, the group's keys (with `--deliver stream` the stream's too) and
//! their database. Where such events may be heard, the stream's key is part of the interests' identity. So dispatchers
//! with the same interests drop the same messages and count the same. Limitation: two groups that subscribe to events
//! about each other's keys still trigger each other without end.

use crate::ledger::keys::Keys;

/// Whether a message is an event of one of the group's own keys, which are in `database`.
pub(super) fn is_own_event(channel: &[u8], payload: &[u8], keys: &Keys, database: i64) -> bool {
    let Some(rest) = channel.strip_prefix(b"__key") else { return false };
    let parts = [(&b"event@"[..], true), (b"space@", false)];
    let found = parts.iter().find_map(|(kind, names_event)| Some((rest.strip_prefix(*kind)?, *names_event)));
    let Some((rest, names_event)) = found else { return false };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = rest.split_at(digits);
    let in_database = std::str::from_utf8(number).is_ok_and(|number| number.parse() == Ok(database));
    let Some(name) = rest.strip_prefix(b"__:").filter(|_| in_database) else { return false };
    keys.is_own(if names_event { payload } else { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_the_groups_keys_are_recognised() {
        let keys = &Keys::in_database("orders", 3);
        let own = |channel: &str, payload: &str| is_own_event(channel.as_bytes(), payload.as_bytes(), keys, 3);
        for (key, _) in Keys::new("orders").types() {
            let key = key.strip_prefix("orders:").expect("it begins with the group");
            assert!(own("__keyevent@3__:set", &format!("orders:{key}")), "{key}");
            assert!(own(&format!("__keyspace@3__:orders:{key}"), "set"), "{key}");
        }
        for key in ["orders:status:d0-5f3a9c", "orders:put-back:1f"] {
            assert!(own("__keyevent@3__:expired", key) && own(&format!("__keyspace@3__:{key}"), "del"), "{key}");
        }
        for key in ["orders", "orders:", "orders:1234", "orders:pending2", "my-orders:pending", "shop", ""] {
            assert!(!own("__keyevent@3__:set", key) && !own(&format!("__keyspace@3__:{key}"), "set"), "{key}");
        }
        let delivering = &keys.clone().with_stream("shared:jobs");
        for (keys, own) in [(keys, false), (delivering, true)] {
            assert_eq!(is_own_event(b"__keyevent@3__:xadd", b"shared:jobs", keys, 3), own);
            assert_eq!(is_own_event(b"__keyspace@3__:shared:jobs", b"xadd", keys, 3), own);
            assert!(!is_own_event(b"__keyevent@3__:xadd", b"shared:jobs2", keys, 3));
        }
        for channel in [
            "__keyevent@0__:set",
            "__keyspace@0__:orders:pending",
            "orders:published",
            "__keyevent@3:set",
            "__keyevent@+3__:set",
            "__keyevent@__:set",
            "__keyevent@33333333333333333333__:set",
        ] {
            assert!(!own(channel, "orders:pending"), "{channel}");
        }
    }

    #[test]
    fn events_of_the_keys_of_all_lanes_are_recognised_in_each() {
        let group = Keys::new("shop:{orders}:eu").with_stream("{orders}:out");
        let lanes = [0, 1, 5, 65_535].map(|lane| group.lane(lane).expect("it has a tag"));
        for listening in &lanes {
            let own = |channel: &str, payload: &str| is_own_event(channel.as_bytes(), payload.as_bytes(), listening, 0);
            let own_key = |key: &str| {
                let (event, space) = (own("__keyevent@0__:set", key), own(&format!("__keyspace@0__:{key}"), "set"));
                assert_eq!(event, space, "{key}");
                event
            };
            for lane in &lanes {
                for (key, _) in lane.types() {
                    assert!(own_key(key), "{key} in {}", listening.group);
                }
                for key in [lane.lanes.clone(), lane.report_of("d1-0a"), format!("{}1f", lane.put_back_prefix)] {
                    assert!(own_key(&key), "{key} in {}", listening.group);
                }
                assert!(!own_key(&format!("{}2", lane.pending)) && !own_key(&format!("{}:17", lane.group)));
            }
            for key in
                ["{orders}", "{orders/x}", "{orders/01}", "{orders/70000}", "{orders/1/1}", "{orders/}", "{other/1}"]
            {
                for rest in [":pending", ":eu:pending", ":status:d1"].into_iter().filter(|_| key != "{orders}") {
                    assert!(!own_key(&format!("shop:{key}{rest}")), "{key}{rest}");
                }
                assert_eq!(own_key(&format!("{key}:out")), key == "{orders}", "{key}:out");
                assert!(!own_key(&format!("{key}:out2")), "{key}:out2");
            }
        }
        let odd = Keys::new("a}{b}");
        for key in [&odd.pending, "a}{b/3}:pending", "a}{b/4}:status:d1"] {
            let lane = odd.lane(3).expect("it has a tag");
            assert!(is_own_event(b"__keyevent@0__:set", key.as_bytes(), &lane, 0), "{key}");
        }
        let elsewhere = Keys::new("{orders}").with_stream("{jobs}:out");
        let elsewhere = elsewhere.lane(1).expect("it has a tag");
        for (stream, own) in [("{jobs}:out", true), ("{jobs/1}:out", false), ("{orders}:out", false)] {
            assert_eq!(is_own_event(b"__keyevent@0__:xadd", stream.as_bytes(), &elsewhere, 0), own, "{stream}");
        }
    }
}
