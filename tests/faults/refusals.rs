//! Rows about what Redis refuses: a command of a step, because of a missing right, full memory, a key's type, a
//! stream's last id, or because it became a replica; and transactions as such.

use std::collections::HashMap;
use std::time::Duration;

use oncecast::lab::{self, ChildProcess, Cluster, Signal, ports};

use crate::dispatchers::Watched;
use crate::mode::{Mode, in_both_modes};
use crate::run::{Run, assert_l0};
use crate::support::load::{Load, Sent, number};
use crate::support::{
    DEADLINE, bare_cluster, client_of, newest_ids, programs, publish, recorded_ids, run, state, stream,
    subscription_of, wait_for_intake, wait_until, wait_until_in_sync,
};
use crate::users::{self, CONSUMER, DISPATCHER};
use crate::workers::{MIXED, Workers};

/// How long to wait for the refusal of a command that may not be called at all.
const REFUSAL_LIMIT: Duration = Duration::from_millis(1_500);

/// Two dispatchers, and two consumers if the mode has any, each with the user and the rights that the documentation
/// gives it.
struct Group {
    dispatchers: Vec<Watched>,
    workers: Workers,
    cluster: Cluster,
}

impl Group {
    fn start(mode: Mode, dispatcher_args: &str) -> (Group, redis::Connection) {
        Group::start_without(mode, &[], dispatcher_args)
    }

    /// A group whose programs lack these commands from the start.
    fn start_without(mode: Mode, taken: &[&str], dispatcher_args: &str) -> (Group, redis::Connection) {
        let mut cluster = bare_cluster();
        let mut connection = client_of(&mut cluster);
        users::make(&mut connection, mode);
        for command in taken {
            [DISPATCHER, CONSUMER].into_iter().for_each(|user| users::take(&mut connection, user, command));
        }
        let port = cluster.redis().port();
        let (url, folder) = (users::url_of(CONSUMER, port), cluster.redis().folder());
        let mut workers = Workers::of(&url, folder, mode.consumers(2), 4);
        workers.start_all();
        let url = users::url_of(DISPATCHER, port);
        let start = |name| {
            let command = programs().command("oncecast-dispatcher").expect("the program is built");
            Watched::spawn(command, name, &url, &workers.addresses, "127.0.0.1", &mode.args(dispatcher_args))
        };
        let dispatchers = ["d0", "d1"].map(start).into();
        wait_until_in_sync(&mut connection, 2);
        (Group { dispatchers, workers, cluster }, connection)
    }

    fn load(&mut self, per_second: u64) -> Load {
        Load::start(&self.cluster.redis().url(), MIXED, per_second)
    }

    /// The dispatcher that leads, once one does.
    fn leader(&self, connection: &mut redis::Connection) -> usize {
        wait_until("one of the dispatchers to lead", || {
            let lease: Option<String> = run(connection, &["GET", "messages:leader"]);
            let lease = lease?;
            self.dispatchers.iter().position(|one| lease.starts_with(&format!("{}-", one.name())))
        })
    }

    /// Cuts the leader's subscription, so that the other has to take over.
    fn unseat(&self, connection: &mut redis::Connection) {
        let leader = self.leader(connection);
        let id = subscription_of(connection, self.dispatchers[leader].process.pid());
        assert_eq!(run::<usize>(connection, &["CLIENT", "KILL", "ID", &id]), 1);
    }

    /// Fails if a process has ended.
    fn assert_l0(&mut self, connection: &mut redis::Connection, sent: &Sent) {
        assert!(sent.uncertain.is_empty() && sent.unheard.is_empty(), "one was subscribed all the time");
        assert_l0(connection, sent);
        assert_one_dead_letter_each(connection);
        self.dispatchers.iter_mut().for_each(|dispatcher| dispatcher.process.must_run().unwrap());
        self.workers.must_run();
    }
}

/// Fails if a message is twice in the dead letters, or there and in the results.
fn assert_one_dead_letter_each(connection: &mut redis::Connection) {
    let payloads = stream(connection, "messages:dead").into_iter().filter_map(|mut letter| letter.remove("payload"));
    let recorded = recorded_ids(connection).into_iter().map(|id| format!("{{\"message_id\":\"{id}\"}}"));
    let mut seen: HashMap<String, usize> = HashMap::new();
    payloads.chain(recorded).for_each(|payload| *seen.entry(payload).or_default() += 1);
    let twice: Vec<_> = seen.into_iter().filter(|(_, times)| *times > 1).take(5).collect();
    assert_eq!(twice, [], "a message ends once");
}

