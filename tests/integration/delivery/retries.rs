//! Failures: the delay that a handler asks for is kept, deliveries are counted, and messages that can't be processed
//! become dead letters with a reason.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use oncecast::lab::{ChildProcess, Cluster};
use oncecast::programs::status::MANY_DEATHS;
use oncecast::{Consumer, Delivery, HandlerError, Outcome};
use parking_lot::Mutex;

use crate::support::{
    DEADLINE, RunningConsumer, assert_each_once, bare_cluster, client_of, dispatcher, most_resident_bytes,
    publish_payloads, run, state, stream, wait_for_intake, wait_until, wait_until_done, wait_until_in_sync,
};

mod delays;

/// The name of a message is the beginning of its payload: at most so many characters.
const NAME_CHARS: usize = 64;

/// When each message was run, and the number of the delivery.
type Runs = Arc<Mutex<HashMap<String, Vec<(Instant, u16)>>>>;

/// A server, a dispatcher and a consumer whose handler the test provides.
struct Group {
    runs: Runs,
    consumer: RunningConsumer,
    dispatcher: ChildProcess,
    cluster: Cluster,
}

impl Group {
    /// `judge` decides the outcome of a message at the delivery with this number.
    fn start(
        args: &str,
        judge: impl Fn(&str, u16) -> Result<(), HandlerError> + Send + Sync + 'static,
    ) -> (Group, redis::Connection) {
        Group::start_in(bare_cluster(), args, None, judge)
    }

    /// The same in a cluster of the test's own, with a consumer that may have a retry policy.
    fn start_in(
        mut cluster: Cluster,
        args: &str,
        retry: Option<&str>,
        judge: impl Fn(&str, u16) -> Result<(), HandlerError> + Send + Sync + 'static,
    ) -> (Group, redis::Connection) {
        let runs = Runs::default();
        let noted = runs.clone();
        let handler = move |delivery: &Delivery<'_>| {
            let name: String = std::str::from_utf8(delivery.payload())?.chars().take(NAME_CHARS).collect();
            let run = (Instant::now(), delivery.number());
            noted.lock().entry(name.clone()).or_default().push(run);
            judge(&name, delivery.number())?;
            Ok(Outcome::new().field("message_id", name))
        };
        let builder = Consumer::builder().redis_url(cluster.redis().url()).listen("127.0.0.1:0").consumer_id("tester");
        let builder = match retry {
            Some(policy) => builder.retry(policy),
            None => builder,
        };
        let consumer = RunningConsumer::start(builder.concurrency(4).prefetch(64).handler(handler));
        let dispatcher = dispatcher(&cluster, "d0", &[consumer.address.to_string()], args);
        let mut connection = client_of(&mut cluster);
        wait_until_in_sync(&mut connection, 1);
        (Group { runs, consumer, dispatcher, cluster }, connection)
    }

    fn runs_of(&self, payload: &str) -> Vec<(Instant, u16)> {
        self.runs.lock().get(payload).cloned().unwrap_or_default()
    }

    fn numbers(&self, payload: &str) -> Vec<u16> {
        self.runs_of(payload).into_iter().map(|(_, number)| number).collect()
    }
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n}")).collect()
}

/// The number of each message's next delivery, if it is counted, without the time.
fn counted(connection: &mut redis::Connection) -> HashMap<String, u16> {
    let counted: HashMap<String, String> = run(connection, &["HGETALL", "messages:attempts"]);
    let number = |value: String| value.split(' ').next().and_then(|number| number.parse().ok()).expect("a number");
    counted.into_iter().map(|(id, value)| (id, number(value))).collect()
}

#[test]
fn a_retry_is_delivered_again_and_recorded_once() {
    let (group, mut connection) = Group::start("", |payload, delivery| {
        if payload.starts_with("twice") && delivery == 1 { Err(HandlerError::retry("not yet")) } else { Ok(()) }
    });
    let all = [names("twice", 20), names("once", 20)].concat();
    publish_payloads(&mut connection, &all);
    wait_until_done(&mut connection, 40);
    assert_each_once(&mut connection, &all);
    for payload in &all {
        let expected: &[u16] = if payload.starts_with("twice") { &[1, 2] } else { &[1] };
        assert_eq!(group.numbers(payload), expected, "{payload}");
    }
    assert_eq!(group.consumer.stats.retried(), 20);
    // Catches counts that outlive their messages, which would make the hash grow without bound.
    assert_eq!(counted(&mut connection), HashMap::new());
}

