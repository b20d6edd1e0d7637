//! The status of a group with several lanes: each lane's, and their sum. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::report::tenths;
use super::state::{SHOWN_GAPS, SHOWN_LETTERS, Status};
use crate::base::text::Escaped;
use crate::ledger::LaneNumber;
use crate::ledger::overview::Part;
use crate::ledger::server_check::Warning;

mod table;

use self::table::table;

/// Figures that are added up.
const SUMMED: [&str; 9] = [
    "pending",
    "in_flight",
    "results",
    "dead_letters",
    "gaps",
    "spilled",
    "delayed",
    "recent_deaths",
    "stream_entries",
];
/// Rates, which are added up, too.
const RATES: [&str; 5] = ["published", "taken_in", "dispatched", "acked", "redelivered"];

/// What belongs to one lane and is no figure, and what it is where lane 0 is not known.
const OF_ONE_LANE: [(&str, Unknown); 9] = [
    ("leader", || Value::Null),
    ("epoch", || Value::Null),
    ("node", || Value::Null),
    ("delivery", || Value::Null),
    ("stream", || Value::Null),
    ("order", || Value::Null),
    ("shadows", || json!([])),
    ("sources", || json!([])),
    ("redis_warnings", || json!([])),
];

/// Makes the value of what is not known.
type Unknown = fn() -> Value;

type Lanes = [(LaneNumber, Value)];

/// The status of a lane, or why it could not be read.
pub type Seen = Result<Status, String>;

/// The status of lane 0 with sums over all lanes in place of its figures, what all lanes have together in place of its
/// lists, and in `lanes` the status of each. Of one lane it is that lane's.
///
/// A figure that is not known of some lanes is the sum over the others; a problem or a note of each names it.
/// `unread_lanes` are those that could not be read at all.
pub fn combined(mut lanes: Vec<(LaneNumber, Value)>) -> Value {
    if lanes.len() == 1 {
        return lanes.remove(0).1;
    }
    let mut shown = lanes.first().map(|(_, first)| first.clone()).unwrap_or_default();
    let unread: Vec<LaneNumber> =
        lanes.iter().filter(|(_, lane)| lane.get("pending").is_none()).map(|(number, _)| *number).collect();
    // Without Redis no lane has figures. Then there is no sum either.
    if unread.len() < lanes.len() {
        if unread.contains(&0) {
            OF_ONE_LANE.iter().for_each(|(name, unknown)| shown[name] = unknown());
        }
        add_figures(&mut shown, &lanes);
        shown["recent_gaps"] = newest(&lanes, "recent_gaps", SHOWN_GAPS);
        shown["recent_dead_letters"] = newest(&lanes, "recent_dead_letters", SHOWN_LETTERS);
        shown["channel"] = channels(&lanes);
        shown["consumers"] = consumers(&lanes);
        shown["dispatchers"] = dispatchers(&lanes);
    }
    for words in ["problems", "notes"] {
        shown[words] = told_once(&lanes, words);
    }
    if let Some(problem) = lacking(&unread, lanes.len())
        && let Some(problems) = shown["problems"].as_array_mut()
    {
        problems.insert(0, problem.into());
    }
    shown["unread_lanes"] = unread.into();
    if lanes.iter().any(|(_, lane)| lane["health"] != "ok") {
        shown["health"] = "attention".into();
    }
    shown["lanes"] = lanes.into_iter().map(|(number, lane)| (number.to_string(), lane)).collect::<Map<_, _>>().into();
    shown
}

/// Problems or notes, each once with the lanes that have it.
fn told_once(lanes: &Lanes, words: &str) -> Value {
    let mut all: Vec<(String, Vec<LaneNumber>)> = Vec::new();
    for (number, lane) in lanes {
        for text in lane[words].as_array().into_iter().flatten().filter_map(Value::as_str) {
            match all.iter_mut().find(|(told, _)| told == text) {
                Some((_, numbers)) => numbers.push(*number),
                None => all.push((text.to_owned(), vec![*number])),
            }
        }
    }
    all.into_iter().map(|(text, numbers)| Value::from(format!("{}: {text}", named(&numbers)))).collect()
}

/// `lane 3` or `lanes 0, 3`.
fn named(numbers: &[LaneNumber]) -> String {
    let lanes = if numbers.len() == 1 { "lane" } else { "lanes" };
    format!("{lanes} {}", numbers.iter().map(LaneNumber::to_string).collect::<Vec<_>>().join(", "))
}

