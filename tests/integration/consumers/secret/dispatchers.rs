//! A dispatcher with a secret, and what is not its consumer: one with no secret, with another one, and one that plays
//! back what a true consumer has answered.

use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use oncecast::base::id::MessageId;
use oncecast::lab::ports;
use oncecast::wire::{self, ErrorCode, Field, Frame, NONCE_HEADER, PROOF_HEADER, ReadyFlags};
use tungstenite::handshake::server::{Request, Response};
use tungstenite::{Message, WebSocket};

use super::wire_tap::{WireTap, header};
use super::{SECRET, consumer, consumer_at, dispatcher, metric, with};
use crate::support::secret::SecretFile;
use crate::support::{
    DEADLINE, assert_each_once, client, publish, redis_server, skipped, status, stream, wait_until, wait_until_done,
};

/// What an impostor is told.
#[derive(Default)]
struct Told {
    /// ERROR 11.
    refusals: AtomicU64,
    /// Any other frame.
    others: AtomicU64,
}

/// What an impostor answers handshakes with: the headers that were recorded, if there are any.
type Recorded = Option<(String, String)>;

/// Answers each dispatcher as a consumer without Redis would, without waiting for LEAD, and at once with results for
/// ids of messages that may be pending. Counts what it is told. Ends with the test.
fn impostor(recorded: Recorded, told: Arc<Told>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            stream.set_read_timeout(Some(DEADLINE)).expect("set");
            #[allow(clippy::result_large_err)]
            let answer = |_: &Request, mut response: Response| {
                if let Some((nonce, proof)) = &recorded {
                    response.headers_mut().insert(NONCE_HEADER, nonce.parse().expect("a header's value"));
                    response.headers_mut().insert(PROOF_HEADER, proof.parse().expect("a header's value"));
                }
                Ok(response)
            };
            let Ok(mut socket) = tungstenite::accept_hdr(stream, answer) else { continue };
            let ready = Frame::Ready { prefetch: 1_000, flags: ReadyFlags(0), consumer: "impostor" }.to_vec();
            let result = Frame::Result {
                id: MessageId(1_790_000_000_000_000),
                fields: vec![Field { name: b"message_id", value: b"forged" }],
            };
            let all = [ready, Frame::Held(vec![MessageId(1_790_000_000_000_000)]).to_vec(), result.to_vec()].concat();
            let _ = socket.send(Message::binary(all));
            read(&mut socket, &told);
        }
    });
    address
}

/// Reads until the end.
fn read(socket: &mut WebSocket<TcpStream>, told: &Told) {
    while let Ok(message) = socket.read() {
        let Message::Binary(message) = message else { continue };
        for frame in wire::frames(&message) {
            match frame.expect("a frame") {
                Frame::Error { code: ErrorCode::NotAuthenticated, .. } => told.refusals.fetch_add(1, Ordering::Relaxed),
                _ => told.others.fetch_add(1, Ordering::Relaxed),
            };
        }
    }
}

#[test]
fn who_only_plays_back_a_consumers_answer_gets_no_message_and_records_nothing() {
    let (redis, file) = (redis_server(), SecretFile::new("impostor", &[SECRET]));
    let (truth, address) = consumer(&redis, &with(&file));
    let tap = WireTap::to(address);
    let told = [Arc::<Told>::default(), Arc::default()];
    let connection = &mut client(&redis.url());
    // A true answer is recorded first.
    {
        let _before = dispatcher(&redis, "d0", std::slice::from_ref(&tap.address), &with(&file));
        truth.wait_for_line("event=dispatcher-rules", DEADLINE).expect("the link is up");
    }
    let value = |name: &str| header(&tap.answered(), name).expect("the consumer has proved it");
    let recorded = (value(NONCE_HEADER), value(PROOF_HEADER));
    let impostors = [impostor(Some(recorded), told[0].clone()), impostor(None, told[1].clone())];
    let metrics = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
    let addresses = [address.to_string(), impostors[0].clone(), impostors[1].clone()];
    let seen = truth.stderr().count();
    let args = format!("{} --metrics-addr {metrics}", with(&file));
    let dispatcher = dispatcher(&redis, "d1", &addresses, &args);
    truth.stderr().wait_for_after(seen, "event=dispatcher-rules", DEADLINE).expect("the link is up");
    publish(connection, "m", 0..500);
    wait_until_done(connection, 500);
    assert_each_once(connection, &(0..500).map(|n| format!("m{n}")).collect::<Vec<_>>());
    for (told, says) in told.iter().zip(["proves another link secret", "proves no link secret"]) {
        wait_until("several attempts", || (told.refusals.load(Ordering::Relaxed) >= 3).then_some(()));
        let line = dispatcher.wait_for_line(says, DEADLINE).expect("it is logged");
        assert!(line.contains("event=consumer-unreachable") && line.contains("--link-secret-file"), "{line}");
        assert_eq!(told.others.load(Ordering::Relaxed), 0, "neither LEAD nor a message");
    }
    let counted = metric(&metrics, "oncecast_links_unauthenticated_total").expect("it is served");
    assert!(counted >= 6, "{counted}");
    assert_eq!(stream(connection, "messages:dead"), []);
    let notes = wait_until("the status", || {
        let (shown, _) = status(&redis.url());
        shown.lines().find(|line| line.starts_with("note") && line.contains("link secret")).map(str::to_owned)
    });
    assert!(impostors.iter().all(|address| notes.contains(address)) && !notes.contains(&addresses[0]), "{notes}");
}

