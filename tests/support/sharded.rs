//! Load on sharded channels of a Redis Cluster: a thread for each channel, which follows the channel when its slot
//! moves. And the tools that show a group's lanes.

use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use oncecast::lab::Cluster;
use oncecast::ledger::{Command, Connection, Server, slot_of};
use redis::Value;

use super::load::Sent;
use super::programs::programs;

/// Bursts in a second.
const BURSTS_PER_S: u64 = 100;
/// How long a node may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// What `oncecast status --json` shows.
pub fn status_of(cluster: &Cluster) -> serde_json::Value {
    let output = tool(cluster, "oncecast", &["status", "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Runs a program, of which `args` are the subcommand and its settings.
pub fn tool(cluster: &Cluster, program: &str, args: &[&str]) -> Output {
    let mut command = programs().command(program).expect("the program is built");
    let given = cluster.command(program).expect("the program is built");
    command.args(args).args(given.get_args()).output().expect("it runs")
}

/// A running load; stopped on drop.
pub struct ShardedLoad {
    stop: Arc<AtomicBool>,
    workers: Vec<(Arc<ChannelState>, JoinHandle<Sent>)>,
}

/// What the load of one channel shares with the test.
struct ChannelState {
    /// Whether what a subscriber receives is owed.
    owed: AtomicBool,
    /// How many subscribers received the last message.
    heard_by: AtomicU64,
}

impl ShardedLoad {
    /// Publishes `{"message_id":"<prefix><channel's index>-<n>"}` by `SPUBLISH` about `per_second` times a second on
    /// each of these channels until stopped.
    pub fn start(server: &Server, prefix: &str, channels: &[String], per_second: u64) -> ShardedLoad {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |(index, channel): (usize, &String)| {
            let state = Arc::new(ChannelState { owed: AtomicBool::new(true), heard_by: AtomicU64::new(0) });
            let worker = Worker {
                connection: Connection::new(server.for_slot(slot_of(channel.as_bytes())), ANSWER_LIMIT),
                prefix: format!("{prefix}{index}-"),
                channel: channel.clone(),
                stop: stop.clone(),
                state: state.clone(),
                sent: Sent::default(),
                last: Vec::new(),
            };
            (state, thread::spawn(move || worker.run(per_second.div_ceil(BURSTS_PER_S))))
        };
        let workers = channels.iter().enumerate().map(start).collect();
        ShardedLoad { stop, workers }
    }

    /// Whether what is published from now on is owed, on one of the channels. While a channel moves to another lane it
    /// is not, until a leader listens there.
    pub fn owe(&self, channel: usize, is_owed: bool) {
        self.workers[channel].0.owed.store(is_owed, Ordering::SeqCst);
    }

    /// How many subscribers received the last message of the channel that fewest heard.
    pub fn heard_by(&self) -> u64 {
        self.workers.iter().map(|(state, _)| state.heard_by.load(Ordering::SeqCst)).min().unwrap_or(0)
    }

    /// Stops it and returns what was published.
    pub fn stop(mut self) -> Sent {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Sent::default();
        for (_, worker) in self.workers.drain(..) {
            let sent = worker.join().expect("the load does not panic");
            all.owed.extend(sent.owed);
            all.receivers.extend(sent.receivers);
            all.uncertain.extend(sent.uncertain);
            all.unheard.extend(sent.unheard);
        }
        all
    }
}

impl Drop for ShardedLoad {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for (_, worker) in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

struct Worker {
    connection: Connection,
    prefix: String,
    channel: String,
    stop: Arc<AtomicBool>,
    state: Arc<ChannelState>,
    sent: Sent,
    /// What was owed of the last burst: a node that died after its answer may not have forwarded it.
    last: Vec<(String, u64)>,
}

impl Worker {
    fn run(mut self, burst: u64) -> Sent {
        let began = Instant::now();
        for round in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let ids = (round * burst..(round + 1) * burst).map(|number| format!("{}{number}", self.prefix)).collect();
            self.publish(ids);
            let next = began + Duration::from_micros((round + 1) * 1_000_000 / BURSTS_PER_S);
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        self.settle();
        self.sent
    }

    fn publish(&mut self, ids: Vec<String>) {
        let is_owed = self.state.owed.load(Ordering::SeqCst);
        let payload = |id: &String| format!("{{\"message_id\":\"{id}\"}}");
        let spublish = |id| Command::of(&["SPUBLISH", &self.channel, &payload(id)]);
        // A replica takes messages, too, but no question for a key.
        let commands = ids.iter().map(spublish).chain([Command::of(&["EXISTS", &self.channel])]).collect();
        let Ok(replies) = self.connection.pipeline_each("publishing", commands) else {
            self.sent.uncertain.extend(self.last.drain(..).map(|(id, _)| id).chain(ids));
            return;
        };
        self.settle();
        for (id, reply) in ids.into_iter().zip(replies) {
            // A refused message was not published.
            let receivers = match reply {
                Ok(Value::Int(receivers)) => receivers as u64,
                _ => 0,
            };
            self.state.heard_by.store(receivers, Ordering::SeqCst);
            if receivers == 0 {
                self.sent.unheard.push(id);
            } else if !is_owed {
                self.sent.uncertain.insert(id);
            } else {
                self.last.push((id, receivers));
            }
        }
    }

    fn settle(&mut self) {
        for (id, receivers) in self.last.drain(..) {
            self.sent.owed.push(id);
            self.sent.receivers.push(receivers);
        }
    }
}
