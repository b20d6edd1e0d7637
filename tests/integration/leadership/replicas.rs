//! A new leader with `--wait-replicas`.

use oncecast::lab::{ChildProcess, Cluster, RedisOptions, RedisServer, Signal};

use crate::support::{DEADLINE, client_of, options, pend, programs, run, state, wait_until, wait_until_done};

/// What an earlier leader stored, and no replica has, may be undone by a failover. So it is not delivered.
#[test]
fn a_backlog_that_no_replica_has_waits() {
    let mut cluster = Cluster::start(options(0, 1, "", "")).expect("it starts");
    let connection = &mut client_of(&mut cluster);
    let () = run(connection, &["CONFIG", "SET", "repl-diskless-sync-delay", "0"]);
    let config = vec![("replicaof".to_owned(), format!("127.0.0.1 {}", cluster.redis().port()))];
    let mut replica = RedisServer::start(RedisOptions { config, ..RedisOptions::default() }).expect("a replica starts");
    wait_until("the replica to follow", || {
        let () = run(connection, &["SET", "any", "1"]);
        (run::<i64>(connection, &["WAIT", "1", "100"]) == 1).then_some(())
    });
    replica.process().expect("it runs").signal(Signal::SIGSTOP).expect("it hangs");
    pend(cluster.redis(), 1, "{}");

    let mut command = programs().command("oncecast-dispatcher").expect("the program is built");
    let consumer = cluster.address(0).to_string();
    command.args(["--redis-url", &cluster.redis_url(), "--consumers", &consumer, "--wait-replicas", "1"]);
    let dispatcher = ChildProcess::spawn("d0", command).expect("it starts");
    dispatcher.wait_for_line("event=backlog-waits", DEADLINE).expect("it says what waits");
    dispatcher.wait_for_line("event=consumer-linked", DEADLINE).expect("it has a consumer");
    let waits = |connection: &mut redis::Connection| {
        let stats: String = run(connection, &["INFO", "commandstats"]);
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_wait:calls=")?.split(',').next());
        calls.and_then(|calls| calls.parse::<u64>().ok()).unwrap_or(0)
    };
    let before = waits(connection);
    wait_until("it to ask some more", || (waits(connection) >= before + 6).then_some(()));
    assert_eq!(state(connection), (1, 0, 0), "pending, processed, dead letters");
    replica.process().expect("it runs").signal(Signal::SIGCONT).expect("it goes on");
    wait_until_done(connection, 1);
}
