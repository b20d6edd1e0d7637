//! Which server the tests start: the one on PATH, which `make check-servers` replaces.

use std::env;

use crate::support::redis_server;

/// What [`RedisServer::version`](oncecast::lab::RedisServer::version) must say, such as `valkey 8.1.8`.
const EXPECTED: &str = "ONCECAST_TEST_SERVER";

#[test]
fn the_server_is_the_expected_one() {
    let version = redis_server().version().expect("it answers");
    match env::var(EXPECTED) {
        Ok(expected) => assert_eq!(version, expected, "{EXPECTED} names another than PATH has"),
        Err(_) => assert!(version.starts_with("redis ") || version.starts_with("valkey "), "{version}"),
    }
}
