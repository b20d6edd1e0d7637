//! Checks of a group: what they show if Redis refuses some of their commands, what they cost, and that the metrics
//! server survives a lack of descriptors.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use oncecast::lab::{ChildProcess, Cluster, ports};
use oncecast::ledger::{Connection, Keys};
use oncecast::programs::status::{MAX_AGE, StatusReader};
use serde_json::{Value, json};

use crate::programs::status::{status, status_json};
use crate::support::http::get;
use crate::support::{
    CHANNEL, DEADLINE, client_of, cluster, options, pend, programs, publish, run, wait_until, wait_until_done,
    wait_until_in_sync,
};

/// Runs `oncecast status` as a user that lacks the right to some commands.
fn status_without(cluster: &mut Cluster, command: &str, args: &[&str]) -> (i32, String) {
    let mut redis = client_of(cluster);
    let rights: Vec<&str> = ["~*", "&*", "+@all"].into_iter().chain(command.split(' ')).collect();
    let () = run(&mut redis, &[&["ACL", "SETUSER", "reader", "reset", "on", ">secret"][..], &rights].concat());
    let url = format!("redis://reader:secret@127.0.0.1:{}", cluster.redis().port());
    let mut tool = programs().command("oncecast").expect("the program is built");
    let output = tool.args(["status", "--redis-url", &url]).args(args).output().expect("it runs");
    assert!(output.stderr.is_empty(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    (output.status.code().expect("it ends by itself"), String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn a_key_of_the_wrong_type_hides_only_its_own_fields() {
    let mut cluster = Cluster::start(options(0, 0, "", "")).expect("a private Redis starts");
    let mut redis = client_of(&mut cluster);
    for (key, field) in [("processed", "results"), ("dead", "dead_letters"), ("gaps", "gaps"), ("pending", "pending")] {
        let key = format!("messages:{key}");
        let () = run(&mut redis, &["SET", &key, "foreign"]);
        let (_, text) = status_without(&mut cluster, "+get", &["--json"]);
        let json: Value = serde_json::from_str(&text).expect("JSON");
        assert!(json[field].is_null() && json["epoch"].is_number(), "{key}: {json}");
        assert!(json["notes"].to_string().contains("a key of another type"), "{key}: {json}");
        let () = run(&mut redis, &["DEL", &key]);
    }
}

#[test]
fn a_denied_command_hides_only_the_fields_that_need_it() {
    let mut cluster = cluster(2, 1);
    let mut redis = client_of(&mut cluster);
    wait_until_in_sync(&mut redis, 2);
    publish(&mut redis, "m", 0..3);
    wait_until_done(&mut redis, 3);
    pend(cluster.redis(), 1, "from long ago");
    // Without ZRANGE the age comes from the reports. One from before the last three messages were done may still show
    // their age, and the one after it none.
    wait_until("reports of the consumer and of the old message", || {
        let json: Value = serde_json::from_str(&status_without(&mut cluster, "-zrange", &["--json"]).1).ok()?;
        let reported = json["oldest_age_s"].as_f64()? > 1_000_000.0;
        (reported && json["consumers"][0]["state"] == "linked").then_some(())
    });
    let whole = status_json(&cluster);
    // For each command of a check: the fields that are missing without it. All others must be present.
    let cases: [(&str, &[&str], &str); 15] = [
        ("-get", &["epoch", "rates", "spilled"], "GET"),
        ("-pttl", &[], "PTTL"),
        ("-xlen", &["results", "dead_letters", "gaps"], "XLEN"),
        ("-zcard", &["pending", "spilled"], "ZCARD"),
        ("-zcount", &["pending", "spilled"], "ZCOUNT"),
        ("-zrange", &[], ""),
        ("-zrange -mget", &["oldest_age_s", "rates", "spilled", "channel"], "ZRANGE"),
        ("-lrange", &[], ""),
        ("-xrevrange", &["recent_gaps"], "XREVRANGE"),
        ("-pubsub", &[], "PUBSUB CHANNELS"),
        ("-mget", &["rates", "spilled", "channel"], "MGET"),
        ("-info", &[], "INFO"),
        ("-config", &[], "CONFIG GET"),
        ("-eval", &[], ""),
        ("-client", &[], ""),
    ];
    for (command, missing, named) in cases {
        let (_, text) = status_without(&mut cluster, command, &["--json"]);
        let json: Value = serde_json::from_str(&text).expect("JSON");
        for name in [
            "epoch",
            "results",
            "dead_letters",
            "gaps",
            "pending",
            "spilled",
            "oldest_age_s",
            "recent_gaps",
            "rates",
            "channel",
        ] {
            assert_eq!(
                json[name].is_null(),
                missing.contains(&name),
                "{command}: {name} in {json}\nwith all rights {whole}"
            );
        }
        let notes = json["notes"].to_string();
        assert!(named.is_empty() || notes.contains(&format!("Redis refuses {named} ")), "{command}: {notes}");
        assert!(command == "-get" || json["leader"]["id"] == whole["leader"]["id"], "{command}: {json}");
        let (_, text) = status_without(&mut cluster, command, &[]);
        assert!(text.starts_with("group         messages: "), "{command}: {text}");
        assert_eq!(text.contains("the leader is unknown"), command == "-get", "{command}: {text}");
        let shows_age = text.contains("the oldest message has been pending for");
        assert_eq!(shows_age, command != "-zrange -mget", "{command}: {text}");
    }
}

/// A dispatcher works without the rights that only its checks need. Its page and gauges show the rest.
#[test]
fn a_dispatcher_with_fewer_rights_shows_what_it_can_read() {
    let mut cluster = Cluster::start(options(0, 1, "", "")).expect("it starts");
    let mut redis = client_of(&mut cluster);
    let rights = ["~*", "&*", "+@all", "-info", "-config", "-xlen", "-xrevrange"];
    let () = run(&mut redis, &[&["ACL", "SETUSER", "reader", "reset", "on", ">secret"][..], &rights].concat());
    let url = format!("redis://reader:secret@127.0.0.1:{}", cluster.redis().port());
    let address = SocketAddr::from(([127, 0, 0, 1], ports::free_port().expect("a free port")));
    let mut command = programs().command("oncecast-dispatcher").expect("the program is built");
    command.args(["--dispatcher-id", "d0", "--consumers", &cluster.address(0).to_string(), "--redis-url", &url]);
    command.args(["--metrics-addr", &address.to_string()]);
    let _dispatcher = ChildProcess::spawn("d0", command).expect("it starts");
    wait_until("its page to show the group", || {
        let json: Value = serde_json::from_str(&get(address, "/status.json")?.1).ok()?;
        let notes = json["notes"].to_string();
        let noted = ["INFO", "CONFIG GET", "XLEN", "XREVRANGE"]
            .iter()
            .all(|name| notes.contains(&format!("Redis refuses {name} ")));
        (json["leader"]["name"] == "d0" && json["health"] == "ok" && json["pending"] == 0 && noted).then_some(())
    });
    let text = get(address, "/metrics").expect("it answers").1;
    for (name, shown) in
        [("pending", true), ("oldest_pending_age_seconds", true), ("results", false), ("recorded_gaps", false)]
    {
        let gauge = format!("oncecast_{name} ");
        assert_eq!(text.lines().any(|line| line.starts_with(&gauge)), shown, "{name}: {text}");
    }
}

/// A server's error can't send control characters to the terminal.
#[test]
fn an_error_of_redis_is_escaped() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("redis://{}", listener.local_addr().expect("it is bound"));
    let server = thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("the tool connects");
        assert!(socket.read(&mut [0; 4096]).expect("it asks") > 0);
        socket.write_all("-ERR \u{1b}[2J\u{202e}no\r\n".repeat(20).as_bytes()).expect("it reads");
    });
    let mut tool = programs().command("oncecast").expect("the program is built");
    let output = tool.args(["status", "--redis-url", &url]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("\\u{1b}[2J\\u{202e}no") && !said.contains(['\u{1b}', '\u{202e}']), "{said:?}");
    server.join().expect("it was asked");
}

#[test]
fn reading_the_oldest_age_does_not_transfer_the_payload() {
    const LARGE_BYTES: usize = 8 << 20;
    let mut cluster = Cluster::start(options(0, 0, "", "")).expect("it starts");
    let mut redis = client_of(&mut cluster);
    pend(cluster.redis(), 1, &"x".repeat(LARGE_BYTES));
    let sent = |redis: &mut redis::Connection| {
        let info: String = run(redis, &["INFO", "stats"]);
        let line = info.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:"));
        line.and_then(|bytes| bytes.trim().parse::<usize>().ok()).expect("Redis counts them")
    };
    let connection = Connection::new(cluster.redis().server(), DEADLINE);
    let mut reader = StatusReader::new(connection, Keys::new("messages"), MAX_AGE);
    let before = sent(&mut redis);
    for _ in 0..3 {
        let status = reader.read().expect("Redis answers");
        assert!(status.oldest_age().expect("one is pending") > Duration::from_secs(1_000_000));
    }
    let bytes = sent(&mut redis) - before;
    assert!(bytes < LARGE_BYTES / 8, "three checks took {bytes} bytes");
    // The tool calls no scripts: it takes the age from a dispatcher's report.
    let report = r#"{"leads":true,"oldest":1}"#;
    let () = run(&mut redis, &["SET", "messages:leader", "d0-000000 7"]);
    let () = run(&mut redis, &["SET", "messages:status:d0-000000", report]);
    let mut subscriber = client_of(&mut cluster);
    let () = run(&mut subscriber, &["SUBSCRIBE", "messages:alive:d0-000000", "messages:control"]);
    let before = sent(&mut redis);
    assert!(status_json(&cluster)["oldest_age_s"].as_f64().expect("one is pending") > 1_000_000.0);
    let bytes = sent(&mut redis) - before;
    assert!(bytes < LARGE_BYTES / 8, "one check took {bytes} bytes");
}

#[test]
fn each_consumer_is_shown_with_its_address_and_state() {
    let cluster = Cluster::start(options(0, 2, "", "")).expect("it starts");
    let nobody = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
    let consumers = [cluster.address(0).to_string(), nobody.clone()];
    let mut command: Command = cluster.command("oncecast-dispatcher").expect("the program is built");
    command.args(["--dispatcher-id", "d0", "--consumers", &consumers.join(",")]);
    let _dispatcher = ChildProcess::spawn("d0", command).expect("it starts");
    let json = wait_until("one to be linked", || {
        let json = status_json(&cluster);
        (json["consumers"][0]["state"] == "linked").then_some(json)
    });
    assert_eq!(json["channel"], CHANNEL, "{json}");
    assert_eq!(json["consumers"][0]["address"], consumers[0], "{json}");
    assert_eq!(json["consumers"][1], serde_json::json!({"address": nobody, "state": "unreachable"}), "{json}");
    let (_, text) = status(&cluster, &[]);
    assert!(text.contains(&format!("{} linked, 0 of ", consumers[0])), "{text}");
    assert!(text.contains(&format!("{nobody} unreachable\n")), "{text}");
    assert!(text.contains(&format!("channel       {}\n", CHANNEL)), "{text}");
}

#[test]
fn a_metrics_server_recovers_after_running_out_of_descriptors() {
    let address = SocketAddr::from(([127, 0, 0, 1], ports::free_port().expect("a free port")));
    let program = programs().command("oncecast-dispatcher").expect("the program is built");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 32; exec \"$0\" \"$@\""]).arg(program.get_program());
    // Its Redis does not run.
    let redis = format!("redis://127.0.0.1:{}", ports::free_port().expect("a free port"));
    command.args(["--dispatcher-id", "d0", "--consumers", "127.0.0.1:1", "--redis-url", &redis]);
    command.args(["--metrics-addr", &address.to_string()]);
    let dispatcher = ChildProcess::spawn("d0", command).expect("it starts");
    let alive = || (get(address, "/healthz")?.0 == 200).then_some(());
    wait_until("it to answer", alive);
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", dispatcher.pid())).expect("it runs");
        let fields: Vec<i64> =
            stat.rsplit(')').next().expect("fields").split(' ').filter_map(|f| f.parse().ok()).collect();
        // utime and stime, behind the state, which is no number.
        fields[10] + fields[11]
    };
    let before = ticks();
    let silent: Vec<TcpStream> =
        (0..100).filter_map(|_| TcpStream::connect_timeout(&address, DEADLINE / 10).ok()).collect();
    assert!(silent.len() > 32);
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", dispatcher.pid())).expect("it runs").count();
    wait_until("it to have no descriptors left", || (descriptors() >= 32).then_some(()));
    let line = dispatcher.wait_for_line("event=metrics-accept-failed", DEADLINE).expect("it says why");
    assert!(line.contains(&format!("address={address} ")) && line.contains("LimitNOFILE"), "{line}");
    // The silent connections are closed by their deadlines, one round after the other.
    wait_until("it to answer while they are there", alive);
    drop(silent);
    wait_until("it to answer again", alive);
    let spent = ticks() - before;
    assert!(spent < 200, "it used {spent} hundredths of a second of CPU time");
}

