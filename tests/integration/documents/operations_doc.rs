//! docs/OPERATIONS.md names only log events, alerts and Redis settings that exist, and correct times until a dead
//! letter. `acl` tests its users and their rights.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use oncecast::base::retry_policy::RetryPolicy;
use oncecast::lab::{RedisOptions, RedisServer};

use crate::support::run_on;

const DOCUMENT: &str = include_str!("../../../docs/OPERATIONS.md");

/// The text of all source files below a folder.
fn source_below(folder: &Path) -> String {
    let entries =
        fs::read_dir(folder).expect("the folder can be read").map(|entry| entry.expect("it is listed").path());
    let texts = entries.map(|path| match path.extension().and_then(|extension| extension.to_str()) {
        _ if path.is_dir() => source_below(&path),
        Some("rs") => fs::read_to_string(&path).expect("source is text"),
        _ => String::new(),
    });
    texts.collect()
}

#[test]
fn the_events_it_names_exist() {
    let source = source_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let is_of_name = |c: char| c.is_ascii_lowercase() || c == '-';
    let events: BTreeSet<&str> = DOCUMENT
        .split("event=")
        .skip(1)
        .map(|rest| rest.split_once(|c| !is_of_name(c)).map_or(rest, |(name, _)| name))
        .collect();
    assert!(events.len() > 15, "{events:?}");
    let logged = |event: &str| {
        let ends = |rest: &str| !rest.starts_with(is_of_name);
        // Some are logged by a function that is told the name.
        source.split(&format!("event={event}")).skip(1).any(ends) || source.contains(&format!("\"{event}\""))
    };
    let unknown: Vec<_> = events.iter().filter(|event| !logged(event)).collect();
    assert!(unknown.is_empty(), "in no line of the log: {unknown:?}");
}

#[test]
fn redis_accepts_the_settings_it_gives() {
    let block = DOCUMENT.split("```redis-conf\n").nth(1).expect("the settings").split("```").next().expect("an end");
    let lines: Vec<(String, String)> = block
        .lines()
        .map(|line| line.split_once(' ').expect("a name and a value"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    // The settings for setting up a machine are the same.
    assert!(DOCUMENT.contains(&format!("<<'END'\n{block}bind ")), "step 1 has other settings");
    let server = RedisServer::start(RedisOptions { config: lines.clone(), ..RedisOptions::default() });
    let server = server.expect("Redis starts with them");
    for (name, value) in lines {
        let found: HashMap<String, String> = run_on(&server, &["CONFIG", "GET", &name]);
        match value.split_once(' ') {
            None => assert_eq!(found[&name], value),
            // Set in megabytes, and shown in bytes next to the limits of other kinds of clients.
            Some(_) => assert!(found[&name].contains("pubsub 268435456 134217728 60"), "{found:?}"),
        }
    }
}

#[test]
fn each_alert_has_instructions() {
    const ALERTS: &str = include_str!("../../../docker/prometheus/alerts.yml");
    let alerts: BTreeSet<&str> = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    // The names of alerts are one word; other headings at this level have more.
    let headings = DOCUMENT.lines().filter_map(|line| line.strip_prefix("### Oncecast"));
    let headings: BTreeSet<String> =
        headings.filter(|rest| !rest.starts_with([',', ' '])).map(|rest| format!("Oncecast{rest}")).collect();
    assert!(alerts.len() >= 10, "{alerts:?}");
    assert_eq!(headings.iter().map(String::as_str).collect::<BTreeSet<_>>(), alerts);
}

#[test]
fn the_times_until_a_dead_letter_match_the_policies() {
    let (_, table) =
        DOCUMENT.split_once("| `--retry` | `--max-deliveries` | waits | dead letter after |\n").expect("a table");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim_matches([' ', '`'])).collect())
        .collect();
    assert!(rows.len() >= 4, "{rows:?}");
    for row in rows {
        let policy: RetryPolicy = row[0].parse().expect("a policy");
        let dead_after = policy.dead_after(row[1].parse().expect("a number")).as_secs_f64();
        let stated = row[3].split_once(" s").map_or("0", |(seconds, _)| seconds);
        assert_eq!(stated.parse::<f64>().expect(row[3]), dead_after, "{row:?}");
    }
}
