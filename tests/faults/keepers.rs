//! Rows about consumers without Redis, whose results the leader records.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use oncecast::lab::{ChildProcess, Signal};
use oncecast::wire::{SUBPROTOCOL_1, SUBPROTOCOL_2};

use crate::run::{Run, assert_l0};
use crate::support::keeper::Keeper;
use crate::support::load::Load;
use crate::support::{bare_cluster, client_of, dispatcher as start_dispatcher, run as run_command, wait_until_in_sync};

/// Row 40: leaders are killed, links cut, and Redis paused, at random and in any order.
fn row_40_consumers_without_redis(subprotocol: &'static str) {
    let mut run = Run::of(&format!("row_40_consumers_without_redis with {subprotocol}"));
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let keepers = [Keeper::start("k0", subprotocol), Keeper::start("k1", subprotocol)];
    let addresses: Vec<String> = keepers.iter().map(|keeper| keeper.address.clone()).collect();
    // Lost links are no failures here, however many there are.
    let start = |cluster: &_, name: &str| start_dispatcher(cluster, name, &addresses, "--max-deliveries 1000");
    let mut dispatchers: Vec<(String, ChildProcess)> =
        ["d0", "d1"].map(|name| (name.to_owned(), start(&cluster, name))).into();
    wait_until_in_sync(connection, 2);
    let load = Load::start(&cluster.redis().url(), "m", run.scale(1_000, 2_000));
    for _ in 0..run.scale(40, 400) {
        match run.random.u8(..8) {
            0 => {
                wait_until_in_sync(connection, 2);
                let lease: String = run_command(connection, &["GET", "messages:leader"]);
                let leads = |(name, _): &&mut (String, ChildProcess)| lease.starts_with(&format!("{name}-"));
                // None leads if the last one has just been killed.
                if let Some((name, process)) = dispatchers.iter_mut().find(leads) {
                    process.kill().expect("it runs");
                    *process = start(&cluster, name);
                }
            }
            1 => {
                let redis = cluster.redis().process().expect("it runs");
                redis.signal(Signal::SIGSTOP).expect("it runs");
                thread::sleep(Duration::from_millis(run.random.u64(50..500)));
                redis.signal(Signal::SIGCONT).expect("it runs");
            }
            number => keepers[usize::from(number) % 2].cut(),
        }
        load.wait_for_more(run.random.u64(20..300));
    }
    let sent = load.stop();
    assert_l0(connection, &sent);
    keepers.iter().for_each(Keeper::finish);
    for keeper in &keepers {
        let [runs, again, sent_again, confirmed] =
            [&keeper.tally.runs, &keeper.tally.runs_again, &keeper.tally.sent_again, &keeper.tally.confirmed]
                .map(|count| count.load(Ordering::Relaxed));
        run.say(format_args!(
            "{runs} runs, {again} of them again; {sent_again} results sent again, {confirmed} confirmed"
        ));
        // Each run has one result, which was kept until it was confirmed.
        assert_eq!(confirmed, if subprotocol == SUBPROTOCOL_2 { runs } else { 0 });
    }
}

#[test]
fn row_40_consumers_without_redis_of_version_1() {
    row_40_consumers_without_redis(SUBPROTOCOL_1);
}

#[test]
fn row_40_consumers_without_redis_that_keep_results() {
    row_40_consumers_without_redis(SUBPROTOCOL_2);
}
