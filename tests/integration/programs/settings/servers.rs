//! A Redis that can't be used is reported once, with the problem and what to do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use oncecast::lab::{ChildProcess, RedisOptions, RedisServer, ports};
use socket2::SockRef;

use crate::support::{DEADLINE, programs, redis_server, run_on, wait_until};

/// What a server does with a connection once it has received something.
#[derive(Clone, Copy)]
enum Does {
    /// Answers this to each command.
    Answers(&'static [u8]),
    /// Answers HELLO with this, and nothing else.
    AnswersHello(&'static [u8]),
    Closes,
    Resets,
}

/// A server that treats every connection like this, for as long as the tests run.
fn server(does: Does) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream, does));
        }
    });
    address
}

fn serve(mut stream: TcpStream, does: Does) {
    let mut received = [0; 4096];
    while let Ok(count) = stream.read(&mut received)
        && count > 0
    {
        let answer = match does {
            Does::Answers(answer) => answer,
            Does::AnswersHello(answer) if received[..count].windows(5).any(|word| word == b"HELLO") => answer,
            Does::AnswersHello(_) => continue,
            Does::Closes => return,
            Does::Resets => {
                let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                return;
            }
        };
        // Each command begins with the number of its words.
        let commands = received[..count].split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"*")).count();
        if stream.write_all(&answer.repeat(commands)).is_err() {
            return;
        }
    }
}

/// The error of a subcommand of `oncecast` with this server.
fn failure_of(what: &str, url: &str) -> String {
    let mut command = programs().command("oncecast").expect("it is built");
    let output = command.args([what, "--redis-url", url]).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{url}: {said}");
    said
}

#[test]
fn server_errors_are_logged_with_a_remedy() {
    let cases = [
        (Does::Closes, &["port for TLS?"][..]),
        (Does::Resets, &["port for TLS?"]),
        // A TLS alert: handshake failure.
        (Does::Answers(&[0x15, 3, 3, 0, 2, 2, 70]), &["TLS", "port for TLS?"]),
        (Does::Answers(b"HTTP/1.1 400 Bad Request\r\n\r\n"), &["this is not Redis"]),
        (
            Does::Answers(b"-MOVED 3999 10.0.0.7:6381\r\n"),
            &["must name their owner, 10.0.0.7:6381", "braces around the group's name"],
        ),
        (Does::Answers(b"-MOVED 3999 :6381\r\n"), &["port 6381 of the same host"]),
        (Does::Answers(b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"), &["'{messages}'"]),
        (Does::Answers(b"-CLUSTERDOWN Hash slot not served\r\n"), &["CLUSTER INFO"]),
        (
            Does::Answers(b"-ERR unknown command 'GET', with args beginning with: 'k' \r\n"),
            &["a command, GET: it was renamed"],
        ),
        (Does::Answers(b"-NOAUTH Authentication required.\r\n"), &["it requires a password"]),
    ];
    // In parallel, since an audit waits ten seconds for a server that it can't use. `status` omits what is refused.
    thread::scope(|scope| {
        for (does, parts) in cases {
            scope.spawn(move || {
                let said = failure_of("audit", &format!("redis://{}", server(does)));
                for part in parts {
                    assert!(said.contains(part), "no {part} in: {said}");
                }
            });
        }
    });
}

/// A dispatcher with one consumer that does not run.
fn dispatcher(url: &str) -> ChildProcess {
    let mut command = programs().command("oncecast-dispatcher").expect("it is built");
    command.args(["--consumers", "127.0.0.1:1", "--redis-url", url]);
    ChildProcess::spawn("dispatcher", command).expect("it starts")
}

#[test]
fn a_server_without_resp3_is_reported() {
    for answer in [
        &b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n"[..],
        b"-NOPROTO unsupported protocol version\r\n",
    ] {
        let dispatcher = dispatcher(&format!("redis://{}", server(Does::AnswersHello(answer))));
        let line = dispatcher.wait_for_line("RESP3", DEADLINE).expect("it is logged");
        assert!(line.contains("Redis 6 and newer"), "{line}");
    }
}

#[test]
fn programs_log_in_as_the_user_of_the_url() {
    let redis = redis_server();
    let () = run_on(&redis, &["ACL", "SETUSER", "app", "on", "nopass", "~*", "&*", "+@all"]);
    let () = run_on(&redis, &["ACL", "SETUSER", "default", "off"]);
    let with = |login: &str| redis.url().replace("redis://", &format!("redis://{login}@"));
    let dispatcher = dispatcher(&with("app:"));
    dispatcher.wait_for_line("event=subscribed", DEADLINE).expect("as app, whatever the password");
    assert!(failure_of("status", &redis.url()).contains("it requires a password"), "default is off");
}

/// The wall clock of a log line in milliseconds of its day.
fn time_ms(line: &str) -> u64 {
    let time = line.split_once("T").map(|(_, time)| &time[..12]).expect("time=…T…Z");
    let mut parts = time.split([':', '.']).map(|part| part.parse::<u64>().expect("digits"));
    let mut next = || parts.next().expect("four numbers");
    ((next() * 60 + next()) * 60 + next()) * 1_000 + next()
}

#[test]
fn a_settings_error_is_logged_once_and_prevents_the_subscription() {
    let password = RedisOptions { password: Some("right".to_owned()), ..RedisOptions::default() };
    let locked = RedisServer::start(password).expect("a private Redis starts");
    let open = redis_server();
    let nobody = ports::free_port().expect("a free port");
    let cases = [
        (format!("redis://127.0.0.1:{nobody}"), "is Redis running there?"),
        (format!("redis://127.0.0.1:{}", locked.port()), "it requires a password"),
        (format!("redis://:wrong@127.0.0.1:{}", locked.port()), "check user and password"),
        (format!("redis://:needless@127.0.0.1:{}", open.port()), "the server has no password"),
        (format!("redis://127.0.0.1:{}/99", open.port()), "names database 99"),
        (format!("redis://{}", server(Does::Resets)), "port for TLS?"),
    ];
    // In parallel, since each is watched until it repeats the warning.
    let mut programs: Vec<(ChildProcess, &str)> =
        cases.iter().map(|(url, remedy)| (dispatcher(url), *remedy)).collect();
    for (dispatcher, remedy) in &mut programs {
        let warnings = wait_until(format_args!("a second warning ({remedy})"), || {
            let lines = dispatcher.stderr().all();
            let warnings: Vec<String> = lines.into_iter().filter(|line| line.contains("level=warn")).collect();
            (warnings.len() > 1).then_some(warnings)
        });
        assert!(
            warnings.iter().all(|line| line.contains("event=redis-trouble") && line.contains(*remedy)),
            "{warnings:#?}"
        );
        // The next day may have begun.
        let apart = (time_ms(&warnings[1]) + 86_400_000 - time_ms(&warnings[0])) % 86_400_000;
        assert!(apart >= 4_000, "the same thread repeats it after 5 s, and no other logs it: {warnings:#?}");
        assert!(dispatcher.stop(DEADLINE).expect("it ends").success());
        let log = dispatcher.stderr().all().join("\n");
        assert!(!log.contains("event=subscribed"), "{log}");
    }
}