#[test]
fn a_handler_s_delay_is_kept_and_delays_no_other_message() {
    const DELAY: Duration = Duration::from_millis(700);
    let (group, mut connection) = Group::start("", |payload, delivery| {
        if payload == "later" && delivery == 1 { Err(HandlerError::retry_after(DELAY, "later")) } else { Ok(()) }
    });
    publish_payloads(&mut connection, ["later"]);
    wait_until("the delivery to be counted", || (!counted(&mut connection).is_empty()).then_some(()));
    let others = names("meanwhile", 50);
    publish_payloads(&mut connection, &others);
    wait_until("the others to be done", || (state(&mut connection) == (1, 50, 0)).then_some(()));
    assert_eq!(group.numbers("later"), [1], "the others were delivered while it waited");
    // Only a message that will be redelivered has a count: the number of its next delivery.
    let id: Vec<(String, f64)> = run(&mut connection, &["ZRANGE", "messages:pending", "0", "-1", "WITHSCORES"]);
    assert_eq!(counted(&mut connection), HashMap::from([(format!("{:.0}", id[0].1), 2)]));
    wait_until_done(&mut connection, 51);
    let runs = group.runs_of("later");
    assert_eq!(group.numbers("later"), [1, 2]);
    let waited = runs[1].0 - runs[0].0;
    assert!(waited >= DELAY, "came back after {waited:?}");
    assert!(waited < DELAY + Duration::from_secs(3), "came back only after {waited:?}");
    assert_eq!(counted(&mut connection), HashMap::new());
}

#[test]
fn many_messages_due_at_once_do_not_fill_the_leader_s_memory() {
    const MESSAGES: usize = 500;
    let due = OnceLock::new();
    let judge = move |_: &str, delivery| {
        let due = *due.get_or_init(|| Instant::now() + Duration::from_secs(5));
        if delivery == 1 {
            return Err(HandlerError::retry_after(due.saturating_duration_since(Instant::now()), "not before"));
        }
        // No handler makes progress while the leader could read them all from Redis.
        thread::sleep((due + Duration::from_secs(2)).saturating_duration_since(Instant::now()));
        Ok(())
    };
    // The smallest values allowed.
    let (group, mut connection) = Group::start("--ready-bytes 16777216 --ring-bytes 33554432", judge);
    let all: Vec<String> = (0..MESSAGES).map(|n| format!("{n:03}{}", "x".repeat(512 << 10))).collect();
    for chunk in all.chunks(40) {
        publish_payloads(&mut connection, chunk);
        wait_for_intake(&mut connection);
    }
    wait_until_done(&mut connection, MESSAGES);
    // 250 MiB were due. The leader may keep 4 MiB of them, and the ring and a link's share besides.
    let most = most_resident_bytes(group.dispatcher.pid());
    assert!(most < 160 << 20, "the dispatcher took {most} bytes of memory");
    assert_eq!(group.runs.lock().values().filter(|runs| runs.len() != 2).count(), 0, "each was delivered twice");
    assert_eq!(state(&mut connection), (0, MESSAGES, 0));
}

#[test]
fn a_rejected_message_is_a_dead_letter_at_once() {
    let (group, mut connection) =
        Group::start(
            "",
            |payload, _| {
                if payload == "bad" { Err(HandlerError::reject("no such customer: 17")) } else { Ok(()) }
            },
        );
    publish_payloads(&mut connection, ["good", "bad", "fine"]);
    wait_until_done(&mut connection, 3);
    assert_eq!(state(&mut connection), (0, 2, 1));
    let letter = stream(&mut connection, "messages:dead").remove(0);
    assert_eq!(letter["payload"], "bad");
    assert_eq!(letter["reason"], "no such customer: 17");
    assert_eq!((letter["deliveries"].as_str(), letter["consumer"].as_str()), ("1", "tester"));
    assert_eq!(group.numbers("bad"), [1], "it is not delivered again");
    assert_eq!(counted(&mut connection), HashMap::new());
}

