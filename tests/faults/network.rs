//! Rows about the network: links that lose packets, one way or both, one flow or all, and consumers behind bad ones.
//!
//! They need root and Linux's network namespaces. Where those are not allowed each says so and passes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use oncecast::lab::{ChildProcess, GroupView, Lease, RedisOptions, RedisServer, ports};
use oncecast::ledger::Keys;
use oncecast::{Consumer, Delivery, Outcome};

use crate::dispatchers::Watched;
use crate::mode::{Mode, in_both_modes, in_tls_mode};
use crate::namespaces::{HUB, Host, Network};
use crate::run::{Run, assert_l0};
use crate::support::load::{Load, Sent, number};
use crate::support::peer::Peer;
use crate::support::{
    DEADLINE, RunningConsumer, bare_cluster, client, client_of, most_resident_bytes, occurrences, programs,
    publish_payloads, recorded_ids, run, state, stream, wait_for_intake, wait_until,
};
use crate::watch::Watch;

/// How long the group may take to recover.
const CONVERGENCE_LIMIT: Duration = Duration::from_secs(30);

/// Redis and consumers, if the mode has any, in the middle, and each dispatcher behind a link of its own.
struct Site {
    // In the order in which they are dropped.
    dispatchers: Vec<Watched>,
    consumers: Vec<ChildProcess>,
    redis: RedisServer,
    network: Network,
}

impl Site {
    /// `None`, with the reason on the terminal, where there can be no such network.
    fn start(mode: Mode, dispatchers: usize, args: &str) -> Option<Site> {
        let network = Network::enter(dispatchers)?;
        let bind = ("bind".to_owned(), format!("127.0.0.1 {HUB}"));
        let config = vec![bind, ("protected-mode".to_owned(), "no".to_owned())];
        let redis = RedisServer::start(RedisOptions { config, ..mode.redis() }).expect("Redis starts");
        let mut site = Site { dispatchers: Vec::new(), consumers: Vec::new(), redis, network };
        let listen: Vec<String> = (0..mode.consumers(2)).map(|number| site.start_consumer(number)).collect();
        let to_redis: Vec<String> = site.redis.arguments().iter().map(|arg| arg.replace("127.0.0.1", HUB)).collect();
        for (number, host) in site.network.hosts().iter().enumerate() {
            let command = host.command("oncecast-dispatcher");
            let name = format!("d{number}");
            site.dispatchers.push(Watched::spawn_with(
                command,
                &name,
                &to_redis,
                &listen,
                &host.address(),
                &mode.args(args),
            ));
        }
        site.wait_until_converged();
        Some(site)
    }

    fn start_consumer(&mut self, number: usize) -> String {
        let listen = format!("{HUB}:{}", ports::free_port().expect("a free port"));
        let mut command = programs().command("oncecast-consumer").expect("the program is built");
        let name = format!("c{number}");
        command.args(self.redis.arguments()).args(["--listen", &listen, "--consumer-id", &name]);
        let consumer = ChildProcess::spawn(&name, command).expect("the consumer starts");
        consumer.wait_for_line("event=listening", DEADLINE).expect("it listens");
        self.consumers.push(consumer);
        listen
    }

    fn view(&self) -> GroupView {
        GroupView::new(self.redis.connection(), Keys::new("messages"))
    }

    fn witness(&self) -> Watch {
        Watch::start(&format!("127.0.0.1:{}", self.redis.port()))
    }

    /// The current lease, and the number of the dispatcher that holds it.
    fn leader(&self) -> (Lease, usize) {
        self.leader_after(None)
    }

    fn leader_after(&self, before: Option<&Lease>) -> (Lease, usize) {
        let mut view = self.view();
        wait_until("a lease of a later epoch", || {
            let lease = view.snapshot().ok()?.lease?;
            let holder = self.dispatchers.iter().position(|dispatcher| dispatcher.name() == lease.name())?;
            before.is_none_or(|before| lease.epoch > before.epoch).then_some((lease, holder))
        })
    }

    fn host(&self, dispatcher: usize) -> &Host {
        &self.network.hosts()[dispatcher]
    }

    /// Sets the firewall rules between a dispatcher and Redis.
    fn redis_flow(&self, direction: &str) -> String {
        let port = self.redis.port();
        if direction == "INPUT" {
            format!("INPUT -p tcp --sport {port}")
        } else {
            format!("OUTPUT -p tcp --dport {port}")
        }
    }

