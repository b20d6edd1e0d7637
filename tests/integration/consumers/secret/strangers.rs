//! Strangers at a consumer that has a secret: they know its address, the epoch, and what went over other connections.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use oncecast::base::id::Epoch;
use oncecast::lab::ports;
use oncecast::wire::{self, ErrorCode, Frame, NONCE_HEADER, Nonce, Nonces, Proof};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

use super::wire_tap::{WireTap, header};
use super::{SECRET, consumer, consumer_at, dispatcher, metric, with};
use crate::support::secret::SecretFile;
use crate::support::{DEADLINE, client, publish, recorded_ids, redis_server, run, wait_until, wait_until_done};

/// The frames behind a handshake's answer: the first ERROR, and the names of all others.
fn frames_in(answer: &[u8]) -> (Option<ErrorCode>, Vec<&'static str>) {
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole answer") + 4;
    let (mut rest, mut error, mut names) = (&answer[head..], None, Vec::new());
    // A server's frames are not masked, and these are short.
    while let [first, second, more @ ..] = rest {
        let (length, more) = match second & 0x7f {
            126 => (u16::from_be_bytes([more[0], more[1]]).into(), &more[2..]),
            length => (usize::from(length), more),
        };
        let Some((payload, left)) = more.split_at_checked(length) else { break };
        rest = left;
        if first & 0xf != 2 {
            continue;
        }
        for frame in wire::frames(payload) {
            match frame.expect("a frame") {
                Frame::Error { code, .. } => error = Some(code),
                frame => names.push(frame.name()),
            }
        }
    }
    (error, names)
}

/// Sends these bytes, and reads until the consumer closes the connection.
fn play(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("set");
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a request") + 4;
    stream.write_all(&bytes[..head]).expect("it is read");
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("an answer");
        answer.push(byte[0]);
    }
    // The consumer may close before it has read all of it.
    let _ = stream.write_all(&bytes[head..]);
    let mut part = [0; 1 << 10];
    while let Ok(count @ 1..) = stream.read(&mut part) {
        answer.extend_from_slice(&part[..count]);
    }
    answer
}

#[test]
fn a_recorded_connection_is_worth_nothing_on_another() {
    let (redis, file) = (redis_server(), SecretFile::new("recorded", &[SECRET]));
    let (consumer, address) = consumer(&redis, &with(&file));
    let tap = WireTap::to(address);
    let connection = &mut client(&redis.url());
    {
        let _first = dispatcher(&redis, "d0", std::slice::from_ref(&tap.address), &with(&file));
        consumer.wait_for_line("event=dispatcher-rules", DEADLINE).expect("the link is up");
        publish(connection, "m", 0..20);
        wait_until_done(connection, 20);
    }
    let recorded = tap.sent();
    assert!(recorded.len() > 500 && header(&recorded, NONCE_HEADER).is_some(), "{} bytes", recorded.len());
    // The epoch is still the one in Redis, and the messages would be pending again.
    let (epoch, done) = (run::<String>(connection, &["GET", "messages:epoch"]), recorded_ids(connection).len());
    for _ in 0..3 {
        let (error, others) = frames_in(&play(address, &recorded));
        assert_eq!((error, others), (Some(ErrorCode::NotAuthenticated), vec![]), "PROOF, LEAD and PROCESS again");
    }
    // Without the handshake's part of the proof.
    let request = String::from_utf8_lossy(&recorded[..recorded.len().min(2_000)]).into_owned();
    let nonce = header(&recorded, NONCE_HEADER).expect("it was there");
    let start = request.to_lowercase().find("oncecast-nonce").expect("it was there");
    let mut without = recorded.clone();
    without.drain(start..start + "oncecast-nonce: ".len() + nonce.len() + 2);
    let (error, others) = frames_in(&play(address, &without));
    assert_eq!((error, others), (Some(ErrorCode::NotAuthenticated), vec![]));
    assert_eq!(run::<String>(connection, &["GET", "messages:epoch"]), epoch);
    assert_eq!(recorded_ids(connection).len(), done, "nothing was run again");
    consumer.wait_for_line("event=connection-refused count=1", DEADLINE).expect("it is logged");
    let _second = dispatcher(&redis, "d1", &[address.to_string()], &with(&file));
    publish_when_led(connection, 20..40);
    wait_until_done(connection, 40);
}

/// Publishes once a dispatcher is subscribed.
fn publish_when_led(connection: &mut redis::Connection, numbers: std::ops::Range<u64>) {
    wait_until("a dispatcher", || (crate::support::subscribers(connection) > 0).then_some(()));
    publish(connection, "m", numbers);
}

