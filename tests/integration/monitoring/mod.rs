//! The monitoring that we ship matches the programs: a real Prometheus with our configuration scrapes a real cluster in
//! which faults happen. Every query of the dashboard and every metric in a rule must have data there.
//!
//! Needs `prometheus` on the PATH, which `make monitoring-check` provides.

mod group;
mod prometheus;
mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::monitoring::group::Group;
use crate::monitoring::prometheus::{Prometheus, now};
use crate::support::wait_until;

const DASHBOARD: &str = "docker/grafana/dashboards/oncecast.json";

#[test]
#[ignore = "needs prometheus: make monitoring-check"]
fn every_query_has_data_with_a_real_prometheus_and_cluster() {
    let mut group = Group::start();
    let begin = now();
    let mut prometheus = Prometheus::start(&group.ports);
    wait_until("prometheus to have fetched from all", || {
        let up = prometheus.samples("count(up == 1)");
        (up == ["6"]).then_some(())
    });
    group.redeliver();
    group.make_dead_letter();
    group.change_leader();
    group.switch_to_a_stream();
    let missing = prometheus.wait_for_data(&queries(&prometheus), begin);
    prometheus.process.must_run().expect("prometheus runs");
    assert!(missing.is_empty(), "{} queries have no data:\n{}", missing.len(), missing.join("\n"));
}

#[test]
fn the_dashboard_needs_no_manual_setup() {
    let text = read(DASHBOARD);
    assert!(
        !text.contains("__inputs") && !text.contains("${DS_"),
        "an export for importing by hand asks for its sources"
    );
    let dashboard: Value = serde_json::from_str(&text).expect("the dashboard is JSON");
    assert_eq!((&dashboard["id"], &dashboard["uid"]), (&Value::Null, &Value::from("oncecast")));
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|version| version <= 42), "newer ones are of another kind");
    let sources = read("docker/grafana/provisioning/datasources/oncecast.yml");
    let mut ids = BTreeSet::new();
    let mut cells = BTreeMap::new();
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().expect("a panel has a title");
        assert!(ids.insert(panel["id"].as_u64().expect("a panel has an id")), "{title}: its id is another's");
        assert!(panel["description"].is_string(), "{title}: says nothing about itself");
        for of in [panel].into_iter().chain(panel["targets"].as_array().expect("a panel asks for something")) {
            let uid = of["datasource"]["uid"].as_str().expect("a source is named by its uid");
            assert!(sources.contains(&format!("\n    uid: {uid}\n")), "{title}: no file provides the source {uid}");
        }
        let place = |name: &str| panel["gridPos"][name].as_u64().expect("a panel has a place");
        assert!(place("x") + place("w") <= 24, "{title}: wider than the page");
        for cell in (place("x")..place("x") + place("w"))
            .flat_map(|x| (place("y")..place("y") + place("h")).map(move |y| (x, y)))
        {
            if let Some(other) = cells.insert(cell, title) {
                panic!("{title} lies on {other}");
            }
        }
    }
    assert!(ids.len() > 10, "the dashboard has panels");
}

#[test]
fn every_alert_has_a_summary_and_instructions() {
    let rules = read("docker/prometheus/alerts.yml");
    let tests = read("docker/prometheus/alerts_test.yml");
    let manual = read("docs/OPERATIONS.md");
    let mut alerts = 0;
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().expect("an alert has a name");
        let runbook = format!("runbook: docs/OPERATIONS.md#{}", name.to_lowercase());
        for part in ["expr:", "severity:", "summary:", "description:", &runbook] {
            assert!(rule.contains(part), "{name} has no {part}");
        }
        let fires = |test: &str| test.lines().next().is_some_and(|line| line == name) && test.contains("exp_alerts");
        let fires_in_one_line = tests.contains(&format!("alertname: {name}, exp_alerts"));
        assert!(fires_in_one_line || tests.split("alertname: ").any(fires), "{name} fires in no test");
        let heading =
            |line: &str| line.trim_start_matches('#').trim_matches([' ', '`']) == name && line.starts_with('#');
        assert!(manual.lines().any(heading), "OPERATIONS.md has no heading {name}");
        alerts += 1;
    }
    assert!(alerts >= 10, "{alerts} alerts");
}

/// The queries of the dashboard and the metrics of the rules, with their places.
fn queries(prometheus: &Prometheus) -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("the dashboard is JSON");
    let mut queries = Vec::new();
    let mut add = |place: String, target: &Value| {
        if target["datasource"]["uid"] == "prometheus" {
            // As Grafana replaces it at one point per second.
            let query = target["expr"].as_str().expect("a query").replace("$__rate_interval", "4s");
            assert!(!query.contains('$'), "{place}: a variable that is not known here: {query}");
            queries.push((place, query));
        }
    };
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap_or_default();
        let targets = panel["targets"].as_array().expect("a panel asks for something");
        targets.iter().for_each(|target| add(format!("panel {title:?}"), target));
    }
    for annotation in dashboard["annotations"]["list"].as_array().expect("there are annotations") {
        add(format!("annotation {}", annotation["name"]), annotation);
    }
    let rules = prometheus.ask("/api/v1/rules").expect("prometheus tells its rules");
    let rules = rules["groups"].as_array().into_iter().flatten().flat_map(|group| group["rules"].as_array()).flatten();
    for rule in rules {
        // A rule returns nothing while all is well, but its metrics must exist.
        for figure in figures(rule["query"].as_str().expect("a rule has a query")) {
            queries.push((format!("rule {}", rule["name"]), figure));
        }
    }
    assert!(queries.len() > 40, "{} queries", queries.len());
    queries
}

/// The metrics in a query, each with its labels.
fn figures(query: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = query;
    while let Some(at) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '{') {
        rest = &rest[at..];
        let name = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let labels = rest[name..].strip_prefix('{').map_or(0, |of| of.find('}').expect("braces are closed") + 2);
        let figure = &rest[..name + labels];
        if labels > 0 || figure.starts_with("oncecast_") || figure == "up" {
            found.insert(figure.to_owned());
        }
        rest = &rest[(name + labels).max(1)..];
    }
    found
}

#[test]
fn metric_names_are_found_in_a_query() {
    let query =
        r#"sum by (group) (rate(oncecast_a_total[1m])) / up{job=~"x|y"} > 0 or changes(max({__name__=~"b"})[5m:5s])"#;
    let expected = ["oncecast_a_total", r#"up{job=~"x|y"}"#, r#"{__name__=~"b"}"#];
    assert_eq!(figures(query), expected.map(str::to_owned).into());
}

fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    dashboard["panels"].as_array().expect("there are panels").iter()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
