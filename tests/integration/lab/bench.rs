//! `oncecast bench` as a user runs it: it measures, verifies, writes its files, and leaves no process behind. The
//! figures themselves are not tested.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use oncecast::lab::folder::PrivateFolder;
use oncecast::lab::{ChildProcess, Signal};
use serde_json::Value;

use crate::support::{DEADLINE, programs, redis_server, run, run_on, wait_until};

fn bench(options: &str) -> ChildProcess {
    let mut command = programs().command("oncecast").expect("the program is built");
    command.arg("bench").args(options.split_whitespace());
    ChildProcess::spawn("bench", command).expect("it starts")
}

/// The processes whose parent is `pid`: id and command line. Without the shell that watches over the others.
fn children(pid: u32) -> BTreeMap<u32, String> {
    let processes = fs::read_dir("/proc").expect("there is a /proc");
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let parent: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        let line = fs::read_to_string(format!("/proc/{id}/cmdline")).ok()?;
        (parent == pid).then(|| (id, line.replace('\0', " ")))
    })
    .filter(|(_, line)| !line.contains("oncecast-watcher"))
    .collect()
}

fn assert_gone(children: &BTreeMap<u32, String>) {
    for (id, line) in children {
        // Another process may have the id by now.
        let now = fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        assert_ne!(now.replace('\0', " "), *line, "{id} is left behind");
    }
}

#[test]
fn quick_measures_everything_once_and_writes_the_files() {
    let folder = PrivateFolder::create("bench").expect("a folder");
    let (json, svg) = (folder.path().join("bench.json"), folder.path().join("bench.svg"));
    let files = format!("--json-file {} --svg-file {}", json.display(), svg.display());
    let mut bench = bench(&format!("--quick --messages 2000 --rates 200 --time 200ms {files}"));
    let status = bench.wait(9 * DEADLINE).expect("it ends");
    let shown = bench.stdout().all().join("\n");
    assert_eq!(status.code(), Some(0), "{shown} {:#?}", bench.stderr().all());

    let found: Value = serde_json::from_str(&fs::read_to_string(&json).expect("it is written")).expect("it is JSON");
    let kinds = found["throughput"]["kinds"].as_array().expect("a list");
    assert_eq!(kinds.iter().map(|kind| &kind["kind"]).collect::<Vec<_>>(), ["oncecast", "bridge", "streams", "relay"]);
    for kind in kinds {
        assert!(kind["median"].as_f64().is_some_and(|rate| rate > 0.0) && kind["messages"] == 2_000, "{kind}");
        assert!(kind["idle_share_of_a_core"].as_f64().is_some_and(|share| (0.0..2.0).contains(&share)), "{kind}");
        let memory = &kind["redis_bytes_per_waiting_message"];
        assert!(memory.as_f64().is_some_and(|bytes| bytes > 1.0) != (kind["kind"] == "relay"), "{kind}");
    }
    for ratio in ["oncecast_to_streams", "oncecast_to_relay", "bridge_to_relay"] {
        assert!(found["throughput"][ratio].as_f64().is_some_and(|ratio| ratio > 0.0), "{found}");
    }
    let latency = found["latency"].as_array().expect("a list");
    assert_eq!(latency.len(), 4, "one rate, four kinds");
    for point in latency {
        assert_eq!(point["messages"], 36, "of 40, the first are not measured: {point}");
        let [p50, p99, longest] = [&point["ms"]["p50"], &point["ms"]["p99"], &point["longest_ms"]];
        assert!(0.0 < p50.as_f64().unwrap() && p50.as_f64() <= p99.as_f64() && p99.as_f64() <= longest.as_f64());
    }
    let points = found["sweep"].as_array().expect("a list");
    let axes: Vec<&str> = points.iter().filter_map(|point| point["axis"].as_str()).collect();
    let expected =
        ["dispatchers", "consumers", "consumers", "payload", "payload", "payload", "backlog", "backlog", "handler"];
    assert_eq!(axes, expected);
    assert!(points.iter().all(|point| point["messages_per_s"].as_f64().is_some_and(|rate| rate > 0.0)), "{points:?}");

    let svg = fs::read_to_string(&svg).expect("it is written");
    assert!(svg.starts_with("<svg") && svg.contains("oncecast") && svg.contains("class=\"relay\""), "{svg}");
    assert!(shown.contains("oncecast / streams = "), "{shown}");
}

#[test]
fn workers_that_delete_and_claim_are_compared() {
    let mut bench = bench("--kinds streams,tidy --rounds 1 --messages 3000 --time 1200ms --scheduling normal");
    let status = bench.wait(4 * DEADLINE).expect("it ends");
    let shown = bench.stdout().all().join("\n");
    assert_eq!(status.code(), Some(0), "{shown} {:#?}", bench.stderr().all());
    assert!(shown.contains("tidy "), "{shown}");
}