    /// Waits until one leads and the others are ready.
    fn wait_until_converged(&self) {
        let limit = CONVERGENCE_LIMIT + DEADLINE;
        let converged = oncecast::lab::wait_until(limit, "one to lead and the others to be ready", || {
            let leaders = self.dispatchers.iter().filter(|one| one.figure("oncecast_leader") == Some(1)).count();
            Ok((leaders == 1 && self.dispatchers.iter().all(|one| one.ready().is_ok())).then_some(()))
        });
        if let Err(error) = converged {
            let state = |one: &Watched| format!("{}: {:?}{}", one.name(), one.ready(), one.process.stderr().tail(8));
            panic!("{error}\n{}", self.dispatchers.iter().map(state).collect::<Vec<_>>().join("\n"));
        }
    }
}

/// Row 6: a leader that is cut off from Redis can't learn that its lease is over. Its own clock must tell it.
fn row_06_leader_cut_off_from_redis(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_06");
    let Some(site) = Site::start(mode, 2, "--lease-ttl-ms 1000") else { return };
    let connection = &mut client(&site.redis.url());
    let witness = site.witness();
    let load = Load::start(&site.redis.url(), "m", 1_500);
    let rounds = this.scale(2, 10);
    for _ in 0..rounds {
        wait_for_intake(connection);
        load.wait_for_more(this.random.u64(50..1_000));
        let (lease, leader) = site.leader();
        let log = site.dispatchers[leader].process.stderr();
        let seen = log.count();
        let cut = Instant::now();
        site.host(leader).drop_packets(&[site.redis_flow("INPUT"), site.redis_flow("OUTPUT")]);
        let ended = log.wait_for_after(seen, "event=term-ended", DEADLINE).expect("it steps down");
        let ended_ms = cut.elapsed().as_millis();
        // It can't have learned it from Redis.
        assert!(ended.contains("reason=lease-expired"), "{ended}");
        // Without Redis it can't know that it is in sync.
        assert!(site.dispatchers[leader].ready().is_err(), "it says that it could take over");
        let (_, other) = site.leader_after(Some(&lease));
        println!("row 6: stepped down after {ended_ms} ms, replaced after {} ms", cut.elapsed().as_millis());
        assert_ne!(other, leader);
        // Sometimes long enough for its subscription to be closed, sometimes not.
        load.wait_for_more(this.random.u64(100..8_000));
        site.host(leader).heal();
        site.wait_until_converged();
    }
    let sent = load.stop();
    assert!(sent.unheard.is_empty() && sent.uncertain.is_empty());
    assert_l0(connection, &sent);
    let epochs = witness.finish(connection).epochs;
    assert!(epochs.len() as u64 >= rounds, "{epochs:?}");
    assert_eq!(stream(connection, "messages:gaps"), [], "the other was in sync");
}

/// Row 7: a dispatcher receives nothing from Redis, while Redis receives what it sends. It may take the lease at most
/// once.
fn row_07_one_way_loss(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_07");
    let Some(site) = Site::start(mode, 3, "--lease-ttl-ms 1000") else { return };
    let connection = &mut client(&site.redis.url());
    let witness = site.witness();
    let load = Load::start(&site.redis.url(), "m", 1_000);
    let rounds = this.scale(1, 5);
    // A standby's part has nothing to do with what the leader delivers to.
    let victims = if mode == Mode::Stream { &[true][..] } else { &[false, true] };
    for _ in 0..rounds {
        for cut_off_leader in victims {
            wait_for_intake(connection);
            let (lease, leader) = site.leader();
            let cut_off = if *cut_off_leader { leader } else { (leader + this.random.usize(1..3)) % 3 };
            site.host(cut_off).drop_packets(&[site.redis_flow("INPUT")]);
            if *cut_off_leader {
                let (_, next) = site.leader_after(Some(&lease));
                assert_ne!(next, cut_off);
            }
            // The fault lasts for several leases.
            load.wait_for_more(this.random.u64(4_000..6_000));
            site.host(cut_off).heal();
            site.wait_until_converged();
        }
    }
    let sent = load.stop();
    assert!(sent.unheard.is_empty() && sent.uncertain.is_empty());
    assert_l0(connection, &sent);
    let epochs = witness.finish(connection).epochs.len() as u64;
    println!("row 7: {epochs} elections in {rounds} rounds of one-way loss");
    // One for each leader that was cut off; a crowded machine may add some.
    assert!((rounds..=4 * rounds).contains(&epochs), "{epochs} elections");
}

