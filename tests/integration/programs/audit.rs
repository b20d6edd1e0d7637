//! The audit against a real Redis: it counts results and finds missing ones.

use std::ffi::OsString;
use std::fmt::Write;
use std::thread;
use std::time::{Duration, Instant};

use oncecast::base::error::Error;
use oncecast::cli::{self, Parsed, ToolConfig};
use oncecast::lab::RedisServer;
use oncecast::programs::audit::settings::AuditConfig;
use oncecast::programs::audit::{AuditReport, audit};

use crate::support::{client, pend, redis_server, run_on};

fn config(url: &str, options: &str) -> AuditConfig {
    let line = format!("oncecast audit --redis-url {url} {options}");
    match cli::TOOL.parse(line.split_whitespace().map(OsString::from), &|_| None).unwrap() {
        Parsed::Run(ToolConfig::Audit(config)) => *config,
        other => panic!("{other:?}"),
    }
}

fn look(redis: &RedisServer, options: &str) -> AuditReport {
    audit(&config(&redis.url(), options)).unwrap()
}

/// Records ids, in one pipeline for each thousand.
fn record(redis: &RedisServer, ids: impl Iterator<Item = String>) {
    let mut connection = client(&redis.url());
    let ids: Vec<String> = ids.collect();
    for ids in ids.chunks(1_000) {
        let mut pipeline = redis::pipe();
        for id in ids {
            let xadd = pipeline.cmd("XADD").arg("messages:processed").arg("*").arg("message_id").arg(id);
            xadd.arg("random_property").arg("0a1b2c3d").arg("consumer_id").arg("127.0.0.1:6969").ignore();
        }
        pipeline.exec(&mut connection).unwrap();
    }
}

fn add_dead_letter(redis: &RedisServer, payload: &str) {
    let fields = ["id", "1", "payload", payload, "reason", "failed", "deliveries", "5", "consumer", "c"];
    run_on::<String>(redis, &[&["XADD", "messages:dead", "*"], &fields[..]].concat());
}

