//! Row 47: Sentinels replace the primary. Nobody cuts a connection; every program finds the new primary by itself.

use std::ops::Range;
use std::time::{Duration, Instant};

use oncecast::lab::{RedisOptions, SentinelSet, Signal};
use oncecast::ledger::Command;

use crate::dispatchers::Watched;
use crate::mode::{Mode, in_both_modes};
use crate::run::{Run, assert_l0};
use crate::support::load::Load;
use crate::support::{
    DEADLINE, client, id_in_payload, logs, programs, recorded_ids, run, state, stream, wait_for_intake, wait_until,
    wait_until_in_sync,
};
use crate::workers::Workers;

const ARGS: &str = "--lease-ttl-ms 1000";
/// A bound for one switch on a busy machine; the median is what is promised.
const RESUME_LIMIT: Duration = Duration::from_secs(8);
/// What is promised of the median, and a bound for it in a short run, beside five other tests.
const MEDIAN_LIMIT_S: u64 = 1;
const BUSY_MEDIAN_LIMIT_S: u64 = 3;
/// How far back the dispatchers' memory goes, which is 3 s, less what they need to notice the switch.
const REMEMBERED: Duration = Duration::from_millis(2_500);

/// A set with two replicas, dispatchers `d0` and `d1`, and workers, all by the Sentinels' URL.
struct World {
    // In drop order.
    load: Option<Load>,
    dispatchers: Vec<Watched>,
    workers: Workers,
    set: SentinelSet,
    mode: Mode,
    args: String,
    /// The numbers of messages that may be lost.
    may_be_lost: Vec<Range<u64>>,
}

impl World {
    fn start(mode: Mode, args: &str) -> World {
        World::with(mode, args, &RedisOptions::default())
    }

    fn with(mode: Mode, args: &str, redis: &RedisOptions) -> World {
        let mut set = SentinelSet::start(redis, 2).expect("servers and Sentinels start");
        let url = set.url();
        let mut workers = Workers::of(&url, set.sentinel(0).folder(), mode.consumers(2), 2);
        workers.start_all();
        let args = mode.args(&format!("{ARGS} {args}"));
        let mut world =
            World { load: None, dispatchers: Vec::new(), workers, set, mode, args, may_be_lost: Vec::new() };
        world.start_dispatchers();
        wait_until_in_sync(&mut world.client(0), 2);
        world.load = Some(Load::following(&url, "m", 500));
        world
    }

    fn start_dispatchers(&mut self) {
        let url = self.set.url();
        self.dispatchers = ["d0", "d1"]
            .map(|name| {
                let command = programs().command("oncecast-dispatcher").expect("the program is built");
                Watched::spawn(command, name, &url, &self.workers.addresses, "127.0.0.1", &self.args)
            })
            .into();
    }

    fn load(&self) -> &Load {
        self.load.as_ref().expect("it runs")
    }

    /// A client of a server.
    fn client(&mut self, server: usize) -> redis::Connection {
        client(&self.set.server(server).url())
    }

    /// The stream with what was recorded.
    fn record(&self) -> &'static str {
        if self.mode == Mode::Stream { "messages:messages" } else { "messages:processed" }
    }

    /// Waits for the switch from this primary, and then until results flow at the new one. Returns the new primary and
    /// the time between the two.
    fn wait_until_resumed(&mut self, primary: usize) -> (usize, Duration) {
        let next = self.set.wait_for_another(0, primary, DEADLINE).expect("the Sentinels replace it");
        let switched = Instant::now();
        // The Sentinels may close its connections.
        let (mut connection, key) = (self.set.server(next).connection(), self.record());
        let mut recorded = || match connection.query("counting results", Command::of(&["XLEN", key])) {
            Ok(redis::Value::Int(recorded)) => Some(recorded),
            _ => None,
        };
        let before = wait_until("the new primary to answer", &mut recorded);
        wait_until("results to flow again", || (recorded()? > before).then_some(()));
        (next, switched.elapsed())
    }

    /// The primary, once all three Sentinels name the same one and all servers are at their places.
    fn settle(&mut self) -> usize {
        self.set.wait_until_complete().unwrap();
        wait_until("the Sentinels to agree", || {
            let named: Vec<_> = (0..3).filter_map(|sentinel| self.set.primary_by(sentinel)).collect();
            named.first().copied().filter(|first| named.iter().all(|primary| primary == first))
        })
    }

    fn finish(&mut self) {
        let load = self.load.take().expect("it runs");
        load.wait_for_more(500);
        let mut sent = load.stop();
        self.may_be_lost.iter().for_each(|numbers| sent.forgive(numbers));
        // One dispatcher has found the new primary, the other not yet. If the one then hangs, what only it has received
        // is a gap.
        sent.forgive_those_heard_by_fewer_than(2);
        let primary = wait_until("a Sentinel to name the primary", || self.set.primary_by(0));
        let connection = &mut self.client(primary);
        wait_until_in_sync(connection, 2);
        println!("{} owed, {} unheard, {} uncertain", sent.owed.len(), sent.unheard.len(), sent.uncertain.len());
        assert_l0(connection, &sent);
        let gaps = stream(connection, "messages:gaps");
        assert!(gaps.iter().all(|gap| gap.contains_key("reason")), "{gaps:?}");
        self.workers.must_run();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.set.processes().for_each(|(name, process)| logs::show_as(&name, process));
        }
    }
}

