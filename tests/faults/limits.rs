//! Rows about size: an argument, a command or an answer is larger than the server, or a proxy in front of it, allows.

use std::collections::HashMap;

use oncecast::lab::{Cluster, RedisOptions, Signal, ports};
use oncecast::wire::MAX_BODY_BYTES;
use oncecast::{Consumer, Delivery};

use crate::censor::{Censor, Refusal};
use crate::dispatchers::Watched;
use crate::mode::{Mode, in_both_modes};
use crate::router::{Kind, Router};
use crate::run::{Run, assert_l0};
use crate::stream_workers::StreamWorkers;
use crate::support::load::{Load, Sent};
use crate::support::{
    RunningConsumer, bare_cluster, client_of, options, pend, programs, publish, publish_payloads, recorded_ids, run,
    state, stream, wait_for_intake, wait_until, wait_until_in_sync,
};
use crate::workers::{GATED, Workers};

/// Almost the largest payload that Redis accepts with `proto-max-bulk-len 1mb`.
const LARGE_BYTES: usize = 1_048_570;

/// A server with these lines in its configuration.
fn configured(config: &[(&str, &str)]) -> Cluster {
    let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let redis = RedisOptions { config, ..RedisOptions::default() };
    let options = oncecast::lab::ClusterOptions { redis, ..options(0, 0, "", "") };
    Cluster::start(options).expect("a private Redis starts")
}

fn dispatcher(url: &str, name: &str, addresses: &[String], args: &str) -> Watched {
    let command = programs().command("oncecast-dispatcher").expect("the program is built");
    Watched::spawn(command, name, url, addresses, "127.0.0.1", args)
}

/// A payload of so many bytes in total.
fn payload(id: &str, bytes: usize) -> String {
    let empty = format!("{{\"message_id\":\"{id}\",\"pad\":\"\"}}").len();
    format!("{{\"message_id\":\"{id}\",\"pad\":\"{}\"}}", "x".repeat(bytes - empty))
}

fn names(prefix: &str, numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|n| format!("{prefix}{n}")).collect()
}

/// Fails unless these were done, and `large` was done or is a dead letter with a reason, whole or in part.
fn assert_done_or_isolated(connection: &mut redis::Connection, small: Vec<String>, large: &str) {
    let is_large = |letter: &HashMap<String, String>| {
        letter.get("payload").is_some_and(|payload| payload.starts_with(&format!("{{\"message_id\":\"{large}\"")))
    };
    let recorded =
        |connection: &mut redis::Connection| recorded_ids(connection).iter().filter(|id| *id == large).count();
    let mut letters = Vec::new();
    wait_until(format!("{large} to be recorded or a dead letter"), || {
        letters = stream(connection, "messages:dead").into_iter().filter(is_large).collect();
        (letters.len() + recorded(connection) > 0).then_some(())
    });
    let owed = [small, vec![large.to_owned()]].concat();
    assert_l0(connection, &Sent { owed, ..Sent::default() });
    assert_eq!(letters.len() + recorded(connection), 1, "it ends once");
    assert!(letters.iter().all(|letter| !letter["reason"].is_empty()), "it is said why");
}

/// Row 38: Redis accepts no argument much longer than a megabyte. A member is the payload and an id, so a message that
/// could just be published can't be stored.
fn row_38_member_too_long(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_38_member_too_long");
    let mut cluster = configured(&[("proto-max-bulk-len", "1mb")]);
    let connection = &mut client_of(&mut cluster);
    let mut workers = Workers::new(&mut cluster, mode.consumers(1), 2);
    workers.start_all();
    let url = cluster.redis().url();
    let _dispatchers = ["d0", "d1"].map(|name| dispatcher(&url, name, &workers.addresses, &mode.args("")));
    wait_until_in_sync(connection, 2);
    let before = this.random.u64(1..200);
    publish(connection, "m", 0..before);
    publish_payloads(connection, [payload("large", LARGE_BYTES)]);
    publish(connection, "m", before..before + 200);
    assert_done_or_isolated(connection, names("m", 0..before + 200), "large");
    publish(connection, "later", 0..200);
    let small = [names("m", 0..before + 200), names("later", 0..200)].concat();
    assert_done_or_isolated(connection, small, "large");
    workers.must_run();
}

