//! Children and the life of their consumer: starting, not being ready, slow work, and the end.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::{Signal as NixSignal, kill, killpg};
use nix::unistd::Pid;
use oncecast::lab::folder::PrivateFolder;
use oncecast::lab::{Node, Signal, readiness};

use super::{exec_options, python};
use crate::support::{
    DEADLINE, children_of, client_of, cluster_of, publish, publish_payloads, run, runs, state, stream, wait_until,
    wait_until_done,
};

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.cast_signed())
}

/// The program goes away and comes back: the consumer is not ready meanwhile, and no delivery counts.
#[test]
fn while_the_program_is_away_nothing_fails() {
    let folder = PrivateFolder::create("exec").expect("a folder");
    let (program, away) = (folder.path().join("worker"), folder.path().join("away"));
    let script = "#!/bin/sh\nwhile read -r line; do echo \"{\\\"ok\\\":{\\\"got\\\":$line}}\"; done\n";
    fs::write(&program, script).expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("set");
    let port = oncecast::lab::ports::free_port().expect("a free port");
    let args = format!("--concurrency 2 --metrics-addr 127.0.0.1:{port}");
    let mut cluster = cluster_of(exec_options(1, "--max-deliveries 2", &args, &[program.to_str().expect("text")]));
    let connection = &mut client_of(&mut cluster);
    publish(connection, "a", 0..10);
    wait_until_done(connection, 10);
    assert!(readiness::is_ready(port), "it is ready");
    let consumer = cluster.process(Node::Consumer(0)).expect("it runs").pid();
    fs::rename(&program, &away).expect("renamed");
    // Between two messages. A child that is being killed may still read one.
    let children = children_of(consumer);
    children.iter().for_each(|child| kill(pid(*child), NixSignal::SIGKILL).expect("it runs"));
    wait_until("the end of the children", || (!children.iter().any(|child| runs(*child))).then_some(()));
    publish(connection, "b", 0..10);
    wait_until("the consumer to be not ready", || (!readiness::is_ready(port)).then_some(()));
    let log =
        cluster.process(Node::Consumer(0)).expect("it runs").wait_for_line("event=unable", DEADLINE).expect("logged");
    assert!(log.contains("can't be started: No such file"), "{log}");
    assert_eq!(state(connection), (10, 10, 0), "the rest waits");
    fs::rename(&away, &program).expect("renamed");
    wait_until_done(connection, 20);
    let results = stream(connection, "messages:processed");
    let log = cluster.process(Node::Consumer(0)).expect("it runs").stderr().tail(40);
    let again: Vec<_> = results.iter().filter(|fields| !fields["got"].contains("\"delivery\":1")).collect();
    assert!(again.is_empty(), "none has failed: {again:?}{log}");
    wait_until("the consumer to be ready again", || readiness::is_ready(port).then_some(()));
}

/// The leader's link timeout is shorter than the work, which is reported meanwhile.
#[test]
fn slow_work_is_done_once() {
    let work = "time.sleep(3); r = {'message_id': 'slow', 'delivery': m['delivery']}";
    let mut cluster = cluster_of(exec_options(2, "--link-timeout-ms 700", "", &["python3", "-c", &python(work)]));
    let connection = &mut client_of(&mut cluster);
    publish_payloads(connection, ["x"]);
    wait_until_done(connection, 1);
    let results = stream(connection, "messages:processed");
    assert!(results.len() == 1 && results[0]["delivery"] == "1", "{results:?}");
}

/// A terminal sends SIGINT to the whole process group of the consumer. Children finish what they work on.
#[test]
fn ctrl_c_lets_children_finish_and_then_ends_them() {
    let folder = PrivateFolder::create("exec").expect("a folder");
    let file = folder.path().join("end");
    let work = format!("open({0:?}, 'w').write('begun'); time.sleep(2); r = {{'message_id': 'm'}}", file.display());
    let script = python(&work) + &format!("open({:?}, 'w').write('end of input')\n", file.display());
    let mut cluster = cluster_of(exec_options(1, "", "--concurrency 1", &["python3", "-c", &script]));
    let connection = &mut client_of(&mut cluster);
    publish_payloads(connection, ["x"]);
    wait_until("the work to begin", || fs::read_to_string(&file).ok().filter(|text| text == "begun"));
    let mut consumer = cluster.release(Node::Consumer(0)).expect("it runs");
    let children = children_of(consumer.pid());
    assert_eq!(children.len(), 1);
    killpg(pid(consumer.pid()), NixSignal::SIGINT).expect("it runs");
    let status = consumer.wait(DEADLINE).expect("it ends");
    assert!(status.success(), "{status}");
    assert_eq!(fs::read_to_string(&file).expect("written"), "end of input");
    assert!(!runs(children[0]));
    assert_eq!(state(connection), (0, 1, 0), "the result was recorded");
}

#[test]
fn children_of_a_killed_consumer_find_the_end_of_their_input() {
    let work = "r = {'message_id': p}; time.sleep(0.2)";
    let mut cluster = cluster_of(exec_options(1, "", "--concurrency 4", &["python3", "-c", &python(work)]));
    let connection = &mut client_of(&mut cluster);
    publish(connection, "m", 0..8);
    wait_until_done(connection, 8);
    let mut consumer = cluster.release(Node::Consumer(0)).expect("it runs");
    let children = children_of(consumer.pid());
    assert!(children.len() > 1, "{children:?}");
    // Only the consumer, not its group.
    consumer.signal(Signal::SIGSTOP).expect("it runs");
    kill(pid(consumer.pid()), NixSignal::SIGKILL).expect("it runs");
    for child in children {
        wait_until(format!("the end of the child {child}"), || (!runs(child)).then_some(()));
    }
}

#[test]
fn what_children_write_is_in_the_log_made_harmless() {
    let work = "sys.stderr.write('bad \\x1b[31m thing ' + 'y' * 5000 + '\\n'); r = {'message_id': 'm'}";
    let mut cluster = cluster_of(exec_options(1, "", "--concurrency 1", &["python3", "-c", &python(work)]));
    let connection = &mut client_of(&mut cluster);
    publish(connection, "m", 0..1_000);
    wait_until_done(connection, 1_000);
    let consumer = cluster.process(Node::Consumer(0)).expect("it runs");
    let line = consumer.wait_for_line("event=child-stderr", DEADLINE).expect("logged");
    assert!(line.contains("child=1 pid=") && line.contains(r"bad \u{1b}[31m thing yyy"), "{line}");
    assert!(line.len() < 1_400 && line.contains('…'), "{line}");
    let lines = consumer.stderr().all().iter().filter(|line| line.contains("event=child-stderr")).count();
    assert!(lines < 200, "{lines} lines");
    let _: i64 = run(connection, &["DEL", "messages:processed"]);
}
