//! Groups that listen to sharded channels, on a server without a cluster.

use std::ops::Range;

use oncecast::lab::RedisServer;

use super::interests::{each_of_three_rounds_once, three_rounds};
use crate::support::{client_of, cluster_of, options, programs, run_on, state, wait_until, wait_until_done};

const CHANNELS: [&str; 3] = ["orders.eu", "orders.us", "mails"];

/// Publishes `{"message_id":"<channel>/<n>"}` on each sharded channel in turn, and on the plain ones of their names.
fn publish(connection: &mut redis::Connection, numbers: Range<usize>) {
    let mut pipeline = redis::pipe();
    for number in numbers {
        let channel = CHANNELS[number % CHANNELS.len()];
        let payload = format!("{{\"message_id\":\"{channel}/{number}\"}}");
        pipeline.cmd("SPUBLISH").arg(channel).arg(payload);
        pipeline.publish(channel, "{\"message_id\":\"on the plain channel\"}").ignore();
    }
    let heard: Vec<u64> = pipeline.query(connection).expect("SPUBLISH is answered");
    assert!(heard.iter().all(|subscribers| *subscribers > 0), "a dispatcher is subscribed");
}

/// Whether the server has sharded channels: 7.0 and newer.
fn has_sharded_channels(connection: &mut redis::Connection) -> bool {
    redis::cmd("SPUBLISH").arg("x").arg("y").query::<u64>(connection).is_ok()
}

#[test]
fn each_message_on_a_sharded_channel_is_recorded_once_while_leaders_are_killed() {
    let mut cluster = cluster_of(options(2, 2, "--sharded-channel orders.eu,orders.us --sharded-channel mails", ""));
    let connection = &mut client_of(&mut cluster);
    if !has_sharded_channels(connection) {
        return;
    }
    three_rounds(&mut cluster, connection, publish);
    let results = each_of_three_rounds_once(connection);
    assert!(results.iter().all(|result| result["message_id"].starts_with(result["channel"].as_str())));
    // A leader that ends in order says so by PUBLISH, and a pause is announced in the same way.
    let url = cluster.redis().url();
    let paused = programs().command("oncecast").expect("it is built").args(["pause", "--redis-url", &url]).output();
    assert!(paused.expect("it runs").status.success());
    publish(connection, 0..10);
    wait_until("the messages to wait", || (state(connection).0 == 10).then_some(()));
}

/// The load generator publishes where such a group listens.
#[test]
fn the_publisher_publishes_on_sharded_channels() {
    let mut cluster = cluster_of(options(1, 1, "--sharded-channel load.0,load.1", ""));
    let connection = &mut client_of(&mut cluster);
    if !has_sharded_channels(connection) {
        return;
    }
    let mut publisher = programs().command("oncecast-publisher").expect("it is built");
    let url = cluster.redis().url();
    publisher.args(["--redis-url", &url, "--sharded-channel", "load", "--channels", "2", "--count", "500"]);
    let output = publisher.output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    wait_until_done(connection, 500);
    let rights = run_on::<Vec<String>>(cluster.redis() as &RedisServer, &["PUBSUB", "SHARDCHANNELS"]);
    assert!(rights.contains(&"messages:control".to_owned()), "{rights:?}");
}
