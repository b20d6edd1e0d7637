//! A lane whose consumers come and go, against a private Redis. Lookups are answered by the test.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::*;
use crate::base::id::DispatcherId;
use crate::base::log_context::LogContext;
use crate::base::shutdown::ShutdownHandle;
use crate::consumer::{Consumer, Delivery, HandlerError, Outcome};
use crate::lab::{RedisOptions, RedisServer, wait_until};
use crate::lane::tests::settings_of;
use crate::lane::{Lane, Leading, ProcessHandles, Settings};
use crate::ledger::Command;

const LIMIT: Duration = Duration::from_secs(30);
/// Messages handled between two changes of the list.
const SHARE: u64 = 2_000;

/// What lookups of the name find.
type Answers = Arc<Mutex<Option<Vec<SocketAddr>>>>;
/// How often the handler ran for each payload.
type Runs = Arc<Mutex<HashMap<Vec<u8>, usize>>>;

struct Worker {
    address: SocketAddr,
    /// While it is closed, its handler waits.
    gate: Arc<(Mutex<bool>, parking_lot::Condvar)>,
    handled: Arc<AtomicU64>,
    handle: ShutdownHandle,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(redis: &RedisServer, name: usize, runs: &Runs) -> Worker {
        let handled = Arc::new(AtomicU64::new(0));
        let gate = Arc::new((Mutex::new(true), parking_lot::Condvar::new()));
        let (runs, counter, pause) = (runs.clone(), handled.clone(), gate.clone());
        let handler = move |delivery: &Delivery<'_>| -> Result<Outcome, HandlerError> {
            *runs.lock().entry(delivery.payload().to_vec()).or_default() += 1;
            let mut open = pause.0.lock();
            pause.1.wait_while(&mut open, |open| !*open);
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(Outcome::new().field("body", delivery.payload()))
        };
        let builder = Consumer::builder().redis_url(redis.url()).listen("127.0.0.1:0").consumer_id(format!("c{name}"));
        let consumer = builder.concurrency(2).prefetch(64).handler(handler).bind().expect("a free port");
        let (address, handle) = (consumer.local_addr(), consumer.shutdown_handle());
        let thread = thread::spawn(move || drop(consumer.run()));
        Worker { address, gate, handled, handle, thread: Some(thread) }
    }

    fn set_gate(&self, open: bool) {
        *self.gate.0.lock() = open;
        self.gate.1.notify_all();
    }

    fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    /// At once, whatever it holds.
    fn kill(&mut self) {
        self.set_gate(true);
        self.handle.shutdown();
        self.handle.shutdown();
        self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A lane that leads, and what it finds. The fields are in the order in which they are dropped.
struct World {
    lane: Option<Lane>,
    shared: Arc<Shared>,
    /// What the next lookups of the name answer.
    answer: Answers,
    /// Another lane of the group, if there is one.
    standby: Option<(Lane, Arc<Shared>)>,
    workers: Vec<Worker>,
    runs: Runs,
    published: Arc<AtomicU64>,
    redis: RedisServer,
}

impl World {
    fn start(consumers: &[&str]) -> World {
        let redis = RedisServer::start(RedisOptions::default()).expect("a private Redis starts");
        let answer = Answers::default();
        let (lane, shared) = World::lane(&redis, &answer, consumers, |_| {});
        let world = World {
            lane: Some(lane),
            shared,
            answer,
            standby: None,
            workers: Vec::new(),
            runs: Runs::default(),
            published: Arc::default(),
            redis,
        };
        world.wait("a leader", |world| world.shared.stats.leading.load(Ordering::Relaxed) == 1);
        world
    }

    fn lane(
        redis: &RedisServer,
        answer: &Answers,
        consumers: &[&str],
        change: impl FnOnce(&mut Settings),
    ) -> (Lane, Arc<Shared>) {
        let given = answer.clone();
        let following = Following {
            lookup: Arc::new(move |name: &str| {
                while name.starts_with("hangs") {
                    thread::park();
                }
                given.lock().clone().ok_or_else(|| io::Error::other("no name server answers"))
            }),
            lookup_every: Duration::from_millis(50),
            hold: Duration::from_millis(300),
            look_every: Duration::from_millis(50),
            ..Following::default()
        };
        let consumers = consumers.iter().map(|entry| (*entry).to_owned()).collect();
        let mut settings = Settings { following, ..settings_of(None, redis.server(), "messages", consumers) };
        change(&mut settings);
        let process = ProcessHandles {
            id: DispatcherId::generate("d0"),
            log: LogContext::new("starting"),
            leading: Leading::default(),
            moved: crossbeam_channel::bounded(1).0,
        };
        let shared = Shared::new(settings, process);
        (Lane::start(&shared, bounded(1).0, ()).expect("threads"), shared)
    }

    fn add_workers(&mut self, count: usize) {
        let begin = self.workers.len();
        self.workers.extend((begin..begin + count).map(|name| Worker::start(&self.redis, name, &self.runs)));
    }

    fn list(&self, workers: &[usize]) {
        *self.answer.lock() = Some(workers.iter().map(|worker| self.workers[*worker].address).collect());
    }

    /// Lists these, and waits until exactly these are linked.
    fn list_and_wait(&self, workers: &[usize]) {
        self.list(workers);
        self.wait(&format!("links to {workers:?}"), |world| {
            let linked = world.shared.stats.linked.lock();
            linked.len() == workers.len() && !linked.iter().any(|link| link.leaving.load(Ordering::Relaxed))
        });
    }

    fn wait(&self, what: &str, holds: impl Fn(&World) -> bool) {
        wait_until(LIMIT, what, || Ok(holds(self).then_some(()))).expect("in time");
    }

    /// Waits until each of these has handled so many more messages.
    fn wait_for_shares(&self, workers: &[usize], count: u64) {
        let before: Vec<u64> = workers.iter().map(|worker| self.workers[*worker].handled()).collect();
        let wanted = count / workers.len() as u64;
        self.wait(&format!("work of {workers:?}"), |world| {
            workers.iter().zip(&before).all(|(worker, before)| world.workers[*worker].handled() - before >= wanted)
        });
    }

    /// Publishes until the test drops the handle, in small bursts.
    fn publish(&self) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, published, mut connection) = (stop.clone(), self.published.clone(), self.redis.connection());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let burst = (0..20).map(|_| {
                    let number = published.fetch_add(1, Ordering::Relaxed).to_string();
                    Command::of(&["PUBLISH", "messages-channel", &number])
                });
                connection.pipeline("publishing", burst.collect()).expect("Redis runs");
                thread::sleep(Duration::from_millis(5));
            }
        });
        Load { stop, thread: Some(thread) }
    }

    /// The numbers of results and of pending messages.
    fn recorded(&self) -> (u64, u64) {
        let mut connection = self.redis.connection();
        let mut count = |command: &[&str]| match connection.query("counting", Command::of(command)) {
            Ok(redis::Value::Int(count)) => count as u64,
            other => panic!("{other:?}"),
        };
        (count(&["XLEN", "messages:processed"]), count(&["ZCARD", "messages:pending"]))
    }

    /// Waits until each message has its one result. Returns how often each payload was handled, by that number.
    fn end(&mut self) -> HashMap<usize, usize> {
        let published = self.published.load(Ordering::Relaxed);
        self.wait("all results", |world| world.recorded() == (published, 0));
        let runs = std::mem::take(&mut *self.runs.lock());
        assert_eq!(runs.len() as u64, published, "no message is lost");
        let mut by_count: HashMap<usize, usize> = HashMap::new();
        runs.into_values().for_each(|count| *by_count.entry(count).or_default() += 1);
        by_count
    }

    fn addresses(&self) -> Vec<usize> {
        self.shared.roster.addresses().into_iter().map(|(slot, _)| slot).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.workers.iter().for_each(|worker| worker.set_gate(true));
        self.lane.take().inspect(Lane::stop);
    }
}

struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))), "Redis took all messages");
    }
}

#[test]
fn no_handler_runs_twice_while_consumers_come_and_go() {
    let mut world = World::start(&["dns:consumers:1"]);
    world.add_workers(1);
    world.list_and_wait(&[0]);
    let load = world.publish();
    world.wait_for_shares(&[0], SHARE);
    world.add_workers(4);
    for listed in [&[0, 1, 2, 3, 4][..], &[3, 4], &[0, 1, 2, 3, 4], &[1], &[0, 1, 2, 3, 4]] {
        world.list_and_wait(listed);
        world.wait_for_shares(listed, SHARE);
    }
    // DNS that fails, is empty or forgets one for a moment changes nothing.
    let before = world.shared.stats.links_made.load(Ordering::Relaxed);
    for answer in [None, Some(Vec::new()), Some(vec![world.workers[0].address])] {
        *world.answer.lock() = answer;
        world.wait_for_shares(&[0, 1, 2, 3, 4], SHARE / 20);
        world.list(&[0, 1, 2, 3, 4]);
        world.wait_for_shares(&[0, 1, 2, 3, 4], SHARE / 4);
    }
    assert_eq!(world.shared.stats.links_made.load(Ordering::Relaxed), before);
    assert_eq!(world.addresses(), [0, 1, 2, 3, 4]);
    drop(load);
    let published = world.published.load(Ordering::Relaxed) as usize;
    assert_eq!(world.end(), HashMap::from([(1, published)]), "handler runs are messages");
}

