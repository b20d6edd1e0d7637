//! When a program's certificates end, as a metric. Any thread.

use crate::process::metrics::{Labels, Number};

/// Its name, without the prefix of all metrics.
pub const CERTIFICATE_METRIC: &str = "certificate_expiry_timestamp_seconds";
/// Its help.
pub const CERTIFICATE_HELP: &str = "When this program's certificate ends, by what it is used for";

/// A figure for each certificate in use. The ends are in seconds since 1970.
pub fn series_of(ends: Vec<(&'static str, Option<u64>)>) -> Vec<(Labels, Number)> {
    let known = ends.into_iter().filter_map(|(used_for, end)| Some((used_for, end?)));
    known.map(|(used_for, end)| (vec![("use", used_for.to_owned())], Number::Whole(end))).collect()
}
