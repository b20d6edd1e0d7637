//! `oncecast doctor` behind proxies, and beside a group under load.

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::censor::{Censor, Refusal};
use crate::router::{Kind, Router};
use crate::support::load::Load;
use crate::support::{
    assert_each_once, client_of, cluster, programs, redis_server, run_on, stream, wait_until_done, wait_until_in_sync,
};

fn report(url: &str, args: &[&str]) -> (Option<i32>, Value) {
    let mut command = programs().command("oncecast").expect("the program is built");
    let output = command.args(["doctor", "--json", "--redis-url", url]).args(args).output().expect("it runs");
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), report)
}

fn verdicts(report: &Value) -> Vec<&str> {
    let programs = report["programs"].as_array().expect("a list");
    programs.iter().map(|program| program["verdict"].as_str().expect("a text")).collect()
}

#[test]
fn a_proxy_that_leads_subscriptions_elsewhere_is_found() {
    let (one, other) = (redis_server(), redis_server());
    let address = |port| format!("127.0.0.1:{port}");
    let router = Router::to(&address(one.port()));
    let (code, found) = report(&router.url(), &[]);
    assert_eq!((code, verdicts(&found)), (Some(0), vec!["works"; 5]), "{found:#}");
    router.route(Kind::Subscription, &address(other.port()));
    let (code, found) = report(&router.url(), &[]);
    assert_eq!((code, verdicts(&found)[0]), (Some(3), "does not work"), "{found:#}");
    assert!(found.to_string().contains("different servers"), "{found:#}");
    for server in [&one, &other] {
        assert_eq!(run_on::<u64>(server, &["DBSIZE"]), 0);
    }
}

#[test]
fn a_replica_for_subscriptions_is_slower() {
    let one = redis_server();
    let replica = redis_server();
    let () = run_on(&replica, &["REPLICAOF", "127.0.0.1", &one.port().to_string()]);
    crate::support::wait_until("the replica to follow", || {
        run_on::<String>(&replica, &["INFO", "replication"]).contains("master_link_status:up").then_some(())
    });
    let router = Router::to(&format!("127.0.0.1:{}", one.port()));
    router.route(Kind::Subscription, &format!("127.0.0.1:{}", replica.port()));
    let (code, found) = report(&router.url(), &["--program", "dispatcher"]);
    assert_eq!((code, verdicts(&found)), (Some(0), vec!["works slower"]), "{found:#}");
    assert!(found.to_string().contains("PUBSUB NUMSUB"), "{found:#}");
}

#[test]
fn a_limit_of_words_matters_only_below_the_most_that_are_sent() {
    let server = redis_server();
    for refusal in [Refusal::Error, Refusal::Close] {
        for (most_words, verdict) in [(3_999, "works"), (1_000, "works slower")] {
            let censor = Censor::to(&format!("127.0.0.1:{}", server.port()), most_words, refusal);
            let (code, found) = report(&censor.url(), &["--program", "dispatcher,consumer"]);
            let limit = format!("{most_words} {refusal:?}");
            assert_eq!((code, verdicts(&found)), (Some(0), vec![verdict; 2]), "{limit}: {found:#}");
            assert_eq!(run_on::<u64>(&server, &["DBSIZE"]), 0, "{limit}");
        }
    }
}

#[test]
fn a_group_under_load_is_not_disturbed() {
    let mut cluster = cluster(2, 2);
    let url = cluster.redis().url();
    let admin = &mut client_of(&mut cluster);
    wait_until_in_sync(admin, 2);
    let lease: String = crate::support::run(admin, &["GET", "messages:leader"]);
    let load = Load::start(&url, "m", 2_000);
    let until = Instant::now() + Duration::from_secs(5);
    let mut visits = 0;
    while Instant::now() < until {
        for args in [&[][..], &["--deliver", "stream"]] {
            let (code, found) = report(&url, args);
            assert_eq!(code, Some(0), "{found:#}");
        }
        visits += 1;
    }
    assert!(visits > 3, "only {visits} visits");
    let sent = load.stop();
    wait_until_done(admin, sent.owed.len());
    assert_each_once(admin, &sent.owed);
    assert!(sent.unheard.is_empty() && stream(admin, "messages:gaps").is_empty());
    assert_eq!(crate::support::run::<String>(admin, &["GET", "messages:leader"]), lease, "the leader is the same");
    let keys: Vec<String> = crate::support::run(admin, &["KEYS", "*doctor*"]);
    assert_eq!(keys, [""; 0]);
}

