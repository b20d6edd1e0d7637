//! Strangers at a consumer: they open sockets, speak HTTP, repeat LEAD, and send large messages.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use oncecast::Consumer;
use oncecast::base::id::{Epoch, MessageId};
use oncecast::lab::{ChildProcess, RedisServer};
use oncecast::wire::{Frame, MAX_TEXT_BYTES, MAX_WS_MESSAGE_BYTES, ReadyFlags};
use tungstenite::{Message, WebSocket};

use crate::support::running_consumer::RunningConsumer;
use crate::support::scripted_dispatcher::ScriptedDispatcher;
use crate::support::{DEADLINE, elect, pend, programs, redis_server, wait_until};

const UPGRADE: &str = "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn consumer_of(redis: &RedisServer) -> RunningConsumer {
    let builder = Consumer::builder().redis_url(redis.url()).listen("127.0.0.1:0").prefetch(256);
    RunningConsumer::start(builder.handler(oncecast::programs::consumer::stamp))
}

/// The program and its address.
fn program(redis: &RedisServer) -> (ChildProcess, SocketAddr) {
    let mut command = programs().command("oncecast-consumer").expect("it is built");
    command.args(["--redis-url", &redis.url(), "--listen", "127.0.0.1:0"]);
    let program = ChildProcess::spawn("oncecast-consumer", command).expect("it starts");
    let line = program.wait_for_line("event=listening address=", DEADLINE).expect("it listens");
    let address = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
    (program, address.and_then(|address| address.parse().ok()).expect("an address"))
}

/// A consumer pings a proven leader before it replaces it.
#[test]
fn a_dispatcher_answers_pings() {
    let redis = redis_server();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut command = programs().command("oncecast-dispatcher").expect("it is built");
    let address = listener.local_addr().expect("bound").to_string();
    command.args(["--redis-url", &redis.url(), "--consumers", &address, "--dispatcher-id", "d0"]);
    let _dispatcher = ChildProcess::spawn("d0", command).expect("it starts");
    let (stream, _) = listener.accept().expect("it connects");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout above zero");
    let mut socket = tungstenite::accept(stream).expect("a handshake");
    assert!(matches!(socket.read(), Ok(Message::Binary(_))), "it leads");
    let ready = Frame::Ready { prefetch: 8, flags: ReadyFlags(0), consumer: "c" }.to_vec();
    socket.send(Message::binary([ready, Frame::Held(Vec::new()).to_vec()].concat())).expect("it is read");
    for number in 0..3_u64 {
        let said = number.to_be_bytes().to_vec();
        socket.send(Message::Ping(said.clone().into())).expect("it is read");
        while socket.read().expect("a pong in time") != Message::Pong(said.clone().into()) {}
    }
}

/// The whole answer to a request.
fn http(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout above zero");
    stream.write_all(request.as_bytes()).expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the whole answer comes, and then the end");
    answer
}

#[test]
fn an_http_request_gets_an_explanation() {
    let redis = redis_server();
    let consumer = consumer_of(&redis);
    // The peer must get the answer even if its body is not read.
    let post = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000));
    for (request, status, part) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "426 Upgrade Required", "this is the port of an Oncecast consumer"),
        (&post, "426 Upgrade Required", "dispatchers connect by WebSocket"),
        (&format!("GET /x HTTP/1.1\r\n{UPGRADE}\r\n"), "404 Not Found", "the path for dispatchers is /"),
        (&format!("GET / HTTP/1.1\r\n{UPGRADE}Origin: https://x\r\n\r\n"), "403 Forbidden", "web page"),
        ("\x16\x03\x01\r\n\r\n", "400 Bad Request", "the peer begins TLS"),
    ] {
        let answer = http(consumer.address, request);
        let (head, text) = answer.split_once("\r\n\r\n").expect("a head and a text");
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")) && text.contains(part), "{answer}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", text.len())), "{answer}");
    }
    assert_eq!(consumer.stats.strangers(), 5);
    let _leader = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
}

/// Runs `work` while four threads send LEAD without a pause.
fn during_a_storm<T>(
    address: SocketAddr,
    lead: impl Fn(u64) -> (u64, String) + Sync,
    work: impl FnOnce(&AtomicU64) -> T,
) -> T {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (stop, number) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let (epoch, group) = lead(number.fetch_add(1, Ordering::Relaxed));
                    // It may be disconnected at any point.
                    let Some(mut socket) = handshake(address) else { continue };
                    let frame = Frame::Lead { epoch: Epoch(epoch), group: &group }.to_vec();
                    if socket.send(Message::binary(frame)).is_ok() {
                        let _ = socket.read();
                    }
                }
            });
        }
        work(&number)
    })
}

fn handshake(address: SocketAddr) -> Option<WebSocket<TcpStream>> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    Some(tungstenite::client(format!("ws://{address}/"), stream).ok()?.0)
}

/// Delivers 700 messages, some at a time. Returns how long they took.
fn work(redis: &RedisServer, leader: &mut ScriptedDispatcher, first: u64) -> Duration {
    let began = Instant::now();
    for ids in (first..first + 700).collect::<Vec<_>>().chunks(100) {
        ids.iter().for_each(|id| pend(redis, *id, "x"));
        leader.send(
            &ids.iter().map(|id| Frame::Process { id: MessageId(*id), delivery: 1, body: b"x" }).collect::<Vec<_>>(),
        );
        leader.expect_acks(ids);
    }
    began.elapsed()
}