#[test]
fn nothing_is_lost_while_consumers_come_go_and_die() {
    let mut world = World::start(&["dns:consumers:1"]);
    world.add_workers(2);
    world.list_and_wait(&[0, 1]);
    let load = world.publish();
    world.wait_for_shares(&[0, 1], SHARE);
    world.add_workers(3);
    world.list_and_wait(&[0, 1, 2, 3, 4]);
    world.wait_for_shares(&[2, 3, 4], SHARE);
    // One dies and is listed for a while, one dies as it is no longer listed.
    world.workers[0].kill();
    world.list(&[0, 2, 3, 4]);
    world.workers[1].kill();
    world.wait_for_shares(&[2, 3, 4], SHARE);
    world.list_and_wait(&[3, 4]);
    world.add_workers(3);
    world.list_and_wait(&[3, 4, 5, 6, 7]);
    world.wait_for_shares(&[3, 4, 5, 6, 7], SHARE);
    assert_eq!(world.addresses(), [0, 1, 2, 3, 4], "slots are used again");
    drop(load);
    world.end();
}

#[test]
fn a_consumer_that_is_no_longer_listed_finishes_what_it_holds() {
    let mut world = World::start(&["dns:consumers:1"]);
    world.add_workers(2);
    world.list_and_wait(&[0, 1]);
    world.workers[0].set_gate(false);
    let load = world.publish();
    let holds = |world: &World, slot: usize| {
        let linked = world.shared.stats.linked.lock();
        let link = linked.iter().find(|link| link.slot == slot)?;
        Some((link.in_flight.load(Ordering::Relaxed), link.leaving.load(Ordering::Relaxed)))
    };
    let slot = |world: &World| {
        let address = world.workers[0].address.to_string();
        world.shared.stats.linked.lock().iter().find(|link| *link.address == *address).map(|link| link.slot)
    };
    // How many more it gets depends on how busy the other one is.
    world.wait("held messages", |world| slot(world).and_then(|slot| holds(world, slot)).is_some_and(|(n, _)| n > 2));
    let held_in = slot(&world).expect("it is linked");
    world.list(&[1]);
    world.wait("the end of its time on the list", |world| holds(world, held_in).is_some_and(|(_, leaving)| leaving));
    let held = holds(&world, held_in);
    world.wait_for_shares(&[1], SHARE);
    assert_eq!(holds(&world, held_in), held, "it holds the same and gets nothing more");
    // It is listed again, and again no longer.
    world.list(&[0, 1]);
    world.wait("its return", |world| holds(world, held_in).is_some_and(|(_, leaving)| !leaving));
    world.list(&[1]);
    world.wait("its leaving", |world| holds(world, held_in).is_some_and(|(_, leaving)| leaving));
    world.workers[0].set_gate(true);
    world.wait("its end", |world| holds(world, held_in).is_none());
    world.wait("its dialer's end", |world| world.addresses().len() == 1);
    assert_eq!(world.shared.stats.links_lost.load(Ordering::Relaxed), 0, "it was drained, not lost");
    drop(load);
    let published = world.published.load(Ordering::Relaxed) as usize;
    assert_eq!(world.end(), HashMap::from([(1, published)]));
}

