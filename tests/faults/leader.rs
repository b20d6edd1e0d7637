//! Rows about the leader: it dies, hangs, stops, or its clock is wrong.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use oncecast::base::id::wall_clock_us;
use oncecast::lab::{ChildProcess, Cluster, Lease, Node, Signal};
use oncecast::wire::ErrorCode;

use crate::dispatchers::Watched;
use crate::mode::{Mode, in_both_modes, in_mixed_mode, in_tls_mode};
use crate::run::{Run, assert_l0};
use crate::stream_workers::StreamWorkers;
use crate::support::load::{Load, Sent, number};
use crate::support::peer::{Heard, Line};
use crate::support::{
    DEADLINE, bare_cluster, client_of, cluster_of, dispatcher, id_in_payload, newest_ids, publish, publish_payloads,
    run as run_command, state, stream, threads, wait_for_another_leader, wait_for_intake, wait_until,
    wait_until_in_sync,
};
use crate::workers::Workers;

/// A lease that outlasts every test, so that only the end of its connection shows that a leader is gone.
const LONG_LEASE: &str = "--lease-ttl-ms 600000";
/// The pause between two polls where the time is measured.
const CLOSE_LOOK: Duration = Duration::from_millis(1);
/// The threads that only a leader has.
const WORKERS: [&str; 3] = ["ingest", "courier", "redistributor"];

fn leader(cluster: &mut Cluster) -> (Node, Lease) {
    cluster.wait_for_leader(DEADLINE).expect("a dispatcher leads")
}

fn load(cluster: &mut Cluster, per_second: u64) -> Load {
    Load::start(&cluster.redis().url(), "m", per_second)
}

/// Fails if a gap was recorded: a dispatcher in sync was subscribed all the time.
fn assert_no_gap(connection: &mut redis::Connection) {
    assert_eq!(stream(connection, "messages:gaps"), [], "a dispatcher in sync lived all the time");
}

/// Waits for the result of a message that was published after this call, whichever dispatcher leads. Returns the time
/// since `since`.
fn time_to_new_work(connection: &mut redis::Connection, load: &Load, since: Instant) -> Duration {
    let first = load.first_unpublished();
    look_closely("the result of a new message", || newest_ids(connection, 20).iter().any(|id| number(id) >= first));
    since.elapsed()
}

fn look_closely(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} for {what}");
        thread::sleep(CLOSE_LOOK);
    }
}

/// Times to show: sorted, with their median.
fn shown(mut times: Vec<Duration>) -> String {
    times.sort();
    let ms: Vec<String> = times.iter().map(|time| time.as_millis().to_string()).collect();
    format!("median {} ms of {}", ms[ms.len() / 2], ms.join(", "))
}

fn row_01_leader_killed_under_load(mode: Mode) {
    let mut run = Run::in_mode(mode, "row_01");
    // Another can take over only because Redis saw the connection close. No timeout is involved.
    let mut cluster = cluster_of(mode.options(2, 3, LONG_LEASE));
    let connection = &mut client_of(&mut cluster);
    let workers = StreamWorkers::start(mode, &cluster.redis_url());
    let load = load(&mut cluster, run.scale(2_000, 5_000));
    let mut times = Vec::new();
    for _ in 0..run.scale(10, 50) {
        wait_until_in_sync(connection, 2);
        load.wait_for_more(run.random.u64(50..500));
        let (first, lease) = leader(&mut cluster);
        let killed = Instant::now();
        cluster.kill_node(first).unwrap();
        times.push(time_to_new_work(connection, &load, killed));
        // Fails if the epoch does not rise.
        let (second, _) = wait_for_another_leader(&mut cluster, &lease);
        assert_ne!(second, first);
        cluster.start_node(first).unwrap();
    }
    let sent = load.stop();
    assert!(sent.uncertain.is_empty() && sent.unheard.is_empty(), "Redis and one dispatcher were there all the time");
    workers.finish(connection);
    // Catches a new leader that begins at the wrong position, and a restarted one that does not know the position of
    // the others.
    assert_l0(connection, &sent);
    assert_no_gap(connection);
    run.say(format_args!("from the kill to the first result of a message published after it: {}", shown(times)));
}

