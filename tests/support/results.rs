//! What a group has recorded, and whether that is what it had to record.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use oncecast::base::bundle::BUNDLE_MESSAGES;

use super::redis::run;

/// The streams of a group in which messages are recorded: as results, or with `--deliver stream` as they are.
const RECORDS: [&str; 2] = ["processed", "messages"];

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

/// The ids of what was recorded, in the order of recording: results, and with `--deliver stream` the stream's entries.
pub fn recorded_ids(connection: &mut redis::Connection) -> Vec<String> {
    recorded_ids_of("messages", connection)
}

/// The same for a group by its name.
pub fn recorded_ids_of(group: &str, connection: &mut redis::Connection) -> Vec<String> {
    let keys = RECORDS.map(|key| format!("{group}:{key}"));
    keys.iter().flat_map(|key| stream(connection, key)).filter_map(|entry| id_of(&entry)).collect()
}

/// The ids of about the last `most` that were recorded.
pub fn newest_ids(connection: &mut redis::Connection, most: usize) -> Vec<String> {
    let mut pipeline = redis::pipe();
    for key in RECORDS {
        pipeline.cmd("XREVRANGE").arg(format!("messages:{key}")).arg("+").arg("-").arg("COUNT").arg(most);
    }
    let newest: Vec<Vec<(String, HashMap<String, String>)>> = pipeline.query(connection).expect("Redis answers");
    newest.iter().flatten().filter_map(|(_, entry)| id_of(entry)).collect()
}

/// The message's id in a result, or in the payload of another entry.
pub fn id_of(entry: &HashMap<String, String>) -> Option<String> {
    entry.get("message_id").cloned().or_else(|| id_in_payload(entry.get("payload")?))
}

/// The id in a payload, which may be only the beginning of one.
pub fn id_in_payload(payload: &str) -> Option<String> {
    Some(payload.strip_prefix("{\"message_id\":\"")?.split_once('"')?.0.to_owned())
}

/// The numbers of messages that are pending, recorded, and dead letters.
pub fn state(connection: &mut redis::Connection) -> (usize, usize, usize) {
    state_of("messages", connection)
}

/// The same for a group by its name.
pub fn state_of(group: &str, connection: &mut redis::Connection) -> (usize, usize, usize) {
    let mut pipeline = redis::pipe();
    let [results, entries] = RECORDS;
    for key in [results, entries, "dead"] {
        pipeline.cmd("XLEN").arg(format!("{group}:{key}"));
    }
    let (results, entries, dead): (usize, usize, _) = pipeline.query(connection).expect("Redis answers");
    (pending_of(group, connection), results + entries, dead)
}

/// How many messages are pending.
pub fn pending(connection: &mut redis::Connection) -> usize {
    pending_of("messages", connection)
}

fn pending_of(group: &str, connection: &mut redis::Connection) -> usize {
    let key = format!("{group}:pending");
    let mut pipeline = redis::pipe();
    // In this order: if a bundle is taken apart between the two, too many are counted, not too few.
    pipeline.cmd("ZCOUNT").arg(&key).arg("-inf").arg("(0").cmd("ZCARD").arg(&key);
    let (bundles, members): (usize, usize) = pipeline.query(connection).expect("Redis answers");
    members + bundles * (BUNDLE_MESSAGES - 1)
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