fn storm(lead: impl Fn(u64) -> (u64, String) + Sync) {
    let redis = redis_server();
    let consumer = consumer_of(&redis);
    let mut leader = ScriptedDispatcher::elected(&redis, consumer.address, 1_000, &[]);
    work(&redis, &mut leader, 1);
    let mut first = 1_001;
    during_a_storm(consumer.address, lead, |number| {
        // The leader reads all the time, so it counts as alive.
        while number.load(Ordering::Relaxed) < 80 {
            work(&redis, &mut leader, first);
            first += 700;
        }
        let took = work(&redis, &mut leader, first);
        println!("700 messages took {took:?}");
        // A dispatcher waits 3 s for its answer.
        elect(&redis, 1_001);
        let began = Instant::now();
        let mut next = ScriptedDispatcher::lead(consumer.address, 1_001, &[]);
        assert!(began.elapsed() < Duration::from_secs(3), "it was accepted after {:?}", began.elapsed());
        work(&redis, &mut next, first + 700);
        first += 1_400;
    });
    assert_eq!(consumer.stats.recorded(), first - 1_001 + 700);
}

#[test]
fn a_storm_of_lower_epochs_does_not_stop_work() {
    storm(|_| (7, "messages".to_owned()));
}

#[test]
fn a_storm_of_distinct_higher_epochs_does_not_stop_work() {
    storm(|number| (1_000_000 + number, "messages".to_owned()));
}

#[test]
fn a_storm_of_the_true_epoch_does_not_stop_work() {
    storm(|_| (1_000, "messages".to_owned()));
}

#[test]
fn a_storm_is_logged_as_counts_with_shortened_names() {
    let redis = redis_server();
    let (mut program, address) = program(&redis);
    let _leader = ScriptedDispatcher::elected(&redis, address, 5, &[]);
    let group = "x".repeat(MAX_TEXT_BYTES);
    // Until enough were counted, however slow the machine is.
    let refused = || {
        let lines = program.stderr().all();
        let counts = lines.iter().filter(|line| line.contains("event=connection-refused ")).map(|line| {
            let count = line.split("count=").nth(1).and_then(|rest| rest.split(' ').next());
            count.and_then(|count| count.parse::<u64>().ok()).expect("a number")
        });
        counts.sum::<u64>()
    };
    let lead = |number| if number % 2 == 0 { (6, group.clone()) } else { (6, "messages".to_owned()) };
    let began = Instant::now();
    during_a_storm(address, lead, |_| wait_until("the storm to be logged", || (refused() >= 500).then_some(())));
    let took = began.elapsed();
    program.stop(DEADLINE).expect("it ends");
    let lines = program.stderr().all();
    // For each of two kinds: five lines at once, then one per second, and one at the end.
    let most = 2 * (5 + took.as_secs() as usize + 2);
    let count = lines.iter().filter(|line| line.contains("event=connection-refused ")).count();
    assert!(count <= most, "{count} lines in {took:?}");
    let bytes: usize = lines.iter().map(String::len).sum();
    assert!(bytes < 1_000 * (20 + most), "{bytes} bytes in {took:?}");
    assert!(!lines.iter().any(|line| line.contains(&"x".repeat(100))), "names are cut");
    assert!(lines.iter().any(|line| line.contains(&format!("not \\\"{}\\\"…", "x".repeat(64)))), "{lines:?}");
}

/// 60 connections, each of which leads for a moment and sends 11 MiB of a message that it never finishes.
#[test]
#[cfg(target_os = "linux")]
fn unfinished_messages_share_a_budget() {
    const SENT_BYTES: usize = 11 << 20;
    let redis = redis_server();
    let (program, address) = program(&redis);
    elect(&redis, 5);
    let before = crate::support::most_resident_bytes(program.pid());
    // A masked binary message of the largest size, with a mask of zeros.
    let header = [&[0x82, 0xff][..], &(MAX_WS_MESSAGE_BYTES as u64).to_be_bytes(), &[0; 4]].concat();
    let bytes = vec![0; SENT_BYTES];
    let sockets: Vec<_> = (0..60)
        .map(|_| {
            let mut socket = handshake(address).expect("there is a place");
            let lead = Frame::Lead { epoch: Epoch(5), group: "messages" }.to_vec();
            socket.send(Message::binary(lead)).expect("it is read");
            assert!(matches!(socket.read(), Ok(Message::Binary(_))), "it leads");
            socket.get_mut().write_all(&header).and_then(|()| socket.get_mut().write_all(&bytes)).expect("it is read");
            socket
        })
        .collect();
    let grown = crate::support::most_resident_bytes(program.pid()) - before;
    println!("it grew by {} MiB", grown >> 20);
    assert!(grown < 100 << 20, "it grew by {} MiB", grown >> 20);
    drop(sockets);
    let mut leader = ScriptedDispatcher::lead(address, 5, &[]);
    work(&redis, &mut leader, 1);
}
