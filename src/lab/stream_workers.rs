//! Workers that read the stream of `--deliver stream`, as programs with any Redis Streams client do.
//!
//! Each is a thread of this process with a connection of its own, and all are in one group of the stream. A worker
//! reads entries with XREADGROUP, counts them, and acknowledges them with XACK. After a failure it first reads again
//! what it has not acknowledged. Entries stay in the stream, so that they can be audited.
//!
//! Limitations: workers are not hit by faults, so none takes over what another has read (XAUTOCLAIM).

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use redis::Value;

use super::cluster::Cluster;
use super::redis::REPLY_LIMIT;
use crate::base::error::{Error, Result};
use crate::ledger::{Command, Connection};

/// The name of the workers' group.
const GROUP: &str = "workers";
/// The most entries that a worker reads at once.
const BATCH: &str = "1000";
/// How long Redis waits for entries before it answers, in milliseconds, so also how late a stop is noticed.
const BLOCK_MS: &str = "100";
/// The wait before another attempt after a failure.
const RETRY_WAIT: Duration = Duration::from_millis(50);
/// Asks for entries that this worker has read and not acknowledged, and for those that no worker has read.
const UNACKNOWLEDGED: &str = "0";
const UNREAD: &str = ">";

/// See the module's text. Dropping it stops the workers.
pub struct StreamWorkers {
    key: String,
    names: Vec<String>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    entries: AtomicU64,
    again: AtomicU64,
}

/// How much workers have read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadEntries {
    /// Different entries.
    pub entries: u64,
    /// How often one of them was read again.
    pub again: u64,
}

impl StreamWorkers {
    /// Starts workers `w0`, `w1`, … on the stream of a cluster's group.
    pub fn start(cluster: &mut Cluster, count: usize) -> Result<StreamWorkers> {
        let key = cluster.stream();
        let create = Command::of(&["XGROUP", "CREATE", &key, GROUP, "0", "MKSTREAM"]);
        let server = cluster.server();
        let connect = || Connection::new(server.for_key(&key), REPLY_LIMIT);
        connect().query("creating the workers' group", create)?;
        let names: Vec<String> = (0..count).map(|number| format!("w{number}")).collect();
        let mut workers = StreamWorkers { key: key.clone(), names, shared: Arc::default(), threads: Vec::new() };
        for name in workers.names.clone() {
            let worker = Worker {
                connection: connect(),
                key: workers.key.clone(),
                name: name.clone(),
                shared: workers.shared.clone(),
                last: HashSet::new(),
            };
            let thread = thread::Builder::new().name(name).spawn(move || worker.run());
            workers.threads.push(thread.map_err(Error::io("starting a worker"))?);
        }
        Ok(workers)
    }

    /// The stream.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The workers' names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How much they have read so far.
    pub fn read(&self) -> ReadEntries {
        let Shared { entries, again, .. } = &*self.shared;
        ReadEntries { entries: entries.load(Ordering::Relaxed), again: again.load(Ordering::Relaxed) }
    }
}

impl Drop for StreamWorkers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // If one has panicked, its message was shown.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

struct Worker {
    connection: Connection,
    key: String,
    name: String,
    shared: Arc<Shared>,
    /// What it read last, which may not be acknowledged.
    last: HashSet<String>,
}

impl Worker {
    /// The main loop of the thread.
    fn run(mut self) {
        let mut from = UNREAD;
        while !self.shared.stop.load(Ordering::Relaxed) {
            from = match self.read(from) {
                Ok(0) => UNREAD,
                Ok(_) => from,
                // Redis may have given it entries, or noted that they are acknowledged, although no reply came.
                Err(_) => {
                    thread::sleep(RETRY_WAIT);
                    UNACKNOWLEDGED
                }
            };
        }
    }

    /// Reads a batch, counts it and acknowledges it. Gives the number of entries.
    fn read(&mut self, from: &str) -> Result<usize> {
        let words = ["XREADGROUP", "GROUP", GROUP, &self.name, "COUNT", BATCH, "BLOCK", BLOCK_MS, "STREAMS", &self.key];
        let command = words.iter().fold(Command::new(words.len() + 1), |command, word| command.arg(word)).arg(from);
        let ids = entry_ids(&self.connection.query("reading a stream", command)?);
        if ids.is_empty() {
            return Ok(0);
        }
        let again = ids.iter().filter(|id| self.last.contains(*id)).count();
        self.shared.again.fetch_add(again as u64, Ordering::Relaxed);
        self.shared.entries.fetch_add((ids.len() - again) as u64, Ordering::Relaxed);
        let command = Command::new(3 + ids.len()).arg("XACK").arg(&self.key).arg(GROUP);
        let command = ids.iter().fold(command, |command, id| command.arg(id));
        let count = ids.len();
        self.last = ids.into_iter().collect();
        self.connection.query("acknowledging entries", command)?;
        Ok(count)
    }
}

/// The ids in a reply to XREADGROUP on one stream: `[[stream, [[id, fields], …]]]`, or nil.
fn entry_ids(reply: &Value) -> Vec<String> {
    fn list(value: Option<&Value>) -> &[Value] {
        match value {
            Some(Value::Array(values)) => values,
            _ => &[],
        }
    }
    let id = |entry: &Value| match list(Some(entry)).first() {
        Some(Value::BulkString(id)) => String::from_utf8(id.clone()).ok(),
        _ => None,
    };
    list(list(list(Some(reply)).first()).get(1)).iter().filter_map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_of_entries_are_read() {
        let text = |text: &str| Value::BulkString(text.into());
        let entry = |id| Value::Array(vec![text(id), Value::Array(vec![text("payload"), text("x")])]);
        let entries = Value::Array(vec![entry("1-0"), entry("1-1")]);
        let reply = Value::Array(vec![Value::Array(vec![text("s"), entries])]);
        assert_eq!(entry_ids(&reply), ["1-0", "1-1"]);
        assert_eq!(entry_ids(&Value::Nil), [""; 0]);
    }
}
