//! The private Redis and the child processes that the demonstration and all other tests use.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command as Program;
use std::time::Duration;

use oncecast::base::refusal::Refusal;
use oncecast::lab::{ChildProcess, Cluster, ClusterOptions, Programs, RedisOptions, RedisServer, Signal};
use oncecast::ledger::{Command, Connection, Server};
use redis::Value;

use crate::support::{DEADLINE, redis_server, wait_until};

fn shell(script: &str) -> ChildProcess {
    let mut command = Program::new("sh");
    command.args(["-c", script]);
    ChildProcess::spawn("shell", command).expect("sh starts")
}

fn set(connection: &mut Connection, key: &str, value: &str) {
    connection.query("setting a key", Command::of(&["SET", key, value])).expect("SET is answered");
}

fn get(connection: &mut Connection, key: &str) -> Value {
    connection.query("reading a key", Command::of(&["GET", key])).expect("GET is answered")
}

#[test]
fn each_server_is_private_and_leaves_nothing_behind() {
    let (one, two) = (redis_server(), redis_server());
    assert_ne!((one.port(), one.folder()), (two.port(), two.folder()));
    set(&mut one.connection(), "key", "value");
    assert_eq!(get(&mut two.connection(), "key"), Value::Nil);
    let (port, folder) = (one.port(), one.folder().to_owned());
    assert!(folder.is_dir());
    drop(one);
    assert!(!folder.exists());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the server still listens");
}

#[test]
fn a_password_is_required_and_given() {
    let options = RedisOptions { password: Some("s3cret".into()), ..RedisOptions::default() };
    let server = RedisServer::start(options).expect("a server with a password starts");
    assert!(server.url().contains(":s3cret@"));
    set(&mut server.connection(), "key", "value");
    let url = format!("redis://127.0.0.1:{}", server.port());
    let mut stranger = Connection::new(Server::parse(&url).expect("a valid URL"), DEADLINE);
    let refused = stranger.query("setting a key", Command::of(&["SET", "key", "value"]));
    assert_eq!(refused.expect_err("no password was given").refusal(), Some(Refusal::Login));
}

#[test]
fn persisted_data_survives_a_kill() {
    let config = vec![("appendfsync".to_owned(), "always".to_owned())];
    let options = RedisOptions { append_only: true, config, ..RedisOptions::default() };
    let mut server = RedisServer::start(options).expect("a server with an append-only file starts");
    let mut connection = server.connection();
    set(&mut connection, "key", "value");
    let (port, pid) = (server.port(), server.process().expect("it runs").pid());
    server.kill().expect("it can be killed");
    assert!(connection.query("asking", Command::of(&["PING"])).is_err(), "a killed server answered");
    server.start_again().expect("it starts again");
    assert_eq!(server.port(), port);
    assert_ne!(server.process().expect("it runs").pid(), pid);
    assert_eq!(get(&mut connection, "key"), Value::BulkString(b"value".to_vec()));
    server.stop().expect("it stops");
    server.start_again().expect("it starts after a stop, too");
    assert_eq!(get(&mut server.connection(), "key"), Value::BulkString(b"value".to_vec()));
}

#[test]
fn what_a_kill_left_of_a_transaction_does_not_come_back() {
    let options = RedisOptions { append_only: true, ..RedisOptions::default() };
    let mut server = RedisServer::start(options).expect("a server with an append-only file starts");
    let add = "for id = 1, 3 do redis.call('XADD', 'results', '*', 'id', id) end return redis.call('XLEN', 'results')";
    let add = |server: &RedisServer| {
        server.connection().query("adding results", Command::of(&["EVAL", add, "0"])).expect("EVAL is answered")
    };
    assert_eq!(add(&server), Value::Int(3));
    server.kill().expect("it can be killed");
    let file = server.folder().join("appendonlydir/appendonly.aof.1.incr.aof");
    let file = fs::OpenOptions::new().write(true).open(file).expect("the file is there");
    let whole = file.metadata().expect("it has a length").len();
    // All but the end of the transaction, as a kill in the middle of a write leaves it.
    file.set_len(whole - 20).expect("it can be cut");
    server.start_again().expect("it starts again");
    assert_eq!(add(&server), Value::Int(3), "the transaction had no end");
    server.kill().expect("it can be killed");
    server.start_again().expect("it starts once more");
    let length = server.connection().query("counting", Command::of(&["XLEN", "results"])).expect("XLEN is answered");
    assert_eq!(length, Value::Int(3));
}

