use std::ffi::OsString;
use std::time::Duration;

use super::*;
use crate::base::setting::variable_of;
use crate::ledger::{Destination, Glob, Interests};
use crate::process::config::Environment;
use crate::process::metrics::healthcheck::{Check, Question};
use crate::programs::dispatcher::settings::DispatcherConfig;
use crate::wire::MAX_CHANNEL_BYTES;

fn no_environment(_: &str) -> Option<OsString> {
    None
}

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn dispatcher_error(line: &str) -> String {
    DISPATCHER.parse(words(line), &no_environment).expect_err(line).to_string()
}

fn dispatcher_config(line: &str, environment: Environment<'_>) -> DispatcherConfig {
    match DISPATCHER.parse(words(line), environment).expect(line) {
        Parsed::Run(config) => config,
        other => panic!("{other:?}"),
    }
}

#[test]
fn defaults_are_as_documented() {
    let config = dispatcher_config("d --consumers 127.0.0.1:6969,[::1]:7000,host_a:1", &no_environment);
    assert_eq!(config.common.redis.shown(), "127.0.0.1:6379");
    assert_eq!(config.common.keys.pending, "messages:pending");
    assert_eq!(config.interests, Interests::in_channel("messages:published"));
    let consumers: Vec<String> = config.consumers.iter().map(ToString::to_string).collect();
    assert_eq!(consumers, ["127.0.0.1:6969", "[::1]:7000", "host_a:1"]);
    assert_eq!(config.lease_ttl, Duration::from_millis(2000));
    assert_eq!(config.link_timeout, Duration::from_millis(3000));
    assert_eq!((config.max_deliveries, config.retry.to_string().as_str()), (8, "exponential:200ms..5m*4"));
    assert_eq!(config.common.metrics, None);
    let Ok(Parsed::Run(config)) = CONSUMER.parse(words("c"), &no_environment) else {
        panic!("no settings are required")
    };
    assert_eq!((config.listen.as_str(), config.consumer_id.as_str()), ("127.0.0.1:6969", "127.0.0.1:6969"));
    assert_eq!((config.handler_timeout, config.result_maxlen), (None, 0));
}

#[test]
fn a_stream_takes_the_place_of_consumers() {
    let destination = |line: &str| {
        let config = dispatcher_config(&format!("d --deliver stream --group {line}"), &no_environment);
        assert_eq!(config.consumers, []);
        let Destination::Stream { key, maxlen } = config.destination else { panic!("{:?}", config.destination) };
        assert_eq!(config.common.keys.stream.as_ref(), Some(&key));
        (key, maxlen)
    };
    assert_eq!(destination("{orders}"), ("{orders}:messages".to_owned(), 0));
    assert_eq!(destination("a --stream jobs --stream-maxlen 10000"), ("jobs".to_owned(), 10_000));
    let config = dispatcher_config("d --consumers a:1 --deliver consumers --stream jobs", &no_environment);
    assert_eq!((config.destination, config.common.keys.stream), (Destination::Pending, None));
}

