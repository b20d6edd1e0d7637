//! The handler `http` with servers as people write them, in Python and in Node.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::process::{Command, Stdio};

use oncecast::lab::{ChildProcess, Cluster, Node, ports};

use crate::support::http::get;
use crate::support::load::Load;
use crate::support::{
    DEADLINE, assert_each_once_but, bare_cluster, client_of, cluster_of, dispatcher, options, programs, publish,
    publish_payloads, raw_stream, run, state, stream, wait_for_intake, wait_until, wait_until_done, wait_until_in_sync,
};

/// A server in another language, on a port of its own. Killed on drop.
pub struct Server {
    interpreter: &'static str,
    script: &'static str,
    port: u16,
    process: Option<ChildProcess>,
}

pub const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/http_worker.py");
const NODE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/programs/http/server.mjs");

impl Server {
    /// One that does not run yet.
    fn new(interpreter: &'static str, script: &'static str) -> Server {
        let found = Command::new(interpreter).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if let Err(error) = found
            && error.kind() == ErrorKind::NotFound
        {
            let package = if interpreter == "node" { "nodejs" } else { interpreter };
            panic!("{interpreter} is missing: install it, on Debian and Ubuntu with apt-get install {package}");
        }
        Server { interpreter, script, port: ports::free_port().expect("a free port"), process: None }
    }

    pub fn running(interpreter: &'static str, script: &'static str) -> Server {
        let mut server = Server::new(interpreter, script);
        server.start();
        server
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/job", self.port)
    }

    fn start(&mut self) {
        let mut command = Command::new(self.interpreter);
        command.arg(self.script).arg(self.port.to_string());
        let process = ChildProcess::spawn("server", command).expect("it starts");
        process.stdout().wait_for("listening", DEADLINE).expect("it listens");
        self.process = Some(process);
    }

    fn kill(&mut self) {
        self.process.take().expect("it runs").kill().expect("it dies");
    }
}

/// A consumer that sends to this server, with its address and that of its metrics.
fn consumer(cluster: &Cluster, server: &Server, args: &str) -> (ChildProcess, String, std::net::SocketAddr) {
    let [listen, metrics] = [(); 2].map(|()| format!("127.0.0.1:{}", ports::free_port().expect("a free port")));
    let mut command = cluster.command("oncecast-consumer").expect("the program is built");
    command.args(["--handler", "http", "--url", &server.url(), "--listen", &listen, "--metrics-addr", &metrics]);
    command.args(args.split_whitespace());
    // No proxy is used.
    command.env("HTTP_PROXY", "http://127.0.0.1:9").env("http_proxy", "http://127.0.0.1:9");
    let process = ChildProcess::spawn("consumer", command).expect("it starts");
    process.wait_for_line("event=listening", DEADLINE).expect("it listens");
    (process, listen, metrics.parse().expect("an address"))
}

/// The results by `message_id`.
fn results(connection: &mut redis::Connection) -> BTreeMap<String, BTreeMap<String, String>> {
    let entries = stream(connection, "messages:processed");
    entries.into_iter().map(|entry| (entry["message_id"].clone(), entry.into_iter().collect())).collect()
}

