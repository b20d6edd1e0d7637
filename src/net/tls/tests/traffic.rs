//! What is written arrives, whatever the peer and the socket do.

use super::*;

fn pattern(bytes: usize, seed: u8) -> Vec<u8> {
    (0..bytes).map(|at| (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8) ^ seed).collect()
}

#[test]
fn large_data_goes_both_ways_at_the_same_time() {
    const BYTES: usize = 16 << 20;
    let (near, far) = secured();
    thread::scope(|scope| {
        for (stream, own, other) in [(near, 1, 2), (far, 2, 1)] {
            let (mut reader, mut writer) = stream.split();
            scope.spawn(move || {
                writer.write_all(&pattern(BYTES, own)).expect("it is read");
                writer.closer().finish_writing();
            });
            scope.spawn(move || {
                let mut received = vec![0; BYTES];
                reader.read_exact(&mut received).expect("it is written");
                assert!(received == pattern(BYTES, other));
                assert_eq!(reader.read(&mut received).expect("the end"), 0, "a goodbye");
            });
        }
    });
}

/// Passes bytes on in pieces of one to a few bytes, so that no record arrives whole.
fn crumble(mut from: TcpStream, mut to: TcpStream) {
    let mut random = fastrand::Rng::with_seed(7);
    let mut buffer = [0; 2048];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let piece = random.usize(1..=7).min(rest.len());
            if to.write_all(&rest[..piece]).is_err() {
                return;
            }
            rest = &rest[piece..];
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[test]
fn records_in_crumbs_are_put_together() {
    let folder = Folder::new();
    let ca = folder.authority("ca");
    let server = server_tls(folder.identity(&ca, "server", &["127.0.0.1"], |_| {}), None);
    let client = client_tls(&folder.path("ca.pem"), None);
    let ((near, a), (b, far)) = (raw_sockets(), raw_sockets());
    for socket in [&a, &b] {
        socket.set_nodelay(true).expect("an option");
    }
    let clone = |socket: &TcpStream| socket.try_clone().expect("a socket");
    let (there, back) = ((clone(&a), clone(&b)), (b, a));
    let pumps = [thread::spawn(move || crumble(there.0, there.1)), thread::spawn(move || crumble(back.0, back.1))];
    let (mut near, mut far) = (Stream::over_tcp(near).expect("options"), Stream::over_tcp(far).expect("options"));
    let (ours, theirs) = shake(&mut near, &client, &mut far, &server);
    ours.and(theirs).expect("they trust each other");
    let sent = pattern(100_000, 3);
    thread::scope(|scope| {
        scope.spawn(|| near.write_all(&sent).expect("it is read"));
        // A call that times out in the middle of a record loses nothing.
        far.set_read_wait(Wait::Each(Duration::from_millis(1))).expect("an option");
        let (mut received, mut buffer) = (Vec::new(), [0; 999]);
        let deadline = Instant::now() + LONG;
        while received.len() < sent.len() {
            assert!(Instant::now() < deadline, "{} bytes have come", received.len());
            match far.read(&mut buffer) {
                Ok(count) => received.extend_from_slice(&buffer[..count]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut),
            }
        }
        assert!(received == sent);
    });
    drop((near, far));
    pumps.into_iter().for_each(|pump| pump.join().expect("no panic"));
}

#[test]
fn a_stream_that_never_waits_writes_all_when_the_same_bytes_are_offered_again() {
    let (mut near, mut far) = secured();
    near.set_wait(Wait::Never).expect("our own socket");
    assert_eq!(near.read(&mut [0]).expect_err("nothing has come").kind(), ErrorKind::WouldBlock);
    let sent = pattern(32 << 20, 4);
    let reading = thread::spawn(move || {
        let mut received = Vec::new();
        far.read_to_end(&mut received).map(|_| received)
    });
    let (mut rest, mut blocked) = (&sent[..], 0);
    let deadline = Instant::now() + LONG;
    while !rest.is_empty() {
        match near.write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                assert!(Instant::now() < deadline);
                blocked += 1;
            }
        }
    }
    assert!(blocked > 0, "the peer is slower than this loop");
    assert!(near.written_bytes() > sent.len() as u64, "what the system took is counted, so with what TLS adds");
    drop(near);
    assert!(reading.join().expect("no panic").expect("the end") == sent);
}

#[test]
fn a_write_that_timed_out_goes_on_where_it_stopped() {
    let (mut near, mut far) = secured();
    near.set_write_wait(Wait::Each(Duration::from_millis(20))).expect("an option");
    let sent = pattern(16 << 20, 5);
    let mut rest = &sent[..];
    let late = loop {
        match near.write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) => break error,
        }
    };
    assert_eq!(late.kind(), ErrorKind::TimedOut);
    let other = near.write(&rest[..1]).expect_err("a part of the bytes is on its way");
    assert_eq!(other.kind(), ErrorKind::InvalidInput);
    let reading = thread::spawn(move || {
        let mut received = Vec::new();
        far.read_to_end(&mut received).map(|_| received)
    });
    near.set_write_wait(Wait::Each(LONG)).expect("an option");
    near.write_all(rest).expect("it is read now");
    drop(near);
    assert!(reading.join().expect("no panic").expect("the end") == sent);
}

#[test]
fn a_deadline_holds_for_single_bytes_and_for_silence() {
    let (mut near, mut far) = secured();
    let limit = Duration::from_millis(200);
    let began = Instant::now();
    near.set_read_wait(Wait::Until(began + limit)).expect("an option");
    far.write_all(b"ab").expect("it is buffered");
    let mut received = [0; 3];
    assert_eq!(near.read_exact(&mut received).expect_err("a byte is missing").kind(), ErrorKind::TimedOut);
    assert!((limit..LONG).contains(&began.elapsed()) && received.starts_with(b"ab"));
    near.set_read_wait(Wait::Each(limit)).expect("an option");
    assert_eq!(near.read(&mut received).expect_err("silence").kind(), ErrorKind::TimedOut);
    far.write_all(b"c").expect("it is buffered");
    assert_eq!(near.read(&mut received).expect("it has come"), 1);
}

#[test]
fn a_closer_wakes_blocked_calls_and_the_peer_sees_the_end() {
    let (near, mut far) = secured();
    let closer = near.closer();
    let (mut reader, mut writer) = near.split();
    let reading = thread::spawn(move || reader.read(&mut [0]));
    let writing = thread::spawn(move || {
        loop {
            if let Err(error) = writer.write(&[0; 1 << 16]) {
                break error;
            }
        }
    });
    // Until the writer is in the middle of a part.
    far.read_exact(&mut [0; 1 << 16]).expect("it comes");
    closer.shutdown();
    assert_eq!(reading.join().expect("no panic").expect("the end"), 0);
    writing.join().expect("no panic");
    let mut rest = Vec::new();
    // Cut off in the middle of a record or not, it is the end.
    far.read_to_end(&mut rest).expect("the end");
}

#[test]
fn the_end_of_one_direction_leaves_the_other() {
    let (mut near, mut far) = secured();
    near.write_all(b"question").expect("it is buffered");
    near.closer().finish_writing();
    let answering = thread::spawn(move || {
        let mut question = String::new();
        far.read_to_string(&mut question).expect("the end");
        far.write_all(question.to_uppercase().as_bytes()).map(|()| far)
    });
    let mut answer = [0; 8];
    near.read_exact(&mut answer).expect("it comes");
    assert_eq!(&answer, b"QUESTION");
    drop(answering.join().expect("no panic").expect("it is read"));
    assert_eq!(near.read(&mut answer).expect("the end"), 0);
}
