//! The secret and the certificates of all programs are replaced under load, with new links in each state in between.

use oncecast::lab::ChildProcess;

use super::super::tls::{CONSUMER, DISPATCHER, Site, secure};
use super::{consumer, dispatcher, metric, with};
use crate::support::load::Load;
use crate::support::secret::SecretFile;
use crate::support::{
    DEADLINE, assert_each_once, client_of, occurrences, redis_server, stream, wait_until_done, wait_until_in_sync,
};
use oncecast::lab::ports;

const OLD: &str = "the old secret of a rotation";
const NEW: &str = "the new secret of a rotation";

/// Records the number of the delivery beside the message's id.
const WORKER: &str = concat!(
    "-- sed -u -E ",
    r#"s/.*"delivery":([0-9]+).*message_id[^a-z]*([a-z]+[0-9]+).*/{"ok":{"message_id":"\2","delivery":"\1"}}/"#
);

/// Stops the leader, so that the other dispatcher makes all links anew, and starts another in its place.
fn replace_the_leader(
    dispatchers: &mut Vec<ChildProcess>,
    consumers: &[ChildProcess],
    start: &dyn Fn(usize) -> ChildProcess,
    number: usize,
) {
    let seen: Vec<u64> = consumers.iter().map(|consumer| consumer.stderr().count()).collect();
    assert!(dispatchers.remove(0).stop(DEADLINE).expect("it ends").success());
    for (consumer, seen) in consumers.iter().zip(seen) {
        consumer.stderr().wait_for_after(seen, "event=dispatcher-rules", DEADLINE).expect("a new link");
    }
    dispatchers.push(start(number));
}

#[test]
fn secret_and_certificates_are_replaced_under_load_and_no_message_is_delivered_twice() {
    let mut site = Site::new();
    let (of_consumers, of_dispatchers) = (SecretFile::new("rotation-c", &[OLD]), SecretFile::new("rotation-d", &[OLD]));
    let metrics: Vec<String> =
        (0..2).map(|_| format!("127.0.0.1:{}", ports::free_port().expect("a free port"))).collect();
    let (consumers, addresses): (Vec<_>, Vec<_>) = ["c0", "c1"]
        .into_iter()
        .zip(&metrics)
        .map(|(name, metrics)| {
            let own = format!("{CONSUMER} {} --metrics-addr {metrics}", with(&of_consumers));
            site.consumer(name, &format!("{own} --concurrency 2 --handler exec {WORKER}"))
        })
        .unzip();
    let addresses: Vec<String> = addresses.iter().map(|address| secure(address)).collect();
    let connection = &mut client_of(&mut site.cluster);
    let args = format!("{DISPATCHER} {}", with(&of_dispatchers));
    let start = |number: usize| site.dispatcher(&format!("d{number}"), &addresses, &args);
    let mut dispatchers = vec![start(0)];
    for consumer in &consumers {
        consumer.wait_for_line("event=dispatcher-rules", DEADLINE).expect("the link is up");
    }
    dispatchers.push(start(1));
    wait_until_in_sync(connection, 2);
    let load = Load::start(&site.cluster.redis_url(), "m", 1_000);
    load.wait_for_more(500);
    let steps: [(&SecretFile, &[&str], &str); 4] = [
        (&of_consumers, &[OLD, NEW], "consumer"),
        (&of_dispatchers, &[NEW, OLD], "dispatcher"),
        (&of_consumers, &[NEW], "consumer"),
        (&of_dispatchers, &[NEW], "dispatcher"),
    ];
    for (number, (file, lines, who)) in steps.into_iter().enumerate() {
        let names: &[&str] = if who == "consumer" { &["127.0.0.1"] } else { &[] };
        site.keep(who, &site.authority.sign(names));
        file.write(lines);
        load.wait_for_more(300);
        // The one that takes over has read the files before the change, the one after it since.
        for later in 0..2 {
            replace_the_leader(&mut dispatchers, &consumers, &start, 2 * number + later + 2);
            wait_until_in_sync(connection, 2);
            load.wait_for_more(300);
        }
    }
    let sent = load.stop();
    assert!(sent.unheard.is_empty() && sent.uncertain.is_empty(), "one was in sync all the time");
    wait_until_done(connection, sent.owed.len());
    assert_each_once(connection, &sent.owed);
    let deliveries = occurrences(&stream(connection, "messages:processed"), "delivery");
    assert_eq!(deliveries, [("1".to_owned(), sent.owed.len())].into(), "each was delivered once");
    let received: u64 =
        metrics.iter().map(|at| metric(at, "oncecast_messages_received_total").expect("it is served")).sum();
    assert_eq!(received, sent.owed.len() as u64, "accepted by one consumer, once");
    assert_eq!((stream(connection, "messages:gaps"), stream(connection, "messages:dead")), (vec![], vec![]));
    for consumer in &consumers {
        let log = consumer.stderr().all();
        let count = |part: &str| log.iter().filter(|line| line.contains(part)).count();
        assert_eq!(count("event=link-secret-read"), 2, "each change is noticed");
        assert_eq!((count("event=connection-refused"), count("event=tls-failed")), (0, 0), "{log:?}");
    }
}

#[test]
fn a_changed_secret_is_read_within_seconds_by_all_without_a_new_connection() {
    let redis = redis_server();
    let file = SecretFile::new("watched", &[OLD]);
    let (consumer, address) = consumer(&redis, &with(&file));
    let start = |name: &str| dispatcher(&redis, name, &[address.to_string()], &with(&file));
    let first = start("d0");
    first.wait_for_line("event=consumer-linked", DEADLINE).expect("they know each other");
    let standby = start("d1");
    standby.wait_for_line("event=subscribed", DEADLINE).expect("it stands by");
    file.write(&[NEW]);
    for process in [&consumer, &first, &standby] {
        process.wait_for_line("event=link-secret-read", DEADLINE).expect("it looks by itself");
    }
    file.write(&["short"]);
    for process in [&consumer, &first, &standby] {
        process.wait_for_line("event=link-secret-unusable", DEADLINE).expect("a mistake shows before it matters");
    }
}
