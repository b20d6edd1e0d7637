//! Says what a test leaves out, and why.

use std::io::{self, Write};

use oncecast::lab::RedisServer;

/// Says that the running test is left out, or a part of it. Written past the harness's capture, so that it is seen
/// although the test passes.
pub fn skipped(why: &str) {
    let thread = std::thread::current();
    // Nothing depends on it being read.
    let _ = writeln!(io::stderr(), "SKIPPED {}: {why}", thread.name().unwrap_or("a test"));
}

/// Whether the server is a Redis 6, which lacks something that a test needs. If so, says that the test is left out.
pub fn is_too_old(server: &RedisServer, what_it_lacks: &str) -> bool {
    let is_old = server.version().expect("it answers").starts_with("redis 6.");
    if is_old {
        skipped(&format!("Redis 6.2 {what_it_lacks}"));
    }
    is_old
}
