//! An ordinary run under load, while children, consumers and leaders are killed.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oncecast::lab::Node;

use super::{exec_options, python};
use crate::support::load::Load;
use crate::support::{DEADLINE, assert_each_once_but, children_of, client_of, cluster_of, state, wait_until_done};

/// How long messages are published.
const DURATION: Duration = Duration::from_secs(9);

#[test]
fn kills_of_children_consumers_and_leaders_lose_nothing_and_record_nothing_twice() {
    let work = "r = {'message_id': json.loads(p)['message_id']}";
    let mut options = exec_options(
        3,
        "--retry fixed:50ms --max-deliveries 100",
        "--concurrency 2 --prefetch 64",
        &["python3", "-c", &python(work)],
    );
    options.dispatchers = 2;
    let mut cluster = cluster_of(options);
    let connection = &mut client_of(&mut cluster);
    let load = Load::start(&cluster.redis_url(), "m", 600);
    let (begin, mut children_killed) = (Instant::now(), 0);
    for round in 0.. {
        if begin.elapsed() >= DURATION {
            break;
        }
        let (leader, _) = cluster.wait_for_leader(DEADLINE).expect("there is one");
        let victim = match round % 8 {
            3 => Some(Node::Consumer(round / 8 % 3)),
            7 => Some(leader),
            _ => None,
        };
        if let Some(victim) = victim {
            cluster.kill_node(victim).expect("it runs");
            load.wait_for_more(100);
            cluster.start_node(victim).expect("it starts again");
            continue;
        }
        let consumer = cluster.process(Node::Consumer(round % 3)).expect("it runs").pid();
        for child in children_of(consumer) {
            // It may have ended meanwhile.
            children_killed += usize::from(kill(Pid::from_raw(child.cast_signed()), Signal::SIGKILL).is_ok());
        }
        load.wait_for_more(100);
    }
    let sent = load.stop();
    assert!(sent.owed.len() > 1_000 && children_killed > 20, "{} messages, {children_killed} kills", sent.owed.len());
    wait_until_done(connection, sent.owed.len());
    assert_each_once_but(connection, &sent.owed, &sent.uncertain);
    assert_eq!(state(connection).2, 0, "no dead letters");
}
