//! The users of docs/OPERATIONS.md.

use std::collections::{BTreeMap, BTreeSet};

use oncecast::lab::RedisServer;

use crate::support::{client, redis_server, run};

pub const DOCUMENT: &str = include_str!("../../../../docs/OPERATIONS.md");

/// Their names.
pub const DISPATCHER: &str = "oncecast-dispatcher";
pub const CONSUMER: &str = "oncecast-consumer";
pub const PUBLISHER: &str = "oncecast-publisher";
pub const OPERATOR: &str = "oncecast-operator";
pub const SHADOW: &str = "oncecast-shadow";
pub const DEAD: &str = "oncecast-dead";
pub const OPERATE: &str = "oncecast-operate";
pub const LOOK: &str = "oncecast-look";

/// A user of the document.
pub struct User {
    pub line: Vec<&'static str>,
    pub password: &'static str,
    /// The commands that it may call.
    pub may: BTreeSet<String>,
}

/// The users of the document, by name.
pub fn users() -> BTreeMap<&'static str, User> {
    let users = users_in("acl");
    assert_eq!(users.keys().copied().collect::<Vec<_>>(), [CONSUMER, DISPATCHER, OPERATOR, PUBLISHER]);
    users
}

/// The user of dispatchers that deliver to a stream.
pub fn stream_user() -> User {
    users_in("acl-stream").remove(DISPATCHER).expect("it is the only one")
}

/// The user of shadows.
pub fn shadow_user() -> User {
    users_in("acl-shadow").remove(SHADOW).expect("it is the only one")
}

/// The user of `oncecast dead`.
pub fn dead_user() -> User {
    users_in("acl-dead").remove(DEAD).expect("it is the only one")
}

/// The user of `oncecast pause`, `resume` and `set`.
pub fn operate_user() -> User {
    users_in("acl-operate").remove(OPERATE).expect("it is the only one")
}

/// The user of `oncecast pending` and `oncecast results`.
pub fn look_user() -> User {
    users_in("acl-look").remove(LOOK).expect("it is the only one")
}

/// The users in a block of the document.
fn users_in(kind: &str) -> BTreeMap<&'static str, User> {
    let (_, rest) = DOCUMENT.split_once(&format!("```{kind}\n")).expect("a block of this kind");
    let (block, _) = rest.split_once("```").expect("its end");
    block.lines().map(user_of).collect()
}

/// The name and the user of a line of the document.
fn user_of(line: &'static str) -> (&'static str, User) {
    let line: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(line[..2], ["ACL", "SETUSER"], "{line:?}");
    // The rights for some keys only are in brackets.
    let plain = |word: &'static str| word.trim_matches(['(', ')']);
    let with = |sign: char| line[3..].iter().filter_map(move |word| plain(word).strip_prefix(sign));
    let password = with('>').next().expect("each user has a password");
    let may = with('+').map(str::to_owned).collect();
    (line[2], User { line, password, may })
}

/// A server with these users. The test itself is the default user, which may do anything.
pub fn server_with<'a>(users: impl IntoIterator<Item = &'a User>) -> RedisServer {
    let server = redis_server();
    let admin = &mut client(&server.url());
    for user in users {
        // Twice, since operators repeat a line after a change.
        for _ in 0..2 {
            let () = run(admin, &user.line);
        }
    }
    server
}

pub fn url_of(server: &RedisServer, name: &str, user: &User) -> String {
    format!("redis://{name}:{}@127.0.0.1:{}", user.password, server.port())
}
