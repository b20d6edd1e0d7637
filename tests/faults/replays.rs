//! Row 42: dead letters are replayed under load, while dispatchers and the operators' tools are killed.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use oncecast::HandlerError;
use oncecast::lab::Signal;

use crate::consumer::{IN_HAND, Loaded, RUNNING, wait_until_listed};
use crate::pair::{Pair, tool, two_consumers};
use crate::run::{Run, assert_l0};
use crate::support::load::{Load, number};
use crate::support::{bare_cluster, client_of, run as run_command, state, wait_until, wait_until_in_sync};

fn replay_all(url: &str) -> Command {
    let mut command = tool(url, &["dead", "replay", "--all", "--yes"]);
    command.stdout(Stdio::null());
    command
}

/// Fails each third message while `is_broken`, in different ways.
fn judge(is_broken: &Arc<AtomicBool>) -> impl Fn(&str) -> Result<(), HandlerError> + Clone + use<> {
    let is_broken = is_broken.clone();
    move |id| {
        if is_broken.load(Ordering::Relaxed) {
            match number(id) % 9 {
                0 => return Err(HandlerError::reject("rejected")),
                3 => return Err(HandlerError::retry_after(Duration::ZERO, "failed")),
                6 => thread::sleep(Duration::from_millis(2)),
                _ => {}
            }
        }
        Ok(())
    }
}

#[test]
fn row_42_dead_letters_replayed_under_load() {
    let mut this = Run::of("row_42");
    let mut cluster = bare_cluster();
    let url = cluster.redis().url();
    let connection = &mut client_of(&mut cluster);
    let is_broken = Arc::new(AtomicBool::new(true));
    let (_consumers, addresses) = two_consumers(&url, judge(&is_broken));
    let mut dispatchers = Pair::start(&cluster, &addresses, "--max-deliveries 2 --lease-ttl-ms 600000");
    wait_until_in_sync(connection, 2);
    let load = Load::start(&url, "m", 2_000);
    let (mut killed_tools, mut letters) = (0, 0);
    for round in 0..this.scale(8, 60) as usize {
        load.wait_for_more(this.random.u64(200..800));
        letters += state(connection).2;
        // Two operators at once, one of which is killed somewhere on the way.
        let mut tools = [(); 2].map(|()| replay_all(&url).spawn().expect("the tool starts"));
        thread::sleep(Duration::from_micros(this.random.u64(0..8_000)));
        killed_tools += usize::from(tools[0].try_wait().expect("it is ours").is_none());
        tools[0].kill().expect("it is ours");
        if this.random.bool() {
            dispatchers.kill_leader(&cluster, connection);
        }
        for mut tool in tools {
            tool.wait().expect("it ends");
        }
        // While the rest fails, and then not any more.
        is_broken.store(round % 3 != 2, Ordering::Relaxed);
    }
    is_broken.store(false, Ordering::Relaxed);
    let sent = load.stop();
    wait_until("all letters to be replayed and processed", || {
        assert!(replay_all(&url).status().expect("it runs").success());
        (state(connection).2 == 0 && state(connection).0 == 0).then_some(())
    });
    assert_l0(connection, &sent);
    let (_, results, dead) = state(connection);
    assert_eq!((results, dead), (sent.owed.len(), 0), "each message has its result");
    assert_eq!(run_command::<u64>(connection, &["EXISTS", "messages:attempts"]), 0, "no history is left");
    let replayed: u64 = run_command(connection, &["GET", "messages:replayed"]);
    assert!(replayed > 0);
    this.say(format_args!("{letters} letters seen, {replayed} replayed, {killed_tools} tools killed"));
}

/// A message dies while its consumer is only paused, is replayed, and comes to another. Both finish it.
#[test]
fn row_42_late_results_of_what_was_replayed() {
    let (mut group, mut connection) = Loaded::start("--link-timeout-ms 1000 --max-deliveries 1");
    let connection = &mut connection;
    group.workers.process(0).signal(Signal::SIGSTOP).unwrap();
    wait_until("all that it holds to be dead", || (state(connection) == (0, 1, IN_HAND as usize)).then_some(()));
    assert!(replay_all(&group.cluster.redis().url()).status().expect("it runs").success());
    wait_until("the other one to work on them", || (group.workers.noted().len() > 1 + RUNNING).then_some(()));
    group.workers.process(0).signal(Signal::SIGCONT).unwrap();
    wait_until_listed(connection, &["w0", "w1"]);
    group.workers.open_gate();
    assert_l0(connection, &Loaded::sent());
    assert_eq!(state(connection), (0, 1 + IN_HAND as usize, 0));
    let late = group.workers.stop(0);
    assert!(late.contains("dropped="), "{late}");
}
