//! Where metrics are served.

use crate::base::setting::ConfigError;
use crate::process::config::Default::Found;
use crate::process::config::{Setting, Values, check_host_port};

/// The address of the metrics server.
pub const METRICS_ADDR: Setting = Setting::new(
    "metrics-addr",
    "HOST:PORT",
    Found("off"),
    "Where to serve /metrics, /healthz and /readyz; dispatchers serve the status page there, too",
);

/// Reads the address; `None`: metrics are served nowhere.
pub fn metrics_addr(values: &Values<'_>) -> Result<Option<String>, ConfigError> {
    match values.text("metrics-addr")?.filter(|address| address != "off") {
        Some(address) => {
            check_host_port("metrics-addr", &address, "an address, host:port, or off").map(|()| Some(address))
        }
        None => Ok(None),
    }
}
