//! The setting of the handler `http`.

use super::target::Target;
use crate::base::setting::ConfigError;
use crate::process::config::Default::Found;
use crate::process::config::{Setting, Values};

/// What a URL looks like, for errors.
const URL_FORM: &str = "http://[user:password@]host[:port][/path][?query]";

/// Where messages are sent.
pub const URL: Setting = Setting::new(
    "url",
    "URL",
    Found("none"),
    "With --handler http: each message is sent there by POST, http://[user:password@]host[:port][/path][?query]",
)
.secret();

/// Reads and checks the URL.
pub fn read(values: &Values<'_>) -> Result<Target, ConfigError> {
    let url = values.required(URL.name, URL_FORM)?;
    // The value is not repeated: it may have a password.
    let problem = |problem| ConfigError::new(URL.name, format_args!("a URL that can't be used ({problem})"), URL_FORM);
    Target::parse(&url).map_err(problem)
}

/// Refuses the flag with another handler. The variable may stand in a file that several consumers share.
pub fn check_unused(values: &Values<'_>) -> Result<(), ConfigError> {
    if values.is_flag_given(URL.name) {
        return Err(ConfigError::new(URL.name, "a URL without --handler http", "a URL only with --handler http"));
    }
    Ok(())
}