/// Waits until a message that is published after this call is done.
fn wait_for_new_work(connection: &mut redis::Connection, load: &Load) {
    let first = load.first_unpublished();
    wait_until(format!("the result of message {first} or a later one"), || {
        newest_ids(connection, 50).iter().any(|id| number(id) >= first).then_some(())
    });
}

/// Waits until Redis has refused something with this error since its counts were last reset.
fn wait_until_refused(connection: &mut redis::Connection, error: &str) {
    wait_until(format!("{error} to be answered"), || {
        let info: String = run(connection, &["INFO", "errorstats"]);
        info.contains(&format!("errorstat_{error}:")).then_some(())
    });
}

/// Takes each of these commands from a user in turn while messages are published, and gives it back.
fn refuse_each(mode: Mode, this: &mut Run, user: &str, commands: &[&str]) {
    let (mut group, mut connection) = Group::start(mode, "--lease-ttl-ms 1000");
    let connection = &mut connection;
    let load = group.load(this.scale(600, 1_500));
    load.wait_for_more(100);
    let mut uncalled = Vec::new();
    for command in commands {
        wait_until_in_sync(connection, 2);
        users::take(connection, user, command);
        let () = run(connection, &["SCRIPT", "FLUSH"]);
        // Some commands are used only by a new leader, or by consumers under a new leader.
        if this.random.bool() {
            group.unseat(connection);
        }
        let seen = lab::wait_until(REFUSAL_LIMIT, "a refusal", || {
            Ok((!users::refused(connection, user).is_empty()).then_some(()))
        });
        if seen.is_err() {
            uncalled.push(*command);
        }
        load.wait_for_more(this.random.u64(20..150));
        users::give_back(connection, mode, user);
        wait_for_new_work(connection, &load);
    }
    let sent = load.stop();
    this.say(format_args!("{} owed; not called, and so not refused: {uncalled:?}", sent.owed.len()));
    assert!(uncalled.len() < commands.len(), "nothing was refused, so this shows nothing");
    group.assert_l0(connection, &sent);
}

/// A seeded choice of the commands; all of them in a long run.
fn chosen<'a>(this: &mut Run, from: &[&'a str], short: usize) -> Vec<&'a str> {
    let mut commands = from.to_vec();
    this.random.shuffle(&mut commands);
    commands.truncate(this.scale(short as u64, from.len() as u64) as usize);
    commands
}

fn row_28_a_command_refused_to_dispatchers_that_write(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_28_a_command_refused_to_dispatchers_that_write");
    let writes = [
        "zadd",
        "zremrangebyscore",
        "hset",
        "hdel",
        "rpush",
        "set",
        "xadd",
        "publish",
        "pexpire",
        "del",
        "evalsha",
        "eval",
    ];
    // The first five are used only where there are consumers.
    let writes = if mode == Mode::Stream { &writes[5..] } else { &writes };
    let commands = chosen(&mut this, writes, writes.len());
    refuse_each(mode, &mut this, DISPATCHER, &commands);
}

fn row_28_a_command_refused_to_dispatchers_that_look(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_28_a_command_refused_to_dispatchers_that_look");
    let looks = [
        "zcount",
        "zrange",
        "zrangebyscore",
        "hget",
        "hmget",
        "get",
        "exists",
        "type",
        "mget",
        "time",
        "info",
        "pubsub|numsub",
        "zcard",
        "zrevrange",
        "pttl",
        "lrange",
        "xlen",
        "xtrim",
        "xrevrange",
        "script|load",
        "ping",
        "subscribe",
    ];
    // The first five are used only where there are consumers.
    let looks = if mode == Mode::Stream { &looks[5..] } else { &looks };
    let commands = chosen(&mut this, looks, 8);
    refuse_each(mode, &mut this, DISPATCHER, &commands);
}

