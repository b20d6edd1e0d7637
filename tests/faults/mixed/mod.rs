//! Rows about [consumers in several languages](crate::languages). Rows about the leader and Redis with such consumers
//! are beside those of the other modes.

use nix::sys::signal::kill;
use nix::unistd::Pid;
use oncecast::lab::cluster::STOP_LIMIT;
use oncecast::lab::{ChildProcess, Cluster, Node, Signal};

use crate::languages::CONSUMERS;
use crate::mode::Mode;
use crate::run::{Run, assert_l0};
use crate::support::load::Load;
use crate::support::proxy::Proxy;
use crate::support::workers;
use crate::support::{
    DEADLINE, children_of, client_of, cluster_of, dispatcher, run as run_command, state, wait_until, wait_until_in_sync,
};

/// The consumer whose handler runs children.
const EXEC: usize = 0;
/// No dispatcher leads for being fast, no consumer is lost for being slow, and no message is given up.
const PATIENT: &str = "--lease-ttl-ms 600000 --link-timeout-ms 600000 --max-deliveries 1000";
/// With one delivery allowed, each message that counts as failed is a dead letter.
const ONE_DELIVERY: &str = "--lease-ttl-ms 600000 --link-timeout-ms 600000 --max-deliveries 1";
/// Messages per second.
const RATE: u64 = 1_000;

/// Whether all that the consumers need is installed. If not, the row is skipped; in CI that is a failure.
pub fn is_possible(row: &str) -> bool {
    let Some(why) = workers::reason_to_skip() else { return true };
    Run::in_mode(Mode::Mixed, row).say(format_args!("SKIPPED: {why}"));
    false
}

/// Two dispatchers and the five consumers.
fn group(args: &str) -> (Cluster, redis::Connection) {
    let mut cluster = cluster_of(Mode::Mixed.options(2, CONSUMERS, args));
    let mut connection = client_of(&mut cluster);
    wait_until_in_sync(&mut connection, 2);
    (cluster, connection)
}

/// All consumers in random order, so many times in a short and a long run.
fn victims(run: &mut Run, short: u64, long: u64) -> Vec<usize> {
    let mut victims = Vec::new();
    for _ in 0..run.scale(short, long) {
        let mut all: Vec<usize> = (0..CONSUMERS).collect();
        run.random.shuffle(&mut all);
        victims.extend(all);
    }
    victims
}

/// Kills the children of the consumer that has them. Returns how many there were.
fn kill_children(cluster: &mut Cluster) -> usize {
    let consumer = cluster.process(Node::Consumer(EXEC)).expect("it runs").pid();
    let children = children_of(consumer).into_iter();
    // One may have ended meanwhile.
    children.filter(|child| kill(Pid::from_raw(child.cast_signed()), Signal::SIGKILL).is_ok()).count()
}

fn row_18_consumers_and_children_killed_under_load() {
    let mut run = Run::in_mode(Mode::Mixed, "row_18");
    let (mut cluster, mut connection) = group(PATIENT);
    let load = Load::start(&cluster.redis_url(), "m", RATE);
    let mut children = 0;
    for victim in victims(&mut run, 2, 20) {
        load.wait_for_more(run.random.u64(50..300));
        children += kill_children(&mut cluster);
        load.wait_for_more(run.random.u64(50..300));
        cluster.kill_node(Node::Consumer(victim)).unwrap();
        load.wait_for_more(run.random.u64(50..300));
        cluster.start_node(Node::Consumer(victim)).unwrap();
        cluster.wait_for_consumers(DEADLINE).unwrap();
    }
    assert_l0(&mut connection, &load.stop());
    assert!(children >= CONSUMERS, "{children} children were killed");
    assert_eq!(state(&mut connection).2, 0, "no dead letters");
    run.say(format_args!("{children} children were killed"));
}

