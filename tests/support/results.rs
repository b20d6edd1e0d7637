//! What a group has recorded, and whether that is what it had to record.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::redis::run;

/// The fields of a stream's entry, in order.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// The entries of a stream in order, each as its fields.
pub fn stream(connection: &mut redis::Connection, key: &str) -> Vec<HashMap<String, String>> {
    let range = redis::cmd("XRANGE").arg(key).arg("-").arg("+").query(connection);
    let entries: Vec<(String, HashMap<String, String>)> = range.expect("the stream can be read");
    entries.into_iter().map(|(_, fields)| fields).collect()
}

/// A stream's entries in order, each as its fields in order, as bytes.
pub fn raw_stream(connection: &mut redis::Connection, key: &str) -> Vec<Fields> {
    let range = redis::cmd("XRANGE").arg(key).arg("-").arg("+").query(connection);
    let entries: Vec<(String, Fields)> = range.expect("the stream can be read");
    entries.into_iter().map(|(_, fields)| fields).collect()
}

/// How often each value of a field occurs in a stream's entries; entries without the field are left out.
pub fn occurrences(entries: &[HashMap<String, String>], field: &str) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    for value in entries.iter().filter_map(|entry| entry.get(field)) {
        *found.entry(value.clone()).or_insert(0) += 1;
    }
    found
}

/// The field `message_id` of each result, in the order in which they were recorded.
pub fn recorded_ids(connection: &mut redis::Connection) -> Vec<String> {
    recorded_ids_of("messages", connection)
}

/// The same for a group by its name.
pub fn recorded_ids_of(group: &str, connection: &mut redis::Connection) -> Vec<String> {
    let entries = stream(connection, &format!("{group}:processed"));
    entries.into_iter().filter_map(|mut entry| entry.remove("message_id")).collect()
}

/// The numbers of messages that are pending, recorded, and dead letters.
pub fn state(connection: &mut redis::Connection) -> (usize, usize, usize) {
    state_of("messages", connection)
}

/// The same for a group by its name.
pub fn state_of(group: &str, connection: &mut redis::Connection) -> (usize, usize, usize) {
    let mut pipeline = redis::pipe();
    for (command, key) in [("ZCARD", "pending"), ("XLEN", "processed"), ("XLEN", "dead")] {
        pipeline.cmd(command).arg(format!("{group}:{key}"));
    }
    pipeline.query(connection).expect("Redis answers")
}

/// Fails unless each of `owed` was recorded exactly once and nothing else was. The message names the wrong ids.
pub fn assert_each_once<'a>(connection: &mut redis::Connection, owed: impl IntoIterator<Item = &'a String>) {
    assert_each_once_but(connection, owed, &BTreeSet::new());
}

/// The same, but each of `uncertain` may have been recorded as well, once.
pub fn assert_each_once_but<'a>(
    connection: &mut redis::Connection,
    owed: impl IntoIterator<Item = &'a String>,
    uncertain: &BTreeSet<String>,
) {
    let owed: BTreeSet<&String> = owed.into_iter().collect();
    let mut recorded: BTreeMap<String, usize> = BTreeMap::new();
    for id in recorded_ids(connection) {
        *recorded.entry(id).or_default() += 1;
    }
    let some = |ids: Vec<&String>| (ids.len(), ids.into_iter().take(5).cloned().collect::<Vec<_>>());
    let lost = some(owed.iter().copied().filter(|id| !recorded.contains_key(*id)).collect());
    let twice = some(recorded.iter().filter(|(_, count)| **count > 1).map(|(id, _)| id).collect());
    let foreign = some(recorded.keys().filter(|id| !owed.contains(*id) && !uncertain.contains(*id)).collect());
    let none = (0, Vec::new());
    assert!(
        lost == none && twice == none && foreign == none,
        "of {} messages: lost {lost:?}, recorded twice {twice:?}, never published {foreign:?}; dead letters {:?}; \
         gaps {:?}",
        owed.len(),
        stream(connection, "messages:dead").into_iter().take(3).collect::<Vec<_>>(),
        stream(connection, "messages:gaps"),
    );
}