fn row_02_leader_paused_longer_than_its_lease(mode: Mode) {
    let mut run = Run::in_mode(mode, "row_02");
    let mut cluster = cluster_of(mode.options(2, 3, "--lease-ttl-ms 2500"));
    let connection = &mut client_of(&mut cluster);
    let workers = StreamWorkers::start(mode, &cluster.redis_url());
    let load = load(&mut cluster, 1_500);
    for _ in 0..run.scale(3, 20) {
        wait_until_in_sync(connection, 2);
        let (old, lease) = leader(&mut cluster);
        load.wait_for_more(run.random.u64(100..1_000));
        cluster.signal(old, Signal::SIGSTOP).unwrap();
        // Its connections stay open, so it counts as alive: only the end of the lease lets the other lead.
        let (new, new_lease) = wait_for_another_leader(&mut cluster, &lease);
        load.wait_for_more(run.random.u64(100..1_500));
        assert_stale_everywhere(&mut cluster, &lease);
        let (log, pid) = (cluster.process(old).unwrap().stderr().clone(), cluster.process(old).unwrap().pid());
        let seen = log.count();
        cluster.signal(old, Signal::SIGCONT).unwrap();
        // When it continues, its workers find the messages of the whole pause in the ring, and links with free places.
        let line = log.wait_for_after(seen, "event=term-ended", DEADLINE).expect("it steps down by itself");
        let reasons = ["lease-lost", "lease-expired", "fenced"];
        assert!(reasons.iter().any(|reason| line.contains(&format!("reason={reason}"))), "{line}");
        wait_until("its workers to be gone", || {
            let threads = threads(pid);
            let standby = threads.contains_key("listener") && threads.contains_key("election");
            (standby && WORKERS.iter().all(|worker| !threads.contains_key(*worker))).then_some(())
        });
        load.wait_for_more(300);
        assert_eq!(leader(&mut cluster), (new, new_lease), "the one that came back disturbed the leader");
    }
    let sent = load.stop();
    workers.finish(connection);
    // Catches one that stores what the new leader has stored: each would be two messages with two results.
    assert_l0(connection, &sent);
    assert_no_gap(connection);
    // Catches a thread of the lost term that hangs.
    cluster.stop(DEADLINE).expect("all end on SIGTERM");
}

/// Fails unless every consumer refuses the holder of this lease, which is over.
fn assert_stale_everywhere(cluster: &mut Cluster, lease: &Lease) {
    cluster.wait_for_consumers(DEADLINE).expect("the new leader finds the consumers");
    for consumer in 0..cluster.consumers() {
        let mut line = Line::lead(&cluster.address(consumer).to_string(), lease.epoch);
        let answer = line.next();
        assert!(matches!(answer, Heard::Error(ErrorCode::Stale, _)), "a stale LEAD was answered with {answer:?}");
        assert_eq!(line.rest(), [], "the connection is closed");
    }
}

fn row_02_lone_leader_paused_longer_than_its_lease(mode: Mode) {
    let mut run = Run::in_mode(mode, "row_02_lone");
    let mut cluster = cluster_of(mode.options(1, 3, "--lease-ttl-ms 500"));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 1);
    let load = load(&mut cluster, 1_500);
    for _ in 0..run.scale(2, 20) {
        let (member, lease) = leader(&mut cluster);
        load.wait_for_more(run.random.u64(100..500));
        cluster.signal(member, Signal::SIGSTOP).unwrap();
        wait_until("the lease to expire", || {
            (run_command::<usize>(connection, &["EXISTS", "messages:leader"]) == 0).then_some(())
        });
        load.wait_for_more(run.random.u64(100..500));
        cluster.signal(member, Signal::SIGCONT).unwrap();
        let next = cluster.wait_for(DEADLINE, "a new term", |_, snapshot| {
            snapshot.lease.clone().filter(|next| next.epoch > lease.epoch)
        });
        assert_eq!(next.unwrap().holder, lease.holder);
    }
    load.wait_for_more(500);
    // Catches a new term that does not begin where the old one stopped.
    assert_l0(connection, &load.stop());
    assert_no_gap(connection);
}

