//! `oncecast doctor` behind proxies, and beside a group under load.

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
