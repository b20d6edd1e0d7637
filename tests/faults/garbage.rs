//! Row 21: peers that do not speak the protocol. Whatever they send, only their own socket is closed.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use oncecast::base::id::Epoch;
use oncecast::lab::Node;
use oncecast::wire::{self, Frame, ReadyFlags};
use tungstenite::{Message, WebSocket};

use crate::run::{Run, assert_l0};
use crate::support::load::Load;
use crate::support::{
    DEADLINE, bare_cluster, client_of, cluster_of, dispatcher, options, run as run_command, state, wait_until_in_sync,
};
use crate::workers::Workers;

/// Long enough that on a busy machine the leader keeps its lease, and a slow consumer its link.
const PATIENT: &str = "--lease-ttl-ms 600000 --link-timeout-ms 600000";
/// How often the stranger's thread polls its listener.
const LOOK: Duration = Duration::from_millis(5);

/// What a stranger sends.
#[derive(Clone, Copy, Debug)]
enum Garbage {
    /// Bytes instead of a handshake.
    Bytes,
    /// A handshake that stops in the middle.
    Slow,
    /// After the handshake: bytes that are no WebSocket frame, or one that claims to be longer than anything.
    BadWebSocket,
    HugeWebSocket,
    /// After the handshake: messages that hold no frames.
    RandomMessage,
    HugeLength,
    Text,
}

const KINDS: [Garbage; 7] = [
    Garbage::Bytes,
    Garbage::Slow,
    Garbage::BadWebSocket,
    Garbage::HugeWebSocket,
    Garbage::RandomMessage,
    Garbage::HugeLength,
    Garbage::Text,
];

fn random_bytes(random: &mut fastrand::Rng, lengths: std::ops::Range<usize>) -> Vec<u8> {
    (0..random.usize(lengths)).map(|_| random.u8(..)).collect()
}

/// Sends garbage over an open WebSocket.
fn send_garbage(socket: &mut WebSocket<TcpStream>, kind: Garbage, random: &mut fastrand::Rng) {
    // The other side may have closed by the time the last of it is sent.
    let _ = match kind {
        Garbage::BadWebSocket => {
            // Reserved bits are set, which no valid frame has. It is a whole one, masked or not: the rest of another
            // would be waited for.
            let length = random.u8(..126) | if random.bool() { 0x80 } else { 0 };
            let bytes = [vec![0xf2, length], random_bytes(random, 130..2_000)].concat();
            socket.get_mut().write_all(&bytes)
        }
        Garbage::HugeWebSocket => {
            let mask = if random.bool() { 0x80 } else { 0 };
            let length = random.u64(1 << 40..1 << 63).to_be_bytes();
            socket.get_mut().write_all(&[&[0x82, mask | 127], &length[..], &[0; 4]].concat())
        }
        Garbage::HugeLength => {
            let length = random.u32(64 << 20..).to_be_bytes();
            let message = [&[1, random.u8(0..10)], &length[..], &random_bytes(random, 0..100)].concat();
            socket.send(Message::binary(message)).map_err(std::io::Error::other)
        }
        Garbage::Text => {
            let text: String = (0..random.usize(0..200)).map(|_| random.alphanumeric()).collect();
            socket.send(Message::text(text)).map_err(std::io::Error::other)
        }
        _ => {
            // An unknown version.
            let message = [vec![random.u8(2..)], random_bytes(random, 0..3_000)].concat();
            socket.send(Message::binary(message)).map_err(std::io::Error::other)
        }
    };
}

/// Reads until the other side closes, which it must. Returns whether it gave a reason.
fn got_reason(socket: &mut WebSocket<TcpStream>) -> bool {
    let mut found = false;
    loop {
        match socket.read() {
            Ok(Message::Binary(bytes)) => {
                let is_error = |frame| matches!(frame, Ok(Frame::Error { .. }));
                found |= wire::frames(&bytes).any(is_error);
            }
            Ok(_) => {}
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                panic!("the connection stays open")
            }
            Err(_) => return found,
        }
    }
}

/// Waits until the other side closes a connection on which there is no WebSocket.
fn assert_closes(stream: &mut TcpStream, kind: Garbage) {
    let closed = stream.read_to_end(&mut Vec::new());
    // A reset counts as an end.
    let open = closed.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    assert!(!open, "{kind:?}: the connection stays open");
}

