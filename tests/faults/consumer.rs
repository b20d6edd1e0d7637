//! Rows about consumers: they die, hang, or do not run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use oncecast::lab::{ChildProcess, Cluster, Node, Signal};

use crate::run::{Run, assert_l0};
use crate::support::load::{Load, Sent};
use crate::support::{
    DEADLINE, bare_cluster, client_of, cluster_of, dispatcher, local_ports, most_resident_bytes, occurrences, options,
    publish, run as run_command, state, stream, wait_for_intake, wait_until, wait_until_done, wait_until_in_sync,
};
use crate::workers::{GATED, POISON, Workers};

/// Longer than any test, so that only a closed connection shows the leader that a consumer is gone.
const NO_LINK_TIMEOUT: &str = "--link-timeout-ms 600000";

pub(crate) fn wait_until_listed(connection: &mut redis::Connection, names: &[&str]) {
    let wanted: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    wait_until(format!("messages:consumers to be {wanted:?}"), || {
        let listed: BTreeSet<String> = run_command(connection, &["LRANGE", "messages:consumers", "0", "-1"]);
        (listed == wanted).then_some(())
    });
}

fn results_of(connection: &mut redis::Connection, consumer: &str) -> usize {
    occurrences(&stream(connection, "messages:processed"), "consumer_id").get(consumer).copied().unwrap_or(0)
}

/// Messages that reached a dispatcher, and so are owed.
fn sent_of(prefix: &str, numbers: std::ops::Range<u64>) -> Sent {
    Sent { owed: numbers.map(|n| format!("{prefix}{n}")).collect(), ..Sent::default() }
}

/// A consumer `w0` that holds all messages, some of them in handlers that wait at the gate, and an idle `w1`.
pub(crate) struct Loaded {
    // The processes before the server that they use.
    pub(crate) dispatcher: ChildProcess,
    pub(crate) workers: Workers,
    pub(crate) cluster: Cluster,
}

/// The messages that `w0` holds.
pub(crate) const IN_HAND: u64 = 20;
/// The messages that its handlers work on.
pub(crate) const RUNNING: usize = 3;
/// One message that `w0` has recorded before, so that Redis has its scripts. Redis 6.2 keeps loading a script waiting,
/// too, as if it wrote.
const FIRST: &str = "first";

impl Loaded {
    pub(crate) fn start(dispatcher_args: &str) -> (Loaded, redis::Connection) {
        let mut cluster = bare_cluster();
        let mut connection = client_of(&mut cluster);
        let mut workers = Workers::new(&mut cluster, 2, RUNNING);
        workers.start(0);
        let dispatcher = dispatcher(&cluster, "d0", &workers.addresses, dispatcher_args);
        wait_until_in_sync(&mut connection, 1);
        wait_until_listed(&mut connection, &["w0"]);
        assert_eq!(publish(&mut connection, FIRST, 0..1), 1);
        wait_until("the first result", || (results_of(&mut connection, "w0") == 1).then_some(()));
        assert_eq!(publish(&mut connection, GATED, 0..IN_HAND), 1);
        wait_until("all threads to be at work", || (workers.noted().len() == 1 + RUNNING).then_some(()));
        workers.start(1);
        wait_until_listed(&mut connection, &["w0", "w1"]);
        (Loaded { dispatcher, workers, cluster }, connection)
    }

    /// Opens the gate while Redis keeps writes waiting, and waits until `w0` has sent a commit. It is a script, since
    /// `w0` has lost its connections, and with them the proof that no other consumer has these messages.
    fn commit_that_waits(&mut self, connection: &mut redis::Connection) {
        let () = run_command(connection, &["CLIENT", "PAUSE", "600000", "WRITE"]);
        for id in self.clients_of_w0(connection, |_| true) {
            let _: usize = run_command(connection, &["CLIENT", "KILL", "ID", &id]);
        }
        self.workers.open_gate();
        wait_until("the commit to reach Redis", || self.has_a_script_waiting(connection).then_some(()));
    }

