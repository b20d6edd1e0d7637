//! Children that do what they should.

use super::*;

/// Answers with what the payload says.
const OBEDIENT: &str = r#"
if m["payload"] == "pid": answer({"ok": {"pid": os.getpid()}})
else: answer(json.loads(m["payload"]))
"#;

#[test]
fn one_child_answers_one_message_after_the_other() {
    let python = Running::python(OBEDIENT);
    let ok = Outcome::new().field("a", "1").field("text", "ü");
    assert_eq!(python.handle(r#"{"ok":{"a":1,"text":"ü"}}"#), Ok(ok));
    assert_eq!(python.handle(r#"{"ok":null,"id":"000000000000002f"}"#), Ok(Outcome::new()));
    assert_eq!(python.handle(r#"{"retry":"busy"}"#), Err(HandlerError::retry("busy")));
    let later = HandlerError::retry_after(Duration::from_millis(1500), "busy");
    assert_eq!(python.handle(r#"{"retry":"busy","after_ms":1500}"#), Err(later));
    assert_eq!(python.handle(r#"{"reject":"bad"}"#), Err(HandlerError::reject("bad")));
    assert_eq!(python.field("pid", "pid"), python.field("pid", "pid"), "the same process");
}

#[test]
fn a_child_gets_the_whole_message() {
    let python = Running::python(
        r#"
p = m["payload"] if "payload" in m else base64.b64decode(m["payload_base64"]).hex()
c = m["channel"] if "channel" in m else base64.b64decode(m["channel_base64"]).hex() if "channel_base64" in m else "none"
answer({"id": m["id"], "ok": {"id": m["id"], "delivery": m["delivery"], "channel": c, "payload": p,
        "group": os.environ["ONCECAST_GROUP"]}})
"#,
    );
    let seen = |delivery: Delivery<'_>| {
        let outcome = python.0.handle(&delivery.with_id(MessageId(0xab)).with_number(7)).expect("a result");
        let value = |(_, value): (&[u8], &[u8])| String::from_utf8_lossy(value).into_owned();
        outcome.fields().map(value).collect::<Vec<_>>()
    };
    let id = "00000000000000ab";
    let strange = "line\u{2028}separator \u{85} \u{1f600} \0 \r\n \"\\";
    assert_eq!(seen(Delivery::new(strange)), [id, "7", "none", strange, "orders"]);
    assert_eq!(seen(Delivery::new("").with_channel("ü")), [id, "7", "ü", "", "orders"]);
    assert_eq!(seen(Delivery::new(b"\xff\x00").with_channel(b"\xfe")), [id, "7", "fe", "ff00", "orders"]);
}

#[test]
fn a_message_of_8_mib_comes_and_goes() {
    let python = Running::python(r#"answer({"ok": {"echo": m["payload"], "size": len(m["payload"])}})"#);
    let payload = "0123456789abcdef".repeat(8 << 16);
    let outcome = python.handle(&payload).expect("a result");
    assert!(outcome.fields().any(|(_, value)| value == payload.as_bytes()));
    assert_eq!(python.field("small", "size"), "5", "the child is as good as before");
}

#[test]
fn several_handlers_have_a_child_each() {
    let python = Running::python(r#"time.sleep(0.3); answer({"ok": {"pid": os.getpid()}})"#);
    let pids: std::collections::BTreeSet<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| python.field("x", "pid"))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a result")).collect()
    });
    assert_eq!(pids.len(), 4, "{pids:?}");
}

/// As they would be for a program started from a shell: no signal blocked, none ignored, no file of the consumer open.
#[test]
fn a_child_starts_clean() {
    let python = Running::python(
        r#"
status = dict(line.split(":\t") for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
here = [int(fd) for fd in os.listdir("/proc/self/fd")]
answer({"ok": {"blocked": status["SigBlk"], "ignored": status["SigIgn"], "group": os.getpgrp() == os.getpid(),
        "files": len(here)}})
"#,
    );
    let second = Running::python("answer({'ok': None})");
    second.handle("x").expect("another child lives meanwhile");
    // What the process that started this test left open is inherited by every child.
    let count = ["-c", "import os; print(len(os.listdir('/proc/self/fd')), end='')"];
    let plain = std::process::Command::new("python3").args(count).output().expect("there is Python");
    assert_eq!(python.field("x", "files").as_bytes(), plain.stdout);
    assert_eq!((python.field("x", "blocked"), python.field("x", "group")), ("0".repeat(16), "true".to_owned()));
    let signals = |digits: &str| {
        // Those above 31 are the C library's own. Python itself ignores SIGPIPE (13) and SIGXFSZ (25).
        u64::from_str_radix(digits, 16).expect("a number") & 0x7fff_ffff & !(1 << 12 | 1 << 24)
    };
    let own = fs::read_to_string("/proc/self/status").expect("Linux");
    let own = own.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).expect("it is there");
    assert_eq!(signals(&python.field("x", "ignored")), signals(own));
}

#[test]
fn what_a_child_writes_on_standard_error_never_stops_it() {
    let python = Running::python(
        r#"
for _ in range(1000): sys.stderr.write("\x1b[31mnoise " * 5000)
sys.stderr.write("\n" * 1000000)
answer({"ok": {"done": True}})
"#,
    );
    assert_eq!(python.field("x", "done"), "true");
    // Also while no message is there.
    let idle = Running::shell(
        r#"read -r line; echo '{"ok":{"n":1}}'; yes "more noise" | head -c 30000000 >&2
        read -r line; echo '{"ok":{"n":2}}'; read -r line"#,
    );
    assert_eq!((idle.field("x", "n"), idle.field("x", "n")), ("1".to_owned(), "2".to_owned()));
}
