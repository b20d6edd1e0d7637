//! Whether Redis publishes the keyspace events that a group listens to. Pure.

use crate::ledger::interests::Interests;

/// The classes of events in `notify-keyspace-events` that `A` stands for.
const ALL: &str = "g$lshzxetd";
/// The classes that `A` does not include: key misses, and new keys.
const BESIDE_ALL: &str = "mn";

/// The value that `notify-keyspace-events` needs so that Redis publishes what these interests name; `None` if `flags`,
/// its present value, is enough. It keeps what is set.
pub fn completed(flags: &str, interests: &Interests) -> Option<String> {
    let mut all = flags.to_owned();
    for name in interests.channels().chain(interests.patterns()) {
        let (kind, class) = if let Some(rest) = name.strip_prefix(b"__keyevent@") {
            ('E', event(rest).map(class_of))
        } else if name.starts_with(b"__keyspace@") {
            ('K', None)
        } else {
            continue;
        };
        if !all.contains(kind) {
            all.push(kind);
        }
        match class {
            // Which classes the events belong to is not known here: some must be set.
            None | Some(None)
                if all.contains(|flag| flag == 'A' || ALL.contains(flag) || BESIDE_ALL.contains(flag)) => {}
            None | Some(None) => all.push('A'),
            Some(Some(class)) if all.contains(class) || all.contains('A') && ALL.contains(class) => {}
            Some(Some(class)) => all.push(class),
        }
    }
    (all != flags).then_some(all)
}

/// The event in what follows `__keyevent@`, unless it is a pattern.
fn event(rest: &[u8]) -> Option<&str> {
    let rest = std::str::from_utf8(rest).ok()?;
    let (_, event) = rest.split_once("__:")?;
    (!event.contains(['*', '?', '[', '\\'])).then_some(event)
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
        "set" | "setrange" | "append" | "incrby" | "incrbyfloat" => '$',
        _ if event.starts_with("xadd")
            || event.starts_with("xdel")
            || event.starts_with("xsetid")
            || event.starts_with("xgroup")
            || event.starts_with("xtrim") =>
        {
            't'
        }
        _ if event.starts_with("zadd") || event.starts_with("zincr") || event.starts_with("zrem") => 'z',
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
    }
}