#[test]
fn the_answer_of_a_node_server_decides_what_becomes_of_a_message() {
    let server = Server::running("node", NODE);
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let (_consumer, address, _) = consumer(&cluster, &server, "--concurrency 4");
    let _dispatcher = dispatcher(&cluster, "d0", &[address], "");
    wait_until_in_sync(connection, 1);
    let again = ["busy", "date", "failure", "elsewhere", "half", "nothing"];
    let once = ["unknown", "empty", "large", "binary", "usual"];
    let payload = |want: &&str| format!("{{\"message_id\":\"{want}\",\"want\":\"{want}\"}}");
    publish_payloads(connection, again.iter().chain(&once).map(payload));
    // An empty answer leaves no result.
    wait_until_done(connection, again.len() + once.len() - 1);

    let entries = raw_stream(connection, "messages:processed");
    let bodies: Vec<&[u8]> =
        entries.iter().filter(|fields| fields[0].0 == b"body").map(|fields| fields[0].1.as_slice()).collect();
    assert!(bodies.iter().any(|body| *body == [0, 255, 10, 13, 254]), "the binary one");
    assert!(bodies.iter().any(|body| body.len() == 10 << 20 && body.iter().all(|byte| *byte == b'x')), "the large one");
    assert_eq!(bodies.len(), 2);
    let field = |want: &str, name: &str| {
        let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).expect("text");
        let entry = entries.iter().find(|fields| fields[0].1 == want.as_bytes()).expect("it is recorded");
        entry.iter().find(|(own, _)| own == name.as_bytes()).map(|(_, value)| text(value)).expect("it has the field")
    };
    for want in again {
        assert_eq!(field(want, "delivery"), "2", "{want}");
    }
    assert_eq!((field("usual", "delivery").as_str(), field("usual", "nested").as_str()), ("1", "{\"a\":[1]}"));
    let key = field("usual", "key");
    assert!(key.len() == "messages:".len() + 16 && key.starts_with("messages:"), "{key}");
    let dead = stream(connection, "messages:dead");
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0]["reason"], "HTTP 404 Not Found: no such order");
}

