//! A real Prometheus with our configuration, and its answers.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oncecast::lab::folder::PrivateFolder;
use oncecast::lab::{ChildProcess, ports, wait_until as wait_within};
use serde_json::Value;

use crate::monitoring::{read, root};
use crate::support::{DEADLINE, wait_until};

/// How long a query may stay without data after the last event: a few scrapes, and a window of rates.
const SETTLE: Duration = Duration::from_secs(20);

/// A server with our configuration, whose targets are elsewhere.
pub struct Prometheus {
    // Before the folder, so that the process ends before its folder is removed.
    pub process: ChildProcess,
    port: u16,
    _folder: PrivateFolder,
}

impl Prometheus {
    pub fn start(targets: &BTreeMap<&'static str, u16>) -> Prometheus {
        let mut config = read("docker/prometheus/prometheus.yml");
        for (name, port) in targets {
            let target = format!("[{name}:9464]");
            assert!(config.contains(&target), "prometheus.yml does not name {name}");
            config = config.replace(&target, &format!("['127.0.0.1:{port}']"));
        }
        assert!(!config.contains(":9464"), "prometheus.yml names a process that is not started here");
        Prometheus::with(&config)
    }

    /// A server with a configuration, and our rules beside it.
    pub fn with(config: &str) -> Prometheus {
        let folder = PrivateFolder::create("prometheus").expect("a folder");
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
    pub fn ask(&self, path: &str) -> Result<Value, String> {
        let answer = get(self.port, path).ok_or("no answer")?;
        let answer: Value = serde_json::from_str(&answer).map_err(|_| answer)?;
        match answer["status"] == "success" {
            true => Ok(answer["data"].clone()),
            false => Err(answer["error"].to_string()),
        }
    }

    /// The values that a query has now.
    pub fn samples(&self, query: &str) -> Vec<String> {
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

    /// The queries that get no data, with their places.
    pub fn wait_for_data(&self, queries: &[(String, String)], begin: u64) -> Vec<String> {
        let look = || -> Vec<String> {
            let failure = |(place, query): &(String, String)| {
                self.has_data(query, begin).err().map(|why| format!("{place}: {why}: {query}"))
            };
            queries.iter().filter_map(failure).collect()
        };
        let all = wait_within(SETTLE, "data", || Ok(look().is_empty().then_some(())));
        if all.is_ok() { Vec::new() } else { look() }
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// The body of the answer on a port of 127.0.0.1; HTTP/1.0, so that it comes in one piece.
pub fn get(port: u16, path: &str) -> Option<String> {
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