    fn has_a_script_waiting(&mut self, connection: &mut redis::Connection) -> bool {
        let waits = |field: &dyn Fn(&str) -> String| field("flags=").contains('b') && field("cmd=").starts_with("eval");
        !self.clients_of_w0(connection, waits).is_empty()
    }

    /// The ids of `w0`'s connections of a kind that `wanted` can tell by the fields of `CLIENT LIST`.
    fn clients_of_w0(
        &mut self,
        connection: &mut redis::Connection,
        wanted: impl Fn(&dyn Fn(&str) -> String) -> bool,
    ) -> Vec<String> {
        let ports = local_ports(self.workers.process(0).pid());
        let list: String = run_command(connection, &["CLIENT", "LIST"]);
        let id = |line: &str| {
            let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)).unwrap_or("").to_owned();
            let port: Option<u16> = field("addr=").rsplit(':').next().and_then(|port| port.parse().ok());
            (port.is_some_and(|port| ports.contains(&port)) && wanted(&field)).then(|| field("id="))
        };
        list.lines().filter_map(id).collect()
    }

    /// All messages that were published.
    pub(crate) fn sent() -> Sent {
        let owed = [sent_of(FIRST, 0..1).owed, sent_of(GATED, 0..IN_HAND).owed].concat();
        Sent { owed, ..Sent::default() }
    }
}

#[test]
fn row_18_consumer_killed_before_its_commit() {
    let run = Run::of("row_18");
    let (mut group, mut connection) = Loaded::start(NO_LINK_TIMEOUT);
    group.workers.kill(0);
    group.workers.open_gate();
    // Catches messages that wait for a timeout, or for ever, although the connection of their consumer closed.
    assert_l0(&mut connection, &Loaded::sent());
    assert_eq!(results_of(&mut connection, "w1"), IN_HAND as usize);
    assert_eq!(group.workers.repeated_runs(), RUNNING, "what had begun is run again, and nothing else");
    assert_eq!(state(&mut connection).2, 0, "one lost delivery makes no dead letter");
    let counts: usize = run_command(&mut connection, &["EXISTS", "messages:attempts"]);
    assert_eq!(counts, 0, "the counts go with the messages");
    run.say(format_args!("{RUNNING} handler runs beyond one"));
}

#[test]
fn row_18_consumer_killed_during_its_commit() {
    let run = Run::of("row_18");
    let (mut group, mut connection) = Loaded::start(NO_LINK_TIMEOUT);
    group.commit_that_waits(&mut connection);
    group.workers.kill(0);
    let () = run_command(&mut connection, &["CLIENT", "UNPAUSE"]);
    assert_l0(&mut connection, &Loaded::sent());
    assert_eq!(state(&mut connection).2, 0);
    let repeated = group.workers.repeated_runs();
    run.say(format_args!("{repeated} handler runs beyond one"));
}

#[test]
fn row_18_consumer_killed_after_its_commit() {
    let run = Run::of("row_18");
    let (mut group, mut connection) = Loaded::start(NO_LINK_TIMEOUT);
    group.commit_that_waits(&mut connection);
    // It will not see Redis's answer, so it acknowledges nothing.
    group.workers.process(0).signal(Signal::SIGSTOP).unwrap();
    wait_until_stopped(group.workers.process(0).pid());
    let () = run_command(&mut connection, &["CLIENT", "UNPAUSE"]);
    wait_until("the commit to be executed", || (state(&mut connection).1 > 1).then_some(()));
    let committed = results_of(&mut connection, "w0");
    group.workers.kill(0);
    assert_l0(&mut connection, &Loaded::sent());
    assert_eq!(results_of(&mut connection, "w0"), committed);
    assert_eq!(results_of(&mut connection, "w1"), 1 + IN_HAND as usize - committed);
    // Catches a leader that redelivers messages that are recorded but not acknowledged.
    let runs = group.workers.runs();
    let entries = stream(&mut connection, "messages:processed");
    let by_the_dead = entries.iter().filter(|entry| entry["consumer_id"] == "w0");
    let again: Vec<&str> = by_the_dead.map(|entry| entry["message_id"].as_str()).filter(|id| runs[*id] > 1).collect();
    assert_eq!(again, [""; 0], "what is recorded is not run again");
    assert_eq!(state(&mut connection).2, 0);
    run.say(format_args!("{} handler runs beyond one", group.workers.repeated_runs()));
}