/// That the sums lack lanes; `None` if they lack none, or if there are no sums.
fn lacking(unread: &[LaneNumber], all: usize) -> Option<String> {
    let some = !unread.is_empty() && unread.len() < all;
    some.then(|| format!("the sums lack {}, which could not be read", named(unread)))
}

fn add_figures(shown: &mut Value, lanes: &Lanes) {
    for figure in SUMMED {
        shown[figure] = lanes.iter().filter_map(|(_, lane)| lane[figure].as_u64()).reduce(|a, b| a + b).into();
    }
    let of_rates = |name: &str| lanes.iter().filter_map(|(_, lane)| lane["rates"][name].as_f64()).reduce(|a, b| a + b);
    let rates = RATES.map(|name| (name.to_owned(), of_rates(name).map(tenths).into()));
    let are_known = lanes.iter().any(|(_, lane)| lane["rates"].is_object());
    shown["rates"] = are_known.then(|| Value::from(Map::from_iter(rates))).into();
    let ages = lanes.iter().filter_map(|(_, lane)| lane["oldest_age_s"].as_f64());
    shown["oldest_age_s"] = ages.reduce(f64::max).into();
    shown["next_retry_ms"] = lanes.iter().filter_map(|(_, lane)| lane["next_retry_ms"].as_u64()).min().into();
    let paused = lanes.iter().filter(|(_, lane)| lane["delivery"]["paused"].is_object());
    shown["paused_lanes"] = paused.map(|(number, _)| Value::from(*number)).collect();
}

/// What all lanes listen to, each name once.
fn channels(lanes: &Lanes) -> Value {
    let all: BTreeSet<&str> = lanes.iter().filter_map(|(_, lane)| lane["channel"].as_str()).collect();
    if all.is_empty() { Value::Null } else { all.into_iter().collect::<Vec<_>>().join(", ").into() }
}

/// The newest gaps or letters of all lanes, each with its lane; null if they are known of none.
fn newest(lanes: &Lanes, list: &str, most: usize) -> Value {
    if !lanes.iter().any(|(_, lane)| lane[list].is_array()) {
        return Value::Null;
    }
    let of_lane = |(number, lane): &(LaneNumber, Value)| {
        let number = *number;
        let entries = lane[list].as_array().cloned().unwrap_or_default().into_iter();
        entries.map(move |mut entry| {
            entry["lane"] = number.into();
            entry
        })
    };
    let mut all: Vec<Value> = lanes.iter().flat_map(of_lane).collect();
    // Times are of one form, so they are in the order of their texts.
    all.sort_by(|a, b| b["time"].as_str().cmp(&a["time"].as_str()));
    all.truncate(most);
    all.into()
}

/// The consumers of all lanes, each once, with what it holds of all.
fn consumers(lanes: &Lanes) -> Value {
    let mut all: BTreeMap<(String, String), Value> = BTreeMap::new();
    for consumer in lanes.iter().filter_map(|(_, lane)| lane["consumers"].as_array()).flatten() {
        let name = ["id", "address"].map(|name| consumer[name].as_str().unwrap_or_default().to_owned());
        let Some(known) = all.get_mut(&name.clone().into()) else {
            all.insert(name.into(), consumer.clone());
            continue;
        };
        for figure in ["in_flight", "overdue", "prefetch"] {
            known[figure] = (known[figure].as_u64().unwrap_or(0) + consumer[figure].as_u64().unwrap_or(0)).into();
        }
        let rate = [&*known, consumer].map(|one| one["acked_per_s"].as_f64().unwrap_or(0.0));
        known["acked_per_s"] = tenths(rate[0] + rate[1]).into();
        if known["state"] == "linked" {
            known["state"] = consumer["state"].clone();
        }
    }
    all.into_values().collect()
}

/// The dispatchers of all lanes, each once, with the lanes that it leads.
fn dispatchers(lanes: &Lanes) -> Value {
    let mut all: BTreeMap<String, Value> = BTreeMap::new();
    for (number, lane) in lanes {
        for one in lane["dispatchers"].as_array().into_iter().flatten() {
            let id = one["id"].as_str().unwrap_or_default().to_owned();
            let known = all.entry(id).or_insert_with(|| {
                let mut first = one.clone();
                (first["leads"], first["ring_bytes"]) = (json!([]), 0.into());
                first
            });
            if one["role"] == "leader" {
                known["role"] = "leader".into();
                known["leads"].as_array_mut().expect("it was made above").push((*number).into());
            }
            for must in ["in_sync", "reporting"] {
                known[must] = (known[must] == true && one[must] == true).into();
            }
            known["ring_bytes"] =
                (known["ring_bytes"].as_u64().unwrap_or(0) + one["ring_bytes"].as_u64().unwrap_or(0)).into();
        }
    }
    all.into_values().collect()
}