#[test]
fn a_lookup_that_hangs_holds_up_neither_other_sources_nor_the_end() {
    let mut world = World::start(&["dns:hangs:1", "dns:consumers:1"]);
    world.add_workers(1);
    world.list_and_wait(&[0]);
    let load = world.publish();
    world.wait_for_shares(&[0], SHARE / 10);
    drop(load);
    world.end();
    let began = Instant::now();
    drop(world);
    assert!(began.elapsed() < LIMIT / 2, "{:?}", began.elapsed());
}

/// A removed consumer still works when the leader ends. Within the time for which removed addresses are kept, the next
/// leader asks it what it holds; later what it holds is delivered again, and has one result all the same.
#[test]
fn a_next_leader_asks_a_removed_consumer_what_it_holds_for_some_time() {
    for (kept, runs) in [(Duration::from_secs(60), 1), (Duration::from_millis(100), 2)] {
        let mut world = World::start(&["dns:consumers:1"]);
        let (standby, next) = World::lane(&world.redis, &world.answer, &["dns:consumers:1"], |settings| {
            settings.following.kept_unled = kept;
            // With an order by key a new leader waits for reports as long as a link may be silent: here the machine may
            // be busy.
            settings.order_key = Some("channel".parse().expect("a key"));
            settings.link_timeout = LIMIT;
        });
        world.standby = Some((standby, next.clone()));
        world.add_workers(2);
        world.list_and_wait(&[0]);
        world.workers[0].set_gate(false);
        let number = world.published.fetch_add(1, Ordering::Relaxed).to_string();
        let publish = vec![Command::of(&["PUBLISH", "messages-channel", &number])];
        world.redis.connection().pipeline("publishing", publish).expect("Redis runs");
        world.wait("the handler to run", |world| world.runs.lock().len() == 1);
        world.list_and_wait(&[0, 1]);
        world.wait("both at the standby", |_| next.roster.addresses().len() == 2);
        world.list(&[1]);
        // One that leaves is a member without an address.
        let left = if runs == 1 { 2 } else { 1 };
        world.wait("the removal at the standby", |_| {
            (next.roster.addresses().len(), next.roster.members().len()) == (1, left)
        });
        drop(world.lane.take());
        world.wait("the next leader", |_| next.stats.leading.load(Ordering::Relaxed) == 1);
        if runs == 1 {
            world.wait("what it holds to be told", |_| {
                let linked = next.stats.linked.lock();
                let leaving = linked.iter().find(|link| link.leaving.load(Ordering::Relaxed));
                leaving.is_some_and(|link| link.in_flight.load(Ordering::Relaxed) == 1)
            });
        } else {
            world.wait("the other one's result", |world| world.recorded() == (1, 0));
        }
        world.workers[0].set_gate(true);
        world.wait("its handler's end", |world| world.workers[0].handled() == 1);
        assert_eq!(world.end(), HashMap::from([(runs, 1)]), "kept for {kept:?}");
    }
}
