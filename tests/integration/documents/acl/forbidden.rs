//! No user may do the work of another.

use super::users::{CONSUMER, DISPATCHER, DOCUMENT, OPERATOR, PUBLISHER, server_with, url_of, users};
use crate::support::{CHANNEL, client, is_too_old, run};

#[test]
fn no_user_may_do_the_work_of_another() {
    let users = users();
    let server = server_with(users.values());
    let admin = &mut client(&server.url());
    let () = run(admin, &["SET", "messages:epoch", "7"]);
    let leaders_work = "return redis.call('SET', KEYS[1], '8')";
    let refusals: [(&str, &[&[&str]]); 4] = [
        (
            CONSUMER,
            &[
                &["PUBLISH", "messages:control", "released 7"],
                &["PUBLISH", CHANNEL, "x"],
                &["SUBSCRIBE", CHANNEL],
                &["EVAL", "return redis.call('TYPE', KEYS[1])", "1", "messages:leader"],
                &["XADD", "messages:dead", "*", "a", "b"],
                &["DEL", "messages:pending"],
                &["ZRANGE", "messages:pending", "0", "-1"],
                &["XRANGE", "messages:processed", "-", "+"],
            ],
        ),
        (
            DISPATCHER,
            &[
                &["SET", "others", "x"],
                &["SUBSCRIBE", "others"],
                &["PUBLISH", "others", "x"],
                &["KEYS", "*"],
                &["FLUSHALL"],
                &["CONFIG", "SET", "maxmemory", "1"],
                &["CONFIG", "GET", "requirepass"],
                &["ACL", "LIST"],
            ],
        ),
        (
            PUBLISHER,
            &[
                &["PUBLISH", "messages:control", "released 7"],
                &["SUBSCRIBE", CHANNEL],
                &["GET", "messages:epoch"],
                &["ZADD", "messages:pending", "1", "x"],
            ],
        ),
        (
            OPERATOR,
            &[
                &["SET", "messages:epoch", "8"],
                &["DEL", "messages:pending"],
                &["XDEL", "messages:dead", "1-1"],
                &["PUBLISH", "messages:control", "released 7"],
                &["EVAL", leaders_work, "1", "messages:epoch"],
                &["GET", "others"],
                &["CONFIG", "GET", "requirepass"],
            ],
        ),
    ];
    for (name, attempts) in refusals {
        let connection = &mut client(&url_of(&server, name, &users[name]));
        for words in attempts {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            let reply: redis::RedisResult<redis::Value> = command.query(connection);
            assert!(reply.is_err(), "{name} may {words:?}: {reply:?}");
        }
    }
    let epoch: String = run(admin, &["GET", "messages:epoch"]);
    assert_eq!(epoch, "7");
}

/// The document recommends this for servers that distinguish reading a key from writing it.
#[test]
fn since_redis_7_consumers_do_not_need_to_write_the_epoch() {
    const READ: &str = "%R~messages:epoch";
    let document = DOCUMENT.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(document.contains(&format!("`{READ}` for `~messages:epoch`")), "it is recommended");
    let users = users();
    let server = server_with(users.values());
    if is_too_old(&server, "has no right to only read a key") {
        return;
    }
    let admin = &mut client(&server.url());
    let () = run(admin, &["SET", "messages:epoch", "7"]);
    let narrow = |word: &&'static str| if *word == "~messages:epoch" { READ } else { word };
    let () = run(admin, &users[CONSUMER].line.iter().map(narrow).collect::<Vec<_>>());
    let connection = &mut client(&url_of(&server, CONSUMER, &users[CONSUMER]));
    let epoch: String = run(connection, &["GETRANGE", "messages:epoch", "0", "-1"]);
    assert_eq!(epoch, "7");
    let script = "return redis.call('SET', KEYS[1], '8')";
    for words in [&["SET", "messages:epoch", "8"][..], &["EVAL", script, "1", "messages:epoch"]] {
        let reply: redis::RedisResult<redis::Value> = redis::cmd(words[0]).arg(&words[1..]).query(connection);
        assert!(reply.is_err(), "{words:?}: {reply:?}");
    }
}
