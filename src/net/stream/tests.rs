use std::io::ErrorKind;
use std::net::TcpListener;
use std::thread;

use super::*;

const LONG: Duration = Duration::from_secs(60);

/// A stream and its peer.
fn pair() -> (Stream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let peer = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    (Stream::over_tcp(listener.accept().expect("it connects").0).expect("options"), peer)
}

/// Sends a byte now and then until the other side is closed.
fn drip(mut peer: TcpStream) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        while peer.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    })
}

fn kind<T>(outcome: io::Result<T>) -> ErrorKind {
    outcome.map(drop).expect_err("it fails").kind()
}

#[test]
fn each_call_has_its_time() {
    let limit = Duration::from_millis(50);
    let (mut stream, mut peer) = pair();
    stream.set_read_wait(Wait::Each(limit)).expect("an option");
    let began = Instant::now();
    assert_eq!(kind(stream.read(&mut [0])), ErrorKind::TimedOut);
    assert!(began.elapsed() >= limit);
    peer.write_all(b"x").expect("it is buffered");
    assert_eq!(stream.read(&mut [0; 2]).expect("a byte has come"), 1);
    let (unix, _peer) = UnixStream::pair().expect("a pair");
    let mut stream = Stream::over_unix(unix).expect("options");
    stream.set_write_wait(Wait::Each(limit)).expect("an option");
    stream.set_keepalive(Keepalive { after: LONG, every: LONG }).expect("nothing to set");
    assert_eq!(kind(stream.write_all(&vec![0; 64 << 20])), ErrorKind::TimedOut);
}

#[test]
fn a_peer_that_drips_meets_the_deadline() {
    let (mut stream, peer) = pair();
    let limit = Duration::from_millis(300);
    let began = Instant::now();
    stream.set_wait(Wait::Until(began + limit)).expect("an option");
    let dripper = drip(peer);
    let mut byte = [0];
    let late = loop {
        if let Err(error) = stream.read_exact(&mut byte) {
            break error;
        }
    };
    assert_eq!(late.kind(), ErrorKind::TimedOut);
    assert!((limit..LONG).contains(&began.elapsed()));
    assert_eq!(kind(stream.write(b"x")), ErrorKind::TimedOut, "the deadline is for both directions");
    drop(stream);
    dripper.join().expect("it ended");
}

#[test]
fn a_stream_that_never_waits_can_wait_again() {
    let (mut stream, mut peer) = pair();
    stream.set_wait(Wait::Never).expect("our own socket");
    assert_eq!(kind(stream.read(&mut [0])), ErrorKind::WouldBlock);
    let chunk = vec![0; 1 << 20];
    while stream.write(&chunk).is_ok() {}
    let written = stream.written_bytes();
    assert!(written > 0 && stream.write(&chunk).is_err() && stream.written_bytes() == written);
    stream.set_wait(Wait::Until(Instant::now() + LONG)).expect("our own socket");
    let writer = thread::spawn(move || stream.write_all(b"end").map(|()| stream));
    let mut rest = vec![0; written as usize + 3];
    peer.read_exact(&mut rest).expect("all of it comes");
    assert!(rest.ends_with(b"end"));
    writer.join().expect("no panic").expect("the peer has read");
}

#[test]
fn halves_work_at_the_same_time_and_each_ends_the_whole() {
    for by_reader in [true, false] {
        let (stream, mut peer) = pair();
        let (mut reader, mut writer) = stream.split();
        writer.set_wait(Wait::Each(LONG)).expect("an option");
        thread::scope(|scope| {
            let reading = scope.spawn(move || {
                let mut byte = [0];
                reader.read_exact(&mut byte).expect("it came");
                if by_reader {
                    reader.shutdown();
                }
                reader.read(&mut byte)
            });
            writer.write_all(b"from us").expect("it is buffered, while the other half waits");
            let mut received = [0; 7];
            peer.read_exact(&mut received).expect("it came");
            assert_eq!(&received, b"from us");
            peer.write_all(b"x").expect("it is buffered");
            if by_reader {
                assert_eq!(peer.read(&mut received).expect("the end"), 0);
            } else {
                writer.shutdown();
            }
            assert_eq!(reading.join().expect("no panic").expect("the end"), 0);
        });
    }
}

#[test]
fn a_closer_wakes_blocked_calls() {
    let (mut stream, _peer) = pair();
    let closer = stream.closer();
    let waiting = thread::spawn(move || stream.read(&mut [0]));
    closer.shutdown();
    assert_eq!(waiting.join().expect("no panic").expect("the end"), 0);
}

#[test]
fn the_last_bytes_written_arrive_although_not_all_was_read() {
    let (mut stream, mut peer) = pair();
    let sent = vec![0; 1 << 20];
    let sender = thread::spawn(move || {
        peer.write_all(&sent).expect("it is read, though for nothing");
        let mut answer = String::new();
        peer.read_to_string(&mut answer).map(|_| answer)
    });
    stream.set_wait(Wait::Never).expect("our own socket");
    stream.write_all(b"no").expect("it is buffered");
    stream.linger(Instant::now() + LONG, None);
    drop(stream);
    assert_eq!(sender.join().expect("no panic").expect("no reset"), "no");
}

#[test]
fn lingering_ends_by_time_and_by_bytes() {
    let (mut stream, peer) = pair();
    let limit = Duration::from_millis(200);
    let dripper = drip(peer);
    let began = Instant::now();
    stream.linger(began + limit, None);
    assert!((limit..LONG).contains(&began.elapsed()));
    stream.linger(Instant::now() + LONG, Some(3));
    assert!(began.elapsed() < LONG);
    drop(stream);
    dripper.join().expect("it ended");
}