#[test]
fn bullmq_says_how_it_is_installed() {
    let mut bench = bench("--kinds bullmq --rounds 1 --messages 100 --bullmq-folder /nowhere");
    assert_eq!(bench.wait(DEADLINE).expect("it ends").code(), Some(1));
    let said = bench.stderr().all().join("\n");
    assert!(said.contains("--bullmq-folder") && said.contains("npm install --prefix /nowhere"), "{said}");
}

#[test]
fn one_channel_is_compared_with_many() {
    let folder = PrivateFolder::create("bench").expect("a folder");
    let json = folder.path().join("bench.json");
    let options = "--kinds oncecast,patterns --channels 7 --rounds 1 --messages 3000 --time 200ms";
    let mut bench = bench(&format!("{options} --json-file {}", json.display()));
    let status = bench.wait(4 * DEADLINE).expect("it ends");
    let shown = bench.stdout().all().join("\n");
    assert_eq!(status.code(), Some(0), "{shown} {:#?}", bench.stderr().all());
    assert!(shown.contains("patterns / oncecast = "), "{shown}");
    let found: Value = serde_json::from_str(&fs::read_to_string(&json).expect("it is written")).expect("it is JSON");
    let kinds = found["throughput"]["kinds"].as_array().expect("a list");
    assert_eq!(kinds.iter().map(|kind| &kind["kind"]).collect::<Vec<_>>(), ["oncecast", "patterns"]);
    let bytes = |kind: &Value| kind["redis_bytes_per_waiting_message"].as_f64().expect("it is measured");
    assert!(bytes(&kinds[1]) > bytes(&kinds[0]), "the channel is stored with each message: {found}");
}

#[test]
fn lanes_are_measured_on_a_redis_cluster() {
    let folder = PrivateFolder::create("bench").expect("a folder");
    let json = folder.path().join("bench.json");
    let options = "--lanes 1,2 --rounds 1 --messages 2001 --rates 500 --time 300ms";
    let mut bench = bench(&format!("{options} --json-file {}", json.display()));
    let status = bench.wait(9 * DEADLINE).expect("it ends");
    let shown = bench.stdout().all().join("\n");
    if redis_server().version().expect("it answers").starts_with("redis 6.") {
        let said = bench.stderr().all().join("\n");
        assert!(status.code() == Some(1) && said.contains("need Redis 7.0 or newer"), "{said}");
        return;
    }
    assert_eq!(status.code(), Some(0), "{shown} {:#?}", bench.stderr().all());
    assert!(shown.contains("an idle lane takes"), "{shown}");
    let found: Value = serde_json::from_str(&fs::read_to_string(&json).expect("it is written")).expect("it is JSON");
    assert!(found["throughput"].is_null(), "only lanes are measured: {found}");
    let lanes = &found["lanes"];
    assert_eq!((&lanes["primaries"], &lanes["dispatchers"]), (&Value::from(2), &Value::from(2)), "{lanes}");
    let points = lanes["points"].as_array().expect("a list");
    assert_eq!(points.iter().map(|point| &point["lanes"]).collect::<Vec<_>>(), [1, 2]);
    let figure = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("no figure: {lanes}"));
    for (point, messages) in points.iter().zip([2_001, 2_002]) {
        assert_eq!(point["messages"], messages, "each lane has the same number: {point}");
        for cost in [&point["cpu_us_per_message"], &point["at_rates"][0]["cpu_us_per_message"]] {
            for role in ["redis", "publisher", "dispatchers", "consumers"] {
                assert!(figure(&cost[role]) > 0.0, "{point}");
            }
        }
        assert!(figure(&point["idle_cpu_us_per_s"]["redis"]) > 0.0, "{point}");
    }
    for process in ["dispatcher", "consumer"] {
        let of = |point: &Value, what: &str| figure(&point[process][what]);
        let more = |what| of(&points[1], what) > of(&points[0], what);
        assert!(more("threads") && more("sockets") && of(&points[0], "memory_kib") > 100.0, "{process}: {lanes}");
    }
}

#[test]
fn ctrl_c_ends_it_and_every_process() {
    let mut bench = bench("--messages 100000000 --kinds streams");
    let all = wait_until("a server, a load and three workers", || {
        Some(children(bench.pid())).filter(|children| children.values().any(|line| line.contains("bench-load")))
    });
    assert_eq!(all.values().filter(|line| line.contains("bench-worker")).count(), 3, "{all:?}");
    bench.signal(Signal::SIGINT).expect("it runs");
    let status = bench.wait(DEADLINE).expect("it ends");
    assert_eq!(status.code(), Some(0), "{:#?}", bench.stderr().all());
    assert!(bench.stdout().all().iter().any(|line| line.contains("every process has ended")));
    assert_gone(&all);
}

