//! The example of OPERATIONS.md with which Prometheus sends a token.

use std::fs;

use oncecast::lab::folder::PrivateFolder;
use oncecast::lab::{ChildProcess, ports};

use crate::monitoring::prometheus::Prometheus;
use crate::monitoring::read;
use crate::support::{DEADLINE, programs, redis_server, wait_until};

const TOKEN: &str = "a-token-as-long-as-need-be";

/// The example, with these values in place of its own.
fn example(file: &str, address: &str) -> String {
    let manual = read("docs/OPERATIONS.md");
    let blocks = manual.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let example = blocks.into_iter().find(|block| block.contains("credentials_file")).expect("there is an example");
    for part in ["/etc/prometheus/oncecast-token", "10.0.0.11:9464"] {
        assert!(example.contains(part), "{example}");
    }
    let example = example.replace("/etc/prometheus/oncecast-token", file).replace("10.0.0.11:9464", address);
    format!("global: {{ scrape_interval: 1s, scrape_timeout: 900ms }}\n{example}")
}

#[test]
#[ignore = "needs prometheus: make monitoring-check"]
fn prometheus_sends_the_token_as_the_manual_says() {
    let (redis, folder) = (redis_server(), PrivateFolder::create("token").expect("a folder"));
    let [right, wrong] = ["right", "wrong"].map(|name| {
        let path = folder.path().join(name);
        fs::write(&path, format!("{name}-{TOKEN}\n")).expect("the folder can be written to");
        path.to_str().expect("text").to_owned()
    });
    let address = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
    let mut command = programs().command("oncecast-dispatcher").expect("the program is built");
    command.args(["--redis-url", &redis.url(), "--consumers", "127.0.0.1:1"]);
    command.args(["--metrics-addr", &address, "--metrics-token-file", &right]);
    let dispatcher = ChildProcess::spawn("dispatcher", command).expect("it starts");
    dispatcher.wait_for_line("event=metrics-listening", DEADLINE).expect("it serves");
    for (file, up) in [(&right, "1"), (&wrong, "0")] {
        let prometheus = Prometheus::with(&example(file, &address));
        wait_until(format!("up to be {up}"), || (prometheus.samples("up") == [up]).then_some(()));
    }
}