/// Row 38: Redis disconnects a client that has so much to read. A new leader reads the backlog, which has one message
/// that can't be read.
#[test]
fn row_38_message_of_the_backlog_too_long_to_read() {
    let mut this = Run::of("row_38_message_of_the_backlog_too_long_to_read");
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let mut workers = Workers::new(&mut cluster, 1, 2);
    let url = cluster.redis().url();
    let mut first = dispatcher(&url, "d0", &workers.addresses, "");
    wait_until_in_sync(connection, 1);
    let before = this.random.u64(1..10);
    publish(connection, "m", 0..before);
    publish_payloads(connection, [payload("large", MAX_BODY_BYTES)]);
    publish(connection, "m", before..10);
    wait_for_intake(connection);
    assert_eq!(state(connection).0, 11);
    // Messages in memory need not be read.
    first.process.kill().unwrap();
    let () = run(connection, &["CONFIG", "SET", "client-output-buffer-limit", "normal 2mb 2mb 0"]);
    workers.start(0);
    let _second = dispatcher(&url, "d1", &workers.addresses, "");
    wait_until("the small ones to be done", || (state(connection).1 >= 10).then_some(()));
    wait_until("nothing to be pending", || (state(connection).0 == 0).then_some(()));
    publish(connection, "later", 0..200);
    wait_until("later messages to be done", || (state(connection).1 >= 210).then_some(()));
    // The test itself must be able to read the letter or the result.
    let () = run(connection, &["CONFIG", "SET", "client-output-buffer-limit", "normal 0 0 0"]);
    assert_done_or_isolated(connection, [names("m", 0..10), names("later", 0..200)].concat(), "large");
    workers.must_run();
}

/// Row 38: a proxy in front of Redis refuses commands of 4,000 words. After a stall the batches have their full size.
fn too_many_words(row: &'static str, refusal: Refusal) {
    /// As many as a consumer holds.
    const HELD: u64 = 1_000;
    let mut this = Run::of(row);
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let censor = Censor::to(&format!("127.0.0.1:{}", cluster.redis().port()), 3_999, refusal);
    let mut workers = Workers::of(&censor.url(), cluster.redis().folder(), 1, 8);
    workers.start(0);
    let start = |name| dispatcher(&censor.url(), name, &workers.addresses, "--lease-ttl-ms 1000");
    let mut dispatchers = ["d0", "d1"].map(start);
    wait_until_in_sync(connection, 2);
    let mut owed = Vec::new();
    for round in 0..this.scale(2, 10) {
        let held = format!("{GATED}{round}-");
        workers.shut_gate();
        publish(connection, &held, 0..HELD);
        wait_until("the consumer to hold all", || {
            (workers.noted().len() as u64 >= 8
                && dispatchers.iter().filter_map(Watched::in_flight).sum::<u64>() >= HELD)
                .then_some(())
        });
        // Much is published while the leader is paused or gone, and under the next one the consumer records by script.
        let lease: String = run(connection, &["GET", "messages:leader"]);
        let leader =
            dispatchers.iter().position(|one| lease.starts_with(&format!("{}-", one.name()))).expect("it leads");
        dispatchers[leader].process.signal(Signal::SIGSTOP).unwrap();
        let waiting = format!("m{round}-");
        let messages = this.random.u64(2_000..4_000);
        publish(connection, &waiting, 0..messages);
        wait_until("the other to lead", || {
            let now: Option<String> = run(connection, &["GET", "messages:leader"]);
            (now? != lease).then_some(())
        });
        // Results pile up while Redis keeps the first of them waiting.
        let () = run(connection, &["CLIENT", "PAUSE", "700", "WRITE"]);
        workers.open_gate();
        owed.extend([names(&held, 0..HELD), names(&waiting, 0..messages)].concat());
        wait_until("all to be done", || (state(connection).1 >= owed.len()).then_some(()));
        dispatchers[leader].process.signal(Signal::SIGCONT).unwrap();
        wait_until_in_sync(connection, 2);
    }
    this.say(format_args!("{} commands were refused", censor.refused()));
    assert_l0(connection, &Sent { owed, ..Sent::default() });
    assert_eq!(stream(connection, "messages:dead"), [], "each of them can be carried, alone or with others");
    workers.must_run();
}