/// With `--trace`, a server gets the trace context of a payload, and the log of failures has it.
#[test]
fn the_trace_context_reaches_servers_and_the_log() {
    let server = Server::running("node", NODE);
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let (consumer, address, _) = consumer(&cluster, &server, "--concurrency 1 --trace");
    let _dispatcher = dispatcher(&cluster, "d0", &[address], "");
    wait_until_in_sync(connection, 1);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let payload = |want: &str, parent: &str| {
        format!(r#"{{"message_id":"{want}","want":"{want}","traceparent":"{parent}","tracestate":"a=1"}}"#)
    };
    publish_payloads(
        connection,
        [payload("usual", parent), payload("unknown", parent), payload("injected", &format!("{parent}\\r\\nX: y"))],
    );
    wait_until_done(connection, 3);
    let results = results(connection);
    assert_eq!((results["usual"]["traceparent"].as_str(), results["usual"]["tracestate"].as_str()), (parent, "a=1"));
    assert!(!results["injected"].contains_key("traceparent"), "{results:?}");
    let reason = "HTTP 404 Not Found: no such order";
    assert_eq!(stream(connection, "messages:dead")[0]["reason"], reason);
    let line = consumer.wait_for_line("event=handler-failed", DEADLINE).expect("logged");
    assert!(line.ends_with(&format!("sample=\"rejected: {reason}\" traceparent={parent}")), "{line}");
}

#[test]
fn the_example_in_python_works_and_rejects() {
    let server = Server::running("python3", EXAMPLE);
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let (_consumer, address, _) = consumer(&cluster, &server, "--concurrency 4");
    let _dispatcher = dispatcher(&cluster, "d0", &[address], "--pattern messages:*shed");
    wait_until("a subscriber", || {
        let heard: u64 = run(connection, &["PUBLISH", "messages:unpublished", "{\"message_id\":\"first\"}"]);
        (heard > 0).then_some(())
    });
    let large = format!("{{\"message_id\":\"large\",\"filling\":\"{}\"}}", "x".repeat(8 << 20 >> 1));
    publish_payloads(connection, ["{\"message_id\":\"small\"}".as_bytes(), large.as_bytes(), b"\xff\0", b""]);
    wait_until_done(connection, 5);
    let results = results(connection);
    assert_eq!(results.len(), 3, "{:?}", results.keys());
    assert_eq!(results["small"]["delivery"], "1");
    assert!(results.values().all(|fields| fields.contains_key("channel")), "{results:?}");
    let dead = raw_stream(connection, "messages:dead");
    assert_eq!(dead.len(), 2);
    for letter in dead {
        let field = |name: &str| {
            let (_, value) = letter.iter().find(|(own, _)| own == name.as_bytes()).expect("it has the field");
            String::from_utf8(value.clone()).expect("text")
        };
        assert!(field("reason").starts_with("HTTP 422 Unprocessable Entity: this is not"), "{}", field("reason"));
        assert_eq!(field("deliveries"), "1");
    }
}

#[test]
fn no_delivery_counts_while_nothing_listens() {
    let mut server = Server::new("python3", EXAMPLE);
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let (mut consumer, address, metrics) = consumer(&cluster, &server, "--concurrency 4");
    let not_ready = || get(metrics, "/readyz").filter(|(status, body)| *status == 503 && body.contains("not ready: "));
    wait_until("it to say that it is not ready", not_ready);
    let _dispatcher = dispatcher(&cluster, "d0", &[address], "");
    wait_until_in_sync(connection, 1);
    publish(connection, "before", 0..20);
    wait_for_intake(connection);
    // The consumer is connected, and gets nothing.
    consumer.wait_for_line("event=dispatcher-rules", DEADLINE).expect("a dispatcher leads");
    assert_eq!(state(connection), (20, 0, 0));
    server.start();
    wait_until_done(connection, 20);

    server.kill();
    publish(connection, "between", 0..20);
    wait_until("it to be not ready again", not_ready);
    wait_for_intake(connection);
    assert_eq!(state(connection), (20, 20, 0));
    server.start();
    wait_until_done(connection, 40);
    let results = results(connection);
    assert_eq!(results.len(), 40);
    assert!(results.values().all(|fields| fields["delivery"] == "1"), "{results:?}");
    assert!(get(metrics, "/metrics").expect("it answers").1.contains("oncecast_unable 0"));

    // A stop does not wait for the server.
    server.kill();
    publish(connection, "after", 0..5);
    wait_until("it to be not ready at last", not_ready);
    assert_eq!(consumer.stop(DEADLINE / 4).expect("it stops").code(), Some(0));
    let log = consumer.stderr().tail(1_000);
    assert_eq!(log.matches("event=unable ").count(), 3, "{log}");
    assert!(!log.contains("event=handler-failed"), "{log}");
}

#[test]
fn kills_of_servers_consumers_and_leaders_lose_nothing() {
    let mut server = Server::running("python3", EXAMPLE);
    let args = format!("--handler http --url {} --concurrency 4 --prefetch 16", server.url());
    let mut cluster = cluster_of(options(2, 2, "", &args));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let load = Load::start(&cluster.redis_url(), "m", 200);
    for round in 0..3 {
        load.wait_for_more(100);
        server.kill();
        load.wait_for_more(if round == 0 { 200 } else { 50 });
        server.start();
        load.wait_for_more(100);
        let victim = match round {
            0 => cluster.wait_for_leader(DEADLINE).expect("one leads").0,
            1 => Node::Consumer(0),
            _ => Node::Consumer(1),
        };
        cluster.kill_node(victim).expect("it is killed");
        load.wait_for_more(50);
        cluster.start_node(victim).expect("it starts again");
    }
    let sent = load.stop();
    assert!(sent.uncertain.is_empty() && sent.unheard.is_empty(), "Redis was not touched");
    wait_until_done(connection, sent.owed.len());
    assert_each_once_but(connection, &sent.owed, &sent.uncertain);
    assert_eq!(state(connection), (0, sent.owed.len(), 0), "nothing is pending or dead");
}

#[test]
fn a_url_that_cannot_be_used_is_refused_at_the_start() {
    let refused = |args: &[&str]| {
        let mut command = programs().command("oncecast-consumer").expect("the program is built");
        command.args(args);
        let output = command.output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    let missing = refused(&["--handler", "http"]);
    assert!(missing.contains("--url (ONCECAST_URL): is required, takes http://"), "{missing}");
    let tls = refused(&["--handler", "http", "--url", "https://me:secret@h/job"]);
    assert!(tls.contains("TLS is not supported yet") && !tls.contains("secret"), "{tls}");
    let unused = refused(&["--url", "http://h/job"]);
    assert!(unused.contains("a URL without --handler http"), "{unused}");
}
