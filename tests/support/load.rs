//! Load: a thread that publishes numbered messages at a rate and notes the outcome of each `PUBLISH`.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::redis::CHANNEL;
use super::waiting::wait_until;

/// Bursts in a second.
const BURSTS_PER_S: u64 = 200;

/// A running load; stopped on drop.
pub struct Load {
    stop: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
    /// The number of the next message; locked during a burst.
    next: Arc<Mutex<u64>>,
    thread: Option<JoinHandle<Sent>>,
}

/// What was published.
#[derive(Default)]
pub struct Sent {
    /// Each reached a subscriber.
    pub owed: Vec<String>,
    /// How many subscribers each of these reached.
    pub receivers: Vec<u64>,
    /// Redis disconnected before it answered.
    pub uncertain: BTreeSet<String>,
    /// No subscriber received them.
    pub unheard: Vec<String>,
}

impl Load {
    /// Publishes `{"message_id":"<prefix><n>"}` about `per_second` times a second until stopped.
    pub fn start(url: &str, prefix: &'static str, per_second: u64) -> Load {
        Load::start_on(url, prefix, per_second, &[CHANNEL])
    }

    /// The same on several channels: message n on the channel n modulo their number.
    pub fn start_on(url: &str, prefix: &'static str, per_second: u64, channels: &'static [&'static str]) -> Load {
        let (stop, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let next = Arc::new(Mutex::new(0));
        let worker = Worker {
            url: url.to_owned(),
            prefix,
            channels,
            stop: stop.clone(),
            published: published.clone(),
            next: next.clone(),
        };
        let thread = thread::spawn(move || worker.run(per_second.div_ceil(BURSTS_PER_S)));
        Load { stop, published, next, thread: Some(thread) }
    }

    /// Pauses the load until the returned guard, the number of the next message, is dropped.
    ///
    /// No burst is in progress then: Redis has forwarded what it counted, and a fault now has a definite place among
    /// the numbers.
    pub fn hold(&self) -> MutexGuard<'_, u64> {
        self.next.lock()
    }

    /// The number of the first message that is not yet published.
    pub fn first_unpublished(&self) -> u64 {
        *self.hold()
    }

    /// Waits until so many more have been published.
    pub fn wait_for_more(&self, messages: u64) {
        let goal = self.published.load(Ordering::Relaxed) + messages;
        wait_until(format!("{messages} more messages to be published"), || {
            (self.published.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    /// Stops it and returns what was published.
    pub fn stop(mut self) -> Sent {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("stopped only once").join().expect("the load does not panic")
    }
}

impl Sent {
    /// Allows messages with these numbers to be lost.
    pub fn forgive(&mut self, numbers: &Range<u64>) {
        let (heard, owed) = (std::mem::take(&mut self.receivers), std::mem::take(&mut self.owed));
        for (id, receivers) in owed.into_iter().zip(heard) {
            if numbers.contains(&number(&id)) {
                self.uncertain.insert(id);
            } else {
                self.owed.push(id);
                self.receivers.push(receivers);
            }
        }
    }
}

/// The number in an id.
pub fn number(id: &str) -> u64 {
    id.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().expect("an id ends with its number")
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
    channels: &'static [&'static str],
    stop: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
    next: Arc<Mutex<u64>>,
}

impl Worker {
    fn run(self, burst: u64) -> Sent {
        let mut sent = Sent::default();
        let mut connection = None;
        let began = Instant::now();
        for round in 1.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            if connection.is_none() {
                connection = self.connect();
            }
            if let Some(open) = &mut connection {
                let mut next = self.next.lock();
                let ids: Vec<String> = (*next..*next + burst).map(|n| format!("{}{n}", self.prefix)).collect();
                *next += burst;
                if self.publish(open, ids, &mut sent).is_err() {
                    connection = None;
                    // A Redis that died after its answer may not have forwarded the messages.
                    sent.forgive(&((*next).saturating_sub(2 * burst)..*next));
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
            let channel = self.channels[number(id) as usize % self.channels.len()];
            pipeline.publish(channel, format!("{{\"message_id\":\"{id}\"}}"));
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