#[test]
fn row_38_too_many_words_answered_with_an_error() {
    too_many_words("row_38_too_many_words_answered_with_an_error", Refusal::Error);
}

#[test]
fn row_38_too_many_words_close_the_connection() {
    too_many_words("row_38_too_many_words_close_the_connection", Refusal::Close);
}

/// Row 38: a proxy in front of Redis refuses commands of so few words that the batches of a stream have to be divided,
/// while workers delete what is there already.
fn batch_for_a_stream_too_long(row: &str, refusal: Refusal) {
    /// A message has three words.
    const MOST_WORDS: u64 = 300;
    let mut this = Run::in_mode(Mode::Stream, row);
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let censor = Censor::to(&format!("127.0.0.1:{}", cluster.redis().port()), MOST_WORDS, refusal);
    let args = Mode::Stream.args("--lease-ttl-ms 1000");
    let mut dispatchers = ["d0", "d1"].map(|name| dispatcher(&censor.url(), name, &[], &args));
    wait_until_in_sync(connection, 2);
    let workers = StreamWorkers::start(Mode::Stream, &cluster.redis_url());
    let mut owed = Vec::new();
    for round in 0..this.scale(3, 20) {
        // Much is published while the leader is paused.
        let lease: String = run(connection, &["GET", "messages:leader"]);
        let leader =
            dispatchers.iter().position(|one| lease.starts_with(&format!("{}-", one.name()))).expect("it leads");
        dispatchers[leader].process.signal(Signal::SIGSTOP).unwrap();
        let (prefix, messages) = (format!("m{round}-"), this.random.u64(2_000..4_000));
        publish(connection, &prefix, 0..messages);
        owed.extend(names(&prefix, 0..messages));
        if this.random.bool() {
            wait_until("the other to lead", || {
                let now: Option<String> = run(connection, &["GET", "messages:leader"]);
                (now? != lease).then_some(())
            });
        }
        dispatchers[leader].process.signal(Signal::SIGCONT).unwrap();
        wait_until_in_sync(connection, 2);
    }
    this.say(format_args!("{} commands were refused", censor.refused()));
    assert!(censor.refused() > 0, "nothing was refused, so this shows nothing");
    workers.finish(connection);
    assert_l0(connection, &Sent { owed, ..Sent::default() });
    assert_eq!(stream(connection, "messages:dead"), [], "each of them can be carried, alone or with others");
}

#[test]
fn row_38_batch_for_a_stream_too_long_answered_with_an_error() {
    batch_for_a_stream_too_long("row_38_batch_for_a_stream_too_long_answered_with_an_error", Refusal::Error);
}

#[test]
fn row_38_batch_for_a_stream_too_long_closes_the_connection() {
    batch_for_a_stream_too_long("row_38_batch_for_a_stream_too_long_closes_the_connection", Refusal::Close);
}

/// Row 38: a handler makes a result that Redis does not accept.
#[test]
fn row_38_result_too_long() {
    let mut this = Run::of("row_38_result_too_long");
    let mut cluster = configured(&[("proto-max-bulk-len", "1mb")]);
    let connection = &mut client_of(&mut cluster);
    let handler = |delivery: &Delivery<'_>| {
        let outcome = oncecast::programs::consumer::stamp(delivery)?;
        let is_large = delivery.payload().starts_with(b"{\"message_id\":\"large");
        Ok(if is_large { outcome.field("pad", "x".repeat(2 << 20)) } else { outcome })
    };
    let url = cluster.redis().url();
    let builder = Consumer::builder().redis_url(url.clone()).listen("127.0.0.1:0").consumer_id("own");
    let consumer = RunningConsumer::start(builder.concurrency(4).prefetch(256).handler(handler));
    let _dispatchers = ["d0", "d1"].map(|name| dispatcher(&url, name, &[consumer.address.to_string()], ""));
    wait_until_in_sync(connection, 2);
    let before = this.random.u64(1..200);
    publish(connection, "m", 0..before);
    publish(connection, "large", 0..1);
    publish(connection, "m", before..before + 300);
    assert_done_or_isolated(connection, names("m", 0..before + 300), "large0");
}

