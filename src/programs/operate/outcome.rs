//! What a change of a group's settings came to. Pure.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::lane::{DeliveryState, Limit};
use crate::ledger::{GroupSettings, LaneNumber, PauseChange, SettingsChange};
use crate::programs::status::delivery::{DeliveryReport, paused_in_words};
use crate::programs::status::json_text;
use crate::programs::status::report::Report;

/// The exit code if the leader has not confirmed a change.
const UNCONFIRMED: u8 = 3;

/// See the module's text.
pub(super) struct Outcome {
    /// What is set in Redis.
    pub(super) settings: GroupSettings,
    pub(super) leader: Leader,
}

/// Whether the leader keeps to what is set.
pub(super) enum Leader {
    /// It says so.
    Confirmed { id: String, delivery: DeliveryReport, in_flight: u64 },
    /// This one does not say so.
    Silent(String),
    /// There is none.
    None,
}

impl Leader {
    /// What the leader's report says of these settings.
    pub(super) fn of(id: String, report: Option<Report>, settings: &GroupSettings) -> Leader {
        let Some(report) = report.filter(|report| report.leads) else { return Leader::Silent(id) };
        let in_flight = report.consumers.iter().map(|consumer| consumer.in_flight).sum();
        match report.delivery.filter(|delivery| delivery.keeps_to(settings)) {
            Some(delivery) => Leader::Confirmed { id, delivery, in_flight },
            None => Leader::Silent(id),
        }
    }
}

impl Outcome {
    /// 0, or 3 if there is a leader that has not confirmed it.
    pub(super) fn exit_code(&self) -> u8 {
        if matches!(self.leader, Leader::Silent(_)) { UNCONFIRMED } else { 0 }
    }

    /// As text or as JSON, with the end of the line.
    pub(super) fn shown(&self, lane: LaneNumber, change: &SettingsChange, json: bool) -> String {
        if json {
            return json_text(&self.to_json(lane)) + "\n";
        }
        let mut text = self.pause_in_words(change) + "\n";
        if change.pause.is_none() {
            let (most, rate) = self.limits_in_words();
            // Writing to a text can't fail.
            let _ = writeln!(text, "max in flight: {most}\nrate: {rate}");
        }
        let _ = match &self.leader {
            Leader::Confirmed { id, .. } => writeln!(text, "the leader {id} keeps to this"),
            Leader::Silent(id) => writeln!(
                text,
                "the leader {id} has not confirmed this yet: it may hang, or be of a release that does not know it"
            ),
            Leader::None => writeln!(
                text,
                "no leader: the next one will keep to this; if one should lead, check --group and --redis-url"
            ),
        };
        text
    }

    fn pause_in_words(&self, change: &SettingsChange) -> String {
        let Some(pause) = &self.settings.pause else {
            let is_over = matches!(change.pause, Some(PauseChange::Pause(..)));
            return if is_over { "the pause is over already" } else { "not paused" }.to_owned();
        };
        let words = paused_in_words(pause);
        match self.leader {
            Leader::Confirmed { in_flight, .. } => format!("{words}; messages in flight: {in_flight}"),
            Leader::Silent(_) | Leader::None => words,
        }
    }

    /// The limits that hold, and where they come from.
    fn limits_in_words(&self) -> (String, String) {
        let DeliveryState { max_in_flight, rate, .. } = match &self.leader {
            Leader::Confirmed { delivery, .. } => delivery.0.clone(),
            Leader::Silent(_) | Leader::None => DeliveryState {
                pause: None,
                max_in_flight: self.settings.max_in_flight.map(|value| Limit { value, of_group: true }),
                rate: self.settings.rate.map(|value| Limit { value, of_group: true }),
            },
        };
        let of = |of_group| if of_group { "by oncecast set" } else { "by the leader's own settings" };
        let unset = match self.leader {
            Leader::Confirmed { .. } => "no limit",
            Leader::Silent(_) | Leader::None => "as the leader's own settings say",
        };
        (
            max_in_flight.map_or(unset.to_owned(), |Limit { value, of_group }| format!("{value}, {}", of(of_group))),
            rate.map_or(unset.to_owned(), |Limit { value, of_group }| format!("{value}, {}", of(of_group))),
        )
    }

    fn to_json(&self, lane: LaneNumber) -> Value {
        let limit = |value| Limit { value, of_group: true };
        let set = DeliveryReport(DeliveryState {
            pause: self.settings.pause.clone(),
            max_in_flight: self.settings.max_in_flight.map(limit),
            rate: self.settings.rate.map(|value| Limit { value, of_group: true }),
        });
        let set = set.to_json();
        let (leader, confirmed, delivery, in_flight) = match &self.leader {
            Leader::Confirmed { id, delivery, in_flight } => {
                (Some(id), true, Some(delivery.to_json()), Some(in_flight))
            }
            Leader::Silent(id) => (Some(id), false, None, None),
            Leader::None => (None, false, None, None),
        };
        json!({
            "lane": lane,
            "paused": set["paused"],
            "max_in_flight": set["max_in_flight"],
            "rate": set["rate"],
            "leader": leader,
            "confirmed": confirmed,
            "delivery": delivery,
            "in_flight": in_flight,
        })
    }
}
