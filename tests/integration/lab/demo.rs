//! `oncecast demo` as a user runs it: it ends with a verdict and never leaves a process behind.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Duration;

use log::LevelFilter;
use oncecast::base::shutdown::shutdown_channel;
use oncecast::lab::console::Console;
use oncecast::lab::experiment::Experiment;
use oncecast::lab::{ChildProcess, Signal};

use crate::support::{DEADLINE, children_of, options, programs, runs, wait_until};

fn demo(options: &str) -> ChildProcess {
    let mut command = programs().command("oncecast").expect("the program is built");
    command.arg("demo").args(options.split_whitespace());
    ChildProcess::spawn("demo", command).expect("it starts")
}

/// The children of a process: id and name. Without the shell that watches over the others.
fn children(pid: u32) -> BTreeMap<u32, String> {
    let processes = std::fs::read_dir("/proc").expect("there is a /proc");
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| {
        // `pid (name) state parent …`; the name may hold anything but comes first.
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let (head, tail) = stat.rsplit_once(')')?;
        let parent: u32 = tail.split_whitespace().nth(1)?.parse().ok()?;
        (parent == pid).then(|| (id, head.split_once('(').map_or("", |(_, name)| name).to_owned()))
    })
    .filter(|(_, name)| name != "sh")
    .collect()
}

/// Waits until Redis, two dispatchers, three consumers and the publisher run.
fn whole_cluster(demo: &ChildProcess) -> BTreeMap<u32, String> {
    wait_until("seven children", || Some(children(demo.pid())).filter(|children| children.len() == 7))
}

fn assert_gone(children: &BTreeMap<u32, String>) {
    for (id, name) in children {
        // Another process may have the id by now.
        let now = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
        assert_ne!(now.trim(), name, "{id} is left behind");
    }
}

#[test]
fn it_kills_one_leader_and_nothing_is_lost_or_duplicated() {
    let mut demo = demo("--rate 500 --duration 6s");
    let children = whole_cluster(&demo);
    let status = demo.wait(3 * DEADLINE).expect("it ends");
    let shown = demo.stdout().all();
    assert_eq!(status.code(), Some(0), "{shown:?}");
    let verdict = shown.iter().rev().find(|line| line.contains("published")).expect("there is a verdict");
    let words: Vec<&str> = verdict.split_whitespace().collect();
    assert!(words.len() > 4 && words[2] == "=" && words[1] == words[4], "published = processed: {verdict}");
    assert!(verdict.contains("lost 0") && verdict.contains("recorded twice 0"), "{verdict}");
    assert!(verdict.contains("take-over") && verdict.contains(" ms"), "{verdict}");
    assert!(shown.iter().any(|line| line.contains("killed with SIGKILL")), "{shown:?}");
    assert_gone(&children);
}

#[test]
fn with_a_stream_workers_take_the_place_of_consumers() {
    let mut demo = demo("--deliver stream --rate 500 --duration 6s");
    // Redis, two dispatchers and the publisher.
    let children = wait_until("four children", || Some(children(demo.pid())).filter(|children| children.len() == 4));
    let status = demo.wait(3 * DEADLINE).expect("it ends");
    let shown = demo.stdout().all().join("\n");
    assert_eq!(status.code(), Some(0), "{shown}");
    assert!(shown.contains("workers       w0 w1 w2: any Streams client") && !shown.contains("consumers"), "{shown}");
    assert!(shown.contains("lost 0   recorded twice 0   take-over ") && shown.contains(" = processed "), "{shown}");
    assert_gone(&children);
}

/// With the example of a worker in Python.
#[test]
fn consumers_may_run_a_program() {
    let worker = format!("{}/examples/worker.py", env!("CARGO_MANIFEST_DIR"));
    let mut demo = demo(&format!("--rate 500 --duration 6s --handler exec -- python3 {worker}"));
    let children = whole_cluster(&demo);
    let status = demo.wait(3 * DEADLINE).expect("it ends");
    let shown = demo.stdout().all().join("\n");
    assert_eq!(status.code(), Some(0), "{shown}");
    assert!(shown.contains("lost 0   recorded twice 0   take-over ") && shown.contains(" = processed "), "{shown}");
    assert_gone(&children);
}

#[test]
fn a_program_that_answers_nonsense_is_shown() {
    let mut cluster = options(1, 1, "", "");
    cluster.handler_args = ["--handler", "exec", "--", "echo", "nonsense"].map(OsString::from).to_vec();
    let experiment = Experiment {
        cluster,
        rate: 100,
        batch: None,
        channels: None,
        sharded: None,
        workers: None,
        duration: Duration::from_secs(1),
        first_result_limit: Duration::from_millis(1500),
        faults: Vec::new(),
        id_prefix: "demo-",
        log_level: LevelFilter::Info,
    };
    let (handle, requests) = shutdown_channel();
    let error = experiment.run(&mut Console::stdout(handle), &requests).expect_err("nothing is processed").to_string();
    assert!(error.contains("c0 has processed none of ") && error.contains("nonsense"), "{error}");
}

#[test]
fn ctrl_c_stops_it_cleanly() {
    let mut demo = demo("--rate 100 --duration 10m");
    let children = whole_cluster(&demo);
    demo.signal(Signal::SIGINT).expect("it runs");
    let status = demo.wait(DEADLINE).expect("it ends");
    assert_eq!(status.code(), Some(0), "{:?}", demo.stdout().all());
    assert_gone(&children);
}

#[test]
fn its_children_end_when_it_is_killed() {
    let mut demo = demo("--rate 100 --duration 10m");
    let cluster = whole_cluster(&demo);
    let all = children_of(demo.pid());
    assert_eq!(all.len(), cluster.len() + 1, "the cluster and its watcher: {all:?}");
    demo.kill().expect("it runs");
    for id in all {
        wait_until(format!("the end of {id}, {:?}", cluster.get(&id)), || (!runs(id)).then_some(()));
    }
}

#[test]
fn a_child_that_fails_ends_it_and_is_named() {
    let mut demo = demo("--rate 100 --duration 10m");
    let children = whole_cluster(&demo);
    let (victim, _) = children.iter().find(|(_, name)| name.starts_with("oncecast-consum")).expect("a consumer");
    let line = std::fs::read_to_string(format!("/proc/{victim}/cmdline")).expect("it runs");
    let name = line.split('\0').skip_while(|word| *word != "--consumer-id").nth(1).expect("it has a name").to_owned();
    let killed = Command::new("kill").args(["-9", &victim.to_string()]).status().expect("kill is there");
    assert!(killed.success());
    let status = demo.wait(DEADLINE).expect("it ends");
    let said = demo.stderr().all().join("\n");
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(&name), "{said}");
    assert_gone(&children);
}

#[test]
fn without_a_redis_server_it_says_how_to_get_one() {
    let mut command = programs().command("oncecast").expect("the program is built");
    let output = command.arg("demo").env("PATH", "/nonexistent").stdin(Stdio::null()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("redis-server") && said.contains("install"), "{said}");
}