#[test]
fn a_restarting_server_waits_for_its_port() {
    let mut server = redis_server();
    server.stop().expect("it stops");
    let squatter = TcpListener::bind(("127.0.0.1", server.port())).expect("the port is free");
    let waiting = std::thread::spawn(move || {
        server.start_again().expect("it starts once the port is free");
        server
    });
    // The squatter closes each connection at once, and then frees the port.
    drop(squatter.accept());
    drop(squatter);
    set(&mut waiting.join().expect("the thread ends").connection(), "key", "value");
}

#[test]
fn a_server_that_fails_to_start_reports_the_reason() {
    let config = vec![("maxmemory-policy".to_owned(), "no-such-policy".to_owned())];
    let error = RedisServer::start(RedisOptions { config, ..RedisOptions::default() }).err().expect("it cannot start");
    let message = error.to_string();
    assert!(message.contains("did not start") && message.contains("maxmemory-policy"), "{message}");
    let program = Some(PathBuf::from("/nowhere/redis-server"));
    let error = RedisServer::start(RedisOptions { program, ..RedisOptions::default() }).err().expect("no such program");
    assert!(error.to_string().contains("/nowhere/redis-server"), "{error}");
}

#[test]
fn a_test_can_wait_for_a_line_of_a_child() {
    let mut child = shell("echo event=ready >&2; echo summary; exec sleep 60");
    assert_eq!(child.wait_for_line("event=ready", DEADLINE).unwrap(), "event=ready");
    assert_eq!(child.stdout().wait_for("summ", DEADLINE).unwrap(), "summary");
    let error = child.wait_for_line("event=never", Duration::from_millis(20)).unwrap_err().to_string();
    assert!(error.contains("shell") && error.contains("event=never") && error.contains("event=ready"), "{error}");
    child.must_run().expect("it runs");
}

#[test]
fn the_exit_status_of_a_child_is_reported() {
    let mut child = shell("echo it is broken >&2; exit 7");
    assert_eq!(child.wait(DEADLINE).unwrap().code(), Some(7));
    child.stderr().wait_for("broken", DEADLINE).unwrap();
    let error = child.must_run().unwrap_err().to_string();
    assert!(error.contains("shell ended with exit code 7") && error.contains("it is broken"), "{error}");
    child.signal(Signal::SIGTERM).expect("a signal to a child that has ended is no error");
}

#[test]
fn a_paused_child_stops_cleanly() {
    let mut child = shell("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done");
    child.stdout().wait_for("up", DEADLINE).unwrap();
    child.signal(Signal::SIGSTOP).unwrap();
    assert_eq!(child.stop(DEADLINE).unwrap().code(), Some(0));
    child.stdout().wait_for("bye", DEADLINE).unwrap();
}

#[test]
fn a_child_that_ignores_the_stop_signal_is_killed() {
    let mut child = shell("trap '' TERM; echo up; while :; do sleep 0.01; done");
    child.stdout().wait_for("up", DEADLINE).unwrap();
    let error = child.stop(Duration::from_millis(50)).unwrap_err().to_string();
    assert!(error.contains("did not end within 50ms"), "{error}");
    assert!(child.ended().unwrap().is_some());
}

#[cfg(target_os = "linux")]
#[test]
fn dropping_a_child_ends_its_children_too() {
    let child = shell("sleep 600 & echo $!; wait");
    let grandchild = wait_until("the child's child", || child.stdout().all().first().cloned());
    drop(child);
    wait_until("the child's child to be gone", || {
        let status = fs::read_to_string(format!("/proc/{grandchild}/stat"));
        // A zombie was adopted by another process.
        status.map_or(true, |status| status.contains(") Z ")).then_some(())
    });
}

#[test]
fn a_cluster_without_programs_reports_what_to_build() {
    let error = Cluster::start(ClusterOptions::new(Programs::in_folder("/nowhere"))).err().expect("no programs");
    assert!(error.to_string().contains("/nowhere/oncecast-consumer"), "{error}");
}
