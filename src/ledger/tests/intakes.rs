//! Intakes in transactions: fenced, whole, and done once however late an attempt arrives.

use super::transactions::{counts, led, other};
use super::*;

#[test]
fn an_intake_in_a_transaction_is_fenced_like_the_script() {
    let mut f = fixture();
    let epoch = led(&mut f, &[1]);
    // The first intake used the script, these don't: Redis counts no more calls of it.
    f.run(&["CONFIG", "RESETSTAT"]);
    f.pend(epoch, &[2]);
    f.pend(epoch, &[3]);
    let Value::BulkString(calls) = f.run(&["INFO", "commandstats"]) else { panic!("a text") };
    assert!(!String::from_utf8_lossy(&calls).contains("cmdstat_evalsha"), "it went through the script");
    let before = Some(cursor("m", 1, 3));
    f.acquire_by_another(Epoch(0));
    let batch = [arrival(4, b"x")];
    let error = f.ledger.intake(epoch, before.as_ref(), &cursor("m", 4, 4), &batch).expect_err("another leads");
    assert!(matches!(error, Error::Fenced { .. }), "{error}");
    assert_eq!((f.number(&["ZCARD", "messages:pending"]), f.ledger.cursor().unwrap()), (3, before));
}

#[test]
fn an_intake_notices_that_another_client_moved_the_cursor() {
    let mut f = fixture();
    let epoch = led(&mut f, &[1]);
    f.pend(epoch, &[2]);
    // On the leader's own connection a command would end the watch.
    let before = Some(cursor("m", 1, 2));
    other(&f).connection().query("testing", Command::of(&["DEL", "messages:cursor"])).expect("redis answers");
    let taken = f.ledger.intake(epoch, before.as_ref(), &cursor("m", 3, 3), &[arrival(3, b"x")]);
    assert_eq!(taken.expect("it leads"), IntakeAnswer::Moved(None));
    assert_eq!(f.number(&["ZCARD", "messages:pending"]), 2);
}

/// The script has stored the last batch, and nothing is watched yet.
#[test]
fn an_intake_notices_that_the_cursor_vanished_before_the_watch_began() {
    let mut f = fixture();
    let epoch = led(&mut f, &[1]);
    f.run(&["DEL", "messages:cursor"]);
    let before = Some(cursor("m", 1, 1));
    let taken = f.ledger.intake(epoch, before.as_ref(), &cursor("m", 2, 2), &[arrival(2, b"x")]);
    assert_eq!(taken.expect("it leads"), IntakeAnswer::Moved(None));
    assert_eq!(f.number(&["ZCARD", "messages:pending"]), 1);
}

#[test]
fn an_intake_that_can_t_add_its_members_moves_its_cursor_back() {
    let mut f = fixture();
    let epoch = led(&mut f, &[1]);
    f.pend(epoch, &[2]);
    let before = Some(cursor("m", 1, 2));
    // The type was right when the transaction was opened.
    f.ledger.fence.arm(&mut f.ledger.connection).expect("redis answers");
    other(&f).connection().query("testing", Command::of(&["SET", "messages:pending", "mine"])).expect("redis answers");
    let (next, batch) = (cursor("m", 3, 3), [arrival(3, b"x")]);
    let rewound = f.ledger.intake(epoch, before.as_ref(), &next, &batch).expect("it leads");
    assert!(
        matches!(&rewound, IntakeAnswer::Rewound(reason) if reason.contains("messages:pending is a string")),
        "{rewound:?}"
    );
    assert_eq!(f.ledger.cursor().expect("redis answers"), before);
    // From then on the script is used, which checks.
    let error = f.ledger.intake(epoch, before.as_ref(), &next, &batch).expect_err("a string takes no members");
    assert!(error.to_string().contains("messages:pending is a string"), "{error}");
    assert_eq!(f.ledger.cursor().expect("redis answers"), before);
    f.run(&["DEL", "messages:pending"]);
    assert_eq!(f.ledger.intake(epoch, before.as_ref(), &next, &batch).expect("it leads"), IntakeAnswer::Taken(next));
    assert_eq!(f.number(&["ZCARD", "messages:pending"]), 1);
}