#[test]
fn the_last_allowed_delivery_makes_a_dead_letter() {
    let (group, mut connection) =
        Group::start("--max-deliveries 3 --retry exponential:50ms..1s*4", |payload, delivery| match payload {
            "never" => Err(HandlerError::retry(format!("failed at delivery {delivery}"))),
            "just in time" if delivery < 3 => Err(HandlerError::retry("not yet")),
            _ => Ok(()),
        });
    publish_payloads(&mut connection, ["never", "just in time", "good"]);
    wait_until_done(&mut connection, 3);
    assert_eq!(state(&mut connection), (0, 2, 1));
    assert_eq!(group.numbers("never"), [1, 2, 3]);
    assert_eq!(group.numbers("just in time"), [1, 2, 3]);
    let letter = stream(&mut connection, "messages:dead").remove(0);
    assert_eq!((letter["payload"].as_str(), letter["deliveries"].as_str()), ("never", "3"));
    assert_eq!(letter["reason"], "failed at delivery 3", "the last reason");
    let runs = group.runs_of("never");
    assert!(runs[1].0 - runs[0].0 >= Duration::from_millis(50), "no wait before the second delivery");
    assert!(runs[2].0 - runs[1].0 >= Duration::from_millis(200), "no longer wait before the third");
    assert_eq!(counted(&mut connection), HashMap::new());
}

#[test]
fn a_short_downstream_outage_makes_no_dead_letters() {
    let back = Arc::new(AtomicBool::new(false));
    let downstream = back.clone();
    let (group, mut connection) = Group::start("", move |_, _| match downstream.load(Ordering::Relaxed) {
        true => Ok(()),
        false => Err(HandlerError::retry("the database is away")),
    });
    let line = group.dispatcher.wait_for_line("event=retry-policy", DEADLINE).expect("it is logged");
    assert!(line.ends_with("retry=exponential:200ms..5m*4 max_deliveries=8 dead_after_s=573"), "{line}");
    let all = names("m", 100);
    publish_payloads(&mut connection, &all);
    wait_until("each to have failed three times", || {
        let runs = group.runs.lock();
        (runs.len() == 100 && runs.values().all(|runs| runs.len() >= 3)).then_some(())
    });
    back.store(true, Ordering::Relaxed);
    wait_until_done(&mut connection, 100);
    assert_each_once(&mut connection, &all);
    for payload in &all {
        let runs = group.runs_of(payload);
        let waits = [runs[1].0 - runs[0].0, runs[2].0 - runs[1].0];
        assert!(waits[0] >= Duration::from_millis(200) && waits[1] >= Duration::from_millis(800), "{waits:?}");
    }
}

#[test]
fn a_handler_s_delay_overrides_the_policy() {
    let (group, mut connection) = Group::start("--retry fixed:10m", |_, delivery| match delivery {
        1..4 => Err(HandlerError::retry_after(Duration::from_millis(20), "soon")),
        _ => Ok(()),
    });
    publish_payloads(&mut connection, ["soon"]);
    wait_until_done(&mut connection, 1);
    assert_eq!(group.numbers("soon"), [1, 2, 3, 4]);
}

#[test]
fn without_a_wait_all_deliveries_follow_at_once() {
    let judge = |_: &str, _| Err(HandlerError::retry("never"));
    let (group, mut connection) = Group::start("--retry none --max-deliveries 100", judge);
    publish_payloads(&mut connection, ["never"]);
    wait_until_done(&mut connection, 1);
    assert_eq!((state(&mut connection), group.runs_of("never").len()), ((0, 0, 1), 100));
}

#[test]
fn dead_letters_are_logged_at_once_with_count_reason_and_example() {
    let (group, mut connection) = Group::start("", |payload, _| match payload {
        "odd" => Err(HandlerError::reject("an odd one")),
        payload if payload.starts_with("bad") => Err(HandlerError::reject("no such customer")),
        _ => Ok(()),
    });
    let all = [names("bad", 13), vec!["odd".to_owned()], names("good", 20)].concat();
    publish_payloads(&mut connection, &all);
    wait_until_done(&mut connection, all.len());
    let reason_of: HashMap<String, String> = stream(&mut connection, "messages:dead")
        .into_iter()
        .map(|mut letter| (letter.remove("id").expect("an id"), letter.remove("reason").expect("a reason")))
        .collect();
    // No later event makes the dispatcher write the lines.
    let logged = wait_until("all to be logged", || {
        let mut logged: HashMap<String, usize> = HashMap::new();
        for line in group.dispatcher.stderr().all().iter().filter(|line| line.contains("event=dead-letters ")) {
            let (_, rest) = line.split_once("messages=").expect("how many");
            let (count, rest) = rest.split_once(" stream=messages:dead reason=\"").expect("where");
            let (reason, example) = rest.split_once("\" example=").expect("why and which");
            assert_eq!(reason_of.get(example).map(String::as_str), Some(reason), "{line}");
            *logged.entry(reason.to_owned()).or_default() += count.parse::<usize>().expect("a number");
        }
        (logged.values().sum::<usize>() == 14).then_some(logged)
    });
    assert_eq!(logged, HashMap::from([("no such customer".to_owned(), 13), ("an odd one".to_owned(), 1)]));
}

