//! The greeting and the end of a link: a consumer that sends an invalid or slow greeting, that reads nothing, or that
//! has seen a higher epoch than Redis gives out.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use oncecast::base::id::{Epoch, MessageId, wall_clock_us};
use oncecast::wire::{ErrorCode, Field, Frame, ReadyFlags};
use redis::Connection;
use tungstenite::Message;

use crate::support::peer::{Heard, Line, Peer};
use crate::support::scripted_group::{Scripted, wait_until_listed};
use crate::support::{DEADLINE, publish_payloads, run, state, wait_until, wait_until_done};

fn ready(prefetch: u32, consumer: &str) -> Frame<'_> {
    Frame::Ready { prefetch, flags: ReadyFlags(0), consumer }
}

fn message(frames: &[Frame<'_>]) -> Message {
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut bytes));
    Message::Binary(bytes.into())
}

/// The error that ended the connection.
fn final_error(line: &mut Line) -> (ErrorCode, String) {
    let rest = line.rest();
    match rest.as_slice() {
        [Heard::Error(code, text)] => (*code, text.clone()),
        other => panic!("expected one ERROR, got {other:?}"),
    }
}

#[test]
fn an_invalid_greeting_is_answered_with_the_reason() {
    let peer = Peer::bind("rude");
    let group = Scripted::start(&[&peer], "");
    let long = "x".repeat(257);
    let greetings = [
        (Message::Text("READY".into()), ErrorCode::Malformed, "text message"),
        (Message::Binary(vec![1, 4, 0, 0].into()), ErrorCode::Malformed, "cut short"),
        (Message::Binary(vec![9, 4, 0, 0, 0, 0].into()), ErrorCode::Version, "version 9"),
        (message(&[Frame::Held(Vec::new())]), ErrorCode::Unexpected, "HELD where READY is expected"),
        (message(&[ready(1, "c"), ready(1, "c")]), ErrorCode::Unexpected, "READY where HELD is expected"),
        (
            message(&[ready(1, "c"), Frame::Ack(vec![MessageId(1)])]),
            ErrorCode::Unexpected,
            "ACK where HELD is expected",
        ),
        (message(&[ready(0, "c"), Frame::Held(Vec::new())]), ErrorCode::Malformed, "prefetch of 0"),
        (message(&[ready(1, ""), Frame::Held(Vec::new())]), ErrorCode::Malformed, "consumer id"),
        (message(&[ready(1, &long), Frame::Held(Vec::new())]), ErrorCode::Malformed, "consumer id"),
        (message(&[ready(1, "a\x1b[31m"), Frame::Held(Vec::new())]), ErrorCode::Malformed, "consumer id"),
    ];
    for (greeting, code, text) in greetings {
        let mut line = peer.accept_only();
        line.send_raw(greeting.clone());
        let (received, received_text) = final_error(&mut line);
        assert_eq!(received, code, "{greeting:?}");
        assert!(received_text.contains(text) && received_text.len() < 200, "{greeting:?}: {received_text}");
    }
    drop(group);
}

#[test]
fn a_trickling_greeting_meets_one_deadline_and_gets_an_error() {
    let (slow, silent) = (Peer::bind("slow"), Peer::bind("silent"));
    let group = Scripted::start(&[&slow, &silent], "");
    let (mut slow_line, mut silent_line) = (slow.accept_only(), silent.accept_only());
    let began = Instant::now();
    let dripper = thread::spawn(move || {
        // A WebSocket frame of 125 bytes whose last byte never comes in time.
        let _ = slow_line.tcp().write_all(&[0x82, 125]);
        while slow_line.tcp().write_all(&[1]).is_ok() {
            if let Some(heard) = slow_line.next_within(Duration::from_millis(50)) {
                return heard;
            }
        }
        Heard::Closed
    });
    let (code, text) = final_error(&mut silent_line);
    assert_eq!((code, text.as_str()), (ErrorCode::Unexpected, "no READY and HELD within 3 s of the connection"));
    assert!(matches!(dripper.join().unwrap(), Heard::Error(ErrorCode::Unexpected, _)));
    assert!(began.elapsed() < Duration::from_secs(6), "both errors came after {:?}", began.elapsed());
    group.dispatcher.wait_for_line("error=\"no READY and HELD within 3 s of the connection\"", DEADLINE).unwrap();
}