/// Waits until no thread of a process runs. After SIGSTOP some may run for a moment.
fn wait_until_stopped(pid: u32) {
    wait_until("all threads to be stopped", || {
        let mut tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it is stopped, not gone");
        // The state follows the name in brackets.
        let is_stopped = |stat: String| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'));
        let stopped = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stat")).is_ok_and(is_stopped);
        tasks.all(|task| task.is_ok_and(stopped)).then_some(())
    });
}

/// Three workers, and two dispatchers with these arguments.
fn three_workers(dispatcher_args: &str) -> (Cluster, Workers, [ChildProcess; 2], redis::Connection) {
    let mut cluster = bare_cluster();
    let mut connection = client_of(&mut cluster);
    let mut workers = Workers::new(&mut cluster, 3, 2);
    (0..3).for_each(|number| workers.start(number));
    let dispatchers = ["d0", "d1"].map(|name| dispatcher(&cluster, name, &workers.addresses, dispatcher_args));
    wait_until_in_sync(&mut connection, 2);
    wait_until_listed(&mut connection, &["w0", "w1", "w2"]);
    (cluster, workers, dispatchers, connection)
}

#[test]
fn row_18_consumers_killed_under_load() {
    let mut run = Run::of("row_18_load");
    let (mut cluster, mut workers, _dispatchers, mut connection) = three_workers(NO_LINK_TIMEOUT);
    let load = Load::start(&cluster.redis().url(), "m", run.scale(2_000, 5_000));
    for _ in 0..run.scale(8, 60) {
        let victim = run.random.usize(..3);
        load.wait_for_more(run.random.u64(50..400));
        workers.kill(victim);
        load.wait_for_more(run.random.u64(50..400));
        workers.start(victim);
    }
    wait_until_listed(&mut connection, &["w0", "w1", "w2"]);
    assert_l0(&mut connection, &load.stop());
    let (dead, repeated) = (state(&mut connection).2, workers.repeated_runs());
    run.say(format_args!("{repeated} handler runs beyond one, {dead} dead letters"));
}

#[test]
fn row_19_consumer_paused_longer_than_the_link_timeout() {
    let (mut group, mut connection) = Loaded::start("--link-timeout-ms 1000");
    group.workers.process(0).signal(Signal::SIGSTOP).unwrap();
    group.dispatcher.wait_for_line("event=consumer-lost consumer=w0", DEADLINE).expect("its silence is noticed");
    group.workers.open_gate();
    wait_until_done(&mut connection, 1 + IN_HAND as usize);
    assert_eq!(results_of(&mut connection, "w1"), IN_HAND as usize, "the other one does it all");
    // Its handlers continue, and their results are committed.
    group.workers.process(0).signal(Signal::SIGCONT).unwrap();
    wait_until_listed(&mut connection, &["w0", "w1"]);
    publish(&mut connection, "later", 0..300);
    wait_until_done(&mut connection, 1 + IN_HAND as usize + 300);
    let last = group.workers.stop(0);
    assert!(last.contains(&format!("dropped={IN_HAND} ")), "its commits come too late: {last}");
    let later = results_of(&mut connection, "w0");
    assert!(later > 1, "it is used again");
    let owed = [Loaded::sent().owed, sent_of("later", 0..300).owed].concat();
    // Catches a late commit that is recorded in addition to the other's.
    assert_l0(&mut connection, &Sent { owed, ..Sent::default() });
    assert_eq!(state(&mut connection), (0, 1 + IN_HAND as usize + 300, 0));
    group.cluster.must_run().unwrap();
}

