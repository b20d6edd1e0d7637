//! What strangers write into a group's keys is never a terminal's command or a text that runs backwards: it is shown
//! escaped.

use oncecast::lab::RedisServer;

use crate::support::{programs, redis_server, run_on};

/// Ends a line, colours what follows, turns its direction, and ends a line as Unicode sees it.
const STRANGE: &str = "x\r\n\u{1b}[31mred\u{7}\u{9b}2J\u{202e}<b>\u{2028}\u{2066}end";

/// What a tool writes, to both streams.
fn shown(redis: &RedisServer, tool: &str) -> String {
    let mut command = programs().command("oncecast").expect("the program is built");
    let output = command.arg(tool).args(["--redis-url", &redis.url()]).output().expect("it runs");
    [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("text")).concat()
}

/// Whether a terminal or an editor does something else with it than to show it.
fn is_active(char: char) -> bool {
    let turns = matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    char.is_control() && char != '\n' || turns
}

#[test]
fn nothing_that_strangers_write_reaches_the_terminal() {
    let redis = redis_server();
    let run = |words: &[&str]| run_on::<redis::Value>(&redis, words);
    run(&["SET", "messages:leader", &format!("{STRANGE} 1795934290687"), "PX", "600000"]);
    run(&["SET", "messages:cursor", STRANGE]);
    run(&["SET", "messages:epoch", STRANGE]);
    run(&["HSET", "messages:consumers", STRANGE, STRANGE]);
    run(&["XADD", "messages:gaps", "*", "reason", STRANGE, "from", STRANGE, "to", STRANGE, STRANGE, STRANGE]);
    for (stream, field) in [("processed", "message_id"), ("processed", "message_id"), ("dead", "reason")] {
        run(&["XADD", &format!("messages:{stream}"), "*", field, STRANGE, "payload", STRANGE, STRANGE, STRANGE]);
    }
    run(&["ZADD", "messages:pending", "1", &format!("0000000000000001:{STRANGE}")]);
    run(&["ZADD", "messages:pending", "2", STRANGE]);
    for tool in ["status", "audit", "doctor"] {
        let shown = shown(&redis, tool);
        let active: Vec<char> = shown.chars().filter(|char| is_active(*char)).collect();
        assert!(active.is_empty(), "{tool}: {active:?} in {shown:?}");
        assert!(!shown.contains("\nend") && !shown.contains("\n\u{1b}"), "{tool}: no line of its own: {shown:?}");
    }
    assert!(shown(&redis, "audit").contains("\\u{1b}[31mred"), "the id that was recorded twice is shown");
    // Another type in each place is a note or an error, and is shown as little.
    for key in ["leader", "cursor", "epoch", "gaps", "processed", "dead", "pending"] {
        run(&["DEL", &format!("messages:{key}")]);
        run(&["RPUSH", &format!("messages:{key}"), STRANGE]);
    }
    for tool in ["status", "audit"] {
        let shown = shown(&redis, tool);
        assert!(!shown.chars().any(is_active), "{tool}: {shown:?}");
    }
}
