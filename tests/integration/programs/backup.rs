//! A backup is taken and restored as docs/OPERATIONS.md says, by the document's own commands: of a group with
//! consumers, and of one that delivers to a stream, into the server that has lost its data and into another one.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use oncecast::lab::{ChildProcess, Cluster, ClusterOptions, Node, RedisOptions, RedisServer};

use crate::support::{
    DEADLINE, client, client_of, lasting_redis_server, occurrences, options, pend, programs, publish, redis_server,
    run, state, stream, wait_until, wait_until_in_sync,
};

const DOCUMENT: &str = include_str!("../../../docs/OPERATIONS.md");
/// What Redis keeps in its folder.
const FILES: [&str; 3] = ["dump.rdb", "appendonlydir", "appendonly.aof"];

/// The commands of a block of the document.
fn commands(kind: &str) -> &'static str {
    let (_, rest) = DOCUMENT.split_once(&format!("```{kind}\n")).expect("a block of this kind");
    rest.split_once("```").expect("its end").0
}

/// Runs a block for a server, with folders of the test in place of the document's.
fn type_in(kinds: &[&str], port: u16, folder: &Path) {
    let blocks: String = kinds.iter().map(|kind| commands(kind)).collect();
    let block = blocks.replace("/srv/", &format!("{}/", folder.display())).replace(" 6379 ", &format!(" {port} "));
    let script = format!("set -e\nredis-cli() {{ command redis-cli -p {port} \"$@\"; }}\n{block}");
    let output = Command::new("bash").arg("-c").arg(script).output().expect("bash runs");
    assert!(output.status.success(), "{kinds:?}: {output:?}");
}

/// Puts the restored files in the place of what the server has, which must be stopped.
fn replace_data(server: &RedisServer, folder: &Path) {
    for name in FILES {
        let old: PathBuf = server.folder().join(name);
        let _ = if old.is_dir() { fs::remove_dir_all(&old) } else { fs::remove_file(&old) };
        let new = folder.join("restore").join(name);
        if new.exists() {
            fs::rename(&new, &old).expect("both are below the same folder");
        }
    }
}

/// A cluster whose Redis keeps an append-only file, as operators should have it.
fn lasting(options: ClusterOptions) -> Cluster {
    let redis = RedisOptions { append_only: true, ..RedisOptions::default() };
    Cluster::start(ClusterOptions { redis, ..options }).expect("it starts")
}

/// A folder of the test, which is removed with that of the server.
fn beside(server: &RedisServer) -> PathBuf {
    let folder = server.folder().join("srv");
    fs::create_dir(&folder).expect("it is new");
    folder
}

fn epoch(connection: &mut redis::Connection) -> u64 {
    run(connection, &["GET", "messages:epoch"])
}

fn cursor(connection: &mut redis::Connection) -> String {
    run(connection, &["GET", "messages:cursor"])
}

fn ids(prefix: &str, numbers: std::ops::Range<u64>) -> HashMap<String, usize> {
    numbers.map(|number| (format!("{prefix}{number}"), 1)).collect()
}

#[test]
fn a_restored_group_continues_from_the_backup_and_says_what_it_can_not_know() {
    let mut cluster = lasting(options(1, 1, "", ""));
    let folder = &beside(cluster.redis());
    let mut redis = client_of(&mut cluster);
    wait_until_in_sync(&mut redis, 1);
    publish(&mut redis, "m", 0..100);
    wait_until("a hundred results", || (state(&mut redis) == (0, 100, 0)).then_some(()));
    cluster.stop_node(Node::Consumer(0), DEADLINE).expect("it stops");
    publish(&mut redis, "m", 100..150);
    wait_until("fifty to wait", || (state(&mut redis).0 == 50).then_some(()));

    type_in(&["backup"], cluster.redis().port(), folder);
    let place = cursor(&mut redis);
    // After the backup those are done, and others come.
    cluster.start_node(Node::Consumer(0)).expect("it starts");
    publish(&mut redis, "m", 150..200);
    wait_until("all results", || (state(&mut redis) == (0, 200, 0)).then_some(()));
    let last_epoch = epoch(&mut redis);

    for node in [Node::Dispatcher(0), Node::Consumer(0)] {
        cluster.stop_node(node, DEADLINE).expect("it stops");
    }
    cluster.redis().kill().expect("it runs");
    type_in(&["restore", "restore-file"], 1, folder);
    replace_data(cluster.redis(), folder);
    cluster.redis().start_again().expect("it loads the restored file");
    let mut redis = client_of(&mut cluster);
    assert_eq!(state(&mut redis), (50, 100, 0), "the state of the backup");
    assert_eq!(cursor(&mut redis), place);
    assert!(epoch(&mut redis) <= last_epoch);

    cluster.start_node(Node::Consumer(0)).expect("it starts");
    cluster.start_node(Node::Dispatcher(0)).expect("it starts");
    wait_until("what was pending to be done", || (state(&mut redis) == (0, 150, 0)).then_some(()));
    assert!(epoch(&mut redis) > last_epoch, "epochs follow the clock, so none is used twice");
    wait_until_in_sync(&mut redis, 1);
    publish(&mut redis, "m", 200..220);
    wait_until("new ones to be done", || (state(&mut redis) == (0, 170, 0)).then_some(()));
    let expected: HashMap<String, usize> = ids("m", 0..150).into_iter().chain(ids("m", 200..220)).collect();
    let results = stream(&mut redis, "messages:processed");
    assert_eq!(occurrences(&results, "message_id"), expected, "each once; what came after the backup is lost");
    let gaps = stream(&mut redis, "messages:gaps");
    assert!(gaps.iter().any(|gap| gap["begin"] == place), "it is recorded from where: {place}: {gaps:?}");
}

