//! Standard output that can't be written to: a program ends silently if its reader has left, and reports a full disk.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};

use oncecast::lab::{RedisServer, ports};

use crate::support::{CHANNEL, DEADLINE, client, programs, redis_server, wait_until};

/// Every program with each of its options that print; `REDIS` is the URL of a server, `METRICS` an address to serve on.
const PRINTING: [&str; 17] = [
    "oncecast --help",
    "oncecast --version",
    "oncecast help status",
    "oncecast audit --help",
    "oncecast status --help",
    "oncecast bench --help",
    "oncecast-dispatcher --help",
    "oncecast-dispatcher --version",
    "oncecast-dispatcher healthcheck --help",
    "oncecast-consumer --help",
    "oncecast-consumer --version",
    "oncecast-publisher --help",
    "oncecast-publisher --version",
    "oncecast audit --redis-url REDIS",
    "oncecast status --redis-url REDIS",
    "oncecast status --json --redis-url REDIS",
    "oncecast status --watch --redis-url REDIS",
];
/// Ends once a subscriber has received its message.
const PUBLISHING: &str = "oncecast-publisher --count 1 --redis-url REDIS";
/// Programs that run for a while.
const LONG: [&str; 3] = [
    "oncecast demo --duration 60s --rate 100",
    "oncecast chaos --duration 60s --rate 100 --every 20s",
    "oncecast bench --quick --messages 1000000 --kinds relay --time 60s",
];

/// How a program ends with this standard output.
fn ended(line: &str, redis: &RedisServer, stdout: impl Into<Stdio>) -> Output {
    let line = line.replace("REDIS", &redis.url());
    let mut words = line.split(' ');
    let mut command = programs().command(words.next().expect("a program")).expect("it is built");
    command.args(words).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    let child = command.spawn().expect("it starts");
    let pid = child.id();
    // Catches a program that does not end, which would hang the test.
    let (ends, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || ends.send(child.wait_with_output().expect("it is our child")));
    end.recv_timeout(4 * DEADLINE).unwrap_or_else(|_| {
        let _ = Command::new("kill").arg(pid.to_string()).status();
        panic!("{line} does not end");
    })
}

fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").expect("Linux has it").into()
}

/// A pipe whose reader has left.
fn closed_pipe() -> Stdio {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    drop(theirs);
    OwnedFd::from(ours).into()
}

#[test]
fn a_full_disk_is_an_error_and_a_closed_pipe_is_not() {
    let redis = redis_server();
    let full_disk = |line: &str| {
        let output = ended(line, &redis, full());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{line} >/dev/full: {said}");
        assert!(said.contains("writing to standard output: No space left"), "{line} >/dev/full: {said}");
        assert!(!said.contains("panicked"), "{line} >/dev/full: {said}");
    };
    let reader_has_left = |line: &str| {
        let output = ended(line, &redis, closed_pipe());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("standard output") && !said.contains("panicked"), "{line} |: {said}");
        assert!(matches!(output.status.code(), Some(0 | 3)), "{line} |: {} {said}", output.status);
    };
    let mut connection = client(&redis.url());
    let mut subscriber = connection.as_pubsub();
    subscriber.subscribe(CHANNEL).expect("Redis accepts subscriptions");
    for line in PRINTING.into_iter().chain([PUBLISHING]) {
        full_disk(line);
        reader_has_left(line);
    }
}

#[test]
fn a_long_run_ends_when_its_reader_leaves() {
    let redis = redis_server();
    for line in LONG {
        let output = ended(line, &redis, closed_pipe());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.as_str()), (Some(0), ""), "{line} |");
        let output = ended(line, &redis, full());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{line} >/dev/full: {said}");
        assert!(said.contains("writing to standard output: No space left"), "{line} >/dev/full: {said}");
    }
}

#[test]
fn a_health_check_prints_its_answer_or_fails() {
    let redis = redis_server();
    let [metrics, listen] = [0; 2].map(|_| format!("127.0.0.1:{}", ports::free_port().expect("a free port")));
    let mut command = programs().command("oncecast-consumer").expect("it is built");
    command.args(["--redis-url", &redis.url(), "--listen", &listen, "--metrics-addr", &metrics]);
    let _consumer = oncecast::lab::ChildProcess::spawn("consumer", command).expect("it starts");
    let check = format!("oncecast-consumer healthcheck --alive --metrics-addr {metrics}");
    wait_until("the consumer to be there", || ended(&check, &redis, Stdio::piped()).status.success().then_some(()));
    assert_eq!(ended(&check, &redis, full()).status.code(), Some(1));
    assert_eq!(ended(&check, &redis, closed_pipe()).status.code(), Some(0));
}

#[test]
fn a_program_without_standard_output_or_error_works() {
    let redis = redis_server();
    for line in PRINTING {
        let line = line.replace("REDIS", &redis.url());
        let (name, arguments) = line.split_once(' ').expect("a program and arguments");
        let path = programs().command(name).expect("it is built").get_program().to_owned();
        // Rust opens what is closed at the start on /dev/null.
        let script = format!("exec {} {} >&- 2>&-", path.display(), arguments.replace("--watch", ""));
        let code = Command::new("sh").args(["-c", &script]).status().expect("a shell").code();
        assert!(matches!(code, Some(0 | 3)), "{line}: {code:?}");
    }
}

#[test]
fn status_watch_ends_when_its_reader_leaves() {
    let redis = redis_server();
    let mut command = programs().command("oncecast").expect("it is built");
    command.args(["status", "--watch", "--json", "--redis-url", &redis.url()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut reader = BufReader::new(child.stdout.take().expect("it is piped"));
    reader.read_line(&mut String::new()).expect("a line");
    drop(reader);
    let status = wait_until("it to end", || child.try_wait().expect("it is our child"));
    assert_eq!(status.code(), Some(3), "no dispatcher leads, and nothing else went wrong");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().expect("it is piped"), &mut said).expect("text");
    assert_eq!(said, "");
}
