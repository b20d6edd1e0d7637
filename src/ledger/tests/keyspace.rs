//! What documents and the check of `notify-keyspace-events` say about keyspace events, compared with a real Redis.

use std::time::Instant;

use super::*;
use crate::ledger::server_check::keyspace::completed;

/// All classes of events since Redis 6.2.
const CLASSES: &str = "g$lshzxetdm";

/// Events of Redis's own commands, and commands that end with each.
const EVENTS: [(&str, &[&str]); 53] = [
    ("del", &["SET k v", "DEL k"]),
    ("expire", &["SET k v", "EXPIRE k 100"]),
    ("persist", &["SET k v EX 100", "PERSIST k"]),
    ("rename_from", &["SET k v", "RENAME k l"]),
    ("rename_to", &["SET k v", "RENAME k l"]),
    ("move_from", &["SET k v", "MOVE k 1"]),
    ("copy_to", &["SET k v", "COPY k l"]),
    ("set", &["SET k v"]),
    ("setbit", &["SETBIT k 0 1"]),
    ("pfadd", &["PFADD k v"]),
    ("setrange", &["SETRANGE k 0 v"]),
    ("append", &["APPEND k v"]),
    ("incrby", &["INCR k"]),
    ("incrbyfloat", &["INCRBYFLOAT k 1"]),
    ("lpush", &["LPUSH k v"]),
    ("rpush", &["RPUSH k v"]),
    ("lpop", &["RPUSH k v", "LPOP k"]),
    ("rpop", &["RPUSH k v", "RPOP k"]),
    ("linsert", &["RPUSH k v", "LINSERT k BEFORE v w"]),
    ("lset", &["RPUSH k v", "LSET k 0 w"]),
    ("lrem", &["RPUSH k v", "LREM k 0 v"]),
    ("ltrim", &["RPUSH k v", "LTRIM k 1 1"]),
    ("sortstore", &["RPUSH k 1", "SORT k STORE l"]),
    ("sadd", &["SADD k v"]),
    ("srem", &["SADD k v", "SREM k v"]),
    ("spop", &["SADD k v", "SPOP k"]),
    ("sinterstore", &["SADD k v", "SINTERSTORE l k"]),
    ("sunionstore", &["SADD k v", "SUNIONSTORE l k"]),
    ("sdiffstore", &["SADD k v", "SDIFFSTORE l k"]),
    ("hset", &["HSET k f v"]),
    ("hdel", &["HSET k f v", "HDEL k f"]),
    ("hincrby", &["HINCRBY k f 1"]),
    ("hincrbyfloat", &["HINCRBYFLOAT k f 1"]),
    ("zadd", &["ZADD k 1 v"]),
    ("zincr", &["ZINCRBY k 1 v"]),
    ("zrem", &["ZADD k 1 v", "ZREM k v"]),
    ("zremrangebyscore", &["ZADD k 1 v", "ZREMRANGEBYSCORE k 1 1"]),
    ("zremrangebyrank", &["ZADD k 1 v", "ZREMRANGEBYRANK k 0 0"]),
    ("zpopmin", &["ZADD k 1 v", "ZPOPMIN k"]),
    ("zpopmax", &["ZADD k 1 v", "ZPOPMAX k"]),
    ("zremrangebylex", &["ZADD k 0 v", "ZREMRANGEBYLEX k - +"]),
    ("zunionstore", &["ZADD k 1 v", "ZUNIONSTORE l 1 k"]),
    ("zinterstore", &["ZADD k 1 v", "ZINTERSTORE l 1 k"]),
    ("zdiffstore", &["ZADD k 1 v", "ZDIFFSTORE l 1 k"]),
    ("zrangestore", &["ZADD k 1 v", "ZRANGESTORE l k 0 -1"]),
    ("xadd", &["XADD k * f v"]),
    ("xdel", &["XADD k 1-1 f v", "XDEL k 1-1"]),
    ("xtrim", &["XADD k * f v", "XTRIM k MAXLEN 0"]),
    ("xsetid", &["XADD k 1-1 f v", "XSETID k 2-2"]),
    ("xgroup-create", &["XGROUP CREATE k g $ MKSTREAM"]),
    ("xgroup-destroy", &["XGROUP CREATE k g $ MKSTREAM", "XGROUP DESTROY k g"]),
    ("keymiss", &["GET missing"]),
    ("expired", &["SET k v PX 1", "WAIT-UNTIL-EXPIRED k"]),
];

fn interests_in(event: &str) -> Interests {
    let channels = [format!("__keyevent@0__:{event}"), "end".to_owned()];
    Interests::of(channels.map(String::into_bytes).to_vec(), Vec::new()).expect("good ones")
}

impl Fixture {
    /// What comes on a subscription for these commands.
    fn events_of(&mut self, subscription: &mut Subscription, flags: &str, commands: &[&str]) -> usize {
        self.run(&["FLUSHALL"]);
        self.run(&["CONFIG", "SET", "notify-keyspace-events", flags]);
        for command in commands {
            let words: Vec<&str> = command.split(' ').collect();
            match words[..] {
                ["WAIT-UNTIL-EXPIRED", key] => self.wait_until_gone(key),
                _ => drop(self.run(&words)),
            }
        }
        self.run(&["PUBLISH", "end", ""]);
        super::interests::messages_until(subscription, "end").len()
    }

    /// Touches the key until it is gone.
    fn wait_until_gone(&mut self, key: &str) {
        let end = Instant::now() + Duration::from_secs(10);
        while self.number(&["EXISTS", key]) == 1 {
            assert!(Instant::now() < end);
        }
    }
}

/// With exactly the setting that the check asks for each event is published, and without its class it is not.
#[test]
fn the_setting_that_is_asked_for_is_needed_and_enough() {
    let mut f = fixture();
    for (event, commands) in EVENTS {
        let interests = interests_in(event);
        let mut subscription = f.listen_to(interests.clone(), &DispatcherId::generate("d0"));
        let flags = completed("", &interests).expect("nothing is published without flags");
        assert_eq!(f.events_of(&mut subscription, &flags, commands), 1, "{event} with {flags}");
        let class = flags.strip_prefix('E').expect("an event by its name");
        let others: String = CLASSES.chars().filter(|flag| !class.contains(*flag)).collect();
        assert_eq!(f.events_of(&mut subscription, &format!("E{others}"), commands), 0, "{event} with {others}");
        assert_eq!(f.events_of(&mut subscription, &format!("K{CLASSES}"), commands), 0, "{event} without E");
        assert_eq!(f.events_of(&mut subscription, class, commands), 0, "{event} without E and K");
    }
}
