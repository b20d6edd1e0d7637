//! How a setting is read: flags, their environment variables and secret files, checked once at start.
//!
//! Each setting `--some-name` may also be given as `ONCECAST_SOME_NAME`; a secret may also be given as the path of a
//! file in `ONCECAST_SOME_NAME_FILE`. A flag takes precedence over the variable, and the variable over the file. A
//! value that can't be used stops the program before it does anything, with a
//! [`ConfigError`](crate::base::setting::ConfigError) that names the setting, its value and the values that it accepts.
//!
//! The settings themselves are defined beside what they configure. Nothing in this folder knows them.
//!
//! `warnings` reports likely mistakes that are no reason to stop: variables that no program knows, secrets that are
//! given twice, and secret files that every user can read. A variable has the same meaning for all programs, so one
//! file of variables may serve all. A URL with a password is never shown, and only a secret setting accepts one.

mod command;
mod secret;
mod setting;
mod suggestion;
mod values;
mod warnings;

pub use self::command::command;
pub use self::setting::{Default, Setting};
pub use self::suggestion::completed;
pub use self::values::{Environment, PLAIN_NAME, Values, check_host_port, environment, is_plain_name, quoted};
pub use self::warnings::warnings;
