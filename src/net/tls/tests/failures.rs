//! Each failure of a handshake is told apart, at both ends.

use super::*;

/// The failures of a client and a server, as sentences.
fn outcome(client: &ClientTls, server: &ServerTls) -> (Option<String>, Option<String>) {
    let (mut near, mut far) = sockets();
    let (ours, theirs) = shake(&mut near, client, &mut far, server);
    // With TLS 1.3 a client has ended its handshake before the server has judged its certificate.
    let ours = ours.and_then(|()| match theirs.is_err() {
        true => near.read(&mut [0]).map(drop),
        false => Ok(()),
    });
    let shown = |outcome: io::Result<()>| outcome.err().map(|error| problem(&error).to_string());
    (shown(ours), shown(theirs))
}

#[test]
fn certificates_of_servers_that_are_refused() {
    let folder = Folder::new();
    let (ca, _other) = (folder.authority("ca"), folder.authority("other"));
    let client = client_tls(&folder.path("ca.pem"), None);
    let old = folder.identity(&ca, "old", &["127.0.0.1"], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let early = folder.identity(&ca, "early", &["127.0.0.1"], |params| params.not_before = date_time_ymd(2999, 1, 1));
    let wrong = folder.identity(&ca, "wrong", &["redis.example"], |_| {});
    let good = folder.identity(&ca, "good", &["127.0.0.1"], |_| {});
    for (identity, said) in
        [(old, "expired "), (early, "becomes valid in "), (wrong, "is not for 127.0.0.1, but for redis.example")]
    {
        let (ours, theirs) = outcome(&client, &server_tls(identity, None));
        assert!(ours.as_ref().is_some_and(|text| text.contains(said)), "{said}: {ours:?}");
        assert!(theirs.is_some(), "the server is told");
    }
    let (ours, theirs) = outcome(&client_tls(&folder.path("other.pem"), None), &server_tls(good.clone(), None));
    assert!(ours.is_some_and(|text| text.contains("not signed by an authority in") && text.contains("other.pem")));
    assert!(theirs.is_some_and(|text| text.contains("refuses our certificate: it does not know its authority")));
    assert_eq!(outcome(&client, &server_tls(good, None)), (None, None));
}

#[test]
fn certificates_of_clients_that_are_required() {
    let folder = Folder::new();
    let (ca, other) = (folder.authority("ca"), folder.authority("other"));
    let roots = folder.path("ca.pem");
    let server = server_tls(folder.identity(&ca, "server", &["127.0.0.1"], |_| {}), Some(roots.clone()));
    let own = folder.identity(&ca, "client", &[], |_| {});
    assert_eq!(outcome(&client_tls(&roots, Some(own)), &server), (None, None));
    let (ours, theirs) = outcome(&client_tls(&roots, None), &server);
    assert_eq!(ours.as_deref(), Some("it requires a certificate from us"));
    assert!(theirs.is_some());
    let foreign = folder.identity(&other, "foreign", &[], |_| {});
    let (ours, theirs) = outcome(&client_tls(&roots, Some(foreign)), &server);
    assert_eq!(ours.as_deref(), Some("it refuses our certificate: it does not know its authority"));
    assert!(theirs.is_some_and(|text| text.contains("ca.pem")));
}

/// What a client says of a peer that does this.
fn said_of(answer: impl FnOnce(TcpStream) + Send + 'static, limit: Duration) -> (TlsProblem, ErrorKind) {
    let folder = Folder::new();
    folder.authority("ca");
    let client = client_tls(&folder.path("ca.pem"), None);
    let (near, far) = raw_sockets();
    let answering = thread::spawn(move || answer(far));
    let mut near = Stream::over_tcp(near).expect("options");
    let error = near.secure(&client, "127.0.0.1", Instant::now() + limit).expect_err("no TLS");
    drop(near);
    answering.join().expect("no panic");
    (problem(&error).clone(), error.kind())
}

#[test]
fn peers_that_speak_no_tls() {
    let answers = |text: &'static [u8]| {
        move |mut peer: TcpStream| {
            peer.write_all(text).expect("it is buffered");
            let _ = peer.read_to_end(&mut Vec::new());
        }
    };
    for text in [&b"-ERR unknown command\r\n"[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-"] {
        assert_eq!(said_of(answers(text), LONG).0, TlsProblem::NotTls, "{}", String::from_utf8_lossy(text));
    }
    let closes = |mut peer: TcpStream| drop(peer.read(&mut [0; 4096]));
    assert_eq!(said_of(closes, LONG).0, TlsProblem::Closed);
    let limit = Duration::from_millis(200);
    let is_silent = |mut peer: TcpStream| drop(peer.read_to_end(&mut Vec::new()));
    assert_eq!(said_of(is_silent, limit), (TlsProblem::Slow, ErrorKind::TimedOut));
    // Single bytes of a record that never ends don't extend the time.
    let drips = |mut peer: TcpStream| {
        let mut next = [0x16, 3, 3, 0x40, 0].iter().chain(std::iter::repeat(&2));
        while peer.write_all(&[*next.next().expect("endless")]).is_ok() {
            thread::sleep(Duration::from_millis(10));
        }
    };
    assert_eq!(said_of(drips, limit).0, TlsProblem::Slow);
}

#[test]
fn a_client_without_tls_is_known_to_a_server() {
    let folder = Folder::new();
    let ca = folder.authority("ca");
    let server = server_tls(folder.identity(&ca, "server", &["127.0.0.1"], |_| {}), None);
    let (mut near, far) = raw_sockets();
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("it is buffered");
    let mut far = Stream::over_tcp(far).expect("options");
    let error = far.secure_as_server(&server, Instant::now() + LONG).expect_err("no TLS");
    assert_eq!(problem(&error), &TlsProblem::NotTls);
}
