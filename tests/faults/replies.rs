//! Row 22: Redis has executed a command, and its reply is lost.

use oncecast::lab::{ChildProcess, Cluster};

use crate::dispatchers::Watched;
use crate::mode::{Mode, in_both_modes};
use crate::proxy::Proxy;
use crate::run::{Run, assert_l0};
use crate::stream_workers::StreamWorkers;
use crate::support::load::Load;
use crate::support::{DEADLINE, client_of, options, programs, stream, wait_until, wait_until_in_sync};

/// Keys of the intake script, as they appear in a call.
const INTAKE_KEYS: &[u8] = b"messages:cursor\r\n$13\r\nmessages:dead\r\n";

/// The end of a transaction, with which dispatchers store messages and consumers record results.
const EXEC: &[u8] = b"$4\r\nEXEC\r\n";

/// The keys of the script that records results.
const COMMIT_KEYS: &[u8] = b"messages:pending\r\n$18\r\nmessages:processed\r\n";

/// Row 22: Redis stored a batch and its answer was lost. The same batch is offered again and not stored twice, even if
/// the leader dies before it can repeat it, or the other takes over.
fn row_22_reply_to_the_intake_lost(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_22_reply_to_the_intake_lost");
    let mut cluster = Cluster::start(mode.options(0, 3, "")).unwrap();
    let connection = &mut client_of(&mut cluster);
    let address = format!("127.0.0.1:{}", cluster.redis().port());
    let proxy = Proxy::start(&address, [INTAKE_KEYS, EXEC], fastrand::Rng::with_seed(this.random.u64(..)), 5);
    let addresses: Vec<String> = (0..cluster.consumers()).map(|number| cluster.address(number).to_string()).collect();
    let args = mode.args("");
    let behind_the_proxy = |name: &str| {
        let command = programs().command("oncecast-dispatcher").expect("the program is built");
        Watched::spawn(command, name, &proxy.url(), &addresses, "127.0.0.1", &args)
    };
    let mut unlucky = behind_the_proxy("unlucky");
    wait_until("it to lead", || (unlucky.figure("oncecast_leader")? == 1).then_some(()));
    let mut other = Watched::start(&mut cluster, "other", &args);
    wait_until_in_sync(connection, 2);
    // They may delete an entry before the batch is offered again.
    let workers = StreamWorkers::start(mode, &cluster.redis_url());
    let load = Load::start(&cluster.redis().url(), "m", 2_000);
    for round in 0..this.scale(2, 10) {
        let lost = proxy.lost();
        let enough = lost + this.random.u64(5..20);
        wait_until("replies to be lost", || (proxy.lost() >= enough).then_some(()));
        // As soon as one more reply was lost, so that it is unknown whether that batch was stored.
        let before = proxy.lost();
        wait_until("one more to be lost", || (proxy.lost() > before).then_some(()));
        unlucky.process.kill().unwrap();
        wait_until("the other to lead", || (other.figure("oncecast_leader")? == 1).then_some(()));
        unlucky = behind_the_proxy(&format!("unlucky{round}"));
        wait_until_in_sync(connection, 2);
        // And back.
        assert!(other.process.stop(DEADLINE).unwrap().success());
        wait_until("the former leader to lead again", || (unlucky.figure("oncecast_leader")? == 1).then_some(()));
        other = Watched::start(&mut cluster, "other", &args);
    }
    let sent = load.stop();
    println!("row 22: {} replies to the intake lost", proxy.lost());
    workers.finish(connection);
    assert_l0(connection, &sent);
    assert_eq!(stream(connection, "messages:gaps"), []);
}

/// Row 22: a consumer's results were recorded and Redis's answer was lost. They are offered again and not stored twice.
#[test]
fn row_22_reply_to_the_commit_lost() {
    let mut this = Run::of("row_22_reply_to_the_commit_lost");
    let mut cluster = Cluster::start(options(0, 1, "", "")).unwrap();
    let connection = &mut client_of(&mut cluster);
    let address = format!("127.0.0.1:{}", cluster.redis().port());
    let proxy = Proxy::start(&address, [COMMIT_KEYS, EXEC], fastrand::Rng::with_seed(this.random.u64(..)), 5);
    let listen = format!("127.0.0.1:{}", oncecast::lab::ports::free_port().unwrap());
    let mut command = programs().command("oncecast-consumer").expect("the program is built");
    command.args(["--redis-url", &proxy.url(), "--listen", &listen, "--consumer-id", "unlucky"]);
    let consumer = ChildProcess::spawn("unlucky", command).unwrap();
    consumer.wait_for_line("event=listening", DEADLINE).unwrap();
    let command = programs().command("oncecast-dispatcher").expect("the program is built");
    let addresses = [listen, cluster.address(0).to_string()];
    let _dispatcher = Watched::spawn(command, "d0", &cluster.redis().url(), &addresses, "127.0.0.1", "");
    wait_until_in_sync(connection, 1);
    let load = Load::start(&cluster.redis().url(), "m", 2_000);
    let enough = this.random.u64(10..20) * this.scale(1, 20);
    wait_until("replies to be lost", || (proxy.lost() >= enough).then_some(()));
    load.wait_for_more(300);
    let sent = load.stop();
    println!("row 22: {} replies to a commit lost", proxy.lost());
    proxy.heal();
    assert_l0(connection, &sent);
    let by_it =
        stream(connection, "messages:processed").iter().filter(|entry| entry["consumer_id"] == "unlucky").count();
    assert!(by_it > 0, "the one behind the proxy recorded nothing, so this shows nothing");
}

in_both_modes! {
    row_22_reply_to_the_intake_lost,
}
