//! Signals that are ignored when a program starts, as with `nohup` or a script's `&`, stay ignored.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;
use oncecast::lab::{ChildProcess, ports};

use crate::support::{DEADLINE, programs, redis_server, wait_until};

/// Whether the kernel lists a signal in this mask of a process: `SigIgn`, `SigCgt`.
fn is_in(mask: &str, pid: u32, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let bits = status.lines().find_map(|line| line.strip_prefix(mask)?.strip_prefix(':'));
    let bits = bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or_default();
    bits & (1 << (signal as u64 - 1)) != 0
}

#[test]
fn signals_ignored_at_start_stay_ignored() {
    let redis = redis_server();
    let url = redis.url();
    let listen = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
    for (program, arguments) in [
        ("oncecast-dispatcher", vec!["--consumers", "127.0.0.1:1", "--redis-url", &url]),
        ("oncecast-consumer", vec!["--listen", &listen, "--redis-url", &url]),
        ("oncecast-publisher", vec!["--rate", "10", "--redis-url", &url]),
        ("oncecast", vec!["status", "--watch", "--redis-url", &url]),
    ] {
        for ignored in ["HUP INT", "HUP", "INT", ""] {
            let path = programs().command(program).expect("it is built").get_program().to_owned();
            let trap = if ignored.is_empty() { String::new() } else { format!("trap '' {ignored}; ") };
            // The process that runs the tests may ignore signals as well, and a shell can't change that.
            let mut command = Command::new("env");
            command
                .args(["--default-signal=HUP,INT", "sh", "-c"])
                .arg(format!("{trap}exec \"$0\" \"$@\""))
                .arg(path)
                .args(&arguments);
            let mut child = ChildProcess::spawn(program, command).expect("it starts");
            let pid = child.pid();
            let expected = |name: &str, signal| {
                let (mask, other) = if ignored.contains(name) { ("SigIgn", "SigCgt") } else { ("SigCgt", "SigIgn") };
                is_in(mask, pid, signal) && !is_in(other, pid, signal)
            };
            wait_until(format_args!("{program} to have set its handlers ({ignored})"), || {
                let heard = is_in("SigCgt", pid, Signal::SIGTERM);
                (heard && expected("HUP", Signal::SIGHUP) && expected("INT", Signal::SIGINT)).then_some(())
            });
            let by = match ignored {
                "HUP INT" => Signal::SIGTERM,
                "HUP" => Signal::SIGINT,
                _ => Signal::SIGHUP,
            };
            // Ignored signals do nothing. The program stops cleanly at the first one that is not ignored.
            for signal in [Signal::SIGHUP, Signal::SIGINT].into_iter().filter(|signal| *signal != by) {
                let name = if signal == Signal::SIGHUP { "HUP" } else { "INT" };
                if ignored.contains(name) {
                    child.signal(signal).expect("it runs");
                }
            }
            child.must_run().expect("it ignores them");
            child.signal(by).expect("it runs");
            let status = child.wait(DEADLINE).expect("it ends");
            assert!(status.code().is_some(), "{program} was killed by a signal it should hear: {status}");
        }
    }
}
