//! Starting the programs. Here: an invalid setting stops a program with a helpful message.
//!
//! `output` and `signals`: how a shell starts programs. `servers`: messages about a Redis that can't be used.
//! `surroundings`: a Redis that is down, locked or full of foreign keys, which loses no message. A Redis that dies or
//! is full is in `faults/redis.rs`.

mod output;
mod servers;
mod signals;
mod surroundings;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use crate::support::programs;

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

/// Invalid settings, each with what the message must name: the setting, its variable, and the value.
const INVALID: &[(&str, &[&str])] = &[
    ("oncecast-dispatcher", &["--consumers", "ONCECAST_CONSUMERS", "required"]),
    ("oncecast-dispatcher --consumers nonsense", &["--consumers", "ONCECAST_CONSUMERS", "nonsense"]),
    ("oncecast-dispatcher --consumers h:1,h:1", &["--consumers", "ONCECAST_CONSUMERS", "h:1", "twice"]),
    ("oncecast-dispatcher --consumers redis://:pw@h:1", &["--consumers", "ONCECAST_CONSUMERS", "not repeated"]),
    ("oncecast-dispatcher --consumers h:1, --group g", &["--consumers", "ONCECAST_CONSUMERS"]),
    ("ONCECAST_CONSUMERS=h:x oncecast-dispatcher", &["--consumers", "ONCECAST_CONSUMERS", "h:x"]),
    ("oncecast-dispatcher --consumers h:1 --redis-url http://h", &["--redis-url", "ONCECAST_REDIS_URL"]),
    ("oncecast-dispatcher --consumers h:1 --redis-url rediss://h:0", &["--redis-url", "ONCECAST_REDIS_URL"]),
    ("oncecast-dispatcher --consumers h:1 --redis-ca /x", &["--redis-ca", "ONCECAST_REDIS_CA", "is not rediss://"]),
    ("oncecast-consumer --redis-cert /x --redis-key /y", &["--redis-cert", "ONCECAST_REDIS_CERT", "is not rediss://"]),
    ("oncecast-publisher --redis-url rediss://h --redis-ca /nowhere", &["--redis-ca", "/nowhere: No such file"]),
    ("oncecast audit --redis-url rediss://h --redis-ca /dev/null", &["--redis-ca", "/dev/null: it is not a file"]),
    ("oncecast status --redis-url rediss://h --redis-cert /x", &["--redis-key", "ONCECAST_REDIS_KEY", "--redis-cert"]),
    ("ONCECAST_REDIS_KEY=/x oncecast status --redis-url rediss://h", &["--redis-cert", "with --redis-key"]),
    ("oncecast-dispatcher --consumers h:1 --lease-ttl-ms 5", &["--lease-ttl-ms", "ONCECAST_LEASE_TTL_MS", "5"]),
    ("oncecast-dispatcher --consumers h:1 --hand-over-every-ms 9", &["ONCECAST_HAND_OVER_EVERY_MS", "from 2000"]),
    ("oncecast-dispatcher --consumers h:1 --ready-bytes 1", &["--ready-bytes", "ONCECAST_READY_BYTES", "16777216"]),
    ("oncecast-dispatcher --consumers h:1 --order-key customer", &["order-key", "json:POINTER", "or none"]),
    ("oncecast-dispatcher --deliver stream --order-key channel", &["order-key", "in order anyway"]),
    ("oncecast-dispatcher --consumers h:1 --ring-bytes x", &["--ring-bytes", "ONCECAST_RING_BYTES"]),
    ("oncecast-dispatcher --consumers h:1 --max-deliveries 0", &["--max-deliveries", "ONCECAST_MAX_DELIVERIES"]),
    ("oncecast-dispatcher --consumers h:1 --retry linear:5s", &["--retry", "ONCECAST_RETRY", "linear:5s", "fixed:5s"]),
    ("ONCECAST_RETRY=fixed:5 oncecast-dispatcher --consumers h:1", &["ONCECAST_RETRY", "fixed:5", "unit"]),
    ("oncecast-dispatcher --consumers h:1 --channel messages:control", &["--channel", "ONCECAST_CHANNEL"]),
    ("oncecast-dispatcher --consumers h:1 --metrics-addr 9", &["--metrics-addr", "ONCECAST_METRICS_ADDR"]),
    ("ONCECAST_LINK_TIMEOUT_MS=soon oncecast-dispatcher --consumers h:1", &["ONCECAST_LINK_TIMEOUT_MS", "soon"]),
    ("oncecast-dispatcher --shadow --consumers h:1", &["--consumers", "--shadow", "never leads"]),
    ("ONCECAST_SHADOW=yes oncecast-dispatcher --retry none", &["--retry", "--shadow"]),
    ("ONCECAST_SHADOW=maybe oncecast-dispatcher --consumers h:1", &["ONCECAST_SHADOW", "maybe", "yes or no"]),
    // Variables are for other dispatchers, too.
    ("ONCECAST_CONSUMERS=h:1 oncecast-dispatcher --shadow --channel a?", &["--channel", "write \\?"]),
    ("oncecast-consumer --listen nowhere", &["--listen", "ONCECAST_LISTEN", "nowhere"]),
    ("oncecast-consumer --prefetch 0", &["--prefetch", "ONCECAST_PREFETCH"]),
    ("oncecast-consumer --concurrency many", &["--concurrency", "ONCECAST_CONCURRENCY", "many"]),
    ("oncecast-consumer --handler magic", &["--handler", "ONCECAST_HANDLER", "magic", "stamp, forward, http or exec"]),
    ("oncecast-consumer --handler-timeout-ms -1", &["--handler-timeout-ms", "ONCECAST_HANDLER_TIMEOUT_MS", "-1"]),
    ("oncecast-consumer --log-level loud", &["--log-level", "ONCECAST_LOG_LEVEL", "loud"]),
    ("ONCECAST_REDIS_URL=nonsense oncecast-consumer", &["--redis-url", "ONCECAST_REDIS_URL"]),
    ("ONCECAST_REDIS_URL_FILE=/nowhere oncecast-consumer", &["ONCECAST_REDIS_URL_FILE", "/nowhere"]),
    ("oncecast-publisher --rate fast", &["--rate", "ONCECAST_RATE", "fast"]),
    ("oncecast-publisher --channels 0", &["--channels", "ONCECAST_CHANNELS", "from 1 to 100000"]),
    ("ONCECAST_CHANNELS=100001 oncecast-publisher", &["--channels", "ONCECAST_CHANNELS", "100001"]),
    ("oncecast-publisher --channel a,b,a", &["--channel", "\"a\" twice"]),
    ("oncecast-publisher --channel a,,b", &["--channel", "empty name"]),
    ("oncecast-publisher --count 0", &["--count", "ONCECAST_COUNT"]),
    ("oncecast-publisher --duration never", &["--duration", "ONCECAST_DURATION", "never"]),
    ("oncecast audit --expect some", &["--expect", "ONCECAST_EXPECT", "some"]),
    ("oncecast-dispatcher --consumers h:70000", &["--consumers", "h:70000", "over 65535"]),
    ("oncecast-dispatcher --consumers h", &["--consumers", "the port is missing"]),
    ("oncecast-dispatcher --consumers h:1 --channel orders.*", &["--channel", "ONCECAST_CHANNEL", r"write \*"]),
    ("ONCECAST_CHANNEL=a? oncecast-dispatcher --consumers h:1", &["--channel", r"write \?"]),
    ("oncecast-publisher --channel [ab]", &["--channel", r"write \["]),
    ("ONCECAST_CHANNEL=orders.* oncecast-publisher", &["--channel", r"write \*"]),
    ("oncecast-consumer --redis-url redis://app@h", &["--redis-url", "user without a password"]),
    ("oncecast-consumer --redis-url h:6379", &["--redis-url", "scheme is missing"]),
    ("oncecast status --redis-url redis://h:70000", &["--redis-url", "over 65535"]),
    ("oncecast status --redis-url redis://:a#b@h", &["--redis-url", "percent-encoded"]),
    ("oncecast status --redis-url redis://h?db=1", &["--redis-url", "unknown parameter", "db"]),
    ("oncecast chaos --consumers 3", &["--consumers"]),
    ("oncecast-dispatcher --consumer h:1", &["--consumer'", "'--consumers'"]),
    ("oncecast statsu", &["statsu", "'status'"]),
    ("oncecast-dispatcher --no-such-flag", &["--no-such-flag"]),
    ("oncecast-consumer --no-such-flag 1", &["--no-such-flag"]),
    ("oncecast-publisher --no-such-flag", &["--no-such-flag"]),
    ("oncecast audit --no-such-flag", &["--no-such-flag"]),
    ("oncecast no-such-command", &["no-such-command"]),
];