/// Row 38: for a moment a proxy without a server accepts connections and closes them. That must not count as a matter
/// of size.
fn row_38_outage_behind_a_proxy(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_38_outage_behind_a_proxy");
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let address = format!("127.0.0.1:{}", cluster.redis().port());
    let nobody = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
    let routers = [Router::to(&address), Router::to(&address)];
    let mut workers = Workers::of(&routers[0].url(), cluster.redis().folder(), mode.consumers(2), 4);
    workers.start_all();
    let args = mode.args("");
    let dispatchers = ["d0", "d1"].map(|name| dispatcher(&routers[1].url(), name, &workers.addresses, &args));
    wait_until_in_sync(connection, 2);
    let load = Load::start(&cluster.redis().url(), "m", this.scale(5_000, 10_000));
    // With a stream nothing is behind the first.
    let routers = if mode == Mode::Stream { &routers[1..] } else { &routers };
    for _ in 0..this.scale(2, 10) {
        for router in routers {
            load.wait_for_more(this.random.u64(1_000..2_000));
            let before = router.closed();
            router.route(Kind::Commands, &nobody);
            router.cut(Kind::Commands);
            wait_until("all of them to have tried again, and again", || (router.closed() >= before + 40).then_some(()));
            router.route(Kind::Commands, &address);
        }
    }
    let sent = load.stop();
    assert_l0(connection, &sent);
    assert_eq!(stream(connection, "messages:dead"), [], "each of them can be carried");
    drop(dispatchers);
    workers.must_run();
}

/// Row 38: a proxy in front of Redis refuses even the dead letter.
fn row_38_dead_letter_refused_as_well(mode: Mode) {
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let censor = Censor::to(&format!("127.0.0.1:{}", cluster.redis().port()), 100_000, Refusal::Error);
    censor.forbid(Some(b"forbidden"));
    let mut workers = Workers::new(&mut cluster, mode.consumers(1), 2);
    workers.start_all();
    let mut leader = dispatcher(&censor.url(), "d0", &workers.addresses, &mode.args(""));
    wait_until_in_sync(connection, 1);
    publish(connection, "m", 0..50);
    publish(connection, "forbidden", 0..1);
    publish(connection, "m", 50..100);
    // A batch is halved six times at most.
    wait_until("the letter to have been refused more than once", || (censor.refused() >= 12).then_some(()));
    let isolated = || leader.process.stderr().all().iter().filter(|line| line.contains("event=too-large")).count();
    wait_until("the leader to log which one it is", || (isolated() > 0).then_some(()));
    wait_until("what came before it to be done", || (state(connection).1 >= 50).then_some(()));
    assert_eq!(state(connection).1, 50, "nothing behind it is stored");
    censor.forbid(None);
    assert_done_or_isolated(connection, names("m", 0..100), "forbidden0");
    leader.process.must_run().unwrap();
    // The letter was tried several times; the message is reported once.
    leader.process.kill().unwrap();
    let log = leader.process.stderr().all();
    assert_eq!(log.iter().filter(|line| line.contains("event=too-large")).count(), 1, "{log:?}");
}

/// A foreign member among the pending messages is larger than any reply that is read. It becomes a dead letter without
/// being read, and the others continue.
#[test]
fn a_foreign_member_larger_than_any_reply_becomes_a_dead_letter() {
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let mut workers = Workers::new(&mut cluster, 1, 2);
    workers.start(0);
    let large = payload("large", 40 << 20);
    pend(cluster.redis(), 1_000_000, &large);
    pend(cluster.redis(), 1_000_001, "{\"message_id\":\"small0\"}");
    let _dispatcher = dispatcher(&cluster.redis().url(), "d0", &workers.addresses, "");
    wait_until("the large one to be a dead letter and the small one done", || {
        (state(connection) == (0, 1, 1)).then_some(())
    });
    let reason: Vec<(String, Vec<String>)> = run(connection, &["XRANGE", "messages:dead", "-", "+"]);
    let fields = &reason[0].1;
    let at = fields.iter().position(|name| name == "reason").expect("a letter has a reason");
    assert!(fields[at + 1].contains("too large"), "{}", fields[at + 1]);
    workers.must_run();
}

in_both_modes! {
    row_38_member_too_long,
    row_38_outage_behind_a_proxy,
    row_38_dead_letter_refused_as_well,
}