#[test]
fn a_group_that_delivers_to_a_stream_is_restored_into_another_server() {
    let mut cluster = lasting(options(1, 0, "--deliver stream", ""));
    let folder = &beside(cluster.redis());
    let mut redis = client_of(&mut cluster);
    wait_until_in_sync(&mut redis, 1);
    publish(&mut redis, "m", 0..50);
    let entries = |redis: &mut redis::Connection| -> Vec<String> {
        let entries: Vec<(String, HashMap<String, String>)> = run(redis, &["XRANGE", "messages:messages", "-", "+"]);
        let ids: Vec<String> = entries.iter().map(|(id, _)| id.clone()).collect();
        assert!(
            ids.is_sorted_by_key(|id| id
                .split_once('-')
                .map(|(ms, n)| (ms.parse::<u64>().ok(), n.parse::<u64>().ok())))
        );
        entries.into_iter().map(|(_, fields)| fields["payload"].clone()).collect()
    };
    wait_until("all entries", || (entries(&mut redis).len() == 50).then_some(()));
    type_in(&["backup"], cluster.redis().port(), folder);
    publish(&mut redis, "m", 50..60);
    wait_until("all entries", || (entries(&mut redis).len() == 60).then_some(()));
    cluster.stop_node(Node::Dispatcher(0), DEADLINE).expect("it stops");

    let mut other = lasting_redis_server();
    other.stop().expect("it stops");
    type_in(&["restore", "restore-file"], 1, folder);
    replace_data(&other, folder);
    other.start_again().expect("it loads the restored file");
    let mut redis = client(&other.url());
    assert_eq!(entries(&mut redis).len(), 50);
    let mut command = programs().command("oncecast-dispatcher").expect("the program is built");
    command.args(["--dispatcher-id", "d1", "--deliver", "stream", "--redis-url", &other.url()]);
    let _dispatcher = ChildProcess::spawn("d1", command).expect("it starts");
    wait_until_in_sync(&mut redis, 1);
    publish(&mut redis, "m", 60..70);
    wait_until("new entries", || (entries(&mut redis).len() == 60).then_some(()));
    let expected: Vec<String> = (0..50).chain(60..70).map(|n| format!("{{\"message_id\":\"m{n}\"}}")).collect();
    assert_eq!(entries(&mut redis), expected);
    assert_eq!(stream(&mut redis, "messages:gaps").len(), 1);
}

#[test]
fn one_group_is_restored_into_a_server_that_others_use() {
    let server = redis_server();
    let folder = &beside(&server);
    pend(&server, 7, "x");
    let redis = &mut client(&server.url());
    let _: String = run(redis, &["XADD", "messages:processed", "1-1", "a", "b"]);
    // Another group, whose name begins with this one's.
    let neighbour = "messages:eu:cursor";
    let () = run(redis, &["SET", neighbour, "before"]);
    type_in(&["backup"], server.port(), folder);
    pend(&server, 8, "y");
    let () = run(redis, &["SET", "messages:cursor", "of later"]);
    let () = run(redis, &["SET", neighbour, "after"]);
    type_in(&["restore", "restore-group"], server.port(), folder);
    let mut keys: Vec<String> = run(redis, &["KEYS", "*"]);
    keys.sort_unstable();
    assert_eq!(keys, [neighbour, "messages:pending", "messages:processed"]);
    assert_eq!(run::<String>(redis, &["GET", neighbour]), "after");
    let members: Vec<String> = run(redis, &["ZRANGE", "messages:pending", "0", "-1"]);
    assert_eq!(members, ["0000000000000007:x"]);
}