#[test]
fn row_19_consumers_paused_under_load() {
    let mut run = Run::of("row_19_load");
    let (mut cluster, mut workers, mut dispatchers, mut connection) =
        three_workers("--link-timeout-ms 700 --lease-ttl-ms 600000");
    let lease: String = run_command(&mut connection, &["GET", "messages:leader"]);
    let leader = dispatchers.iter_mut().find(|process| lease.starts_with(&format!("{}-", process.name()))).unwrap();
    let load = Load::start(&cluster.redis().url(), "m", 1_500);
    for _ in 0..run.scale(4, 40) {
        let victim = run.random.usize(..3);
        load.wait_for_more(run.random.u64(50..400));
        let seen = leader.stderr().count();
        workers.process(victim).signal(Signal::SIGSTOP).unwrap();
        let lost = format!("event=consumer-lost consumer=w{victim}");
        leader.stderr().wait_for_after(seen, &lost, DEADLINE).expect("its silence is noticed");
        load.wait_for_more(run.random.u64(50..400));
        workers.process(victim).signal(Signal::SIGCONT).unwrap();
        wait_until_listed(&mut connection, &["w0", "w1", "w2"]);
    }
    assert_l0(&mut connection, &load.stop());
    let now: String = run_command(&mut connection, &["GET", "messages:leader"]);
    assert_eq!(now, lease, "the leader did not change");
    run.say(format_args!("{} handler runs beyond one", workers.repeated_runs()));
}

#[test]
fn row_26_no_consumer_at_all() {
    /// With default settings: the sum of the bounds of ARCHITECTURE.md, and what the rest of a process needs.
    const LIMIT_BYTES: u64 = 256 << 20;
    /// The messages published at once, and the most that may be published and not yet stored: far less than a ring
    /// holds.
    const CHUNK: u64 = 10_000;
    let run = Run::of("row_26");
    let messages = run.scale(200_000, 2_000_000).next_multiple_of(CHUNK);
    let mut cluster = cluster_of(options(2, 1, "", "--concurrency 1"));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    cluster.kill_node(Node::Consumer(0)).unwrap();
    for begin in (0..messages).step_by(CHUNK as usize) {
        assert_eq!(publish(connection, "m", begin..begin + CHUNK), 2);
        // Catches an intake that stops when no consumer takes the messages.
        wait_until("the intake to follow", || (state(connection).0 as u64 >= begin).then_some(()));
    }
    wait_until("all to be stored", || (state(connection).0 as u64 == messages).then_some(()));
    let began = Instant::now();
    cluster.start_node(Node::Consumer(0)).unwrap();
    wait_for_drain(connection, messages);
    let drain_rate = messages as f64 / began.elapsed().as_secs_f64();
    assert_in_order(connection, messages);
    let mut peaks = Vec::new();
    for number in 0..2 {
        peaks.push(most_resident_bytes(cluster.process(Node::Dispatcher(number)).unwrap().pid()));
    }
    assert!(peaks.iter().all(|peak| *peak <= LIMIT_BYTES), "the dispatchers took up to {peaks:?} bytes of memory");
    assert_eq!(state(connection), (0, messages as usize, 0));
    run.say(format_args!(
        "{messages} messages; the dispatchers took up to {:?} MiB; a backlog is worked off at {drain_rate:.0} \
         messages/s, what is published now at {:.0}",
        peaks.iter().map(|peak| peak >> 20).collect::<Vec<_>>(),
        live_rate(connection, messages),
    ));
}

/// Measures how many messages per second are done without a backlog. Only shown; it decides nothing.
fn live_rate(connection: &mut redis::Connection, messages: u64) -> f64 {
    let began = Instant::now();
    for begin in (0..messages).step_by(10_000) {
        publish(connection, "live", begin..begin + 10_000);
    }
    wait_for_intake(connection);
    wait_for_drain(connection, messages + 1);
    messages as f64 / began.elapsed().as_secs_f64()
}

/// Waits until nothing is pending, for as long as the number falls.
fn wait_for_drain(connection: &mut redis::Connection, messages: u64) {
    let mut pending = messages as usize;
    while pending > 0 {
        pending = wait_until("fewer messages to be pending", || Some(state(connection).0).filter(|now| *now < pending));
    }
}