/// Checks the times from the switch to the next result.
fn judge(this: &Run, mut times: Vec<Duration>) {
    times.sort_unstable();
    let median = (times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2;
    let ms: Vec<u128> = times.iter().map(Duration::as_millis).collect();
    this.say(format_args!("results flowed {ms:?} ms after the switch"));
    assert!(times.iter().all(|time| *time < RESUME_LIMIT), "{ms:?}");
    assert!(median <= Duration::from_secs(this.scale(BUSY_MEDIAN_LIMIT_S, MEDIAN_LIMIT_S)), "{ms:?}");
}

/// The primary is killed, and comes back as a replica.
fn row_47_primary_killed(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_47_primary_killed");
    let mut world = World::start(mode, "");
    let (mut primary, mut times) = (0, Vec::new());
    for _ in 0..this.scale(3, 10) {
        world.load().wait_for_more(this.random.u64(100..400));
        world.set.server(primary).kill().unwrap();
        let (next, resumed) = world.wait_until_resumed(primary);
        times.push(resumed);
        world.set.server(primary).start_again().unwrap();
        assert_ne!(next, primary);
        primary = world.settle();
    }
    world.finish();
    judge(&this, times);
}

/// The primary hangs for so long that it is replaced, and then goes on.
fn row_47_primary_paused(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_47_primary_paused");
    let mut world = World::start(mode, "");
    let (mut primary, mut times) = (0, Vec::new());
    for _ in 0..this.scale(2, 8) {
        world.load().wait_for_more(this.random.u64(100..400));
        world.set.server(primary).process().unwrap().signal(Signal::SIGSTOP).unwrap();
        let (_, resumed) = world.wait_until_resumed(primary);
        times.push(resumed);
        world.set.server(primary).process().unwrap().signal(Signal::SIGCONT).unwrap();
        primary = world.settle();
    }
    world.finish();
    judge(&this, times);
}

/// An operator has the primary replaced, which goes on working for some seconds, until the Sentinels demote it.
fn row_47_planned_failover(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_47_planned_failover");
    let mut world = World::start(mode, "");
    let (mut primary, mut times) = (0, Vec::new());
    for _ in 0..this.scale(3, 10) {
        world.load().wait_for_more(this.random.u64(100..400));
        world.set.fail_over(0).unwrap();
        let (_, resumed) = world.wait_until_resumed(primary);
        times.push(resumed);
        primary = world.settle();
    }
    world.finish();
    judge(&this, times);
}

/// Replicas and Sentinels no longer reach the primary, but all programs do. What it stores meanwhile is stored again
/// from the dispatchers' memory, which goes back [`REMEMBERED`]. What is older is lost, and a gap says so: that
/// can only happen if the machine is so busy that the Sentinels take longer.
fn row_47_primary_cut_off_from_its_replicas(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_47_primary_cut_off_from_its_replicas");
    let users = [
        ("user", "replica on nopass +psync +replconf +ping"),
        (
            "user",
            "sentinel on nopass allchannels +multi +slaveof +ping +exec +subscribe +config|rewrite +role +publish \
             +info +client|setname +client|kill +script|kill",
        ),
        ("masteruser", "replica"),
        ("masterauth", "any"),
    ];
    let config = users.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    // Without a login nobody gets in.
    let password = Some("secret".to_owned());
    let mut world = World::with(mode, "", &RedisOptions { config, password, ..RedisOptions::default() });
    let mut primary = 0;
    let mut times = Vec::new();
    for _ in 0..this.scale(2, 6) {
        world.load().wait_for_more(this.random.u64(100..400));
        let connection = &mut world.client(primary);
        let (cut_off, first) = (Instant::now(), world.load().first_unpublished());
        for user in ["replica", "sentinel"] {
            let () = run(connection, &["ACL", "SETUSER", user, "off"]);
            let _: i64 = run(connection, &["CLIENT", "KILL", "USER", user]);
        }
        let (_, resumed) = world.wait_until_resumed(primary);
        times.push(resumed);
        let took = cut_off.elapsed() - resumed;
        if took > REMEMBERED {
            this.say(format_args!("the Sentinels took {took:?}"));
            world.may_be_lost.push(first..world.load().first_unpublished());
        }
        for user in ["replica", "sentinel"] {
            let () = run(connection, &["ACL", "SETUSER", user, "on"]);
        }
        primary = world.settle();
    }
    world.finish();
    judge(&this, times);
}

/// One of the three Sentinels is dead and another hangs for a while: the programs go on, and a failover that the other
/// two agree on is followed.
fn row_47_sentinels_lost(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_47_sentinels_lost");
    let mut world = World::start(mode, "");
    world.set.sentinel(2).kill().unwrap();
    world.set.sentinel(1).process().unwrap().signal(Signal::SIGSTOP).unwrap();
    world.load().wait_for_more(300);
    world.set.sentinel(1).process().unwrap().signal(Signal::SIGCONT).unwrap();
    world.load().wait_for_more(this.random.u64(100..400));
    world.set.server(0).kill().unwrap();
    let (_, resumed) = world.wait_until_resumed(0);
    let logged = |line: &String| line.contains("event=sentinel-down");
    let lines = world.dispatchers[0].process.stderr().all();
    assert!(lines.iter().any(logged), "a Sentinel that does not answer is logged: {lines:?}");
    world.finish();
    judge(&this, vec![resumed]);
}

/// With `--wait-replicas 1` messages that no replica has confirmed are not delivered, and none that was delivered is
/// lost, even if the primary and all dispatchers die together while the replicas lag.
fn row_47_wait_for_replicas(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_47_wait_for_replicas");
    let mut world = World::start(mode, "--wait-replicas 1");
    world.load().wait_for_more(this.random.u64(300..600));
    let replicas = [1, 2];
    for replica in replicas {
        world.set.server(replica).process().unwrap().signal(Signal::SIGSTOP).unwrap();
    }
    wait_until("one of the dispatchers to say that it lacks replicas", || {
        let lacks = |one: &Watched| one.figure("oncecast_lacks_replicas") == Some(1);
        world.dispatchers.iter().any(lacks).then_some(())
    });
    world.load().wait_for_more(200);
    // What counts, by all that anybody was told.
    let told = handed_out(&mut world, 0);
    world.set.server(0).kill().unwrap();
    world.dispatchers.clear();
    for replica in replicas {
        world.set.server(replica).process().unwrap().signal(Signal::SIGCONT).unwrap();
    }
    let next = world.set.wait_for_another(0, 0, DEADLINE).expect("the Sentinels replace it");
    world.start_dispatchers();
    let connection = &mut world.client(next);
    wait_for_intake(connection);
    wait_until("all that is pending to be done", || (state(connection).0 == 0).then_some(()));
    let recorded = recorded_ids(connection);
    let lost: Vec<&String> = told.iter().filter(|id| !recorded.contains(id)).collect();
    this.say(format_args!("{} handed out before the failover", told.len()));
    assert!(lost.is_empty(), "of {} that were handed out, {} are lost: {lost:?}", told.len(), lost.len());
}

/// The ids of messages that a worker has run, or, with a stream, that are in the stream for workers to read and that a
/// replica has as well, which is when a dispatcher counts them.
fn handed_out(world: &mut World, primary: usize) -> Vec<String> {
    if world.mode != Mode::Stream {
        return world.workers.runs().into_keys().collect();
    }
    let taken_in: u64 = world.dispatchers.iter().filter_map(|one| one.figure("oncecast_messages_taken_in_total")).sum();
    let entries = stream(&mut world.client(primary), "messages:messages");
    entries.into_iter().take(taken_in as usize).filter_map(|entry| id_in_payload(entry.get("payload")?)).collect()
}

in_both_modes! {
    row_47_primary_killed,
    row_47_primary_paused,
    row_47_planned_failover,
    row_47_primary_cut_off_from_its_replicas,
    row_47_sentinels_lost,
    row_47_wait_for_replicas,
}
