//! One hostile text in every place that a stranger can write to, and every output of ours: it never ends a line,
//! controls a terminal, turns the direction of writing, is markup, or breaks the metrics.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::thread;

use oncecast::lab::{ChildProcess, RedisServer, ports};
use oncecast::wire::{ErrorCode, Frame, ReadyFlags};
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::exposition::{self, Sample};
use crate::support::http::get;
use crate::support::peer::Peer;
use crate::support::{DEADLINE, client, programs, redis_server, run, wait_until};

/// Colours, a terminal's title, the end of a label, a forged line of a log, one of metrics, markup, and marks that turn
/// the direction of writing.
const HOSTILE: &str = "x\u{1b}[31m\u{1b}]0;owned\u{7}\"} 1\n\r\ntime=2026-01-01T00:00:00.000Z level=error instance=d0 \
    event=forged\r\noncecast_forged 1\u{7f}\u{85}\u{9b}2J\u{202e}<script>document.title='owned'</script>\
    <img src=x onerror=\"document.title='owned'\">\u{2028}\u{2066}end";

/// What a consumer's id may have of that.
const HOSTILE_ID: &str = "x\"}1\u{202e}<script>document.title='owned'</script><img/src=x>\\u{1b}[31m\u{2066}end";

/// Whether a terminal, an editor or a browser does something else with it than to show it.
fn is_active(char: char) -> bool {
    let turns = matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    char.is_control() && char != '\n' || turns
}

/// Fails unless a text is harmless, and has a part of the hostile one, escaped.
fn assert_inert(what: &str, text: &str) {
    let active: Vec<char> = text.chars().filter(|char| is_active(*char)).collect();
    assert!(active.is_empty(), "{what}: {active:?} in {text:?}");
    let forged = |line: &str| line.starts_with("time=2026-01-01") || line.starts_with("oncecast_forged");
    assert!(!text.lines().any(forged), "{what}: {text:?}");
    assert!(text.contains("[31m"), "{what} does not show it: {text}");
}

/// A consumer whose handler is a program that complains and rejects each message with the hostile reason.
fn consumer(redis: &RedisServer) -> (ChildProcess, String) {
    let address = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
    let mut command = programs().command("oncecast-consumer").expect("the program is built");
    command.args(["--redis-url", &redis.url(), "--listen", &address, "--handler", "exec", "--", "sh", "-c"]);
    command.arg("while read -r line; do printf '%s\\n' \"$0\" >&2; printf '%s\\n' \"$1\"; done");
    command.arg(HOSTILE).arg(json!({ "reject": HOSTILE }).to_string());
    let consumer = ChildProcess::spawn("consumer", command).expect("it starts");
    consumer.wait_for_line("event=listening", DEADLINE).expect("it listens");
    (consumer, address)
}

fn dispatcher(redis: &RedisServer, consumers: &[&str]) -> (ChildProcess, SocketAddr) {
    let metrics = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
    let mut command = programs().command("oncecast-dispatcher").expect("the program is built");
    command.args(["--redis-url", &redis.url(), "--dispatcher-id", "d0", "--pattern", "x*", "--metrics-addr", &metrics]);
    // One consumer is played by a peer that says nothing after its greeting.
    command.args(["--consumers", &consumers.join(","), "--link-timeout-ms", "60000"]);
    let dispatcher = ChildProcess::spawn("dispatcher", command).expect("it starts");
    (dispatcher, metrics.parse().expect("an address"))
}

/// What a tool writes, to both streams.
fn shown(redis_url: &str, words: &[&str]) -> String {
    let mut command = programs().command("oncecast").expect("the program is built");
    let output = command.args(words).args(["--redis-url", redis_url]).output().expect("it runs");
    [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("text")).concat()
}

/// Writes it where only a client of Redis can: a dispatcher that is none, gaps, results, a notice.
fn write_into_redis(connection: &mut redis::Connection) {
    for _ in 0..2 {
        run::<String>(connection, &["XADD", "messages:processed", "*", "message_id", HOSTILE]);
    }
    run::<String>(connection, &["XADD", "messages:gaps", "*", "reason", HOSTILE, "dispatcher", HOSTILE]);
    run::<i64>(connection, &["PUBLISH", "messages:control", &format!("marker {HOSTILE} {HOSTILE}")]);
    run::<i64>(connection, &["PUBLISH", "messages:control", &format!("marker x {HOSTILE}")]);
}

/// A member that is no dispatcher of ours: it is subscribed as long as the connection lives, and reports. Ids that no
/// dispatcher would choose are ignored.
fn join(redis: &RedisServer) -> redis::Connection {
    let mut connection = client(&redis.url());
    let report = json!({ "version": HOSTILE, "channel": HOSTILE, "trouble": HOSTILE, "open_metrics": HOSTILE });
    run::<String>(&mut connection, &["SET", "messages:status:d9-0a0a0a", &report.to_string()]);
    let subscribe = redis::cmd("SUBSCRIBE").arg("messages:control").arg("messages:alive:d9-0a0a0a").clone();
    connection.send_packed_command(&subscribe.get_packed_command()).expect("Redis reads");
    connection
}

