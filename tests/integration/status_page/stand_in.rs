//! A stand-in for a dispatcher: its server, with the page under test and a status that the test sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use oncecast::process::metrics::{Metrics, MetricsPlace, MetricsServer, Site};
use oncecast::programs::status::PAGE_POLICY;
use parking_lot::Mutex;
use serde_json::Value;

/// The page under test.
pub use oncecast::programs::status::PAGE;
/// The end of a time that advances by itself.
const RUNNING: &str = ".000Z";

/// See the module's text.
pub struct StandIn {
    pub url: String,
    status: Arc<Mutex<String>>,
    _server: MetricsServer,
}

impl StandIn {
    pub fn start(status: &Value) -> StandIn {
        let status = Arc::new(Mutex::new(status.to_string()));
        let (said, looks) = (status.clone(), AtomicU64::new(0));
        // A constant time would mean that the dispatcher has stopped checking.
        let answer = move || {
            let look = looks.fetch_add(1, Ordering::Relaxed) % 1_000;
            said.lock().replace(RUNNING, &format!(".{look:03}Z"))
        };
        let site = Site::new(Metrics::new(), || Ok(()))
            .policy(PAGE_POLICY)
            .page("/", "text/html; charset=utf-8", || PAGE.to_owned())
            .page("/status.json", "application/json", answer);
        let server = MetricsServer::start(&MetricsPlace::at("127.0.0.1:0"), site).expect("a free port");
        StandIn { url: format!("http://{}/", server.address()), status, _server: server }
    }

    /// Sets the answer from now on. A time that ends in `.000Z` advances by itself.
    pub fn say(&self, status: &Value) {
        *self.status.lock() = status.to_string();
    }
}
