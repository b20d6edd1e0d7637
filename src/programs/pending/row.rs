//! A pending message as it is shown. Pure.

use std::time::Duration;

use serde_json::{Value, json};

use crate::base::text::{Escaped, beginning};
use crate::ledger::{Location, Looked};
use crate::process::log::Timestamp;
use crate::programs::lanes::LaneConfig;
use crate::programs::messages::{self, or_dash};
use crate::programs::status::json_text;

/// The most bytes of a channel in a list.
const SHOWN_CHANNEL: usize = 40;

/// A pending message, and where it is.
pub(super) struct Row<'a> {
    pub(super) lane: &'a LaneConfig,
    pub(super) looked: &'a Looked,
    /// `None`: the leader has not said.
    pub(super) location: Option<&'a Location>,
    /// Redis's clock, in microseconds since 1970.
    pub(super) now_us: u64,
}

impl Row<'_> {
    /// What stands above [`line`](Row::line).
    pub(super) fn header(lane: &LaneConfig) -> String {
        let width = lane.id_columns();
        let place = "where";
        format!("{:<width$}         age  delivery     bytes  {place:<40}  channel", "id")
    }

    /// The message on one line, without its payload.
    pub(super) fn line(&self, json: bool) -> String {
        if json {
            return json_text(&self.to_json());
        }
        let channel = self.channel();
        let shown = beginning(&channel, SHOWN_CHANNEL);
        let line = format!(
            "{}  {:>10}  {:>8}  {:>8}  {:<40}  {}{}",
            self.name(),
            seconds(self.age()),
            self.looked.delivery,
            self.looked.bytes,
            self.place(),
            or_dash(shown),
            if shown.len() < channel.len() { "…" } else { "" },
        );
        Escaped(line).to_string()
    }

    /// The message with its payload, on several lines.
    pub(super) fn whole(&self) -> String {
        let looked = self.looked;
        let mut lines = vec![
            ("id", self.name()),
            ("pending since", Timestamp(looked.id.0).to_string()),
            ("age", seconds(self.age())),
            ("delivery", looked.delivery.to_string()),
        ];
        if looked.replays > 0 {
            lines.push(("replays", looked.replays.to_string()));
        }
        if let Some(due) = self.due() {
            lines.push(("due in", seconds(due)));
        }
        lines.push(("where", self.place()));
        if looked.body.channel().is_some() {
            lines.push(("channel", self.channel()));
        }
        lines.push(("bytes", looked.bytes.to_string()));
        lines.push(("payload", String::from_utf8_lossy(looked.body.payload()).into_owned()));
        messages::lines(lines)
    }

    /// The message with its payload, as JSON.
    pub(super) fn whole_json(&self) -> String {
        let mut json = self.to_json();
        messages::add_bytes(&mut json, "payload", self.looked.body.payload());
        json_text(&json)
    }

    fn to_json(&self) -> Value {
        json!({
            "lane": self.lane.number,
            "id": self.looked.id.to_string(),
            "since": Timestamp(self.looked.id.0).to_string(),
            "age_s": self.age().as_millis() as f64 / 1_000.0,
            "delivery": self.looked.delivery,
            "replays": self.looked.replays,
            "due_in_ms": self.due().map(|due| due.as_millis() as u64),
            "channel": self.looked.body.channel().map(|_| self.channel()),
            "bytes": self.looked.bytes,
            "where": self.location.map(to_json),
        })
    }

    fn name(&self) -> String {
        self.lane.name_of(&self.looked.id.to_string())
    }

    /// An id is the time of intake, by the clock of the dispatcher that led then.
    fn age(&self) -> Duration {
        Duration::from_micros(self.now_us.saturating_sub(self.looked.id.0))
    }

    /// How long until its next delivery, as far as Redis knows.
    fn due(&self) -> Option<Duration> {
        let due_us = self.looked.due_ms?.saturating_mul(1_000);
        due_us.checked_sub(self.now_us).map(Duration::from_micros)
    }

    fn channel(&self) -> String {
        String::from_utf8_lossy(self.looked.body.channel().unwrap_or_default()).into_owned()
    }

    fn place(&self) -> String {
        let ms = |ms: &u64| seconds(Duration::from_millis(*ms));
        match self.location {
            None => "?".to_owned(),
            Some(Location::At { for_ms, delivery: 0, consumer }) => format!("at {consumer} for {}", ms(for_ms)),
            Some(Location::At { for_ms, delivery, consumer }) => {
                format!("at {consumer} for {}, delivery {delivery}", ms(for_ms))
            }
            Some(Location::Recording { consumer }) => format!("being recorded for {consumer}"),
            Some(Location::Waiting) => "waits for a consumer".to_owned(),
            Some(Location::Behind) => "waits for an earlier one of its key".to_owned(),
            Some(Location::Delayed { due_ms }) => format!("waits for its time, in {}", ms(due_ms)),
            Some(Location::Settling) => "being settled".to_owned(),
            Some(Location::Stored) => "in Redis only, not read yet".to_owned(),
            Some(Location::Unknown) => "unknown to the leader".to_owned(),
        }
    }
}

fn to_json(location: &Location) -> Value {
    match location {
        Location::At { for_ms, delivery, consumer } => {
            let delivery = Some(delivery).filter(|delivery| **delivery > 0);
            json!({ "state": "at", "consumer": consumer, "for_ms": for_ms, "delivery": delivery })
        }
        Location::Recording { consumer } => json!({ "state": "recording", "consumer": consumer }),
        Location::Delayed { due_ms } => json!({ "state": "delayed", "due_in_ms": due_ms }),
        Location::Waiting | Location::Behind | Location::Settling | Location::Stored | Location::Unknown => {
            json!({ "state": location.to_string() })
        }
    }
}

/// In seconds, or in the two largest units.
fn seconds(time: Duration) -> String {
    let s = time.as_secs();
    match s {
        0..60 => format!("{:.1}s", time.as_millis() as f64 / 1_000.0),
        60..3_600 => format!("{}m {}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h {}m", s / 3_600, s / 60 % 60),
        _ => format!("{}d {}h", s / 86_400, s / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_their_largest_units() {
        let shown = [0, 1_250, 61_000, 3_600_000, 90_000_000].map(|ms| seconds(Duration::from_millis(ms)));
        assert_eq!(shown, ["0.0s", "1.2s", "1m 1s", "1h 0m", "1d 1h"]);
    }
}