fn row_03_leader_paused_shorter_than_its_lease(mode: Mode) {
    let mut run = Run::in_mode(mode, "row_03");
    // It is renewed every 20 s, so most of the lease is left when a pause begins.
    let mut cluster = cluster_of(mode.options(2, 3, "--lease-ttl-ms 60000"));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let (member, lease) = leader(&mut cluster);
    let load = load(&mut cluster, 1_500);
    // Before consumers, one is longer than the link timeout and the limits on silence: a leader must not mistake its
    // own pause for theirs.
    let short = (0..run.scale(3, 30)).map(|_| Duration::from_millis(run.random.u64(20..1_200))).collect::<Vec<_>>();
    let long = (mode != Mode::Stream).then_some(Duration::from_millis(4_500));
    for pause in short.into_iter().chain(long) {
        load.wait_for_more(run.random.u64(50..500));
        cluster.signal(member, Signal::SIGSTOP).unwrap();
        // The length of the pause is the fault.
        thread::sleep(pause);
        cluster.signal(member, Signal::SIGCONT).unwrap();
    }
    load.wait_for_more(300);
    assert_l0(connection, &load.stop());
    assert_no_gap(connection);
    assert_eq!(leader(&mut cluster), (member, lease.clone()), "the same dispatcher leads in the same epoch");
    let epoch: u64 = run_command(connection, &["GET", "messages:epoch"]);
    assert_eq!(epoch, lease.epoch.0, "no other led in between");
}

fn row_04_leader_killed_during_replay(mode: Mode) {
    let mut run = Run::in_mode(mode, "row_04");
    let mut cluster = cluster_of(mode.options(3, 3, LONG_LEASE));
    let connection = &mut client_of(&mut cluster);
    let load = load(&mut cluster, run.scale(5_000, 10_000));
    let mut left = Vec::new();
    for _ in 0..run.scale(4, 30) {
        wait_until_in_sync(connection, 3);
        let (first, lease) = leader(&mut cluster);
        // Messages published while the leader is paused are only in the rings of the others.
        cluster.signal(first, Signal::SIGSTOP).unwrap();
        load.wait_for_more(run.random.u64(8_000..12_000));
        cluster.kill_node(first).unwrap();
        let mut newer = lease.epoch.0;
        look_closely("a new epoch", || {
            newer = run_command(connection, &["GET", "messages:epoch"]);
            newer > lease.epoch.0
        });
        // The time of the second kill within the replay is part of the fault.
        thread::sleep(Duration::from_millis(run.random.u64(0..30)));
        let (second, second_lease) = leader(&mut cluster);
        cluster.kill_node(second).unwrap();
        let (pending, processed, dead) = state(connection);
        left.push(load.first_unpublished().saturating_sub((pending + processed + dead) as u64));
        let (third, _) = wait_for_another_leader(&mut cluster, &second_lease);
        assert!(third != first && third != second, "the one that lives takes over");
        load.wait_for_more(200);
        cluster.start_node(first).unwrap();
        cluster.start_node(second).unwrap();
    }
    let sent = load.stop();
    assert_l0(connection, &sent);
    assert_no_gap(connection);
    run.say(format_args!("messages published and not stored at the second kills: {left:?}"));
}

fn row_05_chain_of_kills(mode: Mode) {
    const DISPATCHERS: usize = 4;
    let mut run = Run::in_mode(mode, "row_05");
    let mut cluster = cluster_of(mode.options(DISPATCHERS, 3, LONG_LEASE));
    let connection = &mut client_of(&mut cluster);
    let load = load(&mut cluster, run.scale(1_500, 4_000));
    let mut kills = 0;
    for _ in 0..run.scale(3, 20) {
        wait_until_in_sync(connection, DISPATCHERS as u64);
        // All are in sync: as long as one of these lives nothing may be lost, whichever leads in between.
        let mut in_sync: Vec<Node> = (0..DISPATCHERS).map(Node::Dispatcher).collect();
        let mut dead: Vec<Node> = Vec::new();
        let (mut member, mut lease) = leader(&mut cluster);
        loop {
            in_sync.retain(|other| *other != member);
            if in_sync.is_empty() {
                break;
            }
            // Part of the fault: long enough to start leading, too short to settle.
            thread::sleep(Duration::from_millis(200));
            cluster.kill_node(member).unwrap();
            kills += 1;
            dead.push(member);
            (member, lease) = wait_for_another_leader(&mut cluster, &lease);
            // A restarted one may be the next to lead if it is in sync in time.
            if run.random.bool() {
                let back = dead.swap_remove(run.random.usize(..dead.len()));
                cluster.start_node(back).unwrap();
            }
        }
        for back in dead {
            cluster.start_node(back).unwrap();
        }
    }
    let sent = load.stop();
    assert!(sent.unheard.is_empty(), "one was there all the time");
    assert_l0(connection, &sent);
    assert_no_gap(connection);
    run.say(format_args!("{kills} kills"));
}

