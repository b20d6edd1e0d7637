//! The examples in languages other than Rust do what they say.

use std::collections::HashMap;

use oncecast::lab::Node;

use super::{exec_options, has};
use crate::support::{DEADLINE, client_of, cluster_of, publish_payloads, state, stream, wait_until_done};

fn example(name: &str) -> String {
    format!("{}/examples/{name}", env!("CARGO_MANIFEST_DIR"))
}

const PAYLOADS: [&[u8]; 3] =
    [b"{\"message_id\":\"\xc3\xbc1\"}", "no JSON\u{2028}".as_bytes(), b"{\"message_id\":\"2\"}"];

/// Runs an example on three messages. Returns results and dead letters.
fn outcome(words: &[&str], per_message: bool, payloads: &[&[u8]]) -> [Vec<HashMap<String, String>>; 2] {
    let mut options = exec_options(1, "", "--concurrency 2", words);
    if per_message {
        options.consumer_args.push("--exec-per-message".to_owned());
    }
    let mut cluster = cluster_of(options);
    let connection = &mut client_of(&mut cluster);
    publish_payloads(connection, payloads);
    wait_until_done(connection, payloads.len());
    ["messages:processed", "messages:dead"].map(|key| stream(connection, key))
}

fn assert_results(words: &[&str]) {
    let [results, dead] = outcome(words, false, &PAYLOADS);
    let mut found: Vec<_> =
        results.iter().map(|fields| (fields["message_id"].as_str(), fields["length"].as_str())).collect();
    found.sort_unstable();
    assert_eq!(found, [("2", "18"), ("ü1", "19")], "{words:?}");
    assert!(dead.len() == 1 && dead[0]["payload"].starts_with("no JSON"), "{words:?}: {dead:?}");
}

#[test]
fn the_worker_in_python() {
    if has("python3") {
        assert_results(&["python3", &example("worker.py")]);
    }
}

#[test]
fn the_worker_in_node() {
    if has("node") {
        assert_results(&["node", &example("worker.mjs")]);
    }
}

#[test]
fn the_worker_in_shell() {
    let [results, dead] = outcome(&[&example("worker.sh")], true, &[b"", b"x", b"\0\xff"]);
    assert_eq!((results.len(), dead.len()), (2, 1));
    assert!(results.iter().all(|fields| fields["delivery"] == "1" && fields["message"].len() == 16), "{results:?}");
    // cksum of "x".
    assert!(results.iter().any(|fields| fields["checksum"] == "12738659 1"), "{results:?}");
    assert_eq!(dead[0]["reason"], "the payload is empty");
}

/// As one text, which a service file has in ONCECAST_EXEC.
#[test]
fn the_program_may_be_one_text() {
    let mut options = exec_options(1, "", "--handler exec --concurrency 1 --exec", &[]);
    options.consumer_args.push(format!("sh {}", example("worker.sh")));
    options.handler_args = vec!["--exec-per-message".into()];
    let mut cluster = cluster_of(options);
    let connection = &mut client_of(&mut cluster);
    publish_payloads(connection, ["x"]);
    wait_until_done(connection, 1);
    assert_eq!(state(connection), (0, 1, 0));
}

/// With `--trace`, programs get the trace context of a payload, and the log of failures has it.
#[test]
fn the_trace_context_reaches_programs_and_the_log() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = |id: &str| format!(r#"{{"message_id":"{id}","traceparent":"{parent}"}}"#);
    let script = "import json, sys\n\
                  for line in sys.stdin:\n    m = json.loads(line); p = m['payload']\n    \
                  r = {'ok': {'seen': m.get('traceparent', 'none')}} if 'good' in p else {'reject': 'bad'}\n    \
                  print(json.dumps(r), flush=True)\n";
    for (flag, seen) in [("--trace", parent), ("", "none")] {
        let args = format!("--concurrency 1 {flag}");
        let mut cluster = cluster_of(exec_options(1, "", &args, &["python3", "-c", script]));
        let connection = &mut client_of(&mut cluster);
        publish_payloads(connection, [traced("good"), traced("bad")]);
        wait_until_done(connection, 2);
        assert_eq!(stream(connection, "messages:processed")[0]["seen"], seen);
        assert_eq!(stream(connection, "messages:dead")[0]["reason"], "bad");
        let consumer = cluster.process(Node::Consumer(0)).expect("it runs");
        let line = consumer.wait_for_line("event=handler-failed", DEADLINE).expect("logged");
        let logged = if flag.is_empty() { String::new() } else { format!(" traceparent={parent}") };
        assert!(line.ends_with(&format!("sample=\"rejected: bad\"{logged}")), "{line}");
    }
}