/// Fails unless each message is recorded once, and none before one that was published earlier.
fn assert_in_order(connection: &mut redis::Connection, messages: u64) {
    const PAGE: usize = 10_000;
    let (mut after, mut next) = ("-".to_owned(), 0);
    loop {
        let mut range = redis::cmd("XRANGE");
        range.arg("messages:processed").arg(&after).arg("+").arg("COUNT").arg(PAGE);
        let page: Vec<(String, BTreeMap<String, String>)> = range.query(connection).expect("the stream can be read");
        for (_, entry) in &page {
            assert_eq!(entry["message_id"], format!("m{next}"), "in the order of intake, each once");
            next += 1;
        }
        match page.last() {
            Some((last, _)) => after = format!("({last}"),
            None => break,
        }
    }
    assert_eq!(next, messages);
}

/// Waits until all messages published so far are recorded or dead letters, whatever is published meanwhile.
fn wait_until_done_so_far(connection: &mut redis::Connection) {
    wait_for_intake(connection);
    let cursor: String = run_command(connection, &["GET", "messages:cursor"]);
    let last: u64 = cursor.rsplit(' ').next().and_then(|id| id.parse().ok()).expect("a cursor ends with an id");
    wait_until("all before to be done", || {
        // A bundle's score is its last id minus 2^53.
        let bundled = (last as i64 - (1 << 53)).to_string();
        let count = |low: &str, high: &str| ["ZCOUNT", "messages:pending", low, high].map(str::to_owned);
        let left = [count("-inf", &bundled), count("0", &last.to_string())]
            .map(|command| run_command::<u64>(connection, &command.each_ref().map(String::as_str)));
        (left == [0, 0]).then_some(())
    });
}

#[test]
fn row_27_poison_message() {
    /// The fewest deliveries with which a poison message can be told from its neighbours.
    const MOST_DELIVERIES: usize = 3;
    let run = Run::of("row_27");
    let poisons = run.scale(1, 5);
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let mut workers = Workers::new(&mut cluster, 2, 2);
    (0..2).for_each(|number| workers.start(number));
    let args = format!("--max-deliveries {MOST_DELIVERIES} {NO_LINK_TIMEOUT}");
    let _dispatcher = dispatcher(&cluster, "d0", &workers.addresses, &args);
    wait_until_in_sync(connection, 1);
    wait_until_listed(connection, &["w0", "w1"]);
    let load = Load::start(&cluster.redis().url(), "m", 2_000);
    load.wait_for_more(200);
    let mut kills = 0;
    for poison in 0..poisons {
        // Among others that the same consumer holds and that take time.
        let others = 300 * poison..300 * (poison + 1);
        publish(connection, "slow-before", others.clone());
        publish(connection, POISON, poison..poison + 1);
        publish(connection, "slow-after", others);
        let deaths = MOST_DELIVERIES * (poison as usize + 1);
        wait_until(format!("{deaths} deaths and a dead letter"), || {
            // As a supervisor restarts a consumer that died.
            kills += workers.revive();
            (kills == deaths && state(connection).2 as u64 > poison).then_some(())
        });
        // The next one then finds neighbours that were not lost yet; more is not guaranteed.
        wait_until_done_so_far(connection);
    }
    load.wait_for_more(200);
    let mut sent = load.stop();
    sent.owed.extend(["slow-before", "slow-after"].iter().flat_map(|name| sent_of(name, 0..300 * poisons).owed));
    sent.owed.extend(sent_of(POISON, 0..poisons).owed);
    assert_l0(connection, &sent);
    let letters = stream(connection, "messages:dead");
    let innocent = letters.iter().filter(|letter| !letter["payload"].contains(POISON)).count();
    assert_eq!(innocent, 0, "the rest flows: only the poison goes to the dead letters, not what was in the same hands");
    assert_eq!(letters.len() as u64, poisons);
    for letter in &letters {
        assert_eq!(letter["deliveries"], MOST_DELIVERIES.to_string(), "{letter:?}");
    }
    let runs = workers.runs();
    let poison_runs = runs.iter().filter(|(name, _)| name.contains(POISON)).map(|(_, runs)| *runs).collect::<Vec<_>>();
    assert_eq!(poison_runs, vec![MOST_DELIVERIES; poisons as usize], "as often as is allowed");
    run.say(format_args!("{kills} processes died; {} handler runs beyond one", workers.repeated_runs()));
}