#[test]
fn a_process_that_dies_is_named_and_ends_it() {
    let mut bench = bench("--messages 100000000 --kinds relay");
    let all = wait_until("a server, a load and a relay", || {
        Some(children(bench.pid())).filter(|children| children.values().any(|line| line.contains("bench-load")))
    });
    let (relay, _) = all.iter().find(|(_, line)| line.contains("bench-relay")).expect("there is a relay");
    assert!(Command::new("kill").args(["-9", &relay.to_string()]).status().expect("kill is there").success());
    let status = bench.wait(DEADLINE).expect("it ends");
    let said = bench.stderr().all().join("\n");
    // Either is noticed first: that the process is gone, or that no subscriber receives the messages.
    match status.code() {
        Some(1) => assert!(said.contains("relay"), "{said}"),
        Some(3) => assert!(bench.stdout().all().join("\n").contains("had no subscriber"), "{said}"),
        _ => panic!("{status} {said}"),
    }
    assert_gone(&all);
}

#[test]
fn a_result_without_a_message_is_a_violation() {
    let mut bench = bench("--messages 200000 --kinds streams");
    let port = wait_until("the load", || {
        let load = children(bench.pid()).into_values().find(|line| line.contains("bench-load"))?;
        load.split(' ').skip_while(|word| *word != "--port").nth(1)?.parse::<u16>().ok()
    });
    let mut stranger = crate::support::client(&format!("redis://127.0.0.1:{port}"));
    run::<String>(&mut stranger, &["XADD", "messages:processed", "*", "message_id", "foreign"]);
    let status = bench.wait(3 * DEADLINE).expect("it ends");
    let shown = bench.stdout().all().join("\n");
    assert!(status.code() == Some(3) && shown.contains("1 belong to no message"), "{status} {shown}");
}

#[test]
fn a_worker_records_what_it_acknowledges_and_accepts_any_payload() {
    let server = redis_server();
    run_on::<String>(&server, &["XGROUP", "CREATE", "s", "g", "0", "MKSTREAM"]);
    let odd = ["not JSON", "{\"message_id\":\"m-1\"}", ""];
    odd.iter().for_each(|payload| drop(run_on::<String>(&server, &["XADD", "s", "*", "p", payload])));
    let mut command = programs().command("oncecast").expect("the program is built");
    let port = server.port().to_string();
    command.args(["bench-worker", "--port", &port, "--stream", "s", "--stream-group", "g", "--results", "r"]);
    command.args(["--name", "w7", "--worker-batch", "2"]);
    let mut worker = ChildProcess::spawn("worker", command).expect("it starts");
    wait_until("three results", || (run_on::<u64>(&server, &["XLEN", "r"]) == 3).then_some(()));
    worker.must_run().expect("it still runs");
    let pending = run_on::<Vec<redis::Value>>(&server, &["XPENDING", "s", "g"]);
    assert_eq!(pending.first(), Some(&redis::Value::Int(0)), "all of it is acknowledged");
    let results = crate::support::stream(&mut crate::support::client(&server.url()), "r");
    let first: Vec<&str> = results
        .iter()
        .map(|result| result.get("payload").or(result.get("message_id")).expect("a field").as_str())
        .collect();
    assert_eq!(first, ["not JSON", "m-1", ""]);
    assert!(results.iter().all(|result| result["consumer_id"] == "w7" && result["random_property"].len() == 8));
}

#[test]
fn invalid_settings_are_named() {
    for (options, part) in [
        (
            "--kinds oncecast,kafka",
            "--kinds (ONCECAST_KINDS): got \"kafka\", takes some of oncecast, patterns, ordered, replicated, \
             confirmed, bridge, streams, tidy, bullmq, relay",
        ),
        ("--kinds relay,relay", "--kinds (ONCECAST_KINDS): got relay twice"),
        ("--payload 8", "--payload (ONCECAST_PAYLOAD)"),
        ("--latency --payload 20", "--payload (ONCECAST_PAYLOAD): got 20, takes at least 53 bytes"),
        ("--lanes 1,0", "--lanes (ONCECAST_LANES): got \"0\", takes whole numbers from 1 to 48"),
        ("--latency --rates 0", "--rates (ONCECAST_RATES): got \"0\""),
        ("--json-file /nowhere/bench.json", "/nowhere/bench.json"),
    ] {
        let mut bench = bench(options);
        let status = bench.wait(DEADLINE).expect("it ends");
        let said = bench.stderr().tail(20);
        assert!(matches!(status.code(), Some(1 | 2)) && said.contains(part), "{options}: {status} {said}");
    }
}
