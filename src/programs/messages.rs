//! What the tools that show messages have in common: ids on the command line, and how a message is shown. Pure.

use std::collections::BTreeSet;

use clap::{Arg, ArgMatches, Command};
use data_encoding::BASE64;
use serde_json::Value;

use crate::base::text::Escaped;

const IDS: &str = "ids";

/// The command with ids of messages behind its settings, at least so many. `shown_by`: what shows such ids.
pub fn with_ids(least: usize, shown_by: &str, command: Command) -> Command {
    let help = format!("The messages' ids: 16 hexadecimal digits, as {shown_by} and the logs show them");
    let problem = format!("an id has 16 hexadecimal digits, as {shown_by} and the logs show it");
    let parse = move |text: &str| -> Result<String, String> {
        let plain = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        plain.then(|| text.to_ascii_lowercase()).ok_or_else(|| problem.clone())
    };
    let ids = Arg::new(IDS).value_name("ID").num_args(least..).required(least > 0).value_parser(parse).help(help);
    command.arg(ids)
}

/// The ids that were given, in lower case.
pub fn ids(matches: &ArgMatches) -> BTreeSet<String> {
    let ids = matches.try_get_many::<String>(IDS).ok().flatten();
    ids.map(|ids| ids.cloned().collect()).unwrap_or_default()
}

/// Adds bytes to an object: as text, or under `<name>_base64` if they are not UTF-8.
pub fn add_bytes(object: &mut Value, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object[name] = text.into(),
        Err(_) => object[format!("{name}_base64")] = BASE64.encode(bytes).into(),
    }
}

/// Names and values, one on each line, with what strangers wrote escaped.
pub fn lines<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    pairs.into_iter().map(|(name, value)| format!("{name:<18}{}\n", Escaped(value))).collect()
}

/// A dash for nothing.
pub fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}
