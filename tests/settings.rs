//! Settings and surroundings: a bad setting stops a program with a message that helps; a Redis that is away, locked or
//! full of foreign keys stops none, is told in the log, and costs no message. One that dies or is full: `faults/redis.rs`.

mod support;

use std::net::TcpListener;
use std::process::Output;
use std::time::Duration;

use oncecast::local::{ChildProcess, Cluster, Member, RedisOptions, RedisServer, ports};

use support::{
    DEADLINE, assert_each_once, client, client_of, cluster, programs, publish, run, subscribers, wait_for_intake,
    wait_until_done, wait_until_in_sync,
};

/// Runs a program that ends by itself, with variables `NAME=value` before its arguments.
fn ended(line: &str) -> (Option<i32>, String) {
    let mut words = line.split(' ').filter(|word| !word.is_empty()).peekable();
    let mut variables = Vec::new();
    while let Some(word) = words.next_if(|word| word.starts_with("ONCECAST_")) {
        variables.push(word.split_once('=').expect("NAME=value"));
    }
    let mut command = programs().command(words.next().expect("a program")).expect("the program is built");
    let Output { status, stdout, stderr } =
        command.args(words).envs(variables).output().expect("the program can be started");
    (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

#[test]
fn a_bad_setting_stops_the_program_and_is_named() {
    // Each with what the message must name: the setting, its variable, and what it got.
    let cases: &[(&str, &[&str])] = &[
        ("oncecast-dispatcher", &["--consumers", "ONCECAST_CONSUMERS", "required"]),
        ("oncecast-dispatcher --consumers nonsense", &["--consumers", "ONCECAST_CONSUMERS", "nonsense"]),
        ("oncecast-dispatcher --consumers h:1,h:1", &["--consumers", "ONCECAST_CONSUMERS", "h:1", "twice"]),
        ("oncecast-dispatcher --consumers h:1, --group g", &["--consumers", "ONCECAST_CONSUMERS"]),
        ("ONCECAST_CONSUMERS=h:x oncecast-dispatcher", &["--consumers", "ONCECAST_CONSUMERS", "h:x"]),
        ("oncecast-dispatcher --consumers h:1 --redis-url http://h", &["--redis-url", "ONCECAST_REDIS_URL"]),
        ("oncecast-dispatcher --consumers h:1 --redis-url rediss://h", &["--redis-url", "ONCECAST_REDIS_URL", "TLS"]),
        ("oncecast-dispatcher --consumers h:1 --lease-ttl-ms 5", &["--lease-ttl-ms", "ONCECAST_LEASE_TTL_MS", "5"]),
        ("oncecast-dispatcher --consumers h:1 --ready-bytes 1", &["--ready-bytes", "ONCECAST_READY_BYTES", "16777216"]),
        ("oncecast-dispatcher --consumers h:1 --ring-bytes x", &["--ring-bytes", "ONCECAST_RING_BYTES"]),
        ("oncecast-dispatcher --consumers h:1 --max-deliveries 0", &["--max-deliveries", "ONCECAST_MAX_DELIVERIES"]),
        (
            "oncecast-dispatcher --consumers h:1 --retry linear:5s",
            &["--retry", "ONCECAST_RETRY", "linear:5s", "fixed:5s"],
        ),
        ("ONCECAST_RETRY=fixed:5 oncecast-dispatcher --consumers h:1", &["ONCECAST_RETRY", "fixed:5", "unit"]),
        ("oncecast-dispatcher --consumers h:1 --channel messages:control", &["--channel", "ONCECAST_CHANNEL"]),
        ("oncecast-dispatcher --consumers h:1 --metrics-addr 9", &["--metrics-addr", "ONCECAST_METRICS_ADDR"]),
        ("ONCECAST_LINK_TIMEOUT_MS=soon oncecast-dispatcher --consumers h:1", &["ONCECAST_LINK_TIMEOUT_MS", "soon"]),
        ("oncecast-consumer --listen nowhere", &["--listen", "ONCECAST_LISTEN", "nowhere"]),
        ("oncecast-consumer --prefetch 0", &["--prefetch", "ONCECAST_PREFETCH"]),
        ("oncecast-consumer --concurrency many", &["--concurrency", "ONCECAST_CONCURRENCY", "many"]),
        ("oncecast-consumer --handler magic", &["--handler", "ONCECAST_HANDLER", "magic", "stamp"]),
        ("oncecast-consumer --handler-timeout-ms -1", &["--handler-timeout-ms", "ONCECAST_HANDLER_TIMEOUT_MS", "-1"]),
        ("oncecast-consumer --log-level loud", &["--log-level", "ONCECAST_LOG_LEVEL", "loud"]),
        ("ONCECAST_REDIS_URL=nonsense oncecast-consumer", &["--redis-url", "ONCECAST_REDIS_URL"]),
        ("ONCECAST_REDIS_URL_FILE=/nowhere oncecast-consumer", &["ONCECAST_REDIS_URL_FILE", "/nowhere"]),
        ("oncecast-publisher --rate fast", &["--rate", "ONCECAST_RATE", "fast"]),
        ("oncecast-publisher --count 0", &["--count", "ONCECAST_COUNT"]),
        ("oncecast-publisher --duration never", &["--duration", "ONCECAST_DURATION", "never"]),
        ("oncecast audit --expect some", &["--expect", "ONCECAST_EXPECT", "some"]),
        ("oncecast-dispatcher --no-such-flag", &["--no-such-flag"]),
        ("oncecast-consumer --no-such-flag 1", &["--no-such-flag"]),
        ("oncecast-publisher --no-such-flag", &["--no-such-flag"]),
        ("oncecast audit --no-such-flag", &["--no-such-flag"]),
        ("oncecast no-such-command", &["no-such-command"]),
    ];
    for (line, names) in cases {
        let (code, output) = ended(line);
        assert_eq!(code, Some(2), "{line}: {output}");
        for name in *names {
            assert!(output.contains(name), "{line}: no {name} in: {output}");
        }
    }
}

#[test]
fn a_secret_is_never_repeated() {
    for line in [
        "oncecast-dispatcher --consumers h:1 --redis-url redis://:s3cret@h:port",
        "ONCECAST_REDIS_URL=redis://user:s3cret@h:99999 oncecast-consumer",
        "ONCECAST_REDIS_URL=rediss://user:s3cret@h oncecast-publisher --help",
        "ONCECAST_REDIS_URL=http://:s3cret@h oncecast audit",
    ] {
        let (_, output) = ended(line);
        assert!(!output.contains("s3cret"), "{line}: {output}");
    }
}

#[test]
fn help_shows_each_setting_with_its_variable() {
    let common = ["redis-url", "group", "log-level"];
    let programs: &[(&str, &[&str])] = &[
        (
            "oncecast-dispatcher",
            &[
                "consumers",
                "channel",
                "dispatcher-id",
                "lease-ttl-ms",
                "link-timeout-ms",
                "max-deliveries",
                "retry",
                "ring-bytes",
                "ready-bytes",
                "metrics-addr",
            ],
        ),
        (
            "oncecast-consumer",
            &[
                "listen",
                "consumer-id",
                "concurrency",
                "prefetch",
                "handler",
                "handler-timeout-ms",
                "result-maxlen",
                "metrics-addr",
            ],
        ),
        ("oncecast-publisher", &["channel", "count", "rate", "batch", "duration", "id-prefix", "metrics-addr"]),
        ("oncecast audit", &["expect", "ids", "id-field"]),
    ];
    for (program, settings) in programs {
        let (code, output) = ended(&format!("{program} --help"));
        assert_eq!(code, Some(0), "{program} --help: {output}");
        for setting in settings.iter().chain(&common) {
            let variable = format!("ONCECAST_{}", setting.to_uppercase().replace('-', "_"));
            assert!(output.contains(&format!("--{setting} ")), "{program} --help does not show --{setting}: {output}");
            assert!(output.contains(&variable), "{program} --help does not show {variable}: {output}");
        }
        assert!(output.contains("ONCECAST_REDIS_URL_FILE"), "the file for the secret: {output}");
        let (code, output) = ended(&format!("{} --version", program.split(' ').next().unwrap_or_default()));
        assert!(code == Some(0) && output.contains(env!("CARGO_PKG_VERSION")), "{program} --version: {output}");
    }
}

#[test]
fn a_flag_wins_over_its_variable() {
    // The flag is bad and the variable good: the program must stop.
    let (code, output) = ended("ONCECAST_CONSUMERS=h:1 oncecast-dispatcher --consumers bad");
    assert!(code == Some(2) && output.contains("bad"), "{output}");
}

#[test]
fn a_port_in_use_ends_the_consumer_and_is_named() {
    let squatter = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = squatter.local_addr().unwrap().to_string();
    let (code, output) = ended(&format!("oncecast-consumer --listen {address}"));
    assert_eq!(code, Some(1), "{output}");
    for part in ["--listen", "ONCECAST_LISTEN", &address] {
        assert!(output.contains(part), "no {part} in: {output}");
    }
}

/// The members' logs must each get a line with all of these parts.
fn wait_for_lines(cluster: &mut Cluster, members: &[Member], event: &str, parts: &[&str]) {
    for member in members {
        let line = cluster.process(*member).unwrap().wait_for_line(event, DEADLINE).unwrap();
        for part in parts {
            assert!(line.contains(part), "{member}: no {part} in: {line}");
        }
    }
}

#[test]
fn programs_start_without_redis_say_so_and_recover() {
    let mut cluster = cluster(2, 2);
    let members = cluster.running();
    for member in &members {
        cluster.kill_member(*member).unwrap();
    }
    cluster.redis().stop().unwrap();
    for member in &members {
        cluster.start_member(*member).unwrap();
    }
    wait_for_lines(&mut cluster, &members, "event=redis-trouble", &["--redis-url", "ONCECAST_REDIS_URL"]);
    for member in &members {
        cluster.process(*member).unwrap().must_run().unwrap();
    }
    cluster.redis().start_again().unwrap();
    cluster.wait_for_leader(DEADLINE).unwrap();
    cluster.wait_for_consumers(DEADLINE).unwrap();
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    publish(connection, "m", 0..500);
    wait_until_done(connection, 500);
    assert_each_once(connection, &(0..500).map(|n| format!("m{n}")).collect::<Vec<_>>());
}

#[test]
fn a_wrong_password_is_told_and_no_program_gives_up() {
    let redis = RedisOptions { password: Some("right".to_owned()), ..RedisOptions::default() };
    let server = RedisServer::start(redis).unwrap();
    let address = format!("127.0.0.1:{}", ports::free_port().unwrap());
    for url in [format!("redis://127.0.0.1:{}", server.port()), format!("redis://:wrong@127.0.0.1:{}", server.port())] {
        let start = |program: &str, args: &[&str]| {
            let mut command = programs().command(program).unwrap();
            command.args(["--redis-url", &url]).args(args);
            ChildProcess::spawn(program, command).unwrap()
        };
        let mut consumer = start("oncecast-consumer", &["--listen", &address]);
        let mut dispatcher = start("oncecast-dispatcher", &["--consumers", &address]);
        for process in [&mut consumer, &mut dispatcher] {
            let line = process.wait_for_line("level=warn", DEADLINE).unwrap();
            assert!(line.contains("--redis-url") && line.contains("password"), "{}: {line}", process.name());
            let events = ["event=redis-trouble", "event=subscription-down", "event=not-reported"];
            assert!(events.iter().any(|event| line.contains(event)), "{line}");
            process.must_run().unwrap();
            assert!(process.stop(DEADLINE).unwrap().success(), "and it ends in order");
            let log = process.stderr().all().join("\n");
            assert!(!log.contains("panicked at") && !log.contains("wrong@"), "{log}");
        }
    }
    assert_eq!(subscribers(&mut client(&server.url())), 0);
}

#[test]
fn a_result_key_of_the_wrong_type_is_named_and_loses_nothing() {
    let mut cluster = cluster(2, 2);
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let () = run(connection, &["SET", "messages:processed", "something else"]);
    publish(connection, "m", 0..200);
    let consumers = [Member::Consumer(0), Member::Consumer(1)];
    wait_for_lines(&mut cluster, &consumers, "event=redis-trouble", &["messages:processed", "stream"]);
    wait_for_intake(connection);
    assert_eq!(
        run::<usize>(connection, &["ZCARD", "messages:pending"]),
        200,
        "nothing is removed that is not recorded"
    );
    let () = run(connection, &["DEL", "messages:processed"]);
    wait_until_done(connection, 200);
    assert_each_once(connection, &(0..200).map(|n| format!("m{n}")).collect::<Vec<_>>());
}

#[test]
fn a_pending_key_of_the_wrong_type_is_named_and_loses_nothing() {
    let mut cluster = cluster(2, 2);
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let (leader, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    let () = run(connection, &["SET", "messages:pending", "something else"]);
    publish(connection, "m", 0..200);
    wait_for_lines(&mut cluster, &[leader], "event=redis-trouble", &["messages:pending", "zset"]);
    let () = run(connection, &["DEL", "messages:pending"]);
    wait_until_done(connection, 200);
    assert_each_once(connection, &(0..200).map(|n| format!("m{n}")).collect::<Vec<_>>());
    assert_eq!(cluster.wait_for_leader(DEADLINE).unwrap().1, lease, "no reason to change the leader");
}

#[test]
fn programs_end_in_order_while_redis_is_away() {
    let mut cluster = cluster(2, 2);
    cluster.redis().kill().unwrap();
    let members = cluster.running();
    for member in members {
        // Catches a stop that waits for a Redis that does not come back.
        cluster.stop_member(member, Duration::from_secs(9)).unwrap_or_else(|error| panic!("{error}"));
    }
}