/// Row 8: only the leader's subscription is dead, without any packet that shows it. It notices the silence and resigns.
fn row_08_half_open_subscription(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_08");
    // The lease lasts long, so the other leads because of the resignation.
    let Some(site) = Site::start(mode, 2, "--lease-ttl-ms 60000") else { return };
    let connection = &mut client(&site.redis.url());
    let load = Load::start(&site.redis.url(), "m", 1_000);
    for _ in 0..this.scale(2, 10) {
        wait_for_intake(connection);
        load.wait_for_more(this.random.u64(50..500));
        let (lease, leader) = site.leader();
        let host = site.host(leader);
        let ports = wait_until("it to have one subscription", || {
            let list: String = run(connection, &["CLIENT", "LIST", "TYPE", "PUBSUB"]);
            let from = format!("addr={}:", host.address());
            let ports = list.lines().filter_map(|line| line.split(' ').find_map(|word| word.strip_prefix(&from)));
            let ports: Vec<String> = ports.map(str::to_owned).collect();
            (ports.len() == 1).then_some(ports)
        });
        let log = site.dispatchers[leader].process.stderr();
        let seen = log.count();
        let cut = Instant::now();
        let port = &ports[0];
        host.drop_packets(&[format!("INPUT -p tcp --dport {port}"), format!("OUTPUT -p tcp --sport {port}")]);
        let ended = log.wait_for_after(seen, "event=term-ended", DEADLINE).expect("it resigns");
        println!("row 8: seen after {} ms; the bound is 3 s", cut.elapsed().as_millis());
        assert!(ended.contains("reason=subscription-lost"), "{ended}");
        log.wait_for_after(seen, "nothing arrived for", DEADLINE).expect("it says why");
        let (_, other) = site.leader_after(Some(&lease));
        assert_ne!(other, leader, "the one in sync leads");
        load.wait_for_more(this.random.u64(50..500));
        host.heal();
        site.wait_until_converged();
    }
    let sent = load.stop();
    assert!(sent.unheard.is_empty() && sent.uncertain.is_empty());
    assert_l0(connection, &sent);
    assert_eq!(stream(connection, "messages:gaps"), [], "the other was in sync");
}

/// Row 24: links go down and up again, one at a time and then all of them.
fn row_24_links_stopped_and_healed_one_by_one(mode: Mode) {
    const DISPATCHERS: usize = 3;
    let mut this = Run::in_mode(mode, "row_24");
    if mode == Mode::Stream && this.scale(0, 1) == 0 {
        this.say("SKIPPED: only in a long run, ONCECAST_LONG=1");
        return;
    }
    let Some(site) = Site::start(mode, DISPATCHERS, "--lease-ttl-ms 1000") else { return };
    let connection = &mut client(&site.redis.url());
    let load = Load::start(&site.redis.url(), "m", 1_000);
    let mut order: Vec<usize> = (0..DISPATCHERS).collect();
    let mut forgiven = Vec::new();
    let somebody_else_leads = |stopped: &[usize]| {
        wait_until(format!("another than {stopped:?} to lead"), || {
            let leads = |one: &usize| site.dispatchers[*one].figure("oncecast_leader") == Some(1);
            (0..DISPATCHERS).filter(|one| !stopped.contains(one)).any(|one| leads(&one)).then_some(())
        });
    };
    for _ in 0..this.scale(1, 6) {
        this.random.shuffle(&mut order);
        for one in &order {
            load.wait_for_more(this.random.u64(1..300));
            site.host(*one).pull_the_plug();
            somebody_else_leads(&[*one]);
            load.wait_for_more(this.random.u64(1..5_000));
            site.host(*one).plug_in();
            site.wait_until_converged();
        }

        this.random.shuffle(&mut order);
        let (last, first) = order.split_last().expect("three");
        for (number, one) in first.iter().enumerate() {
            load.wait_for_more(this.random.u64(1..300));
            site.host(*one).pull_the_plug();
            somebody_else_leads(&first[..=number]);
        }
        // The last dispatcher stores what it has received. Messages published from now on reach no dispatcher, though
        // Redis still counts them as subscribed.
        let held = load.hold();
        wait_for_intake(connection);
        let gaps = stream(connection, "messages:gaps").len();
        site.host(*last).pull_the_plug();
        let begin = *held;
        drop(held);
        load.wait_for_more(this.random.u64(1..5_000));
        this.random.shuffle(&mut order);
        for one in &order {
            load.wait_for_more(this.random.u64(1..1_000));
            site.host(*one).plug_in();
        }
        let healed = Instant::now();
        site.wait_until_converged();
        let took = healed.elapsed();
        println!("row 24: converged {} ms after the last link was back; the bound is 30 s", took.as_millis());
        assert!(took <= CONVERGENCE_LIMIT, "{took:?}");
        wait_for_intake(connection);
        forgiven.push((begin..*load.hold(), stream(connection, "messages:gaps").len() - gaps));
    }
    load.wait_for_more(200);
    let mut sent = load.stop();
    assert!(sent.uncertain.is_empty());
    // When all links come back at about the same time, Redis may have closed the dead subscriptions before a dispatcher
    // has subscribed again.
    let may_be_unheard = |id: &String| forgiven.iter().any(|(numbers, _)| numbers.contains(&number(id)));
    assert!(sent.unheard.iter().all(may_be_unheard), "{:?}", sent.unheard);
    forgiven.iter().for_each(|(numbers, _)| sent.forgive(numbers));
    assert_l0(connection, &sent);
    let recorded: BTreeSet<u64> = recorded_ids(connection).iter().map(|id| number(id)).collect();
    for (numbers, gaps) in forgiven {
        let of = numbers.end - numbers.start;
        let missing = numbers.filter(|number| !recorded.contains(number)).count();
        println!("row 24: {missing} of {of} missing that were published without links, and {gaps} gaps recorded");
        assert!(missing == 0 || gaps > 0, "{missing} messages were missed in silence");
    }
}

