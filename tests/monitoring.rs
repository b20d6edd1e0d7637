//! The monitoring that is shipped fits the programs: a real Prometheus with our configuration fetches the figures of a real
//! cluster in which something happens, and every query of the dashboard, and every figure in a rule, has data there.
//!
//! Needs `prometheus` on the PATH, which `make monitoring-check` sees to.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oncecast::local::folder::PrivateFolder;
use oncecast::local::{ChildProcess, Cluster, Signal, ports};
use serde_json::Value;

use support::{DEADLINE, bare_cluster, client, publish_payloads, run, wait_until};

const DASHBOARD: &str = "docker/grafana/dashboards/oncecast.json";
/// How long a query may stay without data once everything has happened: a few fetches, and a window of rates.
const SETTLE: Duration = Duration::from_secs(20);

#[test]
#[ignore = "needs prometheus: make monitoring-check"]
fn every_query_has_data_when_a_real_prometheus_watches_a_real_cluster() {
    let mut group = Group::start();
    let begin = now();
    let mut prometheus = Prometheus::start(&group.ports);
    wait_until("prometheus to have fetched from all", || {
        let up = prometheus.samples("count(up == 1)");
        (up == ["6"]).then_some(())
    });
    group.redeliver();
    group.bury();
    group.change_leader();
    let missing = prometheus.wait_for_data(&queries(&prometheus), begin);
    prometheus.process.must_run().expect("prometheus runs");
    assert!(missing.is_empty(), "{} queries have no data:\n{}", missing.len(), missing.join("\n"));
}

#[test]
fn the_dashboard_is_one_that_needs_no_clicks() {
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
            assert!(sources.contains(&format!("\n    uid: {uid}\n")), "{title}: nobody provides the source {uid}");
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
fn every_alert_says_what_it_is_and_what_to_do() {
    let rules = read("docker/prometheus/alerts.yml");
    let tests = read("docker/prometheus/alerts_test.yml");
    let manual = fs::read_to_string(root().join("docs/OPERATIONS.md")).ok();
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
        if let Some(manual) = &manual {
            assert!(manual.lines().any(heading), "OPERATIONS.md has no heading {name}");
        }
        alerts += 1;
    }
    assert!(alerts >= 10, "{alerts} alerts");
}

/// The processes that prometheus.yml names, each with figures on a port of its own.
struct Group {
    // Processes before the server, so that they end before it.
    processes: BTreeMap<&'static str, ChildProcess>,
    ports: BTreeMap<&'static str, u16>,
    listens: Vec<u16>,
    cluster: Cluster,
}

const DISPATCHERS: [&str; 2] = ["dispatcher-0", "dispatcher-1"];
const CONSUMERS: [&str; 3] = ["consumer-0", "consumer-1", "consumer-2"];

impl Group {
    fn start() -> Group {
        let port = |_: &&str| ports::free_port().expect("a free port");
        let names = DISPATCHERS.into_iter().chain(CONSUMERS).chain(["publisher"]);
        let ports = names.map(|name| (name, port(&name))).collect();
        let listens = CONSUMERS.iter().map(port).collect();
        let mut group = Group { processes: BTreeMap::new(), ports, listens, cluster: bare_cluster() };
        CONSUMERS.into_iter().chain(DISPATCHERS).for_each(|name| group.launch(name));
        wait_until("a dispatcher to lead and all to be linked", || {
            let links = DISPATCHERS.iter().filter_map(|name| group.figure(name, "oncecast_consumers"));
            (links.sum::<f64>() == 3.0).then_some(())
        });
        group.launch("publisher");
        group
    }

    fn launch(&mut self, name: &'static str) {
        let metrics = format!("127.0.0.1:{}", self.ports[name]);
        let listens: Vec<String> = self.listens.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let (program, arguments) = match name.split_once('-') {
            Some(("dispatcher", _)) => {
                ("oncecast-dispatcher", format!("--dispatcher-id {name} --consumers {}", listens.join(",")))
            }
            Some((_, number)) => {
                let number: usize = number.parse().expect("a consumer has a number");
                ("oncecast-consumer", format!("--consumer-id {name} --listen {}", listens[number]))
            }
            None => ("oncecast-publisher", "--rate 2000".to_owned()),
        };
        let mut command = self.cluster.command(program).expect("the programs are built");
        command.args(arguments.split(' ')).args(["--metrics-addr", &metrics]);
        self.processes.insert(name, ChildProcess::spawn(name, command).expect("it starts"));
    }

    /// A figure as the process itself tells it, labels included in its name.
    fn figure(&self, instance: &str, name: &str) -> Option<f64> {
        let text = get(self.ports[instance], "/metrics")?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// The dispatcher that leads.
    fn leader(&self) -> &'static str {
        wait_until("a dispatcher to lead", || {
            DISPATCHERS.into_iter().find(|name| self.figure(name, "oncecast_leader") == Some(1.0))
        })
    }

    /// A consumer hangs with messages in hand: once its link is given up they go to others.
    fn redeliver(&mut self) {
        let hung = self.processes.get_mut("consumer-2").expect("it runs");
        hung.signal(Signal::SIGSTOP).expect("it stops");
        wait_until("its messages to go out again", || {
            let again = DISPATCHERS.iter().filter_map(|name| self.figure(name, "oncecast_messages_redelivered_total"));
            (again.sum::<f64>() > 0.0).then_some(())
        });
        self.processes.get_mut("consumer-2").expect("it runs").kill().expect("it dies");
        self.launch("consumer-2");
    }