#[test]
fn a_dispatcher_without_the_secret_says_which_setting_to_give() {
    let (redis, file) = (redis_server(), SecretFile::new("without", &[SECRET]));
    let other = SecretFile::new("other", &["a secret of another group"]);
    let (_consumer, address) = consumer(&redis, &with(&file));
    for (name, args, says) in [
        ("d0", String::new(), "this consumer has a link secret and the dispatcher none"),
        ("d1", with(&other), "proves another link secret"),
    ] {
        let dispatcher = dispatcher(&redis, name, &[address.to_string()], &args);
        let line = dispatcher.wait_for_line(says, DEADLINE).expect("it is logged");
        assert!(line.contains("event=consumer-unreachable") && line.contains("--link-secret-file"), "{line}");
    }
    let right = dispatcher(&redis, "d2", &[address.to_string()], &with(&file));
    right.wait_for_line("event=consumer-linked", DEADLINE).expect("the link is up");
}

/// An address of this machine beyond loopback, if it has one.
fn outer_address() -> Option<IpAddr> {
    // Nothing is sent: this asks for the route to an address for documentation.
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback() && !address.is_unspecified())
}

#[test]
fn the_status_notes_a_consumer_that_admits_anyone_beyond_loopback() {
    let Some(outer) = outer_address() else { return skipped("this machine has only loopback") };
    for (number, secret) in [None, Some(SecretFile::new("outer", &[SECRET]))].into_iter().enumerate() {
        let redis = redis_server();
        let args = secret.as_ref().map(with).unwrap_or_default();
        let port = ports::free_port().expect("a free port");
        let address = format!("{outer}:{port}");
        let _consumer = consumer_at(&redis, &format!("--listen {address} --consumer-id c{number} {args}"));
        let dispatcher = dispatcher(&redis, "d0", &[address], &args);
        dispatcher.wait_for_line("event=consumer-linked", DEADLINE).expect("the link is up");
        let shown = wait_until("the status", || Some(status(&redis.url()).0).filter(|shown| shown.contains("linked,")));
        let note =
            shown.contains(&format!("may claim to be the dispatcher (--link-secret-file on both sides): c{number}"));
        assert_eq!(note, secret.is_none(), "{shown}");
    }
}

#[test]
fn a_secret_that_can_not_be_used_ends_a_program_at_the_start() {
    use std::os::unix::fs::PermissionsExt;
    let file = SecretFile::new("unusable", &[SECRET]);
    let check = |says: &str| {
        for (program, args) in [("oncecast-consumer", ""), ("oncecast-dispatcher", "--consumers 127.0.0.1:1")] {
            let mut command = crate::support::programs().command(program).expect("it is built");
            command.args(["--link-secret-file", &file.path().display().to_string()]).args(args.split_whitespace());
            let output = command.output().expect("it starts");
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{program}: {text}");
            assert!(text.contains(says) && text.contains(&file.path().display().to_string()), "{program}: {text}");
            assert!(text.contains("--link-secret-file (ONCECAST_LINK_SECRET_FILE)"), "{program}: {text}");
        }
    };
    file.write(&["short"]);
    check("secret 1 does not have 16 to 1024 bytes");
    file.write(&[SECRET, SECRET, SECRET]);
    check("3 secrets");
    file.write(&[SECRET]);
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).expect("our own");
    check("every user of this machine can read this secret");
}
