//! Row 46: order by key under load, while dispatchers and consumers are killed.
//!
//! A consumer is this test program once more, as a process of its own, so that its handlers die with it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use oncecast::lab::ports;
use oncecast::{Consumer, HandlerError};

use crate::pair::Pair;
use crate::run::Run;
use crate::support::order::{assert_in_order, noting, payloads, some_work};
use crate::support::{
    RunningConsumer, assert_each_once, bare_cluster, client_of, publish_payloads, state, wait_until, wait_until_done,
    wait_until_in_sync,
};

const THREADS: usize = 4;
/// For the process of a consumer: the server, the address and the name.
const CONSUMER: &str = "ONCECAST_TEST_CONSUMER";

/// The process of a consumer. As a test it does nothing.
#[test]
fn as_a_consumer() {
    let Ok(settings) = std::env::var(CONSUMER) else { return };
    let [url, address, name] = settings.split(' ').collect::<Vec<_>>()[..] else { panic!("{settings}") };
    let judge = |payload: &str, delivery| {
        some_work();
        let fails = delivery == 1 && payload.ends_with("7");
        if fails { Err(HandlerError::retry_after(Duration::from_millis(2), "not yet")) } else { Ok(()) }
    };
    let id = name.split('#').next().unwrap_or_default();
    let builder = Consumer::builder().redis_url(url).listen(address).consumer_id(id).prefetch(64);
    let consumer = RunningConsumer::start(noting(builder, url, name, THREADS, judge));
    println!("listening");
    // Until it is killed, or its test has ended.
    std::io::read_to_string(std::io::stdin()).expect("a pipe");
    drop(consumer);
}

/// A consumer that can be killed and started again at its address.
struct Process {
    url: String,
    id: &'static str,
    address: SocketAddr,
    starts: usize,
    process: std::process::Child,
}

impl Process {
    fn start(url: &str, id: &'static str) -> Process {
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free_port().expect("a free port")));
        let process = Process::launch(url, address, &format!("{id}#0"));
        Process { url: url.to_owned(), id, address, starts: 0, process }
    }

    fn launch(url: &str, address: SocketAddr, name: &str) -> std::process::Child {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "order::as_a_consumer", "--nocapture"]);
        command.env(CONSUMER, format!("{url} {address} {name}"));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("it starts")
    }

    /// Kills it and starts it again. Returns the name of the dead process.
    fn kill(&mut self) -> String {
        self.end();
        let dead = format!("{}#{}", self.id, self.starts);
        self.starts += 1;
        self.process = Process::launch(&self.url, self.address, &format!("{}#{}", self.id, self.starts));
        dead
    }

    fn end(&mut self) {
        self.process.kill().expect("it is ours");
        self.process.wait().expect("it has ended");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

#[test]
fn row_46_keys_are_in_order_while_everything_is_killed() {
    let mut this = Run::of("row_46");
    let mut cluster = bare_cluster();
    let url = cluster.redis().url();
    let connection = &mut client_of(&mut cluster);
    let mut consumers = ["c0", "c1", "c2"].map(|id| Process::start(&url, id));
    let addresses = consumers.each_ref().map(|consumer| consumer.address.to_string());
    let args = "--order-key prefix:: --max-deliveries 1000 --retry none --lease-ttl-ms 600000 \
                --ready-bytes 16777216 --ring-bytes 33554432";
    let mut dispatchers = Pair::start(&cluster, &addresses, args);
    wait_until_in_sync(connection, 2);
    // From one key for all messages to one for each.
    let messages = this.scale(12_000, 200_000) as usize;
    let keys = [3, 100, messages][this.random.usize(0..3)];
    let all = payloads(keys, messages, &mut this.random);
    let (mut dead, began) = (BTreeSet::new(), Instant::now());
    for chunk in all.chunks(messages / 12) {
        publish_payloads(connection, chunk);
        let goal = state(connection).1 + chunk.len() / 4;
        wait_until("some to be done", || (state(connection).1 >= goal.min(all.len() / 2)).then_some(()));
        match this.random.u8(0..3) {
            0 => dead.extend([consumers[this.random.usize(0..3)].kill()]),
            1 => dead.extend(consumers.iter_mut().map(Process::kill)),
            _ => dispatchers.kill_leader(&cluster, connection),
        }
    }
    wait_until_done(connection, all.len());
    assert_each_once(connection, &all);
    let runs = assert_in_order(connection, &dead);
    let seconds = began.elapsed().as_secs_f64();
    this.say(format_args!("{keys} keys, {} consumers killed, {runs:?} in {seconds:.1} s", dead.len()));
}
