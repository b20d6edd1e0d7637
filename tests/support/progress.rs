//! Waiting until a group has stored or processed what was published.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use oncecast::base::id::DispatcherId;
use oncecast::lab;
use oncecast::ledger::Marker;
use oncecast::ledger::subscription::Notice;
use redis::ConnectionLike;

use super::redis::{CHANNEL, run, subscribers};
use super::results::state;
use super::waiting::{DEADLINE, wait_until};

/// Waits until nothing is pending and at least `messages` are recorded or dead letters.
pub fn wait_until_done(connection: &mut redis::Connection, messages: usize) {
    let mut seen = (0, 0, 0);
    let what = format!("{messages} messages to be done and none pending");
    let done = lab::wait_until(DEADLINE, &what, || {
        seen = state(connection);
        let (pending, processed, dead) = seen;
        Ok((pending == 0 && processed + dead >= messages).then_some(()))
    });
    assert!(done.is_ok(), "waited in vain for {what}: pending, processed, dead letters: {seen:?}");
}

/// Waits until everything that was published before, on any connection, is stored.
///
/// Publishes markers as a joining dispatcher does. All dispatchers see each marker at the same place among the
/// messages, and the leader's cursor passes it.
pub fn wait_for_intake(connection: &mut redis::Connection) {
    wait_for_intake_of("messages", connection);
}

/// The same for a group by its name, in the connection's database.
pub fn wait_for_intake_of(group: &str, connection: &mut redis::Connection) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let onlooker = DispatcherId::generate("onlooker");
    let mut channels = vec![format!("{group}:control")];
    // Pub/Sub has no databases, so groups in databases other than 0 may have the number in the channel's name.
    if connection.get_db() != 0 {
        channels.push(format!("{group}@{}:control", connection.get_db()));
    }
    wait_until("the cursor to pass a new marker", || {
        let marker = Marker::of_join(&onlooker, NUMBER.fetch_add(1, Ordering::Relaxed));
        let notice = Notice::Marker(marker.clone(), CHANNEL.to_owned()).to_string();
        channels.iter().for_each(|channel| run(connection, &["PUBLISH", channel, &notice]));
        let until = Instant::now() + Duration::from_millis(90);
        while Instant::now() < until {
            let cursor: Option<String> = run(connection, &["GET", &format!("{group}:cursor")]);
            if cursor.is_some_and(|cursor| cursor.starts_with(&format!("{marker} "))) {
                return Some(());
            }
            thread::sleep(Duration::from_millis(1));
        }
        None
    });
}

/// Waits until so many dispatchers are subscribed and each holds everything that comes after the cursor.
pub fn wait_until_in_sync(connection: &mut redis::Connection, dispatchers: u64) {
    wait_until(format!("{dispatchers} dispatchers to be subscribed"), || {
        (subscribers(connection) == dispatchers).then_some(())
    });
    // All of them see this marker, and the cursor passes it.
    wait_for_intake(connection);
}
