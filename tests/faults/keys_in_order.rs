//! Row 46 with a million keys, of one message or a few each.
//!
//! The consumers are in the test's process, so that runs can be noted in memory: no other note is fast enough.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use oncecast::{Consumer, HandlerError};

use crate::pair::Pair;
use crate::run::Run;
use crate::support::order::{RunsHere, assert_in_order_here, noting_here};
use crate::support::{
    RunningConsumer, bare_cluster, client_of, most_resident_bytes, publish_payloads, state, wait_until,
    wait_until_in_sync,
};

const THREADS: usize = 4;
const ARGS: &str = "--order-key prefix:: --retry none --lease-ttl-ms 600000 --ready-bytes 16777216";
/// Its ring, its bound for waiting messages, what it tracks, and the program.
const MOST_MEMORY: u64 = 160 << 20;
/// How many messages are published at once, and read at once.
const PAGE: usize = 10_000;
/// A leader is killed after each of so many parts.
const PARTS: usize = 4;
const KEYS: usize = 1_000_000;

/// A message or more for each key: a quarter has a second one right behind it, some others one much later.
fn messages(random: &mut fastrand::Rng) -> Vec<String> {
    let mut numbers = vec![0_u64; KEYS];
    let mut all = Vec::with_capacity(KEYS + KEYS / 2);
    let mut add = |key: usize| {
        numbers[key] += 1;
        all.push(format!("k{key}:{}", numbers[key]));
    };
    for key in 0..KEYS {
        add(key);
        match random.u8(0..8) {
            0 | 1 => add(key),
            2 => add(random.usize(0..=key)),
            _ => {}
        }
    }
    all
}

/// Opens the gate when the test ends. If it fails while the gate is shut, the consumers' threads would never end.
struct OpensGate(Arc<AtomicBool>);

impl Drop for OpensGate {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Its handlers wait while the gate is shut.
fn consumer(url: &str, name: &str, runs: &RunsHere, is_shut: &Arc<AtomicBool>) -> RunningConsumer {
    let is_shut = is_shut.clone();
    let judge = move |payload: &str, delivery| {
        while is_shut.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        let fails = delivery == 1 && payload.contains("77:");
        if fails { Err(HandlerError::retry_after(Duration::from_millis(2), "not yet")) } else { Ok(()) }
    };
    let builder = Consumer::builder().redis_url(url).listen("127.0.0.1:0").consumer_id(name).prefetch(1_000);
    RunningConsumer::start(noting_here(builder, runs, THREADS, judge))
}

/// Fails unless there is one result of each message, and no other.
fn assert_one_result_each(connection: &mut redis::Connection, all: &[String]) {
    let mut found: HashSet<String> = HashSet::with_capacity(all.len());
    let mut begin = "-".to_owned();
    loop {
        let range =
            redis::cmd("XRANGE").arg("messages:processed").arg(&begin).arg("+").arg("COUNT").arg(PAGE).to_owned();
        let page: Vec<(String, Vec<String>)> = range.query(connection).expect("the results can be read");
        let Some((last, _)) = page.last() else { break };
        begin = format!("({last}");
        for (entry, fields) in page {
            let id = fields.into_iter().skip_while(|field| field != "message_id").nth(1).expect("a handler's field");
            assert!(found.insert(id), "{entry} is the second result of its message");
        }
    }
    let lost = all.iter().find(|id| !found.contains(*id));
    assert_eq!((lost, found.len()), (None, all.len()));
}

#[test]
fn row_46_a_million_keys_are_in_order_while_leaders_are_killed() {
    let mut this = Run::of("row_46_million_keys");
    let mut cluster = bare_cluster();
    let url = cluster.redis().url();
    let connection = &mut client_of(&mut cluster);
    let (runs, is_shut) = (RunsHere::default(), Arc::new(AtomicBool::new(false)));
    let consumers = ["c0", "c1"].map(|name| consumer(&url, name, &runs, &is_shut));
    let _opens_gate = OpensGate(is_shut.clone());
    let addresses = consumers.each_ref().map(|consumer| consumer.address.to_string());
    let mut dispatchers = Pair::start(&cluster, &addresses, ARGS);
    wait_until_in_sync(connection, 2);
    let all = messages(&mut this.random);
    let (began, mut most_memory, mut most_pending) = (Instant::now(), 0, 0);
    // In every other part the handlers wait, so that most messages wait in Redis and their keys are cut.
    for (part, messages) in all.chunks(all.len().div_ceil(PARTS)).enumerate() {
        is_shut.store(part % 2 == 1, Ordering::Relaxed);
        messages.chunks(PAGE).for_each(|page| _ = publish_payloads(connection, page));
        most_pending = most_pending.max(state(connection).0);
        wait_until_in_sync(connection, 2);
        let leader = dispatchers.leader(connection);
        most_memory = most_memory.max(most_resident_bytes(dispatchers[leader].pid()));
        dispatchers.kill_leader(&cluster, connection);
    }
    is_shut.store(false, Ordering::Relaxed);
    let published = all.len();
    for goal in (0..=published).step_by(PAGE).chain([published]) {
        wait_until(format!("{goal} of {published} to be done"), || (state(connection).1 >= goal).then_some(()));
    }
    let seconds = began.elapsed().as_secs_f64();
    wait_until("none to be pending", || (state(connection) == (0, published, 0)).then_some(()));
    assert_one_result_each(connection, &all);
    let runs = assert_in_order_here(&runs);
    assert!(runs.again > 0, "{runs:?}");
    let most_memory = dispatchers.iter().map(|process| most_resident_bytes(process.pid())).fold(most_memory, u64::max);
    let megabytes = most_memory >> 20;
    assert!(most_memory < MOST_MEMORY, "a dispatcher took {megabytes} MiB");
    this.say(format_args!(
        "{published} messages, {most_pending} at once, {runs:?} in {seconds:.1} s, a dispatcher {megabytes} MiB"
    ));
}
