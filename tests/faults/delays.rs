//! Row 44: messages wait for another delivery while leaders are killed, and all dispatchers or Redis are restarted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oncecast::lab::ChildProcess;
use oncecast::{Consumer, Delivery, HandlerError, Outcome};
use parking_lot::Mutex;

use crate::run::{Run, assert_l0};
use crate::support::load::{Load, number};
use crate::support::{
    RunningConsumer, client_of, dispatcher, id_in_payload, lasting_cluster, run as run_command, state, wait_for_intake,
    wait_until_in_sync,
};

const ARGS: &str = "--retry fixed:1500ms --max-deliveries 20";
/// What `ARGS` says.
const OF_THE_GROUP: Duration = Duration::from_millis(1_500);
const OF_THE_CONSUMER: Duration = Duration::from_secs(2);
const OF_THE_HANDLER: Duration = Duration::from_secs(1);
/// How late a delivery may be: restarts come between, and there is load.
const LATE: Duration = Duration::from_secs(20);

/// When messages failed, and what was wrong with their next deliveries.
#[derive(Default)]
struct Watched {
    /// The number of the delivery that failed, and before when the next one is too early.
    failed: HashMap<String, (u16, Instant)>,
    early: Vec<String>,
    latest: Duration,
    seen: usize,
}

impl Watched {
    fn delivered(&mut self, id: &str, delivery: u16) {
        let Some((failed, due)) = self.failed.remove(id) else { return };
        // With the same number, the failure has not reached Redis: the leader died before.
        if delivery > failed {
            let now = Instant::now();
            if now < due {
                self.early.push(format!("{id}, delivery {delivery}: {:?} early", due - now));
            }
            self.latest = self.latest.max(now.saturating_duration_since(due));
            self.seen += 1;
        }
    }
}

/// Fails three of four messages, one of them twice, one with a delay of the handler's own.
fn consumer(url: &str, name: &str, retry: Option<&str>, watched: &Arc<Mutex<Watched>>) -> RunningConsumer {
    let watched = watched.clone();
    let policy = if retry.is_some() { OF_THE_CONSUMER } else { OF_THE_GROUP };
    let handler = move |delivery: &Delivery<'_>| {
        let id = id_in_payload(std::str::from_utf8(delivery.payload())?).ok_or("no id")?;
        let mut watched = watched.lock();
        watched.delivered(&id, delivery.number());
        let (failures, asked) = match number(&id) % 4 {
            0 => (1, None),
            1 => (1, Some(OF_THE_HANDLER)),
            2 => (2, None),
            _ => (0, None),
        };
        if delivery.number() > failures {
            return Ok(Outcome::new().field("message_id", id));
        }
        watched.failed.insert(id, (delivery.number(), Instant::now() + asked.unwrap_or(policy)));
        Err(asked.map_or_else(|| "not yet".into(), |delay| HandlerError::retry_after(delay, "not before")))
    };
    let builder = Consumer::builder().redis_url(url).listen("127.0.0.1:0").consumer_id(name);
    let builder = match retry {
        Some(policy) => builder.retry(policy),
        None => builder,
    };
    RunningConsumer::start(builder.concurrency(2).prefetch(64).handler(handler))
}

#[test]
fn row_44_delays_outlive_leaders_and_restarts() {
    let mut this = Run::of("row_44");
    let mut cluster = lasting_cluster();
    let url = cluster.redis().url();
    let mut connection = client_of(&mut cluster);
    let watched = Arc::<Mutex<Watched>>::default();
    let consumers = [("c0", None), ("c1", Some("fixed:2s"))].map(|(name, retry)| consumer(&url, name, retry, &watched));
    let addresses = consumers.each_ref().map(|consumer| consumer.address.to_string());
    let mut dispatchers: Vec<ChildProcess> =
        ["d0", "d1"].map(|name| dispatcher(&cluster, name, &addresses, ARGS)).into();
    wait_until_in_sync(&mut connection, 2);
    let load = Load::start(&url, "m", 400);
    let (mut waiting, mut faults) =
        (0, ["leader", "leader", "dispatchers", "redis"].repeat(this.scale(2, 12) as usize));
    this.random.shuffle(&mut faults);
    for fault in faults {
        load.wait_for_more(this.random.u64(200..800));
        // What is published from here on would reach no dispatcher, or one that dies before it is stored.
        let held = (fault != "leader").then(|| load.hold());
        if held.is_some() {
            wait_for_intake(&mut connection);
        }
        waiting += run_command::<usize>(&mut connection, &["HLEN", "messages:attempts"]);
        match fault {
            "redis" => {
                cluster.redis().kill().expect("it is ours");
                cluster.redis().start_again().expect("it starts");
                connection = client_of(&mut cluster);
            }
            _ => {
                let leader: String = run_command(&mut connection, &["GET", "messages:leader"]);
                for (dispatcher_of, name) in dispatchers.iter_mut().zip(["d0", "d1"]) {
                    if fault == "dispatchers" || leader.starts_with(name) {
                        dispatcher_of.kill().expect("it is ours");
                        *dispatcher_of = dispatcher(&cluster, name, &addresses, ARGS);
                    }
                }
            }
        }
        wait_until_in_sync(&mut connection, 2);
        drop(held);
    }
    let sent = load.stop();
    assert_l0(&mut connection, &sent);
    assert_eq!(state(&mut connection).2, 0, "none is dead");
    assert_eq!(run_command::<u64>(&mut connection, &["EXISTS", "messages:attempts"]), 0, "no time is left");
    let Watched { early, latest, seen, .. } = &*watched.lock();
    assert!(early.is_empty(), "{} early: {:?}", early.len(), &early[..early.len().min(5)]);
    assert!(*latest < LATE, "a delivery was {latest:?} late");
    assert!(waiting > 0 && *seen > sent.owed.len() / 2);
    this.say(format_args!("{waiting} messages waited at faults, {seen} redeliveries, the latest {latest:?} late"));
}
