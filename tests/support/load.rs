//! Load: a thread that publishes numbered messages at a rate and notes the outcome of each `PUBLISH`.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use oncecast::ledger::{Command, Connection, Server};
use parking_lot::{Mutex, MutexGuard};

use super::redis::CHANNEL;
use super::waiting::wait_until;

/// Bursts in a second.
const BURSTS_PER_S: u64 = 200;
/// After a failure, how many of the last bursts may be lost: a Redis that died after its answer may not have forwarded
/// them. More if a replica has taken its place.
const FORGIVEN_BURSTS: u64 = 2;
const FORGIVEN_BURSTS_OF_A_PRIMARY: u64 = 6;
/// How long a primary may take to answer, which may hang.
const PRIMARY_REPLY_LIMIT: Duration = Duration::from_millis(500);

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
        let door = Door::Fixed(redis::Client::open(url).expect("a valid URL"), None);
        Load::spawn(door, prefix, per_second, channels)
    }

    /// The same at the primary that Sentinels name, or at a node of a cluster, as the publisher does.
    pub fn following(url: &str, prefix: &'static str, per_second: u64) -> Load {
        let server = Server::parse(url).expect("a valid URL");
        let door = Door::Following(Connection::new(server, PRIMARY_REPLY_LIMIT));
        Load::spawn(door, prefix, per_second, &[CHANNEL])
    }

    fn spawn(door: Door, prefix: &'static str, per_second: u64, channels: &'static [&'static str]) -> Load {
        let (stop, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let next = Arc::new(Mutex::new(0));
        let worker =
            Worker { door, prefix, channels, stop: stop.clone(), published: published.clone(), next: next.clone() };
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
        self.forgive_if(|number, _| numbers.contains(&number));
    }

    /// Allows messages to be lost that fewer subscribers received.
    pub fn forgive_those_heard_by_fewer_than(&mut self, receivers: u64) {
        self.forgive_if(|_, heard_by| heard_by < receivers);
    }

    fn forgive_if(&mut self, forgives: impl Fn(u64, u64) -> bool) {
        let (heard, owed) = (std::mem::take(&mut self.receivers), std::mem::take(&mut self.owed));
        for (id, receivers) in owed.into_iter().zip(heard) {
            if forgives(number(&id), receivers) {
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

/// How messages get to Redis.
enum Door {
    /// A server at a URL.
    Fixed(redis::Client, Option<redis::Connection>),
    /// A server that may be another one by the next burst.
    Following(Connection),
}

impl Door {
    /// Whether there is a connection; opens one if there is none.
    fn is_open(&mut self) -> bool {
        match self {
            Door::Fixed(client, open) => {
                if open.is_none() {
                    *open = connect(client);
                }
                open.is_some()
            }
            Door::Following(_) => true,
        }
    }

    /// Publishes payloads with their channels. Returns how many received each; `None` if that is not known of all.
    fn publish(&mut self, messages: &[(&str, String)]) -> Option<Vec<u64>> {
        match self {
            Door::Fixed(_, open) => {
                let mut pipeline = redis::pipe();
                for (channel, payload) in messages {
                    pipeline.publish(*channel, payload);
                }
                let answer = pipeline.query(open.as_mut()?).ok();
                if answer.is_none() {
                    *open = None;
                }
                answer
            }
            Door::Following(connection) => {
                let publish = |(channel, payload): &(&str, String)| Command::of(&["PUBLISH", channel, payload]);
                let replies = connection.pipeline("publishing", messages.iter().map(publish).collect()).ok()?;
                let receivers = replies.into_iter().map(|reply| match reply {
                    redis::Value::Int(receivers) => receivers.cast_unsigned(),
                    other => panic!("PUBLISH answers {other:?}"),
                });
                Some(receivers.collect())
            }
        }
    }

    fn forgiven_bursts(&self) -> u64 {
        match self {
            Door::Fixed(..) => FORGIVEN_BURSTS,
            Door::Following(_) => FORGIVEN_BURSTS_OF_A_PRIMARY,
        }
    }
}

fn connect(client: &redis::Client) -> Option<redis::Connection> {
    let connection = client.get_connection_with_timeout(Duration::from_millis(200)).ok()?;
    connection.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    Some(connection)
}

struct Worker {
    door: Door,
    prefix: &'static str,
    channels: &'static [&'static str],
    stop: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
    next: Arc<Mutex<u64>>,
}

impl Worker {
    fn run(mut self, burst: u64) -> Sent {
        let mut sent = Sent::default();
        let period = Duration::from_micros(1_000_000 / BURSTS_PER_S);
        let mut due = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            if self.door.is_open() {
                self.publish(burst, &mut sent);
            }
            due += period;
            // A primary that was waited for does not get at once what it has missed.
            if let Door::Following(_) = self.door {
                due = due.max(Instant::now());
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        sent
    }

    fn publish(&mut self, burst: u64, sent: &mut Sent) {
        let next = self.next.clone();
        let mut next = next.lock();
        let ids: Vec<String> = (*next..*next + burst).map(|n| format!("{}{n}", self.prefix)).collect();
        *next += burst;
        let channel = |id: &str| self.channels[number(id) as usize % self.channels.len()];
        let message = |id: &String| (channel(id), format!("{{\"message_id\":\"{id}\"}}"));
        let messages: Vec<_> = ids.iter().map(message).collect();
        let Some(receivers) = self.door.publish(&messages) else {
            sent.uncertain.extend(ids);
            sent.forgive(&((*next).saturating_sub(self.door.forgiven_bursts() * burst)..*next));
            return;
        };
        self.published.fetch_add(burst, Ordering::Relaxed);
        for (id, receivers) in ids.into_iter().zip(receivers) {
            if receivers == 0 {
                sent.unheard.push(id);
            } else {
                sent.owed.push(id);
                sent.receivers.push(receivers);
            }
        }
    }
}