/// A consumer that keeps only the id of what it processes, so that results do not fill Redis.
fn quick_consumer(url: &str, name: &str) -> RunningConsumer {
    let handler = |delivery: &Delivery<'_>| {
        let text = String::from_utf8_lossy(delivery.payload()).into_owned();
        let id = text.split('"').nth(3).unwrap_or_default().to_owned();
        Ok(Outcome::new().field("message_id", id))
    };
    RunningConsumer::start(Consumer::builder().redis_url(url).listen("127.0.0.1:0").consumer_id(name).handler(handler))
}

/// Publishes large messages no faster than they are stored, so that no ring overruns.
fn publish_large(connection: &mut redis::Connection, dispatcher: &Watched, numbers: std::ops::Range<u64>) {
    const BYTES: usize = 8 << 10;
    const CHUNK: u64 = 100;
    let before = dispatcher.figure("oncecast_messages_taken_in_total").expect("it answers");
    for begin in numbers.clone().step_by(CHUNK as usize) {
        let end = numbers.end.min(begin + CHUNK);
        let pad = "x".repeat(BYTES);
        publish_payloads(connection, (begin..end).map(|n| format!("{{\"message_id\":\"m{n}\",\"pad\":\"{pad}\"}}")));
        wait_until("the intake to follow", || {
            let taken_in = dispatcher.figure("oncecast_messages_taken_in_total")? - before;
            (taken_in + 5 * CHUNK >= end - numbers.start).then_some(())
        });
    }
}

