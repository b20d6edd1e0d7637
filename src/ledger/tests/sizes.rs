//! Replies and messages that are too large, and the largest that are not.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use super::super::resp::{MAX_REPLY_BYTES, MAX_REPLY_VALUES};
use super::super::subscription::Published;
use super::*;
use crate::base::refusal::Refusal;
use crate::wire::MAX_BODY_BYTES;

/// A server that answers the first command with these bytes, and then waits until the peer closes the connection.
fn answering(reply: &'static [u8]) -> (Server, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("redis://{}", listener.local_addr().expect("it is bound"));
    let answering = thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a peer");
        assert!(socket.read(&mut [0; 4096]).expect("it asks") > 0);
        socket.write_all(reply).expect("it reads");
        // An end of the stream or a reset.
        assert_eq!(socket.read(&mut [0; 4096]).unwrap_or(0), 0, "the connection is closed");
    });
    (Server::parse(&url).expect("a good URL"), answering)
}

#[test]
fn a_reply_that_is_larger_than_anything_asked_for_ends_the_connection() {
    for reply in [&b"$600000000\r\nxxxx"[..], b"*2\r\n:1\r\n$600000000\r\n", b"*900000000\r\n:1\r\n"] {
        let (server, peer) = answering(reply);
        let mut connection = Connection::new(server, Duration::from_secs(10));
        let error = connection.query("testing", Command::of(&["GET", "x"])).expect_err("it is too large");
        let text = error.to_string();
        assert_eq!(error.refusal(), Some(Refusal::TooLarge), "{text}");
        assert!(text.contains(&MAX_REPLY_BYTES.to_string()) && text.contains(&MAX_REPLY_VALUES.to_string()), "{text}");
        assert_eq!(Splitter::default().judge(&error, 2, || true), Split::Halve);
        assert_eq!(Splitter::default().judge(&error, 1, || true), Split::TooLarge);
        peer.join().expect("the connection was closed");
    }
}

/// Many small values are too large together.
#[test]
fn a_reply_that_grows_too_large_is_refused_and_its_parts_can_be_read() {
    let mut f = fixture();
    let large = "x".repeat(12 << 20);
    for _ in 0..5 {
        f.run(&["XADD", "messages:processed", "*", "message_id", &large]);
    }
    assert!(f.ledger.connection.query("testing", Command::of(&["XRANGE", "messages:processed", "-", "+"])).is_err());
    let mut position = reading::ReadPosition::default();
    let mut entries = 0;
    while let Some(page) =
        f.ledger.read_stream(reading::EntryStream::Processed, &mut position).expect("each can be read")
    {
        entries += page.len();
    }
    assert_eq!(entries, 5);
    // The largest message, alone and after the small ones that may precede it on a page.
    let epoch = f.epoch(7);
    let payload = "x".repeat(MAX_BODY_BYTES);
    f.pend(epoch, &(1..=300).collect::<Vec<_>>());
    f.run(&["ZADD", "messages:pending", "301", &format!("{:016x}:{payload}", 301)]);
    let page = f
        .ledger
        .page(epoch, part(MessageId::ZERO, MessageId(999), MAX_BATCH_MESSAGES, MAX_BATCH_BYTES))
        .expect("it fits");
    assert_eq!(page.messages.len(), 301);
    let fetched = f.ledger.fetch(epoch, &[MessageId(301)], MAX_BATCH_BYTES).expect("it fits").messages;
    assert_eq!(fetched.len(), 1);
}

/// A message larger than the receive buffer is never held as a whole, on any channel.
#[test]
fn a_huge_message_is_skipped_and_the_subscription_goes_on() {
    const HUGE_BYTES: usize = 48 << 20;
    let mut f = fixture();
    f.run(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0"]);
    let mut subscription = f.listen(&DispatcherId::generate("d0"));
    let huge = "x".repeat(HUGE_BYTES);
    for (channel, payload) in
        [("messages:published", huge.as_str()), ("messages:control", huge.as_str()), ("messages:published", "small")]
    {
        f.run(&["PUBLISH", channel, payload]);
    }
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(subscription.read().expect("it stands").expect("more comes").seen);
    }
    let [Seen::Published(Published::Oversize { excerpt, length }), Seen::Published(Published::Message(small))] =
        &seen[..]
    else {
        panic!("{seen:?}");
    };
    assert!(*length == Length::Payload(HUGE_BYTES as u64) && huge.as_bytes().starts_with(excerpt.payload()));
    assert_eq!(small.payload(), b"small");
}