#[test]
fn a_peer_that_pings_without_reading_loses_its_link() {
    let (silent, good) = (Peer::bind("silent"), Peer::bind("good"));
    let mut group = Scripted::start(&[&silent, &good], "--link-timeout-ms 2000");
    let mut silent_line = silent.accept(1_000);
    let mut good_line = good.accept(1_000);
    let connection = &mut group.client();
    wait_until_listed(connection, &["silent", "good"]);
    // It sends pings and reads nothing.
    let pinging = thread::spawn(move || {
        let mut ping = || silent_line.try_send_raw(Message::Ping(Vec::new().into()));
        while ping() {
            thread::sleep(Duration::from_millis(50));
        }
    });
    // More than the sockets' buffers hold.
    let payloads: Vec<String> = (0..500).map(|n| format!("{n:03}{}", "x".repeat(60_000))).collect();
    publish_payloads(connection, &payloads);
    while state(connection).0 > 0 {
        if let Some(Heard::Process { id, .. }) = good_line.next_within(Duration::from_millis(50)) {
            good_line.send(&[Frame::Ack(vec![id])]);
        }
    }
    group.dispatcher.wait_for_line("reason=\"it has read nothing for 4000 ms\"", DEADLINE).unwrap();
    pinging.join().unwrap();
}

fn epoch(connection: &mut Connection) -> u64 {
    run(connection, &["GET", "messages:epoch"])
}

/// Refuses the next dispatcher, like a consumer that has seen a higher epoch.
fn refuse(peer: &Peer, text: &str) {
    let mut line = peer.accept_only();
    line.send(&[Frame::Error { code: ErrorCode::Stale, text }]);
    while !matches!(line.next(), Heard::Closed) {}
}

#[test]
fn a_leader_steps_over_a_plausible_higher_epoch_and_ignores_others() {
    let peer = Peer::bind("witness");
    let mut group = Scripted::start(&[&peer], "");
    let connection = &mut group.client();
    let before = epoch(connection);
    let now_ms = wall_clock_us() / 1_000;
    // Each of these is implausible, not higher, or malformed.
    let (far, old) = (now_ms + 100 * 3_600 * 1_000, before - 1);
    for text in [
        format!("seen {}: it is over", u64::MAX),
        format!("seen {far}: it is over"),
        format!("seen {old}: it is over"),
        format!("this consumer has seen epoch {}", now_ms + 1_000),
        "seen : it is over".to_owned(),
        "seen +5: it is over".to_owned(),
    ] {
        refuse(&peer, &text);
    }
    let mut line = peer.accept_only();
    line.send(&[ready(1, "witness"), Frame::Held(Vec::new())]);
    publish_payloads(connection, ["1"]);
    let (id, ..) = line.next_message();
    line.send(&[Frame::Result { id, fields: vec![Field { name: b"n", value: b"1" }] }]);
    wait_until_done(connection, 1);
    assert_eq!(epoch(connection), before, "none of these ended the term");
    drop(line);
    // This one is plausible: Redis may have come back with an older clock.
    let seen = Epoch(now_ms + 3_600 * 1_000);
    refuse(&peer, &oncecast::wire::seen_text(seen, "it is over"));
    wait_until("a term above what was seen", || (epoch(connection) > seen.0).then_some(()));
    group.dispatcher.wait_for_line("event=term-ended reason=epoch-behind", DEADLINE).unwrap();
    // The leader does not follow such claims again and again.
    let raised = epoch(connection);
    for n in 0..3 {
        refuse(&peer, &oncecast::wire::seen_text(Epoch(raised + 1_000 + n), "it is over"));
    }
    let mut line = peer.accept(1);
    publish_payloads(connection, ["2"]);
    let (id, ..) = line.next_message();
    line.send(&[Frame::Result { id, fields: vec![Field { name: b"n", value: b"2" }] }]);
    wait_until_done(connection, 2);
    assert_eq!(epoch(connection), raised);
}
