//! `WAIT` behind what a leader stores: confirmed, by too few, and refused.

use super::transactions::other;
use super::*;
use crate::base::refusal::Refusal;

/// A user who may do anything.
const RIGHTS: [&str; 8] = ["ACL", "SETUSER", "u", "on", ">pw", "~*", "&*", "+@all"];

/// A server with `config`, and a ledger whose user is `u` and whose intake needs one replica.
fn waiting(config: &[(&str, &str)]) -> Fixture {
    let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let redis = RedisServer::start(RedisOptions { config, ..RedisOptions::default() }).expect("a private Redis starts");
    redis.connection().query("testing", Command::of(&RIGHTS)).expect("it is made");
    let url = redis.url().replace("://", "://u:pw@");
    let server = Server::parse(&url).expect("a URL");
    let ledger = Ledger::new(server, Arc::new(Keys::new("messages")), Duration::from_secs(10)).confirmed_by(1);
    Fixture { redis, ledger }
}

fn replica_of(f: &Fixture) -> RedisServer {
    let primary = ("replicaof".to_owned(), format!("127.0.0.1 {}", f.redis.port()));
    let replica = RedisServer::start(RedisOptions { config: vec![primary], ..RedisOptions::default() });
    let replica = replica.expect("a private Redis starts");
    let mut connection = other(f).connection;
    wait_until(Duration::from_secs(20), "the replica to be in sync", || {
        // A replica that is in sync confirms.
        let confirmed = connection.query("testing", Command::of(&["WAIT", "1", "1"]))?;
        let role = connection.query("testing", Command::of(&["INFO", "replication"]))?;
        let Value::BulkString(role) = role else { panic!("a text: {role:?}") };
        let online = String::from_utf8_lossy(&role).contains("state=online");
        Ok((online && confirmed == Value::Int(1)).then_some(()))
    })
    .expect("it gets in sync");
    replica
}

/// What the server holds: pending messages.
fn pending(f: &Fixture) -> Value {
    other(f).connection.query("testing", Command::of(&["ZCARD", "messages:pending"])).expect("it answers")
}

/// Stores one message after those up to `from`; the cursor that it leaves.
fn store(f: &mut Fixture, epoch: Epoch, from: Option<&Cursor>, id: u64) -> Result<Cursor> {
    match f.ledger.intake(epoch, from, &cursor("m", id, id), &[arrival(id, b"x")])? {
        IntakeAnswer::Taken(cursor) => Ok(cursor),
        other => panic!("{other:?}"),
    }
}

/// The same until the replica has confirmed it, which on a busy machine may take longer than one `WAIT`.
fn confirmed(f: &mut Fixture, epoch: Epoch, from: Option<&Cursor>, id: u64) -> Cursor {
    wait_until(Duration::from_secs(20), "the replica to confirm", || match store(f, epoch, from, id) {
        Err(Error::Unreplicated { .. }) => Ok(None),
        stored => stored.map(Some),
    })
    .expect("it is confirmed")
}

#[test]
fn a_replica_confirms_scripts_and_transactions() {
    let mut f = waiting(&[("repl-diskless-sync-delay", "0")]);
    let _replica = replica_of(&f);
    let epoch = f.acquire(&DispatcherId::generate("a"), Epoch(0)).epoch;
    let mut last = None;
    for id in 1..=5 {
        last = Some(confirmed(&mut f, epoch, last.as_ref(), id));
    }
    assert_eq!(pending(&f), Value::Int(5));
}

#[test]
fn what_too_few_replicas_have_is_stored_once_and_counts_when_one_has_it() {
    let mut f = waiting(&[("repl-diskless-sync-delay", "0")]);
    let epoch = f.acquire(&DispatcherId::generate("a"), Epoch(0)).epoch;
    let error = store(&mut f, epoch, None, 1).expect_err("there is none");
    assert!(matches!(error, Error::Unreplicated { confirmed: 0, wanted: 1, .. }), "{error}");
    let text = error.to_string();
    for part in ["only 0 of 1 replicas", "--wait-replicas", "INFO replication", &f.redis.port().to_string()] {
        assert!(text.contains(part), "no {part}: {text}");
    }
    assert_eq!(pending(&f), Value::Int(1), "it is stored, but does not count");
    let _replica = replica_of(&f);
    let taken = confirmed(&mut f, epoch, None, 1);
    assert!(taken.last_id > MessageId(1), "no cursor is written twice");
    assert_eq!(pending(&f), Value::Int(1));
    confirmed(&mut f, epoch, Some(&taken), taken.last_id.0 + 1);
}

/// Otherwise the next leader would deliver it.
#[test]
fn nothing_is_stored_if_the_user_may_not_wait() {
    let mut f = waiting(&[("repl-diskless-sync-delay", "0")]);
    let _replica = replica_of(&f);
    let epoch = f.acquire(&DispatcherId::generate("a"), Epoch(0)).epoch;
    f.run(&["ACL", "SETUSER", "u", "-wait"]);
    for _ in 0..2 {
        let error = store(&mut f, epoch, None, 1).expect_err("it is refused");
        assert!(error.is_denied(), "the term ends, since another dispatcher may have the right: {error}");
        let text = error.to_string();
        assert!(text.contains("waiting for replicas (--wait-replicas)") && text.contains("+wait"), "{text}");
        assert!(!text.contains("its key"), "{text}");
        assert_eq!(pending(&f), Value::Int(0));
    }
    other(&f).connection.query("testing", Command::of(&["ACL", "SETUSER", "u", "+wait"])).expect("it is given");
    confirmed(&mut f, epoch, None, 1);
}

#[test]
fn nothing_is_stored_if_the_server_does_not_have_the_command() {
    let mut f = waiting(&[("rename-command", "WAIT renamed-wait")]);
    let epoch = f.acquire(&DispatcherId::generate("a"), Epoch(0)).epoch;
    let error = store(&mut f, epoch, None, 1).expect_err("it is refused");
    assert_eq!(error.refusal(), Some(Refusal::UnknownCommand), "{error}");
    assert!(error.to_string().contains("WAIT"), "{error}");
    assert_eq!(pending(&f), Value::Int(0));
}

/// Behind a script and behind a transaction. What the refusal meets is stored, counts when the right is back, and is
/// stored once.
#[test]
fn a_right_that_is_withdrawn_between_two_steps_is_named() {
    let mut f = waiting(&[("repl-diskless-sync-delay", "0")]);
    let _replica = replica_of(&f);
    let epoch = f.acquire(&DispatcherId::generate("a"), Epoch(0)).epoch;
    let admin = |f: &Fixture, right: &str| {
        other(f).connection.query("testing", Command::of(&["ACL", "SETUSER", "u", right])).expect("it is set");
    };
    let mut last = confirmed(&mut f, epoch, None, 1);
    for (stored, by_script) in [(2, false), (3, true), (4, false)] {
        admin(&f, "-wait");
        let id = last.last_id.0 + 1;
        if by_script {
            f.ledger.attempts.vouched = None;
        }
        for _ in 0..2 {
            let error = store(&mut f, epoch, Some(&last), id).expect_err("it is refused");
            assert!(error.is_denied() && error.to_string().contains("+wait"), "{error}");
            assert_eq!(pending(&f), Value::Int(stored));
        }
        admin(&f, "+wait");
        last = confirmed(&mut f, epoch, Some(&last), id);
        assert_eq!(pending(&f), Value::Int(stored));
    }
}
