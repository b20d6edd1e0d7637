//! A server that Sentinels name: found, followed, and what is said when that is impossible.

use std::time::Instant;

use super::*;
use crate::lab::SentinelSet;

const LIMIT: Duration = Duration::from_secs(2);

fn set(replicas: usize) -> SentinelSet {
    SentinelSet::start(&RedisOptions::default(), replicas).expect("servers and Sentinels start")
}

fn connection(url: &str) -> Connection {
    Connection::new(Server::parse(url).expect("a URL"), LIMIT)
}

fn run(connection: &mut Connection, words: &[&str]) -> Result<Value> {
    connection.query("testing", Command::of(words))
}

/// An open connection and a subscription that nobody closes move to the new primary, in less than a second.
#[test]
fn open_connections_follow_a_planned_failover() {
    let set = set(1);
    let server = Server::parse(&set.url()).expect("a URL");
    assert!(server.shown().starts_with("sentinel main at 127.0.0.1:"), "{}", server.shown());
    let mut connection = Connection::new(server.clone(), LIMIT);
    run(&mut connection, &["SET", "k", "1"]).expect("the primary takes writes");
    let number = connection.number();
    let id = DispatcherId::generate("a");
    let channels = Channels {
        server: server.clone(),
        keys: Arc::new(Keys::new("messages")),
        interests: Arc::new(Interests::in_channel("messages:published")),
        subscriber: Subscriber::Dispatcher(id),
    };
    let subscription = Subscription::open(&channels, None, LIMIT).expect("it subscribes");
    assert!(!subscription.is_outdated());

    set.fail_over(0).expect("it is started");
    let primary = set.wait_for_another(0, 0, Duration::from_secs(20)).expect("it is replaced");
    let switched = Instant::now();
    wait_until(LIMIT, "the subscription to be outdated", || Ok(subscription.is_outdated().then_some(()))).unwrap();
    let took = switched.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!((connection.number(), connection.transaction()), (None, None), "it is outdated as well");
    wait_until(LIMIT, "a write to succeed", || Ok(run(&mut connection, &["SET", "k", "2"]).ok())).unwrap();
    assert_ne!(connection.number(), number);
    let port = set.port(primary).to_string();
    assert!(server.shown().ends_with(&port), "{} is on port {port}", server.shown());
    assert!(server.reconnects() > 0);
}

/// A server that has become a replica is left, whether by its own refusal or by what it says of its role.
#[test]
fn a_replica_is_no_primary() {
    let mut set = set(1);
    let mut open = connection(&set.url());
    run(&mut open, &["SET", "k", "1"]).expect("the primary takes writes");
    // The Sentinels don't notice.
    for sentinel in 0..3 {
        let reset = Command::of(&["SENTINEL", "SET", "main", "down-after-milliseconds", "600000"]);
        set.sentinel(sentinel).connection().query("testing", reset).expect("it is set");
    }
    let other = set.port(1).to_string();
    run(&mut set.server(0).connection(), &["REPLICAOF", "127.0.0.1", &other]).expect("it is demoted");
    let refused = run(&mut open, &["SET", "k", "2"]).expect_err("it is a replica");
    assert_eq!(refused.refusal(), Some(crate::base::refusal::Refusal::Replica), "{refused}");
    assert_eq!(open.number(), None, "the connection has ended");
    let error = run(&mut open, &["GET", "k"]).expect_err("there is no primary").to_string();
    assert!(error.contains("sentinel main at") && error.contains("it is no primary"), "{error}");
}

#[test]
fn what_is_wrong_with_the_sentinels_is_said() {
    let mut set = set(0);
    let port = set.sentinel(0).port();
    let of = |url: String| run(&mut connection(&url), &["PING"]).expect_err("it can't be found").to_string();
    let unknown = of(format!("redis+sentinel://127.0.0.1:{port}/other"));
    assert!(unknown.contains("knows no primary of this name"), "{unknown}");
    let redis = of(format!("redis+sentinel://127.0.0.1:{}/main", set.port(0)));
    assert!(redis.contains("this is no Sentinel"), "{redis}");
    let login = of(format!("redis+sentinel://127.0.0.1:{port}/main?sentinel_user=u&sentinel_password=secret"));
    assert!(login.to_lowercase().contains("wrongpass") && !login.contains("secret"), "{login}");
    let nobody = of("redis+sentinel://127.0.0.1:1,127.0.0.1:2/main".to_owned());
    assert!(nobody.contains("127.0.0.1:1: ") && nobody.contains("127.0.0.1:2: "), "{nobody}");

    // The least rights of a Sentinel's user.
    let mut sentinel = set.sentinel(0).connection();
    let user = ["ACL", "SETUSER", "u", "on", ">secret", "+sentinel|get-master-addr-by-name", "+sentinel|master"];
    run(&mut sentinel, &user).expect("it is made");
    let url = format!("redis+sentinel://127.0.0.1:{port}/main/3?sentinel_user=u&sentinel_password=secret");
    let mut connection = connection(&url);
    run(&mut connection, &["SET", "k", "1"]).expect("it is found");
    assert_eq!(connection.server().database(), 3);
    // Redis 6.2 takes no right to a subcommand alone.
    run(&mut sentinel, &["ACL", "SETUSER", "u", "-sentinel"]).expect("it is taken");
    let refused = of(url);
    assert!(refused.contains("+sentinel|get-master-addr-by-name"), "{refused}");
}

/// Without a right to `ROLE`, `INFO` is asked; without both, the connection works.
#[test]
fn a_user_who_may_not_ask_for_the_role_is_served() {
    let mut set = set(0);
    let admin = &mut set.server(0).connection();
    run(admin, &["ACL", "SETUSER", "u", "on", ">pw", "+ping", "+info"]).expect("it is made");
    let url = set.url().replace("://", "://u:pw@");
    run(&mut connection(&url), &["PING"]).expect("INFO says it");
    run(admin, &["ACL", "SETUSER", "u", "-info"]).expect("it is taken");
    run(&mut connection(&url), &["PING"]).expect("nothing says it");
}
