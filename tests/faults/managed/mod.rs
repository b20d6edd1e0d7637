//! Row 41: what managed services refuse or limit, imitated by a proxy and by settings of the server. The table of
//! docs/COMPATIBILITY.md says where each service documents it. No service was asked.

mod services;

use std::collections::HashSet;
use std::time::Instant;

use oncecast::lab::{ChildProcess, ports};

use self::services::{AZURE_CACHE, ELASTICACHE, ELASTICACHE_SERVERLESS, MEMORYDB, REDIS_SOFTWARE, Service, UPSTASH};
use crate::censor::{Censor, Limits};
use crate::dispatchers::Watched;
use crate::mode::{Mode, in_both_modes};
use crate::run::{Run, assert_l0_of};
use crate::support::load::Load;
use crate::support::{
    CHANNEL, DEADLINE, client, programs, publish_payloads, run, stream, subscribers, wait_for_intake_of, wait_until,
};

/// The group's name has braces, which a Redis Cluster needs and other servers allow.
const GROUP: &str = "{messages}";

/// A consumer of the group at this URL, and its address.
fn consumer(url: &str, name: &str) -> (ChildProcess, String) {
    let address = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
    let mut command = programs().command("oncecast-consumer").expect("the program is built");
    command.args(["--redis-url", url, "--group", GROUP, "--listen", &address, "--consumer-id", name]);
    let process = ChildProcess::spawn(name, command).expect("the consumer starts");
    process.wait_for_line("event=listening", DEADLINE).expect("it listens");
    (process, address)
}

fn dispatcher(name: &str, censor: &Censor, addresses: &[String], args: &str) -> Watched {
    let command = programs().command("oncecast-dispatcher").expect("the program is built");
    Watched::spawn(command, name, &censor.url(), addresses, "127.0.0.1", args)
}

/// A large message, which a leader must carry to Redis and to a consumer.
fn large(id: &str, bytes: usize) -> String {
    format!("{{\"message_id\":\"{id}\",\"pad\":\"{}\"}}", "x".repeat(bytes))
}

/// Waits until both are subscribed and in sync.
fn wait_until_ready(dispatchers: &[Watched], connection: &mut redis::Connection) {
    wait_until("both to be subscribed", || (subscribers(connection) == 2).then_some(()));
    dispatchers.iter().for_each(Watched::wait_until_ready);
}

/// A cluster under load behind the service's limits, whose leader is killed again and again.
fn behind(service: &Service, mode: Mode, row: &str) {
    /// The large messages of each round. The largest fits into no other request.
    const LARGE_BYTES: [usize; 4] = [100_000, 1_000_000, 4_000_000, 8_000_000];
    let mut this = Run::in_mode(mode, row);
    let server = service.start();
    let censor = service.before(&server);
    let connection = &mut client(&server.url());
    let mut consumers: Vec<(ChildProcess, String)> =
        (0..mode.consumers(2)).map(|number| consumer(&censor.url(), &format!("c{number}"))).collect();
    let addresses: Vec<String> = consumers.iter().map(|(_, address)| address.clone()).collect();
    let args = mode.args(&format!("--group {GROUP} --channel {CHANNEL} --lease-ttl-ms 2000"));
    let start = |name: &str| dispatcher(name, &censor, &addresses, &args);
    let mut dispatchers = ["d0", "d1"].map(start);
    wait_until_ready(&dispatchers, connection);
    let load = Load::start(&censor.url(), "m", this.scale(1_000, 3_000));
    let mut owed = Vec::new();
    for round in 0..this.scale(3, 20) {
        wait_until_ready(&dispatchers, connection);
        let ids: Vec<String> = (0..LARGE_BYTES.len()).map(|n| format!("large{round}-{n}")).collect();
        let payloads: Vec<String> = ids.iter().zip(LARGE_BYTES).map(|(id, bytes)| large(id, bytes)).collect();
        assert_eq!(publish_payloads(connection, payloads), 2, "both hear it");
        owed.extend(ids);
        load.wait_for_more(this.random.u64(50..400));
        let lease: String = run(connection, &["GET", &format!("{GROUP}:leader")]);
        let leads = |one: &Watched| lease.starts_with(&format!("{}-", one.name()));
        let leader = dispatchers.iter().position(leads).expect("it leads");
        dispatchers[leader].process.kill().unwrap();
        let killed = Instant::now();
        wait_for_intake_of(GROUP, connection);
        this.say(format_args!("messages are stored {} ms after the kill", killed.elapsed().as_millis()));
        dispatchers[leader] = start(&format!("d{}", round + 2));
    }
    let mut sent = load.stop();
    assert!(sent.uncertain.is_empty() && sent.unheard.is_empty(), "one dispatcher was there all the time");
    sent.owed.extend(owed);
    assert_l0_of(GROUP, connection, &sent);
    assert_eq!(stream(connection, &format!("{GROUP}:gaps")), [], "one in sync was there");
    assert_eq!(stream(connection, &format!("{GROUP}:dead")), [], "each can be carried");
    consumers.iter_mut().for_each(|(consumer, _)| consumer.must_run().unwrap());
    assert_said(service, &censor, &dispatchers);
}