#[test]
fn an_invalid_setting_stops_the_program_and_is_named() {
    for (line, names) in INVALID {
        let (code, output) = ended(line);
        assert_eq!(code, Some(2), "{line}: {output}");
        for name in *names {
            assert!(output.contains(name), "{line}: no {name} in: {output}");
        }
    }
}

#[test]
fn secrets_are_never_printed() {
    for line in [
        "oncecast-dispatcher --consumers h:1 --redis-url redis://:s3cret@h:port",
        "ONCECAST_REDIS_URL=redis://user:s3cret@h:99999 oncecast-consumer",
        "ONCECAST_REDIS_URL=rediss://user:s3cret@h oncecast-publisher --help",
        "ONCECAST_REDIS_URL=http://:s3cret@h oncecast audit",
        "ONCECAST_REDIS_URL=redis://s3cret@h oncecast status",
        "oncecast status --redis-url redis://:1/s3cret@h",
        "oncecast status redis://:s3cret@h",
        "oncecast-publisher --group redis://:s3cret@h",
        "ONCECAST_REDIS_URL_FILE=redis://:s3cret@h oncecast-consumer",
        "ONCECAST_REDIS_RUL=redis://:s3cret@h oncecast status --redis-url redis://127.0.0.1:1",
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
                "order-key",
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
fn a_flag_overrides_its_variable() {
    // The flag is invalid and the variable valid: the program must stop.
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

#[test]
fn unknown_variables_and_exposed_secrets_cause_warnings() {
    let file = std::env::temp_dir().join(format!("oncecast-exposed-{}", std::process::id()));
    std::fs::write(&file, "redis://127.0.0.1:1").expect("a file");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("our own");
    let (code, output) =
        ended(&format!("ONCECAST_REDIS_URL_FILE={} ONCECAST_GRUOP=g ONCECAST_RATE=7 oncecast status", file.display()));
    std::fs::remove_file(&file).expect("our own");
    assert_eq!(code, Some(1), "nothing listens there: {output}");
    let lines: Vec<&str> = output.lines().filter(|line| line.contains("level=warn")).collect();
    assert_eq!(lines.len(), 2, "{output}");
    assert!(lines[0].contains("variable=ONCECAST_GRUOP") && lines[0].contains("ONCECAST_GROUP?"), "{output}");
    assert!(lines[1].contains("event=secret-exposed variable=ONCECAST_REDIS_URL_FILE"), "{output}");
}
