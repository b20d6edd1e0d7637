//! Whether Redis publishes the keyspace events that a group listens to. Pure.

use crate::ledger::interests::Interests;

/// The classes of events in `notify-keyspace-events` that `A` stands for.
const ALL: &str = "g$lshzxetd";
/// The classes that `A` does not include: key misses, and new keys.
const BESIDE_ALL: &str = "mn";

/// What a name that keyspace events are published on begins with, and the flag that switches them on.
const KINDS: [(&[u8], char); 2] = [(b"__keyevent@", 'E'), (b"__keyspace@", 'K')];
/// A pattern that begins so is taken to mean keyspace events. `*` matches them, too, and hardly ever means them.
const MEANT: &[u8] = b"__key";
/// The bytes that have a meaning in a pattern.
const SPECIAL: &[u8] = b"*?[\\";

/// The value that `notify-keyspace-events` needs so that Redis publishes what these interests name; `None` if `flags`,
/// its present value, is enough. It keeps what is set.
pub fn completed(flags: &str, interests: &Interests) -> Option<String> {
    let mut all = flags.to_owned();
    for name in interests.channels().chain(interests.patterns()) {
        let kinds = kinds(name);
        let Some(first) = kinds.first() else { continue };
        if !all.contains(kinds.as_slice()) {
            all.push(*first);
        }
        match event(name).filter(|_| *first == 'E').and_then(class_of) {
            // Which classes the events belong to is not known here: some must be set.
            None if all.contains(|flag| flag == 'A' || ALL.contains(flag) || BESIDE_ALL.contains(flag)) => {}
            None => all.push('A'),
            Some(class) if all.contains(class) || all.contains('A') && ALL.contains(class) => {}
            Some(class) => all.push(class),
        }
    }
    (all != flags).then_some(all)
}

/// The events among the interests that no command of Redis causes: of a module, or misspelt.
pub fn unknown_events(interests: &Interests) -> Vec<&str> {
    let named = |name| kinds(name).contains(&'E').then(|| event(name)).flatten();
    let mut unknown: Vec<&str> = interests.channels().chain(interests.patterns()).filter_map(named).collect();
    unknown.retain(|event| class_of(event).is_none());
    unknown
}

/// The highest database that is named among the interests.
pub fn highest_database(interests: &Interests) -> Option<u64> {
    let database = |name: &[u8]| {
        let rest = KINDS.iter().find_map(|(prefix, _)| name.strip_prefix(*prefix))?;
        std::str::from_utf8(rest).ok()?.split_once("__:")?.0.parse().ok()
    };
    interests.channels().chain(interests.patterns()).filter_map(database).max()
}

/// The flags of the kinds of events that a channel or pattern may name, the likeliest first.
fn kinds(name: &[u8]) -> Vec<char> {
    let literal = &name[..name.iter().position(|byte| SPECIAL.contains(byte)).unwrap_or(name.len())];
    let is_pattern = literal.len() < name.len() && literal.starts_with(MEANT);
    let fits = |prefix: &[u8]| literal.starts_with(prefix) || is_pattern && prefix.starts_with(literal);
    KINDS.into_iter().filter(|(prefix, _)| fits(prefix)).map(|(_, flag)| flag).collect()
}

/// The event at the end of a channel or pattern, unless it is a pattern itself.
fn event(name: &[u8]) -> Option<&str> {
    let (_, event) = std::str::from_utf8(name).ok()?.rsplit_once(':')?;
    (!event.bytes().any(|byte| SPECIAL.contains(&byte))).then_some(event)
}

/// The flag of an event's class, for the events of Redis's own commands.
fn class_of(event: &str) -> Option<char> {
    Some(match event {
        "expired" => 'x',
        "evicted" => 'e',
        "keymiss" => 'm',
        "new" => 'n',
        "del" | "expire" | "persist" | "rename_from" | "rename_to" | "move_from" | "move_to" | "copy_to"
        | "restore" => 'g',
        "set" | "setbit" | "setrange" | "append" | "incrby" | "incrbyfloat" | "pfadd" => '$',
        _ if event.starts_with("xadd")
            || event.starts_with("xdel")
            || event.starts_with("xsetid")
            || event.starts_with("xgroup")
            || event.starts_with("xtrim") =>
        {
            't'
        }
        "zadd" | "zincr" | "zrem" | "zremrangebyscore" | "zremrangebyrank" | "zremrangebylex" | "zpopmin"
        | "zpopmax" | "zunionstore" | "zinterstore" | "zdiffstore" | "zrangestore" | "georadiusstore"
        | "geosearchstore" => 'z',
        _ if event.starts_with("hset")
            || event.starts_with("hexpire")
            || event.starts_with("hpersist")
            || event.starts_with("hdel")
            || event.starts_with("hincr") =>
        {
            'h'
        }
        "lpush" | "rpush" | "lpop" | "rpop" | "linsert" | "lset" | "lrem" | "ltrim" | "sortstore" => 'l',
        "sadd" | "srem" | "spop" | "sinterstore" | "sunionstore" | "sdiffstore" => 's',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Glob;

    fn needed(flags: &str, channels: &[&str], patterns: &[&str]) -> Option<String> {
        let globs = patterns.iter().map(|text| Glob::parse(text.as_bytes()).expect(text)).collect();
        let channels = channels.iter().map(|name| name.as_bytes().to_vec()).collect();
        completed(flags, &Interests::of(channels, globs).expect("good ones"))
    }

    #[test]
    fn what_is_missing_is_added_to_what_is_set() {
        let expired = &["__keyevent@0__:expired"][..];
        for (flags, enough) in [("", Some("Ex")), ("E", Some("Ex")), ("Kg", Some("KgEx")), ("xE", None), ("AKE", None)]
        {
            assert_eq!(needed(flags, expired, &[]).as_deref(), enough, "{flags}");
        }
        assert_eq!(needed("AE", &["__keyevent@0__:keymiss"], &[]).as_deref(), Some("AEm"));
        assert_eq!(needed("", &["__keyevent@0__:del"], &["__keyevent@*__:expired"]).as_deref(), Some("Egx"));
        assert_eq!(needed("", &[], &["__keyspace@0__:session:*"]).as_deref(), Some("KA"));
        assert_eq!(needed("Kg", &[], &["__keyspace@0__:session:*"]), None);
        assert_eq!(needed("Ex", &[], &["__keyevent@0__:*"]), None);
        assert_eq!(needed("Ex", &["__keyevent@0__:of.a.module"], &[]), None);
        assert_eq!(needed("", &["orders"], &["*"]), None);
        assert_eq!(needed("", &[], &["__key*:expired"]).as_deref(), Some("Ex"));
        assert_eq!(needed("Kx", &[], &["__key*:expired"]), None);
        assert_eq!(needed("", &["__key"], &["__keyspaces?"]), None);
    }

    #[test]
    fn an_event_that_no_command_causes_is_found() {
        let names = ["__keyevent@0__:expired", "__keyevent@0__:Expired", "__keyevent@0__:expierd", "orders:Expired"];
        let channels = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        let pattern = |text: &str| Glob::parse(text.as_bytes()).expect(text);
        let globs =
            vec![pattern("__keyevent@*__:dell"), pattern("__keyspace@0__:expierd"), pattern("__keyevent@9__:x*")];
        let interests = Interests::of(channels, globs).expect("good ones");
        let mut unknown = unknown_events(&interests);
        unknown.sort_unstable();
        assert_eq!(unknown, ["Expired", "dell", "expierd"]);
        assert_eq!(highest_database(&interests), Some(9));
    }
}