/// Dispatchers say what they could not check, and `oncecast status` shows the group.
fn assert_said(service: &Service, censor: &Censor, dispatchers: &[Watched]) {
    let lines: HashSet<String> = dispatchers.iter().flat_map(|one| one.process.stderr().all()).collect();
    if let Some(unchecked) = service.unchecked {
        assert!(censor.refused() > 0, "nothing was refused, so this shows nothing");
        assert!(
            lines.iter().any(|line| line.contains("event=redis-setting") && line.contains(unchecked)),
            "{lines:#?}"
        );
    }
    let mut command = programs().command("oncecast").expect("the program is built");
    command.args(["status", "--json", "--redis-url", &censor.url(), "--group", GROUP]);
    let output = command.output().expect("it runs");
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(status["dispatchers"].as_array().map(Vec::len), Some(2), "{status}");
    assert!(status["leader"].is_object() || status["leader"].is_string(), "{status}");
}

/// A message larger than the service's requests may be becomes a dead letter with the service's reason.
fn row_41_message_larger_than_a_request_may_be(mode: Mode) {
    const MOST_BYTES: usize = 2_000_000;
    let this = Run::in_mode(mode, "row_41_message_larger_than_a_request_may_be");
    let server = UPSTASH.start();
    let limits = Limits { most_bytes: MOST_BYTES, ..UPSTASH.limits };
    let censor = Censor::with(&format!("127.0.0.1:{}", server.port()), limits);
    let connection = &mut client(&server.url());
    let (_consumer, address) = consumer(&censor.url(), "c0");
    let args = mode.args(&format!("--group {GROUP} --channel {CHANNEL}"));
    let addresses = if mode == Mode::Consumers { vec![address] } else { Vec::new() };
    let dispatchers = ["d0", "d1"].map(|name| dispatcher(name, &censor, &addresses, &args));
    wait_until_ready(&dispatchers, connection);
    let load = Load::start(&server.url(), "m", 1_000);
    load.wait_for_more(200);
    publish_payloads(connection, [large("large", 2 * MOST_BYTES)]);
    load.wait_for_more(this.scale(500, 5_000));
    let mut sent = load.stop();
    sent.owed.push("large".to_owned());
    assert_l0_of(GROUP, connection, &sent);
    let dead = stream(connection, &format!("{GROUP}:dead"));
    assert!(dead.len() == 1 && dead[0]["reason"].contains("max request size exceeded"), "{:?}", dead[0].get("reason"));
}

/// Makes a row of each service.
macro_rules! rows {
    ($($row:ident $service:ident),+ $(,)?) => {
        $(fn $row(mode: Mode) { behind(&$service, mode, stringify!($row)); })+
        in_both_modes! { $($row,)+ row_41_message_larger_than_a_request_may_be }

        #[test]
        fn the_document_names_each_imitated_service() {
            const DOCUMENT: &str = include_str!("../../../docs/COMPATIBILITY.md");
            for row in [$(stringify!($row)),+] {
                assert!(DOCUMENT.contains(&format!("| `{row}` |")), "docs/COMPATIBILITY.md has no row {row}");
            }
            let documented = DOCUMENT.matches("| `row_41_").count();
            assert_eq!(documented, [$(stringify!($row)),+].len(), "it names others");
        }
    };
}

rows! {
    row_41_elasticache_imitated ELASTICACHE,
    row_41_elasticache_serverless_imitated ELASTICACHE_SERVERLESS,
    row_41_memorydb_imitated MEMORYDB,
    row_41_redis_software_imitated REDIS_SOFTWARE,
    row_41_azure_cache_imitated AZURE_CACHE,
    row_41_upstash_imitated UPSTASH,
}
