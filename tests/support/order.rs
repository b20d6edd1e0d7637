//! What handlers ran when, and whether that was in order by key.
//!
//! Payloads are `<key>:<number>`, with a space before anything else; the numbers of a key rise in the order of
//! publishing. A handler notes the beginning and the end of each run in a list in Redis before it goes on, so the list
//! has all of them in their order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use oncecast::{ConsumerBuilder, Delivery, HandlerError, Outcome};
use parking_lot::Mutex;

use super::redis::run;

/// The list of runs.
const RUNS: &str = "test:runs";

/// Makes a consumer note its runs. `process` names what dies with it; `judge` decides the outcome, and takes its time.
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
    let process = process.to_owned();
    builder.concurrency(threads).handler(move |delivery: &Delivery<'_>| {
        let payload = std::str::from_utf8(delivery.payload())?.split(' ').next().unwrap_or_default();
        let mut connection = connections.iter().find_map(|connection| connection.try_lock()).expect("one for each");
        let mut note = |what: &str| {
            let entry = format!("{what} {process} {payload}");
            let noted: Result<u64, _> = redis::cmd("RPUSH").arg(RUNS).arg(entry).query(&mut *connection);
            noted.map_err(|error| HandlerError::retry(error.to_string()))
        };
        note("begin")?;
        let outcome = judge(payload, delivery.number());
        note("end")?;
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
    let mut found = Runs::default();
    let mut running: HashMap<&str, (&str, u64)> = HashMap::new();
    let mut seen: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for entry in &entries {
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
