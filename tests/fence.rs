//! Fenced: a dispatcher that was paused or cut off, and no longer leads, changes nothing, steps down by itself and is a
//! standby again.

mod support;

use std::thread;
use std::time::Duration;

use oncecast::id::{Epoch, MessageId};
use oncecast::local::{Lease, Member, Signal};
use oncecast::wire::{ErrorCode, Frame};
use oncecast::{Consumer, Delivery, Outcome};

use support::load::Load;
use support::peer::{Heard, Line};
use support::{
    DEADLINE, OwnConsumer, assert_each_once, client_of, cluster_of, options, redis_server, run, stream, threads,
    wait_for_another_leader, wait_until, wait_until_done, wait_until_in_sync,
};

/// The threads that only a leader has.
const WORKERS: [&str; 3] = ["ingest", "courier", "redistributor"];

fn epoch(connection: &mut redis::Connection) -> Epoch {
    Epoch(run(connection, &["GET", "messages:epoch"]))
}

#[test]
fn a_leader_paused_for_longer_than_its_lease_changes_nothing_and_steps_down() {
    let mut cluster = cluster_of(options(2, 3, "--lease-ttl-ms 500", ""));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let (old, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    let load = Load::start(&cluster.redis().url(), "m", 1_500);
    load.wait_for_more(1_000);

    cluster.signal(old, Signal::SIGSTOP).unwrap();
    // Its connections stand, so it counts as alive: only the end of the lease lets the other lead.
    let (new, new_lease) = wait_for_another_leader(&mut cluster, &lease);
    load.wait_for_more(1_500);
    let (log, pid) = (cluster.process(old).unwrap().stderr().clone(), cluster.process(old).unwrap().pid());
    let seen = log.count();
    cluster.signal(old, Signal::SIGCONT).unwrap();
    // Meanwhile its workers find the messages of the whole pause in the ring, and links with room.
    let line = log.wait_for_after(seen, "event=term-ended", DEADLINE).expect("it steps down by itself");
    let reasons = ["lease-lost", "lease-expired", "fenced", "superseded"];
    assert!(reasons.iter().any(|reason| line.contains(&format!("reason={reason}"))), "{line}");
    wait_until("its workers to be gone", || {
        let threads = threads(pid);
        let standby = threads.contains_key("listener") && threads.contains_key("election");
        (standby && WORKERS.iter().all(|worker| !threads.contains_key(*worker))).then_some(())
    });
    load.wait_for_more(500);
    let sent = load.stop();
    wait_until_done(connection, sent.owed.len());
    assert_each_once(connection, &sent.owed);
    let (leader, now): (Member, Lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    assert_eq!((leader, now.epoch), (new, new_lease.epoch), "the one that came back disturbed the leader");
    assert_eq!(epoch(connection), new_lease.epoch, "the epoch only rises with a new leader");

    // It is a standby like any other: it holds what follows the cursor and takes over when the leader dies.
    wait_until_in_sync(connection, 2);
    cluster.kill_member(new).unwrap();
    let (third, third_lease) = wait_for_another_leader(&mut cluster, &new_lease);
    assert_eq!((third, &third_lease.holder), (old, &lease.holder), "the same process leads again");
    assert_eq!(stream(connection, "messages:gaps"), [], "it was in sync: nothing may have been missed");
}

#[test]
fn a_lone_leader_paused_for_longer_than_its_lease_leads_again_and_loses_nothing() {
    let mut cluster = cluster_of(options(1, 3, "--lease-ttl-ms 500", ""));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 1);
    let (leader, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    let load = Load::start(&cluster.redis().url(), "m", 1_500);
    load.wait_for_more(500);
    cluster.signal(leader, Signal::SIGSTOP).unwrap();
    wait_until("the lease to run out", || {
        (run::<usize>(connection, &["EXISTS", "messages:leader"]) == 0).then_some(())
    });
    load.wait_for_more(500);
    cluster.signal(leader, Signal::SIGCONT).unwrap();
    let next = cluster
        .wait_for(DEADLINE, "a new term", |_, snapshot| snapshot.lease.clone().filter(|next| next.epoch > lease.epoch));
    assert_eq!(next.unwrap().holder, lease.holder);
    load.wait_for_more(500);
    let sent = load.stop();
    wait_until_done(connection, sent.owed.len());
    // Catches a new term that begins with the present instead of where the old one stopped.
    assert_each_once(connection, &sent.owed);
    assert_eq!(stream(connection, "messages:gaps"), []);
}

#[test]
fn a_pause_shorter_than_the_lease_changes_no_leader() {
    let mut cluster = cluster_of(options(2, 3, "--lease-ttl-ms 4000", ""));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let (leader, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    let load = Load::start(&cluster.redis().url(), "m", 1_500);
    for _ in 0..3 {
        load.wait_for_more(300);
        cluster.signal(leader, Signal::SIGSTOP).unwrap();
        // The length of the pause is what is tested. A third of the lease may have passed before it began.
        thread::sleep(Duration::from_millis(600));
        cluster.signal(leader, Signal::SIGCONT).unwrap();
    }
    load.wait_for_more(300);
    let sent = load.stop();
    wait_until_done(connection, sent.owed.len());
    assert_each_once(connection, &sent.owed);
    // Catches a lease that runs out too early, and a leader that takes its own pause for somebody else's failure.
    assert_eq!(cluster.wait_for_leader(DEADLINE).unwrap().1, lease, "the same dispatcher leads in the same epoch");
    assert_eq!(epoch(connection), lease.epoch);
}

#[test]
fn a_paused_standby_disturbs_nobody_and_keeps_up() {
    let mut cluster = cluster_of(options(2, 3, "--lease-ttl-ms 500", ""));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let (leader, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    let standby = if leader == Member::Dispatcher(0) { Member::Dispatcher(1) } else { Member::Dispatcher(0) };
    let load = Load::start(&cluster.redis().url(), "m", 1_500);
    cluster.signal(standby, Signal::SIGSTOP).unwrap();
    load.wait_for_more(3_000);
    cluster.signal(standby, Signal::SIGCONT).unwrap();
    wait_until_in_sync(connection, 2);
    assert_eq!(cluster.wait_for_leader(DEADLINE).unwrap().1, lease);
    cluster.kill_member(leader).unwrap();
    wait_for_another_leader(&mut cluster, &lease);
    load.wait_for_more(500);
    let sent = load.stop();
    wait_until_done(connection, sent.owed.len());
    // Catches a listener that gives up what it had, or takes its own silence for the connection's, after a pause.
    assert_each_once(connection, &sent.owed);
    assert_eq!(stream(connection, "messages:gaps"), []);
}

#[test]
fn consumers_of_a_running_group_refuse_a_lower_epoch_and_work_on() {
    let mut cluster = cluster_of(options(2, 2, "", ""));
    let connection = &mut client_of(&mut cluster);
    let (_, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    for consumer in 0..2 {
        let mut stale = Line::lead(&cluster.address(consumer).to_string(), Epoch(lease.epoch.0 - 1));
        match stale.next() {
            Heard::Error(ErrorCode::Stale, text) => assert!(text.contains(&lease.epoch.to_string()), "{text}"),
            other => panic!("a stale LEAD was answered with {other:?}"),
        }
        assert_eq!(stale.rest(), [], "the connection is closed");
    }
    assert_eq!(support::publish(connection, "m", 0..100), 2);
    wait_until_done(connection, 100);
    // Catches a consumer that lets go of its leader for a stranger.
    assert_eq!(cluster.wait_for_leader(DEADLINE).unwrap().1, lease);
}

#[test]
fn work_from_a_leader_that_was_replaced_is_not_begun() {
    let server = redis_server();
    let handler = |_: &Delivery<'_>| Ok(Outcome::new().field("message_id", "ran"));
    let builder = Consumer::builder().redis_url(server.url()).listen("127.0.0.1:0").consumer_id("c");
    let consumer = OwnConsumer::start(builder.handler(handler));
    let mut old = Line::lead(&consumer.address, Epoch(5));
    assert!(matches!(old.next(), Heard::Ready { .. }) && matches!(old.next(), Heard::Ids("HELD", _)));
    let mut new = Line::lead(&consumer.address, Epoch(6));
    assert!(matches!(new.next(), Heard::Ready { .. }) && matches!(new.next(), Heard::Ids("HELD", _)));
    old.send(&[Frame::Process { id: MessageId(1), delivery: 1, body: b"late" }]);
    assert!(matches!(old.next(), Heard::Error(ErrorCode::Stale, _)), "work from the past is refused");
    assert_eq!(old.rest(), []);
    new.send(&[Frame::Process { id: MessageId(2), delivery: 1, body: b"now" }]);
    assert_eq!(new.next(), Heard::Ids("ACK", vec![MessageId(2)]));
    // Both were sent, one was begun.
    assert_eq!(consumer.stats.received.get(), 1);
}
