//! The handler `stamp`. Only a consumer can create a delivery, so this file simulates a dispatcher that sends one
//! message to a real consumer, whose handler calls `stamp` again and again. The consumer reads the dispatcher's epoch
//! from Redis; nothing is recorded.

use std::net::TcpStream;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use oncecast::base::id::{Epoch, MessageId};
use oncecast::lab::{RedisOptions, RedisServer};
use oncecast::ledger::Command;
use oncecast::programs::consumer::stamp;
use oncecast::wire::Frame;
use oncecast::{Consumer, Delivery, HandlerError};
use tungstenite::Message;

use crate::messages::payload;

/// Calls in each step. The two thread switches of a step take about 20 µs, at most a hundredth of its time.
const MANY: usize = 10_000;

#[divan::bench]
fn one_member_of_53_bytes(bencher: Bencher<'_, '_>) {
    measure(bencher, payload(7));
}

#[divan::bench]
fn ten_members(bencher: Bencher<'_, '_>) {
    const OTHERS: &str = r#""kind":"order","customer":"c-81723","amount":1299,"currency":"EUR","paid":true,"note":null,
        "lines":[{"sku":"a-1","count":2}, {"sku":"b-7","count":1}],"title":"two \"quoted\" words","at":1795641234.567"#;
    measure(bencher, payload(7).replace('}', &format!(",{OTHERS}}}")));
}

/// Measures `stamp` on a payload, in a consumer's handler.
fn measure(bencher: Bencher<'_, '_>, payload: String) {
    let (ask, asked) = bounded(0);
    let (done, answers) = bounded(0);
    let redis = RedisServer::start(RedisOptions::default()).expect("a private Redis starts");
    let epoch = Command::of(&["SET", "messages:epoch", "1"]);
    redis.connection().query("being elected", epoch).expect("it answers");
    let consumer = Consumer::builder()
        .redis_url(redis.url())
        .listen("127.0.0.1:0")
        .concurrency(1)
        .handler(move |delivery: &Delivery<'_>| work(delivery, &asked, &done))
        .bind()
        .expect("a free port");
    let address = consumer.local_addr();
    let shutdown = consumer.shutdown_handle();
    let consumer = thread::spawn(move || consumer.run());

    let stream = TcpStream::connect(address).expect("the consumer listens");
    let (mut socket, _) = tungstenite::client(format!("ws://{address}/"), stream).expect("a WebSocket handshake");
    let mut frames = Frame::Lead { epoch: Epoch(1), group: "messages" }.to_vec();
    Frame::Process { id: MessageId(1), delivery: 1, body: payload.as_bytes() }.encode(&mut frames);
    socket.send(Message::Binary(frames.into())).expect("the consumer reads");

    bencher.counter(ItemsCount::new(MANY)).bench_local(|| {
        ask.send(()).expect("the handler waits");
        answers.recv().expect("the handler answers");
    });

    // The handler returns, and the consumer stops at once.
    drop(ask);
    shutdown.shutdown();
    shutdown.shutdown();
    consumer.join().expect("no panic").expect("a clean end");
}

fn work(delivery: &Delivery<'_>, asked: &Receiver<()>, done: &Sender<()>) -> Result<oncecast::Outcome, HandlerError> {
    for () in asked {
        for _ in 0..MANY {
            drop(black_box(stamp(black_box(delivery))));
        }
        done.send(()).expect("the benchmark waits");
    }
    Err(HandlerError::reject("it has served"))
}