#[test]
fn row_28_a_command_refused_to_consumers() {
    let mut this = Run::of("row_28_a_command_refused_to_consumers");
    let all = [
        "xadd",
        "zremrangebyscore",
        "hdel",
        "evalsha",
        "eval",
        "exists",
        "type",
        "set",
        "zadd",
        "get",
        "info",
        "ping",
        "script|load",
    ];
    let commands = chosen(&mut this, &all, all.len());
    refuse_each(Mode::Consumers, &mut this, CONSUMER, &commands);
}

/// Row 28: the dead letter of a rejected message can't be written, so the message must stay pending.
#[test]
fn row_28_a_dead_letter_refused() {
    let this = Run::of("row_28_a_dead_letter_refused");
    let messages = this.scale(400, 4_000);
    let (mut group, mut connection) = Group::start(Mode::Consumers, "");
    let connection = &mut connection;
    users::take(connection, DISPATCHER, "xadd");
    publish(connection, MIXED, 0..messages);
    wait_until("a dead letter to be refused", || {
        users::refused(connection, DISPATCHER).contains(&"xadd".to_owned()).then_some(())
    });
    // Messages to be redelivered may wait behind them.
    let (messages, rejected) = (messages as usize, (messages / 40) as usize);
    wait_until("the others to be done", || (state(connection).1 >= messages - 2 * rejected).then_some(()));
    let (pending, processed, dead) = state(connection);
    // A message that is recorded between the two reads is counted twice.
    assert!(
        pending + processed >= messages && dead == 0,
        "none is taken away without its letter: {pending}, {processed}, {dead}"
    );
    // Redis does not always name the kind in a script's error.
    let denied = ["NOPERM", "no permissions", "can't run this command"];
    let said =
        |one: &Watched| one.process.stderr().all().iter().any(|line| denied.iter().any(|words| line.contains(words)));
    wait_until("the reason to be said", || group.dispatchers.iter().any(said).then_some(()));
    users::give_back(connection, Mode::Consumers, DISPATCHER);
    wait_until("the dead letters", || (state(connection).2 == rejected).then_some(()));
    let sent = Sent { owed: (0..messages).map(|n| format!("{MIXED}{n}")).collect(), ..Sent::default() };
    group.assert_l0(connection, &sent);
}

/// Row 28: a full Redis refuses some commands of a step and would accept others.
fn row_28_memory_full_under_mixed_load(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_28_memory_full_under_mixed_load");
    let (mut group, mut connection) = Group::start(mode, "--lease-ttl-ms 1000");
    let connection = &mut connection;
    let load = group.load(1_000);
    for _ in 0..this.scale(3, 20) {
        wait_until_in_sync(connection, 2);
        load.wait_for_more(this.random.u64(50..400));
        let () = run(connection, &["CONFIG", "RESETSTAT"]);
        let () = run(connection, &["CONFIG", "SET", "maxmemory", "1"]);
        wait_until_refused(connection, "OOM");
        load.wait_for_more(this.random.u64(50..400));
        if this.random.bool() {
            group.unseat(connection);
            load.wait_for_more(this.random.u64(50..400));
        }
        let () = run(connection, &["CONFIG", "SET", "maxmemory", "0"]);
        wait_for_new_work(connection, &load);
    }
    let sent = load.stop();
    group.assert_l0(connection, &sent);
}

/// Row 28: a server that became a replica refuses every write, and later accepts them again.
fn row_28_server_demoted_and_promoted(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_28_server_demoted_and_promoted");
    let (mut group, mut connection) = Group::start(mode, "--lease-ttl-ms 1000");
    let connection = &mut connection;
    let nobody = ports::free_port().expect("a free port").to_string();
    let load = group.load(1_000);
    for _ in 0..this.scale(3, 20) {
        wait_until_in_sync(connection, 2);
        load.wait_for_more(this.random.u64(50..400));
        let () = run(connection, &["CONFIG", "RESETSTAT"]);
        let () = run(connection, &["REPLICAOF", "127.0.0.1", &nobody]);
        wait_until_refused(connection, "READONLY");
        load.wait_for_more(this.random.u64(20..600));
        let () = run(connection, &["REPLICAOF", "NO", "ONE"]);
        wait_for_new_work(connection, &load);
    }
    let sent = load.stop();
    group.assert_l0(connection, &sent);
}

