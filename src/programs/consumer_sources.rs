//! The setting `--consumers`: where a dispatcher finds its consumers.

use crate::base::setting::ConfigError;
use crate::lane::roster::ConsumerSource;
use crate::net::HAS_TLS;
use crate::process::config::{Values, check_host_port, quoted};
use crate::programs::common::{TLS_CA, TLS_CERT};

/// The setting's name.
const NAME: &str = "consumers";
const MAX_ENTRIES: usize = 1_024;
const TAKES: &str = "addresses separated by commas, each host:port, wss://host:port, dns:name:port or file:PATH";

/// Reads and checks the setting.
pub fn consumer_sources(values: &Values<'_>) -> Result<Vec<ConsumerSource>, ConfigError> {
    parse(&values.required(NAME, TAKES)?)
}

/// Checks the text of the setting.
pub fn parse(text: &str) -> Result<Vec<ConsumerSource>, ConfigError> {
    let entries: Vec<&str> = text.split(',').map(str::trim).collect();
    let sources: Vec<ConsumerSource> = entries.iter().map(|entry| ConsumerSource::of(entry)).collect();
    sources.iter().try_for_each(check)?;
    let key = |source: &ConsumerSource| match source.host_port() {
        Some(host_port) => (source.is_followed(), host_port.to_owned()),
        None => (true, source.to_string()),
    };
    let keys: Vec<_> = sources.iter().map(key).collect();
    if let Some(twice) = keys.iter().enumerate().find(|(i, key)| keys[..*i].contains(key)) {
        return Err(ConfigError::new(NAME, format_args!("{} twice", quoted(&twice.1.1)), TAKES));
    }
    if let Some(source) = sources.iter().find(|source| !HAS_TLS && source.is_secure() == Some(true)) {
        let problem = format!("{}, but TLS is not built in (feature `tls`)", quoted(&source.to_string()));
        return Err(ConfigError::new(NAME, problem, "host:port"));
    }
    if sources.len() > MAX_ENTRIES {
        let (problem, takes) = (format!("{} addresses", sources.len()), format!("at most {MAX_ENTRIES}"));
        return Err(ConfigError::new(NAME, problem, takes));
    }
    Ok(sources)
}

fn check(source: &ConsumerSource) -> Result<(), ConfigError> {
    match source {
        ConsumerSource::File(path) if path.as_os_str().is_empty() => {
            Err(ConfigError::new(NAME, "file: without a path", TAKES))
        }
        ConsumerSource::File(_) => Ok(()),
        ConsumerSource::Fixed(_) | ConsumerSource::Dns { .. } => {
            check_host_port(NAME, source.host_port().unwrap_or_default(), TAKES)
        }
    }
}

/// Whether a consumer has TLS, or may have it: a file lists some that do, or may later, if certificates are given.
pub fn may_be_secure(values: &Values<'_>, sources: &[ConsumerSource]) -> bool {
    let any = |wanted: Option<bool>| sources.iter().any(|source| source.is_secure() == wanted);
    let is_given = [TLS_CA.name, TLS_CERT.name].into_iter().any(|name| values.is_given(name));
    any(Some(true)) || any(None) && is_given
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<Vec<String>, String> {
        let sources = parse(text).map_err(|error| error.to_string())?;
        Ok(sources.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn entries_of_all_kinds_are_taken() {
        let text = "10.0.0.1:6969, dns:consumer:6969,file:/etc/oncecast/consumers,[::1]:7";
        assert_eq!(shown(text).expect("four entries").join(", "), text.replace(", ", ",").replace(',', ", "));
        // A name of one consumer, and the name of several, which may include it.
        assert!(shown("consumer:6969,dns:consumer:6969").is_ok());
    }

    #[test]
    fn mistakes_name_the_entry() {
        for (text, says) in [
            ("dns:consumer", "\"consumer\" (the port is missing)"),
            ("dns:consumer:1,dns:consumer:1", "\"consumer:1\" twice"),
            ("file:a,file:a", "\"file:a\" twice"),
            ("a:1,wss://a:1", "\"a:1\" twice"),
            ("file:", "file: without a path"),
            ("dns:http://c:1", "an address is not a URL"),
            ("dns:user:secret@c:1", "user or password (not repeated here)"),
        ] {
            let error = shown(text).expect_err(text);
            assert!(error.contains(says) && !error.contains("secret"), "{error}");
        }
    }
}
