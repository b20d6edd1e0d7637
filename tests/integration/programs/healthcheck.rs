//! The subcommand `healthcheck` of each program: 0 if the running program is ready, 1 with the reason if it is not or
//! does not run, 2 for invalid settings.

use std::process::Output;

use oncecast::lab::{ChildProcess, Cluster, RedisServer, ports};

use crate::support::{DEADLINE, bare_cluster, programs, redis_server, wait_until};

/// Runs `line`, a program and its arguments, with `ONCECAST_METRICS_ADDR` set; gives exit code and output.
fn ended(line: &str, metrics_addr: &str) -> (Option<i32>, String) {
    let mut words = line.split(' ');
    let mut command = programs().command(words.next().expect("a program")).expect("the program is built");
    command.args(words).env("ONCECAST_METRICS_ADDR", metrics_addr);
    let Output { status, stdout, stderr } = command.output().expect("the program can be started");
    (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

fn wait_for_answer(program: &str, address: &str, code: i32, part: &str) {
    let mut last = None;
    wait_until(format!("{program} healthcheck to end with {code} and {part:?}; see below"), || {
        let outcome = ended(&format!("{program} healthcheck"), address);
        let it_is = outcome.0 == Some(code) && outcome.1.contains(part);
        last = Some(outcome).inspect(|outcome| {
            if !it_is {
                eprintln!("{program}: {outcome:?}");
            }
        });
        it_is.then_some(())
    });
}

fn free_address() -> String {
    format!("127.0.0.1:{}", ports::free_port().expect("a free port"))
}

/// Starts one of our programs on a server, serving its metrics on all addresses. Returns it and that address.
fn start(redis: &RedisServer, program: &str, args: &[&str]) -> (ChildProcess, String) {
    let address = format!("0.0.0.0:{}", ports::free_port().expect("a free port"));
    let mut command = programs().command(program).expect("the program is built");
    command.args(["--redis-url", &redis.url(), "--metrics-addr", &address]).args(args);
    (ChildProcess::spawn(program, command).expect("the program starts"), address)
}

#[test]
fn each_program_reports_its_readiness() {
    let mut redis = redis_server();
    let listen = free_address();
    let running = [
        start(&redis, "oncecast-consumer", &["--listen", &listen]),
        start(&redis, "oncecast-dispatcher", &["--consumers", &listen]),
        start(&redis, "oncecast-publisher", &["--rate", "100"]),
    ];
    for (process, address) in &running {
        wait_for_answer(process.name(), address, 0, "ready");
    }
    redis.stop().expect("it ends");
    for (process, address) in &running {
        wait_for_answer(process.name(), address, 1, "not ready: ");
        // It is alive nevertheless.
        let (code, output) = ended(&format!("{} healthcheck --alive", process.name()), address);
        assert_eq!((code, output.as_str()), (Some(0), "alive\n"), "{}", process.name());
    }
    redis.start_again().expect("it starts");
    for (process, address) in &running {
        wait_for_answer(process.name(), address, 0, "ready");
    }
}

#[test]
fn an_unreachable_program_is_not_ready() {
    let nobody = free_address();
    for program in ["oncecast-dispatcher", "oncecast-consumer", "oncecast-publisher", "oncecast"] {
        let (code, output) = ended(&format!("{program} healthcheck"), &nobody);
        assert_eq!((code, output), (Some(1), format!("not ready: nothing listens on {nobody}\n")), "{program}");
        let (code, output) = ended(&format!("{program} healthcheck --alive"), &nobody);
        assert_eq!((code, output), (Some(1), format!("not alive: nothing listens on {nobody}\n")), "{program}");
    }
}

#[test]
fn a_program_that_hangs_fails_the_liveness_check() {
    let cluster: Cluster = bare_cluster();
    let address = free_address();
    let args = format!("--metrics-addr {address}");
    let mut process = crate::support::dispatcher(&cluster, "d0", &["127.0.0.1:1".to_owned()], &args);
    process.wait_for_line("event=metrics-listening", DEADLINE).expect("it listens");
    process.signal(oncecast::lab::Signal::SIGSTOP).expect("it runs");
    let (code, output) = ended("oncecast-dispatcher healthcheck --alive", &address);
    assert_eq!((code, output), (Some(1), format!("not alive: {address} does not answer within 2s\n")));
    process.signal(oncecast::lab::Signal::SIGCONT).expect("it runs");
    wait_until("it to answer again", || {
        (ended("oncecast-dispatcher healthcheck --alive", &address).0 == Some(0)).then_some(())
    });
}

#[test]
fn a_missing_address_is_a_settings_error() {
    for program in ["oncecast-dispatcher", "oncecast-consumer", "oncecast-publisher", "oncecast"] {
        for address in ["", "off"] {
            let (code, output) = ended(&format!("{program} healthcheck"), address);
            assert_eq!(code, Some(2), "{program}: {output}");
            for part in ["--metrics-addr", "ONCECAST_METRICS_ADDR", "required"] {
                assert!(output.contains(part), "{program}: no {part} in: {output}");
            }
        }
        let (code, output) = ended(&format!("{program} --help"), "");
        assert!(code == Some(0) && output.contains("healthcheck"), "{program}: {output}");
        let (code, output) = ended(&format!("{program} healthcheck --help"), "");
        assert!(code == Some(0) && output.contains("--alive") && output.contains("Exit codes"), "{program}: {output}");
    }
}