#[test]
fn row_21_garbage_at_a_consumer() {
    let mut run = Run::of("row_21");
    let mut cluster = cluster_of(options(2, 2, PATIENT, ""));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let (_, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    let load = Load::start(&cluster.redis().url(), "m", 1_000);
    let mut slow = Vec::new();
    for number in 0..run.scale(60, 1_500) {
        let kind = if number < 7 { KINDS[number as usize] } else { run.random.choice(KINDS).unwrap() };
        let address = cluster.address(run.random.usize(..2));
        let mut stream = TcpStream::connect(address).expect("the consumer listens");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        match kind {
            Garbage::Bytes => {
                let _ = stream.write_all(&random_bytes(&mut run.random, 1..5_000));
                let _ = stream.shutdown(Shutdown::Write);
                assert_closes(&mut stream, kind);
            }
            Garbage::Slow => {
                let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n");
                stream.write_all(&request.as_bytes()[..run.random.usize(..request.len())]).unwrap();
                slow.push(stream);
            }
            kind => {
                let (mut socket, _) = tungstenite::client(format!("ws://{address}/"), stream).expect("a handshake");
                let got_reason = {
                    if run.random.bool() {
                        // Like a dispatcher, but with a very old epoch.
                        let lead = Frame::Lead { epoch: Epoch(run.random.u64(1..1_000)), group: "messages" };
                        let _ = socket.send(Message::binary(lead.to_vec()));
                    }
                    send_garbage(&mut socket, kind, &mut run.random);
                    got_reason(&mut socket)
                };
                assert!(got_reason, "{kind:?}: it got no reason");
            }
        }
    }
    // The consumer must close connections that began a handshake and then fell silent.
    slow.iter_mut().for_each(|stream| assert_closes(stream, Garbage::Slow));
    load.wait_for_more(200);
    assert_l0(connection, &load.stop());
    assert_eq!(cluster.wait_for_leader(DEADLINE).unwrap().1, lease, "the leader did not change");
    assert_eq!(state(connection).2, 0);
    cluster.must_run().unwrap();
    for consumer in 0..2 {
        // Once it has ended, its whole log has been read. The leader outlives it, so no leader's end shows in it.
        let mut process = cluster.release(Node::Consumer(consumer)).unwrap();
        process.kill().unwrap();
        let log = process.stderr().all();
        let ruled = |line: &&String| line.contains("event=dispatcher-left") && line.contains("ruled=true");
        assert_eq!(log.iter().find(ruled), None, "the leader's connection existed all the time");
    }
}

/// A consumer's address at which every connection is answered with garbage; stopped and joined on drop.
struct Stranger {
    address: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<BTreeMap<String, usize>>>,
}

impl Stranger {
    fn start(random: fastrand::Rng) -> Stranger {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("our own socket");
        let address = listener.local_addr().expect("it listens").to_string();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let thread = thread::spawn(move || answer_with_garbage(&listener, random, &stopping));
        Stranger { address, stop, thread: Some(thread) }
    }

    /// What it did, and how often. Fails if the dispatcher answered anything wrongly.
    fn stop(mut self) -> BTreeMap<String, usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("stopped only once").join().expect("each was answered as it should")
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer_with_garbage(
    listener: &TcpListener,
    mut random: fastrand::Rng,
    stopping: &AtomicBool,
) -> BTreeMap<String, usize> {
    let mut done = BTreeMap::new();
    // Held open: a dispatcher that waits for the rest of a handshake must time out by itself.
    let mut slow = Vec::new();
    let mut kinds = KINDS.to_vec();
    random.shuffle(&mut kinds);
    while !stopping.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            thread::sleep(LOOK);
            continue;
        };
        stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(DEADLINE))).expect("our own socket");
        let kind = kinds.pop().unwrap_or_else(|| random.choice(KINDS).expect("there are some"));
        let mut after = "";
        match kind {
            Garbage::Bytes => {
                let _ = stream.write_all(&random_bytes(&mut random, 1..5_000));
                let _ = stream.shutdown(Shutdown::Write);
                assert_closes(&mut stream, kind);
            }
            Garbage::Slow => {
                let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgr");
                slow.push(stream);
            }
            kind => {
                // The link may have ended with its term.
                let Ok(mut socket) = tungstenite::accept(stream) else { continue };
                if random.bool() {
                    after = " after READY";
                    let ready = Frame::Ready { prefetch: 3, flags: ReadyFlags(0), consumer: "stranger" };
                    let greeting = [ready.to_vec(), Frame::Held(Vec::new()).to_vec()].concat();
                    let _ = socket.send(Message::binary(greeting));
                }
                send_garbage(&mut socket, kind, &mut random);
                // A failed greeting just ends.
                assert!(got_reason(&mut socket) || after.is_empty(), "{kind:?}{after}: it got no reason");
            }
        }
        *done.entry(format!("{kind:?}{after}")).or_default() += 1;
    }
    done
}

#[test]
fn row_21_garbage_at_a_dispatcher() {
    let mut run = Run::of("row_21_dispatcher");
    let stranger = Stranger::start(run.random.fork());
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let mut workers = Workers::new(&mut cluster, 2, 2);
    (0..2).for_each(|number| workers.start(number));
    let addresses = [workers.addresses.clone(), vec![stranger.address.clone()]].concat();
    // Messages that the stranger got count as failed, however often it gets the same one.
    let mut process = dispatcher(&cluster, "d0", &addresses, &format!("--max-deliveries 1000 {PATIENT}"));
    wait_until_in_sync(connection, 1);
    let lease: String = run_command(connection, &["GET", "messages:leader"]);
    let load = Load::start(&cluster.redis().url(), "m", 1_000);
    // The dispatcher reconnects to it about once a second.
    (0..run.scale(12, 120)).for_each(|_| load.wait_for_more(1_000));
    let done = stranger.stop();
    assert_l0(connection, &load.stop());
    let now: String = run_command(connection, &["GET", "messages:leader"]);
    assert_eq!(now, lease, "the leader did not change");
    process.must_run().unwrap();
    for number in 0..2 {
        let lost = |line: &String| line.contains("event=dispatcher-left");
        // Once it has ended, its whole log has been read.
        workers.process(number).kill().unwrap();
        assert_eq!(workers.process(number).stderr().all().into_iter().find(lost), None, "the other links exist");
    }
    assert_eq!(state(connection).2, 0);
    run.say(format_args!("{done:?}"));
}
