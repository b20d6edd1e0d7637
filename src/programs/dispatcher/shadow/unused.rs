//! The settings that a shadow has no use for, because it delivers nothing and never leads.

use crate::base::setting::ConfigError;
use crate::process::config::Values;

const UNUSED: [&str; 18] = [
    "consumers",
    "tls-ca",
    "tls-cert",
    "tls-key",
    "link-secret-file",
    "stream-maxlen",
    "lease-ttl-ms",
    "hand-over-every-ms",
    "link-timeout-ms",
    "max-deliveries",
    "retry",
    "max-in-flight",
    "rate",
    "order-key",
    "wait-replicas",
    "bundles",
    "ring-bytes",
    "ready-bytes",
];

/// As flags they are a mistake. As variables they are not: the file of the group's dispatchers may serve a shadow, too.
pub fn refuse_unused(values: &Values<'_>) -> Result<(), ConfigError> {
    const TAKES: &str = "no value with --shadow: a shadow delivers nothing and never leads";
    match UNUSED.into_iter().find(|name| values.is_flag_given(name)) {
        Some(name) => Err(ConfigError::new(name, "a value with --shadow", TAKES)),
        None => Ok(()),
    }
}