/// A transaction whose ZADD failed and whose reply was lost.
#[test]
fn an_intake_that_only_moved_its_cursor_does_not_count_as_done() {
    let mut f = fixture();
    let epoch = led(&mut f, &[1]);
    let before = f.ledger.cursor().expect("redis answers");
    let (next, batch) = (cursor("m", 3, 3), [arrival(2, b"x"), arrival(3, b"x")]);
    f.run(&["SET", "messages:cursor", &next.to_string()]);
    f.run(&["DEL", "messages:pending"]);
    f.run(&["SET", "messages:pending", "mine"]);
    let mut again = other(&f);
    again.attempts.doubts.push(next.clone());
    let after = Cursor { last_id: MessageId(next.last_id.0 + 1), ..next.clone() };
    let error = again.intake(epoch, before.as_ref(), &next, &batch).expect_err("a string takes no members");
    assert!(error.to_string().contains("messages:pending is a string"), "{error}");
    f.run(&["DEL", "messages:pending"]);
    assert_eq!(
        again.intake(epoch, before.as_ref(), &next, &batch).expect("it leads"),
        IntakeAnswer::Taken(after.clone())
    );
    assert_eq!(f.number(&["ZCARD", "messages:pending"]), 2);
    // An intake that was done is not done again.
    let moved = other(&f).intake(epoch, before.as_ref(), &next, &batch).expect("it leads");
    assert_eq!(moved, IntakeAnswer::Moved(Some(after)));
}

/// The first attempt arrives after the second, which was done, and after the result.
#[test]
fn an_intake_that_comes_late_does_nothing() {
    let mut f = fixture();
    let epoch = led(&mut f, &[1]);
    let before = f.ledger.cursor().expect("redis answers");
    let (next, batch) = (cursor("m", 2, 2), [arrival(2, b"x")]);
    let mut second = other(&f);
    second.attempts.doubts.push(next.clone());
    assert!(matches!(second.intake(epoch, before.as_ref(), &next, &batch).expect("it leads"), IntakeAnswer::Taken(_)));
    assert_eq!(
        f.ledger.commit(None, None, Raise::Nothing, &[commit(1), commit(2)]).expect("redis answers").recorded,
        2
    );
    let late = other(&f).intake(epoch, before.as_ref(), &next, &batch).expect("it leads");
    assert!(matches!(late, IntakeAnswer::Moved(Some(_))), "{late:?}");
    assert_eq!(counts(&mut f), (2, 0));
}

/// Two attempts at a batch were cut off, and it was stored by halves. The second attempt arrives after the results. It
/// must not mistake the cursor for the one of the first attempt.
#[test]
fn an_attempt_at_the_whole_that_comes_after_the_halves_does_nothing() {
    let mut f = fixture();
    let epoch = led(&mut f, &[1]);
    let before = f.ledger.cursor().expect("redis answers");
    let batch = [2, 3, 4, 5].map(|id| arrival(id, b"x"));
    let whole = cursor("m", 5, 5);
    let first_attempts = [whole.clone(), cursor("m", 5, 6)];
    let mut leader = other(&f);
    leader.attempts.doubts = first_attempts.to_vec();
    leader.take_doubts();
    let middle = leader.intake(epoch, before.as_ref(), &cursor("m", 3, 3), &batch[..2]).expect("it leads");
    let IntakeAnswer::Taken(middle) = middle else { panic!("{middle:?}") };
    let end = leader.intake(epoch, Some(&middle), &whole, &batch[2..]).expect("it leads");
    assert!(matches!(&end, IntakeAnswer::Taken(end) if !first_attempts.contains(end)), "{end:?}");
    assert_eq!(
        f.ledger.commit(None, None, Raise::Nothing, &[1, 2, 3, 4].map(commit)).expect("redis answers").recorded,
        4
    );
    let mut late = other(&f);
    late.attempts.doubts = vec![whole.clone()];
    let late = late.intake(epoch, before.as_ref(), &whole, &batch).expect("it leads");
    assert!(matches!(late, IntakeAnswer::Moved(Some(_))), "{late:?}");
    assert_eq!(counts(&mut f), (4, 1));
}

