//! What holds a group's deliveries back, as its leader reports it: a pause and limits. Pure.

use std::time::Duration;

use serde_json::{Value, json};

use crate::base::delivery_rate::DeliveryRate;
use crate::base::text::Quoted;
use crate::lane::{DeliveryState, Limit};
use crate::ledger::{GroupSettings, Pause, PauseEnd};
use crate::process::log::Timestamp;

/// A pause that lasts longer needs attention. The alert `OncecastPaused` has the same number.
pub const LONG_PAUSE: Duration = Duration::from_secs(3_600);

/// A limit of the group, as reports name it.
const OF_GROUP: &str = "group";
/// A limit of the leader.
const OF_DISPATCHER: &str = "dispatcher";

/// What is set, as a tool reads it from a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeliveryReport(pub DeliveryState);

impl DeliveryReport {
    /// The JSON that is written. Times are in milliseconds since 1970 by the clock of Redis.
    pub fn to_json(&self) -> Value {
        let DeliveryState { pause, max_in_flight, rate } = &self.0;
        let pause =
            pause.as_ref().map(|pause| json!({"since_ms": pause.since_ms, "until_ms": end_ms(pause), "by": pause.by}));
        json!({
            "paused": pause,
            "max_in_flight": max_in_flight.map(|limit| limit.value),
            "max_in_flight_of": max_in_flight.map(whose),
            "rate": rate.map(|limit| limit.value.to_string()),
            "rate_of": rate.map(whose),
        })
    }

    /// Reads it back; `None` if it is not an object.
    pub fn read(value: &Value) -> Option<DeliveryReport> {
        let object = value.as_object()?;
        let get = |name: &str| object.get(name).unwrap_or(&Value::Null);
        let of_group = |name: &str| get(name).as_str() == Some(OF_GROUP);
        let pause = Some(get("paused")).filter(|paused| paused.is_object()).map(|paused| Pause {
            until: paused["until_ms"].as_u64().map_or(PauseEnd::Never, PauseEnd::At),
            since_ms: paused["since_ms"].as_u64(),
            by: paused["by"].as_str().unwrap_or_default().to_owned(),
        });
        let most = get("max_in_flight").as_u64().filter(|most| *most > 0);
        let rate: Option<DeliveryRate> = get("rate").as_str().and_then(|text| text.parse().ok());
        Some(DeliveryReport(DeliveryState {
            pause,
            max_in_flight: most.map(|value| Limit { value, of_group: of_group("max_in_flight_of") }),
            rate: rate.map(|value| Limit { value, of_group: of_group("rate_of") }),
        }))
    }

    /// Whether the leader keeps to these settings of its group.
    pub fn keeps_to(&self, settings: &GroupSettings) -> bool {
        let DeliveryState { pause, max_in_flight, rate } = &self.0;
        let own = |of_group: bool| !of_group;
        let same_most = match settings.max_in_flight {
            Some(most) => *max_in_flight == Some(Limit { value: most, of_group: true }),
            None => max_in_flight.is_none_or(|limit| own(limit.of_group)),
        };
        let same_rate = match settings.rate {
            Some(value) => *rate == Some(Limit { value, of_group: true }),
            None => rate.is_none_or(|limit| own(limit.of_group)),
        };
        *pause == settings.pause && same_most && same_rate
    }

    /// For how long it has been paused at this time; `None` if it is not, or if that is not known.
    pub fn paused_for(&self, now_us: u64) -> Option<Duration> {
        let since_ms = self.0.pause.as_ref()?.since_ms?;
        Some(Duration::from_micros(now_us.saturating_sub(since_ms.saturating_mul(1_000))))
    }

    /// Everything that holds back, in words; `None` if nothing does.
    pub fn in_words(&self) -> Option<String> {
        let DeliveryState { pause, max_in_flight, rate } = &self.0;
        let parts = [
            pause.as_ref().map(paused_in_words),
            max_in_flight.map(|limit| format!("at most {} in flight ({})", limit.value, from(limit.of_group))),
            rate.map(|limit| format!("at most {} ({})", limit.value, from(limit.of_group))),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// `PAUSED since …, until …, by …`.
pub fn paused_in_words(pause: &Pause) -> String {
    let since = pause.since_ms.map_or(String::new(), |ms| format!(" since {}", time(ms)));
    let until = match pause.until {
        PauseEnd::Never => ", until oncecast resume".to_owned(),
        PauseEnd::At(ms) => format!(", until {}", time(ms)),
    };
    let by = if pause.by.is_empty() { String::new() } else { format!(", by {}", Quoted(&pause.by)) };
    format!("PAUSED{since}{until}{by}")
}

fn time(ms: u64) -> Timestamp {
    Timestamp(ms.saturating_mul(1_000))
}

fn end_ms(pause: &Pause) -> Option<u64> {
    match pause.until {
        PauseEnd::Never => None,
        PauseEnd::At(ms) => Some(ms),
    }
}

fn whose<T>(limit: Limit<T>) -> &'static str {
    if limit.of_group { OF_GROUP } else { OF_DISPATCHER }
}

/// Where a limit comes from, in words.
fn from(of_group: bool) -> &'static str {
    if of_group { "by oncecast set" } else { "by the dispatcher's settings" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> DeliveryState {
        let pause =
            Pause { until: PauseEnd::At(1_764_086_460_000), since_ms: Some(1_764_086_400_000), by: "me".into() };
        DeliveryState {
            pause: Some(pause),
            max_in_flight: Some(Limit { value: 5, of_group: true }),
            rate: Some(Limit { value: "2.5/m".parse().expect("a rate"), of_group: false }),
        }
    }

    #[test]
    fn it_reads_back() {
        let forever = Pause { until: PauseEnd::Never, since_ms: None, by: String::new() };
        for state in
            [state(), DeliveryState::default(), DeliveryState { pause: Some(forever), ..DeliveryState::default() }]
        {
            let report = DeliveryReport(state);
            assert_eq!(DeliveryReport::read(&report.to_json()), Some(report));
        }
        assert_eq!(DeliveryReport::read(&Value::Null), None);
        let strange = json!({"paused": 7, "max_in_flight": "many", "rate": "fast"});
        assert_eq!(DeliveryReport::read(&strange), Some(DeliveryReport::default()));
    }

    #[test]
    fn it_is_said_in_words() {
        assert_eq!(DeliveryReport::default().in_words(), None);
        assert_eq!(
            DeliveryReport(state()).in_words().expect("something"),
            "PAUSED since 2025-11-25T16:00:00.000Z, until 2025-11-25T16:01:00.000Z, by me; at most 5 in flight (by \
             oncecast set); at most 2.5/m (by the dispatcher's settings)"
        );
        let minutes = 2 * 60 * 1_000_000;
        assert_eq!(DeliveryReport(state()).paused_for(1_764_086_400_000_000 + minutes), Some(Duration::from_secs(120)));
    }

    #[test]
    fn a_leader_keeps_to_the_settings_of_its_group() {
        let report = DeliveryReport(state());
        let settings = GroupSettings { pause: state().pause, max_in_flight: Some(5), rate: None };
        assert!(report.keeps_to(&settings), "the rate is its own");
        for other in [
            GroupSettings { pause: None, ..settings.clone() },
            GroupSettings { max_in_flight: None, ..settings.clone() },
            GroupSettings { max_in_flight: Some(6), ..settings.clone() },
            GroupSettings { rate: Some("2.5/m".parse().expect("a rate")), ..settings.clone() },
        ] {
            assert!(!report.keeps_to(&other), "{other:?}");
        }
    }
}