#[test]
fn a_flag_wins_over_the_variable_and_the_variable_over_the_file() {
    let file = std::env::temp_dir().join(format!("oncecast-url-{}", std::process::id()));
    std::fs::write(&file, "redis://:secret@10.0.0.3:1\n").unwrap();
    let path = file.clone().into_os_string();
    let from_file = move |variable: &str| match variable {
        "ONCECAST_CONSUMERS" => Some("a:1".into()),
        "ONCECAST_REDIS_URL_FILE" => Some(path.clone()),
        _ => None,
    };
    let from_both = |variable: &str| match variable {
        "ONCECAST_REDIS_URL" => Some("redis://10.0.0.2:1".into()),
        other => from_file(other),
    };
    assert_eq!(dispatcher_config("d", &from_file).common.redis.shown(), "10.0.0.3:1");
    assert_eq!(dispatcher_config("d", &from_both).common.redis.shown(), "10.0.0.2:1");
    assert_eq!(dispatcher_config("d --redis-url redis://10.0.0.1:1", &from_both).common.redis.shown(), "10.0.0.1:1");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_bad_value_names_the_setting_what_it_got_and_what_it_takes() {
    for (line, parts) in [
        ("d", &["--consumers", "ONCECAST_CONSUMERS", "required", "host:port"][..]),
        ("d --deliver queue", &["--deliver", "\"queue\"", "consumers or stream"]),
        ("d --deliver stream --consumers a:1", &["--consumers", "--deliver stream", "workers read the stream"]),
        ("d --consumers a:1 --stream x", &["--stream", "without --deliver stream"]),
        ("d --consumers a:1 --stream-maxlen 5", &["--stream-maxlen", "without --deliver stream"]),
        ("d --deliver stream --stream messages:pending", &["--stream", "\"messages:pending\"", "does not use itself"]),
        ("d --deliver stream --stream-maxlen -1", &["--stream-maxlen", "\"-1\""]),
        ("d --consumers a:1,nonsense", &["--consumers", "\"nonsense\"", "host:port"]),
        ("d --consumers a:1,b:70000", &["--consumers", "\"b:70000\"", "over 65535"]),
        ("d --consumers redis://a:1", &["--consumers", "not a URL"]),
        ("d --consumers ::1:6969", &["--consumers", "brackets"]),
        ("d --consumers 6969", &["--consumers", "the host is missing"]),
        ("d --consumers user:secret@h:6969", &["--consumers", "not repeated"]),
        ("d --consumers a:1,,b:2", &["--consumers", "\"\""]),
        ("d --consumers a:1,a:1", &["--consumers", "\"a:1\" twice"]),
        (
            "d --consumers a:1 --lease-ttl-ms soon",
            &["--lease-ttl-ms", "ONCECAST_LEASE_TTL_MS", "\"soon\"", "100 to 600000"],
        ),
        ("d --consumers a:1 --ring-bytes 1", &["--ring-bytes", "\"1\""]),
        ("d --consumers a:1 --log-level loud", &["--log-level", "\"loud\"", "info"]),
        ("d --consumers a:1 --metrics-addr 9000", &["--metrics-addr", "\"9000\"", "host:port"]),
        ("d --consumers a:1 --retry exponential:5m..1s*2", &["--retry", "exponential:5m..1s*2", "not longer"]),
        ("d --consumers a:1 --dispatcher-id d/0", &["--dispatcher-id", "\"d/0\""]),
        ("d --consumers a:1 --channel messages:control", &["--channel", "messages:control"]),
    ] {
        let message = dispatcher_error(line);
        for part in parts {
            assert!(message.contains(part), "{line}: {message}");
        }
    }
}

#[test]
fn a_bad_url_is_refused_without_showing_its_password() {
    for url in ["redis://:hunter2@host:port/", "http://:hunter2@host:1", "rediss://:hunter2@host:0"] {
        let message = dispatcher_error(&format!("d --consumers a:1 --redis-url {url}"));
        assert!(message.contains("--redis-url") && message.contains("ONCECAST_REDIS_URL"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn help_shows_settings_and_variables_but_no_values() {
    let Ok(Parsed::Print(help)) = DISPATCHER.parse(words("d --help"), &|_| Some("redis://:hunter2@h".into())) else {
        panic!("--help is no error")
    };
    for part in ["--consumers", "ONCECAST_CONSUMERS", "ONCECAST_REDIS_URL_FILE", "default: 2000", "required"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    assert!(!help.contains("hunter2"));
}

#[test]
fn durations_have_units() {
    let run = |line: &str| match PUBLISHER.parse(words(line), &no_environment) {
        Ok(Parsed::Run(config)) => Ok(config.duration),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string()),
    };
    assert_eq!(run("p"), Ok(None));
    assert_eq!(run("p --duration 1500ms"), Ok(Some(Duration::from_millis(1500))));
    assert_eq!(run("p --duration 2m"), Ok(Some(Duration::from_secs(120))));
    assert_eq!(run("p --duration 3"), Ok(Some(Duration::from_secs(3))));
    for bad in ["0s", "-1s", "1 s", "s", "5 years", "nan", "inf", "1e9"] {
        assert!(run(&format!("p --duration={}", bad.replace(' ', "_"))).unwrap_err().contains("--duration"), "{bad}");
    }
}

#[test]
fn a_health_check_needs_the_metrics_address_alone() {
    let asked = |line: &str, environment: Environment<'_>| match DISPATCHER.parse(words(line), environment) {
        Ok(Parsed::Healthcheck(Question { address, check })) => Ok((address, check)),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err((error.exit_code(), error.to_string())),
    };
    let set = |variable: &str| (variable == "ONCECAST_METRICS_ADDR").then(|| "0.0.0.0:9100".into());
    let all = ("0.0.0.0:9100".to_owned(), Check::Ready);
    assert_eq!(asked("d healthcheck", &set), Ok(all));
    let named = ("h:1".to_owned(), Check::Alive);
    assert_eq!(asked("d healthcheck --alive --metrics-addr h:1", &set), Ok(named));
    let off = |variable: &str| (variable == "ONCECAST_METRICS_ADDR").then(|| "off".into());
    for environment in [&no_environment as Environment<'_>, &off] {
        let (code, message) = asked("d healthcheck", environment).unwrap_err();
        assert!(code == 2 && message.contains("--metrics-addr (ONCECAST_METRICS_ADDR)"), "{message}");
    }
    assert!(asked("d healthcheck --metrics-addr nonsense", &set).unwrap_err().1.contains("\"nonsense\""));
    assert!(asked("d --consumers h:1 healthcheck", &set).is_err(), "a setting that would not be looked at");
}

#[test]
fn a_switch_is_on_by_its_flag_or_by_its_variable() {
    let json = |line: &str, variable: &'static str| {
        let environment = move |name: &str| (name == "ONCECAST_JSON").then(|| variable.into());
        match TOOL.parse(words(line), &environment) {
            Ok(Parsed::Run(ToolConfig::Status(config))) => Ok(config.json),
            Err(error) => Err(error.to_string()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(json("oncecast status", ""), Ok(false));
    assert_eq!(json("oncecast status --json", ""), Ok(true));
    assert_eq!(json("oncecast status --json", "no"), Ok(true), "a flag wins");
    assert_eq!((json("oncecast status", "true"), json("oncecast status", "no")), (Ok(true), Ok(false)));
    let error = json("oncecast status", "maybe").expect_err("neither");
    assert!(error.contains("--json (ONCECAST_JSON)") && error.contains("yes or no"), "{error}");
}

#[test]
fn one_name_has_one_meaning_in_all_programs() {
    let mut seen: Vec<&Setting> = Vec::new();
    for setting in tables().flatten() {
        match seen.iter().find(|known| known.name == setting.name) {
            // A rate of deliveries has a unit, and one of publishing has none: neither is taken for the other.
            Some(known) if setting.name == "rate" => assert!([known.value, setting.value].contains(&"N")),
            Some(known) => assert_eq!(
                (known.value, known.switch, known.secret),
                (setting.value, setting.switch, setting.secret),
                "ONCECAST_* is set for all programs: --{}",
                setting.name
            ),
            None => seen.push(setting),
        }
    }
}

#[test]
fn the_publisher_spreads_over_channels() {
    let channels = |line: &str| match PUBLISHER.parse(words(&format!("p {line}")), &no_environment) {
        Ok(Parsed::Run(config)) => config.channels.into_iter().map(|name| String::from_utf8_lossy(&name).into_owned()),
        other => panic!("{line}: {other:?}"),
    };
    let all = |line: &str| channels(line).collect::<Vec<_>>();
    assert_eq!(all(""), ["messages:published"]);
    assert_eq!(all("--channel a,b --channel c"), ["a", "b", "c"]);
    assert_eq!(all("--channel a,b --channels 3"), ["a.0", "a.1", "a.2", "b.0", "b.1", "b.2"]);
    assert_eq!(all("--channels 2"), ["messages:published.0", "messages:published.1"]);
    assert_eq!(all(r"--channel a\,\* --channels 1"), ["a,*.0"]);
    assert_eq!(all("--channels 100000").len(), 100_000);
    assert_eq!(all(&format!("--channel {} --channels 10", "x".repeat(MAX_CHANNEL_BYTES - 2))).len(), 10);
    for (line, parts) in [
        ("--channels 0", &["--channels (ONCECAST_CHANNELS)", "\"0\"", "from 1 to 100000"][..]),
        ("--channel a,b --channels 50001", &["--channels (ONCECAST_CHANNELS)", "\"50001\"", "from 1 to 50000"]),
        ("--channel a --channel b,a", &["--channel (ONCECAST_CHANNEL)", "\"a\" twice"]),
        ("--channel a,,b", &["--channel (ONCECAST_CHANNEL)", "empty name"]),
        (
            &format!("--channel {} --channels 11", "x".repeat(MAX_CHANNEL_BYTES - 2)),
            &["--channel (ONCECAST_CHANNEL)", "--channels"],
        ),
    ] {
        let error = PUBLISHER.parse(words(&format!("p {line}")), &no_environment).expect_err(line).to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{line}: {error}");
    }
}

#[test]
fn a_pattern_is_no_channel_unless_it_is_escaped() {
    let error = dispatcher_error("d --consumers a:1 --channel orders.*");
    assert!(error.contains("--channel (ONCECAST_CHANNEL)") && error.contains(r"write \*"), "{error}");
    let set = |variable: &str| (variable == "ONCECAST_CHANNEL").then(|| OsString::from(r"orders.\*"));
    assert_eq!(dispatcher_config("d --consumers a:1", &set).interests, Interests::in_channel("orders.*"));
    match PUBLISHER.parse(words("p"), &set) {
        Ok(Parsed::Run(config)) => assert_eq!(config.channels, [b"orders.*"]),
        other => panic!("{other:?}"),
    }
    for (channel, good) in [("a?", false), (r"a\?", true)] {
        let publisher = PUBLISHER.parse(words(&format!("p --channel {channel}")), &no_environment);
        assert_eq!(publisher.is_ok(), good, "{channel}");
    }
    let error = dispatcher_error(r"d --consumers a:1 --group a* --channel a\*:control");
    assert!(error.contains("the group does not use itself"), "by its real name: {error}");
}

fn interests_of(channels: &[&str], patterns: &[&str]) -> Interests {
    let globs = patterns.iter().map(|text| Glob::parse(text.as_bytes()).expect(text)).collect();
    Interests::of(channels.iter().map(|name| name.as_bytes().to_vec()).collect(), globs).expect("good ones")
}

#[test]
fn channels_patterns_and_events_are_given_in_any_mix() {
    for (line, channels, patterns) in [
        ("", &["messages:published"][..], &[][..]),
        ("--channel a --channel b,c", &["a", "b", "c"], &[]),
        (r"--channel a\,b", &["a,b"], &[]),
        ("--pattern orders.*,[ab]? --channel x", &["x"], &["orders.*", "[ab]?"]),
        ("--keyevent expired", &["__keyevent@0__:expired"], &[]),
        ("--keyevent expired,del --keyspace-db 3", &["__keyevent@3__:expired", "__keyevent@3__:del"], &[]),
        ("--keyevent expired --keyspace-db * --channel x", &["x"], &["__keyevent@*__:expired"]),
        ("--keyevent expired --redis-url redis://h/7", &["__keyevent@7__:expired"], &[]),
    ] {
        let config = dispatcher_config(&format!("d --consumers a:1 {line}"), &no_environment);
        assert_eq!(config.interests, interests_of(channels, patterns), "{line}");
    }
    let set = |variable: &str| match variable {
        "ONCECAST_CHANNEL" => Some("a,b".into()),
        "ONCECAST_PATTERN" => Some(r"c\,*".into()),
        "ONCECAST_KEYEVENT" => Some("expired".into()),
        "ONCECAST_KEYSPACE_DB" => Some("1".into()),
        _ => None,
    };
    let config = dispatcher_config("d --consumers a:1", &set);
    assert_eq!(config.interests, interests_of(&["a", "b", "__keyevent@1__:expired"], &[r"c\,*"]));
    // A flag takes precedence over its own variable only.
    let config = dispatcher_config("d --consumers a:1 --channel x", &set);
    assert_eq!(config.interests, interests_of(&["x", "__keyevent@1__:expired"], &[r"c\,*"]));
}

#[test]
fn sharded_channels_are_given_alone() {
    let config = dispatcher_config(r"d --consumers a:1 --sharded-channel a,b --sharded-channel c\,d", &no_environment);
    let names = ["a", "b", "c,d"].map(|name| name.as_bytes().to_vec()).to_vec();
    assert_eq!(config.interests, Interests::of_sharded(names).expect("good ones"));
    for (line, parts) in [
        ("--sharded-channel a --channel b", &["--sharded-channel (ONCECAST_SHARDED_CHANNEL)", "--channel"][..]),
        ("--sharded-channel a --pattern b*", &["--pattern", "two groups"]),
        ("--sharded-channel a --keyevent expired", &["--keyevent"]),
        ("--sharded-channel a --keyspace-db 1", &["--keyspace-db"]),
        ("--sharded-channel a,a", &["\"a\" twice"]),
        ("--sharded-channel a*", &["names, not patterns"]),
        ("--sharded-channel messages:control", &["does not use itself"]),
    ] {
        let error = dispatcher_error(&format!("d --consumers a:1 {line}"));
        assert!(parts.iter().all(|part| error.contains(part)), "{line}: {error}");
    }
    let publisher = |line: &str| PUBLISHER.parse(words(&format!("p {line}")), &no_environment);
    match publisher("--sharded-channel a --channels 2") {
        Ok(Parsed::Run(config)) => assert!(config.sharded && config.channels == [b"a.0", b"a.1"]),
        other => panic!("{other:?}"),
    }
    assert!(publisher("--sharded-channel a --channel b").is_err());
}

#[test]
fn only_a_shadow_follows_one_lane() {
    let config = dispatcher_config("d --shadow --group {orders} --channel a --lane 3", &no_environment);
    assert_eq!((config.common.keys.group.as_str(), config.common.lane), ("{orders}", Some(3)));
    let error = dispatcher_error("d --consumers a:1 --group {orders} --channel a --lane 3");
    assert!(error.contains("--lane (ONCECAST_LANE): got 3") && error.contains("--shadow"), "{error}");
}

#[test]
fn what_can_be_no_interest_names_its_setting() {
    let many = |count: usize| (0..count).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
    let long = "x".repeat(4_097);
    for (line, parts) in [
        ("--channel a,,b", &["--channel (ONCECAST_CHANNEL)", "empty"][..]),
        ("--channel a,b,a", &["--channel", "\"a\" twice"]),
        ("--channel a --channel a", &["--channel", "\"a\" twice"]),
        ("--pattern a*,a*", &["--pattern (ONCECAST_PATTERN)", "twice"]),
        ("--keyevent expired,expired", &["--keyevent (ONCECAST_KEYEVENT)", "twice"]),
        ("--keyevent exp*", &["--keyevent", "--pattern"]),
        ("--keyevent expired --channel __keyevent@0__:expired", &["__keyevent@0__:expired", "twice"]),
        ("--keyspace-db 1", &["--keyspace-db (ONCECAST_KEYSPACE_DB)", "--keyevent"]),
        ("--keyevent expired --keyspace-db x", &["--keyspace-db", "number"]),
        ("--keyevent expired --keyspace-db 01", &["--keyspace-db", "number"]),
        (&format!("--channel {}", many(1_025)), &["--channel", "1024"]),
        (&format!("--channel {} --pattern a*", many(1_024)), &["--channel", "1024"]),
        (&format!("--channel {long}"), &["--channel", "4096"]),
        (&format!("--pattern {long}"), &["--pattern", "4096"]),
        (r"--channel a\x4", &["--channel", "hexadecimal"]),
        (r"--pattern [a-\xff]", &["--pattern", "range"]),
        ("--channel messages:control", &["--channel", "does not use itself"]),
        ("--channel messages:alive:d0", &["--channel", "does not use itself"]),
    ] {
        let error = dispatcher_error(&format!("d --consumers a:1 {line}"));
        for part in parts {
            assert!(error.contains(part), "{line}: no {part:?} in {error}");
        }
    }
}

/// Gives every setting of every program a URL with a password. `takes` lists the settings that accept it.
#[test]
fn only_redis_url_accepts_a_password_and_no_error_repeats_it() {
    let url = "redis://app:s3cret@h:1";
    for (program, settings) in [
        ("oncecast-dispatcher", dispatcher::SETTINGS),
        ("oncecast-consumer", consumer::SETTINGS),
        ("oncecast-publisher", publisher::SETTINGS),
        ("audit", audit::SETTINGS),
        ("status", status::SETTINGS),
        ("demo", demo::SETTINGS),
        ("chaos", chaos::SETTINGS),
        ("bench", bench::SETTINGS),
    ] {
        let read = |line: &str, environment: Environment<'_>| match program {
            "oncecast-dispatcher" => {
                DISPATCHER.parse(words(&format!("d --consumers a:1 {line}")), environment).map(drop)
            }
            "oncecast-consumer" => CONSUMER.parse(words(&format!("c {line}")), environment).map(drop),
            "oncecast-publisher" => PUBLISHER.parse(words(&format!("p {line}")), environment).map(drop),
            name => TOOL.parse(words(&format!("oncecast {name} {line}")), environment).map(drop),
        };
        for setting in settings.iter().filter(|setting| !setting.secret) {
            let variable = variable_of(setting.name);
            let name = setting.name;
            let set = |asked: &str| (asked == variable).then(|| OsString::from(url));
            let by_flag = (name != "consumers").then(|| read(&format!("--{name} {url}"), &no_environment));
            let by_variable = (name != "consumers").then(|| read("", &set));
            for outcome in [by_flag, by_variable].into_iter().flatten() {
                let error = outcome.expect_err(name).to_string();
                assert!(!error.contains("s3cret"), "{program} --{name}: {error}");
                let named = setting.switch || error.contains(&format!("--{name} ({variable})"));
                assert!(named && error.contains("not repeated") || setting.switch, "{program} --{name}: {error}");
            }
        }
        let error = read(url, &no_environment).expect_err("a stray word").to_string();
        assert!(!error.contains("s3cret"), "{program}: {error}");
    }
    let error = dispatcher_error(&format!("d --consumers b:1,{url}"));
    assert!(error.contains("not repeated") && !error.contains("s3cret"), "{error}");
    let file = |variable: &str| (variable == "ONCECAST_REDIS_URL_FILE").then(|| OsString::from(url));
    let error = CONSUMER.parse(words("c"), &file).expect_err("no path").to_string();
    assert!(error.contains("a URL in ONCECAST_REDIS_URL_FILE") && !error.contains("s3cret"), "{error}");
}

#[test]
fn errors_name_only_settings_that_were_given() {
    let chaos =
        |line: &str| TOOL.parse(words(&format!("oncecast chaos {line}")), &no_environment).expect_err(line).to_string();
    assert!(chaos("--duration 5s").contains("--duration (ONCECAST_DURATION): got 5s"));
    assert!(chaos("--every 0.000001ms").contains("--every (ONCECAST_EVERY): got 1ns, takes at least a millionth"));
    assert!(chaos("--duration 8760h").contains("--duration (ONCECAST_DURATION): got"));
    assert!(chaos("--every 10m").contains("--every (ONCECAST_EVERY): got 600s"));
    assert!(chaos("--every 10s --duration 5s").contains("--every (ONCECAST_EVERY): got 10s"));
}

#[test]
fn a_slip_in_a_flag_is_recognised() {
    let slip = |line: &str| TOOL.parse(words(line), &no_environment).expect_err(line).to_string();
    let error = dispatcher_error("d --consumer a:1");
    assert!(error.contains("'--consumers'"), "{error}");
    assert!(slip("oncecast status --wacth").contains("'--watch'"));
    assert!(slip("oncecast statsu").contains("'status'"));
    assert!(!slip("oncecast chaos-cons").contains("chaos-consumer"), "hidden");
}

/// Values that no setting is made for; a very long one is added where they are used.
const ABSURD: [&str; 32] = [
    "",
    " ",
    "-1",
    "0",
    "-0",
    "1e3",
    "nan",
    "inf",
    "99999999999999999999",
    "18446744073709551615",
    "5124095576030431h",
    "0.0000000001ms",
    "x\ny\u{1b}[31m",
    "ü€𝄞",
    ",",
    ",,,",
    ":",
    ":0",
    "[::]:0",
    "h:",
    "a:1,",
    "\\",
    "*",
    "%",
    "@",
    "://",
    "/",
    "../..",
    "off",
    "yes",
    "redis://",
    "redis+unix:///",
];

/// Sets one variable to a value, and parses a command line that gives nothing else.
fn parse_with(program: &[&str], variable: &str, value: &str) -> Result<(), clap::Error> {
    let environment = |asked: &str| match asked {
        _ if asked == variable => Some(OsString::from(value)),
        "ONCECAST_CONSUMERS" => Some("a:1".into()),
        _ => None,
    };
    let line: Vec<OsString> = program.iter().map(OsString::from).collect();
    match program {
        ["d"] => DISPATCHER.parse(line, &environment).map(drop),
        ["c"] => CONSUMER.parse(line, &environment).map(drop),
        ["p"] => PUBLISHER.parse(line, &environment).map(drop),
        _ => TOOL.parse(line, &environment).map(drop),
    }
}

#[test]
fn absurd_values_are_taken_or_refused_in_bounds() {
    let long = "x".repeat(1 << 20);
    for table in tables() {
        let program: Vec<&str> = match table {
            _ if std::ptr::eq(table, dispatcher::SETTINGS) => vec!["d"],
            _ if std::ptr::eq(table, consumer::SETTINGS) => vec!["c"],
            _ if std::ptr::eq(table, publisher::SETTINGS) => vec!["p"],
            _ if std::ptr::eq(table, audit::SETTINGS) => vec!["oncecast", "audit"],
            _ if std::ptr::eq(table, status::SETTINGS) => vec!["oncecast", "status"],
            _ if std::ptr::eq(table, demo::SETTINGS) => vec!["oncecast", "demo"],
            _ if std::ptr::eq(table, chaos::SETTINGS) => vec!["oncecast", "chaos"],
            _ if std::ptr::eq(table, bench::SETTINGS) => vec!["oncecast", "bench"],
            // Internal subcommands, which users don't type.
            _ => continue,
        };
        for setting in table {
            for value in ABSURD.into_iter().chain([long.as_str()]) {
                let outcome = parse_with(&program, &variable_of(setting.name), value);
                let Err(error) = outcome else { continue };
                let text = error.to_string();
                assert!(
                    text.contains(&format!("--{} (ONCECAST_", setting.name)),
                    "{} {value:.20?}: {text:.500}",
                    setting.name
                );
                assert!(text.len() < 1_500 && !text.contains('\u{1b}'), "{} {value:.20?}: {text:.500}", setting.name);
            }
        }
    }
}
