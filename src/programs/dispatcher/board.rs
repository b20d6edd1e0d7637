//! The group's status as the reporter last saw it, for metrics and the status page.

use parking_lot::Mutex;
use serde_json::Value;

use crate::base::id::DispatcherId;
use crate::programs::status::{Status, failure_to_json};

/// The last check, or why it failed; nothing before the first.
type LastCheck = Option<Result<Status, String>>;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<LastCheck>);

impl Board {
    /// A check was made.
    pub(super) fn post(&self, seen: Result<Status, String>) {
        *self.0.lock() = Some(seen);
    }

    /// A figure of the last check; `None` if that failed.
    pub(super) fn read<T>(&self, pick: impl FnOnce(&Status) -> T) -> Option<T> {
        self.0.lock().as_ref()?.as_ref().ok().map(pick)
    }

    /// What the status page shows of `group`.
    pub(super) fn json(&self, group: &str, served_by: &DispatcherId) -> Value {
        let mut shown = match &*self.0.lock() {
            Some(Ok(status)) => status.to_json(),
            Some(Err(failure)) => failure_to_json(group, failure),
            None => failure_to_json(group, "this dispatcher has just started and has not checked the group yet"),
        };
        shown["served_by"] = Value::from(served_by.as_str());
        shown
    }
}