/// The library that shifts a process's time of day, if it is installed.
fn clock_shifter() -> Option<PathBuf> {
    const NAME: &str = "faketime/libfaketimeMT.so.1";
    let folders = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from).into_iter();
    let by_platform = std::fs::read_dir("/usr/lib").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    folders.chain(by_platform).map(|folder| folder.join(NAME)).find(|file| file.is_file())
}

/// A dispatcher whose wall clock can be shifted.
struct Shifted {
    process: ChildProcess,
    offset: PathBuf,
}

impl Shifted {
    fn start(cluster: &mut Cluster, shifter: &Path, name: &str, args: &[String], hours: i64) -> Shifted {
        let offset = cluster.redis().folder().join(format!("{name}-offset"));
        std::fs::write(&offset, format!("{hours:+}h")).expect("the folder is ours");
        let mut command = cluster.command("oncecast-dispatcher").expect("the program is built");
        command.args(["--dispatcher-id", name]).args(LONG_LEASE.split(' ')).args(args);
        // The file is read at each use of the clock, so the clock can jump while the process runs.
        command.env("LD_PRELOAD", shifter).env("FAKETIME_TIMESTAMP_FILE", &offset).env("FAKETIME_NO_CACHE", "1");
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
        let process = ChildProcess::spawn(name, command).expect("the dispatcher starts");
        Shifted { process, offset }
    }

    /// Shifts its clock by so many hours from the right time.
    fn jump(&self, hours: i64) {
        // Replaced atomically, since the process may read it at any moment.
        let new = self.offset.with_extension("new");
        std::fs::write(&new, format!("{hours:+}h")).and_then(|()| std::fs::rename(&new, &self.offset)).expect("ours");
    }
}

impl Drop for Shifted {
    fn drop(&mut self) {
        let pid = self.process.pid();
        let _ = self.process.kill();
        // The library leaves these files behind.
        for file in ["faketime_shm_", "sem.faketime_sem_"] {
            let _ = std::fs::remove_file(format!("/dev/shm/{file}{pid}"));
        }
    }
}

/// The messages in the stream, each with its place there.
fn entries_in_order(connection: &mut redis::Connection) -> Vec<(u64, String)> {
    let range = redis::cmd("XRANGE").arg(Mode::Stream.records()).arg("-").arg("+").query(connection);
    let entries: Vec<(String, HashMap<String, String>)> = range.expect("the stream can be read");
    let name = |(_, fields): &(String, HashMap<String, String>)| id_in_payload(&fields["payload"]).expect("an id");
    (0..).zip(entries.iter().map(name)).collect()
}