/// However many attempts at a batch get no reply, none knows the cursor that a later one writes.
#[test]
fn each_attempt_without_an_answer_writes_a_cursor_of_its_own() {
    let mut f = fixture();
    let epoch = led(&mut f, &[1]);
    let before = f.ledger.cursor().expect("redis answers");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("redis://{}", silent.local_addr().expect("it listens"));
    let hangs_up = std::thread::spawn(move || (0..40).for_each(|_| drop(silent.accept().map(swallow))));
    let keys = Arc::new(Keys::new("messages"));
    let mut leader = Ledger::new(Server::parse(&url).expect("a URL"), keys, Duration::from_secs(10));
    let mut written = Vec::new();
    for _ in 0..40 {
        let error = leader.intake(epoch, before.as_ref(), &cursor("m", 2, 2), &[arrival(2, b"x")]);
        assert!(error.expect_err("it is cut off").is_broken_off());
        written.extend(leader.attempts.doubts.last().cloned());
    }
    hangs_up.join().expect("it does not panic");
    assert!(written.is_sorted_by(|one, next| one.last_id < next.last_id), "{written:?}");
}

/// Reads a little and closes, like a peer that dies in the middle of a command.
fn swallow((mut stream, _): (std::net::TcpStream, std::net::SocketAddr)) {
    let _ = std::io::Read::read(&mut stream, &mut [0; 64]);
}

/// The right to write the cursor is revoked between the transaction's commands and their execution.
#[test]
fn an_intake_whose_cursor_is_refused_leaves_no_members_behind() {
    let mut f = fixture();
    let epoch = led(&mut f, &[1]);
    let before = f.ledger.cursor().expect("redis answers");
    f.run(&["ACL", "SETUSER", "u", "on", ">p", "~*", "&*", "+@all"]);
    let (relay, go_on) = holding_exec(f.redis.port());
    let url = format!("redis://u:p@{relay}");
    let keys = Arc::new(Keys::new("messages"));
    let mut leader = Ledger::new(Server::parse(&url).expect("a URL"), keys, Duration::from_secs(10));
    let between = leader.intake(epoch, before.as_ref(), &cursor("m", 2, 2), &[arrival(2, b"x")]).expect("it leads");
    let IntakeAnswer::Taken(between) = between else { panic!("{between:?}") };
    let intake = std::thread::spawn(move || {
        let rewound = leader.intake(epoch, Some(&between), &cursor("m", 4, 4), &[3, 4].map(|id| arrival(id, b"x")));
        (rewound, between)
    });
    wait_until(Duration::from_secs(10), "both commands are queued", || {
        let Value::BulkString(clients) = f.run(&["CLIENT", "LIST"]) else { panic!("a text") };
        Ok(String::from_utf8_lossy(&clients).contains("multi=2").then_some(()))
    })
    .expect("they come");
    f.run(&["ACL", "SETUSER", "u", "-set"]);
    go_on.send(()).expect("it waits");
    let (rewound, between) = intake.join().expect("it does not panic");
    assert!(matches!(rewound, Ok(IntakeAnswer::Rewound(_))), "{rewound:?}");
    assert_eq!(f.ledger.cursor().expect("redis answers"), Some(between));
    assert_eq!(counts(&mut f), (0, 2), "what was added is gone: it will be taken in under other ids");
}

/// A relay in front of a server that holds back each `EXEC` until the test releases it. By then everything before it
/// has arrived. Serves one connection.
fn holding_exec(port: u16) -> (std::net::SocketAddr, crossbeam_channel::Sender<()>) {
    use std::io::{Read, Write};
    const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it listens");
    let (go_on, told) = crossbeam_channel::bounded(0);
    std::thread::spawn(move || -> std::io::Result<()> {
        let (mut near, _) = listener.accept()?;
        let mut far = std::net::TcpStream::connect(("127.0.0.1", port))?;
        let (mut from, mut to) = (far.try_clone()?, near.try_clone()?);
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        let mut buffer = [0; 4_096];
        loop {
            let count = near.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            let read = &buffer[..count];
            let held = read.windows(EXEC.len()).position(|part| part == EXEC).filter(|at| *at > 0).unwrap_or(count);
            far.write_all(&read[..held])?;
            if held < count {
                // Disconnected: the test is over.
                let _ = told.recv();
            }
            far.write_all(&read[held..])?;
        }
    });
    (address, go_on)
}

#[test]
fn a_foreign_cursor_counts_as_absent() {
    let mut f = fixture();
    f.run(&["SET", "messages:cursor", "foreign"]);
    assert_eq!(f.ledger.cursor().expect("redis answers"), None);
}
