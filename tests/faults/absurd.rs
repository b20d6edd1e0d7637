//! Row 37: keys of a group with absurd values.

use std::collections::BTreeSet;
use std::time::Duration;

use oncecast::base::id::wall_clock_us;
use oncecast::lab::{self, ChildProcess, Cluster};

use crate::mode::{Mode, in_both_modes};
use crate::run::{Run, assert_l0};
use crate::support::load::{Load, Sent, number};
use crate::support::{
    DEADLINE, client_of, cluster_of, dispatcher, newest_ids, options, run, state, wait_for_intake, wait_until,
    wait_until_in_sync,
};
use crate::workers::Workers;

use crate::keys::{AHEAD_MS, DISPATCHERS, forget_repeated, logs, reasons};

/// Texts that no key of a group has.
const ABSURD: [&str; 12] = [
    "",
    "hello",
    "inf",
    "-inf",
    "nan",
    "-1",
    "9007199254740992",
    "9223372036854775808",
    "18446744073709551615",
    "1e300",
    "1.5",
    "\u{0}\u{1}\r\n {}[]\u{7f}",
];

/// Keys that hold a text.
const TEXTS: [&str; 4] = ["messages:leader", "messages:epoch", "messages:cursor", "messages:recall"];

/// Puts a key right that has another type. A transaction may have done so before: then the former value is dropped, as
/// the former cursor would lead back over what was stored.
const PUT_RIGHT: &str = "\
if redis.call('TYPE', KEYS[1]).ok ~= ARGV[1] then redis.call('DEL', KEYS[2]) return end
redis.call('DEL', KEYS[1])
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[1]) end";

/// A group whose keys get absurd values.
struct Told {
    cluster: Cluster,
    connection: redis::Connection,
}

impl Told {
    fn start(mode: Mode) -> Told {
        let mut cluster = cluster_of(mode.options(2, 2, "--lease-ttl-ms 800"));
        let mut connection = client_of(&mut cluster);
        wait_until_in_sync(&mut connection, 2);
        Told { cluster, connection }
    }

    /// Waits until a message that is published after this call is done.
    fn wait_for_new_work(&mut self, load: &Load, after: &str) {
        let first = load.first_unpublished();
        let connection = &mut self.connection;
        let done = lab::wait_until(DEADLINE, format!("message {first} to be done after {after}"), || {
            Ok(newest_ids(connection, 50).iter().any(|id| number(id) >= first).then_some(()))
        });
        if let Err(error) = done {
            panic!("{error}; state {:?}{}", state(&mut self.connection), logs(&mut self.cluster));
        }
    }

    /// Deletes the lease and waits a while for another one. With absurd values there may be none.
    fn begin_another_term(&mut self) {
        const LIMIT: Duration = Duration::from_millis(1_500);
        let lease: Option<Vec<u8>> = run(&mut self.connection, &["GET", "messages:leader"]);
        let () = run(&mut self.connection, &["DEL", "messages:leader"]);
        let _ = lab::wait_until(LIMIT, "another lease", || {
            let now: Option<Vec<u8>> = run(&mut self.connection, &["GET", "messages:leader"]);
            Ok((now.is_some() && now != lease).then_some(()))
        });
    }

    /// Fails if an epoch is far ahead of the clock, or two terms had the same one.
    fn assert_epochs_are_sane(&mut self, after: &str) {
        let limit = wall_clock_us() / 1_000 + AHEAD_MS;
        wait_until(format!("the epoch to be one that a clock shows, after {after}"), || {
            let epoch: Option<String> = run(&mut self.connection, &["GET", "messages:epoch"]);
            epoch?.parse::<u64>().ok().filter(|epoch| *epoch < limit)
        });
        let mut epochs: Vec<u64> = Vec::new();
        for member in DISPATCHERS {
            let lines = self.cluster.process(member).unwrap().stderr().all();
            let elected = lines.iter().filter(|line| line.contains("event=elected"));
            let epoch = |line: &String| line.split("epoch=").nth(1)?.split(' ').next()?.parse::<u64>().ok();
            epochs.extend(elected.map(|line| epoch(line).unwrap_or_else(|| panic!("no epoch in {line}"))));
        }
        let most = epochs.iter().max().copied().unwrap_or(0);
        assert!(most < limit, "a term of epoch {most} after {after}");
        let distinct: BTreeSet<&u64> = epochs.iter().collect();
        assert_eq!(distinct.len(), epochs.len(), "two terms had one epoch after {after}: {epochs:?}");
    }

