//! Load: a thread that publishes numbered messages at a rate and knows what became of each `PUBLISH`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{CHANNEL, wait_until};

/// Bursts in a second.
const BURSTS_PER_S: u64 = 200;

/// A running load; stopped on drop.
pub struct Load {
    stop: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
    burst: u64,
    thread: Option<JoinHandle<Sent>>,
}

/// What was published.
#[derive(Default)]
pub struct Sent {
    /// Each reached somebody.
    pub owed: Vec<String>,
    /// How many each of these reached.
    pub receivers: Vec<u64>,
    /// Redis went away before it said whether it reached somebody.
    pub uncertain: BTreeSet<String>,
    /// Nobody was subscribed.
    pub unheard: Vec<String>,
}

impl Load {
    /// Publishes `{"message_id":"<prefix><n>"}` about `per_second` times a second until stopped.
    pub fn start(url: &str, prefix: &'static str, per_second: u64) -> Load {
        let (stop, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let worker = Worker { url: url.to_owned(), prefix, stop: stop.clone(), published: published.clone() };
        let burst = per_second.div_ceil(BURSTS_PER_S);
        let thread = thread::spawn(move || worker.run(burst));
        Load { stop, published, burst, thread: Some(thread) }
    }

    /// The number of a message that is yet to be published, as are all after it. Redis must have been there so far.
    pub fn first_unpublished(&self) -> u64 {
        // One burst may be under way.
        self.published.load(Ordering::Relaxed) + self.burst
    }

    /// Waits until so many more have been published.
    pub fn wait_for_more(&self, messages: u64) {
        let goal = self.published.load(Ordering::Relaxed) + messages;
        wait_until(format!("{messages} more messages to be published"), || {
            (self.published.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    /// Ends it and tells what was published.
    pub fn stop(mut self) -> Sent {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("stopped only once").join().expect("the load does not panic")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Worker {
    url: String,
    prefix: &'static str,
    stop: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
}

impl Worker {
    fn run(self, burst: u64) -> Sent {
        let mut sent = Sent::default();
        let (mut connection, mut number) = (None, 0);
        let began = Instant::now();
        for round in 1.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            if connection.is_none() {
                connection = self.connect();
            }
            if let Some(open) = &mut connection {
                let ids: Vec<String> = (number..number + burst).map(|n| format!("{}{n}", self.prefix)).collect();
                number += burst;
                if self.publish(open, ids, &mut sent).is_err() {
                    connection = None;
                }
            }
            let next = began + Duration::from_micros(round * 1_000_000 / BURSTS_PER_S);
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        sent
    }

    fn connect(&self) -> Option<redis::Connection> {
        let client = redis::Client::open(self.url.as_str()).expect("a valid URL");
        let connection = client.get_connection_with_timeout(Duration::from_millis(200)).ok()?;
        connection.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        Some(connection)
    }

    fn publish(&self, open: &mut redis::Connection, ids: Vec<String>, sent: &mut Sent) -> Result<(), ()> {
        let mut pipeline = redis::pipe();
        for id in &ids {
            pipeline.publish(CHANNEL, format!("{{\"message_id\":\"{id}\"}}"));
        }
        let Ok(receivers) = pipeline.query::<Vec<u64>>(open) else {
            sent.uncertain.extend(ids);
            return Err(());
        };
        self.published.fetch_add(ids.len() as u64, Ordering::Relaxed);
        for (id, receivers) in ids.into_iter().zip(receivers) {
            if receivers == 0 {
                sent.unheard.push(id);
            } else {
                sent.owed.push(id);
                sent.receivers.push(receivers);
            }
        }
        Ok(())
    }
}