/// The same as text: a table of the lanes with their sum, and then the status of each.
pub fn in_words(lanes: &[(LaneNumber, Seen)]) -> String {
    if let [(_, Ok(only))] = lanes {
        return only.to_string();
    }
    let mut text = overview(lanes);
    // What is to know of all nodes alike is told once. Writing to a text can't fail.
    let of_all = notes_of_all(lanes);
    for note in &of_all {
        let _ = writeln!(text, "\nnote of all lanes: {}", Escaped(note));
    }
    for (number, seen) in lanes {
        let _ = match seen {
            Ok(status) => {
                let mut own = status.clone();
                own.settings.retain(|warning| !of_all.contains(&warning));
                write!(text, "\nlane {number}:\n{own}")
            }
            Err(problem) => writeln!(text, "\nlane {number}:\nproblem       {}", Escaped(problem)),
        };
    }
    text
}

/// The notes on their servers that all lanes share.
fn notes_of_all(lanes: &[(LaneNumber, Seen)]) -> Vec<&Warning> {
    let mut known = lanes.iter().filter_map(|(_, seen)| seen.as_ref().ok());
    let Some(first) = known.next() else { return Vec::new() };
    let others: Vec<&Status> = known.collect();
    let is_shared = |warning: &&Warning| others.iter().all(|status| status.settings.contains(warning));
    first.settings.iter().filter(|warning| warning.is_note() && !others.is_empty()).filter(is_shared).collect()
}

fn overview(lanes: &[(LaneNumber, Seen)]) -> String {
    const HEADER: [&str; 9] =
        ["lane", "leader", "pending", "in flight", "acked/s", "dead letters", "gaps", "paused", "node"];
    let mut rows = vec![HEADER.map(str::to_owned).to_vec()];
    rows.extend(lanes.iter().map(|(number, seen)| row(*number, seen.as_ref().ok())));
    let known = || lanes.iter().filter_map(|(_, seen)| seen.as_ref().ok());
    let sum = |pick: &Pick| figure(known().filter_map(pick).reduce(|a, b| a + b));
    let paused = known().filter(|status| status.pause().is_some()).count();
    let begin = ["all".to_owned(), String::new()].into_iter();
    rows.push(
        begin
            .chain(FIGURES.iter().map(sum))
            .chain([format!("{paused} of {}", known().count()), String::new()])
            .collect(),
    );
    let calm = known().filter(|status| status.problems().is_empty()).count();
    let health = match lanes.len() - calm {
        0 => "ok".to_owned(),
        attention => format!("{attention} of {} lanes need attention", lanes.len()),
    };
    let unread: Vec<LaneNumber> = lanes.iter().filter(|(_, seen)| seen.is_err()).map(|(number, _)| *number).collect();
    let lacking = lacking(&unread, lanes.len()).map(|text| format!("{text}: see below\n"));
    let results: u64 = known().map(|status| status.snapshot.processed).sum();
    let lacking = lacking.unwrap_or_default();
    format!("{} lanes: {health}, results {results}\n{lacking}\n{}", lanes.len(), table(&rows, 2..7))
}

/// Gives a figure of a lane, if it is known.
type Pick = fn(&Status) -> Option<f64>;

const FIGURES: [Pick; 5] = [
    |status| status.known(Part::Pending, status.snapshot.pending as f64),
    |status| status.in_flight().map(|count| count as f64),
    |status| status.rates().map(|rates| rates.acked),
    |status| status.known(Part::Dead, status.snapshot.dead as f64),
    |status| status.known(Part::Gaps, status.snapshot.gaps as f64),
];

fn figure(number: Option<f64>) -> String {
    number.map_or_else(|| "?".to_owned(), |number| format!("{number:.0}"))
}

/// A line of the table; nothing is known of a lane that could not be read.
fn row(number: LaneNumber, status: Option<&Status>) -> Vec<String> {
    let leader = status.map_or("?", |status| status.leader().map_or("none", |leader| &leader.holder));
    let report = status.and_then(Status::leaders_report);
    let paused = match (report, status.and_then(Status::pause)) {
        (None, _) => "?",
        (_, Some(_)) => "yes",
        (_, None) => "no",
    };
    let node = report.map_or("?", |report| &report.node);
    let figures = FIGURES.iter().map(|pick| figure(status.and_then(pick)));
    let begin = [number.to_string(), Escaped(leader).to_string()];
    begin.into_iter().chain(figures).chain([paused.to_owned(), Escaped(node).to_string()]).collect()
}

#[cfg(test)]
mod tests;