    fn assert_l0(&mut self, sent: &Sent) {
        assert!(sent.uncertain.is_empty() && sent.unheard.is_empty(), "both were subscribed all the time");
        assert_l0(&mut self.connection, sent);
        self.cluster.must_run().unwrap();
    }
}

/// How much of a text is shown.
fn shown(words: &[String]) -> String {
    words.iter().map(|word| format!(" {:?}", word.chars().take(60).collect::<String>())).collect()
}

/// Runs each of these commands while messages are published, then its repair if it has one, and fails unless the group
/// continues after each.
fn run_each(mode: Mode, this: &mut Run, commands: Vec<(Vec<String>, Option<Vec<String>>)>) {
    let mut group = Told::start(mode);
    let load = Load::start(&group.cluster.redis().url(), "m", this.scale(500, 1_500));
    let (mut before, mut cursor_written) = (0..0, false);
    for (words, repair) in commands {
        load.wait_for_more(this.random.u64(10..100));
        let what = shown(&words);
        cursor_written |= words[1] == "messages:cursor";
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let _: redis::Value = run(&mut group.connection, &words);
        // Whether and when it does harm differs; some values are only read by a new leader.
        if this.random.bool() {
            group.begin_another_term();
        }
        load.wait_for_more(this.random.u64(50..200));
        if let Some(repair) = repair {
            let _: redis::Value = run(&mut group.connection, &repair.iter().map(String::as_str).collect::<Vec<_>>());
        }
        group.wait_for_new_work(&load, &what);
        group.assert_epochs_are_sane(&what);
        before.end = load.first_unpublished();
    }
    load.wait_for_more(300);
    let sent = load.stop();
    if cursor_written {
        // Without the cursor's value it is unknown what was stored.
        let again = forget_repeated(mode, &mut group.connection, &before);
        assert!(
            again == 0 || reasons(&mut group.connection).contains("cursor-lost"),
            "{again} stored again, and no gap recorded"
        );
        this.say(format_args!("{again} of {} were stored again", before.end));
    }
    this.say(format_args!("{} owed, gaps {:?}", sent.owed.len(), reasons(&mut group.connection)));
    group.assert_l0(&sent);
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The texts for one key, and one of 5 MB.
fn absurd_texts(key: &str) -> Vec<(Vec<String>, Option<Vec<String>>)> {
    let mut all: Vec<_> = ABSURD.iter().map(|text| (words(&["SET", key, text]), None)).collect();
    all.push((words(&["SET", key, &"x".repeat(5_000_000)]), None));
    all
}

fn chosen<T>(this: &mut Run, mut all: Vec<T>, short: u64) -> Vec<T> {
    this.random.shuffle(&mut all);
    all.truncate(this.scale(short, all.len() as u64) as usize);
    all
}

fn row_37_absurd_lease_epoch_and_recall(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_37_absurd_lease_epoch_and_recall");
    let now = wall_clock_us() / 1_000;
    let mut all: Vec<_> =
        ["messages:leader", "messages:epoch", "messages:recall"].into_iter().flat_map(absurd_texts).collect();
    for text in ["18446744073709551615 x 0".to_owned(), format!("{now} x 18446744073709551615")] {
        all.push((words(&["SET", "messages:recall", &text]), None));
    }
    for text in ["d0-000000 18446744073709551615", "d0-000000 -1", "d0-000000", " 1"] {
        all.push((words(&["SET", "messages:leader", text]), None));
    }
    let commands = chosen(&mut this, all, 12);
    run_each(mode, &mut this, commands);
}

fn row_37_absurd_cursor(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_37_absurd_cursor");
    let mut all = absurd_texts("messages:cursor");
    let now = wall_clock_us() / 1_000;
    for text in [
        format!("{now}.0 0 18446744073709551615"),
        format!("{now}.0 18446744073709551615 {}", now * 1_000),
        format!("18446744073709551615.18446744073709551615 0 {}", now * 1_000),
        "d0-000000.1 5 1e300".to_owned(),
    ] {
        all.push((words(&["SET", "messages:cursor", &text]), None));
    }
    let commands = chosen(&mut this, all, 10);
    run_each(mode, &mut this, commands);
}

/// Row 37: members and counts that no dispatcher wrote.
#[test]
fn row_37_absurd_members_and_counts() {
    let mut this = Run::of("row_37_absurd_members_and_counts");
    let mut commands = Vec::new();
    for (score, member) in [
        ("1790000000000000000", "x"),
        ("9007199254740991", "001fffffffffffff:{\"absurd\":1}"),
        ("9007199254740992", "0020000000000000:{\"absurd\":2}"),
        ("inf", "y"),
        ("-inf", "z"),
        ("-1", "ffffffffffffffff:{\"absurd\":3}"),
        ("0.5", "0000000000000001:{\"absurd\":4}"),
        ("1e300", ""),
    ] {
        commands.push((
            words(&["ZADD", "messages:pending", score, member]),
            Some(words(&["ZREM", "messages:pending", member])),
        ));
    }
    for field in ["1790000000000000", "hello", "9007199254740992"] {
        for text in ["", "hello", "-1", "18446744073709551615", "1e300"] {
            commands.push((words(&["HSET", "messages:attempts", field, text]), None));
        }
    }
    commands.push((words(&["RPUSH", "messages:consumers", "", "hello", &"x".repeat(5_000_000)]), None));
    let commands = chosen(&mut this, commands, 14);
    run_each(Mode::Consumers, &mut this, commands);
}

/// Row 37: strangers publish on the dispatchers' control channel.
fn row_37_absurd_notices(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_37_absurd_notices");
    let mut notices: Vec<String> = ABSURD.iter().map(|text| (*text).to_owned()).collect();
    for text in ["18446744073709551615", "9007199254740992", "0", "99999999999999999999", "-1", "", "hello", "1e300"] {
        notices.push(format!("released {text}"));
        notices.push(format!("marker {text}.0 messages:published"));
    }
    notices.extend(
        [
            "marker",
            "marker ",
            "marker  ",
            "marker a b c",
            "marker \u{e9}.1 messages:published",
            "released 1 2",
            "RELEASED 1",
        ]
        .map(str::to_owned),
    );
    notices.push(format!("marker {}.1 messages:published", "x".repeat(161)));
    notices.push(format!("marker {}.18446744073709551615 messages:published", wall_clock_us() / 1_000 + 3_600_000));
    notices.push("x".repeat(5_000_000));
    let commands = notices.iter().map(|notice| (words(&["PUBLISH", "messages:control", notice]), None)).collect();
    let commands = chosen(&mut this, commands, 20);
    run_each(mode, &mut this, commands);
}

/// Row 37: the group's own markers are published again, while a leader dies and another must know its position.
fn row_37_markers_repeated(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_37_markers_repeated");
    let mut group = Told::start(mode);
    let load = Load::start(&group.cluster.redis().url(), "m", 1_000);
    for _ in 0..this.scale(3, 20) {
        wait_until_in_sync(&mut group.connection, 2);
        for _ in 0..this.random.u64(3..10) {
            load.wait_for_more(this.random.u64(10..100));
            let cursor: String = run(&mut group.connection, &["GET", "messages:cursor"]);
            let marker = cursor.split(' ').next().expect("a marker comes first");
            let notice = format!("marker {marker} messages:published");
            let () = run(&mut group.connection, &["PUBLISH", "messages:control", &notice]);
        }
        let (member, lease) = group.cluster.wait_for_leader(DEADLINE).unwrap();
        group.cluster.kill_node(member).unwrap();
        let next = group.cluster.wait_for(DEADLINE, "another leader", |_, snapshot| {
            snapshot.lease.clone().filter(|next| next.epoch > lease.epoch)
        });
        next.unwrap();
        group.wait_for_new_work(&load, "repeated markers");
        group.cluster.start_node(member).unwrap();
    }
    let sent = load.stop();
    group.assert_l0(&sent);
    group.assert_epochs_are_sane("repeated markers");
}

/// Row 37: each key has another type for a while. That is logged with its name, and once it is repaired all continues.
fn row_37_keys_of_another_type(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_37_keys_of_another_type");
    let mut group = Told::start(mode);
    let load = Load::start(&group.cluster.redis().url(), "m", 500);
    let mut keys = ["leader", "epoch", "cursor", "recall", "dead", "gaps"].to_vec();
    keys.extend(match mode {
        Mode::Consumers | Mode::Mixed | Mode::Tls => &["pending", "attempts", "consumers", "processed"][..],
        Mode::Stream => &["messages"],
    });
    let count = keys.len() as u64;
    for key in chosen(&mut this, keys, count) {
        load.wait_for_more(this.random.u64(10..100));
        let key = format!("messages:{key}");
        let seen = DISPATCHERS.map(|member| group.cluster.process(member).unwrap().stderr().count());
        // A transaction that is open when the pending messages are replaced records results without removing their
        // messages, which is a known limitation. So no consumer holds a message at that moment.
        let quiet = key.ends_with("pending").then(|| load.hold());
        if quiet.is_some() {
            wait_for_intake(&mut group.connection);
            wait_until("nothing to be pending", || (state(&mut group.connection).0 == 0).then_some(()));
        }
        let mut change = redis::pipe();
        change.atomic();
        let there: bool = run(&mut group.connection, &["EXISTS", &key]);
        if there {
            change.cmd("RENAME").arg(&key).arg("aside");
        }
        let other = if key.ends_with("consumers") { "SADD" } else { "RPUSH" };
        change.cmd(other).arg(&key).arg("absurd");
        let () = change.query(&mut group.connection).expect("it can be replaced");
        drop(quiet);
        load.wait_for_more(this.random.u64(100..200));
        // Some keys are only used after a failure, and some are rewritten by a leader.
        let touched = ["leader", "epoch", "cursor", "pending", ":messages"].iter().any(|one| key.ends_with(one));
        let mut commands = false;
        let wait = if touched { DEADLINE } else { Duration::ZERO };
        let found = lab::wait_until(wait, format!("{key} to be named in a log"), || {
            let lines = DISPATCHERS.iter().zip(seen).flat_map(|(member, seen)| {
                let log = group.cluster.process(*member).unwrap().stderr();
                log.wait_for_after(seen, &key, Duration::ZERO).ok()
            });
            commands = lines.count() > 0;
            let kind: String = run(&mut group.connection, &["TYPE", &key]);
            // A rewritten key is repaired.
            Ok((commands || (kind != "list" && kind != "set")).then_some(()))
        });
        if touched && let Err(error) = found {
            panic!("{error}{}", logs(&mut group.cluster));
        }
        let other = if other == "SADD" { "set" } else { "list" };
        let () = run(&mut group.connection, &["EVAL", PUT_RIGHT, "2", &key, "aside", other]);
        group.wait_for_new_work(&load, &format!("{key} of another type"));
        group.assert_epochs_are_sane(&key);
        wait_until_in_sync(&mut group.connection, 2);
    }
    let sent = load.stop();
    group.assert_l0(&sent);
}

/// Row 37: the keys have absurd values before any program starts.
fn row_37_absurd_values_before_the_start(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_37_absurd_values_before_the_start");
    for _ in 0..this.scale(4, 30) {
        let mut cluster = Cluster::start(options(0, 0, "", "")).expect("a private Redis starts");
        let connection = &mut client_of(&mut cluster);
        let mut commands = String::new();
        for key in TEXTS {
            let mut texts = absurd_texts(key);
            let (words, _) = texts.swap_remove(this.random.usize(..texts.len()));
            commands.push_str(&shown(&words));
            let () = run(connection, &words.iter().map(String::as_str).collect::<Vec<_>>());
        }
        let url = cluster.redis().url();
        let mut workers = Workers::new(&mut cluster, mode.consumers(1), 2);
        workers.start_all();
        let args = mode.args("--lease-ttl-ms 800");
        let dispatchers = ["d0", "d1"].map(|name| dispatcher(&cluster, name, &workers.addresses, &args));
        let subscribed = lab::wait_until(DEADLINE, format!("one to lead, after{commands}"), || {
            let elected =
                |process: &ChildProcess| process.stderr().all().iter().any(|line| line.contains("event=elected"));
            Ok(dispatchers.iter().any(elected).then_some(()))
        });
        if let Err(error) = subscribed {
            panic!("{error}{}", dispatchers[0].stderr().tail(10));
        }
        this.say(format_args!("commands{commands}"));
        wait_until_in_sync(connection, 2);
        let load = Load::start(&url, "m", 1_000);
        load.wait_for_more(300);
        let sent = load.stop();
        assert_l0(connection, &sent);
        let limit = wall_clock_us() / 1_000 + AHEAD_MS;
        let epoch: String = run(connection, &["GET", "messages:epoch"]);
        assert!(epoch.parse::<u64>().is_ok_and(|epoch| epoch < limit), "{epoch:.60} after{commands}");
    }
}

in_both_modes! {
    row_37_absurd_lease_epoch_and_recall,
    row_37_absurd_cursor,
    row_37_absurd_notices,
    row_37_markers_repeated,
    row_37_keys_of_another_type,
    row_37_absurd_values_before_the_start,
}
