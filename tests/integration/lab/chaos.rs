//! `oncecast chaos` as a user runs it: it injects faults, recovers, audits, and writes its report.

use std::fs;
use std::process::Command;

use oncecast::lab::folder::PrivateFolder;
use oncecast::lab::{ChildProcess, Signal};

use crate::support::{DEADLINE, is_too_old, programs, redis_server, workers};

fn chaos_command(options: &str) -> Command {
    let mut command = programs().command("oncecast").expect("the program is built");
    command.arg("chaos").args(options.split_whitespace());
    command
}

fn chaos(options: &str) -> ChildProcess {
    ChildProcess::spawn("chaos", chaos_command(options)).expect("it starts")
}

/// Runs it to its end, which must be a clean one; gives what it showed.
fn clean(options: &str) -> Vec<String> {
    end_clean(chaos(options))
}

fn end_clean(mut chaos: ChildProcess) -> Vec<String> {
    let status = chaos.wait(4 * DEADLINE).expect("it ends");
    let shown = chaos.stdout().all();
    assert_eq!(status.code(), Some(0), "{shown:#?} {:#?}", chaos.stderr().all());
    shown
}

#[test]
fn faults_are_injected_and_nothing_is_lost_or_duplicated() {
    let folder = PrivateFolder::create("report").expect("a folder");
    let report = folder.path().join("made/for/it");
    let faults = "--faults kill,pause,terminate,cut,stall --seed 4";
    let shown =
        clean(&format!("--duration 7s --rate 2000 --batch 500 --every 1s {faults} --report {}", report.display()));
    let text = shown.join("\n");
    assert!(text.contains("published 14,000 = processed 14,000   lost 0   recorded twice 0"), "{text}");
    assert!(text.contains("handler runs 14,") && text.contains("peak memory: c0 "), "{text}");
    assert!(text.contains("until results resumed"), "{text}");
    let again = shown.iter().find(|line| line.contains("oncecast chaos --seed 4 ")).expect("the command to repeat it");
    let words = again.split_whitespace().skip(1);
    let parsed = Command::new(env!("CARGO_BIN_EXE_oncecast")).args(words).arg("--help").output().expect("it runs");
    assert!(parsed.status.success(), "{again}");

    let page = fs::read_to_string(report.join("index.html")).expect("a page");
    assert!(page.contains("<svg") && page.contains("lost 0, recorded twice 0"), "{page}");
    for outside in ["src=", "href=", "url(", "@import"] {
        assert!(!page.contains(outside), "the page needs nothing else: {outside}");
    }
    let svg = fs::read_to_string(report.join("timeline.svg")).expect("a picture");
    let faults = shown.iter().find_map(|line| line.trim().split_once(" faults injected of ")?.0.parse::<usize>().ok());
    assert!(faults.is_some_and(|faults| faults > 0), "{text}");
    assert_eq!(Some(svg.matches("<circle").count()), faults, "each fault is marked");
}

#[test]
fn killed_leaders_are_replaced_and_the_times_are_shown() {
    let text =
        clean("--duration 6s --rate 1000 --batch 0 --every 1s --target leader --faults kill --seed 1").join("\n");
    assert!(text.contains("kill leader") && text.contains(" took over; its first result came"), "{text}");
}

#[test]
fn many_channels_through_one_pattern_lose_nothing() {
    let faults = "--every 1s --faults kill,pause,terminate,cut --seed 3";
    let text = clean(&format!("--duration 5s --rate 2000 --batch 0 --channels 50 {faults}")).join("\n");
    assert!(text.contains(", on 50 channels"), "{text}");
    assert!(text.contains("   lost 0   recorded twice 0"), "{text}");
    assert!(text.contains("--consumer-count 3 --channels 50"), "the command to repeat it: {text}");
}

#[test]
fn with_a_stream_each_message_is_one_entry_that_workers_read() {
    let folder = PrivateFolder::create("report").expect("a folder");
    // A stall is longer than the workers wait for a reply.
    let faults = "--every 2s --least-outage 1s --outage 6s --faults kill,pause,terminate,cut,stall --seed 3";
    let options = format!("--duration 9s --rate 2000 --batch 500 --channels 20 --deliver stream {faults}");
    let text = clean(&format!("{options} --report {}", folder.path().display())).join("\n");
    assert!(text.contains("published 18,000 = processed 18,000   lost 0   recorded twice 0"), "{text}");
    assert!(text.contains("workers       w0 w1 w2") && text.contains("entries read by workers 18,000 "), "{text}");
    assert!(!text.contains("handler runs") && !text.contains("consumers"), "{text}");
    assert!(text.contains("--channels 20 --deliver stream"), "the command to repeat it: {text}");
    let page = fs::read_to_string(folder.path().join("index.html")).expect("a page");
    assert!(page.contains("entries read by workers") && !page.contains("handler runs"), "{page}");
}

/// The lanes of a group: the report and the audit are sums over them.
#[test]
fn lanes_of_sharded_channels_lose_nothing() {
    if is_too_old(&redis_server(), "has no sharded channels") {
        return;
    }
    let faults = "--every 2s --outage 1s --faults kill,pause,terminate,cut --target leader --seed 6";
    let text = clean(&format!("--cluster --sharded --duration 9s --rate 1500 --batch 0 {faults}")).join("\n");
    assert!(text.contains(", on 3 sharded channels, one on each primary"), "{text}");
    assert!(text.contains(" = processed ") && text.contains("   lost 0   recorded twice 0"), "{text}");
    assert!(text.contains("--consumer-count 3 --cluster --sharded"), "the command to repeat it: {text}");
}

