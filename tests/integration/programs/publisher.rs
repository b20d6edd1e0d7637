//! The publisher against a real Redis: every id is published once, and unreceived messages are published again.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use oncecast::base::shutdown::shutdown_channel;
use oncecast::cli::Parsed;
use oncecast::lab::{RedisServer, ports};
use oncecast::programs::publisher::settings::PublisherConfig;
use oncecast::programs::publisher::{self, RunSummary};

use crate::support::{CHANNEL, DEADLINE, client, redis_server, run_on, wait_until};

/// A running publisher; killed if the test fails first.
struct Publisher(Option<Child>);

impl Publisher {
    fn start(url: &str, options: &str) -> Publisher {
        let child = Command::new(env!("CARGO_BIN_EXE_oncecast-publisher"))
            .args(["--redis-url", url])
            .args(options.split_whitespace())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Publisher(Some(child))
    }

    fn signal(&self, signal: &str) {
        let id = self.0.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    fn end(mut self) -> End {
        let child = self.0.as_mut().unwrap();
        wait_until("the publisher's end", || child.try_wait().unwrap());
        let Output { status, stdout, stderr } = self.0.take().unwrap().wait_with_output().unwrap();
        End {
            code: status.code().unwrap(),
            summary: String::from_utf8(stdout).unwrap(),
            log: String::from_utf8(stderr).unwrap(),
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The configuration of the program with these options.
fn config(url: &str, options: &str) -> PublisherConfig {
    let words = ["oncecast-publisher", "--redis-url", url].into_iter().chain(options.split_whitespace());
    match oncecast::cli::PUBLISHER.parse(words.map(OsString::from), &|_| None) {
        Ok(Parsed::Run(config)) => config,
        other => panic!("{other:?}"),
    }
}

/// Publishes in this process, for settings that the program has no flag for.
fn publish(config: PublisherConfig) -> RunSummary {
    publisher::publish(config, &shutdown_channel().1).expect("it starts")
}

#[derive(Debug)]
struct End {
    code: i32,
    summary: String,
    log: String,
}

impl End {
    fn number(&self, name: &str) -> u64 {
        assert_eq!(self.summary.lines().count(), 1, "{self:?}");
        let word = self.summary.split_whitespace().find_map(|word| word.strip_prefix(&format!("{name}=")));
        word.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    fn numbers(&self) -> [u64; 4] {
        ["published", "unreceived", "retried", "unknown"].map(|name| self.number(name))
    }
}

/// Counts what arrives on the channel.
struct Subscriber {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<HashMap<String, u32>>,
}

impl Subscriber {
    fn start(redis: &RedisServer) -> Subscriber {
        let stop = Arc::new(AtomicBool::new(false));
        let mut connection = client(&redis.url());
        let asked = stop.clone();
        let thread = thread::spawn(move || {
            let mut seen = HashMap::new();
            let mut subscription = connection.as_pubsub();
            subscription.subscribe(CHANNEL).unwrap();
            subscription.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            // Everything published before the stop has arrived once a read times out.
            loop {
                match subscription.get_message() {
                    Ok(message) => *seen.entry(message.get_payload::<String>().unwrap()).or_default() += 1,
                    Err(_) if asked.load(Ordering::Acquire) => return seen,
                    Err(_) => {}
                }
            }
        });
        wait_until("the subscription", || {
            run_on::<(String, u64)>(redis, &["PUBSUB", "NUMSUB", CHANNEL]).1.checked_sub(1)
        });
        Subscriber { stop, thread }
    }

    fn end(self) -> HashMap<String, u32> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

fn publishes(redis: &RedisServer) -> u64 {
    let info: String = run_on(redis, &["INFO", "commandstats"]);
    let calls = info.lines().find_map(|line| line.strip_prefix("cmdstat_publish:calls="));
    calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
}

fn message(id: &str) -> String {
    format!("{{\"message_id\":\"{id}\"}}")
}

#[test]
fn each_id_is_published_once_and_written_to_the_file() {
    let redis = redis_server();
    let subscriber = Subscriber::start(&redis);
    let file = redis.folder().join("ids");
    let options = format!("--count 5000 --id-prefix p- --ids-file {}", file.display());
    let end = Publisher::start(&redis.url(), &options).end();
    assert_eq!((end.code, end.numbers()), (0, [5_000, 0, 0, 0]), "{end:?}");
    assert!(end.summary.contains(" id_prefix=p- seconds="), "{end:?}");
    let seen = subscriber.end();
    assert_eq!(seen.len(), 5_000);
    assert!(seen.values().all(|times| *times == 1));
    let ids = std::fs::read_to_string(file).unwrap();
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!((ids.len(), ids[0], ids[4_999]), (5_000, "p-0", "p-4999"));
    assert!(ids.iter().all(|id| seen.contains_key(&message(id))));
}

#[test]
fn several_channels_get_their_messages_in_turn() {
    let redis = redis_server();
    let mut connection = client(&redis.url());
    let mut subscription = connection.as_pubsub();
    subscription.psubscribe("*").expect("it subscribes");
    subscription.set_read_timeout(Some(DEADLINE)).expect("an open socket");
    let end = Publisher::start(&redis.url(), "--channel a,b --channels 3 --count 9 --id-prefix p-").end();
    assert_eq!((end.code, end.numbers()), (0, [9, 0, 0, 0]), "{end:?}");
    assert!(end.summary.starts_with("published=9 ") && end.summary.contains(" id_prefix=p- seconds="), "{end:?}");
    for (number, channel) in ["a.0", "a.1", "a.2", "b.0", "b.1", "b.2", "a.0", "a.1", "a.2"].iter().enumerate() {
        let received = subscription.get_message().expect("it was published");
        let payload: String = received.get_payload().expect("it is text");
        assert_eq!((received.get_channel_name(), payload), (*channel, message(&format!("p-{number}"))));
    }
}

#[test]
fn unreceived_messages_are_published_again_until_received() {
    let redis = redis_server();
    let publisher = Publisher::start(&redis.url(), "--count 50");
    wait_until("retries", || (publishes(&redis) > 150).then_some(()));
    let subscriber = Subscriber::start(&redis);
    let end = publisher.end();
    assert_eq!((end.code, end.number("published"), end.number("unreceived")), (0, 50, 0), "{end:?}");
    assert!(end.number("retried") > 100 && end.log.contains("event=no-subscriber"), "{end:?}");
    let seen = subscriber.end();
    assert!(seen.len() == 50 && seen.values().all(|times| *times == 1), "{seen:?}");
}

#[test]
fn the_number_of_waiting_messages_is_bounded() {
    let redis = redis_server();
    let publisher = Publisher::start(&redis.url(), "--log-level off");
    wait_until("retries", || (publishes(&redis) > 20_000).then_some(()));
    publisher.signal("-TERM");
    let end = publisher.end();
    assert_eq!((end.code, end.number("published"), end.number("unreceived")), (1, 0, 10_000), "{end:?}");
}

#[test]
fn a_signal_ends_it_cleanly() {
    let redis = redis_server();
    let subscriber = Subscriber::start(&redis);
    for (signal, options) in [("-TERM", "--rate 1 --batch 60"), ("-INT", ""), ("-TERM", "--batch 10000")] {
        let before = publishes(&redis);
        let publisher = Publisher::start(&redis.url(), options);
        wait_until("the first message", || (publishes(&redis) > before).then_some(()));
        publisher.signal(signal);
        let end = publisher.end();
        assert!(end.code == 0 && end.number("published") > 0, "{end:?}");
    }
    assert!(subscriber.end().values().all(|times| *times == 1));
}

#[test]
fn after_the_run_it_waits_for_a_subscriber_for_the_grace_period() {
    let redis = redis_server();
    let config = config(&redis.url(), "--count 5");
    assert_eq!(config.grace, Duration::from_secs(10));
    let grace = Duration::from_secs(1);
    let summary = publish(PublisherConfig { grace, ..config });
    assert_eq!((summary.exit_code(), summary.published, summary.unreceived), (1, 0, 5), "{summary:?}");
    assert!(summary.elapsed >= grace && summary.retried > 0, "{summary:?}");
}

#[test]
fn pauses_cause_no_duplicates() {
    let redis = redis_server();
    let subscriber = Subscriber::start(&redis);
    let publisher = Publisher::start(&redis.url(), "--rate 20000 --count 40000");
    for pause in 1..=3 {
        wait_until("messages", || (publishes(&redis) > pause * 8_000).then_some(()));
        publisher.signal("-STOP");
        // The pause itself is tested here.
        thread::sleep(Duration::from_millis(200));
        publisher.signal("-CONT");
    }
    let end = publisher.end();
    let [published, unreceived, _, unknown] = end.numbers();
    assert_eq!((end.code, published + unknown, unreceived), (0, 40_000, 0), "{end:?}");
    assert!(subscriber.end().values().all(|times| *times == 1));
}

#[test]
fn a_rate_is_never_exceeded() {
    let redis = redis_server();
    let _subscriber = Subscriber::start(&redis);
    let end = Publisher::start(&redis.url(), "--rate 2000 --duration 2s").end();
    assert!((1..=4_001).contains(&end.number("published")), "{end:?}");
    // Bursts of 1000 at that rate: one at the start and one every half second.
    let end = Publisher::start(&redis.url(), "--rate 2000 --batch 1000 --duration 1.4s").end();
    assert!([1_000, 2_000, 3_000].contains(&end.number("published")), "{end:?}");
    // Without a rate, a pause of 0.1 to 0.5 s follows each burst.
    let end = Publisher::start(&redis.url(), "--batch 1000 --duration 1s").end();
    assert!((1_000..=11_000).contains(&end.number("published")), "{end:?}");
}

#[test]
fn a_lost_connection_causes_unknown_messages_and_no_duplicates() {
    let redis = redis_server();
    let subscriber = Subscriber::start(&redis);
    let publisher = Publisher::start(&redis.url(), "--count 100000");
    for kill in 1..=3 {
        wait_until("messages", || (publishes(&redis) > kill * 20_000).then_some(()));
        run_on::<i64>(&redis, &["CLIENT", "KILL", "TYPE", "normal"]);
    }
    let end = publisher.end();
    let [published, unreceived, _, unknown] = end.numbers();
    assert_eq!((end.code, published + unknown, unreceived), (0, 100_000, 0), "{end:?}");
    assert!(unknown <= 3_000, "{end:?}");
    assert!(unknown == 0 || end.log.contains("event=outcome-unknown"), "{end:?}");
    let seen = subscriber.end();
    assert!(seen.values().all(|times| *times == 1));
    assert!((published..=published + unknown).contains(&(seen.len() as u64)), "{} seen, {end:?}", seen.len());
}

#[test]
fn no_message_is_lost_while_a_right_is_missing() {
    let redis = redis_server();
    let subscriber = Subscriber::start(&redis);
    run_on::<String>(&redis, &["ACL", "SETUSER", "load", "on", "nopass", "+@all", "resetchannels"]);
    let url = format!("redis://load:x@127.0.0.1:{}", redis.port());
    let publisher = Publisher::start(&url, "--count 2000");
    wait_until("a refusal", || (!run_on::<Vec<redis::Value>>(&redis, &["ACL", "LOG"]).is_empty()).then_some(()));
    run_on::<String>(&redis, &["ACL", "SETUSER", "load", "allchannels"]);
    let end = publisher.end();
    assert_eq!((end.code, end.number("published"), end.number("unknown")), (0, 2_000, 0), "{end:?}");
    assert!(end.log.contains("event=redis-recovered"), "{end:?}");
    assert_eq!(subscriber.end().len(), 2_000);
}

#[test]
fn the_publisher_waits_for_redis_to_start() {
    let mut redis = redis_server();
    redis.stop().unwrap();
    let url = redis.url();
    let end = Publisher::start(&url, "--duration 300ms").end();
    assert!(end.code == 1 && end.log.contains("is Redis running there?"), "{end:?}");
    assert_eq!(end.number("published"), 0);
    let publisher = Publisher::start(&url, "--count 10");
    redis.start_again().unwrap();
    let subscriber = Subscriber::start(&redis);
    let end = publisher.end();
    assert_eq!((end.code, end.number("published")), (0, 10), "{end:?}");
    assert_eq!(subscriber.end().len(), 10);
}

#[test]
fn a_wrong_password_is_an_error_after_a_while() {
    let redis = redis_server();
    run_on::<String>(&redis, &["CONFIG", "SET", "requirepass", "right"]);
    let config = config(&format!("redis://:wrong@127.0.0.1:{}", redis.port()), "");
    assert_eq!(config.refusal_patience, Duration::from_secs(10));
    let refusal_patience = Duration::from_secs(1);
    let summary = publish(PublisherConfig { refusal_patience, ..config });
    assert!(summary.elapsed >= refusal_patience, "{summary:?}");
    assert_eq!((summary.exit_code(), summary.published), (1, 0), "{summary:?}");
    let error = summary.failure.expect("it gave up").to_string();
    assert!(error.contains("check user and password") && !error.contains("wrong@"), "{error}");
}

#[test]
fn invalid_settings_and_files_are_refused_at_start() {
    let end = Publisher::start("redis://127.0.0.1:1", "--rate none").end();
    assert!(end.code == 2 && end.log.contains("--rate"), "{end:?}");
    let end = Publisher::start("redis://127.0.0.1:1", "--ids-file /no/such/place").end();
    assert!(end.code == 1 && end.log.contains("--ids-file /no/such/place"), "{end:?}");
    // Its ids would not fit on one line each.
    let arguments = ["oncecast-publisher", "--id-prefix", "a\nb"].map(OsString::from);
    let error = oncecast::cli::PUBLISHER.parse(arguments, &|_| None).unwrap_err().to_string();
    assert!(error.contains("--id-prefix") && error.contains("without control characters"), "{error}");
}

#[test]
fn its_metrics_are_served() {
    let redis = redis_server();
    let _subscriber = Subscriber::start(&redis);
    let port = ports::free_port().unwrap();
    let publisher = Publisher::start(&redis.url(), &format!("--rate 1000 --metrics-addr 127.0.0.1:{port}"));
    let scrape = |path: &str| {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    wait_until("the counter", || {
        let answer = scrape("/metrics")?;
        let count = answer.lines().find_map(|line| line.strip_prefix("oncecast_publisher_published_total "))?;
        (count.parse::<u64>().unwrap() > 0).then_some(())
    });
    assert!(scrape("/readyz").unwrap().starts_with("HTTP/1.1 200"));
    publisher.signal("-TERM");
    assert_eq!(publisher.end().code, 0);
}
