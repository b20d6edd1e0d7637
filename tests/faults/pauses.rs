//! Row 43: a group is paused and resumed under load, while dispatchers and the operators' tools are killed.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::pair::{Pair, tool, two_consumers};
use crate::run::{Run, assert_l0};
use crate::support::load::Load;
use crate::support::{bare_cluster, client_of, pending, wait_until, wait_until_in_sync};

/// Runs the tool until the leader keeps to what is set. Returns what it told.
fn confirmed(url: &str, arguments: &[&str]) -> Value {
    wait_until(format!("{arguments:?} to be confirmed"), || {
        let output = tool(url, arguments).output().expect("it runs");
        let told: Value = serde_json::from_slice(&output.stdout).ok()?;
        (told["confirmed"] == true).then_some(told)
    })
}

#[test]
fn row_43_paused_while_leaders_are_killed() {
    let mut this = Run::of("row_43");
    let mut cluster = bare_cluster();
    let url = cluster.redis().url();
    let connection = &mut client_of(&mut cluster);
    let handed_out = Arc::new(AtomicUsize::new(0));
    let judge = {
        let handed_out = handed_out.clone();
        move |_: &str| {
            handed_out.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    };
    let (_consumers, addresses) = two_consumers(&url, judge);
    let mut dispatchers = Pair::start(&cluster, &addresses, "--lease-ttl-ms 600000");
    wait_until_in_sync(connection, 2);
    let load = Load::start(&url, "m", 1_000);
    let (mut killed_leaders, mut kept) = (0, 0);
    for _ in 0..this.scale(5, 40) {
        load.wait_for_more(this.random.u64(200..600));
        // One that is killed somewhere on the way does no harm.
        let mut twin = tool(&url, &["pause"]).stdout(Stdio::null()).spawn().expect("the tool starts");
        thread::sleep(Duration::from_micros(this.random.u64(0..8_000)));
        twin.kill().expect("it is ours");
        twin.wait().expect("it ends");
        confirmed(&url, &["pause", "--by", "row 43"]);
        wait_until("what is in flight to be done", || (confirmed(&url, &["set"])["in_flight"] == 0).then_some(()));
        let before = handed_out.load(Ordering::SeqCst);
        for _ in 0..this.random.u64(0..3) {
            dispatchers.kill_leader(&cluster, connection);
            killed_leaders += 1;
            load.wait_for_more(this.random.u64(50..200));
        }
        wait_until_in_sync(connection, 2);
        let told = confirmed(&url, &["set"]);
        assert_eq!(told["paused"]["by"], "row 43", "{told}");
        assert_eq!(handed_out.load(Ordering::SeqCst), before, "nothing is handed out while the group is paused");
        kept += pending(connection);
        if this.random.bool() {
            confirmed(&url, &["resume"]);
        } else {
            // It ends by itself.
            confirmed(&url, &["pause", "--for", "300ms"]);
        }
        wait_until("messages to be handed out", || (handed_out.load(Ordering::SeqCst) > before).then_some(()));
    }
    let sent = load.stop();
    assert_l0(connection, &sent);
    this.say(format_args!("{killed_leaders} leaders killed, {kept} messages kept in all pauses together"));
}