/// With the example of a worker in Python.
#[test]
fn consumers_may_run_a_program() {
    let folder = PrivateFolder::create("report").expect("a folder");
    let worker = format!("{}/examples/worker.py", env!("CARGO_MANIFEST_DIR"));
    let faults = "--every 1s --faults kill,pause,terminate,cut --seed 2 --rate 500";
    let options = format!("--duration 6s {faults} --report {}", folder.path().display());
    let text = clean(&format!("{options} --handler exec -- python3 {worker}")).join("\n");
    assert!(text.contains(" = processed ") && text.contains("   lost 0   recorded twice 0"), "{text}");
    let again = format!("--consumer-count 3 --handler exec -- python3 {worker}");
    assert!(text.contains(&again), "the command to repeat it: {text}");
    assert!(text.contains(" consumer  ") && !text.contains("handler runs"), "{text}");
    let page = fs::read_to_string(folder.path().join("index.html")).expect("a page");
    assert!(page.contains("lost 0, recorded twice 0"), "{page}");
}

/// One runs a program, the others are the examples of the packages for Python and Node.
#[test]
fn consumers_may_be_programs_in_any_language() {
    if let Some(why) = workers::reason_to_skip() {
        eprintln!("SKIPPED: {why}");
        return;
    }
    let root = env!("CARGO_MANIFEST_DIR");
    let commands = [
        format!("oncecast-consumer --handler exec -- python3 {root}/examples/worker.py"),
        format!("{} {root}/sdk/python/examples/worker.py", workers::PYTHON),
        format!("node {root}/sdk/node/examples/worker.mjs"),
    ];
    let faults = "--every 1s --faults kill,pause,terminate --target consumer --seed 5 --rate 500";
    let mut command = chaos_command(&format!("--duration 8s {faults} --consumer-count 4"));
    for words in &commands {
        command.args(["--consumer-command", words]);
    }
    command.env("PYTHONPATH", format!("{root}/sdk/python/src")).env("PYTHONDONTWRITEBYTECODE", "1");
    let text = end_clean(ChildProcess::spawn("chaos", command).expect("it starts")).join("\n");
    assert!(text.contains(" = processed ") && text.contains("   lost 0   recorded twice 0"), "{text}");
    let again = format!("--consumer-count 4 --consumer-command '{}' --consumer-command '", commands[0]);
    assert!(text.contains(&again), "the command to repeat it: {text}");
    assert!(!text.contains("handler runs"), "{text}");
}

#[test]
fn ctrl_c_ends_it_even_while_a_process_is_stopped() {
    let mut chaos = chaos("--duration 60s --rate 500 --every 2s --outage 1s --faults pause --seed 1");
    chaos.stdout().wait_for("paused with SIGSTOP", DEADLINE).expect("a process is stopped");
    chaos.signal(Signal::SIGINT).expect("it runs");
    let status = chaos.wait(2 * DEADLINE).expect("it ends");
    assert_eq!(status.code(), Some(0), "{:#?}", chaos.stdout().all());
    assert!(chaos.stdout().all().iter().any(|line| line.contains("every process has ended")));
}

#[test]
fn invalid_settings_are_named() {
    for (options, part) in [
        ("--faults kill,burn", "--faults (ONCECAST_FAULTS): got \"burn\", takes some of kill, pause, terminate"),
        ("--target nobody", "--target (ONCECAST_TARGET): got \"nobody\", takes any, leader, dispatcher, consumer"),
        (
            "--dispatcher-count 1",
            "--dispatcher-count (ONCECAST_DISPATCHER_COUNT): got \"1\", takes a whole number from 2 to 64",
        ),
        ("--channels 0", "--channels (ONCECAST_CHANNELS): got \"0\", takes a whole number from 1 to 100000"),
        ("--every 0s", "--every (ONCECAST_EVERY)"),
        ("--deliver list", "--deliver (ONCECAST_DELIVER): got \"list\", takes consumers or stream"),
        ("--deliver stream --handler exec -- true", "--handler (ONCECAST_HANDLER): got \"exec\", takes stamp, or with"),
        ("--handler stamp -- true", "--exec (ONCECAST_EXEC): got a value without --handler exec"),
        ("--deliver stream --target consumer", "--target (ONCECAST_TARGET): got \"consumer\", takes any, leader, disp"),
        (
            "--deliver stream --consumer-command true",
            "--consumer-command (ONCECAST_CONSUMER_COMMAND): got a command, takes none with --deliver stream",
        ),
        ("--consumer-command true --handler exec -- cat", "got a command, takes none with --handler exec; give it to"),
        ("--consumer-command nowhere", "nowhere"),
        ("--sharded", "--sharded (ONCECAST_SHARDED): got yes without --cluster, takes yes only with --cluster"),
        ("--cluster --sharded --faults migrate", "--faults (ONCECAST_FAULTS): got \"migrate\", takes some of kill"),
        ("--cluster --sharded --channels 4", "--sharded (ONCECAST_SHARDED): got yes with --channels"),
        ("--cluster --sharded --deliver stream", "--sharded (ONCECAST_SHARDED): got yes with --deliver stream"),
        ("--report /proc/nowhere", "--report (ONCECAST_REPORT): /proc/nowhere"),
    ] {
        let mut chaos = chaos(options);
        let status = chaos.wait(DEADLINE).expect("it ends");
        let said = chaos.stderr().tail(20);
        assert!(matches!(status.code(), Some(1 | 2)) && said.contains(part), "{options}: {status} {said}");
    }
}
