//! A dead letter: whether it is selected, and how it is shown. Pure.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::settings::Selection;
use crate::base::text::{Escaped, beginning};
use crate::ledger::reading::Entry;
use crate::process::log::Timestamp;
use crate::programs::lanes::LaneConfig;
use crate::programs::messages::{self, or_dash};
use crate::programs::status::json_text;

/// The most bytes of a reason in a list.
const SHOWN_REASON: usize = 120;

/// See the module's text.
#[derive(Clone, Copy)]
pub(super) struct Letter<'a>(pub(super) &'a Entry);

impl<'a> Letter<'a> {
    /// What stands above [`line`](Letter::line).
    pub(super) fn header(lane: &LaneConfig) -> String {
        let width = lane.id_columns();
        format!("{:<width$}  died                      deliveries  replays     bytes  consumer          reason", "id")
    }

    /// The message's id, as it is written.
    pub(super) fn id(self) -> String {
        self.0.text("id")
    }

    /// What was kept of the payload.
    pub(super) fn payload(self) -> &'a [u8] {
        self.0.field("payload").unwrap_or_default()
    }

    fn number(self, name: &str) -> u64 {
        self.0.text(name).parse().unwrap_or_default()
    }

    /// Whether only the beginning of the message was kept: it was never pending.
    fn is_truncated(self) -> bool {
        self.number("deliveries") == 0
    }

    /// Whether all conditions hold, except that on the time. `ids` are those of the letter's lane.
    pub(super) fn is_in(self, selection: &Selection, ids: &BTreeSet<String>) -> bool {
        let Selection { names, reason, consumer, since: _ } = selection;
        (names.is_empty() || ids.contains(&self.id()))
            && reason.as_ref().is_none_or(|glob| glob.matches(self.0.field("reason").unwrap_or_default()))
            && consumer.as_ref().is_none_or(|consumer| self.0.field("consumer") == Some(consumer.as_bytes()))
    }

    /// The letter on one line, without its payload.
    pub(super) fn line(self, lane: &LaneConfig, json: bool) -> String {
        if json {
            return json_text(&self.to_json(lane));
        }
        let width = lane.id_columns();
        let reason = self.0.text("reason");
        let shown = beginning(&reason, SHOWN_REASON);
        let line = format!(
            "{:<width$}  {}  {:>10}  {:>7}  {:>8}  {:<16}  {}{}{}",
            lane.name_of(&self.id()),
            self.died(),
            self.number("deliveries"),
            self.number("replays"),
            self.payload().len(),
            or_dash(&self.0.text("consumer")),
            if self.is_truncated() { "(truncated) " } else { "" },
            shown,
            if shown.len() < reason.len() { "…" } else { "" },
        );
        Escaped(line).to_string()
    }

    /// The letter with its payload, on several lines.
    pub(super) fn whole(self, lane: &LaneConfig) -> String {
        let mut lines = vec![
            ("id", lane.name_of(&self.id())),
            ("died", self.died()),
            ("reason", self.0.text("reason")),
            ("consumer", or_dash(&self.0.text("consumer")).to_owned()),
            ("deliveries", self.number("deliveries").to_string()),
        ];
        if self.number("replays") > 0 {
            lines.extend([
                ("replays", self.number("replays").to_string()),
                ("deliveries before", self.number("earlier_deliveries").to_string()),
                ("first died", Timestamp(self.number("first_failed_ms").saturating_mul(1_000)).to_string()),
                ("first reason", self.0.text("first_reason")),
            ]);
        }
        if let Some(channel) = self.0.field("channel") {
            lines.push(("channel", String::from_utf8_lossy(channel).into_owned()));
        }
        let kept = if self.is_truncated() { " (only its beginning was kept)" } else { "" };
        lines.push(("bytes", format!("{}{kept}", self.payload().len())));
        lines.push(("payload", String::from_utf8_lossy(self.payload()).into_owned()));
        messages::lines(lines)
    }

    /// The letter with its payload, as JSON: as text, or in base64 if it is not UTF-8.
    pub(super) fn whole_json(self, lane: &LaneConfig) -> String {
        let mut json = self.to_json(lane);
        messages::add_bytes(&mut json, "payload", self.payload());
        json_text(&json)
    }

    fn to_json(self, lane: &LaneConfig) -> Value {
        let text = |name: &str| self.0.field(name).map(|_| self.0.text(name));
        let replays = self.number("replays");
        let earlier = (replays > 0).then(|| {
            json!({
                "deliveries": self.number("earlier_deliveries"),
                "first_died": Timestamp(self.number("first_failed_ms").saturating_mul(1_000)).to_string(),
                "first_reason": text("first_reason"),
            })
        });
        json!({
            "lane": lane.number,
            "id": self.id(),
            "entry": self.0.id,
            "died": self.died(),
            "reason": text("reason"),
            "consumer": text("consumer").filter(|consumer| !consumer.is_empty()),
            "deliveries": self.number("deliveries"),
            "replays": replays,
            "before_replay": earlier,
            "channel": text("channel"),
            "bytes": self.payload().len(),
            "truncated": self.is_truncated(),
        })
    }

    fn died(self) -> String {
        Timestamp(self.0.at_ms().saturating_mul(1_000)).to_string()
    }
}