/// Dispatchers show the newest dead letters, without payloads. `oncecast status` needs no right to call scripts, and
/// leaves them out.
#[test]
fn a_dispatcher_shows_the_newest_dead_letters() {
    let mut cluster = Cluster::start(options(0, 0, "", "")).expect("it starts");
    let mut redis = client_of(&mut cluster);
    let letter = ["id", "0006423f1c8a5e10", "payload", "secret", "reason", "why \u{1b}[31m", "deliveries", "8"];
    for number in 0..25 {
        let rest = ["consumer", "c0", "channel", &format!("orders.{number}")];
        let _: String = run(&mut redis, &[&["XADD", "messages:dead", "*"], &letter[..], &rest].concat());
    }
    let address = SocketAddr::from(([127, 0, 0, 1], ports::free_port().expect("a free port")));
    let mut command = programs().command("oncecast-dispatcher").expect("the program is built");
    command.args(["--dispatcher-id", "d0", "--consumers", "127.0.0.1:1", "--redis-url", &cluster.redis_url()]);
    command.args(["--metrics-addr", &address.to_string()]);
    let _dispatcher = ChildProcess::spawn("d0", command).expect("it starts");
    let shown = |count: usize| {
        wait_until(format!("{count} letters to be shown"), || {
            let text = get(address, "/status.json")?.1;
            assert!(!text.contains("secret") && !text.contains('\u{1b}'), "{text}");
            let json: Value = serde_json::from_str(&text).ok()?;
            let letters = json["recent_dead_letters"].as_array()?.clone();
            (letters.len() == count).then_some(letters)
        })
    };
    let first = &shown(20)[0];
    let fields = ["id", "channel", "reason", "deliveries", "consumer"].map(|field| first[field].clone());
    let expected = [json!("0006423f1c8a5e10"), json!("orders.24"), json!("why \u{1b}[31m"), json!(8), json!("c0")];
    assert_eq!(fields, expected);
    let () = run(&mut redis, &["XTRIM", "messages:dead", "MAXLEN", "3"]);
    shown(3);
    assert!(status_json(&cluster)["recent_dead_letters"].is_null());
}
