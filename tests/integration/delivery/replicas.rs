//! `--wait-replicas`: what no replica has confirmed is not delivered, and the reason is said, in the log, by metrics,
//! at `/readyz` and by `oncecast status`.

use std::net::SocketAddr;

use oncecast::lab::{ChildProcess, RedisOptions, RedisServer, ports};
use oncecast::{Consumer, Delivery, Outcome};

use crate::support::http::get;
use crate::support::{
    DEADLINE, RunningConsumer, programs, publish_payloads, redis_server, run, run_on, state, status, wait_until,
};

/// A server, a consumer of the library, and a dispatcher that waits for one replica.
struct Group {
    // In drop order.
    dispatcher: ChildProcess,
    metrics: SocketAddr,
    _consumer: RunningConsumer,
    server: RedisServer,
}

impl Group {
    /// `login` is what precedes the dispatcher's address of the server.
    fn start(server: RedisServer, login: &str) -> Group {
        let builder = Consumer::builder().redis_url(server.url()).listen("127.0.0.1:0");
        let consumer =
            RunningConsumer::start(builder.handler(|_: &Delivery<'_>| Ok(Outcome::new().field("done", "yes"))));
        let metrics: SocketAddr = ([127, 0, 0, 1], ports::free_port().expect("a free port")).into();
        let mut command = programs().command("oncecast-dispatcher").expect("the program is built");
        command.args(["--redis-url", &server.url().replace("://", &format!("://{login}"))]);
        command.args(["--wait-replicas", "1", "--metrics-addr", &metrics.to_string()]);
        command.args(["--consumers", &consumer.address.to_string()]);
        let dispatcher = ChildProcess::spawn("d0", command).expect("it starts");
        dispatcher.wait_for_line("event=elected", DEADLINE).expect("it leads");
        Group { dispatcher, metrics, _consumer: consumer, server }
    }

    fn client(&self) -> redis::Connection {
        crate::support::client(&self.server.url())
    }

    fn figure(&self, name: &str) -> Option<u64> {
        let (_, text) = get(self.metrics, "/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|figure| figure.trim().parse().ok())
    }

    /// Publishes, and waits until the dispatcher's log has this line, and says it again: it has tried more than once.
    fn publish_and_wait_for(&self, line: &str) {
        assert_eq!(publish_payloads(&mut self.client(), ["a", "b", "c"]), 1, "it listens");
        self.dispatcher.wait_for_line(line, DEADLINE).unwrap_or_else(|error| panic!("{error}"));
    }

    fn wait_until_done(&self) {
        let connection = &mut self.client();
        wait_until("all to be recorded", || (state(connection) == (0, 3, 0)).then_some(()));
    }
}

/// A server that follows this one, once it is in sync.
fn replica_of(server: &RedisServer) -> RedisServer {
    let primary = ("replicaof".to_owned(), format!("127.0.0.1 {}", server.port()));
    let replica = RedisServer::start(RedisOptions { config: vec![primary], ..RedisOptions::default() });
    let replica = replica.expect("a private Redis starts");
    wait_until("the replica to be in sync", || {
        let info: String = run_on(&replica, &["INFO", "replication"]);
        info.contains("master_link_status:up").then_some(())
    });
    replica
}

fn server_with(name: &str, value: &str) -> RedisServer {
    let config = vec![(name.to_owned(), value.to_owned())];
    RedisServer::start(RedisOptions { config, ..RedisOptions::default() }).expect("a private Redis starts")
}

#[test]
fn without_a_replica_nothing_is_delivered_until_there_is_one() {
    let group = Group::start(server_with("repl-diskless-sync-delay", "0"), "");
    group.publish_and_wait_for("only 0 of 1 replicas have confirmed what was stored (--wait-replicas)");
    wait_until("the metrics to show it", || (group.figure("oncecast_lacks_replicas") == Some(1)).then_some(()));
    assert!(group.figure("oncecast_intakes_unreplicated_total") > Some(0));
    const REASON: &str = "fewer than 1 replicas of Redis have what it stores (--wait-replicas)";
    wait_until("it not to be ready for this reason", || {
        get(group.metrics, "/readyz").filter(|(code, text)| *code == 503 && text.contains(REASON))
    });
    wait_until("the status to show it", || {
        let (shown, code) = status(&group.server.url());
        (code == 3 && shown.contains(REASON)).then_some(())
    });
    let connection = &mut group.client();
    assert_eq!(state(connection).1, 0, "none is delivered");
    let replica = replica_of(&group.server);
    group.wait_until_done();
    wait_until("the metrics to show it", || (group.figure("oncecast_lacks_replicas") == Some(0)).then_some(()));
    let results: u64 = run_on(&replica, &["XLEN", "messages:processed"]);
    assert!(results <= 3, "each once");
}

#[test]
fn without_the_right_to_wait_nothing_is_stored_and_the_right_is_named() {
    let server = redis_server();
    let _replica = replica_of(&server);
    let () = run_on(&server, &["ACL", "SETUSER", "u", "on", ">pw", "~*", "&*", "+@all", "-wait"]);
    let group = Group::start(server, "u:pw@");
    group.publish_and_wait_for("event=denied");
    let line = group.dispatcher.wait_for_line("+wait", DEADLINE).expect("the right is named");
    assert!(line.contains("waiting for replicas (--wait-replicas)"), "{line}");
    let connection = &mut group.client();
    // The next leader would deliver what is stored without waiting for a replica.
    assert_eq!(state(connection), (0, 0, 0));
    let () = run(connection, &["ACL", "SETUSER", "u", "+wait"]);
    group.wait_until_done();
}

/// As behind a proxy that does not know `WAIT`.
#[test]
fn a_server_without_the_command_stores_nothing_and_is_named() {
    let group = Group::start(server_with("rename-command", "WAIT renamed-wait"), "");
    group.publish_and_wait_for("waiting for replicas (--wait-replicas)");
    let line = group.dispatcher.wait_for_line("event=redis-trouble", DEADLINE).expect("it is logged");
    assert!(line.contains("WAIT") && line.contains(&group.server.port().to_string()), "{line}");
    assert_eq!(state(&mut group.client()), (0, 0, 0));
    wait_until("it not to be ready", || {
        get(group.metrics, "/readyz").filter(|(code, text)| *code == 503 && text.contains("can't store messages"))
    });
}

/// Redis itself refuses all writes, the renewal of the lease and the reports of dispatchers included.
#[test]
fn a_server_that_demands_more_replicas_is_named_by_status_and_dispatcher() {
    let group = Group::start(redis_server(), "");
    let () = run_on(&group.server, &["CONFIG", "SET", "min-replicas-to-write", "1"]);
    if group.server.version().expect("it answers").starts_with("redis 6.") {
        // It refuses single commands only, so messages are stored.
        return wait_until("the status to say so", || {
            status(&group.server.url()).0.contains("stored all the same").then_some(())
        });
    }
    wait_until("the status to name it", || {
        let (shown, code) = status(&group.server.url());
        let says = shown.contains("NOREPLICAS") && shown.contains("min-replicas-to-write demands 1");
        (code == 3 && says).then_some(())
    });
    wait_until("its reports to expire, and the status to say why", || {
        let shown = status(&group.server.url()).0;
        assert!(!shown.contains("does not report"), "{shown}");
        shown.contains("can't report now, since Redis refuses to write reports").then_some(())
    });
    wait_until("the dispatcher to name it", || {
        get(group.metrics, "/readyz").filter(|(code, text)| *code == 503 && text.contains("NOREPLICAS"))
    });
    wait_until("the status page to name it", || {
        get(group.metrics, "/status.json").filter(|(_, text)| text.contains("min-replicas-to-write demands 1"))
    });
}