#[test]
fn many_dead_letters_in_a_short_time_are_a_problem() {
    let (group, mut connection) = Group::start("", |payload, _| match payload.starts_with("bad") {
        true => Err(HandlerError::reject("no such customer")),
        false => Ok(()),
    });
    let problems = |cluster: &Cluster| {
        let mut command = crate::support::programs().command("oncecast").expect("the program is built");
        command.args(["status", "--json", "--redis-url", &cluster.redis_url()]);
        let output = command.output().expect("it runs");
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (output.status.code(), status["recent_deaths"].as_u64(), status["problems"].to_string())
    };
    let few = MANY_DEATHS as usize - 1;
    publish_payloads(&mut connection, names("bad", few));
    wait_until_done(&mut connection, few);
    let wait_for_report = |count: u64, cluster: &Cluster| {
        wait_until(format!("{count} deaths to be reported"), || {
            Some(problems(cluster)).filter(|(_, deaths, _)| *deaths == Some(count))
        })
    };
    let (code, _, shown) = wait_for_report(few as u64, &group.cluster);
    assert_eq!((code, shown.as_str()), (Some(0), "[]"));
    publish_payloads(&mut connection, ["bad enough"]);
    let (code, _, shown) = wait_for_report(MANY_DEATHS, &group.cluster);
    assert_eq!(code, Some(3));
    assert!(shown.contains("became dead letters in the last 10 minutes: 10, with those that were replayed"), "{shown}");
}

#[test]
fn a_panic_fails_only_its_message() {
    let (group, mut connection) = Group::start("--max-deliveries 2", |payload, delivery| match payload {
        "once" if delivery == 1 => panic!("a handler that trips"),
        "always" => panic!("a handler that cannot"),
        _ => Ok(()),
    });
    let others = names("good", 100);
    publish_payloads(&mut connection, ["once", "always"]);
    publish_payloads(&mut connection, &others);
    wait_until_done(&mut connection, 102);
    let owed = [others, vec!["once".to_owned()]].concat();
    assert_each_once(&mut connection, &owed);
    let letter = stream(&mut connection, "messages:dead").remove(0);
    assert_eq!((letter["payload"].as_str(), letter["deliveries"].as_str()), ("always", "2"));
    assert!(letter["reason"].contains("a handler that cannot"), "{}", letter["reason"]);
    assert_eq!(group.consumer.stats.panicked(), 3);
    // All four threads still run: none ended by a panic.
    assert_eq!(group.numbers("once"), [1, 2]);
}

#[test]
fn a_hanging_handler_is_abandoned_and_its_message_redelivered() {
    let mut cluster = bare_cluster();
    let (release, gate) = crossbeam_channel::bounded::<()>(0);
    let runs = Runs::default();
    let noted = runs.clone();
    let handler = move |delivery: &Delivery<'_>| {
        let payload = std::str::from_utf8(delivery.payload())?.to_owned();
        noted.lock().entry(payload.clone()).or_default().push((Instant::now(), delivery.number()));
        if payload == "hangs" && delivery.number() == 1 {
            // Until the test releases it or ends.
            let _ = gate.recv();
        }
        Ok(Outcome::new().field("message_id", payload).field("delivery", delivery.number().to_string()))
    };
    let builder = Consumer::builder().redis_url(cluster.redis().url()).listen("127.0.0.1:0").consumer_id("tester");
    let builder = builder.concurrency(2).prefetch(8).handler_timeout(Duration::from_millis(300)).handler(handler);
    let consumer = RunningConsumer::start(builder);
    let _dispatcher =
        dispatcher(&cluster, "d0", &[consumer.address.to_string()], "--link-timeout-ms 400 --retry fixed:2s");
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 1);
    publish_payloads(connection, ["hangs", "good"]);
    wait_until_done(connection, 2);
    let entries = stream(connection, "messages:processed");
    let hung = entries.iter().find(|entry| entry["message_id"] == "hangs").expect("its result");
    assert_eq!(hung["delivery"], "2", "the second run's");
    // Twice the link timeout until it is overdue, and then the policy's wait.
    let hangs = runs.lock()["hangs"].clone();
    let waited = hangs[1].0 - hangs[0].0;
    assert!(waited >= Duration::from_millis(2_500), "came back after {waited:?}");
    drop(release);
    wait_until("the late result to be dropped", || (consumer.stats.dropped() == 1).then_some(()));
    // The first commit wins; the late one changes nothing.
    assert_each_once(connection, &["hangs".to_owned(), "good".to_owned()]);
}
