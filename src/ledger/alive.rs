//! Finds the dispatchers and shadows that are subscribed on a server: by their own channels, whose names are a prefix
//! and an id. Pure.

use redis::Value;

use super::command::Command;
use super::value::text;
use crate::base::id::DispatcherId;

/// Asks which channels that begin with this prefix have subscribers.
pub(super) fn asking(prefix: &str) -> Command {
    // Special characters in the group's name must be escaped in a pattern.
    let literal = |c: char| if r"\*?[]".contains(c) { format!("\\{c}") } else { c.to_string() };
    let pattern: String = prefix.chars().map(literal).collect::<String>() + "*";
    Command::of(&["PUBSUB", "CHANNELS", &pattern])
}

/// The ids that follow the prefix in the answer; `None` if it is none.
pub(super) fn ids(prefix: &str, reply: &Value) -> Option<Vec<String>> {
    let Value::Array(channels) = reply else { return None };
    let ids = channels.iter().filter_map(|channel| text(channel)?.strip_prefix(prefix));
    // The pattern also finds channels of a group that is called like the prefix.
    Some(ids.filter(|id| DispatcherId::is_one(id)).map(str::to_owned).collect())
}

/// The channel on which a dispatcher waits before it subscribes on a node of a Redis Cluster, for the `number`th time
/// in its process.
pub(super) fn waiting_channel(prefix: &str, id: &DispatcherId, number: u64) -> String {
    format!("{prefix}bus:{id}:{number}")
}

/// The ids of the dispatchers that have such channels in the answer.
pub(super) fn waiting(prefix: &str, reply: &Value) -> Vec<String> {
    let Value::Array(channels) = reply else { return Vec::new() };
    let ids = channels.iter().filter_map(|channel| {
        let (id, _) = text(channel)?.strip_prefix(prefix)?.strip_prefix("bus:")?.rsplit_once(':')?;
        Some(id.to_owned())
    });
    ids.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_groups_name_is_no_pattern() {
        let bytes = asking(r"{a[1]*?\}:alive:").into_bytes();
        let asked = String::from_utf8(bytes).expect("it is text");
        assert!(asked.ends_with("\r\n{a\\[1\\]\\*\\?\\\\}:alive:*\r\n"), "{asked}");
    }

    #[test]
    fn only_dispatchers_of_the_group_count() {
        let channel = |name: &str| Value::BulkString(name.as_bytes().to_vec());
        let found = ["g:alive:d1-0a1b2c", "g:alive:alive:d2-0a1b2c", "g:alive:other", "h:alive:d3-0a1b2c"].map(channel);
        assert_eq!(ids("g:alive:", &Value::Array(found.to_vec())), Some(vec!["d1-0a1b2c".to_owned()]));
        assert_eq!(ids("g:alive:", &Value::Okay), None);
        let id = DispatcherId::generate("d4");
        let found = Value::Array(vec![channel(&waiting_channel("g:alive:", &id, 7)), channel("g:alive:d5-0a1b2c")]);
        assert_eq!(waiting("g:alive:", &found), [id.as_str()]);
        assert_eq!(ids("g:alive:", &found), Some(vec!["d5-0a1b2c".to_owned()]), "it does not count as subscribed");
    }
}
