//! The lanes of a group on a real Redis Cluster spread over its dispatchers, through a crash and a return.

use std::collections::BTreeMap;
use std::fs;

use oncecast::lab::folder::PrivateFolder;
use oncecast::lab::lanes::channels_of_nodes;
use oncecast::lab::{Cluster, LanesView, Node, Snapshot};
use oncecast::ledger::LaneNumber;

use crate::support::sharded::{ShardedLoad, tool};
use crate::support::{DEADLINE, options, wait_until};

/// How many primaries, and so lanes, there are.
const LANES: usize = 6;
/// The shortest time between two lanes that are handed over.
const HAND_OVER_EVERY_MS: u64 = 2_000;
const HAND_OVER: &str = "event=hand-over ";

/// Two dispatchers, and who leads which lane.
struct Group {
    cluster: Cluster,
    view: LanesView,
}

impl Group {
    fn leaders(&mut self, lanes: &BTreeMap<LaneNumber, Snapshot>) -> Vec<Node> {
        lanes.values().filter_map(|seen| self.cluster.leader(seen)).collect()
    }

    /// Waits until each dispatcher leads so many lanes, and every lane has recorded more by then.
    fn wait_for_shares(&mut self, shares: [usize; 2]) {
        let read = |view: &mut LanesView| wait_until("Redis to tell of all lanes", || view.read().ok());
        let before = read(&mut self.view);
        let what = format!("the dispatchers to lead {shares:?} lanes, and results in each");
        wait_until(what, || {
            self.cluster.must_run().expect("all run");
            let now = self.view.read().ok()?;
            let leaders = self.leaders(&now);
            let led = [0, 1].map(|number| leaders.iter().filter(|node| **node == Node::Dispatcher(number)).count());
            let more = |(lane, seen): (&LaneNumber, &Snapshot)| seen.processed > before[lane].processed + 5;
            (led == shares && now.iter().all(more)).then_some(())
        });
    }

    fn wait_until_ready(&mut self) {
        let ready = |cluster: &mut Cluster, _: &Snapshot| cluster.is_ready().then_some(());
        self.cluster.wait_for(DEADLINE, "both to be in sync in all lanes", ready).expect("they are");
    }

    /// The lines of a dispatcher's log about lanes that it has handed over.
    fn handed_over(&mut self, dispatcher: usize) -> Vec<String> {
        let process = self.cluster.process(Node::Dispatcher(dispatcher)).expect("it runs");
        process.stderr().all().into_iter().filter(|line| line.contains(HAND_OVER)).collect()
    }
}

/// The time of a line of a log, in milliseconds of its day.
fn logged_ms(line: &str) -> u64 {
    let time = line.split_once('T').and_then(|(_, rest)| rest.split_once('Z')).expect("each line has its time").0;
    let parts: Vec<u64> = time.split([':', '.']).map(|part| part.parse().expect("a number")).collect();
    let [hours, minutes, seconds, millis] = parts[..] else { panic!("{line}") };
    ((hours * 60 + minutes) * 60 + seconds) * 1_000 + millis
}

#[test]
fn six_lanes_are_shared_through_a_crash_and_a_return_and_nothing_is_lost() {
    let channels = channels_of_nodes("orders.", LANES);
    let args = format!("--sharded-channel {} --hand-over-every-ms {HAND_OVER_EVERY_MS}", channels.join(","));
    let mut options = options(2, 2, &args, "");
    options.on_redis_cluster();
    options.readiness = true;
    if let Some(redis) = &mut options.redis_cluster {
        (redis.primaries, redis.replicas) = (LANES, false);
    }
    let cluster = Cluster::start(options).expect("a cluster starts");
    if cluster.server_version().expect("it answers").starts_with("redis 6.") {
        return;
    }
    let view = LanesView::new(cluster.server(), cluster.keys());
    let mut group = Group { cluster, view };
    group.wait_until_ready();
    let load = ShardedLoad::start(&group.cluster.server(), "", &channels, 100);
    group.wait_for_shares([3, 3]);
    group.wait_until_ready();
    let handed_over = group.handed_over(1).len();

    group.cluster.kill_node(Node::Dispatcher(0)).expect("it is killed");
    group.wait_for_shares([0, LANES]);
    assert_eq!(group.handed_over(1).len(), handed_over, "nobody is there to lead them");

    group.cluster.start_node(Node::Dispatcher(0)).expect("it starts again");
    group.wait_for_shares([3, 3]);
    group.wait_until_ready();
    group.wait_for_shares([3, 3]);
    let lines = group.handed_over(1).split_off(handed_over);
    assert_eq!(lines.len(), LANES / 2, "each once: {lines:#?}");
    assert_eq!(group.handed_over(0), [""; 0], "none comes back");
    // On a midnight the next day begins.
    let pauses: Vec<u64> =
        lines.windows(2).map(|two| (logged_ms(&two[1]) + DAY_MS - logged_ms(&two[0])) % DAY_MS).collect();
    assert!(pauses.iter().all(|pause| *pause >= HAND_OVER_EVERY_MS), "{lines:#?}");

    let sent = load.stop();
    assert_eq!((sent.uncertain.len(), sent.unheard.len()), (0, 0), "no node was lost");
    let folder = PrivateFolder::create("spread").expect("a folder");
    let ids = folder.path().join("ids");
    fs::write(&ids, sent.owed.join("\n")).expect("it is written");
    let ids = ids.display().to_string();
    wait_until("all to be recorded once", || {
        let output = tool(&group.cluster, "oncecast", &["audit", "--ids", &ids]);
        let text = String::from_utf8_lossy(&output.stdout);
        (output.status.success() && text.contains("nothing lost, nothing recorded twice")).then_some(())
    });
    group.cluster.stop(DEADLINE).expect("a clean end");
}

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