fn row_19_consumers_paused_under_load() {
    let mut run = Run::in_mode(Mode::Mixed, "row_19");
    let args = "--link-timeout-ms 1000 --lease-ttl-ms 600000 --max-deliveries 1000";
    let (mut cluster, mut connection) = group(args);
    let (leader, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    let load = Load::start(&cluster.redis_url(), "m", RATE);
    for victim in victims(&mut run, 1, 10) {
        load.wait_for_more(run.random.u64(50..400));
        let log = cluster.process(leader).unwrap().stderr().clone();
        let seen = log.count();
        cluster.signal(Node::Consumer(victim), Signal::SIGSTOP).unwrap();
        let lost = format!("event=consumer-lost consumer=c{victim}");
        log.wait_for_after(seen, &lost, DEADLINE).expect("its silence is noticed");
        load.wait_for_more(run.random.u64(50..400));
        let seen = log.count();
        // What it still does for the messages that others have now is late.
        cluster.signal(Node::Consumer(victim), Signal::SIGCONT).unwrap();
        let linked = format!("event=consumer-linked consumer=c{victim}");
        log.wait_for_after(seen, &linked, DEADLINE).expect("it is used again");
    }
    assert_l0(&mut connection, &load.stop());
    assert_eq!(cluster.wait_for_leader(DEADLINE).unwrap(), (leader, lease), "the leader did not change");
    assert_eq!(state(&mut connection).2, 0, "no dead letters");
}

fn row_24_links_cut_under_load() {
    let mut run = Run::in_mode(Mode::Mixed, "row_24");
    let mut cluster = Cluster::start(Mode::Mixed.options(0, CONSUMERS, "")).expect("Redis and consumers start");
    let connection = &mut client_of(&mut cluster);
    let proxies: Vec<Proxy> = (0..CONSUMERS).map(|number| Proxy::to(&cluster.address(number).to_string())).collect();
    let addresses: Vec<String> = proxies.iter().map(|proxy| proxy.address.clone()).collect();
    let start = |cluster: &Cluster, name: &str| dispatcher(cluster, name, &addresses, PATIENT);
    let mut dispatchers = ["d0", "d1"].map(|name| start(&cluster, name));
    wait_until_in_sync(connection, 2);
    let load = Load::start(&cluster.redis_url(), "m", RATE);
    for round in 0..run.scale(20, 200) {
        if round % 7 == 6 {
            wait_until_in_sync(connection, 2);
            let lease: String = run_command(connection, &["GET", "messages:leader"]);
            let leads = |process: &&mut ChildProcess| lease.starts_with(&format!("{}-", process.name()));
            let leader = dispatchers.iter_mut().find(leads).expect("both run");
            leader.kill().unwrap();
            *leader = start(&cluster, leader.name());
        } else {
            proxies.iter().filter(|_| run.random.bool()).for_each(Proxy::cut);
        }
        load.wait_for_more(run.random.u64(20..400));
    }
    assert_l0(connection, &load.stop());
    assert_eq!(state(connection).2, 0, "no dead letters");
    cluster.must_run().expect("no consumer has ended");
}

fn row_25_rolling_restart() {
    let mut run = Run::in_mode(Mode::Mixed, "row_25");
    let (mut cluster, mut connection) = group(ONE_DELIVERY);
    let load = Load::start(&cluster.redis_url(), "m", RATE);
    for _ in 0..run.scale(1, 10) {
        for node in cluster.running() {
            load.wait_for_more(run.random.u64(50..300));
            // Fails if its exit code is not 0.
            cluster.stop_node(node, STOP_LIMIT).unwrap();
            load.wait_for_more(run.random.u64(50..300));
            cluster.start_node(node).unwrap();
            wait_until_in_sync(&mut connection, 2);
            cluster.wait_for_consumers(DEADLINE).unwrap();
        }
    }
    assert_l0(&mut connection, &load.stop());
    assert_eq!(state(&mut connection).2, 0, "returned messages do not count as failed");
    cluster.stop(STOP_LIMIT).expect("all end on SIGTERM");
}

fn row_35_consumer_and_leader_are_stopped_together_under_load() {
    let mut run = Run::in_mode(Mode::Mixed, "row_35");
    let (mut cluster, mut connection) = group(ONE_DELIVERY);
    let load = Load::start(&cluster.redis_url(), "m", RATE);
    for victim in victims(&mut run, 1, 10) {
        load.wait_for_more(run.random.u64(50..300));
        let (leader, _) = cluster.wait_for_leader(DEADLINE).unwrap();
        let mut both = [leader, Node::Consumer(victim)];
        run.random.shuffle(&mut both);
        let mut stopping = both.map(|node| cluster.release(node).unwrap());
        for process in &mut stopping {
            process.signal(Signal::SIGTERM).unwrap();
            load.wait_for_more(run.random.u64(1..60));
        }
        for mut process in stopping {
            let ended = process.wait(STOP_LIMIT);
            let ended = ended.unwrap_or_else(|error| panic!("it ends on SIGTERM: {}", process.failure(error)));
            assert!(ended.success(), "{}", process.failure(ended));
        }
        both.iter().for_each(|node| cluster.start_node(*node).unwrap());
        wait_until_in_sync(&mut connection, 2);
        cluster.wait_for_consumers(DEADLINE).unwrap();
    }
    assert_l0(&mut connection, &load.stop());
    assert_eq!(state(&mut connection).2, 0, "returned messages do not count as failed");
    wait_until("nothing to be counted", || {
        (!run_command::<bool>(&mut connection, &["EXISTS", "messages:attempts"])).then_some(())
    });
}

/// Makes a test of each of these rows.
macro_rules! rows {
    ($($row:ident),+ $(,)?) => {
        mod rows {
            $(#[test] fn $row() { if super::is_possible(stringify!($row)) { super::$row(); } })+
        }
    };
}

rows! {
    row_18_consumers_and_children_killed_under_load,
    row_19_consumers_paused_under_load,
    row_24_links_cut_under_load,
    row_25_rolling_restart,
    row_35_consumer_and_leader_are_stopped_together_under_load,
}