fn assert_metrics(text: &str) {
    let samples = exposition::parse(text).unwrap_or_else(|problem| panic!("{problem}\n{text}"));
    let of_consumer = |sample: &&Sample| sample.name == "oncecast_in_flight";
    let consumers: Vec<&str> =
        samples.iter().filter(of_consumer).map(|sample| sample.labels["consumer"].as_str()).collect();
    assert!(consumers.iter().any(|consumer| consumer.contains("\\u{202e}<script>")), "{consumers:?}");
    assert!(consumers.iter().all(|consumer| !consumer.contains(is_active)), "{consumers:?}");
    assert!(!samples.iter().any(|sample| sample.name.contains("forged")), "{text}");
}

fn assert_page(metrics: SocketAddr) {
    let Some(mut browser) = Browser::start() else { return };
    let mut page = browser.page();
    page.open(&format!("http://{metrics}/"));
    page.wait_for("document.body?.innerText.includes('[31m') && document.querySelectorAll('#gaps tr').length > 0");
    let dom = page.eval("document.documentElement.outerHTML");
    let dom = dom.as_str().expect("a text");
    // The page's own script has lines, and its figures thin spaces.
    let body = dom.split("<script>").next().expect("a part");
    assert!(!body.contains(|char| is_active(char) && char != '\u{202f}'), "{body}");
    assert_eq!(page.eval("document.querySelectorAll('script').length"), json!(1));
    assert_eq!(page.eval("document.querySelectorAll('img').length"), json!(0));
    let title = page.eval("document.title");
    assert!(title.as_str().is_some_and(|title| title.contains("messages")), "{title}");
    assert_eq!(page.complaints(), [] as [String; 0]);
}

#[test]
fn one_hostile_text_in_every_place_reaches_no_output_as_it_is() {
    let redis = redis_server();
    let connection = &mut client(&redis.url());
    let (consumer, address) = consumer(&redis);
    let peers = [Peer::bind(HOSTILE), Peer::bind(HOSTILE_ID)];
    let addresses = peers.each_ref().map(Peer::address);
    let (dispatcher, metrics) = dispatcher(&redis, &[&addresses[0], &addresses[1], &address]);
    // They take no messages, so the other one gets them. The first is refused for its id.
    let [_refused, mut line] = peers.each_ref().map(|peer| peer.accept_with(1, ReadyFlags::CHANNELS, &[]));
    line.send(&[Frame::Drain]);
    wait_until("DRAIN to be heard", || {
        get(metrics, "/status.json").filter(|(_, body)| body.contains("\"draining\":true")).map(drop)
    });
    let _member = join(&redis);
    write_into_redis(connection);
    wait_until("the dispatcher to receive", || {
        let heard: i64 = run(connection, &["PUBLISH", HOSTILE, &json!({ "message_id": HOSTILE }).to_string()]);
        (heard > 0).then_some(())
    });
    wait_until("a dead letter", || (run::<u64>(connection, &["XLEN", "messages:dead"]) > 0).then_some(()));
    dispatcher.wait_for_line("event=dead-letters", DEADLINE).expect("it is logged");
    // Both are in the dispatcher's own view once it has checked the group again.
    let status = wait_until("the status page's JSON", || {
        get(metrics, "/status.json")
            .map(|(_, body)| body)
            .filter(|body| body.contains("dead letters: ") && body.matches("[31m").count() > 5)
    });
    assert_inert("/status.json", &status);
    let status: Value = serde_json::from_str(&status).expect("JSON");
    let consumers = status["consumers"].as_array().expect("a list");
    assert!(consumers.iter().any(|consumer| consumer["id"] == HOSTILE_ID), "JSON says what it is: {consumers:?}");
    assert_metrics(&get(metrics, "/metrics").expect("an answer").1);
    assert_page(metrics);
    for words in [&["status"][..], &["status", "--json"], &["audit"]] {
        assert_inert(&words.join(" "), &shown(&redis.url(), words));
    }
    line.send(&[Frame::Error { code: ErrorCode::Malformed, text: HOSTILE }]);
    dispatcher.wait_for_line("event=consumer-lost", DEADLINE).expect("it is logged");
    for process in [&dispatcher, &consumer] {
        assert_inert(process.name(), &process.stderr().all().join("\n"));
    }
}

/// A server that answers everything with this.
fn liar(answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it listens").to_string();
    // It ends with the process.
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = answer.clone();
            thread::spawn(move || {
                while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {
                    let _ = stream.write_all(answer.as_bytes());
                }
            });
        }
    });
    address
}

/// What stands in the place of Redis, or of a program that is asked for its health, may say anything.
#[test]
fn a_liar_s_answer_is_shown_escaped() {
    // For many commands that are sent at once.
    let redis = liar("-ERR x\u{1b}[31m\u{9b}2J\u{202e}\r\n".repeat(20));
    for tool in ["status", "audit", "doctor"] {
        assert_inert(tool, &shown(&format!("redis://{redis}"), &[tool]));
    }
    let program = liar("HTTP/1.1 503 No\r\nContent-Length: 20\r\n\r\nx\u{1b}[31m\u{9b}2J\u{202e}\nready\n".to_owned());
    let mut command: Command = programs().command("oncecast-consumer").expect("the program is built");
    let output = command.args(["healthcheck", "--metrics-addr", &program]).output().expect("it runs");
    let text = String::from_utf8(output.stderr).expect("text");
    assert_inert("healthcheck", &text);
    assert_eq!(text.lines().count(), 1, "{text}");
}