/// The last id that was given out.
fn last_id(connection: &mut redis::Connection) -> u64 {
    let cursor: Option<String> = run_command(connection, &["GET", "messages:cursor"]);
    cursor.and_then(|cursor| cursor.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

fn row_23_clock_jumps(mode: Mode) {
    const HOUR_US: u64 = 3_600_000_000;
    let mut run = Run::in_mode(mode, "row_23");
    let Some(shifter) = clock_shifter() else {
        run.say("SKIPPED: it needs libfaketime, which is in the Debian package libfaketime");
        return;
    };
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let mut workers = Workers::new(&mut cluster, mode.consumers(2), 2);
    workers.start_all();
    let args = match mode {
        Mode::Consumers | Mode::Mixed | Mode::Tls => ["--consumers".to_owned(), workers.addresses.join(",")],
        Mode::Stream => ["--deliver", "stream"].map(str::to_owned),
    };
    let mut hours = [-1, 1, 0];
    run.random.shuffle(&mut hours);
    let mut first = Shifted::start(&mut cluster, &shifter, "d0", &args, hours[0]);
    wait_until_in_sync(connection, 1);
    let load = load(&mut cluster, 1_000);
    for turn in 1..=run.scale(4, 20) as usize {
        load.wait_for_more(run.random.u64(100..400));
        let next = Shifted::start(&mut cluster, &shifter, &format!("d{turn}"), &args, hours[turn % 3]);
        wait_until_in_sync(connection, 2);
        // The leader's clock jumps forward. Its ids must follow, which proves that the clock is shifted. Then it jumps
        // back.
        let ahead = 2 * turn as u64;
        first.jump(ahead as i64);
        let ahead_us = ahead * HOUR_US - HOUR_US / 2;
        wait_until("the ids to follow the clock", || (last_id(connection) > wall_clock_us() + ahead_us).then_some(()));
        first.jump(-1);
        load.wait_for_more(run.random.u64(100..400));
        drop(first);
        cluster
            .wait_for(DEADLINE, "the next to lead", |_, snapshot| {
                snapshot.lease.clone().filter(|lease| lease.name() == next.process.name())
            })
            .unwrap();
        first = next;
    }
    load.wait_for_more(300);
    let sent = load.stop();
    assert_l0(connection, &sent);
    assert_no_gap(connection);
    // Messages are stored in the order of publishing. Catches ids that go back with the clock, or are used twice.
    let noted = match mode {
        Mode::Consumers | Mode::Mixed | Mode::Tls => workers.noted(),
        Mode::Stream => entries_in_order(connection),
    };
    let ids: BTreeMap<u64, u64> = noted.into_iter().map(|(id, name)| (number(&name), id)).collect();
    assert_eq!(ids.len(), sent.owed.len(), "each was run, or is an entry");
    let falls = ids.values().zip(ids.values().skip(1)).filter(|(one, next)| one >= next).count();
    assert_eq!(falls, 0, "ids rise");
}

fn row_25_rolling_restart(mode: Mode) {
    let mut run = Run::in_mode(mode, "row_25");
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let mut workers = Workers::new(&mut cluster, mode.consumers(3), 2);
    workers.start_all();
    // With one delivery allowed, each message that counts as failed is a dead letter. No consumer is lost for being
    // slow.
    let args = mode.args(&format!("{LONG_LEASE} --link-timeout-ms 600000 --max-deliveries 1"));
    let addresses = workers.addresses.clone();
    let start = |cluster: &Cluster, name: &str| dispatcher(cluster, name, &addresses, &args);
    let mut dispatchers = ["d0", "d1", "d2"].map(|name| start(&cluster, name));
    wait_until_in_sync(connection, 3);
    let load = load(&mut cluster, run.scale(2_000, 5_000));
    let (mut times, mut reports) = (Vec::new(), Vec::new());
    for _ in 0..run.scale(2, 10) {
        for process in &mut dispatchers {
            wait_until_in_sync(connection, 3);
            load.wait_for_more(run.random.u64(100..500));
            let holder: String = run_command(connection, &["GET", "messages:leader"]);
            process.signal(Signal::SIGTERM).unwrap();
            if holder.starts_with(&format!("{}-", process.name())) {
                look_closely("the lease to be given back", || {
                    let now: Option<String> = run_command(connection, &["GET", "messages:leader"]);
                    now.as_ref() != Some(&holder)
                });
                times.push(time_to_new_work(connection, &load, Instant::now()));
            }
            assert!(process.wait(DEADLINE).expect("it ends on SIGTERM").success());
            // Once it has ended, its whole log has been read.
            reports.extend(process.stderr().all().into_iter().filter(|line| line.contains("event=consumers-reported")));
            *process = start(&cluster, process.name());
        }
        for number in 0..mode.consumers(3) {
            load.wait_for_more(run.random.u64(100..500));
            let line = workers.stop(number);
            assert!(line.contains("drained=true") && line.contains("held=0"), "{line}");
            load.wait_for_more(run.random.u64(100..500));
            workers.start(number);
            let name = format!("w{number}");
            let used = cluster.wait_for(DEADLINE, "it to be used again", |_, snapshot| {
                snapshot.consumers.contains(&name).then_some(())
            });
            used.unwrap();
        }
    }
    let sent = load.stop();
    assert!(sent.uncertain.is_empty() && sent.unheard.is_empty(), "Redis and two dispatchers were there all the time");
    assert_l0(connection, &sent);
    assert_no_gap(connection);
    assert_eq!(state(connection).2, 0, "returned messages do not count as failed");
    let twice: Vec<(String, usize)> = workers.runs().into_iter().filter(|(_, runs)| *runs > 1).collect();
    assert_eq!(twice, [], "no handler is run twice; reports: {reports:?}");
    run.say(format_args!("from the release to the first result of a message published after it: {}", shown(times)));
}

/// Row 36: Redis is full for so long that the leader's ring overruns. A standby with a larger ring holds what the
/// leader had to drop, so it must store it.
fn row_36_ring_of_the_leader_overruns_and_not_the_standbys(mode: Mode) {
    /// The smallest size of a ring.
    const SMALL_BYTES: u64 = 32 << 20;
    const PAYLOAD_BYTES: usize = 20_000;
    let mut run = Run::in_mode(mode, "row_36");
    let mut cluster = Cluster::start(mode.options(0, 2, "")).expect("Redis and the consumers start");
    let connection = &mut client_of(&mut cluster);
    let start = |cluster: &mut Cluster, name: &str, bytes: u64| {
        Watched::start(cluster, name, &mode.args(&format!("--lease-ttl-ms 1000 --ring-bytes {bytes}")))
    };
    let small = start(&mut cluster, "small", SMALL_BYTES);
    wait_until("it to lead", || (small.figure("oncecast_leader")? == 1).then_some(()));
    let large = start(&mut cluster, "large", 8 * SMALL_BYTES);
    wait_until_in_sync(connection, 2);
    let before = run.random.u64(1..300);
    publish(connection, "m", 0..before);
    wait_for_intake(connection);
    assert_eq!(small.figure("oncecast_leader"), Some(1), "the one with the small ring leads");

    let () = run_command(connection, &["CONFIG", "SET", "maxmemory", "1"]);
    let end = before + run.scale(SMALL_BYTES * 5 / 4, SMALL_BYTES * 3) / PAYLOAD_BYTES as u64;
    let pad = "x".repeat(PAYLOAD_BYTES);
    let mut next = before;
    while next < end {
        let burst = next..(next + 50).min(end);
        let payloads = burst.clone().map(|n| format!("{{\"message_id\":\"m{n}\",\"pad\":\"{pad}\"}}"));
        assert_eq!(publish_payloads(connection, payloads), 2);
        next = burst.end;
        // No subscriber is disconnected for being slow.
        wait_until("both to have received it", || {
            let heard =
                |one: &Watched| one.figure("oncecast_messages_published_total").map(|heard| heard >= next - before);
            (heard(&small)? && heard(&large)?).then_some(())
        });
    }
    let () = run_command(connection, &["CONFIG", "SET", "maxmemory", "0"]);
    let sent = Sent { owed: (0..end).map(|n| format!("m{n}")).collect(), ..Sent::default() };
    assert_l0(connection, &sent);
    assert_no_gap(connection);
    wait_until("the one with the large ring to have led", || {
        large.process.stderr().all().iter().any(|line| line.contains("event=elected")).then_some(())
    });
}

in_both_modes! {
    row_01_leader_killed_under_load,
    row_02_leader_paused_longer_than_its_lease,
    row_02_lone_leader_paused_longer_than_its_lease,
    row_03_leader_paused_shorter_than_its_lease,
    row_04_leader_killed_during_replay,
    row_05_chain_of_kills,
    row_23_clock_jumps,
    row_25_rolling_restart,
    row_36_ring_of_the_leader_overruns_and_not_the_standbys,
}

in_mixed_mode! {
    row_01_leader_killed_under_load,
    row_02_leader_paused_longer_than_its_lease,
}

in_tls_mode! {
    row_01_leader_killed_under_load,
}
