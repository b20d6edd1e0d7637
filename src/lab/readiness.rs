//! Asks a dispatcher whether it is ready: whether it leads or could take over at once.

use std::time::Duration;

use crate::process::metrics::healthcheck::{Check, ask};

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// Whether `/readyz` on this port of 127.0.0.1 reports success. No answer means no.
pub fn is_ready(port: u16) -> bool {
    ask(&format!("127.0.0.1:{port}"), Check::Ready, ANSWER_LIMIT).is_ok()
}
