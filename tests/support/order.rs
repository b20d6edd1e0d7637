//! What handlers ran when, and whether that was in order by key.
//!
//! Payloads are `<key>:<number>`, with a space before anything else; the numbers of a key rise in the order of
//! publishing. A handler notes the beginning and the end of each run before it goes on, in one list of all handlers, so
//! the list has all of them in their order: in Redis, or in memory if all consumers are in the test's process.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use oncecast::{ConsumerBuilder, Delivery, HandlerError, Outcome};
use parking_lot::Mutex;

use super::redis::run;

/// The list of runs in Redis.
const RUNS: &str = "test:runs";

/// Runs noted in memory, one per line.
pub type RunsHere = Arc<Mutex<String>>;

/// Makes a consumer note its runs in Redis. `process` names what dies with it; `judge` decides the outcome, and takes
/// its time.
pub fn noting(
    builder: ConsumerBuilder,
    url: &str,
    process: &str,
    threads: usize,
    judge: impl Fn(&str, u16) -> Result<(), HandlerError> + Send + Sync + 'static,
) -> ConsumerBuilder {
    let client = redis::Client::open(url).expect("a valid URL");
    let connect = || Mutex::new(client.get_connection().expect("Redis answers"));
    let connections: Vec<_> = (0..threads).map(|_| connect()).collect();
    let note = move |entry: &str| {
        let mut connection = connections.iter().find_map(|connection| connection.try_lock()).expect("one for each");
        let noted: Result<u64, _> = redis::cmd("RPUSH").arg(RUNS).arg(entry).query(&mut *connection);
        noted.map(|_| ()).map_err(|error| HandlerError::retry(error.to_string()))
    };
    noting_by(builder, process, threads, note, judge)
}

/// The same in memory, which takes a million runs.
pub fn noting_here(
    builder: ConsumerBuilder,
    runs: &RunsHere,
    threads: usize,
    judge: impl Fn(&str, u16) -> Result<(), HandlerError> + Send + Sync + 'static,
) -> ConsumerBuilder {
    let runs = runs.clone();
    let note = move |entry: &str| {
        let mut runs = runs.lock();
        runs.push_str(entry);
        runs.push('\n');
        Ok(())
    };
    noting_by(builder, "test", threads, note, judge)
}

fn noting_by(
    builder: ConsumerBuilder,
    process: &str,
    threads: usize,
    note: impl Fn(&str) -> Result<(), HandlerError> + Send + Sync + 'static,
    judge: impl Fn(&str, u16) -> Result<(), HandlerError> + Send + Sync + 'static,
) -> ConsumerBuilder {
    let process = process.to_owned();
    builder.concurrency(threads).handler(move |delivery: &Delivery<'_>| {
        let payload = std::str::from_utf8(delivery.payload())?.split(' ').next().unwrap_or_default();
        note(&format!("begin {process} {payload}"))?;
        let outcome = judge(payload, delivery.number());
        note(&format!("end {process} {payload}"))?;
        outcome.map(|()| Outcome::new().field("message_id", payload))
    })
}

/// Payloads for so many messages of so many keys, at random unless each message has its own.
pub fn payloads(keys: usize, messages: usize, random: &mut fastrand::Rng) -> Vec<String> {
    let mut numbers = HashMap::new();
    let payload = |n| {
        let key = if keys >= messages { n } else { random.usize(0..keys) };
        let number = numbers.entry(key).or_insert(0_u64);
        *number += 1;
        format!("k{key}:{number}")
    };
    (0..messages).map(payload).collect()
}

/// What was noted.
#[derive(Debug, Default)]
pub struct Runs {
    pub runs: usize,
    /// Messages that ran more than once.
    pub again: usize,
    /// Runs that ended with their process.
    pub cut: usize,
}

/// Fails unless the runs of each key follow one another, and begin for the first time in the order of the numbers. Only
/// runs in processes that were `killed` may have no end.
pub fn assert_in_order(connection: &mut redis::Connection, killed: &BTreeSet<String>) -> Runs {
    let entries: Vec<String> = run(connection, &["LRANGE", RUNS, "0", "-1"]);
    assert_all_in_order(entries.iter().map(String::as_str), killed)
}

/// The same of runs noted in memory, where nothing is killed with its runs.
pub fn assert_in_order_here(runs: &RunsHere) -> Runs {
    assert_all_in_order(runs.lock().lines(), &BTreeSet::new())
}

fn assert_all_in_order<'a>(entries: impl Iterator<Item = &'a str>, killed: &BTreeSet<String>) -> Runs {
    let mut found = Runs::default();
    let mut running: HashMap<&str, (&str, u64)> = HashMap::new();
    let mut seen: HashMap<&str, BTreeSet<u64>> = HashMap::new();
    for entry in entries {
        let words: Vec<&str> = entry.split(' ').collect();
        let &[what, process, payload] = &words[..] else { panic!("{entry}") };
        let Some((key, number)) = payload.split_once(':') else { continue };
        let number: u64 = number.parse().expect("a number");
        if what == "end" {
            assert_eq!(running.remove(key), Some((process, number)), "{entry}: another run had begun");
            continue;
        }
        if let Some(before) = running.insert(key, (process, number)) {
            assert!(killed.contains(before.0), "{entry}: begun while {before:?} ran");
            found.cut += 1;
        }
        found.runs += 1;
        let seen = seen.entry(key).or_default();
        let newest = seen.last().copied().unwrap_or(0);
        match seen.insert(number) {
            true => assert!(number > newest, "{entry}: begun after {newest} of its key"),
            false => found.again += 1,
        }
    }
    found
}

/// How long the work on a message takes: mostly nothing, sometimes some milliseconds.
pub fn some_work() {
    if fastrand::u8(..) < 16 {
        std::thread::sleep(Duration::from_millis(fastrand::u64(1..6)));
    }
}
