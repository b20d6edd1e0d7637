//! For each command a form that changes nothing. Pure.
//!
//! Redis checks rights before it looks at what a command does, and after its number of words. So each form has enough
//! words, and is without effect on a key that does not exist, or is refused for another reason, whatever the key holds.

use super::trial::Trial;

/// A command, and what its refusal says if it is allowed and has no effect.
pub(super) struct Form {
    pub(super) words: Vec<String>,
    pub(super) refused_with: Option<&'static str>,
}

fn form(words: &[&str], refused_with: Option<&'static str>) -> Form {
    Form { words: words.iter().map(|word| (*word).to_owned()).collect(), refused_with }
}

/// The digest of no script.
const NO_DIGEST: &str = "0000000000000000000000000000000000000000";

/// The form of a command, which is named as in `ACL SETUSER`: `script|load`.
pub(super) fn of(command: &str, trial: &Trial) -> Form {
    let key = trial.unused.as_str();
    let (words, refused_with): (&[&str], Option<&'static str>) = match command {
        "ping" => (&["PING"], None),
        "time" => (&["TIME"], None),
        "info" => (&["INFO", "server"], None),
        "get" => (&["GET", key], None),
        "mget" => (&["MGET", key], None),
        "getrange" => (&["GETRANGE", key, "0", "1"], None),
        "exists" => (&["EXISTS", key], None),
        "type" => (&["TYPE", key], None),
        "set" => (&["SET", key, "", "NX", "XX"], Some("syntax error")),
        "del" => (&["DEL", key], None),
        "pttl" => (&["PTTL", key], None),
        "pexpire" => (&["PEXPIRE", key, "1"], None),
        "zadd" => (&["ZADD", key, "XX", "1", ""], None),
        "zcard" => (&["ZCARD", key], None),
        "zcount" => (&["ZCOUNT", key, "1", "0"], None),
        "zrange" => (&["ZRANGE", key, "0", "0"], None),
        "zrevrange" => (&["ZREVRANGE", key, "0", "0"], None),
        "zrangebyscore" => (&["ZRANGEBYSCORE", key, "1", "0"], None),
        "zremrangebyscore" => (&["ZREMRANGEBYSCORE", key, "1", "0"], None),
        "hget" => (&["HGET", key, ""], None),
        "hmget" => (&["HMGET", key, ""], None),
        "hset" => (&["HSET", key, "a", "b", "c"], Some("wrong number of arguments")),
        "hdel" => (&["HDEL", key, ""], None),
        "lrange" => (&["LRANGE", key, "0", "0"], None),
        "ltrim" => (&["LTRIM", key, "1", "0"], None),
        "rpush" => (&["RPUSH", &trial.string, ""], Some("WRONGTYPE")),
        "sadd" => (&["SADD", &trial.string, ""], Some("WRONGTYPE")),
        "smembers" => (&["SMEMBERS", key], None),
        "xadd" => (&["XADD", key, "0-0", "a", ""], Some("greater than 0-0")),
        "xdel" => (&["XDEL", key, "0-1"], None),
        "xlen" => (&["XLEN", key], None),
        "xtrim" => (&["XTRIM", key, "MAXLEN", "~", "1"], None),
        "xrange" => (&["XRANGE", key, "-", "+", "COUNT", "1"], None),
        "xrevrange" => (&["XREVRANGE", key, "+", "-", "COUNT", "1"], None),
        "eval" => (&["EVAL", "return 1", "0"], None),
        "evalsha" => (&["EVALSHA", NO_DIGEST, "0"], Some("No matching script")),
        "script|load" => (&["SCRIPT", "LOAD", "return 1"], None),
        "watch" => (&["WATCH", key], None),
        "unwatch" => (&["UNWATCH"], None),
        "multi" => (&["MULTI"], None),
        "exec" => (&["EXEC"], Some("without MULTI")),
        "publish" => (&["PUBLISH", &trial.channel, ""], None),
        "spublish" => (&["SPUBLISH", &trial.channel, ""], None),
        "pubsub|numsub" => (&["PUBSUB", "NUMSUB", &trial.channel], None),
        "pubsub|channels" => (&["PUBSUB", "CHANNELS", &trial.channel], None),
        "cluster|slots" => (&["CLUSTER", "SLOTS"], None),
        "role" => (&["ROLE"], None),
        "wait" => (&["WAIT", "0", "1"], None),
        "cluster|myid" => (&["CLUSTER", "MYID"], None),
        other => unreachable!("{other} has no form"),
    };
    form(words, refused_with)
}

/// Reads a key of any type.
pub(super) fn reading(command: &str, key: &str) -> Form {
    form(&[command, key], Some("WRONGTYPE"))
}

/// Writes nothing to a key of any type.
pub(super) fn writing(key: &str) -> Form {
    form(&["SET", key, "", "NX", "XX"], Some("syntax error"))
}

/// Makes the string that some forms need. The only one that has an effect.
pub(super) fn string(trial: &Trial) -> Form {
    form(&["SET", &trial.string, "", "PX", &trial.time.as_millis().to_string()], None)
}
