//! A headless Chromium, driven over its DevTools protocol: pages, their content, their requests and their errors.
//!
//! The browser and all processes it starts are killed when it is dropped, and its profile is removed. Every reply has a
//! deadline. Without a Chromium, a test reports on the terminal that it is skipped.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use oncecast::lab::ChildProcess;
use oncecast::lab::folder::PrivateFolder;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::waiting::{DEADLINE, wait_until};

/// How long the browser may take to start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The names of its programs, the most likely first.
const PROGRAMS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];
/// These work as root and in a container, and prevent requests to the network.
const FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    // A container's /dev/shm is small.
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    "--remote-debugging-port=0",
];

/// See the module's text.
pub struct Browser {
    // Before the folder: the processes must end before their profile is removed.
    _process: ChildProcess,
    control: Socket,
    address: String,
    _profile: PrivateFolder,
}

/// One tab.
pub struct Page {
    socket: Socket,
}

/// The screen on which a page is shown.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    pub width: u32,
    pub height: u32,
    pub dark: bool,
}

/// A connection to the browser or to one page.
struct Socket {
    socket: WebSocket<TcpStream>,
    last_id: u64,
    complaints: Vec<String>,
    requests: BTreeSet<String>,
}

impl Browser {
    /// Starts a browser. `None`, with a line on the terminal, if none is installed.
    pub fn start() -> Option<Browser> {
        let Some(program) = find() else {
            // Written past the harness's capture: a skipped test must be visible. In one write, since other threads
            // write as well.
            let thread = std::thread::current();
            let text = format!("SKIPPED {}: none of {PROGRAMS:?} is on PATH\n", thread.name().unwrap_or_default());
            let _ = std::io::stderr().write_all(text.as_bytes());
            return None;
        };
        let profile = PrivateFolder::create("chromium").expect("a new folder");
        let mut command = Command::new(program);
        command.args(FLAGS).arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        // It must leave nothing in the user's own folders.
        ["HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"].iter().for_each(|name| {
            command.env(name, profile.path());
        });
        let process = ChildProcess::spawn("chromium", command).expect("the browser starts");
        let line = process.wait_for_line("DevTools listening on ws://", START_LIMIT).expect("the browser listens");
        let (_, url) = line.split_once("ws://").expect("the line that was waited for");
        let (address, path) = url.trim().split_once('/').expect("an address and a path");
        let (address, control) = (address.to_owned(), Socket::open(address, path));
        Some(Browser { _process: process, control, address, _profile: profile })
    }

    /// An empty tab that records its requests and errors.
    pub fn page(&mut self) -> Page {
        let target = self.control.call("Target.createTarget", json!({ "url": "about:blank" }));
        let id = target["targetId"].as_str().expect("a new tab has an id");
        let mut socket = Socket::open(&self.address, &format!("devtools/page/{id}"));
        for domain in ["Page", "Runtime", "Log", "Network"] {
            socket.call(&format!("{domain}.enable"), json!({}));
        }
        Page { socket }
    }
}

impl Page {
    /// Goes to an address.
    pub fn open(&mut self, url: &str) {
        let answer = self.socket.call("Page.navigate", json!({ "url": url }));
        assert_eq!(answer.get("errorText"), None, "{url}");
    }

    /// The value of an expression of JavaScript.
    pub fn eval(&mut self, expression: &str) -> Value {
        let answer = self.socket.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        assert_eq!(answer.get("exceptionDetails"), None, "{expression}");
        answer["result"]["value"].clone()
    }

    /// The text of the element with this id; empty if there is no such element.
    pub fn text(&mut self, id: &str) -> String {
        let text = self.eval(&format!("document.getElementById('{id}')?.textContent ?? ''"));
        text.as_str().expect("a text").to_owned()
    }