/// Replaces a stream by something else while messages are published, waits until Redis has refused to add to it, and
/// puts the stream back.
fn replace_streams(mode: Mode, this: &mut Run, by: &[&str], error: &str) {
    let (mut group, mut connection) = Group::start(mode, "--lease-ttl-ms 1000");
    let connection = &mut connection;
    let load = group.load(800);
    let keys = match mode {
        Mode::Consumers | Mode::Mixed | Mode::Tls => ["messages:processed", "messages:dead"],
        Mode::Stream => [mode.records(); 2],
    };
    for key in keys.repeat(this.scale(2, 10) as usize) {
        wait_until_in_sync(connection, 2);
        wait_until("the stream to be there", || run::<bool>(connection, &["EXISTS", key]).then_some(()));
        load.wait_for_more(this.random.u64(50..400));
        let () = run(connection, &["CONFIG", "RESETSTAT"]);
        let words: Vec<&str> = by.iter().map(|word| if *word == "KEY" { key } else { *word }).collect();
        let mut away = redis::pipe();
        away.atomic().cmd("RENAME").arg(key).arg("aside");
        away.cmd(words[0]).arg(&words[1..]);
        let seen: Vec<u64> = group.dispatchers.iter().map(|one| one.process.stderr().count()).collect();
        let () = away.query(connection).expect("it can be renamed");
        wait_until_refused(connection, error);
        if mode == Mode::Stream {
            wait_until("a dispatcher to name the stream", || {
                let mut logs = group.dispatchers.iter().map(|one| one.process.stderr()).zip(&seen);
                logs.any(|(log, seen)| log.wait_for_after(*seen, key, Duration::ZERO).is_ok()).then_some(())
            });
        }
        load.wait_for_more(this.random.u64(20..400));
        if this.random.bool() {
            group.unseat(connection);
            load.wait_for_more(this.random.u64(20..400));
        }
        let mut back = redis::pipe();
        back.atomic().cmd("RENAME").arg(key).arg("no-stream").cmd("RENAME").arg("aside").arg(key);
        let () = back.query(connection).expect("it can be renamed");
        wait_for_new_work(connection, &load);
    }
    let sent = load.stop();
    group.assert_l0(connection, &sent);
}

fn row_28_results_and_dead_letters_replaced_by_a_string(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_28_results_and_dead_letters_replaced_by_a_string");
    replace_streams(mode, &mut this, &["SET", "KEY", "x"], "WRONGTYPE");
}

fn row_28_last_id_of_a_stream_used(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_28_last_id_of_a_stream_used");
    let last = "18446744073709551615-18446744073709551615";
    // XADD fails with ERR, as no other command does here.
    replace_streams(mode, &mut this, &["XADD", "KEY", last, "a", "b"], "ERR");
}

/// What a program has logged about working without transactions.
fn said(log: &lab::lines::Lines) -> usize {
    log.all().iter().filter(|line| line.contains("event=no-transactions")).count()
}

/// Row 29: without one of the rights that a transaction needs, scripts do the same work.
fn without_from_the_start(mode: Mode, row: &str, command: &str) {
    let this = Run::in_mode(mode, row);
    let (mut group, mut connection) = Group::start_without(mode, &[command], "--lease-ttl-ms 1000");
    let connection = &mut connection;
    let load = group.load(this.scale(1_000, 3_000));
    for _ in 0..this.scale(4, 20) {
        load.wait_for_more(200);
        wait_for_intake(connection);
        wait_for_new_work(connection, &load);
    }
    let leader = group.leader(connection);
    let sent = load.stop();
    group.assert_l0(connection, &sent);
    if mode == Mode::Stream {
        let said = group.dispatchers.iter().map(|one| said(one.process.stderr()));
        assert_eq!(said.sum::<usize>(), 0, "a stream is written by scripts alone, so nothing is missing");
        return;
    }
    assert_eq!(
        said(group.dispatchers[leader].process.stderr()),
        1,
        "the leader says once that it can't use transactions"
    );
    assert!(said(group.dispatchers[1 - leader].process.stderr()) <= 1);
    let by_consumers = [0, 1].map(|number| said(group.workers.process(number).stderr()));
    assert_eq!(by_consumers, [1, 1], "each consumer says it once");
}

