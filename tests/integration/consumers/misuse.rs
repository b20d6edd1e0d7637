//! A dispatcher that breaks the protocol loses its connection and affects no other.

use oncecast::base::id::Epoch;
use oncecast::wire::Frame;
use tungstenite::Message;

use crate::support::running_consumer::RunningConsumer;
use crate::support::scripted_dispatcher::ScriptedDispatcher;
use crate::support::{pend, redis_server, wait_until};

use super::fixture::{consumer_of, gated, process};

#[test]
fn exceeding_the_prefetch_closes_the_connection() {
    let redis = redis_server();
    let (permits, handler) = gated();
    let consumer = RunningConsumer::start(consumer_of(&redis).prefetch(2).handler(handler));
    let mut greedy = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    greedy.send(&[process(1, "x"), process(2, "x")]);
    wait_until("both to be held", || (consumer.stats.held() == 2).then_some(()));
    greedy.send(&[process(3, "x")]);
    greedy.expect_error(8);
    let mut modest = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[1, 2]);
    permits.send(()).and(permits.send(())).expect("handlers live");
    modest.expect_acks(&[1, 2]);
}

#[test]
fn garbage_closes_only_its_own_socket() {
    let redis = redis_server();
    let consumer =
        RunningConsumer::start(consumer_of(&redis).prefetch(100).handler(oncecast::programs::consumer::stamp));
    let mut ruler = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    let lead = |epoch| Frame::Lead { epoch: Epoch(epoch), group: "messages" }.to_vec();
    let binary = |bytes: &[u8]| Message::binary(bytes.to_vec());
    let cases = [
        ("random bytes", binary(&[0x5a; 100]), 1),
        ("another version", binary(b"\x02\x03\0\0\0\x00"), 1),
        ("an unknown command", binary(b"\x01\x63\0\0\0\x00"), 2),
        ("a huge length", binary(b"\x01\x00\xff\xff\xff\xff"), 3),
        ("a message over the limit", binary(&vec![1; 100_000]), 3),
        ("a lying length", binary(b"\x01\x03\0\0\0\x09x"), 4),
        ("half a header", binary(b"\x01\x03\0"), 4),
        ("bytes left over", binary(&[lead(9), vec![1]].concat()), 4),
        ("a text", Message::text("hello"), 4),
        ("work before LEAD", binary(&process(1, "x").to_vec()), 5),
        ("a frame of the other side", binary(&Frame::Drain.to_vec()), 5),
        ("another group", binary(&Frame::Lead { epoch: Epoch(9), group: "other" }.to_vec()), 7),
    ];
    let count = cases.len() as u64;
    for (case, message, code) in cases {
        println!("{case}");
        let mut peer = ScriptedDispatcher::connect(consumer.address);
        peer.send_message(message);
        peer.expect_error(code);
    }
    wait_until("all to be counted", || (consumer.stats.bad_frames() == count).then_some(()));
    for not_even_websocket in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], b""] {
        ScriptedDispatcher::raw(consumer.address, not_even_websocket);
    }
    wait_until("strangers to be counted", || (consumer.stats.strangers() == 3).then_some(()));
    pend(&redis, 1, "x");
    ruler.send(&[process(1, "x")]);
    ruler.expect_acks(&[1]);
    // The active dispatcher's own mistakes also cost only its connection.
    ruler.send_message(Message::binary(b"\x01\x00\0\0\0\x05short".to_vec()));
    ruler.expect_error(4);
    ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]).send(&[process(2, "x")]);
    wait_until("it to be dropped", || (consumer.stats.dropped() == 1).then_some(()));
}

#[test]
fn silent_strangers_do_not_lock_out_a_dispatcher() {
    let redis = redis_server();
    let consumer = RunningConsumer::start(consumer_of(&redis).handler(oncecast::programs::consumer::stamp));
    let mut ruler = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    let silent: Vec<_> =
        (0..100).map(|_| std::net::TcpStream::connect(consumer.address).expect("it listens")).collect();
    let mut next = ScriptedDispatcher::elected(&redis, consumer.address, 6, &[]);
    next.send(&[process(1, "x")]);
    next.expect_acks(&[1]);
    ruler.expect_error(6);
    assert!(consumer.stats.strangers() >= 100 - 64);
    drop(silent);
}
