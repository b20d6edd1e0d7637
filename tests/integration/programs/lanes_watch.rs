//! `oncecast status --watch` while the node of lane 0 hangs or is down.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use oncecast::lab::RedisCluster;
use serde_json::{Value, json};

use super::lanes::{add_lane_on_the_third_node, group, node_of};
use crate::support::{DEADLINE, programs};

/// `oncecast status --watch --json`, which runs.
struct Watch {
    child: Child,
    shown: Receiver<Value>,
    log: Option<JoinHandle<String>>,
}

impl Watch {
    fn start(cluster: &RedisCluster) -> Watch {
        let mut command: Command = programs().command("oncecast").expect("the program is built");
        command.args(["status", "--watch", "--json", "--redis-url", &cluster.url(), "--group", "{orders}"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let (lines, shown) = channel();
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = lines.send(serde_json::from_str(&line).expect("JSON"));
            }
        });
        let mut errors = child.stderr.take().expect("a pipe");
        let log = thread::spawn(move || std::io::read_to_string(&mut errors).expect("text"));
        Watch { child, shown, log: Some(log) }
    }

    /// The next check in which exactly these lanes could not be read.
    fn wait_for_unread(&self, unread: Value) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let shown = self.shown.recv_timeout(left).unwrap_or_else(|_| panic!("never were {unread} unread"));
            if shown["unread_lanes"] == unread {
                return shown;
            }
        }
    }

    /// Ends it. Returns its log.
    fn end(mut self) -> String {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it ends");
        self.log.take().expect("it is taken once").join().expect("it does not panic")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_other_lanes_are_shown_promptly_and_warnings_once() {
    let mut cluster = group();
    let third = add_lane_on_the_third_node(&mut cluster);
    let (home, _) = node_of(&cluster, "{orders}");
    let watch = Watch::start(&cluster);
    assert_eq!(watch.wait_for_unread(json!([]))["results"], 5);

    cluster.pause(home).expect("it is ours");
    let assert_others_shown = |shown: &Value| {
        assert_eq!((&shown["results"], &shown["lanes"]["3"]["pending"]), (&json!(5), &json!(1)), "{shown:#}");
        assert_eq!(shown["lanes"][third.to_string()]["results"], 1, "{shown:#}");
    };
    assert_others_shown(&watch.wait_for_unread(json!([0])));
    let began = Instant::now();
    for _ in 0..6 {
        assert_others_shown(&watch.wait_for_unread(json!([0])));
    }
    assert!(began.elapsed() < Duration::from_secs(12), "six checks took {:?}", began.elapsed());
    cluster.resume(home).expect("it is ours");
    watch.wait_for_unread(json!([]));
    cluster.kill(home).expect("it is ours");
    watch.wait_for_unread(json!([0]));
    // What was known of the lanes is still right.
    assert_eq!(watch.end().matches("event=lanes-unknown").count(), 0);

    let watch = Watch::start(&cluster);
    for _ in 0..3 {
        assert_others_shown(&watch.wait_for_unread(json!([0])));
    }
    assert_eq!(watch.end().matches("event=lanes-unknown").count(), 1);
}