fn ids_file(redis: &RedisServer, ids: impl Iterator<Item = String>) -> String {
    let path = redis.folder().join("ids");
    let text = ids.fold(String::new(), |mut text, id| {
        writeln!(text, "{id}").unwrap();
        text
    });
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn an_empty_group_passes() {
    let redis = redis_server();
    assert_eq!(look(&redis, ""), AuditReport::default());
    let report = look(&redis, "--expect 5");
    assert_eq!((report.lost, report.foreign, report.is_clean()), (Some(5), Some(0), false));
}

#[test]
fn a_correct_group_of_many_pages_passes() {
    let redis = redis_server();
    record(&redis, (0..12_345).map(|n| format!("id-{n}")));
    let file = ids_file(&redis, (0..12_345).rev().map(|n| format!("id-{n}")));
    for options in ["", "--expect 12345", &format!("--ids {file}")] {
        let report = look(&redis, options);
        assert!(report.is_clean(), "{report}");
        assert_eq!((report.entries, report.distinct, report.twice), (12_345, 12_345, 0));
        assert_eq!(report.lost.unwrap_or(0) + report.foreign.unwrap_or(0), 0);
    }
    let report = look(&redis, "--expect 12340");
    assert_eq!((report.lost, report.foreign, report.is_clean()), (Some(0), Some(5), true));
}

#[test]
fn duplicate_ids_are_counted_and_shown() {
    let redis = redis_server();
    record(&redis, (0..3_000).map(|n| format!("id-{n}")));
    record(&redis, ["id-7", "id-2999", "id-7"].into_iter().map(String::from));
    let report = look(&redis, "--expect 3000");
    assert_eq!((report.entries, report.distinct, report.twice, report.extra), (3_003, 3_000, 2, 3));
    assert_eq!(report.twice_examples, ["id-2999", "id-7"]);
    assert_eq!((report.lost, report.is_clean()), (Some(0), false));
}

#[test]
fn lost_and_foreign_ids_are_counted_and_shown() {
    let redis = redis_server();
    record(&redis, (0..2_000).filter(|n| n % 100 != 50).map(|n| format!("id-{n}")));
    record(&redis, (0..3).map(|n| format!("other-{n}")));
    pend(&redis, 5, r#"{"message_id":"id-50"}"#);
    add_dead_letter(&redis, r#"{"a":1,"message_id":"id-150"}"#);
    add_dead_letter(&redis, "not JSON");
    // One line twice, Windows line ends, and empty lines. 20 ids are not recorded; two of them are accounted for.
    let lines = (0..2_000).chain([1, 2]).map(|n| format!("id-{n}\r\n"));
    let report = look(&redis, &format!("--ids {}", ids_file(&redis, lines)));
    assert_eq!((report.lost, report.foreign, report.unnamed), (Some(18), Some(3), 1), "{report}");
    assert_eq!((report.pending, report.dead, report.twice), (1, 2, 0));
    assert_eq!(report.foreign_examples, ["other-0", "other-1", "other-2"]);
    assert_eq!(report.lost_examples.len(), 10);
    let is_lost = |id: &String| id.strip_prefix("id-").unwrap().parse::<u32>().unwrap() % 100 == 50;
    assert!(report.lost_examples.iter().all(is_lost), "{report}");
    assert!(!report.is_clean());
    // The same by number alone: 1983 recorded and 2 elsewhere.
    let report = look(&redis, "--expect 2000");
    assert_eq!((report.lost, report.foreign), (Some(15), Some(0)));
}

#[test]
fn many_pending_messages_and_dead_letters_are_read_in_pages() {
    let redis = redis_server();
    let mut pipeline = redis::pipe();
    for number in 0..5_000 {
        // Numbers are ids too, and a foreign member does no harm.
        let member = format!("{number:016x}:{{\"message_id\":{number}}}");
        pipeline.cmd("ZADD").arg("messages:pending").arg(number).arg(member).ignore();
    }
    for number in 4_000..9_000 {
        let payload = format!("{{\"message_id\":\"{number}\"}}");
        pipeline.cmd("XADD").arg("messages:dead").arg("*").arg("payload").arg(payload).ignore();
    }
    pipeline.cmd("ZADD").arg("messages:pending").arg(77.5).arg("foreign").ignore();
    pipeline.exec(&mut client(&redis.url())).unwrap();
    record(&redis, (8_000..10_000).map(|n| n.to_string()));
    let report = look(&redis, "--expect 10000");
    assert_eq!((report.lost, report.foreign, report.unnamed), (Some(0), Some(0), 0), "{report}");
    assert_eq!((report.pending, report.dead, report.entries), (5_001, 5_000, 2_000));
}

#[test]
fn extra_fields_large_values_and_entries_without_an_id_are_read() {
    let redis = redis_server();
    let large = "x".repeat(3 << 20);
    for number in 0..20 {
        let id = format!("k{number}");
        run_on::<String>(&redis, &["XADD", "{g}:processed", "*", "large", &large, "key", &id]);
    }
    run_on::<String>(&redis, &["XADD", "{g}:processed", "*", "payload", "hello"]);
    let report = look(&redis, "--group {g} --id-field key --expect 20");
    assert_eq!((report.entries, report.distinct, report.without_id), (21, 20, 1));
    assert!(report.is_clean());
}

#[test]
fn a_key_of_another_type_is_named() {
    let redis = redis_server();
    run_on::<String>(&redis, &["SET", "messages:processed", "text"]);
    let error = audit(&config(&redis.url(), "")).unwrap_err();
    assert!(error.to_string().contains("key messages:processed is a string, it must be a stream"), "{error}");
    assert_eq!(error.exit_code(), 1);
    run_on::<i64>(&redis, &["DEL", "messages:processed"]);
    run_on::<i64>(&redis, &["LPUSH", "messages:pending", "text"]);
    let error = audit(&config(&redis.url(), "")).unwrap_err().to_string();
    assert!(error.contains("key messages:pending is a list, it must be a zset"), "{error}");
}

#[test]
fn invalid_settings_are_named() {
    let redis = redis_server();
    let error = audit(&config(&redis.url(), "--expect 1 --ids x")).unwrap_err();
    assert!(matches!(error, Error::Config(_)) && error.exit_code() == 2, "{error}");
    let error = audit(&config(&redis.url(), "--ids /no/such/file")).unwrap_err();
    assert!(error.to_string().contains("--ids /no/such/file"), "{error}");
    run_on::<String>(&redis, &["CONFIG", "SET", "requirepass", "secret"]);
    let error = audit(&config(&redis.url(), "")).unwrap_err().to_string();
    assert!(error.contains("it requires a password"), "{error}");
}

#[test]
fn a_short_outage_is_waited_out_and_a_long_one_is_an_error() {
    let mut redis = redis_server();
    redis.stop().unwrap();
    let url = redis.url();
    let late = thread::spawn({
        let config = config(&url, "--expect 0");
        move || audit(&config)
    });
    redis.start_again().unwrap();
    assert!(late.join().unwrap().unwrap().is_clean());
    drop(redis);
    assert_eq!(config(&url, "").patience, Duration::from_secs(10));
    let patience = Duration::from_secs(1);
    let begin = Instant::now();
    let error = audit(&AuditConfig { patience, ..config(&url, "") }).unwrap_err();
    assert!(error.to_string().contains("is Redis running there?"), "{error}");
    assert!(begin.elapsed() >= patience, "{:?}", begin.elapsed());
}
