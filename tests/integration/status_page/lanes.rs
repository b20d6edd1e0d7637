//! How the page shows the lanes of a group on a real Redis Cluster: under load, and while a leader dies.

use std::collections::BTreeMap;

use oncecast::lab::lanes::channels_of_nodes;
use oncecast::lab::{Cluster, LanesView, Node, Snapshot};
use oncecast::ledger::LaneNumber;
use serde_json::json;

use super::{DESK, PHONE, assert_fits, assert_no_complaint, number, url};
use crate::support::browser::{Browser, Page};
use crate::support::sharded::ShardedLoad;
use crate::support::{DEADLINE, options, skipped, wait_until};

/// How many primaries, and so lanes, there are.
const LANES: usize = 3;
/// Of each lane its number, its leader and its node.
const ROWS: &str = "[...document.querySelectorAll('#lanes tr')].map(row => \
                    [...row.cells].slice(0, 3).map(cell => cell.textContent.replace(/ +/g, ' ').trim()))";

/// What the rows must show, as Redis has it, for the page of a dispatcher; `None` while a lane has no leader that runs.
fn expected(cluster: &mut Cluster, lanes: &BTreeMap<LaneNumber, Snapshot>, of: Node) -> Option<Vec<[String; 2]>> {
    let row = |(lane, seen): (&LaneNumber, &Snapshot)| {
        let role = if cluster.leader(seen)? == of { "this page leads" } else { "this page: standby" };
        Some([lane.to_string(), format!("{} {role}", seen.lease.as_ref()?.holder)])
    };
    lanes.iter().map(row).collect()
}

/// Waits until the page shows each lane with its leader, as Redis has them.
fn wait_for_rows(page: &mut Page, cluster: &mut Cluster, view: &mut LanesView, of: Node) {
    let mut seen = (json!(null), None);
    wait_until("the page to show the lanes as they are", || {
        let shown = page.eval(ROWS);
        let rows = view.read().ok().and_then(|lanes| expected(cluster, &lanes, of));
        let as_shown = shown.as_array().cloned().unwrap_or_default();
        let same = |rows: &Vec<[String; 2]>| {
            rows.len() == LANES
                && rows.len() == as_shown.len()
                && rows.iter().zip(&as_shown).all(|(row, shown)| shown[0] == row[0] && shown[1] == row[1])
        };
        let is_shown = rows.as_ref().is_some_and(same);
        seen = (shown, rows);
        is_shown.then_some(())
    });
}

#[test]
fn the_page_shows_the_lanes_of_a_real_cluster_through_a_change_of_leader() {
    let Some(mut browser) = Browser::start() else { return };
    let channels = channels_of_nodes("orders.", LANES);
    let mut options = options(2, 2, &format!("--lease-ttl-ms 1000 --sharded-channel {}", channels.join(",")), "");
    options.on_redis_cluster();
    options.readiness = true;
    if let Some(redis) = &mut options.redis_cluster {
        (redis.primaries, redis.replicas) = (LANES, false);
    }
    let mut cluster = Cluster::start(options).expect("a cluster starts");
    if cluster.server_version().expect("it answers").starts_with("redis 6.") {
        return skipped("Redis 6.2 has no sharded channels");
    }
    let ready = |cluster: &mut Cluster, _: &Snapshot| cluster.is_ready().then_some(());
    cluster.wait_for(DEADLINE, "both to be in sync in all lanes", ready).expect("they are");
    let mut view = LanesView::new(cluster.server(), cluster.keys());
    let [killed, stays] = [0, 1].map(Node::Dispatcher);
    let mut page = browser.page();
    page.open(&url(&cluster, stays));
    wait_for_rows(&mut page, &mut cluster, &mut view, stays);
    page.wait_for_text("leader-id", "3 of 3 lanes have a leader, of 2 dispatchers");
    page.wait_for_text("health-text", "no problems");
    page.wait_for("document.querySelector('#epoch-row').hidden");
    let nodes: Vec<String> = cluster
        .redis_cluster()
        .expect("it is on one")
        .nodes()
        .map(|node| format!("127.0.0.1:{}", node.port()))
        .collect();
    let shown = page.eval(ROWS);
    let mut on: Vec<&str> = shown.as_array().expect("rows").iter().filter_map(|row| row[2].as_str()).collect();
    on.sort_unstable();
    let mut each: Vec<&str> = nodes.iter().map(String::as_str).collect();
    each.sort_unstable();
    assert_eq!(on, each, "each lane is on a node of its own");

    let load = ShardedLoad::start(&cluster.server(), "m", &channels, 200);
    page.wait_for("+document.querySelector('#rate-acked').textContent[0] > 0");
    let before = number(&mut page, "results");
    let shown = page.text("results");
    page.wait_for(&format!("document.querySelector('#results').textContent !== '{shown}'"));
    assert!(number(&mut page, "results") > before, "results only grow");

    cluster.kill_node(killed).expect("it runs");
    page.wait_for_text("leader-id", "3 of 3 lanes have a leader, of 1 dispatcher");
    wait_for_rows(&mut page, &mut cluster, &mut view, stays);
    page.wait_for("document.querySelector('#server').textContent.includes(', leader of 3 lanes,')");
    page.wait_for("/ leads lane \\d+, after /.test(document.querySelector('#changes').textContent)");
    for screen in [DESK, PHONE] {
        assert_fits(&mut page, screen);
    }
    cluster.start_node(killed).expect("it starts again");
    page.wait_for_text("leader-id", "3 of 3 lanes have a leader, of 2 dispatchers");
    // The sum over all lanes comes to what was published.
    let sent = load.stop();
    assert!(sent.unheard.is_empty() && sent.uncertain.is_empty(), "no node was lost");
    wait_until("the page to show all results", || {
        (number(&mut page, "results") == sent.owed.len() as f64).then_some(())
    });
    assert_no_complaint(&mut page);
    cluster.stop(DEADLINE).expect("every process stops cleanly");
}