/// Row 20: a consumer that stops reading. It fills its own share of memory and no other.
#[test]
fn row_20_slow_consumer_that_never_reads() {
    // At most 16 MiB at one consumer.
    const ITS_SHARE: usize = (16 << 20) / (8 << 10);
    // Ring 32, waiting 16, 16 at each of three consumers, 8 between ingest and courier, as much again for copies.
    const LIMIT_MIB: u64 = 208;
    const ARGS: &str = "--ring-bytes 33554432 --ready-bytes 16777216 --link-timeout-ms 60000";
    let mut this = Run::of("row_20_slow_consumer_that_never_reads");
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let url = cluster.redis().url();
    let quick = ["c0", "c1"].map(|name| quick_consumer(&url, name));
    let slow = Peer::bind("slow");
    let mut addresses: Vec<String> = quick.iter().map(|consumer| consumer.address.to_string()).collect();
    let dispatcher = |name: &str, addresses: &[String]| {
        let command = programs().command("oncecast-dispatcher").expect("the program is built");
        Watched::spawn(command, name, &url, addresses, "127.0.0.1", ARGS)
    };
    let rate = |count: u64, since: Instant| (count as f64 / since.elapsed().as_secs_f64()) as u64;

    let few = 5_000;
    let mut alone = dispatcher("alone", &addresses);
    wait_until("it to lead", || (alone.figure("oncecast_consumers")? == 2).then_some(()));
    let began = Instant::now();
    publish_large(connection, &alone, 0..few);
    wait_until("all to be done", || (state(connection) == (0, few as usize, 0)).then_some(()));
    let without = rate(few, began);
    assert!(alone.process.stop(DEADLINE).expect("it ends").success());

    addresses.insert(this.random.usize(..=2), slow.address());
    let with = dispatcher("with", &addresses);
    let line = slow.accept(60_000);
    wait_until("it to lead", || (with.figure("oncecast_consumers")? == 3).then_some(()));
    // More than a dispatcher may keep in memory.
    let end = few + this.scale(32_000, 200_000);
    let began = Instant::now();
    publish_large(connection, &with, few..end);
    let left = wait_until("all but the slow one's share to be done", || {
        let (pending, processed, dead) = state(connection);
        let at_rest = with.in_flight()? == pending as u64 && with.figure("oncecast_ready")? == 0;
        (pending <= ITS_SHARE && processed + pending + dead == end as usize && at_rest).then_some(pending)
    });
    let peak = most_resident_bytes(with.process.pid()) >> 20;
    println!(
        "row 20: {without} messages/s without and {} with it; it holds {left}; the dispatcher had at most {peak} MiB",
        rate(end - few - left as u64, began),
    );
    assert!(left > 0, "the slow one holds nothing, so this showed nothing");
    assert!(peak <= LIMIT_MIB, "{peak} MiB");
    drop(line);
    let sent = Sent { owed: (0..end).map(|n| format!("m{n}")).collect(), ..Sent::default() };
    assert_l0(connection, &sent);
}

/// Row 20: a consumer behind a slow link that loses packets does what it can, and the others do the rest.
#[test]
fn row_20_slow_consumer_over_a_lossy_link() {
    let this = Run::of("row_20_slow_consumer_over_a_lossy_link");
    let Some(network) = Network::enter(1) else { return };
    let bind = ("bind".to_owned(), format!("127.0.0.1 {HUB}"));
    let config = vec![bind, ("protected-mode".to_owned(), "no".to_owned())];
    let redis = RedisServer::start(RedisOptions { config, ..RedisOptions::default() }).expect("Redis starts");
    let connection = &mut client(&redis.url());
    let quick = ["c0", "c1"].map(|name| quick_consumer(&redis.url(), name));
    let host = &network.hosts()[0];
    let address = format!("{}:{}", host.address(), ports::free_port().expect("a free port"));
    let mut command = host.command("oncecast-consumer");
    let url = format!("redis://{HUB}:{}", redis.port());
    command.args(["--redis-url", &url, "--listen", &address, "--consumer-id", "slow", "--prefetch", "64"]);
    let slow = ChildProcess::spawn("slow", command).expect("the consumer starts");
    slow.wait_for_line("event=listening", DEADLINE).expect("it listens");
    let mut addresses: Vec<String> = quick.iter().map(|consumer| consumer.address.to_string()).collect();
    addresses.push(address);
    let command = programs().command("oncecast-dispatcher").expect("the program is built");
    let args = "--ring-bytes 33554432 --ready-bytes 16777216";
    let dispatcher = Watched::spawn(command, "d0", &redis.url(), &addresses, "127.0.0.1", args);
    wait_until("it to lead", || (dispatcher.figure("oncecast_consumers")? == 3).then_some(()));
    let means = host.worsen();
    let end = this.scale(20_000, 200_000);
    let began = Instant::now();
    publish_large(connection, &dispatcher, 0..end);
    wait_for_intake(connection);
    let published = began.elapsed();
    let sent = Sent { owed: (0..end).map(|n| format!("m{n}")).collect(), ..Sent::default() };
    assert_l0(connection, &sent);
    let done = began.elapsed();
    let by = occurrences(&stream(connection, "messages:processed"), "consumer_id");
    println!(
        "row 20: over {means}: {end} stored after {} ms and done after {} ms; {} of them by the slow one; \
         at most {} MiB",
        published.as_millis(),
        done.as_millis(),
        by.get("slow").unwrap_or(&0),
        most_resident_bytes(dispatcher.process.pid()) >> 20,
    );
    assert!(by.get("slow").is_none_or(|count| *count < end as usize / 3), "{by:?}");
}

in_both_modes! {
    row_06_leader_cut_off_from_redis,
    row_07_one_way_loss,
    row_08_half_open_subscription,
    row_24_links_stopped_and_healed_one_by_one,
}

in_tls_mode! {
    row_08_half_open_subscription,
}