    /// Waits until an expression is true. Panics with the content of the page if it does not become true.
    pub fn wait_for(&mut self, expression: &str) {
        let end = Instant::now() + DEADLINE;
        while self.eval(&format!("Boolean({expression})")) != json!(true) {
            if Instant::now() > end {
                let shown = self.eval("document.body.innerText");
                panic!("waited in vain for {expression}; {:?}; the page shows {shown:#}", self.socket.complaints);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the element with this id has just this text.
    pub fn wait_for_text(&mut self, id: &str, text: &str) {
        self.wait_for(&format!("document.getElementById('{id}')?.textContent === {}", json!(text)));
    }

    /// Shows the page on another screen.
    pub fn show_on(&mut self, screen: Screen) {
        let Screen { width, height, dark } = screen;
        let mobile = width < 500;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.socket.call("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.socket.call("Emulation.setEmulatedMedia", json!({ "features": features }));
        self.wait_for(&format!("innerWidth >= {width} && matchMedia('(prefers-color-scheme: {scheme})').matches"));
    }

    /// A PNG of the whole page at the screen's width, including what is below the fold.
    pub fn picture(&mut self) -> Vec<u8> {
        let size = self.eval("[innerWidth, document.body.offsetHeight]");
        let clip = json!({ "x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1 });
        let shot = self.socket.call("Page.captureScreenshot", json!({ "captureBeyondViewport": true, "clip": clip }));
        from_base64(shot["data"].as_str().expect("a picture"))
    }

    /// Errors and warnings of the console, uncaught exceptions, and requests that the browser blocked or that failed.
    pub fn complaints(&mut self) -> &[String] {
        // All events before this reply have been received before it.
        self.eval("0");
        &self.socket.complaints
    }

    /// The distinct addresses that were requested.
    pub fn requests(&mut self) -> &BTreeSet<String> {
        self.eval("0");
        &self.socket.requests
    }
}

impl Socket {
    fn open(address: &str, path: &str) -> Socket {
        let stream = wait_until(format!("the browser to answer at {address}"), || TcpStream::connect(address).ok());
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout above zero");
        stream.set_write_timeout(Some(DEADLINE)).expect("a timeout above zero");
        let (socket, _) = tungstenite::client(format!("ws://{address}/{path}"), stream).expect("a WebSocket handshake");
        Socket { socket, last_id: 0, complaints: Vec::new(), requests: BTreeSet::new() }
    }

    /// Calls a method and returns its result. Events that arrive meanwhile are noted.
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let request = json!({ "id": self.last_id, "method": method, "params": params });
        self.socket.send(Message::text(request.to_string())).expect("the browser takes requests");
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            let message = self.socket.read().unwrap_or_else(|error| panic!("{method}: {error}"));
            let Message::Text(text) = message else { continue };
            let mut message: Value = serde_json::from_str(&text).expect("the browser speaks JSON");
            if message["id"] == json!(self.last_id) {
                assert_eq!(message.get("error"), None, "{method} {params}");
                return message["result"].take();
            }
            self.note(&message);
        }
        panic!("{method} was not answered within {DEADLINE:?}");
    }

    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.complaints.push(format!("exception: {params}")),
            Some("Log.entryAdded") if params["entry"]["level"] != "verbose" && params["entry"]["level"] != "info" => {
                let entry = &params["entry"];
                self.complaints.push(format!("{}: {} {}", entry["source"], entry["text"], entry["url"]));
            }
            Some("Runtime.consoleAPICalled") if params["type"] == "error" || params["type"] == "warning" => {
                self.complaints.push(format!("console: {}", params["args"]));
            }
            Some("Network.requestWillBeSent") => {
                let url = params["request"]["url"].as_str().expect("a request has an address");
                self.requests.insert(url.to_owned());
            }
            _ => {}
        }
    }
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    PROGRAMS.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| path.is_file())
}

/// Decodes base 64, the browser's encoding of pictures.
fn from_base64(text: &str) -> Vec<u8> {
    let six_bits = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("{other} is no digit of base 64"),
    };
    let digits: Vec<u8> = text.trim_end_matches('=').bytes().map(six_bits).collect();
    let chunk = |digits: &[u8]| {
        let bits = digits.iter().fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit)) << (6 * (4 - digits.len()));
        bits.to_be_bytes()[1..digits.len()].to_vec()
    };
    digits.chunks(4).flat_map(chunk).collect()
}
