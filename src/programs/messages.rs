//! What the tools that show messages have in common: how a message is named on the command line, and how it is shown.
//! Pure.

use std::collections::BTreeSet;

use clap::{Arg, ArgMatches, Command};
use data_encoding::BASE64;
use serde_json::Value;

use crate::base::text::Escaped;
use crate::ledger::LaneNumber;

const IDS: &str = "ids";

/// A message as the command line names it: `ID`, or `LANE/ID` in a group with several lanes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageName {
    /// The lane, if it is named.
    pub lane: Option<LaneNumber>,
    /// The id, in lower case.
    pub id: String,
}

impl MessageName {
    fn parse(text: &str) -> Option<MessageName> {
        let (lane, id) = match text.split_once('/') {
            Some((lane, id)) => (Some(lane.parse().ok()?), id),
            None => (None, text),
        };
        let plain = id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit());
        plain.then(|| MessageName { lane, id: id.to_ascii_lowercase() })
    }
}

/// The command with ids of messages behind its settings, at least so many. `shown_by`: what shows such ids.
pub fn with_ids(least: usize, shown_by: &str, command: Command) -> Command {
    let help = format!(
        "The messages' ids: 16 hexadecimal digits, as {shown_by} and the logs show them, in a group with several \
         lanes behind the lane's number: LANE/ID"
    );
    let problem = format!(
        "an id has 16 hexadecimal digits, as {shown_by} and the logs show it, and may have its lane's number before \
         it, as in 3/0006423f1c8a5e10"
    );
    let parse = move |text: &str| MessageName::parse(text).ok_or_else(|| problem.clone());
    let ids = Arg::new(IDS).value_name("ID").num_args(least..).required(least > 0).value_parser(parse).help(help);
    command.arg(ids)
}

/// The messages that were named.
pub fn ids(matches: &ArgMatches) -> BTreeSet<MessageName> {
    let ids = matches.try_get_many::<MessageName>(IDS).ok().flatten();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_named_by_its_id_or_by_its_lane_and_id() {
        let name = |lane| Some(MessageName { lane, id: "0006423f1c8a5e1f".to_owned() });
        assert_eq!(MessageName::parse("0006423F1C8A5E1F"), name(None));
        assert_eq!(MessageName::parse("3/0006423f1c8a5e1f"), name(Some(3)));
        assert_eq!(MessageName::parse("0/0006423f1c8a5e1f"), name(Some(0)));
        for text in ["", "3/", "/0006423f1c8a5e1f", "65536/0006423f1c8a5e1f", "-1/0006423f1c8a5e1f", "0006423f1c8a5e1"]
        {
            assert_eq!(MessageName::parse(text), None, "{text}");
        }
    }
}