/// A connection with a handshake of its own, and its nonces.
fn shake_hands(address: SocketAddr) -> (WebSocket<TcpStream>, Nonces) {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("set");
    let dispatcher = Nonce([5; 16]);
    let mut request = format!("ws://{address}/").into_client_request().expect("a request");
    request.headers_mut().insert(NONCE_HEADER, dispatcher.to_string().parse().expect("a header's value"));
    let (socket, answer) = tungstenite::client(request, stream).expect("a handshake");
    let nonce = answer.headers().get(NONCE_HEADER).expect("the consumer's nonce");
    (socket, Nonces { dispatcher, consumer: Nonce::of_header(nonce.as_bytes()).expect("a nonce") })
}

fn code_of(socket: &mut WebSocket<TcpStream>) -> Option<u16> {
    loop {
        match socket.read() {
            Ok(Message::Binary(message)) => match wire::frames(&message).next()?.ok()? {
                Frame::Error { code, .. } => return Some(code.code()),
                other => panic!("{other}"),
            },
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

#[test]
fn a_thousand_forged_proofs_keep_no_true_dispatcher_out_and_are_logged_in_sum() {
    let (redis, file) = (redis_server(), SecretFile::new("forged", &[SECRET]));
    let metrics = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
    let (consumer, address) = consumer(&redis, &format!("{} --metrics-addr {metrics}", with(&file)));
    const EACH: u64 = 250;
    thread::scope(|scope| {
        for number in 0..4_u8 {
            scope.spawn(move || {
                for _ in 0..EACH {
                    let (mut socket, nonces) = shake_hands(address);
                    let proof = match number {
                        0 => Proof([0; 32]),
                        1 => nonces.dispatcher_proof(b"not the secret of these tests", "messages", Epoch(u64::MAX)),
                        2 => nonces.dispatcher_proof(SECRET.as_bytes(), "messages", Epoch(7)),
                        _ => nonces.consumer_proof(SECRET.as_bytes(), "messages"),
                    };
                    let lead = Frame::Lead { epoch: Epoch(u64::MAX), group: "messages" };
                    let message = [Frame::Proof(proof).to_vec(), lead.to_vec()].concat();
                    socket.send(Message::binary(message)).expect("it is read");
                    assert_eq!(code_of(&mut socket), Some(11));
                }
            });
        }
        // In the middle of it.
        wait_until("many refusals", || {
            metric(&metrics, "oncecast_dispatchers_unauthenticated_total").filter(|count| *count > EACH)
        });
        let _dispatcher = dispatcher(&redis, "d0", &[address.to_string()], &with(&file));
        consumer.wait_for_line("event=dispatcher-rules", DEADLINE).expect("the link is up");
        let refused = metric(&metrics, "oncecast_dispatchers_unauthenticated_total").expect("it is served");
        assert!(refused < 4 * EACH, "it was not kept waiting until they had ended");
        let connection = &mut client(&redis.url());
        publish_when_led(connection, 0..50);
        wait_until_done(connection, 50);
    });
    wait_until("all to be counted", || {
        metric(&metrics, "oncecast_dispatchers_unauthenticated_total").filter(|count| *count == 4 * EACH)
    });
    let sum = wait_until("all to be logged", || {
        let lines = consumer.stderr().all();
        let refusals =
            lines.iter().filter(|line| line.contains("event=connection-refused") && line.contains("code=11"));
        let counts: Vec<u64> =
            refusals.filter_map(|line| line.split("count=").nth(1)?.split(' ').next()?.parse().ok()).collect();
        (counts.iter().sum::<u64>() == 4 * EACH).then_some(counts.len())
    });
    assert!(sum < 60, "{sum} lines");
}

#[test]
fn a_consumer_without_a_secret_refuses_proof_and_says_when_anyone_may_lead_it() {
    let redis = redis_server();
    let (open, address) = consumer(&redis, "");
    let (mut socket, _) =
        tungstenite::client(format!("ws://{address}/"), TcpStream::connect(address).expect("it listens"))
            .expect("a handshake");
    socket.send(Message::binary(Frame::Proof(Proof([0; 32])).to_vec())).expect("it is read");
    assert_eq!(code_of(&mut socket), Some(5));
    assert!(!open.stderr().all().iter().any(|line| line.contains("listens-openly")), "it is on loopback");
    let file = SecretFile::new("beyond", &[SECRET]);
    for (args, says) in
        [("--listen 0.0.0.0:0".to_owned(), true), (format!("--listen 0.0.0.0:0 {}", with(&file)), false)]
    {
        let mut beyond = consumer_at(&redis, &args);
        assert!(beyond.stop(DEADLINE).expect("it ends").success());
        let lines = beyond.stderr().all();
        let said = lines.iter().find(|line| line.contains("event=listens-openly"));
        assert_eq!(said.is_some(), says, "{lines:?}");
        assert!(said.is_none_or(|line| line.contains("--link-secret-file / ONCECAST_LINK_SECRET_FILE")), "{said:?}");
    }
}
