//! A running group is switched from consumers to a stream, and back.

use std::collections::BTreeSet;

use oncecast::lab::{ChildProcess, Cluster, Signal};

use crate::support::load::Load;
use crate::support::{
    DEADLINE, bare_cluster, client_of, occurrences, options, pend, run, state, status, stream, wait_for_intake,
    wait_until,
};

const STREAM: &str = "messages:messages";

/// A dispatcher that is subscribed and holds what comes from now on.
fn start(cluster: &Cluster, name: &str, arguments: &str) -> ChildProcess {
    let mut command = cluster.command("oncecast-dispatcher").expect("the program is built");
    command.args(["--dispatcher-id", name]).args(arguments.split_whitespace());
    let process = ChildProcess::spawn(name, command).expect("it starts");
    process.wait_for_line("event=subscribed", DEADLINE).expect("it subscribes");
    process
}

fn stop(mut process: ChildProcess) {
    process.signal(Signal::SIGTERM).expect("it runs");
    assert!(process.wait(DEADLINE).expect("it ends").success());
}

/// The messages that are results or entries of the stream, each as often as it is there.
fn done(connection: &mut redis::Connection) -> Vec<(String, usize)> {
    let mut entries = stream(connection, "messages:processed");
    for mut entry in stream(connection, STREAM) {
        let payload = entry.remove("payload").expect("each entry has one");
        let id = payload.trim_start_matches("{\"message_id\":\"").trim_end_matches("\"}").to_owned();
        entries.push([("message_id".to_owned(), id)].into());
    }
    occurrences(&entries, "message_id").into_iter().collect()
}

#[test]
fn a_rolling_switch_to_a_stream_and_back_loses_nothing() {
    let mut cluster = Cluster::start(options(0, 2, "", "")).expect("it starts");
    let addresses: Vec<String> = (0..2).map(|number| cluster.address(number).to_string()).collect();
    let consumers = format!("--consumers {}", addresses.join(","));
    let connection = &mut client_of(&mut cluster);
    let mut dispatchers = [start(&cluster, "d0", &consumers), start(&cluster, "d1", &consumers)];
    let load = Load::start(&cluster.redis().url(), "m", 4_000);
    for delivery in ["--deliver stream", &consumers, "--deliver stream", &consumers] {
        for (number, process) in dispatchers.iter_mut().enumerate() {
            load.wait_for_more(1_500);
            stop(std::mem::replace(process, start(&cluster, &format!("d{number}"), delivery)));
        }
    }
    load.wait_for_more(1_500);
    let sent = load.stop();
    assert!(sent.uncertain.is_empty() && sent.unheard.is_empty(), "two dispatchers at least");
    wait_for_intake(connection);
    wait_until("nothing to be pending", || (state(connection).0 == 0).then_some(()));

    let found = done(connection);
    let twice: Vec<_> = found.iter().filter(|(_, count)| *count != 1).collect();
    let (found, owed): (BTreeSet<_>, BTreeSet<_>) =
        (found.iter().map(|(id, _)| id).collect(), sent.owed.iter().collect());
    let lost: Vec<_> = owed.difference(&found).take(5).collect();
    assert_eq!((lost, twice, found.len()), (vec![], vec![], owed.len()));
    let (_, results, dead) = state(connection);
    let entries: usize = run(connection, &["XLEN", STREAM]);
    assert!(results > 2_000 && entries > 2_000 && dead == 0, "both were used: {results} and {entries}");
    assert_eq!(stream(connection, "messages:gaps"), []);
}

/// The script with which OPERATIONS.md moves what is pending into the stream.
fn moving_script() -> &'static str {
    let document = include_str!("../../../docs/OPERATIONS.md");
    let (_, rest) = document.split_once("redis-cli EVAL \"\n").expect("a script");
    let (script, arguments) = rest.split_once("\" 2 messages:pending messages:messages\n").expect("its keys");
    assert!(!arguments.is_empty() && !script.contains(['"', '$', '`', '\\']), "the shell leaves it as it is");
    script
}

#[test]
fn what_was_stored_for_consumers_is_logged_and_can_be_moved() {
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    // Nothing listens there, so all of it stays pending.
    let first = start(&cluster, "d0", "--pattern orders.* --consumers 127.0.0.1:1");
    first.wait_for_line("event=taken-over", DEADLINE).expect("it leads");
    pend(cluster.redis(), 1_700_000_000_000_000, "12@3:abc");
    let messages = [("orders.eu", "a"), ("orders.@1:x", "b:c"), ("orders.", "")];
    for (channel, payload) in messages {
        let _: u64 = run(connection, &["PUBLISH", channel, payload]);
    }
    wait_until("all to be stored", || (state(connection).0 == 4).then_some(()));
    let second = start(&cluster, "d1", "--pattern orders.* --deliver stream");
    stop(first);
    second.wait_for_line("event=taken-over", DEADLINE).expect("it leads");
    second.wait_for_line("event=pending-left messages=4", DEADLINE).expect("it is logged");
    let _: u64 = run(connection, &["PUBLISH", "orders.us", "new"]);
    wait_until("the entry", || (stream(connection, STREAM).len() == 1).then_some(()));
    let note = "messages pending: 4, stored for consumers";
    wait_until("a note", || status(&cluster.redis_url()).0.contains(note).then_some(()));

    let words = ["EVAL", moving_script(), "2", "messages:pending", STREAM];
    assert_eq!([run::<i64>(connection, &words), run(connection, &words)], [4, 0]);
    let entry = |channel: Option<&str>, payload: &str| {
        let fields = channel.map(|channel| ("channel", channel)).into_iter().chain([("payload", payload)]);
        fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let mut expected = vec![entry(Some("orders.us"), "new"), entry(None, "12@3:abc")];
    expected.extend(messages.map(|(channel, payload)| entry(Some(channel), payload)));
    assert_eq!(stream(connection, STREAM), expected);
    wait_until("no note", || (!status(&cluster.redis_url()).0.contains("stored for consumers")).then_some(()));
    let _: u64 = run(connection, &["PUBLISH", "orders.us", "last"]);
    wait_until("ids to continue above", || (stream(connection, STREAM).len() == 6).then_some(()));
}