    /// A message that is too large becomes a dead letter.
    fn bury(&mut self) {
        let connection = &mut client(&self.cluster.redis_url());
        let heard = publish_payloads(connection, ["x".repeat((8 << 20) + 1)]);
        assert_eq!(heard, 2, "both dispatchers hear it");
        wait_until("a dead letter", || {
            let dead: u64 = run(connection, &["XLEN", "messages:dead"]);
            (dead == 1).then_some(())
        });
    }

    /// The leader dies, the other leads, and the former one comes back.
    fn change_leader(&mut self) {
        let former = self.leader();
        self.processes.get_mut(former).expect("it runs").kill().expect("it dies");
        self.processes.remove(former);
        let next = self.leader();
        assert_ne!(former, next);
        self.launch(former);
        wait_until("the former leader to be in sync", || {
            (self.figure(former, "oncecast_in_sync") == Some(1.0)).then_some(())
        });
    }
}

/// A server with our configuration, whose targets are elsewhere.
struct Prometheus {
    // Before the folder: it must be gone before its folder goes.
    process: ChildProcess,
    port: u16,
    _folder: PrivateFolder,
}

impl Prometheus {
    fn start(targets: &BTreeMap<&'static str, u16>) -> Prometheus {
        let folder = PrivateFolder::create("prometheus").expect("a folder");
        let mut config = read("docker/prometheus/prometheus.yml");
        for (name, port) in targets {
            let target = format!("[{name}:9464]");
            assert!(config.contains(&target), "prometheus.yml does not name {name}");
            config = config.replace(&target, &format!("['127.0.0.1:{port}']"));
        }
        assert!(!config.contains(":9464"), "prometheus.yml names somebody who is not started here");
        let path = folder.path().join("prometheus.yml");
        fs::write(&path, config).expect("the folder can be written to");
        fs::copy(root().join("docker/prometheus/alerts.yml"), folder.path().join("alerts.yml"))
            .expect("the rules are there");
        let port = ports::free_port().expect("a free port");
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", path.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let process = ChildProcess::spawn("prometheus", command).expect("prometheus is on the PATH");
        wait_until("prometheus to be ready", || get(port, "/-/ready").filter(|answer| answer.contains("Ready")));
        Prometheus { process, port, _folder: folder }
    }

    /// The answer to a request to the API.
    fn ask(&self, path: &str) -> Result<Value, String> {
        let answer = get(self.port, path).ok_or("no answer")?;
        let answer: Value = serde_json::from_str(&answer).map_err(|_| answer)?;
        match answer["status"] == "success" {
            true => Ok(answer["data"].clone()),
            false => Err(answer["error"].to_string()),
        }
    }

    /// The values that a query has now.
    fn samples(&self, query: &str) -> Vec<String> {
        let data = self.ask(&format!("/api/v1/query?query={}", encoded(query))).unwrap_or_default();
        let value = |of: &Value| of["value"][1].as_str().map(str::to_owned);
        data["result"].as_array().into_iter().flatten().filter_map(value).collect()
    }

    /// Whether a query has a number at some second since then.
    fn has_data(&self, query: &str, begin: u64) -> Result<(), String> {
        let query = encoded(query);
        let data = self.ask(&format!("/api/v1/query_range?query={query}&start={begin}&end={}&step=1", now()))?;
        let points = data["result"].as_array().into_iter().flatten().flat_map(|of| of["values"].as_array());
        let number = |point: &Value| point[1].as_str()?.parse().ok().filter(|number: &f64| number.is_finite());
        points.flatten().find_map(number).map(drop).ok_or_else(|| "no data".to_owned())
    }

    /// Those that get no data, with where they stand.
    fn wait_for_data(&self, queries: &[(String, String)], begin: u64) -> Vec<String> {
        let look = || -> Vec<String> {
            let failure = |(place, query): &(String, String)| {
                self.has_data(query, begin).err().map(|why| format!("{place}: {why}: {query}"))
            };
            queries.iter().filter_map(failure).collect()
        };
        let all = oncecast::local::wait_until(SETTLE, "data", || Ok(look().is_empty().then_some(())));
        if all.is_ok() { Vec::new() } else { look() }
    }
}

/// What is asked of Prometheus by the dashboard and by the rules, with where.
fn queries(prometheus: &Prometheus) -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("the dashboard is JSON");
    let mut queries = Vec::new();
    let mut add = |place: String, target: &Value| {
        if target["datasource"]["uid"] == "prometheus" {
            // What Grafana makes of it at one point a second.
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
        // A rule gives nothing while all is well; what it looks at must be there.
        for figure in figures(rule["query"].as_str().expect("a rule has a query")) {
            queries.push((format!("rule {}", rule["name"]), figure));
        }
    }
    assert!(queries.len() > 40, "{} queries", queries.len());
    queries
}

/// The figures in a query, each with its labels.
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
fn figures_are_found_in_a_query() {
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

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// The body of the answer on a port of 127.0.0.1; HTTP/1.0, so that it comes in one piece.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), DEADLINE).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    stream.set_write_timeout(Some(DEADLINE)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// For use in a URL.
fn encoded(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escape).collect()
}