fn row_29_multi_refused_from_the_start(mode: Mode) {
    without_from_the_start(mode, "row_29_multi_refused_from_the_start", "multi");
}

fn row_29_exec_refused_from_the_start(mode: Mode) {
    without_from_the_start(mode, "row_29_exec_refused_from_the_start", "exec");
}

fn row_29_watch_refused_from_the_start(mode: Mode) {
    without_from_the_start(mode, "row_29_watch_refused_from_the_start", "watch");
}

/// Row 29: the right is withdrawn under load, while a paused process still has a transaction in progress.
fn taken_under_load(row: &'static str, command: &str) {
    let mut this = Run::of(row);
    let (mut group, mut connection) = Group::start(Mode::Consumers, "--lease-ttl-ms 800 --link-timeout-ms 700");
    let connection = &mut connection;
    let load = group.load(1_000);
    load.wait_for_more(300);
    [DISPATCHER, CONSUMER].into_iter().for_each(|user| users::take(connection, user, command));
    wait_for_new_work(connection, &load);
    for _ in 0..this.scale(2, 10) {
        wait_until_in_sync(connection, 2);
        load.wait_for_more(this.random.u64(50..300));
        // The leader is paused for longer than its lease. What it then does must have no effect.
        let leader = group.leader(connection);
        let lease: String = run(connection, &["GET", "messages:leader"]);
        group.dispatchers[leader].process.signal(Signal::SIGSTOP).unwrap();
        wait_until("the other to lead", || {
            let now: Option<String> = run(connection, &["GET", "messages:leader"]);
            (now? != lease).then_some(())
        });
        load.wait_for_more(this.random.u64(50..500));
        group.dispatchers[leader].process.signal(Signal::SIGCONT).unwrap();
        // A consumer is paused until its messages are delivered to another.
        let victim = this.random.usize(..2);
        let leader = group.leader(connection);
        let log = group.dispatchers[leader].process.stderr().clone();
        let linked = format!("event=consumer-linked consumer=w{victim}");
        wait_until("it to be linked to the consumer in this term", || {
            let lines = log.all();
            let term = lines.iter().rposition(|line| line.contains("event=elected"))?;
            lines[term..].iter().any(|line| line.contains(&linked)).then_some(())
        });
        let seen = log.count();
        group.workers.process(victim).signal(Signal::SIGSTOP).unwrap();
        let lost = format!("event=consumer-lost consumer=w{victim}");
        log.wait_for_after(seen, &lost, DEADLINE).expect("its silence is noticed");
        load.wait_for_more(this.random.u64(50..500));
        group.workers.process(victim).signal(Signal::SIGCONT).unwrap();
        wait_for_new_work(connection, &load);
    }
    let sent = load.stop();
    group.assert_l0(connection, &sent);
    // Once a process has ended, its whole log has been read.
    let said_until_the_end = |process: &mut ChildProcess| {
        process.kill().unwrap();
        said(process.stderr())
    };
    let by_dispatchers = [0, 1].map(|number| said_until_the_end(&mut group.dispatchers[number].process));
    let by_consumers = [0, 1].map(|number| said_until_the_end(group.workers.process(number)));
    this.say(format_args!("said by dispatchers {by_dispatchers:?}, by consumers {by_consumers:?}"));
    let once = |times: &usize| *times == 1;
    assert!(by_dispatchers.iter().all(once) && by_consumers.iter().all(once), "each says it once, not for each batch");
}

#[test]
fn row_29_multi_refused_under_load() {
    taken_under_load("row_29_multi_refused_under_load", "multi");
}

#[test]
fn row_29_exec_refused_under_load() {
    taken_under_load("row_29_exec_refused_under_load", "exec");
}

#[test]
fn row_29_watch_refused_under_load() {
    taken_under_load("row_29_watch_refused_under_load", "watch");
}

in_both_modes! {
    row_28_a_command_refused_to_dispatchers_that_write,
    row_28_a_command_refused_to_dispatchers_that_look,
    row_28_memory_full_under_mixed_load,
    row_28_server_demoted_and_promoted,
    row_28_results_and_dead_letters_replaced_by_a_string,
    row_28_last_id_of_a_stream_used,
    row_29_multi_refused_from_the_start,
    row_29_exec_refused_from_the_start,
    row_29_watch_refused_from_the_start,
}