/// The rights of a consumer's user, as docs/OPERATIONS.md has them: it may neither delete a key nor let one expire.
const CONSUMER: &str = "c reset resetchannels on >p ~messages:pending ~messages:processed ~messages:attempts \
    ~messages:recall ~messages:epoch ~messages:put-back:* +ping +evalsha +eval +script|load +watch +unwatch +multi \
    +exec +info +get +getrange +type +exists +set +zadd +zcount +zremrangebyscore +hdel +xadd";

/// The keys of trials that would stay for ever.
fn lasting(admin: &mut redis::Connection) -> Vec<String> {
    const SCRIPT: &str = "local lasting = {} for _, key in ipairs(redis.call('KEYS', '*doctor*')) do \
        if redis.call('PTTL', key) == -1 then lasting[#lasting + 1] = key end end return lasting";
    crate::support::run(admin, &["EVAL", SCRIPT, "0"])
}

fn start(url: &str, args: &[&str]) -> Child {
    let mut command = programs().command("oncecast").expect("the program is built");
    command.args(["doctor", "--redis-url", url]).args(args).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("it starts")
}

/// Ends it at a random moment within this time, and looks at its keys all the while.
fn kill_within(limit: Duration, mut doctor: Child, admin: &mut redis::Connection) {
    let until = Instant::now() + limit.mul_f64(fastrand::f64());
    while Instant::now() < until {
        assert_eq!(lasting(admin), [""; 0]);
    }
    doctor.kill().expect("it is our child");
    doctor.wait().expect("it is our child");
}

#[test]
fn killed_at_any_moment_it_leaves_nothing_that_stays() {
    let mut cluster = cluster(2, 2);
    let url = cluster.redis().url();
    let admin = &mut client_of(&mut cluster);
    wait_until_in_sync(admin, 2);
    let words: Vec<&str> = ["ACL", "SETUSER"].into_iter().chain(CONSUMER.split_whitespace()).collect();
    let () = crate::support::run(admin, &words);
    let of_consumer = url.replace("redis://", "redis://c:p@");
    let lease: String = crate::support::run(admin, &["GET", "messages:leader"]);
    let load = Load::start(&url, "m", 1_000);
    let visits: [(&str, &[&str]); 4] = [
        (&url, &["--program", "dispatcher"]),
        (&url, &["--program", "consumer"]),
        (&url, &["--program", "dispatcher", "--deliver", "stream"]),
        (&of_consumer, &["--program", "consumer"]),
    ];
    for (url, args) in visits {
        let began = Instant::now();
        assert!(start(url, args).wait().expect("it is our child").success(), "{args:?}");
        let whole = began.elapsed();
        for _ in 0..25 {
            kill_within(whole, start(url, args), admin);
            // What it had sent may still be executed.
            thread::yield_now();
            assert_eq!(lasting(admin), [""; 0], "{args:?}");
        }
    }
    let sent = load.stop();
    wait_until_done(admin, sent.owed.len());
    assert_each_once(admin, &sent.owed);
    assert!(sent.unheard.is_empty() && stream(admin, "messages:gaps").is_empty());
    assert_eq!(crate::support::run::<String>(admin, &["GET", "messages:leader"]), lease, "the leader is the same");
    crate::support::wait_until("the trials' keys to expire", || {
        crate::support::run::<Vec<String>>(admin, &["KEYS", "*doctor*"]).is_empty().then_some(())
    });
}
