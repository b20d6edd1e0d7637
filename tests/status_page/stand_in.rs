//! A stand-in for a dispatcher: serves the page, under the policy that it must work with, and the status that a test says.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use serde_json::Value;

use crate::support::DEADLINE;

/// The page under test.
pub const PAGE: &str = include_str!("../../src/status/page.html");
/// Nothing from elsewhere, and no picture that is not in the page.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:";

/// See the module's text. Stopped on drop.
pub struct StandIn {
    pub url: String,
    address: String,
    status: Arc<Mutex<String>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl StandIn {
    pub fn start(status: &Value) -> StandIn {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it listens").to_string();
        let status = Arc::new(Mutex::new(status.to_string()));
        let stopping = Arc::new(AtomicBool::new(false));
        let acceptor = Acceptor { listener, status: status.clone(), stopping: stopping.clone() };
        let thread = Some(thread::spawn(move || acceptor.run()));
        StandIn { url: format!("http://{address}/"), address, status, stopping, thread }
    }

    /// What it answers from now on.
    pub fn say(&self, status: &Value) {
        *self.status.lock() = status.to_string();
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        // It waits for a connection: this is one.
        let woken = TcpStream::connect(&self.address).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            let _ = thread.join();
        }
    }
}

struct Acceptor {
    listener: TcpListener,
    status: Arc<Mutex<String>>,
    stopping: Arc<AtomicBool>,
}

impl Acceptor {
    fn run(self) {
        for stream in self.listener.incoming() {
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            // A browser opens connections in advance and says nothing on them: they must not hold up the others.
            let status = self.status.clone();
            let stream = stream.expect("the system gives sockets");
            thread::spawn(move || answer(stream, &status));
        }
    }
}

/// A browser that goes away before its answer is nobody's problem.
fn answer(stream: TcpStream, status: &Mutex<String>) -> Option<()> {
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    let mut lines = BufReader::new(&stream).lines();
    let request = lines.next()?.ok()?;
    lines.take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty())).for_each(drop);
    let (code, kind, body) = match request.split(' ').nth(1)? {
        "/" => ("200 OK", "text/html; charset=utf-8", PAGE.to_owned()),
        "/status.json" => ("200 OK", "application/json", status.lock().clone()),
        _ => ("404 Not Found", "text/plain", String::new()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {code}\r\nContent-Type: {kind}\r\nContent-Security-Policy: {POLICY}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    (&stream).write_all((head + &body).as_bytes()).ok()
}
